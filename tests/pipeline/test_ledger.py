"""What is done stays done: hashes follow what decides a clip's bytes, and a record is written once, by one attempt."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.config import ModelConfig
from pipeline.errors import StoreError
from pipeline.ledger import Ledger, NotARecord, failed_key, model_hash, record_key, settings_hash
from pipeline.store import Store, open_store
from pipeline.types import ClipFailure, ImageRef, JsonDict
from tests.clips import MEDIA, make_clip, make_record
from tests.configured import load_model
from tests.models import small_model

IMAGE = ImageRef(uri="/in/a.png", data=None, identity="1" * 64, height=300, width=400)


@pytest.fixture(params=["disk", "moto", pytest.param("swift", marks=pytest.mark.s3)])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Ledger:
    place = str(tmp_path) if request.param == "disk" else request.getfixturevalue(f"{request.param}_s3")
    return Ledger(open_store(f"{place}/out"))


def hash_of(**changes: Any) -> str:
    return settings_hash(make_clip(**changes), model_hash="m", media=MEDIA)


def test_a_hash_is_sixteen_hex_digits_and_the_same_tomorrow() -> None:
    """Pinned: a change of the way it is computed would render everything anew, everywhere."""
    assert hash_of() == "2398973612bc317d"


@pytest.mark.parametrize(
    "changes",
    [
        {"prompt": "a blue ball"},
        {"negative_prompt": "x"},
        {"image": IMAGE},
        {"audio": False},
        {"resolution": "128P"},
        {"ratio": "1:1"},
        {"duration_s": 4},
        {"seed": 8},
        {"steps": 9},
        {"guidance": 5.0},
    ],
    ids=str,
)
def test_what_decides_a_clip_changes_its_hash(changes: dict[str, Any]) -> None:
    assert hash_of(**changes) != hash_of()


@pytest.mark.parametrize("changes", [{"priority": 5}, {"row": 3}, {"clip_id": "b"}], ids=str)
def test_what_does_not_decide_a_clip_keeps_its_hash(changes: dict[str, Any]) -> None:
    assert hash_of(**changes) == hash_of()


def test_an_images_content_counts_and_its_address_does_not() -> None:
    moved = replace(IMAGE, uri=None, data=b"...")
    assert hash_of(image=moved) == hash_of(image=IMAGE)
    assert hash_of(image=replace(IMAGE, identity="2" * 64)) != hash_of(image=IMAGE)


@pytest.mark.parametrize("name", list(MEDIA.__dataclass_fields__))
def test_every_media_setting_changes_the_hash(name: str) -> None:
    change: dict[str, Any] = {name: "slow" if name == "preset" else getattr(MEDIA, name) + 1}
    other = replace(MEDIA, **change)
    clip = make_clip()
    assert settings_hash(clip, model_hash="m", media=other) != settings_hash(clip, model_hash="m", media=MEDIA)


def test_weights_and_config_change_the_hash() -> None:
    clip, model = make_clip(), small_model()
    hashes = [
        model_hash(model, "w"),
        model_hash(model, "v"),
        model_hash(replace(model, fps=24), "w"),
        model_hash(replace(model, sampling=replace(model.sampling, flow_shift=4.0)), "w"),
        model_hash(replace(model, compiled=True), "w"),
        model_hash(replace(model, compute_dtype="bfloat16"), "w"),
        model_hash(replace(model, compute_dtype="bfloat16", fp8=True), "w"),
    ]
    assert len({settings_hash(clip, model_hash=each, media=MEDIA) for each in hashes}) == len(hashes)


def test_what_the_foal_made_stays_done_when_models_get_more_settings() -> None:
    """Another hash would render every clip of every output again: never by accident."""
    assert model_hash(load_model("foal"), "w") == "654306b65bb8adb3"


def test_defaults_and_limits_of_a_config_do_not_change_the_hash() -> None:
    """Clips that name their own values are not rendered again because another default was chosen for the rest."""
    model = small_model()
    other = replace(
        model,
        default_ratio="1:1",
        durations_s=(3, 4),
        default_duration_s=4,
        text_max_tokens=100,
        sampling=replace(model.sampling, steps=7, negative_prompt="dull"),
    )
    assert model_hash(other, "w") == model_hash(model, "w")


def test_another_size_behind_the_same_name_changes_the_hash() -> None:
    clip = make_clip()
    cropped = replace(clip, shape=replace(clip.shape, height=clip.shape.height - 2))
    hashes = {settings_hash(each, model_hash="m", media=MEDIA) for each in (clip, cropped)}
    assert len(hashes) == 2


def test_spelling_and_order_of_a_config_do_not_change_the_hash() -> None:
    model = small_model()
    turned: Mapping[str, Any] = MappingProxyType(
        {
            name: MappingProxyType(dict(reversed(list(ratios.items()))))
            for name, ratios in reversed(list(model.sizes.items()))
        }
    )
    same: ModelConfig = replace(model, sizes=turned, sampling=replace(model.sampling, flow_shift=5))
    assert model_hash(same, "w") == model_hash(model, "w")


@given(st.text(), st.text())
def test_two_texts_never_share_a_hash(one: str, other: str) -> None:
    assert (hash_of(prompt=one) == hash_of(prompt=other)) == (one == other)


def test_a_record_comes_back_as_it_was_written(ledger: Ledger) -> None:
    row = {"prompt": "红色的球\n'q'", "note": None, "n": 1.5, "deep": [{"a": 1}]}
    record = make_record(make_clip("free.id-1"), row=row)
    assert ledger.done_keys() == set()
    assert ledger.record(record) is True
    assert ledger.done_keys() == {record.key}
    assert ledger.read_record(record.key) == record
    assert list(ledger.read_records([record.key])) == [record]


def test_a_record_without_sound_names_no_wav(ledger: Ledger) -> None:
    record = make_record(make_clip(audio=False))
    ledger.record(record)
    again = ledger.read_record(record.key)
    assert set(again.finished.files) == {"mp4", "jpg"}
    assert again.finished.probe.audio_duration_s is None


def test_a_record_is_json_that_people_can_read(ledger: Ledger) -> None:
    record = make_record(make_clip(prompt="红色的球"))
    ledger.record(record)
    text = ledger.store.get(record.key).decode()
    assert "红色的球" in text
    values = json.loads(text)
    assert values["files"]["mp4"]["name"] == "clips/a.0a1b2c3d.mp4"
    assert values["settings"]["media"]["crf"] == 18


def test_the_first_attempt_stands_and_the_second_is_told(ledger: Ledger) -> None:
    first, second = (make_record(make_clip(), attempt=attempt) for attempt in ("11111111", "22222222"))
    assert ledger.record(first) is True
    assert ledger.record(second) is False
    assert ledger.read_record(first.key) == first


class ForgetfulStore(Store):
    """A real store whose answer to the first create-only write is lost: obstore tries again and finds the object."""

    def put(self, key: str, data: bytes, *, create: bool = False) -> bool:
        super().put(key, data, create=create)
        return super().put(key, data, create=create)


def test_our_own_write_whose_answer_was_lost_is_recognised(tmp_path: Path) -> None:
    ledger = Ledger(ForgetfulStore(str(tmp_path), open_store(str(tmp_path)).settings))
    record = make_record(make_clip())
    assert ledger.record(record) is True
    assert ledger.record(replace(record, finished=replace(record.finished, attempt="other"))) is False


def test_one_clip_with_two_settings_has_two_records(ledger: Ledger) -> None:
    for number in "12":
        ledger.record(make_record(make_clip(), settings_hash=number * 16))
    assert ledger.done_keys() == {record_key("a", "1" * 16), record_key("a", "2" * 16)}


def test_a_failure_may_be_replaced_and_ends_with_success(ledger: Ledger) -> None:
    def failure(message: str) -> ClipFailure:
        return ClipFailure(stage="finish", kind="EncodeError", message=message, retriable=False)

    key = failed_key("a", "f" * 16)
    for message in ("first", "second"):
        ledger.fail("a", settings_hash="f" * 16, failures=[failure(message)], row={"prompt": "红"})
    assert ledger.failed_keys() == {key}
    assert json.loads(ledger.store.get(key))["failures"][0]["message"] == "second"
    assert ledger.done_keys() == set()
    ledger.record(make_record(make_clip()))
    assert ledger.failed_keys() == set()


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"not json", b'{"attempt": "x", "files": {"mp4": {}}}'])
def test_what_is_no_record_is_said_to_be_none(tmp_path: Path, content: bytes) -> None:
    ledger = Ledger(open_store(str(tmp_path)))
    ledger.store.put("records/a.json", content)
    with pytest.raises(StoreError, match=r"records/a\.json is not a record: .*\. Delete it and run again"):
        ledger.read_record("records/a.json")


FILE = {"name": "clips/a.0a1b2c3d.mp4", "size_bytes": 3, "sha256": "0"}


@pytest.mark.parametrize(
    "change",
    [
        {"clip_id": "../../a"},
        {"attempt": 7},
        {"num_attempts": "1"},
        {"seed": True},
        {"seconds": []},
        {"files": {"mp4": {**FILE, "size_bytes": "3"}}},
        {"files": {"mp4": {**FILE, "name": "../../etc/passwd"}}},
        {"model": "half a sign \ud800"},
    ],
    ids=str,
)
def test_a_value_that_no_reader_could_do_with_makes_it_none(tmp_path: Path, change: JsonDict) -> None:
    ledger, record = Ledger(open_store(str(tmp_path))), make_record(make_clip())
    ledger.record(record)
    ledger.store.put(record.key, json.dumps(json.loads(ledger.store.get(record.key)) | change).encode())
    with pytest.raises(NotARecord):
        ledger.read_record(record.key)


def test_only_records_count_as_done(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    for key in ("records/readme.txt", "failed/a.1.json", "clips/a.mp4"):
        store.put(key, b"")
    assert Ledger(store).done_keys() == set()
