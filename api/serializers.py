"""Records as the documents that callers read: keys become presigned addresses.

A job is answered at once, or after a little wait for its end.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import anyio
from fastapi import Response
from redis.exceptions import RedisError

from api.problem_types import PATH, TYPES
from customedit.estimates.forecasts import Forecast, Forecasts
from customedit.estimates.work import PHASES
from customedit.jobs.records import (
    ConceptOutcome,
    ConceptRecord,
    EditOutcome,
    EditOutput,
    ImageRecord,
    JobError,
    JobProgress,
    JobRecord,
    WordMapsRecord,
    output_record,
)
from customedit.jobs.store import Submitted
from customedit.schemas import answers as d
from customedit.schemas import ids
from customedit.schemas.answers import JobKind
from customedit.schemas.concepts import reference_warnings
from customedit.storage.store import MissingObject, Storage, StorageError

if TYPE_CHECKING:
    from api.dependencies import Container  # which holds the Serializers

RETRY_S: Final = 2
_STEP_S: Final = 2.0
_AFTER_DRAWING: Final = PHASES["edit"][PHASES["edit"].index("edit") + 1 :]
_log = logging.getLogger(__name__)


def when(seconds: float | None) -> datetime | None:
    """Seconds since 1970 as a time in UTC."""
    return None if seconds is None else at(seconds)


def at(seconds: float) -> datetime:
    """Seconds since 1970 as a time in UTC, to the millisecond."""
    return datetime.fromtimestamp(round(seconds, 3), UTC)


class Serializers:
    """Makes documents of records; ``storage`` signs the addresses, without asking the store."""

    def __init__(self, storage: Storage, forecasts: Forecasts) -> None:
        self.storage, self._forecasts = storage, forecasts

    def url(self, key: str | None) -> str | None:
        """A presigned address of what lies at ``key``."""
        return None if key is None else self.storage.presign_get(key)

    def image(self, record: ImageRecord) -> d.Image:
        """An image."""
        facts = record.model_dump(exclude={"tenant", "key", "created_at", "upright"})
        return d.Image(
            **facts,
            created_at=at(record.created_at),
            url=self.storage.presign_get(record.key, media_type=record.media_type),
        )

    def output(self, job: JobRecord, number: int) -> d.Image | None:
        """Picture ``number`` of an edit as an image; None: there is none, or its file is gone."""
        found = output_record(job, number)
        if found is None or not found.width or not found.height:
            return None
        try:
            size = self.storage.head(found.image_key).bytes
        except MissingObject:
            return None
        return d.Image(
            id=ids.of_output(job.id, number),
            media_type="image/png",
            bytes=size,
            width=found.width,
            height=found.height,
            created_at=at(job.finished_at or job.created_at),
            url=self.storage.presign_get(found.image_key, media_type="image/png"),
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
        forecast = self._forecast(record)
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
            batch=record.batch,
            created_at=at(record.created_at),
            started_at=when(record.started_at),
            finished_at=when(record.finished_at),
            attempt=record.attempt,
            cancel_requested=record.cancel_requested,
            progress=self.progress(record.progress) if record.progress else None,
            queue_position=forecast.position if forecast else None,
            estimate=estimate(forecast) if forecast else None,
            result=self._result(record),
            error=failure(record.error),
            warnings=[
                *warnings(record.kind, record.request.get("references", ())),
                *(_of_inputs(record.result) if record.kind == "edit" else ()),
                *_so_far(record),
            ],
            links=links,
        )

    def batch(self, records: Sequence[JobRecord]) -> d.Batch:
        """A batch of jobs that are not all deleted."""
        jobs = [self.job(record) for record in records]
        return d.Batch(**self._batch(records).model_dump(), jobs=jobs)

    def batch_summary(self, records: Sequence[JobRecord]) -> d.BatchSummary:
        """The same without its jobs."""
        return self._batch(records)

    def _batch(self, records: Sequence[JobRecord]) -> d.BatchSummary:
        first, counts = records[0], Counter(record.state for record in records)
        open_ = [record for record in records if not record.finished]
        begun = any(record.state != "queued" for record in records)
        forecasts = [f for record in open_ if (f := self._forecast(record)) is not None]
        last = max(forecasts, key=_end, default=None)
        request = {k: v for k, v in first.request.items() if k != "image"}
        return d.BatchSummary(
            id=first.batch or "",
            state="finished" if not open_ else "running" if begun else "queued",
            request=request,
            created_at=at(first.created_at),
            finished_at=None if open_ else when(max(r.finished_at or 0 for r in records)),
            counts=d.BatchCounts.model_validate(counts),
            progress=round(sum(map(_share_done, records)) / len(records), 3),
            estimate=None if last is None else estimate(last),
        )

    def _forecast(self, record: JobRecord) -> Forecast | None:
        try:
            return self._forecasts.of(record)
        except RedisError as error:  # a job is told of without it
            _log.warning("%s has no estimate: %s", record.id, type(error).__name__)
            return None

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
                id=ids.of_output(job, number),
                url=self.storage.presign_get(output.image_key, _file_name(job, output)),
                **output.model_dump(exclude={"image_key"}),
            )
            for number, output in enumerate(outcome.outputs)
        ]
        return d.EditResult(
            outputs=outputs,
            source_url=self.url(outcome.source_key),
            mask_url=self.url(outcome.mask_key),
            maps_url=self.url(outcome.maps_key),
            word_maps=self._word_maps(outcome.word_maps),
            sheet_url=self.url(outcome.sheet_key),
            region_words=outcome.region_words,
            change_curve=outcome.change_curve,
        )

    def _word_maps(self, kept: WordMapsRecord | None) -> d.WordMaps | None:
        if kept is None:
            return None
        url = self.storage.presign_get(kept.key)
        return d.WordMaps(url=url, **kept.model_dump(exclude={"key"}))


def _end(forecast: Forecast) -> float:
    """When a job ends; last of all one of which that is not known."""
    return math.inf if forecast.seconds is None else forecast.seconds


def _share_done(record: JobRecord) -> float:
    """How much of an edit is done, 0 to 1: what is drawn of its pictures."""
    if record.finished:
        return 1.0
    at_ = record.progress
    if at_ is None:
        return 0.0
    if at_.phase in _AFTER_DRAWING:
        return 1.0
    return at_.step / at_.steps if at_.phase == "edit" and at_.steps else 0.0


def estimate(forecast: Forecast) -> d.Estimate:
    """A forecast as a document."""
    return d.Estimate(
        seconds=None if forecast.seconds is None else round(forecast.seconds, 2),
        wait_seconds=forecast.wait_s,
        run_seconds=forecast.run_s,
        workers=forecast.workers,
        unknown=forecast.unknown,
    )


def _of_inputs(result: Mapping[str, Any] | None) -> list[str]:
    """What the worker of an edit found out about its inputs."""
    return list((result or {}).get("warnings", ()))


def _so_far(record: JobRecord) -> list[str]:
    """What the worker has found out of a job that has no result yet, or none at all."""
    return record.progress.warnings if record.progress and record.result is None else []


def _file_name(job: str, output: EditOutput) -> str:
    """The file name of a picture that is downloaded; a page that shows it is not affected."""
    strength = "" if output.strength is None else f"-strength-{output.strength:g}"
    return f"{job}{strength}-seed-{output.seed}.png"


def failure(error: JobError | None) -> d.JobFailure | None:
    """Why a job failed, as a document; None for None."""
    if error is None:
        return None
    slug = error.type.removeprefix(PATH)
    known = TYPES[slug if slug in TYPES else "internal"]
    return d.JobFailure(**{**error.model_dump(), "type": known.uri})


def state_change(data: Mapping[str, Any]) -> d.StateChange:
    """The data of a ``state`` event."""
    error = JobError.model_validate(data["error"]) if data.get("error") else None
    return d.StateChange(state=data["state"], attempt=data["attempt"], error=failure(error))


def warnings(kind: JobKind, references: Sequence[str]) -> list[str]:
    """What the caller should know of a request that was accepted all the same."""
    return reference_warnings(len(references)) if kind == "customize" else []


async def submit_and_answer(
    container: Container, submit: Callable[[], Submitted], wait_s: int
) -> Response:
    """What ``submit`` makes, as ``submitted_response``; without a wait all in one thread."""
    if wait_s:
        submitted = await anyio.to_thread.run_sync(submit)
        return await submitted_response(container, submitted, wait_s)

    def both() -> Response:
        submitted = submit()
        return _submitted(container, submitted, submitted.record, 0)

    return await anyio.to_thread.run_sync(both)


async def submitted_response(container: Container, submitted: Submitted, wait_s: int) -> Response:
    """The job as an answer to a POST: 202 while it is not finished, else 200.

    The job exists: whatever fails from here on, the caller gets its id. With 503 it would send
    the request again, and without an idempotency key that would make a second job.
    """
    record = submitted.record
    try:
        record = await wait_for_end(container, record, wait_s)
    except (RedisError, StorageError) as error:
        _log.warning("%s: not waited for: %s", record.id, type(error).__name__)
    return await anyio.to_thread.run_sync(_submitted, container, submitted, record, wait_s)


def _submitted(
    container: Container, submitted: Submitted, record: JobRecord, wait_s: int
) -> Response:
    """``submitted`` as an answer. record: the job as it is after the wait.

    The JSON is made here and not by FastAPI, which would check the document once more, and in the
    event loop.
    """
    headers = {"Location": f"/v1/jobs/{record.id}"}
    if submitted.replayed:
        headers["Idempotency-Replayed"] = "true"
    if wait_s:
        headers["Preference-Applied"] = f"wait={wait_s}"
    try:
        document = container.serializers.job(record)
    except (RedisError, StorageError) as error:
        _log.warning("%s: answered as submitted: %s", record.id, type(error).__name__)
        headers["Retry-After"] = str(RETRY_S)
        queued = submitted.record.model_copy(update={"result": None, "progress": None})
        document = container.serializers.job(queued)
    if not document.finished:
        headers["Retry-After"] = str(RETRY_S)
    return Response(
        document.model_dump_json(by_alias=True),
        200 if document.finished else 202,
        headers,
        "application/json",
    )


async def job_response(
    container: Container, record: JobRecord, wait_s: int, response: Response
) -> d.Job:
    """The job as an answer, at its end or after ``wait_s`` seconds."""
    record = await wait_for_end(container, record, wait_s)
    if wait_s:
        response.headers["Preference-Applied"] = f"wait={wait_s}"
    if not record.finished:
        response.headers["Retry-After"] = str(RETRY_S)
    # In a thread: an estimate asks Redis and plays the queue, and each address takes about a
    # millisecond to sign.
    return await anyio.to_thread.run_sync(container.serializers.job, record)


async def wait_for_end(container: Container, record: JobRecord, seconds: float) -> JobRecord:
    """``record`` as it is at its end, or after ``seconds``, or when the service stops.

    While Redis is away the record is the last one that was read.
    """
    deadline = time.monotonic() + seconds
    if record.finished or not seconds:
        return record
    with container.events.watch(record.id) as watch:
        while (left := deadline - time.monotonic()) > 0 and not container.stopping():
            events = await watch.wait(min(left, _STEP_S))
            if events and all(event.kind != "state" for event in events):
                continue
            try:
                current = await anyio.to_thread.run_sync(
                    container.jobs.get, record.tenant, record.id
                )
            except RedisError as error:
                _log.warning("%s cannot be read: %s", record.id, type(error).__name__)
                continue
            if current is None:  # deleted meanwhile
                break
            record = current
            if record.finished:
                break
    return record
