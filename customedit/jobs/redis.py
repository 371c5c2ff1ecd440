"""Connections to Redis that survive its restarts, and the Lua scripts."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import ConnectionError, NoScriptError, ReadOnlyError, TimeoutError
from redis.retry import Retry

if TYPE_CHECKING:
    from customedit.config.settings import Settings

# About 4 s in all where nobody listens: longer than a local restart, shorter than a client's
# patience. The scripts bear being run twice, so a lost answer is asked for again.
RETRIES: Final = 8
_BACKOFF: Final = ExponentialWithJitterBackoff(cap=1.0, base=0.05)
_SENT_AGAIN: Final = 3
_AGAIN: Final = (ConnectionError, TimeoutError, ReadOnlyError)  # read-only: in a failover

_COMMON: Final[dict[str, Any]] = {
    "decode_responses": True,
    "protocol": 2,  # one shape of answers over all versions of the client
    "socket_connect_timeout": 2.0,
    "socket_timeout": 5.0,  # above the longest wait for events
    "health_check_interval": 30,
    "retry_on_error": list(_AGAIN),
}


def connect(settings: Settings) -> redis.Redis:
    """A client for many threads; it connects on first use and again whenever it must.

    Calls raise ``redis.exceptions.RedisError`` when Redis was away for about 4 seconds, or up to 45
    if it takes connections and says nothing.
    """
    return redis.Redis.from_url(
        settings.redis_url, retry=Retry(_BACKOFF, RETRIES, supported_errors=_AGAIN), **_COMMON
    )


def connect_async(settings: Settings) -> redis.asyncio.Redis:
    """As ``connect``, for asyncio."""
    return redis.asyncio.Redis.from_url(
        settings.redis_url, retry=AsyncRetry(_BACKOFF, RETRIES, supported_errors=_AGAIN), **_COMMON
    )


AT_MAXMEMORY: Final = frozenset(
    {
        "admit", "beat", "cancel", "claim", "delete", "delete_concept", "delete_image",
        "delete_unowned", "due_cleanups", "end_key", "epoch", "finish", "folder_deleted",
        "hand_back", "hold", "hook_secret", "hook_tried", "hooks", "hooks_due", "list", "lock",
        "overdue", "rate", "release",
    }
)  # fmt: skip
"""Scripts that run while Redis is at ``maxmemory``: what they write is bounded by the jobs, tenants
and workers that are there, and without them no job would end, nothing could be found that is to be
deleted, and no memory become free. All others are refused then, as a whole and before they change
anything."""


@functools.cache
def source(name: str) -> str:
    """The Lua text of script ``name``, with what all scripts share before it."""
    folder = resources.files("customedit.jobs") / "lua"
    flags = " flags=allow-oom" if name in AT_MAXMEMORY else ""
    texts = [(folder / f"{part}.lua").read_text("utf-8") for part in ("common", name)]
    return f"#!lua{flags}\n" + "\n".join(texts)


class Scripts:
    """The job scripts on one client, run by hash; sent again when Redis has forgotten them."""

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        self._client, self._namespace = client, settings.namespace
        self._always = {"events_max": settings.events_max}
        self._scripts: dict[str, Any] = {}

    def __call__(self, name: str, /, **given: Any) -> Any:
        """Runs script ``name``; arguments that are None are left out."""
        script = self._scripts.get(name)
        if script is None:
            script = self._scripts[name] = self._client.register_script(source(name))
        arguments = {k: v for k, v in given.items() if v is not None} | self._always
        text = [self._namespace, json.dumps(arguments)]
        for _ in range(_SENT_AGAIN):
            try:
                return script(args=text)
            except NoScriptError:  # Redis restarted between receiving the script and running it
                continue
        return script(args=text)


@dataclass(frozen=True)
class Memory:
    """What Redis holds, in bytes. most: its ``maxmemory``; None: no limit is set."""

    used: int
    most: int | None

    @property
    def share(self) -> float | None:
        """Used of the limit, from 0 to 1 and a little more; None: no limit is set."""
        return None if self.most is None else self.used / self.most


def memory(client: redis.Redis) -> Memory:
    """How full Redis is. At 1 submissions and uploads are refused; jobs still end."""
    info: Any = client.info("memory")
    return Memory(int(info["used_memory"]), int(info.get("maxmemory") or 0) or None)


def pairs(flat: list[str]) -> dict[str, str]:
    """A hash as Lua returns it, names and values by turns."""
    return dict(zip(flat[::2], flat[1::2], strict=True))
