"""Where storage is and how it is reached: addresses, settings, and obstore's clients made from them.

Credentials come from the environment alone (AWS_ACCESS_KEY_ID and the like) and are never held in settings or messages.
"""

import os
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from obstore.store import AzureStore, GCSStore, S3Store

from pipeline.errors import ConfigError
from pipeline.redact import address_problem

SCHEMES = ("s3", "gs", "az")
MAX_BACKOFF_S = 4.0


@dataclass(frozen=True, kw_only=True)
class StorageSettings:
    """How to reach object storage; no secrets. Local folders ignore all of it."""

    endpoint_url: str | None = None  # None: AWS_ENDPOINT_URL, else Amazon's own. http:// is consent to it
    region: str | None = None  # None: AWS_REGION, else us-east-1
    connect_timeout_s: float = 3.0
    timeout_s: float = 120.0  # of one request, its body included
    retries: int = 6
    retry_timeout_s: float = 15.0  # no retry begins later than this after the first try
    backoff_s: float = 0.2  # before the first retry; about twice as long before each later one, 4 s at most
    verify_uploads: bool = True  # read every finished clip back and compare its SHA-256
    weights_cache: str | None = "~/.cache/happyhorse/weights"  # of each node, for weights in object storage; None: none
    weights_cache_bytes: int = 120_000_000_000  # what was not used for the longest time goes first

    def __post_init__(self) -> None:
        if self.endpoint_url is not None:
            _check_endpoint(self.endpoint_url, "storage.endpoint_url")
        for name in ("connect_timeout_s", "timeout_s", "retry_timeout_s", "backoff_s"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"storage.{name} is {getattr(self, name)}, expected more than 0")
        if self.retries < 0:
            raise ConfigError(f"storage.retries is {self.retries}, expected 0 or more")
        if self.weights_cache_bytes < 0:
            raise ConfigError(f"storage.weights_cache_bytes is {self.weights_cache_bytes}, expected 0 or more")


def split_uri(uri: str) -> tuple[str, str]:
    """An address of one object -> (address of its folder, its name), for reading it through `open_store`."""
    scheme, rest = scheme_of(uri)
    if scheme is None:
        path = local_path(uri)
        return str(path.parent), path.name
    folder, _, name = rest.rpartition("/")
    if not folder or not name:
        raise ConfigError(f"{uri} names a bucket, expected an object in it such as {scheme}://bucket/name")
    return f"{scheme}://{folder}", name


def scheme_of(uri: str) -> tuple[str | None, str]:
    """(scheme of a bucket or None for a local path, what follows `scheme://`)."""
    scheme, found, rest = uri.partition("://")
    if not found or scheme == "file":
        return None, uri
    if scheme not in SCHEMES:
        raise ConfigError(f"{uri}: storage {scheme}:// is not known, expected a local path, s3://, gs:// or az://")
    if not rest.partition("/")[0]:
        raise ConfigError(f"{uri} names no bucket, expected {scheme}://bucket/prefix")
    return scheme, rest


def local_path(uri: str) -> Path:
    if not uri:
        raise ConfigError("an empty address, expected a local path, s3://, gs:// or az://")
    return Path(os.path.abspath(Path(uri.removeprefix("file://")).expanduser()))


def absolute(uri: str) -> str:
    """The same place for whoever stands in another folder."""
    return uri if scheme_of(uri)[0] is not None else str(local_path(uri))


def _check_endpoint(endpoint: str, name: str) -> None:
    """Raises ConfigError; obstore would panic."""
    if address_problem(endpoint):
        raise ConfigError(f"{name}: {address_problem(endpoint)}")
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"{name} is {endpoint!r}, expected http://HOST:PORT or https://HOST")


def bucket_client(scheme: str, bucket: str, settings: StorageSettings) -> S3Store | GCSStore | AzureStore:
    for name in [n for n, value in os.environ.items() if n.startswith("AWS_ENDPOINT_URL") and not value]:
        del os.environ[name]  # set but empty means unset; obstore would panic on it
    endpoint = settings.endpoint_url or os.environ.get("AWS_ENDPOINT_URL", "")
    client: dict[str, Any] = {
        "connect_timeout": timedelta(seconds=settings.connect_timeout_s),
        "timeout": timedelta(seconds=settings.timeout_s),
    }
    retry: dict[str, Any] = {
        "max_retries": settings.retries,
        "retry_timeout": timedelta(seconds=settings.retry_timeout_s),
        "backoff": {
            "init_backoff": timedelta(seconds=settings.backoff_s),
            "max_backoff": timedelta(seconds=MAX_BACKOFF_S),
            "base": 2,
        },
    }
    if scheme == "gs":
        return GCSStore(bucket, client_options=client, retry_config=retry)  # type: ignore[arg-type]
    if scheme == "az":
        return AzureStore(bucket, client_options=client, retry_config=retry)  # type: ignore[arg-type]
    if endpoint:
        _check_endpoint(endpoint, "AWS_ENDPOINT_URL")
    if endpoint.startswith("http://"):
        client["allow_http"] = True
    config: dict[str, Any] = {"disable_bulk_delete": True}  # bulk deletes need a header that some servers get wrong
    if settings.endpoint_url:
        config["endpoint"] = settings.endpoint_url
    if settings.region:
        config["region"] = settings.region
    return S3Store(bucket, config=config, client_options=client, retry_config=retry)  # type: ignore[arg-type]
