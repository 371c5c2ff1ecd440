"""What a file is that somebody gives as a concept, told by its first bytes and its entries' names.

Nothing is unpickled here. Users bring what they have: an HTML page that a site gave instead of the
file, a Git LFS pointer, a whole checkpoint, a LoRA of another model. Each is called by its name,
with the command that takes it or the way to the right file.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from customedit.errors import InputError

OWN: Final = "customedit.concept"
"""In the metadata of our own files, and of no others."""

AGAIN: Final = "download or copy it again, whole"
_HEAD: Final = 64 * 1024


@dataclass(frozen=True)
class Header:
    """What a safetensors file says of itself: names of its tensors, and metadata."""

    names: tuple[str, ...]
    metadata: dict[str, str]


def refuse_other_files(path: Path) -> None:
    """Look at the first bytes of a file.

    Raises:
        InputError: naming the file and what it is, for one that is missing, empty, or neither
            safetensors, a PyTorch pickle nor a zip.
    """
    head = _head(path)
    other = _other(head)
    if other is not None:
        raise InputError("concept", f"{path} {other[0]}", other[1])


def is_safetensors(path: Path) -> bool:
    """Whether it begins as safetensors do."""
    return _head(path)[8:9] == b"{"


def is_zip_of_files(path: Path) -> bool:
    """Whether it is a zip that somebody packed, and not one that ``torch.save`` made."""
    if not (path.is_file() and zipfile.is_zipfile(path)):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return not any(n.endswith("data.pkl") for n in archive.namelist())
    except zipfile.BadZipFile:
        return False


def read_header(path: Path) -> Header:
    """The header of a safetensors file, without its tensors.

    Raises:
        InputError: for a file that is truncated or damaged.
    """
    size = path.stat().st_size
    try:
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            text = stream.read(min(length, size))
        if len(text) < length:
            raise _truncated(path, size, f"its header alone has {length}")
        tensors: dict[str, Any] = json.loads(text)
        metadata = {str(k): str(v) for k, v in (tensors.pop("__metadata__", None) or {}).items()}
        end = max((int(v["data_offsets"][1]) for v in tensors.values()), default=0)
    except InputError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OSError) as error:
        raise InputError(
            "concept", f"{path} is a damaged safetensors file ({type(error).__name__})", AGAIN
        ) from None
    if size < 8 + length + end:
        raise _truncated(path, size, f"it should have {8 + length + end}")
    return Header(tuple(tensors), metadata)


def _truncated(path: Path, size: int, wanted: str) -> InputError:
    return InputError("concept", f"{path} is truncated: it has {size} bytes, {wanted}", AGAIN)


def refuse_for_editing(path: Path) -> None:
    """Say what a file is that was given where our own concept file is wanted, and is another.

    Raises:
        InputError: always unless it is our own, with the command that takes it.
    """
    refuse_other_files(path)
    if is_safetensors(path):
        header = read_header(path)
        if is_own(header.metadata):
            return
        kind = model_kind(header.names) or _importable(header.names)
    else:
        kind = _pickled(path)
    if kind is None:
        kind = "not a concept file", "docs/concept-files.md lists the files that can be imported"
    raise InputError("concept", f"{path} is {kind[0]}", kind[1].format(path=path))


def is_own(metadata: dict[str, str]) -> bool:
    """Whether a file with this metadata is our own."""
    return OWN in metadata or metadata.get("format") == OWN


def refuse_models(names: Collection[str], path: Path) -> None:
    """Raise InputError for entries called as those of a model, of which no concept can be made."""
    kind = model_kind(names)
    if kind is not None:
        raise InputError("concept", f"{path} is {kind[0]}", kind[1])


_IMPORT: Final = "convert it: customedit concept import {path} -o concept.safetensors"

LORA: Final = re.compile(
    r"(?:[._]lora(?:\.|_linear_layer\.)?_?(?:down|up|mid|A|B)\b|\.hada_[wt]\d|\.lokr_[wt]\d|"
    r"^lora_(?:unet|te\d?|transformer)_|\.processor\.(?:qkv|proj)_lora[12]?\.)"
)
"""In the entries' names of LoRAs of every key style."""


def is_lora(names: Collection[str]) -> bool:
    """Whether entries called so are those of a LoRA or one of its kin."""
    return any(LORA.search(name) for name in names)


def lora_families(names: Collection[str]) -> tuple[str, ...]:
    """The families, by ``Layout.name``, that a LoRA may be for by its keys; () if all may be."""
    for families, pattern in _LORA_FAMILIES.items():
        if any(re.search(pattern, name) for name in names):
            return families
    return ()


_LORA_FAMILIES: Final = {
    ("FLUX.1",): r"(?:double|single)_blocks|single_transformer_blocks|lora_transformer_single",
    ("Stable Diffusion 3.x",): r"joint_blocks",
    ("FLUX.1", "Stable Diffusion 3.x"): r"^transformer\.|^lora_transformer_|"
    r"^base_model\.model\.transformer_blocks",
    (
        "Stable Diffusion XL",
    ): r"^lora_te2_|^lora_te1_|^text_encoder_2\.|input_blocks_[78]_1_transformer_blocks_[2-9]|"
    r"down_blocks[._]2[._]attentions[._]1[._]transformer_blocks[._][2-9]",
}

