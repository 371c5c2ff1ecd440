"""One planned edit as a method for the engine: inversion, editor, decoding, pasting.

The CLI, the worker, the study and the benchmarks all run this generator, by ``Editor`` or by an
engine of their own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from PIL import Image
from torch import Tensor

from customedit import pixels
from customedit.diffusion.base import Base
from customedit.diffusion.method import Method, decode
from customedit.diffusion.text import TextContext, Weighted
from customedit.editing.beside import Drawn
from customedit.editing.concept_regions import concept_pixels
from customedit.editing.direct_edit import direct_edit
from customedit.editing.edit_friendly import edit_friendly
from customedit.editing.flow_edit import flow_edit
from customedit.editing.inversion import Inversion, invert
from customedit.editing.kept_features import SourceFeatures
from customedit.editing.masactrl import masactrl
from customedit.editing.method_settings import (
    DirectEditSettings,
    EditFriendlySettings,
    FlowEditSettings,
    MasaCtrlSettings,
    P2PSettings,
    PlugAndPlaySettings,
    SDEditSettings,
)
from customedit.editing.plan import EditPlan
from customedit.editing.plug_and_play import plug_and_play
from customedit.editing.prompt_to_prompt import prompt_to_prompt
from customedit.editing.region import pixel_region
from customedit.editing.sdedit import sdedit
from customedit.prompt_syntax import tokens_in


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

    def with_plan(self, plan: EditPlan) -> EditResult:
        """The same with another plan, of the same picture."""
        return dataclasses.replace(self, plan=plan)


def encode_and_invert(base: Base, plan: EditPlan, picture: Image.Image) -> Method[Inversion]:
    """The inversion that ``plan`` starts from, named by ``plan.inversion_key``.

    The picture is brought to its working size here, in the thread of the caller, not the engine's.
    """
    opened = Opened(base, picture)

    def method() -> Method[Inversion]:
        return (yield from _invert(base, plan, opened.latents))

    return method()


def _invert(base: Base, plan: EditPlan, latents: Tensor) -> Method[Inversion]:
    """The inversion of ``latents`` [1, C, h, w] that ``plan`` starts from."""
    assert plan.inversion is not None
    return invert(
        base,
        latents,
        plan.source_prompt,
        kind=plan.inversion,
        steps=plan.steps,
        guidance=plan.guided,
    )


class Opened:
    """A picture and what its edits have in common, each made once: latents and texts.

    Edits that run ``together`` share rows by it: rows of the same contexts on the same latents. The
    picture is brought to its working size where this is made, which may be any thread.
    """

    def __init__(self, base: Base, picture: Image.Image) -> None:
        self.base, self.picture = base, picture
        self._pixels = base.working_pixels(picture)
        self._texts: dict[Hashable, TextContext] = {}

    @cached_property
    def latents(self) -> Tensor:
        """Of the picture at its working size, [1, C, h, w] float32."""
        return self.base.encode_pixels(self._pixels)

    def text(
        self,
        prompt: str,
        concepts: Sequence[Weighted] = (),
        field: str = "prompt",
        *,
        everywhere: bool = False,
    ) -> TextContext:
        """``Base.text``, the same object for what reads the same."""
        named = set(tokens_in(prompt))
        acts = everywhere or any(named & set(c.concept.tokens) for c in concepts)
        acting = tuple((id(c.concept), c.weight, id(c.region)) for c in concepts) if acts else ()
        key = (prompt, acting, everywhere and acts)
        if key not in self._texts:
            self._texts[key] = self.base.text(
                prompt, concepts, field, everywhere=everywhere, size=self.size
            )
        return self._texts[key]

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) of the latents."""
        width, height = self.base.size(*self.picture.size)
        return height // self.base.factor, width // self.base.factor


