"""How many requests a tenant may make: counted in Redis over a sliding minute.

A script of our own, since those of the package ``limits`` are refused while Redis is at
``maxmemory``: then nobody could even cancel a job or delete what fills it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from customedit.jobs.redis import Scripts

if TYPE_CHECKING:
    from redis import Redis

    from customedit.config.settings import Settings


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

    def take(self, tenant: str) -> Allowed:
        """Counts one request of ``tenant``; a refused one is not counted."""
        ok, remaining, reset, retry = self._run("rate", tenant=tenant, limit=self.limit)
        return Allowed(bool(ok), self.limit, remaining, float(reset), float(retry))
