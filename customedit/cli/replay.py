"""``customedit replay``: the picture of a recipe made again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from customedit.cli import console, outputs, regions
from customedit.cli.regions import RegionOption
from customedit.errors import InputError

if TYPE_CHECKING:
    from customedit.editing.plan import EditPlan


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
    region: RegionOption = None,
    out: Annotated[Path, typer.Option("-o", "--out", help="The picture.")] = Path("replayed.png"),
    force: outputs.ForceOption = False,
    base: Annotated[
        str | None, typer.Option("--base", help="The base, if it is not where the recipe says.")
    ] = None,
    device: console.DeviceOption = "cpu",
    as_json: console.JsonOption = False,
) -> None:
    """Make the picture of a recipe again, to the same pixels."""
    from customedit import images

    outputs.check_file(out, force, suffixes=images.SUFFIXES)
    plan = _read_recipe(recipe)
    image = console.read_image(picture, "picture")
    bounds = None if mask is None else console.read_mask(mask, image.size)
    places = regions.read_regions(region or [], image.size)
    files = [console.ConceptFile.read(str(path)) for path in _concept_files(concept or [])]
    model = console.load_base(base or plan.base.name, device, plan.base.dtype)
    concepts = regions.placed(console.load_concepts(model, files), places)
    from customedit.editing.editor import Editor
    from customedit.editing.plan import versions

    editor = Editor(model, inversions=console.cache_folder() / "inversions")
    with console.bars(as_json) as listen:
        result = editor.replay(plan, image, concepts=concepts, mask=bounds, on_progress=listen)
    images.write(result.image, out)
    changed = {
        name: f"{plan.versions.get(name, 'none')} -> {now}"
        for name, now in versions().items()
        if plan.versions.get(name) != now
    }
    if changed:
        listed = ", ".join(f"{name} {change}" for name, change in changed.items())
        console.warn(f"the recipe was made with other versions, pixels may differ: {listed}")
    document = {"image": str(out), "versions_changed": changed, "recipe": plan.as_json()}
    console.say(document, [str(out)], as_json)


def _read_recipe(path: Path) -> EditPlan:
    """The plan in a file that ``edit --json`` or ``sweep`` wrote. Raises InputError."""
    from customedit.editing.plan import EditPlan

    remedy = "give a file that edit --json or sweep wrote"
    try:
        document = json.loads(console.existing(path, "recipe").read_text())
    except InputError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise InputError("recipe", f"{path} is not JSON ({error})", remedy) from None
    if not isinstance(document, dict):
        raise InputError("recipe", f"{path} is not a JSON object", remedy)
    return EditPlan.read(document)


def _concept_files(paths: list[Path]) -> list[Path]:
    """Files as they are given, folders as the safetensors files in them."""
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(path.glob("*.safetensors"))
            if not inside:
                raise InputError(
                    "concept", f"{path} holds no .safetensors file", "give a concept file"
                )
            files += inside
        else:
            files.append(console.existing(path, "concept"))
    return files
