"""The service under many jobs and workers: ``python benchmarks/load.py run | scripts | forecasts``.

``run``: The real API, Redis (valkey) and S3 (SeaweedFS); workers that are simulated: each claims,
renews, reports progress and ends jobs by the code that real workers use (``customedit.jobs``), and
sleeps where a real one would compute. No torch. From the beginning they say every two seconds that
they live and how fast, so that the API forecasts each job that is not finished. First all jobs are
submitted over HTTP, half of them by one tenant; after each tenth it is measured how long lists and
the reconciler's calls take. Then the workers run them; some die in the middle of a job, whose lease
runs out. At the end every job must have ended once: ``lost`` and ``doubled`` are 0, or the exit
status is 1.

``scripts``: how long Redis itself takes for claims, lists and the reconciler's calls as jobs grow
in number, without API, S3 and workers: other work of the machine hardly shows in it.

``forecasts``: processor time of the API to play a queue on, whose slots are all taken.

    python benchmarks/load.py run                              # 10 workers, 2,000 jobs: minutes
    python benchmarks/load.py run --workers 100 --jobs 100000  # hours on two cores

Clients, workers and servers share the machine, which is named.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import multiprocessing
import os
import random
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import typer
from redis import Redis

from customedit.config.settings import Settings
from customedit.devserver.local_servers import LocalServers
from customedit.devserver.stack import Stack
from customedit.diffusion.profile import Sizes
from customedit.estimates import speed
from customedit.estimates.simulation import Machine, Waiting, play
from customedit.estimates.speed import Line
from customedit.estimates.work import edit_work
from customedit.estimates.workers import BEAT_S, WorkerBase, WorkerReport, Workers
from customedit.jobs import notifications
from customedit.jobs.claims import Claim
from customedit.jobs.journal import Journal
from customedit.jobs.orphans import Orphans
from customedit.jobs.records import EditOutcome, ImageRecord, JobProgress, JobRecord
from customedit.jobs.redis import connect, memory
from customedit.jobs.store import Jobs
from customedit.schemas import ids
from customedit.schemas.requests import EditRequest
from customedit.storage import object_keys
from customedit.storage.store import Storage
from customedit.tenants.access import ApiKeys
from customedit.tenants.catalogue import Concepts, Images

ENVIRONMENT: Final = {
    "CUSTOMEDIT_QUEUE_LIMIT_PER_TENANT": "100000",
    "CUSTOMEDIT_RATE_PER_MINUTE": "1000000",
    "CUSTOMEDIT_LEASE_SECONDS": "10",
    "CUSTOMEDIT_HEARTBEAT_SECONDS": "2",
}
PROCESSES: Final = 2  # of simulated workers: one interpreter for all would measure its own lock
BATCH: Final = 16  # as in worker.reconciler, which needs torch
PICTURE: Final = (64, 64)
DEATHS: Final = 0.01  # of attempts that end without a word
LISTS: Final = {
    "newest": "/v1/jobs?limit=20",
    "queued": "/v1/jobs?limit=20&state=queued",
    "succeeded": "/v1/jobs?limit=20&state=succeeded",
    "of a kind that is rare": "/v1/jobs?limit=20&kind=customize",
    "edits": "/v1/edits?limit=20",
}

app = typer.Typer(add_completion=False)


def summary(seconds: Iterable[float]) -> dict[str, float]:
    """How many, their p50, p99 and the largest, in milliseconds."""
    ordered = sorted(seconds)
    if not ordered:
        return {"count": 0}
    at = min(len(ordered) - 1, int(0.99 * len(ordered)))
    return {
        "count": len(ordered),
        "p50_ms": round(1000 * statistics.median(ordered), 2),
        "p99_ms": round(1000 * ordered[at], 2),
        "max_ms": round(1000 * ordered[-1], 2),
    }


def timed(call: Callable[[], object], times: list[float]) -> object:
    """What ``call`` gives; its seconds are added to ``times``."""
    began = time.perf_counter()
    try:
        return call()
    finally:
        times.append(time.perf_counter() - began)


# Clients


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


# Workers


def report_of(job_s: float, slots: int = 1) -> WorkerReport:
    """What a worker says that takes ``job_s`` seconds for an edit."""
    base = WorkerBase(
        name="load", fingerprint="load", device="cpu", dtype="float32", guidance=4.0,
        sizes=Sizes(side=128, multiple=16, factor=8), rows=24,
    )  # fmt: skip
    call, beside = Line(), Line()
    for rows in (1, 3):  # of which an edit has 50 each
        call.add(rows, 0.009 * job_s, keep=1.0)
    beside.add(1, 0.1 * job_s, keep=1.0)
    lines = {speed.call(base.latent_cells(PICTURE)): call, "edit": beside}
    return WorkerReport(name="", kinds=("edit",), slots=slots, base=base, speed=lines)


class Beats:
    """Says every ``BEAT_S`` seconds that workers live which take ``job_s`` seconds for an edit."""

    def __init__(self, redis: Redis, settings: Settings, names: list[str], job_s: float) -> None:
        report = report_of(job_s)
        self._reports = [report.model_copy(update={"name": name}) for name in names]
        self._workers, self._over = Workers(redis, settings), threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.is_set():
            for report in self._reports:
                self._workers.beat(report)
            self._over.wait(BEAT_S)


def shares(workers: int) -> dict[str, int]:
    """How many simulated workers each process has, by the name of the process."""
    return {f"w{n}": workers // PROCESSES + (n < workers % PROCESSES) for n in range(PROCESSES)}


@dataclass
class Record:
    """What a process of simulated workers measured. ended: by job, how often it was committed."""

    claims: list[float] = field(default_factory=list)
    holds: list[float] = field(default_factory=list)
    commits: list[float] = field(default_factory=list)
    ended: Counter[str] = field(default_factory=Counter)
    died: int = 0
    lost: int = 0


def work(count: int, job_s: float, name: str, left: Any, results: Any) -> None:
    """A process of ``count`` simulated workers, until ``left`` (jobs still open) is 0."""
    settings = Settings.of_environment()
    redis, storage = connect(settings), Storage(settings)
    jobs, journal = Jobs(redis, settings), Journal(storage)
    concepts, record = Concepts(redis, settings), Record()

    def one(number: int) -> None:
        chance = random.Random(f"{name} {number}")
        while left.value > 0:
            redis.lpop(notifications.queue(settings, "edit"))
            claim: Any = timed(lambda: jobs.claim_next(["edit"], f"{name}-{number}"), record.claims)
            if claim is None:
                time.sleep(1.0)  # as a worker's poll
            elif attempt(claim, chance):
                with left.get_lock():
                    left.value -= 1
                journal.settle_job(jobs, concepts, claim.id)

    def attempt(claim: Claim, chance: random.Random) -> bool:
        """Whether this ended the job."""
        steps = max(1, round(job_s))
        for step in range(steps):
            time.sleep(job_s / steps * chance.uniform(0.5, 1.5))
            if chance.random() < DEATHS / steps:
                record.died += 1
                return False
            progress = JobProgress(phase="edit", step=step + 1, steps=steps)
            if timed(lambda p=progress: jobs.progress(claim, p), record.holds) == "lost":  # type: ignore[misc]
                record.lost += 1
                return False
        result = outcome(claim).model_dump(mode="json")
        ended = bool(timed(lambda: jobs.commit(claim, result), record.commits))
        record.ended[claim.id] += ended
        return ended

    threads = [threading.Thread(target=one, args=[number]) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    results.put(record)


def outcome(claim: Claim) -> EditOutcome:
    """A result as large as an edit's of one picture."""
    recipe = dict.fromkeys((f"field_{n}" for n in range(40)), "a value as recipes have them")
    return EditOutcome.model_validate(
        {
            "outputs": [
                {
                    "strength": 0.5, "seed": 0, "image_key": claim.key("0.png"), "best": True,
                    "similarities": {"source": 0.9, "text": 0.3}, "recipe": recipe,
                }
            ],
            "source_key": claim.key("source.png"),
            "sheet_key": claim.key("sheet.png"),
        }
    )  # fmt: skip


