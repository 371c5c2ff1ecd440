"""Train the bundled base: ``python -m customedit.mini.train [STAGE ...]``.

Stages, in order: scenes (render), clip, vae, latents (encode once), decoder (the vae's, sharpened),
unet, judge, assemble. Without any named all run. Each keeps its checkpoint in the runs folder and
resumes from it, so the command may be stopped and given again at any time. docs/mini.md has the
commands and hours of the weights that ship. One stage more, restore, unpacks shipped weights into
checkpoints, to train on from them.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Final

import torch
import typer
from diffusers import AutoencoderTiny, UNet2DConditionModel
from PIL import Image
from transformers import CLIPModel, CLIPTextModel, CLIPTokenizer

from customedit import mini
from customedit.mini import assemble, clip, data, judge, text, unet, vae
from customedit.mini.loop import Average, Run, Schedule

STAGES: Final = ("scenes", "clip", "vae", "latents", "decoder", "unet", "judge", "assemble")

SCHEDULES: Final[dict[str, tuple[Schedule, int]]] = {
    "clip": (Schedule(360, 0.02, 50, 180, adam_only=("embedding", "logit")), 128),
    "vae": (Schedule(3600, 0.007, 50, 3600, ema=0.995, adam_only=("encoder.layers.0.weight",)), 8),
    "decoder": (Schedule(2000, 0.003, 20, 2000, ema=0.99), 8),
    "unet": (
        Schedule(
            4000,
            0.008,
            100,
            4000,
            ema=0.998,
            adam_only=("conv_in", "conv_out", "time_embedding"),
        ),
        48,
    ),
    "judge": (
        Schedule(
            1400, 0.02, 20, 930, ema=0.99, adam_share=0.1, adam_only=("noun", "pattern", "mask.3")
        ),
        32,
    ),
}
"""Schedule and batch of each stage."""

PROMPTS: Final = (
    "a photo of a red vase on a wooden table by a blue wall",
    "a photo of a white teapot on a green table by a gray wall",
    "a photo of a blue cup striped in blue and white on a wooden table by a yellow wall",
    "a photo of a yellow bowl with black bands on a marble table by a brick wall",
    "a photo of a glossy green bottle on a white table by a pink wall",
    "a photo of a red and white dotted jug on a gray table by a purple wall",
    "a photo of a purple lamp on a brown table by a white wall",
    "a photo of an orange and black checkered ball on a blue table by a white wall",
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
    model = vae.build()
    assemble.load_average(model, runs / f"{stage}.pt")
    return model


def write_sheet(
    runs: Path,
    encoder: CLIPTextModel,
    codec: AutoencoderTiny,
    denoiser: UNet2DConditionModel,
    step: int,
) -> Path:
    """Draw PROMPTS and write them to ``sheets/unet-STEP.png``."""
    states = unet.encode_text(encoder, _tokenizer(runs), [*PROMPTS, ""])
    latents = unet.sample(denoiser.eval(), states[:-1], states[-1:])
    with torch.no_grad():
        images = codec.decode(latents / assemble.latent_scale(runs)).sample
    pixels = ((images.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1)
    sheet = torch.cat([torch.cat(list(row), 1) for row in pixels.split(4)], 0)
    path = runs / "sheets" / f"unet-{step:06d}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet.numpy()).save(path)
    return path


def _train_unet(run: Run) -> None:
    encoder, codec = clip.text_encoder(_trained_clip(run.folder)), _trained_vae(run.folder)
    torch.manual_seed(run.seed)
    model, drawn = unet.build(), unet.build()

    def sheet(step: int, average: Average) -> None:
        average.copy_to(drawn)
        write_sheet(run.folder, encoder.cpu(), codec, drawn, step)
        encoder.to(run.device)

    unet.train(run, model, encoder, _tokenizer(run.folder), sheet)


def run_stage(name: str, run: Run, count: int, out: Path) -> None:
    """Run one stage; ``count`` shards to render, ``out`` for the assembled folder."""
    torch.manual_seed(run.seed)
    if name == "scenes":
        data.render_shards(run.folder / "scenes", count)
    elif name == "clip":
        clip.train(run, clip.build(_tokenizer(run.folder)))
    elif name == "vae":
        vae.train(run, vae.build())
    elif name == "latents":
        unet.write_latents(run.folder, _trained_vae(run.folder), device=run.device)
    elif name == "decoder":
        vae.train_decoder(run, _trained_vae(run.folder))
    elif name == "unet":
        _train_unet(run)
    elif name == "judge":
        judge.train(run, judge.Judge())
    elif name == "restore":
        assemble.restore(out, run.folder)
    else:
        assemble.assemble(run.folder, out)


def main(
    stages: Annotated[
        list[str] | None,
        typer.Argument(help=f"Any of: {', '.join(STAGES)} (all if none is named), restore."),
    ] = None,
    runs: Annotated[Path, typer.Option(help="Where scenes, checkpoints and logs go.")] = Path(
        "runs/mini"
    ),
    shards: Annotated[int, typer.Option(min=1, help="Thousands of scenes to render.")] = 40,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of the whole stage.")] = None,
    rate: Annotated[
        float | None, typer.Option(min=1e-9, help="Rate of the matrices' steps.")
    ] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Rows in a step.")] = None,
    stop_after: Annotated[
        int | None, typer.Option(min=1, help="Stop at this step, to be resumed.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Decides weights, batches and noise.")] = 0,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, or cuda:N.")] = "cpu",
    out: Annotated[
        Path | None, typer.Option(help="Where 'assemble' writes and 'restore' reads.")
    ] = None,
) -> None:
    """Train the bundled base, or any stage of it. Stops and resumes at any point."""
    known = ("restore", *STAGES)
    unknown = [s for s in stages or () if s not in known]
    if unknown:
        raise typer.BadParameter(f"unknown stage {unknown[0]!r}; stages are {', '.join(known)}")
    if threads:
        torch.set_num_threads(threads)
    for name in [s for s in known if s in (stages or STAGES)]:
        schedule, rows = SCHEDULES.get(name, (Schedule(1, 1.0), 1))
        if steps:
            decay = steps * schedule.decay // schedule.steps
            schedule = dataclasses.replace(schedule, steps=steps, decay=decay)
        if rate:
            schedule = dataclasses.replace(schedule, rate=rate)
        run = Run(runs, schedule, batch or rows, seed, None, stop_after, device)
        typer.echo(f"stage {name}")
        run_stage(name, run, shards, out or mini._WEIGHTS)


if __name__ == "__main__":
    typer.run(main)
