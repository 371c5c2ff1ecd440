"""``customedit edit`` and ``sweep``: a picture and two prompts in, edited pictures out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from customedit.cli import console, measures, outputs, regions
from customedit.cli.measures import ClipOption
from customedit.cli.options import Options, model_options
from customedit.cli.regions import RegionOption
from customedit.editing.method_settings import RANDOM
from customedit.errors import InputError
from customedit.schemas.methods import EXPERTS
from customedit.schemas.requests import EditOptions

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from customedit.diffusion.base import Base
    from customedit.diffusion.text import Weighted
    from customedit.editing.edit import EditResult
    from customedit.editing.editor import Editor
    from customedit.editing.sweep import MeasuredEdit
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
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="An expert setting of the method, such as layer=0.5; repeatable.",
    ),
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

_ONE: Final = Options(EditOptions, leave_out=("strengths", "seeds"))
_MANY: Final = Options(
    EditOptions, leave_out=("change",), names={"strengths": "--strength", "seeds": "--seed"}
)

_OF_SWEEP: Final = r"strength-[\d.e-]+-seed-\d+\.png|sheet\.png|curve\.svg|sweep\.json"
"""The names of a sweep's files."""


@dataclass(frozen=True)
class Inputs:
    """What the commands read, checked, before any work.

    judge: the CLIP that ``--clip`` or else the base's profile names, None for none.
    """

    picture: Image.Image
    options: EditOptions
    mask: Tensor | None
    references: list[Image.Image]
    judge: Similarity | None
    base: Base
    concepts: list[Weighted]

    @property
    def editor(self) -> Editor:
        """An editor that keeps inversions between commands."""
        from customedit.editing.editor import Editor

        return Editor(self.base, inversions=console.cache_folder() / "inversions")


def _read(
    picture: Path, options: EditOptions, mask: Path | None, reference: list[Path] | None,
    clip: str | None, concept: list[str] | None, places: list[str] | None,
    base: str, device: str, dtype: str,
) -> Inputs:  # fmt: skip
    """Read and check everything that is given: first the files, the base last."""
    image = console.read_image(picture, "picture")
    region = None if mask is None else console.read_mask(mask, image.size)
    places_of = regions.read_regions(places or [], image.size, options.target_prompt)
    references = _references(reference)
    files = [console.ConceptFile.read(text) for text in concept or []]
    if options.method not in RANDOM and len(options.seeds) == 1 and options.seeds != [0]:
        console.warn(f"--seed has no effect on {options.method}, in which nothing is random")
    judge = measures.given_judge(clip)
    model = console.load_base(base, device, dtype)
    judge = judge or measures.profile_judge(model)
    concepts = regions.placed(console.load_concepts(model, files), places_of)
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
        typer.Option(
            help="Instead of --change; how much of the source stays (0 to 1); sdedit: goes."
        ),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(
            help="Of the noise of sdedit, ddpm and flowedit; the others have nothing random."
        ),
    ] = 0,
    concept: ConceptOption = None,
    region: RegionOption = None,
    blend_word: BlendWordOption = None,
    no_blend: NoBlendOption = False,
    expert: SetOption = None,
    mask: MaskOption = None,
    reference: ReferenceOption = None,
    clip: ClipOption = None,
    dino: Annotated[
        str | None,
        typer.Option(help="A DINO or DINOv2 that compares the edit with the references, too."),
    ] = None,
    lpips: Annotated[
        Path | None,
        typer.Option(help="LPIPS weights, to measure the distance from the source, too."),
    ] = None,
    force: outputs.ForceOption = False,
    base: console.BaseOption = "mini",
    device: console.DeviceOption = "cpu",
    dtype: console.DtypeOption = "float32",
    as_json: console.JsonOption = False,
) -> None:
    """Edit a picture by prompt, with concepts if the target prompt names any."""
    from customedit import images

    outputs.check_file(out, force, suffixes=images.SUFFIXES)
    strengths = None if strength is None else [strength]
    options = _with(options, blend_word, no_blend, expert, strengths=strengths, seeds=[seed])
    auto = options.change == "auto"
    if auto and not reference:
        raise InputError("change", "auto has no references to compare with", "give --reference")
    if dino and not reference:
        raise InputError("dino", "has no references to compare with", "give --reference")
    more_measures = measures.more_measures(dino, lpips)
    inputs = _read(picture, options, mask, reference, clip, concept, region, base, device, dtype)
    from customedit.editing.auto_change import check_auto, chosen

    judge = check_auto(inputs.judge, inputs.references, measures.AUTO_REMEDY) if auto else None
    if inputs.judge is None:
        measures.warn_without_judge()
    if lpips:
        measures.check_lpips_size(inputs.picture)
    session = inputs.editor.open(inputs.picture, options.source_prompt)
    with regions.named_by_option(inputs.concepts):
        plans = session.plan_options(options, concepts=inputs.concepts, mask=inputs.mask)
    with console.bars(as_json) as listen:
        results = session.run(plans, inputs.concepts, inputs.mask, on_progress=listen)
    result = results[0] if judge is None else chosen(judge, results, inputs.references)
    if result.plan.preserve and images.is_lossy(out):
        console.warn(
            f"{out.name} is lossy, so the pixels outside the region change slightly; use .png"
        )
    images.write(result.image, out)
    similarities = measures.measured(inputs.judge, result, inputs.references, **more_measures)
    figures = "  ".join(
        f"{name} {value:g}" for name, value in similarities.items() if value is not None
    )
    recipe = result.plan.as_json()
    document = {
        "image": str(out),
        "region_words": list(result.region_words),
        "similarities": similarities,
        "change_curve": recipe["auto"],
        "recipe": recipe,
    }
    lines = [f"{out}  {_region_in_words(result)}  {figures}"]
    if (curve := result.plan.auto) is not None:
        values = zip(curve.values, curve.source, curve.reference, strict=True)
        points = "  ".join(f"{c:g}: {s:.2f}/{r:.2f}" for c, s, r in values)
        lines.append(f"change {curve.chosen:g} of (source/reference)  {points}")
    console.say(document, lines, as_json)


