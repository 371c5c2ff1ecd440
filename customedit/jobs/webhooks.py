"""Webhooks: the news of a job's end, sent to the URL that its request named.

The script that ends a job puts the news into the outbox; ``Webhooks.deliver_due`` sends it, signed
as Standard Webhooks has it, again and again with growing waits until a receiver answers 2xx. It may
arrive more than once, always with the same ``webhook-id``.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import random
import secrets
import ssl
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import httpx
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

_LONGEST_WAIT_S: Final = 6 * 3600.0
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
        """A new secret; the one before signs as well for a day, so that receivers can change."""
        fresh = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
        made = self.put(tenant, fresh)
        if self._journal is not None:
            self._journal.webhook_secret(tenant, made.text, made.made_at)
        return made

    def put(self, tenant: str, text: str, made_at: float | None = None) -> Secret:
        """Sets the tenant's secret, as ``make`` does or as the journal has it."""
        made = _secret(
            self._run("hook_secret", tenant=tenant, fresh=text, made_at=made_at, overlap=OVERLAP_S)
        )
        assert made is not None
        return made


def _secret(found: list[str] | None) -> Secret | None:
    if not found:
        return None
    return Secret(found[0], float(found[1]), found[2] if len(found) > 2 else None)


@dataclass(frozen=True)
class _Hook:
    job: str
    url: str
    tenant: str
    tries: int


class Webhooks:
    """Delivery. One process at a time is enough, several do no harm.

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

    def deliver_due(self, limit: int = 32) -> int:
        """Sends what is due, at most ``limit`` at once; returns how many arrived.

        Takes about ``webhook_timeout_seconds`` at the longest; not to be called in an event loop.
        """
        hold = self.settings.webhook_timeout_seconds * 2 + 30
        due = [_Hook(*found) for found in self._run("hooks_due", limit=limit, hold=hold)]
        return asyncio.run(self._deliver(due)) if due else 0

    def waiting(self) -> int:
        """How many are in the outbox."""
        count: int = self.client.zcard(f"{self.settings.namespace}:outbox")
        return count

    async def _deliver(self, due: list[_Hook]) -> int:
        if self._trust is None:  # once: reading all the authorities takes a while
            self._trust = httpx.create_ssl_context(trust_env=False)
        # trust_env off: a proxy of the environment would connect in our place, unchecked
        async with httpx.AsyncClient(
            verify=self._trust, trust_env=False, follow_redirects=False
        ) as client:
            return sum(await asyncio.gather(*(self._try(client, hook) for hook in due)))

    async def _try(self, client: httpx.AsyncClient, hook: _Hook) -> bool:
        record = await asyncio.to_thread(self._jobs.peek, hook.job)
        if record is None or not record.finished:
            await asyncio.to_thread(self._drop, hook)
            return False
        problem = await self._problem(client, hook, record)
        if problem is None:
            await asyncio.to_thread(self._drop, hook)
            return True
        _log.warning("webhook of %s, try %d: %s", hook.job, hook.tries, problem)
        if problem == _GONE or hook.tries >= self.settings.webhook_attempts:
            _log.error("webhook of %s is given up", hook.job)
            await asyncio.to_thread(self._drop, hook)
        else:
            wait = self.wait_before(hook.tries + 1)
            await asyncio.to_thread(self._run, "hook_later", id=hook.job, wait=wait)
        return False

    def _drop(self, hook: _Hook) -> None:
        space = self.settings.namespace
        self.client.zrem(f"{space}:outbox", hook.job)
        self.client.delete(f"{space}:hook:{hook.job}")

    def wait_before(self, attempt: int) -> float:
        """Seconds before ``attempt`` (from 2): doubled each time, half of it by chance."""
        full = self.settings.webhook_first_retry_seconds * 2.0 ** (attempt - 2)
        return min(full, _LONGEST_WAIT_S) * random.uniform(0.5, 1.0)

    async def _problem(
        self, client: httpx.AsyncClient, hook: _Hook, record: JobRecord
    ) -> str | None:
        """What went wrong with one try; None: it arrived."""
        secret = await asyncio.to_thread(self._secrets.get, hook.tenant)
        if secret is None:
            return "the tenant has no secret to sign with"
        try:
            async with asyncio.timeout(self.settings.webhook_timeout_seconds):
                status = await self._post(client, hook, record, secret)
        except TimeoutError:
            return "no answer in time"
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            return type(error).__name__  # the text may hold an address of the inner network
        if status == 410:
            return _GONE
        return None if 200 <= status < 300 else f"answered {status}"

    async def _post(
        self, client: httpx.AsyncClient, hook: _Hook, record: JobRecord, secret: Secret
    ) -> int:
        private = self.settings.webhook_allow_private
        parts = webhook_addresses.check(hook.url, allow_private=private)
        host = parts.hostname or ""
        port = parts.port or (443 if parts.scheme == "https" else 80)
        address = await webhook_addresses.resolve(host, port, allow_private=private)
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


_GONE: Final = "answered 410: it wants no more"


def payload(record: JobRecord) -> str:
    """The body of a webhook: what happened; the rest is to be fetched with a key."""
    ended = datetime.fromtimestamp(record.finished_at or record.queued_at, UTC)
    data = {
        "id": record.id,
        "kind": record.kind,
        "state": record.state,
        "concept": record.concept,
        "error": None if record.error is None else record.error.model_dump(exclude_none=True),
    }
    told = {"type": f"job.{record.state}", "timestamp": ended.isoformat(), "data": data}
    return json.dumps(told, separators=(",", ":"))


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
