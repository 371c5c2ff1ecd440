"""Keys open their tenant's things, until they end; what is kept of them opens nothing."""

from __future__ import annotations

import hashlib
import json

import pytest
from redis import Redis

from customedit.config.settings import Settings
from customedit.errors import InputError
from customedit.jobs.journal import Journal
from customedit.jobs.recovery import recover
from customedit.schemas.keys import SCOPES
from customedit.storage.store import Storage
from customedit.tenants.access import KEPT_ENDED, ApiKeys


@pytest.fixture
def keys(client: Redis, settings: Settings, journal: Journal) -> ApiKeys:
    return ApiKeys(client, settings, journal)


def test_a_key_opens_until_it_is_revoked(keys: ApiKeys) -> None:
    key, text = keys.create("acme", name="app", scopes=["read", "edits:write", "read"])
    assert key.scopes == ["edits:write", "read"]
    found = keys.verify(text)
    assert found is not None and (found.id, found.tenant) == (key.id, "acme")
    assert keys.list("acme")[0].last_used_at is not None
    revoked = keys.revoke(key.id)
    assert revoked is not None and keys.verify(text) is None
    assert keys.revoke(key.id) == keys.list("acme")[0]
    assert keys.revoke("key_" + "0" * 26) is None


def test_what_is_no_key_opens_nothing(keys: ApiKeys) -> None:
    key, text = keys.create("acme")
    other, other_text = keys.create("other")
    head, secret = text.rsplit("_", 1)
    flipped = secret[:-1] + ("0" if secret[-1] != "0" else "1")
    for wrong in (
        "", "ce_", key.id, key.hash, head, head + "_", f"{head}_{flipped}", text + "\n", text + "0",
        text.upper(), f"{head}_{other_text.rsplit('_', 1)[1]}", f"{head}_{key.hash}",
        text.replace(key.id[4:], "0" * 26), f"{head}_{secret[:-1]}é",
    ):  # fmt: skip
        assert keys.verify(wrong) is None, wrong
    assert keys.verify(text) is not None and keys.verify(other_text) is not None
    assert other.tenant == "other"


def test_a_key_expires(keys: ApiKeys, client: Redis, settings: Settings) -> None:
    key, text = keys.create("acme", days=1)
    assert keys.verify(text) is not None
    assert key.valid(key.created_at + 86_399) and not key.valid(key.created_at + 86_400)
    name = f"{settings.namespace}:key:{key.id}"
    old = key.model_copy(update={"expires_at": key.created_at})
    client.hset(name, "record", old.model_dump_json())
    assert keys.verify(text) is None


def test_the_secret_is_kept_nowhere(
    keys: ApiKeys, client: Redis, settings: Settings, storage: Storage
) -> None:
    key, text = keys.create("acme")
    keys.verify(text)
    secret = text.rsplit("_", 1)[1]
    kept = [json.dumps(client.hgetall(f"{settings.namespace}:key:{key.id}")), repr(key)]
    kept += [storage.get(s.key).decode() for s in storage.list("api-keys/")]
    assert len(kept) == 3 and all(secret not in text for text in kept)
    assert key.hash == hashlib.sha256(secret.encode()).hexdigest() and key.hash not in repr(key)


def test_keys_are_listed_by_tenant(keys: ApiKeys) -> None:
    first, _ = keys.create("acme")
    second, _ = keys.create("acme")
    third, _ = keys.create("other")
    assert [k.id for k in keys.list("acme")] == [first.id, second.id]
    assert {k.id for k in keys.list()} == {first.id, second.id, third.id}
    assert keys.list("nobody") == []


@pytest.mark.parametrize("tenant", ["", "-a", "A", "a/b", "a" * 64, "a:b", "a\n", "../x"])
def test_odd_tenants_are_refused(keys: ApiKeys, tenant: str) -> None:
    with pytest.raises(InputError, match="tenant"):
        keys.create(tenant)


def test_odd_scopes_and_days_are_refused(keys: ApiKeys) -> None:
    for scopes in (["write"], []):
        with pytest.raises(InputError):
            keys.create("acme", scopes=scopes)
    for days in (0, float("nan")):
        with pytest.raises(InputError):
            keys.create("acme", days=days)
    assert keys.list() == []
    assert keys.create("acme", scopes=SCOPES)[0].scopes == list(SCOPES)


def test_a_revocation_that_redis_forgot_holds_after_a_recovery(
    keys: ApiKeys, client: Redis, settings: Settings, storage: Storage
) -> None:
    key, text = keys.create("acme")
    keys.revoke(key.id)
    client.hset(f"{settings.namespace}:key:{key.id}", "record", key.model_dump_json())
    assert keys.verify(text) is not None  # as after the loss of a last second
    assert recover(client, storage, settings).keys == 0
    assert keys.verify(text) is None


def test_a_key_that_redis_lost_while_it_was_used_is_none_and_comes_back(
    keys: ApiKeys, client: Redis, settings: Settings, storage: Storage
) -> None:
    key, text = keys.create("acme")
    client.delete(f"{settings.namespace}:key:{key.id}")
    client.hset(f"{settings.namespace}:key:{key.id}", "last_used_at", "1.0")  # by `verify`
    assert keys.verify(text) is None and keys.revoke(key.id) is None
    assert recover(client, storage, settings).keys == 1
    assert keys.verify(text) is not None


def test_a_key_does_not_outlive_the_key_that_made_it(keys: ApiKeys) -> None:
    maker, _ = keys.create("acme", scopes=["admin"], days=10)
    made, _ = keys.create("acme", maker=maker)
    short, _ = keys.create("acme", days=3, maker=maker)
    assert made.expires_at == maker.expires_at and made.made_by == short.made_by == maker.id
    assert short.expires_at is not None and short.expires_at < maker.expires_at  # type: ignore[operator]
    with pytest.raises(InputError, match="outlive"):
        keys.create("acme", days=11, maker=maker)
    for_ever, _ = keys.create("acme", scopes=["admin"])
    assert keys.create("acme", maker=for_ever)[0].expires_at is None


def test_old_ended_keys_are_forgotten_and_stay_ended(
    keys: ApiKeys, client: Redis, settings: Settings, storage: Storage
) -> None:
    oldest, text = keys.create("acme")
    valid, _ = keys.create("acme")
    for _ in range(KEPT_ENDED):
        keys.revoke(keys.create("acme")[0].id)
    assert keys.forget_ended("acme") == 0
    keys.revoke(keys.create("acme")[0].id)
    first = keys.list("acme")[2].id  # the one that was revoked first
    keys.revoke(oldest.id)
    assert keys.forget_ended("acme") == 2
    listed = {key.id for key in keys.list("acme")}
    assert first not in listed and {oldest.id, valid.id} <= listed and len(listed) == KEPT_ENDED + 1
    recover(client, storage, settings)
    assert keys.get(first) is None and keys.verify(text) is None
