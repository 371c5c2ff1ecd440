"""Concepts read from files of any kind, ours or other programs', by one function."""

from __future__ import annotations

import dataclasses
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor

from customedit.concepts.checks import MAX_BYTES
from customedit.concepts.concept import Concept
from customedit.concepts.files import adobe, diffusers, embeddings, lora
from customedit.concepts.files.embeddings import UNNAMED, spelled
from customedit.concepts.files.entries import Parts, StateDict, read_state_dict
from customedit.concepts.files.identify import (
    is_lora,
    is_own,
    is_safetensors,
    is_zip_of_files,
    read_header,
    refuse_other_files,
)
from customedit.concepts.files.lora import Lora
from customedit.errors import InputError
from customedit.prompt_syntax import CONCEPT

if TYPE_CHECKING:
    from customedit.diffusion.base import Base

MOST_FILES: Final = 40
_SUFFIXES: Final = (".safetensors", ".bin", ".pt")
_NAMES: Final = (
    "<*>",
    "learned_embeds*",
    diffusers.DIFFUSERS_WEIGHTS,
    "*delta*",
    "pytorch_lora_weights",
    "adapter_model",
)
"""What other programs call the files in their folders."""


@dataclass(frozen=True)
class Description:
    """What other programs' files do not tell of a concept; the first fields are as in ``Concept``.

    token: the name of its one token, "" for the file's own; rename: tokens as in the file to tokens
    as they shall be, where it has several. A token that the file spells in another way than
    ``<name>``, or does not name, is spelt after the file's word or the file's name.
    """

    noun: str = ""
    attribute: str = ""
    base: str = ""
    prompts: tuple[str, ...] = ()
    images: int = 0
    token: str = ""
    rename: Mapping[str, str] = field(default_factory=dict)


def load_concept(
    sources: Path | Sequence[Path],
    base: Base | None = None,
    description: Description | None = None,
    *,
    max_bytes: int = MAX_BYTES,
    allow_unused: bool = False,
    scratch: Path | None = None,
) -> Concept:
    """Read a concept of any kind from a folder, a file, several, or a zip; told by its contents.

    | kind | files |
    |---|---|
    | our own | ``concept.safetensors`` |
    | Custom Diffusion of diffusers | ``pytorch_custom_diffusion_weights.*`` and ``<token>.*`` |
    | Custom Diffusion of adobe | ``delta.bin``, also compressed |
    | textual inversion | ``learned_embeds.*``, A1111's ``.pt``, ``emb_params``, any vector count |
    | LoRA, LoCon, LoHa, LoKr | kohya's, PEFT's and diffusers' keys, for UNet and text encoder |

    Of a folder, the files named as the programs name them are read; where one is there as
    safetensors and as pickle, the pickle is left alone, and of a training's files the final ones
    are taken. Pickles are read with ``weights_only``, so that none can run anything.

    ``recipe["imported"]`` tells of which kind it is and which share of a LoRA's layers is used;
    ``effect.prove_effect`` then shows that it changes anything.

    base: the base that it is for, against which it is checked. Without it nothing but Custom
    Diffusion and embeddings can be read. max_bytes: of each file, and of what it holds.
    allow_unused: take a LoRA of which layers are not used. scratch: a folder that zips are unpacked
    in while they are read, None for the system's temporary one.

    Raises:
        InputError: naming the file, for one that is missing, too large, truncated, of no known
            kind, would run code, or holds what no concept has (trained queries, whole encoders).
    """
    description = description or Description()
    given = [sources] if isinstance(sources, Path) else list(sources)
    with _unpacked(given, max_bytes, scratch) as unpacked:
        paths = _files(unpacked)
        own_files = [p for p in paths if _is_own(p)]
        if own_files and len(paths) > 1:
            raise InputError(
                "concept", f"{own_files[0]} is a whole concept", "give it without other files"
            )
        if own_files:
            weights = None if base is None else base.weights
            concept = Concept.load(own_files[0], weights, max_bytes=max_bytes)
            concept = _described(concept, description)
        else:
            concept = _foreign(paths, base, description, max_bytes, allow_unused)
    return concept if base is None else concept.for_base(base)


def _described(concept: Concept, description: Description) -> Concept:
    """Our own concept with what the description tells otherwise."""
    return dataclasses.replace(
        concept,
        tokens=_named(concept.tokens, description, ""),
        noun=description.noun or concept.noun,
        attribute=description.attribute or concept.attribute,
        prompts=description.prompts or concept.prompts,
    )


