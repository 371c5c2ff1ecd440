"""Edit pictures with a base: open one, then edit it as often as you like.

    editor = Editor(Base.load())
    session = editor.open(Image.open("cup.png"), "a photo of a cup on a table")
    result = session.edit("a photo of a <plaid> patterned cup on a table", concepts=[plaid])
    result.image.save("out.png")

What the edits of a session have in common, the inversion of the source, is made once. Plans and
methods are those of ``plan`` and ``edit``, which a service runs in an engine of its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal, Protocol

from PIL import Image
from pydantic import ValidationError
from torch import Tensor

from customedit.diffusion.base import Base
from customedit.diffusion.engine import Engine, Ticket
from customedit.diffusion.method import Progress
from customedit.diffusion.shared_rows import together
from customedit.diffusion.text import Customization, Weighted
from customedit.digests import picture_digest
from customedit.editing.auto_change import check_auto, chosen
from customedit.editing.edit import EditResult, Opened, edit, encode_and_invert
from customedit.editing.inversion import Inversion
from customedit.editing.kept_features import FeatureCache
from customedit.editing.plan import EditPlan, plan_edits
from customedit.editing.recipe_inputs import (
    check_base,
    check_picture,
    check_recipe_mask,
    recipe_concepts,
)
from customedit.editing.settings import check_seeds
from customedit.editing.sweep import STRENGTHS
from customedit.errors import InputError
from customedit.metrics.similarity import Similarity
from customedit.schemas.methods import EditMethod, InversionKind, P2POptions
from customedit.schemas.requests import EditOptions
from customedit.schemas.validation import input_error

MAX_SWEEP: Final = 256
"""Most edits of one sweep."""

OnProgress = Callable[[Progress], None]


class InversionStore(Protocol):
    """Where inversions are kept between sessions, by ``EditPlan.inversion_key``."""

    def get(self, key: str) -> Inversion | None:
        """The inversion, None if it is not kept."""

    def put(self, key: str, inversion: Inversion) -> None:
        """Keep it."""


@dataclass(frozen=True)
class InversionFolder:
    """A store in a folder, a safetensors file each; float32, so that nothing is rounded."""

    folder: Path

    def get(self, key: str) -> Inversion | None:
        """The inversion; None if there is no file, or one that cannot be read."""
        path = self.folder / f"{key}.safetensors"
        try:
            return Inversion.load(path) if path.exists() else None
        except InputError:  # damaged: it is made again
            return None

    def put(self, key: str, inversion: Inversion) -> None:
        """Write it."""
        inversion.save(self.folder / f"{key}.safetensors")


@dataclass(frozen=True, eq=False)
class Order:
    """One edit to draw: a plan, and what it was made for."""

    session: Session
    plan: EditPlan
    concepts: Sequence[Weighted] = ()
    mask: Tensor | None = None
    record: bool = False


class Editor:
    """Edits pictures with one base.

    inversions: where they are kept between sessions, a folder or a store; None for nowhere.
    max_rows: most rows of one UNet call. kept_features: bytes of memory, beside the base, for what
    targets of Prompt-to-Prompt take of their sources, so that further edits of a picture from one
    source prompt run two rows a step instead of three (``kept_features.FeatureCache``); 0 keeps
    none. Not for several threads at once.

    Raises InputError for a number of bytes below 0.
    """

    def __init__(
        self,
        base: Base,
        *,
        inversions: Path | InversionStore | None = None,
        max_rows: int = 32,
        kept_features: int = 0,
    ) -> None:
        self.base, self.max_rows = base, max_rows
        self.features = FeatureCache(kept_features)
        self.inversions: InversionStore | None = (
            InversionFolder(inversions) if isinstance(inversions, Path) else inversions
        )

    @cached_property
    def judge(self) -> Similarity | None:
        """The CLIP of the base's profile, by which ``change: "auto"`` compares, if it has one."""
        return None if self.base.clip is None else Similarity(self.base.clip)

    def open(self, picture: Image.Image, source_prompt: str = "") -> Session:
        """A session on ``picture`` (any size, taken as RGB).

        source_prompt: what it shows; all methods but SDEdit need it, which changes the whole
        picture without it.
        """
        return Session(self, picture.convert("RGB"), source_prompt)

    def edit_all(
        self, orders: Sequence[Order], on_progress: OnProgress | None = None
    ) -> list[EditResult]:
        """Draw all ``orders`` in shared UNet calls; each missing inversion is made once, first.

        Edits of one session go step by step together, and rows that are equal run once.
        """
        inversions = self._inversions(orders, on_progress)
        places: dict[int, list[int]] = {}  # of the orders of each session
        for k, order in enumerate(orders):
            places.setdefault(id(order.session), []).append(k)
        methods = []
        for group in places.values():
            session = orders[group[0]].session
            opened = Opened(self.base, session.picture)
            edits = [
                edit(
                    self.base, orders[k].plan, session.picture, concepts=orders[k].concepts,
                    mask=orders[k].mask, inversion=inversions[k], record=orders[k].record,
                    opened=opened, features=self.features.of(orders[k].plan.features_key),
                )
                for k in group
            ]  # fmt: skip
            methods.append(together(self.base, edits, max_rows=self.max_rows))
        found = self._run(methods, on_progress)
        results = {
            k: result
            for group, drawn in zip(places.values(), found, strict=True)
            for k, result in zip(group, drawn, strict=True)
        }
        return [results[k] for k in range(len(orders))]

    def _inversions(
        self, orders: Sequence[Order], on_progress: OnProgress | None
    ) -> list[Inversion | None]:
        """The inversion of each order, None where it needs none; missing ones are made."""
        known: dict[str, Inversion] = {}
        missing: dict[str, Order] = {}
        inverting = [o for o in orders if o.plan.inverts]
        for order in inverting:
            key = order.plan.inversion_key
            if (stored := order.session.inversion(key)) is not None:
                known[key] = stored
            elif key not in known:
                missing.setdefault(key, order)
        methods = [
            encode_and_invert(self.base, order.plan, order.session.picture)
            for order in missing.values()
        ]
        known |= zip(missing, self._run(methods, on_progress), strict=True)
        for order in inverting:
            order.session.keep_inversion(order.plan.inversion_key, known[order.plan.inversion_key])
        return [
            dataclasses.replace(known[o.plan.inversion_key], kind=o.plan.inversion)
            if o.plan.inverts and o.plan.inversion is not None
            else None
            for o in orders
        ]

    def _run(self, methods: Sequence[Any], on_progress: OnProgress | None) -> list[Any]:
        """The results of ``methods``, whose UNet calls are merged; progress is of all together."""
        engine = Engine(self.base, max_rows=self.max_rows)
        done: dict[int, Progress] = {}

        def listener(number: int) -> OnProgress:
            def listen(progress: Progress) -> None:
                done[number] = progress
                if on_progress is not None:
                    step = sum(p.step for p in done.values())
                    total = sum(p.steps for p in done.values())
                    total += (len(methods) - len(done)) * progress.steps
                    on_progress(dataclasses.replace(progress, step=step, steps=total))

            return listen

        tickets: list[Ticket[Any]] = [
            engine.submit(method, on_progress=listener(k)) for k, method in enumerate(methods)
        ]
        while not engine.idle:
            engine.tick()
        return [ticket.result() for ticket in tickets]

    def replay(
        self,
        plan: EditPlan,
        picture: Image.Image,
        *,
        concepts: Sequence[Customization | Weighted] = (),
        mask: Tensor | None = None,
        on_progress: OnProgress | None = None,
    ) -> EditResult:
        """The picture of ``plan`` again, to the same pixels on the same kind of machine.

        picture, mask: those it was made of; concepts: any, among which those of the plan are found
        by their contents; one whose region was a mask is given ``Weighted`` with that mask.

        Raises InputError for a base, picture, mask or concept that is another or missing.
        """
        picture = picture.convert("RGB")
        check_base(plan, self.base)
        check_picture(plan, picture)
        check_recipe_mask(plan, picture, mask)
        session = self.open(picture, plan.source_prompt)
        order = Order(session, plan, recipe_concepts(plan, weighted(concepts)), mask)
        return self.edit_all([order], on_progress)[0]


