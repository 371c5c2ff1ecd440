"""Where each thing lies in the bucket. Everything of a tenant's is below ``tenants/{tenant}/``.

Each part of a key is checked, so that no id can climb out of its tenant's folder.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from customedit.schemas import ids

TENANTS: Final = "tenants/"
PICTURE: Final = "picture"

_FOLDER: Final = re.compile(
    r"tenants/(?P<tenant>[^/]+)/(?:"
    r"(?:jobs/(?P<job>job_[0-9a-z]+)|concepts/(?P<concept>con_[0-9a-z]+))/"
    r"|images/(?P<image>img_[0-9a-f]{64})/[^/]+/)"
)
_PART: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")


def _part(name: str) -> str:
    """``name`` if it can be one part of a key.

    Raises:
        ValueError: it is empty, too long (over 200 characters), begins with a dot, or has a slash.
    """
    if not _PART.fullmatch(name):
        raise ValueError(f"{name!r} cannot be part of a key")
    return name


def tenant(name: str) -> str:
    """The folder of all that a tenant has; ends with a slash, as all folders here do."""
    return f"{TENANTS}{_part(name)}/"


def images(owner: str) -> str:
    """The folder of a tenant's pictures and their records."""
    return f"{tenant(owner)}images/"


def image(owner: str, image_id: str, stamp: str, name: str = "") -> str:
    """The folder of one upload of a picture, or the file ``name`` in it.

    stamp: no two uploads have the same, so that deleting an image cannot hit a later upload of it.
    """
    return f"{images(owner)}{_part(image_id)}/{_part(stamp)}/{_part(name) if name else ''}"


def concepts(owner: str) -> str:
    """The folder of a tenant's concepts."""
    return f"{tenant(owner)}concepts/"


def concept(owner: str, concept_id: str, name: str = "") -> str:
    """The folder of a concept, or the file ``name`` in it."""
    return f"{concepts(owner)}{_part(concept_id)}/{_part(name) if name else ''}"


def jobs(owner: str) -> str:
    """The folder of a tenant's jobs."""
    return f"{tenant(owner)}jobs/"


def job(owner: str, job_id: str, name: str = "") -> str:
    """The folder of a job, or the file ``name`` in it, such as ``request.json``."""
    return f"{jobs(owner)}{_part(job_id)}/{_part(name) if name else ''}"


def given(owner: str, job_id: str) -> str:
    """The file that an import reads."""
    return job(owner, job_id, "given")


def attempts(owner: str, job_id: str) -> str:
    """The folder of what all attempts at a job wrote."""
    return f"{job(owner, job_id)}attempts/"


def attempt(owner: str, job_id: str, number: int, name: str = "") -> str:
    """The folder of what attempt ``number`` (from 1) wrote, or the file ``name`` in it."""
    return f"{attempts(owner, job_id)}{number:d}/{_part(name) if name else ''}"


def checkpoints(owner: str, job_id: str) -> str:
    """The folder of a training's checkpoints."""
    return f"{job(owner, job_id)}checkpoints/"


def checkpoint(owner: str, job_id: str, name: str) -> str:
    """A checkpoint of a training."""
    return f"{checkpoints(owner, job_id)}{_part(name)}"


def inversion(owner: str, picture_id: str, name: str = "") -> str:
    """The folder of a picture's inversions, or one that later edits of it can use.

    Those of an edit's output lie in the folder of its job and go with it.
    """
    if (output := ids.output_of(picture_id)) is not None:
        return f"{job(owner, output[0])}inversions/{output[1]}/{_part(name) if name else ''}"
    return f"{tenant(owner)}inversions/{_part(picture_id)}/{_part(name) if name else ''}"


def presets(owner: str) -> str:
    """The folder of a tenant's presets."""
    return f"{tenant(owner)}presets/"


def preset(owner: str, name: str) -> str:
    """The journal's record of a preset."""
    return f"{presets(owner)}{_part(name)}.json"


def upload(owner: str, upload_id: str) -> str:
    """What a presigned upload wrote, until it is checked and moved."""
    return f"{tenant(owner)}uploads/{_part(upload_id)}"


def base(digest: str) -> str:
    """The facts of a base that workers run, which front ends read; of no tenant."""
    return f"bases/{_part(digest)}.json"


def api_keys() -> str:
    """The folder of the journal's records of API keys (hashes only)."""
    return "api-keys/"


def api_key(key_id: str) -> str:
    """The journal's record of an API key (its hash only)."""
    return f"{api_keys()}{_part(key_id)}.json"


@dataclass(frozen=True)
class Folder:
    """A folder that a job, a concept or an image owns. kind: as in the names of records."""

    path: str
    tenant: str
    kind: str
    id: str


def folder_of(key: str) -> Folder | None:
    """The folder in which ``key`` lies, if it is one of a job, a concept or an image."""
    match = _FOLDER.match(key)
    if match is None:
        return None
    kind = str(match.lastgroup)
    return Folder(match[0], match["tenant"], kind, match[kind])
