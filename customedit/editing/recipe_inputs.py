"""What a recipe was made of, found again and checked: base, picture, mask and concepts."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image
from torch import Tensor

from customedit.concepts.concept import concept_digest
from customedit.diffusion.base import Base
from customedit.diffusion.concept_regions import ConceptRegion
from customedit.diffusion.text import Weighted
from customedit.digests import picture_digest
from customedit.editing.plan import (
    ConceptPlan,
    EditPlan,
    base_plan,
    check_mask,
    mask_digest,
)
from customedit.errors import InputError


def check_base(plan: EditPlan, base: Base) -> None:
    """Check that ``base`` is the recipe's, in its dtype.

    Raises:
        InputError: for another.
    """
    ours = base_plan(base)
    for name in ("fingerprint", "dtype", "schedule"):
        recorded, present = getattr(plan.base, name), getattr(ours, name)
        if recorded != present:
            raise InputError(
                "base",
                f"has {name} {present}, the recipe was made with {recorded} ({plan.base.name})",
                "load the base of the recipe, in its dtype",
            )


def check_picture(plan: EditPlan, picture: Image.Image) -> None:
    """Check that ``picture``, RGB, is the recipe's source.

    Raises:
        InputError: for another.
    """
    if picture_digest(picture) != plan.source.digest:
        raise InputError(
            "picture",
            f"is not that of the recipe ({picture.width} x {picture.height} pixels, the recipe "
            f"says {plan.source.width} x {plan.source.height}, digest "
            f"{plan.source.digest[:12]})",
            "give the picture that was edited",
        )


def check_recipe_mask(plan: EditPlan, picture: Image.Image, mask: Tensor | None) -> None:
    """Check that ``mask`` [height, width] is the recipe's.

    Raises:
        InputError: for another, for one too many, and for none where the recipe has one.
    """
    if (mask is None) != (plan.mask is None):
        problem = "is missing" if mask is None else "is given, the recipe has none"
        raise InputError("mask", problem, "give the mask that the recipe was made with")
    if mask is None:
        return
    check_mask(mask, picture)
    if mask_digest(mask) != plan.mask:
        raise InputError("mask", "is not that of the recipe", "give the mask it was made with")


def recipe_concepts(plan: EditPlan, concepts: Sequence[Weighted]) -> list[Weighted]:
    """The concepts of ``plan``, in its order and with its weights, found by their contents.

    concepts: any, among which they are; a region that was a mask is given with them.

    Raises:
        InputError: for one that is missing, or whose region is another.
    """
    there = {concept_digest(entry.concept): entry for entry in concepts}
    entries = []
    for wanted in plan.concepts:
        if wanted.digest not in there:
            names = ", ".join(wanted.tokens)
            have = ", ".join(digest[:12] for digest in there) or "none"
            raise InputError(
                "concept",
                f"{names} of the recipe, digest {wanted.digest[:12]}, is not among those given "
                f"({have})",
                "give its file, or the folder it lies in",
            )
        given = there[wanted.digest]
        entries.append(Weighted(given.concept, wanted.weight, _region_of(wanted, given.region)))
    return entries


def _region_of(wanted: ConceptPlan, given: ConceptRegion | None) -> ConceptRegion | None:
    """The region that the recipe has; its mask is ``given``. Raises InputError for another."""
    if given is None and wanted.mask is None:
        return None if wanted.box is None else ConceptRegion(box=wanted.box)
    mask = None if given is None or given.mask is None else mask_digest(given.mask)
    if given is None or given.box != wanted.box or mask != wanted.mask:
        problem = "is missing" if given is None else "is not that of the recipe"
        raise InputError(
            "region",
            f"of {', '.join(wanted.tokens)} {problem}",
            "give the mask that the recipe was made with; boxes are in the recipe",
        )
    return given
