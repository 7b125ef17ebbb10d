"""A training's log as a picture: one curve a loss, smoothed, on a logarithmic scale."""

import json
import math
from pathlib import Path

WIDTH, HEIGHT, EDGE = 640, 360, 50
INKS = ("#3366cc", "#dc3912", "#109618")
SMOOTHING = 50  # steps


def write_curves(folder: Path) -> None:
    """Reads log.jsonl, writes curves.svg beside it. A resumed training's repeated steps count once."""
    rows = {row["step"]: row for row in map(json.loads, (folder / "log.jsonl").read_text().splitlines())}
    steps = sorted(rows)
    names = [name for name in rows[steps[0]] if name not in ("step", "cpu_s")]
    curves = {name: _smooth([rows[step][name] for step in steps]) for name in names}
    seen = [value for values in curves.values() for value in values]
    low, high = math.log10(max(min(seen), 1e-6)), math.log10(max(max(seen), 1e-5))
    lines = [_text(EDGE, 20, folder.name)]
    for decade in range(math.floor(low), math.ceil(high) + 1):
        y = _height(10.0**decade, low, high)
        if EDGE / 2 <= y <= HEIGHT - EDGE / 2:
            lines.append(f'<path d="M{EDGE} {y:.1f}H{WIDTH - EDGE}" stroke="#ddd"/>' + _text(4, y + 4, f"1e{decade}"))
    for n, (name, values) in enumerate(curves.items()):
        ink = INKS[n % len(INKS)]
        across = (EDGE + (WIDTH - 2 * EDGE) * k / max(1, len(values) - 1) for k in range(len(values)))
        points = " ".join(f"{x:.1f},{_height(v, low, high):.1f}" for x, v in zip(across, values, strict=True))
        lines.append(f'<polyline points="{points}" fill="none" stroke="{ink}"/>')
        lines.append(_text(WIDTH - 110, 20 + 16 * n, name, ink))
    lines.append(_text(WIDTH - 110, HEIGHT - 10, f"{steps[-1]} steps"))
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">'
    page = "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *lines, "</svg>"])
    (folder / "curves.svg").write_text(page + "\n")


def _smooth(values: list[float]) -> list[float]:
    """Means of SMOOTHING steps."""
    parts = [values[n : n + SMOOTHING] for n in range(0, len(values), SMOOTHING)]
    return [sum(part) / len(part) for part in parts]


def _height(value: float, low: float, high: float) -> float:
    share = (math.log10(max(value, 1e-6)) - low) / max(high - low, 1e-3)
    return HEIGHT - EDGE - (HEIGHT - 2 * EDGE) * share


def _text(x: float, y: float, words: str, ink: str = "#333") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" font-size="12" fill="{ink}">{words}</text>'
