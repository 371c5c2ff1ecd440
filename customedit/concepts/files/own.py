"""The one file that a concept is kept in, written and read.

The file is safetensors: ``token.<plaid>`` [width] or [n, width]; per customised cross-attention
layer either ``{layer}.to_k.weight`` [inner, width], whole, or ``{layer}.to_k.up`` [inner, r] and
``{layer}.to_k.down`` [r, width], whose product is added to the base's weight; so for to_v; and for
each adapter ``adapter.{path}.{factor}`` (``diffusion.adapters``). The rest is JSON under one name
in the file's metadata, in a fixed order: equal concepts make equal files, byte for byte.

Version 1, which is still read, has no adapters and three names in its metadata. Version 3 is of
concepts whose keys and values act on the columns of their tokens alone: earlier programs would let
them act on the whole prompt, so they refuse it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors.torch import save_file
from torch import Tensor

from customedit.concepts.checks import check_counts, check_finite
from customedit.concepts.compress import base_weight, restore_weight
from customedit.concepts.concept import Concept, content_digest
from customedit.concepts.files.entries import check_size, portable, read_safetensors
from customedit.concepts.files.identify import AGAIN, OWN, refuse_for_editing
from customedit.diffusion.adapters import KINDS, Adapter
from customedit.diffusion.text import Columns
from customedit.errors import InputError
from customedit.files import replacing

VERSION: Final = 2
COLUMNS_VERSION: Final = 3


class AdapterAbout(BaseModel):
    """What the JSON tells of one adapter: a name of ``adapters.KINDS``, and its scale."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    kind: str
    scale: float


class About(BaseModel):
    """The JSON in a concept's file."""

    model_config = ConfigDict(extra="forbid", strict=True)

    noun: str
    attribute: str
    base: str
    prompts: tuple[str, ...]
    recipe: dict[str, Any]
    images: Annotated[int, Field(ge=0)]
    tokens: tuple[str, ...]
    layers: tuple[str, ...]
    adapters: dict[str, AdapterAbout] = Field(default_factory=dict)
    columns: Columns = "prompt"
    version: int = 1


def write(path: Path, concept: Concept, weights: Mapping[str, Tensor]) -> None:
    """Write a concept's file with ``weights``, whole or as factors, in place of the concept's own.

    Raises:
        InputError: for numbers that are not finite.
    """
    layers = dict.fromkeys(n.rsplit(".to_", 1)[0] for n in weights)
    rest = {n: t for n, t in concept.tensors.items() if n.startswith(("token.", "adapter."))}
    tensors = rest | dict(weights)
    check_finite(tensors, "concept")
    names = {kind: name for name, kind in KINDS.items()}
    about = About(
        noun=concept.noun,
        attribute=concept.attribute,
        base=concept.base,
        prompts=concept.prompts,
        recipe=concept.recipe,
        images=concept.images,
        tokens=tuple(concept.tokens),
        layers=tuple(layers),
        adapters={
            p: AdapterAbout(kind=names[type(a)], scale=a.scale) for p, a in concept.adapters.items()
        },
        columns=concept.columns,
        version=VERSION if concept.columns == "prompt" else COLUMNS_VERSION,
    )
    # one name: safetensors writes several in an order that differs from run to run
    everywhere = {"columns"} if concept.columns == "prompt" else None
    note = {OWN: about.model_dump_json(exclude=everywhere)}
    with replacing(path) as draft:
        save_file(portable(tensors), draft, note)


def read(path: Path, base_weights: Mapping[str, Tensor] | None, max_bytes: int) -> Concept:
    """``Concept.load``."""
    refuse_for_editing(path)
    check_size(path, max_bytes)
    tensors, note = read_safetensors(path)
    about = _about(path, note)
    _check_names(path, about, set(tensors))
    check_finite(tensors, str(path))
    adapters = {p: _adapter(p, a, tensors, path) for p, a in about.adapters.items()}
    whole = _whole(tensors, base_weights, path)
    concept = Concept(
        {t: tensors[f"token.{t}"] for t in about.tokens},
        {n: whole[f"{n}.to_k.weight"] for n in about.layers},
        {n: whole[f"{n}.to_v.weight"] for n in about.layers},
        about.noun,
        about.attribute,
        about.base,
        about.prompts,
        about.recipe,
        about.images,
        adapters,
        about.columns,
    )
    if whole.keys() - tensors.keys():  # restored from factors, which are what the file holds
        concept.__dict__["digest"] = content_digest(concept, tensors)
    return concept


def _adapter(path: str, about: AdapterAbout, tensors: Mapping[str, Tensor], file: Path) -> Adapter:
    start = f"adapter.{path}."
    factors = {n.removeprefix(start): t for n, t in tensors.items() if _of_adapter(n, start)}
    try:
        return KINDS[about.kind](**factors, scale=about.scale)
    except (TypeError, ValueError, KeyError):
        raise InputError(
            "concept", f"{file} has a damaged {about.kind} adapter of {path}", AGAIN
        ) from None


def _of_adapter(name: str, start: str) -> bool:
    """Whether a tensor is a factor of the adapter whose tensors begin with ``start``."""
    return name.startswith(start) and "." not in name.removeprefix(start)


def _whole(
    tensors: Mapping[str, Tensor], base_weights: Mapping[str, Tensor] | None, path: Path
) -> dict[str, Tensor]:
    """``{layer}.to_k.weight`` of all, factors multiplied out and added to the base's.

    Raises:
        InputError: for factors without the base's weight that they are added to.
    """
    weights: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.startswith(("token.", "adapter.")):
            continue
        stem, kind = name.rsplit(".", 1)
        if kind == "weight":
            weights[name] = tensor
        elif kind == "up":
            base = base_weight(base_weights, f"{stem}.weight", str(path))
            weights[f"{stem}.weight"] = restore_weight(tensor, tensors[f"{stem}.down"], base)
    return weights


def _about(path: Path, note: Mapping[str, str]) -> About:
    first = note.get("format") == OWN
    text = note.get("concept", "") if first else note.get(OWN, "")
    try:
        version = note.get("version") if first else json.loads(text).get("version", VERSION)
    except (ValueError, AttributeError, RecursionError):
        version = VERSION  # then the JSON is damaged, which is said below
    if str(version) not in ("1", str(VERSION), str(COLUMNS_VERSION)):
        raise InputError(
            "concept",
            f"{path} is of format version {version!r}, known are 1 to {COLUMNS_VERSION}",
            "update customedit",
        )
    try:
        return About.model_validate_json(text)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(map(str, problem["loc"])) or "JSON"
        raise InputError(
            "concept", f"{path} has damaged metadata ({where}: {problem['msg']})", AGAIN
        ) from None


def _check_names(path: Path, about: About, names: set[str]) -> None:
    """That the tensors are exactly those that the metadata tells of."""
    check_counts(len(about.tokens), len(about.layers))
    expected = {f"token.{t}" for t in about.tokens}
    for layer in about.layers:
        for part in ("to_k", "to_v"):
            stem = f"{layer}.{part}"
            factors = {f"{stem}.up", f"{stem}.down"}
            expected |= factors if names & factors else {f"{stem}.weight"}
    for adapted in about.adapters:
        expected |= {n for n in names if _of_adapter(n, f"adapter.{adapted}.")}
    if expected != names:
        raise InputError(
            "concept",
            f"{path} lacks {sorted(expected - names)[:3]} and has unknown "
            f"{sorted(names - expected)[:3]}",
            AGAIN,
        )
