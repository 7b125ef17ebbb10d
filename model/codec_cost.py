"""What stands around the Transformers costs: codecs and text encoder, from their published sizes. No tensor is made.

Constants were counted on the meta device from the released configurations (`tests/model/test_codec_cost.py` counts
again): AutoencoderKLWan of Wan2.2-TI2V-5B, AutoencoderOobleck of Stable Audio Open, the Turbo decoder. The text encoder
is T5Gemma 9b-9b's encoder half, a Gemma 2 9B: 42 layers, hidden 3584, inner 14336, 16 query and 8 key/value heads of
256 channels, 256,000 words (google/t5gemma-9b-9b-ul2, config.json).
"""

from dataclasses import dataclass

from model.config import ModelConfig
from model.shapes import ClipShape, decoded_frames

TURBO_WINDOW = 7  # latent frames, the first window's and each later one's, as released
TURBO_PARAMETERS = 107_122_892
TURBO_FLOPS = 3_448_127_488  # a latent cell of a window, context included
TURBO_BYTES = 492_640  # at the peak, a latent cell of the largest window; bfloat16 with float32 norms
TURBO_BAND_BYTES, TURBO_HELD_BYTES = 427_000, 48_000  # in bands: a cell of a band at work, and of what waits whole
TURBO_BESIDE = 32  # rows of the picture to either side of a band, that its last and largest blocks compute too
TURBO_REPEATED = 80  # rows that are computed twice where two bands meet, on average over the blocks

WAN_ENCODER_PARAMETERS = 149_637_088
WAN_ENCODER_FLOPS = 4_646_312  # a pixel
WAN_ENCODER_BYTES = 993
WAN_DECODER_PARAMETERS = 555_051_580
WAN_DECODER_FLOPS = 18_652_233  # a pixel of a decoded frame
WAN_DECODER_BYTES = 10_940  # at the peak, a pixel: four frames at a time, and what the convolutions remember

OOBLECK_PARAMETERS = 78_122_626  # of the decoder, float32
OOBLECK_FLOPS = 5_042_339_840  # a latent
OOBLECK_BYTES = 7_200_000  # a latent of those that are decoded at a time
OOBLECK_AT_ONCE = 124  # `codecs/oobleck.py`: a piece and what lies beside it

GEMMA_LAYER = 2 * 3584 * 16 * 256 + 2 * 3584 * 8 * 256 + 3 * 3584 * 14336 + 4 * 3584  # attention, MLP, norms
T5GEMMA_PARAMETERS = 256_000 * 3584 + 42 * GEMMA_LAYER + 3584
T5GEMMA_FLOPS = 2 * 42 * GEMMA_LAYER  # a token
T5GEMMA_BYTES = 200_000  # at the peak, a token: the MLP's inner values

FOAL_TEXT_BYTES, FOAL_CODEC_BYTES = 80_000, 1_950_000  # weights, as they lie in the package


@dataclass(frozen=True, kw_only=True)
class PartMemory:
    """Bytes that one part needs where it runs."""

    weights: int
    activations: int

    @property
    def total(self) -> int:
        return self.weights + self.activations


def turbo_band(model: ModelConfig, height: int) -> float:
    """The largest share of a picture of so many latent rows that is decoded at a time."""
    rows, bands = height * model.spatial_scale, turbo_bands(model, height)
    sides = min(bands - 1, 2)
    return min(1.0, (model.codecs.band_rows + sides * TURBO_BESIDE) / rows) if bands > 1 else 1.0


def turbo_bands(model: ModelConfig, height: int) -> int:
    return -(-height * model.spatial_scale // model.codecs.band_rows) if model.codecs.band_rows else 1


def turbo_cells(latent: tuple[int, int, int, int]) -> int:
    """Latent cells that the Turbo decoder computes for a clip: its windows, their context and the padded end."""
    _, frames, height, width = latent
    later = max(0, -(-(frames - TURBO_WINDOW) // TURBO_WINDOW))
    return (TURBO_WINDOW * (1 + later) + 2 * later) * height * width


def decode_flops(model: ModelConfig, shape: ClipShape) -> int:
    """Video and sound; 0 for the foal, whose codec is not worth counting."""
    _, frames, height, width = shape.video_latent
    sound = OOBLECK_FLOPS * shape.audio_latent[0] if model.codecs.audio == "oobleck" else 0
    if model.codecs.video == "turbo":
        repeated = (turbo_bands(model, height) - 1) * TURBO_REPEATED / (height * model.spatial_scale)
        return round(TURBO_FLOPS * turbo_cells(shape.video_latent) * (1 + repeated)) + sound
    if model.codecs.video == "wan":
        return WAN_DECODER_FLOPS * decoded_frames(frames) * height * width * model.spatial_scale**2 + sound
    return sound


def text_flops(model: ModelConfig, tokens: int) -> int:
    return T5GEMMA_FLOPS * tokens if model.codecs.text == "t5gemma" else 0


def image_flops(model: ModelConfig, shape: ClipShape) -> int:
    """A first frame, at the size of each stage."""
    return 0 if model.codecs.video == "foal" else WAN_ENCODER_FLOPS * sum(_picture_pixels(model, shape))


def text_memory(model: ModelConfig) -> PartMemory:
    if model.codecs.text == "foal":
        return PartMemory(weights=FOAL_TEXT_BYTES, activations=0)
    return PartMemory(weights=2 * T5GEMMA_PARAMETERS, activations=T5GEMMA_BYTES * model.text_max_tokens)


def image_memory(model: ModelConfig, shape: ClipShape) -> PartMemory:
    return picture_memory(model, max(_picture_pixels(model, shape)))


def picture_memory(model: ModelConfig, pixels: int) -> PartMemory:
    """The image encoder, at a picture of so many."""
    if model.codecs.video == "foal":
        return PartMemory(weights=FOAL_CODEC_BYTES, activations=0)
    return PartMemory(weights=2 * WAN_ENCODER_PARAMETERS, activations=WAN_ENCODER_BYTES * pixels)


def decoder_memory(model: ModelConfig, shape: ClipShape) -> PartMemory:
    """Video and audio decoder, one after the other, at a clip of this shape."""
    _, frames, height, width = shape.video_latent
    weights, activations = FOAL_CODEC_BYTES, 16 * 3 * height * width * model.spatial_scale**2
    if model.codecs.video == "turbo":
        weights = 2 * TURBO_PARAMETERS
        share = turbo_band(model, height)
        each = TURBO_BYTES if share == 1 else TURBO_HELD_BYTES + TURBO_BAND_BYTES * share
        activations = round(each * min(frames, TURBO_WINDOW + 2) * height * width)
    elif model.codecs.video == "wan":
        weights = 2 * WAN_DECODER_PARAMETERS
        activations = WAN_DECODER_BYTES * height * width * model.spatial_scale**2
    if model.codecs.audio == "oobleck":
        weights += 4 * OOBLECK_PARAMETERS
        activations = max(activations, OOBLECK_BYTES * min(shape.audio_latent[0], OOBLECK_AT_ONCE))
    return PartMemory(weights=weights, activations=activations)


def _picture_pixels(model: ModelConfig, shape: ClipShape) -> list[int]:
    latents = [shape.video_latent] + ([shape.first_latent] if shape.first_latent is not None else [])
    return [height * width * model.spatial_scale**2 for _, _, height, width in latents]
