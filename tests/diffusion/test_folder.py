"""Which files of a base are loaded, fetched, and found again; names that are none."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

from customedit.diffusion import folder as folder_module
from customedit.diffusion.base import Base
from customedit.diffusion.families.known import STABLE_DIFFUSION
from customedit.diffusion.folder import KNOWN, choose, fetch, listing, locate, required
from customedit.errors import InputError

from . import folders

U = "unet/diffusion_pytorch_model"
PLAIN = [
    "model_index.json", "scheduler/scheduler_config.json", "text_encoder/config.json",
    "tokenizer/merges.txt", "tokenizer/tokenizer_config.json", "tokenizer/vocab.json",
    "unet/config.json", "vae/config.json",
]  # fmt: skip
WEIGHTS = [f"{U}.safetensors", "vae/diffusion_pytorch_model.safetensors", folders.TEXT]
BESIDE = [
    "README.md", "v1-5-pruned.safetensors", "v1-5-pruned.ckpt", "safety_checker/config.json",
    "safety_checker/model.safetensors", "feature_extractor/preprocessor_config.json",
    f"{U}.non_ema.safetensors", f"{U}.fp16.safetensors", f"{U}.bin", f"{U}.fp16.bin",
    "text_encoder/pytorch_model.bin", "text_encoder/model.fp16.safetensors",
]  # fmt: skip


def test_of_a_full_repository_only_what_loading_reads_is_required() -> None:
    assert required([*PLAIN, *WEIGHTS, *BESIDE], "x") == sorted([*PLAIN, *WEIGHTS])


@pytest.mark.parametrize(
    ("files", "variant", "chosen"),
    [
        ([f"{U}.safetensors", f"{U}.fp16.safetensors"], None, [f"{U}.safetensors"]),
        ([f"{U}.fp16.safetensors", f"{U}.ema.safetensors"], "fp16", [f"{U}.fp16.safetensors"]),
        ([f"{U}.ema.safetensors", f"{U}.bin"], "ema", [f"{U}.ema.safetensors"]),
        (
            [f"{U}.safetensors.index.json", f"{U}-00001-of-00002.safetensors",
             f"{U}-00002-of-00002.safetensors", f"{U}.fp16.safetensors"],
            None,
            [f"{U}.safetensors.index.json", f"{U}-00001-of-00002.safetensors",
             f"{U}-00002-of-00002.safetensors"],
        ),
        (
            [f"{U}.safetensors.index.fp16.json", f"{U}.fp16-00001-of-00001.safetensors"],
            "fp16",
            [f"{U}.safetensors.index.fp16.json", f"{U}.fp16-00001-of-00001.safetensors"],
        ),
        (
            [f"{U}.safetensors.index.fp16.json", f"{U}-00001-of-00001.fp16.safetensors"],
            "fp16",
            [f"{U}.safetensors.index.fp16.json", f"{U}-00001-of-00001.fp16.safetensors"],
        ),
    ],
)  # fmt: skip
def test_which_weights_are_chosen(files: list[str], variant: str | None, chosen: list[str]) -> None:
    found = choose([*files, "unet/config.json", folders.TEXT], "unet", "x", STABLE_DIFFUSION)
    assert found.variant == variant and sorted(found.files) == sorted(chosen)


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ([], "no weights of its unet"),
        ([f"{U}.bin"], "pickle only.*can run code.*use_safetensors=False"),
        ([f"{U}.fp16.bin"], "pickle only"),
        ([f"{U}.safetensors.index.json", f"{U}-00001-of-00003.safetensors"], "only 1 of 3 shards"),
        ([f"{U}.safetensors.index.json"], "only 0 of its shards"),
    ],
)
def test_weights_that_cannot_be_loaded_are_named(files: list[str], says: str) -> None:
    with pytest.raises(InputError, match=rf"base: x has .*{says}"):
        choose(files, "unet", "x", STABLE_DIFFUSION)


@pytest.mark.parametrize("kind", ["variant", "sharded", "sharded variant"])
def test_folders_with_variants_and_shards_load(kind: str, base: Base, tmp_path: Path) -> None:
    folder = folders.copied(tmp_path)
    for part in (folders.UNET, folders.VAE, folders.TEXT):
        path = folder / part
        if "sharded" in kind:
            folders.shard(path, 3, "fp16" if "variant" in kind else "")
        else:
            path.rename(path.with_suffix(".fp16.safetensors"))
    found = Base.load(folder)
    assert found.fingerprint == base.fingerprint


class Hub:
    """A hub of one repository: a folder, listed and copied as ``snapshot_download`` does."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.copied = root, set[str]()
        monkeypatch.setattr(huggingface_hub, "HfApi", lambda: self)
        monkeypatch.setattr(huggingface_hub, "snapshot_download", self.snapshot)
        self.error: Exception | None = None

    def list_repo_files(self, name: str) -> list[str]:
        if self.error is not None:
            raise self.error
        found = (p.relative_to(self.root).as_posix() for p in self.root.rglob("*") if p.is_file())
        return sorted(found)

    def snapshot(self, name: str, local_dir: Path, allow_patterns: list[str]) -> str:
        for file in allow_patterns:
            (local_dir / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.root / file, local_dir / file)
            self.copied.add(file)
        return str(local_dir)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    root = folders.copied(tmp_path / "hub")
    for extra in BESIDE:
        if not (root / extra).exists():
            folders.replace(root / extra, b"not to be fetched")
    return Hub(root, monkeypatch)


