"""What the API answers: the front end writes these, the Python client reads them.

Times are RFC 3339 in UTC. ``url`` fields are presigned: whoever has one can read that one file
until it expires, about fifteen minutes by default; ask again for a fresh one.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from customedit.schemas.change import ChangeCurve

JobKind = Literal["edit", "customize", "import"]
JobState = Literal["queued", "running", "succeeded", "failed", "cancelled"]
DeliveryState = Literal["pending", "delivered", "failed"]
ConceptState = Literal["training", "ready", "failed"]

Item = TypeVar("Item")


class Document(BaseModel):
    """Base of all answers: fields of a newer service are passed over."""

    model_config = ConfigDict(extra="ignore")


class Similarities(Document):
    """What an edit measures of itself; None where there was nothing to measure with."""

    source: float | None = None
    reference: float | None = None
    text: float | None = None
    outside_psnr: float | None = None
    outside_ssim: float | None = None
    dino: float | None = None
    lpips: float | None = None


class FieldProblem(Document):
    """One thing that is wrong with a request. field: its name, with dots and indices."""

    field: str
    problem: str
    limit: str


class Problem(Document):
    """What went wrong (RFC 9457). type: stable, a page of this service that says what to do."""

    type: Annotated[str, Field(examples=["/problems/validation"])]
    title: str
    status: int
    detail: str = ""
    instance: Annotated[str | None, Field(description="The path of the request.")] = None
    field: Annotated[str | None, Field(description="The first field that is wrong.")] = None
    limit: Annotated[str | None, Field(description="What that field must keep to.")] = None
    errors: list[FieldProblem] = Field(default_factory=list)
    request_id: str | None = None


class Page(Document, Generic[Item]):
    """Some of a list, newest first. next_cursor: for the next page; null on the last."""

    items: list[Item]
    next_cursor: str | None = None


class Image(Document):
    """An uploaded picture. id: by the file's contents, so the same file is one image."""

    id: str
    media_type: str
    bytes: int
    width: int
    height: int
    created_at: datetime
    url: str
    warnings: Annotated[
        list[str], Field(description="What of the file is passed over or missing.")
    ] = Field(default_factory=list)


class Upload(Document):
    """A form to send a file straight to the store: POST ``fields`` and then ``file`` to ``url``."""

    id: str
    url: str
    fields: dict[str, str]
    max_bytes: int
    expires_at: datetime


class Concept(Document):
    """A concept: a look that the service has learned, or is learning."""

    id: str
    name: str
    token: Annotated[str, Field(description="What prompts call it.", examples=["<look>"])]
    noun: str
    attribute: str
    state: ConceptState
    job: Annotated[str, Field(description="The job that makes it.")]
    references: list[str]
    base: str
    bytes: int
    created_at: datetime
    ready_at: datetime | None = None
    preview_url: str | None = None
    recipe: dict[str, Any] = Field(default_factory=dict)
    warnings: list[str] = Field(default_factory=list)


class Weights(Document):
    """Where the file of a concept can be had."""

    format: Literal["customedit", "diffusers"]
    filename: str
    url: str
    expires_at: datetime


class Progress(Document):
    """How far a job is."""

    phase: str
    step: int = 0
    steps: int = 0
    facts: dict[str, float] = Field(default_factory=dict)
    eta_s: float | None = None
    preview_url: str | None = None


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

    settings: the expert settings of the method, null for sdedit; region_words: the words of the
    source prompt whose region may change. What only the base decides is null without a worker.
    """

    kind: Literal["edit"] = "edit"
    source_prompt: str
    target_prompt: str
    method: str
    pictures: list[PlannedPicture]
    steps: int
    guidance: float | None
    inversion: str | None
    settings: dict[str, Any] | None
    region_words: list[str]
    everywhere: bool
    preserve: bool
    outline: Annotated[
        bool, Field(description="Whether the region ends at the outline of its thing.")
    ]
    feather: float
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


class Preset(Document):
    """Settings of edits under a name. settings: those that were given, as an edit takes them."""

    name: str
    settings: dict[str, Any]
    saved_at: datetime


class WebhookSecret(Document):
    """The secret that signs webhooks (Standard Webhooks). secret: only shown when it is made."""

    created_at: datetime | None = None
    secret: str | None = None


class WebhookDelivery(Document):
    """How the webhook of a job is delivered. Times are null for what has not happened.

    state: `waiting` while its job is not finished; `pending` until it has arrived, with
    `next_attempt_at`; `delivered`; `failed`: it was given up; `unknown`: the job ended before the
    service lost its records.
    """

    job: str
    url: str
    state: Literal["waiting", "unknown"] | DeliveryState
    attempts: int
    finished_at: Annotated[datetime | None, Field(description="The end of the job.")] = None
    last_attempt_at: datetime | None = None
    last_status: Annotated[
        int | None, Field(description="Of the receiver's last answer over HTTP.")
    ] = None
    last_problem: Annotated[str | None, Field(description="Why the last attempt failed.")] = None
    next_attempt_at: datetime | None = None


class ApiKey(Document):
    """An API key, without its secret."""

    id: str
    prefix: Annotated[
        str, Field(description="What its text begins with; the rest is kept nowhere.")
    ]
    name: str
    scopes: list[str]
    state: Literal["valid", "revoked", "expired"]
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: Annotated[datetime | None, Field(description="To the minute, about.")] = None
    made_by: Annotated[
        str | None,
        Field(description="Id of the key it was made with; null: whoever runs the service did."),
    ] = None
    current: Annotated[bool, Field(description="Whether this request came with it.")] = False


class NewApiKey(ApiKey):
    """An API key that was just made. key: its text, which is shown this once."""

    key: str


class Limits(Document):
    """What a tenant may do, and how much of it is left."""

    tenant: str
    scopes: list[str]
    requests_per_minute: int
    requests_left: int
    jobs_at_once: int
    jobs_now: int
    max_upload_bytes: int
    max_upload_pixels: int
    max_import_bytes: int
    max_references: int
    max_edits_per_job: int
    max_pictures_per_batch: int


class OpenAIImage(Document):
    """A picture as OpenAI's images API answers it: one of the two."""

    b64_json: str | None = None
    url: str | None = None


class OpenAIImages(Document):
    """The answer of OpenAI's images API. created: seconds since 1970."""

    created: int
    data: list[OpenAIImage]
    background: Literal["opaque"] = "opaque"
    output_format: Literal["png", "jpeg", "webp"] = "png"
    size: str | None = None


class Health(Document):
    """Whether the service works; checks: of each part, ``ok`` or what is wrong.

    warnings: by store, what it refuses or soon will, though most requests are served.
    """

    status: Literal["ok", "unavailable"]
    version: str
    checks: dict[str, str] = Field(default_factory=dict)
    warnings: dict[str, str] = Field(default_factory=dict)
