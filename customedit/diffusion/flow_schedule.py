"""Flow matching (Lipman et al., arXiv 2210.02747; rectified flow, arXiv 2403.03206).

A latent at sigma is x = (1 - sigma) picture + sigma noise, and the model gives the velocity
v = dx / d sigma = noise - picture. A step is x' = x + (sigma' - sigma) v, up or down alike. Times
are 1000 sigma, from 1000 (noise) down to the picture itself at CLEAN, and are no whole numbers.

Times are those of diffusers' ``FlowMatchEulerDiscreteScheduler`` as its pipelines set them. All
arithmetic is in float32, whatever the model computes in.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from customedit.diffusion.devices import to_device
from customedit.diffusion.families.flow_config import SCHEDULER_FILE, check_scheduler
from customedit.diffusion.schedule import Schedule, Time
from customedit.errors import InputError

Spacing = Literal["to-smallest", "even"]
"""Where the last time lies before shifting: at the scheduler's smallest sigma, as Stable Diffusion
3's pipeline has it, or at 1 / steps, as FLUX's has."""

ShiftType = Literal["exponential", "linear"]


@dataclass(frozen=True)
class DynamicShift:
    """A shift that depends on how many tokens the transformer makes of the picture.

    mu runs through (base_tokens, base_shift) and (max_tokens, max_shift) as a straight line.
    """

    base_shift: float
    max_shift: float
    base_tokens: int
    max_tokens: int
    kind: ShiftType = "exponential"

    def mu(self, tokens: int) -> float:
        """The shift for a picture of so many tokens."""
        slope = (self.max_shift - self.base_shift) / (self.max_tokens - self.base_tokens)
        return tokens * slope + (self.base_shift - slope * self.base_tokens)


@dataclass(frozen=True)
class FlowSchedule(Schedule):
    """A flow-matching schedule.

    shift: sigma becomes shift sigma / (1 + (shift - 1) sigma), unless dynamic is there; dynamic: a
    shift by the picture's size; spacing: as the pipeline of the base has it; train_steps: 1000,
    by which times are sigmas; patch: latent cells a side that make a token; mu: of the picture that
    it is for, where the shift is dynamic.
    """

    shift: float = 1.0
    dynamic: DynamicShift | None = None
    spacing: Spacing = "to-smallest"
    train_steps: int = 1000
    patch: int = 2
    mu: float | None = None

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], spacing: Spacing = "to-smallest", patch: int = 2
    ) -> FlowSchedule:
        """From a ``scheduler_config.json``; what is left out has the scheduler's defaults.

        Raises InputError, naming the setting, for one that is not followed or out of range.
        """
        check_scheduler(config)
        count = _number(config, "num_train_timesteps", 1000, 2, 100_000)
        shift = _number(config, "shift", 1.0, 1e-3, 1e3)
        dynamic = _dynamic(config) if config.get("use_dynamic_shifting") else None
        return cls(shift, dynamic, spacing, int(count), patch)

    def sized(self, height: int, width: int) -> FlowSchedule:
        """The schedule for latents of this size, where the shift depends on it."""
        return self.for_tokens((height // self.patch) * (width // self.patch))

    def for_tokens(self, tokens: int) -> FlowSchedule:
        """The schedule of a picture of which the transformer makes so many tokens."""
        if self.dynamic is None:
            return self
        return dataclasses.replace(self, mu=self.dynamic.mu(tokens))

    @property
    def key(self) -> str:
        """A digest of everything in the schedule that changes a result, 16 hex digits."""
        parts = dataclasses.asdict(self) | {"kind": "flow", "mu": None}
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def dtype(self) -> torch.dtype:
        """What the schedule computes in."""
        return torch.float32

    @property
    def about(self) -> dict[str, str]:
        """Its kind in words, for people."""
        shift = "by size" if self.dynamic else f"{self.shift:g}"
        return {"prediction": "velocity", "spacing": f"flow matching, shift {shift}"}

    # times

    def check_steps(self, steps: int) -> None:
        """Raises InputError unless 1 <= steps <= train steps."""
        if not 1 <= steps <= self.train_steps:
            raise InputError(
                "steps", f"{steps} is not from 1 to {self.train_steps}",
                f"take 1 to {self.train_steps}",
            )  # fmt: skip

    def times(self, steps: int) -> list[Time]:
        """The ``steps`` times that are visited, falling, as the pipeline's scheduler has them.

        Raises InputError unless 1 <= steps <= train steps, ValueError where the shift is dynamic
        and the schedule is not yet one ``for_tokens``.
        """
        self.check_steps(steps)
        sigmas: NDArray[Any]
        if self.spacing == "even":
            sigmas = np.linspace(1.0, 1 / steps, steps).astype(np.float32)
        else:
            # the scheduler shifts the ends as well, when it is made
            most, least = (float(self._constant(np.float32(s))) for s in (1, 1 / self.train_steps))
            ends = np.float32(most) * self.train_steps, np.float32(least) * self.train_steps
            sigmas = np.linspace(*ends, steps) / self.train_steps
        shifted = self._shifted(sigmas).astype(np.float32)
        return [float(t) for t in shifted * np.float32(self.train_steps)]

    def _constant(self, sigma: Any) -> Any:
        """The shift that the scheduler is made with; none where it is dynamic."""
        if self.dynamic is not None:
            return sigma
        return self.shift * sigma / (1 + (self.shift - 1) * sigma)

    def _shifted(self, sigmas: NDArray[Any]) -> NDArray[Any]:
        if self.dynamic is None:
            return np.asarray(self._constant(sigmas))
        if self.mu is None:
            raise ValueError("the shift depends on the picture's size: use for_tokens first")
        by = math.exp(self.mu) if self.dynamic.kind == "exponential" else self.mu
        return np.asarray(by / (by + (1 / sigmas - 1)))

    def draw_times(self, rng: np.random.Generator, rows: int) -> Tensor:
        """Times to train at, float32 [rows]: sigma is the shifted sigmoid of a normal number.

        Logit-normal sampling, which Stable Diffusion 3 was trained with (arXiv 2403.03206).
        """
        sigmas = 1 / (1 + np.exp(-rng.standard_normal(rows)))
        return torch.from_numpy(self._shifted(sigmas) * self.train_steps).float()

    def time_at(self, share: float) -> Time:
        """The time at a share of the way into noise: 0 the picture, 1 noise alone."""
        return share * self.train_steps

    # latents

    def sigma(self, time: Tensor | Time, latents: Tensor) -> Tensor:
        """Sigma at ``time``, a number or [rows]: [1 or rows, 1, 1, 1] float32 beside ``latents``.

        That of a single time is on the CPU, without axes, which goes with any device.
        """
        if not isinstance(time, Tensor):
            return torch.tensor(max(time, 0) / self.train_steps, dtype=torch.float32)  # CLEAN is 0
        at = to_device(time, latents.device).float() / self.train_steps
        return at.clamp(min=0).reshape(-1, 1, 1, 1)

    def noise(self, output: Tensor, latents: Tensor, time: Tensor | Time) -> Tensor:
        """What ``step`` and ``clean`` take: the velocity, float32, as the model gives it.

        Not the noise itself, which x = noise at sigma 1 would say nothing more about. Guidance, a
        sum of predictions for one latent whose weights add up to 1, is the same in both.
        """
        return output.float()

    def target(self, latents: Tensor, noise: Tensor, time: Tensor | Time) -> Tensor:
        """What the model should give: the velocity noise - latents, float32."""
        return noise.float() - latents.float()

    def add_noise(self, latents: Tensor, noise: Tensor, time: Tensor | Time) -> Tensor:
        """(1 - sigma) latents + sigma noise, at ``time``, a number or [rows]; float32."""
        sigma = self.sigma(time, latents)
        return (1 - sigma) * latents.float() + sigma * noise.float()

    def clean(self, latents: Tensor, noise: Tensor, time: Tensor | Time) -> Tensor:
        """The picture's latents in ``latents`` at ``time`` if their velocity is ``noise``."""
        return latents.float() - self.sigma(time, latents) * noise.float()

    def step(
        self, latents: Tensor, noise: Tensor, time: Tensor | Time, to: Tensor | Time
    ) -> Tensor:
        """From ``time`` to ``to``, up or down, along the velocity ``noise``: Euler's; float32."""
        by = self.sigma(to, latents) - self.sigma(time, latents)
        return latents.float() + by * noise.float()