# Measurements


@dataclass
class Maintenance:
    """The calls that the reconciler makes in each round, timed."""

    jobs: Jobs
    orphans: Orphans
    journal: Journal
    concepts: Concepts

    def times(self) -> dict[str, float]:
        """Milliseconds of each call."""
        calls: dict[str, Callable[[], object]] = {
            "overdue": self.jobs.overdue,
            "queue_depths": self.jobs.queue_depths,
            "oldest_queued_age": lambda: self.jobs.oldest_queued_age("edit"),
            "due_cleanups": lambda: self.jobs.due_cleanups(BATCH),
            "expired": lambda: self.jobs.expired(BATCH),
            "settle": lambda: self.journal.settle(self.jobs, self.concepts, BATCH),
            "orphans": self.orphans.look,
        }
        seconds: dict[str, list[float]] = {name: [] for name in calls}
        for name, call in calls.items():
            timed(call, seconds[name])
        return {name: round(1000 * times[0], 2) for name, times in seconds.items()}


def redis_cost(redis: Redis) -> tuple[float, int]:
    """Microseconds that Redis spent on scripts so far, and how many it ran."""
    info: Any = redis.info("commandstats")
    stats = info.get("cmdstat_evalsha", {"usec": 0, "calls": 0})
    return float(stats["usec"]), int(stats["calls"])


