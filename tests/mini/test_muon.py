import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from customedit.mini import muon


def with_singular_values(
    rows: int, columns: int, seed: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A matrix U S V^T with S in [0.2, 1], and its U and V."""
    generator = torch.Generator().manual_seed(seed)
    rank = min(rows, columns)
    u, _ = torch.linalg.qr(torch.randn(rows, rank, generator=generator))
    v, _ = torch.linalg.qr(torch.randn(columns, rank, generator=generator))
    s = 0.2 + 0.8 * torch.rand(rank, generator=generator)
    return u * s @ v.T, u, v


@given(st.integers(1, 32), st.integers(1, 32), st.integers(0, 2**31))
def test_orthogonalise_keeps_the_singular_vectors_and_evens_the_values(
    rows: int, columns: int, seed: int
) -> None:
    g, u, v = with_singular_values(rows, columns, seed)
    x = muon.orthogonalise(g)
    assert x.shape == g.shape and x.dtype == g.dtype
    inner = u.T @ x @ v
    assert torch.all((inner.diag() > 0.6) & (inner.diag() < 1.3))
    assert torch.all((inner - inner.diag().diag()).abs() < 0.1)  # bfloat16 inside
    values = torch.linalg.svdvals(x)
    assert torch.all((values > 0.6) & (values < 1.3))


@given(st.integers(-10, 10))
def test_orthogonalise_does_not_see_the_scale(power: int) -> None:
    g, _, _ = with_singular_values(12, 7, 0)
    scaled = g * 2.0**power  # powers of two, so that bfloat16 rounds both alike
    torch.testing.assert_close(muon.orthogonalise(scaled), muon.orthogonalise(g), atol=0.02, rtol=0)


def test_zero_stays_zero() -> None:
    assert not muon.orthogonalise(torch.zeros(4, 6)).any()


def test_vectors_are_updated_as_by_adamw() -> None:
    torch.manual_seed(0)
    ours = nn.Parameter(torch.randn(7))
    theirs = nn.Parameter(ours.detach().clone())
    mine = muon.Muon([], [ours], 0.1, adam_share=0.5, weight_decay=0.01)
    reference = torch.optim.AdamW([theirs], 0.05, betas=(0.9, 0.99), weight_decay=0.01)
    for _ in range(5):
        for parameter, optimizer in ((ours, mine), (theirs, reference)):
            optimizer.zero_grad()
            (parameter**3).sum().backward()
            optimizer.step()
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (4, 3, 3, 3)])
def test_matrices_move_by_the_rate(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    parameter = nn.Parameter(torch.randn(shape))
    before = parameter.detach().clone()
    optimizer = muon.Muon([parameter], [], 0.1)
    (parameter**2).sum().backward()
    optimizer.step()
    moved = (before - parameter.detach()).reshape(shape[0], -1)
    tallness = max(1.0, moved.shape[0] / moved.shape[1]) ** 0.5
    largest = torch.linalg.svdvals(moved)[0].item()
    assert 0.06 * tallness < largest < 0.13 * tallness
    assert torch.sum(moved * before.reshape(shape[0], -1)) > 0  # downhill


def test_what_has_no_gradient_stays() -> None:
    parameter = nn.Parameter(torch.ones(3, 3))
    muon.Muon([parameter], [], 0.1).step()
    assert torch.equal(parameter, torch.ones(3, 3))


def test_split_sends_matrices_to_muon_unless_excluded() -> None:
    model = nn.ModuleDict(
        {"embedding": nn.Embedding(5, 4), "conv": nn.Conv2d(3, 4, 3), "norm": nn.LayerNorm(4)}
    )
    model["frozen"] = nn.Linear(2, 2).requires_grad_(False)
    matrices, others = muon.split(model, exclude=("embedding",))
    assert [id(p) for p in matrices] == [id(model["conv"].weight)]
    assert len(others) == 4
