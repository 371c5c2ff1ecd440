"""The workers of ``load.py``, which are simulated.

Each claims, renews, reports progress and ends jobs by the code that real workers use
(``customedit.jobs``), and sleeps where a real one would compute. No torch.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from redis import Redis

from benchmarks.load_clients import PICTURE, timed
from customedit.config.settings import Settings
from customedit.diffusion.profile import Sizes
from customedit.estimates import speed
from customedit.estimates.speed import Line
from customedit.estimates.workers import BEAT_S, WorkerBase, WorkerReport, Workers
from customedit.jobs import notifications
from customedit.jobs.claims import Claim
from customedit.jobs.journal import Journal
from customedit.jobs.records import EditOutcome, JobProgress
from customedit.jobs.redis import connect
from customedit.jobs.store import Jobs
from customedit.storage.store import Storage
from customedit.tenants.catalogue import Concepts

PROCESSES: Final = 2  # of simulated workers: one interpreter for all would measure its own lock
DEATHS: Final = 0.01  # of attempts that end without a word


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