class Session:
    """A picture that is open for edits; made by ``Editor.open``."""

    def __init__(self, editor: Editor, picture: Image.Image, source_prompt: str) -> None:
        self.editor, self.picture, self.source_prompt = editor, picture, source_prompt
        self._inversions: dict[str, Inversion] = {}

    @cached_property
    def picture_digest(self) -> str:
        """``digests.picture_digest`` of the picture."""
        return picture_digest(self.picture)

    def plan(
        self,
        target_prompt: str,
        *,
        concepts: Sequence[Customization | Weighted] = (),
        mask: Tensor | None = None,
        **options: Any,
    ) -> list[EditPlan]:
        """The plans of what ``options`` (fields of ``EditOptions``) ask for; nothing is drawn.

        Raises InputError naming the field.
        """
        return self.plan_options(
            self.options(target_prompt, **options), concepts=concepts, mask=mask
        )

    def plan_options(
        self,
        options: EditOptions,
        *,
        concepts: Sequence[Customization | Weighted] = (),
        mask: Tensor | None = None,
    ) -> list[EditPlan]:
        """The same for options that are checked already; their source prompt is the session's."""
        if options.source_prompt != self.source_prompt:
            raise ValueError("the options are for another source prompt")
        return plan_edits(
            self.editor.base,
            options,
            self.picture,
            picture_id=self.picture_digest,
            concepts=weighted(concepts),
            mask=mask,
        )

    def options(self, target_prompt: str, **options: Any) -> EditOptions:
        """A request on this picture; an option that is None is left out. Raises InputError."""
        given = {name: value for name, value in options.items() if value is not None}
        try:
            return EditOptions(
                source_prompt=self.source_prompt, target_prompt=target_prompt, **given
            )
        except ValidationError as error:
            raise input_error(error) from None

    def edit(
        self,
        target_prompt: str,
        *,
        concepts: Sequence[Customization | Weighted] = (),
        method: EditMethod = "p2p",
        change: float | Literal["auto"] | None = None,
        strength: float | None = None,
        seed: int = 0,
        steps: int = 50,
        guidance: float | None = None,
        inversion: InversionKind | None = None,
        p2p: P2POptions | None = None,
        mask: Tensor | None = None,
        preserve: bool | None = None,
        feather: float | None = None,
        everywhere: bool = False,
        record: bool = False,
        references: Sequence[Image.Image] = (),
        on_progress: OnProgress | None = None,
        **more: Any,
    ) -> EditResult:
        """One edit.

        target_prompt: what the picture shall show, naming concepts by their tokens; concepts: those
        it names, ``Weighted`` for another weight than 1 and for a region that the concept acts in
        (``ConceptRegion``). change: how much changes, in [0, 1], the same way for every method, or
        "auto" (``auto_change``), which compares with ``references``; or strength, the method's own
        knob (sdedit and flowedit: higher takes more of the prompt; the others: higher keeps more of
        the source). seed: for sdedit, ddpm and flowedit. guidance: of the base if left out. mask:
        [h, w] in [0, 1] in the picture's aspect, 1 where the edit may change. p2p: expert settings,
        which name the region's words among others; else they follow from the prompts
        (``region_words``) and are in ``result.plan.region_words``. preserve: whether the source's
        own pixels are pasted outside the region, with a soft edge of ``feather`` pixels. record:
        keep the attention maps. more: other fields of ``EditOptions``, such as the expert settings
        of a method.

        Raises InputError naming the field, before anything is drawn.
        """
        plans = self.plan(
            target_prompt, concepts=concepts, mask=mask, method=method, change=change,
            strengths=None if strength is None else [strength], seeds=[seed], steps=steps,
            guidance=guidance, inversion=inversion, p2p=p2p, preserve=preserve, feather=feather,
            everywhere=everywhere, **more,
        )  # fmt: skip
        if change == "auto":
            judge = check_auto(self.editor.judge, references)
            results = self.run(plans, concepts, mask, record=record, on_progress=on_progress)
            return chosen(judge, results, references)
        if references:
            raise InputError("references", "have no effect unless change is auto", "leave them out")
        return self.run(plans, concepts, mask, record=record, on_progress=on_progress)[0]

    def sweep(
        self,
        target_prompt: str,
        *,
        strengths: Sequence[float] = STRENGTHS,
        seeds: Sequence[int] = (0,),
        concepts: Sequence[Customization | Weighted] = (),
        mask: Tensor | None = None,
        on_progress: OnProgress | None = None,
        **options: Any,
    ) -> list[EditResult]:
        """Every strength with every seed, in shared UNet calls; other options as for ``edit``.

        Raises InputError naming the field, as for several seeds with Prompt-to-Prompt, which draws
        nothing by chance.
        """
        check_seeds(options.get("method", "p2p"), seeds)
        if not 1 <= len(strengths) * len(seeds) <= MAX_SWEEP:
            count = len(strengths) * len(seeds)
            raise InputError(
                "strengths", f"with seeds make {count} edits", f"give 1 to {MAX_SWEEP}"
            )
        plans = [
            plan
            for strength in strengths
            for seed in seeds
            for plan in self.plan(
                target_prompt, concepts=concepts, mask=mask, strengths=[strength], seeds=[seed],
                **options,
            )
        ]  # fmt: skip
        return self.run(plans, concepts, mask, on_progress=on_progress)

    def run(
        self,
        plans: Sequence[EditPlan],
        concepts: Sequence[Customization | Weighted] = (),
        mask: Tensor | None = None,
        *,
        record: bool = False,
        on_progress: OnProgress | None = None,
    ) -> list[EditResult]:
        """Draw ``plans`` of this session, made for these concepts and this mask."""
        entries = weighted(concepts)
        orders = [Order(self, plan, entries, mask, record) for plan in plans]
        return self.editor.edit_all(orders, on_progress)

    def inversion(self, key: str) -> Inversion | None:
        """The inversion of a plan's ``inversion_key``, if session or store have it."""
        if key not in self._inversions and self.editor.inversions is not None:
            stored = self.editor.inversions.get(key)
            if stored is not None:
                self._inversions[key] = stored.to(self.editor.base.device)
        return self._inversions.get(key)

    def keep_inversion(self, key: str, inversion: Inversion) -> None:
        """Keep an inversion in the session, and in the store if it was not there."""
        if key in self._inversions:
            return
        self._inversions[key] = inversion
        if self.editor.inversions is not None:
            self.editor.inversions.put(key, inversion)


def weighted(concepts: Sequence[Customization | Weighted]) -> list[Weighted]:
    """``concepts`` with their weights, 1 where none is given."""
    return [entry if isinstance(entry, Weighted) else Weighted(entry) for entry in concepts]
