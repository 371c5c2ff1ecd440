import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from customedit import mini
from customedit.concepts.compress import compress
from customedit.concepts.concept import Concept
from customedit.concepts.files import Description, adobe, load_concept
from customedit.concepts.files.adobe import save_adobe, save_adobe_compressed
from customedit.concepts.files.diffusers import DIFFUSERS_WEIGHTS, Suffix, save_diffusers
from customedit.concepts.files.entries import read_state_dict
from customedit.errors import InputError

LAYERS = {
    "down_blocks.0.attentions.0.transformer_blocks.0.attn2": (6, 8),
    "mid_block.attentions.0.transformer_blocks.0.attn2": (10, 8),
}
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
WEIGHTS = DIFFUSERS_WEIGHTS
SUFFIXES: list[Suffix] = [".safetensors", ".bin"]


def weights(seed: int, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        f"{n}.{p}.weight": torch.randn(shape, generator=generator).to(dtype)
        for n, shape in LAYERS.items()
        for p in ("to_k", "to_v")
    }


def concept(
    seed: int = 0, dtype: torch.dtype = torch.float32, names: tuple[str, ...] = ("<new1>",)
) -> Concept:
    given = weights(seed, dtype)
    generator = torch.Generator().manual_seed(seed)
    return Concept(
        tokens={t: torch.randn(8, generator=generator).to(dtype) for t in names},
        keys={n: given[f"{n}.to_k.weight"] for n in LAYERS},
        values={n: given[f"{n}.to_v.weight"] for n in LAYERS},
    )


def assert_same(one: Concept, other: Concept) -> None:
    for field in ("tokens", "keys", "values"):
        a, b = getattr(one, field), getattr(other, field)
        assert a.keys() == b.keys()
        for name in a:
            assert a[name].dtype == b[name].dtype
            assert torch.equal(a[name], b[name])


round_trip = settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
names = st.lists(
    st.from_regex(r"<[a-z0-9][a-z0-9_-]{0,20}>", fullmatch=True),
    min_size=1,
    max_size=3,
    unique=True,
).map(tuple)


@given(st.integers(0, 2**31), st.sampled_from(DTYPES), names, st.sampled_from(SUFFIXES))
@round_trip
def test_diffusers_files_come_back(
    tmp_path: Path, seed: int, dtype: torch.dtype, names: tuple[str, ...], suffix: Suffix
) -> None:
    made, folder = concept(seed, dtype, names), tmp_path / f"{seed}{suffix}{len(names)}"
    files = save_diffusers(made, folder, suffix=suffix)
    assert_same(load_concept(files), made)
    for other in set(folder.iterdir()) - set(files):  # of an earlier example
        other.unlink()
    assert_same(load_concept(folder), made)


@given(st.integers(0, 2**31), st.sampled_from(DTYPES), names)
@round_trip
def test_adobes_delta_comes_back(
    tmp_path: Path, seed: int, dtype: torch.dtype, names: tuple[str, ...]
) -> None:
    made = concept(seed, dtype, names)
    save_adobe(made, tmp_path / "delta.bin")
    assert_same(load_concept(tmp_path / "delta.bin"), made)
    assert_same(load_concept(tmp_path), made)


@given(st.integers(0, 2**31), st.sampled_from(DTYPES), st.integers(1, 6))
@round_trip
def test_adobes_compressed_delta_comes_back(
    tmp_path: Path, seed: int, dtype: torch.dtype, rank: int
) -> None:
    base = weights(seed + 1, dtype)
    thin = compress(concept(seed), base, rank=rank)
    path = tmp_path / "compressed_delta.bin"
    save_adobe_compressed(thin, path)
    back = adobe.read_delta(read_state_dict(path, 2**20).entries, path, base)
    restored = thin.restore(base)
    assert back.weights.keys() == restored.weights.keys()
    assert all(torch.equal(back.weights[n], w) for n, w in restored.weights.items())
    assert torch.equal(back.tokens["<new1>"], restored.tokens["<new1>"])


def test_adobes_files_are_laid_out_as_its_code_has_them(tmp_path: Path) -> None:
    made, base = concept(), weights(1)
    save_adobe(made, tmp_path / "delta.bin")
    held = torch.load(tmp_path / "delta.bin", weights_only=True)
    assert held["unet"].keys() == base.keys()
    assert torch.equal(held["modifier_token"]["<new1>"], made.tokens["<new1>"])
    save_adobe_compressed(compress(made, base, keep=1.0), tmp_path / "thin.bin")
    held = torch.load(tmp_path / "thin.bin", weights_only=True)
    for name, factors in held["unet"].items():
        torch.testing.assert_close(
            base[name] + factors["u"] @ factors["v"], made.weights[name], atol=1e-5, rtol=1e-5
        )


