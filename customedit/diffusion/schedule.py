"""DDIM forwards and backwards (Song et al., arXiv 2010.02502), one time step per row.

All arithmetic is in float32 or wider, whatever the model computes in.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from customedit.diffusion.devices import send
from customedit.errors import InputError

Prediction = Literal["epsilon", "v_prediction"]

CLEAN = -1
"""The time below the last step: what is there counts as the picture itself."""


def _column(value: Tensor) -> Tensor:
    """[rows] or [] as [rows or 1, 1, 1, 1]."""
    return value.reshape(-1, 1, 1, 1)


@dataclass(frozen=True)
class Schedule:
    """A noise schedule.

    alphas: cumulative products of 1 - beta, float64 [train steps], falling; prediction: what the
    model gives; final: the cumulative alpha at CLEAN (``alphas[0]`` with Stable Diffusion's
    ``set_alpha_to_one=False``); offset: the ``steps_offset`` of the base's scheduler.
    """

    alphas: Tensor
    prediction: Prediction
    final: float
    offset: int = 1
    _tables: dict[torch.device, Tensor] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Schedule:
        """From a diffusers scheduler's ``scheduler_config.json``.

        Raises InputError for a prediction type other than epsilon and v, and for unknown betas.
        """
        prediction = config.get("prediction_type", "epsilon")
        if prediction not in ("epsilon", "v_prediction"):
            raise InputError(
                "base",
                f"its scheduler predicts {prediction!r}",
                "take one that predicts epsilon or v_prediction",
            )
        count = int(config.get("num_train_timesteps", 1000))
        first, last = config.get("beta_start", 0.00085), config.get("beta_end", 0.012)
        kind = config.get("beta_schedule", "scaled_linear")
        if kind == "scaled_linear":
            betas = torch.linspace(first**0.5, last**0.5, count, dtype=torch.float64) ** 2
        elif kind == "linear":
            betas = torch.linspace(first, last, count, dtype=torch.float64)
        else:
            raise InputError(
                "base", f"its betas are {kind!r}", "take one with linear or scaled_linear betas"
            )
        alphas = torch.cumprod(1 - betas, 0)
        final = 1.0 if config.get("set_alpha_to_one", False) else float(alphas[0])
        return cls(alphas, prediction, final, int(config.get("steps_offset", 1)))

    @property
    def key(self) -> str:
        """Tells schedules apart in the names of kept inversions."""
        return f"{self.prediction}-{len(self.alphas)}-{float(self.alphas[-1]):.6e}-{self.final:.6f}"

    def times(self, steps: int) -> list[int]:
        """The ``steps`` times that are visited, falling, as diffusers' "leading" spacing has them.

        Raises InputError unless 1 <= steps <= train steps.
        """
        count = len(self.alphas)
        if not 1 <= steps <= count:
            raise InputError("steps", f"{steps} is not from 1 to {count}", f"take 1 to {count}")
        stride = count // steps
        # where the offset would leave the table (diffusers goes there with 1000 steps), without it
        offset = self.offset if (steps - 1) * stride + self.offset < count else 0
        return [k * stride + offset for k in range(steps)][::-1]

    def downwards(self, steps: int) -> list[tuple[int, int]]:
        """(time, next lower time) of each step from noise to picture; the last ends at CLEAN."""
        times = self.times(steps)
        return list(zip(times, [*times[1:], CLEAN], strict=True))

    def upwards(self, steps: int) -> list[tuple[int, int]]:
        """(time, next higher time) of each step from picture to noise: ``downwards`` reversed."""
        return [(low, high) for high, low in reversed(self.downwards(steps))]

    def alpha(self, time: Tensor | int) -> Tensor:
        """Cumulative alpha at ``time``, int or [rows]: float32 [1 or rows, 1, 1, 1].

        Where ``time`` is, so that a GPU's times need not come to the CPU to be looked up.
        """
        at = torch.as_tensor(time).reshape(-1)
        return _column(self._table(at.device)[at])

    def _table(self, device: torch.device) -> Tensor:
        """Every alpha and, last, where CLEAN finds it, the final one: float32 on ``device``."""
        if device not in self._tables:
            final = torch.tensor([self.final], dtype=torch.float64)
            self._tables[device] = torch.cat([self.alphas, final]).float().to(device)
        return self._tables[device]

    def _beside(self, latents: Tensor, time: Tensor | int) -> Tensor:
        """``alpha`` for arithmetic with ``latents``: on their device, without waiting for it.

        That of a single time is a scalar on the CPU, which goes with any device.
        """
        if isinstance(time, int):
            return self._table(torch.device("cpu"))[time]
        return self.alpha(send(torch.as_tensor(time), latents.device))

    def noise(self, output: Tensor, latents: Tensor, time: Tensor | int) -> Tensor:
        """The noise that ``output`` for ``latents`` [rows, C, h, w] at ``time`` stands for.

        v: noise = sqrt(alpha) v + sqrt(1 - alpha) x (Salimans & Ho, arXiv 2202.00512). The alpha
        is that of the time which the model was told, in inversion too, where the latents lag a
        step behind: the output only has meaning for what the model took the latents to be.
        """
        if self.prediction == "epsilon":
            return output.float()
        alpha = self._beside(latents, time)
        return alpha.sqrt() * output.float() + (1 - alpha).sqrt() * latents.float()

    def target(self, latents: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """What the model should give at ``time`` [rows]: the noise, or v."""
        if self.prediction == "epsilon":
            return noise
        alpha = self._beside(latents, time)
        return alpha.sqrt() * noise.float() - (1 - alpha).sqrt() * latents.float()

    def add_noise(self, latents: Tensor, noise: Tensor, time: Tensor | int) -> Tensor:
        """sqrt(alpha) latents + sqrt(1 - alpha) noise, at ``time`` int or [rows]."""
        alpha = self._beside(latents, time)
        return alpha.sqrt() * latents.float() + (1 - alpha).sqrt() * noise.float()

    def clean(self, latents: Tensor, noise: Tensor, time: Tensor | int) -> Tensor:
        """The picture's latents that ``latents`` at ``time`` hold if their noise is ``noise``."""
        alpha = self._beside(latents, time)
        return (latents.float() - (1 - alpha).sqrt() * noise) / alpha.sqrt()

    def step(self, latents: Tensor, noise: Tensor, time: Tensor | int, to: Tensor | int) -> Tensor:
        """From ``time`` to ``to``, up or down: DDIM eq. 12 with sigma 0."""
        alpha = self._beside(latents, to)
        clean = self.clean(latents, noise, time)
        return alpha.sqrt() * clean + (1 - alpha).sqrt() * noise.float()
