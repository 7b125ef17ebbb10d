"""Which clips are to be rendered, and in which order. A pure function of the manifest and of what is done."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from pipeline.ledger import failed_key, record_key
from pipeline.types import Clip


@dataclass(frozen=True, kw_only=True)
class Plan:
    to_render: tuple[Clip, ...]  # in the order in which they are offered
    done: tuple[Clip, ...]  # in manifest order
    given_up: tuple[Clip, ...]  # failed in an earlier run and not to be tried again, in manifest order
    hashes: Mapping[str, str]  # clip_id -> settings hash

    @property
    def num_tokens(self) -> int:
        """Video and audio tokens of all that is to be rendered, once for each denoising step."""
        return sum(clip_cost(clip) for clip in self.to_render)


def clip_cost(clip: Clip) -> int:
    """Tokens through the Transformer: what a clip's time is roughly proportional to."""
    tokens = clip.shape.num_first_tokens * clip.steps
    return tokens if clip.shape.first_latent is None else tokens + clip.shape.num_tokens


def make_plan(
    clips: Collection[Clip],
    hashes: Mapping[str, str],
    done: Collection[str],
    *,
    failed: Collection[str] = (),
    retry_failed: bool = True,
) -> Plan:
    """Skips what `done` (keys of records) holds; `failed` (keys of failures) too unless they are to be retried.

    Order: higher priority first; within it the costliest shape first, so that the run's end is made of short clips;
    clips of equal shape stay together; within a shape more steps first, then the manifest's order.
    """
    recorded = [clip for clip in clips if record_key(clip.clip_id, hashes[clip.clip_id]) in done]
    skip = {clip.clip_id for clip in recorded}
    given_up: list[Clip] = []
    if not retry_failed:
        given_up = [c for c in clips if c.clip_id not in skip and failed_key(c.clip_id, hashes[c.clip_id]) in failed]
        skip |= {clip.clip_id for clip in given_up}
    return Plan(
        to_render=tuple(sorted((clip for clip in clips if clip.clip_id not in skip), key=_order)),
        done=tuple(recorded),
        given_up=tuple(given_up),
        hashes=dict(hashes),
    )


def _order(clip: Clip) -> tuple[object, ...]:
    shape = clip.shape
    bucket = (shape.num_frames, shape.height, shape.width, shape.audio_latent)
    return (-clip.priority, -shape.num_tokens, bucket, -clip.steps, clip.row)
