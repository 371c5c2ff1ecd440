"""What an edit measures: near source, references and text, and what it left alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from customedit.metrics.lpips import Lpips
from customedit.metrics.similarity import Dino, Similarity, psnr, ssim
from customedit.prompt_syntax import CONCEPT

MOST_PIXELS: Final = 2_000_000
"""Larger pictures are compared at this size: a PSNR of 40 megapixels takes gigabytes."""


@dataclass(frozen=True)
class Similarities:
    """Of one edit.

    source, text: cosines of CLIP features in [-1, 1]; reference: the same of the edited region with
    the references, None without any; outside_psnr (dB), outside_ssim: outside the edit's region,
    against the source itself, None without a region or an outside;
    dino: as ``reference`` by DINO's features; lpips: distance of edit and source, 0 if equal; None
    where their weights were not given.
    """

    source: float
    text: float
    reference: float | None = None
    outside_psnr: float | None = None
    outside_ssim: float | None = None
    dino: float | None = None
    lpips: float | None = None

    def as_dict(self) -> dict[str, float | None]:
        """As plain data, rounded to four places; infinite PSNR (equal pixels) as None."""
        values: dict[str, Any] = asdict(self)
        return {
            name: round(value, 4) if value is not None and math.isfinite(value) else None
            for name, value in values.items()
        }


def plain(prompt: str) -> str:
    """``prompt`` without concept tokens, which a CLIP cannot read."""
    return " ".join(CONCEPT.sub(" ", prompt).split())


def at_size(mask: Tensor, image: Image.Image) -> NDArray[np.float64]:
    """A mask [h, w] at the size of ``image``, [height, width] in [0, 1]; nearest neighbours."""
    grown = F.interpolate(mask[None, None].float().cpu(), size=(image.height, image.width))
    return grown[0, 0].double().clamp(0, 1).numpy()


def measure(
    judge: Similarity,
    edited: Image.Image,
    source: Image.Image,
    prompt: str,
    references: Sequence[Image.Image] = (),
    region: Tensor | None = None,
    *,
    dino: Dino | None = None,
    lpips: Lpips | None = None,
) -> Similarities:
    """The similarities of ``edited`` with the picture it was made of, of equal size.

    prompt: the target prompt, which may name concepts; region: where it was to change, [h, w] in
    [0, 1], None for everywhere.
    """
    edited, source = comparable(edited), comparable(source)
    where = None if region is None else at_size(region, edited)
    seen = where if where is not None and (where > 0.5).any() else None
    return Similarities(
        source=judge.source(edited, source),
        text=judge.text(edited, plain(prompt)),
        reference=judge.reference(edited, references, mask=seen) if references else None,
        **_outside(edited, source, where),
        dino=dino.reference(edited, references, mask=seen) if dino and references else None,
        lpips=None if lpips is None else lpips.distance(edited, source),
    )


def outside(
    edited: Image.Image, source: Image.Image, region: Tensor | None
) -> dict[str, float | None]:
    """``outside_psnr`` (dB) and ``outside_ssim`` of ``Similarities``, which need no judge."""
    edited, source = comparable(edited), comparable(source)
    return _outside(edited, source, None if region is None else at_size(region, edited))


def _outside(
    edited: Image.Image, source: Image.Image, where: NDArray[np.float64] | None
) -> dict[str, float | None]:
    if where is None or not (where < 1).any():
        return {"outside_psnr": None, "outside_ssim": None}
    return {
        "outside_psnr": psnr(edited, source, 1 - where),
        "outside_ssim": ssim(edited, source, 1 - where),
    }


def comparable(picture: Image.Image) -> Image.Image:
    """``picture``, of more than MOST_PIXELS averaged down to as many."""
    shrink = math.sqrt(MOST_PIXELS / (picture.width * picture.height))
    if shrink >= 1:
        return picture
    size = max(1, round(picture.width * shrink)), max(1, round(picture.height * shrink))
    return picture.resize(size, Image.Resampling.BOX)


def bundled() -> Similarity:
    """The bundled base's own CLIP."""
    from customedit import mini

    return Similarity(mini.path() / "clip")
