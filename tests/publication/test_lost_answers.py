"""The server did what was asked and the answer was lost: what is ours is known for ours, and what is not is not."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import StoreError
from pipeline.ledger import Ledger
from pipeline.publication import upload
from pipeline.store import StorageSettings, Store, open_store
from tests.clips import make_clip, make_record
from tests.s3_server import S3Server
from tests.storage_proxy import Fault, StorageProxy, proxied

QUICK = StorageSettings(retries=2, backoff_s=0.01)
RECORD = make_record(make_clip())


@pytest.fixture
def proxy(moto_server: S3Server, moto_s3: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[StorageProxy]:
    with proxied(moto_server) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.server.endpoint_url)
        yield proxy


@pytest.fixture
def store(proxy: StorageProxy, moto_s3: str) -> Store:
    return open_store(f"{moto_s3}/out", QUICK)


@pytest.mark.parametrize("times", [1, 2])
def test_a_record_is_ours_though_a_second_try_finds_it_there(proxy: StorageProxy, store: Store, times: int) -> None:
    proxy.faults[:] = [Fault(method="PUT", path="records/", what="lose", times=times)]
    assert Ledger(store).record(RECORD) is True
    assert [request.split()[0] for request in proxy.asked if "records/" in request] == ["PUT"] * (times + 1) + ["GET"]


def test_a_record_of_another_attempt_stays_though_our_answers_are_lost(proxy: StorageProxy, store: Store) -> None:
    Ledger(store).record(RECORD)
    late = replace(RECORD, finished=replace(RECORD.finished, attempt="99999999"))
    proxy.faults[:] = [Fault(method="PUT", path="records/", what="lose")]
    assert Ledger(store).record(late) is False
    assert Ledger(store).read_record(RECORD.key) == RECORD


def test_a_record_that_meets_another_write_of_it_is_tried_again(proxy: StorageProxy, store: Store) -> None:
    """Amazon's answer to two creators at once is 409, to each of them."""
    proxy.faults[:] = [Fault(method="PUT", path="records/", what=409, code="ConditionalRequestConflict")]
    assert Ledger(store).record(RECORD) is True
    assert Ledger(store).read_record(RECORD.key) == RECORD


def test_a_record_whose_answers_are_all_lost_is_an_error_and_ours_the_next_time(
    proxy: StorageProxy, store: Store
) -> None:
    proxy.faults[:] = [Fault(method="PUT", path="records/", what="lose", times=3)]
    with pytest.raises(StoreError, match=r"cannot write .*/records/a\..*: the endpoint cannot be reached"):
        Ledger(store).record(RECORD)
    assert Ledger(store).record(RECORD) is True


def files(folder: Path) -> dict[str, Path]:
    paths = {kind: folder / f"one.0badcafe.{kind}" for kind in ("mp4", "wav", "jpg")}
    for path in paths.values():
        path.write_bytes(path.name.encode() * 100)
    return paths


def test_an_upload_whose_answer_is_lost_is_an_upload(proxy: StorageProxy, store: Store, tmp_path: Path) -> None:
    proxy.faults[:] = [Fault(method="PUT", path="clips/", what="lose", times=2)]
    uploaded = upload(store, files(tmp_path))
    assert {kind: store.get(file.name) for kind, file in uploaded.items()} == {
        kind: path.read_bytes() for kind, path in files(tmp_path).items()
    }


@pytest.mark.parametrize("fault", [Fault(what="rot"), Fault(what=403, code="QuotaExceeded")])
def test_an_attempt_that_cannot_be_uploaded_leaves_nothing(
    fault: Fault, proxy: StorageProxy, store: Store, tmp_path: Path
) -> None:
    """Its last file is refused, or does not arrive as it was sent."""
    proxy.faults[:] = [replace(fault, method="PUT", path=".jpg", times=99)]
    with pytest.raises(StoreError, match=r"cannot write .*/clips/one\.0badcafe\.jpg: "):
        upload(store, files(tmp_path))
    assert list(store.list()) == []


def test_why_an_upload_failed_is_said_though_it_cannot_be_tidied_up(
    proxy: StorageProxy, store: Store, tmp_path: Path
) -> None:
    proxy.faults[:] = [
        Fault(method="PUT", path=".jpg", what=403, code="QuotaExceeded", times=99),
        Fault(method="DELETE", what=403, code="AccessDenied", times=99),
    ]
    with pytest.raises(StoreError, match="no space left"):
        upload(store, files(tmp_path))