@app.command("run")
def load(
    jobs: Annotated[int, typer.Option(min=20)] = 2000,
    workers: Annotated[int, typer.Option(min=2)] = 10,
    tenants: Annotated[int, typer.Option(min=2)] = 20,
    job_seconds: Annotated[float, typer.Option(min=0.01)] = 1.0,
    clients: Annotated[int, typer.Option(min=1, help="Submitting at once.")] = 8,
    rounds: Annotated[int, typer.Option(min=1, help="Lists at each size.")] = 10,
    steps: Annotated[int, typer.Option(min=1, help="Sizes that are measured.")] = 10,
    out: Annotated[Path | None, typer.Option(help="Where the JSON goes.")] = None,
) -> None:
    """Submit, measure, run, count."""
    os.environ.update(ENVIRONMENT)
    with (
        tempfile.TemporaryDirectory() as folder,
        Stack(Path(folder), port=0, workers=0, say=lambda line: None) as stack,
        contextlib.ExitStack() as alive,
    ):
        os.environ.update(stack.environment)
        settings = stack.settings()
        redis, storage = connect(settings), Storage(settings)
        store, concepts = Jobs(redis, settings), Concepts(redis, settings)
        maintenance = Maintenance(
            store, Orphans(redis, settings, storage, store), Journal(storage), concepts
        )
        everyone = Tenants.make(stack, settings, redis, tenants)
        names = [f"{name}-{n}" for name, share in shares(workers).items() for n in range(share)]
        alive.enter_context(Beats(redis, settings, names, job_seconds))
        empty = memory(redis).used
        made: list[str] = []
        sizes = []
        for step in range(steps):
            count = jobs * (step + 1) // steps - len(made)
            new, seconds = everyone.submit(len(made), count, clients)
            made += new
            lists = list_times(everyone.clients[0], rounds)
            sizes.append(
                {
                    "jobs": len(made),
                    "submit": summary(seconds),
                    "lists": {name: summary(times) for name, times in lists.items()},
                    "all lists": summary(t for times in lists.values() for t in times),
                    "reconciler_ms": maintenance.times(),
                    "redis_bytes_of_a_job": round((memory(redis).used - empty) / len(made)),
                }
            )
        running = run(redis, everyone.clients[0], made, workers, job_seconds, maintenance)
        states = Counter(getattr(store.peek(job), "state", "gone") for job in made)
        running["redis_bytes_of_a_finished_job"] = round((memory(redis).used - empty) / len(made))
    ended: Counter[str] = running.pop("ended")
    found = {
        "jobs": len(made),
        "workers": workers,
        "tenants": tenants,
        "lost": max(sum(not ended[job] for job in made), len(made) - states["succeeded"]),
        "doubled": sum(times > 1 for times in ended.values()),
        "growth": sizes,
        "run": running,
        "machine": {"cores": os.cpu_count(), "load": round(os.getloadavg()[0], 2)},
    }
    if out is not None:
        out.write_text(json.dumps(found, indent=1))
    print(json.dumps(running | {k: found[k] for k in ("lost", "doubled")}, indent=1))
    print(table(sizes))
    raise typer.Exit(int(found["lost"] != 0 or found["doubled"] != 0))


