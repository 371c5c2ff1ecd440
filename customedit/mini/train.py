"""Train the bundled base: ``python -m customedit.mini.train [STAGE ...]``.

Stages, in order: scenes (render), clip, vae, latents (encode once), decoder (the vae's, sharpened),
unet, judge, assemble. Without any named all run. Each keeps its checkpoint in the runs folder and
resumes from it, so the command may be stopped and given again at any time. With ``--minutes`` it
stops by itself, with exit code 75 as long as something is left to do. docs/mini.md has the commands
and hours of the weights that ship.

Two stages run only if they are named: pack writes checkpoints as compact files, restore unpacks
such files, or shipped weights, into checkpoints to train on from.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final

import torch
import typer
from diffusers import AutoencoderTiny, UNet2DConditionModel
from PIL import Image
from transformers import CLIPModel, CLIPTextModel, CLIPTokenizer

from customedit import mini
from customedit.mini import assemble, clip, data, judge, text, unet, vae
from customedit.mini.assemble import Model
from customedit.mini.loop import Average, Run, Schedule, TimeUp
from customedit.mini.sizes import SIZES, Size

STAGES: Final = ("scenes", "clip", "vae", "latents", "decoder", "unet", "judge", "assemble")
ON_DEMAND: Final = ("restore", "pack")

UNFINISHED: Final = 75
"""Exit code of a run whose time was up (EX_TEMPFAIL of sysexits.h)."""

PROMPTS: Final = (
    "a photo of a red vase on a wooden table by a blue wall",
    "a photo of a white teapot on a green table by a gray wall",
    "a photo of a blue cup striped in blue and white on a wooden table by a yellow wall",
    "a photo of a yellow bowl with black bands on a marble table by a brick wall",
    "a photo of a glossy green bottle on a white table by a pink wall",
    "a photo of a red and white dotted jug on a gray table by a purple wall",
    "a photo of a purple lamp on a brown table by a white wall",
    "a photo of an orange and black checkered ball on a blue table by a white wall",
    "a photo of a red, white and blue patterned cup on a wooden table by a gray wall",
    "a photo of a green and yellow patterned vase on a white table by an orange wall",
    "a photo of a patterned teapot on a wooden table by a blue wall",
    "a close up photo of a white jar with a red and black pattern on a gray table",
)
"""What the sample sheets show."""


def _tokenizer(runs: Path) -> CLIPTokenizer:
    if not (runs / "tokenizer" / "vocab.json").exists():
        text.write_tokenizer(runs / "tokenizer")
    return text.load_tokenizer(runs / "tokenizer")


def _trained_clip(runs: Path) -> CLIPModel:
    model = clip.build(_tokenizer(runs))
    assemble.load_average(model, runs / "clip.pt")
    return model


def _trained_vae(runs: Path, stage: str = "vae") -> AutoencoderTiny:
    model = assemble.model_of(runs / f"{stage}.pt", vae.build)
    assemble.load_average(model, runs / f"{stage}.pt")
    return model


def write_sheet(
    runs: Path,
    encoder: CLIPTextModel,
    codec: AutoencoderTiny,
    denoiser: UNet2DConditionModel,
    step: int,
) -> Path:
    """Draw PROMPTS and write them to ``sheets/unet-STEP.png``; all models are on one device."""
    states = unet.encode_text(encoder, _tokenizer(runs), [*PROMPTS, ""])
    latents = unet.sample(denoiser.eval(), states[:-1], states[-1:])
    with torch.no_grad():
        images = codec.decode(latents / assemble.latent_scale(runs)).sample
    pixels = ((images.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu()
    sheet = torch.cat([torch.cat(list(row), 1) for row in pixels.split(4)], 0)
    path = runs / "sheets" / f"unet-{step:06d}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet.numpy()).save(path)
    return path


def _build(stage: str, run: Run, build: Callable[[], Model], start: Path | None) -> Model:
    """The stage's model to train: as its checkpoint is, or new, from ``start`` where that fits."""
    checkpoint = run.folder / f"{stage}.pt"
    model = assemble.model_of(checkpoint, build)
    if start is not None and not checkpoint.exists():
        fitting = assemble.start_from(model, start, stage)
        typer.echo(f"{fitting} of {len(model.state_dict())} tensors start from {start}")
    return model


