"""Losses of a training: what a batch holds, and what its rows come to."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from customedit.concepts.dataset import Dataset
from customedit.concepts.settings import TrainingSettings
from customedit.diffusion.base import Base
from customedit.diffusion.ddim import DDIMSchedule
from customedit.diffusion.devices import CpuCopy, to_device


@dataclass(frozen=True)
class Batch:
    """One step's rows: those of references first, then as many class images or none.

    noisy, target: [rows, C, h, w]; times: [rows]; masks: [rows, h, w] in [0, 1]; weights: [rows];
    texts: of each row; instances: how many rows are of references.
    """

    noisy: Tensor
    times: Tensor
    target: Tensor
    masks: Tensor
    weights: Tensor
    texts: tuple[str, ...]
    instances: int


def draw_batch(
    base: Base,
    settings: TrainingSettings,
    references: Dataset,
    prior: Dataset | None,
    number: int,
) -> Batch:
    """The rows of step ``number``: what is drawn depends on seed and number alone."""
    rng = np.random.default_rng([settings.seed, 2, number])
    noise_of = torch.Generator().manual_seed(int(rng.integers(2**62)))
    parts = [(references, rng.integers(len(references.texts), size=settings.batch))]
    if prior is not None:
        parts.append((prior, rng.integers(len(prior.texts), size=settings.batch)))
    drawings = [part.select(numbers) for part, numbers in parts]
    latents, masks = (torch.cat(found) for found in zip(*drawings, strict=True))
    rows = len(latents)
    schedule = base.schedule.sized(*latents.shape[-2:])
    times = schedule.draw_times(rng, rows)
    noise = to_device(torch.randn(latents.shape, generator=noise_of), base.device)
    weights = torch.ones(rows)
    if settings.snr_gamma:
        assert isinstance(schedule, DDIMSchedule), "TrainingSettings.of refuses others"
        weights = min_snr_weights(schedule, times, settings.snr_gamma)
    return Batch(
        schedule.add_noise(latents, noise, times),
        times,
        schedule.target(latents, noise, times),
        masks,
        to_device(weights, base.device),
        tuple(part.texts[i] for part, numbers in parts for i in numbers),
        settings.batch,
    )


def batch_loss(
    settings: TrainingSettings, batch: Batch, output: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss, and its parts by name; scalars. output: the model's, float32 [rows, C, h, w]."""
    instance = _part(settings, batch, output, slice(0, batch.instances))
    loss = settings.instance_weight * instance
    figures = {"instance": instance}
    if len(output) > batch.instances:
        prior = _part(settings, batch, output, slice(batch.instances, None))
        loss = loss + settings.prior_weight * prior
        figures["prior"] = prior
    return loss, {"loss": loss, **figures}


def _part(settings: TrainingSettings, batch: Batch, output: Tensor, rows: slice) -> Tensor:
    return masked_loss(
        output[rows],
        batch.target[rows],
        batch.masks[rows],
        weights=batch.weights[rows] if settings.snr_gamma else None,
        by_cells=settings.weigh_cells,
    )


def masked_loss(
    output: Tensor,
    target: Tensor,
    mask: Tensor,
    *,
    weights: Tensor | None = None,
    by_cells: bool = False,
) -> Tensor:
    """The squared error where the mask counts; a scalar.

    The mean over rows of each row's masked mean; by_cells: the masked mean over all cells of all
    rows, so that a row with few cells weighs as little as they are.

    output, target: [rows, C, h, w]; mask: [rows, h, w] in [0, 1]; weights: of each row's error,
    [rows], None for 1.
    """
    error = (output - target).square().mean(1)
    if weights is not None:
        error = error * weights[:, None, None]
    if by_cells:
        return (error * mask).sum() / mask.sum().clamp(min=1)
    return ((error * mask).sum((1, 2)) / mask.sum((1, 2)).clamp(min=1)).mean()


def min_snr_weights(schedule: DDIMSchedule, times: Tensor, gamma: float) -> Tensor:
    """Of the loss at ``times`` [rows], by min-SNR-gamma (Hang et al., arXiv 2303.09556); float32.

    With snr = alpha / (1 - alpha), a loss of the picture weighs min(snr, gamma). A loss of the
    noise is snr times that of the picture, one of v snr + 1 times, so they weigh min(snr, gamma) /
    snr and min(snr, gamma) / (snr + 1).
    """
    alpha = schedule.alphas[times].double()
    snr = alpha / (1 - alpha)
    capped = snr.clamp(max=gamma)
    by = {"sample": torch.ones_like(snr), "epsilon": snr, "v_prediction": snr + 1}
    return (capped / by[schedule.prediction]).float()


class LateFigures:
    """The figures of a training's steps, such as its loss; from a GPU they are read a step late.

    Whoever reads those of a step at once waits for it, and the GPU then waits for the next step to
    be launched. A step later they are there, and the GPU works on the next one.
    """

    def __init__(self, device: torch.device) -> None:
        self._late = device.type != "cpu"
        self._open: deque[tuple[int, tuple[str, ...], CpuCopy]] = deque()

    def add(self, step: int, figures: Mapping[str, Tensor]) -> None:
        """Take the figures of ``step``, scalars on the device, before the next step is launched."""
        stacked = torch.stack([figure.detach().float() for figure in figures.values()])
        self._open.append((step, tuple(figures), CpuCopy(stacked)))

    def read(self, *, now: bool = False) -> list[tuple[int, dict[str, float]]]:
        """(step, figures) of the steps that were not read yet, in order.

        now: also of the last one, which a GPU has to be waited for.
        """
        left = 1 if self._late and not now else 0
        found = []
        while len(self._open) > left:
            step, names, copy = self._open.popleft()
            found.append((step, dict(zip(names, copy.read().tolist(), strict=True))))
        return found
