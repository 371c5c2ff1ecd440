"""Requests of edits, and every kind of job: REST bodies, parameters, options, the page's fields.

The journal keeps these documents and workers read them. A field that is None takes the default of
the base that the worker runs. Nothing here imports torch, so the front end refuses bad requests
without it; tests compare names, limits and defaults with those of the library.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, StrictBool, model_validator
from pydantic_core import PydanticCustomError

from customedit.boxes import check_box
from customedit.errors import InputError
from customedit.schemas import patterns
from customedit.schemas.concepts import CustomizeRequest, ImportRequest
from customedit.schemas.fields import (
    MAX_REFERENCES,
    NOT_BLANK,
    NUMBER,
    WEBHOOK,
    ConceptId,
    FileName,
    PictureId,
    Prompt,
    RequestModel,
    Seed,
    Share,
    Webhook,
)
from customedit.schemas.methods import (
    EXPERTS,
    PRESETS,
    DdpmOptions,
    DirectEditOptions,
    EditMethod,
    FlowEditOptions,
    InversionKind,
    MasaCtrlOptions,
    P2POptions,
    PlugAndPlayOptions,
    Preset,
    RegionOptions,
    SDEditOptions,
)
from customedit.schemas.validation import field_rule

MAX_CONCEPTS: Final = 8
MAX_STRENGTHS: Final = 9
MAX_SEEDS: Final = 9
MAX_BATCH: Final = 100
"""Most pictures of one batch."""

MAX_OUTPUTS: Final = 16
"""Most pictures of one edit job: strengths times seeds."""


def _change(value: Any) -> Any:
    """As ``number``, for a field that takes ``auto`` as well."""
    if isinstance(value, bool | str | bytes):
        raise PydanticCustomError("number_type", "is neither a number nor 'auto'")
    return value


Change = Annotated[float, Field(ge=0, le=1), BeforeValidator(_change)]
MaskMarks = Literal["white", "transparent"]


_BOX_OR_MASK: Final[dict[str, Any]] = {
    "anyOf": [{"properties": {field: {"type": "null"}}} for field in ("box", "mask")]
}


class ConceptUse(RequestModel):
    """A concept that the target prompt names, and where in the picture it acts."""

    model_config = ConfigDict(json_schema_extra=_BOX_OR_MASK)

    id: Annotated[ConceptId, Field(description="Id of the concept.")]
    weight: Annotated[
        float,
        Field(ge=0, le=2, description="How strongly the concept acts; 1 is as trained."),
        NUMBER,
    ] = 1.0
    box: Annotated[
        tuple[Share, Share, Share, Share] | None,
        Field(
            description="Left, top, right and bottom of the part of the picture that the concept "
            "acts in, as fractions of its sides; left out, all of it.",
            examples=[[0.1, 0.2, 0.6, 0.9]],
        ),
    ] = None
    mask: Annotated[
        PictureId | None,
        Field(description="Id of an image that is white where the concept acts, instead of a box."),
    ] = None

    @model_validator(mode="after")
    def _region_agrees(self) -> Self:
        if self.box is None:
            return self
        if self.mask is not None:
            raise field_rule("mask", "is given with a box", "give one of the two")
        try:
            check_box(self.box)
        except InputError as error:
            raise field_rule(error.field, error.problem, error.remedy) from None
        return self

    @property
    def region(self) -> str:
        """The field that says where the concept acts, "" for everywhere."""
        return "box" if self.box is not None else "mask" if self.mask is not None else ""


class EditOptions(RequestModel):
    """What an edit shall do: the part that REST and the command line have in common."""

    source_prompt: Annotated[
        Prompt,
        Field(
            description="What the picture shows. All methods but sdedit need it; with it sdedit "
            "keeps to the region of the words that change, without it all may change."
        ),
    ] = ""
    target_prompt: Annotated[
        Prompt,
        Field(
            min_length=1,
            description="What the picture shall show; it names concepts by their tokens.",
            json_schema_extra=NOT_BLANK,
        ),
    ]
    method: Annotated[
        EditMethod,
        Field(
            description="`p2p` keeps the shape of the source, `sdedit` paints more freely; "
            "`masactrl`, `pnp`, `ddpm` (edit-friendly DDPM) and `directedit` are the editors of "
            "other papers, `flowedit` the one for bases of flow matching."
        ),
    ] = "p2p"
    preset: Annotated[
        Preset | None,
        Field(
            description="`paper` is p2p with null-text inversion and without `preserve`, as "
            "Custom-Edit publishes it."
        ),
    ] = None
    strengths: Annotated[
        list[Share] | None,
        Field(
            min_length=1,
            max_length=MAX_STRENGTHS,
            description="One picture for each. sdedit and flowedit: share of the way into noise; "
            "all others: more keeps more of the source. Left out, the method's default.",
        ),
    ] = None
    change: Annotated[
        Change | Literal["auto"] | None,
        Field(
            description="How much changes, in every method: 0 gives the source back, 1 changes "
            "most; `auto` draws several and chooses by source and references. Instead of strengths."
        ),
    ] = None
    seeds: Annotated[
        list[Seed],
        Field(
            min_length=1,
            max_length=MAX_SEEDS,
            description="One picture for each strength and seed. Only sdedit, ddpm and flowedit "
            "draw by chance; the others take one seed.",
        ),
    ] = [0]
    steps: Annotated[int, Field(ge=1, le=200, description="DDIM steps."), NUMBER] = 50
    guidance: Annotated[
        float | None,
        Field(
            ge=0, le=50, description="Scale of classifier-free guidance; left out, the base's own."
        ),
        NUMBER,
    ] = None
    guidance_start: Annotated[
        Share, Field(description="Share of the steps before which nothing is guided.")
    ] = 0.0
    guidance_end: Annotated[
        Share,
        Field(description="Share of the steps after which nothing is guided, which is faster."),
    ] = 1.0
    inversion: Annotated[
        InversionKind, Field(description="How p2p inverts the source picture.")
    ] = "direct"
    p2p: Annotated[P2POptions | None, Field(description="Expert settings of Prompt-to-Prompt.")] = (
        None
    )
    sdedit: Annotated[SDEditOptions | None, Field(description="Expert settings of SDEdit.")] = None
    masactrl: Annotated[
        MasaCtrlOptions | None, Field(description="Expert settings of MasaCtrl.")
    ] = None
    pnp: Annotated[
        PlugAndPlayOptions | None, Field(description="Expert settings of Plug-and-Play.")
    ] = None
    ddpm: Annotated[
        DdpmOptions | None, Field(description="Expert settings of edit-friendly DDPM.")
    ] = None
    directedit: Annotated[
        DirectEditOptions | None, Field(description="Expert settings of DirectEdit.")
    ] = None
    flowedit: Annotated[
        FlowEditOptions | None, Field(description="Expert settings of FlowEdit.")
    ] = None
    preserve: Annotated[
        StrictBool | None,
        Field(
            description="Paste the source's own pixels outside the edited region; left out, "
            "wherever the edit has a region."
        ),
    ] = None
    feather: Annotated[
        float | None,
        Field(
            ge=0,
            le=256,
            description="Width of the soft edge of that paste, in source pixels; left out, 1 where "
            "the region ends at the outline of its thing, 2 in a mask, else 8 of those that the "
            "base draws.",
        ),
        NUMBER,
    ] = None
    everywhere: Annotated[
        StrictBool,
        Field(description="Let the concepts act on the source prompt and the empty prompt, too."),
    ] = False

    @model_validator(mode="before")
    @classmethod
    def _with_preset(cls, data: Any) -> Any:
        """The fields of the preset beside those that are given, which must not contradict it."""
        preset = data.get("preset") if isinstance(data, dict) else None
        wanted = PRESETS.get(preset, {}) if isinstance(preset, str) else {}
        for name, value in wanted.items():
            if data.get(name) not in (None, value):
                said = str(value).lower() if isinstance(value, bool) else value
                raise field_rule(name, f"contradicts the preset {preset}", f"{said}, or no preset")
        # what was given stays, to be checked: 0 equals False and is no boolean, and null is left
        # out only in a field that may be null
        left_out = {
            name: value
            for name, value in wanted.items()
            if name not in data
            or (data[name] is None and cls.model_fields[name].get_default() is None)
        }
        return {**data, **left_out} if left_out else data

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        if self.method != "sdedit" and not self.source_prompt:
            raise field_rule(
                "source_prompt", "is empty", f"{self.method} needs the picture in words"
            )
        _check_pictures(self)
        return self

    @property
    def tokens(self) -> list[str]:
        """The concept tokens that the target prompt names, in order."""
        return patterns.TOKEN_IN_TEXT.findall(self.target_prompt)

    @property
    def expert(self) -> RegionOptions | None:
        """The expert settings of the method, None if none were given."""
        given: RegionOptions | None = getattr(self, self.method)
        return given


def _check_concepts(concepts: list[ConceptUse]) -> None:
    """Each concept once."""
    if len({use.id for use in concepts}) < len(concepts):
        raise field_rule("concepts", "name one concept twice", "give each concept once")


def _check_pictures(options: EditOptions) -> None:
    """One way to say how much changes, guidance that acts somewhere, and not too many pictures."""
    if options.change is not None and options.strengths is not None:
        raise field_rule("change", "is given with strengths", "give one of the two")
    if options.change == "auto" and len(options.seeds) > 1:
        raise field_rule("seeds", f"are {len(options.seeds)}", "one, where change is auto")
    if options.guidance_start >= options.guidance_end:
        raise field_rule("guidance_start", f"is {options.guidance_start:g}", "below guidance_end")
    if len(options.strengths or [0]) * len(options.seeds) > MAX_OUTPUTS:
        raise field_rule(
            "strengths", f"with seeds make more than {MAX_OUTPUTS} edits", "send two requests"
        )


def _mask_methods(options: EditOptions) -> list[str]:
    """The methods whose expert settings ask for a mask."""
    experts: dict[str, RegionOptions | None] = {name: getattr(options, name) for name in EXPERTS}
    return [n for n, expert in experts.items() if expert and expert.blend_over == "mask"]


def _edit_rules(*, mask: bool = True) -> dict[str, Any]:
    """What edits check over several fields, as far as a schema can say it.

    mask: whether they may have one.
    """
    beside = {"properties": {"method": {"not": {"const": "sdedit"}}}}  # also when it is left out
    rules = [_if(beside, _with("source_prompt", NOT_BLANK))]
    by_mask = {"type": "object"} | _with("blend_over", {"const": "mask"})
    of_mask = [_with(method, by_mask) for method in EXPERTS]
    if mask:
        of_mask += [_with("mask_marks", {"const": "transparent"})]
        rules += [_if({"anyOf": of_mask}, _with("mask", {"type": "string"}))]
    else:
        of_concepts = {"properties": {"mask": {"type": "null"}}}
        rules += [{"not": {"anyOf": of_mask}}, {"properties": {"concepts": {"items": of_concepts}}}]
    return {"allOf": [*rules, *_picture_rules()]}


def _picture_rules() -> list[Any]:
    """What ``_with_preset`` and ``_check_pictures`` check, as a schema says it."""
    rules = []
    for name, wanted in PRESETS.items():
        fields = {field: {"enum": _or_left_out(field, value)} for field, value in wanted.items()}
        rules += [_if(_with("preset", {"const": name}), {"properties": fields})]
    by_change = _with("change", {"type": ["number", "string"]})
    rules += [_if(by_change, {"properties": {"strengths": {"type": "null"}}})]
    auto = _with("change", {"const": "auto"})
    rules += [_if(auto, {"properties": {"seeds": {"maxItems": 1}}})]
    counts: dict[int, int] = {}  # of seeds, and the most strengths with which they may go
    for strengths in range(1, MAX_STRENGTHS + 1):
        counts[min(MAX_OUTPUTS // strengths, MAX_SEEDS)] = strengths
    sizes = [
        {"properties": {"strengths": {"maxItems": strengths}, "seeds": {"maxItems": seeds}}}
        for seeds, strengths in counts.items()
    ]
    rules += [{"anyOf": sizes}]
    return rules


def _or_left_out(field: str, value: Any) -> list[Any]:
    """``value``, and null where the field may be null."""
    return [value, None] if EditOptions.model_fields[field].default is None else [value]


def _if(condition: dict[str, Any], then: dict[str, Any]) -> dict[str, Any]:
    return {"if": condition, "then": then}


def _with(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of an object whose field ``name`` is there and meets ``schema``."""
    return {"required": [name], "properties": {name: schema}}


