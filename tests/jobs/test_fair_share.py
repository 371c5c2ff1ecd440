"""Which job a worker gets: a fair share between tenants, the oldest first within one."""

from __future__ import annotations

import secrets
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from redis import Redis

from customedit.config.settings import Settings
from customedit.jobs.claims import Claim
from customedit.jobs.records import ConceptRecord, JobRecord, cost_of
from customedit.jobs.store import Jobs

Make = Callable[..., JobRecord]
Training = Callable[..., tuple[JobRecord, ConceptRecord]]


@pytest.fixture
def jobs(client: Redis, settings: Settings) -> Jobs:
    return Jobs(client, settings.model_copy(update={"queue_limit_per_tenant": 10_000}))


def take(jobs: Jobs, **given: object) -> Claim:
    claim = jobs.claim_next(["edit"], "w", **given)  # type: ignore[arg-type]
    assert claim is not None
    return claim


@pytest.mark.parametrize("slots", [1, 2, 7])
@pytest.mark.parametrize("begun", [0, 40])
def test_an_edit_beside_200_of_another_tenant_starts_within_3(
    jobs: Jobs, job: Make, slots: int, begun: int
) -> None:
    """Counted in edits: how many of the other's end between submit and start."""
    for _ in range(200):
        jobs.submit(job(tenant="heavy"))
    running = [take(jobs) for _ in range(slots)]
    for _ in range(begun):
        assert jobs.commit(running.pop(0), {})
        running.append(take(jobs))
    mine = jobs.submit(job(tenant="small")).record
    ended = 0
    while running[-1].id != mine.id:
        assert jobs.commit(running.pop(0), {})
        ended += 1
        running.append(take(jobs))
    print(f"edits of the other tenant that ended first: {ended}")
    assert ended <= 3


def test_tenants_take_turns_and_each_is_served_in_order(jobs: Jobs, job: Make) -> None:
    made = {t: [jobs.submit(job(tenant=t)).record.id for _ in range(5)] for t in ("a", "b", "c")}
    order = [take(jobs) for _ in range(15)]
    for turn in range(0, 15, 3):
        assert {c.record.tenant for c in order[turn : turn + 3]} == {"a", "b", "c"}
    for tenant, ids in made.items():
        assert [c.id for c in order if c.record.tenant == tenant] == ids
    assert jobs.claim_next(["edit"], "w") is None


def test_large_edits_count_for_more(jobs: Jobs, job: Make) -> None:
    large = {"strengths": [0.1, 0.3, 0.5, 0.7], "seeds": [0, 1], "steps": 50}
    for _ in range(20):
        jobs.submit(job(tenant="large", request=large))
        jobs.submit(job(tenant="small", request={"steps": 50}))
    order = [take(jobs).record.tenant for _ in range(18)]
    assert Counter(order) == {"small": 16, "large": 2}


def test_a_pause_saves_nothing_up_and_a_return_owes_nothing(jobs: Jobs, job: Make) -> None:
    for _ in range(30):
        jobs.submit(job(tenant="busy"))
    for _ in range(20):
        take(jobs)
    for _ in range(5):  # from a tenant who never came before
        jobs.submit(job(tenant="late"))
    order = [take(jobs).record.tenant for _ in range(10)]
    assert Counter(order) == {"late": 5, "busy": 5}
    jobs.submit(job(tenant="late"))  # and one who had its share and comes again
    assert "late" in [take(jobs).record.tenant for _ in range(2)]


def test_kinds_do_not_share_a_queue(jobs: Jobs, job: Make, training: Training) -> None:
    record, concept = training()
    jobs.submit(record, concept=concept)
    edit = jobs.submit(job()).record
    assert jobs.claim_next(["import"], "w") is None
    first = jobs.claim_next(["import", "customize"], "w")
    second = jobs.claim_next(["customize", "edit"], "w")
    assert first is not None and second is not None
    assert (first.id, second.id) == (record.id, edit.id)


def test_tenants_can_be_passed_over(jobs: Jobs, job: Make) -> None:
    jobs.submit(job(tenant="a"))
    jobs.submit(job(tenant="a"))
    assert jobs.claim_next(["edit"], "w", except_tenants=["a"]) is None
    other = jobs.submit(job(tenant="b")).record
    assert take(jobs, except_tenants=["a", "c"]).id == other.id
    assert take(jobs).record.tenant == "a"


