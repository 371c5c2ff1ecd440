"""What the OpenAPI document says of all routes alike."""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema
from starlette.routing import compile_path

from api.examples import FORMS
from api.problem_types import TYPES
from customedit.schemas.answers import Problem, StateChange

MEDIA_TYPE: Final = "application/problem+json"
STREAM: Final = "text/event-stream"
_COMMON: Final = ("unauthenticated", "forbidden", "rate-limited", "internal", "unavailable")

DESCRIPTION: Final = """
Teach the service a look from a few images (a **concept**), then paint it into any picture with a
sentence. Upload images, make a concept of them, edit pictures with it; what takes long is a **job**
that you can wait for, watch or cancel.

Everything under `/v1/` wants an API key. Ids are of your tenant alone. Errors are
`application/problem+json` with a stable `type`.
"""

TAGS: Final = [
    {"name": "images", "description": "Pictures: references, sources, masks."},
    {"name": "concepts", "description": "Looks that the service learns from references."},
    {"name": "edits", "description": "Pictures painted anew by prompt."},
    {"name": "jobs", "description": "Edits, customizations and imports at work."},
    {"name": "account", "description": "Limits, and the secret of webhooks."},
    {"name": "service", "description": "How the service itself is."},
]


def refusals(*slugs: str, common: bool = True) -> dict[int | str, dict[str, Any]]:
    """The ``responses`` of a route that may refuse for the reasons ``slugs``, and all for some."""
    answers: dict[int | str, dict[str, Any]] = {}
    for slug in (*slugs, *(_COMMON if common else ())):
        kind = TYPES[slug]
        said = answers.get(kind.status, {}).get("description", "")
        text = f"`{kind.slug}`: {kind.meaning}"
        answers[kind.status] = {
            "description": f"{said}\n\n{text}" if said else text,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        if kind.status in (429, 503):
            answers[kind.status]["headers"] = {
                "Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}
            }
    return answers


def install(app: FastAPI) -> None:
    """Let ``app.openapi()`` give the document, made once."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  # FastAPI's own way of extending it


def _document(app: FastAPI) -> dict[str, Any]:
    made = get_openapi(
        title=app.title,
        version=app.version,
        summary="Concepts and edits on one shared diffusion model",
        description=DESCRIPTION,
        routes=app.routes,
        tags=TAGS,
    )
    schemas = made["components"]["schemas"]
    for unused in ("HTTPValidationError", "ValidationError"):  # FastAPI's own, answered as Problem
        schemas.pop(unused, None)
    _, told = models_json_schema(
        [(Problem, "serialization"), (StateChange, "serialization")],
        ref_template="#/components/schemas/{model}",
    )
    schemas.update(told["$defs"])
    for path in made["paths"].values():
        for operation in path.values():
            _refine(operation)
    return made


def _refine(operation: dict[str, Any]) -> None:
    """Forms are shown, invalid requests told as problems, events typed, and ids lead on."""
    if (form := FORMS.get(operation["operationId"])) is not None:
        content = operation["requestBody"]["content"]["multipart/form-data"]
        content["examples"] = {"plain": {"value": form}}
    for status, answer in operation["responses"].items():
        if STREAM in answer.get("content", {}):
            answer["content"][STREAM] = {"itemSchema": {"oneOf": _EVENTS}}
        if "HTTPValidationError" in str(answer):
            answer["content"] = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
        if status.startswith("2") and (links := _LINKS.get(operation["operationId"])):
            answer["links"] = {
                target: {"operationId": target, "parameters": {"id": f"$response.body#/{where}"}}
                for where, targets in links.items()
                for target in targets.split()
            }


def _event(names: list[str], model: str) -> dict[str, Any]:
    """The schema of a server-sent event whose data is a JSON document."""
    data = {
        "type": "string",
        "contentMediaType": "application/json",
        "contentSchema": {"$ref": f"#/components/schemas/{model}"},
    }
    fields = {"id": {"type": "string"}, "event": {"enum": names}, "data": data}
    return {"type": "object", "required": ["event", "data"], "properties": fields}


_EVENTS: Final = [_event(["state"], "StateChange"), _event(["progress", "preview"], "Progress")]
_JOB: Final = "getJob cancelJob deleteJob"
_CONCEPT: Final = "getConcept getConceptWeights deleteConcept"
_LINKS: Final = {
    "uploadImage": {"id": "getImage deleteImage"},
    "completeUpload": {"id": "getImage deleteImage"},
    "createUpload": {"id": "completeUpload"},
    "createConcept": {"id": _JOB, "concept": _CONCEPT},
    "importConcept": {"id": _JOB, "concept": _CONCEPT},
    "createEdit": {"id": f"getEdit {_JOB}"},
    "listImages": {"items/0/id": "getImage deleteImage"},
    "listConcepts": {"items/0/id": _CONCEPT},
    "listEdits": {"items/0/id": "getEdit"},
    "listJobs": {"items/0/id": _JOB},
}
"""Where an answer has an id, and which operations take it: operation to field to operations."""


def methods(app: FastAPI, path: str) -> list[str]:
    """What can be done at ``path``: Starlette looks at the first route alone that has it."""
    paths = app.openapi()["paths"]
    found = [pattern for pattern in paths if compile_path(pattern)[0].match(path)]
    nearest = min(found, key=lambda pattern: pattern.count("{"), default=None)
    return sorted(method.upper() for method in paths[nearest]) if nearest else []
