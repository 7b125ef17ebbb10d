"""Records against files: whatever happens to a delivered file is found and named, and sound output has no findings."""

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import StoreError
from pipeline.ledger import ClipRecord, Ledger
from pipeline.store import Store, open_store
from pipeline.types import JsonDict, MediaFile
from pipeline.verify import verify_output
from tests.clips import make_clip, make_record

MP4 = "clips/a.0a1b2c3d.mp4"
RECORD = f"records/a.{'f' * 16}.json"


def deliver(store: Store, clip_id: str, *, audio: bool = True) -> ClipRecord:
    """A record with files that are what it says, byte for byte."""
    record = make_record(make_clip(clip_id, audio=audio))
    files = {}
    for kind, file in record.finished.files.items():
        content = f"{clip_id} {kind} ".encode() * 1000
        store.put(file.name, content)
        digest = hashlib.sha256(content).hexdigest()
        files[kind] = MediaFile(name=file.name, size_bytes=len(content), sha256=digest)
    record = replace(record, finished=replace(record.finished, files=files))
    Ledger(store).record(record)
    return record


@pytest.fixture(params=["disk", "moto", pytest.param("swift", marks=pytest.mark.s3)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    place = str(tmp_path) if request.param == "disk" else request.getfixturevalue(f"{request.param}_s3")
    return filled(open_store(f"{place}/out"))


def filled(store: Store) -> Store:
    for clip_id in "abc":
        deliver(store, clip_id, audio=clip_id != "b")
    return store


def test_sound_output_has_no_findings(store: Store) -> None:
    assert verify_output(store) == []


def edit(change: Callable[[JsonDict], object]) -> Callable[[Store], None]:
    """Changes the record of clip a behind the ledger's back."""

    def act(store: Store) -> None:
        values = json.loads(store.get(RECORD))
        change(values)
        store.put(RECORD, json.dumps(values).encode())

    return act


def flip_a_bit(store: Store) -> None:
    content = bytearray(store.get(MP4))
    content[4321] ^= 1
    store.put(MP4, bytes(content))


DAMAGE: dict[str, tuple[Callable[[Store], object], str]] = {
    "a file is gone": (lambda store: store.delete(MP4), rf"^{RECORD}: {MP4}: got no such file, expected 6000 bytes$"),
    "a file is cut short": (
        lambda store: store.put(MP4, store.get(MP4)[:-1]),
        rf"^{RECORD}: {MP4}: got 5999 bytes, expected 6000 bytes$",
    ),
    "a file is empty": (lambda store: store.put(MP4, b""), rf"^{RECORD}: {MP4}: got 0 bytes, expected 6000 bytes$"),
    "one bit differs": (flip_a_bit, rf"^{RECORD}: {MP4}: got sha256 [0-9a-f]{{64}}, expected sha256 [0-9a-f]{{64}}$"),
    "a record is damaged": (lambda store: store.put(RECORD, b'{"attempt"'), rf"^{RECORD}: got .* is not a record: "),
    "a record names no mp4": (
        edit(lambda values: values["files"].pop("mp4")),
        rf"^{RECORD}: got no mp4, expected one$",
    ),
    "a record has sound but names no wav": (
        edit(lambda values: values["files"].pop("wav")),
        rf"^{RECORD}: got no wav, expected one$",
    ),
    "a record has another's name": (
        edit(lambda values: values.update(clip_id="z")),
        rf"^{RECORD}: got the record of records/z\.f+\.json, expected its own name$",
    ),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGE.values(), ids=DAMAGE)
def test_damage_is_one_finding(tmp_path: Path, damage: Callable[[Store], object], message: str) -> None:
    store = filled(open_store(str(tmp_path)))
    damage(store)
    (finding,) = verify_output(store)
    assert re.search(message, str(finding)), str(finding)


def test_all_damage_is_listed_by_record(store: Store) -> None:
    for clip_id in "ca":
        store.delete(f"clips/{clip_id}.0a1b2c3d.wav")
        store.delete(f"clips/{clip_id}.0a1b2c3d.jpg")
    found = [(finding.record[8], finding.file[-3:]) for finding in verify_output(store)]
    assert found == [("a", "jpg"), ("a", "wav"), ("c", "jpg"), ("c", "wav")]


def test_nothing_there_is_not_nothing_wrong(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="typo holds no records: there is nothing to verify"):
        verify_output(open_store(str(tmp_path / "typo")))


def test_what_cannot_be_listed_is_an_error_not_a_finding(moto_s3: str) -> None:
    with pytest.raises(StoreError, match="the bucket does not exist"):
        verify_output(open_store("s3://no-such-bucket"))


def test_files_that_no_record_names_do_not_matter(tmp_path: Path) -> None:
    """They are what a killed attempt leaves: for `audit` to count."""
    store = filled(open_store(str(tmp_path)))
    store.put("clips/a.99999999.mp4", b"half")
    assert verify_output(store) == []
