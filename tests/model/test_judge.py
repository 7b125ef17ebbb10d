"""The judge before it judges anything: drawn scenes are judged right, blurred and encoded ones too; tricks are not."""

import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from model.codecs.foal import SAMPLE_RATE_HZ, SLOTS_PER_S, FoalAudioCodec
from model.foal.judge import Verdict, judge_clip
from model.foal.scenes import (
    BACKGROUNDS,
    COLOURS,
    MOTIONS,
    SHAPES,
    SOUNDS,
    Scene,
    draw_frames,
    draw_sound,
    random_scene,
)
from model.shapes import ClipShape, clip_shape
from pipeline.media import cut_frames
from tests.clips import MEDIA
from tests.judge.counting import auc, pair_auc, timing
from tests.judge.files import deliver, read_mp4
from tests.models import small_model

FPS = 12
ASPECTS = ("background", "colour", "shape", "motion", "sound")
PERIODS_S, PHASES = (1.0, 4 / 3), (0.5, 0.25)  # of bounces; more than the world has
WHITE, RED, BLUE = (torch.tensor(c) for c in (BACKGROUNDS["white"], COLOURS["red"], COLOURS["blue"]))


def world() -> list[Scene]:
    """Each shape, colour and motion; every other value of the world again and again beside them."""
    rng = random.Random(20)
    scenes = []
    for n, (shape, colour, motion) in enumerate(itertools.product(SHAPES, COLOURS, MOTIONS)):
        sounds = SOUNDS if motion == "bounce" else SOUNDS[:3]
        drawn = random_scene(
            rng, duration_s=3, ratio=("1:1", "16:9", "9:16")[n % 3], places="any" if n % 2 else "centre"
        )
        given: dict[str, Any] = {
            "shape": shape,
            "colour": colour,
            "motion": motion,
            "sound": sounds[n // 4 % len(sounds)],
        }
        scenes.append(replace(drawn, **given, background=list(BACKGROUNDS)[(n // 4 + n) % 4]))
    return scenes


def shape_of(scene: Scene, *, scale: int = 1) -> ClipShape:
    return clip_shape(small_model(), resolution=f"{64 * scale}P", ratio=scene.ratio, duration_s=scene.duration_s)


def blurred(frames: Tensor, sigma: float) -> Tensor:
    """Frames [F, H, W, 3] under a Gaussian of `sigma` pixels."""
    reach = math.ceil(4 * sigma)
    kernel = torch.exp(-torch.arange(-reach, reach + 1.0).square() / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).expand(3, 1, 1, -1)
    planes = functional.pad(frames.permute(0, 3, 1, 2), (reach,) * 4, mode="replicate")
    rows = functional.conv2d(planes, kernel, groups=3)
    return functional.conv2d(rows, kernel.transpose(2, 3), groups=3).permute(0, 2, 3, 1)


def drawn_frames(scene: Scene, *, scale: int = 1, sigma: float = 0, noise: float = 0) -> Tensor:
    """uint8 frames as decoded: not cut yet."""
    frames = draw_frames(scene, num_frames=scene.duration_s * FPS, fps=FPS, scale=scale)
    frames = blurred(frames, sigma) if sigma else frames
    frames = frames + noise * torch.randn(frames.shape, generator=torch.Generator().manual_seed(1))
    return (frames.clamp(0, 1) * 255).round().to(torch.uint8)


def drawn_sound(scene: Scene) -> Tensor:
    codec = FoalAudioCodec()
    amplitudes = draw_sound(scene, num_slots=scene.duration_s * SLOTS_PER_S + 2)
    return codec.decode(codec.encode(amplitudes))[0, : scene.duration_s * SAMPLE_RATE_HZ]


def judged(frames: Tensor, waveform: Tensor | None = None) -> Verdict:
    return judge_clip(frames, waveform, sample_rate_hz=SAMPLE_RATE_HZ, fps=FPS)


def judged_scene(scene: Scene, *, scale: int = 1, sigma: float = 0, noise: float = 0) -> Verdict:
    frames = drawn_frames(scene, scale=scale, sigma=sigma, noise=noise)
    cut = np.concatenate(list(cut_frames(iter([frames.numpy()]), shape=shape_of(scene, scale=scale))))
    return judged(torch.from_numpy(cut), drawn_sound(scene))


def judged_file(scene: Scene, folder: Path, *, scale: int = 1, sigma: float = 0, noise: float = 0) -> Verdict:
    frames = drawn_frames(scene, scale=scale, sigma=sigma, noise=noise)
    mp4 = deliver(
        frames,
        drawn_sound(scene),
        shape=shape_of(scene, scale=scale),
        folder=folder,
        stem="clip",
        settings=MEDIA,
    )
    shown, waveform, rate_hz = read_mp4(mp4)
    assert waveform is not None
    return judge_clip(shown, waveform, sample_rate_hz=rate_hz, fps=FPS)


def mistakes(judged: Sequence[tuple[Scene, Verdict]]) -> list[str]:
    return [
        f"{aspect} {getattr(verdict, aspect)} of {scene}"
        for scene, verdict in judged
        for aspect in ASPECTS
        if getattr(verdict, aspect) != getattr(scene, aspect)
    ]


@pytest.fixture(scope="module")
def verdicts() -> list[tuple[Scene, Verdict]]:
    return [(scene, judged_scene(scene)) for scene in world()]


def test_what_was_drawn_is_what_is_judged(verdicts: list[tuple[Scene, Verdict]]) -> None:
    assert {getattr(scene, aspect) for scene, _ in verdicts for aspect in ASPECTS} == {
        *BACKGROUNDS,
        *COLOURS,
        *SHAPES,
        *MOTIONS,
        *SOUNDS,
    }
    assert mistakes(verdicts) == []


def test_shapes_are_told_apart(verdicts: list[tuple[Scene, Verdict]]) -> None:
    asked = [(scene.shape, verdict) for scene, verdict in verdicts]
    assert [pair_auc(*pair, asked) for pair in itertools.combinations(SHAPES, 2)] == [1, 1, 1]


@pytest.mark.parametrize(("scale", "sigma", "noise"), [(1, 1.5, 0.0), (1, 1.0, 0.04), (2, 0, 0), (2, 2.0, 0.02)])
def test_blur_noise_and_size_change_no_verdict(scale: int, sigma: float, noise: float) -> None:
    scenes = [scene for scene in world()[:: 8 * scale - 3] if scale == 1 or scene.ratio != "9:16"]
    assert mistakes([(s, judged_scene(s, scale=scale, sigma=sigma, noise=noise)) for s in scenes]) == []


def test_a_blurred_edge_takes_no_colour_away() -> None:
    scenes = world()[::3]
    assert [judged_scene(scene, sigma=2.5, noise=0.02).colour for scene in scenes] == [s.colour for s in scenes]


@pytest.mark.slow
@pytest.mark.parametrize(("scale", "sigma"), [(1, 0), (1, 1.5), (2, 1.5)])
def test_nor_does_delivery(scale: int, sigma: float, tmp_path: Path) -> None:
    scenes = [scene for scene in world()[:: 4 * scale + 1] if scale == 1 or scene.ratio != "9:16"]
    found = [(scene, judged_file(scene, tmp_path, scale=scale, sigma=sigma, noise=0.01)) for scene in scenes]
    assert mistakes(found) == []


def bouncing(sound: str = "beep") -> list[Scene]:
    """Every tempo and size, each sounding at its contacts."""
    sizes = itertools.product(PERIODS_S, PHASES, ("1:1", "16:9", "9:16"))
    drawn = random_scene(random.Random(4), duration_s=4, ratio="1:1")
    return [
        replace(drawn, motion="bounce", sound=sound, period_s=period_s, phase=phase, ratio=ratio, radius=10.5)
        for period_s, phase, ratio in sizes
    ]


@pytest.mark.parametrize("sound", ["beep", "thud"])
def test_contacts_and_sounds_are_timed(sound: str) -> None:
    found = [(scene, judged_scene(scene, sigma=1.0, noise=0.02)) for scene in bouncing(sound)]
    for scene, verdict in found:
        assert verdict.contact_times_s == pytest.approx(scene.contact_times_s, abs=0.005)
        assert len(verdict.onset_times_s) == len(scene.contact_times_s)
    truth = timing([(verdict.contact_times_s, verdict.onset_times_s) for _, verdict in found])
    assert truth.share_within == 1
    assert truth.median_s < 0.030
    assert truth.onsets_a_contact == 1
    assert truth.p < 0.01


def test_contacts_between_frames_are_timed_between_frames() -> None:
    scene = replace(bouncing()[0], period_s=1.1, phase=0.3)
    frame_s = 1 / FPS
    assert any(abs(t / frame_s - round(t / frame_s)) > 0.3 for t in scene.contact_times_s)
    assert judged_scene(scene).contact_times_s == pytest.approx(scene.contact_times_s, abs=0.006)


def test_late_and_shuffled_sounds_are_seen() -> None:
    found = [judged_scene(scene) for scene in bouncing()]
    late = timing([(v.contact_times_s, [t + 0.2 for t in v.onset_times_s]) for v in found])
    assert late.share_within < 0.1
    assert late.median_signed_s == pytest.approx(0.2, abs=0.06)
    shifted = found[1:] + found[:1]
    other = timing([(a.contact_times_s, b.onset_times_s) for a, b in zip(found, shifted[::-1], strict=True)])
    assert other.p > 0.05
    silent = timing([(found[0].contact_times_s, []), ([], found[0].onset_times_s)])
    assert (silent.share_within, silent.median_s) == (0, float("inf"))
    assert silent.num_contacts == len(found[0].contact_times_s) + 2


def test_a_delay_of_the_sound_is_measured() -> None:
    scene = bouncing()[0]
    delayed = functional.pad(drawn_sound(scene), (SAMPLE_RATE_HZ // 10, 0))[: 4 * SAMPLE_RATE_HZ]
    before, after = judged_scene(scene).onset_times_s, judged(drawn_frames(scene), delayed).onset_times_s
    assert [t + 0.1 for t in before] == pytest.approx(after, abs=0.002)


def test_delivery_delays_no_sound(tmp_path: Path) -> None:
    scene = bouncing()[0]
    delivered = judged_file(scene, tmp_path)
    assert delivered.onset_times_s == pytest.approx(judged_scene(scene).onset_times_s, abs=0.004)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("scale", "sigma"), [(1, 1.0), (1, 2.0), (2, 1.5), (2, 3.0)])
def test_an_edge_is_as_wide_as_its_blur(shape: str, scale: int, sigma: float) -> None:
    drawn = replace(world()[0], shape=shape, radius=13.0, ratio="1:1", across=0.5, along=0.5)
    ideal = 2 * 1.2816 * math.hypot(sigma, math.sqrt(1 / 12))  # 10 to 90 % of a Gaussian and of a pixel
    assert judged(drawn_frames(drawn, scale=scale, sigma=sigma)).edge_width_px == pytest.approx(ideal, rel=0.06)


def sounding(*partials: tuple[float, float], bursts: bool = False, every_s: float = 1.0) -> Tensor:
    """Three seconds of (Hz, amplitude) sines, steady or in bursts of 0.1 s."""
    times_s = torch.arange(3 * SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    wave = torch.stack([a * torch.sin(2 * math.pi * hz * times_s) for hz, a in partials]).sum(0)
    return wave * ((times_s - 0.5) % every_s < 0.1) if bursts else wave


SOUND_TRICKS = {
    "noise": 0.2 * torch.randn(3 * SAMPLE_RATE_HZ, generator=torch.Generator().manual_seed(1)),
    "a steady beep": sounding((1600, 0.4)),
    "a tone in bursts": sounding((1000, 0.3), bursts=True),
    "a whistle": sounding((3500, 0.3)),
    "short whistles": sounding((2900, 0.4), bursts=True),
    "a rattle": sounding((1600, 0.4), bursts=True, every_s=0.4),
    "hum and tone": sounding((110, 0.3), (1000, 0.3)),
}


@pytest.mark.parametrize("name", SOUND_TRICKS)
def test_no_sound_of_the_world_is_heard_in(name: str) -> None:
    assert judged(disc(32, 32), SOUND_TRICKS[name]).sound is None


def test_faint_beeps_are_not_silence() -> None:
    assert judged(disc(32, 32), sounding((1600, 0.04), bursts=True)).sound == "beep"
    assert judged(disc(32, 32), sounding((1600, 0.004), bursts=True)).sound == "silence"
    assert judged(disc(32, 32), None).sound == "silence"


DOWN, ACROSS = torch.meshgrid(torch.arange(64) + 0.5, torch.arange(64) + 0.5, indexing="ij")


def painted(*masks: Tensor, colour: Tensor = RED) -> Tensor:
    """36 frames [64, 64] of one mask, or one for each, on white."""
    mask = torch.stack(masks).expand(36, 64, 64)[..., None].float()
    return ((mask * colour + (1 - mask) * WHITE) * 255).round().to(torch.uint8)


def round_at(x: float, y: float, radius: float = 11.5) -> Tensor:
    return torch.hypot(ACROSS - x, DOWN - y) < radius


def disc(x: float, y: float) -> Tensor:
    return painted(round_at(x, y))


def moving(path: Sequence[tuple[float, float]]) -> Tensor:
    return painted(*(round_at(x, y) for x, y in path))


BOX = ((ACROSS - 32).abs() < 10.4) & ((DOWN - 32).abs() < 10.4)
RANDOM = torch.rand(64, 64, generator=torch.Generator().manual_seed(2))
NO_OBJECT = {
    "nothing": painted(torch.zeros(64, 64)),
    "noise": torch.randint(0, 256, (36, 64, 64, 3), generator=torch.Generator().manual_seed(3), dtype=torch.uint8),
    "specks": painted(RANDOM < 0.1),
    "two halves": painted((round_at(26, 32) & (ACROSS < 26)) | (round_at(38, 32) & (ACROSS > 38))),
    "two halves, close": painted((round_at(29, 32) & (ACROSS < 29)) | (round_at(35, 32) & (ACROSS > 35))),
    "two discs": painted(round_at(16, 32) | round_at(48, 32)),
    "a disc and a crumb": painted(round_at(16, 32) | round_at(48, 32, 5)),
    "a disc every other frame": painted(*(round_at(32, 32) & torch.tensor(n % 2 == 0) for n in range(36))),
    "a disc of half the picture": painted(round_at(32, 32, 25)),
}


@pytest.mark.parametrize("name", NO_OBJECT)
def test_without_one_whole_object_there_is_no_shape_and_no_motion(name: str) -> None:
    verdict = judged(NO_OBJECT[name])
    assert (verdict.shape, verdict.shape_scores, verdict.motion, verdict.contact_times_s) == (None, None, None, ())
    assert verdict.one_object < 0.6


NO_SHAPE = {
    "half a disc": painted(round_at(26, 32, 16) & (ACROSS > 26)),
    "a bar": painted(((ACROSS - 32).abs() < 14) & ((DOWN - 32).abs() < 8)),
    "a triangle upside down": painted((DOWN > 22) & ((ACROSS - 32).abs() < (45 - DOWN) * 0.577)),
    "a ring": painted(round_at(32, 32, 13) & ~round_at(32, 32, 7)),
    "now a disc, now a box": painted(*(round_at(32, 32) if n % 2 else BOX for n in range(36))),
}


@pytest.mark.parametrize("name", NO_SHAPE)
def test_no_shape_of_the_world_is_seen_in(name: str) -> None:
    verdict = judged(NO_SHAPE[name])
    assert (verdict.shape, verdict.motion, verdict.one_object) == (None, "still", 1)


def test_a_trembling_path_moves_its_contacts_by_little() -> None:
    """Codecs and models misplace an object by a pixel from frame to frame."""
    rng = random.Random(8)
    cycles = [(n / 12 + 0.5) % 1 for n in range(36)]
    verdict = judged(moving([(32, 50 - 88 * c * (1 - c) + rng.uniform(-1, 1)) for c in cycles]))
    assert verdict.contact_times_s == pytest.approx([0.5, 1.5, 2.5], abs=0.012)


NO_MOTION = {
    "jumps to and fro": moving([(14 if n % 2 else 50, 32) for n in range(36)]),
    "there and back": moving([(15 + 2 * min(n, 35 - n), 32) for n in range(36)]),
    "a little way": moving([(15 + n / 3, 32) for n in range(36)]),
    "down the diagonal": moving([(15 + n * 0.95, 15 + n * 0.95) for n in range(36)]),
    "falls once": moving([(32, 15 + 2 * min(n, 16)) for n in range(36)]),
    "sways": moving([(32 + 3 * math.sin(n), 32) for n in range(36)]),
    "small hops": moving([(32, 45 - 8 * abs(math.sin(n * 0.26))) for n in range(36)]),
}


@pytest.mark.parametrize("name", NO_MOTION)
def test_no_motion_of_the_world_is_seen_in(name: str) -> None:
    assert judged(NO_MOTION[name]).motion is None


def test_a_colour_must_be_the_objects_own() -> None:
    halves = painted(round_at(32, 32))
    halves[:, round_at(32, 32) & (ACROSS > 32)] = (BLUE * 255).to(torch.uint8)
    pieces = painted(torch.zeros(64, 64))
    for n, colour in enumerate(COLOURS.values()):
        pieces[:, round_at(10 + n % 4 * 14, 20 + n // 4 * 20, 5)] = (torch.tensor(colour) * 255).to(torch.uint8)
    gray = painted(round_at(32, 32), colour=torch.tensor(BACKGROUNDS["gray"]))
    assert [judged(frames).colour for frames in (halves, pieces, gray)] == [None, None, None]
    assert judged(painted(round_at(32, 32), colour=BLUE)).colour == "blue"


def test_a_background_must_be_one() -> None:
    frames = disc(32, 32)
    frames[:, :, :32][~round_at(32, 32).expand(36, 64, 64)[:, :, :32]] = 10
    assert judged(frames).background is None


def test_clips_without_an_object_count_against_the_shapes() -> None:
    seen, unseen = judged(disc(32, 32)), judged(NO_OBJECT["nothing"])
    box = judged(painted(BOX))
    assert pair_auc("circle", "square", [("circle", seen), ("square", box)]) == 1
    assert pair_auc("circle", "square", [("circle", unseen), ("square", box)]) == 0
    assert pair_auc("circle", "square", [("circle", seen), ("square", unseen)]) == 0
    assert auc([1, 2, 3], [2]) == 0.5
    with pytest.raises(ValueError, match="0 and 1 scores"):
        auc([], [1.0])


def test_arrays_of_another_kind_are_refused() -> None:
    with pytest.raises(ValueError, match="uint8"):
        judged(torch.zeros(3, 8, 8, 3))
    with pytest.raises(ValueError, match="samples"):
        judged(disc(32, 32), torch.zeros(1, 72000))
