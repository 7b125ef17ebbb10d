"""A plan as JSON's own values: what `format=json` prints and the page is drawn from.

Bytes are bytes, seconds are seconds, FLOPs are FLOPs of all that a key names; "gb" are 10^9 bytes.
"""

from dataclasses import asdict, replace
from typing import Any

from model.memory import (
    CARDS_GB,
    HEADROOM,
    RUNTIME_BYTES,
    UNCERTAINTY,
    card_memory,
    fits,
    host_beside,
    host_memory,
    surroundings,
    tp_sizes,
)
from model.placing import Placing, stage_places
from pipeline.planning.answer import PlanSettings, RunPlan
from pipeline.planning.planned import PlannedClips, PlannedKind

Values = dict[str, Any]


def plan_values(settings: PlanSettings, found: RunPlan) -> Values:
    planned = found.planned
    return {
        "manifest": settings.manifest,
        "output": settings.output,
        "model": settings.model.name,
        "model_hash": found.model_hash,
        "clips": {
            "to_render": planned.to_render,
            "done": planned.done,
            "given_up": found.given_up,
            "kinds": [_kind_values(planned, each) for each in planned.kinds],
        },
        "tokens": planned.total_tokens,
        "flops": _flops(planned),
        "memory": memory_values(planned, settings.target.placing) if planned.kinds else None,
        "estimate": asdict(found.estimate),
        "notes": list(found.notes),
    }


def _kind_values(planned: PlannedClips, each: PlannedKind) -> Values:
    shape, flops = each.shape, planned.flops(each)
    return {
        **asdict(each.kind),
        "width": shape.width,
        "height": shape.height,
        "num_frames": shape.num_frames,
        "to_render": each.to_render,
        "done": each.done,
        "text_tokens": each.text_tokens,
        "stages": [asdict(stage) for stage in flops.stages],  # of one clip; tokens of one forward, text included
        "flops_a_clip": flops.total,
    }


def _flops(planned: PlannedClips) -> Values:
    of = [(each.to_render, planned.flops(each)) for each in planned.left]
    return {
        "total": planned.total_flops,
        "denoise": sum(count * flops.denoise for count, flops in of),
        "decode": sum(count * flops.decode for count, flops in of),
        "text": sum(count * flops.text for count, flops in of),
        "image": sum(count * flops.image for count, flops in of),
    }


def memory_values(planned: PlannedClips, placing: Placing) -> Values:
    """Of each card of a group by tensor-parallel size, and of what may run beside it on the same card."""
    model, shapes = planned.model, planned.shapes
    beside = surroundings(model, shapes=shapes, has_images=planned.has_images)
    rows = []
    for tp in tp_sizes(model):
        memory = card_memory(model, tp=tp, shapes=shapes, placing=placing)
        others = {stages: replace(placing, stages=stages) for stages in stage_places(model)}
        rows.append(
            {
                **asdict(memory),
                "total": memory.total,
                "fits_gb": _fitting(memory.total),
                "tight_gb": [gb for gb in CARDS_GB if memory.fit(gb * 10**9) == "tight"],  # of those
                "total_with_all": memory.total + beside.total,
                "fits_gb_with_all": _fitting(memory.total + beside.total),
                "fits_gb_placed": {
                    stages: _fitting(card_memory(model, tp=tp, shapes=shapes, placing=other).total)
                    for stages, other in others.items()
                },
                "host": {
                    stages: host_memory(model, tp=tp, placing=replace(placing, stages=stages))
                    for stages in dict.fromkeys((*stage_places(model), "disk", placing.stages))
                },
            }
        )
    return {
        "placing": asdict(placing),
        "headroom": HEADROOM,
        "activations_uncertainty": UNCERTAINTY,
        "runtime_bytes": RUNTIME_BYTES,
        "tp": rows,
        "beside": asdict(beside) | {"total": beside.total},
        "host_beside": host_beside(beside, placing),
    }


def _fitting(num_bytes: int) -> list[int]:
    return [gb for gb in CARDS_GB if fits(num_bytes, card_bytes=gb * 10**9)]
