"""The parts of the evaluation: each measures one thing about a folder of weights, in rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from numpy.typing import NDArray
from PIL import Image
from rich.progress import Progress
from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

from customedit.images.layout import labelled, tiled
from customedit.mini import captions, draw, heatmaps, judge, prompts, unet, vocabulary
from customedit.mini.data import coarse, shrink
from customedit.mini.figures import Row, averaged, counted, iou, psnr, top1
from customedit.mini.prompts import (
    Prompt,
    fixed_prompts,
    looks,
    patterned_prompts,
    unseen_scenes,
)
from customedit.mini.readings import colour_rows, patterned_rows, readings
from customedit.mini.scenes import SIZE, Picture, Scene, render
from customedit.mini.vae import to_tensor

Images = NDArray[np.uint8]

PHOTOS: Final = Path(__file__).parent / "samples" / "photos"

HALF: Final = "half of them of combinations held out of training"


class Bench:
    """What is measured, with which settings; its parts are loaded when first needed."""

    def __init__(
        self, folder: Path, count: int, steps: int, guidance: float, out: Path, progress: Progress
    ) -> None:
        self.folder, self.out, self.progress = folder, out, progress
        self.count, self.steps, self.guidance = count, steps, guidance
        self.details: list[dict[str, Any]] = []

    @cached_property
    def pipeline(self) -> StableDiffusionPipeline:
        """The folder as stock diffusers loads it."""
        return draw.load(self.folder)

    @cached_property
    def judge(self) -> judge.Judge:
        """The independent eye."""
        return judge.load(self.folder / "judge.safetensors")

    @cached_property
    def prompts(self) -> list[Prompt]:
        """The fixed prompts."""
        return fixed_prompts(self.count)

    @cached_property
    def renders(self) -> list[Picture]:
        """The prompts' own scenes, rendered."""
        return self.render([p.scene for p in self.prompts])

    def render(self, scenes: Sequence[Scene]) -> list[Picture]:
        """``scenes`` rendered at the base's size, with a progress bar."""
        side = 8 * self.pipeline.unet.config.sample_size
        return [render(s, side) for s in self.progress.track(scenes, description="rendering")]

    def ticker(self, name: str, total: int) -> Callable[[], None]:
        """A progress bar's "one more"."""
        bar = self.progress.add_task(name, total=total)
        return lambda: self.progress.advance(bar)


def _stack(pictures: Sequence[Picture]) -> Images:
    return np.stack([p.image for p in pictures])


def _small(pictures: Sequence[Picture]) -> Images:
    """The pictures' images at the judge's size, [n, SIZE, SIZE, 3]."""
    return shrink(_stack(pictures))


@torch.no_grad()
def reconstruct(pipeline: StableDiffusionPipeline, images: Images) -> Images:
    """Images [n, h, w, 3] through the VAE and back, rounded to whole levels."""
    parts = []
    for at in range(0, len(images), 16):
        latents = pipeline.vae.encode(to_tensor(images[at : at + 16])).latents
        pixels = (pipeline.vae.decode(latents).sample.clamp(-1, 1) + 1) * 127.5
        parts.append(pixels.round().byte().permute(0, 2, 3, 1).numpy())
    return np.concatenate(parts)


def photographs(folder: Path = PHOTOS) -> Images:
    """The bundled photographs, their middle squares brought to SIZE: [n, SIZE, SIZE, 3], n >= 0."""
    found = []
    for path in sorted([*folder.glob("*.png"), *folder.glob("*.jpg")]):
        picture = Image.open(path).convert("RGB")
        side = min(picture.size)
        left, top = (picture.width - side) // 2, (picture.height - side) // 2
        square = picture.crop((left, top, left + side, top + side))
        found.append(np.asarray(square.resize((SIZE, SIZE), Image.Resampling.LANCZOS)))
    return np.stack(found) if found else np.zeros((0, SIZE, SIZE, 3), np.uint8)


