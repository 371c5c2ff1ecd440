"""What routes work with: the container of the app, and what they take from a request.

The container is made once when the app starts and closed when it ends.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, ParamSpec, TypeVar

import anyio
import anyio.to_thread
import redis
from fastapi import Depends, Header, Path, Query, Request

from api.event_reader import EventReader, running
from api.image_sides import ImageSides
from api.middleware.observability import Metrics
from api.problems import ProblemError
from api.quotas import FailedKeys, ImportSlots, KeyChecks, StreamSlots
from api.serializers import Serializers
from api.store_watch import StoreWatch, watching
from customedit.config.settings import Settings
from customedit.estimates.forecasts import Forecasts
from customedit.images.decoder_pool import DecoderPool, default_decoders
from customedit.jobs.bases import Bases
from customedit.jobs.deliveries import Deliveries
from customedit.jobs.events import AsyncEvents
from customedit.jobs.journal import Journal
from customedit.jobs.redis import connect, connect_async
from customedit.jobs.store import Jobs
from customedit.jobs.webhooks import Secrets
from customedit.schemas import patterns
from customedit.storage.store import Storage
from customedit.tenants.access import ApiKey, ApiKeys, Limits
from customedit.tenants.catalogue import Concepts, Images
from customedit.tenants.presets import Presets

P = ParamSpec("P")
R = TypeVar("R")

ADMIN: Final = "admin"
MAX_WAIT_S: Final = 60


@dataclass(frozen=True)
class Container:
    """All that a request may need.

    bases: what is known of the bases that workers run; decoders: the processes that check uploaded
    pictures.
    """

    settings: Settings
    metrics: Metrics
    redis: redis.Redis
    storage: Storage
    jobs: Jobs
    events: EventReader
    images: Images
    image_sides: ImageSides
    concepts: Concepts
    bases: Bases
    keys: ApiKeys
    key_checks: KeyChecks
    limits: Limits
    failed_keys: FailedKeys
    streams: StreamSlots
    imports: ImportSlots
    journal: Journal
    secrets: Secrets
    deliveries: Deliveries
    presets: Presets
    forecasts: Forecasts
    serializers: Serializers
    decoders: DecoderPool
    watch: StoreWatch
    _stop: threading.Event = field(default_factory=threading.Event)

    def stopping(self) -> bool:
        """Whether the process is to end: streams and waits end early then."""
        return self._stop.is_set()

    def stop(self) -> None:
        """Let streams and waits end; may be called from a signal handler."""
        self._stop.set()


@contextlib.asynccontextmanager
async def open_container(settings: Settings, metrics: Metrics) -> AsyncIterator[Container]:
    """The container of ``settings``. The stores may be down when it is opened."""
    client, async_client = connect(settings), connect_async(settings)
    storage, images = Storage(settings), Images(client, settings)
    storage.on_error = metrics.store_errors.labels("s3").inc
    watch = StoreWatch(client, storage, metrics)
    journal = Journal(storage)
    keys = ApiKeys(client, settings, journal)
    events = EventReader(AsyncEvents(async_client, settings))
    forecasts = Forecasts(client, settings)
    decoders = DecoderPool(
        decoders=settings.decoders or default_decoders(),
        memory=settings.decode_memory_bytes,
        seconds=settings.decode_seconds,
    )
    anyio.to_thread.current_default_thread_limiter().total_tokens = settings.api_threads
    try:
        async with running(events), watching(watch):
            yield Container(
                settings=settings,
                metrics=metrics,
                redis=client,
                storage=storage,
                jobs=Jobs(client, settings),
                events=events,
                images=images,
                image_sides=ImageSides(images),
                concepts=Concepts(client, settings),
                bases=Bases(client, settings, storage),
                keys=keys,
                key_checks=KeyChecks(keys),
                limits=Limits(client, settings),
                failed_keys=FailedKeys(settings.failed_keys_per_minute),
                streams=StreamSlots(settings.streams_per_tenant),
                imports=ImportSlots(settings.imports_at_once, settings.imports_per_tenant),
                journal=journal,
                secrets=Secrets(client, settings, journal),
                deliveries=Deliveries(client, settings),
                presets=Presets(client, settings, journal),
                forecasts=forecasts,
                serializers=Serializers(storage, forecasts),
                decoders=decoders,
                watch=watch,
            )
    finally:
        await decoders.close()
        await async_client.aclose()
        client.close()


async def in_thread(call: Callable[P, R], *args: P.args, **named: P.kwargs) -> R:
    """``call`` in a thread: it waits for Redis or S3, which the event loop must not."""
    return await anyio.to_thread.run_sync(lambda: call(*args, **named))


# Dependencies are coroutines although they wait for nothing: FastAPI calls each of the others in a
# thread.
async def _container(request: Request) -> Container:
    return request.app.state.container


def needs(*scopes: str) -> Any:
    """A dependency that gives the caller's key if it has one of ``scopes``, or ``admin``.

    The middleware has read the key; what the OpenAPI document says of it stands in ``openapi``.
    """

    async def check(request: Request) -> ApiKey:
        key: ApiKey = request.state.caller
        require_scope(key, *scopes)
        return key

    return Depends(check)


def require_scope(key: ApiKey, *scopes: str) -> None:
    """Refuse what ``key`` has none of the ``scopes`` for.

    Raises:
        ProblemError: forbidden.
    """
    if not {*scopes, ADMIN} & set(key.scopes):
        limit = " or ".join((*scopes, ADMIN) if ADMIN not in scopes else scopes)
        raise ProblemError("forbidden", field="Authorization", limit=f"scope {limit}")


async def _wait(
    prefer: Annotated[
        str | None,
        Header(
            max_length=1000,
            description=f"`wait=10`: wait up to 10 s for the job's end; at most {MAX_WAIT_S}.",
        ),
    ] = None,
) -> int:
    """Seconds to wait. Preferences that are not known are passed over (RFC 7240)."""
    preference = _WAIT.search(prefer or "")
    return min(int(preference[1]), MAX_WAIT_S) if preference else 0


_WAIT: Final = re.compile(r"(?:^|[,;])\s*wait\s*=\s*\"?(\d{1,9})\"?\s*(?=$|[,;])", re.IGNORECASE)

AppContainer = Annotated[Container, Depends(_container)]
Reader = Annotated[ApiKey, needs("read")]
JobId = Annotated[str, Path(pattern=patterns.JOB, description="Id of a job.")]
ConceptId = Annotated[str, Path(pattern=patterns.CONCEPT, description="Id of a concept.")]
ImageId = Annotated[str, Path(pattern=patterns.IMAGE, description="Id of an image.")]
PictureId = Annotated[
    str, Path(pattern=patterns.PICTURE, description="Id of an image, or of an output of an edit.")
]
UploadId = Annotated[str, Path(pattern=patterns.UPLOAD, description="Id of an upload.")]
KeyId = Annotated[str, Path(pattern=patterns.KEY, description="Id of an API key.")]
Cursor = Annotated[
    str | None, Query(pattern=patterns.CURSOR, description="`next_cursor` of the page before.")
]
Limit = Annotated[int, Query(ge=1, le=100, description="Most items of the page.")]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        pattern=patterns.IDEMPOTENCY_KEY,
        description="Any word of yours: a request that is sent again with it is not done again.",
    ),
]
LastEventId = Annotated[
    str,
    Header(
        alias="Last-Event-ID",
        pattern=patterns.EVENT,
        description="The id of the last event that was seen: what came after it is sent.",
    ),
]
Wait = Annotated[int, Depends(_wait)]
DryRun = Annotated[
    bool,
    Query(description="Only tell what the request would do, and how long it would take."),
]
