"""Who may come in, and how often: API keys, and the rate of each tenant.

A key is ``ce_<key id>_<secret>``. The secret is shown once; only its hash is kept. It has 256
random bits, so a plain SHA-256 cannot be searched through.

Requests are counted in Redis over a sliding minute. By a script of our own, since those of the
package ``limits`` are refused while Redis is at ``maxmemory``: then nobody could even cancel a job
or delete what fills it.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import Field
from redis.exceptions import OutOfMemoryError

from customedit.errors import InputError
from customedit.jobs.records import Record
from customedit.jobs.redis import Scripts
from customedit.schemas import ids
from customedit.schemas.keys import MAX_DAYS, SCOPES, USUAL_SCOPES, Scope

if TYPE_CHECKING:
    from redis import Redis

    from customedit.config.settings import Settings
    from customedit.jobs.journal import Journal

MAX_KEYS: Final = 100
"""Valid keys of a tenant, above which it may not make another one itself."""

KEPT_ENDED: Final = 100
"""Revoked and expired keys of a tenant that are still listed; older ones are forgotten."""

KeyState = Literal["valid", "revoked", "expired"]

_TEXT: Final = re.compile(r"ce_([0-9a-hjkmnp-tv-z]{26})_([0-9a-f]{64})")
_DAY_S: Final = 86_400
_USED_EVERY_S: Final = 60  # last_used is this coarse, so that not each request writes


class ApiKey(Record):
    """A key without its secret.

    hash: SHA-256 of the secret, in hex; times: seconds since 1970; made_by: the key that it was
    made with, None for keys of those who run the service.
    """

    id: str
    tenant: str
    name: str = ""
    scopes: list[Scope]
    hash: str = Field(repr=False)
    created_at: float
    expires_at: float | None = None
    revoked_at: float | None = None
    last_used_at: float | None = None
    made_by: str | None = None

    @property
    def prefix(self) -> str:
        """What its text begins with, before the secret: by this a key is found again."""
        return f"ce_{self.id.removeprefix('key_')}_"

    def state(self, now: float) -> KeyState:
        """What it is at ``now``; a key that was revoked and has expired is revoked."""
        if self.revoked_at is not None:
            return "revoked"
        return "valid" if self.valid(now) else "expired"

    def valid(self, now: float) -> bool:
        """Whether it opens anything at ``now``."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


class ApiKeys:
    """The keys of all tenants. journal: where new and revoked keys are written as well."""

    def __init__(self, client: Redis, settings: Settings, journal: Journal | None = None) -> None:
        self.client, self._namespace, self._journal = client, settings.namespace, journal
        self._run = Scripts(client, settings)

    def _key(self, *parts: str) -> str:
        return ":".join((self._namespace, *parts))

    def create(
        self,
        tenant: str,
        *,
        scopes: Iterable[str] = USUAL_SCOPES,
        name: str = "",
        days: float | None = None,
        maker: ApiKey | None = None,
    ) -> tuple[ApiKey, str]:
        """A new key, and its text: the only time that it is seen.

        days: how long it is valid; maker: the key that it is made with, which it does not outlive.

        Raises:
            InputError: the tenant, a scope or the days are not usable, or it would outlive its
                maker.
        """
        if not re.fullmatch(ids.TENANT, tenant):
            raise InputError(
                "tenant", f"{tenant!r} is no name of a tenant", "use a-z, 0-9 and -, up to 63"
            )
        chosen = list(dict.fromkeys(scopes))
        if not chosen or any(s not in SCOPES for s in chosen):
            raise InputError(
                "scopes",
                f"{' '.join(chosen)!r} has an unknown scope",
                f"take them of: {' '.join(SCOPES)}",
            )
        if days is not None and not 0 < days <= MAX_DAYS:
            raise InputError("days", f"{days:g} is not above 0 and up to {MAX_DAYS}")
        secret, now = secrets.token_hex(32), time.time()
        expires_at = None if days is None else now + days * _DAY_S
        if maker is not None and maker.expires_at is not None:
            if expires_at is not None and expires_at > maker.expires_at:
                left = (maker.expires_at - now) / _DAY_S
                remedy = f"up to {left:.4g}, or leave it out"
                raise InputError("days", "would outlive the key that makes it", remedy)
            expires_at = expires_at or maker.expires_at
        key = ApiKey(
            id=ids.new("key"),
            tenant=tenant,
            name=name,
            scopes=[s for s in SCOPES if s in chosen],
            hash=hashlib.sha256(secret.encode()).hexdigest(),
            created_at=now,
            expires_at=expires_at,
            made_by=None if maker is None else maker.id,
        )
        if self._journal is not None:  # first, so that no key works that a loss of Redis undoes
            self._journal.api_key(key.id, key)
        self.put(key)
        return key, f"{key.prefix}{secret}"

    def put(self, key: ApiKey) -> bool:
        """Keeps a key as the journal has it; False: it is there already.

        One that is revoked is so from now on, even if Redis forgot that it was.
        """
        name = self._key("key", key.id)
        fresh = self.client.hsetnx(name, "record", key.model_dump_json())
        if not fresh and key.revoked_at is not None:
            self.client.hset(name, "record", key.model_dump_json())
        self.client.zadd(self._key("keys", key.tenant), {key.id: 0})
        self.client.sadd(self._key("key-tenants"), key.tenant)
        return bool(fresh)

    def get(self, key_id: str) -> ApiKey | None:
        """The key of this id, valid or not."""
        return _key_of(self.client.hgetall(self._key("key", key_id)))

    def list(self, tenant: str | None = None) -> list[ApiKey]:
        """The keys of ``tenant``, or of all, oldest first; revoked ones too."""
        owners: Any = [tenant] if tenant else sorted(self._members("key-tenants"))
        names: list[str] = []
        for owner in owners:
            match: Any = self.client.zrange(self._key("keys", owner), 0, -1)
            names += match
        with self.client.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.hgetall(self._key("key", name))
            rows = pipe.execute()
        return [key for fields in rows if (key := _key_of(fields)) is not None]

    def _members(self, name: str) -> set[str]:
        match: Any = self.client.smembers(self._key(name))
        return set(match)

    def revoke(self, key_id: str) -> ApiKey | None:
        """Ends a key at once. None: there is none. Again, it changes nothing.

        Raises:
            StorageError: it is ended, but the journal does not say so: call again.
        """
        key = self.get(key_id)
        if key is None:
            return None
        if key.revoked_at is None:
            key = key.model_copy(update={"revoked_at": time.time()})
            self._run("end_key", id=key_id, record=key.model_dump_json())
        if self._journal is not None:
            self._journal.api_key(key.id, key)
        return key

    def forget_ended(self, tenant: str) -> int:
        """Forgets the ended keys of ``tenant`` but for the last ``KEPT_ENDED``; gives how many.

        A key that is forgotten opens nothing either, whatever is recovered later.
        """
        now = time.time()
        ended = [key for key in self.list(tenant) if not key.valid(now)]
        ended.sort(key=lambda key: key.revoked_at or key.expires_at or 0.0)
        old = ended[: max(0, len(ended) - KEPT_ENDED)]
        for key in old:
            if self._journal is not None:  # first: it may not come back
                self._journal.forget_api_key(key.id)
            self.client.zrem(self._key("keys", tenant), key.id)
            self.client.delete(self._key("key", key.id))
        return len(old)

    def verify(self, text: str) -> ApiKey | None:
        """The valid key whose text this is; None for anything else."""
        parts = _parts(text)
        if parts is None:
            return None
        key_id, digest = parts
        key = self.get(key_id)
        if not hmac.compare_digest(digest, key.hash if key else "0" * 64) or key is None:
            return None
        now = time.time()
        if not key.valid(now):
            return None
        if key.last_used_at is None or now - key.last_used_at >= _USED_EVERY_S:
            with contextlib.suppress(OutOfMemoryError):  # a full Redis must not lock tenants out
                self.client.hset(self._key("key", key.id), "last_used_at", f"{now:.3f}")
        return key


