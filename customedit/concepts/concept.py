"""What Custom Diffusion trains (arXiv 2212.04488), and the one file it is kept in.

The file is safetensors: ``token.<plaid>`` [width], and per customised cross-attention layer either
``{layer}.to_k.weight`` [inner, width], whole, or ``{layer}.to_k.up`` [inner, r] and
``{layer}.to_k.down`` [r, width], whose product is added to the base's weight; so for to_v. The
rest is JSON in the file's metadata.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from customedit.diffusion.text import CONCEPT
from customedit.errors import InputError

FORMAT = "customedit.concept"
VERSION = 1
MAX_BYTES = 2 * 2**30
MAX_TOKENS = 16
MAX_LAYERS = 512  # SDXL has 70

_AGAIN = "copy or download it again, whole"
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True, eq=False)
class Concept:
    """A customization of one base.

    tokens: "<plaid>" to its embedding [width]; keys, values: path of a cross-attention module in
    the UNet ("mid_block.attentions.0.transformer_blocks.0.attn2") to its whole to_k or to_v weight
    [inner, cross_attention_dim], both for the same layers, both empty for Textual Inversion;
    noun, attribute: "teapot", "patterned"; base: fingerprint of the base it was made for, "" if
    not known; prompts: what it was trained on; recipe: how, JSON-able; images: how many references.

    Raises:
        InputError: for tokens that are ill spelt, none, too many or of several widths, weights
            that are no floating-point matrices or not of the same layers and shapes, a recipe that
            is not JSON.
    """

    tokens: dict[str, Tensor]
    keys: dict[str, Tensor] = field(default_factory=dict)
    values: dict[str, Tensor] = field(default_factory=dict)
    noun: str = ""
    attribute: str = ""
    base: str = ""
    prompts: tuple[str, ...] = ()
    recipe: dict[str, Any] = field(default_factory=dict)
    images: int = 0

    def __post_init__(self) -> None:
        _check_tokens(self.tokens)
        _check_layers(self.keys, self.values)
        try:
            json.dumps(self.recipe, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise InputError("recipe", f"is not JSON ({error})", "keep plain data in it") from None

    @property
    def weights(self) -> dict[str, Tensor]:
        """``{layer}.to_k.weight`` and ``{layer}.to_v.weight`` [inner, width], as the base's."""
        named = ((self.keys, "to_k"), (self.values, "to_v"))
        return {f"{n}.{p}.weight": of[n] for n in self.keys for of, p in named}

    def check(self, base_shapes: Mapping[str, tuple[int, int]], width: int) -> None:
        """Whether it fits a base, by names and shapes.

        base_shapes: path of each cross-attention module to the shape (inner, cross_attention_dim)
        of its to_k and to_v weights; width: of the base's token embeddings. A concept may
        customise only some of the base's layers.

        Raises:
            InputError: naming layers and numbers, for a concept that was made for another base, and
                for numbers that are not finite.
        """
        remedy = "use it with the base it was made for, or train it again on this one"
        unknown = [n for n in self.keys if n not in base_shapes]
        if unknown:
            raise InputError(
                "concept",
                f"was made for another base: it has {len(unknown)} of {len(self.keys)} layers that "
                f"this base (with {len(base_shapes)}) has not, such as {unknown[0]}",
                remedy,
            )
        for name, weight in self.weights.items():
            layer = name.rsplit(".to_", 1)[0]
            if tuple(weight.shape) != tuple(base_shapes[layer]):
                raise InputError(
                    "concept",
                    f"was made for another base: its {name} is {_size(weight.shape)}, "
                    f"this base's is {_size(base_shapes[layer])}",
                    remedy,
                )
        for token, vector in self.tokens.items():
            if len(vector) != width:
                raise InputError(
                    "concept",
                    f"was made for another base: {token} has {len(vector)} numbers, this base's "
                    f"embeddings have {width}",
                    remedy,
                )
        check_finite({**self.tokens, **self.weights}, "concept")

    def save(self, path: Path) -> None:
        """Write it whole, its dtypes kept; ``path`` is there complete or as it was before.

        Raises:
            InputError: for numbers that are not finite.
        """
        write(path, self, self.weights)

    @classmethod
    def load(
        cls,
        path: Path,
        base_weights: Mapping[str, Tensor] | None = None,
        *,
        max_bytes: int = MAX_BYTES,
    ) -> Concept:
        """Read what ``save`` wrote, here or in ``compress.LowRankConcept``; on the CPU.

        base_weights: ``{layer}.to_k.weight`` and ``{layer}.to_v.weight`` of the base
        (``Base.weights``), needed for a low-rank file only; max_bytes: of the file, looked at
        before it is read.

        Raises:
            InputError: naming the file, for one that is missing, too large, truncated, no concept,
                of an unknown version, holds numbers that are not finite, or needs base_weights.
        """
        about, tensors = _read(path, max_bytes)
        tokens = {t: tensors.pop(f"token.{t}") for t in about.tokens}
        whole = _whole(tensors, base_weights, path)
        return cls(
            tokens,
            {n: whole[f"{n}.to_k.weight"] for n in about.layers},
            {n: whole[f"{n}.to_v.weight"] for n in about.layers},
            about.noun,
            about.attribute,
            about.base,
            about.prompts,
            about.recipe,
            about.images,
        )


