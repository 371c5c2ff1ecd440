"""Every request once: REST bodies, the client's parameters, the command line's options, the page.

The journal keeps these documents and workers read them. A field that is None takes the default of
the base that the worker runs. Nothing here imports torch, so the front end refuses bad requests
without it; tests compare names, limits and defaults with those of the library.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AnyHttpUrl,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StringConstraints,
    UrlConstraints,
    model_validator,
)
from pydantic_core import PydanticCustomError

from customedit.schemas import patterns
from customedit.schemas.recipes import RecipeName, without_effect
from customedit.schemas.validation import field_rule

MAX_REFERENCES: Final = 20
MAX_CONCEPTS: Final = 8
MAX_STRENGTHS: Final = 9
MAX_SEEDS: Final = 9
MAX_OUTPUTS: Final = 16
"""Most pictures of one edit job: strengths times seeds."""

FEW_REFERENCES: Final = 3
"""With fewer references a concept gets a warning."""

_MAX_WORDS: Final = 40
_MAX_SEED: Final = 2**53
"""The largest whole number that every JSON parser reads exactly."""


def _number(value: Any) -> Any:
    """Refuses texts and booleans, which pydantic would take for numbers."""
    if isinstance(value, bool | str | bytes):
        raise PydanticCustomError("number_type", "is not a number")
    return value


def _truth(value: Any) -> Any:
    """Takes the texts ``true`` and ``false`` as well, since a form has nothing else."""
    truth = {"true": True, "false": False}.get(value, value) if isinstance(value, str) else value
    if not isinstance(truth, bool):
        raise PydanticCustomError("bool_type", "is not true or false")
    return truth


_NUMBER: Final = BeforeValidator(_number)
ImageId = Annotated[str, StringConstraints(pattern=patterns.IMAGE)]
ConceptId = Annotated[str, StringConstraints(pattern=patterns.CONCEPT)]
Prompt = Annotated[str, StringConstraints(strip_whitespace=True, max_length=1000)]
Phrase = Annotated[str, StringConstraints(pattern=patterns.PHRASE, max_length=100)]
Token = Annotated[str, StringConstraints(pattern=patterns.TOKEN)]
Word = Annotated[str, StringConstraints(min_length=1, max_length=100)]
Words = Annotated[list[Word], Field(max_length=_MAX_WORDS)]
Name = Annotated[str, StringConstraints(strip_whitespace=True, max_length=200)]
Share = Annotated[float, Field(ge=0, le=1), _NUMBER]
Seed = Annotated[int, Field(ge=0, lt=_MAX_SEED), _NUMBER]
Webhook = Annotated[AnyHttpUrl, UrlConstraints(max_length=2000)]

TrainingWay = Literal["custom-diffusion", "textual-inversion", "lora"]
Columns = Literal["prompt", "token"]
RateSchedule = Literal["constant", "linear", "cosine"]
Focus = Literal["picture", "noun"]
LoraLayers = Literal["cross-attention", "attention", "all"]
EditMethod = Literal["p2p", "sdedit"]
InversionKind = Literal["direct", "null-text", "negative-prompt", "ddim"]
P2PWay = Literal["refine", "replace"]
BlendOver = Literal["source", "union", "mask", "none"]

_NOT_BLANK: Final[dict[str, Any]] = {"pattern": r"\S"}
_WEBHOOK: Final = "An https address that is called at the job's end, signed with your secret."


class RequestModel(BaseModel):
    """Base of all requests: unknown fields are refused, numbers are numbers and finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class TrainingOptions(RequestModel):
    """How a concept is trained; a field that is left out takes the default for the base."""

    way: Annotated[
        TrainingWay,
        Field(
            description="What is trained beside the token: the cross-attention keys and values "
            "(Custom Diffusion), nothing (Textual Inversion), or small changes of chosen layers "
            "(LoRA)."
        ),
    ] = "custom-diffusion"
    recipe: Annotated[
        RecipeName | None,
        Field(
            description="A named set of the settings below: `paper` is Custom Diffusion as "
            "published, `contained` keeps the look to the thing that wears it. What is given "
            "beside it comes first."
        ),
    ] = None
    steps: Annotated[
        int | None, Field(ge=1, le=20_000, description="Optimizer steps."), _NUMBER
    ] = None
    rate: Annotated[
        float | None, Field(gt=0, le=1, description="Learning rate of AdamW."), _NUMBER
    ] = None
    batch: Annotated[
        int | None,
        Field(ge=1, le=32, description="References in one step, and as many class images."),
        _NUMBER,
    ] = None
    class_images: Annotated[
        int | None,
        Field(ge=0, le=1000, description="Class images for prior preservation; 0 turns it off."),
        _NUMBER,
    ] = None
    class_steps: Annotated[
        int | None, Field(ge=1, le=1000, description="Sampling steps of each class image."), _NUMBER
    ] = None
    prior_weight: Annotated[
        float | None, Field(ge=0, le=100, description="Weight of the class images' loss."), _NUMBER
    ] = None
    crops: Annotated[
        int | None,
        Field(ge=1, le=1000, description="Crops that are kept of each reference."),
        _NUMBER,
    ] = None
    augment_crops: Annotated[
        StrictBool | None, Field(description="Whether references are cropped at random.")
    ] = None
    checkpoint_every: Annotated[
        int | None,
        Field(ge=1, le=20_000, description="Steps from one checkpoint to the next."),
        _NUMBER,
    ] = None
    preview_every: Annotated[
        int | None,
        Field(ge=0, le=20_000, description="Steps from one preview image to the next; 0 for none."),
        _NUMBER,
    ] = None
    seed: Annotated[Seed, Field(description="Seed of everything that is random.")] = 0
    columns: Annotated[
        Columns | None,
        Field(
            description="The columns of a prompt that the concept's keys and values act on: all, "
            "or those of its token."
        ),
    ] = None
    rate_schedule: Annotated[
        RateSchedule | None, Field(description="How the learning rate falls towards the end.")
    ] = None
    rank: Annotated[
        int | None,
        Field(
            ge=0,
            le=1024,
            description="Rank of what is trained of keys and values, or of a LoRA; 0 trains whole "
            "matrices.",
        ),
        _NUMBER,
    ] = None
    ema: Annotated[
        float | None,
        Field(
            ge=0,
            le=0.9999,
            description="Decay of the moving average that becomes the concept; 0 takes the last "
            "step itself.",
        ),
        _NUMBER,
    ] = None
    snr_gamma: Annotated[
        float | None,
        Field(
            ge=0,
            le=1000,
            description="Gamma of min-SNR weighting of the loss, 5 in its paper; 0 turns it off.",
        ),
        _NUMBER,
    ] = None
    crop_cells: Annotated[
        int | None,
        Field(
            ge=0,
            le=256,
            description="Latent cells a side that a small crop has at the least; 0 for a third of "
            "the picture, as in the paper.",
        ),
        _NUMBER,
    ] = None
    weigh_cells: Annotated[
        StrictBool | None,
        Field(description="Whether each cell that counts weighs the same, instead of each crop."),
    ] = None
    focus: Annotated[
        Focus | None,
        Field(
            description="Where the loss counts: in the whole picture, or where the base sees the "
            "noun."
        ),
    ] = None
    prior_classes: Annotated[
        int | None,
        Field(
            ge=1,
            le=50,
            description="Classes that the class images show, the references' own among them.",
        ),
        _NUMBER,
    ] = None
    lora_layers: Annotated[
        LoraLayers | None, Field(description="Layers of the UNet that a LoRA changes.")
    ] = None
    alpha: Annotated[
        float | None,
        Field(
            ge=1e-3,
            le=1024,
            description="A LoRA's changes are multiplied by alpha / rank; left out, alpha is the "
            "rank.",
        ),
        _NUMBER,
    ] = None
    train_text_encoder: Annotated[
        StrictBool | None,
        Field(description="Whether a LoRA changes the text encoder's attention, too."),
    ] = None

    @model_validator(mode="after")
    def _all_have_an_effect(self) -> Self:
        for name, reason in without_effect(self.model_dump()).items():
            raise field_rule(name, f"has no effect: {reason}", "leave it out")
        if self.way == "lora" and self.rank == 0:
            raise field_rule("rank", "of a LoRA is 0", "give 1 or more, such as 8")
        return self


