"""Files that are there whole or as they were before, never half written; disks that are full."""

from __future__ import annotations

import errno
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def disk_full(error: BaseException) -> bool:
    """Whether a file could not be written since its disk, or a share of it, is full."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A neighbour of ``path`` to write to, which takes its place at the end if all went well.

    The folder is made if it is not there. Several processes may write the same path: each has a
    neighbour of its own, and the last to end wins.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        yield draft
        draft.replace(path)  # os.replace: one step, over an older file too
    finally:
        draft.unlink(missing_ok=True)