def _foreign(
    paths: Sequence[Path],
    base: Base | None,
    description: Description,
    max_bytes: int,
    allow_unused: bool,
) -> Concept:
    """The concept in other programs' files."""
    parts = Parts()
    loras: list[Lora] = []
    kinds: list[str] = []
    for path in paths:
        state = read_state_dict(path, max_bytes)
        if is_lora(state.entries):
            if base is None:
                raise InputError("base", "is missing", f"{path} is a LoRA: give the base it is for")
            read = lora.read_lora(state, base, allow_unused=allow_unused)
            loras.append(read)
            kinds.append(f"{', '.join(read.kinds)} ({read.style})")
            _join(parts.tokens, embeddings.read_bundled(state), path)
        else:
            kind, new = _sorted(state, base)
            kinds.append(kind)
            _join_tokens(parts.tokens, new.tokens, path, base)
            _join(parts.weights, new.weights, path)
    adapters = {p: a for one in loras for p, a in one.adapters.items()}
    if len(adapters) < sum(len(one.adapters) for one in loras):
        raise InputError(
            "concept", "two of the LoRAs change one layer", "import each as a concept of its own"
        )
    tokens = parts.tokens
    if not tokens and base is not None and adapters:
        tokens = {UNNAMED: torch.zeros(0, base.width)}
    about: dict[str, Any] = {
        "files": [p.name for p in paths],
        "kind": ", ".join(dict.fromkeys(kinds)),
    }
    if loras:
        about["layers_used"] = sum(one.layers - len(one.unused) for one in loras)
        about["layers"] = sum(one.layers for one in loras)
    return Concept(
        tokens=_named({t: _flat(v) for t, v in tokens.items()}, description, paths[0].stem),
        keys=_of_part(parts.weights, "to_k"),
        values=_of_part(parts.weights, "to_v"),
        noun=description.noun,
        attribute=description.attribute,
        base=description.base,
        prompts=description.prompts,
        recipe={"imported": about},
        images=description.images,
        adapters=adapters,
    )


def _join(parts: dict[str, Tensor], new: Mapping[str, Tensor], path: Path) -> None:
    twice = parts.keys() & new.keys()
    if twice:
        name = min(twice) or "an unnamed token"
        raise InputError("concept", f"{path} gives {name} a second time", "leave one file out")
    parts.update(new)


def _join_tokens(
    parts: dict[str, Tensor], new: Mapping[str, Tensor], path: Path, base: Base | None
) -> None:
    """Take ``new`` into ``parts``; a token's vectors for one more text encoder are put together.

    So diffusers' script for SDXL writes them: a file for each encoder, in order.
    """
    widths = [] if base is None else list(base.family.embedding_parts.values())
    for name, vectors in new.items():
        token = path.stem if not name and CONCEPT.fullmatch(path.stem) else name
        before = parts.get(token)
        if before is not None and len(before) == len(vectors):
            joined = [before.shape[-1], before.shape[-1] + vectors.shape[-1]]
            if joined == [sum(widths[:1]), sum(widths[:2])] and len(widths) > 1:
                parts[token] = torch.cat([before, vectors], -1)
                continue
        _join(parts, {token: vectors}, path)


def _named(tokens: Mapping[str, Tensor], description: Description, stem: str) -> dict[str, Tensor]:
    """``tokens`` by the names that they shall have."""
    if description.token and len(tokens) > 1:
        raise InputError(
            "token",
            f"names one token, the file has {len(tokens)}: {', '.join(tokens)}",
            "leave it out, or rename each",
        )
    unknown = sorted(description.rename.keys() - tokens.keys())
    if unknown:
        raise InputError(
            "rename", f"names {unknown[0]}, which is not in the file", f"it has {', '.join(tokens)}"
        )
    named: dict[str, Tensor] = {}
    for token, vector in tokens.items():
        name = description.token or description.rename.get(token) or spelled(token)
        name = name or spelled(stem) or "<concept>"
        if name in named:
            raise InputError("rename", f"gives two tokens the name {name}", "give each its own")
        named[name] = vector
    return named


def _flat(vectors: Tensor) -> Tensor:
    """[width] of [1, width]; other shapes as they are."""
    return vectors[0] if vectors.ndim == 2 and len(vectors) == 1 else vectors


def _files(sources: Sequence[Path]) -> list[Path]:
    """Each file that is meant; of twins in a folder, the one that is no pickle."""
    files: list[Path] = []
    for source in sources:
        if not source.is_dir():
            files.append(source)
            continue
        safe = {p.stem: p for k in _NAMES for p in sorted(source.glob(f"{k}.safetensors"))}
        pickled = {p.stem: p for k in _NAMES for p in sorted(source.glob(f"{k}.bin"))}
        chosen = embeddings.final_files([*{**pickled, **safe}.values()])
        chosen = chosen or _only_file(source)
        deltas = [p for p in chosen if "delta" in p.stem]
        if len(deltas) > 1:
            raise InputError(
                "concept", f"{source} holds {len(deltas)} deltas", "give one of the files itself"
            )
        files += chosen
    if not files:
        raise InputError("concept", "no file is given", "give a folder or files")
    return files


