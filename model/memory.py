"""How much memory a card needs, by part, and which tensor-parallel size is the smallest that fits. No tensor is made.

Activations are the most bytes that live at once in one forward, as the layers are written. A token costs, in bytes,
with C hidden channels, D channels a head and I inner channels of a rank:

    12 C                     the residual stream: after the embedders, before the layer, after its attention (float32)
    4 x input channels, 3 D  patches and rotary tables
    max(10 C, 20 I gated, 14 I plain)   a norm, or the MLP's inner values

An MLP takes at most SLICE_TOKENS at once: of a longer sequence only a slice has inner values, and its slices are joined
(8 C a token).

Of the stages' weights a card holds all that are resident, the largest stage's where they are swapped, and where they
are offloaded as much as it is allowed to, but the largest layer at least (`model/placing.py`). Where stages are apart,
cards of both kinds of group are alike: the one that needs more is counted.

Attention is assumed to run in fused kernels, which keep no scores. `tests/model/test_memory.py` holds this against what
forwards allocate; UNCERTAINTY is how far a card's allocator and kernels' workspaces may take it.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from model import layers
from model.codec_cost import PartMemory, decoder_memory, image_memory, text_memory
from model.config import ModelConfig, TransformerConfig
from model.cost import Parameters, parameters
from model.parallel import allowed_tp_sizes, local_inner_size
from model.placing import GB, RESIDENT, Placing
from model.shapes import ClipShape

RUNTIME_BYTES = 1_500_000_000  # a process's CUDA context, cuBLAS and NCCL
HEADROOM = 0.08  # of a card, kept free: the allocator's gaps, and what a card holds less than its name says
UNCERTAINTY = 0.2  # of the activations
PROCESS_BYTES = (
    600_000_000  # of the machine's, without weights: 0.34 GB measured, the rest for CUDA's context, not measured
)
CARDS_GB = (24, 40, 48, 80, 141)
NUM_LATENTS = 10  # of the clip's size, float32: the sample, noise and a solver's memory
Fit: TypeAlias = Literal["fits", "tight", "no"]
RESIDUAL, NORMS, GATED, PLAIN, JOINED = 12, 10, 20, 14, 8  # bytes a channel; see above


@dataclass(frozen=True, kw_only=True)
class CardMemory:
    """Bytes on one card of a render group. Codecs and text encoder are processes of their own, counted apart."""

    tp: int
    weights: dict[str, int]  # by stage
    held: int  # of those, on the card at once
    activations: int
    runtime: int

    @property
    def total(self) -> int:
        return self.held + self.activations + self.runtime

    def fit(self, card_bytes: int) -> Fit:
        """On a card of so many bytes; tight: not if activations are UNCERTAINTY larger."""
        if not fits(self.total, card_bytes=card_bytes):
            return "no"
        return "fits" if fits(self.total + round(UNCERTAINTY * self.activations), card_bytes=card_bytes) else "tight"


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What runs beside the render groups: in processes of their own, on other cards, on the CPU or on the same card."""

    text: PartMemory
    images: PartMemory | None  # None: no clip has an image
    decoders: PartMemory

    @property
    def total(self) -> int:
        """On one card, each in a process of its own: encoder (text and images) and finisher."""
        images = self.images.total if self.images is not None else 0
        return self.text.total + images + self.decoders.total + 2 * RUNTIME_BYTES


def activation_bytes(config: TransformerConfig, *, tokens: int, tp: int) -> int:
    """The most that one forward over `tokens` keeps on a rank, weights not counted."""
    inner = max(
        (GATED if config.is_gated(layer) else PLAIN) * local_inner_size(config.mlp_inner_size(layer), tp)
        for layer in range(config.num_layers)
    )
    norms = NORMS * config.hidden_size * tokens
    mlp = inner * min(tokens, layers.SLICE_TOKENS)
    mlp += JOINED * config.hidden_size * tokens if tokens > layers.SLICE_TOKENS else 0
    a_token = RESIDUAL * config.hidden_size + 4 * config.video_in_channels + 3 * config.head_dim
    return tokens * a_token + max(norms, mlp)


def card_memory(
    model: ModelConfig,
    *,
    tp: int,
    shapes: Collection[ClipShape],
    placing: Placing = RESIDENT,
    parts: Collection[str] | None = None,
) -> CardMemory:
    """Of one rank, at the largest of the shapes and the longest text. `parts`: the stages of its group; None: all."""
    here = [part for part in model.transformers if parts is None or part in parts]
    activations = {part: _activations(model, part, tp=tp, shapes=shapes) for part in here}
    latents = {part: max(_latent_bytes(model, part, shape) for shape in shapes) for part in here}
    shares = {part: share for part, share in _shares(model, tp).items() if part in here}
    weights = {part: share.num_bytes for part, share in shares.items()}
    largest = max(share.largest_bytes for share in shares.values())
    needs = {part: weights[part] + size + latents[part] for part, size in activations.items()}
    alone = max((part for part in here if activations[part]), key=needs.__getitem__, default=here[0])
    if placing.stages == "apart":
        held, working = weights[alone], activations[alone] + latents[alone]
    else:
        held, working = _held(weights, largest, placing), max(activations.values()) + max(latents.values())
    return CardMemory(
        tp=tp,
        weights=weights,
        held=held,
        activations=working,
        runtime=RUNTIME_BYTES,
    )


