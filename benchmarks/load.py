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
import json
import multiprocessing
import os
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from redis import Redis

from benchmarks.load_clients import PICTURE, Client, Tenants, list_times, timed
from benchmarks.load_workers import Beats, Record, outcome, report_of, shares, work
from customedit.config.settings import Settings
from customedit.devserver.local_servers import LocalServers
from customedit.devserver.stack import Stack
from customedit.estimates.simulation import Machine, Waiting, play
from customedit.estimates.work import edit_work
from customedit.jobs.claims import Claim
from customedit.jobs.journal import Journal
from customedit.jobs.orphans import Orphans
from customedit.jobs.records import JobProgress, JobRecord
from customedit.jobs.redis import connect, memory
from customedit.jobs.store import Jobs
from customedit.schemas import ids
from customedit.schemas.requests import EditRequest
from customedit.storage.store import Storage
from customedit.tenants.catalogue import Concepts

ENVIRONMENT: Final = {
    "CUSTOMEDIT_QUEUE_LIMIT_PER_TENANT": "100000",
    "CUSTOMEDIT_RATE_PER_MINUTE": "1000000",
    "CUSTOMEDIT_LEASE_SECONDS": "10",
    "CUSTOMEDIT_HEARTBEAT_SECONDS": "2",
}
BATCH: Final = 16  # as in worker.reconciler, which needs torch

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
