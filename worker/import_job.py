"""An import: a file of a concept, of any kind that is read, becomes a concept of the tenant's."""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

from customedit.concepts.concept import Concept
from customedit.concepts.effect import prove_effect
from customedit.concepts.files import Description, load_concept
from customedit.concepts.files.embeddings import spelled
from customedit.editing.sdedit import portrait
from customedit.errors import InputError
from customedit.files import disk_full
from customedit.jobs.queued_requests import read_request
from customedit.jobs.records import ConceptOutcome
from customedit.schemas.concepts import ImportRequest
from customedit.storage import object_keys
from customedit.storage.store import MissingObject
from worker import problems
from worker.attempt import Attempt
from worker.customize_job import put_beside, uploaded
from worker.outputs import jpeg
from worker.runtime import TRAININGS, Runtime

_log = logging.getLogger(__name__)


def perform(attempt: Attempt) -> ConceptOutcome:
    """Run an import.

    Raises InputError for a file that is no concept, and what ``read_request`` and ``Attempt``
    raise.
    """
    request = read_request(attempt.record, ImportRequest)
    base = attempt.runtime.base
    with turn(attempt):
        with attempt.phase("fetch"):
            path = attempt.folder / (spelled(request.name) or "<look>").strip("<>")
            key = object_keys.given(attempt.tenant, attempt.id)
            attempt.with_retries(lambda: attempt.storage.download(key, path))
        with attempt.phase("read"), _named_for_callers(attempt.folder):
            with unreadable():
                read = read_concept(path, request, attempt.runtime)
            proving = prove_effect(base, read, allow_none=request.allow_unused)
            (concept,) = attempt.wait([attempt.submit(proving, TRAININGS)])
        for left in attempt.folder.iterdir():  # whatever the file was unpacked into
            shutil.rmtree(left) if left.is_dir() else left.unlink()
    warnings = [] if read.base else ["the file does not say which base it was made for"]
    with attempt.phase("preview"):
        named = " ".join(w for w in (*concept.tokens, concept.attribute, concept.noun) if w)
        drawing = portrait(base, concept, f"a photo of a {named}")
        (picture,) = attempt.wait([attempt.submit(drawing, TRAININGS, phase="preview")])
    with attempt.phase("upload"):
        preview = put_beside(attempt, "preview.jpg", jpeg(picture), "image/jpeg")
        return uploaded(attempt, concept, preview, warnings)


@contextlib.contextmanager
def turn(attempt: Attempt) -> Iterator[None]:
    """One import at a time is fetched and read in a worker.

    So its scratch disk holds one file, or two where it is unpacked, and its memory one, however
    many imports have a slot. Raises Stopped and DeadlineExceeded as ``Attempt.check`` does.
    """
    importing = attempt.runtime.importing
    while not importing.acquire(timeout=0.2):
        attempt.check()
    try:
        yield
    finally:
        importing.release()


@contextlib.contextmanager
def unreadable() -> Iterator[None]:
    """What a file that nobody checked makes its readers raise, as InputError of field ``file``.

    Archives, pickles and tensors of unusual kinds fail in more ways than can be listed. Errors of
    the device and of the scratch disk are not the file's and stay what they are.
    """
    try:
        yield
    except (InputError, MissingObject):
        raise
    except (Exception, RecursionError) as error:
        if problems.device_lost(error) or problems.out_of_memory(error):
            raise
        if disk_full(error):
            raise
        _log.warning("an imported file cannot be read", exc_info=error)
        problem = f"is damaged or of an unknown kind ({type(error).__name__})"
        raise InputError("file", problem, "save it again, as safetensors if you can") from error


def read_concept(path: Path, request: ImportRequest, runtime: Runtime) -> Concept:
    """The concept in ``path``; the request's words win over the file's."""
    description = Description(request.noun, request.attribute, token=request.token or "")
    limit = runtime.settings.max_import_bytes
    return load_concept(
        path, runtime.base, description,
        max_bytes=limit, allow_unused=request.allow_unused, scratch=path.parent,
    )  # fmt: skip


@contextlib.contextmanager
def _named_for_callers(folder: Path) -> Iterator[None]:
    """Errors name the request's fields, no option of the command line, and no path of the worker's.

    Of the library's fields, token is the request's own; the others are of what is in the file.
    """
    try:
        yield
    except InputError as error:
        field = "token" if error.field == "token" else "file"
        problem = error.problem.replace(f"{folder}/", "")
        raise InputError(field, problem, error.remedy.split("; --")[0]) from None
