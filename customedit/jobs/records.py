"""The records of images, concepts and jobs, as Redis and the journal have them.

Keys of objects in these records are relative to the bucket. Times are seconds since 1970, UTC.

Redis keeps a job as ``body``, JSON that never changes, and fields for what does. Scripts never
rewrite JSON: Lua's encoder makes objects of empty lists and cuts long numbers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field

from customedit.schemas import ids
from customedit.schemas.answers import ConceptState, JobKind, JobState, Similarities
from customedit.schemas.change import AUTO_CHANGES, ChangeCurve

STATES: Final[tuple[JobState, ...]] = get_args(JobState)
FINAL: Final = frozenset({"succeeded", "failed", "cancelled"})


Item = TypeVar("Item")


@dataclass(frozen=True)
class Page(Generic[Item]):
    """A part of a long list, newest first. next_cursor: of the page after; None at the end."""

    items: list[Item]
    next_cursor: str | None


class Record(BaseModel):
    """Base of all records."""

    model_config = ConfigDict(extra="ignore")  # a newer version's record can be read


class ImageRecord(Record):
    """An uploaded picture. id: ``img_`` + sha256 of the file's bytes; key: of this upload alone.

    upright: width and height are those of the picture turned as its EXIF says. Records of earlier
    versions have the sides as they are stored in the file.
    name: of the file, by ``schemas.file_names``; empty where none was given.
    """

    id: str
    tenant: str
    media_type: str
    bytes: int
    width: int
    height: int
    upright: bool = False
    key: str
    created_at: float
    name: str = ""
    warnings: list[str] = Field(default_factory=list)

    @property
    def folder(self) -> str:
        """Where its file and its record in the journal lie, and nothing else."""
        return self.key[: self.key.rindex("/") + 1]


class ConceptRecord(Record):
    """A concept and where its files are; it belongs to the job that makes it.

    columns: its tokens, and how many columns of a prompt each takes; empty until it is ready, and
    for concepts of versions that did not record it.
    """

    id: str
    tenant: str
    job: str
    name: str = ""
    token: str
    columns: dict[str, int] = Field(default_factory=dict)
    noun: str = ""
    attribute: str = ""
    state: ConceptState = "training"
    references: list[str] = Field(default_factory=list)
    base: str = ""
    created_at: float
    ready_at: float | None = None
    weights_key: str | None = None
    diffusers_key: str | None = None
    preview_key: str | None = None
    bytes: int = 0
    recipe: dict[str, Any] = Field(default_factory=dict)
    warnings: list[str] = Field(default_factory=list)

    def ready(self, outcome: ConceptOutcome, at: float) -> ConceptRecord:
        """The record once its job came to ``outcome``. at: seconds since 1970, UTC."""
        fields = outcome.model_dump(exclude={"kind", "concept"})
        return self.model_copy(update=fields | {"state": "ready", "ready_at": at})


class JobProgress(Record):
    """How far a job is: ``step`` of ``steps`` in ``phase``; facts: figures such as a loss.

    warnings: all that the attempt has found out so far; the result has them in its own.
    """

    phase: str
    step: int = 0
    steps: int = 0
    facts: dict[str, float] = Field(default_factory=dict)
    eta_s: float | None = None
    preview_key: str | None = None
    warnings: list[str] = Field(default_factory=list)


class JobError(Record):
    """Why a job failed, as an RFC 9457 problem: never a traceback."""

    type: str
    title: str
    detail: str = ""
    field: str | None = None


class JobRecord(Record):
    """A job. attempt counts the claims, handed_back those that did not run to an end by design.

    left_out: names of the request's fields, such as ``training.seed``, whose values are defaults of
    the version that made the job (``queued_requests``); picture: (width, height) of the picture
    that is edited, as far as it is known at submission; batch: the batch that it is part of, at
    ``batch_place`` from 0.
    """

    id: str
    tenant: str
    kind: JobKind
    state: JobState = "queued"
    request: dict[str, Any]
    left_out: list[str] = Field(default_factory=list)
    concept: str | None = None
    webhook: str | None = None
    picture: tuple[int, int] | None = None
    batch: str | None = None
    batch_place: int | None = None
    created_at: float
    queued_at: float
    started_at: float | None = None
    finished_at: float | None = None
    attempt: int = 0
    handed_back: int = 0
    max_attempts: int = 5
    cancel_requested: bool = False
    worker: str | None = None
    lease_until: float | None = None
    progress: JobProgress | None = None
    result: dict[str, Any] | None = None
    error: JobError | None = None
    traceparent: str | None = None

    @property
    def finished(self) -> bool:
        """Whether nothing will happen to it any more."""
        return self.state in FINAL

    @property
    def last_attempt(self) -> bool:
        """Whether the attempt under way is the last one that it may have."""
        return self.attempt - self.handed_back >= self.max_attempts


class EditOutput(Record):
    """One picture of an edit job. width, height: in pixels."""

    strength: float | None
    change: float | None = None
    seed: int
    image_key: str
    width: int | None = None
    height: int | None = None
    similarities: Similarities
    best: bool = False
    recipe: dict[str, Any]


class WordMapsRecord(Record):
    """Maps of words as one grey picture: a row of tiles for each output, a column for each word.

    rows, columns: of a tile, in pixels, which are the cells of the attention maps.
    """

    key: str
    words: list[str]
    rows: int
    columns: int


class EditOutcome(Record):
    """The result of an edit job.

    source_key: the picture that was uploaded; region_words: the source prompt's words that the
    region was read from; word_maps: None where no maps were recorded; change_curve: what ``change``
    "auto" measured and chose, None elsewhere.
    """

    kind: Literal["edit"] = "edit"
    outputs: list[EditOutput]
    source_key: str | None = None
    mask_key: str | None = None
    maps_key: str | None = None
    word_maps: WordMapsRecord | None = None
    sheet_key: str | None = None
    warnings: list[str] = Field(default_factory=list)
    region_words: list[str] = Field(default_factory=list)
    change_curve: ChangeCurve | None = None


def output_record(record: JobRecord, number: int) -> EditOutput | None:
    """Picture ``number`` (from 0) of an edit that succeeded; None: there is none."""
    if record.kind != "edit" or record.state != "succeeded" or record.result is None:
        return None
    outputs = EditOutcome.model_validate(record.result).outputs
    return outputs[number] if number < len(outputs) else None


class ConceptOutcome(Record):
    """The result of a customization or an import. columns: as of ``ConceptRecord``."""

    kind: Literal["concept"] = "concept"
    concept: str
    weights_key: str
    diffusers_key: str | None = None
    preview_key: str | None = None
    bytes: int
    token: str
    columns: dict[str, int] = Field(default_factory=dict)
    noun: str
    attribute: str
    base: str
    recipe: dict[str, Any]
    warnings: list[str] = Field(default_factory=list)


_TEXTS: Final = ("state", "worker")
_FLOATS: Final = ("queued_at", "started_at", "finished_at", "lease_until")
_COUNTS: Final = ("attempt", "handed_back", "max_attempts")
_JSON: Final = ("progress", "result", "error")
IN_SHORT: Final = ("body", "progress", "cancel_requested", *_TEXTS, *_FLOATS, *_COUNTS)
"""The fields of a job's hash without its result and its error, which may be long."""

