"""Bodies of requests that the OpenAPI document shows."""

from __future__ import annotations

from typing import Any, Final

_IMAGE: Final = "img_" + "0f" * 32
_OTHER: Final = "img_" + "a7" * 32
_CONCEPT: Final = "con_01jcz4x1yhh8e4s0m8k1v2q3r4"


def _shown(examples: dict[str, Any]) -> dict[str, Any]:
    named = {name: {"value": value} for name, value in examples.items()}
    return {"requestBody": {"content": {"application/json": {"examples": named}}}}


FORMS: Final = {
    "uploadImage": {"file": "the picture's bytes"},
    "importConcept": {
        "file": "the file's bytes",
        "noun": "teapot",
        "attribute": "patterned",
        "token": "<plaid>",
        "name": "Plaid, from elsewhere",
    },
}
"""Of each operation that takes a form."""
CUSTOMIZE: Final = _shown(
    {
        "plain": {
            "references": [_IMAGE, _OTHER],
            "noun": "teapot",
            "attribute": "patterned",
            "token": "<plaid>",
        },
        "expert": {
            "references": [_IMAGE],
            "noun": "cup",
            "name": "Our house style",
            "training": {"way": "textual-inversion", "steps": 400, "seed": 7},
        },
    }
)
EDIT: Final = _shown(
    {
        "plain": {
            "image": _IMAGE,
            "source_prompt": "a photo of a teapot on a table",
            "target_prompt": "a photo of a <plaid> patterned teapot on a table",
            "concepts": [{"id": _CONCEPT}],
        },
        "several strengths": {
            "image": _IMAGE,
            "source_prompt": "a photo of a teapot",
            "target_prompt": "a photo of a <plaid> patterned teapot",
            "concepts": [{"id": _CONCEPT, "weight": 0.8}],
            "strengths": [0.3, 0.5, 0.7],
            "seeds": [0],
            "preserve": True,
        },
        "no concept": {"image": _IMAGE, "target_prompt": "a blue teapot", "method": "sdedit"},
    }
)
