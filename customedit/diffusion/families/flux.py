"""FLUX.1 dev and schnell: T5's states, CLIP's pooled text, and the guidance as an input."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

import torch
from torch import Tensor

from customedit.diffusion.families.clip import check_clip
from customedit.diffusion.families.joint import (
    LACKS,
    PATCH,
    JointFamily,
    JointTokens,
    check_t5,
    check_widths,
    t5_length,
)
from customedit.diffusion.families.known import FLUX
from customedit.diffusion.families.layout import Layout
from customedit.diffusion.families.original_names import Stacked, flux_names
from customedit.diffusion.flow_schedule import FlowSchedule
from customedit.diffusion.text import Encoded, PromptRow, TextContext, tokenize

T5_LENGTH: Final = 512
"""Columns of the text, as diffusers' pipeline has them."""

UNGUIDED: Final = 1.0
"""The guidance that a row is told which has none, as that of an inversion."""


class Flux(JointFamily):
    """A transformer with joint and single blocks, which reads latents as tokens of 2 x 2 cells."""

    layout: ClassVar[Layout] = FLUX
    lacks: ClassVar[Mapping[str, str]] = {
        **LACKS,
        "negative-prompt": "its guidance is an input of the transformer, and no row is "
        "unconditional",
    }

    def check(self, name: str) -> None:
        """Raise InputError unless tokenizers, text encoders and transformer go together."""
        config = self.denoiser.config
        clip, t5 = self.encoders
        check_widths(
            name,
            ("pooled texts", clip.model.config.hidden_size, config.pooled_projection_dim),
            ("T5's states", t5.model.config.d_model, config.joint_attention_dim),
        )
        check_clip(clip.model, clip.tokenizer, name)
        check_t5(t5.model, t5.tokenizer, name)

    @property
    def tokenizers(self) -> Sequence[tuple[Any, int]]:
        """T5's alone: CLIP reads the beginning of a longer prompt."""
        t5 = self.encoders[1]
        return [(t5.tokenizer, t5_length(t5, T5_LENGTH))]

    def tokenize(self, prompt: str, known: Any, field: str) -> JointTokens:
        """``prompt`` for T5, whose columns the transformer reads, and for CLIP's pooled text.

        CLIP reads the beginning of a prompt that is too long for it, as diffusers' pipeline has
        it. Raises InputError for one that is too long for T5.
        """
        clip, t5 = self.encoders
        parts = (
            tokenize(clip.tokenizer, prompt, known, field, cut=True),
            tokenize(t5.tokenizer, prompt, known, field, length=t5_length(t5, T5_LENGTH)),
        )
        return JointTokens.of(parts, (None, 0))

    def encode(self, rows: Sequence[PromptRow]) -> list[Encoded]:
        """T5's final states, and CLIP's pooled text."""
        clip, t5 = self.runs(rows)
        both = zip(t5.last_hidden_state, clip.pooler_output, strict=True)
        return [Encoded(states, pooled) for states, pooled in both]

    def original_names(self) -> dict[str, Stacked]:
        """The names of the code that the base was published with."""
        return flux_names(self.denoiser.config)

    def schedule(self) -> FlowSchedule:
        """The schedule as FluxPipeline sets it."""
        return FlowSchedule.from_config(dict(self.pipeline.scheduler.config), "even", PATCH)

    def guided(
        self, target: TextContext, empty: TextContext, guidance: float
    ) -> tuple[TextContext, ...]:
        """One row that is told its guidance; two for a base that is not (schnell), if not 1."""
        if self.denoiser.config.guidance_embeds:
            return (dataclasses.replace(target, guidance=guidance),)
        return (target,) if guidance == UNGUIDED else (empty, target)

    def velocity(
        self, latents: Tensor, times: Tensor, states: Tensor, pooled: Tensor,
        context: Sequence[TextContext],
    ) -> Tensor:  # fmt: skip
        """The transformer's output [rows, C, h, w]."""
        guidance = None
        if self.denoiser.config.guidance_embeds:
            told = [UNGUIDED if c.guidance is None else c.guidance for c in context]
            guidance = torch.tensor(told, device=latents.device)
        height, width = latents.shape[2:]
        found = self.denoiser(
            hidden_states=packed(latents),
            timestep=times.to(latents.dtype) / 1000,
            guidance=guidance,
            encoder_hidden_states=states,
            pooled_projections=pooled,
            txt_ids=torch.zeros(states.shape[1], 3, device=latents.device, dtype=latents.dtype),
            img_ids=image_ids(*self.grid(height, width)).to(latents.device, latents.dtype),
        ).sample
        return unpacked(found, height, width)


def packed(latents: Tensor) -> Tensor:
    """[rows, C, h, w] as [rows, h/2 w/2, 4 C]: a token is 2 x 2 cells, its channels outermost."""
    x = latents.unflatten(3, (-1, PATCH)).unflatten(2, (-1, PATCH))  # [rows, C, h/2, 2, w/2, 2]
    return x.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def unpacked(tokens: Tensor, height: int, width: int) -> Tensor:
    """What ``packed`` made of latents of this size, back."""
    x = tokens.unflatten(2, (-1, PATCH, PATCH)).unflatten(1, (height // PATCH, width // PATCH))
    return x.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)


def image_ids(rows: int, columns: int) -> Tensor:
    """Where each of rows x columns tokens lies, [rows columns, 3]: (0, row, column)."""
    ids = torch.zeros(rows, columns, 3)
    ids[..., 1] = torch.arange(rows)[:, None]
    ids[..., 2] = torch.arange(columns)[None]
    return ids.flatten(0, 1)
