"""How the delivery of webhooks goes, or went: for those who are waiting for them.

What is told lies beside each job in Redis and is gone with it. After a Redis that lost everything
it is unknown of jobs that had ended before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from customedit.jobs.redis import Scripts, pairs
from customedit.jobs.store import Page
from customedit.schemas.answers import DeliveryState

if TYPE_CHECKING:
    from redis import Redis

    from customedit.config.settings import Settings

_SCAN: Final = 1000


@dataclass(frozen=True)
class Delivery:
    """A webhook of a job that has ended. Times are seconds since 1970, None for never.

    tries: how many were begun; status: of the last answer over HTTP, None if there was none;
    problem: why the last try failed, None if it did not; next_at: when the next one is due.
    """

    job: str
    url: str
    state: DeliveryState
    tries: int
    ended_at: float
    tried_at: float | None = None
    status: int | None = None
    problem: str | None = None
    next_at: float | None = None


class Deliveries:
    """The deliveries of all tenants, to be read."""

    def __init__(self, client: Redis, settings: Settings) -> None:
        self._run = Scripts(client, settings)

    def get(self, tenant: str, job_id: str) -> Delivery | None:
        """That of a job; None: none was begun, it is another's, or nothing is known of it."""
        _, *rows = self._run("hooks", tenant=tenant, id=job_id)
        return _delivery(rows[0]) if rows else None

    def list(
        self,
        tenant: str,
        *,
        state: DeliveryState | None = None,
        cursor: str | None = None,
        limit: int = 20,
    ) -> Page[Delivery]:
        """A page of the tenant's, of the newest jobs first. limit: most of them."""
        items: list[Delivery] = []
        while True:
            after, *rows = self._run(
                "hooks",
                tenant=tenant,
                state=state,
                before=cursor,
                limit=limit - len(items),
                scan=_SCAN,
            )
            items += map(_delivery, rows)
            cursor = after or None
            if cursor is None or len(items) >= limit:
                return Page(items, cursor)


def _delivery(row: list[Any]) -> Delivery:
    job_id, flat, due = row
    found = pairs(flat)
    return Delivery(
        job=job_id,
        url=found["url"],
        state=found.get("state", "pending"),  # type: ignore[arg-type]  # as the scripts write it
        tries=int(found["tries"]),
        ended_at=float(found["since"]),
        tried_at=float(found["tried_at"]) if "tried_at" in found else None,
        status=int(found["status"]) if "status" in found else None,
        problem=found.get("problem"),
        next_at=None if due is None else float(due),
    )
