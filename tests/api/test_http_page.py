"""``docs/http.md`` is sent to a real front end, request by request, and its answers compared."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from customedit.jobs.store import Jobs
from customedit.storage.store import Storage
from customedit.tenants.catalogue import Concepts

from .conftest import finish_concept, finish_edit, png

PAGE = Path(__file__).parents[2] / "docs" / "http.md"
BLOCK = re.compile(r"```http\n(.*?)\n```\n```(json|sse) (\d+)\n(.*?)```", re.DOTALL)
NAME = re.compile(r"\$[A-Z]+")
FILES = {"reference.png": png("red", (64, 64)), "source.png": png("white", (64, 64))}


@dataclass(frozen=True)
class Exchange:
    """A request of the page and its answer."""

    method: str
    path: str
    headers: dict[str, str]
    body: str
    kind: str
    status: int
    answer: str


def exchanges() -> Iterator[Exchange]:
    for request, kind, status, answer in BLOCK.findall(PAGE.read_text("utf-8")):
        head, _, body = request.partition("\n\n")
        first, *lines = head.splitlines()
        headers = dict(line.split(": ", 1) for line in lines)
        method, path = first.split(" ")
        yield Exchange(method, path, headers, body, kind, int(status), answer.strip())


class Reader:
    """Compares answers, and learns what ``$NAMES`` stand for."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}

    def fill(self, text: str) -> str:
        return NAME.sub(lambda m: self.names.get(m[0], m[0]), text)

    def compare(self, told: Any, found: Any, where: str = "") -> None:
        if told == "...":
            return
        if isinstance(told, str) and NAME.fullmatch(told) and told not in self.names:
            assert isinstance(found, str) and found, where
            self.names[told] = found
        elif isinstance(told, str):
            assert self.fill(told) == found, where
        elif isinstance(told, dict):
            assert isinstance(found, dict) and set(told) == set(found), where
            for name in told:
                self.compare(told[name], found[name], f"{where}.{name}")
        elif isinstance(told, list):
            assert isinstance(found, list), where
            if told != ["..."]:
                assert len(told) == len(found), where
            for number, (one, other) in enumerate(zip(told, found, strict=False)):
                self.compare(one, other, f"{where}[{number}]")
        else:
            assert told == found, where


def test_the_page_is_true(
    anna: httpx.Client, jobs: Jobs, concepts: Concepts, storage: Storage
) -> None:
    reader = Reader()
    done = 0
    for exchange in exchanges():
        path = reader.fill(exchange.path)
        if "Prefer" in exchange.headers:  # a worker has come to its end meanwhile
            finish(jobs, concepts, storage, path.split("/")[3])
        answer = send(anna, exchange, path, reader)
        where = f"{exchange.method} {exchange.path}"
        assert answer.status_code == exchange.status, (where, answer.text)
        if exchange.kind == "sse":
            for line in exchange.answer.splitlines():
                kind, _, data = line.partition(": ")
                if kind == "data":
                    found = [x for x in answer.text.splitlines() if x.startswith("data: ")]
                    assert json.loads(data) in [json.loads(x[6:]) for x in found], where
        elif exchange.answer:
            reader.compare(json.loads(exchange.answer), answer.json(), where)
        else:
            assert answer.content == b"", where
        done += 1
    assert done == PAGE.read_text("utf-8").count("```http")


def send(client: httpx.Client, exchange: Exchange, path: str, reader: Reader) -> httpx.Response:
    headers = dict(exchange.headers)
    if file := headers.pop("file", None):
        name = file.removeprefix("@")
        return client.post(path, files={"file": (name, FILES[name], "image/png")})
    body: dict[str, Any] = {}
    if exchange.body:
        body["json"] = json.loads(reader.fill(exchange.body))
    return client.request(exchange.method, path, headers=headers, **body)


def finish(jobs: Jobs, concepts: Concepts, storage: Storage, job: str) -> None:
    record = jobs.peek(job)
    assert record is not None
    if record.kind == "edit":
        finish_edit(jobs, storage, job)
    else:
        finish_concept(jobs, concepts, storage, job)
