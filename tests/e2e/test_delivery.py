"""What one run leaves: every file of every row, exactly as asked for; the words of the manifest, letter for letter."""

import json
import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.e2e.conftest import BEEPS, Finished
from tests.e2e.runs import ROOT, Caller, records, said, write_manifest

PROMPTS = ROOT.parent / "shared" / "data" / "happyhorse_prompts.jsonl"
FPS, SAMPLE_RATE_HZ = 12, 24_000
SIZES = {"1:1": (64, 64), "16:9": (80, 46), "9:16": (46, 80)}


@pytest.mark.e2e
def test_the_machine_had_no_ffmpeg_of_its_own(caller: Caller, finished: Finished) -> None:
    names = {entry.name for folder in caller.path.split(":") for entry in Path(folder).iterdir()}
    assert not names & {"ffmpeg", "ffprobe", "node", "bash"}
    assert "6 clips: 6 rendered" in finished.printed


@pytest.mark.e2e
def test_every_row_has_its_files_and_nothing_else_is_there(finished: Finished) -> None:
    recorded = records(finished.output).values()
    assert {record["clip_id"] for record in recorded} == {row["clip_id"] for row in finished.rows}
    named = {file["name"] for record in recorded for file in record["files"].values()}
    assert named == {f"clips/{path.name}" for path in (finished.output / "clips").iterdir()}
    for record in recorded:
        sound = record["row"].get("audio") is not False
        assert set(record["files"]) == ({"mp4", "wav", "jpg"} if sound else {"mp4", "jpg"})


def length(stream: av.VideoStream | av.AudioStream) -> Fraction:
    """Seconds, by the stream's own word."""
    assert stream.duration is not None
    assert stream.time_base is not None
    return stream.duration * stream.time_base


@pytest.mark.e2e
def test_videos_and_sounds_are_exactly_as_long_and_large_as_asked_for(finished: Finished) -> None:
    rows = {row["clip_id"]: row for row in finished.rows}
    for record in records(finished.output).values():
        row = rows[record["clip_id"]]
        seconds = row["duration"]
        with av.open(str(finished.output / record["files"]["mp4"]["name"])) as mp4:
            video = mp4.streams.video[0]
            assert (video.codec_context.name, video.width, video.height) == ("h264", *SIZES[row.get("ratio") or "1:1"])
            assert sum(1 for _ in mp4.decode(video)) == seconds * FPS
            assert video.average_rate == FPS
            assert length(video) == seconds
            tracks = mp4.streams.audio
            assert len(tracks) == (0 if row.get("audio") is False else 1)
            for track in tracks:
                assert track.codec_context.name == "aac"
                assert abs(length(track) - seconds) <= Fraction(1, FPS)
        if "wav" in record["files"]:
            with wave.open(str(finished.output / record["files"]["wav"]["name"])) as wav:
                assert (wav.getframerate(), wav.getsampwidth()) == (SAMPLE_RATE_HZ, 2)
                assert wav.getnframes() == seconds * SAMPLE_RATE_HZ


@pytest.mark.e2e
def test_a_given_sound_is_delivered_as_it_is(finished: Finished) -> None:
    """At the model's own rate, so but for the two scales of 16 bits to the last digit; cut to the clip."""
    (record,) = (each for each in records(finished.output).values() if each["clip_id"] == "four")
    with wave.open(str(finished.output / record["files"]["wav"]["name"])) as wav:
        samples = np.frombuffer(wav.readframes(wav.getnframes()), np.int16)
    assert np.abs(samples - BEEPS[0, : 3 * SAMPLE_RATE_HZ] * 32767).max() < 2
    assert "audio_in_sha256" in record["settings"]
    assert record["row"]["audio_in"] == "beeps.flac"


@pytest.mark.e2e
def test_verify_agrees_and_finds_one_changed_byte(finished: Finished, caller: Caller, tmp_path: Path) -> None:
    good = caller.run("verify", f"output={finished.output}")
    assert good.returncode == 0, said(good)
    broken = tmp_path / "output"
    for path in finished.output.rglob("*"):
        if path.is_file():
            target = broken / path.relative_to(finished.output)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    victim = next((broken / "clips").glob("*.wav"))
    data = bytearray(victim.read_bytes())
    data[-1] ^= 1
    victim.write_bytes(data)
    bad = caller.run("verify", f"output={broken}")
    assert bad.returncode == 1, said(bad)
    assert victim.name in bad.stdout
    assert len(bad.stdout.splitlines()) == 2


@pytest.mark.e2e
@pytest.mark.slow
def test_real_prompts_come_back_letter_for_letter(caller: Caller, tmp_path: Path) -> None:
    if not PROMPTS.exists():
        pytest.skip(f"{PROMPTS.name} is not beside this checkout")
    rows = [json.loads(line) for line in PROMPTS.read_text(encoding="utf-8").splitlines()]
    table = [
        {"prompt": row["prompt"], "case": row["case"], "duration": 3, "steps": 1, "audio": n % 4 == 0}
        for n, row in enumerate(rows)
    ]
    done = caller.render(write_manifest(tmp_path / "manifest.parquet", table), tmp_path / "output")
    assert done.returncode == 0, said(done)
    results = pq.read_table(tmp_path / "output" / "results.parquet")
    given = pq.read_table(tmp_path / "manifest.parquet")
    assert results.select(given.column_names).equals(given)
    assert results.column("render_state").to_pylist() == ["SUCCEEDED"] * len(rows)
    assert results.schema.field("case").type == pa.string()
