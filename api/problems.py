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

from api.openapi import MEDIA_TYPE, methods
from api.patterns import SAID
from api.problem_types import TYPES
from customedit.errors import InputError
from customedit.schemas.answers import FieldProblem, Problem
from customedit.storage.store import StorageError

RETRY_SECONDS: Final = 5

_log = logging.getLogger(__name__)
_OF_STATUS: Final = {
    400: "malformed",
    404: "not-found",
    405: "method-not-allowed",
    413: "too-large",
    415: "unsupported-media-type",
}


class Refused(Exception):
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
            instance=path,
            field=self.field,
            limit=self.limit,
            errors=self.errors,
            request_id=request_id,
        )


def unusable(error: InputError, slug: str = "validation", limit: str = "") -> Refused:
    """The problem that an InputError tells of."""
    found = FieldProblem(field=error.field, problem=error.problem, limit=limit or error.remedy)
    return Refused(slug, str(error), field=error.field, limit=limit or error.remedy, errors=[found])


def answer(refused: Refused, path: str, request_id: str | None) -> JSONResponse:
    """``refused`` as an HTTP answer."""
    headers = dict(refused.headers)
    if refused.kind.status == 503:
        headers.setdefault("Retry-After", str(RETRY_SECONDS))
    if refused.kind.status == 401:
        headers.setdefault("WWW-Authenticate", 'Bearer realm="customedit"')
    return JSONResponse(
        refused.document(path, request_id).model_dump(mode="json", exclude_none=True),
        refused.kind.status,
        headers,
        MEDIA_TYPE,
    )


def install(app: FastAPI) -> None:
    """Let ``app`` answer all errors as problems."""
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(StorageError, _unavailable)
    app.add_exception_handler(RedisError, _unavailable)
    app.add_exception_handler(Exception, _unforeseen)


def _send(request: Request, refused: Refused) -> JSONResponse:
    return answer(refused, request.url.path, request.scope.get("state", {}).get("request_id"))


def _refused(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Refused)
    return _send(request, error)


def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    slug = _OF_STATUS.get(error.status_code, "malformed" if error.status_code < 500 else "internal")
    detail = error.detail if slug == "malformed" else ""
    if slug == "too-large":
        return _send(request, too_large(request.state.body_limit))
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = ", ".join(methods(request.app, request.url.path))
    return _send(request, Refused(slug, detail, headers=headers))


def too_large(limit: int) -> Refused:
    """The problem of a body over ``limit`` bytes."""
    return Refused("too-large", field="body", limit=f"at most {limit} bytes")


def _unavailable(request: Request, error: Exception) -> JSONResponse:
    """What was reached for and is not there; the error's own words may name hosts, so log them."""
    _log.error("cannot serve %s: %s: %s", request.url.path, type(error).__name__, error)
    return _send(request, Refused("unavailable", "the request was not carried out; try again"))


def _unforeseen(request: Request, error: Exception) -> JSONResponse:
    """Starlette raises the error again once this is sent, so that the edge logs it."""
    return _send(request, Refused("internal"))


def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    if request.method not in methods(request.app, request.url.path):
        return _http(request, HTTPException(405))  # such as /v1/concepts/import, read as an id
    if any(e["type"] == "json_invalid" for e in found):
        position = found[0]["loc"][-1]
        why = found[0].get("ctx", {}).get("error", "")
        return _send(request, Refused("malformed", f"no JSON at character {position}: {why}"))
    if any(tuple(e["loc"]) == ("body",) for e in found) and not is_json(request):
        return _send(request, wrong_media_type("application/json"))
    inside = [{**e, "loc": e["loc"][1:]} for e in found]  # the first says body, query or the like
    return _send(request, of_errors(inside))


def is_json(request: Request) -> bool:
    """Whether the body says that it is JSON."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind == "application/json" or (
        kind.startswith("application/") and kind.endswith("+json")
    )


def wrong_media_type(wanted: str) -> Refused:
    """The problem of a body of another media type than ``wanted``."""
    return Refused(
        "unsupported-media-type",
        f"send the body as {wanted}",
        field="Content-Type",
        limit=wanted,
    )


def of_errors(found: Sequence[Any]) -> Refused:
    """The problem that pydantic's ``found`` errors amount to: at most 20 of them."""
    fields = [_field(e) for e in found[:20]]
    first = fields[0]
    detail = f"{first.field}: {first.problem}"
    return Refused("validation", detail, field=first.field, limit=first.limit, errors=fields)


_UNION: Final = ("constrained-str", "literal['']")
"""What pydantic adds for ``Words | Literal[""]``, which no field is called."""


def _field(error: Mapping[str, Any]) -> FieldProblem:
    message = str(error["msg"])
    names = [part for part in error["loc"] if part not in _UNION]
    if error["type"] == "value_error":  # rules over several fields name theirs themselves
        message = message.removeprefix("Value error, ")
        name, _, rest = message.partition(": ")
        if rest and name.isidentifier():
            problem, _, remedy = rest.partition("; ")
            return FieldProblem(field=name, problem=problem, limit=remedy or problem)
    if (said := SAID.get(error.get("ctx", {}).get("pattern", ""))) is not None:
        message = f"is not {said}"
    return FieldProblem(
        field=_dotted(names) or "body", problem=message, limit=said or _limit(error) or message
    )


def _dotted(names: Sequence[str | int]) -> str:
    """("concepts", 0, "id") -> ``concepts[0].id``."""
    text = ""
    for name in names:
        text += f"[{name}]" if isinstance(name, int) else f".{name}" if text else str(name)
    return text[:200]


_SIGNS: Final = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


def _limit(error: Mapping[str, Any]) -> str:
    """What the field must keep to, in a few words; empty if pydantic does not say."""
    facts = error.get("ctx", {})
    kind = str(error["type"])
    if kind == "missing":
        return "required"
    if kind == "extra_forbidden":
        return "no fields but those of the documentation"
    what = "items" if kind in ("too_long", "too_short") else "characters"
    if "max_length" in facts:
        return f"at most {facts['max_length']} {what}"
    if "min_length" in facts:
        return f"at least {facts['min_length']} {what}"
    if "pattern" in facts:
        return f"pattern {facts['pattern']}"
    if "expected" in facts:
        return f"one of {facts['expected']}"
    for name, sign in _SIGNS.items():
        if name in facts:
            return f"{sign} {facts[name]}"
    return ""
