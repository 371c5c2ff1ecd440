"""The arithmetic of an evaluation: rows with their bars, intervals, PSNR, IoU, retrieval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Z95: Final = 1.959964
"""The normal distribution's 97.5 % quantile."""


def shown(value: float, unit: str) -> str:
    """``value`` as figures are written: with its unit, or in per cent if it has none."""
    return f"{value:.2f} {unit}" if unit else f"{100 * value:.1f} %"


@dataclass(frozen=True)
class Row:
    """One line of the evaluation.

    value: the figure, a share in [0, 1] for counts; bar: what it must reach (or stay below, if
    ``at_most``), None if it is only reported; n: how many things were measured; interval: 95 %;
    judged: how, in words; unit: of ``value``, empty for shares.
    """

    name: str
    value: float
    bar: float | None
    n: int
    interval: tuple[float, float] | None
    judged: str
    unit: str = ""
    at_most: bool = False

    @property
    def met(self) -> bool | None:
        """Whether the bar is met; None without one."""
        if self.bar is None:
            return None
        return self.value <= self.bar if self.at_most else self.value >= self.bar

    def show(self, value: float) -> str:
        """``value`` as this row's figures are written: with the unit, or in per cent."""
        return shown(value, self.unit)

    def as_dict(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        return {
            "name": self.name,
            "value": round(self.value, 4),
            "unit": self.unit,
            "bar": self.bar,
            "bar_is": None if self.bar is None else "at most" if self.at_most else "at least",
            "met": self.met,
            "n": self.n,
            "interval": self.interval and [round(x, 4) for x in self.interval],
            "judged": self.judged,
        }


def wilson(right: int, n: int) -> tuple[float, float]:
    """The 95 % score interval of a share (Wilson, JASA 22, 1927); (0, 1) for n = 0.

    Raises ValueError unless 0 <= right <= n.
    """
    if not 0 <= right <= n:
        raise ValueError(f"{right} of {n} is no share")
    if n == 0:
        return 0.0, 1.0
    p, z2 = right / n, Z95**2
    middle = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def counted(name: str, right: Sequence[bool], bar: float | None, judged: str) -> Row:
    """A share of things that are right, with its Wilson interval."""
    hits, n = sum(map(bool, right)), len(right)
    return Row(name, hits / max(n, 1), bar, n, wilson(hits, n), judged)


def averaged(
    name: str, values: Sequence[float], bar: float | None, judged: str, unit: str = ""
) -> Row:
    """A mean, with 1.96 standard errors either side. Raises ValueError if there are no values."""
    if not values:
        raise ValueError(f"{name}: nothing was measured")
    mean = float(np.mean(values))
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    half = Z95 * spread / math.sqrt(len(values))
    return Row(name, mean, bar, len(values), (mean - half, mean + half), judged, unit)


def psnr(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio of two images of equal shape in dB; infinite if they are equal."""
    error = float(np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2))
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Intersection over union of two masks of equal shape; 1 if both are empty."""
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 1.0


def top1(scores: NDArray[np.floating]) -> list[bool]:
    """For each row of a square matrix of scores, whether its own column scores highest, alone."""
    own = np.diagonal(scores)
    others = np.where(np.eye(len(scores), dtype=bool), -np.inf, scores)
    return [bool(x) for x in own > others.max(1)]