_CHANGING: Final = {*_TEXTS, *_FLOATS, *_COUNTS, *_JSON, "cancel_requested"}


def body_of(record: JobRecord) -> str:
    """What of ``record`` never changes, as JSON."""
    return record.model_dump_json(exclude=_CHANGING, exclude_none=True)


def fields_of(record: JobRecord) -> dict[str, str | int]:
    """What of ``record`` changes, as a hash's fields; what is None is left out."""
    dumped = record.model_dump(mode="json", include=_CHANGING, exclude_none=True)
    fields: dict[str, str | int] = {}
    for name, value in dumped.items():
        if name in _JSON:
            fields[name] = json.dumps(value)
        elif name in _FLOATS:
            fields[name] = f"{value:.6f}"
        elif name != "cancel_requested":
            fields[name] = value
    if record.cancel_requested:
        fields["cancel_requested"] = 1
    return fields


def cost_of(record: JobRecord) -> float:
    """How much work the job is, relative to other jobs of its kind; above 0.

    An edit costs 1 for each picture of 50 steps, a training 1 for each 500 steps, an import 1.
    """
    request = record.request
    if record.kind == "edit":
        drawn = AUTO_CHANGES if request.get("change") == "auto" else request.get("strengths")
        pictures = len(drawn or [0]) * len(request.get("seeds") or [0])
        return max(0.01, pictures * (request.get("steps") or 50) / 50)
    if record.kind == "customize":
        return max(0.01, ((request.get("training") or {}).get("steps") or 500) / 500)
    return 1.0


def job_of(fields: Mapping[str, str]) -> JobRecord:
    """The record of a hash."""
    document: dict[str, Any] = json.loads(fields["body"])
    for name in _TEXTS:
        document[name] = fields.get(name)
    for name in _FLOATS:
        document[name] = float(fields[name]) if name in fields else None
    for name in _COUNTS:
        document[name] = int(fields[name])
    for name in _JSON:
        document[name] = json.loads(fields[name]) if name in fields else None
    document["cancel_requested"] = "cancel_requested" in fields
    return JobRecord.model_validate(document)


def short_job_of(fields: Mapping[str, str | None]) -> JobRecord:
    """The record of the fields ``IN_SHORT`` of a hash; None where it has none."""
    return job_of({name: value for name, value in fields.items() if value is not None})


def concept_of(fields: Mapping[str, str]) -> ConceptRecord:
    """The record of a concept's hash: its JSON, with the state that the job's scripts keep."""
    record = ConceptRecord.model_validate_json(fields["record"])
    return record.model_copy(update={"state": fields["state"]})


def uses_of(record: JobRecord) -> list[str]:
    """The images, concepts and jobs that must stay until the job is finished, each once.

    A job must stay for an output of it that is used.
    """
    request = record.request
    pictures = [request.get("image"), request.get("mask")]
    pictures += [*(request.get("references") or []), *(request.get("masks") or [])]
    concepts = request.get("concepts") or []
    pictures += [use.get("mask") for use in concepts]
    names = [record.concept]
    for picture in filter(None, pictures):
        output = ids.output_of(picture)
        names.append(picture if output is None else output[0])
    names += [use["id"] for use in concepts]
    return list(dict.fromkeys(name for name in names if name))
