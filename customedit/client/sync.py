"""The client that waits for each answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import httpx

from customedit.client import calls
from customedit.client.calls import Answer, Call
from customedit.client.errors import JobFailed, TimedOut
from customedit.client.events import Parser, over
from customedit.schemas import answers as d
from customedit.schemas.requests import CustomizeRequest, EditRequest


class CustomEdit:
    """Access to a service at ``url`` with an API ``key``; close it, or use ``with``.

    url, key: None takes ``CUSTOMEDIT_SERVER`` and ``CUSTOMEDIT_KEY`` of the environment; timeout:
    of one request, in seconds. Calls are sent again when the connection breaks or the service is
    busy; they raise ApiError when it refuses, and httpx.TransportError when it cannot be reached.
    """

    def __init__(
        self, url: str | None = None, key: str | None = None, *, timeout: float = 60.0
    ) -> None:
        base, headers = calls.where(url, key)
        self._http = httpx.Client(base_url=base, headers=headers, timeout=timeout)
        # Files are at addresses of their own: the key must not go there.
        self._files = httpx.Client(timeout=timeout)

    def close(self) -> None:
        """Close all connections."""
        self._http.close()
        self._files.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def upload(self, picture: bytes | Path | str) -> d.Image:
        """Upload a PNG, JPEG or WebP: its bytes, or the path of the file."""
        return self._do(calls.upload(picture))

    def customize(self, *, idempotency_key: str | None = None, **asked: Any) -> d.Job:
        """Ask for a concept; ``asked`` are the fields of CustomizeRequest.

        Raises:
            pydantic.ValidationError: a field is not usable; nothing was sent.
        """
        return self._do(calls.customize(CustomizeRequest(**asked), idempotency_key))

    def edit(self, *, idempotency_key: str | None = None, **asked: Any) -> d.Job:
        """Ask for an edit; ``asked`` are the fields of EditRequest.

        Raises:
            pydantic.ValidationError: a field is not usable; nothing was sent.
        """
        return self._do(calls.edit(EditRequest(**asked), idempotency_key))

    def bring(self, path: Path, *, idempotency_key: str | None = None, **words: Any) -> d.Job:
        """Make a concept of a file; ``words``: noun, attribute, token, name, webhook."""
        return self._do(calls.bring(path, words, idempotency_key))

    def job(self, id: str, *, wait: int = 0) -> d.Job:
        """A job; wait: seconds to wait for its end."""
        return self._do(calls.one("jobs", id, d.Job, wait))

    def jobs(self, **filters: Any) -> d.Page[d.Job]:
        """A page of jobs; ``filters``: kind, state, concept, cursor, limit."""
        return self._do(calls.page("jobs", d.Page[d.Job], filters))

    def image(self, id: str) -> d.Image:
        """An image."""
        return self._do(calls.one("images", id, d.Image))

    def images(self, **filters: Any) -> d.Page[d.Image]:
        """A page of images; ``filters``: cursor, limit."""
        return self._do(calls.page("images", d.Page[d.Image], filters))

    def concept(self, id: str) -> d.Concept:
        """A concept."""
        return self._do(calls.one("concepts", id, d.Concept))

    def concepts(self, **filters: Any) -> d.Page[d.Concept]:
        """A page of concepts; ``filters``: cursor, limit."""
        return self._do(calls.page("concepts", d.Page[d.Concept], filters))

    def weights(
        self, id: str, format: Literal["customedit", "diffusers"] = "customedit"
    ) -> d.Weights:
        """Where the file of a concept is."""
        return self._do(calls.weights(id, format))

    def limits(self) -> d.Limits:
        """What may be done, and what is left of it."""
        return self._do(Call("GET", "/v1/limits", d.Limits))

    def cancel(self, id: str) -> d.Job:
        """Cancel a job."""
        return self._do(calls.cancel(id))

    def delete_image(self, id: str) -> None:
        """Delete an image."""
        self._do(calls.remove("images", id))

    def delete_concept(self, id: str) -> None:
        """Delete a concept."""
        self._do(calls.remove("concepts", id))

    def delete_job(self, id: str) -> None:
        """Delete a finished job."""
        self._do(calls.remove("jobs", id))

    def events(self, id: str, after: str = "0") -> Iterator[d.Event]:
        """The events of a job after the event ``after``, until its end; comes back by itself."""
        parser = Parser()
        parser.last = after
        failed = 0
        while True:
            try:
                for event in self._stream(id, parser):
                    failed = 0
                    yield event
                    if over(event):
                        return
            except httpx.TransportError:
                failed += 1
                if (seconds := calls.pause(failed, None)) is None:
                    raise
                time.sleep(seconds)
            else:
                time.sleep(0.5)  # the service ended it, such as for a restart

    def _stream(self, id: str, parser: Parser) -> Iterator[d.Event]:
        headers = {"Last-Event-ID": parser.last, "Accept": "text/event-stream"}
        with self._http.stream("GET", f"/v1/jobs/{id}/events", headers=headers) as response:
            if not response.is_success:
                response.read()
                calls.refuse(response)
            for line in response.iter_lines():
                if (event := parser.feed(line)) is not None:
                    yield event

    def wait(
        self,
        job: d.Job | str,
        on_progress: Callable[[d.Job], None] | None = None,
        timeout: float | None = None,
    ) -> d.Job:
        """The job once it has succeeded.

        on_progress: called with the job at each of its events; timeout: seconds, None for ever.

        Raises:
            JobFailed: it failed or was cancelled.
            TimedOut: it has not ended in time; it goes on.
        """
        id_ = job if isinstance(job, str) else job.id
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            left = calls.WAIT_S if until is None else max(0.0, until - time.monotonic())
            step = 1 if on_progress else calls.WAIT_S
            found = self.job(id_, wait=min(step, int(left)))
            if on_progress is not None:
                on_progress(found)
            if found.finished:
                return done(found)
            if left < 1:
                raise TimedOut(found)

    def download(self, url: str, path: Path | None = None) -> bytes:
        """The file at a ``url`` of a document; path: where to write it as well."""
        response = self._files.get(url)
        calls.refuse(response)
        if path is not None:
            path.write_bytes(response.content)
        return response.content

    def _do(self, call: Call[Answer]) -> Answer:
        attempt = 0
        while True:
            attempt += 1
            response: httpx.Response | None = None
            try:
                response = self._http.request(call.method, call.path, **call.arguments())
            except httpx.TransportError:
                if not call.repeatable or calls.pause(attempt, None) is None:
                    raise
            seconds = calls.pause(attempt, response)
            if response is not None and (response.is_success or seconds is None):
                return call.read(response)
            time.sleep(seconds or 0.0)


def done(job: d.Job) -> d.Job:
    """A finished job that succeeded; raises JobFailed for another."""
    if job.state != "succeeded":
        raise JobFailed(job)
    return job
