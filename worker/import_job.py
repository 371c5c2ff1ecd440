"""An import: a concept file of ours, of diffusers or of adobe becomes a concept of the tenant's."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from customedit.concepts.concept import Concept
from customedit.concepts.files import formats
from customedit.editing.text_to_image import portrait
from customedit.errors import InputError
from customedit.jobs.records import ConceptOutcome
from customedit.schemas.requests import ImportRequest
from customedit.storage import object_keys
from customedit.storage.store import MissingObject
from worker import problems
from worker.attempt import Attempt
from worker.customize_job import put_beside, uploaded
from worker.outputs import jpeg
from worker.runtime import TRAININGS, Runtime

MOST_FILES: Final = 40
_log = logging.getLogger(__name__)
_SUFFIXES: Final = (".safetensors", ".bin", ".pt")


class Renamed(Mapping[str, str]):
    """Gives every token the one name that was asked for; two tokens then collide, which is said."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __getitem__(self, key: str) -> str:
        return self._token

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def perform(attempt: Attempt) -> ConceptOutcome:
    """Run an import.

    Raises InputError for a file that is no concept, and what ``Attempt`` raises.
    """
    request = ImportRequest.model_validate(attempt.record.request)
    base = attempt.runtime.base
    with turn(attempt):
        with attempt.phase("fetch"):
            path = attempt.folder / "given"
            key = object_keys.given(attempt.tenant, attempt.id)
            attempt.patiently(lambda: attempt.storage.download(key, path))
        with attempt.phase("read"), unreadable():
            concept = read(path, request, attempt.runtime).for_base(base)
        for left in attempt.folder.iterdir():  # whatever the file was renamed to or unpacked into
            shutil.rmtree(left) if left.is_dir() else left.unlink()
    warnings = [] if concept.base else ["the file does not say which base it was made for"]
    with attempt.phase("preview"):
        named = " ".join(w for w in (*concept.tokens, concept.attribute, concept.noun) if w)
        drawing = portrait(base, concept, f"a photo of a {named}")
        (picture,) = attempt.wait([attempt.submit(drawing, TRAININGS)])
    with attempt.phase("upload"):
        preview = put_beside(attempt, "preview.jpg", jpeg(picture), "image/jpeg")
        concept = dataclasses.replace(concept, base=base.concept_fingerprint)
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
        if problems.disk_full(error):
            raise
        _log.warning("an imported file cannot be read", exc_info=error)
        problem = f"is damaged or of an unknown kind ({type(error).__name__})"
        raise InputError("file", problem, "save it again, as safetensors if you can") from error


def read(path: Path, request: ImportRequest, runtime: Runtime) -> Concept:
    """The concept in ``path``, told by its contents; the request's words win over the file's."""
    most = runtime.settings.max_import_bytes
    if _is_ours(path):
        concept = Concept.load(path, runtime.base.weights, max_bytes=most)
        if request.token is not None and [*concept.tokens] != [request.token]:
            if len(concept.tokens) > 1:
                raise InputError("token", "renames one, the file has several", "leave it out")
            concept = dataclasses.replace(
                concept, tokens={request.token: next(iter(concept.tokens.values()))}
            )
    else:
        rename = {} if request.token is None else Renamed(request.token)
        concept = formats.load(
            _named(path, most),
            formats.Unsaid(rename=rename),
            base_weights=runtime.base.weights,
            max_bytes=most,
        )
    return dataclasses.replace(
        concept,
        noun=request.noun or concept.noun,
        attribute=request.attribute or concept.attribute,
    )


def _is_ours(path: Path) -> bool:
    """Whether it is safetensors of our own format, by its header."""
    with path.open("rb") as stream:
        head = stream.read(64 * 1024)
    return head[8:9] == b"{" and b'"customedit.concept"' in head


def _named(path: Path, most: int) -> Path:
    """The file under a name that tells what it is, or the folder that it holds as a zip."""
    with path.open("rb") as stream:
        head = stream.read(16)
    if head[8:9] == b"{":
        return path.rename(path.with_suffix(".safetensors"))
    if zipfile.is_zipfile(path):
        try:
            with zipfile.ZipFile(path) as archive:
                if not any(n.endswith("data.pkl") for n in archive.namelist()):  # torch.save's
                    return _unpacked(archive, path.with_suffix(".files"), most)
        except (
            zipfile.BadZipFile,
            zlib.error,
            NotImplementedError,
            RuntimeError,
            EOFError,
        ) as error:
            raise InputError("file", f"is a damaged zip ({error})", "pack it again") from None
    return path.rename(path.with_suffix(".bin"))


def _unpacked(archive: zipfile.ZipFile, folder: Path, most: int) -> Path:
    """The weights in a zip as plain files of one folder. Raises InputError for too many or large.

    Only the last part of a name is used, so that none climbs out; sizes are counted while they
    are read, since what a zip says of itself need not be true.
    """
    chosen = [i for i in archive.infolist() if i.filename.endswith(_SUFFIXES)]
    if not 1 <= len(chosen) <= MOST_FILES:
        raise InputError(
            "file", f"holds {len(chosen)} weight files", f"1 to {MOST_FILES} are taken"
        )
    folder.mkdir()
    left = most
    for info in chosen:
        with archive.open(info) as source, (folder / Path(info.filename).name).open("wb") as out:
            while part := source.read(1 << 20):
                left -= len(part)
                if left < 0:
                    raise InputError("file", f"holds over {most} bytes", "leave files out")
                out.write(part)
    return folder
