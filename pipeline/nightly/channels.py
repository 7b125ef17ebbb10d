"""How a notice reaches somebody: a POST of JSON to a webhook, and a command that reads JSON. No secrets are settings.

The token of a webhook, or its whole address where that is the secret, comes from the environment.
"""

import http.client
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from pipeline.errors import ConfigError
from pipeline.types import JsonDict

ADDRESS, TOKEN = "HAPPYHORSE_WEBHOOK", "HAPPYHORSE_WEBHOOK_TOKEN"  # names in the environment
REASON_CHARS = 200


class NotDelivered(Exception):
    """Nobody has it: it may be sent again."""


class Unsure(Exception):
    """Somebody may have it."""


class Channel(Protocol):
    @property
    def name(self) -> str: ...

    def send(self, body: bytes, *, payload: JsonDict) -> None:
        """Raises NotDelivered or Unsure."""


@dataclass(frozen=True, kw_only=True)
class Webhook:
    """An answer of 2xx means delivered, any other that it was refused. Redirects are not followed."""

    address: str
    timeout_s: float
    name: str = "webhook"

    def __post_init__(self) -> None:
        parts = urlsplit(self.address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"webhook is no address, expected https://HOST/PATH (or {ADDRESS} in the environment)")

    def send(self, body: bytes, *, payload: JsonDict) -> None:
        headers = {"Content-Type": "application/json", "Idempotency-Key": _ascii(str(payload["id"]))}
        if token := os.environ.get(TOKEN):
            headers["Authorization"] = f"Bearer {token}"
        request = urllib.request.Request(self.address, body, headers, method="POST")
        try:
            with _OPENER.open(request, timeout=self.timeout_s):
                pass
        except urllib.error.HTTPError as error:
            error.close()
            raise NotDelivered(f"{self._host} answered {error.code} {error.reason}") from error
        except urllib.error.URLError as error:  # raised before the request was sent whole
            raise NotDelivered(f"{self._host}: {error.reason}") from error
        except (OSError, http.client.HTTPException) as error:
            raise Unsure(f"{self._host} did not answer: {type(error).__name__} {error}") from error

    @property
    def _host(self) -> str:
        return urlsplit(self.address).hostname or ""  # its path may be a secret


@dataclass(frozen=True, kw_only=True)
class Hook:
    """A program with its words, no shell: JSON on standard input, exit code 0 means delivered."""

    command: str
    timeout_s: float
    name: str = "hook"

    def __post_init__(self) -> None:
        try:
            words = shlex.split(self.command)
        except ValueError as error:
            raise ConfigError(f"hook is {self.command!r}: {error}") from error
        if not words or shutil.which(os.path.expanduser(words[0])) is None:
            raise ConfigError(f"hook is {self.command!r}, expected a program that can be run")

    def send(self, body: bytes, *, payload: JsonDict) -> None:
        words = shlex.split(self.command)
        words[0] = os.path.expanduser(words[0])
        named = {f"HAPPYHORSE_{key.upper()}": str(payload[key] or "") for key in ("event", "manifest", "night", "text")}
        with tempfile.TemporaryFile() as said:
            try:
                process = subprocess.Popen(
                    words,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=said,
                    env={**os.environ, **named},
                    start_new_session=True,  # so that what it started ends with it
                )
            except OSError as error:
                raise NotDelivered(f"{words[0]}: {error.strerror}") from error
            try:
                process.communicate(body, timeout=self.timeout_s)
            except subprocess.TimeoutExpired as error:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                raise Unsure(f"{words[0]} did not end in {self.timeout_s:g} s") from error
            if process.returncode:
                said.seek(0)
                reason = said.read().decode(errors="replace").strip()[-REASON_CHARS:]
                raise NotDelivered(f"{words[0]} ended with {process.returncode} {reason}".rstrip())


def channels(*, webhook: str | None, hook: str | None, timeout_s: float) -> tuple[Channel, ...]:
    """ConfigError for an address or a program that cannot be."""
    address = webhook or os.environ.get(ADDRESS)
    found: list[Channel] = []
    if address:
        found.append(Webhook(address=address, timeout_s=timeout_s))
    if hook:
        found.append(Hook(command=hook, timeout_s=timeout_s))
    return tuple(found)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: object, **more: object) -> None:
        """A POST would go on as a GET without its body."""


_OPENER = urllib.request.build_opener(_NoRedirect)


def _ascii(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode()
