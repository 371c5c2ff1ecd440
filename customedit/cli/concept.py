"""``customedit concept``: show, import, export, compress and merge concept files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from customedit.cli import console, outputs
from customedit.cli.options import Options, model_options
from customedit.errors import InputError
from customedit.schemas.concepts import ImportForm

app = typer.Typer(
    help="Concept files: show, import, export, compress, merge.", no_args_is_help=True
)

File = Annotated[Path, typer.Argument(help="A concept file.")]

_SUFFIXES: Final = (".safetensors",)
_FOLDERS: Final = ("diffusers", "diffusers-bin", "kohya")
"""The formats that are folders."""


@app.command("show")
def show_command(
    file: File,
    base: Annotated[
        str | None, typer.Option(help="The base it was made for; for compressed files only.")
    ] = None,
    as_json: console.JsonOption = False,
) -> None:
    """Show what a concept file holds."""
    from customedit.concepts.concept import Concept

    _check_concepts(file)
    weights = console.load_base(base, "cpu", "float32").weights if base else None
    concept = Concept.load(file, weights)
    about: dict[str, Any] = {
        "file": str(file),
        "bytes": file.stat().st_size,
        "tokens": sorted(concept.tokens),
        "noun": concept.noun,
        "attribute": concept.attribute,
        "base": concept.base,
        "columns": {t: len(v) if v.ndim == 2 else 1 for t, v in concept.tokens.items()},
        "layers": len(concept.keys),
        "adapters": len(concept.adapters),
        "numbers": sum(t.numel() for t in concept.tensors.values()),
        "digest": concept.digest,
        "images": concept.images,
        "prompts": list(concept.prompts),
        "recipe": dict(concept.recipe),
    }
    console.say(about, [f"{k:<10} {v}" for k, v in about.items()], as_json)


@app.command("import")
@model_options(words=Options(ImportForm, leave_out=("name", "webhook")))
def import_command(
    sources: Annotated[
        list[Path],
        typer.Argument(
            help="A folder, files or a zip: Custom Diffusion of diffusers or adobe, textual "
            "inversion, LoRA."
        ),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="The concept file.")],
    words: ImportForm,
    prompt: Annotated[
        list[str] | None, typer.Option(help="A prompt it was trained with; repeatable.")
    ] = None,
    rename: Annotated[
        list[str] | None, typer.Option(help="OLD=<new>, for files of several tokens; repeatable.")
    ] = None,
    force: outputs.ForceOption = False,
    base: console.BaseOption = "mini",
    as_json: console.JsonOption = False,
) -> None:
    """Read a concept of another program, prove that the base can use it, and write our own file."""
    outputs.check_file(out, force, suffixes=_SUFFIXES)
    names = dict(_renamed(text) for text in rename or [])
    _check_sources(sources)
    from customedit.concepts.effect import prove_effect
    from customedit.concepts.files import Description, load_concept
    from customedit.diffusion.engine import run

    model = console.load_base(base, "cpu", "float32")
    description = Description(
        words.noun,
        words.attribute,
        prompts=tuple(prompt or ()),
        token=words.token or "",
        rename=names,
    )
    read = load_concept(sources, model, description, allow_unused=words.allow_unused)
    concept = run(model, prove_effect(model, read, allow_none=words.allow_unused))
    concept.save(out)
    about = concept.recipe.get("imported", {})
    document = {
        "concept": str(out),
        "tokens": sorted(concept.tokens),
        "layers": len(concept.keys),
        "adapters": len(concept.adapters),
        "imported": about,
    }
    lines = [f"{out}: {', '.join(sorted(concept.tokens))}, {about.get('kind', 'a concept')}"]
    if "layers" in about:
        lines.append(f"{about['layers_used']} of {about['layers']} layers of the LoRA are used")
    if about.get("effect"):
        lines.append(f"its weights change the base's prediction by {100 * about['effect']:.2g} %")
    console.say(document, lines, as_json)


@app.command("export")
def export_command(
    file: File,
    out: Annotated[Path, typer.Option("-o", "--out", help="A folder; for adobe, a file.")],
    form: Annotated[
        str,
        typer.Option(
            "--format", help="diffusers, diffusers-bin, adobe, adobe-compressed, kohya, own."
        ),
    ] = "diffusers",
    rank: Annotated[
        int | None,
        typer.Option(help="The rank of the factors of kohya and adobe-compressed."),
    ] = None,
    force: outputs.ForceOption = False,
    base: console.BaseOption = "mini",
    as_json: console.JsonOption = False,
) -> None:
    """Write a concept for stock diffusers, adobe's code, or (kohya) A1111, ComfyUI and InvokeAI."""
    from customedit.concepts.files import FORMATS, save_concept

    if form not in FORMATS:
        raise InputError("format", f"{form!r} is unknown", f"use one of {', '.join(FORMATS)}")
    if form in _FOLDERS:
        outputs.check_folder(out, force)
    else:
        outputs.check_file(out, force, suffixes=_SUFFIXES if form == "own" else ())
    _check_concepts(file)
    from customedit.concepts.concept import Concept

    model = console.load_base(base, "cpu", "float32")
    concept = Concept.load(file, model.weights).for_base(model)
    saved = save_concept(concept, out, model, form, rank=rank)
    for warning in saved.warnings:
        console.warn(warning)
    if form in _FOLDERS:
        _remove_twins(saved.files)
    files = [str(p) for p in saved.files]
    lines = list(files)
    if form in ("kohya", "adobe-compressed") and concept.keys:
        lines.append(f"changes of keys and values off by {100 * saved.error:.2g} %")
    console.say({"files": files, "error": saved.error}, lines, as_json)


