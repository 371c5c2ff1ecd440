"""Whether an edit can be done: its images and concepts are there, its words have an effect."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from api.dependencies import Container
from api.problems import ProblemError, input_problem, unknown_reference
from customedit.editing.region_words import ConceptWords
from customedit.editing.settings import check_request
from customedit.errors import InputError
from customedit.jobs.records import ConceptRecord
from customedit.prompt_syntax import check_prompt
from customedit.schemas.requests import EditRequest


def check_edit(container: Container, tenant: str, request: EditRequest) -> None:
    """Refuse an edit that names what its tenant does not have, or a concept without effect.

    Raises:
        ProblemError: unknown-image, unknown-concept, not-ready, validation.
    """
    for field, image in _named_images(request):
        if container.images.get(tenant, image) is None:
            raise unknown_reference(image, field)
    records = [
        _ready_concept(container, tenant, use.id, f"concepts[{k}].id")
        for k, use in enumerate(request.concepts)
    ]
    _check_words(request, records)


def _named_images(request: EditRequest) -> Iterator[tuple[str, str]]:
    """Field and id of each image that the request names."""
    yield "image", request.image
    if request.mask is not None:
        yield "mask", request.mask
    for k, image in enumerate(request.references):
        yield f"references[{k}]", image


def _ready_concept(container: Container, tenant: str, id_: str, field: str) -> ConceptRecord:
    record = container.concepts.get(tenant, id_)
    if record is None:
        raise unknown_reference(id_, field)
    if record.state != "ready":
        raise ProblemError(
            "not-ready", f"{field}: {id_} is {record.state}", field=field, limit="state ready"
        )
    return record


def _check_words(request: EditRequest, records: list[ConceptRecord]) -> None:
    """Each concept is named by the prompt, and what the request says of words can be carried out.

    A file from elsewhere may hold further tokens than the one of its record: of such concepts the
    worker checks the rest.
    """
    named = request.tokens
    known = [record.token for record in records]
    foreign = [record for record in records if not record.references]
    others = [token for token in named if token not in known] if foreign else []
    for k, token in enumerate(known):
        if token in known[:k]:
            raise _refused(
                f"concepts[{k}].id",
                f"two concepts have the token {token}",
                "one concept of each token; import one of them under another token",
            )
    with _as_problem():
        for field in ("source_prompt", "target_prompt"):
            check_prompt(getattr(request, field), [*known, *others], field)
    concepts = [ConceptWords((token,)) for token in others]
    for k, record in enumerate(records):
        if record.token in named or request.everywhere:
            concepts.append(ConceptWords((record.token,), record.noun, record.attribute))
        elif record.references or not others:
            raise _without_effect(f"concepts[{k}].id", record)
    with _as_problem():
        check_request(request, concepts, mask=request.mask is not None)


@contextlib.contextmanager
def _as_problem() -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise input_problem(error) from None


def _without_effect(field: str, record: ConceptRecord) -> ProblemError:
    words = " ".join(part for part in (record.token, record.attribute, record.noun) if part)
    return _refused(
        field,
        f"the target prompt does not name {record.token}, so the concept has no effect",
        f'write "{words}" in target_prompt, or leave the concept out',
    )


def _refused(field: str, problem: str, limit: str) -> ProblemError:
    return ProblemError("validation", f"{field}: {problem}", field=field, limit=limit)