class ConceptWords(RequestModel):
    """What a concept is called, and what of its references is learned."""

    noun: Annotated[
        Phrase, Field(description="What the references show.", examples=["teapot", "cat"])
    ]
    attribute: Annotated[
        Phrase | Literal[""],
        Field(description="What of the references is learned; empty for the whole object."),
    ] = "patterned"
    token: Annotated[Token, Field(description="How prompts name the concept.")] = "<look>"
    nouns: Annotated[
        list[Phrase],
        Field(
            max_length=MAX_REFERENCES,
            description="What each reference shows, in their order, where they show several "
            "classes.",
        ),
    ] = []


class CustomizeRequest(ConceptWords):
    """Learn a concept from 1 to 20 reference images (3 to 6 are best)."""

    references: Annotated[
        list[ImageId],
        Field(min_length=1, max_length=MAX_REFERENCES, description="Ids of the reference images."),
    ]
    masks: Annotated[
        list[ImageId],
        Field(
            max_length=MAX_REFERENCES,
            description="Ids of images, one for each reference, white where the look is: it is "
            "learned there alone.",
        ),
    ] = []
    name: Annotated[Name, Field(description="A title for people.")] = ""
    training: Annotated[TrainingOptions, Field(description="Expert settings.")] = TrainingOptions()
    webhook: Annotated[Webhook | None, Field(description=_WEBHOOK)] = None

    @model_validator(mode="after")
    def _one_for_each_reference(self) -> Self:
        for name in ("nouns", "masks"):
            given = len(getattr(self, name))
            if given not in (0, len(self.references)):
                problem = f"are {given} for {len(self.references)} references"
                raise field_rule(name, problem, "give one for each, or none")
        return self


