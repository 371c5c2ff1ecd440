"""A concept: what Custom Diffusion trains (arXiv 2212.04488), and what LoRAs of others bring.

``concepts.files`` reads and writes it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args

import torch
from torch import Tensor

from customedit.concepts.checks import (
    FLOATS,
    MAX_BYTES,
    check_concept,
    check_counts,
    check_finite,
    shape_text,
)
from customedit.diffusion.adapters import PARTS, TRANSFORMER, UNET, Adapter, Hadamard
from customedit.diffusion.text import Columns, Customization
from customedit.errors import InputError
from customedit.prompt_syntax import CONCEPT

if TYPE_CHECKING:
    from customedit.diffusion.base import Base

MAX_COLUMNS: Final = 64
"""Vectors of a token: CLIP reads 75 between start and end, and a prompt has other words."""


@dataclass(frozen=True, eq=False)
class Concept:
    """A customization of one base.

    tokens: "<plaid>" to its embedding, [width], or [n, width] for a token that takes n columns of
    the prompt (n = 0: the token stands for adapters alone); keys, values: path of a cross-attention
    module in the UNet ("mid_block.attentions.0.transformer_blocks.0.attn2") to its whole to_k or
    to_v weight [inner, cross_attention_dim], both for the same layers, both empty for Textual
    Inversion; noun, attribute: "teapot", "patterned", several by ``prompt_syntax.joined_words``;
    base: fingerprint of the base it was made for (``Base.concept_fingerprint``), "" if not known;
    prompts: what it was trained on; recipe: how, JSON-able; images: how many references; adapters:
    path of a layer, with one of ``adapters.PARTS`` before it, to its change (LoRA and its kin);
    columns: the columns of a prompt that its changes of keys and values act on, "prompt" for all,
    "token" for those of its tokens.

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
    adapters: dict[str, Adapter] = field(default_factory=dict)
    columns: Columns = "prompt"

    def __post_init__(self) -> None:
        if self.columns not in get_args(Columns):
            raise InputError(
                "columns", f"{self.columns!r} is unknown", f"use {' or '.join(get_args(Columns))}"
            )
        _check_tokens(self.tokens, changes=bool(self.keys or self.adapters))
        _check_layers(self.keys, self.values)
        _check_adapters(self.adapters)
        try:
            json.dumps(self.recipe, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise InputError("recipe", f"is not JSON ({error})", "keep plain data in it") from None

    @property
    def weights(self) -> dict[str, Tensor]:
        """``{layer}.to_k.weight`` and ``{layer}.to_v.weight`` [inner, width], as the base's."""
        named = ((self.keys, "to_k"), (self.values, "to_v"))
        return {f"{n}.{p}.weight": of[n] for n in self.keys for of, p in named}

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All its numbers: ``token.<plaid>``, those of ``weights``, ``adapter.{path}.{factor}``."""
        return {
            **{f"token.{t}": v for t, v in self.tokens.items()},
            **self.weights,
            **{
                f"adapter.{path}.{name}": factor
                for path, adapter in self.adapters.items()
                for name, factor in adapter.factors.items()
            },
        }

    @cached_property
    def digest(self) -> str:
        """sha256, in hex, of all that decides what it does to a picture.

        Its numbers bit by bit, with names, shapes and dtypes, scales of adapters, its base, its
        noun and attribute (by which regions are found); not the order of its parts, nor what is
        told of its training. One that is read from a low-rank file has the digest of the factors.
        """
        return content_digest(self, self.tensors)

    def on(self, base: Base) -> Concept:
        """The same on the device of ``base``, for use with it: what it does keeps every bit.

        Whole weights keep their dtype: rounded to the base's, the error of all of a weight would
        count as part of its small change. So do factors whose product is such a change. Those that
        act on rows are rounded at every step (``row_adapters``), and here once. The digest stays.
        """
        device = base.device

        def moved_adapter(path: str, adapter: Adapter) -> Adapter:
            on_rows = path.startswith((UNET, TRANSFORMER)) and not (
                isinstance(adapter, Hadamard)
                or f"{path.removeprefix(UNET)}.weight" in base.weights  # of keys and values
            )
            return adapter.to(device, base.dtype if on_rows else None)

        moved = dataclasses.replace(
            self,
            tokens={k: v.to(device) for k, v in self.tokens.items()},
            keys={k: v.to(device) for k, v in self.keys.items()},
            values={k: v.to(device) for k, v in self.values.items()},
            adapters={path: moved_adapter(path, a) for path, a in self.adapters.items()},
        )
        moved.__dict__["digest"] = self.digest
        return moved

    def for_base(self, base: Base) -> Concept:
        """The same, checked against ``base``, naming its fingerprint as it is written today.

        Raises:
            InputError: if it was made for another base, does not fit, or has numbers that are not
                finite or overflow in the base's dtype.
        """
        check_concept(self, base)
        if self.base in ("", base.concept_fingerprint):
            return self
        return dataclasses.replace(self, base=base.concept_fingerprint)

    def check(self, base_shapes: Mapping[str, tuple[int, int]], width: int) -> None:
        """Whether it fits a base, by names and shapes (``checks.check_concept`` looks at all).

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
                f"was made for another base: {len(unknown)} of its {len(self.keys)} layers are not "
                f"among the {len(base_shapes)} of this base, such as {unknown[0]}",
                remedy,
            )
        for name, weight in self.weights.items():
            layer = name.rsplit(".to_", 1)[0]
            if tuple(weight.shape) != tuple(base_shapes[layer]):
                raise InputError(
                    "concept",
                    f"was made for another base: its {name} is {shape_text(weight.shape)}, "
                    f"this base's is {shape_text(base_shapes[layer])}",
                    remedy,
                )
        for token, vector in self.tokens.items():
            if vector.shape[-1] != width:
                raise InputError(
                    "concept",
                    f"was made for another base: {token} has {vector.shape[-1]} numbers"
                    f"{_family(vector.shape[-1])}, this base's embeddings have {width}"
                    f"{_family(width)}",
                    remedy,
                )
        check_finite(self.tensors, "concept")

    def save(self, path: Path) -> None:
        """Write it whole, its dtypes kept; ``path`` is there complete or as it was before.

        Equal concepts make equal files, byte for byte.

        Raises:
            InputError: for numbers that are not finite.
        """
        from customedit.concepts.files import own  # which imports this module

        own.write(path, self, self.weights)

    @classmethod
    def load(
        cls,
        path: Path,
        base_weights: Mapping[str, Tensor] | None = None,
        *,
        max_bytes: int = MAX_BYTES,
    ) -> Concept:
        """Read our own file, of ``save`` here or in ``compress.LowRankConcept``; on the CPU.

        base_weights: ``{layer}.to_k.weight`` and ``{layer}.to_v.weight`` of the base
        (``Base.weights``), needed for a low-rank file only; max_bytes: of the file, looked at
        before it is read.

        Raises:
            InputError: naming the file, for one that is missing, too large, truncated, of an
                unknown version, holds numbers that are not finite, or needs base_weights; one of
                another kind is called what it is, with the command that takes it.
        """
        from customedit.concepts.files import own  # which imports this module

        return own.read(path, base_weights, max_bytes)


