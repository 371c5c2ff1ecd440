"""The page's texts, limits and choices come from the OpenAPI document: ``schema.js``, in Node."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, get_args

import pytest
from playwright._impl._driver import compute_driver_executable

from customedit.schemas.concepts import CustomizeRequest, TrainingOptions
from customedit.schemas.methods import EditMethod, P2POptions
from customedit.schemas.requests import EditRequest

ROOT = Path(__file__).parents[2]
ASKED = """
import { readFileSync } from "node:fs";
globalThis.sessionStorage = globalThis.localStorage = { getItem: () => "k" };
globalThis.document = { baseURI: "http://service/" };
globalThis.fetch = async (url) => {
  if (String(url) !== "http://service/openapi.json") throw new Error(url);
  return { ok: true, json: async () => JSON.parse(readFileSync(process.argv[2])) };
};
const schema = await import("./schema.js");
const { choices, field, hint, loadSchemas, numberFault, options, textFits } = schema;
const { named, nearest, plain, withLook } = await import("./prompts.js");
await loadSchemas();
if (process.argv[3] === "calls") {
  const known = { named, nearest, numberFault, plain, textFits, withLook };
  const calls = JSON.parse(process.argv[4]);
  console.log(JSON.stringify(calls.map(([name, ...given]) => known[name](...given))));
  process.exit();
}
const asked = JSON.parse(process.argv[3]);
console.log(JSON.stringify(asked.map(([model, name]) =>
  ({ hint: hint(model, name), options: options(model, name), choices: choices(model, name),
     default: field(model, name).default, pattern: field(model, name).pattern }))));
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The modules, as Node loads them."""
    folder = tmp_path_factory.mktemp("page")
    for name in ("schema.js", "client.js", "storage.js", "prompts.js"):
        shutil.copy(ROOT / "api/page" / name, folder)
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "ask.js").write_text(ASKED)
    return folder


def node(folder: Path, *arguments: str) -> Any:
    """What ``ask.js`` answers."""
    program = compute_driver_executable()[0]
    command = [program, "ask.js", str(ROOT / "docs/openapi.json"), *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def fields(folder: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """What ``schema.js`` says of every field of the page's forms."""
    models = {"EditRequest": ("p2p", EditRequest, P2POptions)} | {
        "CustomizeRequest": ("training", CustomizeRequest, TrainingOptions)
    }
    names = [
        (title, name)
        for title, (inner, model, nested) in models.items()
        for name in (*model.model_fields, *(f"{inner}.{n}" for n in nested.model_fields))
    ]
    return dict(zip(names, node(folder, json.dumps(names)), strict=True))


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


def test_faults_are_said_in_words_and_what_fits_is_none(folder: Path) -> None:
    """As the request models have it: what they take, and only that, has no fault."""
    told = {
        ("EditRequest", "steps", "50"): "",
        ("EditRequest", "steps", ""): "",
        ("EditRequest", "steps", "0"): "Write a whole number from 1 to 200.",
        ("EditRequest", "steps", "2.5"): "Write a whole number from 1 to 200.",
        ("EditRequest", "guidance", "7.5"): "",
        ("EditRequest", "guidance", "-1"): "Write a number from 0 to 50.",
        ("EditRequest", "strengths", "0.1, 1"): "",
        (
            "EditRequest",
            "strengths",
            "0.1, 1.1",
        ): "“1.1” does not fit. Each is a number from 0 to 1.",
        ("EditRequest", "strengths", "0 " * 10): "These are 10; at most 9.",
        ("CustomizeRequest", "training.rate", "1e-4"): "",
        ("CustomizeRequest", "training.rate", "0"): "Write a number, above 0, at most 1.",
    }
    found = node(folder, "calls", json.dumps([["numberFault", *given] for given in told]))
    assert dict(zip(told, found, strict=True)) == told
    texts = [("token", "<plaid>", True), ("token", "plaid", False), ("noun", "tea pot", True)]
    asked = [["textFits", "CustomizeRequest", name, text] for name, text, _ in texts]
    assert node(folder, "calls", json.dumps(asked)) == [fits for *_, fits in texts]


def test_tokens_are_found_and_mistyped_ones_are_matched(folder: Path) -> None:
    known = ["<plaid>", "<plain>", "<waves>"]
    cup = {"token": "<plaid>", "attribute": "patterned", "noun": "cup"}
    calls = {
        "mistyped": ["nearest", "<plad>", known],
        "nothing near": ["nearest", "<zebra-look>", known],
        "named": ["named", "a <plaid> cup and a <no good> <waves>"],
        "plain": ["plain", "a  <plaid> patterned cup"],
        "written": ["withLook", "a cup on a cupboard", cup],
        "appended": ["withLook", "a table", cup],
    }
    found = dict(zip(calls, node(folder, "calls", json.dumps(list(calls.values()))), strict=True))
    assert found == {
        "mistyped": ["<plaid>", "<plain>"],
        "nothing near": [],
        "named": ["<plaid>", "<waves>"],
        "plain": "a patterned cup",
        "written": "a <plaid> patterned cup on a cupboard",
        "appended": "a table <plaid> patterned cup",
    }
