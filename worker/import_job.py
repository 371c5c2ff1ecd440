"""An import: a file of a concept, of any kind that is read, becomes a concept of the tenant's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from customedit.concepts.concept import Concept
from customedit.concepts.effect import prove_effect
from customedit.concepts.files import Description, load_concept
from customedit.concepts.files.embeddings import spelled
from customedit.editing.text_to_image import portrait
from customedit.errors import InputError
from customedit.jobs.records import ConceptOutcome
from customedit.schemas.requests import ImportRequest
from customedit.storage import object_keys
from worker.attempt import Work
from worker.customize_job import put_beside, uploaded
from worker.outputs import jpeg
from worker.runtime import TRAININGS, Runtime


def perform(work: Work) -> ConceptOutcome:
    """Run an import. Raises InputError for a file that is no concept, and what ``Work`` raises."""
    request = ImportRequest.model_validate(work.record.request)
    base = work.runtime.base
    with work.phase("fetch"):
        path = work.folder / (spelled(request.name) or "<look>").strip("<>")
        key = object_keys.given(work.tenant, work.id)
        work.patiently(lambda: work.storage.download(key, path))
    with work.phase("read"), _named_for_callers(work.folder):
        read = read_concept(path, request, work.runtime)
        (concept,) = work.wait([work.submit(prove_effect(base, read), TRAININGS)])
    warnings = [] if read.base else ["the file does not say which base it was made for"]
    with work.phase("preview"):
        named = " ".join(w for w in (*concept.tokens, concept.attribute, concept.noun) if w)
        drawing = portrait(base, concept, f"a photo of a {named}")
        (picture,) = work.wait([work.submit(drawing, TRAININGS)])
    with work.phase("upload"):
        preview = put_beside(work, "preview.jpg", jpeg(picture), "image/jpeg")
        return uploaded(work, concept, preview, warnings)


def read_concept(path: Path, request: ImportRequest, runtime: Runtime) -> Concept:
    """The concept in ``path``; the request's words win over the file's."""
    description = Description(request.noun, request.attribute, token=request.token or "")
    limit = runtime.settings.max_import_bytes
    return load_concept(path, runtime.base, description, max_bytes=limit)


@contextmanager
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
