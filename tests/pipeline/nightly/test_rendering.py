"""The real renderer's look at a manifest, in a folder and in a bucket: what is left, how urgent, for how long."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.compose import compose_values
from jobs.nightly import nightly_settings
from jobs.words import read_words
from pipeline.errors import ManifestError
from pipeline.ledger import failed_key, record_key
from pipeline.manifest.findings import Findings
from pipeline.nightly.inbox import Found, find_manifests, set_aside
from pipeline.nightly.rendering import ManifestRenderer
from pipeline.planning.history import HISTORY, Hardware, Kind, KindTimes, RunHistory, to_json
from pipeline.store import Store, open_store

ROWS: dict[str, list[Any]] = {
    "clip_id": ["a", "b", "c"],
    "prompt": ["A red circle stays still."] * 3,
    "duration": [3, 3, 5],
    "priority": [1, 7, 3],
}


def history(run_id: str = "20261120-220000-0a0a0a0a", **changes: Any) -> RunHistory:
    """Of the foal on CPUs: 10 s of start, 2 s for each clip of 3 s."""
    kind = Kind(resolution="64P", ratio="1:1", duration_s=3, steps=8, guided=False, image=False)
    values: dict[str, Any] = {
        "run_id": run_id,
        "model": "foal",
        "model_hash": "x" * 16,
        "hardware": Hardware(device="cpu", cpu="any", cores=2, nodes=1),
        "versions": {},
        "tp": 1,
        "groups": 2,
        "threads": 1,
        "encoders": 1,
        "finishers": 1,
        "num_rendered": 4,
        "num_failed": 0,
        "stopped": False,
        "startup_s": 10.0,
        "driving_s": 8.0,
        "closing_s": 0.0,
        "kinds": (
            KindTimes(
                kind=kind,
                count=4,
                seconds={"condition": 0.0, "render": 4.0, "decode": 0.0, "encode": 0.0, "upload": 0.0},
                num_bytes=1e4,
            ),
        ),
    }
    return RunHistory(**{**values, **changes})


def renderer(inbox: str, output: str, *words: str) -> tuple[ManifestRenderer, Store]:
    values = compose_values("nightly", read_words([f"inbox={inbox}", f"output={output}", "parallel=tp1", *words]))
    values["typed"] = []
    settings = nightly_settings(values)
    notes = open_store(f"{output}/_nightly", settings.render.storage)
    return ManifestRenderer(settings, notes=notes), notes


def only(inbox: str) -> Found:
    (found,) = find_manifests(open_store(inbox))
    return found


def inbox_with(folder: Path, columns: dict[str, list[Any]]) -> str:
    (folder / "inbox").mkdir(exist_ok=True)
    pq.write_table(pa.table(columns), folder / "inbox" / "m.parquet")
    return str(folder / "inbox")


def test_a_look_says_what_is_left_and_how_urgent_it_is(tmp_path: Path) -> None:
    inbox, output = inbox_with(tmp_path, ROWS), str(tmp_path / "out")
    look = renderer(inbox, output)[0].look(only(inbox))
    assert (look.num_clips, look.num_left, look.failed, look.work.priority) == (3, 3, (), 7)
    assert (look.work.seconds, look.work.clip_s) == (None, None)  # on CPUs nothing is known before a first run
    assert look.work.since.timestamp() == pytest.approx((Path(inbox) / "m.parquet").stat().st_mtime, abs=1)


def test_times_of_other_manifests_count(tmp_path: Path) -> None:
    inbox, output = inbox_with(tmp_path, ROWS), str(tmp_path / "out")
    looker, notes = renderer(inbox, output)
    notes.put(f"{HISTORY}/20261120-220000-0a0a0a0a.json", to_json(history()))
    work = looker.look(only(inbox)).work
    assert work.seconds is not None
    assert work.clip_s is not None
    assert work.startup_s == 10.0
    assert 10 + 3 * 2 < work.seconds < 60  # of 2 s each in one of 2 groups where they are as small as those measured
    assert work.clip_s > 1.1 * (work.seconds - 10) * 2 / 3  # the longest, not the mean
    assert work.gpus == 2  # ranks, on CPUs


def test_a_budget_counts_the_cards_of_encoders_and_finishers(tmp_path: Path) -> None:
    inbox, output = inbox_with(tmp_path, ROWS), str(tmp_path / "out")
    words = ("placing.text=cards", "placing.text_cards=2", "placing.decode=card", "cluster.num_finishers=3")
    looker, notes = renderer(inbox, output, *words, "card=h100")
    assert looker.look(only(inbox)).work.gpus == 1 + 2 + 3  # by FLOPs, with one group
    assert renderer(inbox, output, *words)[0].look(only(inbox)).work.gpus == 6  # without an estimate
    assert renderer(inbox, output, *words, "cluster.device=cpu")[0].look(only(inbox)).work.gpus == 1
    ran = history(
        hardware=Hardware(device="cuda", cards={"H100": 8}, cpu="any", cores=64, nodes=1),
        text="cards",
        text_cards=2,
        decode="card",
        finishers=3,
    )
    notes.put(f"{HISTORY}/{ran.run_id}.json", to_json(ran))
    again = renderer(inbox, output, *words)[0].look(only(inbox)).work
    assert (again.startup_s, again.gpus) == (10.0, 2 + 2 + 3)


def test_what_is_done_and_what_gave_up_is_not_left(tmp_path: Path) -> None:
    inbox, output = inbox_with(tmp_path, ROWS), str(tmp_path / "out")
    looker, _ = renderer(inbox, output)
    before = looker.look(only(inbox))
    plan = looker.plan(only(inbox))
    hashes = {plan.manifest.index.clip_id(n): plan.manifest.index.settings_hash(n) for n in range(3)}
    store = open_store(f"{output}/m")
    store.put(record_key("b", hashes["b"]), b"{}")
    store.put(failed_key("c", hashes["c"]), b"{}")
    look = looker.look(only(inbox))
    assert (look.num_left, look.failed, look.work.priority) == (1, ("c",), 1)
    assert look.digest == before.digest
    again, _ = renderer(inbox, output, "retry.failed=true")
    assert (again.look(only(inbox)).num_left, again.look(only(inbox)).failed) == (2, ())


@pytest.mark.parametrize("change", [{"seed": [1, 2, 3]}, {"clip_id": ["a", "b", "d"]}, {"duration": [3, 3, 3]}])
def test_the_digest_is_of_what_clips_are_made_of(tmp_path: Path, change: dict[str, list[Any]]) -> None:
    output = str(tmp_path / "out")
    inbox = inbox_with(tmp_path, ROWS)
    first = renderer(inbox, output)[0].look(only(inbox)).digest
    inbox = inbox_with(tmp_path, {**ROWS, "priority": [9, 9, 9], "note": ["x", "y", "z"]})
    assert renderer(inbox, output)[0].look(only(inbox)).digest == first
    inbox = inbox_with(tmp_path, {**ROWS, **change})
    assert renderer(inbox, output)[0].look(only(inbox)).digest != first


def test_every_finding_is_kept_in_the_table_of_one_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Findings, "KEPT", 30)
    inbox, output = inbox_with(tmp_path, {"prompt": [" "] * 50}), str(tmp_path / "out")
    looker, _ = renderer(inbox, output)
    found = only(inbox)
    with pytest.raises(ManifestError) as caught:
        looker.look(found)
    where = set_aside(open_store(output), found, caught.value)
    assert pq.read_table(f"{where}/findings.parquet").num_rows == 50
    assert "50 problems" in (Path(where) / "findings.txt").read_text()


@pytest.mark.s3
def test_an_inbox_in_a_bucket(swift_s3: str, tmp_path: Path) -> None:
    inbox_with(tmp_path, ROWS)
    (tmp_path / "bad.parquet").write_bytes(b"no table")
    store = open_store(swift_s3)
    store.put_file("inbox/m.parquet", tmp_path / "inbox" / "m.parquet")
    store.put_file("inbox/images/notes.parquet", tmp_path / "bad.parquet")
    looker, _ = renderer(f"{swift_s3}/inbox", f"{swift_s3}/out")
    found = only(f"{swift_s3}/inbox")
    assert (found.name, found.address) == ("m", f"{swift_s3}/inbox/m.parquet")
    assert looker.look(found).num_left == 3

    store.put_file("inbox/m.parquet", tmp_path / "bad.parquet")
    again = only(f"{swift_s3}/inbox")
    assert again.mark != found.mark
    with pytest.raises(ManifestError) as caught:
        looker.look(again)
    where = set_aside(open_store(f"{swift_s3}/out"), again, caught.value)
    assert where == f"{swift_s3}/out/rejected/m"
    assert {each.key for each in store.list("out")} == {
        "out/rejected/m/findings.txt",
        "out/rejected/m/findings.parquet",
    }