def test_a_job_whose_lease_is_over_is_taken_like_a_queued_one(
    jobs: Jobs, job: Make, lapse: Callable[[str], None]
) -> None:
    first, second = (jobs.submit(job()).record for _ in range(2))
    late = take(jobs)
    assert late.id == first.id
    lapse(first.id)
    again = take(jobs)
    assert (again.id, again.attempt) == (first.id, 2)
    assert jobs.renew(late) == "lost" and take(jobs).id == second.id


def test_a_slow_worker_that_renews_in_time_keeps_its_job(
    jobs: Jobs, job: Make, lapse: Callable[[str], None]
) -> None:
    asked = jobs.submit(job()).record
    claim = take(jobs)
    lapse(asked.id)
    assert jobs.claim_next(["import"], "w") is None  # looks at leases of its own kinds alone
    assert jobs.overdue() == [(asked.id, "edit")]  # offers it
    assert jobs.renew(claim) == "held"
    assert jobs.claim_next(["edit"], "w") is None and jobs.commit(claim, {})


def test_cancelled_and_exhausted_jobs_are_ended_and_the_next_is_taken(
    jobs: Jobs, job: Make, lapse: Callable[[str], None]
) -> None:
    left, spent, last = (jobs.submit(job()).record for _ in range(3))
    assert jobs.claim(left.id, "w") is not None
    jobs.cancel("acme", left.id)
    for _ in range(5):
        assert jobs.claim(spent.id, "w") is not None
        lapse(spent.id)
    lapse(left.id)
    assert take(jobs).id == last.id
    states = [record.state for j in (left, spent) if (record := jobs.peek(j.id)) is not None]
    assert states == ["cancelled", "failed"]


def test_an_answer_that_got_lost_is_given_again(
    jobs: Jobs, job: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when Redis restarts between a claim and its answer: the client calls again by itself."""
    for _ in range(3):
        jobs.submit(job())
    monkeypatch.setattr("customedit.jobs.claims.secrets.token_hex", lambda _: "0" * 32)
    first, second = take(jobs), take(jobs)
    assert first == second and jobs.running() == 1


def test_many_workers_take_each_job_once(jobs: Jobs, job: Make) -> None:
    made = {jobs.submit(job(tenant=f"t{k % 5}")).record.id for k in range(60)}
    start = threading.Barrier(8)

    def work(_: int) -> list[str]:
        start.wait()
        got = []
        while (claim := jobs.claim_next(["edit"], "w")) is not None:
            got.append(claim.id)
        return got

    with ThreadPoolExecutor(8) as pool:
        got = [name for names in pool.map(work, range(8)) for name in names]
    assert len(got) == 60 and set(got) == made


@hypothesis_settings(max_examples=20, suppress_health_check=list(HealthCheck), deadline=None)
@given(costs=st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=6), min_size=2, max_size=4))
def test_no_tenant_gets_ahead_of_another_by_more_than_two_jobs(
    client: Redis, settings: Settings, job: Make, costs: list[list[int]]
) -> None:
    """While both wait, what two got differs by one job of each at most (Goyal et al. 1996)."""
    own = settings.model_copy(update={"namespace": f"f-{secrets.token_hex(6)}"})
    jobs = Jobs(client, own)
    for number, sizes in enumerate(costs):
        for size in sizes:
            request = {"seeds": list(range(size)), "steps": 50}
            jobs.submit(job(tenant=f"t{number}", request=request))
    got = [0] * len(costs)
    left = [list(sizes) for sizes in costs]
    while (claim := jobs.claim_next(["edit"], "w")) is not None:
        number = int(claim.record.tenant[1:])
        size = left[number].pop(0)
        assert cost_of(claim.record) == size
        got[number] += size
        waiting = [n for n, sizes in enumerate(left) if sizes]
        for a in waiting:
            for b in waiting:
                assert abs(got[a] - got[b]) <= max(costs[a]) + max(costs[b])
    assert got == [sum(sizes) for sizes in costs]
    client.delete(*client.scan_iter(f"{own.namespace}:*", count=1000))