def write(path: Path, concept: Concept, weights: Mapping[str, Tensor]) -> None:
    """Write a concept's file with ``weights``, whole or as factors, in place of the concept's own.

    Raises:
        InputError: for numbers that are not finite.
    """
    layers = dict.fromkeys(n.rsplit(".to_", 1)[0] for n in weights)
    tensors = {f"token.{t}": v for t, v in concept.tokens.items()} | dict(weights)
    check_finite(tensors, "concept")
    about = _About(
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


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A neighbour of ``path`` to write to, which takes its place at the end if all went well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        yield draft
        draft.replace(path)  # os.replace: one step, over an older file too
    finally:
        draft.unlink(missing_ok=True)


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


def check_finite(tensors: Mapping[str, Tensor], what: str) -> None:
    """Raise InputError, naming ``what`` and the tensor, for a number that is no finite float."""
    for name, tensor in tensors.items():
        if tensor.dtype not in _FLOATS:
            raise InputError("concept", f"{what} has {name} in {tensor.dtype}", "save it as floats")
        bad = int((~torch.isfinite(tensor)).sum())
        if bad:
            raise InputError(
                "concept",
                f"{what} is poisoned: {name} has {bad} of {tensor.numel()} numbers not finite",
                "train or export it again",
            )


def restore(up: Tensor, down: Tensor, base: Tensor) -> Tensor:
    """W + up down [inner, width], reckoned in float32 or wider, in the factors' dtype.

    up: [inner, r]; down: [r, width]; base: W [inner, width].

    Raises:
        InputError: for shapes that do not go together, with the numbers.
    """
    fits = up.ndim == down.ndim == 2 and up.shape[1] == down.shape[0]
    if not fits or base.shape != (up.shape[0], down.shape[1]):
        raise InputError(
            "concept",
            f"was made for another base: factors {_size(up.shape)} and {_size(down.shape)} do not "
            f"go with a weight {_size(base.shape)}",
            "give the weights of the base it was made for",
        )
    fine = torch.promote_types(up.dtype, torch.float32)
    return (base.to(up.device, fine) + up.to(fine) @ down.to(fine)).to(up.dtype)


class _About(BaseModel):
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


def _read(path: Path, max_bytes: int) -> tuple[_About, dict[str, Tensor]]:
    """The file's two halves, each checked by itself and against the other."""
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


def _about(path: Path, note: Mapping[str, str]) -> _About:
    if note.get("format") != FORMAT:
        raise InputError(
            "concept",
            f"{path} is no concept of ours (its format is {note.get('format', 'not given')!r})",
            "read files of diffusers and adobe with customedit.concepts.formats.load",
        )
    if note.get("version") != str(VERSION):
        raise InputError(
            "concept",
            f"{path} is of format version {note.get('version')!r}, known is {VERSION}",
            "update customedit",
        )
    try:
        return _About.model_validate_json(note.get("concept", ""))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "JSON"
        raise InputError(
            "concept", f"{path} has damaged metadata ({where}: {first['msg']})", _AGAIN
        ) from None


def _check_names(path: Path, about: _About, names: set[str]) -> None:
    """That the tensors are exactly those that the metadata tells of."""
    _check_counts(len(about.tokens), len(about.layers))
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


def _whole(
    tensors: Mapping[str, Tensor], base_weights: Mapping[str, Tensor] | None, path: Path
) -> dict[str, Tensor]:
    """``{layer}.to_k.weight`` of all, factors multiplied out and added to the base's."""
    whole: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        stem, kind = name.rsplit(".", 1)
        if kind == "weight":
            whole[name] = tensor
        elif kind == "up":
            base = base_weight(base_weights, f"{stem}.weight", str(path))
            whole[f"{stem}.weight"] = restore(tensor, tensors[f"{stem}.down"], base)
    return whole


def base_weight(base_weights: Mapping[str, Tensor] | None, name: str, what: str) -> Tensor:
    """The base's weight that factors in ``what`` are added to.

    Raises:
        InputError: if no weights were given, or not this one.
    """
    if base_weights is None:
        raise InputError(
            "base_weights", f"is missing, {what} is low-rank", "give the base's, as Base.weights"
        )
    if name not in base_weights:
        raise InputError(
            "base_weights",
            f"has no {name}: {what} was made for another base",
            "give the weights of the base it was made for",
        )
    return base_weights[name]


def _check_counts(tokens: int, layers: int) -> None:
    if not 1 <= tokens <= MAX_TOKENS:
        raise InputError("tokens", f"are {tokens}, 1 to {MAX_TOKENS} can be", "give as many")
    if layers > MAX_LAYERS:
        raise InputError("layers", f"are {layers}, the limit is {MAX_LAYERS}", "leave some out")


def _check_tokens(tokens: Mapping[str, Tensor]) -> None:
    _check_counts(len(tokens), 0)
    for token, vector in tokens.items():
        if not CONCEPT.fullmatch(token):
            raise InputError(
                "tokens",
                f"{token!r} is no concept token",
                "write <name> in lower case: letters, digits, _ and -, 63 at most",
            )
        if vector.ndim != 1 or not len(vector) or vector.dtype not in _FLOATS:
            raise InputError(
                "tokens",
                f"{token} is {_size(vector.shape)} {vector.dtype}",
                "give one vector of floats a token",
            )
    widths = {t: len(v) for t, v in tokens.items()}
    if len(set(widths.values())) > 1:
        raise InputError("tokens", f"have several widths: {widths}", "take those of one base")


def _check_layers(keys: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    _check_counts(1, len(keys))
    if keys.keys() != values.keys():
        odd = sorted(keys.keys() ^ values.keys())
        raise InputError(
            "layers", f"{odd[0]} and {len(odd) - 1} more lack keys or values", "give both"
        )
    for layer in keys:
        shapes = keys[layer].shape, values[layer].shape
        floats = {keys[layer].dtype, values[layer].dtype} <= set(_FLOATS)
        if len(shapes[0]) != 2 or shapes[0] != shapes[1] or not floats:
            raise InputError(
                "layers",
                f"{layer} has keys {_size(shapes[0])} {keys[layer].dtype} and values "
                f"{_size(shapes[1])} {values[layer].dtype}",
                "give two matrices of floats of one shape",
            )


def _size(shape: torch.Size | tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "a scalar"
