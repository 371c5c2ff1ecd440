import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from customedit.concepts.checks import MAX_TOKENS
from customedit.concepts.compress import compress
from customedit.concepts.concept import Concept
from customedit.concepts.files.identify import OWN
from customedit.diffusion.adapters import Adapter, Hadamard, Kronecker, LowRank, Whole
from customedit.errors import InputError

LAYERS = {
    "down_blocks.0.attentions.0.transformer_blocks.0.attn2": (6, 8),
    "mid_block.attentions.0.transformer_blocks.0.attn2": (10, 8),
}
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def weights(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        f"{n}.{p}.weight": torch.randn(shape, generator=generator)
        for n, shape in LAYERS.items()
        for p in ("to_k", "to_v")
    }


def concept(seed: int = 0, dtype: torch.dtype = torch.float32, **facts: object) -> Concept:
    given = weights(seed)
    return Concept(
        tokens={"<plaid>": torch.randn(8, generator=torch.Generator().manual_seed(seed)).to(dtype)},
        keys={n: given[f"{n}.to_k.weight"].to(dtype) for n in LAYERS},
        values={n: given[f"{n}.to_v.weight"].to(dtype) for n in LAYERS},
        **facts,  # type: ignore[arg-type]
    )


def assert_same(one: Concept, other: Concept) -> None:
    for field in ("tokens", "keys", "values"):
        a, b = getattr(one, field), getattr(other, field)
        assert list(a) == list(b)
        for name in a:
            assert a[name].dtype == b[name].dtype
            assert torch.equal(a[name], b[name])
    for field in ("noun", "attribute", "base", "prompts", "recipe", "images"):
        assert getattr(one, field) == getattr(other, field)


def rewrite(path: Path, tensors: dict[str, torch.Tensor] | None = None, **note: str) -> None:
    """The same file with other tensors or metadata."""
    with safe_open(path, framework="pt") as file:
        old = file.metadata()
    save_file(load_file(path) if tensors is None else tensors, path, {**old, **note})


def about(path: Path) -> dict[str, Any]:
    """The JSON in a concept's file."""
    with safe_open(path, framework="pt") as file:
        return dict(json.loads(file.metadata()[OWN]))


@given(
    seed=st.integers(0, 2**31),
    dtype=st.sampled_from(DTYPES),
    name=st.from_regex(r"<[a-z0-9][a-z0-9_-]{0,62}>", fullmatch=True),
    noun=st.text(st.characters(exclude_categories=["Cs"]), max_size=9),
    prompts=st.lists(st.text("abc <>é", max_size=9), max_size=3).map(tuple),
    recipe=st.dictionaries(
        st.text("abc"), st.none() | st.integers() | st.floats(-9, 9) | st.lists(st.booleans())
    ),
    images=st.integers(0, 99),
)
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_saved_is_loaded(
    tmp_path: Path,
    seed: int,
    dtype: torch.dtype,
    name: str,
    noun: str,
    prompts: tuple[str, ...],
    recipe: dict[str, object],
    images: int,
) -> None:
    made = concept(seed, dtype, noun=noun, prompts=prompts, recipe=recipe, images=images, base="ab")
    more = {name: torch.ones(8, dtype=dtype)} | made.tokens
    made = Concept(more, made.keys, made.values, *(getattr(made, f) for f in FACTS))
    made.save(tmp_path / "c.safetensors")
    assert_same(Concept.load(tmp_path / "c.safetensors"), made)
    assert [p.name for p in tmp_path.iterdir()] == ["c.safetensors"]


FACTS = ("noun", "attribute", "base", "prompts", "recipe", "images")


def test_textual_inversion_has_no_weights(tmp_path: Path) -> None:
    made = Concept({"<a>": torch.ones(8)})
    made.save(tmp_path / "deep" / "c.safetensors")
    assert_same(Concept.load(tmp_path / "deep" / "c.safetensors"), made)


def test_views_and_transposes_are_saved_as_they_look(tmp_path: Path) -> None:
    table = torch.randn(4, 8)
    square = torch.randn(8, 6).T
    made = Concept({"<a>": table[1], "<b>": table[1]}, {"x.attn2": square}, {"x.attn2": square})
    made.save(tmp_path / "c.safetensors")
    assert_same(Concept.load(tmp_path / "c.safetensors"), made)


