"""``customedit edit``, ``sweep`` and ``replay``: a picture and two prompts, or a recipe, in."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, cast

import typer

from customedit.cli import console
from customedit.cli.options import Options, model_options
from customedit.errors import InputError
from customedit.schemas.requests import EditOptions, P2POptions

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from customedit.diffusion.base import Base
    from customedit.diffusion.text import Weighted
    from customedit.editing.edit import EditResult
    from customedit.editing.editor import Editor
    from customedit.metrics.similarity import Similarity

PictureArgument = Annotated[Path, typer.Argument(help="The source picture.")]
ConceptOption = Annotated[
    list[str] | None,
    typer.Option("--concept", help="A concept FILE or FILE:WEIGHT; repeatable."),
]
BlendWordOption = Annotated[
    list[str] | None,
    typer.Option(
        "--blend-word",
        help="Source words that the edit may change; repeatable. Left out, they follow from the "
        "prompts.",
    ),
]
NoBlendOption = Annotated[
    bool, typer.Option("--no-blend", help="Let the edit reach everywhere; not with --mask.")
]
MaskOption = Annotated[
    Path | None,
    typer.Option(
        help="A picture that is white where the edit may change; with --blend-word, both hold."
    ),
]
ReferenceOption = Annotated[
    list[Path] | None,
    typer.Option("--reference", help="Images or folders that the edit is compared with."),
]
ClipOption = Annotated[
    str | None, typer.Option(help="The CLIP that measures; the bundled one if left out.")
]

_ONE: Final = Options(EditOptions, leave_out=("strengths", "seeds"))
_MANY: Final = Options(
    EditOptions, leave_out=("change",), names={"strengths": "--strength", "seeds": "--seed"}
)


@dataclass(frozen=True)
class Inputs:
    """What the commands read, checked, before any work."""

    picture: Image.Image
    options: EditOptions
    mask: Tensor | None
    references: list[Image.Image]
    judge: Similarity
    base: Base
    concepts: list[Weighted]

    @property
    def editor(self) -> Editor:
        """An editor that keeps inversions between commands."""
        from customedit.editing.editor import Editor

        return Editor(self.base, inversions=console.keeping() / "inversions")


def _read(
    picture: Path, options: EditOptions, mask: Path | None, reference: list[Path] | None,
    clip: str | None, concept: list[str] | None, base: str, device: str, dtype: str,
) -> Inputs:  # fmt: skip
    """Everything that is given: first what is read in a moment, the base last."""
    image = console.read_image(picture, "picture")
    region = None if mask is None else console.read_mask(mask, image.size)
    references = _references(reference)
    judge = _judge(clip)
    model = console.load_base(base, device, dtype)
    concepts = console.load_concepts(model, concept or [])
    return Inputs(image, options, region, references, judge, model, concepts)


@model_options(options=_ONE)
def edit_command(
    picture: PictureArgument,
    options: EditOptions,
    out: Annotated[Path, typer.Option("-o", "--out", help="The edited picture.")] = Path(
        "edited.png"
    ),
    strength: Annotated[
        float | None,
        typer.Option(help="Instead of --change; p2p: how much of the source stays; sdedit: goes."),
    ] = None,
    seed: Annotated[int, typer.Option(help="For sdedit.")] = 0,
    concept: ConceptOption = None,
    blend_word: BlendWordOption = None,
    no_blend: NoBlendOption = False,
    mask: MaskOption = None,
    reference: ReferenceOption = None,
    clip: ClipOption = None,
    dino: Annotated[str | None, typer.Option(help="A DINO or DINOv2 that measures, too.")] = None,
    lpips: Annotated[Path | None, typer.Option(help="LPIPS weights that measure, too.")] = None,
    base: console.BaseOption = "mini",
    device: console.DeviceOption = "cpu",
    dtype: console.DtypeOption = "float32",
    as_json: console.JsonOption = False,
) -> None:
    """Edit a picture by prompt, with concepts if the target prompt names any."""
    with console.mendable():
        _check_file(out)
        strengths = None if strength is None else [strength]
        options = _with(options, blend_word, no_blend, strengths=strengths, seeds=[seed])
        finer = _finer(dino, lpips)
        inputs = _read(picture, options, mask, reference, clip, concept, base, device, dtype)
        from customedit import images
        from customedit.editing.sweep import measure_edit

        session = inputs.editor.open(inputs.picture, options.source_prompt)
        plans = session.plan_options(options, concepts=inputs.concepts, mask=inputs.mask)
        with console.bars(as_json) as listen:
            (result,) = session.run(plans, inputs.concepts, inputs.mask, on_progress=listen)
        images.write(result.image, out)
        measured = measure_edit(inputs.judge, result, inputs.references, **finer)
    similarities = measured.similarities.as_dict()
    figures = "  ".join(
        f"{name} {value:g}" for name, value in similarities.items() if value is not None
    )
    document = {
        "image": str(out),
        "region_words": list(result.region_words),
        "similarities": similarities,
        "recipe": result.plan.as_json(),
    }
    console.say(document, [f"{out}  {_region_in_words(result)}  {figures}"], as_json)


@model_options(options=_MANY)
def sweep_command(
    picture: PictureArgument,
    options: EditOptions,
    out: Annotated[Path, typer.Option("-o", "--out", help="A folder for what comes out.")] = Path(
        "sweep"
    ),
    concept: ConceptOption = None,
    blend_word: BlendWordOption = None,
    no_blend: NoBlendOption = False,
    mask: MaskOption = None,
    reference: ReferenceOption = None,
    clip: ClipOption = None,
    base: console.BaseOption = "mini",
    device: console.DeviceOption = "cpu",
    dtype: console.DtypeOption = "float32",
    as_json: console.JsonOption = False,
) -> None:
    """Edit at several strengths and seeds together: every edit, a sheet, a curve, the best one."""
    with console.mendable():
        _check_folder(out)
        from customedit.editing import sweep as sweeps

        options = _with(
            options, blend_word, no_blend, strengths=options.strengths or list(sweeps.STRENGTHS)
        )
        inputs = _read(picture, options, mask, reference, clip, concept, base, device, dtype)
        from customedit import images

        session = inputs.editor.open(inputs.picture, options.source_prompt)
        plans = session.plan_options(options, concepts=inputs.concepts, mask=inputs.mask)
        with console.bars(as_json) as listen:
            results = session.run(plans, inputs.concepts, inputs.mask, on_progress=listen)
        edits = [sweeps.measure_edit(inputs.judge, r, inputs.references) for r in results]
        out.mkdir(parents=True, exist_ok=True)
        rows = []
        for edit in edits:
            plan = edit.result.plan
            name = f"strength-{plan.strength:g}-seed-{plan.seed}.png"
            images.write(edit.result.image, out / name)
            rows.append(
                {"image": name, "strength": plan.strength, "seed": plan.seed}
                | edit.similarities.as_dict()
            )
        chosen = sweeps.best(edits)
        images.write(sweeps.contact_sheet(edits), out / "sheet.png")
        (out / "curve.svg").write_text(sweeps.curve(edits))
        document = {
            "edits": rows,
            "best": rows[edits.index(chosen)],
            "region_words": list(chosen.result.region_words),
            "recipe": chosen.result.plan.as_json(),
        }
        (out / "sweep.json").write_text(json.dumps(document, indent=1) + "\n")
    line = f"best: strength {chosen.result.plan.strength:g}  {_region_in_words(chosen.result)}"
    console.say(document, [f"{out / 'sheet.png'}  {line}"], as_json)


def replay_command(
    recipe: Annotated[
        Path, typer.Argument(help="A recipe, as edit --json or sweep.json holds it.")
    ],
    picture: Annotated[Path, typer.Option(help="The source picture that was edited.")],
    concept: Annotated[
        list[Path] | None,
        typer.Option(
            "--concept", help="Concept files, or folders of them; the recipe's are found by digest."
        ),
    ] = None,
    mask: Annotated[
        Path | None, typer.Option(help="The mask, if the recipe was made with one.")
    ] = None,
    out: Annotated[Path, typer.Option("-o", "--out", help="The picture.")] = Path("replayed.png"),
    base: Annotated[
        str | None, typer.Option("--base", help="The base, if it is not where the recipe says.")
    ] = None,
    device: console.DeviceOption = "cpu",
    as_json: console.JsonOption = False,
) -> None:
    """Make the picture of a recipe again, to the same pixels."""
    with console.mendable():
        _check_file(out)
        from customedit.editing.plan import EditPlan, versions

        try:
            document = json.loads(console.existing(recipe, "recipe").read_text())
        except (OSError, ValueError) as error:
            raise InputError("recipe", f"{recipe} is not JSON ({error})", "give a recipe") from None
        if not isinstance(document, dict):
            raise InputError("recipe", f"{recipe} is no JSON object", "give a recipe")
        plan = EditPlan.read(document)
        image = console.read_image(picture, "picture")
        region = None if mask is None else console.read_mask(mask, image.size)
        model = console.load_base(base or plan.base.name, device, plan.base.dtype)
        concepts = [
            entry.concept
            for path in _concept_files(concept or [])
            for entry in console.load_concepts(model, [str(path)])
        ]
        from customedit import images
        from customedit.editing.editor import Editor

        editor = Editor(model, inversions=console.keeping() / "inversions")
        with console.bars(as_json) as listen:
            result = editor.replay(plan, image, concepts=concepts, mask=region, on_progress=listen)
        images.write(result.image, out)
    changed = {
        name: f"{plan.versions.get(name, 'none')} -> {now}"
        for name, now in versions().items()
        if plan.versions.get(name) != now
    }
    if changed:
        listed = ", ".join(f"{name} {change}" for name, change in changed.items())
        console.errors.print(f"made with other versions, pixels may differ: {listed}")
    document = {"image": str(out), "versions_changed": changed, "recipe": plan.as_json()}
    console.say(document, [str(out)], as_json)


def _with(
    options: EditOptions, blend_words: list[str] | None, no_blend: bool, **changes: Any
) -> EditOptions:
    """``options`` with the words of the region and ``changes``, checked again."""
    from pydantic import ValidationError

    from customedit.schemas.validation import input_error

    values = {name: getattr(options, name) for name in options.model_fields_set}
    values |= {name: value for name, value in changes.items() if value is not None}
    if blend_words and no_blend:
        raise InputError("blend-word", "contradicts --no-blend", "leave out one of the two")
    if blend_words or no_blend:
        over = "none" if no_blend else None
        values["p2p"] = P2POptions(blend_over=cast(Any, over), blend_words=blend_words or [])
    try:
        return EditOptions(**values)
    except ValidationError as error:
        raise input_error(error) from None


def _region_in_words(result: EditResult) -> str:
    """Where the edit could change the picture, for people."""
    words = ", ".join(result.region_words)
    mask = "the mask" if result.plan.mask is not None else ""
    return f"region: {' within '.join(part for part in (words, mask) if part) or 'everywhere'}"


def _check_file(out: Path) -> None:
    """Raises InputError for a file that pictures cannot be written to."""
    from customedit import images

    if not out.parent.is_dir():
        raise InputError("out", f"{out.parent} is no folder", "make it, or correct the path")
    if out.is_dir():
        raise InputError("out", f"{out} is a folder", "name a file in it")
    if out.suffix.lower() not in images.SUFFIXES:
        raise InputError(
            "out", f"{out.name} has no suffix of a picture", f"use {', '.join(images.SUFFIXES)}"
        )


def _check_folder(out: Path) -> None:
    """Raises InputError for a folder that cannot be made."""
    if out.exists() and not out.is_dir():
        raise InputError("out", f"{out} is a file", "name a folder")
    there = next(parent for parent in (out, *out.absolute().parents) if parent.exists())
    if not there.is_dir():
        raise InputError("out", f"{there} is no folder", "name a folder")


def _concept_files(paths: list[Path]) -> list[Path]:
    """Files as they are given, folders as the safetensors files in them."""
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(path.glob("*.safetensors"))
            if not inside:
                raise InputError("concept", f"{path} holds no .safetensors file", "give another")
            files += inside
        else:
            files.append(console.existing(path, "concept"))
    return files


def _judge(clip: str | None) -> Similarity:
    console.quiet_libraries()
    from customedit.metrics.similarity import Similarity, bundled

    return Similarity(clip) if clip else bundled()


def _finer(dino: str | None, lpips: Path | None) -> dict[str, Any]:
    """The measures whose weights are there."""
    console.quiet_libraries()
    from customedit.metrics.lpips import Lpips
    from customedit.metrics.similarity import Dino

    return {
        "dino": Dino(dino) if dino else None,
        "lpips": Lpips(lpips) if lpips else None,
    }


def _references(paths: list[Path] | None) -> list[Image.Image]:
    from customedit.cli.customize import listed

    return [console.read_image(path, "reference") for path in listed(paths or [])]
