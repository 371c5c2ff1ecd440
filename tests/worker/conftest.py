"""Workers as real processes on the real servers; see ``bench``."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from customedit.platform.catalogue import Catalogue
from redis import Redis

from customedit.platform.jobs import Jobs
from customedit.platform.settings import Settings
from customedit.platform.storage import Storage

from .bench import ROOT, Bench, Workers


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
    held.environment = {
        "CUSTOMEDIT_RECONCILE_SECONDS": "0.5",
        "CUSTOMEDIT_QUEUED_RING_AFTER_SECONDS": "1",
        "CUSTOMEDIT_LEASE_SECONDS": "2",
        "CUSTOMEDIT_HEARTBEAT_SECONDS": "0.5",
    }
    yield held
    for process in held.started:
        process.kill()
    for process in held.started:
        process.gone()


@pytest.fixture
def bench(settings: Settings, redis_client: Redis, storage: Storage) -> Bench:
    from celery import Celery

    from customedit.platform import doorbell
    from customedit.platform.redis import connect

    redis = connect(settings)
    app = Celery("test")
    app.conf.update(doorbell.celery_settings(settings))

    def ring(job_id: str, kind: str) -> None:
        app.send_task(doorbell.TASK, [job_id], queue=doorbell.queue(settings, kind), retry=False)

    return Bench(
        settings, Jobs(redis, settings), Catalogue(redis, settings), storage, redis_client, ring
    )
