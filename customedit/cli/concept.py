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
def import_command(
    sources: Annotated[
        list[Path],
        typer.Argument(
            help="A folder, files or a zip: Custom Diffusion of diffusers or adobe, textual "
            "inversion, LoRA."
        ),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="The concept file.")],
    noun: Annotated[str, typer.Option(help="What its references showed.")] = "",
    attribute: Annotated[str, typer.Option(help="What of them was learned.")] = "",
    prompt: Annotated[
        list[str] | None, typer.Option(help="It was trained with; repeatable.")
    ] = None,
    token: Annotated[str, typer.Option(help="How prompts will name it, like <plaid>.")] = "",
    rename: Annotated[
        list[str] | None, typer.Option(help="OLD=<new>, for files of several tokens.")
    ] = None,
    allow_unused: Annotated[
        bool, typer.Option(help="Take a LoRA of which not all is used, or without effect.")
    ] = False,
    base: console.BaseOption = "mini",
    as_json: console.JsonOption = False,
) -> None:
    """Read a concept of another program, prove that the base can use it, and write our own file."""
    with console.mendable():
        from customedit.concepts.effect import prove_effect
        from customedit.concepts.files import Description, load_concept
        from customedit.diffusion.engine import run

        names = dict(_renamed(text) for text in rename or [])
        model = console.load_base(base, "cpu", "float32")
        description = Description(
            noun, attribute, prompts=tuple(prompt or ()), token=token, rename=names
        )
        read = load_concept(sources, model, description, allow_unused=allow_unused)
        concept = run(model, prove_effect(model, read, allow_none=allow_unused))
        concept.save(out)
    about = concept.recipe.get("imported", {})
    told = {
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
    console.say(told, lines, as_json)


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
        int | None, typer.Option(help="Of kohya's or adobe's low rank; all of it by default.")
    ] = None,
    base: console.BaseOption = "mini",
    as_json: console.JsonOption = False,
) -> None:
    """Write a concept for stock diffusers, adobe's code, or (kohya) A1111, ComfyUI and InvokeAI."""
    with console.mendable():
        from customedit.concepts.concept import Concept
        from customedit.concepts.files import save_concept

        model = console.load_base(base, "cpu", "float32")
        concept = Concept.load(file, model.weights).for_base(model)
        saved = save_concept(concept, out, model, form, rank=rank)
    files = [str(p) for p in saved.files]
    lines = list(files)
    if form in ("kohya", "adobe-compressed") and concept.keys:
        lines.append(f"changes of keys and values off by {100 * saved.error:.2g} %")
    console.say({"files": files, "error": saved.error}, lines, as_json)


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
        concept = Concept.load(file, model.weights).for_base(model)
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
        from customedit.concepts.concept import Concept
        from customedit.concepts.merge import merge_on_base

        model = console.load_base(base, "cpu", "float32")
        concepts = [Concept.load(p, model.weights).for_base(model) for p in files]
        merged = merge_on_base(model, concepts)
        merged.save(out)
    told = {"concept": str(out), "tokens": sorted(merged.tokens)}
    console.say(told, [f"{out}: {', '.join(sorted(merged.tokens))}"], as_json)


def _renamed(text: str) -> tuple[str, str]:
    old, _, new = text.rpartition("=")
    if not old or not new:
        raise InputError("rename", f"{text!r} is not OLD=<new>", "write it like sks=<sks>")
    return old, new
