import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from customedit.editing import region
from customedit.editing.region import Blend
from customedit.errors import InputError

TOKENS = 6
grids = st.tuples(st.integers(1, 7), st.integers(1, 7))
seeds = st.integers(0, 10**6)


def some_maps(seed: int, rows: int, cells: tuple[int, int], steps: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (rows, cells[0] * cells[1], TOKENS)
    # Cubed, so that maps have peaks and masks are neither empty nor full.
    return [torch.rand(shape, generator=generator) ** 3 for _ in range(steps)]


def reference_region(
    maps: list[Tensor], row: int, columns: list[int], cells: tuple[int, int],
    size: tuple[int, int], pool: bool,
) -> NDArray[np.bool_]:  # fmt: skip
    """A row's region in plain numpy, cell by cell."""
    total = np.sum([m[row].double().numpy() for m in maps], axis=0)
    heat = total[:, columns].sum(1).reshape(cells)
    if pool:
        wide = np.pad(heat, 1, constant_values=-np.inf)
        heat = np.array(
            [[wide[y : y + 3, x : x + 3].max() for x in range(cells[1])] for y in range(cells[0])]
        )
    ys = np.arange(size[0]) * cells[0] // size[0]
    xs = np.arange(size[1]) * cells[1] // size[1]
    resized = heat[np.ix_(ys, xs)]
    return resized / resized.max() > 0.3


@given(seeds, grids, st.integers(1, 3), grids)
def test_masks_are_the_papers(
    seed: int, cells: tuple[int, int], steps: int, factor: tuple[int, int]
) -> None:
    size = (cells[0] * factor[0], cells[1] * factor[1])
    maps = some_maps(seed, 2, cells, steps)
    watched = Blend(cells)
    for each in maps:
        watched.accumulate(each)
    source = reference_region(maps, 0, [1, 3], cells, size, True)
    target = reference_region(maps, 1, [2], cells, size, True)
    away = reference_region(maps, 0, [4], cells, size, False)

    def made(columns: list[list[int]], subtract: list[list[int]]) -> NDArray[np.bool_]:
        mask = watched.mask(columns, size, subtract)
        assert mask.shape == (1, 1, *size) and mask.dtype == torch.float32
        return mask[0, 0].numpy() == 1

    assert (made([[1, 3]], []) == source).all()
    assert (made([[], [2]], []) == target).all()
    assert (made([[1, 3], [2]], []) == (source | target)).all()
    assert (made([[1, 3], [2]], [[4]]) == ((source | target) & ~away)).all()


def test_a_mask_falls_where_the_word_is_and_one_cell_around() -> None:
    watched = Blend((4, 8))
    maps = torch.zeros(1, 32, TOKENS)
    maps[0, 1 * 8 + 6, 2] = 1
    watched.accumulate(maps)
    mask = watched.mask([[2]], (8, 16))[0, 0]
    expected = torch.zeros(8, 16)
    expected[0:6, 10:16] = 1
    assert torch.equal(mask, expected)


def test_maps_that_are_zero_let_no_edit_through() -> None:
    watched = Blend((2, 2))
    watched.accumulate(torch.zeros(1, 4, TOKENS))
    assert watched.mask([[1]], (4, 4)).sum() == 0


def test_accumulating_leaves_the_given_maps_alone() -> None:
    first = torch.ones(1, 4, TOKENS, dtype=torch.float16)
    watched = Blend((2, 2))
    watched.accumulate(first)
    watched.accumulate(first)
    assert bool((first == 1).all())
    assert watched.maps is not None and bool((watched.maps == 2).all())


@pytest.mark.parametrize(("start", "first"), [(0.2, 10), (0.0, 0), (1.0, 50), (0.58, 29)])
def test_blending_starts_after_its_share_of_the_steps(start: float, first: int) -> None:
    watched = Blend((2, 2), start=start)
    assert [watched.starts(k, 50) for k in range(50)] == [k >= first for k in range(50)]


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(InputError, match="threshold"):
        Blend((2, 2), threshold=1.0)
    with pytest.raises(InputError, match="start"):
        Blend((2, 2), start=-0.1)
    watched = Blend((2, 2))
    with pytest.raises(ValueError, match="no maps"):
        watched.mask([[1]], (2, 2))
    with pytest.raises(ValueError, match="maps of 4 cells"):
        watched.accumulate(torch.zeros(1, 5, TOKENS))
    watched.accumulate(torch.ones(1, 4, TOKENS))
    with pytest.raises(ValueError, match="maps were"):
        watched.accumulate(torch.zeros(2, 4, TOKENS))
    with pytest.raises(InputError, match="name no word"):
        watched.mask([[], []], (2, 2))
    with pytest.raises(InputError, match="name column 6"):
        watched.mask([[6]], (2, 2))
    with pytest.raises(ValueError, match="columns for 2 rows"):
        watched.mask([[1], [1]], (2, 2))


def test_a_latent_cell_may_change_where_a_users_mask_touches_it() -> None:
    mask = torch.zeros(8, 16)
    mask[:, 8:] = 1
    mask[0, 0] = 0.75
    out = region.latent_mask(mask, (2, 4))
    assert out.shape == (1, 1, 2, 4)
    assert torch.allclose(out[0, 0], torch.tensor([[0.75, 0, 1, 1], [0, 0, 1, 1]]))


@pytest.mark.parametrize(
    "mask",
    [torch.ones(1, 4, 4), torch.ones(0, 4), torch.ones(4, 4) * 255, torch.full((2, 2), torch.nan)],
)
def test_a_users_mask_must_be_one(mask: Tensor) -> None:
    with pytest.raises(InputError, match="mask"):
        region.latent_mask(mask, (2, 2))


@given(seeds)
def test_blending_takes_source_and_target_by_the_mask(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    source, target = (torch.randn(1, 4, 5, 7, generator=generator) for _ in range(2))
    mask = (torch.rand(1, 1, 5, 7, generator=generator) > 0.5).float()
    out = region.blend(source, target, mask)
    inside = mask.expand_as(out) == 1
    assert torch.equal(out[~inside], source[~inside])
    assert torch.equal(out[inside], target[inside])
    half = region.blend(source, target, mask * 0.5)
    assert torch.allclose(half[inside], ((source + target) / 2)[inside], atol=1e-6)
