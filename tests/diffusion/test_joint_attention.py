"""Joint attention with control per row, against stock transformers and their own projections."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from customedit.diffusion.attention_control import AttentionControl
from customedit.diffusion.joint_attention import (
    JointForward,
    JointState,
    install,
    middle_blocks,
    recorded_maps,
)

from . import flow_folders as folders

TEXT = 7
GRID = (4, 6)
IMAGE = GRID[0] * GRID[1]

Run = Callable[[Any], Tensor]


def sd3_run(rows: int) -> Run:
    g = torch.Generator().manual_seed(3)
    given = {
        "hidden_states": torch.randn(rows, 4, 2 * GRID[0], 2 * GRID[1], generator=g),
        "encoder_hidden_states": torch.randn(rows, TEXT, 48, generator=g),
        "pooled_projections": torch.randn(rows, 40, generator=g),
        "timestep": torch.tensor([700.0, 700.0, 31.5][:rows]),
    }
    return lambda model: model(**given).sample


def flux_run(rows: int) -> Run:
    g = torch.Generator().manual_seed(4)
    ids = torch.zeros(*GRID, 3)
    ids[..., 1] += torch.arange(GRID[0])[:, None]
    ids[..., 2] += torch.arange(GRID[1])[None]
    given = {
        "hidden_states": torch.randn(rows, IMAGE, 16, generator=g),
        "encoder_hidden_states": torch.randn(rows, TEXT, 24, generator=g),
        "pooled_projections": torch.randn(rows, 16, generator=g),
        "timestep": torch.tensor([0.7, 0.7, 0.0315][:rows]),
        "guidance": torch.tensor([1.0, 3.5, 3.5][:rows]),
        "img_ids": ids.flatten(0, 1),
        "txt_ids": torch.zeros(TEXT, 3),
    }
    return lambda model: model(**given).sample


KINDS: dict[str, tuple[Callable[[], Any], Callable[[int], Run]]] = {
    "sd3": (lambda: folders.sd3().transformer, sd3_run),
    "flux": (lambda: folders.flux().transformer, flux_run),
}


def untouched(rows: int) -> AttentionControl:
    """Control that changes nothing; there are no cross maps."""
    return AttentionControl.none(rows, 0)


@contextmanager
def controlled(
    model: Any, control: AttentionControl | None, recorded: tuple[str, ...] = ()
) -> Iterator[JointForward]:
    state = JointState()
    install(model, state, recorded)
    state.forward = JointForward.of(control, TEXT, torch.device("cpu"))
    with torch.no_grad():
        yield state.forward


@pytest.mark.parametrize("kind", KINDS)
def test_without_control_the_transformer_is_stock(kind: str) -> None:
    make, inputs = KINDS[kind]
    model, run = make(), inputs(3)
    with torch.no_grad():
        stock = run(model)
    for control in (None, untouched(3)):
        with controlled(model, control):
            torch.testing.assert_close(run(model), stock, atol=1e-5, rtol=0)
    assert stock.std() > 0.05


@contextmanager
def exchanged(model: Any, target: int, source: int) -> Iterator[None]:
    """In a stock transformer, row ``target`` takes the image queries and keys of ``source``.

    By hooks on the projections of the image, before norms and positions, which are row by row.
    """

    def hook(module: nn.Module, args: object, output: Tensor) -> Tensor:
        image = slice(output.shape[1] - IMAGE, None)  # all of it, but in FLUX's single blocks
        output = output.clone()
        output[target, image] = output[source, image]
        return output

    layers = [m for n, m in model.named_modules() if n.endswith((".to_q", ".to_k"))]
    handles = [m.register_forward_hook(hook) for m in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_takes_its_sources_image_queries_and_keys(kind: str) -> None:
    make, inputs = KINDS[kind]
    model, run = make(), inputs(3)
    with torch.no_grad():
        plain = run(model)
        with exchanged(model, 1, 0):
            wanted = run(model)
    control = untouched(3)
    control.self_source[1] = 0
    with controlled(model, control):
        found = run(model)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
    assert torch.equal(found[[0, 2]], plain[[0, 2]]) or (found - plain)[[0, 2]].abs().max() < 1e-5
    assert (found - plain)[1].abs().max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_requests_that_are_joined_keep_to_their_rows(kind: str) -> None:
    make, inputs = KINDS[kind]
    model, run = make(), inputs(3)
    second = untouched(2)
    second.self_source[1] = 0  # of its own request: row 1 of three
    control = AttentionControl.join([untouched(1), second])
    assert control.self_source.tolist() == [0, 1, 1]
    with torch.no_grad(), exchanged(model, 2, 1):
        wanted = run(model)
    with controlled(model, control):
        torch.testing.assert_close(run(model), wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_maps_are_the_softmax_over_all_tokens_at_the_texts_columns(kind: str) -> None:
    make, inputs = KINDS[kind]
    model, run = make(), inputs(3)
    blocks = ("transformer_blocks.0", "transformer_blocks.1")
    taken: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: object, output: Tensor) -> None:
            taken[name] = output

        return hook

    parts = ("to_q", "to_k", "add_k_proj")
    for block in blocks:
        attn = model.get_submodule(f"{block}.attn")
        for part in parts:
            getattr(attn, part).register_forward_hook(keep(f"{block}.{part}"))
    control = untouched(3)
    control.record[0] = control.record[2] = True
    with controlled(model, control, blocks) as forward:
        run(model)
    maps = recorded_maps(forward, GRID)
    assert maps is not None and maps.shape == (2, *GRID, TEXT)
    wanted = torch.zeros(2, IMAGE, TEXT)
    for block in blocks:
        attn = model.get_submodule(f"{block}.attn")
        norms = (attn.norm_q, attn.norm_k, attn.norm_added_k)
        q, k, t = (
            norm(taken[f"{block}.{part}"].unflatten(-1, (attn.heads, -1)))
            for part, norm in zip(parts, norms, strict=True)
        )
        if kind == "flux":  # text tokens are at the origin, where nothing is turned
            from diffusers.models.embeddings import apply_rotary_emb

            ids = torch.zeros(*GRID, 3)
            ids[..., 1] += torch.arange(GRID[0])[:, None]
            ids[..., 2] += torch.arange(GRID[1])[None]
            rope = model.pos_embed(ids.flatten(0, 1))
            q, k = (apply_rotary_emb(x, rope, sequence_dim=1) for x in (q, k))
        scores = torch.einsum("rihd,rjhd->rhij", q, torch.cat([t, k], 1)) / q.shape[-1] ** 0.5
        wanted += scores.softmax(-1)[[0, 2], :, :, :TEXT].mean(1) / len(blocks)
    torch.testing.assert_close(maps.flatten(1, 2), wanted, atol=1e-6, rtol=1e-4)


def test_a_transformer_is_driven_by_the_base_alone() -> None:
    model = folders.flux().transformer
    install(model, JointState(), ())
    with pytest.raises(RuntimeError, match=r"Base\.predict"):
        flux_run(1)(model)


@pytest.mark.parametrize(("count", "first", "last"), [(1, 0, 0), (2, 0, 1), (3, 1, 1), (19, 6, 12)])
def test_the_middle_blocks(count: int, first: int, last: int) -> None:
    wanted = [f"transformer_blocks.{k}" for k in range(first, last + 1)]
    assert list(middle_blocks({"num_layers": count})) == wanted
