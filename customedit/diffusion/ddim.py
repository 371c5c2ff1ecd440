"""DDIM forwards and backwards (Song et al., arXiv 2010.02502), one time step per row.

Times and cumulative alphas are those of diffusers' ``DDIMScheduler`` for the same configuration.
All arithmetic is in float32 or wider, whatever the model computes in.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from customedit.diffusion.devices import to_device
from customedit.diffusion.families.ddim_config import check_scheduler
from customedit.diffusion.schedule import Schedule
from customedit.errors import InputError

Prediction = Literal["epsilon", "v_prediction", "sample"]
Spacing = Literal["leading", "trailing", "linspace"]

SMALLEST_ALPHA: Final = 2.0**-40
"""What a cumulative alpha of 0 (zero terminal SNR) becomes: the DDIM step divides by its root.

Against diffusers, whose v-prediction step does not divide, latents differ by about 1e-6 of
themselves.
"""

WIDE_BELOW: Final = 1e-4
"""A schedule with a cumulative alpha below this computes in float64.

The noise and the latents of such a time agree in all but their last float32 digits, and their
difference divided by the root of alpha is the picture.
"""


def _column(value: Tensor) -> Tensor:
    """[rows] or [] as [rows or 1, 1, 1, 1]."""
    return value.reshape(-1, 1, 1, 1)


@dataclass(frozen=True)
class DDIMSchedule(Schedule):
    """A noise schedule of diffusion, with DDIM's steps.

    alphas: cumulative products of 1 - beta, float64 [train steps], falling, above 0; prediction:
    what the model gives: the noise (epsilon), v, or the picture (sample); final: the cumulative
    alpha at CLEAN (``alphas[0]`` with Stable Diffusion's ``set_alpha_to_one=False``); offset,
    spacing: the ``steps_offset`` and ``timestep_spacing`` of the base's scheduler.
    """

    alphas: Tensor
    prediction: Prediction
    final: float
    offset: int = 1
    spacing: Spacing = "leading"
    _tables: dict[torch.device, Tensor] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> DDIMSchedule:
        """From a diffusers scheduler's ``scheduler_config.json``.

        Settings that are left out have ``DDIMScheduler``'s defaults, except that nothing is
        clipped unless ``clip_sample`` is there and true.

        Raises InputError for a scheduler or a setting that DDIM cannot follow exactly.
        """
        _check_settings(config)
        prediction = config.get("prediction_type", "epsilon")
        if prediction not in get_args(Prediction):
            raise _unsupported("prediction_type", prediction, get_args(Prediction))
        spacing = config.get("timestep_spacing", "leading")
        if spacing not in get_args(Spacing):
            raise _unsupported("timestep_spacing", spacing, get_args(Spacing))
        alphas = torch.cumprod(1 - _betas(config), 0)
        if config.get("rescale_betas_zero_snr"):
            alphas = zero_terminal_snr(alphas)
        if prediction == "epsilon" and float(alphas[-1]) < SMALLEST_ALPHA:
            raise InputError(
                "base",
                "its scheduler ends at a signal-to-noise ratio of zero, where a prediction of the "
                "noise (prediction_type epsilon) says nothing about the picture",
                "use a base with v_prediction, or set rescale_betas_zero_snr to false in "
                "scheduler/scheduler_config.json",
            )
        alphas = alphas.clamp(min=SMALLEST_ALPHA)
        final = 1.0 if config.get("set_alpha_to_one", True) else float(alphas[0])
        offset = config.get("steps_offset", 0)
        if not isinstance(offset, int) or not 0 <= offset < len(alphas):
            raise InputError(
                "base",
                f"its scheduler has steps_offset {offset!r}",
                f"set a whole number from 0 to {len(alphas) - 1} in "
                "scheduler/scheduler_config.json",
            )
        return cls(alphas, prediction, final, offset, spacing)

    @property
    def key(self) -> str:
        """A digest of everything in the schedule that changes a result, 16 hex digits."""
        digest = hashlib.sha256(self.alphas.numpy().tobytes())
        rest = [self.prediction, self.final, self.offset, self.spacing]
        digest.update(json.dumps(rest).encode())
        return digest.hexdigest()[:16]

    @property
    def dtype(self) -> torch.dtype:
        """What the schedule computes in: float32, or float64 (see WIDE_BELOW)."""
        return torch.float64 if float(self.alphas[-1]) < WIDE_BELOW else torch.float32

    @property
    def about(self) -> dict[str, str]:
        """What the model predicts, and how its times are spaced."""
        return {"prediction": self.prediction, "spacing": self.spacing}

    def times(self, steps: int) -> list[float]:
        """The ``steps`` times that are visited, falling, as ``DDIMScheduler.set_timesteps`` has.

        Raises InputError unless 1 <= steps <= train steps.
        """
        count = len(self.alphas)
        if not 1 <= steps <= count:
            raise InputError("steps", f"{steps} is not from 1 to {count}", f"take 1 to {count}")
        if self.spacing == "linspace":
            return [int(t) for t in np.linspace(0, count - 1, steps).round()[::-1]]
        if self.spacing == "trailing":  # arange may add one more by rounding
            visited = np.round(np.arange(count, 0, -count / steps))[:steps]
            return [int(t) - 1 for t in visited]
        stride = count // steps
        # where the offset would leave the table (diffusers fails there, with 1000 steps), without
        offset = self.offset if (steps - 1) * stride + self.offset < count else 0
        rising: list[float] = [k * stride + offset for k in range(steps)]
        return rising[::-1]

    def downwards(self, steps: int) -> list[tuple[float, float]]:
        """(time, next lower time) of each step from noise to picture; the last ends at CLEAN.

        Where the times are evenly spaced, these are the steps of ``DDIMScheduler``. Where they are
        not (linspace, and trailing with steps that do not divide the train steps), its steps end at
        ``time - train steps // steps`` beside the next visited time, ours at that time, so that
        the way up is the way down reversed.
        """
        return super().downwards(steps)

    def time_at(self, share: float) -> int:
        """The time that lies ``share`` of the way from picture (0) to noise (1)."""
        return min(int(share * len(self.alphas)), len(self.alphas) - 1)

    def draw_times(self, rng: np.random.Generator, rows: int) -> Tensor:
        """Times [rows] to train at, all equally likely."""
        return torch.from_numpy(rng.integers(len(self.alphas), size=rows))

    def alpha(self, time: Tensor | int) -> Tensor:
        """Cumulative alpha at ``time``, int or [rows]: [1 or rows, 1, 1, 1] in ``dtype``.

        Where ``time`` is, so that a GPU's times need not come to the CPU to be looked up.
        """
        at = torch.as_tensor(time).reshape(-1)
        return _column(self._table(at.device)[at])

    def _table(self, device: torch.device) -> Tensor:
        """Every alpha and, last, where CLEAN finds it, the final one: ``dtype`` on ``device``."""
        if device not in self._tables:
            final = torch.tensor([self.final], dtype=torch.float64)
            self._tables[device] = torch.cat([self.alphas, final]).to(self.dtype).to(device)
        return self._tables[device]

    def _beside(self, latents: Tensor, time: Tensor | float) -> Tensor:
        """``alpha`` for arithmetic with ``latents``: on their device, without waiting for it.

        That of a single time is a scalar on the CPU, which goes with any device.
        """
        if isinstance(time, int | float):
            return self._table(torch.device("cpu"))[int(time)]
        return self.alpha(to_device(torch.as_tensor(time), latents.device))

    def noise(self, output: Tensor, latents: Tensor, time: Tensor | float) -> Tensor:
        """The noise that ``output`` for ``latents`` [rows, C, h, w] at ``time`` stands for.

        In ``dtype``. v: noise = sqrt(alpha) v + sqrt(1 - alpha) x (Salimans & Ho, arXiv
        2202.00512). The alpha is that of the time which the model was told, in inversion too, where
        the latents lag a step behind: the output only has meaning for what the model took the
        latents to be.
        """
        output = output.to(self.dtype)
        if self.prediction == "epsilon":
            return output
        alpha, x = self._beside(latents, time), latents.to(self.dtype)
        if self.prediction == "sample":
            return (x - alpha.sqrt() * output) / (1 - alpha).sqrt()
        return alpha.sqrt() * output + (1 - alpha).sqrt() * x

    def target(self, latents: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """What the model should give at ``time`` [rows]: the noise, v or the picture; float32."""
        if self.prediction == "epsilon":
            return noise
        if self.prediction == "sample":
            return latents.float()
        alpha = self._beside(latents, time)
        return (alpha.sqrt() * noise.float() - (1 - alpha).sqrt() * latents.float()).float()

    def add_noise(self, latents: Tensor, noise: Tensor, time: Tensor | float) -> Tensor:
        """sqrt(alpha) latents + sqrt(1 - alpha) noise, at ``time`` int or [rows]; float32."""
        alpha = self._beside(latents, time)
        return (alpha.sqrt() * latents.float() + (1 - alpha).sqrt() * noise.float()).float()

    def clean(self, latents: Tensor, noise: Tensor, time: Tensor | float) -> Tensor:
        """The picture's latents in ``latents`` at ``time`` if their noise is ``noise``; float32."""
        return self._clean(latents, noise, time).float()

    def _clean(self, latents: Tensor, noise: Tensor, time: Tensor | float) -> Tensor:
        """``clean`` in ``dtype``."""
        alpha, x = self._beside(latents, time), latents.to(self.dtype)
        return (x - (1 - alpha).sqrt() * noise.to(self.dtype)) / alpha.sqrt()

    def step(
        self, latents: Tensor, noise: Tensor, time: Tensor | float, to: Tensor | float
    ) -> Tensor:
        """From ``time`` to ``to``, up or down: DDIM eq. 12 with sigma 0; float32."""
        alpha = self._beside(latents, to)
        clean = self._clean(latents, noise, time)
        return (alpha.sqrt() * clean + (1 - alpha).sqrt() * noise.to(self.dtype)).float()

    def random_mean(self, latents: Tensor, noise: Tensor, time: float, to: float) -> Tensor:
        """The mean of the random (DDPM) step from ``time`` down to ``to``; float32.

        DDIM eq. 12 with eta 1: sqrt(a_to) x_0 + sqrt(1 - a_to - s^2) noise, where x_0 is the
        picture in ``latents`` and s^2 = (1 - a_to) / (1 - a) (1 - a / a_to).
        """
        alpha, lower = float(self.alpha(int(time))), float(self.alpha(int(to)))
        variance = (1 - lower) / (1 - alpha) * (1 - alpha / lower)
        direction = math.sqrt(max(0.0, 1 - lower - variance))
        return math.sqrt(lower) * self.clean(latents, noise, time) + direction * noise.float()


def zero_terminal_snr(alphas: Tensor) -> Tensor:
    """``alphas`` [train steps] shifted and scaled so that the last is 0 and the first is kept.

    Lin et al., arXiv 2305.08891, algorithm 1.
    """
    roots = alphas.sqrt()
    first, last = roots[0], roots[-1]
    return ((roots - last) * first / (first - last)) ** 2


def _betas(config: Mapping[str, Any]) -> Tensor:
    """The betas of a scheduler's configuration, float64 [train steps]. Raises InputError."""
    count = config.get("num_train_timesteps", 1000)
    if not isinstance(count, int) or not 2 <= count <= 100_000:
        raise InputError(
            "base",
            f"its scheduler has num_train_timesteps {count!r}",
            "set a whole number from 2 to 100000 in scheduler/scheduler_config.json",
        )
    kind = config.get("beta_schedule", "linear")
    try:
        if config.get("trained_betas") is not None:
            kind = "trained_betas"
            betas = torch.as_tensor(np.asarray(config["trained_betas"], np.float64))
        elif kind == "squaredcos_cap_v2":
            betas = _cosine_betas(count)
        else:
            first, last = float(config.get("beta_start", 1e-4)), float(config.get("beta_end", 0.02))
            if kind == "scaled_linear":
                betas = torch.linspace(first**0.5, last**0.5, count, dtype=torch.float64) ** 2
            elif kind == "linear":
                betas = torch.linspace(first, last, count, dtype=torch.float64)
            else:
                kinds = ("linear", "scaled_linear", "squaredcos_cap_v2")
                raise _unsupported("beta_schedule", kind, kinds)
    except (TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            "base", f"its scheduler's betas are not numbers ({error})", "use another base"
        ) from None
    if betas.shape != (count,):
        raise InputError(
            "base",
            f"its scheduler has {betas.numel()} trained_betas for {count} train steps",
            "set num_train_timesteps to their count in scheduler/scheduler_config.json",
        )
    if not bool(((betas > 0) & (betas <= 1)).all()) or float(betas[0]) == 1:
        raise InputError(
            "base",
            f"its scheduler has betas ({kind}) outside of 0 to 1",
            "correct them in scheduler/scheduler_config.json",
        )
    return betas


def _cosine_betas(count: int) -> Tensor:
    """The cosine schedule (Nichol & Dhariwal, arXiv 2102.09672, eq. 17), betas at most 0.999."""

    def cumulative(share: float) -> float:
        return math.cos((share + 0.008) / 1.008 * math.pi / 2) ** 2

    ratios = [cumulative((k + 1) / count) / cumulative(k / count) for k in range(count)]
    return torch.tensor([min(1 - ratio, 0.999) for ratio in ratios], dtype=torch.float64)


def _check_settings(config: Mapping[str, Any]) -> None:
    """Raises InputError for a scheduler that has no DDIM form and settings that change the step."""
    check_scheduler(config)
    for setting in ("thresholding", "clip_sample"):
        if config.get(setting):
            raise InputError(
                "base",
                f"its scheduler has {setting}, which changes latents so that no inversion leads "
                "back",
                f"set {setting} to false in scheduler/scheduler_config.json",
            )


def _unsupported(setting: str, value: object, supported: tuple[str, ...]) -> InputError:
    return InputError(
        "base",
        f"its scheduler has {setting} {value!r}",
        f"use a base with {' or '.join(supported)}",
    )
