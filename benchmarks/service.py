"""How the service answers: ``python benchmarks/service.py submit | latency | start | streams``.

``submit``: POSTs of edits until their 202, the request journaled in S3 before each, from 32 clients
at once to one front end, or several (``--apis``); and how much processor time a submit takes of
each process, which tells more than seconds where the machine does other work too. ``latency``:
small edits through the whole service, one after another, on an idle worker and on one that trains.
``start``: in one process, from handing an edit to the engine until it begins and until its first
UNet call is answered, idle and beside a training, whose steps are timed as well. ``streams``: event
streams of five tenants on one front end, each with events all the time, and beside them another
tenant's calls on one connection.

All on the bundled base and local servers; clients and service share the machine, which is named.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import psutil  # type: ignore[import-untyped]
import typer

from customedit.client import CustomEdit, TrainingOptions
from customedit.devserver.stack import Stack
from customedit.jobs.records import JobProgress
from customedit.jobs.redis import connect
from customedit.jobs.store import Jobs
from customedit.mini import samples
from customedit.mini.evaluate import machine
from customedit.schemas.answers import Job
from customedit.tenants.access import ApiKeys

SOURCE, LOOK = samples.sources()[3], samples.looks()[0]
UNLIMITED = {
    "CUSTOMEDIT_QUEUE_LIMIT_PER_TENANT": "100000",
    "CUSTOMEDIT_RATE_PER_MINUTE": "1000000",
    "CUSTOMEDIT_API_CONNECTIONS_PER_ADDRESS": "2000",
}

app = typer.Typer(add_completion=False)


def percentiles(seconds: list[float]) -> dict[str, float]:
    """p50, p99 and the largest, in milliseconds."""
    ordered = sorted(seconds)
    at = min(len(ordered) - 1, int(0.99 * len(ordered)))
    return {
        "p50_ms": round(1000 * statistics.median(ordered), 1),
        "p99_ms": round(1000 * ordered[at], 1),
        "max_ms": round(1000 * ordered[-1], 1),
    }


@contextmanager
def started(workers: int, apis: int = 1) -> Iterator[Stack]:
    """The whole service."""
    os.environ.update(UNLIMITED)
    with (
        tempfile.TemporaryDirectory() as folder,
        Stack(Path(folder), port=0, workers=workers, apis=apis, say=lambda _: None) as stack,
    ):
        yield stack


@contextmanager
def service(workers: int) -> Iterator[tuple[str, str]]:
    """The whole service; gives its address and a key."""
    with started(workers) as stack:
        settings = stack.settings()
        _, key = ApiKeys(connect(settings), settings).create("bench")
        yield stack.url, key


@app.command()
def submit(
    requests: Annotated[int, typer.Option(min=32)] = 1600,
    clients: Annotated[int, typer.Option(min=1)] = 32,
    apis: Annotated[int, typer.Option(min=1)] = 1,
) -> None:
    """Requests per second, latency until 202, and processor time of each process.

    apis: processes of the front end, over which the clients are spread.
    """
    with started(workers=0, apis=apis) as stack:
        settings = stack.settings()
        _, key = ApiKeys(connect(settings), settings).create("bench")
        with CustomEdit(stack.url, key) as client:
            image = client.upload(SOURCE.image).id
        _submitting(stack, key, image, clients * 4, clients)  # warm
        before = _processor_seconds(stack)
        found = _submitting(stack, key, image, requests, clients)
        after = _processor_seconds(stack)
    spent = {name: after[name] - before[name] for name in after}
    spent["clients"] = found["processor"]
    of_one = {name: round(1000 * seconds / requests, 2) for name, seconds in spent.items()}
    say(
        {
            "front ends": apis,
            "clients": clients,
            "requests": len(found["seconds"]),
            "errors": len(found["errors"]),
            "per_second": round(len(found["seconds"]) / found["took"], 1),
            **percentiles(found["seconds"]),
            "processor_ms_of_a_submit": of_one | {"all": round(sum(of_one.values()), 2)},
        }
    )


def _processor_seconds(stack: Stack) -> dict[str, float]:
    """User and system time so far of each process of the service, with its children."""
    spent = {}
    for process in stack.supervisor.processes:
        root = psutil.Process(process.pid)
        times = [p.cpu_times() for p in (root, *root.children(recursive=True))]
        spent[process.name] = sum(t.user + t.system for t in times)
    return spent


def _submitting(stack: Stack, key: str, image: str, requests: int, clients: int) -> dict[str, Any]:
    """What ``submitting.py`` finds out. No two requests have the same prompts."""
    bodies = [
        json.dumps(
            {
                "image": image,
                "source_prompt": f"{SOURCE.prompt}, view {number}",
                "target_prompt": f"{SOURCE.colour_prompt}, view {number}",
                "steps": 10,
            }
        )
        for number in range(requests)
    ]
    given = {"urls": stack.urls, "clients": clients, "bodies": bodies}
    given["head"] = f"Authorization: Bearer {key}\r\n"
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("submitting.py")],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@app.command()
def latency(edits: Annotated[int, typer.Option(min=2)] = 40) -> None:
    """Edits of two steps through the whole service: until the claim, and until the result."""
    with service(workers=1) as (url, key), CustomEdit(url, key) as client:
        image = client.upload(SOURCE.image).id
        references = [client.upload(path).id for path in LOOK.images[:3]]

        def measured(count: int) -> dict[str, Any]:
            claims, totals = [], []
            for number in range(count):
                job = client.edit(
                    image=image,
                    source_prompt=SOURCE.prompt,
                    target_prompt=SOURCE.colour_prompt,
                    steps=2,
                    strengths=[0.1 + number / 1000],
                )
                done = client.wait(job)
                assert done.started_at is not None and done.finished_at is not None
                claims.append((done.started_at - done.created_at).total_seconds())
                totals.append((done.finished_at - done.created_at).total_seconds())
            return {"until_claimed": percentiles(claims), "until_done": percentiles(totals)}

        measured(2)
        idle = measured(edits)
        training = client.customize(
            references=references,
            noun=LOOK.noun,
            token=LOOK.token,
            training=TrainingOptions(steps=20_000, class_images=0),
        )
        until(lambda: (client.job(training.id).progress or Nothing).phase == "train")
        say({"idle": idle, "beside a training": measured(edits)})
        client.cancel(training.id)


class Nothing:
    """Progress of a job that has none yet."""

    phase = ""


@app.command()
def start(edits: Annotated[int, typer.Option(min=2)] = 100) -> None:
    """From the engine's door to an edit's begin, and to its first answered UNet call."""
    from PIL import Image

    from customedit.concepts.prompts import ConceptPrompts
    from customedit.concepts.settings import TrainingSettings
    from customedit.concepts.training import train_concept
    from customedit.diffusion.base import Base
    from customedit.diffusion.method import Method, Progress, Turn
    from customedit.editing.inversion import invert
    from customedit.mini.draw import hush
    from worker.engine_thread import EngineThread
    from worker.metrics import Metrics

    hush()
    base = Base.load()
    picture = Image.open(SOURCE.image).convert("RGB")
    engine = EngineThread(base, Metrics(), max_rows=24, patience=600)
    engine.start()

    begun: list[float] = []

    def editing() -> Method[Any]:
        begun.append(time.perf_counter())
        return (yield from invert(base, base.encode(picture), SOURCE.prompt, steps=1))

    chance = random.Random(0)

    def measured(count: int) -> dict[str, Any]:
        waits, answers = [], []
        for _ in range(count):
            asked = time.perf_counter()
            engine.submit(editing()).result()
            answers.append(time.perf_counter() - asked)
            waits.append(begun[-1] - asked)
            time.sleep(chance.uniform(0.0, 0.4))  # at any moment of a step
        return {"until_it_begins": percentiles(waits), "until_first_answer": percentiles(answers)}

    steps: list[float] = []

    def timed(method: Method[Any]) -> Method[Any]:
        """``method``, noting the seconds of each training step: its work between Turns."""
        answer, spent, trains = None, 0.0, False
        while True:
            at = time.perf_counter()
            try:
                request = method.send(answer)
            except StopIteration as end:
                return end.value
            spent += time.perf_counter() - at
            if isinstance(request, Progress):
                trains |= request.phase == "train"
            if isinstance(request, Turn):
                if trains:
                    steps.append(spent)
                spent = 0.0
            answer = yield request

    measured(5)
    idle = measured(edits)
    alone = train_concept(
        base,
        [Image.open(path).convert("RGB") for path in LOOK.images[:3]],
        ConceptPrompts(LOOK.token, LOOK.noun, LOOK.attribute),
        TrainingSettings.of(base, steps=20_000, class_images=0),
    )
    training = engine.submit(timed(alone), priority=10)
    until(lambda: len(steps) > 20)
    before = len(steps)
    beside = measured(edits)
    shared = steps[before:]
    training.cancel()
    engine.stop()
    say(
        {
            "idle": idle,
            "beside a training": beside,
            "a step of the training, alone": percentiles(steps[:before]),
            "a step of the training, between those edits": percentiles(shared),
        }
    )


@app.command()
def streams(
    count: Annotated[int, typer.Option(min=5)] = 500,
    seconds: Annotated[float, typer.Option(min=1)] = 20,
) -> None:
    """Event streams of five tenants; calls of a sixth beside them, before and meanwhile."""
    with started(workers=0) as stack:
        settings = stack.settings()
        jobs = Jobs(connect(settings), settings)
        keys = [ApiKeys(jobs.client, settings).create(f"tenant-{k}")[1] for k in range(6)]
        *watching, other = [CustomEdit(stack.url, key) for key in keys]
        made = [_edit(client).id for client in watching for _ in range(10)]
        claims = [claim for job in made if (claim := jobs.claim(job, "bench")) is not None]
        assert len(claims) == len(made)
        image = other.upload(SOURCE.image).id
        before = _other_calls(stack.url, keys[5], image, 5)
        at = urlsplit(stack.url)
        watched = Watched(at.hostname or "", at.port or 80)
        reading = threading.Thread(
            target=watched.run, args=([(keys[k % 5], made[k % 5 * 10 + k // 5 % 10])
                                       for k in range(count)],)
        )  # fmt: skip
        reading.start()
        until(lambda: watched.open + watched.refused == count)
        stop = threading.Event()

        def happen() -> None:
            step = 0
            while not stop.wait(0.5):
                step += 1
                for claim in claims:
                    jobs.progress(claim, JobProgress(phase="edit", step=step, steps=10**6))

        events = threading.Thread(target=happen)
        events.start()
        beside = _other_calls(stack.url, keys[5], image, seconds)
        stop.set()
        events.join()
        cut = count - watched.refused - watched.open
        for claim in claims:
            jobs.cancel(claim.record.tenant, claim.record.id)
            jobs.cancelled(claim)
        reading.join(60)
        say(
            {
                "streams": count,
                "refused": watched.refused,
                "cut": cut,
                "ended with their job": watched.ended,
                "events read": watched.events,
                "other tenant, before": before,
                "other tenant, beside": beside,
            }
        )


def _edit(client: CustomEdit) -> Job:
    image = client.upload(SOURCE.image).id
    return client.edit(image=image, source_prompt=SOURCE.prompt, target_prompt=SOURCE.colour_prompt)


class Watched:
    """Event streams that are read in one thread, over bare sockets: the reader costs little."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self.open = self.refused = self.ended = self.events = 0

    def run(self, streams: list[tuple[str, str]]) -> None:
        """Read all streams, each given as key and job, until they end."""

        async def all_of_them() -> None:
            await asyncio.gather(*(self._read(*stream) for stream in streams))

        asyncio.run(all_of_them())

    async def _read(self, key: str, job: str) -> None:
        reader, writer = await asyncio.open_connection(self.host, self.port)
        head = f"GET /v1/jobs/{job}/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
        writer.write(f"{head}\r\n".encode())
        first = await reader.readline()
        if b" 200 " not in first:
            self.refused += 1
            return
        self.open += 1
        finished = False
        async for line in reader:
            self.events += line.startswith(b"data: ")
            finished |= line.startswith(b"data: ") and b'"cancelled"' in line
            if line == b"0\r\n":  # the last chunk
                break
        self.open -= 1
        self.ended += finished
        writer.close()