def _train_unet(run: Run, size: Size, start: Path | None) -> None:
    encoder, codec = clip.text_encoder(_trained_clip(run.folder)), _trained_vae(run.folder)
    torch.manual_seed(run.seed)
    build = functools.partial(unet.build, size)
    model, drawn = (_build("unet", run, build, start) for _ in range(2))
    for part in (encoder, codec, drawn):
        part.to(run.device)

    def sheet(step: int, average: Average) -> None:
        average.copy_to(drawn)
        write_sheet(run.folder, encoder, codec, drawn, step)

    unet.train(run, model, encoder, _tokenizer(run.folder), sheet)


def run_stage(
    name: str, run: Run, size: Size, count: int, out: Path, start: Path | None = None
) -> None:
    """Run one stage; ``count`` shards to render, ``out`` for what is written or restored.

    ``start``: an assembled folder that new models take from what fits them. Raises TimeUp when
    ``run.deadline`` has come before the stage is done.
    """
    torch.manual_seed(run.seed)
    if name == "scenes":
        data.render_shards(run.folder / "scenes", count, size.side, deadline=run.deadline)
    elif name == "clip":
        tokenizer = _tokenizer(run.folder)
        clip.train(run, _build(name, run, lambda: clip.build(tokenizer), start))
    elif name == "vae":
        build = functools.partial(vae.build, size.vae_width, size.vae_blocks)
        vae.train(run, _build(name, run, build, start))
    elif name == "latents":
        codec = _trained_vae(run.folder)
        unet.write_latents(run.folder, codec, device=run.device, deadline=run.deadline)
    elif name == "decoder":
        vae.train_decoder(run, _trained_vae(run.folder))
    elif name == "unet":
        _train_unet(run, size, start)
    elif name == "judge":
        judge.train(run, _build(name, run, judge.Judge, start))
    elif name == "restore":
        assemble.restore(out, run.folder)
    elif name == "pack":
        assemble.pack(run.folder, out)
    else:
        assemble.assemble(run.folder, out)


def main(
    stages: Annotated[
        list[str] | None,
        typer.Argument(
            help=f"Any of: {', '.join(STAGES)} (all if none is named), {', '.join(ON_DEMAND)}."
        ),
    ] = None,
    runs: Annotated[Path, typer.Option(help="Where scenes, checkpoints and logs go.")] = Path(
        "runs/mini"
    ),
    size: Annotated[str, typer.Option(help=f"One of: {', '.join(SIZES)}.")] = "small",
    shards: Annotated[int, typer.Option(min=1, help="Thousands of scenes to render.")] = 60,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of the whole stage.")] = None,
    rate: Annotated[
        float | None, typer.Option(min=1e-9, help="Rate of the matrices' steps.")
    ] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Rows in a step.")] = None,
    stop_after: Annotated[
        int | None, typer.Option(min=1, help="Stop at this step, to be resumed.")
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(min=0, help="Stop after so long; exit code 75 if something is left."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Decides weights, batches and noise.")] = 0,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, or cuda:N.")] = "cpu",
    start: Annotated[
        Path | None,
        typer.Option(help="A folder of weights; new models take from it what fits them."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where assemble and pack write, and restore reads.")
    ] = None,
) -> None:
    """Train the bundled base, or any stage of it. Stops and resumes at any point."""
    deadline = time.monotonic() + 60 * minutes if minutes is not None else None
    known = ("restore", *STAGES, "pack")
    unknown = [s for s in stages or () if s not in known]
    if unknown:
        raise typer.BadParameter(f"unknown stage {unknown[0]!r}; stages are {', '.join(known)}")
    if size not in SIZES:
        raise typer.BadParameter(f"unknown size {size!r}; sizes are {', '.join(SIZES)}")
    if "pack" in (stages or ()) and out is None:
        raise typer.BadParameter("pack needs --out, the folder to write to")
    if threads:
        torch.set_num_threads(threads)
    for name in [s for s in known if s in (stages or STAGES)]:
        schedule, rows = SIZES[size].stages.get(name, (Schedule(1, 1.0), 1))
        if steps:
            decay = steps * schedule.decay // schedule.steps
            schedule = dataclasses.replace(schedule, steps=steps, decay=decay)
        if rate:
            schedule = dataclasses.replace(schedule, rate=rate)
        run = Run(runs, schedule, batch or rows, seed, None, stop_after, device, deadline)
        typer.echo(f"stage {name}")
        try:
            run_stage(name, run, SIZES[size], shards, out or mini._WEIGHTS, start)
        except TimeUp as place:
            typer.echo(f"time is up; {place}; give the same command again to go on")
            raise typer.Exit(UNFINISHED) from None


if __name__ == "__main__":
    typer.run(main)
