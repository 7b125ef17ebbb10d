"""Records against files, without a manifest: what `audit` finds there too (tests/pipeline/audit), and nothing else."""

import re
from pathlib import Path

import pytest

from pipeline.errors import StoreError
from pipeline.store import StorageSettings, Store, open_store
from pipeline.types import JsonDict
from pipeline.verify import verify_output
from tests.outputs import Output, key_of, read_values


def test_sound_output_has_no_findings(output: Output) -> None:
    assert verify_output(output.store) == []


def test_all_damage_is_listed_by_record(output: Output) -> None:
    for clip_id in "da":
        files: JsonDict = read_values(output.store, clip_id)["files"]
        for kind in ("wav", "jpg"):
            output.store.delete(files[kind]["name"])
    found = [(finding.record[8], finding.file[-3:], finding.got) for finding in verify_output(output.store)]
    assert found == [(clip_id, kind, "no such file") for clip_id in "ad" for kind in ("jpg", "wav")]


def test_what_is_no_record_is_one_finding(output: Output) -> None:
    output.store.put("records/x.json", b"[]")
    (finding,) = verify_output(output.store)
    assert re.match(r"records/x\.json: got .*/x\.json is not a record: ", str(finding))


def test_nothing_there_is_not_nothing_wrong(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="typo holds no records: there is nothing to verify"):
        verify_output(open_store(str(tmp_path / "typo")))


def test_what_cannot_be_listed_is_an_error_not_a_finding(moto_s3: str) -> None:
    with pytest.raises(StoreError, match="the bucket does not exist"):
        verify_output(open_store("s3://no-such-bucket"))


class FailingStore(Store):
    """Refuses to read one key."""

    def get(self, key: str) -> bytes:
        if key.startswith("records/b"):
            raise StoreError(f"cannot read {key}: the server is unwell")
        return super().get(key)


def test_what_cannot_be_read_is_an_error_not_a_finding(output: Output) -> None:
    """A server that is down has damaged nothing."""
    with pytest.raises(StoreError, match="the server is unwell"):
        verify_output(FailingStore(output.store.uri, StorageSettings()))


def test_what_a_crash_or_other_settings_leave_does_not_matter(output: Output) -> None:
    """Files without a record, and records without a row: for `audit` to count."""
    output.store.put("clips/a.99999999.mp4", b"half")
    output.store.delete("results.parquet")
    output.store.delete(key_of(output.store, "b"))
    assert verify_output(output.store) == []
