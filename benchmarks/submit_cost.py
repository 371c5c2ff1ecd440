"""Processor time of a submit in the API alone: ``python benchmarks/submit_cost.py``.

The whole app with its middleware is called as a server would call it, in one process, one POST of
an edit after another. Redis and S3 are answered from memory: commands are packed and their answers
shaped by redis-py, the journal's PUT is signed, and neither goes to a socket. So it tells what
routing, checks, JSON, the log, threads and their hand-over take, and nothing of HTTP, the network
or the stores. Told apart is the time of the event loop's thread, of which a process has one.

Other work of the machine slows it: run the code before and after by turns (``--repeats``).
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import json
import os
import statistics
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Annotated, Any, Final
from unittest import mock

import redis
import typer
from fastapi import FastAPI

from api import dependencies
from api.app import create_app
from customedit.config import telemetry
from customedit.config.settings import Settings
from customedit.jobs.records import ImageRecord
from customedit.jobs.redis import connect, source
from customedit.schemas import ids
from customedit.schemas.keys import USUAL_SCOPES
from customedit.storage import object_keys
from customedit.storage.connections import Connections
from customedit.tenants.access import ApiKey

TENANT: Final = "bench"
ENVIRONMENT: Final = {
    "CUSTOMEDIT_REDIS_URL": "redis://127.0.0.1:1/0",  # where nobody listens, nor has to
    "CUSTOMEDIT_S3_ENDPOINT": "http://127.0.0.1:1",
    "CUSTOMEDIT_S3_ACCESS_KEY": "bench",
    "CUSTOMEDIT_S3_SECRET_KEY": "bench-secret",
    "CUSTOMEDIT_LOG_FORMAT": "json",
}
SCRIPTS: Final = ("admit", "epoch", "submit")
"""Those that a submit without an idempotency key runs."""

EMPTY: Final[dict[str, Any]] = {
    "HGETALL": [], "SMEMBERS": [], "ZRANGE": [], "ZRANGEBYSCORE": [], "ZCARD": 0,
}  # fmt: skip
"""What Redis answers where there is nothing: no worker, no base and no job in the queue."""


class Answers:
    """What Redis would answer to the commands of a submit.

    key: the text of the tenant's API key; image: the id of its picture.
    """

    def __init__(self) -> None:
        secret = "0" * 64
        record = ApiKey(
            id=ids.new("key"),
            tenant=TENANT,
            scopes=list(USUAL_SCOPES),
            hash=hashlib.sha256(secret.encode()).hexdigest(),
            created_at=time.time(),
        )
        self.key, self.image = f"{record.prefix}{secret}", ids.of_image(b"bench")
        self._image = ImageRecord(
            id=self.image, tenant=TENANT, media_type="image/png", bytes=1, width=128, height=128,
            upright=True, created_at=time.time(),
            key=object_keys.image(TENANT, self.image, "1", object_keys.PICTURE),
        ).model_dump_json()  # fmt: skip
        of_scripts: dict[str, Any] = {
            "admit": [record.model_dump_json(), f"{time.time():.3f}", 1, 1_000_000, "60", "0"],
            "epoch": "e1",
            "submit": ["made", f"{time.time():.3f}", 1],
        }
        self._scripts = {
            hashlib.sha1(source(name).encode()).hexdigest(): of_scripts[name] for name in SCRIPTS
        }

    def answer(self, command: list[str]) -> Any:
        """The answer as redis-py's parser gives it; an error for a command that is not known."""
        name = command[0].upper()
        if name == "EVALSHA" and command[1] in self._scripts:
            return self._scripts[command[1]]
        if name == "HGET" and command[-1] == "record":
            return self._image
        if name == "TIME":
            seconds, _, rest = f"{time.time():.6f}".partition(".")
            return [seconds, rest]
        if name in EMPTY:
            return EMPTY[name]
        return redis.ResponseError(f"no answer is made for {' '.join(command[:2])}")


def commands(packed: bytes) -> Iterator[list[str]]:
    """The commands that redis-py has packed: arrays of bulk strings in RESP."""
    at = 0

    def line() -> bytes:
        nonlocal at
        begin, at = at, packed.index(b"\r\n", at) + 2
        return packed[begin : at - 2]

    while at < len(packed):
        command = []
        for _ in range(int(line()[1:])):
            length = int(line()[1:])
            command.append(packed[at : at + length].decode())
            at += length + 2
        yield command


