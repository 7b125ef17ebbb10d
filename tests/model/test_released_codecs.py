"""The codecs of the release against recorded frames, their own libraries and straightforward arithmetic."""

import dataclasses
import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.signal
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from model.codecs import build_audio_decoder, build_image_encoder, build_sound_encoder, build_video_decoder
from model.codecs.normalisation import MEAN, SPREAD, denormalised, normalised
from model.codecs.turbo import TurboConfig, TurboDecoder, in_bands
from model.codecs.turbo_weights import load_turbo
from model.codecs.wan import WanVideoDecoder, load_wan
from model.config import ModelConfig
from model.sounds import fitted, mono, resampled
from model.weights import LocalWeights
from pipeline.media import cut_waveform
from tests.frames import shape_of
from tests.released import AUDIO_CHANNELS, TURBO_JSON, released_model, write_turbo

GOLDEN = Path(__file__).parents[1] / "golden"
TURBO = TurboConfig.from_json(TURBO_JSON)
EXACT = ("model.compute_dtype=float32",)


@pytest.fixture(scope="module")
def model() -> ModelConfig:
    return released_model("magihuman_distill", first_stage="distilled", words=EXACT)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Convolutions this small take longer on two."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def wan_of(folder: Path) -> Any:
    """As diffusers itself loads it."""
    from diffusers import AutoencoderKLWan

    return AutoencoderKLWan.from_pretrained(folder / "wan_vae").eval()


def count_calls(module: nn.Module) -> list[int]:
    calls: list[int] = []
    module.register_forward_hook(lambda *_: calls.append(1))
    return calls


def test_a_turbo_checkpoint_gives_the_recorded_frames(tmp_path: Path) -> None:
    with safe_open(GOLDEN / "turbo_vae_fp32.safetensors", "pt") as file:
        config = json.loads(file.metadata()["json"])["config"]
    write_turbo(tmp_path / "turbo_vae", load_file(GOLDEN / "turbo_vae_weights.safetensors"), config)
    decoder = load_turbo(LocalWeights(tmp_path), dtype=torch.float32, device="cpu")
    recorded = load_file(GOLDEN / "turbo_vae_fp32.safetensors")
    for num_latent, decoder.band_rows in ((2, 0), (9, 0), (14, 0), (9, 8)):
        frames = torch.cat(list(decoder.decode(recorded[f"latent.{num_latent}"][0])))
        wanted = (recorded[f"video.{num_latent}"][0].double() / 2 + 0.5).clamp(0, 1) * 255
        assert frames.shape == (4 * num_latent - 3, 32, 48, 3)
        # Truncation may fall to either side where float32 differs in its last digits.
        assert (frames.permute(3, 0, 1, 2).double() - (wanted - 0.5)).abs().max() <= 0.51


@pytest.mark.parametrize(("layers", "height", "rows"), [((2, 2, 2, 3, 3), 12, 32), ((1, 1, 1, 1, 1), 7, 48)])
def test_bands_are_the_whole_picture(layers: tuple[int, ...], height: int, rows: int) -> None:
    """In float64, but for the norms: a band that saw one row too few would be off by far more."""
    config = dataclasses.replace(TURBO, decoder_layers_per_block=layers)
    torch.manual_seed(0)
    decoder = TurboDecoder(config).double().requires_grad_(False)
    latent = noise(1, 48, 3, height, 2).double()
    for is_first in (True, False):
        whole = decoder.decoder(latent, is_first=is_first)
        banded = decoder.decoder(latent, is_first=is_first, band_rows=rows)
        assert banded.shape == whole.shape == (1, 3, 9 if is_first else 12, 16 * height, 32)
        torch.testing.assert_close(banded, whole, rtol=0, atol=5e-6)
    assert whole.std() > 0.01


def test_a_band_needs_every_row_that_it_is_given() -> None:
    decoder = TurboDecoder(TURBO).double().requires_grad_(False).decoder
    for part in decoder._parts():
        reach = decoder._reach(part)
        channels = next(part[0].parameters()).shape[1]
        x = noise(1, channels, 2, 4 * reach, 2).double()
        run = functools.partial(decoder._run, part, is_first=False)
        whole = run(x)
        torch.testing.assert_close(in_bands(run, x, rows=2 * reach, reach=reach), whole, rtol=0, atol=1e-6)
        assert (in_bands(run, x, rows=2 * reach, reach=reach - 1) - whole).abs().max() > 1e-5


@pytest.mark.parametrize("codec", ["turbo", "wan"])
def test_frames_come_one_window_at_a_time(codec: str, released_weights: Path) -> None:
    """Nothing is decoded ahead, so that a finisher holds one window, however long the clip."""
    model = released_model("magihuman_distill", first_stage="distilled", words=(*EXACT, f"model.codecs.video={codec}"))
    decoder: Any = build_video_decoder(model, LocalWeights(released_weights))
    calls = count_calls(decoder.decoder if isinstance(decoder, TurboDecoder) else decoder._vae.decoder)
    sizes = []
    for n, window in enumerate(decoder.decode(noise(48, 20, 2, 2)), 1):
        assert len(calls) == n
        sizes.append(window.shape[0])
    assert sizes == ([25, 28, 24] if codec == "turbo" else [1, *[4] * 19])
    assert window.shape[1:] == (32, 32, 3)


