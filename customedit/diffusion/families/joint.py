"""What families with an MM-DiT have in common: text and picture move through the blocks together.

A text's keys and values change with the step there, so a concept is a set of adapters, per row:
V* in the text encoders, and low-rank changes of the projections that the text alone goes through
(the context embedder, and keys and values of the text stream).
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Final

import torch
from torch import Tensor

from customedit.diffusion.adapters import TRANSFORMER, adapters_of, untrained_change
from customedit.diffusion.attention_control import AttentionControl
from customedit.diffusion.families.family import Changes, Family, row_times
from customedit.diffusion.flow_schedule import FlowSchedule
from customedit.diffusion.joint_attention import (
    JointForward,
    JointState,
    install,
    middle_blocks,
    recorded_maps,
)
from customedit.diffusion.kept_features import RowFeatures
from customedit.diffusion.row_adapters import RowAdapters
from customedit.diffusion.schedule import Time
from customedit.diffusion.text import (
    Customization,
    Encoded,
    PromptRow,
    TextContext,
    TextEncoder,
    Tokens,
    Weighted,
)
from customedit.errors import InputError

PATCH: Final = 2
"""Latent cells a side that make one token."""

_NO_CROSS_MAPS: Final = "its text and picture share one attention, without cross maps to mix"
_NO_KEY_VALUES: Final = "its concepts are adapters, since the text's keys and values change in time"
_NO_UNET: Final = "it names layers and blocks of a UNet"

LACKS: Final[Mapping[str, str]] = {
    "null-text": "no text's states at one step stand for the unconditional row: they move through "
    "the blocks with the picture, and a pooled vector goes with them. Direct inversion puts the "
    "source back exactly",
    "masactrl": _NO_UNET,
    "pnp": _NO_UNET,
    "ddpm": "flow matching has no random steps whose noise could be kept",
    "regions of concepts": "its text moves through the blocks with the picture, so that after one "
    "block every word has seen the concept, and its adapters act on the whole row; a bias on the "
    "token's own columns would keep nothing to the region",
    "replace": _NO_CROSS_MAPS,
    "cross_steps": _NO_CROSS_MAPS,
    "words": _NO_CROSS_MAPS,
    "reweight": _NO_CROSS_MAPS,
    "whole weights": _NO_KEY_VALUES,
    "merge": _NO_KEY_VALUES,
    "dreambooth": "the baseline is written for a UNet",
    "adobe": _NO_KEY_VALUES,
    "adobe-compressed": _NO_KEY_VALUES,
    "diffusers-bin": "diffusers reads its LoRAs from safetensors",
    "kohya": "queries, keys and values of its text are one layer there, of which concepts change a "
    "part; diffusers' format is read by ComfyUI as well",
}


@dataclass(frozen=True)
class JointTokens(Tokens):
    """A prompt in the sequence of columns that a transformer reads.

    parts: what each tokenizer made of it; places: where each part's columns begin in the sequence,
    None for one of which only the pooled vector is read. The rest is that of the first part that
    is in the sequence.
    """

    parts: tuple[Tokens, ...] = ()
    places: tuple[int | None, ...] = ()

    @classmethod
    def of(cls, parts: Sequence[Tokens], places: Sequence[int | None]) -> JointTokens:
        """The parts in one sequence."""
        first = next(p for p, at in zip(parts, places, strict=True) if at is not None)
        return cls(
            first.ids, first.words, first.spans, first.concepts, first.named,
            parts=tuple(parts), places=tuple(places),
        )  # fmt: skip

    def columns(self, word: int) -> Sequence[int]:
        """The columns of word number ``word``, in every part that is in the sequence."""
        return [
            at + column
            for part, at in zip(self.parts, self.places, strict=True)
            if at is not None
            for column in range(*part.spans[word])
        ]


class JointFamily(Family):
    """An MM-DiT that gives a velocity."""

    lacks: ClassVar[Mapping[str, str]] = LACKS
    default_rank: ClassVar[int] = 16

    def __init__(self, pipeline: Any) -> None:
        super().__init__(pipeline)
        self._state = JointState()

    @property
    def state(self) -> JointState:
        """Where the processors find the forward that runs."""
        return self._state

    def install(self) -> None:
        """Give the transformer our processors, which read the running forward from ``state``."""
        install(self.denoiser, self.state, middle_blocks(self.denoiser.config))

    @property
    def channels(self) -> int:
        """Of the latents."""
        return int(self.pipeline.vae.config.latent_channels)

    @property
    def mapped_tokens(self) -> int:
        """There are no cross maps to mix."""
        return 0

    # text

    @abc.abstractmethod
    def tokenize(
        self, prompt: str, known: Any, field: str
    ) -> JointTokens:  # narrower than the family's
        """``prompt`` for every tokenizer, in the sequence of columns that the transformer reads."""

    def runs(self, rows: Sequence[PromptRow]) -> list[Any]:
        """Each encoder's output for its part of the rows; CLIP's with all hidden states."""
        return [
            encoder.run([_part(row, k) for row in rows], **_options(encoder))
            for k, encoder in enumerate(self.encoders)
        ]

    @cached_property
    def _empty(self) -> Tensor:
        """The pooled vector of the empty prompt."""
        with torch.no_grad():
            pooled = self.encode([PromptRow(self.tokenize("", (), "prompt"), {})])[0].pooled
        assert pooled is not None
        return pooled

    def row(
        self, prompt: str, encoded: Encoded, acting: Sequence[Weighted], tokens: Tokens | None
    ) -> TextContext:
        """What a row reads; see ``Family.row``."""
        adapted = tuple(c for c in acting if c.weight != 0 and adapters_of(c.concept))
        pooled = self._empty if encoded.pooled is None else encoded.pooled
        return TextContext(prompt, encoded.states, (), (), tokens, adapted, pooled)

    # denoiser

    @abc.abstractmethod
    def schedule(self) -> FlowSchedule:
        """The schedule as diffusers' pipeline of this family sets it."""

    @abc.abstractmethod
    def velocity(
        self, latents: Tensor, times: Tensor, states: Tensor, pooled: Tensor,
        context: Sequence[TextContext],
    ) -> Tensor:  # fmt: skip
        """The transformer's output [rows, C, h, w].

        latents: [rows, C, h, w]; times: [rows], 1000 for noise; states: [rows, tokens, width];
        pooled: [rows, pooled width].
        """

    def output(
        self,
        latents: Tensor,
        time: Tensor | Time,
        context: Sequence[TextContext],
        control: AttentionControl | None,
        device: torch.device,
        features: Sequence[RowFeatures | None] = (),
    ) -> tuple[Tensor, Tensor | None]:
        """The velocity, float32, and the maps from image to text of the middle joint blocks."""
        rows, _, height, width = latents.shape
        dtype = self.dtype
        states = torch.stack([c.states.to(dtype) for c in context])
        pooled = torch.stack([c.pooled.to(dtype) for c in context if c.pooled is not None])
        forward = JointForward.of(control, states.shape[1], device)
        times = row_times(time, rows, device).float()
        with self.running(forward, RowAdapters([c.adapted for c in context])):
            found = self.velocity(latents.to(device, dtype), times, states, pooled, context)
        return found.float(), recorded_maps(forward, self.grid(height, width))

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """(rows, columns) of the maps: of the image's tokens."""
        return height // PATCH, width // PATCH

    # concepts

    @cached_property
    def layers(self) -> tuple[str, ...]:
        """The projections that the text alone goes through and that concepts change."""
        ends = (".attn.add_k_proj", ".attn.add_v_proj")
        names = (name for name, _ in self.denoiser.named_modules())
        return tuple(n for n in names if n == "context_embedder" or n.endswith(ends))

    def read_weights(self) -> None:
        """There are none that concepts replace as a whole."""

    def concept_weights(self) -> Mapping[str, Tensor]:
        """Of ``layers``."""
        return {f"{n}.weight": self.denoiser.get_submodule(n).weight for n in self.layers}

    def new_changes(self, rank: int, seed: int) -> Changes:
        """Low-rank changes of ``layers``, which are none yet. Raises InputError for rank 0."""
        if not rank:
            raise InputError(
                "rank",
                f"is 0, for whole weights, which are not in this family ({self.layout.name}): "
                f"{self.lacks['whole weights']}",
                f"give 1 or more; {self.default_rank} is usual",
            )
        generator = torch.Generator().manual_seed(seed)
        return Changes(
            adapters={
                TRANSFORMER + name.removesuffix(".weight"): untrained_change(
                    weight, rank, generator
                )
                for name, weight in self.concept_weights().items()
            }
        )

    def trained_row(self, prompt: str, encoded: Encoded, trained: Customization) -> TextContext:
        """What a row reads with gradients into ``trained``.

        Every row goes through the changes, as Custom Diffusion's prior rows do.
        """
        adapted = (Weighted(trained),) if adapters_of(trained) else ()
        return TextContext(prompt, encoded.states, (), (), None, adapted, encoded.pooled)