class _TenantsEdit(EditOptions):
    """What edits have beside their options where pictures and concepts have ids."""

    concepts: Annotated[
        list[ConceptUse],
        Field(
            max_length=MAX_CONCEPTS,
            description="The concepts that the target prompt names.",
            json_schema_extra={"uniqueItems": True},
        ),
    ] = []
    maps: Annotated[StrictBool, Field(description="Keep the attention maps as a file.")] = False
    references: Annotated[
        list[PictureId],
        Field(
            max_length=MAX_REFERENCES,
            description="Images that the result is compared with; left out, the references of the "
            "concepts.",
        ),
    ] = []
    webhook: Annotated[Webhook | None, Field(description=WEBHOOK)] = None

    @model_validator(mode="after")
    def _concepts_agree(self) -> Self:
        if self.change == "auto" and not (self.references or self.concepts):
            raise field_rule(
                "change", "auto has no references to compare with", "a number, or give references"
            )
        _check_concepts(self.concepts)
        return self


class EditRequest(_TenantsEdit):
    """Edit a picture by prompt, at one or several strengths and seeds."""

    model_config = ConfigDict(json_schema_extra=_edit_rules())

    image: Annotated[
        PictureId,
        Field(description="Id of the picture to edit: an image, or an output of an earlier edit."),
    ]
    mask: Annotated[
        PictureId | None,
        Field(description="Id of an image that is white where the edit may change the picture."),
    ] = None
    mask_marks: Annotated[
        MaskMarks,
        Field(
            description="What in the mask marks where the edit may change the picture: `white`, or "
            "`transparent` as in masks of OpenAI's images API."
        ),
    ] = "white"

    @model_validator(mode="after")
    def _mask_agrees(self) -> Self:
        if self.mask is None and _mask_methods(self):
            raise field_rule("mask", "is missing", "blend_over mask needs one")
        if self.mask_marks != "white" and self.mask is None:
            raise field_rule("mask", "is missing", f"mask_marks {self.mask_marks} needs one")
        return self


