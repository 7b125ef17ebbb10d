"""What `make bench-gpu` renders, written down here: conf/ needs hydra, which a machine with a card may lack.

`tests/bench/test_gpu.py` holds the full sizes against conf/.
"""

from dataclasses import dataclass, replace

from model.codecs.turbo import TurboConfig
from model.config import (
    Codecs,
    DistilledConfig,
    ModelConfig,
    SamplingConfig,
    Size,
    SuperResolutionConfig,
    SuperResolutionStage,
    TransformerConfig,
)
from model.shapes import ClipShape, clip_shape

DURATION_S, RATIO, TEXT_TOKENS = 5, "16:9", 300
BASE = TransformerConfig(
    num_layers=40,
    hidden_size=5120,
    head_dim=128,
    num_heads_q=40,
    num_heads_kv=8,
    video_in_channels=192,
    audio_in_channels=64,
    text_in_channels=3584,
    mm_layers=(0, 1, 2, 3, 36, 37, 38, 39),
    gelu7_layers=(0, 1, 2, 3),
    local_attn_layers=(),
    coords_style="v2",
)
SMALL = replace(
    BASE,
    num_layers=4,
    hidden_size=64,
    head_dim=16,
    num_heads_q=4,
    num_heads_kv=2,
    text_in_channels=32,
    mm_layers=(0, 3),
    gelu7_layers=(0,),
)
GLOBAL_LAYERS = (3, 7, 11, 15, 19, 23, 27, 31)  # of 1080p_sr
TURBO = TurboConfig(
    latent_channels=48,
    out_channels=3,
    patch_size=2,
    decoder_block_out_channels=(64, 128, 256, 512),
    decoder_layers_per_block=(2, 2, 2, 3, 3),
    decoder_spatio_temporal_scaling=(False, True, True, True),
    decoder_spatio_only=(False, True, False, False),
    resnet_norm_eps=1e-6,
    first_chunk_size=7,
    step_size=7,
)


def _size(latent: tuple[int, int], first: tuple[int, int] | None, delivered: tuple[int, int]) -> Size:
    """Height before width, as everywhere."""
    return Size(
        latent_height=latent[0],
        latent_width=latent[1],
        height=delivered[0],
        width=delivered[1],
        first_latent_height=first[0] if first else None,
        first_latent_width=first[1] if first else None,
    )


SIZES = {
    "256P": _size((16, 28), None, (256, 448)),
    "540P": _size((32, 56), (16, 28), (512, 896)),
    "1080P": _size((68, 120), (16, 28), (1080, 1920)),
}
SMALL_SIZES = {
    "256P": _size((2, 4), None, (32, 64)),
    "540P": _size((4, 6), (2, 4), (64, 96)),
    "1080P": _size((6, 8), (2, 4), (90, 128)),
}
GOALS_S = {"256P": 1.6, "540P": 6.0, "1080P": 25.0}  # on an H100-class card


@dataclass(frozen=True, kw_only=True)
class Target:
    """A clip, and in how many seconds it is to be there."""

    name: str
    model: ModelConfig
    goal_s: float

    @property
    def shape(self) -> ClipShape:
        return clip_shape(self.model, resolution=self.name, ratio=RATIO, duration_s=self.model.default_duration_s)


def targets(*, small: bool) -> tuple[Target, ...]:
    base = SMALL if small else BASE
    local = tuple(n for n in range(base.num_layers) if n not in GLOBAL_LAYERS)
    enlarged = replace(base, coords_style="v1")
    stages = {
        "256P": None,
        "540P": enlarged,
        "1080P": replace(enlarged, local_attn_layers=local, frame_receptive_field=11),
    }
    return tuple(
        Target(name=name, model=_model(name, base, stage, small=small), goal_s=GOALS_S[name])
        for name, stage in stages.items()
    )


def _model(name: str, base: TransformerConfig, enlarged: TransformerConfig | None, *, small: bool) -> ModelConfig:
    stage = None
    if enlarged is not None:
        sampling = SuperResolutionConfig(guided=False)
        stage = SuperResolutionStage(part=f"{name.lower()}_sr", transformer=enlarged, sampling=sampling)
    duration_s = 1 if small else DURATION_S
    return ModelConfig(
        name=f"magihuman_{name.lower()}",
        transformer=base,
        first_stage="distilled",
        sampling=SamplingConfig(),
        distilled=DistilledConfig(),
        super_resolution=stage,
        codecs=Codecs(video="turbo", audio="oobleck", text="t5gemma"),
        compute_dtype="bfloat16",
        fps=25,
        spatial_scale=16,
        audio_latents_per_s=25,
        sample_rate_hz=44100,
        sizes={name: {RATIO: (SMALL_SIZES if small else SIZES)[name]}},
        default_resolution=name,
        default_ratio=RATIO,
        durations_s=(duration_s,),
        default_duration_s=duration_s,
        text_max_tokens=TEXT_TOKENS,
    )


def turbo(*, small: bool) -> TurboConfig:
    return replace(TURBO, decoder_block_out_channels=(8, 8, 16, 16)) if small else TURBO
