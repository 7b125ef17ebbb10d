"""What a model is, as plain frozen values. Every rule about them is checked here; nothing is changed later.

Values come from `conf/model/*.yaml`. Shapes have no defaults, so a half-specified model cannot exist.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

CoordsStyle = Literal["v1", "v2"]
MODALITIES = ("video", "audio", "text")


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """Shape of the single-stream Transformer; field names are those of the recorded checkpoints."""

    num_layers: int
    hidden_size: int
    head_dim: int
    num_heads_q: int
    num_heads_kv: int
    video_in_channels: int  # latent channels x patch 1x2x2
    audio_in_channels: int
    text_in_channels: int
    mm_layers: tuple[int, ...]  # layers with weights of their own for each modality
    gelu7_layers: tuple[int, ...]  # layers whose MLP is the ungated kind
    local_attn_layers: tuple[int, ...]
    coords_style: CoordsStyle
    frame_receptive_field: int = -1  # radius of local attention in latent frames; -1: there is none
    # What the foal needs and no release has:
    prediction: Literal["velocity", "clean"] = "velocity"  # what the heads give; see model/sampling/prediction.py
    place_frequencies: int = 0  # tokens of video and audio are told where they stand by that many sines an axis

    def __post_init__(self) -> None:
        positive = (
            "num_layers hidden_size head_dim num_heads_q num_heads_kv "
            "video_in_channels audio_in_channels text_in_channels"
        )
        for name in positive.split():
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least 1")
        if self.num_heads_q % self.num_heads_kv:
            raise ValueError(f"num_heads_q {self.num_heads_q} is not a multiple of num_heads_kv {self.num_heads_kv}")
        if self.head_dim % 8:
            raise ValueError(f"head_dim {self.head_dim} is not a multiple of 8 (rotary bands)")
        if self.video_in_channels % 4:
            raise ValueError(f"video_in_channels {self.video_in_channels} is not a multiple of 4 (patch 1x2x2)")
        for name in ("mm_layers", "gelu7_layers", "local_attn_layers"):
            strays = [n for n in getattr(self, name) if not 0 <= n < self.num_layers]
            if strays:
                raise ValueError(f"{name} names layers {strays}, expected 0 to {self.num_layers - 1}")
        if self.prediction not in ("velocity", "clean"):
            raise ValueError(f"prediction is {self.prediction!r}, expected velocity or clean")
        if self.coords_style not in ("v1", "v2"):
            raise ValueError(f"coords_style is {self.coords_style!r}, expected v1 or v2")
        if self.local_attn_layers and self.frame_receptive_field < 0:
            raise ValueError("local_attn_layers needs a frame_receptive_field of 0 or more")

    @property
    def video_latent_channels(self) -> int:
        return self.video_in_channels // 4

    def num_experts(self, layer: int) -> int:
        return len(MODALITIES) if layer in self.mm_layers else 1

    def is_gated(self, layer: int) -> bool:
        return layer not in self.gelu7_layers

    def mlp_inner_size(self, layer: int) -> int:
        """Inner width of a layer's MLP before any cutting."""
        return self.hidden_size * 4 * 2 // 3 // 4 * 4 if self.is_gated(layer) else self.hidden_size * 4


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """The base stage's numbers; defaults are those of spec/model.md."""

    steps: int = 32
    flow_shift: float = 5.0
    flow_start: float = 0.999  # of the grid before it is shifted
    video_guidance: float = 5.0  # while the truncated timestep is above guidance_switch
    video_guidance_late: float = 2.0
    guidance_switch: int = 500
    audio_guidance: float = 5.0
    negative_prompt: str = ""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps is {self.steps}, expected at least 1")


@dataclass(frozen=True, kw_only=True)
class DistilledConfig:
    """The distilled stage's numbers; it is never guided. Defaults are those of spec/model.md."""

    steps: int = 8
    flow_shift: float = 5.0
    flow_start: float = 0.999

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps is {self.steps}, expected at least 1")


@dataclass(frozen=True, kw_only=True)
class SuperResolutionConfig:
    """The super-resolution stage's numbers; defaults are those of spec/model.md."""

    steps: int = 5
    flow_shift: float = 5.0
    flow_start: float = 0.999
    guided: bool = False
    video_guidance: float = 3.5
    video_guidance_first: float = 2.0  # on the first latent frames
    guidance_first_frames: int = 13
    noise_level: int = 220  # of 1000, that the enlarged video starts from
    noise_betas: tuple[float, float] = (0.00085, 0.012)  # of the least and the greatest of these levels
    audio_noise_scale: float = 0.7  # of the sound that the stage sees; what is delivered is the base stage's

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps is {self.steps}, expected at least 1")
        if not 0 <= self.noise_level < 1000:
            raise ValueError(f"noise_level is {self.noise_level}, expected 0 to 999")
        if not 0 <= self.audio_noise_scale <= 1:
            raise ValueError(f"audio_noise_scale is {self.audio_noise_scale}, expected 0 to 1")


@dataclass(frozen=True, kw_only=True)
class SuperResolutionStage:
    """The second stage of a model: a Transformer of its own that enlarges what the first stage made."""

    part: str  # its folder below the weights root, as released: 540p_sr, 1080p_sr
    transformer: TransformerConfig
    sampling: SuperResolutionConfig