class BatchRequest(_TenantsEdit):
    """Edit many pictures in one way: a job for each."""

    model_config = ConfigDict(json_schema_extra=_edit_rules(mask=False))

    images: Annotated[
        list[PictureId],
        Field(
            min_length=1,
            max_length=MAX_BATCH,
            description="Ids of the pictures to edit: images, or outputs of earlier edits.",
            json_schema_extra={"uniqueItems": True},
        ),
    ]

    @model_validator(mode="after")
    def _images_agree(self) -> Self:
        if len(set(self.images)) < len(self.images):
            raise field_rule("images", "name one picture twice", "give each picture once")
        for method in _mask_methods(self):
            field = f"{method}.blend_over"
            raise field_rule(field, "is mask", "a batch has no masks; leave it out")
        for k, use in enumerate(self.concepts):
            if use.mask is not None:
                field = f"concepts[{k}].mask"
                raise field_rule(field, "is of one picture", "a batch has no masks; give a box")
        return self

    def edits(self) -> list[EditRequest]:
        """The edit of each picture."""
        shared = {name: getattr(self, name) for name in self.model_fields_set - {"images"}}
        return [EditRequest(image=image, **shared) for image in self.images]


class PresetSettings(EditOptions):
    """Save settings of edits under a name; what is left out is left to the edit."""

    model_config = ConfigDict(json_schema_extra={"allOf": _picture_rules()})

    target_prompt: Annotated[
        Prompt, Field(description="What the pictures shall show, if it is always the same.")
    ] = ""
    concepts: Annotated[
        list[ConceptUse],
        Field(
            max_length=MAX_CONCEPTS,
            description="The concepts that the target prompt names.",
            json_schema_extra={"uniqueItems": True},
        ),
    ] = []

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        """As of edits, but for the prompts, which may come with the edit."""
        _check_pictures(self)
        _check_concepts(self.concepts)
        return self


class PromptsRequest(RequestModel):
    """Count the tokens of prompts, and name the words that the base does not know."""

    prompts: Annotated[
        list[Prompt], Field(min_length=1, max_length=8, description="The prompts to be read.")
    ]
    concepts: Annotated[
        list[ConceptId],
        Field(
            max_length=MAX_CONCEPTS,
            description="Ids of the concepts that they name, whose tokens count as well.",
        ),
    ] = []


class UploadRequest(RequestModel):
    """Asks for a form that sends a picture straight to the store."""

    media_type: Annotated[
        Literal["image/png", "image/jpeg", "image/webp"],
        Field(description="What will be sent.", examples=["image/png"]),
    ]
    name: Annotated[
        FileName,
        Field(
            description="What the file is called; the image keeps at most 200 characters of it, "
            "without folders.",
            examples=["cup.png"],
        ),
    ] = ""


KINDS: Final[dict[str, type[RequestModel]]] = {
    "customize": CustomizeRequest,
    "import": ImportRequest,
    "edit": EditRequest,
}
"""The request of each kind of job."""
