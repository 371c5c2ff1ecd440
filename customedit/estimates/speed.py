"""Measured seconds as decaying averages: a line through (amount, seconds), the newest most."""

from __future__ import annotations

from typing import Final, Self

from pydantic import BaseModel, ConfigDict, Field

JOBS: Final = 0.8
"""What each job leaves of the weight of those before it."""

STEPS: Final = 0.999
"""The same for a call of the UNet or an optimizer step, of which a job has many."""

PACE: Final = 0.99
"""The same for how fast the machine is now, beside what it was while ``STEPS`` remembers."""

_SPREAD: Final = 1e-3
"""Least variance of the amounts, as a share of their mean squared, from which a slope is read."""


class Line(BaseModel):
    """Weighted sums of amounts x and seconds y, from which seconds = a + b x is read, a, b >= 0.

    Least squares. Where all amounts were the same, seconds are taken as proportional to the amount.
    """

    model_config = ConfigDict(extra="ignore")

    n: float = Field(default=0.0, ge=0)
    x: float = Field(default=0.0, ge=0)
    y: float = Field(default=0.0, ge=0)
    xx: float = Field(default=0.0, ge=0)
    xy: float = Field(default=0.0, ge=0)

    def add(self, amount: float, seconds: float, keep: float) -> None:
        """Take a measurement in; what was there before keeps the share ``keep`` of its weight."""
        seconds = max(0.0, seconds)
        new = {"n": 1.0, "x": amount, "y": seconds, "xx": amount**2, "xy": amount * seconds}
        for name, value in new.items():
            setattr(self, name, getattr(self, name) * keep + value)

    def scaled(self, factor: float) -> Self:
        """The line of a machine that takes ``factor`` times as long."""
        return self.model_copy(update={"y": self.y * factor, "xy": self.xy * factor})

    @classmethod
    def join(cls, lines: list[Line]) -> Self:
        """The line through what all of ``lines`` measured."""
        names = cls.model_fields
        return cls(**{name: sum(getattr(line, name) for line in lines) for name in names})

    def seconds(self, amount: float) -> float | None:
        """What ``amount`` takes; None: nothing was measured."""
        if self.n <= 0:
            return None
        mean_x, mean_y = self.x / self.n, self.y / self.n
        variance = self.xx / self.n - mean_x**2
        if variance <= _SPREAD * mean_x**2:
            return mean_y * amount / mean_x if mean_x > 0 else mean_y
        slope = (self.xy / self.n - mean_x * mean_y) / variance
        start = mean_y - slope * mean_x
        if slope < 0:
            return mean_y
        if start < 0:
            return amount * self.xy / self.xx
        return start + slope * amount


Speed = dict[str, Line]
"""By what was measured: ``call:CELLS`` (seconds of one call of the UNet, by its rows, where a row
has so many latent cells), ``turn:LABEL`` (of one step with gradients), and by kind of job what it
takes beside the engine (by pictures)."""

STEPPED: Final = ("call:", "turn:")
"""What names of measurements begin with that are of the engine's own steps."""


def call(cells: int) -> str:
    """The name under which calls of the UNet with rows of ``cells`` latent cells are measured."""
    return f"call:{cells}"


def turn(label: str) -> str:
    """The name under which steps with gradients are measured, such as those of a training."""
    return f"turn:{label}"
