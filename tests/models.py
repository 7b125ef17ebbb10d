"""A small model's shape, written by hand, for tests that need no weights."""

from model.config import Codecs, ModelConfig, SamplingConfig, Size, TransformerConfig

TRANSFORMER = TransformerConfig(
    num_layers=4,
    hidden_size=64,
    head_dim=16,
    num_heads_q=4,
    num_heads_kv=4,
    video_in_channels=64,
    audio_in_channels=8,
    text_in_channels=32,
    mm_layers=(0, 3),
    gelu7_layers=(0,),
    local_attn_layers=(),
    coords_style="v2",
)
SIZES = {
    "64P": {
        "1:1": Size(latent_height=8, latent_width=8, height=64, width=64),
        "16:9": Size(latent_height=6, latent_width=10, height=46, width=80),
        "9:16": Size(latent_height=10, latent_width=6, height=80, width=46),
    },
    "128P": {
        "1:1": Size(latent_height=16, latent_width=16, height=128, width=128),
        "16:9": Size(latent_height=12, latent_width=20, height=92, width=160),
    },
}


def small_model(name: str = "small") -> ModelConfig:
    """12 frames a second, 24 kHz, two resolutions, 3 to 5 seconds, 640 tokens."""
    return ModelConfig(
        name=name,
        transformer=TRANSFORMER,
        sampling=SamplingConfig(negative_prompt="blurry"),
        codecs=Codecs(video="foal", audio="foal", text="foal"),
        compute_dtype="float32",
        fps=12,
        spatial_scale=8,
        audio_latents_per_s=12,
        sample_rate_hz=24000,
        sizes=SIZES,
        default_resolution="64P",
        default_ratio="16:9",
        durations_s=(3, 4, 5),
        default_duration_s=3,
        text_max_tokens=640,
    )
