"""The page's texts, limits and choices come from the OpenAPI document: ``schema.js``, in Node."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, get_args

import pytest
from playwright._impl._driver import compute_driver_executable

from customedit.schemas.requests import (
    CustomizeRequest,
    EditMethod,
    EditRequest,
    P2POptions,
    TrainingOptions,
)

ROOT = Path(__file__).parents[2]
ASKED = """
import { readFileSync } from "node:fs";
globalThis.sessionStorage = { getItem: () => "k" };
globalThis.document = { baseURI: "http://service/" };
globalThis.fetch = async (url) => {
  if (String(url) !== "http://service/openapi.json") throw new Error(url);
  return { ok: true, json: async () => JSON.parse(readFileSync(process.argv[2])) };
};
const { choices, field, hint, loadSchemas, options } = await import("./schema.js");
await loadSchemas();
const asked = JSON.parse(process.argv[3]);
console.log(JSON.stringify(asked.map(([model, name]) =>
  ({ hint: hint(model, name), options: options(model, name), choices: choices(model, name),
     default: field(model, name).default, pattern: field(model, name).pattern }))));
"""


@pytest.fixture(scope="module")
def fields(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], dict[str, Any]]:
    """What ``schema.js`` says of every field of the page's forms."""
    folder = tmp_path_factory.mktemp("page")
    for name in ("schema.js", "client.js"):
        shutil.copy(ROOT / "api/page" / name, folder)
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "ask.js").write_text(ASKED)
    models = {"EditRequest": ("p2p", EditRequest, P2POptions)} | {
        "CustomizeRequest": ("training", CustomizeRequest, TrainingOptions)
    }
    names = [
        (title, name)
        for title, (inner, model, nested) in models.items()
        for name in (*model.model_fields, *(f"{inner}.{n}" for n in nested.model_fields))
    ]
    node = compute_driver_executable()[0]
    command = [node, "ask.js", str(ROOT / "docs/openapi.json"), json.dumps(names)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return dict(zip(names, json.loads(done.stdout), strict=True))


def test_hints_have_description_limits_and_default(fields: dict[Any, Any]) -> None:
    told = {name: entry["hint"] for name, entry in fields.items()}
    assert told["EditRequest", "steps"] == "DDIM steps (1 to 200; empty: 50)."
    assert told["CustomizeRequest", "training.rate"].endswith("(above 0, at most 1).")
    assert "(0 to 1)." in told["EditRequest", "p2p.threshold"]
    assert "(0 to 1; up to 9, commas between)." in told["EditRequest", "strengths"]
    assert all(told.values())


def test_choices_are_those_of_the_schema(fields: dict[Any, Any]) -> None:
    assert fields["EditRequest", "method"]["choices"] == list(get_args(EditMethod))
    assert fields["EditRequest", "inversion"]["options"][0] == ["", "direct (default)"]
    assert ["ddim", "ddim"] in fields["EditRequest", "inversion"]["options"]
    over = fields["EditRequest", "p2p.blend_over"]["options"]
    assert [value for value, _ in over] == ["", "source", "union", "mask", "none"]


def test_defaults_and_patterns_are_those_of_the_schema(fields: dict[Any, Any]) -> None:
    assert fields["EditRequest", "seeds"]["default"] == [0]
    assert fields["CustomizeRequest", "token"]["default"] == "<look>"
    assert fields["CustomizeRequest", "token"]["pattern"].startswith("^<[a-z0-9]")
