"""``customedit customize``: references in, a concept file out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from customedit.cli import console
from customedit.cli.options import Options, model_options
from customedit.errors import InputError
from customedit.schemas.requests import ConceptWords, TrainingOptions, reference_warnings

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL import Image

    from customedit.concepts.dataset import Subject
    from customedit.concepts.training import Preview
    from customedit.diffusion.base import Base
    from customedit.diffusion.engine import Progress


@model_options(
    words=ConceptWords,
    training=Options(TrainingOptions, leave_out=("preview_every", "checkpoint_every")),
)
def customize_command(
    references: Annotated[
        list[Path], typer.Argument(help="Reference images, or folders of them; 3 to 6 are best.")
    ],
    words: ConceptWords,
    training: TrainingOptions,
    out: Annotated[Path, typer.Option("-o", "--out", help="The concept file.")] = Path(
        "concept.safetensors"
    ),
    also: Annotated[
        list[str] | None,
        typer.Option(help="A second look, learned together: FOLDER:NOUN:TOKEN[:ATTRIBUTE]."),
    ] = None,
    base: console.BaseOption = "mini",
    checkpoint: Annotated[
        Path | None, typer.Option(help="Kept while training and resumed if it is there.")
    ] = None,
    previews: Annotated[
        Path | None, typer.Option(help="A folder for pictures of what is learned so far.")
    ] = None,
    preview_every: Annotated[
        int, typer.Option(min=1, help="Steps from one of those pictures to the next.")
    ] = 50,
    device: console.DeviceOption = "cpu",
    dtype: console.DtypeOption = "float32",
    as_json: console.JsonOption = False,
) -> None:
    """Learn a look from reference images and write it as a concept file."""
    with console.mendable():
        pictures = [console.read_image(p, "references") for p in listed(references)]
        from customedit.concepts.dataset import Subject, check_subjects
        from customedit.concepts.prompts import ConceptPrompts
        from customedit.concepts.settings import TrainingSettings
        from customedit.concepts.training import train_concepts
        from customedit.diffusion.engine import run

        if not out.parent.is_dir():
            raise InputError("out", f"{out.parent} is no folder", "make it, or mend the path")
        prompts = ConceptPrompts(words.token, words.noun, words.attribute)
        subjects = [Subject(pictures, prompts), *(another(given) for given in also or [])]
        check_subjects(subjects)
        model = console.load_base(base, device, dtype)
        chosen = training.model_dump() | {"preview_every": preview_every if previews else None}
        settings = TrainingSettings.of(model, **chosen)
        with console.bars(as_json) as shown:
            heard = shown if previews is None else keeping(previews, shown)
            method = train_concepts(
                model,
                subjects,
                settings,
                resume=checkpoint,
                class_cache=console.keeping() / "classes",
                preview=None
                if previews is None
                else drawn(model, prompts.instance(), settings.seed),
            )
            concept = run(model, method, heard)
        concept.save(out)
    final = concept.recipe["final"]
    lines = [
        f"{out}: {', '.join(concept.tokens)} learned from {concept.images} images "
        f"in {settings.steps} steps",
        *(f"name it in prompts: a photo of a {s.prompts.thing()}" for s in subjects),
    ]
    lines += reference_warnings(min(len(s.references) for s in subjects))
    told = {
        "concept": str(out),
        "tokens": list(concept.tokens),
        "images": concept.images,
        "final": final,
    }
    console.say(told, lines, as_json)


def drawn(base: Base, prompt: str, seed: int) -> Preview:
    """What a training shows of itself: a picture for ``prompt``, drawn in between."""
    from customedit.concepts.training import TrainableConcept
    from customedit.diffusion.engine import run
    from customedit.editing.sdedit import portrait

    def preview(trained: TrainableConcept) -> Image.Image:
        return run(base, portrait(base, trained.snapshot(), prompt, seed=seed))

    return preview


def keeping(folder: Path, heard: Callable[[Progress], None]) -> Callable[[Progress], None]:
    """``heard``, and the pictures that come with progress written into ``folder``."""
    from customedit import images

    folder.mkdir(parents=True, exist_ok=True)

    def hear(progress: Progress) -> None:
        if progress.preview is not None:
            images.write(progress.preview, folder / f"step-{progress.step:05}.png")
        heard(progress)

    return hear


def another(given: str) -> Subject:
    """``FOLDER:NOUN:TOKEN[:ATTRIBUTE]`` as a subject. Raises InputError for anything else."""
    from customedit.concepts.dataset import Subject
    from customedit.concepts.prompts import ConceptPrompts

    parts = given.split(":")
    if len(parts) not in (3, 4):
        raise InputError("also", f"{given!r} cannot be read", "write FOLDER:NOUN:TOKEN[:ATTRIBUTE]")
    folder, noun, token, *attribute = parts
    pictures = [console.read_image(p, "also") for p in listed([Path(folder)])]
    return Subject(pictures, ConceptPrompts(token, noun, *(attribute or ["patterned"])))


def listed(paths: list[Path]) -> list[Path]:
    """Files, and the pictures in folders, in order; what is left out of a folder is told.

    Raises InputError for what is neither.
    """
    from customedit.images.reading import list_pictures, name_some

    out: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = list_pictures(path, field="references")
            if inside.left_out:
                left_out = name_some(inside.left_out)
                console.warn(f"left out of {path}, being no PNG, JPEG or WebP: {left_out}")
            out += inside.pictures
        else:
            out.append(console.existing(path, "references"))
    return out