def test_a_failed_save_leaves_the_older_file(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    concept(1).save(path)
    bad = concept(2)
    bad.keys[next(iter(LAYERS))][0, 0] = torch.nan
    with pytest.raises(InputError, match=r"1 of 48 numbers not finite"):
        bad.save(path)
    assert_same(Concept.load(path), concept(1))
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    "token", ["plaid", "<Plaid>", "<>", "<-a>", "<a b>", "<a>\n", f"<{'a' * 64}>"]
)
def test_ill_spelt_tokens_are_refused(token: str) -> None:
    with pytest.raises(InputError, match="is not a concept token"):
        Concept({token: torch.ones(8)})


@pytest.mark.parametrize(
    ("tokens", "problem"),
    [
        ({}, "are 0; give 1 to 16"),
        ({f"<t{k}>": torch.ones(2) for k in range(MAX_TOKENS + 1)}, "are 17"),
        ({"<a>": torch.ones(2), "<b>": torch.ones(3)}, "several widths"),
        ({"<a>": torch.ones(1, 1, 2)}, "1 x 1 x 2"),
        ({"<a>": torch.ones(0, 2)}, "have no vectors"),
        ({"<a>": torch.ones(65, 2)}, "<a> has 65 vectors"),
        ({"<a>": torch.ones(2, dtype=torch.int64)}, "int64"),
    ],
)
def test_tokens_that_cannot_be(tokens: dict[str, torch.Tensor], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        Concept(tokens)


def test_layers_that_cannot_be() -> None:
    token = {"<a>": torch.ones(8)}
    square = torch.ones(4, 8)
    with pytest.raises(InputError, match="lack keys or values"):
        Concept(token, {"x.attn2": square}, {})
    with pytest.raises(InputError, match=r"keys 4 x 8 .* values 8 x 4"):
        Concept(token, {"x.attn2": square}, {"x.attn2": square.T})
    with pytest.raises(InputError, match="int64"):
        Concept(token, {"x.attn2": square.long()}, {"x.attn2": square})


@pytest.mark.parametrize("recipe", [{"a": {1, 2}}, {"a": float("nan")}])
def test_a_recipe_must_be_json(recipe: dict[str, object]) -> None:
    with pytest.raises(InputError, match="recipe: is not JSON"):
        Concept({"<a>": torch.ones(8)}, recipe=recipe)


def test_it_fits_its_own_base_and_no_other() -> None:
    made = concept()
    made.check(LAYERS, 8)
    made.check({**LAYERS, "up_blocks.0.attn2": (3, 8)}, 8)  # some layers only
    first, second = LAYERS
    with pytest.raises(
        InputError, match=r"another base: 1 of its 2 layers.* the 1 of this .*mid_block"
    ):
        made.check({first: LAYERS[first]}, 8)
    with pytest.raises(InputError, match=r"another base: its mid_block.* is 10 x 8, .* is 10 x 9"):
        made.check({**LAYERS, second: (10, 9)}, 8)
    with pytest.raises(
        InputError, match=r"another base: <plaid> has 8 numbers.* have 768 \(SD 1\.x\)"
    ):
        made.check(LAYERS, 768)
    made.tokens["<plaid>"][3] = torch.inf
    with pytest.raises(InputError, match="not finite"):
        made.check(LAYERS, 8)


# files that are not what they should be


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    concept().save(tmp_path / "c.safetensors")
    return tmp_path / "c.safetensors"


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.999])
def test_a_truncated_file_is_named(saved: Path, share: float) -> None:
    whole = saved.read_bytes()
    saved.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(
        InputError, match=r"c\.safetensors is (truncated|empty).*; download or copy"
    ):
        Concept.load(saved)