def t5_length(encoder: TextEncoder, most: int) -> int:
    """How many columns T5's part of a prompt has: ``most``, or fewer if its tokenizer says so."""
    return min(most, int(encoder.tokenizer.model_max_length))


def check_t5(encoder: Any, tokenizer: Any, name: str) -> None:
    """Raises InputError unless T5 and its tokenizer go together."""
    rows, words = encoder.get_input_embeddings().num_embeddings, len(tokenizer)
    if words > rows or tokenizer.eos_token_id is None or tokenizer.pad_token_id is None:
        raise InputError(
            "base",
            f"{name} has a T5 tokenizer with {words} tokens, its text encoder knows {rows}",
            "use the tokenizer that the base was trained with",
        )


def check_widths(name: str, *pairs: tuple[str, int, int]) -> None:
    """Raises InputError unless each (what, width, width that the transformer reads) is equal."""
    for what, width, read in pairs:
        if width != read:
            raise InputError(
                "base",
                f"{name} has {what} of width {width}, its transformer reads {read}",
                "use the text encoders that the base was trained with",
            )


def _part(row: PromptRow, number: int) -> PromptRow:
    """What encoder ``number`` reads of ``row``."""
    assert isinstance(row.tokens, JointTokens), "made by this family's tokenize"
    return replace(row, tokens=row.tokens.parts[number])


def _options(encoder: TextEncoder) -> dict[str, Any]:
    return {} if encoder.is_t5 else {"output_hidden_states": True}
