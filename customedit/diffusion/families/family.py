"""The interface of a family: the questions in which bases differ."""

from __future__ import annotations

import abc
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import diffusers
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from customedit.diffusion.adapters import Adapter, layers_of
from customedit.diffusion.attention import AttentionState
from customedit.diffusion.attention_control import AttentionControl
from customedit.diffusion.devices import to_device
from customedit.diffusion.families.layout import Layout
from customedit.diffusion.families.original_names import Stacked
from customedit.diffusion.joint_attention import JointState
from customedit.diffusion.kept_features import RowFeatures
from customedit.diffusion.row_adapters import RowAdapters
from customedit.diffusion.schedule import Schedule, Time
from customedit.diffusion.text import (
    Customization,
    Encoded,
    PromptRow,
    TextContext,
    TextEncoder,
    Tokens,
    Weighted,
    text_encoders,
    tokenize,
)
from customedit.errors import InputError


@dataclass
class Changes:
    """What a training changes beside embeddings; float32 leaves.

    keys, values: whole weights by cross-attention layer; adapters: changes of low rank by path.
    """

    keys: dict[str, Tensor] = field(default_factory=dict)
    values: dict[str, Tensor] = field(default_factory=dict)
    adapters: dict[str, Adapter] = field(default_factory=dict)


def row_times(time: Tensor | Time, rows: int, device: torch.device) -> Tensor:
    """``time``, a number or [rows], as [rows] on ``device``."""
    if isinstance(time, int | float):
        return torch.full((rows,), time, device=device)
    return to_device(torch.as_tensor(time), device).expand(rows).contiguous()


