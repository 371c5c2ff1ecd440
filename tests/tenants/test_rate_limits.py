"""The rate limit: as many as allowed, each tenant its own, and it says when to come again."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from redis import Redis

from customedit.config.settings import Settings
from customedit.tenants.access import Limits


def limited(settings: Settings, limit: int) -> Settings:
    return settings.model_copy(update={"rate_per_minute": limit})


def test_no_more_than_the_limit_pass(client: Redis, settings: Settings) -> None:
    limits = Limits(client, limited(settings, 20))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: limits.take("acme"), range(50)))
    passed = [a for a in found if a.ok]
    assert 20 <= len(passed) <= 21  # one more may fall out of the window in these moments
    assert {a.remaining for a in passed} >= set(range(20))
    for refused in (a for a in found if not a.ok):
        assert (refused.limit, refused.remaining) == (20, 0)
        assert 0 <= refused.retry_s <= 120 and 0 < refused.reset_s <= 60
    assert limits.take("other").remaining == 19


def test_the_last_minute_counts_by_its_share(client: Redis, settings: Settings) -> None:
    limits = Limits(client, limited(settings, 100))
    for n in range(2):  # the second time, should a minute end within the first
        before = client.time()[0]
        client.set(f"{settings.namespace}:rate:t{n}:{before // 60 - 1}", 100)
        allowed = limits.take(f"t{n}")
        if client.time()[0] // 60 == before // 60:
            break
    gone = (60 - allowed.reset_s) / 60
    left = 100 * gone - 1
    assert allowed.ok == (left >= 0)
    if allowed.ok:
        assert abs(allowed.remaining - left) <= 1
    else:
        assert abs(allowed.retry_s - (0.01 - gone) * 60) < 0.01