def content_digest(concept: Concept, tensors: Mapping[str, Tensor]) -> str:
    """``Concept.digest`` of ``concept`` with ``tensors`` in the place of its own."""
    facts: dict[str, Any] = {
        "base": concept.base,
        "noun": concept.noun,
        "attribute": concept.attribute,
        "tokens": sorted(concept.tokens),
        "adapters": {p: [type(a).__name__, a.scale] for p, a in sorted(concept.adapters.items())},
    }
    if concept.columns != "prompt":  # digests of earlier versions stay
        facts["columns"] = concept.columns
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        plain = tensor.detach().cpu().contiguous()
        digest.update(f"{name}{plain.dtype}{tuple(plain.shape)}".encode())
        digest.update(plain.view(torch.uint8).numpy().tobytes() if plain.numel() else b"")
    return digest.hexdigest()


_FAMILIES: Final = {768: "SD 1.x", 1024: "SD 2.x", 1280: "the second text encoder of SDXL"}


def _family(width: int) -> str:
    """Which bases have token embeddings of this width, for errors."""
    return f" ({_FAMILIES[width]})" if width in _FAMILIES else ""


def _check_tokens(tokens: Mapping[str, Tensor], *, changes: bool) -> None:
    check_counts(len(tokens), 0)
    for token, vector in tokens.items():
        if not CONCEPT.fullmatch(token):
            raise InputError(
                "tokens",
                f"{token!r} is not a concept token",
                "write <name> in lower case: letters, digits, _ and -, 63 at most",
            )
        if vector.ndim not in (1, 2) or not vector.shape[-1] or vector.dtype not in FLOATS:
            raise InputError(
                "tokens",
                f"{token} is {shape_text(vector.shape)} {vector.dtype}",
                "give a vector of floats for each token, or a matrix with a row per column",
            )
        columns = len(torch.atleast_2d(vector))
        if columns > MAX_COLUMNS:
            raise InputError(
                "tokens", f"{token} has {columns} vectors, the limit is {MAX_COLUMNS}", "use fewer"
            )
    if not changes and not any(v.numel() for v in tokens.values()):
        raise InputError("tokens", "have no vectors, and nothing else is changed", "give one")
    widths = {t: v.shape[-1] for t, v in tokens.items()}
    if len(set(widths.values())) > 1:
        raise InputError("tokens", f"have several widths: {widths}", "take those of one base")


def _check_layers(keys: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    check_counts(1, len(keys))
    if keys.keys() != values.keys():
        odd = sorted(keys.keys() ^ values.keys())
        raise InputError(
            "layers", f"{odd[0]} and {len(odd) - 1} more lack keys or values", "give both"
        )
    for layer in keys:
        shapes = keys[layer].shape, values[layer].shape
        floats = {keys[layer].dtype, values[layer].dtype} <= set(FLOATS)
        if len(shapes[0]) != 2 or shapes[0] != shapes[1] or not floats:
            raise InputError(
                "layers",
                f"{layer} has keys {shape_text(shapes[0])} {keys[layer].dtype} and values "
                f"{shape_text(shapes[1])} {values[layer].dtype}",
                "give two matrices of floats of one shape",
            )


def _check_adapters(adapters: Mapping[str, Adapter]) -> None:
    for path in adapters:
        if not path.startswith(PARTS):
            raise InputError(
                "adapters", f"{path} is in no model", f"begin it with one of {', '.join(PARTS)}"
            )


def concept_digest(concept: Customization) -> str:
    """``Concept.digest``; of what is no ``Concept``, the sha256 of its tokens and weights."""
    known: str = getattr(concept, "digest", "")
    if known:
        return known
    tensors = {f"token.{name}": vector for name, vector in concept.tokens.items()}
    for part, weights in (("to_k", concept.keys), ("to_v", concept.values)):
        tensors |= {f"{layer}.{part}.weight": weight for layer, weight in weights.items()}
    return _tensors_digest(tensors)


def _tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """The sha256 of named tensors, in hex: names, dtypes, shapes and bytes, in order of names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
