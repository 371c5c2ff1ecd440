"""One planned edit as a method for the engine: inversion, editor, decoding, pasting.

The CLI, the worker, the study and the benchmarks all run this generator, by ``Editor`` or by an
engine of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image
from torch import Tensor

from customedit import pixels
from customedit.diffusion.base import Base
from customedit.diffusion.engine import Method
from customedit.diffusion.text import Weighted
from customedit.editing.inversion import Inversion, empty_text, invert
from customedit.editing.plan import EditPlan
from customedit.editing.prompt_to_prompt import prompt_to_prompt
from customedit.editing.region import pixel_region
from customedit.editing.sdedit import sdedit


@dataclass(frozen=True, eq=False)
class Drawing:
    """What a model drew.

    working: the picture at the working size, RGB; latents: [1, C, h, w] float32; mask: [h, w] in
    [0, 1], where the latents may have changed, None for everywhere; maps: [2, rows, columns,
    tokens] attention maps, None unless they were asked for.
    """

    working: Image.Image
    latents: Tensor
    mask: Tensor | None = None
    maps: Tensor | None = None


@dataclass(frozen=True, eq=False)
class EditResult:
    """An edited picture and how it was made.

    image: the edit, RGB, at the size of the source; source: the picture that was given, RGB;
    region: [height, width] in [0, 1] on the CPU, where pixels of the source may have changed, None
    for everywhere; drawing: what the model drew; plan: the recipe.
    """

    image: Image.Image
    source: Image.Image
    region: Tensor | None
    drawing: Drawing
    plan: EditPlan

    @property
    def region_words(self) -> tuple[str, ...]:
        """The source's words that the region was read from; none: a mask, or everywhere."""
        return self.plan.region_words


def encode_and_invert(base: Base, plan: EditPlan, picture: Image.Image) -> Method[Inversion]:
    """The inversion that ``plan`` starts from, named by ``plan.inversion_key``."""
    assert plan.inversion is not None
    return (
        yield from invert(
            base,
            base.encode(picture),
            plan.source_prompt,
            kind=plan.inversion,
            steps=plan.steps,
            guidance=plan.guidance,
        )
    )


def draw(
    base: Base,
    plan: EditPlan,
    picture: Image.Image,
    *,
    concepts: Sequence[Weighted] = (),
    mask: Tensor | None = None,
    inversion: Inversion | None = None,
    record: bool = False,
) -> Method[Drawing]:
    """What the model makes of ``picture`` by ``plan``, which was made for it and what it takes.

    picture: RGB, upright; mask: [h, w] in [0, 1], 1 where the edit may change; inversion: that of
    ``plan.inversion_key``, made here if it is not given; record: hand the attention maps back.
    """
    if plan.unchanged:
        size = base.size(*picture.size)
        return Drawing(picture.resize(size, Image.Resampling.LANCZOS), base.encode(picture))
    everywhere = plan.everywhere
    target = base.text(plan.target_prompt, concepts, "target_prompt", everywhere=everywhere)
    reading = concepts if everywhere else ()
    if plan.p2p is None:
        latents = yield from sdedit(
            base,
            base.encode(picture),
            target,
            strength=plan.strength,
            steps=plan.steps,
            guidance=plan.guidance,
            seed=plan.seed,
            mask=mask,
            empty=base.text("", reading, everywhere=everywhere),
        )
        return Drawing(base.decode(latents)[0], latents, mask)
    source = base.text(plan.source_prompt, concepts, "source_prompt", everywhere=everywhere)
    if inversion is None:
        inversion = yield from encode_and_invert(base, plan, picture)
    result = yield from prompt_to_prompt(
        base,
        inversion,
        source,
        target,
        settings=plan.p2p,
        guidance=plan.guidance,
        mask=mask,
        record=record,
        empty=empty_text(base, inversion, reading),
    )
    return Drawing(base.decode(result.latents)[0], result.latents, result.mask, result.maps)


def finish(
    plan: EditPlan, picture: Image.Image, drawing: Drawing, mask: Tensor | None = None
) -> EditResult:
    """The edit at the source's size. Needs no engine, and for large pictures takes seconds."""
    picture = picture.convert("RGB")
    words = plan.p2p is not None and plan.p2p.blend_over in ("source", "union")
    region = pixel_region(picture, drawing.mask, mask, words=words)
    image = picture if plan.unchanged else _at_source_size(plan, picture, drawing.working, region)
    return EditResult(image, picture, region, drawing, plan)


def edit(
    base: Base,
    plan: EditPlan,
    picture: Image.Image,
    *,
    concepts: Sequence[Weighted] = (),
    mask: Tensor | None = None,
    inversion: Inversion | None = None,
    record: bool = False,
) -> Method[EditResult]:
    """``draw`` and ``finish`` in one."""
    drawing = yield from draw(
        base, plan, picture, concepts=concepts, mask=mask, inversion=inversion, record=record
    )
    return finish(plan, picture, drawing, mask)


def _at_source_size(
    plan: EditPlan, picture: Image.Image, working: Image.Image, region: Tensor | None
) -> Image.Image:
    """The edit at the source's size, the source's own pixels outside the region if so planned."""
    if plan.preserve:
        assert region is not None, "a plan preserves only where there is a region"
        return pixels.paste_preserved(picture, working, region, feather=plan.feather)
    if working.size == picture.size:
        return working
    return working.resize(picture.size, Image.Resampling.LANCZOS)
