"""Joint attention of text and image tokens (MM-DiT, arXiv 2403.03206), with control per row.

In these transformers the text moves through the blocks together with the picture, so there are no
cross maps to mix. Prompt-to-Prompt is done by giving a row the queries and keys that the *image*
tokens of its source row have, in chosen blocks and steps (arXiv 2508.07519): the layout is the
source's, and values and text stay the row's own. DirectEdit (arXiv 2605.02417) gives it the values
instead. Attention stays fused. Only rows whose maps are
read, in the blocks that are read, have them materialized: how much each image token attends to each
text token.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.embeddings import apply_rotary_emb
from torch import Tensor
from torch.nn import functional as F

from customedit.diffusion.attention_control import AttentionControl
from customedit.diffusion.controlled_rows import Taken
from customedit.diffusion.devices import to_device


@dataclass
class JointForward:
    """What the processors need to know of the forward that runs, and what they record.

    tokens: of text in each row; taken, recording [n]: on the device, None for nothing to do; maps:
    [n, image tokens, text tokens], mean over heads, summed over ``layers`` blocks.
    """

    tokens: int
    taken: Taken | None = None
    recording: Tensor | None = None
    maps: Tensor | None = None
    layers: int = 0

    @classmethod
    def of(
        cls, control: AttentionControl | None, tokens: int, device: torch.device
    ) -> JointForward:
        """A forward under ``control``, of which only what it needs goes to ``device``.

        ``self_source``, ``self_parts`` and ``record`` are followed; there are no cross maps to mix.
        """
        if control is None:
            return cls(tokens)
        moved = control.self_source != torch.arange(control.rows)
        recording = control.record.nonzero()[:, 0]
        return cls(
            tokens,
            Taken.of(control, moved, device) if moved.any() else None,
            to_device(recording, device) if len(recording) else None,
        )

    def controlled(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
        """Image queries, keys and values [rows, ...], of its source where a row takes them."""
        if self.taken is None:
            return query, key, value
        pairs = ((query, self.taken.query), (key, self.taken.key), (value, self.taken.value))
        return tuple(x if rows is None else x[rows] for x, rows in pairs)

    def record(self, query: Tensor, key: Tensor, text: slice, scale: float) -> None:
        """Add one block's maps of the recording rows.

        query: of image tokens [rows, heads, positions, dim]; key: of all tokens [rows, heads, all,
        dim]; text: where the text is among them. Scores are float32, one head after the other: the
        maps of all heads of a large picture would take more memory than all else.
        """
        assert self.recording is not None
        q, k = query[self.recording].float(), key[self.recording].float()
        heads = q.shape[1]
        for head in range(heads):
            scores = (q[:, head] * scale) @ k[:, head].mT
            part = torch.softmax(scores, -1)[..., text] / heads
            self.maps = part if self.maps is None else self.maps + part
        self.layers += 1


@dataclass
class JointState:
    """Where the processors find the forward that runs; one per transformer."""

    forward: JointForward | None = None

    @property
    def running(self) -> JointForward:
        """The forward. Raises RuntimeError outside of one."""
        if self.forward is None:
            raise RuntimeError("the base's transformer is driven through Base.predict only")
        return self.forward


@dataclass(frozen=True)
class BlockControl:
    """What may happen in one block.

    injects: whether image queries, keys and values are exchanged there; records: whether maps are
    read.
    """

    injects: bool = True
    records: bool = False


def _heads(x: Tensor, heads: int) -> Tensor:
    """[rows, tokens, width] as [rows, heads, tokens, dim]."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def _joined(x: Tensor) -> Tensor:
    """[rows, heads, tokens, dim] as [rows, tokens, width]."""
    return x.transpose(1, 2).flatten(2)


def _normed(norm: Any, x: Tensor) -> Tensor:
    return x if norm is None else norm(x)


