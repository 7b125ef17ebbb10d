"""What networks and servers do wrong for a moment is not noticed; what lasts is one error, after a bounded time.

Through a real proxy in front of a server, that misbehaves once in each verb.
"""

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline import store as stores
from pipeline.errors import StoreError
from pipeline.store import StorageSettings, Store, open_store
from pipeline.store_retries import TRANSIENT
from tests.s3_server import S3Server
from tests.storage_proxy import Fault, StorageProxy, What, proxied

QUICK = StorageSettings(retries=3, backoff_s=0.01, timeout_s=10)
PART_BYTES = 5 << 20  # no less is allowed
SILENCE = "Error performing DELETE http://127.0.0.1:80/bucket/key in 5.001547549s - HTTP error: error sending request"
CONTENT = bytes(range(256)) * 1000


@pytest.fixture
def proxy(moto_server: S3Server, moto_s3: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[StorageProxy]:
    with proxied(moto_server) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.server.endpoint_url)
        yield proxy


@pytest.fixture
def store(proxy: StorageProxy, moto_s3: str, monkeypatch: pytest.MonkeyPatch) -> Store:
    store = open_store(f"{moto_s3}/out", QUICK)
    store.put("object", CONTENT)
    for name in "abcde":
        store.put(f"listed/{name}", b"")
    monkeypatch.setattr(stores, "PART_BYTES", PART_BYTES)
    monkeypatch.setattr(stores, "LIST_CHUNK", 2)
    proxy.page_size = 2
    return store


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "large"
    path.write_bytes(os.urandom(PART_BYTES + 1000))
    return path


def upload(store: Store, path: Path) -> bool:
    store.put_file("uploaded", path)
    return store.get("uploaded") == path.read_bytes()


def remove(store: Store) -> bool:
    store.delete("object")
    return store.head("object") is None


def part(store: Store) -> bytes | None:
    found = store.get_part("object", 0, 1 << 20)
    return found.data if found else None


def names(store: Store) -> str:
    return "".join(each.key[-1] for each in store.list("listed"))