class ImportForm(RequestModel):
    """The form fields beside the file of an import; a field that is empty counts as left out."""

    noun: Annotated[
        Phrase | Literal[""], Field(description="What the references showed, if it is known.")
    ] = ""
    attribute: Annotated[
        Phrase | Literal[""], Field(description="What of them was learned, if it is known.")
    ] = ""
    token: Annotated[
        Token | None, Field(description="A new token; left out, the one in the file is kept.")
    ] = None
    name: Annotated[Name, Field(description="A title for people.")] = ""
    allow_unused: Annotated[
        bool,
        BeforeValidator(_truth),
        Field(
            description="Take a LoRA of which the base cannot use every layer, or that changes "
            "nothing."
        ),
    ] = False
    webhook: Annotated[Webhook | None, Field(description=_WEBHOOK)] = None


class ImportRequest(ImportForm):
    """Make a concept from a file of weights that was uploaded. file: its key; bytes: its size."""

    file: Annotated[str, StringConstraints(max_length=200)]
    bytes: Annotated[int, Field(ge=1)]


class ConceptUse(RequestModel):
    """A concept that the target prompt names."""

    id: Annotated[ConceptId, Field(description="Id of the concept.")]
    weight: Annotated[
        float,
        Field(ge=0, le=2, description="How strongly the concept acts; 1 is as trained."),
        _NUMBER,
    ] = 1.0


