"""Trade-off curves as SVG: what stays of the source against what comes of the reference or text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

COLOURS: Final = (
    "#2a6f4e", "#b5482a", "#3a5fa8", "#8a6d1c", "#7a3d8f", "#555555", "#c2185b", "#00838f",
    "#9e9d24", "#5d4037",
)  # fmt: skip

LEFT, TOP, RIGHT, BOTTOM = 60, 30, 480, 300
"""Where points lie on the picture, in its own units."""


@dataclass(frozen=True)
class Point:
    """x, y: in the curve's own numbers; label: beside it, empty for none."""

    x: float
    y: float
    label: str = ""


@dataclass(frozen=True)
class Line:
    """Points that a line joins, in their order; name: in the legend, empty for none."""

    points: tuple[Point, ...]
    name: str = ""


def drawn(lines: Sequence[Line], across: str, up: str) -> str:
    """The picture of ``lines``; across, up: what the axes say.

    Raises:
        ValueError: if there is no point at all.
    """
    points = [p for line in lines for p in line.points]
    if not points:
        raise ValueError("a curve without points cannot be drawn")
    (x0, x1), (y0, y1) = _span([p.x for p in points]), _span([p.y for p in points])

    def place(point: Point) -> tuple[float, float]:
        x = LEFT + (RIGHT - LEFT) * (point.x - x0) / (x1 - x0)
        y = BOTTOM - (BOTTOM - TOP) * (point.y - y0) / (y1 - y0)
        return x, y

    out = [_frame(across, up, (x0, x1), (y0, y1), wide=any(line.name for line in lines))]
    for k, line in enumerate(lines):
        colour = COLOURS[k % len(COLOURS)]
        path = " ".join("{:.1f},{:.1f}".format(*place(p)) for p in line.points)
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}"/>')
        for point in line.points:
            x, y = place(point)
            out.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>')
            if point.label:
                out.append(f'<text x="{x + 6:.1f}" y="{y - 6:.1f}">{escape(point.label)}</text>')
        if line.name:
            where = f'x="{RIGHT + 20}" y="{TOP + 18 * k}"'
            out.append(f'<text {where} fill="{colour}">{escape(line.name)}</text>')
    return "".join(out) + "</svg>\n"


def _frame(
    across: str, up: str, xs: tuple[float, float], ys: tuple[float, float], *, wide: bool
) -> str:
    """The axes with their words and ends; wide: with room for a legend."""
    width, height, middle = 700 if wide else RIGHT + 30, BOTTOM + 50, (LEFT + RIGHT) // 2
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'font-family="sans-serif" font-size="12"><rect width="{width}" height="{height}" '
        f'fill="white"/><path d="M{LEFT} 20V{BOTTOM}H{RIGHT + 10}" fill="none" stroke="#888"/>'
        f'<text x="{middle}" y="{BOTTOM + 36}" text-anchor="middle">{escape(across)}</text>'
        f'<text transform="translate(16 160) rotate(-90)" text-anchor="middle">{escape(up)}</text>'
        f'<text x="{LEFT}" y="{BOTTOM + 16}">{xs[0]:.2f}</text>'
        f'<text x="{RIGHT}" y="{BOTTOM + 16}" text-anchor="end">{xs[1]:.2f}</text>'
        f'<text x="{LEFT - 6}" y="{BOTTOM}" text-anchor="end">{ys[0]:.2f}</text>'
        f'<text x="{LEFT - 6}" y="{TOP}" text-anchor="end">{ys[1]:.2f}</text>'
    )


def _span(values: Sequence[float]) -> tuple[float, float]:
    """From below the least to above the greatest."""
    low, high = min(values), max(values)
    edge = max(0.01, 0.08 * (high - low))
    return low - edge, high + edge
