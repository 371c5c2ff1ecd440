"""What the client sends and how it reads the answer: both clients do the sending alone.

A ``Call`` is a request that has not been sent. Requests that make something carry an idempotency
key, so that they can be sent again when a connection breaks.
"""

from __future__ import annotations

import mimetypes
import os
import random
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import httpx
from pydantic import BaseModel

from customedit.client.errors import ApiError
from customedit.schemas import answers as d
from customedit.schemas.answers import Problem
from customedit.schemas.requests import CustomizeRequest, EditRequest, ImportRequest

SERVER: Final = "CUSTOMEDIT_SERVER"
API_KEY: Final = "CUSTOMEDIT_KEY"
ATTEMPTS: Final = 5
WAIT_S: Final = 20

Answer = TypeVar("Answer")
Body = Mapping[str, Any]


@dataclass(frozen=True)
class Call(Generic[Answer]):
    """A request, and the document that its answer is; None: the answer has no body.

    repeatable: sent twice it does the same as once.
    """

    method: str
    path: str
    answer: type[Answer] | None = None
    json: Any = None
    params: Mapping[str, str | int] = field(default_factory=dict)
    data: Mapping[str, str] = field(default_factory=dict)
    file: tuple[str, bytes, str] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    repeatable: bool = True

    def arguments(self) -> dict[str, Any]:
        """What httpx is to be called with."""
        given = {"json": self.json, "params": self.params or None, "data": self.data or None}
        files = {"file": self.file} if self.file else None
        return {**given, "files": files, "headers": dict(self.headers)}

    def read(self, response: httpx.Response) -> Answer:
        """The document of ``response``.

        Raises:
            ApiError: the service refused.
        """
        refuse(response)
        if self.answer is None:
            return None  # type: ignore[return-value]
        assert issubclass(self.answer, BaseModel)
        return self.answer.model_validate_json(response.content)


def where(url: str | None, key: str | None) -> tuple[str, dict[str, str]]:
    """The service's address and the headers with the key; None: from the environment.

    Raises:
        ValueError: there is none.
    """
    url, key = url or os.environ.get(SERVER), key or os.environ.get(API_KEY)
    if not url or not key:
        raise ValueError(f"give the service's address and an API key, or set {SERVER}, {API_KEY}")
    return url.rstrip("/"), {"Authorization": f"Bearer {key}"}


def refuse(response: httpx.Response) -> None:
    """Raise ApiError if ``response`` is no success."""
    if response.is_success or response.is_redirect:
        return
    try:
        problem = Problem.model_validate_json(response.content)
    except ValueError:  # a proxy in between, say
        problem = Problem(type="about:blank", title=f"HTTP {response.status_code}", status=0)
    problem.status = response.status_code
    raise ApiError(problem, retry_after(response))


def retry_after(response: httpx.Response) -> float | None:
    """The seconds that ``Retry-After`` names."""
    text = response.headers.get("retry-after", "")
    return float(text) if text.isdigit() else None


def pause(attempt: int, response: httpx.Response | None) -> float | None:
    """Seconds until the call is sent again after ``attempt`` (from 1); None: it is not.

    Again: after a lost connection, 429 and 503, and when the same request is still at work.
    """
    if attempt >= ATTEMPTS:
        return None
    if response is not None:
        busy = response.status_code == 409 and b"idempotency-in-flight" in response.content
        if response.status_code not in (429, 502, 503, 504) and not busy:
            return None
        if (asked := retry_after(response)) is not None:
            return min(asked, 60.0)
    return float(min(0.2 * 2**attempt, 5.0) * random.uniform(0.5, 1.0))


def _fresh(key: str | None) -> dict[str, str]:
    return {"Idempotency-Key": key or secrets.token_urlsafe(18)}


def _sent(request: BaseModel) -> Any:
    return request.model_dump(mode="json", exclude_unset=True)


def upload(picture: bytes | Path | str) -> Call[d.Image]:
    """A picture: a file's bytes, or its path."""
    name, body = "picture", picture
    if not isinstance(body, bytes):
        path = Path(body)
        name, body = path.name, path.read_bytes()
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return Call("POST", "/v1/images", d.Image, file=(name, body, kind))


def customize(request: CustomizeRequest, key: str | None) -> Call[d.Job]:
    """A customization."""
    return Call("POST", "/v1/concepts", d.Job, _sent(request), headers=_fresh(key))


def edit(request: EditRequest, key: str | None) -> Call[d.Job]:
    """An edit."""
    return Call("POST", "/v1/edits", d.Job, _sent(request), headers=_fresh(key))


def bring(path: Path, words: Body, key: str | None) -> Call[d.Job]:
    """An import of a concept's file."""
    body = path.read_bytes()
    checked = ImportRequest.model_validate({**words, "file": "checked", "bytes": len(body) or 1})
    form = checked.model_dump(mode="json", exclude_unset=True, exclude={"file", "bytes"})
    return Call(
        "POST",
        "/v1/concepts/import",
        d.Job,
        data={name: str(value) for name, value in form.items()},
        file=(path.name, body, "application/octet-stream"),
        headers=_fresh(key),
    )


def one(kind: str, id_: str, answer: type[Answer], wait: int = 0) -> Call[Answer]:
    """A thing of the service: ``kind`` is ``jobs`` and the like."""
    headers = {"Prefer": f"wait={wait}"} if wait else {}
    return Call("GET", f"/v1/{kind}/{id_}", answer, headers=headers)


def remove(kind: str, id_: str) -> Call[None]:
    """The end of a thing."""
    return Call("DELETE", f"/v1/{kind}/{id_}", repeatable=False)


def page(kind: str, answer: type[Answer], filters: Mapping[str, Any]) -> Call[Answer]:
    """A page of a list; filters that are None are left out."""
    given = {name: value for name, value in filters.items() if value is not None}
    return Call("GET", f"/v1/{kind}", answer, params=given)


def cancel(id_: str) -> Call[d.Job]:
    """The cancelling of a job."""
    return Call("POST", f"/v1/jobs/{id_}/cancel", d.Job)


def weights(id_: str, format: str) -> Call[d.Weights]:
    """The file of a concept."""
    return Call("GET", f"/v1/concepts/{id_}/weights", d.Weights, params={"format": format})
