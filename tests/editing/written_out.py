"""The editors of other papers the plain, slow way: every map and every equation written out.

Written from the papers to compare the real ones with; nothing of those is shared. Rows are [source,
unconditional, target]; the stock UNet is driven with processors that write attention out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

Rule = Callable[[int, Tensor, Tensor, Tensor, float], Tensor]
"""(depth, queries, keys, values [rows, heads, positions, d], scale) to the attention's output."""


def attention(
    q: Tensor, k: Tensor, v: Tensor, scale: float, allowed: Tensor | None = None
) -> Tensor:
    scores = q @ k.transpose(-1, -2) * scale
    if allowed is not None:
        scores = scores.masked_fill(~allowed, float("-inf"))
    return scores.softmax(-1) @ v


def plain(depth: int, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    return attention(q, k, v, scale)


class Written:
    def __init__(self, depth: int | None, rule: Rule) -> None:
        self.depth, self.rule = depth, rule

    def __call__(
        self, attn: Any, hidden: Tensor, encoder_hidden_states: Tensor | None = None, **_: Any
    ) -> Tensor:
        context = hidden if encoder_hidden_states is None else encoder_hidden_states

        def heads(x: Tensor) -> Tensor:
            return x.unflatten(2, (attn.heads, -1)).transpose(1, 2)

        q, k, v = heads(attn.to_q(hidden)), heads(attn.to_k(context)), heads(attn.to_v(context))
        rule = plain if self.depth is None else self.rule
        out = rule(self.depth or 0, q, k, v, attn.scale)
        return attn.to_out[0](out.transpose(1, 2).flatten(2))


def depths(unet: Any, call: Callable[[], object]) -> list[str]:
    """The names of the self-attention layers in the order in which they run."""
    order: list[str] = []
    hooks = [
        module.register_forward_hook(lambda *_, name=name: order.append(f"{name}.processor"))
        for name, module in unet.named_modules()
        if name.endswith("attn1")
    ]
    call()
    for hook in hooks:
        hook.remove()
    return order


@contextmanager
def writing_out(unet: Any, order: list[str], rule: Rule) -> Iterator[None]:
    ours = dict(unet.attn_processors)
    unet.set_attn_processor(
        {name: Written(order.index(name) if name in order else None, rule) for name in ours}
    )
    try:
        yield
    finally:
        unet.set_attn_processor(ours)


def taking(parts: str, rows: list[int], since: int) -> Rule:
    """``rows`` take ``parts`` (of "qkv") of row 0, from the layer of depth ``since`` on."""

    def rule(depth: int, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        q, k, v = q.clone(), k.clone(), v.clone()
        if depth >= since:
            for row in rows:
                for name, x in (("q", q), ("k", k), ("v", v)):
                    if name in parts:
                        x[row] = x[0]
        return attention(q, k, v, scale)

    return rule


def mutual_within(mask: Tensor, since: int) -> Rule:
    """MasaCtrl's eq. for masks: f = f_o M + f_b (1 - M), each by the source's own part."""

    def rule(depth: int, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        own = attention(q, k, v, scale)
        if depth < since:
            return own
        positions = q.shape[2]
        side = int(positions**0.5)
        there = torch.nn.functional.adaptive_avg_pool2d(mask[None], side)[0].flatten() >= 0.5
        inside = attention(q, k[:1], v[:1], scale, there[None, None, None])
        outside = attention(q, k[:1], v[:1], scale, ~there[None, None, None])
        mixed = torch.where(there[:, None], inside, outside)
        return torch.cat([own[:1], mixed[1:]])

    return rule


@contextmanager
def features_of_row_0(resnet: Any) -> Iterator[None]:
    """All rows add to their own input what the block adds to that of row 0."""

    def hook(module: Any, args: Any, output: Tensor) -> Tensor:
        skipped = args[0] if module.conv_shortcut is None else module.conv_shortcut(args[0])
        return skipped + (output - skipped)[:1]

    handle = resnet.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
