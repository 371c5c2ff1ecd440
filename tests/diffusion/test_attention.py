"""The processor against maps written out in full; self-replacement; what is recorded."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from customedit.diffusion.attention_control import AttentionControl, LastJoin
from customedit.diffusion.base import Base
from customedit.diffusion.controlled_rows import SelfSources


class Plain:
    """The paper's way: every map explicit, then changed by ``edit(maps, cross)``."""

    def __init__(self, edit: Any) -> None:
        self.edit = edit

    def __call__(
        self, attn: Any, hidden: Tensor, context: Tensor | None = None, **kw: Any
    ) -> Tensor:
        context = kw.get("encoder_hidden_states", context)
        cross = context is not None
        context = hidden if context is None else context

        def heads(x: Tensor) -> Tensor:
            return x.unflatten(2, (attn.heads, -1)).transpose(1, 2)

        q, k, v = heads(attn.to_q(hidden)), heads(attn.to_k(context)), heads(attn.to_v(context))
        maps = torch.softmax(q @ k.transpose(-1, -2) * attn.scale, -1)
        out = self.edit(maps, cross) @ v
        return attn.to_out[0](out.transpose(1, 2).flatten(2))


@torch.no_grad()
def _reference(base: Base, latents: Tensor, time: int, states: Tensor, edit: Any) -> Tensor:
    ours = dict(base.denoiser.attn_processors)
    base.denoiser.set_attn_processor(Plain(edit))
    try:
        return base.denoiser(latents, time, states).sample
    finally:
        base.denoiser.set_attn_processor(ours)


@torch.no_grad()
def test_mixed_maps_are_those_of_the_plain_way(base: Base, latents: Tensor) -> None:
    texts = [base.text(p) for p in ("a photo of a cup", "a photo of a red cup", "a ball")]
    generator = torch.Generator().manual_seed(5)
    n = base.length
    control = AttentionControl.none(3, n)
    control.self_source[1] = 0
    control.cross_source[1] = 0
    control.mapper[1] = torch.rand((n, n), generator=generator)
    control.from_source[1] = torch.rand(n, generator=generator)
    control.from_own[1] = torch.rand(n, generator=generator)
    control.record[1] = True

    seen: list[Tensor] = []

    def edit(maps: Tensor, cross: bool) -> Tensor:
        out = maps.clone()
        if cross:
            source = maps[0] @ control.mapper[1]
            out[1] = source * control.from_source[1] + maps[1] * control.from_own[1]
            if maps.shape[2] == 256:
                seen.append(out[1].mean(0))
        else:
            out[1] = maps[0]
        return out

    wanted = _reference(base, latents, 501, torch.stack([t.states for t in texts]), edit)
    got, maps = base.output(latents, 501, texts, control)
    assert (got - wanted).abs().max() <= 1e-5
    assert maps is not None and maps.shape == (1, 16, 16, n)
    assert torch.allclose(maps[0].flatten(0, 1), torch.stack(seen).mean(0), atol=1e-6)
    plain, none = base.output(latents, 501, texts)
    assert none is None
    assert (plain[1] - got[1]).abs().max() > 1e-3
    assert (plain[[0, 2]] - got[[0, 2]]).abs().max() <= 1e-5  # neighbours see nothing of it


@torch.no_grad()
def test_recording_changes_nothing(base: Base, latents: Tensor) -> None:
    texts = [base.text(p) for p in ("a photo of a cup", "a photo of a red cup", "a ball")]
    control = AttentionControl.none(3, base.length)
    control = dataclasses.replace(control, record=torch.tensor([True, False, True]))
    got, maps = base.output(latents, 501, texts, control)
    plain, _ = base.output(latents, 501, texts)
    assert (got - plain).abs().max() <= 1e-5
    assert maps is not None and maps.shape[0] == 2
    assert torch.allclose(maps.sum(-1), torch.ones(2, 16, 16), atol=1e-4)


def test_joined_controls_point_at_their_own_rows() -> None:
    a, b = AttentionControl.none(2, 4), AttentionControl.none(3, 4)
    b.self_source[2] = 0
    b.cross_source[1] = 0
    joined = AttentionControl.join([a, b])
    assert joined.self_source.tolist() == [0, 1, 2, 3, 2]
    assert joined.cross_source.tolist() == [0, 1, 2, 2, 4]
    assert joined.rows == 5


def test_joined_again_only_if_a_control_changed() -> None:
    a, b = AttentionControl.none(2, 4), AttentionControl.none(3, 4)
    join = LastJoin()
    first = join([a, None, b], [2, 1, 3], 4)
    assert first is not None and first.rows == 6
    assert join([a, None, b], [2, 1, 3], 4) is first
    assert join([a, None, b], [2, 2, 3], 4) is not first
    assert join([b, None, a], [3, 1, 2], 4) is not first
    assert join([None], [3], 4) is None
    assert join([a], [2], 4) is a


@torch.no_grad()
def test_a_changed_control_acts_at_once(base: Base, latents: Tensor) -> None:
    texts = [base.text(p) for p in ("a photo of a cup", "a photo of a red cup", "a ball")]
    first, second = (AttentionControl.none(3, base.length) for _ in range(2))
    first.from_own[1] = 0.5
    second.from_own[1] = 2.0
    found = [base.output(latents, 501, texts, c)[0] for c in (first, second, first, None, first)]
    assert torch.equal(found[0], found[2]) and torch.equal(found[0], found[4])
    assert (found[0] - found[1]).abs().max() > 1e-3
    assert (found[0] - found[3]).abs().max() > 1e-3


def test_self_maps_are_taken_up_to_the_papers_size_or_everywhere() -> None:
    """Prompt-to-Prompt replaces those of 32 x 32 positions at most, which other methods do not."""
    control = AttentionControl.none(4, 3)
    control.self_source[1:] = 0
    control.self_large[2:] = True
    control.self_from[3] = 2
    sources = SelfSources(control, (33, 32), torch.device("cpu"))
    assert sources.active(0, 32 * 32).tolist() == [False, True, True, False]
    assert sources.active(0, 32 * 32 + 1).tolist() == [False, False, True, False]
    assert sources.active(2, 32 * 32).tolist() == [False, True, True, True]
    assert sources.active(2, 33 * 32).tolist() == [False, False, True, True]
