"""What the clients send and how they read the answers; the clients themselves only send.

A ``Call`` is a request that has not been sent. Requests that make something carry an idempotency
key, so that they can be sent again when a connection breaks.
"""

from __future__ import annotations

import json
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

from customedit.client.errors import ApiError, JobFailed
from customedit.schemas import answers as d
from customedit.schemas.answers import Problem
from customedit.schemas.concepts import CustomizeRequest, ImportForm
from customedit.schemas.keys import KeyRequest
from customedit.schemas.requests import BatchRequest, EditRequest, PresetSettings, PromptsRequest

SERVER: Final = "CUSTOMEDIT_SERVER"
API_KEY: Final = "CUSTOMEDIT_KEY"
ATTEMPTS: Final = 5
BUSY: Final = (429, 502, 503, 504)
"""Statuses of a service that has too much to do or is away, and of a proxy before it."""

LONGEST_PAUSE_S: Final = 60.0
WAIT_S: Final = 20
_DRY: Final = {"dry_run": "true"}
PAUSE_S: Final = 0.25
"""Between two looks at a job in the last second of a wait."""

Answer = TypeVar("Answer")
Body = Mapping[str, Any]


@dataclass(frozen=True)
class Call(Generic[Answer]):
    """A request, and the document that its answer is; None: the answer has no body.

    repeatable: sent twice it does and answers the same as once; wait: seconds that the service may
    let pass before it answers.
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
    wait: int = 0

    def arguments(self) -> dict[str, Any]:
        """What httpx is to be called with."""
        return {
            "json": self.json,
            "params": self.params or None,
            "data": self.data or None,
            "files": {"file": self.file} if self.file else None,
            "headers": dict(self.headers) | ({"Prefer": f"wait={self.wait}"} if self.wait else {}),
        }

    def read(self, response: httpx.Response) -> Answer:
        """The document of ``response``.

        Raises:
            ApiError: the service refused.
        """
        raise_for_problem(response)
        if self.answer is None:
            return None  # type: ignore[return-value]
        assert issubclass(self.answer, BaseModel)
        return self.answer.model_validate_json(response.content)


def connection(url: str | None, key: str | None) -> tuple[str, dict[str, str]]:
    """The service's address and the headers with the key; None: from the environment.

    Raises:
        ValueError: there is none.
    """
    url, key = url or os.environ.get(SERVER), key or os.environ.get(API_KEY)
    if not url or not key:
        raise ValueError(f"give the service's address and an API key, or set {SERVER}, {API_KEY}")
    return url.rstrip("/"), {"Authorization": f"Bearer {key}"}


def raise_for_problem(response: httpx.Response) -> None:
    """Raise ApiError unless ``response`` is a success; a redirection is none."""
    if response.is_success:
        return
    if response.is_redirect:  # not followed: the key goes to the service alone
        problem = Problem(
            type="about:blank",
            title=f"HTTP {response.status_code}",
            status=response.status_code,
            detail=f"{response.url} leads to {response.headers['location']}; use that address",
        )
        raise ApiError(problem)
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


def retry_delay(
    attempt: int, response: httpx.Response | None, *, repeatable: bool = True
) -> float | None:
    """Seconds until the call is sent again after ``attempt`` (from 1); None: it is not.

    Again: after a lost connection, 429, 502, 503 and 504, and when the same request is still at
    work. One that is not repeatable only where the service says that it did nothing: after 429, and
    503 with ``Retry-After``; a proxy's 502 or 504 may come after the work was done.
    """
    if response is None:
        return _pause(attempt, None) if repeatable else None
    seconds, status = retry_after(response), response.status_code
    busy = status == 409 and b"idempotency-in-flight" in response.content
    refused = status == 429 or (status == 503 and seconds is not None)
    if not (refused or (repeatable and (status in BUSY or busy))):
        return None
    return _pause(attempt, seconds)


def reconnect_delay(attempt: int, error: httpx.TransportError | ApiError) -> float | None:
    """As ``retry_delay``, for a stream that could not be opened or broke off with ``error``."""
    if isinstance(error, ApiError):
        return _pause(attempt, error.retry_after) if error.status in BUSY else None
    return _pause(attempt, None)


def _pause(attempt: int, seconds: float | None) -> float | None:
    """seconds: what the service asks for; None: longer with each attempt."""
    if attempt >= ATTEMPTS:
        return None
    if seconds is not None:
        return min(seconds, LONGEST_PAUSE_S)
    return float(min(0.2 * 2**attempt, 5.0) * random.uniform(0.5, 1.0))


def _idempotency(key: str | None) -> dict[str, str]:
    return {"Idempotency-Key": key or secrets.token_urlsafe(18)}


def _body(model: type[BaseModel], values: Body) -> Any:
    """``values`` as the JSON of a request; what is None or the default is left out.

    Raises:
        pydantic.ValidationError: a value is not usable.
    """
    request = model.model_validate({k: v for k, v in values.items() if v is not None})
    return request.model_dump(mode="json", exclude_defaults=True)


def upload(picture: bytes | Path | str) -> Call[d.Image]:
    """A picture: a file's bytes, or its path."""
    name, body = "picture", picture
    if not isinstance(body, bytes):
        path = Path(body)
        name, body = path.name, path.read_bytes()
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return Call("POST", "/v1/images", d.Image, file=(name, body, kind))


