"""What a run leaves for readers: the manifest's columns letter for letter, ours beside them, and the run's summary."""

import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.ledger import ClipRecord, record_key
from pipeline.manifest.index import index_of
from pipeline.manifest.reading import Manifest
from pipeline.manifest.tables import open_source
from pipeline.results import Moment, RunFacts, free_prefix, write_results, write_run
from pipeline.store import open_store
from tests.clips import make_clip, make_record, outcomes_of
from tests.manifests import HASH_CLIP, RULES, STORAGE, read, write

FACTS = RunFacts(
    run_id="20261120-abc",
    manifest="/in/m.parquet",
    output="/out",
    model="small",
    model_hash="m" * 16,
    started_at=datetime(2026, 11, 20, 12, 0, tzinfo=timezone(timedelta(hours=2))),
    ended_at=None,
    settings={"media": {"crf": 18}, "storage": {"endpoint_url": None}},
    versions={"torch": "2.13.0"},
)


def manifest_of(folder: Path, table: pa.Table) -> Manifest:
    """Of any table, whether its rows would pass or not."""
    clips = [make_clip(f"c{row}", row=row) for row in range(table.num_rows)]
    return Manifest(
        uri="m",
        source=open_source(str(write(folder, table)), storage=STORAGE),
        index=index_of(clips, ["0" * 16] * len(clips)),
        rules=RULES,
        hash_clip=HASH_CLIP,
    )


def written(folder: Path, manifest: Manifest, told: dict[str, ClipRecord | str]) -> pa.Table:
    store = open_store(str(folder / "out"))
    write_results(store, manifest, outcomes_of(manifest.index, told))
    return pq.read_table(pa.BufferReader(store.get("results.parquet")))


def test_each_row_says_how_its_clip_stands(tmp_path: Path) -> None:
    columns = {
        "prompt": ["one", "two", "three", "four"],
        "clip_id": ["s", "f", "p", "m"],
        "seed": [5, None, 7, 8],
        "audio": [True, True, True, False],
        "case": ["一", None, "“三”\n", ""],
    }
    manifest = read(write(tmp_path, columns))
    clips = {clip.clip_id: clip for clip in manifest.clips}
    told: dict[str, ClipRecord | str] = {
        "s": make_record(clips["s"], num_attempts=2),
        "f": "EncodeError: no",
        "m": make_record(clips["m"]),
    }
    rows = written(tmp_path, manifest, told).to_pylist()
    assert [row["render_state"] for row in rows] == ["SUCCEEDED", "FAILED", "PENDING", "SUCCEEDED"]
    assert [row["case"] for row in rows] == columns["case"]
    done, failed, pending, mute = rows
    assert done["render_mp4"] == "clips/s.0a1b2c3d.mp4"
    assert done["render_wav"] == "clips/s.0a1b2c3d.wav"
    assert done["render_poster"] == "clips/s.0a1b2c3d.jpg"
    assert done["render_record"] == record_key("s", manifest.index.settings_hash(0))
    assert (done["render_attempt"], done["render_num_attempts"]) == ("0a1b2c3d", 2)
    assert dict(done["render_seconds"]) == {"encode": 0.1, "render": 2.5, "decode": 0.3, "upload": 0.2}
    assert failed["render_seconds"] is None
    assert (done["render_width"], done["render_height"], done["render_num_frames"]) == (80, 46, 36)
    assert (failed["render_error"], failed["render_mp4"], failed["seed"]) == ("EncodeError: no", None, None)
    assert failed["render_seed"] == clips["f"].seed, "the seed that was derived"
    assert (pending["render_error"], pending["render_record"]) == (None, None)
    assert mute["render_wav"] is None