def _key_of(fields: Any) -> ApiKey | None:
    """The key of a hash; None: there is none."""
    if "record" not in fields:  # none, or what `verify` wrote of one that Redis lost meanwhile
        return None
    key = ApiKey.model_validate_json(fields["record"])
    used = float(fields["last_used_at"]) if "last_used_at" in fields else None
    return key.model_copy(update={"last_used_at": used})


@dataclass(frozen=True)
class Allowed:
    """Whether a request may pass, ``ok``, and what is left.

    limit: requests in a minute; remaining: how many more at this moment; reset_s: seconds until
    the counted minute ends; retry_s: seconds until a refused request may pass, 0 if ok.
    """

    ok: bool
    limit: int
    remaining: int
    reset_s: float
    retry_s: float


class Limits:
    """The rate limit of all tenants."""

    def __init__(self, client: Redis, settings: Settings) -> None:
        self._run, self.limit = Scripts(client, settings), settings.rate_per_minute
        self.new_keys = settings.new_keys_per_minute

    def admit(self, text: str) -> tuple[ApiKey, Allowed] | None:
        """``ApiKeys.verify`` of a key's text and ``take`` of its tenant, in one round trip.

        None: it is no valid key, and nothing is counted.
        """
        parts = _parts(text)
        if parts is None:
            return None
        key_id, digest = parts
        record, *rest = self._run(
            "admit", id=key_id, hash=digest, limit=self.limit, used_every=_USED_EVERY_S
        )
        if not record:
            return None
        used, *counted = rest
        key = ApiKey.model_validate_json(record)
        key.last_used_at = None if used is None else float(used)
        return key, self._allowed(counted)

    def take(self, tenant: str) -> Allowed:
        """Counts one request of ``tenant``; a refused one is not counted."""
        return self._allowed(self._run("rate", tenant=tenant, limit=self.limit))

    def take_key(self, tenant: str) -> Allowed:
        """The same for a key that ``tenant`` makes, which has a limit of its own."""
        counted = self._run("rate", tenant=f"{tenant}:keys", limit=self.new_keys)
        return self._allowed(counted, self.new_keys)

    def _allowed(self, counted: Sequence[Any], limit: int | None = None) -> Allowed:
        ok, remaining, reset, retry = counted
        return Allowed(bool(ok), limit or self.limit, remaining, float(reset), float(retry))


def _parts(text: str) -> tuple[str, str] | None:
    """Id and hash of the key whose text this is; None: it is no key's."""
    match = _TEXT.fullmatch(text)
    if match is None:
        return None
    return f"key_{match[1]}", hashlib.sha256(match[2].encode()).hexdigest()
