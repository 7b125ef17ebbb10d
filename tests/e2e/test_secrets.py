"""Secrets that a run needs are in nothing that it leaves or says: credentials of storage, signatures of addresses."""

from pathlib import Path

import pytest

from tests.e2e.runs import Caller, records, said, write_manifest
from tests.image_server import body, in_turn, serve
from tests.manifests import picture

pytestmark = pytest.mark.e2e

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "AKIA5EC2E7ACCESS",
    "AWS_SECRET_ACCESS_KEY": "5ec2e7secretaccesskey",
    "AWS_SESSION_TOKEN": "5ec2e7sessiontoken",
    "AZURE_STORAGE_ACCOUNT_KEY": "5ec2e7azurekey",
}
SIGNATURE = "5ec2e7signature"


def test_a_render_keeps_them_to_itself(caller: Caller, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One clip from a signed address, one whose image changes before it is used, and a note with a password."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with serve() as server:
        server.answers["/good.png"] = body(picture())
        server.answers["/other.png"] = in_turn(body(picture(310, 300)), body(picture(301, 300)))
        rows = [
            {
                "clip_id": name,
                "prompt": "It stays still.",
                "duration": 3,
                "image": server.url(f"/{name}.png?X-Amz-Signature={SIGNATURE}"),
                "note": "from ftp://me:5ec2e7password@host/a",
            }
            for name in ("good", "other")
        ]
        access = (f"images.hosts=[{server.host}]", "images.allow_private=true", "job.log_level=DEBUG")
        manifest = write_manifest(tmp_path / "m.parquet", rows)
        done = caller.render(manifest, tmp_path / "out", *access)
    assert done.returncode == 1, said(done)
    assert "other.png?*** has changed since the manifest was read" in done.stdout + done.stderr
    (record,) = records(tmp_path / "out").values()
    assert record["row"]["image"] == server.url("/good.png?***")
    assert record["row"]["note"] == "from ftp://***@host/a"
    left = {path.name: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert "run.json" in left
    left["stdout"], left["stderr"] = done.stdout.encode(), done.stderr.encode()
    del left["results.parquet"]  # gives back the manifest's own columns as they were
    told = {name for name, content in left.items() if b"5ec2e7" in content.lower()}
    assert not told


def test_addresses_with_secrets_are_no_settings(caller: Caller, tmp_path: Path) -> None:
    for words in (
        (f"manifest={tmp_path}/m.parquet", "output=s3://AKIA:5ec2e7@bucket/out"),
        ("manifest=https://h/a.parquet?sig=5ec2e7", f"output={tmp_path}/out"),
        (f"manifest={tmp_path}/m.parquet", f"output={tmp_path}/out", "storage.endpoint_url=http://me:5ec2e7@host:1"),
        (f"manifest={tmp_path}/m.parquet", f"output={tmp_path}/out", "images.roots=['s3://me:5ec2e7@bucket']"),
    ):
        done = caller.run("render", *words)
        assert done.returncode == 2, said(done)
        assert "holds a secret, expected an address without (credentials come from the environment)" in done.stderr
        assert "5ec2e7" not in done.stdout + done.stderr
