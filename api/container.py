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

from api.deletion import Deleting
from api.middleware.observability import Figures
from api.notifications import Doorbell
from api.serializers import Views
from customedit.config.settings import Settings
from customedit.images.decoder_pool import DecoderPool, default_decoders
from customedit.jobs.events import AsyncEvents
from customedit.jobs.journal import Journal
from customedit.jobs.redis import connect, connect_async
from customedit.jobs.store import Jobs
from customedit.jobs.webhooks import Secrets
from customedit.storage.store import Storage
from customedit.tenants.api_keys import ApiKeys
from customedit.tenants.catalogue import Concepts, Images
from customedit.tenants.rate_limits import Limits

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Services:
    """All that a request may need. decoders: the processes that check uploaded pictures."""

    settings: Settings
    figures: Figures
    redis: redis.Redis
    storage: Storage
    jobs: Jobs
    events: AsyncEvents
    images: Images
    concepts: Concepts
    keys: ApiKeys
    limits: Limits
    journal: Journal
    secrets: Secrets
    doorbell: Doorbell
    views: Views
    deleting: Deleting
    decoders: DecoderPool
    _stop: threading.Event = field(default_factory=threading.Event)

    def stopping(self) -> bool:
        """Whether the process is to end: streams and waits end early then."""
        return self._stop.is_set()

    def stop(self) -> None:
        """Let streams and waits end; may be called from a signal handler."""
        self._stop.set()


@contextlib.asynccontextmanager
async def opened(settings: Settings, figures: Figures) -> AsyncIterator[Services]:
    """The services of ``settings``. Nothing is asked of the stores yet, so they may be down."""
    client, waiting = connect(settings), connect_async(settings)
    storage = Storage(settings)
    journal = Journal(storage)
    jobs = Jobs(client, settings)
    images, concepts = Images(client, settings), Concepts(client, settings)
    doorbell = Doorbell(settings, figures.notifications_failed.inc)
    decoders = DecoderPool(
        decoders=settings.decoders or default_decoders(),
        memory=settings.decode_memory_bytes,
        seconds=settings.decode_seconds,
    )
    anyio.to_thread.current_default_thread_limiter().total_tokens = settings.api_threads
    try:
        yield Services(
            settings=settings,
            figures=figures,
            redis=client,
            storage=storage,
            jobs=jobs,
            events=AsyncEvents(waiting, settings),
            images=images,
            concepts=concepts,
            keys=ApiKeys(client, settings, journal),
            limits=Limits(client, settings),
            journal=journal,
            secrets=Secrets(client, settings, journal),
            doorbell=doorbell,
            views=Views(storage),
            deleting=Deleting(jobs, images, concepts, journal),
            decoders=decoders,
        )
    finally:
        doorbell.close()
        await decoders.close()
        await waiting.aclose()
        client.close()


async def in_thread(call: Callable[P, R], *args: P.args, **named: P.kwargs) -> R:
    """``call`` in a thread: it waits for Redis or S3, which the event loop must not."""
    return await anyio.to_thread.run_sync(lambda: call(*args, **named))
