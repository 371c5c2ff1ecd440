"""The rate limit: as many as allowed, each tenant its own, and it says when to come again."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from redis import Redis

from customedit.config.settings import Settings
from customedit.tenants.access import ApiKeys, Limits


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


def test_a_key_and_its_rate_are_taken_at_once(client: Redis, settings: Settings) -> None:
    """``admit`` opens to what ``verify`` opens to, and counts nothing else."""
    keys, limits = ApiKeys(client, settings), Limits(client, limited(settings, 3))
    key, text = keys.create("acme", days=1)
    _, other = keys.create("other")
    head, secret = text.rsplit("_", 1)
    for wrong in ("", text + "0", f"{head}_{other.rsplit('_', 1)[1]}", f"{head}_{key.hash}"):
        assert limits.admit(wrong) is None and keys.verify(wrong) is None
    lost = f"ce_{'0' * 26}_{secret}"
    client.hset(f"{settings.namespace}:key:key_{'0' * 26}", "last_used_at", "1.0")
    assert limits.admit(lost) is None
    first, second = limits.admit(text), limits.admit(text)
    assert first is not None and second is not None
    assert (first[0], first[1].ok, first[1].remaining) == (key, True, 2)
    assert second[0].last_used_at == keys.list("acme")[0].last_used_at is not None
    assert second[1].remaining == 1 and limits.take("acme").ok
    over = limits.admit(text)
    assert over is not None and not over[1].ok and over[1].retry_s > 0
    assert limits.take("other").remaining == 2
    for change in ({"expires_at": key.created_at}, {"expires_at": None, "revoked_at": 1.0}):
        record = key.model_copy(update=change).model_dump_json()
        client.hset(f"{settings.namespace}:key:{key.id}", "record", record)
        assert limits.admit(text) is None and keys.verify(text) is None
