"""What is to be rendered, by kind of clip: counts, tokens, FLOPs. Pure; from a manifest's index or written by hand."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from model.codec_cost import decode_flops, image_flops, text_flops
from model.config import ModelConfig
from model.cost import StageCost, stage_costs
from model.placing import Placing
from model.shapes import ClipShape
from pipeline.manifest.index import RowIndex
from pipeline.planning.history import Kind
from pipeline.shares import share_of

STEP_BITS = 16  # steps are kept in so many


@dataclass(frozen=True, kw_only=True)
class PlannedKind:
    """Clips that cost the same, but for the length of their prompts."""

    kind: Kind
    shape: ClipShape
    to_render: int
    done: int  # recorded already
    with_sound: int  # of those to render
    text_tokens: int  # of a prompt, on average over those to render and done: the same before a run and after it


@dataclass(frozen=True, kw_only=True)
class ClipFlops:
    """Of one clip."""

    stages: tuple[StageCost, ...]
    decode: int
    text: int
    image: int

    @property
    def denoise(self) -> int:
        return sum(stage.flops for stage in self.stages)

    @property
    def total(self) -> int:
        return self.denoise + self.decode + self.text + self.image


@dataclass(frozen=True, kw_only=True)
class PlannedClips:
    """Everything that a plan says follows from these."""

    model: ModelConfig
    negative_tokens: int  # of the negative prompt, where a stage is guided
    kinds: tuple[PlannedKind, ...]

    @property
    def to_render(self) -> int:
        return sum(each.to_render for each in self.kinds)

    @property
    def done(self) -> int:
        return sum(each.done for each in self.kinds)

    @property
    def left(self) -> tuple[PlannedKind, ...]:
        """The kinds of which clips are to be rendered."""
        return tuple(each for each in self.kinds if each.to_render)

    @property
    def shapes(self) -> list[ClipShape]:
        return [each.shape for each in self.left or self.kinds]

    @property
    def has_images(self) -> bool:
        return any(each.kind.image for each in self.left or self.kinds)

    def flops(self, each: PlannedKind) -> ClipFlops:
        return self.kind_flops(each.kind, each.shape, text_tokens=each.text_tokens)

    def kind_flops(self, kind: Kind, shape: ClipShape, *, text_tokens: int) -> ClipFlops:
        model = self.model
        return ClipFlops(
            stages=stage_costs(
                model, shape, steps=kind.steps, text_tokens=text_tokens, negative_tokens=self.negative_tokens
            ),
            decode=decode_flops(model, shape),
            text=text_flops(model, text_tokens + (self.negative_tokens if kind.guided else 0)),
            image=image_flops(model, shape) if kind.image else 0,
        )

    def enlarging_share(self, placing: Placing) -> float:
        """Super-resolution's part of what groups do; 0 where none is to do it alone."""
        if placing.stages != "apart":
            return 0.0
        return share_of((each.to_render, self.flops(each).stages) for each in self.left)

    @cached_property
    def total_flops(self) -> int:
        return sum(each.to_render * self.flops(each).total for each in self.left)

    @cached_property
    def total_tokens(self) -> int:
        """Through the Transformers, each token counted once a forward."""
        stages = ((each.to_render, stage) for each in self.left for stage in self.flops(each).stages)
        return sum(count * stage.tokens * stage.forwards for count, stage in stages)


def planned_clips(
    index: RowIndex,
    model: ModelConfig,
    *,
    done: Sequence[int] | np.ndarray,
    skipped: Iterable[int] = (),
    negative_tokens: int,
) -> PlannedClips:
    """Of a manifest's rows; `done` and `skipped` are positions in the index, and skipped rows are not planned."""
    keys = (index.size_codes.astype(np.int64) << STEP_BITS | index.steps) << 1 | index.has_image
    is_done = np.zeros(len(index), np.bool_)
    is_done[np.asarray(done, np.int64)] = True
    is_left = ~is_done
    is_left[np.asarray(list(skipped), np.int64)] = False
    distinct, codes = np.unique(keys, return_inverse=True)
    size = len(distinct)
    left = np.bincount(codes[is_left], minlength=size)
    counted = is_left | is_done
    tokens = np.bincount(codes[counted], weights=index.text_tokens[counted], minlength=size)
    sound = np.bincount(codes[is_left & index.audio], minlength=size)
    recorded = np.bincount(codes[is_done], minlength=size)
    kinds = [
        PlannedKind(
            kind=_kind(index, model, int(distinct[n])),
            shape=index.sizes[int(distinct[n]) >> STEP_BITS + 1].shape,
            to_render=int(left[n]),
            done=int(recorded[n]),
            with_sound=int(sound[n]),
            text_tokens=round(tokens[n] / (left[n] + recorded[n])),
        )
        for n in range(size)
        if left[n] or recorded[n]
    ]
    order = sorted(kinds, key=lambda each: (-each.shape.num_tokens, -each.kind.steps, each.kind.ratio, each.kind.image))
    return PlannedClips(model=model, negative_tokens=negative_tokens, kinds=tuple(order))


def _kind(index: RowIndex, model: ModelConfig, key: int) -> Kind:
    size = index.sizes[key >> STEP_BITS + 1]
    return Kind(
        resolution=size.resolution,
        ratio=size.ratio,
        duration_s=size.duration_s,
        steps=key >> 1 & (1 << STEP_BITS) - 1,
        guided=model.is_guided,
        image=bool(key & 1),
    )
