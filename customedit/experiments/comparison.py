"""The study's arithmetic: curves of variants compared on the same bootstrap draws.

Two comparisons, each paired: at equal source similarity, as the paper's curves are read, and of the
gap to the right answer at each variant's own best strength, which needs no common range. Intervals
are those of LookBench (``metrics.lookbench.intervals``): over looks, sources and training seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from customedit.experiments.result_cache import Row
from customedit.metrics.lookbench.intervals import (
    Draws,
    Estimate,
    LookMeans,
    gap_closed,
    look_means,
    over_looks,
)

MEASURES: Final = ("source", "reference", "text", "distance", "ring", "beyond", "iou", "right")
"""Of a row; the gap closed follows from the distance."""

POINTS: Final = 9
"""Source similarities at which two curves are compared, evenly over the range both reach."""

SHARED: Final = 0.9
"""Share of the draws in which two curves must overlap for an interval to be told."""

Array = NDArray[np.float64]
Key = tuple[str, str, float]
"""Variant, editor, strength."""


@dataclass(frozen=True)
class Curve:
    """Means over all looks at rising strengths: value [n], drawn [draws, n]."""

    value: Array
    drawn: Array


class Comparison:
    """The rows of a study as grids, and their estimates on one set of draws.

    looks, sources, families: of the bench, in its order; nothing, copies: distances [looks,
    sources, 1] of doing nothing and of the autoencoder's copies of the right answers.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        looks: Sequence[str],
        sources: Sequence[str],
        families: Sequence[str],
        nothing: Array,
        copies: Array,
    ) -> None:
        self.looks = {name: k for k, name in enumerate(looks)}
        self.sources = {name: k for k, name in enumerate(sources)}
        self.seeds = {seed: k for k, seed in enumerate(sorted({row["seed"] for row in rows}))}
        self.draws = Draws.of(families, len(sources), len(self.seeds))
        self.by_key: dict[Key, list[Row]] = {}
        for row in rows:
            self.by_key.setdefault((row["variant"], row["editor"], row["strength"]), []).append(row)
        self._nothing = look_means(nothing, self.draws)
        self._copies = look_means(copies, self.draws)

    def strengths(self, variant: str, editor: str) -> list[float]:
        """Those that were run, rising."""
        return sorted(s for v, e, s in self.by_key if (v, e) == (variant, editor))

    def means(self, key: Key, measure: str) -> LookMeans:
        """Of one measure, or "gap": the share of the gap to the right answers that is closed."""
        if measure == "gap":
            return gap_closed(self.means(key, "distance"), self._nothing, self._copies)
        rows = self.by_key[key]
        seeds = {seed: k for k, seed in enumerate(sorted({row["seed"] for row in rows}))}
        if len(seeds) not in (1, len(self.seeds)):
            raise ValueError(f"{key} has {len(seeds)} of {len(self.seeds)} training seeds")
        grid = np.full((len(self.looks), len(self.sources), len(seeds)), np.nan)
        for row in rows:
            if row[measure] is not None:
                at = self.looks[row["look"]], self.sources[row["picture"]], seeds[row["seed"]]
                grid[at] = float(row[measure])
        return look_means(grid, self.draws)

    def estimate(self, key: Key, measure: str) -> Estimate:
        """The mean over everything, with its interval."""
        return over_looks(self.means(key, measure), self.draws)

    def curve(self, variant: str, editor: str, measure: str) -> Curve:
        """Of one variant: the mean at each strength, in value and in every draw."""
        values, drawn = [], []
        for strength in self.strengths(variant, editor):
            means = self.means((variant, editor, strength), measure)
            usable = ~np.isnan(means.drawn)
            weight = self.draws.looks * usable
            with np.errstate(invalid="ignore"):
                drawn.append((np.where(usable, means.drawn, 0) * weight).sum(1) / weight.sum(1))
            values.append(float(np.nanmean(means.value)))
        return Curve(np.array(values), np.array(drawn).T)

    def at_equal_source(self, first: str, other: str, editor: str) -> Estimate | None:
        """Reference similarity of ``first`` less that of ``other``, at equal source similarity.

        Mean over the source similarities that both curves reach. None where the curves share none,
        or share none in more than one draw of ten.
        """
        ours, theirs = (
            (self.curve(v, editor, "source"), self.curve(v, editor, "reference"))
            for v in (first, other)
        )
        value = advantage(ours[0].value, ours[1].value, theirs[0].value, theirs[1].value)
        if value is None:
            return None
        found = [
            advantage(ours[0].drawn[d], ours[1].drawn[d], theirs[0].drawn[d], theirs[1].drawn[d])
            for d in range(len(ours[0].drawn))
        ]
        usable = np.array([gap for gap in found if gap is not None])
        if len(usable) < SHARED * len(found):
            return None
        low, high = np.quantile(usable, (0.025, 0.975))
        return Estimate(value, float(low), float(high))

    def at_best(
        self, first: str, other: str, editor: str, strengths: Mapping[tuple[str, str], float]
    ) -> Estimate:
        """Gap closed by ``first`` less that by ``other``, each at its own strength.

        strengths: (variant, editor) to the strength, chosen on sources that are not scored.
        """
        ours, theirs = (
            self.means((v, editor, strengths[v, editor]), "gap") for v in (first, other)
        )
        return over_looks(ours - theirs, self.draws)


def advantage(xs: Array, ys: Array, other_xs: Array, other_ys: Array) -> float | None:
    """Mean of ``ys`` less ``other_ys`` over the range of x that both curves [n] reach.

    Linear between points; None where the ranges share nothing.
    """
    low, high = max(xs.min(), other_xs.min()), min(xs.max(), other_xs.max())
    if not low <= high:  # also with NaN
        return None
    at = np.linspace(low, high, POINTS)
    order, other = np.argsort(xs), np.argsort(other_xs)
    ours = np.interp(at, xs[order], ys[order])
    theirs = np.interp(at, other_xs[other], other_ys[other])
    return float((ours - theirs).mean())
