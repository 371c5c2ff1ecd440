"""Stable Diffusion 3 and 3.5 (arXiv 2403.03206): two CLIPs and, where it is there, T5."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

import torch
from torch import Tensor
from torch.nn import functional as F

from customedit.diffusion.families.clip import check_clip
from customedit.diffusion.families.joint import (
    PATCH,
    JointFamily,
    JointTokens,
    check_t5,
    check_widths,
    t5_length,
)
from customedit.diffusion.families.known import STABLE_DIFFUSION_3
from customedit.diffusion.families.layout import Layout
from customedit.diffusion.families.original_names import Stacked, sd3_names
from customedit.diffusion.flow_schedule import FlowSchedule
from customedit.diffusion.text import Encoded, PromptRow, TextContext, tokenize
from customedit.errors import InputError

T5_LENGTH: Final = 256
"""Columns of T5's part, as diffusers' pipeline has them."""


class StableDiffusion3(JointFamily):
    """A transformer that reads both CLIPs' states side by side, and then T5's."""

    layout: ClassVar[Layout] = STABLE_DIFFUSION_3

    @classmethod
    def assemble(cls, parts: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
        """Diffusers' pipeline, with None for T5 where the base is without it."""
        return super().assemble({"text_encoder_3": None, "tokenizer_3": None, **parts}, options)

    @property
    def has_t5(self) -> bool:
        """Whether the base has T5; without it, its columns are zeros."""
        return len(self.encoders) == 3

    def check(self, name: str) -> None:
        """Raise InputError unless tokenizers, text encoders and transformer go together."""
        config = self.denoiser.config
        if config.patch_size != PATCH:
            raise InputError(
                "base", f"{name} has a transformer with patch_size {config.patch_size}",
                f"use one with {PATCH}",
            )  # fmt: skip
        one, two = (encoder.model.config for encoder in self.encoders[:2])
        pooled = one.projection_dim + two.projection_dim
        check_widths(name, ("pooled texts", pooled, config.pooled_projection_dim))
        if one.hidden_size + two.hidden_size > config.joint_attention_dim:
            raise InputError(
                "base",
                f"{name} has text encoders with states of width {one.hidden_size} and "
                f"{two.hidden_size}, its transformer reads {config.joint_attention_dim}",
                "use the text encoders that the base was trained with",
            )
        for encoder in self.encoders[:2]:
            check_clip(encoder.model, encoder.tokenizer, name)
        for encoder in self.encoders[2:]:
            width = encoder.model.config.d_model
            check_widths(name, ("T5's states", width, config.joint_attention_dim))
            check_t5(encoder.model, encoder.tokenizer, name)

    @property
    def tokenizers(self) -> Sequence[tuple[Any, int]]:
        """T5's alone where it is there: CLIP reads the beginning of a longer prompt."""
        if not self.has_t5:
            return super().tokenizers
        t5 = self.encoders[2]
        return [(t5.tokenizer, t5_length(t5, T5_LENGTH))]

    def tokenize(self, prompt: str, known: Any, field: str) -> JointTokens:
        """``prompt`` for the two CLIPs, which share their columns, and T5.

        With T5 there, CLIP reads the beginning of a prompt that is too long for it, as diffusers'
        pipeline has it. Raises InputError for one that is too long for the last encoder.
        """
        clip = int(self.encoders[0].tokenizer.model_max_length)
        parts = [
            tokenize(e.tokenizer, prompt, known, field, length=clip, cut=self.has_t5)
            for e in self.encoders[:2]
        ]
        for encoder in self.encoders[2:]:
            length = t5_length(encoder, T5_LENGTH)
            parts.append(tokenize(encoder.tokenizer, prompt, known, field, length=length))
        return JointTokens.of(parts, (0, None, clip)[: len(parts)])

    def encode(self, rows: Sequence[PromptRow]) -> list[Encoded]:
        """CLIPs' states before the last layer, padded to T5's width, then T5's; CLIPs' pooled."""
        one, two, *t5 = self.runs(rows)
        clip = torch.cat([one.hidden_states[-2], two.hidden_states[-2]], -1)
        width = self.denoiser.config.joint_attention_dim
        missing = clip.new_zeros(len(rows), T5_LENGTH, width)
        last = t5[0].last_hidden_state.to(clip.dtype) if t5 else missing
        states = torch.cat([F.pad(clip, (0, width - clip.shape[-1])), last], 1)
        pooled = torch.cat([one.text_embeds, two.text_embeds], -1)
        return [Encoded(*both) for both in zip(states, pooled, strict=True)]

    def original_names(self) -> dict[str, Stacked]:
        """The names of the code that the base was published with."""
        return sd3_names(self.denoiser.config)

    def check_cells(self, height: int, width: int) -> None:
        """Raise InputError for a side of more tokens than there are positions."""
        most = int(self.denoiser.config.pos_embed_max_size)
        if max(height, width) > PATCH * most:
            raise InputError(
                "picture",
                f"is so narrow that its longer side would be {max(height, width) // PATCH} tokens; "
                f"this base has positions for {most}",
                "crop it to a less narrow one",
            )

    def schedule(self) -> FlowSchedule:
        """The schedule as StableDiffusion3Pipeline sets it."""
        return FlowSchedule.from_config(dict(self.pipeline.scheduler.config), "to-smallest", PATCH)

    def velocity(
        self, latents: Tensor, times: Tensor, states: Tensor, pooled: Tensor,
        context: Sequence[TextContext],
    ) -> Tensor:  # fmt: skip
        """The transformer's output [rows, C, h, w]."""
        return self.denoiser(
            hidden_states=latents,
            timestep=times,
            encoder_hidden_states=states,
            pooled_projections=pooled,
        ).sample
