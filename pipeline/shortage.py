"""What is said where a card's memory does not do: what the clip, or the model, needs of it by `plan`'s sum, and what is
there.
"""

from collections.abc import Callable, Collection

from model.codec_cost import decoder_memory, picture_memory, text_memory
from model.config import ModelConfig
from model.memory import CARDS_GB, RUNTIME_BYTES, CardMemory, card_memory, tp_sizes
from model.placing import GB, Placing, stage_places
from model.shapes import ClipShape

Look = Callable[[], tuple[int, int]]  # free and total bytes of the card


def shortage(
    error: Exception,
    *,
    model: ModelConfig,
    shape: ClipShape,
    tp: int,
    placing: Placing,
    parts: Collection[str],
    look: Look | None,
) -> str:
    """One line, with the row of `plan`'s table for this clip and these stages, and what else would hold it.

    `look` None: no card.
    """
    needed = card_memory(model, tp=tp, shapes=[shape], placing=placing, parts=parts)
    weights = [f"{part} {_gb(size)}" for part, size in needed.weights.items()]
    held = f"weights {_gb(needed.held)} ({' + '.join(weights)}, {placing.stages})"
    row = f"{held}, activations {_gb(needed.activations)}, runtime {_gb(needed.runtime)}"
    return (
        f"out of memory at {shape.width}x{shape.height}, {shape.num_frames} frames, tp={tp}: it needs "
        f"{_gb(needed.total)} a card by `happyhorse plan`: {row}{_there(look)}; "
        f"{_holding(model, shape)}; {_told(error)}"
    )


def encoder_shortage(
    error: Exception, *, model: ModelConfig, placing: Placing, has_images: bool, pixels: int, look: Look | None
) -> str:
    """The same for a prompt encoder, at a picture of so many pixels."""
    text = text_memory(model)
    parts = {"text": text.weights, "activations": text.activations}
    if has_images:
        images = picture_memory(model, pixels)
        parts |= {"images": images.weights, "activations": max(text.activations, images.activations)}
    parts["runtime"] = RUNTIME_BYTES * max(placing.encoder_cards, 1)
    row = " + ".join(f"{part} {_gb(size)}" for part, size in parts.items())
    return (
        f"out of memory in the prompt encoder, placing.text={placing.text}: with all weights on cards it needs "
        f"{_gb(sum(parts.values()))} on {placing.encoder_cards or 1} by `happyhorse plan`: {row}{_there(look)}; "
        f"placing.text=offloaded brings a layer at a time, placing.text=cards with a larger placing.text_cards spreads "
        f"them over more, placing.text=cpu takes no card; {_told(error)}"
    )


def decoder_shortage(
    error: Exception, *, model: ModelConfig, placing: Placing, shape: ClipShape, look: Look | None
) -> str:
    """The same for a finisher, at a clip."""
    decoders = decoder_memory(model, shape)
    bands = "a smaller model.codecs.band_rows takes less, " if model.codecs.video == "turbo" else ""
    return (
        f"out of memory in the finisher at {shape.width}x{shape.height}, {shape.num_frames} frames, "
        f"placing.decode={placing.decode}: it needs {_gb(decoders.total + RUNTIME_BYTES)} by `happyhorse plan`: "
        f"decoders {_gb(decoders.weights)} + activations {_gb(decoders.activations)} + runtime {_gb(RUNTIME_BYTES)}"
        f"{_there(look)}; {bands}placing.decode=cpu takes no card; {_told(error)}"
    )


def _there(look: Look | None) -> str:
    return "" if look is None else f"; the card has {_gb(look()[1])}, {_gb(look()[0])} of it free now"


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _holding(model: ModelConfig, shape: ClipShape) -> str:
    """What holds such a clip: by placing, the smallest card for each size."""
    rows = []
    for kind in (Placing(stages=stages) for stages in stage_places(model)):
        sizes = {tp: card_memory(model, tp=tp, shapes=[shape], placing=kind) for tp in tp_sizes(model)}
        rows.append(f"{kind.stages} {', '.join(f'tp{tp} {_smallest(memory)}' for tp, memory in sizes.items())}")
    return f"cards that hold it by placing.stages: {'; '.join(rows)}"


def _smallest(memory: CardMemory) -> str:
    return next((f"{gb} GB" for gb in CARDS_GB if memory.fit(gb * GB) != "no"), "none")


def _gb(num_bytes: int) -> str:
    return f"{num_bytes / GB:.1f} GB"
