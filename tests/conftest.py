"""For all tests: how hypothesis looks for examples, torch's threads, which files come first, the
real servers, and records of jobs."""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings as hypothesis_settings
from redis import Redis
from redis.client import Pipeline

from customedit.config.settings import Settings
from customedit.jobs.journal import Journal
from customedit.jobs.records import ConceptRecord, ImageRecord, JobRecord
from customedit.jobs.redis import connect
from customedit.jobs.store import Jobs
from customedit.schemas import ids
from customedit.storage import object_keys
from customedit.storage.store import Storage
from customedit.tenants.catalogue import Catalogue

if TYPE_CHECKING:
    from fastapi import FastAPI

    from customedit.devserver.local_servers import LocalServers

Make = Callable[..., JobRecord]

# No deadline: the first call of a model is slow and says nothing about the code under test.
hypothesis_settings.register_profile("dev", deadline=None)
hypothesis_settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis_settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE", "ci" if "CI" in os.environ else "dev")
)

# Share the cores among pytest's workers. Torch reads this when it is first imported, which is
# after this file, so that tests which need no torch do not wait for it.
_workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // _workers)))


# Processes that share the tests take file by file: the long ones first, so that all end together.

LONG = (
    "tests/worker/test_lives.py",
    "tests/worker/test_end_to_end.py",
    "tests/service",
    "tests/page/test_accessible.py",
    "tests/page/test_again.py",
    "tests/worker/test_sharing.py",
    "tests/editing/test_half.py",
    "tests/api/test_schemathesis.py",
    "tests/page/test_jobs.py",
    "tests/devserver/test_local_servers.py",
    "tests/devserver/test_stack.py",
    "tests/editing/test_editors.py",
    "tests/cli/test_cli.py",
    "tests/cli/test_bad_input.py",
    "tests/mini/test_train.py",
    "tests/concepts/test_trainings_merged.py",
    "tests/page/test_keyboard.py",
    "tests/page/test_library.py",
    "tests/page/test_drafts.py",
    "tests/page/test_forms.py",
    "tests/worker/test_storm.py",
    "tests/experiments/test_study.py",
    "tests/editing/test_edit.py",
    "tests/worker/test_executor.py",
    "tests/worker/test_reconciler.py",
    "tests/worker/test_families.py",
    "tests/worker/test_concept_regions.py",
    "tests/concepts/test_training.py",
    "tests/experiments/test_quality.py",
    "tests/experiments/test_lookbench_run.py",
    "tests/test_wheel.py",
)
"""By what `--durations` tells of a whole run; a folder's files go together, with one service."""


def _unit(file: str) -> str:
    """What is given to one process as a whole: a file, or a folder of ``LONG``."""
    folder = file.rpartition("/")[0]
    return folder if folder in LONG else file


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(_unit(item.nodeid.partition("::")[0]), len(LONG)))


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from xdist.scheduler import LoadFileScheduling

    if config.getoption("dist") != "loadfile":
        return None
    config.option.loadscopereorder = False  # which puts the files of most tests first
    scheduling = LoadFileScheduling(config, log)
    scheduling._split_scope = lambda nodeid: _unit(nodeid.partition("::")[0])
    return scheduling


# Real servers, started once when the first test asks for them.


@pytest.fixture(scope="session")
def one_reading_of_botocore() -> Iterator[None]:
    """What botocore knows of its services is parsed once, not for the client of every test.

    It is two megabytes of JSON, which a program reads once, when it starts.
    """
    from botocore.loaders import JSONFileLoader

    load_file, parsed = JSONFileLoader.load_file, dict[str, Any]()

    def once(self: JSONFileLoader, file_path: str) -> Any:
        found = parsed.get(file_path)
        if found is None and (found := load_file(self, file_path)) is not None:
            parsed[file_path] = found
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JSONFileLoader, "load_file", once)
        yield


@pytest.fixture(scope="session")
def local_servers(
    tmp_path_factory: pytest.TempPathFactory, one_reading_of_botocore: None
) -> Iterator[LocalServers]:
    from customedit.devserver.local_servers import LocalServers

    with LocalServers(tmp_path_factory.mktemp("servers"), usual_ports=False) as servers:
        yield servers


