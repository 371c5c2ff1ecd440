"""The study's arithmetic: means of rows, and variants compared at equal source similarity."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import numpy as np

from customedit.experiments.report import Table
from customedit.experiments.result_cache import Row


def means(rows: Sequence[Row]) -> Table:
    """(variant, editor, strength) to the mean of every similarity."""
    sets: dict[tuple[str, str, float], list[Row]] = {}
    for row in rows:
        sets.setdefault((row["variant"], row["editor"], row["strength"]), []).append(row)
    names = ("source", "reference", "text", "outside_psnr", "outside_ssim")
    return {
        key: {
            n: statistics.fmean(v)
            for n in names
            if (v := [r[n] for r in found if r[n] is not None])
        }
        for key, found in sets.items()
    }


def reference_at(table: Table, variant: str, editor: str, source: float) -> float | None:
    """Reference similarity of a variant where its source similarity is ``source``, interpolated.

    None where its curve does not reach.
    """
    points = sorted(
        (v["source"], v["reference"])
        for (a, e, _), v in table.items()
        if (a, e) == (variant, editor)
    )
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    if not xs or not xs[0] <= source <= xs[-1]:
        return None
    return float(np.interp(source, xs, ys))


def advantage(table: Table, variant: str, other: str, editor: str) -> float | None:
    """Mean of ``variant``'s reference similarity minus ``other``'s, at equal source similarity.

    Over the source similarities that both curves reach; None where they share none.
    """
    spans = [
        [v["source"] for (a, e, _), v in table.items() if (a, e) == (name, editor)]
        for name in (variant, other)
    ]
    if not all(spans):
        return None
    low, high = max(map(min, spans)), min(map(max, spans))
    if low > high:
        return None
    gaps = []
    for at in np.linspace(low, high, 9):
        a, b = (reference_at(table, name, editor, float(at)) for name in (variant, other))
        if a is not None and b is not None:
            gaps.append(a - b)
    return statistics.fmean(gaps) if gaps else None
