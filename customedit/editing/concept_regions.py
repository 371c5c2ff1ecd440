"""The regions of an edit's concepts: checked against its picture, and in its pixels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from customedit.boxes import check_share
from customedit.diffusion.base import Base
from customedit.diffusion.concept_regions import sets_anywhere
from customedit.diffusion.readings import check_overlaps
from customedit.diffusion.text import Weighted
from customedit.editing.region import latent_mask
from customedit.errors import InputError
from customedit.images.masks import fit_mask


def check_regions(
    base: Base,
    concepts: Sequence[Weighted],
    picture: Image.Image,
    cells: tuple[int, int],
    mask: Tensor | None,
) -> None:
    """Check the regions of ``concepts``. cells: (h, w) of the latents; mask: the user's.

    Raises InputError, naming ``concepts[k].box`` or ``.mask``, for a region that the base cannot
    keep its concept to, of another aspect than the picture, that is empty in latent cells, or
    outside of the mask; and for regions that overlap in too many ways.
    """
    found = []
    for k, entry in enumerate(concepts):
        if (region := entry.region) is None:
            continue
        field, names = f"concepts[{k}].{region.kind}", ", ".join(entry.concept.tokens)
        base.family.check_placed(entry.concept, field)
        if region.mask is not None:
            fit_mask(region.mask.numpy(), picture.size, field=field)
        shares = region.shares(*cells)
        check_share(float(shares.max()), cells, field)
        if mask is not None:
            bound = latent_mask(mask.cpu(), cells)[0, 0]
            if not bool((torch.minimum(shares, bound) > 0).any()):
                raise InputError(
                    field,
                    f"lies outside the mask, so that {names} has no effect",
                    "give regions that meet, or leave one of them out",
                )
        found.append(shares)
    grids = base.family.cross_grids(*cells)
    check_overlaps(len(sets_anywhere(torch.stack(found), grids)))


def concept_pixels(concepts: Sequence[Weighted], size: tuple[int, int]) -> Tensor:
    """The union of the regions of ``concepts``, [height, width] in [0, 1].

    size: (width, height) of the picture.
    """
    regions = [entry.region for entry in concepts if entry.region is not None]
    return torch.stack([region.shares(size[1], size[0]) for region in regions]).amax(0)
