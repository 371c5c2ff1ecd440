"""Hooks for Schemathesis: requests that fit their schemas are made ones that cannot be refused.

No schema can say what a picture is, which ids exist, which tokens a prompt may name, or that a
webhook goes to a public address. So positive cases get such values here, and what stays as it was
drawn must be accepted; negative cases go out as they are.
"""

from __future__ import annotations

import io
import os
import secrets
from typing import Any

import schemathesis
from PIL import Image
from schemathesis.generation import GenerationMode

from customedit.schemas.recipes import given_without_effect, without_effect

EXPERTS = ("p2p", "sdedit", "masactrl", "pnp", "ddpm", "directedit", "flowedit")
IMAGE = os.environ.get("ACCEPTABLE_IMAGE", "")
MASK = os.environ.get("ACCEPTABLE_MASK", "")
CONCEPT = os.environ.get("ACCEPTABLE_CONCEPT", "")
TOKEN = os.environ.get("ACCEPTABLE_TOKEN", "")
FINISHED_JOB = os.environ.get("ACCEPTABLE_JOB", "")
WEBHOOK = "https://hooks.example.com/customedit"
SAFETENSORS = (8).to_bytes(8, "little") + b"{}      "


def picture() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (32, 24), "olive").save(stream, "PNG")
    return stream.getvalue()


PICTURE = picture()


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    if case.meta is None or case.meta.generation.mode != GenerationMode.POSITIVE:
        return
    operation = case.operation.definition.raw["operationId"]
    if operation == "watchJob":
        case.path_parameters["id"] = FINISHED_JOB
    headers = case.headers
    headers.pop("X-API-Key", None)  # one key is enough, and two are refused
    if "Idempotency-Key" in headers:  # the same key for two requests is a conflict
        headers["Idempotency-Key"] = secrets.token_hex(len(headers["Idempotency-Key"]) // 2 + 8)
    if isinstance(case.body, dict):
        case.body = BODIES[operation](dict(case.body))


def uploaded(body: dict[str, Any]) -> dict[str, Any]:
    return {**body, "file": PICTURE}


def imported(body: dict[str, Any]) -> dict[str, Any]:
    return reachable({**body, "file": SAFETENSORS})


def customized(body: dict[str, Any]) -> dict[str, Any]:
    body["references"] = [IMAGE] * len(body["references"])
    if body.get("nouns"):
        body["nouns"] = (body["nouns"] * len(body["references"]))[: len(body["references"])]
    if body.get("masks"):
        body["masks"] = [MASK] * len(body["references"])
    training = body.get("training")
    if isinstance(training, dict):
        if training.get("way") == "lora" and training.get("rank") == 0:
            training["rank"] = 1
        if body.get("masks"):  # which say where the loss counts
            training.pop("focus", None)
        known = {"way": "custom-diffusion", **training}
        for name in {**without_effect(known), **given_without_effect(training, known)}:
            del training[name]
    return reachable(body)


def edited(body: dict[str, Any]) -> dict[str, Any]:
    """An edit whose words fit one another, with the numbers that were drawn."""
    body["image"] = IMAGE
    for name in ("mask", "references", "concepts"):
        if not body.get(name):
            body.pop(name, None)
    if "mask" in body:
        body |= {"mask": MASK, "mask_marks": "white"}  # it has no transparency
    if "references" in body:
        body["references"] = [IMAGE] * len(body["references"])
    body["source_prompt"] = "a photo of a cup on a table"
    body["target_prompt"] = "a photo of a mug on a table"
    if "concepts" in body:
        body["concepts"] = [placed(body["concepts"][0], bool(body.get("everywhere")))]
        body["target_prompt"] = f"a photo of a {TOKEN} cup on a table"
    else:
        body["everywhere"] = False
    if body.get("preset"):
        body |= {"method": "p2p", "inversion": "null-text", "preserve": False}
    method = body.get("method", "p2p")
    for name in EXPERTS:
        if name != method:
            body[name] = None
    if method != "p2p":
        body["inversion"] = "direct"
    if body.get("strengths"):  # of 0 sdedit draws nothing, of 1 ddpm
        body["strengths"] = [min(max(s, 0.01), 0.99) for s in body["strengths"]]
    if method not in ("sdedit", "ddpm") and body.get("seeds"):
        body["seeds"] = body["seeds"][:1]
    if body.get(method):
        own = ("layer", "attention_steps", "block", "source_guidance")
        chosen = {name: body[method][name] for name in own if name in body[method]}
        if chosen.get("layer") == 1:  # of all layers: nothing is left to the others
            chosen["layer"] = 0.5
        if chosen.get("attention_steps") == 0:
            del chosen["attention_steps"]
        body[method] = expert(body["p2p"], "concepts" in body) if method == "p2p" else chosen
        steps = [body[method].get(name) for name in ("cross_steps", "self_steps")]
        if None not in steps:  # which leave nothing to the strength
            body |= {"strengths": None, "change": None}
    if body.get("preserve") is False:
        body["feather"] = None
    body = guided(body)
    if body.get("change") == "auto" and not ("references" in body or "concepts" in body):
        body["change"] = 0.5
    return reachable(body)


def placed(use: dict[str, Any], everywhere: bool) -> dict[str, Any]:
    """A use of the concept, in a region where one was drawn."""
    out = {**boxed(use), "id": CONCEPT}
    if use.get("mask"):
        out["mask"] = MASK
    return {**out, "box": None, "mask": None} if everywhere else out


def boxed(use: dict[str, Any]) -> dict[str, Any]:
    """With a box that has an area, where one was drawn."""
    return {**use, "box": [0.1, 0.2, 0.6, 0.9]} if use.get("box") else use


def guided(body: dict[str, Any]) -> dict[str, Any]:
    """With guidance in some interval, which holds a step that is drawn."""
    start, end = body.get("guidance_start", 0.0), body.get("guidance_end", 1.0)
    chosen = body.get("strengths") is not None or body.get("change") is not None
    late = chosen or body.get("steps", 50) < 10
    return {
        **body,
        "guidance_start": min(start, 0.5),
        "guidance_end": 1.0 if late else max(end, 0.6),
    }


def saved(body: dict[str, Any]) -> dict[str, Any]:
    """Settings of any edit; its one concept is named once."""
    return guided({**body, "concepts": [boxed(use) for use in body.get("concepts", [])[:1]]})


def expert(given: dict[str, Any], concept: bool) -> dict[str, Any]:
    """The expert settings that fit with any others, of a word that is there."""
    word = "cup" if concept else "mug"
    chosen: dict[str, Any] = {
        name: given[name] for name in ("cross_steps", "self_steps") if name in given
    }
    if given.get("words"):
        chosen["words"] = {word: sorted(next(iter(given["words"].values())))}
    if given.get("reweight"):
        chosen["reweight"] = {word: next(iter(given["reweight"].values()))}
        chosen.setdefault("words", {word: [0.0, 1.0]})  # so that it acts without a strength, too
    if "way" in given and not concept:
        chosen["way"] = given["way"]
    return chosen


def reachable(body: dict[str, Any]) -> dict[str, Any]:
    return {**body, "webhook": WEBHOOK} if body.get("webhook") is not None else body


BODIES = {
    "uploadImage": uploaded,
    "importConcept": imported,
    "createConcept": customized,
    "createEdit": edited,
    "savePreset": saved,
}
