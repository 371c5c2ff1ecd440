"""The plan of an edit: a request with every default resolved, checked before anything is drawn.

``check_request`` takes what needs words alone; ``plan_edits`` adds what the base decides. An
``EditPlan`` holds everything that decides one picture, by digests where it is large: it is the
picture's recipe, and the same plan gives the same picture again (``Editor.replay``).
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

import customedit
from customedit.digests import picture_digest, values_digest
from customedit.editing.effect import refuse_strengths
from customedit.editing.guidance import Guidance
from customedit.editing.method_settings import (
    INVERTING,
    DirectEditSettings,
    EditFriendlySettings,
    FlowEditSettings,
    MasaCtrlSettings,
    P2PSettings,
    PlugAndPlaySettings,
    RegionSettings,
    SDEditSettings,
)
from customedit.editing.prompt_words import bare
from customedit.editing.region_words import ConceptWords
from customedit.editing.settings import check_request
from customedit.errors import InputError
from customedit.prompt_syntax import tokens_in
from customedit.schemas.change import ChangeCurve
from customedit.schemas.methods import BlendOver, EditMethod, InversionKind
from customedit.schemas.requests import EditOptions
from customedit.schemas.validation import field_rule, input_error

if TYPE_CHECKING:  # torch
    from PIL import Image
    from torch import Tensor

    from customedit.diffusion.base import Base
    from customedit.diffusion.text import Tokens, Weighted

INVERSION_VERSION: Final = 1
"""To be raised when inversions change, so that stored ones are made again."""

_Share = Annotated[float, Field(ge=0, le=1)]
_Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class BasePlan(_Part):
    """The base. fingerprint: of its weights; schedule: ``Schedule.key``; device: cpu or cuda."""

    name: str
    fingerprint: str
    dtype: str
    device: str
    schedule: str


class ConceptPlan(_Part):
    """A concept by its contents (``Concept.digest``), how strongly it acts, and where.

    box, mask: its region, a box of the picture or the ``mask_digest`` of a mask; None for both:
    everywhere.
    """

    tokens: tuple[str, ...]
    digest: _Digest
    weight: float
    box: tuple[_Share, _Share, _Share, _Share] | None = None
    mask: _Digest | None = None


class PicturePlan(_Part):
    """A picture by its pixels (``picture_digest``); width and height as it was given."""

    digest: _Digest
    width: int
    height: int


class EditPlan(_Part):
    """Everything that decides one edited picture.

    strength: of the method, also where ``change`` was asked for; auto: the curve from which
    ``change`` was chosen, None if nobody asked for it; guidance_start, guidance_end: the shares of
    the steps between which there is guidance; inversion: None for methods that invert nothing; p2p
    ... flowedit: the method's settings, None for all others, and for SDEdit in recipes of earlier
    versions; their blend_words: the words that the region is read from, given or derived; working:
    (width, height) that the model draws at; preserve: whether the source's own pixels are pasted
    outside the region, with an edge of ``feather`` source pixels; outline: whether a region that
    was read from words ends at the outline of its thing.
    """

    format: Literal["customedit.edit"] = "customedit.edit"
    version: Literal[1] = 1
    source_prompt: str
    target_prompt: str
    method: EditMethod
    strength: _Share
    change: _Share | None
    auto: ChangeCurve | None = None
    seed: Annotated[int, Field(ge=0)]
    steps: Annotated[int, Field(ge=1)]
    guidance: float
    guidance_start: _Share = 0.0
    guidance_end: _Share = 1.0
    inversion: InversionKind | None
    p2p: P2PSettings | None = None
    sdedit: SDEditSettings | None = None
    masactrl: MasaCtrlSettings | None = None
    pnp: PlugAndPlaySettings | None = None
    ddpm: EditFriendlySettings | None = None
    directedit: DirectEditSettings | None = None
    flowedit: FlowEditSettings | None = None
    everywhere: bool
    preserve: bool
    outline: bool = False
    feather: float
    base: BasePlan
    concepts: tuple[ConceptPlan, ...]
    source: PicturePlan
    working: tuple[int, int]
    mask: _Digest | None
    versions: dict[str, str]

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Self:
        """The plan in ``document``, or under its key ``recipe`` as commands print it.

        Raises InputError naming the field for anything else.
        """
        inner = document.get("recipe", document)
        try:
            return cls.model_validate(inner)
        except ValidationError as error:
            raise input_error(error, "recipe.") from None

    def as_json(self) -> dict[str, Any]:
        """Plain data that ``read`` takes."""
        return self.model_dump(mode="json")

    @model_validator(mode="after")
    def _has_settings(self) -> Self:
        if self.method != "sdedit" and getattr(self, self.method) is None:
            raise field_rule(self.method, "is missing", f"the settings of {self.method}")
        return self

    @property
    def settings(self) -> RegionSettings:
        """The settings of the method.

        SDEdit had none in earlier versions: it kept to a mask at every step, or changed all.
        """
        settings: RegionSettings | None = getattr(self, self.method)
        if settings is None:
            over: BlendOver = "none" if self.mask is None else "mask"
            return SDEditSettings(blend_over=over, blend_start=0.0, strength=self.strength)
        return settings

    @property
    def guided(self) -> Guidance:
        """The guidance and its interval."""
        return Guidance(self.guidance, self.guidance_start, self.guidance_end)

    @property
    def region_words(self) -> tuple[str, ...]:
        """The source's words that the region is read from; none: a mask, or everywhere."""
        return self.settings.blend_words

    @property
    def unchanged(self) -> bool:
        """Whether the source itself is the result: ``change`` 0."""
        return self.change == 0

    @property
    def inverts(self) -> bool:
        """Whether the edit starts from an inversion of the source."""
        return self.inversion is not None and not self.unchanged

    @property
    def inversion_key(self) -> str:
        """Names the inversion that this edit starts from: a digest of all that decides it."""
        assert self.inversion is not None, f"{self.method} inverts nothing"
        null_text = self.inversion == "null-text"  # the others end on the same trajectory
        interval = (self.guidance_start, self.guidance_end)
        parts = [
            INVERSION_VERSION,
            *(self.base.fingerprint, self.base.dtype, self.base.device, self.base.schedule),
            *(self.source.digest, self.working, self.source_prompt, self.steps),
            *("null-text" if null_text else "ddim", self.guidance if null_text else None),
            *([interval] if null_text and interval != (0, 1) else []),
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    @property
    def features_key(self) -> str | None:
        """Names the source's rows that edits have in common; None: they depend on the edit.

        A digest of what decides them: the inversion, and the concepts that act on the source.
        """
        if self.p2p is None or self.inversion != "direct" or self.unchanged:
            return None
        named = set(tokens_in(self.source_prompt))
        acting = [c for c in self.concepts if self.everywhere or named & set(c.tokens)]
        parts = [self.inversion_key, [c.model_dump(mode="json") for c in acting]]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def plan_edits(
    base: Base,
    options: EditOptions,
    picture: Image.Image,
    *,
    picture_id: str | None = None,
    concepts: Sequence[Weighted] = (),
    mask: Tensor | None = None,
) -> list[EditPlan]:
    """A plan for each strength with each seed, the seeds of one strength together.

    With ``change`` "auto" a plan for each value that is compared (``auto_change``).

    picture: RGB, upright; picture_id: its ``picture_digest``, if it is known; mask: the user's,
    [h, w] in [0, 1]. Reads the base and changes nothing in it: any thread may call this.

    Raises InputError naming the field, for all that cannot work.
    """
    words = [concept_words(entry, k) for k, entry in enumerate(concepts)]
    checked = check_request(options, words, mask=mask is not None)
    known = {token: v for entry in concepts for token, v in entry.concept.tokens.items()}
    source, target = (
        base.tokens(getattr(options, field), known, field)
        for field in ("source_prompt", "target_prompt")
    )
    _check_columns(options.method, checked.settings, source, target)
    cells = [side // base.factor for side in base.size(*picture.size)]
    base.family.check_cells(cells[1], cells[0])
    base.schedule.sized(cells[1], cells[0]).times(options.steps)
    base.family.require(options.method, "method")
    if checked.p2p is not None:
        base.family.require(options.inversion, "inversion")
        for feature, field in checked.p2p.map_features.items():
            base.family.require(feature, field)
        if not base.family.mapped_tokens and checked.p2p.self_steps is not None:
            refuse_strengths(
                options,
                "p2p.self_steps is given, and this base has no cross-attention maps to take",
                "leave that out",
            )
    if mask is not None:
        check_mask(mask, picture)
    if any(entry.region is not None for entry in concepts):
        from customedit.editing.concept_regions import check_regions

        check_regions(base, concepts, picture, (cells[1], cells[0]), mask)
    shared: dict[str, Any] = {
        "source_prompt": options.source_prompt,
        "target_prompt": options.target_prompt,
        "method": options.method,
        "steps": options.steps,
        "guidance": base.guidance if options.guidance is None else options.guidance,
        "guidance_start": options.guidance_start,
        "guidance_end": options.guidance_end,
        "inversion": options.inversion if options.method in INVERTING else None,
        "everywhere": options.everywhere,
        "preserve": checked.preserve,
        "outline": checked.outline,
        "feather": checked.feather_width(picture.size, base.size(*picture.size)),
        "base": base_plan(base),
        "concepts": tuple(map(concept_plan, concepts)),
        "source": PicturePlan(
            digest=picture_id or picture_digest(picture),
            width=picture.width,
            height=picture.height,
        ),
        "working": base.size(*picture.size),
        "mask": None if mask is None else mask_digest(mask),
        "versions": versions(),
    }
    plans = []
    for wanted, change in zip(checked.strengths, checked.changes, strict=True):
        own: dict[str, Any] = {"strength": wanted.strength, "change": change}
        knobs: dict[str, Any] = {"strength": wanted.strength}
        if options.method in INVERTING:
            knobs["start"] = wanted.start
        own[options.method] = dataclasses.replace(checked.settings, **knobs)
        plans += [EditPlan(seed=seed, **own, **shared) for seed in checked.seeds]
    return plans


def _check_columns(
    method: EditMethod, settings: RegionSettings, source: Tokens, target: Tokens
) -> None:
    """Refuse a concept's token that is to be read or weighed and has no column in the prompt.

    So it is with a LoRA that trained no embedding: its token only says that it acts.
    """
    words: list[tuple[str, Tokens, Iterable[str]]] = [
        ("blend_words", source, settings.blend_words),
        ("subtract", source, settings.subtract),
        ("blend_target_words", target, settings.blend_target_words or ()),
    ]
    if isinstance(settings, P2PSettings):
        words += [("words", target, settings.words), ("reweight", target, settings.reweight)]
    for name, tokens, named in words:
        empty = {bare(token) for token in tokens.named if token not in tokens.concepts.values()}
        for word in named:
            if bare(word) in empty:
                raise InputError(
                    f"{method}.{name}",
                    f"names {word}, which the model does not read: its concept has no embedding",
                    "name a word that stands beside it, or leave it out",
                )


def base_plan(base: Base) -> BasePlan:
    """What of ``base`` decides a picture."""
    return BasePlan(
        name=base.name,
        fingerprint=base.fingerprint,
        dtype=str(base.dtype).removeprefix("torch."),
        device=base.device.type,
        schedule=base.schedule.key,
    )


def concept_plan(entry: Weighted) -> ConceptPlan:
    """A concept as a plan names it."""
    from customedit.concepts.concept import concept_digest

    region = entry.region
    return ConceptPlan(
        tokens=tuple(entry.concept.tokens),
        digest=concept_digest(entry.concept),
        weight=entry.weight,
        box=None if region is None else region.box,
        mask=None if region is None or region.mask is None else mask_digest(region.mask),
    )


def concept_words(entry: Weighted, number: int = 0) -> ConceptWords:
    """The words of a loaded concept, the ``number``-th of its request."""
    noun, attribute = (str(getattr(entry.concept, n, "")) for n in ("noun", "attribute"))
    field = "" if entry.region is None else f"concepts[{number}].{entry.region.kind}"
    return ConceptWords(tuple(entry.concept.tokens), noun, attribute, field)


def check_mask(mask: Tensor, picture: Image.Image) -> None:
    """Raises InputError for a mask [h, w] without effect or of another aspect than ``picture``."""
    from customedit.images.masks import fit_mask

    fit_mask(mask.detach().float().cpu().numpy(), picture.size)


def mask_digest(mask: Tensor) -> str:
    """The sha256 of a mask's shape and numbers (float32), in hex."""
    return values_digest(mask.detach().float().cpu().numpy())


@functools.cache
def versions() -> dict[str, str]:
    """Of the programs that a picture's bits depend on."""
    programs = {"customedit": customedit.__version__, "python": platform.python_version()}
    for name in ("torch", "diffusers", "transformers"):
        try:
            programs[name] = version(name)
        except PackageNotFoundError:  # where requests are only checked
            continue
    return programs