def _other_calls(url: str, key: str, image: str, seconds: float) -> dict[str, Any]:
    """Latencies of several calls by turns, for so many seconds, on one kept connection."""
    at = urlsplit(url)
    connection = http.client.HTTPConnection(at.hostname or "", at.port, timeout=60)
    head = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    body = json.dumps(
        {
            "image": image,
            "source_prompt": SOURCE.prompt,
            "target_prompt": SOURCE.colour_prompt,
        }
    )
    calls = {
        "healthz": ("GET", "/healthz", None),
        "limits": ("GET", "/v1/limits", None),
        "list jobs": ("GET", "/v1/jobs?limit=5", None),
        "submit": ("POST", "/v1/edits", body),
    }
    took: dict[str, list[float]] = {name: [] for name in calls}
    bad = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for name, call in calls.items():
            began = time.perf_counter()
            connection.request(*call, headers=head)
            answer = connection.getresponse()
            answer.read()
            took[name].append(time.perf_counter() - began)
            bad += answer.status >= 400
        time.sleep(0.02)
    connection.close()
    return {name: percentiles(values) for name, values in took.items()} | {"errors": bad}


def until(met: Callable[[], bool]) -> None:
    """Wait for ``met``."""
    while not met():
        time.sleep(0.05)


def say(found: dict[str, Any]) -> None:
    """Print figures and machine as JSON."""
    ours = machine() | {"load": round(os.getloadavg()[0], 2)}
    print(json.dumps({**found, "machine": ours}, indent=1))


if __name__ == "__main__":
    app()
