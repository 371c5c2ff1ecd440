"""The reconciler's calls: jobs to notify workers of, to journal, to clean up after, to remove."""

from __future__ import annotations

import math
import secrets
import time
from typing import TYPE_CHECKING, Any, Final, cast

from customedit.jobs.claims import cleanup_delay_s

if TYPE_CHECKING:
    from redis import Redis

    from customedit.config.settings import Settings
    from customedit.jobs.redis import Scripts
    from customedit.schemas.answers import JobKind
    from customedit.storage.object_keys import Folder


REMEMBER_DELETED_S: Final = 86_400
"""How long a deleted folder is remembered, in seconds."""

UPLOAD_GRACE_S: Final = 3600
"""After its form expired, how long a file may wait to be completed."""

_OVERDUE_PART: Final = 10
"""Jobs that one run of the script over overdue ones looks at; no claim runs meanwhile."""

EPOCH_S: Final = 2.0
"""How long a front end uses an epoch that it has read, in seconds."""


class Maintenance:
    """The reconciler's part of Jobs."""

    client: Redis
    settings: Settings
    _run: Scripts
    _recent_epoch: tuple[str, float] = "", 0.0

    def _key(self, *parts: str) -> str:
        raise NotImplementedError

    def overdue(self, limit: int = 1000) -> list[tuple[str, JobKind]]:
        """Jobs that workers should be notified of, and their kinds; each is not named for a while.

        They have been queued for ``queued_notify_after_seconds`` (doubled at each notification, up
        to 16 times), or run under a lease that is over.
        """
        after = self.settings.queued_notify_after_seconds
        due: list[tuple[str, JobKind]] = []
        while len(due) < limit:  # in small parts: others wait for Redis while a script runs
            part = min(_OVERDUE_PART, limit - len(due))
            flat = self._run("overdue", limit=part, notify_after=after)
            due += cast("list[tuple[str, JobKind]]", zip(flat[::2], flat[1::2], strict=True))
            if len(flat) < 2 * part:
                break
        return due

    def queue_depths(self) -> dict[str, int]:
        """Queued jobs of each kind."""
        return {
            kind: self.client.zcard(self._key("queued", kind))
            for kind in ("edit", "customize", "import")
        }

    def running(self) -> int:
        """How many jobs run, those under a lease that is over included."""
        return self.client.scard(self._key("running"))

    def leases_lost(self) -> int:
        """How often a job was claimed from a worker whose lease was over, since the beginning."""
        value: Any = self.client.get(self._key("leases-lost"))
        return int(value or 0)

    def oldest_queued_age(self, kind: JobKind) -> float:
        """How long the first job of ``kind`` has been queued, in seconds; 0 for an empty queue."""
        first: Any = self.client.zrange(self._key("queued", kind), 0, 0, withscores=True)
        return max(0.0, self.now() - first[0][1]) if first else 0.0

    def open_jobs(self, tenant: str) -> int:
        """How many of the tenant's jobs are queued or running."""
        return self.client.scard(self._key("open", tenant))

    def now(self) -> float:
        """Redis' time, in seconds since 1970, UTC."""
        whole, micro = self.client.time()
        return int(whole) + int(micro) / 1e6

    def unjournaled(self, limit: int = 100) -> list[str]:
        """Finished jobs whose ``final.json`` is not known to be written."""
        names: Any = self.client.srandmember(self._key("unjournaled"), limit)
        return list(names)

    def journaled(self, job_id: str) -> None:
        """Says that the job's ``final.json`` is written."""
        self.client.srem(self._key("unjournaled"), job_id)

    def expired(self, limit: int = 100) -> list[tuple[str, str]]:
        """(tenant, id) of jobs that finished more than ``keep_jobs_days`` ago, oldest first."""
        until = self.now() - self.settings.keep_jobs_days * 86400
        names: Any = self.client.zrange(
            self._key("finished"), "-inf", until, byscore=True, offset=0, num=limit
        )
        with self.client.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.hget(self._key("job", name), "tenant")
            owners = pipe.execute()
        return [(str(o), str(n)) for o, n in zip(owners, names, strict=True) if o]

    def folders_to_delete(self, limit: int = 100) -> list[str]:
        """Folders of the bucket whose owner is deleted."""
        folders: Any = self.client.srandmember(self._key("deleting"), limit)
        return list(folders)

    def folder_deleted(self, folder: str) -> None:
        """Says that the files of a deleted owner's folder are removed.

        It is remembered for a day, so that a recovery which read the folder before does not put its
        record back.
        """
        self._run("folder_deleted", prefix=folder, remember=REMEMBER_DELETED_S)

    def lock(self, name: str, owner: str, hold_s: float) -> bool:
        """Takes the lock for ``hold_s`` seconds, or extends it; False: another owner has it."""
        return bool(self._run("lock", name=name, owner=owner, hold_ms=int(hold_s * 1000)))

    def due_cleanups(self, limit: int) -> list[tuple[str, str]]:
        """(tenant, id) of jobs that were claimed and whose attempts' files are to be looked at.

        Each is due again after ``cleanup_delay_s``, until ``cleaned_up`` is called.
        """
        delay = cleanup_delay_s(self.settings)
        entries = self._run("due_cleanups", limit=limit, delay=delay)
        return [tuple(entry.split("/")) for entry in entries]

    def cleaned_up(self, tenant: str, job_id: str) -> None:
        """Says that nothing is left to clean up after the job."""
        self.client.zrem(self._key("cleanup"), f"{tenant}/{job_id}")

    def epoch(self) -> str:
        """The name of this epoch of Redis; empty if Redis does not say.

        Another one begins whenever it may have forgotten something: it was started anew, a replica
        took over, keys were evicted, the namespace was emptied. What was written to the bucket
        under this epoch and has no record now never had one.
        """
        return str(self._run("epoch", fresh=secrets.token_hex(8)))

    def recent_epoch(self) -> str:
        """``epoch`` as it was within the last ``EPOCH_S`` seconds; for those who write files.

        An epoch that has ended meanwhile does no harm: a file that names it stays where it is.
        """
        name, read_at = self._recent_epoch
        if not name or time.monotonic() - read_at >= EPOCH_S:
            read_at = time.monotonic()
            name = self.epoch()
            self._recent_epoch = name, read_at
        return name

    def owned(self, folder: Folder) -> bool:
        """Whether the record of a job, a concept or an image names the folder."""
        owner, field, says = _owner(folder)
        return bool(self.client.hget(self._key(*owner), field) == says)

    def disown(self, folder: Folder, epoch: str | None = None) -> bool:
        """Marks a folder for deletion unless a record owns it; says whether it did.

        Nothing can be submitted into it from then on. epoch: only if it is the present one still.
        """
        owner, field, says = _owner(folder)
        given = {"owner": owner, "field": field, "says": says, "prefix": folder.path}
        return bool(self._run("delete_unowned", **given, epoch=epoch))

    def expect_upload(self, tenant: str, upload_id: str, name: str = "") -> None:
        """A form was given out: what is sent with it and never completed is to be removed.

        name: what the file is called, kept for as long as the file is waited for.
        """
        seconds = self.settings.presign_seconds + UPLOAD_GRACE_S
        until = self.now() + seconds
        with self.client.pipeline() as pipe:
            pipe.zadd(self._key("uploads"), {f"{tenant}/{upload_id}": until})
            if name:
                pipe.set(self._key("upload-name", tenant, upload_id), name, ex=math.ceil(seconds))
            pipe.execute()

    def upload_name(self, tenant: str, upload_id: str) -> str:
        """What the file of an expected upload is called; empty: nobody said."""
        return str(self.client.get(self._key("upload-name", tenant, upload_id)) or "")

    def upload_gone(self, tenant: str, upload_id: str) -> None:
        """The file of an upload is removed."""
        self.client.zrem(self._key("uploads"), f"{tenant}/{upload_id}")

    def overdue_uploads(self, limit: int = 100) -> list[tuple[str, str]]:
        """(tenant, id) of uploads whose files, if there are any, are to be removed."""
        names: Any = self.client.zrange(
            self._key("uploads"), "-inf", self.now(), byscore=True, offset=0, num=limit
        )
        return [tuple(name.split("/", 1)) for name in names]


def _owner(folder: Folder) -> tuple[list[str], str, str]:
    """The parts of the key of its record, and what that record says under which field."""
    if folder.kind == "image":  # an image owns one of its folders: that of the upload it is of
        return ["image", folder.tenant, folder.id], "prefix", folder.path
    return [folder.kind, folder.id], "tenant", folder.tenant
