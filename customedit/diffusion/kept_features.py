"""What rows take of another row at one step, kept so that this row need not be computed again.

A row that lies on a stored trajectory, as the source's of an edit, gives others at each step the
same queries and keys, whoever they are. Kept are queries and keys of self-attention, of layers
whose maps are taken at all, and queries of cross-attention, whose keys are the prompt's: from them
the fused kernel makes the bits that it makes of the row itself. Maps would be smaller in layers of
fewer positions than twice a head's width, but the kernel never makes them, and what is computed
from materialized maps is rounded otherwise. Maps that are handed back are kept as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from customedit.diffusion.attention_control import AttentionControl
from customedit.diffusion.text import TextContext

Part = Literal["self", "cross", "maps"]
"""What is taken of a row: in self-attention, in cross-attention, and its maps as handed back."""


@dataclass(eq=False)
class StepFeatures:
    """The features of a row at one step.

    wanted: what a forward with the row shall put here; held: what is here, whole. attention: by
    self-attention layer, query and key [1, heads, positions, dim]; queries: by cross-attention
    layer, [1, heads, positions, dim]; maps: [1, rows, columns, tokens], as in ``Prediction``.
    """

    wanted: set[Part] = field(default_factory=set)
    held: set[Part] = field(default_factory=set)
    attention: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    queries: dict[int, Tensor] = field(default_factory=dict)
    maps: Tensor | None = None

    def sizes(self) -> dict[Part, int]:
        """The bytes of each part that is held."""
        tensors: dict[Part, list[Tensor]] = {
            "self": [x for pair in self.attention.values() for x in pair],
            "cross": list(self.queries.values()),
            "maps": [] if self.maps is None else [self.maps],
        }
        return {part: sum(x.nbytes for x in tensors[part]) for part in self.held}


@dataclass(frozen=True, eq=False)
class RowFeatures:
    """Features that go with a row of a request: of the row itself, or of one that it takes from.

    text: what the row that they are of reads.
    """

    step: StepFeatures
    text: TextContext


@dataclass(frozen=True, eq=False)
class KeptRows:
    """The features that go with the rows of one forward.

    recorded: rows whose features are put where they are wanted, with the parts that are missing
    there; taken: those that rows take instead of another row's, in the order of these rows. They
    count as rows after the forward's own (``AttentionControl.numbered``).
    """

    recorded: Sequence[tuple[int, StepFeatures, frozenset[Part]]] = ()
    taken: Sequence[RowFeatures] = ()

    @classmethod
    def of(
        cls, control: AttentionControl | None, features: Sequence[RowFeatures | None]
    ) -> KeptRows:
        """Of the ``features`` of each row, () for none; ``control`` says who takes them."""
        if control is None or not features:
            return cls()
        recorded, taken = [], []
        for row, (own, takes) in enumerate(zip(features, control.kept.tolist(), strict=True)):
            if own is not None and takes:
                taken.append(own)
            elif own is not None and (missing := own.step.wanted - own.step.held - {"maps"}):
                recorded.append((row, own.step, frozenset(missing)))
        return cls(recorded, taken)

    @property
    def texts(self) -> list[TextContext]:
        """What the rows read that the taken features are of."""
        return [own.text for own in self.taken]

    def attention(self, layer: int, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """Self-attention's ``query`` and ``key`` [rows, heads, positions, dim], and kept rows'.

        layer: its depth; one whose maps others take.
        """
        for row, step, parts in self.recorded:
            if "self" in parts:
                step.attention[layer] = _row(query, row), _row(key, row)
        kept = [own.step.attention.get(layer) for own in self.taken]
        return (
            _followed(query, [None if pair is None else pair[0] for pair in kept]),
            _followed(key, [None if pair is None else pair[1] for pair in kept]),
        )

    def queries(self, layer: int, query: Tensor) -> Tensor:
        """Cross-attention's ``query`` [rows, heads, positions, dim], and kept rows'."""
        for row, step, parts in self.recorded:
            if "cross" in parts:
                step.queries[layer] = _row(query, row)
        return _followed(query, [own.step.queries.get(layer) for own in self.taken])

    def finish(self) -> None:
        """The forward ran: what it recorded is whole."""
        for _, step, parts in self.recorded:
            step.held |= parts


def _row(x: Tensor, row: int) -> Tensor:
    """A row of ``x`` [rows, ...] that does not hold the others in memory."""
    return x[row : row + 1].detach().clone()


def _followed(x: Tensor, kept: Sequence[Tensor | None]) -> Tensor:
    """``x`` [rows, ...] and the ``kept`` rows; one that nobody takes anything of may be missing."""
    if all(row is None for row in kept):
        return x
    return torch.cat([x, *(x[:1] if row is None else row for row in kept)])