def draw(
    base: Base,
    plan: EditPlan,
    picture: Image.Image,
    *,
    concepts: Sequence[Weighted] = (),
    mask: Tensor | None = None,
    inversion: Inversion | None = None,
    record: bool = False,
    opened: Opened | None = None,
    features: SourceFeatures | None = None,
) -> Method[Drawing]:
    """What the model makes of ``picture`` by ``plan``, which was made for it and what it takes.

    picture: RGB, upright; mask: [h, w] in [0, 1], 1 where the edit may change; inversion: that of
    ``plan.inversion_key``, made here if it is not given; record: hand the attention maps back;
    opened: ``picture``, with what other edits of it have made; it outlives none of their concepts;
    features: those of ``plan.features_key``, None to keep none.
    """
    opened = opened or Opened(base, picture)
    if plan.unchanged:
        size = base.size(*picture.size)
        return Drawing(picture.resize(size, Image.Resampling.LANCZOS), opened.latents)
    everywhere = plan.everywhere
    target = opened.text(plan.target_prompt, concepts, "target_prompt", everywhere=everywhere)
    reading = concepts if everywhere else ()
    settings = plan.settings
    source = opened.text(plan.source_prompt, concepts, "source_prompt", everywhere=everywhere)
    common: dict[str, Any] = {"guidance": plan.guided, "mask": mask, "record": record}
    if isinstance(settings, SDEditSettings):
        drawn = yield from sdedit(
            base, opened.latents, target, source=source if plan.source_prompt else None,
            settings=settings, steps=plan.steps, seed=plan.seed,
            empty=opened.text("", reading, everywhere=everywhere), **common,
        )  # fmt: skip
        return (yield from _drawing(base, drawn))
    if isinstance(settings, EditFriendlySettings):
        empty = opened.text("", reading, everywhere=everywhere)
        drawn = yield from edit_friendly(
            base, opened.latents, source, target, settings=settings, steps=plan.steps,
            seed=plan.seed, empty=empty, **common,
        )  # fmt: skip
        return (yield from _drawing(base, drawn))
    if isinstance(settings, FlowEditSettings):
        drawn = yield from flow_edit(
            base, opened.latents, source, target, settings=settings, steps=plan.steps,
            seed=plan.seed, empty=opened.text("", reading, everywhere=everywhere), **common,
        )  # fmt: skip
        return (yield from _drawing(base, drawn))
    if inversion is None:
        inversion = yield from _invert(base, plan, opened.latents)
    words = inversion.prompt if inversion.kind == "negative-prompt" else ""
    common["empty"] = opened.text(words, reading, "source_prompt", everywhere=everywhere)
    if isinstance(settings, P2PSettings):
        method = prompt_to_prompt(
            base, inversion, source, target, settings=settings, everywhere=reading,
            features=features, **common,
        )  # fmt: skip
    elif isinstance(settings, MasaCtrlSettings):
        method = masactrl(base, inversion, source, target, settings=settings, **common)
    elif isinstance(settings, PlugAndPlaySettings):
        method = plug_and_play(base, inversion, source, target, settings=settings, **common)
    else:
        assert isinstance(settings, DirectEditSettings)
        method = direct_edit(base, inversion, source, target, settings=settings, **common)
    return (yield from _drawing(base, (yield from method)))


def _drawing(base: Base, drawn: Drawn) -> Method[Drawing]:
    """What was drawn, decoded."""
    working = yield from decode(base, drawn.latents)
    return Drawing(working, drawn.latents, drawn.mask, drawn.maps)


def finish(
    plan: EditPlan,
    picture: Image.Image,
    drawing: Drawing,
    mask: Tensor | None = None,
    concepts: Sequence[Weighted] = (),
) -> EditResult:
    """The edit at the source's size. Needs no engine, and for large pictures takes seconds."""
    picture = picture.convert("RGB")
    settings, placed = plan.settings, None
    if settings.concept_regions:
        placed = concept_pixels(concepts, picture.size)
    words = bool(settings.blend_words)
    region = pixel_region(
        picture, drawing.mask, mask, words=words, outline=plan.outline, placed=placed
    )
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
    opened: Opened | None = None,
    features: SourceFeatures | None = None,
) -> Method[EditResult]:
    """``draw`` and ``finish`` in one."""
    drawing = yield from draw(
        base, plan, picture,
        concepts=concepts, mask=mask, inversion=inversion, record=record, opened=opened,
        features=features,
    )  # fmt: skip
    return finish(plan, picture, drawing, mask, concepts)


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