@dataclass(frozen=True, kw_only=True)
class Codecs:
    """What stands around the Transformers: the foal's own, or those that the release uses."""

    video: Literal["foal", "turbo", "wan"]  # turbo and wan decode; both take images through Wan's VAE
    audio: Literal["foal", "oobleck"]
    text: Literal["foal", "t5gemma"]
    band_rows: int = 256  # of the picture, that Turbo computes at a time where it is large; 0: all

    def __post_init__(self) -> None:
        for name, known in (("video", ("foal", "turbo", "wan")), ("audio", ("foal", "oobleck"))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected one of {', '.join(known)}")
        if self.text not in ("foal", "t5gemma"):
            raise ValueError(f"text is {self.text!r}, expected foal or t5gemma")
        if self.band_rows < 0:
            raise ValueError(f"band_rows is {self.band_rows}, expected 0 or more")


@dataclass(frozen=True, kw_only=True)
class Size:
    """One cell of a model's size table: the decoded frame, latent x scale, is cropped symmetrically to it."""

    latent_height: int
    latent_width: int
    height: int  # delivered pixels, even
    width: int
    first_latent_height: int | None = None  # of the first stage, where super-resolution follows
    first_latent_width: int | None = None

    def __post_init__(self) -> None:
        first = (self.first_latent_height, self.first_latent_width)
        if (first[0] is None) != (first[1] is None):
            raise ValueError(f"first_latent_height {first[0]} and first_latent_width {first[1]}: give both or none")
        if (first[0] or 0) % 2 or (first[1] or 0) % 2:
            raise ValueError(f"first latent size {first[1]}x{first[0]} is not even (patch 1x2x2)")
        if self.height % 2 or self.width % 2:
            raise ValueError(f"delivered size {self.width}x{self.height} is not even")
        if self.latent_height % 2 or self.latent_width % 2:
            raise ValueError(f"latent size {self.latent_width}x{self.latent_height} is not even (patch 1x2x2)")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Everything a run must know about a model before its weights are read."""

    name: str
    transformer: TransformerConfig  # of the first stage
    first_stage: Literal["base", "distilled"] = "base"  # which weights and solver make the first stage
    sampling: SamplingConfig  # the base stage's
    distilled: DistilledConfig | None = None  # None: the model has no distilled weights
    super_resolution: SuperResolutionStage | None = None  # used at the sizes that have a first latent
    one_forward: bool = False  # a guided step's two prompts in one forward: faster where weights, not tokens, cost time
    compiled: bool = False  # layers through torch.compile
    fp8: bool = False  # linear maps of the layers that modalities share in 8-bit floats
    codecs: Codecs
    compute_dtype: Literal["float32", "bfloat16"]
    fps: int
    spatial_scale: int  # pixels per latent cell and side
    audio_latents_per_s: int
    sample_rate_hz: int  # of the delivered sound
    sizes: Mapping[str, Mapping[str, Size]]  # resolution -> ratio -> size
    default_resolution: str
    default_ratio: str
    durations_s: tuple[int, ...]
    default_duration_s: int
    text_max_tokens: int

    def __post_init__(self) -> None:
        for name in ("fps", "spatial_scale", "audio_latents_per_s", "sample_rate_hz", "text_max_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least 1")
        if self.first_stage not in ("base", "distilled"):
            raise ValueError(f"first_stage is {self.first_stage!r}, expected base or distilled")
        if self.fp8 and self.compute_dtype != "bfloat16":
            raise ValueError(f"fp8 gives bfloat16, but compute_dtype is {self.compute_dtype}")
        if self.first_stage == "distilled" and self.distilled is None:
            raise ValueError(f"first_stage is distilled, but model {self.name} has no distilled weights")
        if self.default_resolution not in self.sizes:
            raise ValueError(f"default_resolution {self.default_resolution!r} is not one of {sorted(self.sizes)}")
        for resolution, ratios in self.sizes.items():
            if self.default_ratio not in ratios:
                raise ValueError(f"default_ratio {self.default_ratio!r} is missing at {resolution}")
            for ratio, size in ratios.items():
                self._check_size(f"{resolution} {ratio}", size)
        if self.default_duration_s not in self.durations_s:
            raise ValueError(f"default_duration_s {self.default_duration_s} is not one of {self.durations_s}")

    def _check_size(self, where: str, size: Size) -> None:
        decoded = (size.latent_height * self.spatial_scale, size.latent_width * self.spatial_scale)
        if size.height > decoded[0] or size.width > decoded[1]:
            raise ValueError(f"{where}: delivered {size.width}x{size.height} exceeds {decoded[1]}x{decoded[0]}")
        if size.first_latent_height is not None and self.super_resolution is None:
            raise ValueError(f"{where} has a first latent, but model {self.name} has no super_resolution")

    @property
    def steps(self) -> int:
        """Of the first stage, where a row says nothing."""
        if self.first_stage == "distilled":
            assert self.distilled is not None  # checked when it was made
            return self.distilled.steps
        return self.sampling.steps

    @property
    def is_guided(self) -> bool:
        """Whether any stage runs against a negative prompt; `guidance` scales the first stage alone."""
        return self.first_stage == "base" or (
            self.super_resolution is not None and self.super_resolution.sampling.guided
        )

    @property
    def shows_sound_noised(self) -> bool:
        """Networks that predict clean samples know one noise level for video and sound (`sampling/given_sound.py`)."""
        return self.transformer.prediction == "clean"

    @property
    def takes_sound(self) -> bool:
        """Whether it can render to a given sound. The release does so in its guided stage alone, and holds it clean."""
        return self.first_stage == "base" or self.shows_sound_noised

    @property
    def transformers(self) -> Mapping[str, TransformerConfig]:
        """The stages' folders below the weights root, and what lies in them."""
        parts = {"base" if self.first_stage == "base" else "distill": self.transformer}
        if self.super_resolution is not None:
            parts[self.super_resolution.part] = self.super_resolution.transformer
        return parts
