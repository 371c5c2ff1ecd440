"""Deleting that deletes: the record first, so that nobody finds half of it, then the files.

Files that cannot be removed now are left to the workers' sweeper, which knows of them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from api.asking import no_such
from api.problems import Refused
from customedit.platform import keys_of
from customedit.platform.catalogue import Concepts, Images, InUse
from customedit.platform.jobs import Jobs, NotFinished
from customedit.platform.journal import Journal
from customedit.platform.storage import StorageError

_log = logging.getLogger(__name__)


class Deleting:
    """Removes images, concepts and jobs of a tenant, each with its files."""

    def __init__(self, jobs: Jobs, images: Images, concepts: Concepts, journal: Journal) -> None:
        self.jobs, self.images, self.concepts, self.journal = jobs, images, concepts, journal

    def image(self, tenant: str, id_: str) -> None:
        """Remove an image. Its files go last: should that fail, the same call does the rest.

        Raises:
            Refused: there is none, or unfinished jobs need it.
        """
        record = self.images.get(tenant, id_)
        if record is None:
            raise no_such("image", id_)
        try:
            self.images.delete(tenant, id_)
        except InUse as error:
            raise _in_use(error) from None
        try:
            self.journal.forget_image(tenant, id_)
        except StorageError:
            self.images.put(record)
            raise

    def concept(self, tenant: str, id_: str) -> None:
        """Remove a concept.

        Raises:
            Refused: there is none, or unfinished jobs make it or use it.
        """
        try:
            found = self.concepts.delete(tenant, id_)
        except InUse as error:
            raise _in_use(error) from None
        if not found:
            raise no_such("concept", id_)
        self._sweep(keys_of.concept(tenant, id_), self.journal.forget_concept, tenant, id_)

    def job(self, tenant: str, id_: str) -> None:
        """Remove a finished job.

        Raises:
            Refused: there is none, or it is not finished.
        """
        try:
            found = self.jobs.delete(tenant, id_)
        except NotFinished as error:
            raise Refused(
                "not-finished", str(error), field="id", limit="a job that is finished"
            ) from None
        if not found:
            raise no_such("job", id_)
        self._sweep(keys_of.job(tenant, id_), self.journal.forget_job, tenant, id_)

    def _sweep(
        self, folder: str, forget: Callable[[str, str], None], tenant: str, id_: str
    ) -> None:
        """Remove a folder that is marked as doomed; the mark stays if that fails."""
        try:
            forget(tenant, id_)
        except StorageError as error:
            _log.warning("%s is left to the sweeper: %s", folder, error)
        else:
            self.jobs.swept(folder)


def _in_use(error: InUse) -> Refused:
    return Refused("in-use", str(error), field="id", limit="not needed by unfinished jobs")