_BASE_REMEDY: Final = (
    "a base is given with --base, as a folder saved by diffusers; concepts are made with "
    "customedit customize"
)
_MODELS: Final[tuple[tuple[str, str, str], ...]] = (
    # pattern, what it is, remedy
    (r"^(?:ip_adapter|image_proj)\.", "an IP-Adapter", "IP-Adapters cannot be used"),
    (
        r"controlnet_|^control_model\.|^input_hint_block\.|^zero_convs\.",
        "a ControlNet",
        "ControlNets cannot be used",
    ),
    (r"^conditioner\.embedders\.", "a whole SDXL checkpoint", _BASE_REMEDY),
    (
        r"^model\.diffusion_model\.(?:joint|double|single)_blocks\.|^(?:double|single)_blocks\.",
        "a whole FLUX or Stable Diffusion 3 checkpoint",
        _BASE_REMEDY,
    ),
    (r"^model\.diffusion_model\.", "a whole Stable Diffusion checkpoint", _BASE_REMEDY),
    (r"^(?:single_)?transformer_blocks\.\d+\.", "a transformer's weights", _BASE_REMEDY),
    (r"^(?:decoder|first_stage_model\.decoder)\.conv_in\.", "an autoencoder (VAE)", _BASE_REMEDY),
    (r"^down_blocks\.\d+\.resnets\.", "a whole UNet's weights", _BASE_REMEDY),
    (
        r"^(?:text_model\.|encoder\.layers\.\d+\.self_attn)|^encoder\.block\.\d+",
        "a text encoder's weights",
        _BASE_REMEDY,
    ),
    (
        r"^(?:exp_avg|leaf)\.",
        "the checkpoint of an unfinished training",
        "finish it: customedit customize --checkpoint FILE, with the arguments it began with",
    ),
)


def model_kind(names: Collection[str]) -> tuple[str, str] | None:
    """(what it is, remedy) if entries called so are those of a model; None if they are not."""
    if is_lora(names):
        return None
    for pattern, kind, remedy in _MODELS:
        if any(re.search(pattern, name) for name in names):
            return kind, remedy
    return None


def _importable(names: Collection[str]) -> tuple[str, str] | None:
    """(what it is, the command) for entries of a file that can be imported."""
    if is_lora(names):
        return "a LoRA", _IMPORT
    if any("custom_diffusion" in name for name in names):
        return "diffusers' Custom Diffusion weights", (
            "convert them with the tokens' files: customedit concept import FOLDER "
            "-o concept.safetensors"
        )
    if "emb_params" in names or all("." not in name for name in names):
        return "a textual-inversion embedding", _IMPORT
    return None


def _pickled(path: Path) -> tuple[str, str]:
    """The same for a pickle, by words that are in it; it is not unpickled."""
    words = _head(path)
    if zipfile.is_zipfile(path):
        if is_zip_of_files(path):
            return "a zip archive", _IMPORT
        with zipfile.ZipFile(path) as archive:
            (name, *_) = (n for n in archive.namelist() if n.endswith("data.pkl"))
            with archive.open(name) as stream:
                words = stream.read(16 * _HEAD)
    for word, kind in (
        (b"modifier_token", "a Custom Diffusion pickle (adobe's delta.bin)"),
        (b"custom_diffusion", "a Custom Diffusion pickle of diffusers"),
        (b"string_to_param", "a textual-inversion embedding of AUTOMATIC1111"),
        (b"lora_", "a LoRA, pickled"),
        (b".lora.", "a LoRA, pickled"),
    ):
        if word in words:
            return kind, _IMPORT
    if b"diffusion_model" in words:
        return "a whole Stable Diffusion checkpoint", _BASE_REMEDY
    if words[:1] == b"\x80" or zipfile.is_zipfile(path):
        return "a PyTorch pickle", _IMPORT
    return "truncated, or not a file of weights", AGAIN


def _head(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise InputError("concept", f"{path} is not a file", "correct the path")
        with path.open("rb") as stream:
            return stream.read(_HEAD)
    except OSError as error:
        raise InputError("concept", f"{path} cannot be read ({error.strerror})") from None


_BYTES: Final[tuple[tuple[bytes, str, str], ...]] = (
    (
        b"version https://git-lfs",
        "is a Git LFS pointer, not the file that it stands for",
        "run git lfs pull in its repository, or download the file itself",
    ),
    (b"\x89PNG", "is a picture", "learn a concept from pictures: customedit customize"),
    (b"\xff\xd8\xff", "is a picture", "learn a concept from pictures: customedit customize"),
    (b"GIF8", "is a picture", "learn a concept from pictures: customedit customize"),
    (b"RIFF", "is a picture or a sound", "give a file of weights"),
    (b"GGUF", "is a GGUF model", "give the LoRA or embedding as safetensors"),
    (b"\x1f\x8b", "is a gzip archive", "unpack it and give the folder, or pack it as zip"),
    (b"7z\xbc\xaf", "is a 7z archive", "unpack it and give the folder, or pack it as zip"),
    (b"Rar!", "is a RAR archive", "unpack it and give the folder, or pack it as zip"),
    (b"\xfd7zXZ", "is an xz archive", "unpack it and give the folder, or pack it as zip"),
)


def _other(head: bytes) -> tuple[str, str] | None:
    """(what it is, remedy) for first bytes that are those of no file of weights."""
    if not head:
        return "is empty", AGAIN
    for magic, kind, remedy in _BYTES:
        if head.startswith(magic):
            return kind, remedy
    text = head[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype", b"<html", b"<head", b"<?xml")):
        return (
            "is an HTML page, which a site gave in the place of the file",
            "download the file itself; you may have to sign in",
        )
    if text.startswith((b"{", b"[")) and head[8:9] != b"{":
        return "is JSON text, such as a server's error message", "download the file itself"
    known = head[8:9] == b"{" or head[:1] == b"\x80" or head[:2] == b"PK"
    if not known and len(head) >= 16 and _is_text(head[:512]):
        return "is a text file", "give a file of weights (.safetensors, .bin, .pt)"
    return None


def _is_text(head: bytes) -> bool:
    try:
        return all(c.isprintable() or c.isspace() for c in head.decode("ascii"))
    except UnicodeDecodeError:
        return False
