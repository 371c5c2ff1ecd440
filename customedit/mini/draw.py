"""Draw with the bundled base: ``python -m customedit.mini.draw "a photo of a cup" -o cup.png``.

Nothing here but the stock pipeline of diffusers, so what it draws is what the folder holds.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image

from customedit import mini
from customedit.images import layout
from customedit.mini.vocabulary import unknown_words

if TYPE_CHECKING:  # they take seconds to import: not before there is something to draw
    from diffusers import StableDiffusionPipeline

GUIDANCE: Final = 5.0
"""Weight of classifier-free guidance (Ho & Salimans, arXiv 2207.12598): one for all prompts."""

STEPS: Final = 50
"""DDIM steps of one image."""

BATCH: Final = 8
"""Images drawn at once."""

MOST_STEPS: Final = 1000
"""The steps the base was trained on; there are no more to take."""

Images = NDArray[np.uint8]


def hush() -> None:
    """Let diffusers and transformers report errors only, without bars; for commands to call."""
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")  # read when they are first imported
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    import diffusers
    import transformers

    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()


def load(folder: Path) -> StableDiffusionPipeline:
    """The pipeline in ``folder`` as stock diffusers loads it, in single precision on the CPU."""
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(
        folder, safety_checker=None, local_files_only=True
    )
    for part in (pipeline.text_encoder, pipeline.vae, pipeline.unet):
        part.float()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draw(
    pipeline: StableDiffusionPipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    steps: int = STEPS,
    guidance: float = GUIDANCE,
    batch: int = BATCH,
    on_step: Callable[[], None] | None = None,
) -> Images:
    """One image per prompt, uint8 [n, h, w, 3]. Image k starts from the noise of ``seeds[k]``.

    ``on_step`` is called after each of the ``steps`` of each batch. Raises ValueError if there are
    not as many seeds as prompts.
    """
    import torch

    def tick(_pipeline: Any, _step: int, _time: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if on_step is not None:
            on_step()
        return tensors

    parts: list[Images] = []
    pairs = list(zip(prompts, seeds, strict=True))
    for at in range(0, len(pairs), batch):
        words, numbers = zip(*pairs[at : at + batch], strict=True)
        images = pipeline(
            list(words),
            generator=[torch.Generator().manual_seed(n) for n in numbers],
            num_inference_steps=steps,
            guidance_scale=guidance,
            output_type="np",
            callback_on_step_end=tick,
        ).images
        parts.append((images * 255).round().astype(np.uint8))
    return np.concatenate(parts)


def grid(images: Images) -> Images:
    """Images [n, h, w, 3] in rows of about sqrt(n), on white: [rows h, columns w, 3]."""
    columns = math.ceil(math.sqrt(len(images)))
    return np.asarray(layout.tiled([Image.fromarray(image) for image in images], columns))


def trouble_with(out: Path, steps: int, guidance: float, count: int, seed: int) -> str | None:
    """What is wrong with these settings of :func:`main`, in one line, or None."""
    if not 1 <= steps <= MOST_STEPS:
        return f"--steps must be 1 to {MOST_STEPS}, not {steps}"
    if not (math.isfinite(guidance) and guidance >= 0):
        return f"--guidance must be a number from 0 up, not {guidance}"
    if not 1 <= count <= 64:
        return f"--count must be 1 to 64, not {count}"
    if not 0 <= seed < 2**63 - count:
        return f"--seed must be 0 to 2^63 - 1, not {seed}"
    if out.is_dir():
        return f"{out} is a folder; name a file to write to"
    if out.suffix.lower() != ".png":
        return f"the output is a PNG: {out} must end in .png"
    if not out.parent.is_dir():
        return f"there is no folder {out.parent} to write {out.name} to"
    return None


def trouble_with_prompt(prompt: str, folder: Path) -> str | None:
    """Why the base in ``folder`` can't read ``prompt`` (empty, too many tokens), or None."""
    if not prompt.strip():
        return "the prompt is empty"
    from customedit.mini.text import load_tokenizer

    tokenizer = load_tokenizer(folder / "tokenizer")
    count, most = len(tokenizer(prompt).input_ids) - 2, tokenizer.model_max_length - 2
    if count > most:
        return f"the prompt has {count} tokens and the base reads {most}; shorten it"
    return None


def _refuse(reason: str | None) -> None:
    if reason is not None:
        typer.echo(f"error: {reason}", err=True)
        raise typer.Exit(2)


def main(
    prompt: Annotated[str, typer.Argument(help="What to draw, in the words of the small world.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The PNG to write.")],
    seed: Annotated[int, typer.Option(help="Decides the noise; image k takes seed + k.")] = 0,
    steps: Annotated[int, typer.Option(help="DDIM steps.")] = STEPS,
    guidance: Annotated[float, typer.Option(help="Guidance; 0 or 1 is none.")] = GUIDANCE,
    count: Annotated[int, typer.Option(help="How many images, in a grid.")] = 1,
    weights: Annotated[
        Path | None, typer.Option(help="Another base's folder instead of the bundled one.")
    ] = None,
) -> None:
    """Draw a picture of the prompt with the bundled base."""
    _refuse(trouble_with(out, steps, guidance, count, seed))
    try:
        folder = weights or mini.path()
        if not (folder / "model_index.json").is_file():
            raise FileNotFoundError(f"{folder} holds no pipeline: it has no model_index.json")
    except FileNotFoundError as missing:
        _refuse(str(missing))
        raise
    hush()
    _refuse(trouble_with_prompt(prompt, folder))
    if unknown := unknown_words(prompt):
        typer.echo(f"warning: the base does not know: {', '.join(unknown)}", err=True)
    images = draw(
        load(folder), [prompt] * count, range(seed, seed + count), steps=steps, guidance=guidance
    )
    try:
        Image.fromarray(grid(images)).save(out)
    except OSError as reason:
        _refuse(f"can't write {out}: {reason.strerror or reason}")
    typer.echo(str(out))


if __name__ == "__main__":
    typer.run(main)
