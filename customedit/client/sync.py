"""The client. Made from ``aio.py`` by ``python -m customedit.client.generate``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import httpx

from customedit.client import calls
from customedit.client.calls import Answer, Call
from customedit.client.errors import ApiError, TimedOut
from customedit.client.events import Parser, is_final
from customedit.client.sync_requests import Requests
from customedit.schemas import answers as d
from customedit.schemas.answers import DeliveryState, JobKind, JobState


class CustomEdit(Requests):
    """Access to a service at ``url`` with an API ``key``; close it, or use ``with``.

    url, key: None takes ``CUSTOMEDIT_SERVER`` and ``CUSTOMEDIT_KEY`` of the environment; timeout:
    of one request, in seconds. Calls are sent again when the connection breaks or the service is
    busy, but for those that would do something twice. They raise ApiError when it refuses or leads
    elsewhere, and httpx.TransportError when it cannot be reached.
    """

    def __init__(
        self, url: str | None = None, key: str | None = None, *, timeout: float = 60.0
    ) -> None:
        base, headers = calls.connection(url, key)
        self._timeout = timeout
        self._http = httpx.Client(base_url=base, headers=headers, timeout=timeout)
        # Files have other addresses, where the key must not go.
        self._files = httpx.Client(timeout=timeout, follow_redirects=True)

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

    def job(self, id: str, *, wait: int = 0) -> d.Job:
        """A job; wait: seconds to wait for its end."""
        return self._do(calls.read("jobs", id, d.Job, wait))

    def jobs(
        self,
        *,
        kind: JobKind | None = None,
        state: JobState | None = None,
        concept: str | None = None,
        cursor: str | None = None,
        limit: int = 20,
    ) -> d.Page[d.Job]:
        """A page of jobs, newest first. concept: those that make or use it; limit: 1 to 100."""
        filters = {"kind": kind, "state": state, "concept": concept}
        return self._do(calls.page("jobs", d.Page[d.Job], filters, cursor, limit))

    def image(self, id: str) -> d.Image:
        """An image."""
        return self._do(calls.read("images", id, d.Image))

    def images(self, *, cursor: str | None = None, limit: int = 20) -> d.Page[d.Image]:
        """A page of images, newest first; limit: 1 to 100."""
        return self._do(calls.page("images", d.Page[d.Image], {}, cursor, limit))

    def concept(self, id: str) -> d.Concept:
        """A concept."""
        return self._do(calls.read("concepts", id, d.Concept))

    def concepts(self, *, cursor: str | None = None, limit: int = 20) -> d.Page[d.Concept]:
        """A page of concepts, newest first; limit: 1 to 100."""
        return self._do(calls.page("concepts", d.Page[d.Concept], {}, cursor, limit))

    def weights(
        self, id: str, format: Literal["customedit", "diffusers"] = "customedit"
    ) -> d.Weights:
        """Where the file of a concept is."""
        return self._do(calls.weights(id, format))

    def preset(self, name: str) -> d.Preset:
        """A preset."""
        return self._do(calls.read("presets", name, d.Preset))

    def presets(self) -> d.Page[d.Preset]:
        """All presets, by name."""
        return self._do(Call("GET", "/v1/presets", d.Page[d.Preset]))

    def delete_preset(self, name: str) -> None:
        """Delete a preset."""
        self._do(calls.delete("presets", name))

    def deliveries(
        self,
        *,
        state: DeliveryState | None = None,
        cursor: str | None = None,
        limit: int = 20,
    ) -> d.Page[d.WebhookDelivery]:
        """A page of how webhooks were delivered, of the newest jobs first; limit: 1 to 100."""
        filters = {"state": state}
        answer = d.Page[d.WebhookDelivery]
        return self._do(calls.page("webhooks/deliveries", answer, filters, cursor, limit))

    def delivery(self, job: str) -> d.WebhookDelivery:
        """How the webhook of a job was delivered."""
        return self._do(Call("GET", f"/v1/jobs/{job}/webhook", d.WebhookDelivery))

    def keys(self) -> d.Page[d.ApiKey]:
        """The tenant's API keys without their secrets, newest first; needs the scope admin."""
        return self._do(Call("GET", "/v1/keys", d.Page[d.ApiKey]))

    def revoke_key(self, id: str) -> d.ApiKey:
        """End an API key at once, but not the one of this client."""
        return self._do(calls.revoke_key(id))

    def limits(self) -> d.Limits:
        """What may be done, and what is left of it."""
        return self._do(Call("GET", "/v1/limits", d.Limits))

    def cancel(self, id: str) -> d.Job:
        """Cancel a job."""
        return self._do(calls.cancel("jobs", id, d.Job))

    def batch(self, id: str, *, wait: int = 0) -> d.Batch:
        """A batch with its jobs; wait: seconds to wait for its end."""
        return self._do(calls.read("batches", id, d.Batch, wait))

    def batches(self, *, cursor: str | None = None, limit: int = 20) -> d.Page[d.BatchSummary]:
        """A page of batches without their jobs, newest first; limit: 1 to 100."""
        return self._do(calls.page("batches", d.Page[d.BatchSummary], {}, cursor, limit))

    def cancel_batch(self, id: str) -> d.Batch:
        """Cancel all jobs of a batch that are not finished."""
        return self._do(calls.cancel("batches", id, d.Batch))

    def delete_batch(self, id: str) -> None:
        """Delete a finished batch, its jobs and their pictures."""
        self._do(calls.delete("batches", id))

    def delete_image(self, id: str) -> None:
        """Delete an image."""
        self._do(calls.delete("images", id))

    def delete_concept(self, id: str) -> None:
        """Delete a concept."""
        self._do(calls.delete("concepts", id))

    def delete_job(self, id: str) -> None:
        """Delete a finished job."""
        self._do(calls.delete("jobs", id))

    def events(self, id: str, after: str = "0") -> Iterator[d.Event]:
        """The events of a job after the event ``after``, until its end; comes back by itself.

        It waits for a service that is busy or away as other calls do.
        """
        parser = Parser(after)
        failed = 0
        while True:
            try:
                for event in self._stream(id, parser):
                    failed = 0
                    yield event
                    if is_final(event):
                        return
            except (httpx.TransportError, ApiError) as error:
                failed += 1
                if (seconds := calls.reconnect_delay(failed, error)) is None:
                    raise
                time.sleep(seconds)
            else:
                time.sleep(0.5)  # the service ended it, such as for a restart

    def _stream(self, id: str, parser: Parser) -> Iterator[d.Event]:
        parser.reset()
        headers = {"Last-Event-ID": parser.last, "Accept": "text/event-stream"}
        with self._http.stream("GET", f"/v1/jobs/{id}/events", headers=headers) as response:
            if not response.is_success:
                response.read()
                calls.raise_for_problem(response)
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

        on_progress: called with the job about once a second; timeout: seconds, 0 asks once, None
        waits for ever.

        Raises:
            JobFailed: it failed or was cancelled.
            TimedOut: it has not ended in time; it goes on.
        """
        id_ = job if isinstance(job, str) else job.id
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if until is None else until - time.monotonic()
            wait, pause = calls.wait_of(left, each=1 if on_progress else calls.WAIT_S)
            time.sleep(pause)
            current = self.job(id_, wait=wait)
            if on_progress is not None:
                on_progress(current)
            if current.finished:
                return calls.succeeded(current)
            if until is not None and time.monotonic() >= until:
                raise TimedOut(current)

    def wait_batch(
        self,
        batch: d.Batch | str,
        on_progress: Callable[[d.Batch], None] | None = None,
        timeout: float | None = None,
    ) -> d.Batch:
        """The batch once all of its jobs are at their end, whichever that is; as ``wait``.

        Raises:
            TimedOut: it has not ended in time; it goes on.
        """
        id_ = batch if isinstance(batch, str) else batch.id
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if until is None else until - time.monotonic()
            wait, pause = calls.wait_of(left, each=1 if on_progress else calls.WAIT_S)
            time.sleep(pause)
            current = self.batch(id_, wait=wait)
            if on_progress is not None:
                on_progress(current)
            if current.finished:
                return current
            if until is not None and time.monotonic() >= until:
                raise TimedOut(current)

    def download(self, url: str, path: Path | str | None = None) -> bytes:
        """The file at a ``url`` of a document; path: where to write it as well."""
        response = self._files.get(url)
        calls.raise_for_problem(response)
        if path is not None:
            Path(path).write_bytes(response.content)
        return response.content

    def _do(self, call: Call[Answer]) -> Answer:
        attempt = 0
        while True:
            attempt += 1
            response: httpx.Response | None = None
            try:
                response = self._http.request(
                    call.method, call.path, timeout=self._timeout + call.wait, **call.arguments()
                )
            except httpx.TransportError:
                if not call.repeatable or calls.retry_delay(attempt, None) is None:
                    raise
            seconds = calls.retry_delay(attempt, response, repeatable=call.repeatable)
            if response is not None and (response.is_success or seconds is None):
                return call.read(response)
            time.sleep(seconds or 0.0)
