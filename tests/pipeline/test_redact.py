"""Secrets in addresses are neither shown nor kept."""

import time

import pytest

from pipeline.errors import ConfigError
from pipeline.inputs.access import InputAccess
from pipeline.redact import address_problem, redacted
from pipeline.store import StorageSettings

SIGNED = "https://b.s3.amazonaws.com/a.png?X-Amz-Credential=AKIA/x&X-Amz-Signature=5ec2e7&X-Amz-Date=1"
TEXTS = {
    "http://me:5ec2e7@host:80/a": "http://***@host:80/a",
    "s3://AKIA:5ec2e7@bucket/a": "s3://***@bucket/a",
    "http://@host/a": "http://***@host/a",
    SIGNED: "https://b.s3.amazonaws.com/a.png?***",
    "https://x.blob.core.windows.net/c/a.png?sv=1&sig=5ec2e7%3D": "https://x.blob.core.windows.net/c/a.png?***",
    "https://h/a?Expires=1&Signature=5ec2e7&Key-Pair-Id=K": "https://h/a?***",
    "https://h/a?size=3;token=5ec2e7": "https://h/a?***",
    "https://h/a?access_token=5ec2e7 and 'http://u:5ec2e7@h/'": "https://h/a?*** and 'http://***@h/'",
    "https://h/a?to=http://u:5ec2e7@h/": "https://h/a?to=http://***@h/",
    "https://h/a@b?size=3&page=4": "https://h/a@b?size=3&page=4",
    "a prompt: me@host? key=1": "a prompt: me@host? key=1",
    "/folder/a@b?token=c": "/folder/a@b?token=c",
}


@pytest.mark.parametrize("text", list(TEXTS))
def test_what_is_left_of_an_address(text: str) -> None:
    assert redacted(text) == TEXTS[text]
    assert "5ec2e7" not in redacted(text)
    assert (address_problem(text) is None) == (TEXTS[text] == text)


@pytest.mark.parametrize("piece", ["a://", "a://b@", "://?&", "a://b?key", "key=;", "'://"])
def test_long_texts_take_no_longer_than_their_length(piece: str) -> None:
    began = time.monotonic()
    redacted("a://b?" + piece * (2_000_000 // len(piece)))
    assert time.monotonic() - began < 5


def test_settings_hold_no_secrets() -> None:
    with pytest.raises(ConfigError, match=r"images\.roots: s3://\*\*\*@bucket/x holds a secret") as caught:
        InputAccess(roots=("s3://me:5ec2e7@bucket/x",))
    assert "5ec2e7" not in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        StorageSettings(endpoint_url="http://me:5ec2e7@host:9000")
    assert "5ec2e7" not in str(caught.value)
