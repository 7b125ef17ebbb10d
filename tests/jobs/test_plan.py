"""`plan` as a person meets it: the same findings as `render`, pages that fit a terminal, JSON alone on stdout."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.cli import main
from jobs.compose import compose_values
from jobs.plan import plan_settings
from jobs.words import read_words
from pipeline.ledger import failed_key, record_key
from pipeline.manifest.hashing import settings_hasher
from pipeline.manifest.reading import read_manifest
from pipeline.manifest.rows import Rules
from pipeline.planning.answer import read_plan
from pipeline.store import open_store

ROOT = Path(__file__).parents[2]
VBENCH = ROOT.parent / "shared" / "data" / "vbench_prompts.jsonl"
RELEASE_S = 38.4  # a 1080P clip of 5 s on one H100: 1.6 first stage, 31.0 super-resolution, 5.8 decoding; its own claim


def manifest(folder: Path, **columns: list[Any]) -> str:
    pq.write_table(pa.table(columns), folder / "m.parquet")
    return f"manifest={folder / 'm.parquet'}"


def json_of(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main(["plan", *words, "format=json"]) == 0
    read: dict[str, Any] = json.loads(capsys.readouterr().out)
    return read


def page_of(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["plan", *words]) == 0
    return capsys.readouterr().out


def test_a_wrong_manifest_is_refused_as_render_refuses_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = manifest(tmp_path, prompt=["a red ball", " "], duration=[3, 99])
    said = {}
    for command, more in (("plan", []), ("render", [f"output={tmp_path / 'o'}"])):
        assert main([command, words, *more]) == 2
        said[command] = capsys.readouterr().err
    for command, text in said.items():
        assert "2 problems, nothing was started" in text, command
        assert "row 1, column prompt" in text, command
        assert "row 1, column duration: got 99" in text, command
    assert said["plan"].splitlines()[-3:] == said["render"].splitlines()[-3:]


def test_rows_are_chosen_as_render_chooses_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = manifest(tmp_path, prompt=["red", "blue", "green", "pink"], priority=[1, 5, 5, 5])
    assert json_of(capsys, words)["clips"]["to_render"] == 4
    assert json_of(capsys, words, "where=priority > 3")["clips"]["to_render"] == 3
    assert json_of(capsys, words, "where=priority > 3", "limit=2")["clips"]["to_render"] == 2
    assert json_of(capsys, words, "shard=1/2")["clips"]["to_render"] == 2


def test_the_keys_of_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = json_of(capsys, manifest(tmp_path, prompt=["red", "blue"], duration=[3, 5]))
    assert list(found) == "manifest output model model_hash clips tokens flops memory estimate notes".split()
    longest, shortest = found["clips"]["kinds"]
    assert (longest["duration_s"], longest["num_frames"], longest["width"]) == (5, 60, 64)
    assert longest["flops_a_clip"] > shortest["flops_a_clip"]
    assert found["flops"]["total"] == longest["flops_a_clip"] + shortest["flops_a_clip"]
    assert [row["tp"] for row in found["memory"]["tp"]] == [1, 2, 4]
    assert found["model_hash"] is not None


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("card=h1000", "card is 'h1000', expected one of"),
        ("card=24", "card is '24', expected one of a10g (24 GB), l4 (24 GB), a100-40 (40 GB), "),
        ("tp=3", "tp: tensor parallel size 3 does not divide 8 key/value heads; sizes that work: 1, 2, 4, 8"),
        ("tp=0", "sizes that work: 1, 2, 4, 8"),
        ("parallel=tp1", "unknown key parallel; plan takes tp=N"),
        ("parallel.groups=8", "key parallel.groups; plan takes gpus=N and shares them out to groups itself"),
        ("parallel.enlarging_groups=8", "parallel.enlarging_groups; plan takes gpus=N and shares them out to groups"),
        ("cluster.num_encoders=2", "unknown key cluster.num_encoders; plan takes encoders=N"),
        ("placing=apart", "stages is apart, but model magihuman_distill has one stage, expected a model of two stages"),
        ("gpus=0", "gpus is 0, expected at least 1"),
        ("gpus=some", 'gpus: got "some", expected a whole number'),
        ("format=xml", 'format: got "xml", expected'),
        ("tokenizer=/nowhere", "tokenizer: /nowhere holds no text_encoder/tokenizer.json"),
        ("weights=/nowhere", "/nowhere is not there"),
    ],
)
def test_impossible_words(tmp_path: Path, capsys: pytest.CaptureFixture[str], word: str, said: str) -> None:
    assert main(["plan", manifest(tmp_path, prompt=["red"]), "model=magihuman_distill", word]) == 2
    assert said in capsys.readouterr().err


def test_the_foal_is_not_cut_over_eight_ranks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", manifest(tmp_path, prompt=["red"]), "card=h100", "tp=8"]) == 2
    assert "size 8 does not divide 4 key/value heads; sizes that work: 1, 2, 4" in capsys.readouterr().err


def test_a_manifest_that_is_not_there_is_said_before_what_is_wrong_with_the_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "o").write_text("a file, where a folder must be")
    assert main(["plan", f"manifest={tmp_path / 'none.parquet'}", f"output={tmp_path / 'o'}"]) == 2
    assert "none.parquet: 1 problem" in capsys.readouterr().err


def test_cards_are_known_in_any_case(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = manifest(tmp_path, prompt=["red"])
    found = json_of(capsys, words, "model=magihuman_distill", "card=H100")
    assert found["estimate"]["hardware"].startswith("h100")


def test_a_released_model_is_planned_without_its_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = manifest(tmp_path, prompt=["A horse. " * 400, "A dog."])
    found = json_of(capsys, words, "model=magihuman_base", f"output={tmp_path / 'o'}", "price=2")
    assert found["model_hash"] is None
    assert found["clips"]["to_render"] == 2
    assert found["estimate"]["basis"] == "flops"
    assert found["estimate"]["cost"] == pytest.approx(2 * found["estimate"]["gpu_hours"])
    assert any("it is not known which clips are done" in note for note in found["notes"])
    assert any("guessed from their bytes" in note for note in found["notes"])
    assert not (tmp_path / "o").exists()


def test_vbench_at_1080p_is_a_believable_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if not VBENCH.is_file():
        pytest.skip(f"{VBENCH} is not here")
    prompts = [json.loads(line)["prompt"] for line in VBENCH.read_text().splitlines()]
    assert len(prompts) == 946
    words = manifest(tmp_path, prompt=prompts * 5, seed=[n // 946 for n in range(946 * 5)], resolution=["1080P"] * 4730)
    page = page_of(capsys, words, "model=magihuman_1080p", "card=h100", "gpus=8", "price=2.5")
    assert max(map(len, page.splitlines())) <= 100
    for part in (
        "4730 to render",
        "1080P 16:9 5 s",
        "1920x1080",
        "3,722 + 65,418",
        "tp8",
        "30.6 GB",
        "GPU-hours",
        "cost",
    ):
        assert part in page, part
    found = json_of(capsys, words, "model=magihuman_1080p", "card=h100", "gpus=8", "price=2.5")
    gpu_seconds = found["estimate"]["gpu_hours"] * 3600 / 4730
    assert RELEASE_S / 2 < gpu_seconds < RELEASE_S * 2
    assert found["estimate"]["low_s"] < RELEASE_S * 4730 / 8 < found["estimate"]["high_s"]


def test_a_page_says_what_each_card_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [manifest(tmp_path, prompt=["red"] * 9), "card=h100", "tp=2", "finishers=2", "price=1"]
    words += ["placing.text=cards", "placing.decode=card"]
    found = json_of(capsys, *words, "gpus=10")["estimate"]
    assert found["cards"] == {"group": 6, "encoder": 1, "finisher": 2}
    assert found["cost"] == pytest.approx(found["seconds"] * 10 / 3600)
    page = " ".join(page_of(capsys, *words, "gpus=10").replace("│", " ").split())
    assert ": 10 GPUs, 3 groups of 2 ranks, 1 for encoders, 2 for finishers, 1 without work" in page
    assert main(["plan", *words, "gpus=4"]) == 2
    assert "gpus is 4, expected at least 5 (group 2, encoder 1, finisher 2)" in capsys.readouterr().err


def test_many_kinds_are_summed_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    steps = list(range(1, 31))
    page = page_of(capsys, manifest(tmp_path, prompt=["red"] * 30, steps=steps))
    assert "10 more kinds" in page
    assert "30 to render" in page


def test_a_size_that_does_not_fit_has_no_times_on_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (
        manifest(tmp_path, prompt=["red"] * 2, resolution=["1080P"] * 2),
        "model=magihuman_1080p",
        "card=a10g",
        "tp=1",
        "price=2",
    )
    page = " ".join(page_of(capsys, *words).split())
    assert "does not fit a10g at tp=1" in page
    assert "a10g holds it at tp=8" in page
    assert (
        "; on a10g it fits with placing=swapped at tp=4 or 8 and with placing=apart at tp=4 or 8 (two groups) "
        "and with placing=offloaded at tp=1 or 2 or 4 or 8" in page
    )
    for word in ("takes", "GPU-hours", "cost", "0 groups"):
        assert word not in page, word
    found = json_of(capsys, *words)
    assert (found["estimate"]["basis"], found["estimate"]["fit"], found["estimate"]["cost"]) == ("none", "no", None)
    (tp1,) = (row for row in found["memory"]["tp"] if row["tp"] == 1)
    assert (tp1["fits_gb"], tp1["tight_gb"]) == ([80, 141], [80])
    assert {stages: sizes[0] for stages, sizes in tp1["fits_gb_placed"].items()} == {
        "resident": 80,
        "swapped": 48,
        "apart": 48,
        "offloaded": 24,
    }
    said = {stages: round(taken / 1e9, 1) for stages, taken in tp1["host"].items()}
    assert said == {"resident": 0.6, "swapped": 104.0, "apart": 0.6, "offloaded": 61.9, "disk": 31.2}
    assert "swapped │ 104 GB, 832 GB" in page
    assert "An encoder has 19.2 GB of the machine's memory, a finisher 13.9 GB" in page
    found = json_of(capsys, *words, "placing=offloaded")
    assert found["estimate"]["fit"] == "fits"
    assert "what placing.stages=offloaded costs in time is not counted" in found["estimate"]["notes"]


def leave(output: Path, words: list[str], key_of: Callable[[str, str], str]) -> None:
    """What a run of all rows leaves there of each: that it is done, or given up."""
    settings = plan_settings(compose_values("plan", read_words(words)))
    planned = read_plan(settings)
    assert planned.model_hash is not None
    clips = read_manifest(
        settings.manifest,
        storage=settings.storage,
        rules=Rules(model=settings.model, count_tokens=len, spare_tokens=0, truncate_text=True),
        hash_clip=settings_hasher(model_hash=planned.model_hash, media=settings.media),
    )
    store = open_store(str(output), settings.storage)
    for clip in clips.clips:
        store.put(key_of(clip.clip_id, clips.settings_hash(clip)), b"{}")


@pytest.mark.parametrize(("key_of", "memory"), [(record_key, True), (failed_key, False)], ids=["done", "given up"])
def test_nothing_to_render_has_no_times_on_the_page(
    key_of: Callable[[str, str], str], memory: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [manifest(tmp_path, prompt=["red", "blue"]), f"output={tmp_path / 'o'}", "retry.failed=false", "card=h100"]
    leave(tmp_path / "o", words, key_of)
    page = page_of(capsys, *words)
    assert "0 to render" in page
    assert "- nothing to render" in page
    for word in ("takes", "how sure", "FLOP in all", "leaves", "through the model"):
        assert word not in page, word
    found = json_of(capsys, *words)
    assert (found["clips"]["to_render"], found["estimate"]["seconds"]) == (0, 0)
    assert (found["memory"] is not None) == memory


def test_fast_groups_make_many_clips_a_second(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = " ".join(page_of(capsys, manifest(tmp_path, prompt=["red"] * 2), "card=h100").split())
    assert "clips a second" in page
    assert "a clip every" not in page


def test_with_stages_apart_no_group_makes_a_whole_clip(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [manifest(tmp_path, prompt=["red"] * 8, resolution=["1080P"] * 8), "model=magihuman_1080p"]
    words += ["card=h200", "gpus=4", "tp=1"]
    made = json_of(capsys, *words, "placing=apart")["estimate"]
    every_s = (made["seconds"] - made["startup_s"]) / 8
    page = " ".join(page_of(capsys, *words, "placing=apart").replace("│", " ").split())
    assert f"; then both kinds of group together make a clip every {every_s:.3g} s ({4 * every_s:.3g} GPU-" in page
    assert "; then a group makes a clip every" in " ".join(page_of(capsys, *words).replace("│", " ").split())


def test_no_run_ends_before_it_has_started(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = json_of(capsys, manifest(tmp_path, prompt=["red"] * 2), "card=h100")["estimate"]
    assert found["startup_s"] < found["low_s"] < found["seconds"] < found["high_s"]
