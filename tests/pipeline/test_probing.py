"""What an output's storage can do is found out before anything is started, and nothing is left of the asking."""

import logging
import os
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from pipeline.errors import StoreError
from pipeline.probing import StoreMode, probe
from pipeline.store import Entry, StorageSettings, Store, open_store
from tests.s3_server import S3Server
from tests.storage_proxy import Fault, proxied

DAY_S = 86400.0
NO_RETRY = StorageSettings(retries=0)


@pytest.mark.parametrize(
    ("place", "create"), [("disk", "atomic"), ("moto", "atomic"), pytest.param("swift", "racy", marks=pytest.mark.s3)]
)
def test_a_server_is_known_for_what_it_does(
    place: str, create: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    address = str(tmp_path) if place == "disk" else request.getfixturevalue(f"{place}_s3")
    store = open_store(f"{address}/out")
    mode = probe(store)
    assert (mode.create, mode.clock_offset_s) == (create, 0.0)
    assert list(store.list()) == []


def test_a_server_that_ignores_create_only_is_found_out_and_said(
    moto_server: S3Server, moto_s3: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with proxied(moto_server) as proxy:
        proxy.without = {"if-none-match"}
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.server.endpoint_url)
        assert probe(open_store(f"{moto_s3}/out")).create == "ignored"
    (line,) = [record for record in caplog.records if record.name == "pipeline.probing"]
    assert line.levelno == logging.WARNING
    assert line.getMessage().endswith("create-only is ignored, it overwrites: leases go by age")


class PoliteStore(Store):
    """Says that an object is there, and overwrites it all the same."""

    def put(self, key: str, data: bytes, *, create: bool = False) -> bool:
        was_there = self.head(key) is not None
        return super().put(key, data) and not (create and was_there)


def test_what_counts_is_what_is_there_afterwards(tmp_path: Path) -> None:
    assert probe(PoliteStore(str(tmp_path), StorageSettings())).create == "ignored"


class CoarseStore(Store):
    """Tells whole seconds, as many servers do."""

    def list(self, prefix: str = "") -> Iterator[Entry]:
        for entry in super().list(prefix):
            yield entry._replace(modified_at=entry.modified_at.replace(microsecond=0) + timedelta(seconds=self.up))

    up = 0


class CoarseUpStore(CoarseStore):
    up = 1


@pytest.mark.parametrize("kind", [CoarseStore, CoarseUpStore])
def test_whole_seconds_are_no_difference_of_clocks(kind: type[Store], tmp_path: Path) -> None:
    assert probe(kind(str(tmp_path), StorageSettings())).clock_offset_s == 0.0


@pytest.mark.parametrize("offset_s", [-DAY_S, -30.0, 30.0, DAY_S])
def test_a_clock_that_is_off_is_measured_and_said(
    offset_s: float, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="pipeline.probing"):
        mode = probe(open_store(str(tmp_path)), clock=lambda: time.time() - offset_s)
    assert mode.clock_offset_s == pytest.approx(offset_s, abs=2.0)
    (line,) = [record for record in caplog.records if record.name == "pipeline.probing"]
    assert "its clock is" in line.getMessage()
    assert (line.levelno == logging.WARNING) == (abs(offset_s) == DAY_S)


def test_the_mode_is_one_line() -> None:
    assert str(StoreMode(create="atomic", clock_offset_s=0.0)) == "create-only writes are atomic"
    racy = StoreMode(create="racy", clock_offset_s=-86400.2)
    assert str(racy) == ("several creators at once may all win: leases go by age; its clock is -86400 s from ours")


def refused(store: Store) -> str:
    with pytest.raises(StoreError) as caught:
        probe(store)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_cannot_be_written_to_is_one_line(tmp_path: Path, moto_s3: str) -> None:
    (tmp_path / "file").write_text("in the way")
    assert "a file is where a folder should be" in refused(open_store(str(tmp_path / "file")))
    assert os.listdir(tmp_path) == ["file"]
    assert "the bucket does not exist" in refused(open_store("s3://no-such-bucket-here/out", NO_RETRY))


def test_rights_that_are_missing_are_told_apart(
    moto_server: S3Server, moto_s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To list, to read, to write and to delete, each refused for itself; what was written is removed if it may be."""
    with proxied(moto_server) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.server.endpoint_url)
        store = open_store(f"{moto_s3}/out", NO_RETRY)
        for method, path, verb in (("GET", "list-type", "list"), ("GET", "out/lease", "read"), ("PUT", "", "write")):
            proxy.faults[:] = [Fault(method=method, path=path, what=403, code="AccessDenied", times=99)]
            assert f"cannot {verb} {store.uri}/lease" in refused(store)
            proxy.faults.clear()
            assert list(store.list()) == []
        proxy.faults[:] = [Fault(method="DELETE", what=403, code="AccessDenied", times=99)]
        assert f"cannot delete {store.uri}/lease" in refused(store)
