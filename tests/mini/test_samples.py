import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from customedit.mini import samples
from customedit.mini.samples import __main__ as command
from customedit.mini.samples import recipe
from customedit.mini.scenes import SIZE, Scene, render
from customedit.mini.vocabulary import CLASSES, COLOURS, LOOKS, unknown_words

LOOK_FILES = [path for look in samples.looks() for path in look.images]
SOURCES = samples.sources()
by_name = pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def assert_same_picture(one: np.ndarray, other: np.ndarray) -> None:
    """Equal but for the last bit of a channel, which another processor's sine may turn."""
    apart = np.abs(one.astype(int) - other.astype(int)).max(axis=2)
    assert (apart > 2).mean() < 0.002


def test_every_look_has_five_pictures_of_one_class() -> None:
    looks = samples.looks()
    assert tuple(look.name for look in looks) == LOOKS
    assert all(len(look.images) == 5 for look in looks)
    assert len({look.noun for look in looks}) == len(looks)
    assert {look.noun for look in looks} <= set(CLASSES)


@pytest.mark.parametrize("look", samples.looks(), ids=lambda look: look.name)
def test_a_look_is_called_in_words_the_base_knows(look: samples.Look) -> None:
    assert unknown_words(look.attribute) == []
    assert re.fullmatch(r"<[a-z-]+>", look.token)
    assert look.phrase == f"{look.token} {look.attribute}"


def test_there_are_24_sources_and_every_class_has_two() -> None:
    assert len(SOURCES) == 24
    nouns = [source.noun for source in SOURCES]
    assert all(2 <= nouns.count(noun) <= 3 for noun in CLASSES)
    assert len({source.prompt for source in SOURCES}) == len(SOURCES)


@by_name
def test_prompts_of_sources_are_made_of_known_words(source: samples.Source) -> None:
    prompts = [source.prompt, source.colour_prompt, source.pattern_prompt]
    prompts += [source.target_prompt(look) for look in samples.looks()]
    assert len(set(prompts)) == len(prompts)
    for prompt in prompts:
        assert unknown_words(prompt) == []
        assert source.noun in prompt.split()


@by_name
def test_targets_change_the_thing_and_keep_the_place(source: samples.Source) -> None:
    place = source.prompt[source.prompt.index(" on a") :]
    look = samples.looks()[0]
    for prompt in (source.colour_prompt, source.pattern_prompt, source.target_prompt(look)):
        assert prompt.endswith(place)
    assert source.target_prompt(look).startswith(f"a photo of a {look.phrase} {source.noun}")


@pytest.mark.parametrize("number", range(24))
def test_the_thing_of_a_source_stands_out_and_can_be_recoloured(number: int) -> None:
    scene, planned = recipe.source_scene(number), recipe.SOURCE_RECIPES[number]
    assert scene.colour not in (scene.wall, scene.table)
    assert planned.new_colour in set(COLOURS) - {scene.colour, scene.wall, scene.table}
    assert planned.new_second != scene.colour
    assert planned.new_pattern != scene.pattern


@by_name
def test_masks_are_true(source: samples.Source) -> None:
    mask = pixels(source.mask)
    assert mask.shape == (SIZE, SIZE)
    assert set(np.unique(mask)) == {0, 255}
    again = render(recipe.source_scene(SOURCES.index(source))).mask
    assert ((mask == 255) != again).mean() < 0.002


def test_pictures_are_rendered_from_the_scenes_beside_them() -> None:
    folder = samples.ROOT / "sources"
    entries = json.loads((folder / "sources.json").read_text())
    for entry in entries[::6]:
        picture = render(Scene(**entry["scene"]))
        assert_same_picture(pixels(folder / entry["image"]), picture.image)
    for note in sorted((samples.ROOT / "looks").glob("*/look.json"))[::3]:
        entry = json.loads(note.read_text())["images"][0]
        picture = render(Scene(**entry["scene"]))
        assert_same_picture(pixels(note.parent / entry["image"]), picture.image)


def test_nothing_is_cut_by_the_edge_in_the_looks() -> None:
    for name in LOOKS:
        for scene in recipe.look_scenes(name):
            mask = render(scene).mask
            assert not (mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())


def test_looks_vary_in_place_and_view_and_keep_their_colours() -> None:
    for name in LOOKS:
        scenes = recipe.look_scenes(name)
        assert len({(scene.table, scene.wall) for scene in scenes}) == 5
        assert len({scene.sun for scene in scenes}) == 5
        assert len({scene.yaw for scene in scenes}) == 5
        assert len({(s.noun, s.pattern, s.colour, s.second, s.material) for s in scenes}) == 1
        assert scenes[0].pattern == name


def test_no_sample_uses_a_seed_of_training_or_of_another_sample() -> None:
    scenes = [recipe.source_scene(number) for number in range(24)]
    scenes += [scene for name in LOOKS for scene in recipe.look_scenes(name)]
    assert len({scene.seed for scene in scenes}) == len(scenes)
    assert recipe.FIRST_SEED >= 2 * 10**6


def test_writing_again_gives_the_same_files(tmp_path: Path) -> None:
    for attempt in ("one", "other"):
        command.write_look("plaid", tmp_path / attempt / "looks" / "plaid")
        command.write_source(3, tmp_path / attempt / "sources")
    files = [path for path in (tmp_path / "one").rglob("*") if path.is_file()]
    assert len(files) == 5 + 1 + 2
    for path in files:
        name = path.relative_to(tmp_path / "one")
        assert path.read_bytes() == (tmp_path / "other" / name).read_bytes()
        if path.suffix == ".json":
            assert path.read_bytes() == (samples.ROOT / name).read_bytes()
        elif "mask" not in path.name:
            assert_same_picture(pixels(path), pixels(samples.ROOT / name))


def test_every_picture_is_small_and_of_the_right_size() -> None:
    photos = [photo.image for photo in samples.photos()]
    for path in [*LOOK_FILES, *(source.image for source in SOURCES), *photos]:
        assert pixels(path).shape == (SIZE, SIZE, 3), path
        assert path.stat().st_size < 50_000, path


def test_photographs_are_written_from_the_originals_and_their_terms_are_told(
    tmp_path: Path,
) -> None:
    pytest.importorskip("skimage")
    terms = (samples.ROOT / "photos" / "LICENSES.md").read_text()
    photos = samples.photos()
    assert {photo.name for photo in photos} == set(recipe.PHOTO_RECIPES)
    for photo in photos:
        assert f"`{photo.image.name}`" in terms
        command.write_photo(photo.name, tmp_path)
        assert_same_picture(pixels(tmp_path / photo.image.name), pixels(photo.image))


def test_finding_the_samples_needs_no_heavy_module() -> None:
    code = "import sys; from customedit.mini import samples as s; s.looks(); s.sources()\n"
    code += "print(*{m.partition('.')[0] for m in sys.modules})"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert {"torch", "numpy", "PIL"}.isdisjoint(run.stdout.split())
