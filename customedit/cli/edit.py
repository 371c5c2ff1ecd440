"""``customedit edit`` and ``customedit sweep``: a picture and two prompts in, edits out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from customedit.cli import console
from customedit.errors import InputError

if TYPE_CHECKING:
    from customedit.diffusion.base import Base
    from customedit.editing.edit import EditSettings

Picture = Annotated[Path, typer.Argument(help="The source picture.")]
SourcePrompt = Annotated[str, typer.Option(help="The picture in words.")]
TargetPrompt = Annotated[str, typer.Option(help="The same with what is to change.")]
Concepts = Annotated[
    list[str] | None, typer.Option("--concept", help="A concept FILE or FILE:WEIGHT; repeatable.")
]
References = Annotated[
    list[Path] | None,
    typer.Option("--reference", help="Images or folders that the edit is compared with."),
]
MaskOption = Annotated[
    Path | None, typer.Option(help="A picture that is white where the edit may reach.")
]
MethodOption = Annotated[str, typer.Option(help="p2p or sdedit.")]
Steps = Annotated[int, typer.Option(help="DDIM steps.")]
Guidance = Annotated[
    float | None,
    typer.Option(help="Weight of classifier-free guidance; the base's own if left out."),
]
InversionOption = Annotated[
    str, typer.Option(help="direct, null-text, negative-prompt or ddim (p2p).")
]
BlendWord = Annotated[
    list[str] | None,
    typer.Option(help="Source words that the edit may change; derived if left out."),
]
NoBlend = Annotated[bool, typer.Option("--no-blend", help="Let the edit reach everywhere.")]
Clip = Annotated[
    str | None, typer.Option(help="The CLIP that measures; the bundled one if left out.")
]

DinoOption = Annotated[str | None, typer.Option(help="A DINO or DINOv2 that measures, too.")]
LpipsOption = Annotated[Path | None, typer.Option(help="LPIPS weights that measure, too.")]


def settings_of(
    base: Base,
    source_prompt: str,
    target_prompt: str,
    method: str,
    strength: float | None,
    steps: int,
    guidance: float | None,
    seed: int,
    inversion: str,
    blend_word: list[str] | None,
    no_blend: bool,
    preserve: bool,
) -> EditSettings:
    """The options as settings."""
    from customedit.editing.edit import EditSettings
    from customedit.editing.prompt_to_prompt import STRENGTH, P2PSettings

    p2p = None
    share = STRENGTH if strength is None else strength
    if no_blend:
        p2p = P2PSettings(strength=share)
    elif blend_word:
        p2p = P2PSettings(strength=share, blend_over="source", blend_words=tuple(blend_word))
    options: dict[str, Any] = {"method": method, "inversion": inversion}
    return EditSettings(
        source_prompt,
        target_prompt,
        strength=strength,
        steps=steps,
        guidance=guidance,
        seed=seed,
        p2p=p2p,
        preserve=preserve,
        **options,
    )


def edit_command(
    picture: Picture,
    target_prompt: TargetPrompt,
    source_prompt: SourcePrompt = "",
    concept: Concepts = None,
    out: Annotated[Path, typer.Option("-o", "--out", help="The edited picture.")] = Path(
        "edited.png"
    ),
    strength: Annotated[
        float | None, typer.Option(help="p2p: how much of the source stays; sdedit: goes.")
    ] = None,
    method: MethodOption = "p2p",
    inversion: InversionOption = "direct",
    steps: Steps = 50,
    guidance: Guidance = None,
    seed: Annotated[int, typer.Option(help="For sdedit.")] = 0,
    blend_word: BlendWord = None,
    no_blend: NoBlend = False,
    mask: MaskOption = None,
    preserve: Annotated[
        bool, typer.Option("--preserve", help="Keep the source's own pixels outside the edit.")
    ] = False,
    reference: References = None,
    clip: Clip = None,
    dino: DinoOption = None,
    lpips: LpipsOption = None,
    base: console.BaseOption = "mini",
    device: console.DeviceOption = "cpu",
    dtype: console.DtypeOption = "float32",
    as_json: console.JsonOption = False,
) -> None:
    """Edit a picture by prompt, with concepts if the target prompt names any."""
    with console.mendable():
        image = console.read_image(picture, "picture")
        if not out.parent.is_dir():
            raise InputError("out", f"{out.parent} is no folder", "make it, or mend the path")
        from customedit import images
        from customedit.diffusion.engine import run
        from customedit.editing.edit import edit
        from customedit.evaluation.measure import mask_tensor, measure

        model = console.load_base(base, device, dtype)
        concepts = console.load_concepts(model, concept or [])
        settings = settings_of(
            model, source_prompt, target_prompt, method, strength, steps, guidance, seed,
            inversion, blend_word, no_blend, preserve,
        )  # fmt: skip
        region = None if mask is None else mask_tensor(console.read_image(mask, "mask"))
        with console.bars(as_json) as heard:
            editing = edit(
                model, image, settings, concepts, mask=region, keep=console.keeping() / "inversions"
            )
            result = run(model, editing, heard)
        images.write(result.image, out)
        found = measure(
            _judge(clip), result, target_prompt, _references(reference), **_finer(dino, lpips)
        )
    told = {"image": str(out), "similarities": found.as_dict(), "recipe": result.recipe}
    shown = "  ".join(f"{k} {v:g}" for k, v in found.as_dict().items() if v is not None)
    console.say(told, [f"{out}  {shown}"], as_json)


def sweep_command(
    picture: Picture,
    target_prompt: TargetPrompt,
    source_prompt: SourcePrompt = "",
    concept: Concepts = None,
    out: Annotated[Path, typer.Option("-o", "--out", help="A folder for what comes out.")] = Path(
        "sweep"
    ),
    strength: Annotated[
        list[float] | None, typer.Option("--strength", help="Repeatable; five if left out.")
    ] = None,
    seed: Annotated[list[int] | None, typer.Option("--seed", help="Repeatable (sdedit).")] = None,
    method: MethodOption = "p2p",
    inversion: InversionOption = "direct",
    steps: Steps = 50,
    guidance: Guidance = None,
    blend_word: BlendWord = None,
    no_blend: NoBlend = False,
    mask: MaskOption = None,
    reference: References = None,
    clip: Clip = None,
    base: console.BaseOption = "mini",
    device: console.DeviceOption = "cpu",
    dtype: console.DtypeOption = "float32",
    as_json: console.JsonOption = False,
) -> None:
    """Edit at several strengths and seeds together: every edit, a sheet, a curve, the best one."""
    with console.mendable():
        image = console.read_image(picture, "picture")
        from customedit import images
        from customedit.evaluation import sweep as sweeps
        from customedit.evaluation.measure import mask_tensor

        model = console.load_base(base, device, dtype)
        settings = settings_of(
            model, source_prompt, target_prompt, method, None, steps, guidance, 0,
            inversion, blend_word, no_blend, False,
        )  # fmt: skip
        with console.bars(as_json) as heard:
            edits = sweeps.sweep(
                model,
                image,
                settings,
                console.load_concepts(model, concept or []),
                _judge(clip),
                strengths=strength or sweeps.STRENGTHS,
                seeds=seed or (0,),
                references=_references(reference),
                mask=None if mask is None else mask_tensor(console.read_image(mask, "mask")),
                keep=console.keeping() / "inversions",
                on_progress=heard,
            )
        out.mkdir(parents=True, exist_ok=True)
        rows = []
        for one in edits:
            name = f"strength-{one.strength:g}-seed-{one.seed}.png"
            images.write(one.result.working, out / name)
            rows.append(
                {"image": name, "strength": one.strength, "seed": one.seed}
                | one.similarities.as_dict()
            )
        chosen = sweeps.best(edits)
        images.write(sweeps.contact_sheet(edits), out / "sheet.png")
        (out / "curve.svg").write_text(sweeps.curve(edits))
        told = {
            "edits": rows,
            "best": rows[edits.index(chosen)],
            "recipe": chosen.result.recipe,
        }
        (out / "sweep.json").write_text(json.dumps(told, indent=1) + "\n")
    console.say(told, [f"{out / 'sheet.png'}  best: strength {chosen.strength:g}"], as_json)


def _judge(clip: str | None) -> Any:
    from customedit.evaluation.measure import bundled
    from customedit.evaluation.similarity import Similarity

    return Similarity(clip) if clip else bundled()


def _finer(dino: str | None, lpips: Path | None) -> dict[str, Any]:
    """The measures whose weights were given."""
    from customedit.evaluation.lpips import Lpips
    from customedit.evaluation.similarity import Dino

    return {
        "dino": Dino(dino) if dino else None,
        "lpips": Lpips(lpips) if lpips else None,
    }


def _references(given: list[Path] | None) -> list[Any]:
    from customedit.cli.customize import listed

    return [console.read_image(p, "reference") for p in listed(given or [])]
