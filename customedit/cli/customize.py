"""``customedit customize``: references in, a concept file out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from customedit.cli import console, outputs
from customedit.cli.options import Options, model_options
from customedit.errors import InputError
from customedit.schemas.concepts import (
    FOCUS_BESIDE_MASKS,
    ConceptWords,
    TrainingOptions,
    reference_warnings,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL import Image

    from customedit.concepts.dataset import Subject
    from customedit.concepts.training import Preview
    from customedit.diffusion.base import Base
    from customedit.diffusion.method import Progress

_PREVIEWS: Final = r"step-\d+\.png"
"""The names of previews."""


@model_options(
    words=Options(ConceptWords, names={"nouns": "--reference-noun"}),
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
    masks: Annotated[
        list[Path] | None,
        typer.Option(
            "--mask",
            help="White where a reference has the look, one for each, in their order: it is "
            "learned there alone.",
        ),
    ] = None,
    also: Annotated[
        list[str] | None,
        typer.Option(help="A second look, learned together: FOLDER:NOUN:TOKEN[:ATTRIBUTE]."),
    ] = None,
    base: console.BaseOption = "mini",
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="Written while training; a training goes on from it if it exists."),
    ] = None,
    previews: Annotated[
        Path | None, typer.Option(help="A folder for pictures of what is learned so far.")
    ] = None,
    preview_every: Annotated[
        int | None,
        typer.Option(min=1, help="Steps from one of those pictures to the next; 50 if left out."),
    ] = None,
    force: outputs.ForceOption = False,
    device: console.DeviceOption = "cpu",
    dtype: console.DtypeOption = "float32",
    as_json: console.JsonOption = False,
) -> None:
    """Learn a look from reference images and write it as a concept file."""
    outputs.check_file(out, force, suffixes=[".safetensors"])
    if masks and training.focus == "noun":
        raise InputError("focus", FOCUS_BESIDE_MASKS, "leave it out")
    resumed = checkpoint is not None and _check_checkpoint(checkpoint)
    if previews is None and preview_every is not None:
        raise InputError("preview-every", "has no effect without --previews", "give both")
    if previews is not None:
        outputs.check_folder(previews, force, field="previews", ours=_PREVIEWS, resumable=resumed)
    pictures = [console.read_image(p, "references") for p in listed(references)]
    regions = read_masks(masks or [], pictures)
    from customedit.concepts.dataset import Subject, check_subjects
    from customedit.concepts.prompts import ConceptPrompts
    from customedit.concepts.settings import TrainingSettings
    from customedit.concepts.shown_nouns import noun_warnings
    from customedit.concepts.training import train_concepts
    from customedit.diffusion.engine import run

    prompts = ConceptPrompts(words.token, words.noun, words.attribute)
    own = Subject(pictures, prompts, words.nouns, regions)
    subjects = [own, *(another(given) for given in also or [])]
    check_subjects(subjects)
    model = console.load_base(base, device, dtype)
    every = (preview_every or 50) if previews else None
    settings = TrainingSettings.of(model, **training.model_dump() | {"preview_every": every})
    for warning in reference_warnings(min(len(s.references) for s in subjects)):
        console.warn(warning)
    for warning in [w for s in subjects for w in run(model, noun_warnings(model, s))]:
        console.warn(warning)
    with console.bars(as_json) as show:
        method = train_concepts(
            model,
            subjects,
            settings,
            resume=checkpoint,
            class_cache=console.cache_folder() / "classes",
            preview=draw_preview(model, prompts.instance(), settings.seed) if previews else None,
        )
        concept = run(model, method, write_previews(previews, resumed, show) if previews else show)
    concept.save(out)
    lines = [
        f"{out}: {', '.join(concept.tokens)} learned from {concept.images} images "
        f"in {settings.steps} steps",
        *(f"name it in prompts: a photo of a {s.prompts.thing()}" for s in subjects),
    ]
    document = {
        "concept": str(out),
        "tokens": list(concept.tokens),
        "images": concept.images,
        "final": concept.recipe["final"],
    }
    console.say(document, lines, as_json)


def read_masks(paths: list[Path], pictures: list[Image.Image]) -> list[Image.Image]:
    """Masks of references, in their order, mode F in [0, 1].

    Raises InputError for one that cannot be used.
    """
    if not paths:
        return []
    if len(paths) != len(pictures):
        raise InputError(
            "mask", f"are {len(paths)} for {len(pictures)} references", "give one for each, or none"
        )
    from PIL import Image

    found = [console.read_mask(p, i.size) for p, i in zip(paths, pictures, strict=True)]
    return [Image.fromarray(m.numpy()) for m in found]


def _check_checkpoint(path: Path) -> bool:
    """Whether a training goes on from ``path``.

    Raises:
        InputError: for a file that is not a checkpoint, or cannot be written.
    """
    outputs.check_file(path, force=True, field="checkpoint")
    if not path.exists():
        return False
    from customedit.concepts.files.identify import is_safetensors, read_header

    try:
        known = is_safetensors(path) and "training" in read_header(path).metadata
    except InputError:  # damaged
        known = False
    if not known:
        raise InputError(
            "checkpoint",
            f"{path} is not the checkpoint of a training",
            "name a file that does not exist to start anew",
        )
    return True


def draw_preview(base: Base, prompt: str, seed: int) -> Preview:
    """A preview of a training: a picture for ``prompt``, drawn between two steps."""
    from customedit.diffusion.engine import run
    from customedit.diffusion.text import Customization
    from customedit.editing.sdedit import portrait

    def preview(trained: Customization) -> Image.Image:
        return run(base, portrait(base, trained, prompt, seed=seed))

    return preview


def write_previews(
    folder: Path, resumed: bool, show: Callable[[Progress], None]
) -> Callable[[Progress], None]:
    """A listener that writes the pictures of progress into ``folder``, and calls ``show``.

    resumed: keep the pictures of the steps before.
    """
    from customedit import images

    folder.mkdir(parents=True, exist_ok=True)
    if not resumed:
        outputs.remove_former(folder, _PREVIEWS)

    def listen(progress: Progress) -> None:
        if progress.preview is not None:
            images.write(progress.preview, folder / f"step-{progress.step:05}.png")
        show(progress)

    return listen


def another(given: str) -> Subject:
    """``FOLDER:NOUN:TOKEN[:ATTRIBUTE]`` as a subject. Raises InputError for anything else."""
    from customedit.concepts.dataset import Subject
    from customedit.concepts.prompts import ConceptPrompts

    parts = given.split(":")
    if len(parts) not in (3, 4):
        raise InputError("also", f"{given!r} cannot be read", "write FOLDER:NOUN:TOKEN[:ATTRIBUTE]")
    folder, noun, token, *attribute = parts
    pictures = [console.read_image(p, "also") for p in listed([Path(folder)], "also")]
    return Subject(pictures, ConceptPrompts(token, noun, *(attribute or ["patterned"])))


def listed(paths: list[Path], field: str = "references") -> list[Path]:
    """Files, and the pictures in folders, in order; warns of what is left out of a folder.

    Raises InputError, naming ``field``, for what is neither.
    """
    from customedit.images.reading import list_pictures, name_some

    out: list[Path] = []
    for path in paths:
        if os.path.isdir(path):  # never raises, unlike the method of Path
            inside = list_pictures(path, field=field)
            if inside.left_out:
                left_out = name_some(inside.left_out)
                console.warn(
                    f"{path} has files that are not PNG, JPEG or WebP and are left out: {left_out}"
                )
            out += inside.pictures
        else:
            out.append(console.existing(path, field))
    return out
