"""A plan as a page of tables for people, at most 100 columns wide in a pipe."""

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from jobs.plan_values import plan_values
from model.memory import CARDS_GB
from pipeline.planning.answer import PlanSettings, RunPlan

Values = dict[str, Any]
NODE_CARDS = 8  # of a usual large node
SHOWN_KINDS = 20  # the most tokens first; the others are summed up
BASES = {
    "measured": "measured: earlier runs rendered such clips on this hardware",
    "scaled": "scaled: earlier runs on this hardware rendered other kinds of clips",
    "flops": "from FLOPs: nothing was measured yet",
    "none": "none",
}


def page(settings: PlanSettings, found: RunPlan) -> Iterator[RenderableType]:
    values = plan_values(settings, found)
    clips = values["clips"]
    counts = [f"{clips['to_render']} to render"]
    counts += [f"{clips['done']} done already"] if settings.output is not None else []
    counts += [f"{clips['given_up']} given up before"] if clips["given_up"] else []
    yield Text(f"{settings.manifest}: {', '.join(counts)}, model {settings.model.name}", style="bold")
    if clips["kinds"]:
        yield _clips_table(clips["kinds"])
    if clips["to_render"]:
        yield from _what_it_takes(values)
    for note in (*values["estimate"]["notes"], *values["notes"]):
        yield Text(f"- {note}")


def _what_it_takes(values: Values) -> Iterator[RenderableType]:
    yield Text(
        f"{_tokens(values['tokens'])} through the model, {_flops(values['flops']['total'])} in all{_share(values)}"
    )
    yield Text("")
    yield _memory_table(values["memory"])
    yield _placing_table(values["memory"])
    yield _host_table(values["memory"])
    yield from map(Text, _memory_words(values["memory"]))
    yield Text("")
    yield _estimate_table(values["estimate"])


def _clips_table(kinds: Sequence[Values]) -> Table:
    table = Table("clips", "size", "frames", "tokens", "forwards", "each", "to render", "done")
    for column in table.columns[2:]:
        column.justify, column.no_wrap = "right", True
    for each in kinds[:SHOWN_KINDS]:
        stages = each["stages"]
        table.add_row(
            f"{each['resolution']} {each['ratio']} {each['duration_s']} s" + (" from image" if each["image"] else ""),
            f"{each['width']}x{each['height']}",
            str(each["num_frames"]),
            " + ".join(f"{stage['tokens']:,}" for stage in stages),
            " + ".join(str(stage["forwards"]) for stage in stages),
            _flops(each["flops_a_clip"]),
            str(each["to_render"]),
            str(each["done"]),
        )
    rest = kinds[SHOWN_KINDS:]
    if rest:
        sums = (str(sum(each[name] for each in rest)) for name in ("to_render", "done"))
        table.add_row(f"{len(rest)} more kind{'s' if len(rest) > 1 else ''}", *[""] * 5, *sums)
    return table


def _memory_table(memory: Values) -> Table:
    parts = list(memory["tp"][0]["weights"])
    columns = [*parts, "activations", "runtime", "a card"]
    table = Table("ranks", *columns, "fits", "fits with all below")
    for column in table.columns[1 : len(columns) + 1]:
        column.justify = "right"
    for row in memory["tp"]:
        table.add_row(
            f"tp{row['tp']}",
            *(_gb(row["weights"][part]) for part in parts),
            _gb(row["activations"]),
            _gb(row["runtime"]),
            _gb(row["total"]),
            _cards(row["fits_gb"]),
            _cards(row["fits_gb_with_all"]),
        )
    return table


def _placing_table(memory: Values) -> Table:
    """Which cards hold a rank, by where stages lie; the row of the placing that the page is for is marked."""
    rows, own = memory["tp"], memory["placing"]["stages"]
    table = Table("placing.stages", *(f"tp{row['tp']} fits" for row in rows))
    for stages in rows[0]["fits_gb_placed"]:
        name = f"{stages} (as above)" if stages == own else stages
        table.add_row(name, *(_cards(row["fits_gb_placed"][stages]) for row in rows))
    return table


def _host_table(memory: Values) -> Table:
    """The machine's memory that ranks take, by where stages lie: of one, and of a node with NODE_CARDS of them."""
    rows, own = memory["tp"], memory["placing"]["stages"]
    table = Table("machine's memory", *(f"tp{row['tp']}: one, {NODE_CARDS}" for row in rows))
    for stages in rows[0]["host"]:
        if stages != "swapped" or len(rows[0]["weights"]) > 1:
            taken = (row["host"][stages] for row in rows)
            table.add_row(
                f"{stages}{'*' * (stages == own)}", *(f"{_gb(one)}, {_gb(NODE_CARDS * one)}" for one in taken)
            )
    return table


def _host_words(memory: Values) -> str:
    beside, own = memory["host_beside"], memory["placing"]
    row = memory["tp"][0]
    node = NODE_CARDS * row["host"][own["stages"]] + sum(beside.values())
    where = f"placing.text={own['text']}, placing.decode={own['decode']}"
    return (
        f"* this placing. An encoder has {_gb(beside['encoder'])} of the machine's memory, a finisher "
        f"{_gb(beside['finisher'])} ({where}): {_gb(node)} on a node with both and "
        f"{NODE_CARDS} ranks of tp{row['tp']}, beside Ray's object store and what it runs on."
    )