def test_what_is_fetched_loads_and_nothing_else_is_fetched(
    hub: Hub, base: Base, tmp_path: Path
) -> None:
    folder = fetch("someone/base", to=tmp_path / "here")
    assert Base.load(folder, local=True).fingerprint == base.fingerprint
    assert sorted(hub.copied) == listing(folder) == required(listing(hub.root), "x")
    assert not {f for f in hub.copied if f.endswith((".bin", ".ckpt", ".md"))}


def test_a_repository_with_fp16_weights_alone_is_fetched_and_loads(
    hub: Hub, base: Base, tmp_path: Path
) -> None:
    for part in (folders.UNET, folders.VAE, folders.TEXT):
        path = hub.root / part
        path.rename(path.with_suffix(".fp16.safetensors"))
    folder = fetch("someone/base", to=tmp_path / "here")
    assert Base.load(folder).fingerprint == base.fingerprint


def test_a_model_of_another_family_is_refused_before_its_weights_are_fetched(
    hub: Hub, tmp_path: Path
) -> None:
    folders.configure(hub.root / "model_index.json", {"_class_name": "StableCascadePipeline"})
    with pytest.raises(InputError, match="someone/base is a Stable Cascade model"):
        fetch("someone/base", to=tmp_path / "here")
    assert not {f for f in hub.copied if f.endswith(".safetensors")}


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (RepositoryNotFoundError, "the hub has no public model CompVis/stable-difusion-v1-4; "
         "did you mean CompVis/stable-diffusion-v1-4?"),
        (GatedRepoError, "is gated; accept its terms on the hub, and log in: hf auth login"),
        (ConnectionError, "cannot be downloaded: the hub gives no answer"),
        (TimeoutError, "the hub gives no answer"),
    ],
)  # fmt: skip
def test_what_the_hub_says_becomes_a_remedy(
    error: type[Exception], says: str, hub: Hub, tmp_path: Path
) -> None:
    made: Any = error.__new__(error, "x")
    hub.error = made
    with pytest.raises(InputError, match=says.replace("?", r"\?")):
        fetch("CompVis/stable-difusion-v1-4", to=tmp_path)


def test_repositories_that_are_no_base(hub: Hub, tmp_path: Path) -> None:
    (hub.root / "model_index.json").unlink()
    with pytest.raises(InputError, match="has single-file checkpoints but no diffusers folder"):
        fetch("someone/base", to=tmp_path)
    folders.replace(hub.root / "pytorch_lora_weights.safetensors", b"")
    with pytest.raises(InputError, match="is a LoRA, not a base"):
        fetch("someone/base", to=tmp_path)


def test_a_base_in_the_hubs_cache_is_found_without_the_hub(
    base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache as huggingface_hub lays it out: refs, snapshots."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    real = huggingface_hub.snapshot_download
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda *a, **k: real(*a, cache_dir=tmp_path, **k)
    )
    kept = tmp_path / "models--someone--base"
    commit = "0" * 40
    folders.replace(kept / "refs" / "main", commit)
    folders.copied(kept / "snapshots" / commit)
    assert Base.load("someone/base", local=True).fingerprint == base.fingerprint
    says = "someone/other is not in the hub's cache on this machine; .*models fetch someone/other"
    with pytest.raises(InputError, match=says):
        locate("someone/other", local=True)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("./nowhere", "there is no folder ./nowhere"),
        ("/no/where", "there is no folder /no/where"),
        ("~/nowhere-at-all", "there is no folder"),
        ("Mini", "did you mean mini"),
        ("minni", "did you mean mini"),
        ("gpt2", "give a diffusers folder, OWNER/NAME on the hub, or mini"),
        ("a/b/c", "there is no folder a/b/c"),
        ("a b/c", "there is no folder"),
        ("", "there is no|has no model_index"),
        ("-x/y", "there is no folder"),
    ],
)
def test_names_that_are_none(name: str, says: str) -> None:
    with pytest.raises(InputError, match=rf"^base: .*(?:{says})"):
        locate(name, local=True)


def test_paths_that_are_no_base_say_what_they_are(tmp_path: Path) -> None:
    folder = folders.copied(tmp_path / "base")
    for path, says in (
        (folder / "unet", f"is one part of a base; the base is {folder}"),
        (folder / "model_index.json", f"is a single file; give its folder, {folder}"),
        (folder / folders.UNET, f"is a single file; it is one part of a base; .* {folder}"),
        (tmp_path, "has no model_index.json; give a folder saved by"),
    ):
        with pytest.raises(InputError, match=says):
            locate(path)
    folders.replace(tmp_path / "lora" / "adapter_config.json", "{}")
    with pytest.raises(InputError, match="is a LoRA, not a base"):
        locate(tmp_path / "lora")


def test_the_known_bases_are_names_of_the_hub() -> None:
    assert all(n == "mini" or folder_module._HUB_NAME.fullmatch(n) for n in KNOWN)