def test_missing_and_large_files(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a file"):
        Concept.load(tmp_path / "other")
    with pytest.raises(InputError, match="is not a file"):
        Concept.load(tmp_path)
    size = saved.stat().st_size
    Concept.load(saved, max_bytes=size)
    with pytest.raises(InputError, match=f"has {size} bytes, the limit is {size - 1}"):
        Concept.load(saved, max_bytes=size - 1)


def test_other_versions(saved: Path) -> None:
    rewrite(saved, None, **{OWN: json.dumps({**about(saved), "version": 4})})
    with pytest.raises(InputError, match="version 4, known are 1 to 3; update"):
        Concept.load(saved)


def test_the_first_version_is_still_read(saved: Path) -> None:
    told = {k: v for k, v in about(saved).items() if k not in ("adapters", "version")}
    note = {"format": OWN, "version": "1", "concept": json.dumps(told)}
    save_file(load_file(saved), saved, note)
    assert_same(Concept.load(saved), concept())


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"noun": 3}', "[" * 10_000])
def test_damaged_metadata(saved: Path, text: str) -> None:
    rewrite(saved, None, **{OWN: text})
    with pytest.raises(InputError, match="damaged metadata"):
        Concept.load(saved)


def test_tensors_must_be_those_told_of(saved: Path) -> None:
    tensors = load_file(saved)
    rewrite(saved, {**tensors, "extra": torch.ones(1)})
    with pytest.raises(InputError, match=r"unknown.*extra"):
        Concept.load(saved)
    tensors.pop("token.<plaid>")
    rewrite(saved, tensors)
    with pytest.raises(InputError, match=r"lacks.*<plaid>"):
        Concept.load(saved)


def test_too_many_tokens_in_a_file(saved: Path) -> None:
    told = about(saved)
    told["tokens"] = [f"<t{k}>" for k in range(999)]
    rewrite(saved, None, **{OWN: json.dumps(told)})
    with pytest.raises(InputError, match="tokens: are 999"):
        Concept.load(saved)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_poisoned_numbers_are_refused(saved: Path, bad: float) -> None:
    tensors = load_file(saved)
    tensors["token.<plaid>"][2] = bad
    rewrite(saved, tensors)
    with pytest.raises(InputError, match=r"token.<plaid> with 1 of 8 numbers not finite"):
        Concept.load(saved)


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
def test_other_dtypes_are_refused(saved: Path, dtype: torch.dtype) -> None:
    tensors = load_file(saved)
    rewrite(saved, {k: v.to(dtype) for k, v in tensors.items()})
    with pytest.raises(InputError, match="save it as floats"):
        Concept.load(saved)


def test_low_rank_needs_the_base_it_was_made_for(tmp_path: Path) -> None:
    base, path = weights(1), tmp_path / "thin.safetensors"
    made = compress(concept(), base, rank=2)
    made.save(path)
    assert_same(Concept.load(path, base), made.restore(base))
    with pytest.raises(InputError, match=r"base_weights: is missing.*thin.*Base\.weights"):
        Concept.load(path)
    with pytest.raises(InputError, match=r"has no .*another base"):
        Concept.load(path, {})
    other = {n: torch.ones(3, 8) for n in base}
    with pytest.raises(InputError, match=r"another base.* weight 3 x 8"):
        Concept.load(path, other)


def test_half_a_pair_of_factors_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "thin.safetensors"
    compress(concept(), weights(1), rank=2).save(path)
    tensors = load_file(path)
    tensors.pop(next(n for n in tensors if n.endswith(".up")))
    rewrite(path, tensors)
    with pytest.raises(InputError, match=r"lacks.*\.up"):
        Concept.load(path, weights(1))
    assert OWN == "customedit.concept"  # files in the world are told by it


# equal concepts, equal files


def test_a_concept_is_saved_to_the_same_bytes_each_time(tmp_path: Path) -> None:
    """In processes of their own as well: hash maps are seeded anew in each."""
    made = concept(recipe={"b": 1, "a": {"z": 2}}, noun="cup", prompts=("a", "b"))
    first = tmp_path / "first.safetensors"
    made.save(first)
    files = []
    for number in range(12):
        files.append(tmp_path / f"{number}.safetensors")
        Concept.load(first).save(files[-1])
    code = (
        "import sys; from pathlib import Path; from customedit.concepts.concept import Concept\n"
        "Concept.load(Path(sys.argv[1])).save(Path(sys.argv[2]))"
    )
    files.append(tmp_path / "other process.safetensors")
    subprocess.run([sys.executable, "-c", code, str(first), str(files[-1])], check=True)
    assert {f.read_bytes() for f in files} == {first.read_bytes()}


