"""Jobs under any order of events: never lost, never ended twice, every index agrees."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from redis import Redis

from customedit.config.settings import Settings
from customedit.jobs.records import STATES, ConceptRecord, JobError, JobProgress, JobRecord
from customedit.jobs.store import Claim, Jobs, QueueFull
from customedit.schemas import ids
from customedit.tenants.catalogue import Concepts

TENANTS = ("acme", "other")
MAX_ATTEMPTS = 3
LIMIT = 2
MOST_JOBS = 4  # few, so that much happens to each


class Machine(RuleBasedStateMachine):
    """Jobs against a model of a dozen lines; claims are kept for ever, so that late twins act."""

    client: ClassVar[Redis]
    base: ClassVar[Settings]
    submitted = Bundle("submitted")
    claims = Bundle("claims")

    def __init__(self) -> None:
        super().__init__()
        own = self.base.model_copy(
            update={
                "namespace": f"m-{secrets.token_hex(6)}",
                "max_attempts": MAX_ATTEMPTS,
                "queue_limit_per_tenant": LIMIT,
            }
        )
        self.jobs, self.concepts = Jobs(self.client, own), Concepts(self.client, own)
        self.space = own.namespace
        self.state: dict[str, str] = {}
        self.tenant: dict[str, str] = {}
        self.concept: dict[str, str] = {}
        self.holder: dict[str, Claim] = {}  # who a job belongs to while it runs
        self.over: set[str] = set()  # running under a lease that is over
        self.asked: set[str] = set()  # to be cancelled
        self.counted: dict[str, int] = {}
        self.ends: dict[str, str] = {}
        self.result: dict[str, Any] = {}

    def teardown(self) -> None:
        names = list(self.client.scan_iter(f"{self.space}:*", count=1000))
        if names:
            self.client.delete(*names)

    @precondition(lambda self: len(self.state) < MOST_JOBS)
    @rule(target=submitted, tenant=st.sampled_from(TENANTS), train=st.booleans())
    def submit(self, tenant: str, train: bool) -> str:
        record = JobRecord(
            id=ids.new("job"), tenant=tenant, kind="customize" if train else "edit", request={},
            concept=ids.new("con") if train else None, created_at=1.0, queued_at=1.0,
            webhook="https://example.com/",
        )  # fmt: skip
        concept = None
        if record.concept:
            concept = ConceptRecord(
                id=record.concept, tenant=tenant, job=record.id, token="<a>", created_at=1.0
            )
        unfinished = [j for j, t in self.tenant.items() if t == tenant and j not in self.ends]
        try:
            self.jobs.submit(record, concept=concept)
        except QueueFull:
            assert len(unfinished) == LIMIT
            assert self.jobs.peek(record.id) is None
            return record.id
        assert len(unfinished) < LIMIT
        self.state[record.id], self.tenant[record.id] = "queued", tenant
        self.counted[record.id] = 0
        if record.concept:
            self.concept[record.id] = record.concept
        again = self.jobs.submit(record, concept=concept)
        assert again.record.id == record.id
        return record.id

    @rule(target=claims, job=submitted)
    def claim(self, job: str) -> Claim | None:
        state = self.state.get(job)
        free = state == "queued" or job in self.over
        claim = self.jobs.claim(job, "w")
        if not free:
            assert claim is None
        elif job in self.asked:
            assert claim is None
            self._end(job, "cancelled")
        elif self.counted[job] >= MAX_ATTEMPTS:
            assert claim is None
            self._end(job, "failed")
        else:
            assert claim is not None
            self.state[job], self.holder[job] = "running", claim
            self.counted[job] += 1
            self.over.discard(job)
        return claim

    @rule(target=claims, kind=st.sampled_from(["edit", "customize"]))
    def claim_next(self, kind: Any) -> Claim | None:
        """Somebody gets the oldest of some tenant's, if there is one to be had."""
        kinds = {j: "customize" if j in self.concept else "edit" for j in self.state}
        free = [
            j for j, s in self.state.items()
            if kinds[j] == kind and (s == "queued" or j in self.over)
        ]  # fmt: skip
        good = [j for j in free if j not in self.asked and self.counted[j] < MAX_ATTEMPTS]
        claim = self.jobs.claim_next([kind], "w")
        for job in free:  # those that could not be taken and came first are ended
            if job not in good and (record := self.jobs.peek(job)) and record.finished:
                self._end(job, "cancelled" if job in self.asked else "failed")
        if claim is None:
            assert not good
            return None
        job = claim.id
        assert job in good
        assert job == next(
            j for j in self.tenant if j in good and self.tenant[j] == self.tenant[job]
        )
        self.state[job], self.holder[job] = "running", claim
        self.counted[job] += 1
        self.over.discard(job)
        return claim

    @rule(job=submitted)
    def lapse(self, job: str) -> None:
        """The worker is silent for too long."""
        if self.state.get(job) == "running":
            self.client.hset(f"{self.space}:job:{job}", "lease_until", "1.000000")
            kind = "customize" if job in self.concept else "edit"
            self.client.zadd(f"{self.space}:wakeups", {job: 1.0})
            self.client.zadd(f"{self.space}:leases:{kind}", {job: 1.0})
            self.over.add(job)

    @rule(target=claims, job=submitted)
    def take_over(self, job: str) -> Claim | None:
        """The worker is silent for too long, and another comes."""
        self.lapse(job)
        claim: Any = self.claim(job)
        return claim

    @rule(claim=claims, tells=st.booleans())
    def hold(self, claim: Claim | None, tells: bool) -> None:
        if claim is None:
            return
        answer = (
            self.jobs.progress(claim, JobProgress(phase="p")) if tells else self.jobs.renew(claim)
        )
        if not self._holds(claim):
            assert answer == "lost"
        else:
            assert answer == ("cancel" if claim.id in self.asked else "held")
            self.over.discard(claim.id)

    @rule(claim=claims, way=st.sampled_from(["commit", "fail", "cancelled", "hand_back"]))
    def end(self, claim: Claim | None, way: str) -> None:
        if claim is None:
            return
        result = {"attempt": claim.token}
        calls: dict[str, Callable[[], bool]] = {
            "commit": lambda: self.jobs.commit(claim, result, concept=self._concept(claim)),
            "fail": lambda: self.jobs.fail(claim, JobError(type="t", title="t")),
            "cancelled": lambda: self.jobs.cancelled(claim),
            "hand_back": lambda: self.jobs.hand_back(claim),
        }
        held, answer = self._holds(claim), calls[way]()
        if held:
            assert answer
            self._ended(claim.id, way, result)
            assert calls[way]() or (way == "hand_back" and claim.id in self.asked)
        elif answer:  # only the repeat of what this very claim did
            record = self.jobs.peek(claim.id)
            assert record is not None
            if way == "commit":
                assert record.result == result == self.result[claim.id]
            assert record.attempt == claim.attempt

    def _ended(self, job: str, way: str, result: dict[str, Any]) -> None:
        if way == "hand_back" and job not in self.asked:
            self.state[job] = "queued"
            self.counted[job] -= 1
            self.over.discard(job)
            return
        states = {"commit": "succeeded", "fail": "failed"}
        if way == "commit":
            self.result[job] = result
        self._end(job, states.get(way, "cancelled"))

    @rule(job=submitted, tenant=st.sampled_from(TENANTS))
    def cancel(self, job: str, tenant: str) -> None:
        record = self.jobs.cancel(tenant, job)
        if self.tenant.get(job) != tenant:
            assert record is None
        elif job not in self.ends:
            self.asked.add(job)
            if self.state[job] == "queued" or job in self.over:
                self._end(job, "cancelled")

    @rule()
    def notify(self) -> None:
        """Workers are notified of whatever nobody works at, sooner or later."""
        waiting = {j for j, s in self.state.items() if s == "queued" or j in self.over}
        for job in waiting:
            self.client.zadd(f"{self.space}:wakeups", {job: 1.0}, xx=True)
        assert waiting == {name for name, _ in self.jobs.overdue()}

    def _holds(self, claim: Claim) -> bool:
        return self.state[claim.id] == "running" and self.holder[claim.id] == claim

    def _concept(self, claim: Claim) -> ConceptRecord | None:
        name = claim.record.concept
        return self.concepts.get(claim.record.tenant, name) if name else None

    def _end(self, job: str, state: str) -> None:
        assert job not in self.ends, f"{job} ended twice"
        self.state[job] = self.ends[job] = state
        self.over.discard(job)

    @invariant()
    def records_and_indexes_agree(self) -> None:
        for job, state in self.state.items():
            record = self.jobs.get(self.tenant[job], job)
            assert record is not None, "lost"
            assert record.state == state and record.result == self.result.get(job)
            assert record.attempt - record.handed_back == self.counted[job]
            ends = [e for e in self.jobs.events(record.tenant, job) if e.final]
            assert [e.data["state"] for e in ends] == ([state] if job in self.ends else [])
        open_ = {j for j in self.state if j not in self.ends}
        for tenant in TENANTS:
            own = {j for j, t in self.tenant.items() if t == tenant}
            assert {r.id for r in self.jobs.list(tenant).items} == own
            for state in STATES:
                found = {r.id for r in self.jobs.list(tenant, state=state).items}
                assert found == {j for j in own if self.state[j] == state}
            assert self.jobs.open_jobs(tenant) == len(own & open_)
        queued = [s for s in self.state.values() if s == "queued"]
        assert sum(self.jobs.queue_depths().values()) == len(queued)
        assert self.jobs.running() == len(open_) - len(queued)
        assert set(self.client.zrange(f"{self.space}:wakeups", 0, -1)) == open_
        self._queues_agree()
        assert set(self.jobs.unjournaled()) == set(self.ends)
        assert set(self.client.zrange(f"{self.space}:outbox", 0, -1)) == set(self.ends)

    def _queues_agree(self) -> None:
        """Every queued job can be claimed, none that is held; every tenant with one has a turn."""
        claimable: set[str] = set()
        for kind in ("edit", "customize"):
            turns = set(self.client.zrange(f"{self.space}:turns:{kind}", 0, -1))
            for tenant in TENANTS:
                jobs: Any = self.client.zrange(f"{self.space}:claimable:{kind}:{tenant}", 0, -1)
                assert bool(jobs) == (tenant in turns)
                assert all(self.tenant[j] == tenant for j in jobs)
                claimable |= set(jobs)
        queued = {j for j, s in self.state.items() if s == "queued"}
        assert queued <= claimable <= queued | self.over

    @invariant()
    def concepts_share_the_end_of_their_jobs(self) -> None:
        states = {"succeeded": "ready", "failed": "failed", "cancelled": "failed"}
        for job, name in self.concept.items():
            concept = self.concepts.get(self.tenant[job], name)
            assert concept is not None
            assert concept.state == states.get(self.state[job], "training")
            used = self.client.exists(f"{self.space}:uses:{self.tenant[job]}:{name}")
            assert bool(used) == (job not in self.ends)


def _run(client: Redis, settings: Settings, examples: int, steps: int) -> None:
    Machine.client, Machine.base = client, settings
    run_state_machine_as_test(
        Machine,
        settings=hypothesis_settings(
            max_examples=examples,
            stateful_step_count=steps,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.timeout(300)
def test_no_job_is_lost_or_ended_twice(client: Redis, settings: Settings) -> None:
    _run(client, settings, 25, 40)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_job_is_lost_or_ended_twice_at_length(client: Redis, settings: Settings) -> None:
    _run(client, settings, 300, 60)
