"""The measures of one edit against the right answer, as functions of arrays.

All are taken at SIDE x SIDE pixels; larger pictures are reduced by averaging. A picture of the
wrong aspect is refused where it is read (``results.py``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from customedit.metrics.lookbench.colour import Array, Pixels, ciede2000, lab
from customedit.metrics.lookbench.patches import patch_distance
from customedit.metrics.lookbench.regions import Mask, Regions
from customedit.mini import judge as judging
from customedit.mini.figures import iou
from customedit.mini.scenes import SIZE
from customedit.mini.vocabulary import CLASSES

SIDE: Final = SIZE
"""Pixels a side at which everything is measured."""

BLUR: Final = 6.0
"""Standard deviation in pixels of the window over which colours are averaged: about a period of the
looks' patterns, so that a pattern that lies elsewhere on the thing has nearly the same averages."""

MOST_DB: Final = 60.0
"""A PSNR above this counts as this. Rounding to 8 bits alone costs 58.9 dB: no eye and no file
tells more, and a mean over edits must not hide a smeared one behind copies that are exact."""


@dataclass(frozen=True)
class Measures:
    """Of one picture against the right answer and the uploaded picture.

    distance: of the patch distributions inside the true mask, in Lab units, 0 or more; detail: the
    same of patches less their own mean colour; colour: CIEDE2000 of local mean colours inside the
    mask, 0 to about 100; ring, beyond: PSNR in dB, at most MOST_DB, against the uploaded picture in
    the ring round the mask and beyond it, None where that is no pixel; iou: of the judge's mask and
    the true one, in [0, 1]; right: whether the judge names the true class. Both None for a noun
    that the judge does not know.
    """

    distance: float
    detail: float
    colour: float
    ring: float | None
    beyond: float | None
    iou: float | None
    right: bool | None


def reduced(image: Pixels) -> Pixels:
    """``image`` [h, w, 3] at SIDE x SIDE, averaged over areas; as it is if it has that size."""
    if image.shape[:2] == (SIDE, SIDE):
        return image
    box = Image.Resampling.BOX if min(image.shape[:2]) >= SIDE else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(image).resize((SIDE, SIDE), box))


def reduced_coverage(coverage: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """A coverage [h, w] in [0, 1] at SIDE x SIDE, averaged over areas."""
    exact = np.asarray(coverage, np.float32)
    if exact.shape != (SIDE, SIDE):
        picture = Image.fromarray(exact).resize((SIDE, SIDE), Image.Resampling.BOX)
        exact = np.asarray(picture, np.float32)
    return exact.clip(0, 1)


def local_means(values: Array, mask: Mask, sigma: float = BLUR) -> Array:
    """Gaussian means of ``values`` [h, w, 3] over the pixels of ``mask`` alone: [n, 3] there."""
    weight = gaussian_filter(mask.astype(np.float64), sigma)
    sums = [gaussian_filter(np.where(mask, values[..., c], 0), sigma) for c in range(3)]
    return np.stack(sums, axis=-1)[mask] / weight[mask][:, None]


def colour_difference(first: Array, second: Array, mask: Mask) -> float:
    """Mean CIEDE2000 of two Lab pictures' local mean colours inside ``mask``.

    first, second: [h, w, 3]; mask: bool [h, w], not empty.
    """
    return float(ciede2000(local_means(first, mask), local_means(second, mask)).mean())


def psnr(first: Pixels, second: Pixels, mask: Mask) -> float | None:
    """PSNR over the pixels of ``mask`` in dB, at most MOST_DB; None if there is no pixel.

    first, second: uint8 [h, w, 3]; mask: bool [h, w].
    """
    if not mask.any():
        return None
    error = np.mean((first[mask].astype(np.float64) - second[mask].astype(np.float64)) ** 2)
    return MOST_DB if error == 0 else min(MOST_DB, 10 * math.log10(255**2 / float(error)))


class Answer:
    """A right answer and its source, ready to measure pictures against.

    answer, source: uint8 [h, w, 3] of one size; coverage: [h, w] in [0, 1]; noun: the thing's.
    """

    def __init__(
        self, answer: Pixels, source: Pixels, coverage: NDArray[np.floating[Any]], noun: str
    ) -> None:
        self.source, self.coverage, self.noun = reduced(source), reduced_coverage(coverage), noun
        self.regions = Regions.of(self.coverage)
        self.lab = lab(reduced(answer))

    def measure(self, picture: Pixels, shape: tuple[float, bool] | None = None) -> Measures:
        """The measures of ``picture``, uint8 [h, w, 3] of any size in the source's aspect.

        shape: what :func:`shapes` says of it.
        """
        seen = reduced(picture)
        inside, seen_lab = self.regions.inside, lab(seen)
        return Measures(
            distance=patch_distance(seen_lab, self.lab, inside),
            detail=patch_distance(seen_lab, self.lab, inside, detail=True),
            colour=colour_difference(seen_lab, self.lab, inside),
            ring=psnr(seen, self.source, self.regions.ring),
            beyond=psnr(seen, self.source, self.regions.beyond),
            iou=None if shape is None else shape[0],
            right=None if shape is None else shape[1],
        )


def shapes(
    judge: judging.Judge, pictures: Sequence[Pixels], answers: Sequence[Answer]
) -> list[tuple[float, bool] | None]:
    """What the judge sees in each picture: (IoU with the true mask, whether the class is right).

    The judge's mask has 32 x 32 cells; a cell is the thing's if the thing covers half of it. None
    where the noun is none of the judge's classes.
    """
    known = [k for k, answer in enumerate(answers) if answer.noun in CLASSES]
    out: list[tuple[float, bool] | None] = [None] * len(answers)
    if not known:
        return out
    verdict = judging.verdict(judge, np.stack([reduced(pictures[k]) for k in known]))
    cells = verdict.masks.shape[1]
    step = SIDE // cells
    for noun, mask, k in zip(verdict.nouns, verdict.masks, known, strict=True):
        covered = answers[k].coverage.reshape(cells, step, cells, step).mean(axis=(1, 3)) >= 0.5
        out[k] = iou(mask, covered), noun == answers[k].noun
    return out
