"""A job as the API answers it: its progress, its result, its events; and a batch of jobs."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from customedit.schemas.answers.basics import Document
from customedit.schemas.answers.plans import Estimate
from customedit.schemas.change import ChangeCurve

JobKind = Literal["edit", "customize", "import"]
JobState = Literal["queued", "running", "succeeded", "failed", "cancelled"]


class Similarities(Document):
    """What an edit measures of itself; None where there was nothing to measure with."""

    source: float | None = None
    reference: float | None = None
    text: float | None = None
    outside_psnr: float | None = None
    outside_ssim: float | None = None
    dino: float | None = None
    lpips: float | None = None


class Progress(Document):
    """How far a job is."""

    phase: str
    step: int = 0
    steps: int = 0
    facts: dict[str, float] = Field(default_factory=dict)
    eta_s: float | None = None
    preview_url: str | None = None
    warnings: Annotated[
        list[str], Field(description="What the worker has found out so far, as in the result.")
    ] = Field(default_factory=list)


class JobFailure(Document):
    """Why a job failed: a problem as of RFC 9457."""

    type: str
    title: str
    detail: str = ""
    field: str | None = None


class EditedImage(Document):
    """One picture of an edit. best: of all strengths, the best of both similarities.

    change: that was asked for, or chosen where it was ``auto``.
    """

    id: Annotated[str, Field(description="Stands for the picture as ``image`` of a next edit.")]
    url: str
    width: int | None = None
    height: int | None = None
    strength: float | None = None
    change: float | None = None
    seed: int
    best: bool = False
    similarities: Similarities
    recipe: dict[str, Any] = Field(default_factory=dict)


class WordMaps(Document):
    """Where the words of the target prompt attended to, in one grey picture.

    url: a PNG with a row of tiles for each output, in their order, and in it one for each word;
    rows, columns: of a tile, in pixels. White is the word's strongest cell.
    """

    url: str
    words: Annotated[list[str], Field(description="Of the target prompt, as it was written.")]
    rows: int
    columns: int


class EditResult(Document):
    """The result of an edit. source_url: the picture that was uploaded."""

    kind: Literal["edit"] = "edit"
    outputs: list[EditedImage]
    source_url: str | None = None
    mask_url: str | None = None
    maps_url: str | None = None
    word_maps: Annotated[
        WordMaps | None,
        Field(
            description="Where each word of the target prompt attended to: there where the region "
            "was read from words, and where `maps` asked for the attention maps."
        ),
    ] = None
    sheet_url: str | None = None
    region_words: Annotated[
        list[str],
        Field(
            description="The words of the source prompt whose region could change, given or "
            "derived; empty with a mask alone, and where the edit reached everywhere."
        ),
    ] = Field(default_factory=list)
    change_curve: Annotated[
        ChangeCurve | None,
        Field(description='What `change` "auto" measured and chose; null without it.'),
    ] = None


class ConceptResult(Document):
    """The result of a customization or an import: read ``/v1/concepts/{concept}``."""

    kind: Literal["concept"] = "concept"
    concept: str
    preview_url: str | None = None
    bytes: int
    token: str
    noun: str
    attribute: str
    base: str
    recipe: dict[str, Any] = Field(default_factory=dict)
    warnings: list[str] = Field(default_factory=list)


class JobLinks(Document):
    """Where to go on."""

    self: str
    events: str
    cancel: str
    concept: str | None = None


class Job(Document):
    """A job: queued, running, or at its end with a result or an error."""

    id: str
    kind: JobKind
    state: JobState
    request: dict[str, Any]
    concept: str | None = None
    batch: Annotated[str | None, Field(description="The batch that it is part of.")] = None
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    attempt: Annotated[int, Field(description="How often a worker has begun it.")] = 0
    cancel_requested: bool = False
    progress: Progress | None = None
    queue_position: Annotated[
        int | None, Field(description="How many jobs are claimed before it; null once it began.")
    ] = None
    estimate: Annotated[Estimate | None, Field(description="Null once it is finished.")] = None
    result: Annotated[EditResult | ConceptResult, Field(discriminator="kind")] | None = None
    error: JobFailure | None = None
    warnings: list[str] = Field(default_factory=list)
    links: JobLinks

    @property
    def finished(self) -> bool:
        """Whether nothing will happen to it any more."""
        return self.state in ("succeeded", "failed", "cancelled")


class BatchCounts(Document):
    """How many jobs of a batch are in each state."""

    queued: int = 0
    running: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0


class BatchSummary(Document):
    """A batch: many pictures edited in one way, with a job for each.

    state: queued until a job begins, finished once all are at their end; request: without the
    pictures; progress: share of the work that is done, 0 to 1.
    """

    id: str
    state: Literal["queued", "running", "finished"]
    request: dict[str, Any]
    created_at: datetime
    finished_at: datetime | None = None
    counts: BatchCounts
    progress: float
    estimate: Annotated[
        Estimate | None, Field(description="Of the job that ends last. Null once it is finished.")
    ] = None

    @property
    def finished(self) -> bool:
        """Whether nothing will happen to it any more."""
        return self.state == "finished"


class Batch(BatchSummary):
    """A batch with its jobs, in the order of its pictures; a job that was deleted is left out."""

    jobs: list[Job]


class StateChange(Document):
    """The data of a ``state`` event."""

    state: JobState
    attempt: int = 0
    error: JobFailure | None = None


class Event(Document):
    """One event of a job. id: give the last one seen as ``Last-Event-ID`` to go on after it."""

    id: str
    event: str
    data: dict[str, Any]
