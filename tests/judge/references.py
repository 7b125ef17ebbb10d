"""What delivered clips are compared with: the drawn truth through the foal's codec, and base clips merely enlarged."""

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from model.codecs import build_image_encoder
from model.codecs.foal import SLOTS_PER_S, FoalAudioCodec, FoalVideoCodec
from model.foal.judge import Verdict, judge_clip
from model.foal.scenes import Scene, draw_frames, draw_sound
from model.shapes import clip_shape, decoded_frames, latent_frames
from model.weights import LocalWeights
from tests.clips import MEDIA
from tests.configured import load_model
from tests.e2e.runs import ROOT
from tests.judge.files import deliver, read_mp4
from tests.judge.prompts import Asked
from tests.judge.rendering import judge_file

BUILTIN = ROOT / "model" / "foal" / "weights"


class RoundTrip:
    """Draws a scene, sends it through the codec of `weights` and back, and delivers it as a clip."""

    def __init__(self, folder: Path, *, weights: Path = BUILTIN) -> None:
        self.folder, self.model = folder, load_model("foal")
        folder.mkdir(parents=True, exist_ok=True)
        codec = build_image_encoder(self.model, LocalWeights(weights))
        assert isinstance(codec, FoalVideoCodec)
        self.codec = codec.eval()

    def judge(self, asked: Asked) -> Verdict:
        shape = clip_shape(self.model, resolution="64P", ratio=asked.scene.ratio, duration_s=asked.scene.duration_s)
        num_frames = decoded_frames(latent_frames(shape.num_frames))
        frames = draw_frames(asked.scene, num_frames=num_frames, fps=shape.fps)
        with torch.no_grad():
            decoded = torch.cat(list(self.codec.decode(self.codec.encode(frames[None])[0])))
        waveform = drawn_sound(asked.scene)
        mp4 = deliver(decoded, waveform, shape=shape, folder=self.folder, stem=asked.clip_id, settings=MEDIA)
        return judge_file(mp4)


def drawn_sound(scene: Scene) -> Tensor:
    """[samples] of the scene's sound, through the sound codec."""
    codec = FoalAudioCodec()
    amplitudes = draw_sound(scene, num_slots=scene.duration_s * SLOTS_PER_S + 2)
    return codec.decode(codec.encode(amplitudes))[0, : scene.duration_s * codec.sample_rate_hz]


def judge_enlarged(mp4: Path) -> Verdict:
    """A delivered clip at twice its size by Lanczos, as a viewer's player would enlarge it."""
    frames, waveform, rate_hz = read_mp4(mp4)
    return judge_clip(_twice(frames), waveform, sample_rate_hz=rate_hz, fps=12)


def _twice(frames: Tensor) -> Tensor:
    height, width = frames.shape[1:3]
    large = [
        Image.fromarray(frame.numpy()).resize((2 * width, 2 * height), Image.Resampling.LANCZOS) for frame in frames
    ]
    return torch.stack([torch.frombuffer(bytearray(each.tobytes()), dtype=torch.uint8) for each in large]).view(
        -1, 2 * height, 2 * width, 3
    )


def median_ratio(wide: Sequence[Verdict], narrow: Sequence[Verdict]) -> float:
    """Median over clips of one edge width over the other's, where both could be measured; NaN without any."""
    ratios = [
        a.edge_width_px / b.edge_width_px
        for a, b in zip(wide, narrow, strict=True)
        if a.edge_width_px is not None and b.edge_width_px is not None
    ]
    return float(torch.tensor(ratios).quantile(0.5)) if ratios else float("nan")
