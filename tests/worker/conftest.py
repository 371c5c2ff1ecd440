"""Workers as real processes on the real servers; see ``bench``."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from customedit.config.settings import Settings
from customedit.jobs.store import Jobs
from customedit.storage.store import Storage
from customedit.tenants.catalogue import Catalogue

from .bench import ROOT, Bench, Workers

QUICK = {
    "reconcile_seconds": 0.5,
    "queued_notify_after_seconds": 1.0,
    "lease_seconds": 2.0,
    "heartbeat_seconds": 0.5,
}
"""Settings by which what is lost is found in seconds."""


@pytest.fixture(scope="session")
def zygote() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("zygote.py"))],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


@pytest.fixture
def workers(
    zygote: subprocess.Popen[str], settings: Settings, tmp_path: Path, bench: Bench
) -> Iterator[Workers]:
    held = Workers(zygote, settings, tmp_path)
    held.environment = {f"CUSTOMEDIT_{name.upper()}": str(v) for name, v in QUICK.items()}
    yield held
    for process in held.started:
        process.kill()
    for process in held.started:
        process.gone()


@pytest.fixture
def bench(settings: Settings, redis_client: Redis, storage: Storage) -> Bench:
    from celery import Celery

    from customedit.jobs import notifications
    from customedit.jobs.redis import connect

    settings = settings.model_copy(update=QUICK)
    redis = connect(settings)
    app = Celery("test")
    app.conf.update(notifications.celery_settings(settings))

    def notify(job_id: str, kind: str) -> None:
        queue = notifications.queue(settings, kind)
        app.send_task(notifications.TASK, [job_id], queue=queue, retry=False)

    return Bench(
        settings, Jobs(redis, settings), Catalogue(redis, settings), storage, redis_client, notify
    )
