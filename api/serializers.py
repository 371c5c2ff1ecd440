"""Records as the documents that callers read: keys become presigned addresses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from api.problem_types import PATH, TYPES
from customedit.jobs.records import (
    ConceptOutcome,
    ConceptRecord,
    EditOutcome,
    EditOutput,
    ImageRecord,
    JobError,
    JobKind,
    JobProgress,
    JobRecord,
)
from customedit.schemas import answers as d
from customedit.schemas.requests import reference_warnings
from customedit.storage.store import Storage


def when(seconds: float | None) -> datetime | None:
    """Seconds since 1970 as a time in UTC."""
    return None if seconds is None else at(seconds)


def at(seconds: float) -> datetime:
    """Seconds since 1970 as a time in UTC, to the millisecond."""
    return datetime.fromtimestamp(round(seconds, 3), UTC)


class Serializers:
    """Makes documents of records; ``storage`` signs the addresses, without asking the store."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    def url(self, key: str | None) -> str | None:
        """A presigned address of what lies at ``key``."""
        return None if key is None else self.storage.presign_get(key)

    def image(self, record: ImageRecord) -> d.Image:
        """An image."""
        facts = record.model_dump(exclude={"tenant", "key", "created_at"})
        return d.Image(
            **facts,
            created_at=at(record.created_at),
            url=self.storage.presign_get(record.key, media_type=record.media_type),
        )

    def concept(self, record: ConceptRecord) -> d.Concept:
        """A concept."""
        facts = record.model_dump(include=set(d.Concept.model_fields))
        facts |= {"created_at": at(record.created_at), "ready_at": when(record.ready_at)}
        return d.Concept(**facts, preview_url=self.url(record.preview_key))

    def progress(self, record: JobProgress) -> d.Progress:
        """How far a job is."""
        facts = record.model_dump(exclude={"preview_key"})
        return d.Progress(**facts, preview_url=self.url(record.preview_key))

    def job(self, record: JobRecord) -> d.Job:
        """A job, with its result or its error."""
        path = f"/v1/jobs/{record.id}"
        links = d.JobLinks(
            self=path,
            events=f"{path}/events",
            cancel=f"{path}/cancel",
            concept=f"/v1/concepts/{record.concept}" if record.concept else None,
        )
        return d.Job(
            id=record.id,
            kind=record.kind,
            state=record.state,
            request={k: v for k, v in record.request.items() if k != "file"},
            concept=record.concept,
            created_at=at(record.created_at),
            started_at=when(record.started_at),
            finished_at=when(record.finished_at),
            attempt=record.attempt,
            cancel_requested=record.cancel_requested,
            progress=self.progress(record.progress) if record.progress else None,
            result=self._result(record),
            error=_failure(record.error),
            warnings=[
                *warnings(record.kind, record.request.get("references", ())),
                *(_of_inputs(record.result) if record.kind == "edit" else ()),
            ],
            links=links,
        )

    def _result(self, record: JobRecord) -> d.EditResult | d.ConceptResult | None:
        if record.result is None:
            return None
        if record.result.get("kind") == "concept":
            outcome = ConceptOutcome.model_validate(record.result)
            facts = outcome.model_dump(exclude={"weights_key", "diffusers_key", "preview_key"})
            return d.ConceptResult(**facts, preview_url=self.url(outcome.preview_key))
        return self._edit(record.id, EditOutcome.model_validate(record.result))

    def _edit(self, job: str, outcome: EditOutcome) -> d.EditResult:
        outputs = [
            d.EditedImage(
                url=self.storage.presign_get(output.image_key, _file_name(job, output)),
                **output.model_dump(exclude={"image_key"}),
            )
            for output in outcome.outputs
        ]
        return d.EditResult(
            outputs=outputs,
            source_url=self.url(outcome.source_key),
            mask_url=self.url(outcome.mask_key),
            maps_url=self.url(outcome.maps_key),
            sheet_url=self.url(outcome.sheet_key),
            region_words=outcome.region_words,
        )


def _of_inputs(result: Mapping[str, Any] | None) -> list[str]:
    """What the worker of an edit found out about its inputs."""
    return list((result or {}).get("warnings", ()))


def _file_name(job: str, output: EditOutput) -> str:
    """The file name of a picture that is downloaded; a page that shows it is not affected."""
    strength = "" if output.strength is None else f"-strength-{output.strength:g}"
    return f"{job}{strength}-seed-{output.seed}.png"


def _failure(error: JobError | None) -> d.JobFailure | None:
    if error is None:
        return None
    slug = error.type.removeprefix(PATH)
    known = TYPES[slug if slug in TYPES else "internal"]
    return d.JobFailure(**{**error.model_dump(), "type": known.uri})


def state_change(data: Mapping[str, Any]) -> d.StateChange:
    """The data of a ``state`` event."""
    error = JobError.model_validate(data["error"]) if data.get("error") else None
    return d.StateChange(state=data["state"], attempt=data["attempt"], error=_failure(error))


def warnings(kind: JobKind, references: Sequence[str]) -> list[str]:
    """What the caller should know of a request that was accepted all the same."""
    return reference_warnings(len(references)) if kind == "customize" else []
