"""The sides of uploaded pictures, which each submission of an edit asks for."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from customedit.tenants.catalogue import Images

REMEMBERED_S: Final = 60.0
_MOST: Final = 10_000


@dataclass(frozen=True)
class Sides:
    """Of a picture. size: (width, height); upright: False if EXIF may turn it by 90 degrees."""

    size: tuple[int, int]
    upright: bool = True


class ImageSides:
    """Reads the sides of a tenant's image from Redis once a minute; for many threads.

    An id is of a file's contents, so they do not change. An image that is deleted meanwhile is
    noticed by the script that makes a job, which names what is missing.
    """

    def __init__(self, images: Images) -> None:
        self._images, self._lock = images, threading.Lock()
        self._known: OrderedDict[tuple[str, str], tuple[float, Sides]] = OrderedDict()

    def get(self, tenant: str, image_id: str) -> Sides | None:
        """The sides, as they were in the last ``REMEMBERED_S`` seconds; None: no such image."""
        with self._lock:
            read_at, sides = self._known.get((tenant, image_id), (0.0, None))
        if sides is not None and time.monotonic() - read_at < REMEMBERED_S:
            return sides
        return self.read(tenant, image_id)

    def read(self, tenant: str, image_id: str) -> Sides | None:
        """The sides as they are now; None: the tenant has no such image."""
        record, now = self._images.get(tenant, image_id), time.monotonic()
        with self._lock:
            self._known.pop((tenant, image_id), None)
            if record is None:
                return None
            sides = Sides((record.width, record.height), record.upright)
            self._known[tenant, image_id] = now, sides
            if len(self._known) > _MOST:
                self._known.popitem(last=False)
        return sides
