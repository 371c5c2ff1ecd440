"""Answers for what goes wrong: RFC 9457 problems, and never a trace of the code's insides."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from redis.exceptions import RedisError
from starlette.exceptions import HTTPException

from api import openai
from api.openapi import MEDIA_TYPE, methods
from api.problem_types import TYPES
from customedit.errors import InputError
from customedit.schemas.answers import FieldProblem, Problem
from customedit.schemas.validation import field_problems
from customedit.storage.store import StorageError

RETRY_SECONDS: Final = 5
_MAX_PATH: Final = 500  # of a path that is repeated in an answer

_log = logging.getLogger(__name__)
_SLUGS: Final = {
    400: "malformed",
    404: "not-found",
    405: "method-not-allowed",
    408: "request-timeout",
    413: "too-large",
    415: "unsupported-media-type",
}


class ProblemError(Exception):
    """A request that cannot be served. slug: of ``problem_types``; headers: more for the answer."""

    def __init__(
        self,
        slug: str,
        detail: str = "",
        *,
        field: str | None = None,
        limit: str | None = None,
        errors: Sequence[FieldProblem] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(f"{slug}: {detail}")
        self.kind = TYPES[slug]
        self.detail, self.field, self.limit = detail, field, limit
        self.errors, self.headers = list(errors), dict(headers or {})

    def document(self, path: str, request_id: str | None) -> Problem:
        """The answer's body."""
        return Problem(
            type=self.kind.uri,
            title=self.kind.title,
            status=self.kind.status,
            detail=self.detail,
            instance=path[:_MAX_PATH],
            field=self.field,
            limit=self.limit,
            errors=self.errors,
            request_id=request_id,
        )


def input_problem(error: InputError, slug: str = "validation", limit: str = "") -> ProblemError:
    """The problem that an InputError tells of."""
    limit = limit or error.remedy
    problem = FieldProblem(field=error.field, problem=error.problem, limit=limit)
    return ProblemError(slug, str(error), field=error.field, limit=limit, errors=[problem])


def problem_response(problem: ProblemError, path: str, request_id: str | None) -> JSONResponse:
    """``problem`` as an HTTP answer."""
    headers = dict(problem.headers)
    if problem.kind.status == 503:
        headers.setdefault("Retry-After", str(RETRY_SECONDS))
    if problem.kind.status == 401:
        headers.setdefault("WWW-Authenticate", 'Bearer realm="customedit"')
    if path == openai.PATH:
        message = problem.detail or problem.kind.title
        if problem.limit and problem.limit not in message:
            message = f"{message}; {problem.limit}"
        return openai.error_response(problem.kind, message, problem.field, headers)
    return JSONResponse(
        problem.document(path, request_id).model_dump(mode="json", exclude_none=True),
        problem.kind.status,
        headers,
        MEDIA_TYPE,
    )


def install(app: FastAPI) -> None:
    """Let ``app`` answer all errors as problems."""
    app.add_exception_handler(ProblemError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(StorageError, _unavailable)
    app.add_exception_handler(RedisError, _unavailable)
    app.add_exception_handler(Exception, _unforeseen)


def _send(request: Request, problem: ProblemError) -> JSONResponse:
    return problem_response(
        problem, request.url.path, request.scope.get("state", {}).get("request_id")
    )


def _refused(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ProblemError)
    return _send(request, error)


def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    slug = _SLUGS.get(error.status_code, "malformed" if error.status_code < 500 else "internal")
    detail = error.detail if slug == "malformed" else ""
    headers = dict(error.headers or {})
    if slug == "too-large":
        return _send(request, too_large(request.state.body_limit, headers))
    if error.status_code == 405:
        headers["Allow"] = ", ".join(methods(request.app, request.url.path))
    return _send(request, ProblemError(slug, detail, headers=headers))


def too_large(limit: int, headers: Mapping[str, str] | None = None) -> ProblemError:
    """The problem of a body over ``limit`` bytes."""
    return ProblemError("too-large", field="body", limit=f"at most {limit} bytes", headers=headers)


def _unavailable(request: Request, error: Exception) -> JSONResponse:
    """A store that does not answer; the error's own words may name hosts: for the log alone."""
    _log.error("cannot serve %s: %s: %s", request.url.path, type(error).__name__, error)
    if isinstance(error, RedisError):  # those of S3 are counted where it is called
        request.app.state.container.metrics.store_errors.labels("redis").inc()
    return _send(request, ProblemError("unavailable", "the request was not carried out; try again"))


def _unforeseen(request: Request, error: Exception) -> JSONResponse:
    """Starlette raises the error again once this is sent, so that the middleware logs it."""
    return _send(request, ProblemError("internal"))


def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    errors = error.errors()
    if request.method not in methods(request.app, request.url.path):
        return _http(request, HTTPException(405))  # such as /v1/concepts/import, read as an id
    if any(e["type"] == "json_invalid" for e in errors):
        position = errors[0]["loc"][-1]
        why = errors[0].get("ctx", {}).get("error", "")
        return _send(request, ProblemError("malformed", f"no JSON at character {position}: {why}"))
    if any(tuple(e["loc"]) == ("body",) for e in errors) and not is_json(request):
        return _send(request, wrong_media_type("application/json"))
    inside = [{**e, "loc": e["loc"][1:]} for e in errors]  # the first says body, query or the like
    return _send(request, validation_problem(inside))


def is_json(request: Request) -> bool:
    """Whether the body says that it is JSON."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind == "application/json" or (
        kind.startswith("application/") and kind.endswith("+json")
    )


def wrong_media_type(wanted: str) -> ProblemError:
    """The problem of a body of another media type than ``wanted``."""
    return ProblemError(
        "unsupported-media-type",
        f"send the body as {wanted}",
        field="Content-Type",
        limit=wanted,
    )


def validation_problem(errors: Sequence[Any]) -> ProblemError:
    """The problem that pydantic's ``errors`` amount to."""
    fields = field_problems(errors)
    first = fields[0]
    detail = f"{first.field}: {first.problem}"
    return ProblemError("validation", detail, field=first.field, limit=first.limit, errors=fields)


def not_found(what: str, id_: str) -> ProblemError:
    """The problem of an id that the caller has nothing under, whoever else may."""
    return ProblemError(
        "not-found", f"you have no {what} {id_}", field="id", limit=f"one of your {what}s"
    )


def unknown_reference(id_: str, field: str = "") -> ProblemError:
    """The problem of an image or concept that a request names and its tenant does not have."""
    what = "concept" if id_.startswith("con_") else "image"
    name = field or ("image" if what == "image" else "concepts")
    limit = f"an {what} of yours" if what == "image" else f"a {what} of yours"
    return ProblemError(
        f"unknown-{what}", f"{name}: you have no {what} {id_}", field=name, limit=limit
    )
