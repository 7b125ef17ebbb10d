"""The life of the ffmpeg process: whatever it does, an error with its words comes in time and nothing is left."""

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from pipeline import ffmpeg
from pipeline.errors import EncodeError, EncoderLost, RenderError, StoreError
from pipeline.media import encode_clip
from tests.clips import MEDIA
from tests.frames import SHAPE, Array, encode, moving, tone
from tests.small_disk import mounted


def test_threads_are_those_of_the_settings() -> None:
    outputs = ffmpeg.Outputs(mp4=Path("/o/a.mp4"), jpg=Path("/o/a.jpg"), wav=None)
    words = ffmpeg.command(outputs, shape=SHAPE, settings=replace(MEDIA, x264_threads=3))
    assert words[words.index("-threads:v") + 1] == "3"
    assert words[0] == imageio_ffmpeg.get_ffmpeg_exe()


def test_nothing_of_the_machine_is_needed_or_listened_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    monkeypatch.setenv("FFREPORT", f"file={tmp_path}/report.log")
    encode(tmp_path, moving(SHAPE))
    assert not (tmp_path / "report.log").exists()


def test_a_decoder_that_fails_midway_leaves_nothing_behind(tmp_path: Path) -> None:
    def frames() -> Iterator[Array]:
        yield np.zeros((20, 46, 80, 3), np.uint8)
        raise ZeroDivisionError

    before = children()
    with pytest.raises(ZeroDivisionError):
        encode_clip(frames(), shape=SHAPE, waveform=tone(SHAPE), folder=tmp_path, stem="a", settings=MEDIA)
    assert os.listdir(tmp_path) == []
    assert children() == before


def children() -> set[str]:
    """Processes started by this one that have not been waited for."""
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


def standing_in(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Another program in ffmpeg's place: the real one neither hangs nor dies on demand."""
    monkeypatch.setattr(ffmpeg, "command", lambda *args, **settings: ["/bin/sh", "-c", script])


ENDINGS: dict[str, tuple[str, str] | tuple[str, str, type[RenderError]]] = {
    "dies while frames arrive": (
        "head -c 5000 > /dev/null; exec <&-; echo 'x264: out of cheese' >&2; sleep 0.1; exit 3",
        "ffmpeg ended with code 3: x264: out of cheese",
    ),
    "refuses at once": ("echo no >&2; exit 1", "ffmpeg ended with code 1: no"),
    "fails at the end": ("cat > /dev/null; echo late >&2; exit 7", "ffmpeg ended with code 7: late"),
    "is killed": ("kill -9 $$", "ffmpeg ended with code -9: it said nothing", EncoderLost),
    "never reads": ("exec sleep 60", "ffmpeg made no progress for 0.5 s and was killed", EncoderLost),
    "never ends": ("cat > /dev/null; exec sleep 60", "ffmpeg made no progress for 0.5 s and was killed", EncoderLost),
}


@pytest.mark.parametrize(
    ("script", "message", "kind"), [(*each, EncodeError)[:3] for each in ENDINGS.values()], ids=ENDINGS
)
def test_an_ffmpeg_that_does_not_do_its_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, message: str, kind: type[RenderError]
) -> None:
    """What the input may have done fails the clip; what killed or stopped ffmpeg does not."""
    monkeypatch.setenv("PATH", os.defpath)
    standing_in(monkeypatch, f"PATH={os.defpath}; {script}")
    before, started = children(), time.monotonic()
    with pytest.raises(kind, match=message):
        encode(tmp_path, moving(SHAPE), waveform=tone(SHAPE), stall_s=0.5)
    assert time.monotonic() - started < 10
    assert os.listdir(tmp_path) == []
    assert children() == before


def test_a_torrent_of_complaints_blocks_nothing_and_its_end_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than a pipe holds: a process whose stderr nobody reads would stand still for ever."""
    flood = "i=0; while [ $i -lt 20000 ]; do echo complaint $i >&2; i=$((i+1)); done; cat > /dev/null; exit 1"
    standing_in(monkeypatch, f"PATH={os.defpath}; {flood}")
    with pytest.raises(EncodeError, match=r"complaint 19999$") as caught:
        encode(tmp_path, moving(SHAPE), stall_s=30)
    assert len(str(caught.value)) < 2100


def test_settings_that_ffmpeg_refuses_come_with_its_words(tmp_path: Path) -> None:
    with pytest.raises(EncodeError, match="invalid preset"):
        encode(tmp_path, moving(SHAPE), settings=replace(MEDIA, preset="warp"))  # type: ignore[arg-type]


def test_a_full_disk_is_no_fault_of_the_clip(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    with mounted(tmp_path / "disk", size="8k") as disk, pytest.raises(StoreError, match=r"temporary files .* no space"):
        encode(disk.path, moving(SHAPE))
