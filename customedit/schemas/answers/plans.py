"""What a request would do and how long it would take, and how the base reads its prompts."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from customedit.schemas.answers.basics import Document


class Estimate(Document):
    """How long until a job is done, from what the workers measured; of a dry run, if it began now.

    seconds: wait_seconds until it starts, and run_seconds from then. They are null, with the reason
    in ``unknown``, while no worker runs or nothing of the kind has been measured.
    """

    seconds: float | None = None
    wait_seconds: float | None = None
    run_seconds: float | None = None
    workers: Annotated[int, Field(description="Workers that run now and take such jobs.")] = 0
    unknown: Annotated[
        str | None, Field(description="Why there are no seconds, such as: No worker is running.")
    ] = None


class BaseSummary(Document):
    """The base that draws. side: of the square pictures it is made for, in pixels."""

    name: str
    architecture: str
    side: int


class PlannedPicture(Document):
    """One picture of an edit.

    strength: of the method, also where ``change`` was asked for; start: share of the steps before
    which the picture is the source itself; change: what was asked for, null for strengths.
    """

    strength: float
    start: float = 0.0
    change: float | None = None
    seed: int


class PlannedConcept(Document):
    """A concept as an edit uses it; box, mask: where it acts, null for everywhere."""

    id: str
    token: str
    weight: float
    box: tuple[float, float, float, float] | None = None
    mask: str | None = None


class EditPlan(Document):
    """An edit with every default resolved. Sizes are (width, height) in pixels.

    settings: the expert settings of the method; region_words: the words of the source prompt whose
    region may change. What only the base decides is null without a worker.
    """

    kind: Literal["edit"] = "edit"
    source_prompt: str
    target_prompt: str
    method: str
    pictures: list[PlannedPicture]
    steps: int
    guidance: float | None
    inversion: str | None
    settings: dict[str, Any]
    region_words: list[str]
    everywhere: bool
    preserve: bool
    outline: Annotated[
        bool, Field(description="Whether the region ends at the outline of its thing.")
    ]
    feather: Annotated[
        float | None,
        Field(
            description="Width of the region's soft edge in source pixels; null where it follows "
            "from a working size that is not known."
        ),
    ]
    concepts: list[PlannedConcept]
    mask: bool
    size: tuple[int, int] | None
    working_size: Annotated[
        tuple[int, int] | None, Field(description="At which the base draws; then it is scaled.")
    ]
    base: BaseSummary | None


class CustomizePlan(Document):
    """A customization with every default resolved; training: null without a worker."""

    kind: Literal["customize"] = "customize"
    token: str
    noun: str
    attribute: str
    references: int
    training: dict[str, Any] | None
    base: BaseSummary | None


class DryRun(Document):
    """What a request would do. Nothing was stored.

    queue_position: how many jobs are claimed before it.
    """

    plan: Annotated[EditPlan | CustomizePlan, Field(discriminator="kind")]
    estimate: Estimate
    queue_position: int
    warnings: list[str] = Field(default_factory=list)


class UnknownWord(Document):
    """A word that the base was not trained with. near: known words that are spelt nearly so."""

    word: str
    near: list[str]


class PromptReading(Document):
    """How a base reads a prompt: tokens with start and end, and the most that it reads."""

    tokens: int
    limit: int
    unknown_words: list[UnknownWord]


class PromptReadings(Document):
    """How the workers' base reads prompts, in the order in which they were given.

    items: none as long as no base is known; unknown words are told of bases that list their words.
    """

    base: Annotated[str | None, Field(description="Its name; null: none is known.")] = None
    items: list[PromptReading] = Field(default_factory=list)