@model_options(options=_MANY)
def sweep_command(
    picture: PictureArgument,
    options: EditOptions,
    out: Annotated[Path, typer.Option("-o", "--out", help="A folder for the results.")] = Path(
        "sweep"
    ),
    concept: ConceptOption = None,
    region: RegionOption = None,
    blend_word: BlendWordOption = None,
    no_blend: NoBlendOption = False,
    expert: SetOption = None,
    mask: MaskOption = None,
    reference: ReferenceOption = None,
    clip: ClipOption = None,
    force: outputs.ForceOption = False,
    base: console.BaseOption = "mini",
    device: console.DeviceOption = "cpu",
    dtype: console.DtypeOption = "float32",
    as_json: console.JsonOption = False,
) -> None:
    """Edit at several strengths and seeds together: every edit, a sheet, a curve, the best one."""
    outputs.check_folder(out, force, ours=_OF_SWEEP)
    from customedit import images
    from customedit.editing import sweep as sweeps

    options = _with(
        options, blend_word, no_blend, expert, strengths=options.strengths or list(sweeps.STRENGTHS)
    )
    inputs = _read(picture, options, mask, reference, clip, concept, region, base, device, dtype)
    session = inputs.editor.open(inputs.picture, options.source_prompt)
    with regions.named_by_option(inputs.concepts):
        plans = session.plan_options(options, concepts=inputs.concepts, mask=inputs.mask)
    with console.bars(as_json) as listen:
        results = session.run(plans, inputs.concepts, inputs.mask, on_progress=listen)
    edits = _compared(inputs, results)
    out.mkdir(parents=True, exist_ok=True)
    outputs.remove_former(out, _OF_SWEEP)
    chosen = sweeps.best(edits) if edits else None
    rows = []
    for k, result in enumerate(results):
        plan = result.plan
        name = f"strength-{plan.strength:g}-seed-{plan.seed}.png"
        images.write(result.image, out / name)
        figures = edits[k].similarities.as_dict() if edits else measures.measured(None, result, [])
        rows.append({"image": name, "strength": plan.strength, "seed": plan.seed} | figures)
    if edits:
        (out / "curve.svg").write_text(sweeps.curve(edits))
    sheet = sweeps.contact_sheet(edits) if edits else sweeps.plain_sheet(results)
    images.write(sheet, out / "sheet.png")
    shown = results[0] if chosen is None else chosen.result
    document = {
        "edits": rows,
        "best": None if chosen is None else rows[edits.index(chosen)],
        "region_words": list(shown.region_words),
        "recipe": shown.plan.as_json(),
    }
    (out / "sweep.json").write_text(json.dumps(document, indent=1) + "\n")
    best = "" if chosen is None else f"best: strength {shown.plan.strength:g}  "
    console.say(document, [f"{out / 'sheet.png'}  {best}{_region_in_words(shown)}"], as_json)


def _compared(inputs: Inputs, results: Sequence[EditResult]) -> list[MeasuredEdit]:
    """The results as the judge sees them; none, with a warning, where there is no judge."""
    from customedit.editing.sweep import measure_edit

    if inputs.judge is None:
        measures.warn_without_judge(best=True)
        return []
    return [measure_edit(inputs.judge, result, inputs.references) for result in results]


def _with(
    options: EditOptions,
    blend_words: list[str] | None,
    no_blend: bool,
    expert: list[str] | None,
    **changes: Any,
) -> EditOptions:
    """``options`` with the expert settings of the method and ``changes``, checked again.

    expert: NAME=VALUE each.
    """
    from pydantic import ValidationError

    from customedit.schemas.validation import input_error

    values = {name: getattr(options, name) for name in options.model_fields_set}
    values |= {name: value for name, value in changes.items() if value is not None}
    if blend_words and no_blend:
        raise InputError("blend-word", "contradicts --no-blend", "leave out one of the two")
    settings = _expert(options.method, expert or [])
    if blend_words or no_blend:
        settings |= {"blend_over": "none"} if no_blend else {"blend_words": blend_words}
    if settings:
        values[options.method] = settings
    try:
        return EditOptions(**values)
    except ValidationError as error:
        raise input_error(error) from None


def _expert(method: str, settings: list[str]) -> dict[str, Any]:
    """The expert settings NAME=VALUE of ``method``; values are JSON, or texts.

    Raises:
        InputError: for a setting that the method does not have.
    """
    fields = EXPERTS[method].model_fields
    found: dict[str, Any] = {}
    for setting in settings:
        name, given, text = setting.partition("=")
        if not given or name not in fields:
            known = ", ".join(f"{field}=..." for field in fields)
            raise InputError("set", f"{setting!r} is no setting of {method}", f"give {known}")
        try:
            found[name] = json.loads(text)
        except ValueError:
            found[name] = text
    return found


def _region_in_words(result: EditResult) -> str:
    """Where the edit could change the picture, for people."""
    settings = result.plan.settings
    placed = ["the concepts' regions"] if settings.concept_regions else []
    words = ", ".join([*result.region_words, *placed])
    mask = "the mask" if result.plan.mask is not None else ""
    return f"region: {' within '.join(part for part in (words, mask) if part) or 'everywhere'}"


def _references(paths: list[Path] | None) -> list[Image.Image]:
    from customedit.cli.customize import listed

    return [console.read_image(path, "reference") for path in listed(paths or [], "reference")]