@app.command("compress")
def compress_command(
    file: File,
    out: Annotated[Path, typer.Option("-o", "--out", help="The smaller file.")],
    keep: Annotated[
        float | None,
        typer.Option(help="Share of the singular values' sum to keep; 0.6 if left out."),
    ] = None,
    rank: Annotated[
        int | None, typer.Option(help="The same rank for every layer, instead of --keep.")
    ] = None,
    force: outputs.ForceOption = False,
    base: console.BaseOption = "mini",
    as_json: console.JsonOption = False,
) -> None:
    """Keep a concept's changes at low rank, and say by how much they are off."""
    outputs.check_file(out, force, suffixes=_SUFFIXES)
    _check_concepts(file)
    if keep is not None and rank is not None:
        raise InputError("keep", "has no effect with --rank", "give one of the two")
    from customedit.concepts import compress
    from customedit.concepts.concept import Concept

    model = console.load_base(base, "cpu", "float32")
    concept = Concept.load(file, model.weights).for_base(model)
    small = compress.compress(concept, model.weights, keep=0.6 if keep is None else keep, rank=rank)
    small.save(out)
    before, after = file.stat().st_size, out.stat().st_size
    document = {"concept": str(out), "bytes": after, "of": before, "error": small.error}
    line = f"{out}: {after} of {before} bytes, changes off by {100 * small.error:.1f} %"
    console.say(document, [line], as_json)


@app.command("merge")
def merge_command(
    files: Annotated[list[Path], typer.Argument(help="Two or more concept files of one base.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The merged concept file.")],
    force: outputs.ForceOption = False,
    base: console.BaseOption = "mini",
    as_json: console.JsonOption = False,
) -> None:
    """Merge concepts in closed form (Custom Diffusion, section 3.2)."""
    outputs.check_file(out, force, suffixes=_SUFFIXES)
    if len(files) < 2:
        raise InputError("files", "are one", "give two or more concept files")
    _check_concepts(*files)
    from customedit.concepts.concept import Concept
    from customedit.concepts.merge import merge_on_base

    model = console.load_base(base, "cpu", "float32")
    concepts = [Concept.load(p, model.weights).for_base(model) for p in files]
    merged = merge_on_base(model, concepts)
    merged.save(out)
    document = {"concept": str(out), "tokens": sorted(merged.tokens)}
    console.say(document, [f"{out}: {', '.join(sorted(merged.tokens))}"], as_json)


def _renamed(text: str) -> tuple[str, str]:
    old, _, new = text.rpartition("=")
    if not old or not new:
        raise InputError("rename", f"{text!r} is not OLD=<new>", "write it like sks=<sks>")
    return old, new


def _check_concepts(*files: Path) -> None:
    """Check that files are concepts of ours, before a base is loaded. Raises InputError."""
    from customedit.concepts.files.identify import refuse_for_editing

    for file in files:
        refuse_for_editing(file)


def _check_sources(sources: list[Path]) -> None:
    """Check what can be seen of files to import before a base is loaded. Raises InputError."""
    from customedit.concepts.files import identify

    for source in sources:
        if source.is_dir():
            continue
        identify.refuse_other_files(source)
        if identify.is_safetensors(source):
            identify.refuse_models(identify.read_header(source).names, source)


def _remove_twins(files: Sequence[Path]) -> None:
    """Remove the files of a former export that differ from ``files`` in the suffix alone.

    Programs prefer a .safetensors to a .bin beside it, and would read the former export.
    """
    for file in files:
        for suffix in {".bin", ".safetensors"} - {file.suffix}:
            file.with_suffix(suffix).unlink(missing_ok=True)