class P2POptions(RequestModel):
    """Expert settings of Prompt-to-Prompt; the strength stands in the edit."""

    way: Annotated[
        P2PWay,
        Field(
            description="How the prompts are aligned: `refine` adds words, `replace` swaps them "
            "one for one."
        ),
    ] = "refine"
    cross_steps: Annotated[
        Share | None,
        Field(
            description="Share of the steps that take the source's cross-attention maps; left "
            "out, the strength."
        ),
    ] = None
    self_steps: Annotated[
        Share | None,
        Field(
            description="Share of the steps that take the source's self-attention maps; left "
            "out, the strength."
        ),
    ] = None
    words: Annotated[
        dict[Word, tuple[Share, Share]],
        Field(
            max_length=_MAX_WORDS,
            description="For single words of the target prompt: from which to which share of the "
            "steps they take the source's maps.",
        ),
    ] = {}
    reweight: Annotated[
        dict[Word, Annotated[float, Field(ge=-10, le=10), _NUMBER]],
        Field(
            max_length=_MAX_WORDS,
            description="For single words of the target prompt: the factor on their attention.",
        ),
    ] = {}
    blend_over: Annotated[
        BlendOver | None,
        Field(
            description="What decides the edited region: the source's attention maps, those of "
            "source and target, the mask, or nothing; left out, it follows from the request."
        ),
    ] = None
    blend_words: Annotated[
        Words, Field(description="Words of the source prompt whose region may change.")
    ] = []
    blend_target_words: Annotated[
        Words | None,
        Field(description="Words of the target prompt for `union`; left out, the same words."),
    ] = None
    subtract: Annotated[
        Words, Field(description="Words of the source prompt whose region must not change.")
    ] = []
    threshold: Annotated[
        Share | None,
        Field(description="Share of the attention map's maximum that belongs to the region."),
    ] = None
    blend_start: Annotated[
        Share | None, Field(description="Share of the steps before which nothing is blended.")
    ] = None


class EditOptions(RequestModel):
    """What an edit shall do: the part that REST and the command line have in common."""

    source_prompt: Annotated[
        Prompt, Field(description="What the picture shows. Prompt-to-Prompt needs it.")
    ] = ""
    target_prompt: Annotated[
        Prompt,
        Field(
            min_length=1,
            description="What the picture shall show; it names concepts by their tokens.",
            json_schema_extra=_NOT_BLANK,
        ),
    ]
    method: Annotated[
        EditMethod,
        Field(description="`p2p` keeps the shape of the source, `sdedit` paints more freely."),
    ] = "p2p"
    strengths: Annotated[
        list[Share] | None,
        Field(
            min_length=1,
            max_length=MAX_STRENGTHS,
            description="One picture for each. p2p: share of the source that stays; sdedit: share "
            "of the noise that is added. Left out, the method's default.",
        ),
    ] = None
    change: Annotated[
        Share | None,
        Field(
            description="How much changes, in every method: 0 gives the source back, 1 changes "
            "most. Instead of strengths."
        ),
    ] = None
    seeds: Annotated[
        list[Seed],
        Field(
            min_length=1,
            max_length=MAX_SEEDS,
            description="One picture for each strength and seed. p2p draws nothing by chance and "
            "takes one seed.",
        ),
    ] = [0]
    steps: Annotated[int, Field(ge=1, le=200, description="DDIM steps."), _NUMBER] = 50
    guidance: Annotated[
        float | None,
        Field(
            ge=0, le=50, description="Scale of classifier-free guidance; left out, the base's own."
        ),
        _NUMBER,
    ] = None
    inversion: Annotated[
        InversionKind, Field(description="How p2p inverts the source picture.")
    ] = "direct"
    p2p: Annotated[P2POptions | None, Field(description="Expert settings of Prompt-to-Prompt.")] = (
        None
    )
    preserve: Annotated[
        StrictBool | None,
        Field(
            description="Paste the source's own pixels outside the edited region; left out, "
            "wherever the edit has a region."
        ),
    ] = None
    feather: Annotated[
        float,
        Field(ge=0, le=256, description="Width of the soft edge of that paste, in source pixels."),
        _NUMBER,
    ] = 8.0
    everywhere: Annotated[
        StrictBool,
        Field(description="Let the concepts act on the source prompt and the empty prompt, too."),
    ] = False

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        if self.method == "p2p" and not self.source_prompt:
            raise field_rule("source_prompt", "is empty", "p2p needs the picture in words")
        if self.change is not None and self.strengths is not None:
            raise field_rule("change", "is given with strengths", "give one of the two")
        if len(self.strengths or [0]) * len(self.seeds) > MAX_OUTPUTS:
            raise field_rule(
                "strengths",
                f"with seeds make more than {MAX_OUTPUTS} edits",
                "send two requests",
            )
        return self

    @property
    def tokens(self) -> list[str]:
        """The concept tokens that the target prompt names, in order."""
        return patterns.TOKEN_IN_TEXT.findall(self.target_prompt)


