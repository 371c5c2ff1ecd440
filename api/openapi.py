"""The OpenAPI document: what it says of all routes alike, and the document as a file.

``python -m api.openapi > docs/openapi.json`` writes it. It is committed, so that a change of the
API shows in review, and so that clients can compare two versions.
"""

from __future__ import annotations

import json
import threading
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema
from starlette.routing import compile_path

from api.problem_types import TYPES
from customedit.schemas.answers import Problem, StateChange

MEDIA_TYPE: Final = "application/problem+json"
STREAM: Final = "text/event-stream"
_COMMON: Final = (
    "unauthenticated",
    "forbidden",
    "rate-limited",
    "too-many-failed-keys",
    "internal",
    "unavailable",
)

IMAGE: Final = "img_" + "0f" * 32
OTHER_IMAGE: Final = "img_" + "a7" * 32
CONCEPT: Final = "con_01jcz4x1yhh8e4s0m8k1v2q3r4"
"""Ids in examples."""

DESCRIPTION: Final = """
Teach the service a look from a few images (a **concept**), then paint it into any picture with a
sentence. Upload images, make a concept from them, edit pictures with it; what takes long is a
**job** that you can wait for, watch or cancel.

Everything under `/v1/` needs an API key. Ids are of your tenant alone. Errors are
`application/problem+json` with a stable `type`.
"""

TAGS: Final = [
    {"name": "images", "description": "Pictures: references, sources, masks."},
    {"name": "concepts", "description": "Looks that the service learns from references."},
    {"name": "edits", "description": "Pictures changed by prompt."},
    {"name": "batches", "description": "Many pictures edited in one way."},
    {"name": "presets", "description": "Settings of edits under names of your own."},
    {
        "name": "jobs",
        "description": "Edits, customizations and imports, queued, running or finished.",
    },
    {"name": "account", "description": "Limits and API keys."},
    {
        "name": "webhooks",
        "description": "Messages about the ends of jobs: their secret, deliveries.",
    },
    {"name": "service", "description": "Health and metrics of the service itself."},
]


def refusals(*slugs: str, common: bool = True) -> dict[int | str, dict[str, Any]]:
    """The ``responses`` of a route that may refuse for the reasons ``slugs``, and all for some."""
    answers: dict[int | str, dict[str, Any]] = {}
    for slug in (*slugs, *(_COMMON if common else ())):
        kind = TYPES[slug]
        others = answers.get(kind.status, {}).get("description", "")
        text = f"`{kind.slug}`: {kind.meaning}"
        answers[kind.status] = {
            "description": f"{others}\n\n{text}" if others else text,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        if kind.status in (429, 503):
            answers[kind.status]["headers"] = {
                "Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}
            }
    return answers


def example_bodies(examples: dict[str, Any]) -> dict[str, Any]:
    """The ``openapi_extra`` of a route that shows ``examples`` of its JSON body, by their names."""
    named = {name: {"value": value} for name, value in examples.items()}
    return {"requestBody": {"content": {"application/json": {"examples": named}}}}


_KEYS: Final = {
    "bearer": {
        "type": "http",
        "description": "`Authorization: Bearer ce_...`",
        "scheme": "bearer",
    },
    "header": {
        "type": "apiKey",
        "description": "The same key.",
        "in": "header",
        "name": "X-API-Key",
    },
}
"""Ways to send a key. The middleware reads it, so no route has a parameter for it."""


def install(app: FastAPI) -> None:
    """Let ``app.openapi()`` give the document, made once, whichever threads ask for it."""
    lock = threading.Lock()

    def document() -> dict[str, Any]:
        with lock:
            if app.openapi_schema is None:
                app.openapi_schema = _document(app)
            return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  # FastAPI's own way of extending it


def text() -> str:
    """The OpenAPI document as it is served, laid out for reading and comparing."""
    from api.app import create_app  # it imports this module
    from customedit.config.settings import Settings

    return json.dumps(create_app(Settings()).openapi(), indent=1, ensure_ascii=False) + "\n"


def _document(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title=app.title,
        version=app.version,
        summary="Concepts and edits on one shared diffusion model",
        description=DESCRIPTION,
        routes=app.routes,
        tags=TAGS,
    )
    schemas = document["components"]["schemas"]
    for unused in ("HTTPValidationError", "ValidationError"):  # FastAPI's own, answered as Problem
        schemas.pop(unused, None)
    _, definitions = models_json_schema(
        [(Problem, "serialization"), (StateChange, "serialization")],
        ref_template="#/components/schemas/{model}",
    )
    schemas.update(definitions["$defs"])
    document["components"]["securitySchemes"] = _KEYS
    for path, operations in document["paths"].items():
        for operation in operations.values():
            _refine(operation)
            if path.startswith("/v1/"):
                operation["security"] = [{name: []} for name in _KEYS]
    return document


def _refine(operation: dict[str, Any]) -> None:
    """Invalid requests are answered as problems, events have types, ids lead to operations."""
    for status, answer in operation["responses"].items():
        if STREAM in answer.get("content", {}):
            answer["content"][STREAM] = {"itemSchema": {"oneOf": _EVENTS}}
        if "HTTPValidationError" in str(answer):
            answer["content"] = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
        if status.startswith("2") and (links := _LINKS.get(operation["operationId"])):
            answer["links"] = {
                target: {
                    "operationId": target,
                    "parameters": {
                        where.rpartition("/")[2] if where.endswith("name") else "id": (
                            f"$response.body#/{where}"
                        )
                    },
                }
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
_JOB: Final = "getJob getMaskFile getDelivery cancelJob deleteJob"
_BATCH: Final = "getBatch cancelBatch deleteBatch"
_CONCEPT: Final = "getConcept getConceptWeights deleteConcept"
_LINKS: Final = {
    "uploadImage": {"id": "getImage getImageFile deleteImage"},
    "completeUpload": {"id": "getImage getImageFile deleteImage"},
    "createUpload": {"id": "completeUpload"},
    "createConcept": {"id": _JOB, "concept": _CONCEPT},
    "importConcept": {"id": _JOB, "concept": _CONCEPT},
    "createEdit": {"id": f"getEdit {_JOB}"},
    "createBatch": {"id": _BATCH},
    "listImages": {"items/0/id": "getImage getImageFile deleteImage"},
    "listConcepts": {"items/0/id": _CONCEPT},
    "listBatches": {"items/0/id": _BATCH},
    "listPresets": {"items/0/name": "getPreset deletePreset"},
    "savePreset": {"name": "getPreset deletePreset"},
    "listEdits": {"items/0/id": "getEdit"},
    "listJobs": {"items/0/id": _JOB},
    "listKeys": {"items/0/id": "revokeKey"},
    "makeKey": {"id": "revokeKey"},
}
"""Where an answer has an id, and which operations take it: operation to field to operations."""


def methods(app: FastAPI, path: str) -> list[str]:
    """The methods of all routes at ``path``; Starlette knows those of the first one alone."""
    paths = app.openapi()["paths"]
    matching = [pattern for pattern in paths if compile_path(pattern)[0].match(path)]
    nearest = min(matching, key=lambda pattern: pattern.count("{"), default=None)
    return sorted(method.upper() for method in paths[nearest]) if nearest else []


if __name__ == "__main__":
    print(text(), end="")
