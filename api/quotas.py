"""Shares of one process: streams, imports of a tenant; connections, wrong keys of an address."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import ipaddress
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator
from typing import Final

import anyio
from redis.exceptions import RedisError

from api.problems import ProblemError
from customedit.tenants.access import ApiKey, ApiKeys

KEY_CHECK_S: Final = 2.0
"""So long a stream may go on after its key was revoked, about."""

_MINUTE: Final = 60.0
_MAX_TRACKED: Final = 10_000
_IMPORT_WAIT_S: Final = 20.0


class StreamSlots:
    """How many event streams a tenant may have open in this process.

    For the event loop alone: a stream is counted by the step that looks whether there is room.
    """

    def __init__(self, per_tenant: int) -> None:
        self._limit, self._open = per_tenant, Counter[str]()

    def take(self, tenant: str) -> StreamSlot:
        """Count one more stream, until the slot is released.

        Raises:
            ProblemError: too-many-streams.
        """
        if self._open[tenant] >= self._limit:
            raise ProblemError(
                "too-many-streams",
                limit=f"{self._limit} open event streams",
                headers={"Retry-After": "5"},
            )

        self._open[tenant] += 1
        return StreamSlot(self._open, tenant)


class StreamSlot:
    """A stream that counts among its tenant's until it is released, once or more often."""

    def __init__(self, open_streams: Counter[str], tenant: str) -> None:
        self._open, self._tenant, self._held = open_streams, tenant, True

    def release(self) -> None:
        """Count the stream no more."""
        if not self._held:
            return
        self._held = False
        self._open[self._tenant] -= 1
        if not self._open[self._tenant]:
            del self._open[self._tenant]


class ImportSlots:
    """How many files are imported at once: each lies on the disk once until it is stored."""

    def __init__(self, at_once: int, per_tenant: int) -> None:
        self._slots, self._per_tenant = anyio.Semaphore(at_once), per_tenant
        self._active = Counter[str]()

    @contextlib.asynccontextmanager
    async def hold(self, tenant: str) -> AsyncIterator[None]:
        """Wait for a slot; the file is read inside this context and not before.

        Raises:
            ProblemError: too-many-imports for the tenant; unavailable if no slot comes free.
        """
        if self._active[tenant] >= self._per_tenant:
            raise ProblemError(
                "too-many-imports",
                limit=f"{self._per_tenant} imports at once",
                headers={"Retry-After": "5"},
            )
        self._active[tenant] += 1
        try:
            with anyio.move_on_after(_IMPORT_WAIT_S) as waiting:
                await self._slots.acquire()
            if waiting.cancelled_caught:
                raise ProblemError("unavailable", "too many files are being imported now")
            try:
                yield
            finally:
                self._slots.release()
        finally:
            self._active[tenant] -= 1
            if not self._active[tenant]:
                del self._active[tenant]


class KeyChecks:
    """Whether the keys of open streams are still valid: each is read every few seconds at most."""

    def __init__(self, keys: ApiKeys) -> None:
        self._keys = keys
        self._known: OrderedDict[str, tuple[float, bool]] = OrderedDict()

    async def valid(self, key: ApiKey) -> bool:
        """Whether ``key`` was valid a few seconds ago; while Redis is away, as it was before."""
        now = time.monotonic()
        checked, valid = self._known.get(key.id, (-KEY_CHECK_S, True))
        if now - checked < KEY_CHECK_S:
            return valid
        self._known[key.id] = now, valid  # so that the key's other streams need not ask
        with contextlib.suppress(RedisError):
            current = await anyio.to_thread.run_sync(self._keys.get, key.id)
            valid = current is not None and current.valid(time.time())
            self._known[key.id] = now, valid
        self._known.move_to_end(key.id)
        while len(self._known) > _MAX_TRACKED:
            self._known.popitem(last=False)
        return valid


class FailedKeys:
    """A limit on wrong keys from one address (IPv6: one /64), counted in this process.

    Whoever is over it is refused before a store is asked. A key that was right here in the last
    minutes is let through all the same: many callers may share an address behind a proxy.
    """

    def __init__(self, per_minute: int) -> None:
        self._limit = per_minute
        self._failed: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._right: OrderedDict[bytes, None] = OrderedDict()

    def check(self, address: str, key_text: str) -> None:
        """Refuse an address over its limit.

        Raises:
            ProblemError: too-many-failed-keys.
        """
        since, count = self._failed.get(_network(address), (0.0, 0))
        left = _MINUTE - (time.monotonic() - since)
        if count < self._limit or left <= 0 or _digest(key_text) in self._right:
            return
        raise ProblemError(
            "too-many-failed-keys",
            field="Authorization",
            limit=f"{self._limit} wrong keys a minute",
            headers={"Retry-After": str(max(1, round(left)))},
        )

    def failed(self, address: str) -> None:
        """Count a wrong key."""
        network, now = _network(address), time.monotonic()
        since, count = self._failed.get(network, (now, 0))
        if now - since >= _MINUTE:
            since, count = now, 0
        self._failed[network] = since, count + 1
        self._failed.move_to_end(network)
        while len(self._failed) > _MAX_TRACKED:
            self._failed.popitem(last=False)

    def succeeded(self, key_text: str) -> None:
        """Remember a key that was right."""
        digest = _digest(key_text)
        self._right[digest] = None
        self._right.move_to_end(digest)
        while len(self._right) > _MAX_TRACKED:
            self._right.popitem(last=False)


def _digest(key_text: str) -> bytes:
    return hashlib.sha256(key_text.encode()).digest()


class ConnectionShares:
    """How many connections one address, of IPv6 one network of 64 bits, may have open.

    A trusted proxy carries many clients, whose connections it limits itself: it has no share.
    Clients behind a Unix socket have none either. trusted: as ``Settings.trusted_proxies``.
    """

    def __init__(self, per_address: int, trusted: str) -> None:
        self._limit, self._open = per_address, Counter[str]()
        parts = trusted.split(",") if trusted else []
        self._trusted = [ipaddress.ip_network(part) for part in parts]

    def take(self, address: str) -> bool:
        """Count a connection; False if the address has as many as it may have."""
        network = _network(address)
        if not self._limited(network):
            return True
        if self._open[network] >= self._limit:
            return False
        self._open[network] += 1
        return True

    def release(self, address: str) -> None:
        """Count a connection that was taken no more."""
        network = _network(address)
        if network in self._open:
            self._open[network] -= 1
            if not self._open[network]:
                del self._open[network]

    def _limited(self, network: str) -> bool:
        try:
            parsed = ipaddress.ip_network(network)
        except ValueError:
            return False
        return not any(
            parsed.version == proxies.version and parsed.overlaps(proxies)
            for proxies in self._trusted
        )


@functools.lru_cache(maxsize=4096)
def _network(address: str) -> str:
    """The address, or of IPv6 its network of 64 bits: whose share it counts against."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:  # such as the path of a Unix socket
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)