def test_the_digest_is_of_what_acts(tmp_path: Path) -> None:
    made = concept(noun="cup", base="ab")
    assert concept(noun="cup", base="ab").digest == made.digest
    told = concept(noun="cup", base="ab", recipe={"a": 1}, prompts=("x",), images=3)
    assert told.digest == made.digest  # not what is told of its training
    made.save(tmp_path / "c.safetensors")
    assert Concept.load(tmp_path / "c.safetensors").digest == made.digest
    others = [
        concept(1, noun="cup", base="ab"),
        concept(0, torch.float64, noun="cup", base="ab"),
        concept(noun="vase", base="ab"),
        concept(noun="cup", base="cd"),
        Concept({"<b>": made.tokens["<plaid>"]}, made.keys, made.values, noun="cup", base="ab"),
        Concept(made.tokens, made.keys, made.values, noun="cup", base="ab", adapters={
            "unet.x": LowRank(torch.ones(2, 1), torch.ones(1, 2))}),
        Concept(made.tokens, made.keys, made.values, noun="cup", base="ab", adapters={
            "unet.x": LowRank(torch.ones(2, 1), torch.ones(1, 2), scale=2.0)}),
    ]  # fmt: skip
    assert len({c.digest for c in (made, *others)}) == len(others) + 1


def test_a_low_rank_file_keeps_its_digest(tmp_path: Path) -> None:
    """Whatever the machine's rounding of the product of its factors."""
    path = tmp_path / "thin.safetensors"
    compress(concept(), weights(1), rank=2).save(path)
    one = Concept.load(path, weights(1))
    other = Concept.load(path, {n: w + 1e-7 for n, w in weights(1).items()})
    assert one.digest == other.digest != concept().digest


# adapters, and tokens of any number of vectors


@pytest.mark.parametrize("rows", [0, 1, 5])
def test_adapters_and_token_matrices_come_back(tmp_path: Path, rows: int) -> None:
    randn = torch.randn
    adapters = {
        "unet.a.to_q": LowRank(randn(6, 2), randn(2, 8), scale=0.5),
        "unet.a.conv": LowRank(randn(6, 2).half(), randn(2, 8, 3, 3).half()),
        "text_encoder.b": Hadamard(randn(6, 2), randn(2, 8), randn(6, 2), randn(2, 8)),
        "unet.c": Kronecker(randn(2, 2), randn(3, 4, 3, 3), scale=0.1),
        "unet.d.0": Whole(randn(3, 3)),
    }
    made = Concept({"<a>": torch.randn(rows, 8)}, adapters=adapters)
    made.save(tmp_path / "c.safetensors")
    back = Concept.load(tmp_path / "c.safetensors")
    assert back.tokens["<a>"].shape == (rows, 8) and back.digest == made.digest
    for path, adapter in adapters.items():
        assert type(back.adapters[path]) is type(adapter)
        assert back.adapters[path].scale == adapter.scale
        for name, factor in adapter.factors.items():
            assert torch.equal(back.adapters[path].factors[name], factor)


@pytest.mark.parametrize("name", ["adapter.unet.a.up", "adapter.unet.a.down"])
def test_adapters_with_factors_amiss_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "c.safetensors"
    made = LowRank(torch.ones(6, 2), torch.ones(2, 8))
    Concept({"<a>": torch.ones(8)}, adapters={"unet.a": made}).save(path)
    tensors = load_file(path)
    rewrite(path, {**tensors, name: torch.ones(3, 3)})
    with pytest.raises(InputError, match=r"damaged low-rank adapter of unet\.a"):
        Concept.load(path)
    tensors.pop(name)
    rewrite(path, tensors)
    with pytest.raises(InputError, match=r"damaged low-rank adapter of unet\.a"):
        Concept.load(path)


def test_an_adapter_is_of_a_model() -> None:
    made: dict[str, Adapter] = {"vae.x": LowRank(torch.ones(6, 2), torch.ones(2, 8))}
    with pytest.raises(InputError, match=r"vae\.x is in no model; begin it with one of unet\."):
        Concept({"<a>": torch.ones(8)}, adapters=made)
