"""What the OpenAPI document says of all routes alike."""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from api.problem_types import TYPES
from api.problems import MEDIA_TYPE

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
    for path in made["paths"].values():
        for operation in path.values():
            _only_problems(operation["responses"])
    for unused in ("HTTPValidationError", "ValidationError"):  # FastAPI's own, answered as Problem
        made["components"]["schemas"].pop(unused, None)
    return made


def _only_problems(responses: dict[str, Any]) -> None:
    """FastAPI adds its own form of 422 where a route does not describe one: it is a Problem."""
    for status, answer in responses.items():
        if int(status) >= 400:
            answer["content"] = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