class MemoryConnection(redis.connection.Connection):
    """A connection of redis-py that sends nothing; ``answers`` are set before it is used."""

    answers: Answers

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)  # type: ignore[no-untyped-call]
        self._waiting: deque[Any] = deque()

    def connect(self) -> None:
        """There is nobody to connect to."""

    def disconnect(self, *args: Any) -> None:
        """Forget what was not read."""
        self._waiting.clear()

    def can_read(self, timeout: float | None = 0) -> bool:
        """Whether an answer was not read yet."""
        return bool(self._waiting)

    def send_packed_command(
        self, command: bytes | str | Iterable[bytes], check_health: bool = True
    ) -> None:
        """Take commands, and have their answers ready."""
        packed = command.encode() if isinstance(command, str) else command
        whole = packed if isinstance(packed, bytes) else b"".join(packed)
        self._waiting.extend(map(self.answers.answer, commands(whole)))

    def read_response(self, *args: Any, **given: Any) -> Any:
        """The next answer. Raises ResponseError for a command that is not known."""
        found = self._waiting.popleft()
        if isinstance(found, redis.ResponseError):
            raise found
        return found


@contextlib.contextmanager
def memory_stores(answers: Answers) -> Iterator[None]:
    """Apps that start inside this context have Redis and S3 in memory, and watch neither."""

    class Own(MemoryConnection):
        pass

    Own.answers = answers

    def connected(settings: Settings) -> redis.Redis:
        client = connect(settings)
        client.connection_pool.connection_class = Own
        return client

    @contextlib.asynccontextmanager
    async def idle(_: object) -> AsyncIterator[None]:
        yield

    with (
        mock.patch.object(dependencies, "connect", connected),
        mock.patch.object(dependencies, "running", idle),
        mock.patch.object(dependencies, "watching", idle),
        mock.patch.object(Connections, "send", lambda *_: 200),
    ):
        yield


async def submit(app: FastAPI, key: str, body: bytes) -> int:
    """POST ``body`` to ``/v1/edits``; gives the status of the answer."""
    statuses: list[int] = []
    messages = deque([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> dict[str, Any]:
        return messages.popleft() if messages else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    scope = {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1",
        "method": "POST", "scheme": "http", "path": "/v1/edits", "raw_path": b"/v1/edits",
        "query_string": b"", "root_path": "", "client": ("127.0.0.1", 40_000),
        "server": ("127.0.0.1", 8000), "state": {},
        "headers": [
            (b"host", b"127.0.0.1:8000"), (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"authorization", f"Bearer {key}".encode()),
        ],
    }  # fmt: skip
    await app(scope, receive, send)
    return statuses[0]


def body(image: str, number: int) -> bytes:
    """An edit whose prompts no other has."""
    return json.dumps(
        {
            "image": image,
            "source_prompt": f"a photo of a gray cup on a brown table, view {number}",
            "target_prompt": f"a photo of a red cup on a brown table, view {number}",
            "steps": 10,
        }
    ).encode()


async def measure(settings: Settings, submits: int, repeats: int) -> dict[str, Any]:
    """Milliseconds of a submit: of all threads and of the event loop's, in each repeat."""
    answers = Answers()
    with memory_stores(answers):
        app = create_app(settings)
        statuses: list[int] = []
        whole, loop = [], []
        async with app.router.lifespan_context(app):
            numbers = iter(range(submits * (repeats + 1)))

            async def some() -> None:
                for _ in range(submits):
                    sent = body(answers.image, next(numbers))
                    statuses.append(await submit(app, answers.key, sent))

            await some()  # warm
            gc.collect()
            gc.freeze()  # as the front end does
            for _ in range(repeats):
                before = time.process_time(), time.thread_time()
                await some()
                whole.append(1000 * (time.process_time() - before[0]) / submits)
                loop.append(1000 * (time.thread_time() - before[1]) / submits)
    return {
        "submits": submits,
        "errors": sum(status != 202 for status in statuses),
        "processor_ms": round(statistics.median(whole), 2),
        "event_loop_ms": round(statistics.median(loop), 2),
        "each_repeat_ms": [round(value, 2) for value in whole],
        "machine": {"cores": os.cpu_count(), "load": round(os.getloadavg()[0], 2)},
    }


def main(
    submits: Annotated[int, typer.Option(min=1, help="Edits in each repeat.")] = 240,
    repeats: Annotated[int, typer.Option(min=1, help="The median of so many is told.")] = 3,
) -> None:
    """Print what a submit costs; the exit status is 1 if one was not answered with 202."""
    os.environ.update(ENVIRONMENT)
    settings = Settings.of_environment()
    with open(os.devnull, "w") as nowhere:
        telemetry.set_up_logging(settings, "api", nowhere)
        found = asyncio.run(measure(settings, submits, repeats))
    print(json.dumps(found, indent=1))
    raise typer.Exit(int(found["errors"] > 0))


if __name__ == "__main__":
    typer.run(main)