def test_what_the_file_leaves_unsaid(tmp_path: Path) -> None:
    (path,) = save_diffusers(Concept({"<sks>": torch.ones(8)}), tmp_path)
    told = Description("teapot", "patterned", "ab", ("photo of",), 4, "<plaid>")
    back = load_concept(path, None, told)
    assert (back.noun, back.attribute, back.base, back.images) == ("teapot", "patterned", "ab", 4)
    assert back.prompts == ("photo of",) and list(back.tokens) == ["<plaid>"]
    assert back.recipe == {
        "imported": {"files": ["<sks>.safetensors"], "kind": "textual inversion"}
    }
    assert back.keys == {} == back.values


@pytest.mark.parametrize(
    ("held", "told", "name"),
    [
        ({"sks": torch.ones(1, 8)}, {}, "<sks>"),
        ({"<Cat Toy>": torch.ones(8)}, {}, "<cat-toy>"),
        ({"<cat-toy>": torch.ones(8)}, {}, "<cat-toy>"),
        ({"***": torch.ones(8)}, {}, "<learned_embeds>"),
        ({"sks": torch.ones(8)}, {"token": "<plaid>"}, "<plaid>"),
        ({"sks": torch.ones(8)}, {"rename": {"sks": "<plaid>"}}, "<plaid>"),
    ],
)
def test_tokens_spelt_otherwise_are_respelt(
    tmp_path: Path, held: dict[str, torch.Tensor], told: dict[str, Any], name: str
) -> None:
    save_file(held, tmp_path / "learned_embeds.safetensors")
    assert list(load_concept(tmp_path, None, Description(**told)).tokens) == [name]


@pytest.mark.parametrize(
    ("told", "problem"),
    [
        ({"rename": {"a": "<x>", "b": "<x>"}}, "two tokens the name <x>"),
        ({"token": "<x>"}, "names one token, the file has 2"),
        ({"rename": {"c": "<x>"}}, "names c, which is not in the file; it has a, b"),
    ],
)
def test_names_that_do_not_go(tmp_path: Path, told: dict[str, Any], problem: str) -> None:
    save_file({"a": torch.ones(8), "b": torch.ones(8)}, tmp_path / "learned_embeds.safetensors")
    with pytest.raises(InputError, match=problem):
        load_concept(tmp_path, None, Description(**told))


# what diffusers and adobe write themselves


def diffusers_entries(made: Concept) -> dict[str, Any]:
    """As diffusers' training script and ``save_attn_procs`` pickle it."""
    entries: dict[str, Any] = {}
    for layer in LAYERS:
        entries[layer.replace("attn2", "attn1.processor")] = {}
        for part, of in (("to_k", made.keys), ("to_v", made.values)):
            entries[f"{layer}.processor.{part}_custom_diffusion.weight"] = of[layer]
    return entries


def test_diffusers_own_pickles_are_read(tmp_path: Path) -> None:
    made = concept()
    torch.save(diffusers_entries(made), tmp_path / f"{WEIGHTS}.bin")
    torch.save(made.tokens, tmp_path / "<new1>.bin")
    torch.save({"optimizer": 1}, tmp_path / "optimizer.bin")  # its checkpoints hold more
    assert_same(load_concept(tmp_path), made)


def test_diffusers_own_safetensors_are_read(tmp_path: Path) -> None:
    made = concept()
    entries = {k: v for k, v in diffusers_entries(made).items() if len(v)}
    save_file(entries, tmp_path / f"{WEIGHTS}.safetensors")
    save_file(made.tokens, tmp_path / "<new1>.safetensors")
    (tmp_path / "<new1>.bin").write_bytes(b"never read: its twin is no pickle")
    assert_same(load_concept(tmp_path), made)


def test_parameters_are_read_without_their_gradient(tmp_path: Path) -> None:
    path = tmp_path / "delta.bin"
    token = torch.nn.Parameter(torch.ones(8))
    torch.save({"unet": {}, "modifier_token": {"<new1>": token}}, path)
    vector = load_concept(path).tokens["<new1>"]
    assert not vector.requires_grad and torch.equal(vector, torch.ones(8))


# files that are not what they should be


class Command:
    def __init__(self, text: str) -> None:
        self.text = text

    def __reduce__(self) -> Any:
        return os.system, (self.text,)