class Family(abc.ABC):
    """One base's parts, driven as its family needs it.

    pipeline: of diffusers, of the class that ``layout`` names; its parts are not copied. weights:
    what concepts change as whole weights, ``{layer}.to_k.weight`` and ``{layer}.to_v.weight`` of
    every cross-attention layer, float32 as in the file; {} where concepts are adapters alone.
    """

    layout: ClassVar[Layout]
    lacks: ClassVar[Mapping[str, str]] = {}
    """What the family cannot do (a method, an inversion, a way to train), and why."""

    def __init__(self, pipeline: Any) -> None:
        self.pipeline = pipeline
        self.weights: dict[str, Tensor] = {}
        self._running: tuple[Any, RowAdapters] | None = None
        self._keeps_activations = True

    def require(self, feature: str, field: str) -> None:
        """Raise InputError, naming ``field``, if the family cannot do ``feature``."""
        if feature in self.lacks:
            raise InputError(
                field,
                f"{feature} is not in this family ({self.layout.name}): {self.lacks[feature]}",
                "choose another, or use a base of another family",
            )

    # parts

    @classmethod
    def assemble(cls, parts: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
        """A pipeline of ``parts`` by name, with settings of ``Layout.options``."""
        return getattr(diffusers, cls.layout.pipeline)(**parts, **options)

    def with_denoiser(self, denoiser: nn.Module) -> Any:
        """A pipeline of the same parts with another denoiser."""
        parts = {n: p for n, p in self.pipeline.components.items() if p is not None}
        options = {name: self.pipeline.config[name] for name in self.layout.options}
        return self.assemble(parts | {self.layout.denoiser: denoiser}, options)

    @property
    def denoiser(self) -> Any:
        """The UNet or transformer."""
        return getattr(self.pipeline, self.layout.denoiser)

    @cached_property
    def encoders(self) -> tuple[TextEncoder, ...]:
        """The text encoders, in the order in which embeddings hold their vectors."""
        return text_encoders(
            [
                (e.part, getattr(self.pipeline, e.part), getattr(self.pipeline, e.tokenizer))
                for e in self.layout.encoders
                if getattr(self.pipeline, e.part) is not None
            ]
        )

    @property
    def dtype(self) -> torch.dtype:
        """Of the denoiser. Its own property looks at every layer, which takes a millisecond."""
        first: Tensor = next(self.denoiser.parameters())
        return first.dtype

    @property
    def width(self) -> int:
        """Of a concept token's embedding: of all encoders' token embeddings together."""
        return sum(encoder.width for encoder in self.encoders)

    @property
    def embedding_parts(self) -> dict[str, int]:
        """The parts of a concept token's embedding, in order: their names in files, and widths."""
        names = {f"{layout.part}.": layout.embedding for layout in self.layout.encoders}
        return {names[encoder.prefix]: encoder.width for encoder in self.encoders}

    @property
    def channels(self) -> int:
        """Of the latents."""
        return int(self.denoiser.config.in_channels)

    @property
    def adaptable(self) -> dict[str, nn.Linear | nn.Conv2d]:
        """The layers that adapters can change, by path: denoiser's and text encoders'."""
        found = layers_of(self.denoiser, f"{self.layout.denoiser}.")
        for encoder in self.encoders:
            found |= layers_of(encoder.model, encoder.prefix)
        return found

    def original_names(self) -> Mapping[str, Stacked]:
        """What the denoiser's layers are called in the code that the base was published with.

        Paths there to paths in the denoiser; {} where diffusers' files have the same names.
        """
        return {}

    @abc.abstractmethod
    def check(self, name: str) -> None:
        """Raise InputError, calling the base ``name``, for parts that do not go together."""

    @abc.abstractmethod
    def install(self) -> None:
        """Give the denoiser our attention processors."""

    # text

    def tokenize(
        self, prompt: str, known: Collection[str] | Mapping[str, Tensor], field: str
    ) -> Tokens:
        """``prompt`` for every tokenizer; the first one's tokens, with the others as ``further``.

        Raises InputError as ``text.tokenize`` does.
        """
        first, *others = (tokenize(e.tokenizer, prompt, known, field) for e in self.encoders)
        return first.joined(others)

    @property
    def tokenizers(self) -> Sequence[tuple[Any, int]]:
        """Those whose rows a prompt must keep to, with the tokens of a row."""
        return [(e.tokenizer, int(e.tokenizer.model_max_length)) for e in self.encoders]

    @abc.abstractmethod
    def encode(self, rows: Sequence[PromptRow]) -> list[Encoded]:
        """What the text encoders make of each prompt; differentiable in vectors and adapters.

        rows: of ``tokenize``. They are computed together, whoever they are for.
        """

    @abc.abstractmethod
    def row(
        self, prompt: str, encoded: Encoded, acting: Sequence[Weighted], tokens: Tokens | None
    ) -> TextContext:
        """What a row reads of ``encoded`` where the concepts ``acting`` act.

        ``encoded`` without a pooled vector takes that of the empty prompt. Differentiable.
        """

    # denoiser

    @property
    @abc.abstractmethod
    def state(self) -> AttentionState | JointState:
        """Where the denoiser's processors find the forward that runs."""

    @contextmanager
    def running(self, forward: Any, adapters: RowAdapters) -> Iterator[None]:
        """Inside, the denoiser computes ``forward``, of ``state``'s kind, with ``adapters``."""
        before, self._running = self._running, (forward, adapters)
        self.state.forward = forward
        try:
            with adapters.applied(self.denoiser, f"{self.layout.denoiser}."):
                yield
        finally:
            self._running = before
            self.state.forward = None if before is None else before[0]

    def keep_activations(self, keep: bool) -> None:
        """Whether a forward with gradients keeps what its backward needs; it does from the start.

        If not, each block is computed again in the backward (gradient checkpointing, arXiv
        1604.06174): the same gradients with a fraction of the memory, for a third more time.
        """
        if keep != self._keeps_activations:
            self._keeps_activations = keep
            if keep:
                self.denoiser.disable_gradient_checkpointing()
            else:
                self.denoiser.enable_gradient_checkpointing(self._checkpointed)

    def _checkpointed(self, block: Any, *args: Any) -> Any:
        """What ``block`` gives, computed again in the backward as it is computed now."""
        assert self._running is not None, "the denoiser is driven through output only"
        forward, adapters = self._running
        return checkpoint(
            block.__call__,
            *args,
            use_reentrant=False,
            context_fn=lambda: (nullcontext(), self.running(forward, adapters)),
        )

    @abc.abstractmethod
    def schedule(self) -> Schedule:
        """The schedule of the pipeline's scheduler. Raises InputError for one that does not fit."""

    @abc.abstractmethod
    def output(
        self,
        latents: Tensor,
        time: Tensor | Time,
        context: Sequence[TextContext],
        control: AttentionControl | None,
        device: torch.device,
        features: Sequence[RowFeatures | None] = (),
    ) -> tuple[Tensor, Tensor | None]:
        """The denoiser's own output for latents [rows, C, h, w], float32, and the recorded maps.

        The maps are [recording rows, *grid, tokens], mean over heads and layers. features: as in
        ``Denoise``; those of a family without cross maps are not kept. Differentiable.
        """

    @property
    def mapped_tokens(self) -> int:
        """Columns of the cross maps that ``AttentionControl`` mixes; 0 where none can be mixed."""
        return int(self.encoders[0].tokenizer.model_max_length)

    def guided(
        self, target: TextContext, empty: TextContext, guidance: float
    ) -> tuple[TextContext, ...]:
        """What the rows read whose predictions ``guidance.combine`` makes one guided prediction of.

        Two, the unconditional one first, for classifier-free guidance (arXiv 2207.12598); one where
        the denoiser is told the guidance.
        """
        return (empty, target)

    def check_cells(self, height: int, width: int) -> None:
        """Raise InputError for latents of a size that the denoiser has no positions for."""
        return

    def cross_grids(self, height: int, width: int) -> tuple[tuple[int, int], ...]:
        """(rows, columns) of every resolution that may hold cross-attention, for such latents."""
        return ()

    def check_placed(self, concept: Customization, field: str) -> None:
        """Raise InputError, naming ``field``, unless ``concept`` can be kept to a region."""
        self.require("regions of concepts", field)

    @abc.abstractmethod
    def grid(self, height: int, width: int) -> tuple[int, int]:
        """(rows, columns) of the recorded maps, for latents of ``height`` x ``width``."""

    @property
    def self_layers(self) -> tuple[str, ...]:
        """Paths of the self-attention layers that control acts on, in the order they run in."""
        return ()

    @property
    def decoder_blocks(self) -> tuple[nn.Module, ...]:
        """Modules whose output [rows, ...] the residual blocks of a decoder add to their input."""
        return ()

    # concepts

    @property
    @abc.abstractmethod
    def layers(self) -> tuple[str, ...]:
        """Paths in the denoiser of the layers that read text, in its own order."""

    @abc.abstractmethod
    def read_weights(self) -> None:
        """Take ``weights`` from the denoiser as it is now."""

    def concept_weights(self) -> Mapping[str, Tensor]:
        """The weights by which a base is told from others that a concept does not fit."""
        return self.weights

    @abc.abstractmethod
    def new_changes(self, rank: int, seed: int) -> Changes:
        """What Custom Diffusion trains of this family, before the first step: nothing is changed.

        rank: of the changes, 0 for whole weights; seed: of what starts at random. Raises InputError
        for a rank that the family does not have.
        """

    @abc.abstractmethod
    def trained_row(self, prompt: str, encoded: Encoded, trained: Customization) -> TextContext:
        """What a row reads with gradients into all of ``trained``'s changes.

        What start tokens give is not trained through, as in Custom Diffusion's code, where the
        family can tell: their state is the same in every prompt.
        """
