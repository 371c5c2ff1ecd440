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
        pictures = len(request.get("strengths") or [0]) * len(request.get("seeds") or [0])
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


def concept_of(fields: Mapping[str, str]) -> ConceptRecord:
    """The record of a concept's hash: its JSON, with the state that the job's scripts keep."""
    record = ConceptRecord.model_validate_json(fields["record"])
    return record.model_copy(update={"state": fields["state"]})


def uses_of(record: JobRecord) -> list[str]:
    """The images and concepts that must stay until the job is finished, each once."""
    request = record.request
    names = [record.concept, request.get("image"), request.get("mask")]
    names += request.get("references") or []
    names += [use["id"] for use in request.get("concepts") or []]
    return list(dict.fromkeys(name for name in names if name))