class SD3Processor:
    """Attention of one block of an SD3Transformer2DModel: image tokens first, then text."""

    def __init__(self, state: JointState, block: BlockControl) -> None:
        self.state, self.block = state, block

    def __call__(
        self,
        attn: Any,  # diffusers' Attention, which is not typed
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **_: object,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """[rows, image tokens, width], and [rows, text tokens, width] or None; the same out."""
        forward, heads = self.state.running, attn.heads
        query = _normed(attn.norm_q, _heads(attn.to_q(hidden_states), heads))
        key = _normed(attn.norm_k, _heads(attn.to_k(hidden_states), heads))
        value = _heads(attn.to_v(hidden_states), heads)
        if self.block.injects:
            query, key, value = forward.controlled(query, key, value)
        image = query
        if encoder_hidden_states is not None:
            text = encoder_hidden_states
            text_query = _normed(attn.norm_added_q, _heads(attn.add_q_proj(text), heads))
            text_key = _normed(attn.norm_added_k, _heads(attn.add_k_proj(text), heads))
            query = torch.cat([query, text_query], 2)
            key = torch.cat([key, text_key], 2)
            value = torch.cat([value, _heads(attn.add_v_proj(text), heads)], 2)
            if self.block.records and forward.recording is not None:
                forward.record(image, key, slice(image.shape[2], None), image.shape[3] ** -0.5)
        out = _joined(F.scaled_dot_product_attention(query, key, value)).to(query.dtype)
        length = hidden_states.shape[1]
        drawn = attn.to_out[1](attn.to_out[0](out[:, :length]))
        if encoder_hidden_states is None:
            return drawn
        worded = out[:, length:]
        return drawn, worded if attn.context_pre_only else attn.to_add_out(worded)


class FluxProcessor:
    """Attention of one block of a FluxTransformer2DModel: text tokens first, then the image."""

    def __init__(self, state: JointState, block: BlockControl) -> None:
        self.state, self.block = state, block

    def __call__(
        self,
        attn: Any,  # diffusers' FluxAttention, which is not typed
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Two streams, image and text, in a joint block; both in one tensor in a single block."""
        forward = self.state.running
        heads = hidden_states.shape[-1] // attn.head_dim
        query = _normed(attn.norm_q, _heads(attn.to_q(hidden_states), heads))
        key = _normed(attn.norm_k, _heads(attn.to_k(hidden_states), heads))
        value = _heads(attn.to_v(hidden_states), heads)
        text = forward.tokens
        if encoder_hidden_states is not None:
            worded = encoder_hidden_states
            text_query = _normed(attn.norm_added_q, _heads(attn.add_q_proj(worded), heads))
            text_key = _normed(attn.norm_added_k, _heads(attn.add_k_proj(worded), heads))
            query = torch.cat([text_query, query], 2)
            key = torch.cat([text_key, key], 2)
            value = torch.cat([_heads(attn.add_v_proj(worded), heads), value], 2)
        if self.block.injects and forward.taken is not None:
            whole = (query, key, value)
            image = forward.controlled(*(x[:, :, text:] for x in whole))
            query, key, value = (
                torch.cat([x[:, :, :text], own], 2) for x, own in zip(whole, image, strict=True)
            )
        if image_rotary_emb is not None:
            query = apply_rotary_emb(query, image_rotary_emb, sequence_dim=2)
            key = apply_rotary_emb(key, image_rotary_emb, sequence_dim=2)
        if self.block.records and forward.recording is not None:
            forward.record(query[:, :, text:], key, slice(0, text), query.shape[3] ** -0.5)
        out = _joined(F.scaled_dot_product_attention(query, key, value)).to(query.dtype)
        if encoder_hidden_states is None:
            return out
        drawn = attn.to_out[1](attn.to_out[0](out[:, text:]))
        return drawn, attn.to_add_out(out[:, :text])


def install(
    transformer: Any, state: JointState, recorded: Iterable[str], kept: Iterable[str] = ()
) -> None:
    """Give ``transformer`` the processors of its kind.

    recorded: paths of the blocks whose maps are read, such as ``transformer_blocks.9``; kept: of
    those where a row always keeps its own image queries, keys and values.
    """
    kind = SD3Processor if hasattr(transformer.config, "pos_embed_max_size") else FluxProcessor
    recorded, kept = frozenset(recorded), frozenset(kept)

    def processor(name: str) -> SD3Processor | FluxProcessor:
        path = name.removesuffix(".processor").rpartition(".")[0]
        return kind(state, BlockControl(path not in kept, path in recorded))

    transformer.set_attn_processor({n: processor(n) for n in transformer.attn_processors})


def recorded_maps(forward: JointForward, grid: tuple[int, int]) -> Tensor | None:
    """The maps of a forward that ran, [recording rows, *grid, text tokens]: means over blocks."""
    if forward.maps is None:
        return None
    return (forward.maps / forward.layers).unflatten(1, grid)


def middle_blocks(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The joint blocks whose maps say best where a word is: the middle third."""
    count = int(config["num_layers"])
    first, last = count // 3, max(count // 3 + 1, (2 * count + 2) // 3)
    return tuple(f"transformer_blocks.{k}" for k in range(first, last))
