"""Write the samples: ``python -m customedit.mini.samples``. The same files come out every time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image

from customedit.mini import samples
from customedit.mini.samples import recipe
from customedit.mini.scenes import SIZE, render
from customedit.mini.vocabulary import LOOKS


def write_look(name: str, folder: Path) -> None:
    """Render the reference images of one look into ``folder``, with ``look.json`` beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    images = []
    for view, scene in enumerate(recipe.look_scenes(name)):
        file = f"{view}.png"
        _save(render(scene).image, folder / file)
        images.append({"image": file, "scene": scene.as_dict()})
    note = {
        "name": name,
        "noun": recipe.LOOK_RECIPES[name].noun,
        "attribute": recipe.ATTRIBUTE,
        "token": f"<{recipe.slug(name)}>",
        "images": images,
    }
    _write(note, folder / "look.json")


def write_source(number: int, folder: Path) -> dict[str, Any]:
    """Render one source and its mask into ``folder``; returns its entry in ``sources.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    scene = recipe.source_scene(number)
    picture = render(scene)
    name = f"{number:02d}-{scene.noun}"
    _save(picture.image, folder / f"{name}.png")
    _save(picture.mask.astype(np.uint8) * 255, folder / f"{name}-mask.png")
    return {
        "name": name,
        "image": f"{name}.png",
        "mask": f"{name}-mask.png",
        **recipe.source_prompts(number),
        "scene": scene.as_dict(),
    }


def write_photo(name: str, folder: Path) -> dict[str, Any]:
    """Crop one photograph to a square and make it small; returns its entry in ``photos.json``.

    Raises ModuleNotFoundError without scikit-image, whose wheel carries the originals.
    """
    import skimage.data

    folder.mkdir(parents=True, exist_ok=True)
    photo = recipe.PHOTO_RECIPES[name]
    original = Image.fromarray(getattr(skimage.data, photo.original)())
    small = original.resize((SIZE, SIZE), Image.Resampling.LANCZOS, box=photo.crop)
    small.save(folder / f"{name}.png", optimize=True)
    return {
        "name": name,
        "image": f"{name}.png",
        "noun": photo.noun,
        "prompt": photo.prompt,
        "look_prompt": photo.look_prompt,
    }


def write(out: Path) -> None:
    """Write all samples to ``out``; the photographs only where scikit-image is installed."""
    for name in LOOKS:
        write_look(name, out / "looks" / recipe.slug(name))
    _write([recipe.slug(name) for name in LOOKS], out / "looks" / "index.json")
    count = len(recipe.SOURCE_RECIPES)
    entries = [write_source(number, out / "sources") for number in range(count)]
    _write(entries, out / "sources" / "sources.json")
    try:
        photos = [write_photo(name, out / "photos") for name in recipe.PHOTO_RECIPES]
    except ModuleNotFoundError:
        typer.echo("no photographs written: they need scikit-image (pip install scikit-image)")
    else:
        _write(photos, out / "photos" / "photos.json")


def _save(pixels: NDArray[np.uint8], path: Path) -> None:
    Image.fromarray(pixels).save(path, optimize=True)


def _write(value: object, path: Path) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def main(
    out: Annotated[Path, typer.Option(help="Where to write them.")] = samples.ROOT,
) -> None:
    """Render the samples: looks to teach, sources to edit; and crop the photographs."""
    write(out)
    typer.echo(
        f"{len(samples.looks(out))} looks, {len(samples.sources(out))} sources and the photographs "
        f"are in {out}"
    )


if __name__ == "__main__":
    typer.run(main)
