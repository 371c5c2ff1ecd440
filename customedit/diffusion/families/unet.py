"""What families with a UNet have in common: keys and values are made once a prompt.

Cross-attention reads text through two projections, which for a prompt are the same at every step: a
concept changes them there (``project``), and costs nothing per step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Final

import torch
from torch import Tensor, nn

from customedit.diffusion.adapters import UNET, adapters_of, layers_of, untrained_change
from customedit.diffusion.attention import AttentionState, Forward, Processor, taken_features
from customedit.diffusion.attention_control import AttentionControl
from customedit.diffusion.controlled_rows import RowsControl
from customedit.diffusion.ddim import DDIMSchedule
from customedit.diffusion.devices import to_device
from customedit.diffusion.families.family import Changes, Family, row_times
from customedit.diffusion.families.original_names import Stacked
from customedit.diffusion.families.unet_names import unet_names
from customedit.diffusion.kept_features import KeptRows, RowFeatures
from customedit.diffusion.row_adapters import RowAdapters
from customedit.diffusion.text import (
    Customization,
    Encoded,
    TextContext,
    Tokens,
    Weighted,
    add_columns,
    own_columns,
)
from customedit.errors import InputError

BLEND_SIDE: Final = 16
"""Cross maps are read where they are nearest to this many positions a side, as the paper does."""


@dataclass(frozen=True, eq=False)
class RowsText:
    """What the rows of one forward read, stacked.

    keys, values: per cross-attention layer [rows, tokens, inner]; states: [rows, tokens, width].
    """

    context: tuple[TextContext, ...]
    keys: list[Tensor]
    values: list[Tensor]
    states: Tensor

    @classmethod
    def of(cls, context: Sequence[TextContext], dtype: torch.dtype) -> RowsText:
        """``context``, one entry per row; states in ``dtype``."""
        layers = range(len(context[0].keys))
        return cls(
            tuple(context),
            [torch.stack([c.keys[k] for c in context]) for k in layers],
            [torch.stack([c.values[k] for c in context]) for k in layers],
            torch.stack([c.states.to(dtype) for c in context]),
        )

    def is_of(self, context: Sequence[TextContext]) -> bool:
        """Whether it was made of these very contexts, in this order."""
        return len(self.context) == len(context) and all(
            a is b for a, b in zip(self.context, context, strict=True)
        )


@dataclass(frozen=True, eq=False)
class KnownControl:
    """What followed from ``control`` for rows that read ``text``, with latents of ``size``."""

    control: AttentionControl
    text: RowsText
    size: tuple[int, int]
    rows: RowsControl

    def is_of(self, control: AttentionControl, text: RowsText, size: tuple[int, int]) -> bool:
        """Whether it was made of these very objects."""
        return self.control is control and self.text is text and self.size == size


class UNetFamily(Family):
    """A UNet2DConditionModel that is told a time, a row of text states, and maybe conditions."""

    lacks: ClassVar[Mapping[str, str]] = {
        "flowedit": "it predicts noise, and FlowEdit needs velocities (flow matching); use p2p"
    }

    def __init__(self, pipeline: Any) -> None:
        super().__init__(pipeline)
        self._state = AttentionState()
        self._rows_text: RowsText | None = None
        self._rows_control: KnownControl | None = None

    @property
    def state(self) -> AttentionState:
        """Where the processors find the forward that runs."""
        return self._state

    def conditions(
        self, context: Sequence[TextContext], height: int, width: int, device: torch.device
    ) -> dict[str, Any]:
        """What the UNet is told beside states, for latents of this size, as its arguments."""
        return {}

    def original_names(self) -> dict[str, Stacked]:
        """The original paths of the UNet's layers."""
        names = unet_names(self.denoiser, self.denoiser.config)
        layers = layers_of(self.denoiser, "")
        return {name: Stacked((path,)) for name, path in names.items() if path in layers}

    def install(self) -> None:
        """Give the UNet our processors, which read the running forward from ``state``."""
        order = {f"{layer}.processor": k for k, layer in enumerate(self.layers)}
        depth = {f"{layer}.processor": k for k, layer in enumerate(self.self_layers)}
        self.denoiser.set_attn_processor(
            {
                name: Processor(self.state, order.get(name), depth.get(name, 0))
                for name in self.denoiser.attn_processors
            }
        )

    def schedule(self) -> DDIMSchedule:
        """The noise schedule of the base's scheduler, as diffusers' pipeline corrected it."""
        return DDIMSchedule.from_config(dict(self.pipeline.scheduler.config))

    # concepts

    @cached_property
    def layers(self) -> tuple[str, ...]:
        """Paths of the cross-attention modules, in the UNet's own order."""
        names = (n.removesuffix(".processor") for n in self.denoiser.attn_processors)
        return tuple(n for n in names if n.endswith("attn2"))

    @cached_property
    def self_layers(self) -> tuple[str, ...]:
        """Paths of the self-attention modules, in the order in which they run."""
        names = (n.removesuffix(".processor") for n in self.denoiser.attn_processors)
        found = [n for n in names if n.endswith("attn1")]
        parts = ("down_blocks", "mid_block", "up_blocks")
        return tuple(sorted(found, key=lambda n: parts.index(n.split(".")[0])))  # sorted is stable

    @cached_property
    def decoder_blocks(self) -> tuple[nn.Module, ...]:
        """What the residual blocks of the UNet's decoder add to their input, in order."""
        return tuple(b.conv2 for blocks in self.denoiser.up_blocks for b in blocks.resnets)

    def read_weights(self) -> None:
        """Take the key and value weights from the UNet as it is now, as float32."""
        names = [f"{n}.{part}.weight" for n in self.layers for part in ("to_k", "to_v")]
        state = self.denoiser.state_dict()
        self.weights = {name: state[name].float() for name in names}

    def new_changes(self, rank: int, seed: int) -> Changes:
        """Copies of all key and value weights, or low-rank changes of them.

        A change W' - W = up down starts with up zero and down at random, as LoRA does.
        """
        if rank:
            generator = torch.Generator().manual_seed(seed)
            return Changes(
                adapters={
                    UNET + name.removesuffix(".weight"): untrained_change(weight, rank, generator)
                    for name, weight in self.weights.items()
                }
            )

        def copies(part: str) -> dict[str, Tensor]:
            weights = ((n, self.weights[f"{n}.{part}.weight"]) for n in self.layers)
            return {n: weight.clone().requires_grad_(True) for n, weight in weights}

        return Changes(copies("to_k"), copies("to_v"))

    # text

    def row(
        self, prompt: str, encoded: Encoded, acting: Sequence[Weighted], tokens: Tokens | None
    ) -> TextContext:
        """What a row reads; see ``Family.row``."""
        keys, values = project(encoded.states, self.layers, self.weights, acting, tokens)
        dtype = self.dtype
        return TextContext(
            prompt,
            encoded.states,
            tuple(k.to(dtype) for k in keys),
            tuple(v.to(dtype) for v in values),
            tokens,
            tuple(c for c in acting if c.weight != 0 and self._acts_later(c)),
            encoded.pooled,
        )

    def _acts_later(self, entry: Weighted) -> bool:
        """Whether a concept has adapters beside those of keys and values, which are in the row."""
        return any(
            path.removeprefix(UNET) + ".weight" not in self.weights
            for path in adapters_of(entry.concept)
        )

    def trained_row(self, prompt: str, encoded: Encoded, trained: Customization) -> TextContext:
        """What a row reads with gradients into ``trained``; not through the start token's state."""
        states, adapters = encoded.states, adapters_of(trained)
        columns = own_columns(trained, encoded.tokens)

        def projected(own: Mapping[str, Tensor], name: str) -> tuple[Tensor, ...]:
            out = []
            for layer in self.layers:
                plain = self.weights[f"{layer}.{name}.weight"]
                weight = own.get(layer, plain)
                if (adapter := adapters.get(f"{UNET}{layer}.{name}")) is not None:
                    weight = weight + adapter.delta()
                rows = states.float() @ (weight if columns is None else plain).T
                if columns and weight is not plain:
                    rows = add_columns(rows, states.float(), columns, weight - plain)
                if columns is None:
                    rows = torch.cat([rows[:1].detach(), rows[1:]])
                out.append(rows.to(self.dtype))
            return tuple(out)

        keys, values = projected(trained.keys, "to_k"), projected(trained.values, "to_v")
        return TextContext(prompt, states, keys, values, pooled=encoded.pooled)

    # denoiser

    def output(
        self,
        latents: Tensor,
        time: Tensor | float,
        context: Sequence[TextContext],
        control: AttentionControl | None,
        device: torch.device,
        features: Sequence[RowFeatures | None] = (),
    ) -> tuple[Tensor, Tensor | None]:
        """The UNet's own output (noise, v or picture), float32, and the recorded maps."""
        rows, _, height, width = latents.shape
        grid = self.grid(height, width)
        kept = KeptRows.of(control, features)
        text = self._text_of_rows([*context, *kept.texts])
        recorded = grid[0] * grid[1]
        of_rows = self._control_of_rows(control, text, (height, width), device)
        forward = Forward(text.keys, text.values, recorded, of_rows, kept)
        x = latents.to(device, self.dtype)
        conditions = self.conditions(context, height, width, device)
        times = row_times(time, rows, device)
        with (
            self.running(forward, RowAdapters([c.adapted for c in context])),
            taken_features(self.decoder_blocks, control, device),
        ):
            output = self.denoiser(x, times, text.states[:rows], **conditions)
        kept.finish()
        maps = None
        if forward.maps is not None:
            maps = (forward.maps / forward.layers).unflatten(1, grid)
        return output.sample.float(), maps

    def _text_of_rows(self, context: Sequence[TextContext]) -> RowsText:
        """The stacked text of the rows: that of the last call, where its rows were the same.

        An edit asks with the same contexts at every step. Where gradients are wanted nothing is
        kept.
        """
        if torch.is_grad_enabled():
            return RowsText.of(context, self.dtype)
        if self._rows_text is None or not self._rows_text.is_of(context):
            self._rows_text = None  # frees it before the next is made
            self._rows_text = RowsText.of(context, self.dtype)
        return self._rows_text

    def _control_of_rows(
        self,
        control: AttentionControl | None,
        text: RowsText,
        size: tuple[int, int],
        device: torch.device,
    ) -> RowsControl:
        """What follows from ``control``: that of the last call, where it was the same.

        An edit's control changes at a few of its steps.
        """
        readings = [c.readings for c in text.context]
        if control is None or torch.is_grad_enabled():
            return RowsControl.of(control, text.values, size, device, readings)
        before = self._rows_control
        if before is not None and before.is_of(control, text, size):
            return before.rows
        self._rows_control = None  # frees it before the next is made
        rows = RowsControl.of(control, text.values, size, device, readings)
        self._rows_control = KnownControl(control, text, size, rows)
        return rows

    def cross_grids(self, height: int, width: int) -> tuple[tuple[int, int], ...]:
        """(rows, columns) of every resolution of the UNet, each half of the one before."""
        grids = [(height, width)]
        for _ in self.denoiser.config.block_out_channels[1:]:
            grids.append((-(-grids[-1][0] // 2), -(-grids[-1][1] // 2)))
        return tuple(grids)

    def check_placed(self, concept: Customization, field: str) -> None:
        """Raise InputError for a concept that changes more of the UNet than keys and values."""
        super().check_placed(concept, field)
        for path in adapters_of(concept):
            if path.startswith(UNET) and path.removeprefix(UNET) + ".weight" not in self.weights:
                raise InputError(
                    field,
                    f"cannot keep {', '.join(concept.tokens)} to a region: it changes the layer "
                    f"{path}, which acts on the whole picture",
                    "leave the region out, or use a concept that changes cross-attention's keys "
                    "and values alone",
                )

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """(rows, columns) of the cross maps that are read, for latents of ``height`` x ``width``.

        Of the UNet's resolutions that hold cross-attention, the one nearest to BLEND_SIDE squared.
        """
        levels = len(self.denoiser.config.block_out_channels)
        kinds = self.denoiser.config.down_block_types
        sizes = [(height >> k, width >> k) for k in range(levels) if "CrossAttn" in kinds[k]] or [
            (height, width)
        ]
        return min(sizes, key=lambda s: abs(s[0] * s[1] - BLEND_SIDE**2))


def project(
    states: Tensor,
    layers: Sequence[str],
    base: Mapping[str, Tensor],
    concepts: Sequence[Weighted],
    tokens: Tokens | None = None,
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Keys and values of ``states`` [..., tokens, width] for every layer, [..., tokens, inner].

    base: ``{layer}.to_k.weight`` and ``{layer}.to_v.weight``; the product is computed in their
    dtype. The changes of several concepts, and of their adapters of these layers, add up. tokens:
    of the prompt, for concepts that act on their own columns alone.
    """
    own = [(entry, own_columns(entry.concept, tokens)) for entry in concepts if entry.weight != 0]
    out: list[tuple[Tensor, ...]] = []
    for part in ("to_k", "to_v"):
        projected = []
        for layer in layers:
            weight = base[f"{layer}.{part}.weight"]
            whole, narrow = weight, []
            for entry, columns in own:
                for change in _changes(entry, layer, part, weight):
                    if columns is None:
                        whole = whole + change
                    elif columns:
                        narrow.append((columns, change))
            rows = states.to(weight.dtype)
            found = rows @ whole.T
            for columns, change in narrow:
                found = add_columns(found, rows, columns, change)
            projected.append(found)
        out.append(tuple(projected))
    return out[0], out[1]


def _changes(entry: Weighted, layer: str, part: str, weight: Tensor) -> list[Tensor]:
    """What ``entry`` adds to ``weight``, that of ``{layer}.{part}``: by its own, by an adapter."""
    found = []
    kept = (entry.concept.keys if part == "to_k" else entry.concept.values).get(layer)
    if kept is not None:
        found.append(entry.weight * (to_device(kept, weight.device).to(weight) - weight))
    adapter = adapters_of(entry.concept).get(f"{UNET}{layer}.{part}")
    if adapter is not None:
        found.append(entry.weight * to_device(adapter.delta(), weight.device).to(weight))
    return found
