"""Trade-off curves as SVG: what stays of the source against what comes of the reference or text."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass


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


def plot(lines: Sequence[Line], x_label: str, y_label: str) -> str:
    """``lines`` as an SVG document with axes, ticks and a legend; equal input, equal text.

    Raises:
        ValueError: if there is no point at all.
    """
    import matplotlib
    from matplotlib.figure import Figure  # the figure alone: pyplot would keep state and a display

    if not any(line.points for line in lines):
        raise ValueError("a curve without points cannot be drawn")
    with matplotlib.rc_context({"svg.hashsalt": "customedit", "svg.fonttype": "none"}):
        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.add_subplot()
        for line in lines:
            xs, ys = [p.x for p in line.points], [p.y for p in line.points]
            axes.plot(xs, ys, marker="o", markersize=4, label=line.name or None)
            for point in line.points:
                axes.annotate(
                    point.label, (point.x, point.y), (5, 5), textcoords="offset points", fontsize=8
                )
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.grid(alpha=0.3)
        if any(line.name for line in lines):
            figure.legend(loc="outside right upper", fontsize=8)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()
