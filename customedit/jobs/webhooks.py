"""Webhooks: a message about a job's end, sent to the URL that its request named.

The script that ends a job puts the message into the outbox; ``Webhooks`` sends it, signed as
Standard Webhooks has it, with growing waits until the receiver answers 2xx, for a day at most. It
may arrive more than once, always with the same ``webhook-id``.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import json
import logging
import random
import secrets
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

import httpx
from redis.exceptions import RedisError
from standardwebhooks.webhooks import Webhook

from customedit.jobs import webhook_addresses
from customedit.jobs.redis import Scripts

if TYPE_CHECKING:
    from redis import Redis

    from customedit.config.settings import Settings
    from customedit.jobs.journal import Journal
    from customedit.jobs.records import JobRecord
    from customedit.jobs.store import Jobs

OVERLAP_S: Final = 86_400
"""How long a replaced secret still signs as well, in seconds."""

AT_ONCE: Final = 64
"""Deliveries under way at once."""

SHARE: Final = 8
"""Of them, how many may be one tenant's."""

FAILURES: Final = 3
"""Tries without an answer, one after the other, after which a receiver is left alone for a time."""

LONGEST_PAUSE_S: Final = 300.0
"""How long such a receiver is left alone at most, in seconds; then one try finds out."""

MAX_AGE_S: Final = 86_400.0
"""A webhook is given up so long after the end of its job, in seconds."""

_LONGEST_WAIT_S: Final = 6 * 3600.0
T = TypeVar("T")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Secret:
    """A tenant's secret. text: ``whsec_`` and 32 bytes in base64; former: the one before, if valid.

    made_at: seconds since 1970.
    """

    text: str = field(repr=False)
    made_at: float
    former: str | None = field(default=None, repr=False)


class Secrets:
    """What the webhooks of each tenant are signed with."""

    def __init__(self, client: Redis, settings: Settings, journal: Journal | None = None) -> None:
        self._run, self._journal = Scripts(client, settings), journal

    def get(self, tenant: str) -> Secret | None:
        """The tenant's secret; None: none was made."""
        return _secret(self._run("hook_secret", tenant=tenant))

    def make(self, tenant: str) -> Secret:
        """A new secret; the one before signs as well for a day, so that receivers can change.

        Raises:
            StorageError: the journal cannot be written; the secret before stays.
        """
        fresh = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
        made_at = time.time()
        if self._journal is not None:  # first: a secret that nobody was given must not sign
            self._journal.webhook_secret(tenant, fresh, made_at)
        return self.put(tenant, fresh, made_at)

    def put(self, tenant: str, text: str, made_at: float | None = None) -> Secret:
        """Sets the tenant's secret, as ``make`` does or as the journal has it."""
        made = _secret(
            self._run("hook_secret", tenant=tenant, fresh=text, made_at=made_at, overlap=OVERLAP_S)
        )
        assert made is not None
        return made


def _secret(answer: list[str] | None) -> Secret | None:
    if not answer:
        return None
    return Secret(answer[0], float(answer[1]), answer[2] if len(answer) > 2 else None)


@dataclass(frozen=True)
class _Hook:
    """A webhook to deliver. tries: this one included; since: when its job ended."""

    job: str
    url: str
    tenant: str
    tries: int
    since: float


