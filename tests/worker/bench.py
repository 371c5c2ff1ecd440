"""Workers as real processes on the real servers, and a bench to give them work."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redis import Redis

from customedit.config.settings import Settings
from customedit.jobs.journal import Journal
from customedit.jobs.records import ConceptRecord, ImageRecord, JobRecord
from customedit.jobs.store import Jobs
from customedit.mini import samples
from customedit.schemas import ids
from customedit.storage import object_keys
from customedit.storage.store import Storage
from customedit.tenants.catalogue import Catalogue

SOURCE = samples.sources()[3]
LOOK = samples.looks()[0]
ROOT = Path(__file__).parents[2]

Notify = Callable[[str, str], None]


def until(met: Callable[[], Any], what: str, seconds: float = 90) -> Any:
    """The first true answer of ``met``, asked again and again."""
    over = time.monotonic() + seconds
    while time.monotonic() < over:
        if found := met():
            return found
        time.sleep(0.05)
    raise AssertionError(f"not in {seconds:g} s: {what}")


@dataclass
class Bench:
    """A tenant with pictures who submits jobs and waits for them."""

    settings: Settings
    jobs: Jobs
    catalogue: Catalogue
    storage: Storage
    redis: Redis
    notify: Notify
    tenant: str = "acme"

    def image(self, path: Path = SOURCE.image) -> str:
        """Upload a picture; gives its id."""
        data = path.read_bytes()
        image_id = ids.of_image(data)
        key = object_keys.image(self.tenant, image_id, "1", object_keys.PICTURE)
        self.storage.put(key, data, "image/png")
        record = ImageRecord(
            id=image_id, tenant=self.tenant, media_type="image/png", bytes=len(data),
            width=128, height=128, key=key, created_at=time.time(),
        )  # fmt: skip
        Journal(self.storage).image(record)
        self.catalogue.put_image(record)
        return image_id

    def submit(
        self, kind: Any, request: dict[str, Any], concept: ConceptRecord | None = None
    ) -> str:
        """Submit a job and notify workers; gives its id."""
        now = time.time()
        record = JobRecord(
            id=concept.job if concept else ids.new("job"), tenant=self.tenant, kind=kind,
            request=request, created_at=now, queued_at=now, concept=concept.id if concept else None,
            webhook=request.get("webhook"),
        )  # fmt: skip
        Journal(self.storage).request(record, concept)
        self.jobs.submit(record, concept=concept)
        with contextlib.suppress(Exception):  # workers look by themselves as well
            self.notify(record.id, kind)
        return record.id

    def edit(self, **changes: Any) -> str:
        """Submit an edit of the cup."""
        asked = {
            "image": changes.pop("image", None) or self.image(),
            "source_prompt": SOURCE.prompt,
            "target_prompt": SOURCE.prompt.replace("white", "red"),
            "steps": 2,
        }
        return self.submit("edit", asked | changes)

    def customize(self, references: int = 3, **training: Any) -> str:
        """Submit a customization on the plaid look; gives the job's id."""
        concept = ConceptRecord(
            id=ids.new("con"), tenant=self.tenant, job=ids.new("job"), token=LOOK.token,
            noun=LOOK.noun, attribute=LOOK.attribute, created_at=time.time(),
            references=[self.image(p) for p in LOOK.images[:references]],
        )  # fmt: skip
        request = {
            "references": concept.references, "noun": LOOK.noun, "attribute": LOOK.attribute,
            "token": LOOK.token, "training": training,
        }  # fmt: skip
        return self.submit("customize", request, concept)

    def get(self, job_id: str) -> JobRecord:
        """The job's record."""
        record = self.jobs.get(self.tenant, job_id)
        assert record is not None
        return record

    def finished(self, job_id: str, seconds: float = 90) -> JobRecord:
        """The job's record once it is final."""
        until(lambda: self.get(job_id).finished, f"{job_id} final", seconds)
        return self.get(job_id)

    def running(self, job_id: str, phase: str, step: int = 0) -> JobRecord:
        """The job's record once it is at ``step`` of ``phase`` or beyond."""

        def there() -> bool:
            record = self.get(job_id)
            assert not record.finished, record
            at = record.progress
            return at is not None and at.phase == phase and at.step >= step

        until(there, f"{job_id} at step {step} of {phase}")
        return self.get(job_id)

    def succeeded(self, job_id: str, seconds: float = 90) -> dict[str, Any]:
        """The job's result."""
        record = self.finished(job_id, seconds)
        assert record.state == "succeeded", record.error
        assert record.result is not None
        return record.result

    def names(self, job_id: str) -> list[str]:
        """What lies in the job's folder of the bucket."""
        folder = object_keys.job(self.tenant, job_id)
        return [s.key.removeprefix(folder) for s in self.storage.list(folder)]

    def states(self, job_id: str) -> list[str]:
        """The states that the job went through, by its events."""
        events = self.jobs.events(self.tenant, job_id)
        return [e.data["state"] for e in events if e.kind == "state"]


@dataclass
class Process:
    """A worker process."""

    pid: int
    port: int
    log: Path

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        try:
            state = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return False
        return state != "Z"

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send it a signal."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def gone(self, seconds: float = 60) -> None:
        """Wait for its end."""
        until(lambda: not self.alive, f"worker {self.pid} gone\n{self.said()[-3000:]}", seconds)

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of a GET on its health port; status 0 if it does not answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, ""
        except OSError:
            return 0, ""

    def ready(self) -> Process:
        """Wait until it takes jobs."""
        until(lambda: not self.alive or self.get("/readyz")[0] == 200, f"ready: {self.said()}")
        assert self.alive, self.said()
        return self

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels."""
        lines = self.get("/metrics")[1].splitlines()
        return sum(float(x.split()[-1]) for x in lines if x.split("{")[0].split()[0] == name)

    def counts(self, name: str, wanted: float) -> None:
        """Wait until a metric has the value: it is counted a moment after the work is done."""
        until(lambda: self.metric(name) == wanted, f"{name} at {wanted:g}", 20)

    def said(self) -> str:
        """Its log."""
        return self.log.read_text() if self.log.exists() else ""


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@dataclass
class Workers:
    """Starts workers and ends them with the test."""

    zygote: subprocess.Popen[str]
    settings: Settings
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    started: list[Process] = field(default_factory=list)

    def start(self, **changes: Any) -> Process:
        """A worker, not yet ready. changes: of its settings, by their names."""
        port, log = free_port(), self.folder / f"worker-{len(self.started)}.log"
        env = {k: v for k, v in os.environ.items() if k.startswith("CUSTOMEDIT_")}
        env |= self.environment | {
            "CUSTOMEDIT_METRICS_PORT": str(port),
            "CUSTOMEDIT_SCRATCH_DIR": str(self.folder / "scratch"),
            "CUSTOMEDIT_LOG_LEVEL": "INFO",
        }
        env |= {f"CUSTOMEDIT_{k.upper()}": str(v) for k, v in changes.items()}
        assert self.zygote.stdin is not None and self.zygote.stdout is not None
        self.zygote.stdin.write(json.dumps({"env": env, "log": str(log)}) + "\n")
        self.zygote.stdin.flush()
        process = Process(int(self.zygote.stdout.readline()), port, log)
        self.started.append(process)
        return process
