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
from customedit.diffusion import autoencoder, fingerprint, loading
from customedit.diffusion.adapters import UNET, adapters_of
from customedit.diffusion.attention import AttentionControl, AttentionState, Forward, Processor
from customedit.diffusion.devices import device_of, to_device
from customedit.diffusion.folder import locate
from customedit.diffusion.profile import Profile, Sizes, by_architecture
from customedit.diffusion.row_adapters import RowAdapters
from customedit.diffusion.schedule import Schedule
from customedit.diffusion.text import (
    TextContext,
    Tokens,
    Weighted,
    check_text_finite,
    encode,
    project,
    tokenize,
)
from customedit.errors import InputError, NumericalError

BLEND_SIDE = 16
"""Cross maps are read where they are nearest to this many positions a side, as the paper does."""


@dataclass(frozen=True)
class Prediction:
    """What a denoising request gets back.

    noise: [rows, C, h, w] in ``Schedule.dtype``, nearly always float32; maps: [recording rows, h',
    w', tokens] cross-attention, mean over heads and layers, None if no row records.
    """

    noise: Tensor
    maps: Tensor | None = None


@dataclass
class Base:
    """A Stable Diffusion 1.x or 2.x model, frozen. Make it with ``Base.load``.

    name: for people; device, dtype: of UNet and text encoder; profile: defaults and facts of this
    base; folder: where it was loaded from, None if it was not.

    Read from the parts (``read_weights``): weights: ``{layer}.to_k.weight`` and
    ``{layer}.to_v.weight`` of every cross-attention layer, float32 as they are in the file: keys
    and values are made once a prompt, and concepts begin as their copies. fingerprint: of all
    weights; inversions, checkpoints and recipes are of it. concept_fingerprint: of what a concept
    stands on. Both are the same in every dtype (``diffusion.fingerprint``).
    """

    pipeline: Any
    name: str
    device: torch.device
    dtype: torch.dtype
    profile: Profile = field(default_factory=Profile)
    folder: Path | None = None
    attention_state: AttentionState = field(default_factory=AttentionState)
    weights: dict[str, Tensor] = field(default_factory=dict, repr=False)
    fingerprint: str = ""
    concept_fingerprint: str = ""
    _sampled: str = ""

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

        local: never ask a hub. Raises InputError for a folder that is missing, incomplete or
        damaged, a model that is not Stable Diffusion 1.x or 2.x, and a device that is not available
        or has too little memory.
        """
        device_of(device)
        folder, known_as = locate(name, local=local)
        profile = Profile.read(folder)
        pipeline = loading.load_pipeline(folder, known_as)
        base = cls.wrap(pipeline, known_as, device=device, dtype=dtype, profile=profile)
        base.folder = folder
        return base

    @classmethod
    def wrap(
        cls,
        pipeline: StableDiffusionPipeline,
        name: str,
        *,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        profile: Profile | None = None,
    ) -> Base:
        """Drive the parts of ``pipeline``, which becomes frozen and takes our processors.

        profile: by architecture if left out. Raises InputError as ``load`` does.
        """
        loading.check(pipeline, name, dtype)
        profile = profile or by_architecture(pipeline.unet.config)
        base = cls(pipeline, name, device_of(device), dtype, profile)
        Sizes.of(pipeline.unet.config, pipeline.vae.config, profile=profile)
        base.read_weights()
        loading.place(pipeline, name, base.device, dtype)
        base.weights = {n: weight.to(base.device) for n, weight in base.weights.items()}
        base.install()
        return base

    def read_weights(self) -> None:
        """Take the key and value weights and the digests from the parts as they are now."""
        self.weights = loading.key_value_weights(self.unet, self.layers)
        self.fingerprint = fingerprint.whole(self.pipeline)
        self.concept_fingerprint = fingerprint.for_concepts(
            self.pipeline, self.layers, self.weights
        )
        self._sampled = fingerprint.sampled(self.layers, self.weights)

    def check_concept_base(self, named: str) -> None:
        """Check the base that a concept's file names, "" for none.

        Files of earlier versions name a digest of fewer weights, which is recognised.

        Raises:
            InputError: if it is another base.
        """
        if named not in ("", self.concept_fingerprint, self._sampled):
            raise InputError(
                "concept",
                f"was made for the base {named}, this is {self.concept_fingerprint} ({self.name})",
                "use the base that it was made for, or train it again on this one",
            )

    def install(self) -> None:
        """Give the UNet our processors, which read the running forward from ``attention_state``."""
        order = {f"{layer}.processor": k for k, layer in enumerate(self.layers)}
        self.unet.set_attn_processor(
            {
                name: Processor(self.attention_state, order.get(name))
                for name in self.unet.attn_processors
            }
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
        """The noise schedule of the base's scheduler, as diffusers' pipeline corrected it."""
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

    @cached_property
    def sizes(self) -> Sizes:
        """The sizes of pictures that the base works on."""
        return Sizes.of(self.unet.config, self.pipeline.vae.config, profile=self.profile)

    @property
    def factor(self) -> int:
        """Pixels a side per latent cell."""
        return self.sizes.factor

    @property
    def multiple(self) -> int:
        """Sides of pictures are multiples of this: every level of the UNet halves evenly."""
        return self.sizes.multiple

    @property
    def side(self) -> int:
        """The side of the square pictures that the base was made for, in pixels."""
        return self.sizes.side

    @property
    def guidance(self) -> float:
        """The weight of classifier-free guidance that edits take by default."""
        return self.profile.guidance

    @property
    def clip(self) -> Path | None:
        """The folder of the CLIP that knows this base's pictures, None if there is none."""
        if self.folder is None or not self.profile.clip:
            return None
        return self.folder / self.profile.clip

    @cached_property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """Of the key and value weights of each cross-attention layer, (inner, width)."""
        found = {n: self.weights[f"{n}.to_k.weight"].shape for n in self.layers}
        return {name: (int(size[0]), int(size[1])) for name, size in found.items()}

    def size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) at which a picture of these sides is worked on."""
        return images.fit((width, height), self.multiple, self.side**2)

    def encode(self, image: Image.Image) -> Tensor:
        """``image`` at its working size as latents, float32 [1, C, h, w]."""
        return self.encode_pixels(pixels.to_tensor(image, self.size(*image.size)))

    def encode_pixels(self, batch: Tensor) -> Tensor:
        """[n, 3, H, W] in [-1, 1] as latents, float32 [n, C, h, w]; the mean, not a draw."""
        return autoencoder.encode(self.pipeline.vae, batch, self.device)

    def check_finite(self, what: str, *tensors: Tensor) -> None:
        """Raise NumericalError, naming ``what``, unless all numbers of the tensors are finite."""
        if not all(bool(tensor.isfinite().all()) for tensor in tensors):
            raise NumericalError(
                f"{what} are not finite (base {self.name} in {self.dtype}); use a smaller "
                "guidance or concept weight, or a wider dtype (float32, bfloat16)"
            )

    def decode(self, latents: Tensor) -> list[Image.Image]:
        """Latents [n, C, h, w] as pictures.

        Raises NumericalError for latents or pixels that are not finite, which would be black.
        """
        decoded = autoencoder.decode(self.pipeline.vae, latents, self.device).cpu()
        self.check_finite("the result's latents", latents)
        self.check_finite("the autoencoder's pixels", decoded)
        return [pixels.to_image(p) for p in decoded]

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
        concept tokens and too many tokens, NumericalError for concepts whose numbers are too large.
        """
        vectors = {t: v for entry in concepts for t, v in entry.concept.tokens.items()}
        tokens = self.tokens(prompt, vectors, field)
        named = set(tokens.named)
        acting = [c for c in concepts if everywhere or named & set(c.concept.tokens)]
        states = self.states(tokens, vectors, acting)
        context = self._read(prompt, states, acting, tokens)
        if acting:
            check_text_finite(context, acting, self.dtype)
        return context

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
        self,
        states: Tensor,
        prompt: str = "",
        adapted: Sequence[Weighted] = (),
        tokens: Tokens | None = None,
    ) -> TextContext:
        """What a row reads that is given its states [length, width]; differentiable in them.

        adapted: concepts whose adapters, and changed keys and values, the row uses; tokens: of the
        prompt, None if the states are of none.
        """
        return self._read(prompt, states, adapted, tokens)

    def _read(
        self, prompt: str, states: Tensor, acting: Sequence[Weighted], tokens: Tokens | None
    ) -> TextContext:
        keys, values = project(states, self.layers, self.weights, acting, tokens)
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
        """The UNet's own output (noise, v or picture), float32, and the recorded maps."""
        rows, _, height, width = latents.shape
        if len(context) != rows:
            raise ValueError(f"{rows} rows of latents, {len(context)} of text")
        grid, dtype = self.grid(height, width), self.unet.dtype
        keys = [torch.stack([c.keys[k] for c in context]) for k in range(len(self.layers))]
        values = [torch.stack([c.values[k] for c in context]) for k in range(len(self.layers))]
        states = torch.stack([c.states.to(dtype) for c in context])
        recorded = grid[0] * grid[1]
        self.attention_state.forward = forward = Forward.of(
            keys, values, control, recorded, self.device
        )
        try:
            x = latents.to(self.device, dtype)
            with RowAdapters([c.adapted for c in context]).applied(self.unet, UNET):
                output = self.unet(x, self._times(time, rows), states).sample
        finally:
            self.attention_state.forward = None
        maps = None
        if forward.maps is not None:
            maps = (forward.maps / forward.layers).unflatten(1, grid)
        return output.float(), maps

    def _times(self, time: Tensor | int, rows: int) -> Tensor:
        """``time``, int or [rows], as [rows] on the device."""
        if isinstance(time, int):
            return torch.full((rows,), time, device=self.device)
        return to_device(torch.as_tensor(time), self.device).expand(rows).contiguous()

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
