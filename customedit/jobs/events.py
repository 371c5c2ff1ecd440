"""What happens to a job, as a stream: replayed from any id, and waited for."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    import redis.asyncio
    from redis import Redis

    from customedit.config.settings import Settings

_LONGEST_S: Final = 3.0  # below the socket's timeout
_PER_JOB: Final = 1000  # events of one job in one answer

EventKind = Literal["state", "progress", "preview"]


@dataclass(frozen=True)
class Event:
    """Something that happened. id: the stream's, ``<milliseconds>-<number>``; at: seconds, UTC.

    data of ``state``: state, attempt, and error of failed jobs; of the others: a JobProgress.
    """

    id: str
    kind: EventKind
    data: dict[str, Any]

    @property
    def at(self) -> float:
        """When it happened, in seconds since 1970, UTC."""
        return int(self.id.split("-")[0]) / 1000

    @property
    def final(self) -> bool:
        """Whether nothing comes after it."""
        return self.kind == "state" and self.data["state"] not in ("queued", "running")


class Events:
    """Reading of events; a part of Jobs."""

    client: Redis
    settings: Settings

    def events(self, tenant: str, job_id: str, after: str = "0", limit: int = 1000) -> list[Event]:
        """Events of the tenant's job after id ``after``, oldest first.

        Empty too for a job that is another's. A day after the end of a job its stream is dropped;
        then the record tells all.
        """
        if not self._owns(tenant, job_id):
            return []
        stream = _stream(self.settings, job_id)
        entries: Any = self.client.xrange(stream, f"({_full(after)}", count=limit)
        return [_event(entry) for entry in entries]

    def wait_events(
        self, tenant: str, job_id: str, after: str = "0", timeout_s: float = 3.0
    ) -> list[Event]:
        """As ``events``; waits up to ``timeout_s`` seconds (at most 3) for the first."""
        if not self._owns(tenant, job_id):
            return []
        entries: Any = self.client.xread(
            {_stream(self.settings, job_id): _full(after)}, block=_block_ms(timeout_s)
        )
        return [_event(entry) for entry in entries[0][1]] if entries else []

    def _owns(self, tenant: str, job_id: str) -> bool:
        owner: Any = self.client.hget(f"{self.settings.namespace}:job:{job_id}", "tenant")
        return bool(owner == tenant)


class AsyncEvents:
    """Reading of events under asyncio: ``client`` of ``connect_async``, blocked while waiting."""

    def __init__(self, client: redis.asyncio.Redis, settings: Settings) -> None:
        self.client, self.settings = client, settings

    async def wait(self, job_id: str, after: str = "0", timeout_s: float = 3.0) -> list[Event]:
        """Events after id ``after``; waits up to ``timeout_s`` seconds (at most 3) for the first.

        The caller has made sure that the job is its tenant's.
        """
        entries: Any = await self.client.xread(
            {_stream(self.settings, job_id): _full(after)}, block=_block_ms(timeout_s)
        )
        return [_event(entry) for entry in entries[0][1]] if entries else []

    async def read(
        self, positions: Mapping[str, str], timeout_s: float = 3.0
    ) -> dict[str, list[Event]]:
        """New events of many jobs in one call, by job id. positions: of each, the last id seen.

        Waits up to ``timeout_s`` seconds (at most 3) for the first. The caller has made sure that
        the jobs are those of its tenants.
        """
        prefix = _stream(self.settings, "")
        streams: Any = {prefix + job_id: _full(after) for job_id, after in positions.items()}
        answer: Any = await self.client.xread(streams, count=_PER_JOB, block=_block_ms(timeout_s))
        return {
            name.removeprefix(prefix): [_event(entry) for entry in entries]
            for name, entries in answer or ()
        }

    async def follow(
        self, job_id: str, after: str = "0", beat_s: float = 3.0
    ) -> AsyncIterator[Event | None]:
        """Events after id ``after`` until its end; None after each ``beat_s`` quiet seconds."""
        while True:
            entries = await self.wait(job_id, after, beat_s)
            if not entries:
                yield None
            for event in entries:
                after = event.id
                yield event
                if event.final:
                    return


def valid_id(text: str) -> bool:
    """Whether ``text`` can be an event's id, such as a client's ``Last-Event-ID``."""
    parts = text.split("-")
    return len(parts) <= 2 and all(p.isascii() and p.isdigit() and int(p) < 2**63 for p in parts)


def _stream(settings: Settings, job_id: str) -> str:
    return f"{settings.namespace}:events:{job_id}"


def _full(after: str) -> str:
    # A bare number means its first event to XREAD and its last to XRANGE: say which.
    return after if "-" in after else f"{after}-0"


def _block_ms(timeout_s: float) -> int:
    return max(1, int(min(timeout_s, _LONGEST_S) * 1000))  # 0 would be for ever


def _event(entry: tuple[str, dict[str, str]]) -> Event:
    name, fields = entry
    kind: Any = fields["kind"]
    return Event(name, kind, json.loads(fields["data"]))
