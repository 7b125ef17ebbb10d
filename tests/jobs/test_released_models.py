"""The released models by config: shapes, stages and every number of spec/model.md, as what a run is told."""

from dataclasses import asdict

import pytest

from jobs.compose import compose_values
from jobs.settings import run_settings
from jobs.words import read_words
from model.config import Codecs, ModelConfig, SuperResolutionConfig

GLOBAL_LAYERS = {3, 7, 11, 15, 19, 23, 27, 31}


def model(name: str, *words: str) -> ModelConfig:
    return run_settings(compose_values("render", read_words([f"model={name}", "manifest=m", "output=o", *words]))).model


@pytest.mark.parametrize(
    ("name", "parts", "steps", "guided"),
    [
        ("magihuman_base", ["base"], 32, True),
        ("magihuman_distill", ["distill"], 8, False),
        ("magihuman_540p", ["distill", "540p_sr"], 8, False),
        ("magihuman_1080p", ["distill", "1080p_sr"], 8, False),
        ("happyhorse", ["distill", "1080p_sr"], 8, False),
    ],
)
def test_stages(name: str, parts: list[str], steps: int, guided: bool) -> None:
    config = model(name)
    assert (list(config.transformers), config.steps, config.is_guided) == (parts, steps, guided)
    assert config.name == name
    assert config.codecs == Codecs(video="turbo", audio="oobleck", text="t5gemma")
    assert (config.fps, config.audio_latents_per_s, config.sample_rate_hz, config.text_max_tokens) == (
        25,
        25,
        44100,
        640,
    )
    assert config.durations_s == tuple(range(3, 16))
    for transformer in config.transformers.values():
        assert (transformer.num_layers, transformer.hidden_size, transformer.head_dim) == (40, 5120, 128)
        assert (transformer.num_heads_q, transformer.num_heads_kv, transformer.mlp_inner_size(4)) == (40, 8, 13652)


def test_the_first_stage_is_chosen_by_one_word() -> None:
    config = model("magihuman_1080p", "model.first_stage=base")
    assert (list(config.transformers), config.steps, config.is_guided) == (["base", "1080p_sr"], 32, True)
    assert len(config.sampling.negative_prompt) > 1000


def test_only_super_resolution_to_1080p_looks_at_a_window() -> None:
    small, large = model("magihuman_540p").super_resolution, model("magihuman_1080p").super_resolution
    assert small is not None
    assert large is not None
    assert (small.transformer.local_attn_layers, small.transformer.coords_style) == ((), "v1")
    assert set(range(40)) - set(large.transformer.local_attn_layers) == GLOBAL_LAYERS
    assert (large.transformer.frame_receptive_field, large.transformer.coords_style) == (11, "v1")


def test_every_number_of_the_samplers_is_a_setting_with_the_released_value() -> None:
    config = model("magihuman_1080p")
    sampling = asdict(config.sampling) | {"negative_prompt": ""}
    assert sampling == {
        "steps": 32,
        "flow_shift": 5.0,
        "flow_start": 0.999,
        "video_guidance": 5.0,
        "video_guidance_late": 2.0,
        "guidance_switch": 500,
        "audio_guidance": 5.0,
        "negative_prompt": "",
    }
    assert config.distilled is not None
    assert asdict(config.distilled) == {"steps": 8, "flow_shift": 5.0, "flow_start": 0.999}
    assert config.super_resolution is not None
    assert config.super_resolution.sampling == SuperResolutionConfig(
        steps=5,
        flow_shift=5.0,
        flow_start=0.999,
        guided=False,
        video_guidance=3.5,
        video_guidance_first=2.0,
        guidance_first_frames=13,
        noise_level=220,
        noise_betas=(0.00085, 0.012),
        audio_noise_scale=0.7,
    )
    changed = model("magihuman_1080p", "model.super_resolution.sampling.noise_betas=[0.001,0.02]")
    assert changed.super_resolution is not None
    assert changed.super_resolution.sampling.noise_betas == (0.001, 0.02)
