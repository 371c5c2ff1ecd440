"""Files in the bucket without an owner: found, and removed.

A front end that dies between journal and record leaves them. A request without a record may also be
a job that Redis lost, so a folder is removed only if it is certain: each of its files says that a
front end wrote it in the present epoch of Redis (``Maintenance.epoch``), it is old enough, and one
script both finds no record and marks the folder for deletion. What is in doubt stays, and
``recover`` makes a job of it.

Two kinds of files go by their age alone: a file whose form is long expired and was never completed,
and an inversion of a picture that has no record.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from customedit.jobs.journal import EPOCH
from customedit.jobs.maintenance import UPLOAD_GRACE_S
from customedit.storage import object_keys
from customedit.storage.store import StorageError
from customedit.tenants.catalogue import Images

if TYPE_CHECKING:
    from redis import Redis

    from customedit.config.settings import Settings
    from customedit.jobs.store import Jobs
    from customedit.storage.object_keys import Folder
    from customedit.storage.store import Storage, Stored

AGE_S: Final = 3600.0
"""How old the files of a folder must be: no front end writes there any more."""

REST_S: Final = 3600.0
"""From the end of the bucket until the next look at its beginning."""

PAGE: Final = 1000
"""Files that one look lists; S3 gives no more at once."""

MOST: Final = 50
"""Folders without a record that one look asks S3 about: many, where Redis has lost all."""

FEW: Final = 5
"""Files that a front end writes into one folder, at most: where there are more, others wrote."""

_UPLOAD: Final = re.compile(r"tenants/[^/]+/uploads/[^/]+")
_INVERSION: Final = re.compile(r"tenants/(?P<tenant>[^/]+)/inversions/(?P<image>[^/]+)/[^/]+")
_log = logging.getLogger(__name__)


class Orphans:
    """Looks through the bucket page by page; where it is stands in Redis, as ``<ns>:orphans``."""

    def __init__(
        self,
        client: Redis,
        settings: Settings,
        storage: Storage,
        jobs: Jobs,
        *,
        age_s: float = AGE_S,
        page: int = PAGE,
        most: int = MOST,
    ) -> None:
        self._client, self._storage, self._jobs = client, storage, jobs
        self._age_s, self._page, self._most = age_s, page, most
        self._form_s = settings.presign_seconds + UPLOAD_GRACE_S
        self._images = Images(client, settings)
        self._place = f"{settings.namespace}:orphans"

    def look(self) -> int:
        """Looks at the next page; gives how many folders and files had no owner.

        Raises StorageError and ``redis.exceptions.RedisError``.
        """
        place: Any = self._client.hgetall(self._place)
        now, epoch = self._jobs.now(), self._jobs.epoch()
        if not epoch or now < float(place.get("not_before", 0)):
            return 0
        page = self._storage.page(object_keys.TENANTS, place.get("after", ""), self._page)
        ownerless = self._ownerless(page, now)
        done = sum(self._delete(folder, now, epoch) for folder in ownerless[: self._most])
        strays = [stored.key for stored in page if self._is_stray(stored, now)]
        for key in strays:
            self._storage.delete(key)
        after = page[-1].key if len(page) == self._page else ""
        if len(ownerless) > self._most:  # the next look begins with the first that is left
            left = ownerless[self._most].path
            after = page[[s.key.startswith(left) for s in page].index(True) - 1].key
        rest = f"{0 if after else now + REST_S:.3f}"
        self._client.hset(self._place, mapping={"after": after, "not_before": rest})
        return done + len(strays)

    def _is_stray(self, stored: Stored, now: float) -> bool:
        if _UPLOAD.fullmatch(stored.key):
            return stored.modified <= now - self._form_s
        inversion = _INVERSION.fullmatch(stored.key)
        return (
            inversion is not None
            and self._is_old(stored, now)
            and self._images.get(inversion["tenant"], inversion["image"]) is None
        )

    def _ownerless(self, page: Sequence[Stored], now: float) -> list[Folder]:
        """The folders of old files that Redis has no record for, as it seems."""
        old = [stored.key for stored in page if self._is_old(stored, now)]
        folders = dict.fromkeys(f for key in old if (f := object_keys.folder_of(key)) is not None)
        return [folder for folder in folders if not self._jobs.owned(folder)]

    def _is_old(self, stored: Stored, now: float) -> bool:
        return stored.modified <= now - self._age_s

    def _delete(self, folder: Folder, now: float, epoch: str) -> bool:
        try:
            return self._is_certain(folder, now, epoch) and self._jobs.disown(folder, epoch)
        except StorageError as error:  # such as a file that went meanwhile: it is in doubt
            _log.warning("%s is left where it is: %s", folder.path, error)
            return False

    def _is_certain(self, folder: Folder, now: float, epoch: str) -> bool:
        files = list(islice(self._storage.list(folder.path), FEW + 1))
        return len(files) <= FEW and all(
            self._is_old(stored, now)
            and self._storage.head(stored.key).metadata.get(EPOCH) == epoch
            for stored in files
        )
