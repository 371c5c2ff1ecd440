"""What the routes work with: made once when the app starts, closed when it ends."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

import anyio
import anyio.to_thread
import redis

from api.event_reader import EventReader, running
from api.middleware.observability import Metrics
from api.notifications import Notifier
from api.quotas import FailedKeys, ImportSlots, KeyChecks, StreamSlots
from api.serializers import Serializers
from customedit.config.settings import Settings
from customedit.images.decoder_pool import DecoderPool, default_decoders
from customedit.jobs.events import AsyncEvents
from customedit.jobs.journal import Journal
from customedit.jobs.redis import connect, connect_async
from customedit.jobs.store import Jobs
from customedit.jobs.webhooks import Secrets
from customedit.storage.store import Storage
from customedit.tenants.access import ApiKeys, Limits
from customedit.tenants.catalogue import Concepts, Images

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Container:
    """All that a request may need. decoders: the processes that check uploaded pictures."""

    settings: Settings
    metrics: Metrics
    redis: redis.Redis
    storage: Storage
    jobs: Jobs
    events: EventReader
    images: Images
    concepts: Concepts
    keys: ApiKeys
    key_checks: KeyChecks
    limits: Limits
    failed_keys: FailedKeys
    streams: StreamSlots
    imports: ImportSlots
    journal: Journal
    secrets: Secrets
    notifier: Notifier
    serializers: Serializers
    decoders: DecoderPool
    _stop: threading.Event = field(default_factory=threading.Event)

    def stopping(self) -> bool:
        """Whether the process is to end: streams and waits end early then."""
        return self._stop.is_set()

    def stop(self) -> None:
        """Let streams and waits end; may be called from a signal handler."""
        self._stop.set()


@contextlib.asynccontextmanager
async def open_container(settings: Settings, metrics: Metrics) -> AsyncIterator[Container]:
    """The container of ``settings``. It asks nothing of the stores yet, so they may be down."""
    client, async_client = connect(settings), connect_async(settings)
    storage = Storage(settings)
    journal = Journal(storage)
    keys = ApiKeys(client, settings, journal)
    events = EventReader(AsyncEvents(async_client, settings))
    notifier = Notifier(settings, metrics.notifications_failed.inc)
    decoders = DecoderPool(
        decoders=settings.decoders or default_decoders(),
        memory=settings.decode_memory_bytes,
        seconds=settings.decode_seconds,
    )
    anyio.to_thread.current_default_thread_limiter().total_tokens = settings.api_threads
    try:
        async with running(events):
            yield Container(
                settings=settings,
                metrics=metrics,
                redis=client,
                storage=storage,
                jobs=Jobs(client, settings),
                events=events,
                images=Images(client, settings),
                concepts=Concepts(client, settings),
                keys=keys,
                key_checks=KeyChecks(keys),
                limits=Limits(client, settings),
                failed_keys=FailedKeys(settings.failed_keys_per_minute),
                streams=StreamSlots(settings.streams_per_tenant),
                imports=ImportSlots(settings.imports_at_once, settings.imports_per_tenant),
                journal=journal,
                secrets=Secrets(client, settings, journal),
                notifier=notifier,
                serializers=Serializers(storage),
                decoders=decoders,
            )
    finally:
        notifier.close()
        await decoders.close()
        await async_client.aclose()
        client.close()


async def in_thread(call: Callable[P, R], *args: P.args, **named: P.kwargs) -> R:
    """``call`` in a thread: it waits for Redis or S3, which the event loop must not."""
    return await anyio.to_thread.run_sync(lambda: call(*args, **named))