def run(
    redis: Redis,
    client: Client,
    made: list[str],
    workers: int,
    job_s: float,
    maintenance: Maintenance,
) -> dict[str, Any]:
    """Lets the workers do all jobs; lists are asked for and the reconciler's calls are made."""
    spawn = multiprocessing.get_context("spawn")
    left, results = spawn.Value("i", len(made)), spawn.Queue()
    processes = [
        spawn.Process(target=work, args=(share, job_s, name, left, results))
        for name, share in shares(workers).items()
    ]
    usec, calls = redis_cost(redis)
    began = time.perf_counter()
    for process in processes:
        process.start()
    lists: list[float] = []
    rounds: list[dict[str, float]] = []
    while left.value > 0:
        lists += [t for times in list_times(client, 1).values() for t in times]
        rounds.append(maintenance.times())
        time.sleep(2.0)
    records: list[Record] = [results.get() for _ in processes]
    for process in processes:
        process.join()
    took = time.perf_counter() - began
    spent, ran = redis_cost(redis)
    ended: Counter[str] = sum((record.ended for record in records), Counter())
    return {
        "ended": ended,
        "jobs_per_second": round(len(made) / took, 1),
        "claim": summary(t for record in records for t in record.claims),
        "progress": summary(t for record in records for t in record.holds),
        "commit": summary(t for record in records for t in record.commits),
        "lists": summary(lists),
        "reconciler_ms": {k: summary(r[k] / 1000 for r in rounds) for k in rounds[0]},
        "redis_ms_of_a_script": round((spent - usec) / 1000 / max(1, ran - calls), 3),
        "scripts_of_a_job": round((ran - calls) / len(made), 1),
        "died": sum(record.died for record in records),
        "lost_leases": sum(record.lost for record in records),
    }


def table(sizes: list[dict[str, Any]]) -> str:
    """Sizes against times, as Markdown."""
    names = list(sizes[0]["lists"])
    head = ["jobs", "submit p99", *(f"{name} p99" for name in names), "reconciler", "bytes a job"]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for size in sizes:
        row = [f"{size['jobs']:,}", f"{size['submit']['p99_ms']:.0f} ms"]
        row += [f"{size['lists'][name].get('p99_ms', 0):.0f} ms" for name in names]
        row += [f"{sum(size['reconciler_ms'].values()):.0f} ms"]
        row += [f"{size['redis_bytes_of_a_job']:,}"]
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


