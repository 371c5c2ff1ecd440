"""Intervals over looks, sources and training seeds: a hierarchical bootstrap.

Looks and sources are crossed: every look is painted on every source. Training seeds belong to a
look. So each draw takes looks, sources and, within every look, seeds, each with replacement and
apart from each other (the pigeonhole bootstrap of Owen, Annals of Applied Statistics 1, 2007; for
the seeds Davison and Hinkley, Bootstrap Methods, 1997, section 3.8). Looks of one family, which
wear the same pattern, are taken together. Intervals are the 2.5 % and 97.5 % quantiles. Two editors
are compared on the same draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from customedit.metrics.lookbench.colour import Array

DRAWS: Final = 2000


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval; NaN where there is none."""

    value: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """Of a difference: "above", "below", or "undecided" where the interval holds zero."""
        if self.low > 0:
            return "above"
        return "below" if self.high < 0 else "undecided"

    def as_dict(self) -> dict[str, Any]:
        """As plain data, rounded to four places; NaN as None."""
        return {
            "value": _rounded(self.value),
            "interval": [_rounded(self.low), _rounded(self.high)],
        }


def _rounded(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 4)


@dataclass(frozen=True)
class Draws:
    """How often each draw takes what: looks [D, L], sources [D, S], seeds [D, L, K], counts."""

    looks: Array
    sources: Array
    seeds: Array

    @classmethod
    def of(
        cls, families: Sequence[str], sources: int, seeds: int, *, draws: int = DRAWS, seed: int = 0
    ) -> Draws:
        """Draws over looks of these ``families``, and so many sources and seeds (1 or more)."""
        rng = np.random.default_rng(seed)
        names = sorted(set(families))
        member = np.array([[name == family for family in families] for name in names], np.float64)
        taken = _counts(rng, draws, len(names))
        within = _counts(rng, draws * len(families), seeds).reshape(draws, len(families), seeds)
        return cls(taken @ member, _counts(rng, draws, sources), within)


def _counts(rng: np.random.Generator, draws: int, among: int) -> Array:
    """How often each of ``among`` is in ``draws`` samples of that many: [draws, among]."""
    return rng.multinomial(among, np.full(among, 1 / among), size=draws).astype(np.float64)


@dataclass(frozen=True)
class LookMeans:
    """The mean of each look over sources and seeds: value [L], and of each draw [D, L]."""

    value: Array
    drawn: Array

    def __sub__(self, other: LookMeans) -> LookMeans:
        return LookMeans(self.value - other.value, self.drawn - other.drawn)


def look_means(values: NDArray[np.floating[Any]], draws: Draws) -> LookMeans:
    """Means of ``values`` [L, S, K] over sources and seeds; K is 1 for what has no seeds.

    NaN is left out; a look of which nothing is left has NaN.
    """
    there = ~np.isnan(values)
    filled = np.where(there, values, 0.0)
    seeds = draws.seeds if values.shape[2] > 1 else np.ones((*draws.seeds.shape[:2], 1))
    with np.errstate(invalid="ignore"):
        value = filled.sum((1, 2)) / there.sum((1, 2))
        total = np.einsum("lsk,ds,dlk->dl", filled, draws.sources, seeds, optimize=True)
        weight = np.einsum(
            "lsk,ds,dlk->dl", there.astype(np.float64), draws.sources, seeds, optimize=True
        )
        return LookMeans(value, total / weight)


def gap_closed(edit: LookMeans, nothing: LookMeans, copy: LookMeans) -> LookMeans:
    """Share of the gap that edits close, of each look: 0 like doing nothing, 1 like the copies.

    All three are mean distances to the right answer: (nothing - edit) / (nothing - copy). Of the
    means, and not the mean over pictures: a source that already looks like the answer has a gap of
    nearly nothing, and would swamp the rest. NaN where doing nothing is no further away than the
    copy.
    """

    def share(e: Array, n: Array, c: Array) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(n > c, (n - e) / (n - c), np.nan)

    return LookMeans(
        share(edit.value, nothing.value, copy.value), share(edit.drawn, nothing.drawn, copy.drawn)
    )


def over_looks(means: LookMeans, draws: Draws) -> Estimate:
    """The mean over looks, with its interval over looks, sources and seeds."""
    there = ~np.isnan(means.value)
    if not there.any():
        return Estimate(np.nan, np.nan, np.nan)
    usable = there & ~np.isnan(means.drawn)
    weight = draws.looks * usable
    with np.errstate(invalid="ignore"):
        drawn = (np.where(usable, means.drawn, 0) * weight).sum(1) / weight.sum(1)
    return _estimate(float(means.value[there].mean()), drawn)


def of_look(means: LookMeans, number: int) -> Estimate:
    """Of one look, with its interval over sources and seeds."""
    return _estimate(float(means.value[number]), means.drawn[:, number])


def _estimate(value: float, drawn: Array) -> Estimate:
    usable = drawn[~np.isnan(drawn)]
    if not len(usable):
        return Estimate(value, np.nan, np.nan)
    low, high = np.quantile(usable, (0.025, 0.975))
    return Estimate(value, float(low), float(high))
