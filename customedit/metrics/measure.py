"""What an edit measures of itself: near source, references and text, and what it left alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from customedit.editing.edit import EditResult
from customedit.metrics.lpips import Lpips
from customedit.metrics.similarity import Dino, Similarity, psnr, ssim
from customedit.prompt_syntax import CONCEPT


@dataclass(frozen=True)
class Similarities:
    """Of one edit.

    source, text: cosines of CLIP features in [-1, 1]; reference: the same of the edited region with
    the references, None without any; outside_psnr (dB), outside_ssim: outside the edit's mask,
    against the source as the base's autoencoder gives it, None without a mask or an outside;
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
        found: dict[str, Any] = asdict(self)
        return {
            k: round(v, 4) if v is not None and math.isfinite(v) else None for k, v in found.items()
        }


def plain(prompt: str) -> str:
    """``prompt`` without concept tokens, which a CLIP cannot read."""
    return " ".join(CONCEPT.sub(" ", prompt).split())


def at_size(mask: Tensor, image: Image.Image) -> NDArray[np.float64]:
    """A mask [h, w] at the size of ``image``, [height, width] in [0, 1]."""
    grown = F.interpolate(mask[None, None].float().cpu(), size=(image.height, image.width))
    return grown[0, 0].double().clamp(0, 1).numpy()


def measure(
    judge: Similarity,
    result: EditResult,
    target_prompt: str,
    references: Sequence[Image.Image] = (),
    mask: Tensor | None = None,
    *,
    dino: Dino | None = None,
    lpips: Lpips | None = None,
) -> Similarities:
    """The similarities of ``result``, taken on the edit as the model drew it.

    mask: the true region of the edit, [h, w]; without it the one that the edit was kept to.
    """
    edited, source = result.working, result.source
    where = mask if mask is not None else result.mask
    region = None if where is None else at_size(where, edited)
    seen = region if region is not None and (region > 0.5).any() else None
    outside = None if region is None else 1 - region
    if outside is not None and not (outside > 0).any():
        outside = None
    return Similarities(
        source=judge.source(edited, source),
        text=judge.text(edited, plain(target_prompt)),
        reference=judge.reference(edited, references, mask=seen) if references else None,
        outside_psnr=None if outside is None else psnr(edited, source, outside),
        outside_ssim=None if outside is None else ssim(edited, source, outside),
        dino=dino.reference(edited, references, mask=seen) if dino and references else None,
        lpips=None if lpips is None else lpips.distance(edited, source),
    )


def bundled() -> Similarity:
    """The bundled base's own CLIP."""
    from customedit import mini

    return Similarity(mini.path() / "clip")
