"""The requests of queued jobs, which API and workers of different versions write and read.

A job keeps every value of its request, so that a default that changes in a later version changes no
job that is queued. Which of them nobody gave is kept beside them (``JobRecord.left_out``): a worker
that does not know such a field ignores it, since without the field it does what the default stands
for. A field that was given, and that the worker does not know, is never ignored.

Where a later version does something else with the same fields, the document has to tell them apart:
an SDEdit with a source prompt keeps to a region now, and its document always has the part
``sdedit``, which older workers leave to others. One without that part is of a version in which
SDEdit painted everywhere, or within its mask, and so it is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from customedit.jobs.records import JobRecord
from customedit.schemas.fields import RequestModel
from customedit.schemas.validation import dotted, field_problems

T = TypeVar("T", bound=RequestModel)
_UNKNOWN: Final = "extra_forbidden"


class OtherVersionError(RuntimeError):
    """A request was made by another version of the software, and cannot be read by this one.

    field: the first field that it does not know or whose value it does not take; problem: what is
    wrong with it.
    """

    def __init__(self, field: str, problem: str) -> None:
        self.field, self.problem = field, problem
        super().__init__(f"{field}: {problem}")


def left_out(request: RequestModel) -> list[str]:
    """The names of the fields of ``request`` that have their defaults, without those that are None.

    Of a part that is left out as a whole its own name alone: ``training``, not ``training.seed``.
    """
    whole = request.model_dump(mode="json", exclude_none=True)
    given = request.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    return _missing(whole, given, ())


def _missing(whole: Any, given: Any, names: tuple[str | int, ...]) -> list[str]:
    """What ``whole`` has and ``given`` has not, below ``names``."""
    if isinstance(whole, Mapping):
        found = []
        for name, value in whole.items():
            at = (*names, name)
            found += _missing(value, given[name], at) if name in given else [dotted(at)]
        return found
    if isinstance(whole, list):
        pairs = enumerate(zip(whole, given, strict=True))
        return [name for k, (a, b) in pairs for name in _missing(a, b, (*names, k))]
    return []


def kept_document(request: RequestModel) -> dict[str, Any]:
    """What the job of ``request`` keeps of it: plain data that ``read_request`` reads."""
    document = request.model_dump(mode="json", exclude_none=True)
    if _is_worded_sdedit(document):
        document.setdefault("sdedit", {})
    return document


def _is_worded_sdedit(document: Mapping[str, Any]) -> bool:
    return document.get("method") == "sdedit" and bool(document.get("source_prompt"))


def _as_meant(document: dict[str, Any]) -> dict[str, Any]:
    """``document`` in the words of this version."""
    if not _is_worded_sdedit(document) or "sdedit" in document:
        return document
    return document | {"sdedit": {"blend_over": "mask" if document.get("mask") else "none"}}


def read_request(record: JobRecord, kind: type[T]) -> T:
    """The request of ``record``, as this version's schema ``kind``.

    The API checked it by its own schema, so what is wrong here was right there.

    Raises OtherVersionError for fields that this version does not know and that were given, and for
    values that it does not take.
    """
    document = _as_meant(record.request)
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        errors = error.errors(include_url=False)
    ignored = [e["loc"] for e in errors if _may_be_ignored(e, record)]
    if len(ignored) == len(errors):
        try:
            return kind.model_validate(_without(document, ignored))
        except ValidationError as error:  # rules over several fields, which come after the fields
            errors = error.errors(include_url=False)
    wrong = next(e for e in errors if not _may_be_ignored(e, record))
    (problem,) = field_problems([wrong])
    if wrong["type"] == _UNKNOWN:
        raise OtherVersionError(problem.field, "is not known")
    raise OtherVersionError(problem.field, problem.problem)


def _may_be_ignored(error: Mapping[str, Any], record: JobRecord) -> bool:
    """Whether ``error`` of pydantic's is of an unknown field, or part, that nobody gave."""
    loc = error["loc"]
    return error["type"] == _UNKNOWN and any(
        dotted(loc[: k + 1]) in record.left_out for k in range(len(loc))
    )


def _without(document: Any, locs: Sequence[Sequence[str | int]]) -> Any:
    """A copy of ``document`` without what lies at ``locs``."""
    gone = {loc[0] for loc in locs if len(loc) == 1}
    below: dict[str | int, list[Sequence[str | int]]] = {}
    for loc in locs:
        if len(loc) > 1:
            below.setdefault(loc[0], []).append(loc[1:])
    if isinstance(document, Mapping):
        items = {name: value for name, value in document.items() if name not in gone}
        return {name: _without(v, below[name]) if name in below else v for name, v in items.items()}
    return [_without(v, below[k]) if k in below else v for k, v in enumerate(document)]
