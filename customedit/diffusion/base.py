"""The base: one frozen latent diffusion model, driven by per-row keys, values and control."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from torch import Tensor

from customedit import images, pixels
from customedit.diffusion import autoencoder, loading
from customedit.diffusion.adapters import UNET, adapters_of
from customedit.diffusion.attention import AttentionControl, Forward, Processor, Wire
from customedit.diffusion.devices import device_of, send
from customedit.diffusion.row_adapters import RowAdapters
from customedit.diffusion.schedule import Schedule
from customedit.diffusion.text import (
    TextContext,
    Tokens,
    Weighted,
    encode,
    project,
    tokenize,
)

BLEND_SIDE = 16
"""Cross maps are read where they are nearest to this many positions a side, as the paper does."""


@dataclass(frozen=True)
class Prediction:
    """What a denoising request gets back.

    noise: [rows, C, h, w] float32; maps: [recording rows, h', w', tokens] cross-attention, mean
    over heads and layers, None if no row records.
    """

    noise: Tensor
    maps: Tensor | None = None


@dataclass
class Base:
    """A Stable Diffusion 1.x or 2.x model, frozen. Make it with ``Base.load``.

    device, dtype: of UNet and text encoder; weights: ``{layer}.to_k.weight`` and
    ``{layer}.to_v.weight`` of every cross-attention layer, float32 as they are in the file: keys
    and values are made once a prompt, and concepts begin as their copies. fingerprint: what a
    concept must match, the same in every dtype (``loading.fingerprint``).
    """

    pipeline: Any
    name: str
    device: torch.device
    dtype: torch.dtype
    wire: Wire = field(default_factory=Wire)
    weights: dict[str, Tensor] = field(default_factory=dict, repr=False)
    fingerprint: str = ""

    @classmethod
    def load(
        cls,
        name: str | Path | None = None,
        *,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        local: bool = False,
    ) -> Base:
        """Load a diffusers folder or hub name; None or "mini" for the bundled base.

        local: never ask a hub. Raises InputError for a folder that is missing or incomplete, an
        architecture that is no Stable Diffusion, a device that is not there or has too little
        memory.
        """
        chosen, spelled = loading.locate(name)
        device_of(device)
        pipeline = loading.pipeline_of(chosen, spelled, local=local)
        return cls.wrap(pipeline, spelled, device=device, dtype=dtype)

    @classmethod
    def wrap(
        cls,
        pipeline: StableDiffusionPipeline,
        name: str,
        *,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> Base:
        """Drive the parts of ``pipeline``, which becomes frozen and takes our processors."""
        loading.check(pipeline, name)
        base = cls(pipeline, name, device_of(device), dtype)
        whole = loading.key_value_weights(pipeline.unet, base.layers)
        base.fingerprint = loading.fingerprint(base.layers, whole)
        loading.place(pipeline, name, base.device, dtype)
        base.weights = {name: weight.to(base.device) for name, weight in whole.items()}
        base.install()
        return base

    def install(self) -> None:
        """Give the UNet our processors, which read from ``wire`` what runs."""
        order = {f"{layer}.processor": k for k, layer in enumerate(self.layers)}
        self.unet.set_attn_processor(
            {name: Processor(self.wire, order.get(name)) for name in self.unet.attn_processors}
        )

    # what the parts are

    @property
    def unet(self) -> Any:
        """The UNet2DConditionModel."""
        return self.pipeline.unet

    @property
    def tokenizer(self) -> Any:
        """The CLIPTokenizer."""
        return self.pipeline.tokenizer

    @cached_property
    def schedule(self) -> Schedule:
        """The noise schedule of the base's scheduler."""
        return Schedule.from_config(dict(self.pipeline.scheduler.config))

    @cached_property
    def layers(self) -> tuple[str, ...]:
        """Paths of the cross-attention modules, in the UNet's own order."""
        names = (n.removesuffix(".processor") for n in self.unet.attn_processors)
        return tuple(n for n in names if n.endswith("attn2"))

    @property
    def width(self) -> int:
        """Of the text states."""
        return int(self.unet.config.cross_attention_dim)

    @property
    def channels(self) -> int:
        """Of the latents."""
        return int(self.unet.config.in_channels)

    @property
    def length(self) -> int:
        """Tokens in a row of text, start, end and padding included."""
        return int(self.tokenizer.model_max_length)

    # pictures

    @property
    def factor(self) -> int:
        """Pixels a side per latent cell."""
        return autoencoder.factor(self.pipeline.vae)

    @property
    def multiple(self) -> int:
        """Sides of pictures are multiples of this: every level of the UNet halves evenly."""
        return int(self.factor * 2 ** (len(self.unet.config.block_out_channels) - 1))

    @property
    def side(self) -> int:
        """The side of the square pictures that the base was made for, in pixels."""
        return int(self.unet.config.sample_size) * self.factor

    @property
    def guidance(self) -> float:
        """The weight of classifier-free guidance that edits take by default."""
        return 4.0 if self.name == "mini" else 7.5

    def size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) at which a picture of these sides is worked on."""
        return images.fit((width, height), self.multiple, self.side**2)

    def encode(self, image: Image.Image) -> Tensor:
        """``image`` at its working size as latents, float32 [1, C, h, w]."""
        return self.encode_pixels(pixels.to_tensor(image, self.size(*image.size)))

    def encode_pixels(self, batch: Tensor) -> Tensor:
        """[n, 3, H, W] in [-1, 1] as latents, float32 [n, C, h, w]; the mean, not a draw."""
        return autoencoder.encode(self.pipeline.vae, batch, self.device)

    def decode(self, latents: Tensor) -> list[Image.Image]:
        """Latents [n, C, h, w] as pictures."""
        found = autoencoder.decode(self.pipeline.vae, latents, self.device)
        return [pixels.to_image(p) for p in found.cpu()]

    # words

    def tokens(self, prompt: str, known: Collection[str] = (), field: str = "prompt") -> Tokens:
        """``prompt`` in tokens, where it may name the concept tokens ``known``.

        A mapping of tokens to their embeddings says how many columns each takes, else it is one.
        """
        return tokenize(self.tokenizer, prompt, known, field)

    def states(
        self, tokens: Tokens, vectors: Mapping[str, Tensor], adapted: Sequence[Weighted] = ()
    ) -> Tensor:
        """[length, width] of the text encoder; differentiable in ``vectors`` and adapters."""
        return encode(self.pipeline.text_encoder, tokens, vectors, adapted)

    @torch.no_grad()
    def text(
        self,
        prompt: str,
        concepts: Sequence[Weighted] = (),
        field: str = "prompt",
        *,
        everywhere: bool = False,
    ) -> TextContext:
        """What a row with ``prompt`` reads.

        Concepts act only if the prompt names a token of theirs; with ``everywhere`` in any case, as
        in a model whose weights were customised. Raises InputError, naming ``field``, for unknown
        concept tokens and too many tokens.
        """
        vectors = {t: v for entry in concepts for t, v in entry.concept.tokens.items()}
        tokens = self.tokens(prompt, vectors, field)
        named = set(tokens.named)
        acting = [c for c in concepts if everywhere or named & set(c.concept.tokens)]
        states = self.states(tokens, vectors, acting)
        return self._read(prompt, states, acting, tokens)

    def unconditional(self, empty: TextContext, target: TextContext) -> TextContext:
        """``empty``, the unconditional text, as the row beside ``target`` reads it.

        Concepts act where they are named, so not on this row, except those that carry adapters:
        these are trained and used as changes of the whole model, and guidance would multiply a
        change that only one of its two rows has.
        """
        if not target.adapted or empty.adapted:
            return empty
        if empty.tokens is None:  # states of no prompt
            return self.context(empty.states, empty.prompt, target.adapted)
        return self.text(empty.prompt, target.adapted, everywhere=True)

    def context(
        self, states: Tensor, prompt: str = "", adapted: Sequence[Weighted] = ()
    ) -> TextContext:
        """What a row reads that is given its states [length, width]; differentiable in them.

        adapted: concepts whose adapters, and changed keys and values, the row uses.
        """
        return self._read(prompt, states, adapted, None)

    def _read(
        self, prompt: str, states: Tensor, acting: Sequence[Weighted], tokens: Tokens | None
    ) -> TextContext:
        keys, values = project(states, self.layers, self.weights, acting)
        return TextContext(
            prompt,
            states,
            tuple(k.to(self.dtype) for k in keys),
            tuple(v.to(self.dtype) for v in values),
            tokens,
            tuple(c for c in acting if c.weight != 0 and adapters_of(c.concept)),
        )

    # noise

    def predict(
        self,
        latents: Tensor,
        time: Tensor | int,
        context: Sequence[TextContext],
        control: AttentionControl | None = None,
    ) -> Prediction:
        """The noise in ``latents`` [rows, C, h, w] at ``time``, int or [rows].

        context: one per row. Differentiable.
        """
        output, maps = self.output(latents, time, context, control)
        return Prediction(self.schedule.noise(output, latents.to(output.device), time), maps)

    def output(
        self,
        latents: Tensor,
        time: Tensor | int,
        context: Sequence[TextContext],
        control: AttentionControl | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """The UNet's own output (noise or v), float32, and the recorded maps."""
        rows, _, height, width = latents.shape
        if len(context) != rows:
            raise ValueError(f"{rows} rows of latents, {len(context)} of text")
        grid, dtype = self.grid(height, width), self.unet.dtype
        keys = [torch.stack([c.keys[k] for c in context]) for k in range(len(self.layers))]
        values = [torch.stack([c.values[k] for c in context]) for k in range(len(self.layers))]
        states = torch.stack([c.states.to(dtype) for c in context])
        recorded = grid[0] * grid[1]
        self.wire.forward = forward = Forward.of(keys, values, control, recorded, self.device)
        try:
            x = latents.to(self.device, dtype)
            with RowAdapters([c.adapted for c in context]).applied(self.unet, UNET):
                output = self.unet(x, self._times(time, rows), states).sample
        finally:
            self.wire.forward = None
        maps = None
        if forward.maps is not None:
            maps = (forward.maps / forward.layers).unflatten(1, grid)
        return output.float(), maps

    def _times(self, time: Tensor | int, rows: int) -> Tensor:
        """``time``, int or [rows], as [rows] on the device."""
        if isinstance(time, int):
            return torch.full((rows,), time, device=self.device)
        return send(torch.as_tensor(time), self.device).expand(rows).contiguous()

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """(rows, columns) of the cross maps that are read, for latents of ``height`` x ``width``.

        Of the UNet's resolutions that hold cross-attention, the one nearest to BLEND_SIDE squared.
        """
        levels = len(self.unet.config.block_out_channels)
        kinds = self.unet.config.down_block_types
        sizes = [(height >> k, width >> k) for k in range(levels) if "CrossAttn" in kinds[k]] or [
            (height, width)
        ]
        return min(sizes, key=lambda s: abs(s[0] * s[1] - BLEND_SIDE**2))
