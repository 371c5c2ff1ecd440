"""The clients of ``load.py``: tenants that submit edits over HTTP and ask for lists."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from redis import Redis

from customedit.config.settings import Settings
from customedit.devserver.stack import Stack
from customedit.jobs.records import ImageRecord
from customedit.schemas import ids
from customedit.storage import object_keys
from customedit.tenants.access import ApiKeys
from customedit.tenants.catalogue import Images

PICTURE: Final = (64, 64)

LISTS: Final = {
    "newest": "/v1/jobs?limit=20",
    "queued": "/v1/jobs?limit=20&state=queued",
    "succeeded": "/v1/jobs?limit=20&state=succeeded",
    "of a kind that is rare": "/v1/jobs?limit=20&kind=customize",
    "edits": "/v1/edits?limit=20",
}


def timed(call: Callable[[], object], times: list[float]) -> object:
    """What ``call`` gives; its seconds are added to ``times``."""
    began = time.perf_counter()
    try:
        return call()
    finally:
        times.append(time.perf_counter() - began)


@dataclass
class Client:
    """A tenant on one kept connection."""

    url: str
    key: str
    image: str

    def __post_init__(self) -> None:
        at = urlsplit(self.url)
        self._connection = http.client.HTTPConnection(at.hostname or "", at.port, timeout=120)
        self._head = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """The document that answers. Raises RuntimeError for any status from 300 on."""
        text = None if body is None else json.dumps(body)
        try:
            self._connection.request(method, path, text, self._head)
            answer = self._connection.getresponse()
        except http.client.RemoteDisconnected:  # idle for longer than the API keeps it
            if method != "GET":
                raise
            self._connection.request(method, path, text, self._head)
            answer = self._connection.getresponse()
        document = answer.read()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {document[:300]!r}")
        return json.loads(document)

    def submit(self, number: int) -> str:
        """Submits an edit; gives the job's id."""
        body = {
            "image": self.image,
            "source_prompt": "a photo of a mug on a table",
            "target_prompt": "a photo of a red mug on a table",
            "seeds": [number],
        }
        return str(self.ask("POST", "/v1/edits", body)["id"])


@dataclass
class Tenants:
    """Clients of all tenants; half of all jobs are the first one's."""

    clients: list[Client]

    @classmethod
    def make(cls, stack: Stack, settings: Settings, redis: Redis, count: int) -> Tenants:
        """Keys and one record of an image each."""
        keys, images = ApiKeys(redis, settings), Images(redis, settings)
        clients = []
        for number in range(count):
            tenant = f"tenant-{number}"
            image = ids.of_image(tenant.encode())
            key = object_keys.image(tenant, image, "1", object_keys.PICTURE)
            images.put(
                ImageRecord(
                    id=image, tenant=tenant, media_type="image/png", bytes=1, width=PICTURE[0],
                    height=PICTURE[1], key=key, created_at=time.time(),
                )
            )  # fmt: skip
            clients.append(Client(stack.url, keys.create(tenant)[1], image))
        return cls(clients)

    def submit(self, first: int, count: int, threads: int) -> tuple[list[str], list[float]]:
        """``count`` edits from several clients at once: their ids, and seconds until each 202."""
        made: list[str] = []
        seconds: list[float] = []

        def some(offset: int) -> None:
            own = [Client(c.url, c.key, c.image) for c in self.clients]
            for number in range(first + offset, first + count, threads):
                client = own[0] if number % 2 else own[number // 2 % len(own)]
                made.append(str(timed(lambda c=client, n=number: c.submit(n), seconds)))  # type: ignore[misc]

        workers = [threading.Thread(target=some, args=[offset]) for offset in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return made, seconds


def list_times(client: Client, rounds: int) -> dict[str, list[float]]:
    """Seconds of each list, and of the page in the middle of all jobs."""
    times: dict[str, list[float]] = {name: [] for name in (*LISTS, "one job")}
    for _ in range(rounds):
        for name, path in LISTS.items():
            page: Any = timed(lambda p=path: client.ask("GET", p), times[name])  # type: ignore[misc]
            if name == "newest" and page["items"]:
                job = f"/v1/jobs/{page['items'][-1]['id']}"
                timed(lambda p=job: client.ask("GET", p), times["one job"])  # type: ignore[misc]
    return times
