"""The OpenAPI document: committed as it is served, and its examples are what they should be."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from api import openapi
from customedit.schemas.requests import EditRequest

FILE = Path(__file__).parents[2] / "docs" / "openapi.json"
DOCUMENT = json.loads(openapi.text())
OPERATIONS = [o for path in DOCUMENT["paths"].values() for o in path.values()]
IMAGE = "img_" + "0f" * 32


def problems(schema: dict[str, Any], value: Any) -> list[str]:
    """What is wrong with ``value`` by ``schema``, a part of the document."""
    whole = {**schema, "components": DOCUMENT["components"]}
    return [error.message for error in Draft202012Validator(whole).iter_errors(value)]


def bodies() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for operation in OPERATIONS:
        for media, content in operation.get("requestBody", {}).get("content", {}).items():
            yield operation["operationId"], media, content


def shown(content: dict[str, Any]) -> list[Any]:
    """The examples of a body: its own, or one of each field's."""
    if "examples" in content:
        return [example["value"] for example in content["examples"].values()]
    schema = content["schema"]
    if "$ref" in schema:
        schema = DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    fields = {name: field["examples"] for name, field in schema["properties"].items()}
    return [{name: examples[0] for name, examples in fields.items()}]


def with_examples(node: Any) -> Iterator[dict[str, Any]]:
    """Every schema of the document that has examples."""
    if isinstance(node, dict):
        if isinstance(node.get("examples"), list):
            yield node
        for below in node.values():
            yield from with_examples(below)
    elif isinstance(node, list):
        for below in node:
            yield from with_examples(below)


def test_the_committed_contract_is_what_is_served() -> None:
    command = "python -m api.openapi > docs/openapi.json"
    assert FILE.read_text("utf-8") == openapi.text(), f"stale: {command}"


@pytest.mark.parametrize(("name", "media", "content"), list(bodies()), ids=lambda v: str(v)[:20])
def test_every_body_has_examples_that_fit(name: str, media: str, content: dict[str, Any]) -> None:
    examples = shown(content)
    assert examples
    for example in examples:
        assert problems(content["schema"], example) == []
        assert problems(content["schema"], {**example, "nonsense": 1})


def test_examples_of_single_fields_fit() -> None:
    found = list(with_examples(DOCUMENT["components"]["schemas"]))
    assert found
    for schema in found:
        for example in schema["examples"]:
            assert problems({k: v for k, v in schema.items() if k != "examples"}, example) == []


EDIT = {"image": IMAGE, "source_prompt": "a cup", "target_prompt": "a blue cup"}


@pytest.mark.parametrize(
    "change",
    [
        {"source_prompt": ""},
        {"source_prompt": " \n"},
        {"target_prompt": "  "},
        {"p2p": {"blend_over": "mask"}},
        {"p2p": {"blend_over": "mask"}, "mask": None},
        {"method": "sdedit", "sdedit": {"blend_over": "mask"}},
        *({"strengths": [0.5] * n, "seeds": list(range(16 // n + 1))} for n in range(2, 10)),
        {"concepts": [{"id": "con_" + "0" * 26}] * 2},
    ],
    ids=str,
)
def test_the_schema_refuses_what_the_rules_refuse(change: dict[str, Any]) -> None:
    schema = {"$ref": "#/components/schemas/EditRequest"}
    assert problems(schema, EDIT) == []
    assert problems(schema, EDIT | change)
    with pytest.raises(ValidationError):
        EditRequest.model_validate(EDIT | change)


@pytest.mark.parametrize(
    "change",
    [
        {"method": "sdedit", "source_prompt": ""},
        {"method": "sdedit", "sdedit": {"blend_words": ["cup"]}},
        {"p2p": None},
        {"p2p": {"blend_over": "union"}},
        {"p2p": {"blend_over": "mask"}, "mask": IMAGE},
        {"strengths": None, "seeds": list(range(9))},
        *({"strengths": [0.5] * n, "seeds": list(range(16 // n))[:9]} for n in range(1, 10)),
    ],
    ids=str,
)
def test_the_schema_lets_through_what_the_rules_let_through(change: dict[str, Any]) -> None:
    assert problems({"$ref": "#/components/schemas/EditRequest"}, EDIT | change) == []
    EditRequest.model_validate(EDIT | change)


def test_every_answer_that_is_a_problem_names_types_that_exist() -> None:
    from api.problem_types import TYPES

    told = json.dumps(OPERATIONS)
    for kind in TYPES.values():
        if kind.status and kind.slug != "method-not-allowed":  # which no route itself answers
            assert f"`{kind.slug}`" in told, kind.slug
