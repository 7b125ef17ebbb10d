"""The constants of the released codecs, counted again from the configurations, on the meta device."""

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from model import codec_cost
from model.codec_cost import decode_flops, decoder_memory, text_memory, turbo_cells
from model.codecs.oobleck import BESIDE, PIECE
from model.codecs.turbo import TurboConfig, TurboDecoder
from model.shapes import clip_shape
from tests.allocations import Allocations
from tests.configured import load_model

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


def turbo() -> TurboDecoder:
    with torch.device("meta"):
        return TurboDecoder(TURBO).to(torch.bfloat16)


def test_the_turbo_decoder() -> None:
    decoder = turbo()
    assert sum(each.numel() for each in decoder.parameters()) == codec_cost.TURBO_PARAMETERS
    window = torch.empty(1, 48, 9, 4, 4, device="meta", dtype=torch.bfloat16)
    with FlopCounterMode(display=False) as counter, Allocations() as made, torch.inference_mode():
        decoder.decoder(window, is_first=False)
    assert counter.get_total_flops() == 9 * 16 * codec_cost.TURBO_FLOPS
    assert made.peak_bytes == pytest.approx(9 * 16 * codec_cost.TURBO_BYTES, rel=0.1)


@pytest.mark.parametrize(("resolution", "rows"), [("1080P", 256), ("1080P", 128), ("720P", 256), ("1080P", 0)])
def test_the_turbo_decoder_in_bands(resolution: str, rows: int) -> None:
    """A later window of a real size, as the model says what it costs."""
    model = load_model("magihuman_1080p", f"model.codecs.band_rows={rows}")
    shape = clip_shape(model, resolution=resolution, ratio="16:9", duration_s=5)
    window = torch.empty(1, 48, 9, *shape.video_latent[2:], device="meta", dtype=torch.bfloat16)
    with FlopCounterMode(display=False) as counter, Allocations() as made, torch.inference_mode():
        turbo().decoder(window, is_first=False, band_rows=rows)
    assert made.peak_bytes == pytest.approx(decoder_memory(model, shape).activations, rel=0.1)
    sound = codec_cost.OOBLECK_FLOPS * shape.audio_latent[0]
    share = window[0, 0].numel() / turbo_cells(shape.video_latent)
    assert counter.get_total_flops() == pytest.approx((decode_flops(model, shape) - sound) * share, rel=0.05)


@pytest.mark.parametrize("frames", [2, 7, 8, 14, 16])
def test_cells_are_those_that_the_windows_cover(frames: int, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = turbo()
    seen: list[int] = []
    forward = decoder.decoder.forward

    def counted(latent: torch.Tensor, *, is_first: bool, band_rows: int) -> torch.Tensor:
        seen.append(latent.shape[2] * latent.shape[3] * latent.shape[4])
        return forward(latent, is_first=is_first, band_rows=band_rows)

    monkeypatch.setattr(decoder.decoder, "forward", counted)
    list(decoder.windows(torch.empty(48, frames, 2, 4, device="meta")))
    assert sum(seen) == turbo_cells((48, frames, 2, 4))


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")  # of torch, in diffusers
def test_wan_and_oobleck() -> None:
    diffusers = pytest.importorskip("diffusers", reason="the released codecs' libraries are an extra")
    with torch.device("meta"):
        wan = diffusers.AutoencoderKLWan(
            base_dim=160,
            decoder_base_dim=256,
            z_dim=48,
            dim_mult=[1, 2, 4, 4],
            num_res_blocks=2,
            attn_scales=[],
            temperal_downsample=[False, True, True],
            is_residual=True,
            in_channels=12,
            out_channels=12,
            patch_size=2,
            scale_factor_spatial=16,
            scale_factor_temporal=4,
            latents_mean=[0.0] * 48,
            latents_std=[1.0] * 48,
        )
        oobleck = diffusers.AutoencoderOobleck()
    assert count(wan.encoder, wan.quant_conv) == codec_cost.WAN_ENCODER_PARAMETERS
    assert count(wan.decoder, wan.post_quant_conv) == codec_cost.WAN_DECODER_PARAMETERS
    assert count(oobleck.decoder) == codec_cost.OOBLECK_PARAMETERS
    assert codec_cost.OOBLECK_AT_ONCE == PIECE + 2 * BESIDE


def count(*modules: torch.nn.Module) -> int:
    return sum(each.numel() for module in modules for each in module.parameters())


def test_the_text_encoder_is_a_gemma_2_9b() -> None:
    billions = codec_cost.T5GEMMA_PARAMETERS / 1e9
    assert billions == pytest.approx(9.24, abs=0.01)
    assert text_memory(load_model("magihuman_base")).weights / 1e9 == pytest.approx(18.5, abs=0.1)


def test_the_foals_own_are_no_smaller_than_stated() -> None:
    folder = Path("model/foal/weights")
    assert (folder / "text/model.safetensors").stat().st_size <= codec_cost.FOAL_TEXT_BYTES
    assert (folder / "codec/model.safetensors").stat().st_size <= codec_cost.FOAL_CODEC_BYTES


def test_decoding_1080p_costs_a_few_steps_of_256p() -> None:
    model = load_model("magihuman_1080p")
    shape = clip_shape(model, resolution="1080P", ratio="16:9", duration_s=5)
    assert decode_flops(model, shape) == pytest.approx(1.55e15, rel=0.05)
    assert decoder_memory(model, shape).activations == pytest.approx(12.8e9, rel=0.05)
