"""Why a job failed, in words that its owner can use: problems of stable types, no tracebacks."""

from __future__ import annotations

import logging

import torch

import customedit
from customedit.errors import DeadlineExceeded, InputError, NumericalError, TrainingError
from customedit.jobs.queued_requests import OtherVersionError
from customedit.jobs.records import JobError
from customedit.storage.store import MissingObject

_log = logging.getLogger(__name__)


class TransientError(RuntimeError):
    """S3 or Redis did not answer for so long that this attempt is given up."""


def device_lost(error: BaseException) -> bool:
    """Whether this process cannot use its device any more: a failed kernel fails all later ones."""
    return isinstance(error, torch.AcceleratorError) and not out_of_memory(error)


def out_of_memory(error: BaseException) -> bool:
    """Whether the device had no room, as torch's allocator or the driver says it."""
    driver = isinstance(error, torch.AcceleratorError) and "out of memory" in str(error)
    return driver or isinstance(error, torch.OutOfMemoryError)


def job_error(kind: str, error: BaseException) -> JobError:
    """The problem that a job of ``kind`` fails with for ``error``.

    Types: input-error (with field), numerical-error, out-of-memory, training-diverged,
    deadline-exceeded, input-missing, older-worker (with field), internal. Of the last only the log
    has more.
    """
    if isinstance(error, InputError):
        detail = f"{error.problem}; {error.remedy}" if error.remedy else error.problem
        return JobError(
            type="input-error",
            title="Something in the request cannot be used",
            detail=detail,
            field=error.field,
        )
    if isinstance(error, TrainingError):
        return JobError(
            type="training-diverged",
            title="The training diverged",
            detail=str(error),
            field="training.rate",
        )
    if isinstance(error, NumericalError):
        return JobError(
            type="numerical-error",
            title="The computation left the range of numbers",
            detail=str(error),
        )
    if isinstance(error, DeadlineExceeded):
        return JobError(
            type="deadline-exceeded",
            title="The job took too long",
            detail="it was stopped at the longest time that a job may take",
        )
    if out_of_memory(error):
        return JobError(
            type="out-of-memory",
            title="The device has too little memory",
            detail="ask for fewer strengths, a smaller batch, or fewer references",
        )
    if isinstance(error, MissingObject):
        return JobError(
            type="input-missing",
            title="A file of the job is gone",
            detail="an image or concept was deleted before the job read it",
        )
    if isinstance(error, OtherVersionError):
        return JobError(
            type="older-worker",
            title="The worker is older than the request",
            detail=f"to a worker of version {customedit.__version__} the field {error.problem}; "
            "ask again without it, or once all workers are upgraded",
            field=error.field,
        )
    _log.error("a job failed for no known reason", exc_info=error)
    return JobError(
        type="internal",
        title="Something went wrong on our side",
        detail="the log has the reason under the job's id",
    )
