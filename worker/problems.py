"""Why a job failed, in words that its owner can use: problems of stable types, no tracebacks."""

from __future__ import annotations

import errno
import logging
from typing import Final

import torch

from customedit.errors import DeadlineExceeded, InputError, NumericalError, TrainingError
from customedit.jobs.records import JobError
from customedit.storage.store import MissingObject

_log = logging.getLogger(__name__)

FIELDS: Final = {
    "strength": "strengths",
    "seed": "seeds",
    "concept": "concepts",
    "prompt": "target_prompt",
    "way": "p2p.way",
    "cross_steps": "p2p.cross_steps",
    "self_steps": "p2p.self_steps",
    "words": "p2p.words",
    "reweight": "p2p.reweight",
    "blend_over": "p2p.blend_over",
    "blend_words": "p2p.blend_words",
    "blend_target_words": "p2p.blend_target_words",
    "subtract": "p2p.subtract",
    "threshold": "p2p.threshold",
    "blend_start": "p2p.blend_start",
}
"""How a request spells the library's names of an edit's settings, where they differ."""

TRAINING_FIELDS: Final = frozenset(
    {"way", "steps", "rate", "batch", "class_images", "class_steps", "crops", "prior_weight"}
)
"""The library's names that stand below ``training`` in a request."""


class TransientError(RuntimeError):
    """S3 or Redis did not answer for so long that this attempt is given up."""


def field_of(kind: str, name: str) -> str:
    """The request's field that the library knows as ``name``."""
    if kind == "edit":
        return FIELDS.get(name, name)
    if kind == "customize" and name in TRAINING_FIELDS:
        return f"training.{name}"
    return name


def device_lost(error: BaseException) -> bool:
    """Whether this process cannot use its device any more: a failed kernel fails all later ones."""
    return isinstance(error, torch.AcceleratorError) and not out_of_memory(error)


def out_of_memory(error: BaseException) -> bool:
    """Whether the device had no room, as torch's allocator or the driver says it."""
    driver = isinstance(error, torch.AcceleratorError) and "out of memory" in str(error)
    return driver or isinstance(error, torch.OutOfMemoryError)


def disk_full(error: BaseException) -> bool:
    """Whether the scratch disk had no room."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def job_error(kind: str, error: BaseException) -> JobError:
    """The problem that a job of ``kind`` fails with for ``error``.

    Types: input-error (with field), numerical-error, out-of-memory, training-diverged,
    deadline-exceeded, input-missing, internal. Of the last only the log has more.
    """
    if isinstance(error, InputError):
        detail = f"{error.problem}; {error.remedy}" if error.remedy else error.problem
        return JobError(
            type="input-error",
            title="Something in the request cannot be used",
            detail=detail,
            field=field_of(kind, error.field),
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
    _log.error("a job failed for no known reason", exc_info=error)
    return JobError(
        type="internal",
        title="Something went wrong on our side",
        detail="the log has the reason under the job's id",
    )
