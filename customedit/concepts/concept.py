"""A concept: what Custom Diffusion trains (arXiv 2212.04488).

Its file is told of in ``concept_file``.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from customedit.concepts.checks import FLOATS, check_counts, check_finite, size
from customedit.concepts.files import own
from customedit.concepts.files.own import MAX_BYTES
from customedit.errors import InputError
from customedit.prompt_syntax import CONCEPT

if TYPE_CHECKING:  # seconds to import, and files can be read without
    from customedit.diffusion.base import Base


@dataclass(frozen=True, eq=False)
class Concept:
    """A customization of one base.

    tokens: "<plaid>" to its embedding [width]; keys, values: path of a cross-attention module in
    the UNet ("mid_block.attentions.0.transformer_blocks.0.attn2") to its whole to_k or to_v weight
    [inner, cross_attention_dim], both for the same layers, both empty for Textual Inversion;
    noun, attribute: "teapot", "patterned"; base: fingerprint of the base it was made for, "" if
    not known (``Base.concept_fingerprint``); prompts: what it was trained on; recipe: how,
    JSON-able; images: how many references.

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

    def for_base(self, base: Base) -> Concept:
        """The same, checked against ``base``, naming its fingerprint as it is written today.

        Raises:
            InputError: if it was made for another base, does not fit, or has numbers that are not
                finite.
        """
        base.check_concept_base(self.base)
        self.check(base.shapes, base.width)
        return dataclasses.replace(self, base=self.base and base.concept_fingerprint)

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
                    f"was made for another base: its {name} is {size(weight.shape)}, "
                    f"this base's is {size(base_shapes[layer])}",
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
        own.write(path, self, self.weights)

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
        about, tensors = own.read(path, max_bytes)
        tokens = {t: tensors.pop(f"token.{t}") for t in about.tokens}
        whole = own.whole(tensors, base_weights, path)
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


def _check_tokens(tokens: Mapping[str, Tensor]) -> None:
    check_counts(len(tokens), 0)
    for token, vector in tokens.items():
        if not CONCEPT.fullmatch(token):
            raise InputError(
                "tokens",
                f"{token!r} is no concept token",
                "write <name> in lower case: letters, digits, _ and -, 63 at most",
            )
        if vector.ndim != 1 or not len(vector) or vector.dtype not in FLOATS:
            raise InputError(
                "tokens",
                f"{token} is {size(vector.shape)} {vector.dtype}",
                "give one vector of floats a token",
            )
    widths = {t: len(v) for t, v in tokens.items()}
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
                f"{layer} has keys {size(shapes[0])} {keys[layer].dtype} and values "
                f"{size(shapes[1])} {values[layer].dtype}",
                "give two matrices of floats of one shape",
            )
