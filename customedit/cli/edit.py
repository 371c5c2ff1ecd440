"""``customedit edit`` and ``customedit sweep``: a picture and two prompts in, edits out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from customedit.cli import console
from customedit.cli.options import taking
from customedit.errors import InputError

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from customedit.diffusion.base import Base
    from customedit.editing.edit import EditSettings


@dataclass(frozen=True)
class Asked:
    """What both commands take."""

    picture: Annotated[Path, typer.Argument(help="The source picture.")]
    target_prompt: Annotated[str, typer.Option(help="The same with what is to change.")]
    source_prompt: Annotated[str, typer.Option(help="The picture in words.")] = ""
    concept: Annotated[
        list[str] | None,
        typer.Option("--concept", help="A concept FILE or FILE:WEIGHT; repeatable."),
    ] = None
    method: Annotated[str, typer.Option(help="p2p or sdedit.")] = "p2p"
    inversion: Annotated[
        str, typer.Option(help="direct, null-text, negative-prompt or ddim (p2p).")
    ] = "direct"
    steps: Annotated[int, typer.Option(help="DDIM steps.")] = 50
    guidance: Annotated[
        float | None,
        typer.Option(help="Weight of classifier-free guidance; the base's own if left out."),
    ] = None
    blend_word: Annotated[
        list[str] | None,
        typer.Option(help="Source words that the edit may change; derived if left out."),
    ] = None
    no_blend: Annotated[bool, typer.Option("--no-blend", help="Let the edit reach everywhere.")] = (
        False
    )
    mask: Annotated[
        Path | None, typer.Option(help="A picture that is white where the edit may reach.")
    ] = None
    reference: Annotated[
        list[Path] | None,
        typer.Option("--reference", help="Images or folders that the edit is compared with."),
    ] = None
    clip: Annotated[
        str | None, typer.Option(help="The CLIP that measures; the bundled one if left out.")
    ] = None
    base: console.BaseOption = "mini"
    device: console.DeviceOption = "cpu"
    dtype: console.DtypeOption = "float32"
    as_json: console.JsonOption = False

    def load_base(self) -> Base:
        """The base that the options name."""
        return console.load_base(self.base, self.device, self.dtype)

    def region(self, picture: Image.Image) -> Tensor | None:
        """The mask for ``picture``, [h, w] in [0, 1]."""
        return None if self.mask is None else console.read_mask(self.mask, picture.size)

    def settings(
        self, strength: float | None = None, seed: int = 0, preserve: bool = False
    ) -> EditSettings:
        """The options as settings."""
        from customedit.editing.edit import EditSettings
        from customedit.editing.prompt_to_prompt import STRENGTH, P2PSettings

        p2p = None
        share = STRENGTH if strength is None else strength
        if self.no_blend:
            p2p = P2PSettings(strength=share)
        elif self.blend_word:
            words = tuple(self.blend_word)
            p2p = P2PSettings(strength=share, blend_over="source", blend_words=words)
        named: dict[str, Any] = {"method": self.method, "inversion": self.inversion}
        return EditSettings(
            self.source_prompt,
            self.target_prompt,
            strength=strength,
            steps=self.steps,
            guidance=self.guidance,
            seed=seed,
            p2p=p2p,
            preserve=preserve,
            **named,
        )


@taking(Asked)
def edit_command(
    asked: Asked,
    out: Annotated[Path, typer.Option("-o", "--out", help="The edited picture.")] = Path(
        "edited.png"
    ),
    strength: Annotated[
        float | None, typer.Option(help="p2p: how much of the source stays; sdedit: goes.")
    ] = None,
    seed: Annotated[int, typer.Option(help="For sdedit.")] = 0,
    preserve: Annotated[
        bool, typer.Option("--preserve", help="Keep the source's own pixels outside the edit.")
    ] = False,
    dino: Annotated[str | None, typer.Option(help="A DINO or DINOv2 that measures, too.")] = None,
    lpips: Annotated[Path | None, typer.Option(help="LPIPS weights that measure, too.")] = None,
) -> None:
    """Edit a picture by prompt, with concepts if the target prompt names any."""
    with console.mendable():
        image = console.read_image(asked.picture, "picture")
        if not out.parent.is_dir():
            raise InputError("out", f"{out.parent} is no folder", "make it, or mend the path")
        from customedit import images
        from customedit.diffusion.engine import run
        from customedit.editing.edit import edit
        from customedit.metrics.measure import measure

        model = asked.load_base()
        concepts = console.load_concepts(model, asked.concept or [])
        settings, region = asked.settings(strength, seed, preserve), asked.region(image)
        with console.bars(asked.as_json) as heard:
            editing = edit(
                model, image, settings, concepts, mask=region, keep=console.keeping() / "inversions"
            )
            result = run(model, editing, heard)
        images.write(result.image, out)
        references = _references(asked.reference)
        found = measure(
            _judge(asked.clip), result, asked.target_prompt, references, **_finer(dino, lpips)
        )
    told = {"image": str(out), "similarities": found.as_dict(), "recipe": result.recipe}
    shown = "  ".join(f"{k} {v:g}" for k, v in found.as_dict().items() if v is not None)
    console.say(told, [f"{out}  {shown}"], asked.as_json)


@taking(Asked)
def sweep_command(
    asked: Asked,
    out: Annotated[Path, typer.Option("-o", "--out", help="A folder for what comes out.")] = Path(
        "sweep"
    ),
    strength: Annotated[
        list[float] | None, typer.Option("--strength", help="Repeatable; five if left out.")
    ] = None,
    seed: Annotated[list[int] | None, typer.Option("--seed", help="Repeatable (sdedit).")] = None,
) -> None:
    """Edit at several strengths and seeds together: every edit, a sheet, a curve, the best one."""
    with console.mendable():
        image = console.read_image(asked.picture, "picture")
        from customedit import images
        from customedit.editing import sweep as sweeps

        model = asked.load_base()
        with console.bars(asked.as_json) as heard:
            edits = sweeps.sweep(
                model,
                image,
                asked.settings(),
                console.load_concepts(model, asked.concept or []),
                _judge(asked.clip),
                strengths=strength or sweeps.STRENGTHS,
                seeds=seed or (0,),
                references=_references(asked.reference),
                mask=asked.region(image),
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
    console.say(told, [f"{out / 'sheet.png'}  best: strength {chosen.strength:g}"], asked.as_json)


def _judge(clip: str | None) -> Any:
    from customedit.metrics.measure import bundled
    from customedit.metrics.similarity import Similarity

    return Similarity(clip) if clip else bundled()


def _finer(dino: str | None, lpips: Path | None) -> dict[str, Any]:
    """The measures whose weights were given."""
    from customedit.metrics.lpips import Lpips
    from customedit.metrics.similarity import Dino

    return {
        "dino": Dino(dino) if dino else None,
        "lpips": Lpips(lpips) if lpips else None,
    }


def _references(given: list[Path] | None) -> list[Any]:
    from customedit.cli.customize import listed

    return [console.read_image(p, "reference") for p in listed(given or [])]