@pytest.mark.parametrize("torchs", [True, False])
def test_a_pickle_that_would_run_something_runs_nothing(tmp_path: Path, torchs: bool) -> None:
    path, mark = tmp_path / "delta.bin", tmp_path / "mark"
    held = {"unet": {}, "modifier_token": {"<a>": Command(f"touch {mark}")}}
    if torchs:
        torch.save(held, path)
    else:
        path.write_bytes(pickle.dumps(held, protocol=2))
    with pytest.raises(InputError, match=r"delta\.bin .*more than tensors"):
        load_concept(path)
    assert not mark.exists()


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_truncated_files_are_named(tmp_path: Path, suffix: Suffix, share: float) -> None:
    path = save_diffusers(concept(), tmp_path, suffix=suffix)[0]
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(InputError, match=f"{WEIGHTS}.* is (truncated|empty).*download or copy"):
        load_concept(tmp_path)


def test_sizes_are_looked_at_first(tmp_path: Path) -> None:
    path = tmp_path / "delta.bin"
    save_adobe(concept(), path)
    with pytest.raises(InputError, match="bytes, the limit is 99"):
        load_concept(path, max_bytes=99)
    with pytest.raises(InputError, match="is not a file"):
        load_concept(tmp_path / "other.bin")


def test_a_tensor_that_claims_to_be_huge_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "delta.bin"
    torch.save({"unet": {}, "modifier_token": {"<a>": torch.ones(1).expand(2**40)}}, path)
    with pytest.raises(InputError, match="unpacks to 4398046511104 bytes"):
        load_concept(path)


def test_a_packed_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "delta.bin"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(2**20))
    with pytest.raises(InputError, match="unpacks to 1048576 bytes"):
        load_concept(path, max_bytes=2**16)


def test_a_dict_that_holds_itself(tmp_path: Path) -> None:
    held: dict[str, Any] = {"modifier_token": {"<a>": torch.ones(8)}}
    held["unet"] = held
    torch.save(held, tmp_path / "delta.bin")
    with pytest.raises(InputError, match="holds modifier_token"):
        load_concept(tmp_path)


@pytest.mark.parametrize(
    ("held", "problem"),
    [
        ([1, 2], "holds a list"),
        ({1: torch.ones(8)}, "not named entries"),
        ({}, "of no known kind"),
        ({"a.weight": torch.ones(8)}, "of no known kind"),
        ({"state_dict": {"embed": torch.ones(8)}}, r"CompVis.*src/convert\.py"),
        ({"unet": 3}, "without names"),
        ({"unet": {"x.attn2.to_k.weight": 3}}, "holds a int for .*, not a tensor"),
        ({"unet": {"x.attn2.to_q.weight": torch.ones(2, 2)}}, "to_q.*crossattn_kv"),
        ({"unet": {}, "text_encoder": {}}, "holds text_encoder"),
        ({"unet": {"x.attn2.to_k.weight": {"u": torch.ones(2, 1)}}}, "not u and v"),
        ({"x.attn2.processor.to_q_custom_diffusion.weight": torch.ones(2, 2)}, "to_q_custom"),
        ({"<a>": torch.ones(65, 8)}, r"<a> has 65 vectors, the limit is 64"),
        ({"<a>": torch.tensor([1.0, torch.nan])}, "1 of 2 numbers not finite"),
        ({"<a>": torch.ones(8, dtype=torch.int32)}, "int32"),
        ({"<a>": torch.ones(8).to_sparse()}, "not plain"),
        ({"unet": {"x.attn2.to_k.weight": torch.ones(2, 2)}}, "lack|are 0"),
    ],
)
def test_files_that_hold_something_else(tmp_path: Path, held: Any, problem: str) -> None:
    torch.save(held, tmp_path / "delta.bin")
    with pytest.raises(InputError, match=problem):
        load_concept(tmp_path)


def test_compressed_deltas_need_their_base(tmp_path: Path) -> None:
    path = tmp_path / "compressed_delta.bin"
    save_adobe_compressed(compress(concept(), weights(1), rank=2), path)
    with pytest.raises(InputError, match=r"base_weights: is missing.*Base\.weights"):
        load_concept(path)
    held = read_state_dict(path, 2**20).entries
    with pytest.raises(InputError, match="another base"):
        adobe.read_delta(held, path, {})
    with pytest.raises(InputError, match=r"another base.* weight 3 x 8"):
        adobe.read_delta(held, path, {n: torch.ones(3, 8) for n in weights(1)})