def _memory_words(memory: Values) -> Iterator[str]:
    beside = memory["beside"]
    names = {"text": "text encoder", "images": "image encoder", "decoders": "video and audio decoder"}
    parts = [
        f"{name} {_gb(beside[key]['weights'])} + {_gb(beside[key]['activations'])}"
        for key, name in names.items()
        if beside[key] is not None
    ]
    yield (
        f"Beside the groups, in processes of their own (weights + activations): {', '.join(parts)}: "
        f"{_gb(beside['total'])} with their runtime if they share a group's card, else on others or on CPUs."
    )
    yield _host_words(memory)
    yield (
        f"Activations within {memory['activations_uncertainty']:.0%}, at the largest clip, attention in fused kernels; "
        f"{memory['headroom']:.0%} of a card is kept free; GB are 10^9 bytes."
    )


def _estimate_table(estimate: Values) -> Table:
    table = Table(show_header=False)
    table.add_row("on", estimate["hardware"] + (_layout(estimate) if estimate["groups"] else ""))
    if estimate["fit"] == "no":
        table.add_row("fits", "no")
    if estimate["seconds"] is not None:
        low, high = estimate["low_s"], estimate["high_s"]
        table.add_row("takes", f"{_time(estimate['seconds'])}, between {_time(low)} and {_time(high)}")
        table.add_row("of that", f"{_time(estimate['startup_s'])} until the first group is ready" + _a_clip(estimate))
    if estimate["gpu_hours"] is not None:
        table.add_row("GPU-hours", f"{estimate['gpu_hours']:,.2f}")
    if estimate["cost"] is not None:
        table.add_row("cost", f"{estimate['cost']:,.2f}")
    measured = "measured" if estimate["bytes_measured"] else "assumed"
    table.add_row("leaves", f"{_gb(estimate['num_bytes'])} of files ({measured} bytes a clip)")
    table.add_row("how sure", BASES[estimate["basis"]])
    return table


def _layout(estimate: Values) -> str:
    groups = f"{estimate['groups']} group{'s' if estimate['groups'] != 1 else ''}"
    ranks = f" of {estimate['tp']} rank{'s' if estimate['tp'] != 1 else ''}" if estimate["tp"] else ""
    if estimate["enlarging_groups"]:
        ranks += f", {estimate['enlarging_groups']} of them for super-resolution"
    if not estimate["gpus"]:
        return f": {groups}{ranks}"
    cards = f"{estimate['gpus']} GPU{'s' if estimate['gpus'] != 1 else ''}"
    return f": {cards}, {', '.join([groups + ranks, *_beside(estimate)])}"


def _beside(estimate: Values) -> Iterator[str]:
    """What the other cards do."""
    for kind, count in estimate["cards"].items():
        if kind != "group":
            yield f"{count} for {kind}s"
    idle = estimate["gpus"] - sum(estimate["cards"].values())
    if idle:
        yield f"{idle} without work"


def _a_clip(estimate: Values) -> str:
    if estimate["a_clip_s"] is None:
        return ""
    a_clip_s, makes = estimate["a_clip_s"], "a group makes"
    cards = f" ({_short(a_clip_s * estimate['gpus'] / estimate['groups'])} GPU-seconds)" if estimate["gpus"] else ""
    if estimate["enlarging_groups"]:  # no group makes a whole clip
        a_clip_s, makes = a_clip_s / estimate["groups"], "both kinds of group together make"
    if a_clip_s < 0.1:
        return f"; then {makes} {1 / a_clip_s:,.0f} clips a second"
    return f"; then {makes} a clip every {_short(a_clip_s)} s{cards}"


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _share(values: Values) -> str:
    flops = values["flops"]
    return f" ({flops['decode'] / flops['total']:.0%} of it decoding)" if flops["total"] and flops["decode"] else ""


def _cards(gb: Sequence[int]) -> str:
    """Cards are a few sizes, and what fits one fits all larger ones."""
    return "none" if not gb else f"{gb[0]} GB{' up' if gb[0] != CARDS_GB[-1] else ''}"


def _tokens(count: int) -> str:
    return f"{count / 1e6:,.0f} million tokens" if count >= 1e7 else f"{count:,} tokens"


def _flops(count: float) -> str:
    return _scaled(count, "FLOP", 1e15, "PTG")


def _gb(num_bytes: float) -> str:
    return _scaled(num_bytes, "B", 1e9, "GMk")


def _scaled(count: float, unit: str, largest: float, prefixes: str) -> str:
    """In the largest unit of which there is at least one: 30.6 GB, 18 MB, 98,824 PFLOP."""
    if not count:
        return f"0 {prefixes[0]}{unit}"
    power = next((n for n in range(len(prefixes)) if count >= largest / 1000**n), len(prefixes) - 1)
    value = count / (largest / 1000**power)
    return f"{value:,.0f} {prefixes[power]}{unit}" if value >= 100 else f"{value:.3g} {prefixes[power]}{unit}"


def _time(seconds: float) -> str:
    if seconds < 1:
        return "less than 1 s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:,.1f} h"
