"""Records as Redis keeps them: ``body``, JSON that never changes, and fields for what does.

Scripts never rewrite JSON: Lua's encoder makes objects of empty lists and cuts long numbers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from customedit.jobs.records import ConceptRecord, JobRecord

_TEXTS: Final = ("state", "worker")
_FLOATS: Final = ("queued_at", "started_at", "finished_at", "lease_until")
_COUNTS: Final = ("attempt", "handed_back", "max_attempts")
_JSON: Final = ("progress", "result", "error")
_CHANGING: Final = {*_TEXTS, *_FLOATS, *_COUNTS, *_JSON, "cancel_requested"}


def body_of(record: JobRecord) -> str:
    """What of ``record`` never changes, as JSON."""
    return record.model_dump_json(exclude=_CHANGING, exclude_none=True)


def fields_of(record: JobRecord) -> dict[str, str | int]:
    """What of ``record`` changes, as a hash's fields; what is None is left out."""
    dumped = record.model_dump(mode="json", include=_CHANGING, exclude_none=True)
    found: dict[str, str | int] = {}
    for name, value in dumped.items():
        if name in _JSON:
            found[name] = json.dumps(value)
        elif name in _FLOATS:
            found[name] = f"{value:.6f}"
        elif name != "cancel_requested":
            found[name] = value
    if record.cancel_requested:
        found["cancel_requested"] = 1
    return found


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


def concept_of(fields: Mapping[str, str]) -> ConceptRecord:
    """The record of a concept's hash: its JSON, with the state that the job's scripts keep."""
    record = ConceptRecord.model_validate_json(fields["record"])
    return record.model_copy(update={"state": fields["state"]})


def uses_of(record: JobRecord) -> list[str]:
    """The images and concepts that must stay until the job is finished, each once."""
    request = record.request
    found = [record.concept, request.get("image"), request.get("mask")]
    found += request.get("references") or []
    found += [use["id"] for use in request.get("concepts") or []]
    return list(dict.fromkeys(name for name in found if name))
