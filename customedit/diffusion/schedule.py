"""What methods need of a noise schedule, whatever its kind: times, noise added, steps taken.

A denoiser's output is brought into the terms of its schedule once (``noise``): the noise for a
diffusion schedule, the velocity for flow matching. It is linear in the output, so guidance is
applied to it, and ``step`` and ``clean`` take it. Times are numbers that the denoiser is told,
whole for some schedules; all arithmetic is in float32 or wider.
"""

from __future__ import annotations

import abc
from typing import Final, TypeAlias

import numpy as np
import torch
from torch import Tensor

Time: TypeAlias = float
"""A time as the denoiser is told it; a schedule of whole times gives ``int``."""

CLEAN: Final = -1
"""The time below the last step: what is there counts as the picture itself."""


class Schedule(abc.ABC):
    """A noise schedule. Latents and noise are [rows, C, h, w], times one number or [rows]."""

    @property
    @abc.abstractmethod
    def key(self) -> str:
        """A digest of everything in the schedule that changes a result, 16 hex digits."""

    @property
    @abc.abstractmethod
    def dtype(self) -> torch.dtype:
        """What the schedule computes in: float32 or wider."""

    @property
    @abc.abstractmethod
    def about(self) -> dict[str, str]:
        """Its kind in words, for people: ``prediction`` and ``spacing``."""

    def sized(self, height: int, width: int) -> Schedule:
        """The schedule for latents of this size; itself unless it depends on the size."""
        return self

    @abc.abstractmethod
    def times(self, steps: int) -> list[Time]:
        """The ``steps`` times that are visited, falling.

        Raises InputError for steps out of range.
        """

    def downwards(self, steps: int) -> list[tuple[Time, Time]]:
        """(time, next lower time) of each step from noise to picture; the last ends at CLEAN."""
        times = self.times(steps)
        return list(zip(times, [*times[1:], CLEAN], strict=True))

    def upwards(self, steps: int) -> list[tuple[Time, Time]]:
        """(time, next higher time) of each step from picture to noise: ``downwards`` reversed."""
        return [(low, high) for high, low in reversed(self.downwards(steps))]

    @abc.abstractmethod
    def time_at(self, share: float) -> Time:
        """The time that lies ``share`` of the way from picture (0) to noise (1)."""

    @abc.abstractmethod
    def draw_times(self, rng: np.random.Generator, rows: int) -> Tensor:
        """Times [rows] to train at, on the CPU, drawn as the family's trainings draw them."""

    @abc.abstractmethod
    def add_noise(self, latents: Tensor, noise: Tensor, time: Tensor | Time) -> Tensor:
        """``latents`` with ``noise`` as at ``time``; float32."""

    @abc.abstractmethod
    def noise(self, output: Tensor, latents: Tensor, time: Tensor | Time) -> Tensor:
        """What the denoiser's ``output`` for ``latents`` at ``time`` means, in ``dtype``."""

    @abc.abstractmethod
    def target(self, latents: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """What the denoiser should give for ``latents`` with ``noise`` at ``time`` [rows]."""

    @abc.abstractmethod
    def clean(self, latents: Tensor, noise: Tensor, time: Tensor | Time) -> Tensor:
        """The picture's latents in ``latents`` at ``time``, given ``Schedule.noise``; float32."""

    @abc.abstractmethod
    def step(
        self, latents: Tensor, noise: Tensor, time: Tensor | Time, to: Tensor | Time
    ) -> Tensor:
        """From ``time`` to ``to``, up or down, given ``Schedule.noise``; float32."""
