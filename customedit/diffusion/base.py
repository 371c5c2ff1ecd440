"""The base: one frozen latent diffusion model, driven by per-row keys, values and control."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from torch import Tensor

from customedit import images, pixels
from customedit.diffusion.attention import AttentionControl, Forward, Processor, Wire
from customedit.diffusion.schedule import Schedule
from customedit.diffusion.text import (
    TextContext,
    Tokens,
    Weighted,
    encode,
    project,
    tokenize,
)
from customedit.errors import InputError

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
    """A Stable Diffusion 1.x or 2.x model, frozen. Make it with ``Base.load``."""

    pipeline: Any
    name: str
    device: torch.device
    dtype: torch.dtype
    wire: Wire = field(default_factory=Wire)

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
        chosen, spelled = _locate(name)
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise InputError("device", f"{device} is not there", "take cpu, or mend the driver")
        try:
            pipeline = StableDiffusionPipeline.from_pretrained(
                chosen,
                safety_checker=None,
                feature_extractor=None,
                requires_safety_checker=False,
                local_files_only=local or Path(chosen).exists(),
            )
        except torch.OutOfMemoryError as error:
            raise InputError("base", "does not fit this machine's memory", str(error)) from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(
                "base", f"{spelled} does not load: {reason}", "see customedit models check"
            ) from None
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
        if not isinstance(pipeline.unet, UNet2DConditionModel):
            raise InputError("base", f"{name} has no UNet2DConditionModel", "take SD 1.x or 2.x")
        if pipeline.unet.config.addition_embed_type or pipeline.unet.config.encoder_hid_dim_type:
            raise InputError(
                "base", f"{name} conditions on more than text (SDXL, IP)", "take SD 1.x or 2.x"
            )
        try:
            for part in (pipeline.unet, pipeline.text_encoder, pipeline.vae):
                part.requires_grad_(False).eval().to(device=device, dtype=dtype)
        except torch.OutOfMemoryError:
            raise InputError(
                "device",
                f"{device} has too little free memory for {name} in {dtype}",
                "take a smaller dtype, free memory, or take cpu",
            ) from None
        base = cls(pipeline, name, torch.device(device), dtype)
        base.install(pipeline.unet, base.wire)
        return base

    def install(self, unet: Any, wire: Wire) -> None:
        """Give ``unet`` our processors, reading what runs from ``wire``."""
        order = {f"{layer}.processor": k for k, layer in enumerate(self.layers)}
        unet.set_attn_processor(
            {name: Processor(wire, order.get(name)) for name in unet.attn_processors}
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

    @cached_property
    def weights(self) -> dict[str, Tensor]:
        """``{layer}.to_k.weight`` and ``{layer}.to_v.weight`` of every cross-attention layer."""
        state = self.unet.state_dict()
        return {
            f"{n}.{p}.weight": state[f"{n}.{p}.weight"]
            for n in self.layers
            for p in ("to_k", "to_v")
        }

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

    @cached_property
    def fingerprint(self) -> str:
        """What a concept must match: a digest of the key and value weights' shapes and numbers."""
        digest = hashlib.sha256(json.dumps(self.layers).encode())
        for name, weight in self.weights.items():
            sample = weight.flatten()[:: max(1, weight.numel() // 64)][:64].float().cpu()
            digest.update(f"{name}{tuple(weight.shape)}".encode())
            digest.update(sample.half().numpy().tobytes())  # the same for fp16 and fp32 loads
        return digest.hexdigest()[:16]

    # pictures

    @property
    def factor(self) -> int:
        """Pixels a side per latent cell."""
        config = self.pipeline.vae.config
        return int(
            2
            ** (
                len(getattr(config, "block_out_channels", config.get("encoder_block_out_channels")))
                - 1
            )
        )

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

    @torch.no_grad()
    def encode(self, image: Image.Image) -> Tensor:
        """``image`` at its working size as latents, float32 [1, C, h, w]."""
        return self.encode_pixels(pixels.to_tensor(image, self.size(*image.size)))

    @torch.no_grad()
    def encode_pixels(self, batch: Tensor) -> Tensor:
        """[n, 3, H, W] in [-1, 1] as latents, float32 [n, C, h, w]; the mean, not a draw."""
        out = self.pipeline.vae.encode(batch.to(self.device, self.dtype))
        latents = out.latent_dist.mode() if hasattr(out, "latent_dist") else out.latents
        return latents.float() * self.pipeline.vae.config.scaling_factor

    @torch.no_grad()
    def decode(self, latents: Tensor) -> list[Image.Image]:
        """Latents [n, C, h, w] as pictures."""
        scaled = latents.to(self.device, self.dtype) / self.pipeline.vae.config.scaling_factor
        found = [self.pipeline.vae.decode(row[None]).sample[0].float() for row in scaled]
        return [pixels.to_image(p.cpu()) for p in found]

    # words

    def tokens(self, prompt: str, known: Sequence[str] = (), field: str = "prompt") -> Tokens:
        """``prompt`` in tokens, where it may name the concept tokens ``known``."""
        return tokenize(self.tokenizer, prompt, known, field)

    def states(self, tokens: Tokens, vectors: Mapping[str, Tensor]) -> Tensor:
        """[length, width] of the text encoder; differentiable in ``vectors``."""
        return encode(self.pipeline.text_encoder, tokens, vectors)

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
        tokens = self.tokens(prompt, list(vectors), field)
        named = set(tokens.concepts.values())
        acting = [c for c in concepts if everywhere or named & set(c.concept.tokens)]
        states = self.states(tokens, vectors)
        keys, values = project(states, self.layers, self.weights, acting)
        return TextContext(prompt, states, keys, values, tokens)

    def context(self, states: Tensor, prompt: str = "") -> TextContext:
        """What a row reads that is given its states [length, width]; differentiable in them."""
        return TextContext(prompt, states, *project(states, self.layers, self.weights, ()))

    # noise

    def predict(
        self,
        latents: Tensor,
        time: Tensor | int,
        context: Sequence[TextContext],
        control: AttentionControl | None = None,
        *,
        unet: Any = None,
        wire: Wire | None = None,
    ) -> Prediction:
        """The noise in ``latents`` [rows, C, h, w] at ``time``, int or [rows].

        context: one per row. unet, wire: another UNet with its own processors (DreamBooth's).
        Differentiable.
        """
        output, maps = self.output(latents, time, context, control, unet=unet, wire=wire)
        return Prediction(self.schedule.noise(output, latents.to(output.device), time), maps)

    def output(
        self,
        latents: Tensor,
        time: Tensor | int,
        context: Sequence[TextContext],
        control: AttentionControl | None = None,
        *,
        unet: Any = None,
        wire: Wire | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """The UNet's own output (noise or v), float32, and the recorded maps."""
        rows, _, height, width = latents.shape
        if len(context) != rows:
            raise ValueError(f"{rows} rows of latents, {len(context)} of text")
        wire = wire or self.wire
        grid = self.grid(height, width)
        control = control.to(self.device) if control is not None else None
        keys = [torch.stack([c.keys[k] for c in context]) for k in range(len(self.layers))]
        values = [torch.stack([c.values[k] for c in context]) for k in range(len(self.layers))]
        wire.forward = forward = Forward(keys, values, control, grid[0] * grid[1])
        times = torch.as_tensor(time, device=self.device).expand(rows).contiguous()
        states = torch.stack([c.states for c in context]).to(self.dtype)
        try:
            output = (unet or self.unet)(latents.to(self.device, self.dtype), times, states).sample
        finally:
            wire.forward = None
        maps = None
        if forward.maps is not None:
            maps = (forward.maps / forward.layers).unflatten(1, grid)
        return output.float(), maps

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


def _locate(name: str | Path | None) -> tuple[str, str]:
    """(what from_pretrained is given, how the user knows it)."""
    if name is None or str(name) == "mini":
        from customedit import mini

        return str(mini.path()), "mini"
    path = Path(name)
    if path.is_dir():
        if not (path / "model_index.json").exists():
            raise InputError(
                "base", f"{path} has no model_index.json", "give a folder saved by diffusers"
            )
        return str(path), str(path)
    if path.is_file() or str(name).startswith((".", "/", "~")):
        raise InputError("base", f"{name} is no folder", "give a diffusers folder or a hub name")
    return str(name), str(name)