def _edit_rules() -> dict[str, Any]:
    """What ``EditRequest`` checks over several fields, as far as a schema can say it."""
    p2p = {"properties": {"method": {"const": "p2p"}}}  # also when it is left out
    rules = [_if(p2p, _with("source_prompt", _NOT_BLANK))]
    by_mask = {"type": "object"} | _with("blend_over", {"const": "mask"})
    rules += [_if(_with("p2p", by_mask), _with("mask", {"type": "string"}))]
    by_change = _with("change", {"type": "number"})
    rules += [_if(by_change, {"properties": {"strengths": {"type": "null"}}})]
    most = MAX_SEEDS
    for strengths in range(2, MAX_STRENGTHS + 1):
        if MAX_OUTPUTS // strengths < most:
            most = MAX_OUTPUTS // strengths
            many = _with("strengths", {"type": "array", "minItems": strengths})
            rules += [_if(many, {"properties": {"seeds": {"maxItems": most}}})]
    return {"allOf": rules}


def _if(condition: dict[str, Any], then: dict[str, Any]) -> dict[str, Any]:
    return {"if": condition, "then": then}


def _with(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of an object whose field ``name`` is there and meets ``schema``."""
    return {"required": [name], "properties": {name: schema}}


class EditRequest(EditOptions):
    """Edit a picture by prompt, at one or several strengths and seeds."""

    model_config = ConfigDict(json_schema_extra=_edit_rules())

    image: Annotated[ImageId, Field(description="Id of the picture to edit.")]
    concepts: Annotated[
        list[ConceptUse],
        Field(
            max_length=MAX_CONCEPTS,
            description="The concepts that the target prompt names.",
            json_schema_extra={"uniqueItems": True},
        ),
    ] = []
    mask: Annotated[
        ImageId | None,
        Field(description="Id of an image that is white where the edit may change the picture."),
    ] = None
    maps: Annotated[StrictBool, Field(description="Keep the attention maps as a file.")] = False
    references: Annotated[
        list[ImageId],
        Field(
            max_length=MAX_REFERENCES,
            description="Images that the result is compared with; left out, the references of the "
            "concepts.",
        ),
    ] = []
    webhook: Annotated[Webhook | None, Field(description=_WEBHOOK)] = None

    @model_validator(mode="after")
    def _images_and_concepts_agree(self) -> Self:
        if self.p2p is not None and self.p2p.blend_over == "mask" and self.mask is None:
            raise field_rule("mask", "is missing", "blend_over mask needs one")
        if len({use.id for use in self.concepts}) < len(self.concepts):
            raise field_rule("concepts", "name one concept twice", "give each concept once")
        return self


class UploadRequest(RequestModel):
    """Asks for a form that sends a picture straight to the store."""

    media_type: Annotated[
        Literal["image/png", "image/jpeg", "image/webp"],
        Field(description="What will be sent.", examples=["image/png"]),
    ]


KINDS: Final[dict[str, type[RequestModel]]] = {
    "customize": CustomizeRequest,
    "import": ImportRequest,
    "edit": EditRequest,
}
"""The request of each kind of job."""


def reference_warnings(count: int) -> list[str]:
    """What the owner of a concept with ``count`` references should know."""
    if count >= FEW_REFERENCES:
        return []
    return [
        f"fewer than {FEW_REFERENCES} references: the concept may learn what they show by chance; "
        "3 to 6 are best"
    ]