def test_every_column_of_the_manifest_comes_back_unchanged(tmp_path: Path) -> None:
    table = pa.table(
        {
            "prompt": pa.array(["红", "“q”\n\t\\"], pa.large_string()),
            "state": ["mine", "too"],
            "seconds": pa.array([1, None], pa.int8()),
            "when": pa.array([1, None], pa.timestamp("ns", "Asia/Shanghai")),
            "deep": pa.array([[{"a": b"\x00"}], None], pa.list_(pa.struct([("a", pa.binary())]))),
            "kind": pa.array(["x", "y"], pa.string()).dictionary_encode(),
        }
    ).replace_schema_metadata({b"theirs": b"kept"})
    as_read = pq.read_table(write(tmp_path, table))
    results = written(tmp_path, manifest_of(tmp_path, table), {})
    assert results.column_names[: table.num_columns] == table.column_names
    assert results.select(table.column_names).equals(as_read)
    assert results.schema.metadata[b"theirs"] == b"kept"
    assert results.schema.metadata[b"happyhorse.prefix"] == b"render_"


def test_results_can_be_a_manifest_again_and_again(tmp_path: Path) -> None:
    """Its `render_...` columns are carried like any other; the new ones get a prefix of their own."""
    manifest = read(write(tmp_path, {"prompt": ["a", "b"]}))
    for turn, prefix in enumerate(("render_", "render2_", "render3_")):
        (tmp_path / str(turn)).mkdir()
        results = written(tmp_path / str(turn), manifest, {})
        assert results.schema.metadata[b"happyhorse.prefix"].decode() == prefix
        assert results[f"{prefix}state"].to_pylist() == ["PENDING", "PENDING"]
        assert len(set(results.column_names)) == len(results.column_names)
        manifest = read(write(tmp_path, results))
        assert [clip.prompt for clip in manifest.clips] == ["a", "b"]


@given(st.lists(st.sampled_from(["render_x", "render2_state", "render", "renders_", "render_2"])))
def test_no_column_of_theirs_begins_with_our_prefix(columns: list[str]) -> None:
    prefix = free_prefix(columns)
    assert not any(name.startswith(prefix) for name in columns)


@settings(max_examples=30)
@given(rows=st.lists(st.tuples(st.text(), st.one_of(st.none(), st.text())), min_size=1, max_size=5))
def test_prompts_and_notes_come_back_letter_for_letter(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str | None]]
) -> None:
    table = pa.table({"prompt": [prompt for prompt, _ in rows], "note": pa.array([n for _, n in rows], pa.string())})
    folder = tmp_path_factory.mktemp("rows")
    back = written(folder, manifest_of(folder, table), {})
    assert back["prompt"].to_pylist() == [prompt for prompt, _ in rows]
    assert back["note"].to_pylist() == [note for _, note in rows]


def test_the_summary_counts_and_names_what_failed(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    clips = [make_clip(name) for name in "abcd"]
    index = index_of(clips, ["0" * 16] * len(clips))
    outcomes = outcomes_of(index, {"a": make_record(clips[0]), "b": "GroupLost: 坏 three times"})
    write_run(store, FACTS, outcomes.snapshot(["c", "a"]), Moment(eta_s=60.0))
    run = json.loads(store.get("run.json"))
    assert run["states"] == {"PENDING": 1, "RUNNING": 1, "SUCCEEDED": 1, "FAILED": 1, "CANCELED": 0}
    assert run["failures"] == {"b": "GroupLost: 坏 three times"}
    assert (run["run_id"], run["num_clips"], run["manifest"]) == ("20261120-abc", 4, "/in/m.parquet")
    assert (run["started_at"], run["ended_at"]) == ("2026-11-20T10:00:00+00:00", None)
    assert (run["eta_s"], run["groups"], run["paused"], run["stopped"]) == (60.0, [], None, None)
    assert run["settings"]["media"] == {"crf": 18}
    assert run["versions"] == {"torch": "2.13.0"}
    assert datetime.now(UTC) - datetime.fromisoformat(run["written_at"]) < timedelta(minutes=1)


def test_both_are_rewritten_whole(tmp_path: Path) -> None:
    manifest = read(write(tmp_path, {"prompt": ["a"], "clip_id": ["a"]}))
    assert written(tmp_path, manifest, {})["render_state"].to_pylist() == ["PENDING"]
    again = written(tmp_path, manifest, {"a": make_record(manifest.clips[0])})
    assert again["render_state"].to_pylist() == ["SUCCEEDED"]
