"""Files that people give as concepts: each is called what it is, with the command that takes it."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from customedit.concepts.concept import Concept
from customedit.concepts.files import load_concept
from customedit.errors import InputError

Write = Callable[[Path], object]


def safetensors(*names: str) -> Write:
    return lambda path: save_file({n: torch.ones(2, 2) for n in names}, path)


def text(content: str) -> Write:
    return lambda path: path.write_text(content)


def raw(content: bytes) -> Write:
    return lambda path: path.write_bytes(content)


def pickled(entries: object) -> Write:
    return lambda path: torch.save(entries, path)


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "nothing")


OTHERS: list[tuple[str, Write, str]] = [
    ("page.safetensors", text("\n<!DOCTYPE html><html>sign in</html>"), "is an HTML page"),
    ("error.bin", text('{"error": "Repository not found"}'), "is JSON text"),
    (
        "pointer.safetensors",
        text("version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n"),
        "is a Git LFS pointer.*git lfs pull",
    ),
    ("empty.bin", raw(b""), "is empty; download"),
    ("cat.png", lambda p: Image.new("RGB", (2, 2)).save(p), "is a picture.*customize"),
    ("notes.bin", text("my favourite teapots, in words"), "is a text file"),
    ("x.safetensors", raw(b"\x1f\x8b" + bytes(99)), "is a gzip archive; unpack it"),
    ("x.gguf", raw(b"GGUF" + bytes(99)), "is a GGUF model"),
    ("x.safetensors", raw((10**6).to_bytes(8, "little") + b'{"a"'), "is truncated: it has 12"),
    (
        "model.safetensors",
        safetensors("model.diffusion_model.input_blocks.0.0.weight", "cond_stage_model.x"),
        "is a whole Stable Diffusion checkpoint; a base is given with --base",
    ),
    (
        "sdxl.safetensors",
        safetensors("conditioner.embedders.0.x", "model.diffusion_model.out.0.weight"),
        "is a whole SDXL checkpoint",
    ),
    ("flux.safetensors", safetensors("double_blocks.0.img_attn.qkv.weight"), "whole FLUX"),
    ("unet.safetensors", safetensors("down_blocks.0.resnets.0.conv1.weight"), "a whole UNet"),
    ("vae.safetensors", safetensors("decoder.conv_in.weight"), "an autoencoder"),
    ("te.safetensors", safetensors("text_model.embeddings.x"), "a text encoder"),
    ("cn.safetensors", safetensors("control_model.input_blocks.0"), "a ControlNet"),
    ("ip.safetensors", safetensors("image_proj.norm.weight", "ip_adapter.1.x"), "an IP-Adapter"),
    ("t.safetensors", safetensors("leaf.token.<a>", "exp_avg.x"), "checkpoint of an unfinished"),
    (
        "model.ckpt",
        pickled({"state_dict": {"model.diffusion_model.input_blocks.0.0.weight": torch.ones(2)}}),
        "is a whole Stable Diffusion checkpoint",
    ),
]


@pytest.mark.parametrize(("name", "write", "says"), OTHERS)
def test_what_no_concept_can_be_made_of_is_named(
    name: str, write: Write, says: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    write(path)
    for load in (load_concept, Concept.load):
        with pytest.raises(InputError, match=says) as caught:
            load(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)


IMPORTABLE: list[tuple[str, Write, str]] = [
    ("delta.bin", pickled({"unet": {}, "modifier_token": {"<a>": torch.ones(2)}}),
     r"a Custom Diffusion pickle \(adobe's delta\.bin\)"),
    ("w.bin", pickled({"x.attn2.processor.to_k_custom_diffusion.weight": torch.ones(2, 2)}),
     "a Custom Diffusion pickle of diffusers"),
    ("a.pt", pickled({"string_to_param": {"*": torch.ones(1, 2)}}), "an? .*AUTOMATIC1111"),
    ("lora.safetensors", safetensors("lora_unet_x.lora_down.weight"), "is a LoRA"),
    ("lora.bin", pickled({"unet.x.lora.down.weight": torch.ones(2, 2)}), "is a LoRA, pickled"),
    ("loha.safetensors", safetensors("lora_unet_x.hada_w1_a"), "is a LoRA"),
    ("emb.safetensors", safetensors("emb_params"), "is a textual-inversion embedding"),
    ("w.safetensors", safetensors("x.attn2.processor.to_k_custom_diffusion.weight"),
     "diffusers' Custom Diffusion weights"),
    ("x.zip", zipped, "is a zip archive"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "write", "says"), IMPORTABLE)
def test_what_can_be_imported_is_named_with_the_command(
    name: str, write: Write, says: str, tmp_path: Path
) -> None:
    """Given to ``--concept``, where only our own file is read."""
    path = tmp_path / name
    write(path)
    with pytest.raises(InputError, match=rf"{says}.*; .*customedit concept import"):
        Concept.load(path)


def test_a_large_model_is_named_before_its_size(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    safetensors("model.diffusion_model.out.0.weight")(path)
    with pytest.raises(InputError, match="whole Stable Diffusion checkpoint"):
        load_concept(path, max_bytes=10)


def test_a_folder_that_is_a_base(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text("{}")
    with pytest.raises(InputError, match="is a whole base; give it with --base"):
        load_concept(tmp_path)


# zips


def packed(tmp_path: Path, *files: tuple[str, bytes]) -> Path:
    path = tmp_path / "things.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files:
            archive.writestr(name, content)
    return path


def test_a_zip_is_read_as_the_folder_that_is_in_it(tmp_path: Path) -> None:
    file = tmp_path / "<a>.safetensors"
    save_file({"<a>": torch.ones(8)}, file)
    data = file.read_bytes()
    path = packed(tmp_path, ("out/<a>.safetensors", data), ("out/readme.md", b"x"))
    assert torch.equal(load_concept(path).tokens["<a>"], torch.ones(8))
    before = sorted(tmp_path.iterdir())
    assert torch.equal(load_concept(path, scratch=tmp_path).tokens["<a>"], torch.ones(8))
    assert sorted(tmp_path.iterdir()) == before  # what was unpacked is gone
    climbing = packed(tmp_path, ("../../<a>.safetensors", data))
    assert list(load_concept(climbing).tokens) == ["<a>"]
    assert not (tmp_path.parent / "<a>.safetensors").exists()


def test_zips_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"things\.zip holds 0 files of weights"):
        load_concept(packed(tmp_path, ("x.txt", b"x")))
    with pytest.raises(InputError, match=r"things\.zip unpacks to over 50 bytes"):
        load_concept(packed(tmp_path, ("x.bin", bytes(99))), max_bytes=50)
    with pytest.raises(InputError, match=r"things\.zip/x\.bin is (truncated|of no|empty)"):
        load_concept(packed(tmp_path, ("x.bin", b"\x80\x02K")))
    twice = packed(tmp_path, ("a/x.bin", b"1"), ("b/x.bin", b"2"))
    with pytest.raises(InputError, match=r"things\.zip is a damaged zip"):
        load_concept(twice)