def measure_vae(bench: Bench) -> list[Row]:
    """How well pictures come back from the latents."""
    shown: list[tuple[Images, Images]] = []

    def row(name: str, images: Images, bar: float | None, judged: str) -> Row:
        back = reconstruct(bench.pipeline, images)
        shown.append((images[:12], back[:12]))
        return averaged(
            name, [psnr(a, b) for a, b in zip(images, back, strict=True)], bar, judged, "dB"
        )

    renders = bench.render(list(unseen_scenes(bench.count, prompts.VAE_SEED)))
    unseen = bench.render(list(looks(bench.count // 4, prompts.LOOKS_SEED)))
    how = "mean over images of each one's PSNR, 8-bit RGB"
    rows = [
        row(
            "VAE PSNR, held-out renders",
            _stack(renders),
            28.0,
            f"{how}; half held-out combinations",
        ),
        row("VAE PSNR, looks kept out of training", _stack(unseen), None, how),
    ]
    if len(photos := photographs()):
        rows.append(row("VAE PSNR, real photographs", photos, None, f"{how}; middle squares"))
    pairs = [pair for images, back in shown for pair in zip(images, back, strict=True)]
    tiles = [Image.fromarray(np.concatenate(pair)) for pair in pairs]
    tiled(tiles, 12).save(bench.out / "vae.png")
    return rows


def measure_judge(bench: Bench) -> list[Row]:
    """The judge on renders it never saw: what its word on drawn pictures is worth."""
    scenes = list(unseen_scenes(2 * bench.count, prompts.JUDGE_SEED))
    pictures = bench.render(scenes)
    said = judge.verdict(bench.judge, _small(pictures))
    true = [p.alpha.reshape(32, len(p.alpha) // 32, 32, -1).mean((1, 3)) >= 0.5 for p in pictures]
    how = "against the scene's own data; " + HALF
    return [
        counted(
            "judge's class right on renders",
            [a == s.noun for a, s in zip(said.nouns, scenes, strict=True)], 0.98, how,
        ),
        counted(
            "judge's pattern right on renders",
            [a == s.pattern for a, s in zip(said.patterns, scenes, strict=True)], 0.95, how,
        ),
        averaged(
            "judge's mask on renders",
            [iou(a, b) for a, b in zip(said.masks, true, strict=True)], None,
            "32 x 32 cells, against the scene's own mask", "IoU",
        ),
    ]  # fmt: skip


def measure_colours(bench: Bench) -> list[Row]:
    """The colour readings on the prompts' own renders: what they are worth on drawn pictures."""
    return colour_rows(
        readings(bench.judge, _small(bench.renders), bench.prompts), "true renders", 0.98
    )


def measure_images(bench: Bench) -> list[Row]:
    """Whether what is drawn is what the prompts say."""
    batches = -(-len(bench.prompts) // draw.BATCH)
    images = draw.draw(
        bench.pipeline,
        [p.text for p in bench.prompts],
        [p.scene.seed for p in bench.prompts],
        steps=bench.steps,
        guidance=bench.guidance,
        on_step=bench.ticker("drawing", batches * bench.steps),
    )
    bench.details = readings(bench.judge, shrink(images), bench.prompts)
    right = [d["right"] for d in bench.details]
    _write_sheets(bench, images)
    return [
        *colour_rows(bench.details, "drawn", 0.90),
        counted("class right, drawn", [r["class"] for r in right], 0.90, "the judge's class"),
        counted("pattern right, drawn", [r["pattern"] for r in right], 0.75, "the judge's pattern"),
    ]


def measure_patterned(bench: Bench) -> list[Row]:
    """Whether "patterned" is any pattern, in the colours that are named; and on true renders."""
    chosen = patterned_prompts(max(bench.count // 4, 1))
    batches = -(-len(chosen) // draw.BATCH)
    images = draw.draw(
        bench.pipeline,
        [p.text for p in chosen],
        [p.scene.seed for p in chosen],
        steps=bench.steps,
        guidance=bench.guidance,
        on_step=bench.ticker("drawing patterns", batches * bench.steps),
    )
    renders = bench.render([p.scene for p in chosen])
    tiles = [
        labelled(Image.fromarray(tile), [p.scene.noun, ", ".join(p.scene.colours)])
        for image, render, p in zip(images, renders, chosen, strict=True)
        for tile in (image, render.image)
    ]
    tiled(tiles[:64], 8).save(bench.out / "patterned.png")
    return [
        *patterned_rows(bench.judge, _small(renders), chosen, "true renders"),
        *patterned_rows(bench.judge, shrink(images), chosen, "drawn"),
    ]


def _write_sheets(bench: Bench, images: Images) -> None:
    """``sheet.png``, ``sheet-2.png`` ...: 64 pictures each, labels red where they are not met."""
    tiles = []
    for image, prompt, seen in zip(images, bench.prompts, bench.details, strict=True):
        s, right = prompt.scene, seen["right"]
        lines = [
            f"{s.pattern} {s.noun}",
            f"{s.colour} and {s.second}" if s.second else s.colour,
            f"{s.table} table, {s.wall} wall",
        ]
        wrong = [
            not (right["pattern"] and right["class"]),
            not right["colour"],
            not (right["table"] and right["wall"]),
        ]
        tiles.append(labelled(Image.fromarray(image), lines, wrong=wrong))
    for k in range(0, len(tiles), 64):
        name = f"sheet-{k // 64 + 1}.png" if k else "sheet.png"
        tiled(tiles[k : k + 64], 8).save(bench.out / name)


@torch.no_grad()
def measure_clip(bench: Bench) -> list[Row]:
    """Whether the CLIP tells the prompts' renders apart by their captions."""
    folder = bench.folder / "clip"
    model = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    eye = CLIPImageProcessor.from_pretrained(folder)
    texts = [p.text for p in bench.prompts]
    pictures = [Image.fromarray(p.image) for p in bench.renders]
    scores = model(
        input_ids=tokenizer(texts, padding=True, return_tensors="pt").input_ids,
        pixel_values=eye(pictures, return_tensors="pt").pixel_values,
    ).logits_per_text.numpy()
    n = len(texts)
    return [
        counted("CLIP text to image, top 1", top1(scores), 0.80, f"{n} captions, {n} renders"),
        counted("CLIP image to text, top 1", top1(scores.T), None, f"{n} renders, {n} captions"),
    ]


@torch.no_grad()
def measure_words(bench: Bench) -> list[Row]:
    """How far apart the text states are that tell the UNet of a class or a pattern."""
    forms = {
        "classes": (vocabulary.CLASSES, "a photo of a matte blue {} on a green table"),
        "patterns": (vocabulary.PATTERNS[1:], "a photo of a blue and red {} cup on a green table"),
        "colours": (tuple(vocabulary.COLOURS), "a photo of a {} cup on a green table"),
    }
    rows = []
    for name, (words, form) in forms.items():
        states = unet.encode_text(
            bench.pipeline.text_encoder, bench.pipeline.tokenizer, [form.format(w) for w in words]
        )[:, form.split().index("{}") + 1]  # the start token comes first; a word is a token
        apart = torch.pdist(states).min() / states.norm(dim=1).mean()
        how = f"least distance of any two words' own final states over their mean norm: {form!r}"
        rows.append(Row(f"text states of {name} apart", float(apart), 0.5, len(words), None, how))
    return rows


def measure_attention(bench: Bench) -> list[Row]:
    """Whether the class noun looks where the thing is."""
    scenes = list(unseen_scenes(max(bench.count // 4, 1), prompts.ATTENTION_SEED))
    pictures = bench.render(scenes)
    texts = [captions.full(s, k % 3) for k, s in enumerate(scenes)]
    tick = bench.ticker("inverting", -(-len(scenes) // 16) * bench.steps)
    maps = np.concatenate(
        [
            heatmaps.noun_maps(
                bench.pipeline,
                _stack(pictures[at : at + 16]),
                texts[at : at + 16],
                [s.noun for s in scenes[at : at + 16]],
                steps=bench.steps,
                on_step=tick,
            )
            for at in range(0, len(scenes), 16)
        ]
    )
    masks = [coarse(p.alpha) >= 0.5 for p in pictures]
    values = [iou(a, b) for a, b in zip(heatmaps.above(maps), masks, strict=True)]
    tiles = [
        labelled(Image.fromarray(heatmaps.heated(p.image, m, mask)), [f"{s.noun}  IoU {v:.2f}"])
        for p, m, mask, s, v in zip(pictures, maps, masks, scenes, values, strict=True)
    ]
    tiled(tiles[:32], 8).save(bench.out / "attention.png")
    how = (
        "DDIM inversion with the true caption, no guidance; 16 x 16 maps averaged over heads, "
        f"layers and steps; at least {heatmaps.THRESHOLD} of the maximum; true mask: cells half "
        "covered"
    )
    return [averaged("noun's attention against the true mask", values, 0.5, how, "IoU")]


def measure_time(bench: Bench) -> list[Row]:
    """Seconds that one picture takes, alone."""
    one = [bench.prompts[0].text]
    draw.draw(bench.pipeline, one, [0], steps=2, guidance=bench.guidance)
    times = []
    tick = bench.ticker("timing", 3 * bench.steps)
    for _ in range(3):
        start = time.perf_counter()
        draw.draw(
            bench.pipeline, one, [0], steps=bench.steps, guidance=bench.guidance, on_step=tick
        )
        times.append(time.perf_counter() - start)
    how = (
        f"of 3 runs after a warm-up; {bench.steps} steps with guidance, "
        f"{torch.get_num_threads()} threads"
    )
    return [
        Row("one image, shortest", min(times), 4.0, 3, None, f"least {how}", "s", at_most=True),
        Row("one image, median", float(np.median(times)), None, 3, None, f"median {how}", "s"),
    ]


PARTS: Final[dict[str, Callable[[Bench], list[Row]]]] = {
    "vae": measure_vae,
    "judge": measure_judge,
    "colours": measure_colours,
    "clip": measure_clip,
    "words": measure_words,
    "attention": measure_attention,
    "images": measure_images,
    "patterned": measure_patterned,
    "time": measure_time,
}