def _only_file(folder: Path) -> list[Path]:
    """The one file of weights in a folder whose files have none of the usual names."""
    files = sorted(p for p in folder.iterdir() if p.suffix in _SUFFIXES and p.is_file())
    if (folder / "model_index.json").exists():
        raise InputError("concept", f"{folder} is a whole base", "give it with --base")
    if len(files) != 1:
        raise InputError(
            "concept",
            f"{folder} holds no file named like diffusers' ({diffusers.DIFFUSERS_WEIGHTS}.*, "
            "<token>.*, learned_embeds.*, pytorch_lora_weights.*) or adobe's (delta.bin)",
            "give the file itself",
        )
    return files


@contextmanager
def _unpacked(sources: Sequence[Path], most: int, parent: Path | None) -> Iterator[list[Path]]:
    """``sources``, with a folder in the place of each zip while it is read."""
    for source in sources:
        if not source.is_dir():
            refuse_other_files(source)
    if not any(is_zip_of_files(p) for p in sources):
        yield list(sources)
        return
    with tempfile.TemporaryDirectory(prefix="customedit-", dir=parent) as scratch:
        folders = {p: Path(scratch) / str(k) for k, p in enumerate(sources) if is_zip_of_files(p)}
        try:
            yield [_unpack(p, folders[p], most) if p in folders else p for p in sources]
        except InputError as error:
            problem = error.problem
            for path, folder in folders.items():  # users know the zip, not where it is unpacked
                problem = problem.replace(str(folder), str(path))
            raise InputError(error.field, problem, error.remedy) from None


def _unpack(path: Path, folder: Path, most: int) -> Path:
    """The weights in a zip as plain files of one folder.

    Only the last part of a name is used, so that none climbs out; sizes are counted while they are
    read, since what a zip says of itself need not be true.

    Raises:
        InputError: for a damaged zip, and for too many files or bytes.
    """
    folder.mkdir()
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
            chosen = [i for i in infos if i.filename.endswith((*_SUFFIXES, lora.PEFT_CONFIG))]
            if not 1 <= len(chosen) <= MOST_FILES:
                raise InputError(
                    "concept",
                    f"{path} holds {len(chosen)} files of weights",
                    f"pack 1 to {MOST_FILES} of {', '.join(_SUFFIXES)}",
                )
            left = most
            for info in chosen:
                name = Path(info.filename.replace("\\", "/")).name
                with archive.open(info) as source, (folder / name).open("xb") as out:
                    while part := source.read(1 << 20):
                        left -= len(part)
                        if left < 0:
                            raise InputError(
                                "concept", f"{path} unpacks to over {most} bytes", "leave files out"
                            )
                        out.write(part)
    except (
        zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError, ValueError
    ) as error:  # fmt: skip
        if isinstance(error, InputError):
            raise
        raise InputError("concept", f"{path} is a damaged zip ({error})", "pack it again") from None
    return folder


def _is_own(path: Path) -> bool:
    refuse_other_files(path)
    return is_safetensors(path) and is_own(read_header(path).metadata)


def _sorted(state: StateDict, base: Base | None) -> tuple[str, Parts]:
    """What one file is called, and what it brings; told by the names of its entries."""
    entries, path = state.entries, state.path
    if "unet" in entries or "modifier_token" in entries:
        base_weights = None if base is None else base.weights
        return "Custom Diffusion (adobe)", adobe.read_delta(entries, path, base_weights)
    if any("custom_diffusion" in k for k in entries):
        return "Custom Diffusion (diffusers)", Parts({}, diffusers.read_weights(entries, path))
    parts = None if base is None else base.family.embedding_parts
    tokens = embeddings.read_embeddings(state, parts)
    if tokens is not None:
        return "textual inversion", Parts(tokens, {})
    if "state_dict" in entries:
        raise InputError(
            "concept",
            f"{path} is of adobe's first code, on CompVis' Stable Diffusion",
            "turn it into diffusers' with src/convert.py of adobe-research/custom-diffusion",
        )
    raise InputError(
        "concept",
        f"{path} is of no known kind (it has {sorted(entries)[:3]})",
        "give Custom Diffusion weights, a textual-inversion embedding or a LoRA",
    )


def _of_part(weights: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    """Layer to weight of ``part``, to_k or to_v."""
    end = f".{part}.weight"
    return {n.removesuffix(end): w for n, w in weights.items() if n.endswith(end)}