def customize(values: Body, key: str | None) -> Call[d.Job]:
    """A customization: the fields of CustomizeRequest."""
    body = _body(CustomizeRequest, values)
    return Call("POST", "/v1/concepts", d.Job, body, headers=_idempotency(key))


def edit(values: Body, key: str | None) -> Call[d.Job]:
    """An edit: the fields of EditRequest."""
    body = _body(EditRequest, values)
    return Call("POST", "/v1/edits", d.Job, body, headers=_idempotency(key))


def edit_batch(values: Body, key: str | None) -> Call[d.Batch]:
    """A batch: the fields of BatchRequest."""
    body = _body(BatchRequest, values)
    return Call("POST", "/v1/batches", d.Batch, body, headers=_idempotency(key))


def try_customize(values: Body) -> Call[d.DryRun]:
    """A dry run of ``customize``."""
    return Call("POST", "/v1/concepts", d.DryRun, _body(CustomizeRequest, values), params=_DRY)


def try_edit(values: Body) -> Call[d.DryRun]:
    """A dry run of ``edit``."""
    return Call("POST", "/v1/edits", d.DryRun, _body(EditRequest, values), params=_DRY)


def read_prompts(values: Body) -> Call[d.PromptReadings]:
    """How a base reads prompts: the fields of PromptsRequest."""
    return Call("POST", "/v1/prompts/read", d.PromptReadings, _body(PromptsRequest, values))


def save_preset(name: str, values: Body) -> Call[d.Preset]:
    """A preset: the fields of PresetSettings."""
    return Call("PUT", f"/v1/presets/{name}", d.Preset, _body(PresetSettings, values))


def make_key(values: Body) -> Call[d.NewApiKey]:
    """An API key: the fields of KeyRequest. Not sent again: each time it would be another key."""
    return Call("POST", "/v1/keys", d.NewApiKey, _body(KeyRequest, values), repeatable=False)


def revoke_key(id_: str) -> Call[d.ApiKey]:
    """The end of a key."""
    return Call("POST", f"/v1/keys/{id_}/revoke", d.ApiKey)


def import_concept(path: Path, values: Body, key: str | None) -> Call[d.Job]:
    """An import of a concept's file, with the fields of ImportForm."""
    form = _body(ImportForm, values)
    return Call(
        "POST",
        "/v1/concepts/import",
        d.Job,
        data={name: _text(value) for name, value in form.items()},
        file=(path.name, path.read_bytes(), "application/octet-stream"),
        headers=_idempotency(key),
    )


def _text(value: Any) -> str:
    """A value as a form has it: ``true`` and ``false`` as JSON spells them."""
    return json.dumps(value) if isinstance(value, bool) else str(value)


def read(kind: str, id_: str, answer: type[Answer], wait: int = 0) -> Call[Answer]:
    """An item by its id; ``kind`` is ``jobs`` and the like."""
    return Call("GET", f"/v1/{kind}/{id_}", answer, wait=wait)


def wait_of(left: float | None, each: int) -> tuple[int, float]:
    """How to spend the next part of ``left`` seconds, None for no end.

    Gives what the service is asked to wait, in whole seconds and ``each`` at most, and what the
    client itself waits before it asks: less than a second, in parts of ``PAUSE_S``.
    """
    if left is None:
        return each, 0.0
    wait = max(0, min(each, int(left)))
    return wait, 0.0 if wait else min(PAUSE_S, max(0.0, left))


def delete(kind: str, id_: str) -> Call[None]:
    """The deletion of an item."""
    return Call("DELETE", f"/v1/{kind}/{id_}", repeatable=False)


def page(
    kind: str, answer: type[Answer], filters: Mapping[str, Any], cursor: str | None, limit: int
) -> Call[Answer]:
    """A page of a list; filters that are None are left out."""
    values = {**filters, "cursor": cursor, "limit": limit}
    params = {name: value for name, value in values.items() if value is not None}
    return Call("GET", f"/v1/{kind}", answer, params=params)


def cancel(kind: str, id_: str, answer: type[Answer]) -> Call[Answer]:
    """The cancelling of a job or a batch."""
    return Call("POST", f"/v1/{kind}/{id_}/cancel", answer)


def weights(id_: str, format: str) -> Call[d.Weights]:
    """The file of a concept."""
    return Call("GET", f"/v1/concepts/{id_}/weights", d.Weights, params={"format": format})


def succeeded(job: d.Job) -> d.Job:
    """A finished job that succeeded.

    Raises:
        JobFailed: it failed or was cancelled.
    """
    if job.state != "succeeded":
        raise JobFailed(job)
    return job
