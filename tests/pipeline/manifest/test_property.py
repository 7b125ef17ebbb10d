"""Random manifests: what passes the checks renders to the end and is recorded; what does not is told why, row by row.

MANIFEST_EXAMPLES (default 150) makes it longer, and then other each time: `MANIFEST_EXAMPLES=20000 pytest THIS_FILE`.
"""

import json
import os
import tempfile
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.driver import Driver
from pipeline.errors import ManifestError
from pipeline.ledger import Ledger
from pipeline.manifest.cells import COLUMNS
from pipeline.manifest.reading import Manifest
from pipeline.plan import make_plan
from pipeline.recording import RunRecorder
from pipeline.results import RunFacts
from pipeline.settings import ClusterSettings, RetrySettings
from pipeline.store import open_store
from tests.clips import MEDIA
from tests.fakes import FakeFleet
from tests.leases import lease_of
from tests.manifests import MODEL, picture, read

NUMBER = os.environ.get("MANIFEST_EXAMPLES")
PROFILE = settings(max_examples=int(NUMBER or 150), deadline=None, derandomize=NUMBER is None)
PICTURE = picture()
MEDIA_STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
FACTS = RunFacts(
    run_id="run",
    manifest="m.parquet",
    output="out",
    model="small",
    model_hash="m" * 16,
    started_at=datetime(2026, 11, 20, tzinfo=UTC),
    ended_at=None,
    settings={},
    versions={},
)

