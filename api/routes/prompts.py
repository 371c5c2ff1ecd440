"""Prompts before they are used: how many tokens they take, and which words a base does not know."""

from __future__ import annotations

from fastapi import APIRouter

from api.dependencies import AppContainer, Reader
from api.openapi import CONCEPT, example_bodies, refusals
from api.problems import unknown_reference
from customedit.schemas import answers as d
from customedit.schemas.requests import PromptsRequest

router = APIRouter(tags=["edits"])
EXAMPLES = example_bodies(
    {
        "words alone": {"prompts": ["a photo of a cup on a tabel"]},
        "with a concept": {
            "prompts": ["a photo of a cup", "a photo of a <plaid> patterned cup"],
            "concepts": [CONCEPT],
        },
    }
)


@router.post(
    "/v1/prompts/read",
    operation_id="readPrompts",
    summary="Count the tokens of prompts",
    response_model=d.PromptReadings,
    responses=refusals(
        "malformed",
        "request-timeout",
        "too-large",
        "unsupported-media-type",
        "unknown-concept",
        "validation",
    ),
    openapi_extra=EXAMPLES,
)
def read_prompts(
    request: PromptsRequest, container: AppContainer, caller: Reader
) -> d.PromptReadings:
    """By the rule that edits are refused by. Nothing is stored; unknown words are no error."""
    columns: dict[str, int] = {}
    for k, id_ in enumerate(request.concepts):
        record = container.concepts.get(caller.tenant, id_)
        if record is None:
            raise unknown_reference(id_, f"concepts[{k}]")
        columns |= record.columns
    read = [container.bases.read(prompt, columns) for prompt in request.prompts]
    found = [one for one in read if one is not None]
    if len(found) < len(read):
        return d.PromptReadings()
    return d.PromptReadings(
        base=found[0][0].name or None,
        items=[
            d.PromptReading(
                tokens=reading.tokens,
                limit=reading.limit,
                unknown_words=[
                    d.UnknownWord(word=word, near=near) for word, near in reading.unknown.items()
                ],
            )
            for _, reading in found
        ],
    )
