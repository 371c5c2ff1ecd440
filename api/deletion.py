"""Deleting that deletes: the record first, so that nobody finds half of it, then the files.

Files that cannot be removed now are left to the workers' reconciler, which knows of them.
"""

from __future__ import annotations

import logging

from api.params import no_such
from api.problems import Refused
from customedit.jobs.journal import Journal
from customedit.jobs.store import Jobs, NotFinished
from customedit.storage import object_keys
from customedit.storage.store import StorageError
from customedit.tenants.catalogue import Concepts, Images, InUse

_log = logging.getLogger(__name__)


class Deleting:
    """Removes images, concepts and jobs of a tenant, each with its files."""

    def __init__(self, jobs: Jobs, images: Images, concepts: Concepts, journal: Journal) -> None:
        self.jobs, self.images, self.concepts, self.journal = jobs, images, concepts, journal

    def image(self, tenant: str, id_: str) -> None:
        """Remove an image and its inversions.

        Raises:
            Refused: there is none, or unfinished jobs need it.
        """
        try:
            folders = self.images.delete(tenant, id_)
        except InUse as error:
            raise _in_use(error) from None
        if not folders:
            raise no_such("image", id_)
        for folder in folders:
            self._remove(folder)

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
        self._remove(object_keys.concept(tenant, id_))

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
        self._remove(object_keys.job(tenant, id_))

    def _remove(self, folder: str) -> None:
        """Remove a folder that is marked for deletion; the mark stays if that fails."""
        try:
            self.journal.forget(folder)
        except StorageError as error:
            _log.warning("%s is left to the reconciler: %s", folder, error)
        else:
            self.jobs.folder_deleted(folder)


def _in_use(error: InUse) -> Refused:
    return Refused("in-use", str(error), field="id", limit="not needed by unfinished jobs")
