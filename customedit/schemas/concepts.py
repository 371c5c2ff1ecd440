"""Requests that make concepts: training them, and importing them from a file.

A field that is None takes the default of the base that the worker runs; tests compare names,
limits and defaults with those of the library.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, Field, StrictBool, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from customedit.schemas.fields import (
    MAX_REFERENCES,
    NUMBER,
    WEBHOOK,
    ImageId,
    Name,
    Phrase,
    RequestModel,
    Seed,
    Token,
    Webhook,
)
from customedit.schemas.recipes import RecipeName, given_without_effect, without_effect
from customedit.schemas.validation import field_rule

FOCUS_BESIDE_MASKS: Final = "has no effect: masks say where the loss counts"

FEW_REFERENCES: Final = 3
"""With fewer references a concept gets a warning."""


def _truth(value: Any) -> Any:
    """Takes the texts ``true`` and ``false`` as well, since a form has nothing else."""
    truth = {"true": True, "false": False}.get(value, value) if isinstance(value, str) else value
    if not isinstance(truth, bool):
        raise PydanticCustomError("bool_type", "is not true or false")
    return truth


TrainingWay = Literal["custom-diffusion", "textual-inversion", "lora"]
Columns = Literal["prompt", "token"]
RateSchedule = Literal["constant", "linear", "cosine"]
Focus = Literal["picture", "noun"]
LoraLayers = Literal["cross-attention", "attention", "all"]


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
    steps: Annotated[int | None, Field(ge=1, le=20_000, description="Optimizer steps."), NUMBER] = (
        None
    )
    rate: Annotated[
        float | None, Field(gt=0, le=1, description="Learning rate of AdamW."), NUMBER
    ] = None
    batch: Annotated[
        int | None,
        Field(ge=1, le=32, description="References in one step, and as many class images."),
        NUMBER,
    ] = None
    class_images: Annotated[
        int | None,
        Field(ge=0, le=1000, description="Class images for prior preservation; 0 turns it off."),
        NUMBER,
    ] = None
    class_steps: Annotated[
        int | None, Field(ge=1, le=1000, description="Sampling steps of each class image."), NUMBER
    ] = None
    prior_weight: Annotated[
        float | None, Field(ge=0, le=100, description="Weight of the class images' loss."), NUMBER
    ] = None
    crops: Annotated[
        int | None,
        Field(ge=1, le=1000, description="Crops that are kept of each reference."),
        NUMBER,
    ] = None
    augment_crops: Annotated[
        StrictBool | None, Field(description="Whether references are cropped at random.")
    ] = None
    checkpoint_every: Annotated[
        int | None,
        Field(ge=1, le=20_000, description="Steps from one checkpoint to the next."),
        NUMBER,
    ] = None
    preview_every: Annotated[
        int | None,
        Field(ge=0, le=20_000, description="Steps from one preview image to the next; 0 for none."),
        NUMBER,
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
        NUMBER,
    ] = None
    ema: Annotated[
        float | None,
        Field(
            ge=0,
            le=0.9999,
            description="Decay of the moving average that becomes the concept; 0 takes the last "
            "step itself.",
        ),
        NUMBER,
    ] = None
    snr_gamma: Annotated[
        float | None,
        Field(
            ge=0,
            le=1000,
            description="Gamma of min-SNR weighting of the loss, 5 in its paper; 0 turns it off.",
        ),
        NUMBER,
    ] = None
    crop_cells: Annotated[
        int | None,
        Field(
            ge=0,
            le=256,
            description="Latent cells a side that a small crop has at the least; 0 for a third of "
            "the picture, as in the paper.",
        ),
        NUMBER,
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
        NUMBER,
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
        NUMBER,
    ] = None
    train_text_encoder: Annotated[
        StrictBool | None,
        Field(description="Whether a LoRA changes the text encoder's attention, too."),
    ] = None

    @model_validator(mode="after")
    def _all_have_an_effect(self) -> Self:
        given = self.model_dump(exclude_none=True)
        idle = {**without_effect(given), **given_without_effect(given, given)}
        for name, reason in idle.items():
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
    webhook: Annotated[Webhook | None, Field(description=WEBHOOK)] = None

    @model_validator(mode="after")
    def _one_for_each_reference(self) -> Self:
        for name in ("nouns", "masks"):
            given = len(getattr(self, name))
            if given not in (0, len(self.references)):
                problem = f"are {given} for {len(self.references)} references"
                raise field_rule(name, problem, "give one for each, or none")
        if self.masks and self.training.focus == "noun":
            raise field_rule("training.focus", FOCUS_BESIDE_MASKS, "leave it out")
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
    webhook: Annotated[Webhook | None, Field(description=WEBHOOK)] = None


class ImportRequest(ImportForm):
    """Make a concept from a file of weights that was uploaded. file: its key; bytes: its size."""

    file: Annotated[str, StringConstraints(max_length=200)]
    bytes: Annotated[int, Field(ge=1)]


def reference_warnings(count: int) -> list[str]:
    """What the owner of a concept with ``count`` references should know."""
    if count >= FEW_REFERENCES:
        return []
    return [
        f"fewer than {FEW_REFERENCES} references: the concept may learn what they show by chance; "
        "3 to 6 are best"
    ]