@pytest.fixture(scope="session")
def one_openapi_document() -> Iterator[None]:
    """The OpenAPI document, the same of all front ends, is made once, not for that of every test.

    A front end makes it when it first refuses a request.
    """
    from api import openapi

    make, made = openapi._document, list[dict[str, Any]]()

    def once(app: FastAPI) -> dict[str, Any]:
        if not made:
            made.append(make(app))
        return made[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(openapi, "_document", once)
        yield


@pytest.fixture
def settings(local_servers: LocalServers, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings with keys of its own in both servers, given to child processes as well."""
    own = secrets.token_hex(6)
    for name, value in local_servers.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CUSTOMEDIT_NAMESPACE", f"test-{own}")
    monkeypatch.setenv("CUSTOMEDIT_S3_PREFIX", f"test-{own}/")
    return Settings.of_environment()


@pytest.fixture
def redis_client(settings: Settings) -> Iterator[Redis]:
    with Redis.from_url(settings.redis_url, decode_responses=True) as client:
        yield client


@pytest.fixture(scope="session")
def bucket(local_servers: LocalServers) -> None:
    """Makes the bucket, in which each test has a prefix, once.

    ``Storage.bucket`` adds a rule for a prefix, and reads and writes those of all before it.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name, value in local_servers.environment().items():
            patch.setenv(name, value)
        Storage(Settings.of_environment()).bucket()


@pytest.fixture
def storage(settings: Settings, bucket: None) -> Storage:
    return Storage(settings)


# Jobs of a tenant, and a way to let a lease run out without waiting for it.


@pytest.fixture
def client(settings: Settings) -> Iterator[Redis]:
    with connect(settings) as client:
        yield client


@pytest.fixture
def round_trips(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Counts the calls of Redis of the test's own thread so far; a pipeline is one."""
    made, own = [0], threading.get_ident()

    def counting(call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*given: Any, **named: Any) -> Any:
            made[0] += threading.get_ident() == own
            return call(*given, **named)

        return counted

    monkeypatch.setattr(Redis, "execute_command", counting(Redis.execute_command))
    monkeypatch.setattr(Pipeline, "execute", counting(Pipeline.execute))
    return lambda: made[0]


@pytest.fixture
def jobs(client: Redis, settings: Settings) -> Jobs:
    return Jobs(client, settings)


@pytest.fixture
def catalogue(client: Redis, settings: Settings) -> Catalogue:
    return Catalogue(client, settings)


@pytest.fixture
def journal(storage: Storage) -> Journal:
    return Journal(storage)


@pytest.fixture
def job() -> Make:
    """Makes a record of an edit that needs no image; fields may be given."""

    def make(**fields: Any) -> JobRecord:
        now = time.time()
        given: dict[str, Any] = {"id": ids.new("job"), "created_at": now, "queued_at": now}
        given |= {"tenant": "acme", "kind": "edit", "request": {"target_prompt": "a cup"}}
        return JobRecord(**given | fields)

    return make


@pytest.fixture
def training(job: Make) -> Callable[..., tuple[JobRecord, ConceptRecord]]:
    """Makes a customization and its concept."""

    def make(tenant: str = "acme", **fields: Any) -> tuple[JobRecord, ConceptRecord]:
        name = ids.new("con")
        record = job(tenant=tenant, kind="customize", concept=name, **{"request": {}} | fields)
        concept = ConceptRecord(
            id=name, tenant=tenant, job=record.id, token="<look>", created_at=record.created_at
        )
        return record, concept

    return make


@pytest.fixture
def picture() -> Callable[..., ImageRecord]:
    """Makes a record of an image of ``data``."""

    def make(data: bytes, tenant: str = "acme", at: float = 1.0, stamp: str = "1") -> ImageRecord:
        name = ids.of_image(data)
        return ImageRecord(
            id=name, tenant=tenant, media_type="image/png", bytes=len(data), width=8, height=8,
            key=object_keys.image(tenant, name, stamp, object_keys.PICTURE), created_at=at,
        )  # fmt: skip

    return make


@pytest.fixture
def lapse(client: Redis, settings: Settings) -> Callable[[str], None]:
    """Lets the lease of a job be over, and a notification of it be due."""

    def make(job_id: str) -> None:
        space = settings.namespace
        kind: Any = client.hget(f"{space}:job:{job_id}", "kind")
        client.hset(f"{space}:job:{job_id}", "lease_until", "1.000000")
        client.zadd(f"{space}:leases:{kind}", {job_id: 1.0}, xx=True)
        client.zadd(f"{space}:wakeups", {job_id: 1.0}, xx=True)

    return make
