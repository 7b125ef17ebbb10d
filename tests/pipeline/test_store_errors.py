"""Whatever storage raises becomes one StoreError that says what, where and why, within seconds."""

import inspect
import socket
import time
from pathlib import Path

import obstore.exceptions
import pytest

from pipeline.errors import StoreError
from pipeline.store import StorageSettings, open_store
from pipeline.store_errors import MEANINGS, explain, translated

NO_RETRY = StorageSettings(retries=0, connect_timeout_s=1, timeout_s=5, retry_timeout_s=1)


def test_an_absent_bucket_is_named_as_the_cause(moto_s3: str, tmp_path: Path) -> None:
    store = open_store("s3://no-such-bucket-here/x", NO_RETRY)
    (tmp_path / "f").write_bytes(b"1")
    for act in (
        lambda: store.get("a"),
        lambda: store.put("a", b"1"),
        lambda: store.put("a", b"1", create=True),
        lambda: store.put_file("a", tmp_path / "f"),
        lambda: store.delete("a"),
        lambda: list(store.list()),
    ):
        with pytest.raises(StoreError, match=r"s3://no-such-bucket-here/x.*: the bucket does not exist \(NoSuchBucket"):
            act()


@pytest.mark.s3
@pytest.mark.parametrize("wrong", [{"AWS_SECRET_ACCESS_KEY": "guess"}, {"AWS_ACCESS_KEY_ID": "nobody:here"}])
def test_wrong_credentials_are_named_as_the_cause(
    swift_s3: str, wrong: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in wrong.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StoreError, match=r"cannot write .*: (the credentials were refused|access denied)") as caught:
        open_store(swift_s3, NO_RETRY).put("a", b"1")
    assert "guess" not in str(caught.value)


@pytest.mark.parametrize(
    "endpoint",
    ["http://127.0.0.1:9", "http://no-such-host.invalid"],
    ids=["nobody listens", "no such host"],
)
def test_an_unreachable_endpoint_is_an_error_within_seconds(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    started = time.monotonic()
    with pytest.raises(StoreError, match="cannot list s3://bucket/x: the endpoint cannot be reached"):
        list(open_store("s3://bucket/x", StorageSettings(endpoint_url=endpoint, retries=3)).list())
    assert time.monotonic() - started < 20


def test_a_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket that accepts and stays silent: only the request's own timeout ends it."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        settings = StorageSettings(endpoint_url=url, timeout_s=0.3, retries=2, retry_timeout_s=1)
        started = time.monotonic()
        with pytest.raises(StoreError, match=r"storage did not answer in time|cannot be reached"):
            open_store("s3://bucket", settings).get("a")
        assert time.monotonic() - started < 10


def test_a_host_that_swallows_connections_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full queue of connections drops new ones unanswered, as a firewall does."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for waiting in (first, second):
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        url = f"http://127.0.0.1:{full.getsockname()[1]}"
        settings = StorageSettings(endpoint_url=url, connect_timeout_s=0.3, retries=1)
        started = time.monotonic()
        with pytest.raises(StoreError, match=r"cannot be reached|did not answer in time"):
            open_store("s3://bucket", settings).get("a")
        assert time.monotonic() - started < 5


SAID: dict[str, str] = {
    "Error performing PUT http://169.254.169.254/latest/api/token": "no credentials in the environment",
    "<Error><Code>InvalidAccessKeyId</Code><Message>m</Message>": "the credentials were refused",
    "<Error><Code>ExpiredToken</Code><Message>m</Message>": "the credentials have expired",
    "403: <Code>RequestTimeTooSkewed</Code><Message>m</Message>": "our clock and storage's are too far apart",
    "403 Forbidden: <Error><Code>QuotaExceeded</Code><Message>m</Message>": "no space left",
    "507 Insufficient Storage: <Error><Code>XMinioStorageFull</Code><Message>m</Message>": "no space left",
    "[Errno 30] Read-only file system: '/out'": "the file system is read-only",
    "status code: 403 Forbidden: <Error><Code>AccessDenied</Code><Message>m</Message>": "access denied",
    "<Error><Code>PermanentRedirect</Code><Message>m</Message>": "the bucket is in another region",
    "status code: 503 Service Unavailable": "storage is failing",
    "HTTP error: operation timed out": "storage did not answer in time",
    "something new": "storage failed",
}


@pytest.mark.parametrize(("said", "cause"), SAID.items())
def test_the_cause_is_read_from_what_was_said(said: str, cause: str) -> None:
    assert explain(obstore.exceptions.GenericError(said)).startswith(f"{cause} (")


def test_every_error_class_of_obstore_has_a_meaning() -> None:
    classes = [each for _, each in inspect.getmembers(obstore.exceptions, inspect.isclass)]
    assert len(classes) > 8
    assert [each.__name__ for each in classes if each not in MEANINGS] == []


@pytest.mark.parametrize("kind", MEANINGS)
def test_every_known_error_becomes_ours_with_the_place_and_the_cause(kind: type[Exception]) -> None:
    expected = rf"cannot read s3://b/a: {MEANINGS[kind]} \(the server said so\)"
    with pytest.raises(StoreError, match=expected) as caught, translated("read", "s3://b/a"):
        raise kind("the server said so")
    assert isinstance(caught.value.__cause__, kind)


def test_our_own_mistakes_are_not_disguised_as_storage() -> None:
    with pytest.raises(ZeroDivisionError), translated("read", "x"):
        1 / 0  # noqa: B018


def test_long_answers_are_cut() -> None:
    assert len(explain(obstore.exceptions.GenericError("x" * 10_000))) < 400
