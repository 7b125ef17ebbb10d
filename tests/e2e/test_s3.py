"""The same with everything in a bucket of a real S3 server: manifest and picture from there, results to there."""

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.store import open_store
from tests.e2e.conftest import Finished
from tests.e2e.runs import Caller, digests, said
from tests.manifests import picture

pytestmark = [pytest.mark.e2e, pytest.mark.s3]


def test_a_bucket_is_as_good_as_a_folder(swift_s3: str, finished: Finished, caller: Caller, tmp_path: Path) -> None:
    store = open_store(swift_s3)
    rows = [
        *reversed(finished.rows[:2]),
        {"clip_id": "pictured", "prompt": "It stays still.", "image": "in/a.png", "duration": 3},
    ]
    table = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([{"image": None, **row} for row in rows]), table)
    store.put("table.parquet", table.getvalue())
    store.put("in/a.png", picture())

    done = caller.render(f"{swift_s3}/table.parquet", f"{swift_s3}/out")
    assert done.returncode == 0, said(done)
    out = open_store(f"{swift_s3}/out")
    for entry in out.list("records"):
        (tmp_path / "records").mkdir(exist_ok=True)
        (tmp_path / entry.key).write_bytes(out.get(entry.key))
    there, here = digests(tmp_path), digests(finished.output)
    assert set(there) == {"one", "two", "pictured"}
    same = ("one", "two")  # in another order, beside another row, in another place: the same bytes
    assert {name: there[name] for name in same} == {name: here[name] for name in same}
    assert pq.read_table(io.BytesIO(out.get("results.parquet"))).num_rows == 3

    checked = caller.run("verify", f"output={swift_s3}/out")
    assert checked.returncode == 0, said(checked)
    again = caller.render(f"{swift_s3}/table.parquet", f"{swift_s3}/out")
    assert again.returncode == 0, said(again)
    assert "0 rendered" in again.stdout