class Webhooks:
    """Delivery. One process at a time is enough, several do no harm.

    A tenant has ``SHARE`` deliveries under way at most, and a receiver that does not answer is left
    alone for growing times, so that dead and slow receivers of one tenant do not delay another's.

    trust: which certificates receivers may show; None: those that httpx trusts.
    """

    def __init__(
        self,
        client: Redis,
        settings: Settings,
        jobs: Jobs,
        trust: ssl.SSLContext | None = None,
    ) -> None:
        self.client, self.settings, self._jobs = client, settings, jobs
        self._trust = trust
        self._secrets = Secrets(client, settings)
        self._run = Scripts(client, settings)
        self._in_flight: Counter[str] = Counter()  # by tenant
        self._pool = ThreadPoolExecutor(8, "webhooks")  # calls of Redis: none waits for a receiver

    def run(self, closed: threading.Event, every_s: float = 1.0) -> None:
        """Delivers what becomes due until ``closed``; not to be called in an event loop."""
        asyncio.run(self._deliver_until(closed, every_s))

    def deliver_due(self, limit: int = AT_ONCE) -> int:
        """Sends what is due now, at most ``limit``; returns how many arrived.

        Takes about ``webhook_timeout_seconds`` at the longest; not to be called in an event loop.
        """
        due = self._take(limit)
        return asyncio.run(self._deliver_all(due)) if due else 0

    def waiting(self) -> int:
        """How many webhooks are to be delivered, those that wait for another try included."""
        count: int = self.client.zcard(f"{self.settings.namespace}:outbox")
        return count

    def oldest_age(self) -> float:
        """Seconds since the end of the job whose webhook waits longest; 0 if none waits."""
        first: Any = self.client.zrange(f"{self.settings.namespace}:outbox", 0, 0, withscores=True)
        return max(0.0, self._jobs.now() - first[0][1]) if first else 0.0

    def _take(self, limit: int) -> list[_Hook]:
        hold = self.settings.webhook_timeout_seconds * 2 + 30
        rows = self._run(
            "hooks_due",
            limit=limit,
            hold=hold,
            share=SHARE,
            failures=FAILURES,
            in_flight=dict(self._in_flight),
        )
        return [
            _Hook(job, url, tenant, tries, float(since)) for job, url, tenant, tries, since in rows
        ]

    async def _deliver_until(self, closed: threading.Event, every_s: float) -> None:
        tasks: set[asyncio.Task[bool]] = set()
        # A thread for each name that is looked up: a slow name server delays its own tenant alone.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(AT_ONCE, "names"))
        async with self._connections() as client:
            while not closed.is_set():
                due: list[_Hook] = []
                try:
                    due = await self._in_pool(self._take, AT_ONCE - len(tasks))
                except (RedisError, OSError) as error:
                    _log.warning("webhooks: %s: %s", type(error).__name__, error)
                for hook in due:
                    self._in_flight[hook.tenant] += 1
                    task = asyncio.create_task(self._deliver(client, hook))
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
                    task.add_done_callback(functools.partial(self._landed, hook))
                await asyncio.sleep(0.02 if due else every_s)
            if tasks:  # the rest is due again for the next process
                await asyncio.wait(tasks, timeout=1)

    def _landed(self, hook: _Hook, _: object) -> None:
        self._in_flight[hook.tenant] -= 1
        self._in_flight = +self._in_flight  # drops those at 0

    async def _deliver_all(self, due: list[_Hook]) -> int:
        async with self._connections() as client:
            return sum(await asyncio.gather(*(self._deliver(client, hook) for hook in due)))

    def _connections(self) -> httpx.AsyncClient:
        if self._trust is None:  # once: reading all the authorities takes a while
            self._trust = httpx.create_ssl_context(trust_env=False)
        # trust_env off: a proxy of the environment would connect in our place, unchecked
        return httpx.AsyncClient(
            verify=self._trust,
            trust_env=False,
            follow_redirects=False,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=AT_ONCE),
        )

    async def _in_pool(self, call: Callable[..., T], *arguments: Any, **named: Any) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, functools.partial(call, *arguments, **named))

    async def _deliver(self, client: httpx.AsyncClient, hook: _Hook) -> bool:
        try:
            return await self._try(client, hook)
        except (RedisError, OSError) as error:  # it is due again after its hold
            _log.warning("webhook of %s: %s: %s", hook.job, type(error).__name__, error)
            return False

    async def _try(self, client: httpx.AsyncClient, hook: _Hook) -> bool:
        record = await self._in_pool(self._jobs.peek, hook.job)
        if record is None or not record.finished:  # there is nothing to be told
            await self._note(hook, _Outcome(None, answered=True))
            return False
        outcome = await self._outcome(client, hook, record)
        if outcome.problem is None:
            await self._note(hook, outcome, ended="delivered")
            return True
        _log.warning("webhook of %s, try %d: %s", hook.job, hook.tries, outcome.problem)
        late = hook.tries >= self.settings.webhook_attempts or (
            time.time() - hook.since > MAX_AGE_S
        )
        if outcome.unwanted or late:
            _log.error("webhook of %s is given up", hook.job)
            await self._note(hook, outcome, ended="failed")
        else:
            await self._note(hook, outcome, wait=self.wait_before(hook.tries + 1))
        return False

    async def _note(
        self,
        hook: _Hook,
        outcome: _Outcome,
        *,
        wait: float | None = None,
        ended: Literal["delivered", "failed"] | None = None,
    ) -> None:
        """Keeps how a try went. wait: seconds until the next; ended: how the delivery did."""
        await self._in_pool(
            self._run,
            "hook_tried",
            id=hook.job,
            tenant=hook.tenant,
            answered=outcome.answered,
            status=outcome.status,
            problem=outcome.problem,
            wait=wait,
            ended=ended,
            failures=FAILURES,
            first=self.settings.webhook_first_retry_seconds,
            longest=LONGEST_PAUSE_S,
        )

    def wait_before(self, attempt: int) -> float:
        """Seconds before ``attempt`` (from 2): doubled each time, half of it by chance."""
        full = self.settings.webhook_first_retry_seconds * 2.0 ** (attempt - 2)
        return min(full, _LONGEST_WAIT_S) * random.uniform(0.5, 1.0)

    async def _outcome(self, client: httpx.AsyncClient, hook: _Hook, record: JobRecord) -> _Outcome:
        """How one try went."""
        secret = await self._in_pool(self._secrets.get, hook.tenant)
        if secret is None:
            return _Outcome("the tenant has no secret to sign with", answered=True)
        private = self.settings.webhook_allow_private
        lookup: asyncio.Future[str] | None = None
        try:
            parts = webhook_addresses.check(hook.url, allow_private=private)
            host = parts.hostname or ""
            port = parts.port or (443 if parts.scheme == "https" else 80)
            async with asyncio.timeout(self.settings.webhook_timeout_seconds):
                lookup = asyncio.ensure_future(
                    webhook_addresses.resolve(host, port, allow_private=private)
                )
                address = await asyncio.shield(lookup)
                status = await self._post(client, hook, record, secret, address)
        except TimeoutError:
            return _Outcome("no answer in time")
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            # the text may hold an address of the inner network
            return _Outcome(type(error).__name__)
        finally:
            if lookup is not None and not lookup.done():  # its thread counts until it has ended
                await asyncio.wait([lookup])
                lookup.exception()
        if status == 410:
            gone = "answered 410: it wants no more"
            return _Outcome(gone, answered=True, unwanted=True, status=status)
        problem = None if 200 <= status < 300 else f"answered {status}"
        return _Outcome(problem, answered=True, status=status)

    async def _post(
        self,
        client: httpx.AsyncClient,
        hook: _Hook,
        record: JobRecord,
        secret: Secret,
        address: str,
    ) -> int:
        url = httpx.URL(hook.url)
        body = payload(record)
        request = client.build_request(
            "POST",
            url.copy_with(host=address),
            content=body.encode(),
            headers={"Host": url.netloc.decode("ascii"), **headers(record, body, secret)},
            # the certificate is still checked for the name
            extensions={"sni_hostname": url.raw_host.decode("ascii")},
        )
        answer = await client.send(request, stream=True)
        await answer.aclose()  # unread: it may be endless
        return answer.status_code


