"""Stable Diffusion XL: two text encoders, a pooled text and sizes for each row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from customedit.diffusion.devices import to_device
from customedit.diffusion.families.clip import check_clip
from customedit.diffusion.families.known import STABLE_DIFFUSION_XL
from customedit.diffusion.families.layout import Layout
from customedit.diffusion.families.unet import UNetFamily
from customedit.diffusion.profile import latent_factor
from customedit.diffusion.text import Encoded, PromptRow, TextContext, Tokens, Weighted
from customedit.errors import InputError


class StableDiffusionXL(UNetFamily):
    """Stable Diffusion XL, whose UNet reads the states before both encoders' last layers."""

    layout: ClassVar[Layout] = STABLE_DIFFUSION_XL

    def check(self, name: str) -> None:
        """Raise InputError unless tokenizers, text encoders and UNet go together."""
        first, second = (encoder.model.config for encoder in self.encoders)
        config = self.denoiser.config
        width, read = first.hidden_size + second.hidden_size, config.cross_attention_dim
        if read != width:
            raise InputError(
                "base",
                f"{name} has text encoders with states of width {first.hidden_size} and "
                f"{second.hidden_size}, its UNet reads {read}",
                "use the text encoders that the base was trained with",
            )
        added = second.projection_dim + 6 * config.addition_time_embed_dim
        if config.projection_class_embeddings_input_dim != added:
            raise InputError(
                "base",
                f"{name} has a UNet that is told {config.projection_class_embeddings_input_dim} "
                f"numbers beside the text's states, pooled text and six sizes have {added}",
                "use the text encoders that the base was trained with",
            )
        for encoder in self.encoders:
            check_clip(encoder.model, encoder.tokenizer, name)
        lengths = [encoder.tokenizer.model_max_length for encoder in self.encoders]
        if len(set(lengths)) > 1:
            raise InputError(
                "base",
                f"{name} has tokenizers for {lengths[0]} and {lengths[1]} tokens",
                "use the tokenizers that the base was trained with",
            )

    def encode(self, rows: Sequence[PromptRow]) -> list[Encoded]:
        """Both encoders' states before the last layer, and the second one's pooled text.

        The empty prompt is zeros where the base says so (``force_zeros_for_empty_prompt``), as
        diffusers' pipeline takes it where no negative prompt is given.
        """
        parts = [(row.tokens, *row.tokens.further) for row in rows]
        each = [
            encoder.run(
                [replace(r, tokens=p[k]) for r, p in zip(rows, parts, strict=True)],
                output_hidden_states=True,
            )
            for k, encoder in enumerate(self.encoders)
        ]
        states = torch.cat([output.hidden_states[-2] for output in each], -1)
        found = [Encoded(*both) for both in zip(states, each[-1].text_embeds, strict=True)]
        if self.pipeline.config.force_zeros_for_empty_prompt:
            found = [e if r.tokens.words else _zeros(e) for r, e in zip(rows, found, strict=True)]
        return found

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
        pooled = self._empty if encoded.pooled is None else encoded.pooled
        return super().row(prompt, Encoded(encoded.states, pooled), acting, tokens)

    def conditions(
        self, context: Sequence[TextContext], height: int, width: int, device: torch.device
    ) -> dict[str, Any]:
        """The pooled texts, and the sizes: original, top left corner of the crop, target."""
        factor = latent_factor(self.pipeline.vae.config)
        whole = (height * factor, width * factor)
        sizes = torch.tensor([c.sizes or (*whole, 0, 0, *whole) for c in context])
        dtype = self.dtype  # not of the sizes: bfloat16 has not every whole number
        pooled = [c.pooled.to(dtype) for c in context if c.pooled is not None]
        return {
            "added_cond_kwargs": {
                "text_embeds": torch.stack(pooled),
                "time_ids": to_device(sizes, device).float(),
            }
        }


def _zeros(of: Encoded) -> Encoded:
    assert of.pooled is not None, "the second text encoder has one"
    return Encoded(torch.zeros_like(of.states), torch.zeros_like(of.pooled))
