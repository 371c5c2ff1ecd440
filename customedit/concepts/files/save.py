"""Concepts written for other programs, or as our own file, by one function."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, get_args

from safetensors.torch import save_file

from customedit.concepts.compress import compress
from customedit.concepts.concept import Concept
from customedit.concepts.files.adobe import save_adobe, save_adobe_compressed
from customedit.concepts.files.diffusers import Suffix, save_diffusers
from customedit.concepts.files.embeddings import save_embedding
from customedit.concepts.files.entries import portable
from customedit.concepts.files.lora import lora_entries
from customedit.diffusion.adapters import UNET, Adapter, LowRank
from customedit.errors import InputError
from customedit.files import replacing

if TYPE_CHECKING:
    from customedit.diffusion.base import Base

Format = Literal["own", "diffusers", "diffusers-bin", "adobe", "adobe-compressed", "kohya"]
FORMATS: Final[tuple[Format, ...]] = get_args(Format)


@dataclass(frozen=True)
class Saved:
    """What was written.

    files: in order; error: of the changes of the weights, relative Frobenius norm of what was lost,
    0 where all was kept; warnings: what the format cannot say.
    """

    files: tuple[Path, ...]
    error: float = 0.0
    warnings: tuple[str, ...] = ()


def save_concept(
    concept: Concept,
    path: Path,
    base: Base,
    form: str = "own",
    *,
    rank: int | None = None,
    keep: float | None = None,
) -> Saved:
    """Write ``concept`` in one of ``FORMATS``; ``path`` is a file, or a folder for several files.

    | form | path | what |
    |---|---|---|
    | own | file | everything |
    | diffusers, diffusers-bin | folder | Custom Diffusion's weights, embeddings, a LoRA |
    | adobe, adobe-compressed | file | ``delta.bin`` |
    | kohya | folder | a LoRA for A1111, ComfyUI, InvokeAI and diffusers, and embeddings |

    base: the one that it was made for. rank, keep: of the low rank that adobe-compressed and kohya
    are cut to (``compress.compress``): by default adobe-compressed keeps 0.6 of the singular
    values' sum, and kohya everything.

    Raises:
        InputError: for an unknown format or one that the base's family lacks, a rank or share where
            it has no effect, adapters in a format that has none, numbers that are not finite.
    """
    if form not in FORMATS:
        raise InputError("format", f"{form!r} is unknown", f"use one of {', '.join(FORMATS)}")
    base.family.require(form, "format")
    if (rank is not None or keep is not None) and form not in ("adobe-compressed", "kohya"):
        raise InputError("rank", f"has no effect on {form}", "leave it out, or choose kohya")
    if concept.adapters and form.startswith("adobe"):
        raise InputError("format", f"{form} has no place for adapters", "choose kohya or diffusers")
    if form == "own":
        concept.save(path)
        return Saved((path,))
    saved = _save_foreign(concept, path, base, form, rank, keep)
    if concept.columns == "prompt" or not (concept.keys or concept.adapters):
        return saved
    return dataclasses.replace(saved, warnings=(WHOLE_PROMPT,))


WHOLE_PROMPT: Final = (
    "the concept's keys and values act on the whole prompt; here they act on the columns of its "
    "token alone, so that pictures of other programs differ"
)


def _save_foreign(
    concept: Concept, path: Path, base: Base, form: str, rank: int | None, keep: float | None
) -> Saved:
    if form == "adobe":
        save_adobe(concept, path)
        return Saved((path,))
    if form == "adobe-compressed":
        thin = compress(concept, base.weights, keep=keep or 0.6, rank=rank)
        save_adobe_compressed(thin, path)
        return Saved((path,), thin.error)
    path.mkdir(parents=True, exist_ok=True)
    if form == "kohya":
        return save_kohya(concept, path, base, rank=rank, keep=1.0 if keep is None else keep)
    suffix: Suffix = ".bin" if form == "diffusers-bin" else ".safetensors"
    parts = base.family.embedding_parts
    files = save_diffusers(concept, path, suffix=suffix, layers=base.layers, parts=parts)
    return Saved(tuple(files))


def save_kohya(
    concept: Concept, folder: Path, base: Base, *, rank: int | None = None, keep: float = 1.0
) -> Saved:
    """Write ``{name}-lora.safetensors`` and an embedding for each token, named as it is typed.

    The changes of keys and values become factors by singular value decomposition; ``Saved.error``
    says what that lost. Other programs apply a LoRA to every prompt, ours to those that name the
    concept.

    Raises:
        InputError: as ``compress`` does.
    """
    adapters: dict[str, Adapter] = dict(concept.adapters)
    error = 0.0
    if concept.keys:
        thin = compress(concept, base.weights, keep=keep, rank=rank)
        error = thin.error
        for name, factors in thin.factors.items():
            if not factors.rank:
                continue
            if f"{UNET}{name}" in adapters:
                raise InputError(
                    "format",
                    f"kohya has one change of a layer, {name} has two",
                    "export with diffusers",
                )
            adapters[f"{UNET}{name}"] = LowRank(factors.up, factors.down)
    names = {t: t.strip("<>") for t in concept.tokens}
    parts = base.family.embedding_parts
    first = next(iter(names.values()))
    files: list[Path] = []
    if adapters:
        files.append(folder / f"{first}-lora.safetensors")
        with replacing(files[0]) as draft:
            save_file(portable(lora_entries(adapters, len(parts))), draft, {"format": "pt"})
    for token, vectors in concept.tokens.items():
        if vectors.numel():
            files.append(folder / f"{names[token]}.safetensors")
            save_embedding(vectors, files[-1], parts)
    return Saved(tuple(files), error)
