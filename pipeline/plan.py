"""Which clips are to be rendered, and in which order. A pure function of the manifest's index and of what is done."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

import numpy as np

from model.shapes import ClipShape
from pipeline.keyset import KeySet
from pipeline.ledger import failed_key, record_key
from pipeline.manifest.index import RowIndex
from pipeline.types import Clip

CHUNK = 1 << 16  # rows whose keys are made at a time


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Every position of the index is in exactly one of the three."""

    to_render: np.ndarray  # in the order in which they are offered
    done: np.ndarray  # in manifest order
    given_up: np.ndarray  # failed in an earlier run and not to be tried again, in manifest order
    num_tokens: int  # video and audio tokens of all that is to be rendered, once for each denoising step


def clip_cost(clip: Clip) -> int:
    """Tokens through the Transformer: what a clip's time is roughly proportional to."""
    return _cost(clip.shape, clip.steps)


def draft_cost(clip: Clip) -> int:
    """The first stage's part of it."""
    return clip.shape.num_first_tokens * clip.steps


def make_plan(
    index: RowIndex,
    done: Collection[str] | KeySet,
    *,
    failed: Collection[str] | KeySet = (),
    retry_failed: bool = True,
) -> Plan:
    """Skips what `done` (keys of records) holds; `failed` (keys of failures) too unless they are to be retried.

    Order: higher priority first; within it the costliest shape first, so that the run's end is made of short clips;
    clips of equal shape stay together; within a shape more steps first, then the manifest's order.
    """
    is_done = has_key(index, done, record_key)
    is_given_up = np.zeros(len(index), np.bool_)
    if not retry_failed:
        is_given_up = has_key(index, failed, failed_key) & ~is_done
    waiting = np.flatnonzero(~is_done & ~is_given_up)
    ranks = _ranks([size.shape for size in index.sizes])[index.size_codes[waiting]]
    keys = (index.rows[waiting], -index.steps[waiting], ranks, -index.priorities[waiting].astype(np.int64))
    return Plan(
        to_render=waiting[np.lexsort(keys)],
        done=np.flatnonzero(is_done),
        given_up=np.flatnonzero(is_given_up),
        num_tokens=_num_tokens(index, waiting),
    )


def _cost(shape: ClipShape, steps: int) -> int:
    tokens = shape.num_first_tokens * steps
    return tokens if shape.first_latent is None else tokens + shape.num_tokens


def _num_tokens(index: RowIndex, positions: np.ndarray) -> int:
    codes, steps = index.size_codes[positions], index.steps[positions].astype(np.int64)
    pairs, counts = np.unique(np.stack([codes, steps]), axis=1, return_counts=True)
    costs = (_cost(index.sizes[code].shape, num_steps) for code, num_steps in pairs.T.tolist())
    return sum(cost * count for cost, count in zip(costs, counts.tolist(), strict=True))


def _ranks(shapes: list[ClipShape]) -> np.ndarray:
    """Place of each shape, the costliest first; equal shapes have equal places."""

    def order(shape: ClipShape) -> tuple[object, ...]:
        return (-shape.num_tokens, (shape.num_frames, shape.height, shape.width, shape.audio_latent))

    places = {key: place for place, key in enumerate(sorted({order(shape) for shape in shapes}))}
    return np.array([places[order(shape)] for shape in shapes], np.int64)


def has_key(index: RowIndex, keys: Collection[str] | KeySet, key_of: Callable[[str, str], str]) -> np.ndarray:
    """Which rows' keys are among `keys`: bool; `key_of` makes a key of clip id and settings hash."""
    known = KeySet.of(keys)
    found = [known.contains(chunk) for chunk in row_keys(index, key_of)] if len(known) else []
    return np.concatenate(found) if found else np.zeros(len(index), np.bool_)


def row_keys(index: RowIndex, key_of: Callable[[str, str], str]) -> Iterator[list[str]]:
    """The keys of all rows in their order, some at a time."""
    hashes = index.hash_texts()
    for start in range(0, len(index), CHUNK):
        pairs = zip(
            index.ids[start : start + CHUNK].to_pylist(), hashes[start : start + CHUNK].to_pylist(), strict=True
        )
        yield [key_of(clip_id, settings_hash) for clip_id, settings_hash in pairs]
