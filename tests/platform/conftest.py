"""A tenant's jobs, and a way to let a lease run out without waiting for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from redis import Redis

from customedit.platform import ids, keys_of
from customedit.platform.catalogue import Catalogue
from customedit.platform.jobs import Jobs
from customedit.platform.journal import Journal
from customedit.platform.records import ConceptRecord, ImageRecord, JobRecord
from customedit.platform.redis import connect
from customedit.platform.settings import Settings
from customedit.platform.storage import Storage

Make = Callable[..., JobRecord]


@pytest.fixture
def client(settings: Settings) -> Iterator[Redis]:
    with connect(settings) as client:
        yield client


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
        given = {"tenant": "acme", "kind": "edit", "request": {"target_prompt": "a cup"}} | fields
        return JobRecord(**{"id": ids.new("job"), "created_at": now, "queued_at": now} | given)

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
            key=keys_of.image(tenant, name, stamp, keys_of.PICTURE), created_at=at,
        )  # fmt: skip

    return make


@pytest.fixture
def lapse(client: Redis, settings: Settings) -> Callable[[str], None]:
    """Lets the lease of a job be over, and its bell be due."""

    def make(job_id: str) -> None:
        client.hset(f"{settings.namespace}:job:{job_id}", "lease_until", "1.000000")
        client.zadd(f"{settings.namespace}:ring", {job_id: 1.0}, xx=True)

    return make
