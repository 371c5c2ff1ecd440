"""The one file that a concept is kept in, written and read.

The file is safetensors: ``token.<plaid>`` [width], and per customised cross-attention layer either
``{layer}.to_k.weight`` [inner, width], whole, or ``{layer}.to_k.up`` [inner, r] and
``{layer}.to_k.down`` [r, width], whose product is added to the base's weight; so for to_v. The
rest is JSON in the file's metadata.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from customedit.concepts.checks import check_counts, check_finite
from customedit.concepts.low_rank import base_weight, restore
from customedit.errors import InputError
from customedit.files import replacing

if TYPE_CHECKING:  # a concept reads and writes itself through this module
    from customedit.concepts.concept import Concept

FORMAT = "customedit.concept"
VERSION = 1
MAX_BYTES = 2 * 2**30

_AGAIN = "copy or download it again, whole"


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


def write(path: Path, concept: Concept, weights: Mapping[str, Tensor]) -> None:
    """Write a concept's file with ``weights``, whole or as factors, in place of the concept's own.

    Raises:
        InputError: for numbers that are not finite.
    """
    layers = dict.fromkeys(n.rsplit(".to_", 1)[0] for n in weights)
    tensors = {f"token.{t}": v for t, v in concept.tokens.items()} | dict(weights)
    check_finite(tensors, "concept")
    about = About(
        noun=concept.noun,
        attribute=concept.attribute,
        base=concept.base,
        prompts=concept.prompts,
        recipe=concept.recipe,
        images=concept.images,
        tokens=tuple(concept.tokens),
        layers=tuple(layers),
    )
    note = {"format": FORMAT, "version": str(VERSION), "concept": about.model_dump_json()}
    with replacing(path) as draft:
        save_file(portable(tensors), draft, note)


def portable(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU that share no memory, as safetensors wants them."""
    return {k: v.detach().to("cpu", copy=True).contiguous() for k, v in tensors.items()}


def read(path: Path, max_bytes: int = MAX_BYTES) -> tuple[About, dict[str, Tensor]]:
    """The file's two halves, each checked by itself and against the other; on the CPU.

    max_bytes: of the file, looked at before it is read.

    Raises:
        InputError: naming the file, for one that is missing, too large, truncated, no concept, of
            an unknown version, or holds numbers that are not finite.
    """
    check_size(path, max_bytes)
    try:
        with safe_open(path, framework="pt") as file:
            about = _about(path, file.metadata() or {})
            names = set(file.keys())
            _check_names(path, about, names)
            tensors = {n: file.get_tensor(n) for n in names}
    except (SafetensorError, OSError) as error:
        raise InputError(
            "concept", f"{path} is truncated or no safetensors file ({error})", _AGAIN
        ) from None
    check_finite(tensors, str(path))
    return about, tensors


def whole(
    tensors: Mapping[str, Tensor], base_weights: Mapping[str, Tensor] | None, path: Path
) -> dict[str, Tensor]:
    """``{layer}.to_k.weight`` of all, factors multiplied out and added to the base's.

    Raises:
        InputError: for factors without the base's weight that they are added to.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        stem, kind = name.rsplit(".", 1)
        if kind == "weight":
            found[name] = tensor
        elif kind == "up":
            base = base_weight(base_weights, f"{stem}.weight", str(path))
            found[f"{stem}.weight"] = restore(tensor, tensors[f"{stem}.down"], base)
    return found


def check_size(path: Path, max_bytes: int) -> None:
    """Look at a file before it is read.

    Raises:
        InputError: naming it, if it is missing, no file, or larger than ``max_bytes``.
    """
    try:
        size = path.stat().st_size if path.is_file() else None
    except OSError as error:
        raise InputError("concept", f"{path} cannot be read ({error.strerror})") from None
    if size is None:
        raise InputError("concept", f"{path} is no file", "mend the path")
    if size > max_bytes:
        raise InputError(
            "concept",
            f"{path} has {size} bytes, the limit is {max_bytes}",
            "compress it to low rank, or raise the limit if you trust it",
        )


def _about(path: Path, note: Mapping[str, str]) -> About:
    if note.get("format") != FORMAT:
        raise InputError(
            "concept",
            f"{path} is no concept of ours (its format is {note.get('format', 'not given')!r})",
            "read files of diffusers and adobe with customedit.concepts.files.formats.load",
        )
    if note.get("version") != str(VERSION):
        raise InputError(
            "concept",
            f"{path} is of format version {note.get('version')!r}, known is {VERSION}",
            "update customedit",
        )
    try:
        return About.model_validate_json(note.get("concept", ""))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "JSON"
        raise InputError(
            "concept", f"{path} has damaged metadata ({where}: {first['msg']})", _AGAIN
        ) from None


def _check_names(path: Path, about: About, names: set[str]) -> None:
    """That the tensors are exactly those that the metadata tells of."""
    check_counts(len(about.tokens), len(about.layers))
    told = {f"token.{t}" for t in about.tokens}
    for layer in about.layers:
        for part in ("to_k", "to_v"):
            stem = f"{layer}.{part}"
            factors = {f"{stem}.up", f"{stem}.down"}
            told |= factors if names & factors else {f"{stem}.weight"}
    if told != names:
        raise InputError(
            "concept",
            f"{path} lacks {sorted(told - names)[:3]} and has unknown {sorted(names - told)[:3]}",
            _AGAIN,
        )
