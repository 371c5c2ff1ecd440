"""Train the bundled base: ``python -m customedit.mini.train [STAGE ...]``.

Stages, in order: scenes (render), clip, vae, latents (encode once), unet, judge, assemble. Without
any named all run. Each keeps its checkpoint in the runs folder and resumes from it, so the command
may be stopped and given again at any time. docs/mini.md has the commands and hours of the weights
that ship.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Final

import torch
import typer
from PIL import Image
from transformers import CLIPTokenizer

from customedit import mini
from customedit.mini import assemble, clip, data, judge, text, unet, vae
from customedit.mini.loop import Average, Schedule

STAGES: Final = ("scenes", "clip", "vae", "latents", "unet", "judge", "assemble")

SCHEDULES: Final[dict[str, Schedule]] = {
    "clip": Schedule(360, 0.02, 50, 180, adam_only=("embedding", "logit")),
    "vae": Schedule(5000, 0.007, 50, 5000, ema=0.995, adam_only=("encoder.layers.0.weight",)),
    "unet": Schedule(
        7000, 0.01, 100, 7000, adam_only=("conv_in", "conv_out", "time_embedding"), ema=0.998
    ),
    "judge": Schedule(
        1500, 0.02, 20, 1000, ema=0.99, adam_share=0.1, adam_only=("noun", "pattern", "mask.3")
    ),
}
"""How each stage was trained for the weights that ship."""

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


def _clip(runs: Path, model_seed: int) -> clip.CLIPModel:
    torch.manual_seed(model_seed)
    return clip.build(_tokenizer(runs))


def _tokenizer(runs: Path) -> CLIPTokenizer:
    if not (runs / "tokenizer" / "vocab.json").exists():
        text.write_tokenizer(runs / "tokenizer")
    return text.load_tokenizer(runs / "tokenizer")


def write_sheet(runs: Path, step: int, average: Average) -> Path:
    """Draw PROMPTS with the averaged UNet and write ``sheets/unet-STEP.png``."""
    tokenizer = _tokenizer(runs)
    whole, codec, denoiser = clip.build(tokenizer), vae.build(), unet.build()
    assemble.load_average(whole, runs / "clip.pt")
    assemble.load_average(codec, runs / "vae.pt")
    average.copy_to(denoiser)
    states = unet.encode_text(clip.text_encoder(whole), tokenizer, [*PROMPTS, ""])
    latents = unet.sample(denoiser.eval(), states[:-1], states[-1:])
    with torch.no_grad():
        images = codec.decode(latents / assemble.latent_scale(runs)).sample
    pixels = ((images.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1)
    sheet = torch.cat([torch.cat(list(row), 1) for row in pixels.split(4)], 0)
    path = runs / "sheets" / f"unet-{step:06d}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet.numpy()).save(path)
    return path


def run_stage(
    name: str,
    runs: Path,
    *,
    shards: int,
    schedule: Schedule | None,
    batch: int | None,
    seed: int,
    stop_after: int | None,
    out: Path,
    device: str,
) -> None:
    """Run one stage with its files in ``runs``; see ``main`` for the meaning of each option."""
    more = {"seed": seed, "stop_after": stop_after, "device": device}
    if batch:
        more["batch"] = batch
    torch.manual_seed(seed)
    if name == "scenes":
        data.render_shards(runs / "scenes", shards)
    elif name == "clip":
        clip.train(runs, _clip(runs, seed), schedule, **more)
    elif name == "vae":
        vae.train(runs, vae.build(), schedule, **more)
    elif name == "judge":
        judge.train(runs, judge.Judge(), schedule, **more)
    elif name == "latents":
        codec = vae.build()
        assemble.load_average(codec, runs / "vae.pt")
        unet.write_latents(runs, codec, device=device)
    elif name == "unet":
        whole = _clip(runs, seed)
        assemble.load_average(whole, runs / "clip.pt")
        torch.manual_seed(seed)
        unet.train(
            runs,
            unet.build(),
            clip.text_encoder(whole),
            _tokenizer(runs),
            schedule,
            on_checkpoint=lambda step, average: write_sheet(runs, step, average),
            **more,
        )
    else:
        assemble.assemble(runs, out)


def main(
    stages: Annotated[
        list[str] | None, typer.Argument(help=f"Any of: {', '.join(STAGES)}. All if none is named.")
    ] = None,
    runs: Annotated[Path, typer.Option(help="Where scenes, checkpoints and logs go.")] = Path(
        "runs/mini"
    ),
    shards: Annotated[int, typer.Option(min=1, help="Thousands of scenes to render.")] = 40,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of the whole stage.")] = None,
    rate: Annotated[float | None, typer.Option(min=0, help="Rate of the matrices' steps.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Rows in a step.")] = None,
    stop_after: Annotated[
        int | None, typer.Option(min=1, help="Stop at this step, to be resumed.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Decides weights, batches and noise.")] = 0,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, or cuda:N.")] = "cpu",
    out: Annotated[Path | None, typer.Option(help="Where 'assemble' writes.")] = None,
) -> None:
    """Train the bundled base, or any stage of it. Stops and resumes at any point."""
    unknown = [s for s in stages or () if s not in STAGES]
    if unknown:
        raise typer.BadParameter(f"unknown stage {unknown[0]!r}; stages are {', '.join(STAGES)}")
    if threads:
        torch.set_num_threads(threads)
    for name in [s for s in STAGES if s in (stages or STAGES)]:
        schedule = SCHEDULES.get(name)
        if schedule:
            decay = steps * schedule.decay // schedule.steps if steps else schedule.decay
            schedule = dataclasses.replace(
                schedule,
                steps=steps or schedule.steps,
                decay=decay,
                rate=rate or schedule.rate,
            )
        typer.echo(f"stage {name}")
        run_stage(
            name,
            runs,
            shards=shards,
            schedule=schedule,
            batch=batch,
            seed=seed,
            stop_after=stop_after,
            out=out or mini._WEIGHTS,
            device=device,
        )


if __name__ == "__main__":
    typer.run(main)
