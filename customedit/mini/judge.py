"""Stage ``judge``: an independent eye that says what a picture shows.

A small convolutional network trained on renders alone, never on the model's pictures and with no
weight in common with it. It names the class and the pattern and finds the thing's pixels; colours
are then read from the pixels themselves (:mod:`customedit.mini.colours`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from customedit.mini import loop
from customedit.mini.data import Shards
from customedit.mini.loop import Average, Loss, Run, Step
from customedit.mini.vae import to_tensor
from customedit.mini.vocabulary import ANY_PATTERN, CLASSES, PATTERNS

WIDTHS = (24, 48, 96, 160)

NAMES = (*PATTERNS, ANY_PATTERN)
"""The patterns a judge tells apart; one that was trained on named patterns alone knows the first
six."""


def _stage(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, 2, 1),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, 1, 1),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class Judge(nn.Module):
    """Images to class, pattern and mask: four strided stages, with heads on what they see.

    patterns: how many of NAMES it tells apart.
    """

    def __init__(self, patterns: int = len(NAMES)) -> None:
        super().__init__()
        self.config = {"patterns": patterns}
        widths = (3, *WIDTHS)
        self.stages = nn.ModuleList(map(_stage, widths[:-1], widths[1:]))
        self.noun = nn.Linear(2 * WIDTHS[-1], len(CLASSES))
        self.pattern = nn.Linear(2 * (WIDTHS[1] + WIDTHS[2] + WIDTHS[3]), patterns)
        self.low = nn.Conv2d(WIDTHS[-1], 64, 1)
        self.high = nn.Conv2d(WIDTHS[1], 64, 1)
        self.mask = nn.Sequential(
            nn.ReLU(), nn.Conv2d(64, 64, 3, 1, 1), nn.ReLU(), nn.Conv2d(64, 1, 1)
        )

    @classmethod
    def from_config(cls, config: Mapping[str, int]) -> Judge:
        """A judge of random weights that tells apart what ``config`` says."""
        return cls(**config)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Images [n, 3, 128, 128] in [-1, 1] to logits.

        Of the class [n, 10], of the pattern [n, patterns], and of the thing's mask [n, 32, 32].
        """
        levels: list[Tensor] = []
        x = images
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        mask = self.mask(F.interpolate(self.low(x), scale_factor=4) + self.high(levels[1]))[:, 0]
        where = mask.detach().sigmoid()[:, None]

        def pooled(level: Tensor) -> Tensor:  # over the thing, and over all
            w = F.adaptive_avg_pool2d(where, level.shape[-1])
            on = (level * w).sum((2, 3)) / (w.sum((2, 3)) + 1e-4)
            return torch.cat([on, level.amax((2, 3))], 1)

        noun = self.noun(pooled(x))
        pattern = self.pattern(torch.cat([pooled(level) for level in levels[1:]], 1))
        return noun, pattern, mask


@dataclass(frozen=True)
class Verdict:
    """What the judge sees in n pictures: words, and the thing's mask, bool [n, 32, 32]."""

    nouns: list[str]
    patterns: list[str]
    masks: NDArray[np.bool_]


def load(path: Path) -> Judge:
    """The judge with the weights in ``path`` (safetensors)."""
    state = {k: v.float() for k, v in load_file(path).items()}
    judge = Judge(len(state["pattern.bias"]))
    judge.load_state_dict(state, strict=False)
    return judge.eval()


@torch.no_grad()
def verdict(judge: Judge, images: NDArray[np.uint8]) -> Verdict:
    """Judge uint8 images [n, 128, 128, 3]."""
    parts = [judge(to_tensor(images[at : at + 32])) for at in range(0, len(images), 32)]
    noun, pattern, mask = (torch.cat(p) for p in zip(*parts, strict=True))
    return Verdict(
        [CLASSES[i] for i in noun.argmax(1)],
        [NAMES[i] for i in pattern.argmax(1)],
        (mask > 0).numpy(),
    )


def soften(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Blur a random part of the batch a little and add noise, so that sharpness decides nothing."""
    blurred = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, 1)
    share = torch.from_numpy(rng.random(len(images)).astype(np.float32))[:, None, None, None]
    noise = torch.from_numpy(rng.standard_normal(images.shape, np.float32))
    return images + share * (blurred - images) + 0.04 * share * noise


def train(run: Run, judge: Judge) -> Average:
    """Train ``judge`` on the run's scenes.

    Raises ValueError for a judge that has no answer for random patterns.
    """
    if judge.config["patterns"] < len(NAMES):
        raise ValueError(
            f"this judge knows named patterns alone; remove {run.folder / 'judge.pt'} and run the "
            "stage again for a new one"
        )
    shards = Shards(run.folder / "scenes", run.shards)
    batch, device = run.batch, run.device
    noun_of = torch.tensor([CLASSES.index(s.noun) for s in shards.scenes])
    pattern_of = torch.tensor([NAMES.index(s.pattern) for s in shards.scenes])
    noun_of, pattern_of = noun_of.to(device), pattern_of.to(device)
    judge = judge.to(torch.device(device), memory_format=torch.channels_last)  # type: ignore[call-overload]

    def loss(step: Step) -> Loss:
        indices = step.numpy.choice(len(shards), batch, replace=False)
        x = to_tensor(shards.small_batch(indices))
        masks = torch.from_numpy(np.stack([shards.mask(int(i)) for i in indices]))
        if step.numpy.random() < 0.5:
            x, masks = x.flip(3), masks.flip(2)
        x = soften(x, step.numpy).to(device).contiguous(memory_format=torch.channels_last)
        with run.half():
            noun, pattern, mask = judge(x)
        where = F.avg_pool2d(mask.float().sigmoid()[:, None], 2)[:, 0].clamp(1e-4, 1 - 1e-4)
        parts = (
            F.cross_entropy(noun.float(), noun_of[indices]),
            F.cross_entropy(pattern.float(), pattern_of[indices]),
            F.binary_cross_entropy(where, masks.clamp(0, 1).to(device)),
        )
        return parts[0] + parts[1] + parts[2], {
            "noun": (noun.argmax(1) == noun_of[indices]).float().mean().item(),
            "pattern": (pattern.argmax(1) == pattern_of[indices]).float().mean().item(),
            "mask": parts[2].item(),
        }

    return loop.train("judge", judge, loss, run)