def test_folders_and_files_that_say_too_little_or_too_much(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no file named like"):
        load_concept(tmp_path)
    with pytest.raises(InputError, match="no file is given"):
        load_concept([])
    (path,) = save_diffusers(Concept({"<a>": torch.ones(8)}), tmp_path)
    with pytest.raises(InputError, match="gives <a> a second time"):
        load_concept([path, path])
    save_adobe(concept(), tmp_path / "delta.bin")
    save_adobe(concept(), tmp_path / "delta-250.bin")
    with pytest.raises(InputError, match="holds 2 deltas"):
        load_concept(tmp_path)
    own = tmp_path / "own.safetensors"
    concept().save(own)
    assert_same(load_concept(own), concept())  # our own is read as well
    with pytest.raises(InputError, match=r"own\.safetensors is a whole concept"):
        load_concept([own, path])


def test_poisoned_concepts_are_not_exported(tmp_path: Path) -> None:
    made = concept()
    made.tokens["<new1>"][0] = torch.nan
    with pytest.raises(InputError, match="not finite"):
        save_diffusers(made, tmp_path)
    with pytest.raises(InputError, match="not finite"):
        save_adobe(made, tmp_path / "delta.bin")
    with pytest.raises(InputError, match="lack the concept's down_blocks"):
        save_diffusers(concept(), tmp_path, layers=[])
    assert not list(tmp_path.iterdir())


# stock diffusers


def pipeline() -> Any:
    return StableDiffusionPipeline.from_pretrained(mini.path(), safety_checker=None)


def for_mini(pipe: Any, some: bool) -> tuple[Concept, list[str]]:
    """A random change of the bundled base, of all its layers or the first two, and their names."""
    state = pipe.unet.state_dict()
    layers = [n.removesuffix(".processor") for n in pipe.unet.attn_processors if "attn2" in n]
    generator = torch.Generator().manual_seed(3)

    def moved(name: str) -> torch.Tensor:
        return state[name] + 0.1 * torch.randn(state[name].shape, generator=generator)

    changed = layers[:2] if some else layers
    vector = 0.02 * torch.randn(pipe.text_encoder.config.hidden_size, generator=generator)
    keys = {n: moved(f"{n}.to_k.weight") for n in changed}
    values = {n: moved(f"{n}.to_v.weight") for n in changed}
    return Concept({"<plaid>": vector}, keys, values), layers


@torch.no_grad()
def noise(pipe: Any) -> torch.Tensor:
    config = pipe.unet.config
    generator = torch.Generator().manual_seed(4)
    latents = torch.randn(2, config.in_channels, 16, 16, generator=generator)
    states = torch.randn(2, 9, config.cross_attention_dim, generator=generator)
    return pipe.unet(latents, torch.tensor(500), states).sample


@pytest.mark.parametrize(("suffix", "some"), [(".safetensors", False), (".bin", True)])
def test_stock_diffusers_really_loads_it(tmp_path: Path, suffix: Suffix, some: bool) -> None:
    pipe = pipeline()
    made, layers = for_mini(pipe, some)
    save_diffusers(made, tmp_path, suffix=suffix, layers=layers)
    before = noise(pipe)

    # the calls that the module's docstring gives
    pipe.unet.load_attn_procs(tmp_path, weight_name=f"{WEIGHTS}{suffix}", _pipeline=pipe)
    pipe.load_textual_inversion(tmp_path, weight_name=f"<plaid>{suffix}")
    after = noise(pipe)

    by_hand = pipeline()
    by_hand.unet.load_state_dict(made.weights, strict=False)
    torch.testing.assert_close(after, noise(by_hand), atol=1e-4, rtol=0)
    assert (after - before).abs().max() > 1e-2
    row = pipe.tokenizer.convert_tokens_to_ids("<plaid>")
    table = pipe.text_encoder.get_input_embeddings().weight
    assert torch.equal(table[row].detach(), made.tokens["<plaid>"])

    # and what diffusers saves of it is read again
    pipe.unet.save_attn_procs(tmp_path / "again", safe_serialization=suffix != ".bin")
    back = load_concept([tmp_path / "again", tmp_path / f"<plaid>{suffix}"])
    assert_same(back, made)


def test_without_the_pipeline_diffusers_changes_nothing(tmp_path: Path) -> None:
    """Why the docstring's call names it. If this fails, diffusers was repaired: say so there."""
    pipe = pipeline()
    made, _ = for_mini(pipe, False)
    save_diffusers(made, tmp_path)
    before = noise(pipe)
    pipe.unet.load_attn_procs(tmp_path, weight_name=f"{WEIGHTS}.safetensors")
    assert torch.equal(noise(pipe), before)
    assert set(load_file(tmp_path / f"{WEIGHTS}.safetensors")) >= {
        n for n in pipe.unet.attn_processors if "attn1" in n
    }