SEEN = st.text(min_size=1, max_size=30).map(lambda text: f"{text}x")
TEXT_TYPES = st.sampled_from([pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())])
WHOLE_TYPES = st.sampled_from([pa.int8(), pa.int32(), pa.uint64(), pa.float64(), pa.int64()])
NUMBER_TYPES = st.sampled_from([pa.float32(), pa.float64()])
VALID: dict[str, tuple[st.SearchStrategy[Any], st.SearchStrategy[pa.DataType]]] = {
    "prompt": (SEEN, TEXT_TYPES),
    "image": (st.sampled_from([None, {"bytes": PICTURE, "path": None}]), st.just(MEDIA_STRUCT)),
    "audio": (st.booleans(), st.just(pa.bool_())),
    "resolution": (st.sampled_from(sorted(MODEL.sizes)), TEXT_TYPES),
    "ratio": (st.sampled_from(["1:1", "16:9"]), TEXT_TYPES),
    "duration": (st.sampled_from(MODEL.durations_s), WHOLE_TYPES),
    "seed": (st.integers(0, 127) | st.integers(0, 2**31 - 1), st.sampled_from([pa.int64(), pa.uint32(), pa.float64()])),
    "negative_prompt": (st.text(max_size=30), TEXT_TYPES),
    "steps": (st.integers(1, 127), WHOLE_TYPES),
    "guidance": (st.floats(0, 2.0**99, width=32), NUMBER_TYPES),
    "priority": (st.integers(0, 127), WHOLE_TYPES),
}
ODD_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "prompt": st.sampled_from(["", " ", "\u200b\n", "x " * 700, "丹" * 2501, "y" * 5001]) | SEEN,
    "clip_id": st.sampled_from(["a", "A", "", "..", "a/b", "x" * 129, "é", "a\n", "CON"]) | st.text(max_size=4),
    "image": st.sampled_from(["../a.png", "nothing.png", "/etc/passwd", "http://127.0.0.1/a.png", "\0", ""]),
    "resolution": st.sampled_from(["4K", "64p", "", "128P"]),
    "ratio": st.sampled_from(["9:16", "0:0", "16:9 "]),
    "duration": st.integers(-(2**63), 2**63 - 1) | st.integers(2, 6),
    "seed": st.integers(-(2**63), 2**63 - 1) | st.sampled_from([-1, 2**31]),
    "steps": st.integers(-(2**63), 2**63 - 1) | st.sampled_from([0, 1001]),
    "guidance": st.floats(),
    "priority": st.integers(-(2**63), 2**63 - 1),
    "audio_in": st.sampled_from(["a.wav", ""]),
}
CARRIED: list[tuple[pa.DataType, st.SearchStrategy[Any]]] = [
    (pa.null(), st.none()),
    (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    (pa.uint64(), st.integers(0, 2**64 - 1)),
    (pa.float32(), st.floats(width=32)),
    (pa.bool_(), st.booleans()),
    (pa.string(), st.text(max_size=5)),
    (pa.binary(), st.binary(max_size=5)),
    (pa.timestamp("ns", "UTC"), st.integers(-(2**62), 2**62)),
    (pa.timestamp("us"), st.integers(-(2**62), 2**62)),
    (pa.date32(), st.dates(date(1, 1, 1), date(9999, 1, 1))),
    (pa.time64("us"), st.times()),
    (pa.duration("ns"), st.timedeltas(timedelta(-1000), timedelta(1000))),
    (pa.decimal128(20, 3), st.integers(-(10**15), 10**15).map(lambda n: Decimal(n) / 1000)),
    (pa.list_(pa.int16()), st.lists(st.none() | st.integers(-100, 100), max_size=3)),
    (pa.struct([("a", pa.string()), ("b", pa.list_(pa.bool_()))]), st.fixed_dictionaries({"a": st.text(max_size=3)})),
    (pa.map_(pa.string(), pa.int8()), st.lists(st.tuples(st.text(max_size=2), st.integers(-9, 9)), max_size=2)),
    (pa.dictionary(pa.int8(), pa.string()), st.sampled_from(["x", "y"])),
]
NAMES = st.text(min_size=1, max_size=4).filter(lambda name: name not in COLUMNS and "\0" not in name)


@st.composite
def tables(draw: st.DrawFn, *, odd: bool) -> pa.Table:
    num_rows = draw(st.integers(1, 6))
    columns: dict[str, pa.Array] = {}
    for name in draw(st.permutations(sorted(COLUMNS))):
        if name == "prompt" or draw(st.booleans()):
            column = draw(_column(name, num_rows, odd=odd and draw(st.integers(0, 5)) == 0))
            if column is not None:
                columns[name] = column
    for name in draw(st.lists(NAMES, max_size=3, unique=True)):
        kind, values = draw(st.sampled_from(CARRIED))
        columns[name] = pa.array(draw(_list(st.none() | values, num_rows)), kind)
    return pa.table(columns)


@st.composite
def _column(draw: st.DrawFn, name: str, num_rows: int, *, odd: bool) -> pa.Array | None:
    if odd and draw(st.integers(0, 3)) == 0:  # of whatever type
        kind, values = draw(st.sampled_from(CARRIED))
        return pa.array(draw(_list(st.none() | values, num_rows)), kind)
    if odd and name in ODD_VALUES:
        valid = VALID[name][0] if name in VALID and name != "image" else st.none()
        return pa.array(draw(_list(ODD_VALUES[name] | valid | st.none(), num_rows)))
    if name not in VALID:
        return None
    values, kinds = VALID[name]
    optional = values if name == "prompt" else values | st.none()
    cells, kind = draw(_list(optional, num_rows)), draw(kinds)
    try:
        return pa.array(cells, kind)
    except (pa.ArrowInvalid, OverflowError):  # a large number for a small type
        return pa.array(cells, pa.int64() if COLUMNS[name] == "integer" else pa.float64())


def _list(values: st.SearchStrategy[Any], size: int) -> st.SearchStrategy[list[Any]]:
    return st.lists(values, min_size=size, max_size=size)


def rendered(manifest: Manifest, output: Path) -> None:
    """By the real driver and recorder, and crews that make a few bytes of each clip."""
    store = open_store(str(output))
    plan = make_plan(manifest.index, set())
    recorder = RunRecorder(store, manifest=manifest, plan=plan, facts=FACTS, media=MEDIA, lease=lease_of(store))
    recorder.begin()
    fleet = FakeFleet()
    clips = manifest.load(plan.to_render)
    cluster = ClusterSettings(stop_grace_s=100)
    driver = Driver(clips, fleet=fleet, recorder=recorder, cluster=cluster, retry=RetrySettings(), clock=fleet.clock)
    assert driver.run().exit_code is None
    recorder.close()


def check_output(table: pa.Table, output: Path) -> None:
    store = open_store(str(output))
    assert store.head("_SUCCESS.json") is not None
    assert len(Ledger(store).done_keys()) == table.num_rows
    results = pq.read_table(output / "results.parquet")
    assert results.num_rows == table.num_rows
    assert {name for name in table.column_names if name not in COLUMNS} <= set(results.column_names)
    for entry in store.list("records"):
        json.loads(store.get(entry.key))


def check_said(error: ManifestError, table: pa.Table) -> None:
    assert error.findings
    for finding in error.findings:
        assert -1 <= finding.row < table.num_rows
        assert finding.column in {*COLUMNS, *table.column_names}
        assert finding.value
        assert finding.expected
        assert len(str(finding)) < 700
    lines = str(error).splitlines()
    assert len(lines) <= 1 + ManifestError.SHOWN + len(COLUMNS) * 4
    assert "Traceback" not in str(error)
    assert " at 0x" not in str(error)


@PROFILE
@given(tables(odd=False))
def test_valid_manifests_pass_and_render(table: pa.Table) -> None:
    with tempfile.TemporaryDirectory() as folder:
        pq.write_table(table, f"{folder}/m.parquet")
        rendered(read(f"{folder}/m.parquet"), Path(folder) / "out")
        check_output(table, Path(folder) / "out")


@PROFILE
@given(tables(odd=True))
def test_any_manifest_renders_or_is_told_why_not(table: pa.Table) -> None:
    with tempfile.TemporaryDirectory() as folder:
        try:
            pq.write_table(table, f"{folder}/m.parquet")
        except pa.ArrowException:
            pytest.skip("not a table that Parquet holds")
        try:
            manifest = read(f"{folder}/m.parquet")
        except ManifestError as error:
            check_said(error, table)
            return
        rendered(manifest, Path(folder) / "out")
        check_output(table, Path(folder) / "out")