def test_wan_decodes_frame_by_frame_what_diffusers_decodes_at_once(released_weights: Path, model: ModelConfig) -> None:
    latent = noise(48, 4, 4, 6)
    vae = load_wan(model, LocalWeights(released_weights), kept=("post_quant_conv", "decoder"), device="cpu")
    frames = torch.cat(list(WanVideoDecoder(vae, dtype=torch.float32, device="cpu").decode(latent)))
    with torch.inference_mode():
        whole = wan_of(released_weights).decode(denormalised(latent)[None]).sample[0]
    wanted = ((whole.double() / 2 + 0.5) * 255).permute(1, 2, 3, 0)
    assert frames.shape == (13, 64, 96, 3)
    assert frames.float().std() > 1
    assert (frames.double() - (wanted - 0.5)).abs().max() <= 0.51


def test_an_image_is_encoded_as_diffusers_encodes_it(released_weights: Path, model: ModelConfig) -> None:
    image = (noise(64, 96, 3) * 60 + 128).clamp(0, 255).to(torch.uint8)
    latent = build_image_encoder(model, LocalWeights(released_weights)).encode_image(image)
    pixels = (image.double() / 255 * 2 - 1).float().permute(2, 0, 1)[None, :, None]
    with torch.inference_mode():
        mean = wan_of(released_weights).encode(pixels).latent_dist.mean[0].double()
    column = (48, 1, 1, 1)
    wanted = (mean - torch.tensor(MEAN).double().reshape(column)) / torch.tensor(SPREAD).double().reshape(column)
    assert latent.dtype == torch.float32
    assert latent.shape == (48, 1, 4, 6)
    torch.testing.assert_close(latent.double(), wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(denormalised(normalised(latent)), latent)


def test_the_released_dtype_is_bfloat16(released_weights: Path) -> None:
    model = released_model("magihuman_distill", first_stage="distilled")
    encoder: Any = build_image_encoder(model, LocalWeights(released_weights))
    assert {each.dtype for each in encoder._vae.parameters()} == {torch.bfloat16}
    sound: Any = build_audio_decoder(model, LocalWeights(released_weights))
    assert {each.dtype for each in sound._vae.parameters()} == {torch.float32}


LENGTHS = [(512, 441), (1024, 882), (513, 441), (511, 440), (300, 301), (300, 420)]


@pytest.mark.parametrize(("n", "num_samples"), LENGTHS)
def test_resampling_is_that_of_scipy(n: int, num_samples: int) -> None:
    waveform = noise(2, n)
    wanted = scipy.signal.resample(waveform.double().numpy(), num_samples, axis=-1)
    got = resampled(waveform, num_samples)
    assert got.dtype == torch.float32
    np.testing.assert_allclose(got.double().numpy(), wanted, atol=1e-6)


@pytest.mark.parametrize("num_latents", [9, 213])
def test_sound_is_decoded_as_diffusers_does_and_resampled(
    num_latents: int, released_weights: Path, model: ModelConfig
) -> None:
    """In pieces of 100 latents it is what it is at once."""
    from diffusers import AutoencoderOobleck

    latent = noise(num_latents, AUDIO_CHANNELS)
    sound = build_audio_decoder(model, LocalWeights(released_weights))
    with pytest.warns(FutureWarning, match="weight_norm"):
        vae = AutoencoderOobleck.from_pretrained(released_weights / "audio_vae").eval()
    with torch.inference_mode():
        whole = vae.decode(latent.T[None]).sample[0].double().numpy()
    wanted = scipy.signal.resample(whole, num_latents * 2048 * 441 // 512, axis=-1)
    assert sound.sample_rate_hz == 44_100
    np.testing.assert_allclose(sound.decode(latent).double().numpy(), wanted, atol=1e-5)
    assert wanted.std() > 0.01


def test_a_sound_is_encoded_as_diffusers_does_from_the_spec_s_words(released_weights: Path, model: ModelConfig) -> None:
    """Mono at 51,200 Hz, cut to the seconds, doubled to stereo, silence for the one latent more."""
    from diffusers import AutoencoderOobleck

    given = noise(2, 3 * 48_000 + 99) * 0.1
    encoder = build_sound_encoder(model, LocalWeights(released_weights))
    assert encoder.encoded_rate_hz == 51_200
    waveform = mono(fitted(given, rate_hz=48_000, to_rate_hz=encoder.encoded_rate_hz, seconds=3))
    latent = encoder.encode_sound(waveform, num_latents=76)
    piece = given[:, : 3 * 48_000].double().numpy().mean(axis=0)
    resampled_piece = scipy.signal.resample(np.concatenate([piece, piece[::-1]]), 6 * 51_200)[: 3 * 51_200]
    whole = torch.from_numpy(np.tile(np.append(resampled_piece, np.zeros(2048)), (1, 2, 1))).float()
    with pytest.warns(FutureWarning, match="weight_norm"):
        vae = AutoencoderOobleck.from_pretrained(released_weights / "audio_vae").eval()
    with torch.inference_mode():
        wanted = vae.encode(whole).latent_dist.mean[0].T
    assert latent.shape == (76, AUDIO_CHANNELS)
    assert wanted.std() > 0.001
    torch.testing.assert_close(latent, wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max()))


def test_every_duration_gets_its_exact_number_of_samples(released_weights: Path, model: ModelConfig) -> None:
    sound = build_audio_decoder(model, LocalWeights(released_weights))
    for seconds in (3, 15):
        waveform = sound.decode(noise(25 * seconds + 1, AUDIO_CHANNELS)).numpy()
        assert waveform.shape == (2, 44_100 * seconds + 1764)
        shape = shape_of(fps=25, seconds=seconds, rate=44_100)
        assert cut_waveform(waveform, shape=shape).shape == (2, 44_100 * seconds)