# Method and part of the address of the request that goes wrong, and whether all is well in the end.
VERBS: dict[str, tuple[str, str, Callable[[Store, Path], bool]]] = {
    "get": ("GET", "object", lambda store, _: store.get("object") == CONTENT),
    "get_range": ("GET", "object", lambda store, _: store.get_range("object", 5, 99_999) == CONTENT[5:99_999]),
    "get_part": ("GET", "object", lambda store, _: part(store) == CONTENT),
    "stream": ("GET", "object", lambda store, _: b"".join(store.stream("object")) == CONTENT),
    "head": ("HEAD", "object", lambda store, _: store.head("object") == len(CONTENT)),
    "put": ("PUT", "new", lambda store, _: store.put("new", b"1") and store.get("new") == b"1"),
    "put_file": ("PUT", "uploaded", lambda store, _: upload(store, Path(__file__))),
    "an upload in parts begins": ("POST", "?uploads", upload),
    "a part": ("PUT", "partNumber=2", upload),
    "an upload in parts ends": ("POST", "uploadId", upload),
    "list": ("GET", "list-type", lambda store, _: names(store) == "abcde"),
    "the list's second page": ("GET", "continuation-token", lambda store, _: names(store) == "abcde"),
    "delete": ("DELETE", "object", lambda store, _: remove(store)),
}
FAULTS: dict[str, tuple[What | int, str]] = {
    "hung up on": ("drop", ""),
    "the answer is lost": ("lose", ""),
    "half an answer": ("cut", ""),
    "500": (500, "InternalError"),
    "503": (503, "SlowDown"),
    "429": (429, "TooManyRequests"),
    "408": (408, "RequestTimeout"),
    "400 RequestTimeout": (400, "RequestTimeout"),
    "409 OperationAborted": (409, "OperationAborted"),
    "409 ConditionalRequestConflict": (409, "ConditionalRequestConflict"),
    "404 NoSuchUpload": (404, "NoSuchUpload"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_passes_is_not_noticed(proxy: StorageProxy, store: Store, large: Path, fault: str) -> None:
    what, code = FAULTS[fault]
    for verb, (method, path, is_well) in VERBS.items():
        if what in (400, 404, 409) and (method == "HEAD" or (what == 404 and "upload" not in verb)):
            continue  # these have no meaning without their code, which an answer to HEAD cannot tell
        proxy.faults[:] = [Fault(method=method, path=path, what=what, code=code)]
        assert is_well(store, large), verb
        assert proxy.faults[0].times == 0, f"{verb}: nothing went wrong, so nothing was tried"


def test_one_request_without_an_answer_is_not_noticed(proxy: StorageProxy, store: Store, large: Path) -> None:
    """Also where obstore asks once: what it creates may be there already, what it deletes may be gone."""
    short = open_store(store.uri, StorageSettings(retries=5, backoff_s=0.01, timeout_s=2))
    acts: dict[tuple[str, str], Callable[[], bool]] = {
        ("PUT", "created"): lambda: short.put("created", b"1", create=True),
        ("DELETE", "object"): lambda: remove(short),
        ("POST", "?uploads"): lambda: upload(short, large),
        ("POST", "uploadId"): lambda: upload(short, large),
    }
    for (method, path), act in acts.items():
        proxy.faults[:] = [Fault(method=method, path=path, what="stall")]
        assert act(), f"{method} {path}"
        assert proxy.faults[0].times == 0


def test_a_conflict_is_not_taken_for_an_object_that_is_there(proxy: StorageProxy, store: Store) -> None:
    """S3 says 409 where two writes meet, and 412 where the object exists."""
    for create in (True, False):
        proxy.faults[:] = [Fault(method="PUT", what=409, code="ConditionalRequestConflict")]
        assert store.put(f"created-{create}", b"1", create=create) is True
        assert store.get(f"created-{create}") == b"1"
    proxy.faults[:] = [Fault(method="PUT", what=409, code="InvalidBucketState", times=9)]
    with pytest.raises(StoreError, match=r"cannot write .*InvalidBucketState"):
        store.put("object", b"2")


def test_what_lasts_is_an_error_after_as_many_retries_as_are_set(proxy: StorageProxy, store: Store) -> None:
    for code, what in (("OperationAborted", 409), ("RequestTimeout", 400), ("SlowDown", 503)):
        proxy.asked.clear()
        proxy.faults[:] = [Fault(method="PUT", what=what, code=code, times=99)]
        with pytest.raises(StoreError, match=f"cannot write .*/a: .*{code}"):
            store.put("a", b"1")
        assert len(proxy.asked) == 1 + QUICK.retries


def test_what_does_not_pass_is_not_tried_again(proxy: StorageProxy, store: Store) -> None:
    for what, code in ((403, "AccessDenied"), (403, "ExpiredToken"), (400, "InvalidRequest"), (404, "NoSuchBucket")):
        proxy.asked.clear()
        proxy.faults[:] = [Fault(method="PUT", what=what, code=code, times=99)]
        with pytest.raises(StoreError, match=code):
            store.put("a", b"1")
        assert len(proxy.asked) == 1, code


def test_no_retry_begins_after_its_time(proxy: StorageProxy, moto_s3: str) -> None:
    store = open_store(f"{moto_s3}/out", StorageSettings(retries=99, backoff_s=0.02, retry_timeout_s=0.2))
    proxy.faults[:] = [Fault(method="PUT", what=409, code="OperationAborted", times=999)]
    with pytest.raises(StoreError, match="OperationAborted"):
        store.put("a", b"1")
    assert len(proxy.asked) < 12


def test_a_long_listing_has_patience_for_each_part_of_it(proxy: StorageProxy, store: Store) -> None:
    """Two retries in all would not do: each request of it fails once."""
    patient = open_store(store.uri, StorageSettings(retries=2, backoff_s=0.01))
    failed = set()

    def notice(request: str) -> None:
        if request not in failed:
            failed.add(request)
            proxy.faults.append(Fault(method="GET", what="cut"))

    proxy.notice = notice
    assert names(patient) == "abcde"
    assert len(failed) > 4


def test_an_upload_that_was_changed_on_the_way_is_refused(proxy: StorageProxy, store: Store, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(CONTENT)
    digest = hashlib.sha256(CONTENT).hexdigest()
    proxy.faults[:] = [Fault(method="PUT", what="rot", times=2)]
    with pytest.raises(StoreError, match=r"cannot write .*/clips/clip\.mp4: what arrived has another SHA-256"):
        store.put_file("clips/clip.mp4", path, sha256=digest)
    open_store(store.uri, StorageSettings(verify_uploads=False)).put_file("clips/clip.mp4", path, sha256=digest)


def test_every_sign_of_something_that_passes_is_tried() -> None:
    said = [code for _, code in FAULTS.values()] + ["request or response body error", SILENCE]
    assert [sign for sign, _ in TRANSIENT if not any(re.search(sign, each) for each in said)] == []