def _dynamic(config: Mapping[str, Any]) -> DynamicShift:
    """The dynamic shift of a configuration. Raises InputError."""
    kind = config.get("time_shift_type", "exponential")
    if kind not in get_args(ShiftType):
        raise InputError(
            "base",
            f"its scheduler has time_shift_type {kind!r}",
            f"use a base with {' or '.join(get_args(ShiftType))}",
        )
    low = 1e-6 if kind == "linear" else -20.0
    shifts = [
        _number(config, f"{n}_shift", d, low, 20.0) for n, d in (("base", 0.5), ("max", 1.15))
    ]
    base, most = (
        int(_number(config, f"{n}_image_seq_len", d, 1, 10**7))
        for n, d in (("base", 256), ("max", 4096))
    )
    if base >= most:
        raise InputError(
            "base",
            f"its scheduler has base_image_seq_len {base}, not below max_image_seq_len {most}",
            f"correct them in {SCHEDULER_FILE}",
        )
    return DynamicShift(shifts[0], shifts[1], base, most, kind)


def _number(
    config: Mapping[str, Any], setting: str, default: float, low: float, high: float
) -> float:
    """A number of a configuration within its limits. Raises InputError naming the setting."""
    value = config.get(setting, default)
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    if not plain or not low <= value <= high:
        raise InputError(
            "base",
            f"its scheduler has {setting} {value!r}",
            f"set a number from {low:g} to {high:g} in {SCHEDULER_FILE}",
        )
    return float(value)