def _activations(model: ModelConfig, part: str, *, tp: int, shapes: Collection[ClipShape]) -> int:
    """Of the shapes that go through this stage; 0: none does."""
    config, is_last = model.transformers[part], _is_second(model, part)
    return max(
        (
            activation_bytes(config, tokens=_tokens(model, shape, is_last=is_last), tp=tp)
            for shape in shapes
            if not is_last or shape.first_latent is not None
        ),
        default=0,
    )


def _latent_bytes(model: ModelConfig, part: str, shape: ClipShape) -> int:
    first = shape.first_latent or shape.video_latent
    return 4 * NUM_LATENTS * _count(shape.video_latent if _is_second(model, part) else first)


def _is_second(model: ModelConfig, part: str) -> bool:
    return part != next(iter(model.transformers))


def _shares(model: ModelConfig, tp: int) -> dict[str, Parameters]:
    """By stage, of the rank with the most."""
    return {
        part: max(
            (parameters(config, dtype=model.compute_dtype, tp=tp, rank=rank, fp8=model.fp8) for rank in (0, tp - 1)),
            key=lambda share: share.num_bytes,
        )
        for part, config in model.transformers.items()
    }


def host_memory(model: ModelConfig, *, tp: int, placing: Placing) -> int:
    """Bytes of the machine's memory that a rank with a card takes at its most: what waits there for the card, or, on
    its way to the disk, the largest stage."""
    shares = _shares(model, tp).values()
    waiting = {
        "swapped": sum(share.pinned_bytes for share in shares),
        "offloaded": max(sum(share.num_bytes for share in shares) - round(placing.stages_gb * GB), 0),
        "disk": max(share.num_bytes for share in shares),
    }
    return PROCESS_BYTES + waiting.get(placing.stages, 0)


def host_beside(beside: "Surroundings", placing: Placing) -> dict[str, int]:
    """The same of one encoder, which loads its text encoder there wherever it works, and of one finisher."""
    images = beside.images.total if beside.images is not None and not placing.encoder_cards else 0
    text = beside.text.weights if placing.encoder_cards else beside.text.total
    decoders = 0 if placing.finisher_cards else beside.decoders.total
    return {"encoder": PROCESS_BYTES + text + images, "finisher": PROCESS_BYTES + decoders}


def _held(weights: Mapping[str, int], largest: int, placing: Placing) -> int:
    """`largest`: bytes of the largest layer."""
    total = sum(weights.values())
    if placing.stages == "swapped":
        return max(weights.values())
    if placing.stages == "resident":
        return total
    return min(max(round(placing.stages_gb * GB), largest), total)


def surroundings(model: ModelConfig, *, shapes: Collection[ClipShape], has_images: bool) -> Surroundings:
    return Surroundings(
        text=text_memory(model),
        images=max((image_memory(model, shape) for shape in shapes), key=lambda each: each.total)
        if has_images
        else None,
        decoders=max((decoder_memory(model, shape) for shape in shapes), key=lambda each: each.total),
    )


def fits(num_bytes: int, *, card_bytes: int) -> bool:
    return num_bytes <= card_bytes * (1 - HEADROOM)


def tp_sizes(model: ModelConfig) -> list[int]:
    """Sizes that cut all of the model's Transformers."""
    return sorted(set.intersection(*(set(allowed_tp_sizes(config)) for config in model.transformers.values())))


def smallest_fitting_tp(
    model: ModelConfig,
    *,
    card_bytes: int,
    shapes: Collection[ClipShape],
    beside_bytes: int = 0,
    placing: Placing = RESIDENT,
) -> int | None:
    """Ranks of the smallest group whose cards hold it, `beside_bytes` of other processes on each; None: no group does.

    `card_bytes` is the card's whole memory as its driver tells it; HEADROOM of it is kept free.
    """
    for tp in tp_sizes(model):
        memory = card_memory(model, tp=tp, shapes=shapes, placing=placing)
        if fits(memory.total + beside_bytes, card_bytes=card_bytes):
            return tp
    return None


def _tokens(model: ModelConfig, shape: ClipShape, *, is_last: bool) -> int:
    tokens = shape.num_tokens if is_last else shape.num_first_tokens
    guided = model.super_resolution is not None and model.super_resolution.sampling.guided
    passes = 2 if model.one_forward and (guided if is_last else model.first_stage == "base") else 1
    return passes * (tokens + model.text_max_tokens)


def _count(latent: tuple[int, int, int, int]) -> int:
    channels, frames, height, width = latent
    return channels * frames * height * width
