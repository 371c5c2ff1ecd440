from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from customedit.concepts.compress import compress, rank_of_share
from customedit.concepts.concept import Concept
from customedit.errors import InputError

LAYER = "mid_block.attentions.0.transformer_blocks.0.attn2"
OTHER = "up_blocks.0.attentions.0.transformer_blocks.0.attn2"


def pair(
    seed: int, rank: int, dtype: torch.dtype = torch.float32
) -> tuple[Concept, dict[str, torch.Tensor]]:
    """A concept that changes a random base by matrices of ``rank``."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    base: dict[str, torch.Tensor] = {}
    own: dict[str, torch.Tensor] = {}
    for layer, inner in ((LAYER, 12), (OTHER, 7)):
        for part in ("to_k", "to_v"):
            name = f"{layer}.{part}.weight"
            base[name] = random(inner, 9)
            own[name] = base[name] + random(inner, rank) @ random(rank, 9)
    keys = {n: own[f"{n}.to_k.weight"] for n in (LAYER, OTHER)}
    values = {n: own[f"{n}.to_v.weight"] for n in (LAYER, OTHER)}
    return Concept({"<a>": random(9)}, keys, values, noun="cat", images=3), base


@given(st.integers(0, 2**31), st.integers(0, 5))
def test_a_change_of_low_rank_comes_back_whole(seed: int, rank: int) -> None:
    made, base = pair(seed, rank, torch.float64)
    for thin in (compress(made, base, rank=rank or 1), compress(made, base, keep=1.0)):
        back = thin.restore(base)
        for name, weight in made.weights.items():
            torch.testing.assert_close(back.weights[name], weight, rtol=1e-6, atol=1e-6)
        assert thin.error < 1e-5
        assert (back.noun, back.images) == ("cat", 3)
        assert torch.equal(back.tokens["<a>"], made.tokens["<a>"])


@given(
    st.integers(0, 2**31),
    st.floats(0.05, 1.0),
    st.sampled_from([torch.float16, torch.float32, torch.float64]),
)
def test_the_stated_error_is_the_true_one(seed: int, keep: float, dtype: torch.dtype) -> None:
    made, base = pair(seed, 5, dtype)
    thin = compress(made, base, keep=keep)
    lost = total = 0.0
    for name, weight in made.weights.items():
        factors = thin.factors[name.removesuffix(".weight")]
        change = weight.double() - base[name].double()
        rest = change - factors.up.double() @ factors.down.double()
        relative = float(rest.norm() / change.norm())
        assert factors.error == pytest.approx(relative, rel=1e-3, abs=1e-5)
        assert thin.errors[name.removesuffix(".weight")] == factors.error
        assert factors.up.dtype == factors.down.dtype == dtype
        lost, total = lost + float(rest.norm()) ** 2, total + float(change.norm()) ** 2
    assert thin.error == pytest.approx((lost / total) ** 0.5, rel=1e-3, abs=1e-5)
    assert all(w.dtype == dtype for w in thin.restore(base).weights.values())


@given(st.integers(0, 2**31), st.integers(1, 9))
def test_the_cut_is_the_best_of_its_rank(seed: int, rank: int) -> None:
    """Eckart and Young: the error is the root of the squares that were cut off."""
    made, base = pair(seed, 9, torch.float64)
    thin = compress(made, base, rank=rank)
    for name, weight in made.weights.items():
        s = torch.linalg.svdvals(weight - base[name])
        factors = thin.factors[name.removesuffix(".weight")]
        assert factors.rank == min(rank, len(s))
        best = float(s[factors.rank :].norm() / s.norm())
        assert factors.error == pytest.approx(best, rel=1e-6, abs=1e-9)


@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=12), st.floats(0.01, 1))
def test_the_cut_is_where_the_share_passes(values: list[float], keep: float) -> None:
    s = torch.tensor(sorted(values, reverse=True), dtype=torch.float64)
    r = rank_of_share(s, keep)
    assert 1 <= r <= len(s)
    assert s[:r].sum() >= keep * s.sum() * (1 - 1e-12)
    assert s[: r - 1].sum() < keep * s.sum()


def test_known_cuts() -> None:
    s = torch.tensor([5.0, 3.0, 1.0, 1.0])
    assert [rank_of_share(s, k) for k in (0.1, 0.5, 0.6, 0.8, 0.81, 1.0)] == [1, 1, 2, 2, 3, 4]
    assert rank_of_share(torch.zeros(4), 0.6) == 0


def test_nothing_changed_takes_nothing(tmp_path: Path) -> None:
    made, base = pair(0, 0)
    thin = compress(made, base)
    assert thin.error == 0 and {f.rank for f in thin.factors.values()} == {0}
    thin.save(tmp_path / "thin.safetensors")
    back = Concept.load(tmp_path / "thin.safetensors", base)
    assert all(torch.equal(w, base[n]) for n, w in back.weights.items())


def test_textual_inversion_has_nothing_to_compress() -> None:
    made = Concept({"<a>": torch.ones(9)})
    thin = compress(made, {})
    assert thin.error == 0 and thin.restore({}).keys == {}


def test_it_is_smaller_on_disk(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    base = {f"{LAYER}.{p}.weight": torch.zeros(96, 256) for p in ("to_k", "to_v")}
    own = torch.randn(96, 3, generator=generator) @ torch.randn(3, 256, generator=generator)
    made = Concept({"<a>": torch.ones(256)}, {LAYER: own}, {LAYER: own})
    made.save(tmp_path / "whole")
    compress(made, base, rank=3).save(tmp_path / "three")
    sizes = {n: (tmp_path / n).stat().st_size for n in ("whole", "three")}
    assert sizes["three"] * 10 < sizes["whole"]


@pytest.mark.parametrize("keep", [0.0, -1.0, 1.01, float("nan")])
def test_shares_out_of_range(keep: float) -> None:
    made, base = pair(0, 1)
    with pytest.raises(InputError, match="keep: is"):
        compress(made, base, keep=keep)


def test_what_cannot_be_compressed() -> None:
    made, base = pair(0, 1)
    with pytest.raises(InputError, match="rank: is 0; give 1 or more"):
        compress(made, base, rank=0)
    with pytest.raises(InputError, match=r"base_weights: has no .*another base"):
        compress(made, {})
    with pytest.raises(InputError, match=r"\(12, 8\), the concept's is \(12, 9\)"):
        compress(made, {n: w[:, :8] for n, w in base.items()})
    made.keys[LAYER][0, 0] = torch.inf
    with pytest.raises(InputError, match="not finite"):
        compress(made, base)