@app.command()
def scripts(
    jobs: Annotated[int, typer.Option(min=100)] = 100_000,
    tenants: Annotated[int, typer.Option(min=2)] = 20,
    sizes: Annotated[int, typer.Option(min=1, help="Sizes that are measured.")] = 5,
    repeats: Annotated[int, typer.Option(min=1)] = 20,
) -> None:
    """Microseconds of Redis at several sizes, as medians."""
    os.environ.update(ENVIRONMENT)
    with tempfile.TemporaryDirectory() as folder, LocalServers(Path(folder)) as servers:
        os.environ.update(servers.environment())
        settings = Settings.of_environment()
        redis = connect(settings)
        store = Jobs(redis, settings)
        empty = memory(redis).used
        made = 0
        for step in range(sizes):
            for number in range(made, jobs * (step + 1) // sizes):
                store.submit(plain_job(f"tenant-{0 if number % 2 else number // 2 % tenants}"))
            made = jobs * (step + 1) // sizes
            row = {"jobs": made, "bytes_of_a_job": (memory(redis).used - empty) // made}
            print(json.dumps(row | script_times(store, redis, repeats)), flush=True)


@app.command()
def forecasts(
    workers: Annotated[int, typer.Option(min=1)] = 100,
    slots: Annotated[int, typer.Option(min=1)] = 8,
    waiting: Annotated[int, typer.Option(min=0)] = 300,
) -> None:
    """Processor seconds to play a queue to its end."""
    report = report_of(1.0, slots)
    request = EditRequest.model_validate(
        {"image": ids.of_image(b""), "source_prompt": "a mug", "target_prompt": "a red mug"}
    )
    work = edit_work(request, report.base.latent_cells(PICTURE), inverted=False)
    under_way, chance = [], random.Random(0)
    for number in range(workers * slots):
        share = chance.uniform(0.1, 1)  # so that they do not end together
        rest = tuple(replace(stage, rounds=stage.rounds * share) for stage in work.stages)
        job = Waiting(f"running {number}", replace(work, stages=rest))
        under_way.append((number // slots, job))
    machines = [Machine(slots, report.base, report.kinds, report.speed) for _ in range(workers)]
    queue = [Waiting(f"waiting {number}", work) for number in range(waiting)]
    began = time.process_time()
    spans = play(machines, [queue], under_way)
    took = time.process_time() - began
    print(json.dumps({"workers": workers, "jobs": len(spans), "processor_s": round(took, 3)}))


def plain_job(tenant: str) -> JobRecord:
    """A record of an edit that uses nothing."""
    request = {"source_prompt": "a photo of a mug", "target_prompt": "a photo of a red mug"}
    now = time.time()
    return JobRecord(
        id=ids.new("job"), tenant=tenant, kind="edit", request=request, created_at=now,
        queued_at=now,
    )  # fmt: skip


def script_times(store: Jobs, redis: Redis, repeats: int) -> dict[str, float]:
    """Microseconds of one script each; the jobs that are claimed for it are ended."""
    claims: list[Claim] = []

    def claim() -> None:
        found = store.claim_next(["customize", "edit"], "load")
        assert found is not None
        claims.append(found)

    tenant = "tenant-0"
    calls: dict[str, Callable[[], object]] = {
        "claim": claim,
        "progress": lambda: store.progress(claims[-1], JobProgress(phase="edit", step=1, steps=2)),
        "commit": lambda: store.commit(claims[-1], outcome(claims[-1]).model_dump(mode="json")),
        "list newest": lambda: store.list(tenant, limit=20),
        "list queued": lambda: store.list(tenant, state="queued", limit=20),
        "list succeeded": lambda: store.list(tenant, state="succeeded", limit=20),
        "list a rare kind": lambda: store.list(tenant, kind="customize", limit=20),
        "list a concept without jobs": lambda: store.list(tenant, concept=ids.new("con")),
        "overdue": store.overdue,
        "due_cleanups": lambda: store.due_cleanups(BATCH),
    }
    spent: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            before = redis_cost(redis)[0]
            call()
            spent[name].append(redis_cost(redis)[0] - before)
    return {name: round(statistics.median(values)) for name, values in spent.items()}


if __name__ == "__main__":
    app()
