"""How webhooks were delivered: told of each job, from the first try to the last."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from redis import Redis

from customedit.config.settings import Settings
from customedit.jobs.deliveries import Deliveries
from customedit.jobs.records import JobRecord
from customedit.jobs.store import Jobs
from customedit.jobs.webhooks import Secrets, Webhooks

from .test_webhooks import Receiver, due, local, receiver, secrets

__all__ = ["due", "local", "receiver", "secrets"]  # fixtures
Make = Callable[..., JobRecord]


@pytest.fixture
def deliveries(client: Redis, settings: Settings) -> Deliveries:
    return Deliveries(client, settings)


def ended(jobs: Jobs, record: JobRecord) -> str:
    """Submits a job and cancels it; its id."""
    name = jobs.submit(record).record.id
    jobs.cancel(record.tenant, name)
    return name


def test_a_delivery_is_told_from_the_first_try_to_the_last(
    client: Redis, local: Settings, jobs: Jobs, job: Make, receiver: Receiver, secrets: Secrets,
    due: Callable[[], None], deliveries: Deliveries,
) -> None:  # fmt: skip
    secrets.make("acme")
    began, hooks = time.time(), Webhooks(client, local, jobs)
    asked = jobs.submit(job(webhook=receiver.url)).record
    assert deliveries.get("acme", asked.id) is None  # it has not ended
    jobs.cancel("acme", asked.id)
    found = deliveries.get("acme", asked.id)
    assert found is not None and found.url == receiver.url
    assert (found.state, found.tries, found.tried_at, found.status) == ("pending", 0, None, None)
    assert found.next_at == pytest.approx(found.ended_at) and found.ended_at >= began - 1

    receiver.status = 503
    hooks.deliver_due()
    found = deliveries.get("acme", asked.id)
    assert found is not None and (found.state, found.tries) == ("pending", 1)
    assert (found.status, found.problem) == (503, "answered 503")
    assert found.tried_at is not None and found.next_at is not None
    first = local.webhook_first_retry_seconds
    assert 0 < found.next_at - found.tried_at <= first + 10
    for _ in range(2):
        due()
        hooks.deliver_due()
    found = deliveries.get("acme", asked.id)
    assert found is not None and (found.state, found.tries) == ("failed", 3)
    assert found.next_at is None and hooks.waiting() == 0

    receiver.status = 204
    second = ended(jobs, job(webhook=receiver.url))
    hooks.deliver_due()
    found = deliveries.get("acme", second)
    assert found is not None and (found.state, found.tries) == ("delivered", 1)
    assert (found.status, found.problem, found.next_at) == (204, None, None)
    assert deliveries.get("other", second) is None
    jobs.delete("acme", second)
    assert deliveries.get("acme", second) is None
    assert [d.job for d in deliveries.list("acme").items] == [asked.id]


def test_a_receiver_that_does_not_answer_has_no_status(
    client: Redis, local: Settings, jobs: Jobs, job: Make, secrets: Secrets, deliveries: Deliveries
) -> None:
    secrets.make("acme")
    name = ended(jobs, job(webhook="http://localhost:9/"))
    Webhooks(client, local, jobs).deliver_due()
    found = deliveries.get("acme", name)
    assert found is not None and (found.status, found.problem) == (None, "ConnectError")
    unsigned = ended(jobs, job(tenant="bare", webhook="http://localhost:9/"))
    Webhooks(client, local, jobs).deliver_due()
    found = deliveries.get("bare", unsigned)
    assert found is not None and found.problem == "the tenant has no secret to sign with"


def test_lists_are_newest_first_in_pages_and_by_state(
    client: Redis, local: Settings, jobs: Jobs, job: Make, receiver: Receiver, secrets: Secrets,
    deliveries: Deliveries,
) -> None:  # fmt: skip
    secrets.make("acme")
    arrived = [ended(jobs, job(webhook=receiver.url)) for _ in range(3)]
    while Webhooks(client, local, jobs).deliver_due():
        pass
    waiting = [ended(jobs, job(webhook=receiver.url)) for _ in range(2)]
    ended(jobs, job(tenant="other", webhook=receiver.url))
    ended(jobs, job())  # names none
    names = [*arrived, *waiting][::-1]
    page = deliveries.list("acme", limit=2)
    seen = [d.job for d in page.items]
    while page.next_cursor:
        page = deliveries.list("acme", limit=2, cursor=page.next_cursor)
        seen += [d.job for d in page.items]
    assert seen == names
    for state, expected in (("delivered", arrived), ("pending", waiting)):
        listed = deliveries.list("acme", state=state)  # type: ignore[arg-type]
        assert [d.job for d in listed.items] == expected[::-1] and listed.next_cursor is None
    assert deliveries.list("acme", state="failed").items == []
