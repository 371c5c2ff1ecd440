"""``customedit concept``: show, import, export, compress and merge concept files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from customedit.cli import console
from customedit.errors import InputError

app = typer.Typer(
    help="Concept files: show, import, export, compress, merge.", no_args_is_help=True
)

File = Annotated[Path, typer.Argument(help="A concept file.")]


@app.command("show")
def show_command(
    file: File,
    base: Annotated[
        str | None, typer.Option(help="The base it was made for; for compressed files only.")
    ] = None,
    as_json: console.JsonOption = False,
) -> None:
    """Tell what a concept file holds."""
    with console.mendable():
        from customedit.concepts.concept import Concept

        weights = console.load_base(base, "cpu", "float32").weights if base else None
        concept = Concept.load(console.existing(file, "file"), weights)
    about: dict[str, Any] = {
        "file": str(file),
        "bytes": file.stat().st_size,
        "tokens": sorted(concept.tokens),
        "noun": concept.noun,
        "attribute": concept.attribute,
        "base": concept.base,
        "layers": len(concept.keys),
        "numbers": sum(
            t.numel()
            for part in (concept.tokens, concept.keys, concept.values)
            for t in part.values()
        ),
        "images": concept.images,
        "prompts": list(concept.prompts),
        "recipe": dict(concept.recipe),
    }
    console.say(about, [f"{k:<10} {v}" for k, v in about.items()], as_json)


@app.command("import")
def import_command(
    sources: Annotated[
        list[Path], typer.Argument(help="A folder or files of diffusers, or adobe's delta.bin.")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="The concept file.")],
    noun: Annotated[str, typer.Option(help="What its references showed.")] = "",
    attribute: Annotated[str, typer.Option(help="What of them was learned.")] = "",
    prompt: Annotated[
        list[str] | None, typer.Option(help="It was trained with; repeatable.")
    ] = None,
    rename: Annotated[
        list[str] | None, typer.Option(help="OLD=<new>, for tokens not spelt like <name>.")
    ] = None,
    base: console.BaseOption = "mini",
    as_json: console.JsonOption = False,
) -> None:
    """Read a concept of diffusers or adobe, check it against its base, and write our own file."""
    with console.mendable():
        from customedit.concepts.files import formats

        model = console.load_base(base, "cpu", "float32")
        names = dict(_renamed(text) for text in rename or [])
        unsaid = formats.Unsaid(
            noun, attribute, model.concept_fingerprint, tuple(prompt or ()), rename=names
        )
        concept = formats.load(sources, unsaid, base_weights=model.weights).for_base(model)
        concept.save(out)
    told = {"concept": str(out), "tokens": sorted(concept.tokens), "layers": len(concept.keys)}
    console.say(told, [f"{out}: {', '.join(sorted(concept.tokens))}"], as_json)


@app.command("export")
def export_command(
    file: File,
    out: Annotated[Path, typer.Option("-o", "--out", help="A folder; for adobe, a file.")],
    form: Annotated[
        str, typer.Option("--format", help="diffusers, diffusers-bin, adobe, adobe-compressed.")
    ] = "diffusers",
    base: console.BaseOption = "mini",
    as_json: console.JsonOption = False,
) -> None:
    """Write a concept for stock diffusers or adobe's code."""
    with console.mendable():
        from customedit.concepts import compress
        from customedit.concepts.concept import Concept
        from customedit.concepts.files import formats

        if form not in ("diffusers", "diffusers-bin", "adobe", "adobe-compressed"):
            raise InputError("format", f"{form!r} is none", "see --help")
        model = console.load_base(base, "cpu", "float32")
        concept = Concept.load(console.existing(file, "file"), model.weights).for_base(model)
        written = [out]
        if form == "adobe":
            formats.save_adobe(concept, out)
        elif form == "adobe-compressed":
            formats.save_adobe_compressed(compress.compress(concept, model.weights), out)
        else:
            out.mkdir(parents=True, exist_ok=True)
            suffix: formats.Suffix = ".bin" if form == "diffusers-bin" else ".safetensors"
            written = formats.save_diffusers(concept, out, suffix=suffix, layers=model.layers)
    console.say({"files": [str(p) for p in written]}, [str(p) for p in written], as_json)


@app.command("compress")
def compress_command(
    file: File,
    out: Annotated[Path, typer.Option("-o", "--out", help="The smaller file.")],
    keep: Annotated[float, typer.Option(help="Share of the singular values' sum to keep.")] = 0.6,
    rank: Annotated[int | None, typer.Option(help="The same rank everywhere, instead.")] = None,
    base: console.BaseOption = "mini",
    as_json: console.JsonOption = False,
) -> None:
    """Keep a concept's changes at low rank, and say by how much they are off."""
    with console.mendable():
        from customedit.concepts import compress
        from customedit.concepts.concept import Concept

        model = console.load_base(base, "cpu", "float32")
        concept = Concept.load(console.existing(file, "file"), model.weights).for_base(model)
        small = compress.compress(concept, model.weights, keep=keep, rank=rank)
        small.save(out)
    before, after = file.stat().st_size, out.stat().st_size
    told = {"concept": str(out), "bytes": after, "of": before, "error": small.error}
    line = f"{out}: {after} of {before} bytes, changes off by {100 * small.error:.1f} %"
    console.say(told, [line], as_json)


@app.command("merge")
def merge_command(
    files: Annotated[list[Path], typer.Argument(help="Two or more concept files of one base.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The concept that knows all.")],
    base: console.BaseOption = "mini",
    as_json: console.JsonOption = False,
) -> None:
    """Merge concepts in closed form (Custom Diffusion, section 3.2)."""
    with console.mendable():
        from customedit.concepts import features, merge
        from customedit.concepts.concept import Concept

        model = console.load_base(base, "cpu", "float32")
        paths = [console.existing(f, "files") for f in files]
        concepts = [Concept.load(p, model.weights).for_base(model) for p in paths]
        regular = features.caption_features(model, model.profile.captions)
        own = [features.concept_features(model, c) for c in concepts]
        merged = merge.merge(concepts, model.weights, regular, own)
        merged.save(out)
    told = {"concept": str(out), "tokens": sorted(merged.tokens)}
    console.say(told, [f"{out}: {', '.join(sorted(merged.tokens))}"], as_json)


def _renamed(text: str) -> tuple[str, str]:
    old, _, new = text.rpartition("=")
    if not old or not new:
        raise InputError("rename", f"{text!r} is not OLD=<new>", "write it like sks=<sks>")
    return old, new