@dataclass(frozen=True)
class _Outcome:
    """Of one try. problem: None: it arrived; answered: whether the receiver answered at all.

    status: of the answer over HTTP.
    """

    problem: str | None
    answered: bool = False
    unwanted: bool = False
    status: int | None = None


def payload(record: JobRecord) -> str:
    """The body of a webhook: how the job ended; the rest is to be fetched with a key."""
    ended = datetime.fromtimestamp(record.finished_at or record.queued_at, UTC)
    data = {
        "id": record.id,
        "kind": record.kind,
        "state": record.state,
        "concept": record.concept,
        "error": None if record.error is None else record.error.model_dump(exclude_none=True),
    }
    message = {"type": f"job.{record.state}", "timestamp": ended.isoformat(), "data": data}
    return json.dumps(message, separators=(",", ":"))


def headers(record: JobRecord, body: str, secret: Secret) -> dict[str, str]:
    """What makes a webhook one that its receiver can trust: id, time, signatures."""
    name, now = f"msg_{record.id}", datetime.now(UTC)
    signed = [
        Webhook(text).sign(name, now, body)
        for text in (secret.text, secret.former)
        if text is not None
    ]
    return {
        "content-type": "application/json",
        "user-agent": "custom-edit-webhooks",
        "webhook-id": name,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(signed),
    }
