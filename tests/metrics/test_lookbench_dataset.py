"""LookBench's pairs: as many as promised, the same every time, right answers that are right."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from customedit.concepts.prompts import ConceptPrompts
from customedit.errors import InputError
from customedit.metrics.lookbench import dataset, folder, sources
from customedit.metrics.lookbench.colour import Pixels
from customedit.metrics.lookbench.dataset import Bench
from customedit.metrics.lookbench.measures import Answer
from customedit.mini import samples
from customedit.mini.vocabulary import LOOKS, unknown_words

SMALL = "e93fbe0c1c5b3cc1bc653e1dd35c59aa9f31c5c30ee4d91e9254ce8ee7dd3b7f"
PUBLIC = "1bd801cb0aaf5b0e9e71e82062a169cc2cd91d5c16255bdcf838287c907d37e3"
FULL = "1685de22f15280ae9b6a1a154c483473a87f52f272e12ec4ecd7f6c4d79633dc"


def test_sizes_hold_one_another_and_a_thousand_pairs() -> None:
    small, public, full = (dataset.bundled(size) for size in dataset.SIZES)
    assert (len(small), len(public), len(full)) == (8, 8 * 24, 16 * 64)
    for fewer, more in ((small, public), (public, full)):
        assert set(fewer.looks) < set(more.looks) and set(fewer.sources) < set(more.sources)
    names = [s.name for s in (*full.sources, *full.tuning)]
    assert len(set(names)) == len(names) and len({look.token for look in full.looks}) == 16
    with pytest.raises(InputError, match="size"):
        dataset.bundled("huge")  # type: ignore[arg-type]  # what a caller may get wrong


def test_the_small_set_is_pinned() -> None:
    """Raise ``dataset.VERSION`` with these digests: scores of other pictures are not comparable."""
    assert dataset.bundled("small").digest() == SMALL


@pytest.mark.slow
@pytest.mark.parametrize(("size", "pinned"), [("public", PUBLIC), ("full", FULL)])
def test_the_larger_sets_are_pinned(size: dataset.Size, pinned: str) -> None:
    assert dataset.bundled(size).digest() == pinned


def same_render(found: Pixels, file: Path) -> None:
    """Equal to the file, but that kinds of processors round a few of many levels differently."""
    away = np.abs(found.astype(int) - np.asarray(Image.open(file)).astype(int))
    assert away.max() <= 1 and (away > 0).mean() <= 1e-3


def test_the_public_set_is_the_samples() -> None:
    public = dataset.bundled("public")
    for look, sample in zip(public.looks, samples.looks(), strict=True):
        assert (look.name, look.noun, look.token) == (sample.name, sample.noun, sample.token)
        assert look.phrase == sample.phrase
        for reference, file in zip(public.references(look), sample.images, strict=True):
            same_render(reference, file)
    for source, own in zip(public.sources, samples.sources(), strict=True):
        assert (source.name, source.prompt, source.look_prompt) == (
            own.name, own.prompt, own.look_prompt,
        )  # fmt: skip
        same_render(public.picture(source).image, own.image)


def test_a_right_answer_changes_the_thing_and_nothing_else() -> None:
    full = dataset.bundled("full")
    for look, source in list(full.pairs)[::41]:
        picture, answer = full.picture(source), full.answer(look, source)
        changed = (picture.image != answer).any(axis=2)
        assert not changed[picture.coverage == 0].any()
        assert changed[picture.coverage >= 0.5].mean() > 0.5, (look.name, source.name)


def test_every_source_can_be_measured_and_lies_in_the_picture() -> None:
    full = dataset.bundled("full")
    look = full.looks[0]
    for source in (*full.sources[24::5], *full.tuning):
        picture, answer = full.picture(source), full.answer(look, source)
        ready = Answer(answer, picture.image, picture.coverage, source.noun)
        assert ready.measure(answer).distance == 0
        assert ready.regions.ring.any() and ready.regions.beyond.any()


def test_tuning_scenes_are_never_scored() -> None:
    full = dataset.bundled("full")
    scored = {source.scene.seed for source in full.sources}
    assert scored.isdisjoint(source.scene.seed for source in full.tuning)


def test_words_are_the_base_s_and_prompts_name_the_concept() -> None:
    full = dataset.bundled("full")
    for look in full.looks:
        ConceptPrompts(look.token, look.noun, look.attribute)
        assert look.words[-1] == "patterned" and len(look.words) == 4
        for words in look.words:
            assert not unknown_words(words)
    for source in full.sources:
        assert not unknown_words(source.prompt)
        assert "<plaid> patterned " in source.target_prompt(full.looks[0].phrase)
        assert f"an orange dotted {source.noun}" in source.target_prompt("orange dotted")
    families = {look.family for look in full.looks}
    assert families == set(LOOKS)


def test_selecting_keeps_order_and_refuses_what_is_not_there() -> None:
    public = dataset.bundled("public")
    fewer = public.select(["waves", "plaid"], 3)
    assert [look.name for look in fewer.looks] == ["plaid", "waves"]
    assert [source.name for source in fewer.sources] == ["00-vase", "08-bowl", "16-jug"]
    assert len(public) == 192 and fewer.identity() == public.identity()
    with pytest.raises(InputError, match="look: 'tartan' is unknown"):
        public.select(["tartan"])
    with pytest.raises(InputError, match="sources: 25 is not from 1 to 24"):
        public.select(sources=25)


def looks_file(path: Path, *entries: Mapping[str, object]) -> Path:
    path.write_text(json.dumps({"looks": list(entries)}))
    return path


def test_looks_of_another_s_making_are_painted(tmp_path: Path) -> None:
    tile = np.zeros((16, 32, 3), np.uint8)
    tile[:8] = (250, 120, 20)
    tile[8:, :16] = (10, 200, 220)
    Image.fromarray(tile).save(tmp_path / "tile.png")
    path = looks_file(
        tmp_path / "looks.json",
        {"name": "tartan", "pattern": "plaid", "colour": "green", "second": "black"},
        {"name": "tiles", "texture": "tile.png", "repeat": 6, "colour": "orange", "noun": "jar",
         "words": ["orange and blue checkered"]},
    )  # fmt: skip
    bench = dataset.opened("small", path)
    tartan, tiles = bench.looks
    assert tartan.words[0] == "green and black striped" and tartan.family == "plaid"
    assert tiles.words == ("orange and blue checkered", "patterned") and tiles.noun == "jar"
    assert bench.digest() == dataset.opened("small", path).digest()
    assert bench.identity() != dataset.bundled("small").identity()
    assert bench.select(sources=1).identity() == bench.identity()
    for look in bench.looks:
        views = bench.references(look)
        assert len(views) == 5 and len({view.tobytes() for view in views}) == 5
    source = bench.sources[0]
    picture, answer = bench.picture(source), bench.answer(tiles, source)
    inside = answer[picture.coverage > 0.99].astype(int)
    blue = (inside[:, 2] > inside[:, 0] + 40).mean()
    orange = (inside[:, 0] > inside[:, 2] + 40).mean()
    assert blue > 0.1 and orange > 0.3  # a quarter and a half of the tile, the rest is black
    assert np.array_equal(answer[picture.coverage == 0], picture.image[picture.coverage == 0])


def test_names_that_would_share_a_folder_are_refused(tmp_path: Path) -> None:
    entries = [{"name": n, "pattern": "plaid", "colour": "red"} for n in ("a b", "a-b")]
    with pytest.raises(InputError, match="names a look twice"):
        dataset.opened("small", looks_file(tmp_path / "looks.json", *entries))


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"name": "a", "colour": "red"}, "a: give either pattern or texture"),
        ({"name": "a", "pattern": "tartan", "colour": "red"}, "pattern 'tartan' is unknown"),
        ({"name": "a", "pattern": "plaid", "colour": "beige"}, "colour 'beige' is unknown"),
        ({"name": "a", "pattern": "plaid", "colour": "red", "noun": "dog"}, "noun 'dog'"),
        ({"name": "../a", "pattern": "plaid", "colour": "red"}, "looks.0.name"),
        ({"name": "a", "pattern": "plaid", "colour": "red", "scale": 9}, "looks.0.scale"),
        ({"name": "a", "pattern": "plaid", "colour": "red", "size": 9}, "looks.0.size"),
        ({"name": "a", "texture": "none.png", "colour": "red"}, "none.png cannot be read"),
    ],
)
def test_unusable_looks_are_refused(entry: dict[str, object], says: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="bench") as refused:
        dataset.opened("small", looks_file(tmp_path / "looks.json", entry))
    assert says in str(refused.value)


def test_a_set_written_out_and_read_again_is_the_same(tmp_path: Path) -> None:
    small = dataset.bundled("small").select(["waves"], 2)
    files = folder.export(small, tmp_path)
    assert files == sum(path.is_file() for path in tmp_path.rglob("*"))
    back = dataset.opened("full", tmp_path)
    assert back.digest() == small.digest()
    assert back.select(sources=1).identity() == back.identity()
    spelled = json.loads((tmp_path / "prompts.json").read_text())["looks"][0]
    first = spelled["edits"][0]
    assert first["target_prompt"] == small.sources[0].target_prompt("<waves> patterned")
    assert len(spelled["edits"]) == 2 + sources.TUNING
    same_measures(small, back)


def test_a_corrected_mask_or_answer_makes_another_set(tmp_path: Path) -> None:
    """What runs keep of it goes by both: copies, words chosen on tuning sources, true masks."""
    small = dataset.bundled("small").select(["waves"], 1)
    folder.export(small, tmp_path)
    slug, tuning = small.looks[0].slug, small.tuning[0].name

    def identity() -> str:
        return str(dataset.opened("small", tmp_path).identity()["digest"])

    def corrected(path: Path) -> None:
        pixels = np.asarray(Image.open(path)).copy()
        pixels[3, 5] = 255 - pixels[3, 5]
        Image.fromarray(pixels).save(path)

    seen = [identity()]
    assert identity() == seen[0]
    for name in (
        f"answers/{slug}/{small.sources[0].name}.png", f"answers/{slug}/{tuning}.png",
        f"sources/{small.sources[0].name}-mask.png", f"sources/{tuning}-mask.png",
    ):  # fmt: skip
        corrected(tmp_path / name)
        seen.append(identity())
    (tmp_path / "answers" / slug / f"{tuning}.png").unlink()  # runs without words need none
    assert len({*seen, identity()}) == 6


def same_measures(first: Bench, second: Bench) -> None:
    """The regions survive the mask's 8 bits."""
    for (look, source), (other, again) in zip(first.pairs, second.pairs, strict=True):
        a, b = first.picture(source), second.picture(again)
        uploaded = first.picture(source).image
        one = Answer(first.answer(look, source), a.image, a.coverage, source.noun)
        two = Answer(second.answer(other, again), b.image, b.coverage, again.noun)
        assert one.measure(uploaded) == two.measure(uploaded)


def test_unusable_folders_are_refused(tmp_path: Path) -> None:
    small = dataset.bundled("small").select(["waves"], 1)
    with pytest.raises(InputError, match="cannot be read"):
        dataset.opened("small", tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        dataset.opened("small", tmp_path / "none")
    folder.export(small, tmp_path)
    index = json.loads((tmp_path / folder.INDEX).read_text())
    for change, says in (
        ({"version": 99}, "version 99"),
        ({"looks": []}, "looks"),
        ({"looks": index["looks"] * 2}, "names a look twice"),
        ({"looks": [{**index["looks"][0], "name": "empty"}]}, "looks/empty holds no PNG"),
        ({"sources": [{**index["sources"][0], "name": "../../etc"}]}, "sources.0.name"),
    ):
        (tmp_path / folder.INDEX).write_text(json.dumps({**index, **change}))
        with pytest.raises(InputError, match="bench") as refused:
            dataset.opened("small", tmp_path)
        assert says in str(refused.value)
    (tmp_path / folder.INDEX).write_text(json.dumps(index))
    look, source = dataset.opened("small", tmp_path).looks[0], small.sources[0]
    Image.new("RGB", (64, 64)).save(tmp_path / "answers" / look.slug / f"{source.name}.png")
    with pytest.raises(InputError, match="is 64 x 64, its source 128 x 128"):
        dataset.opened("small", tmp_path).answer(look, source)


def test_a_rendered_source_is_its_scene() -> None:
    first = dataset.bundled("small").sources[0]
    assert sources.worded(first.name, first.scene) == first
    moved = dataclasses.replace(first.scene, x=0.02)
    assert sources.serves(first.scene) and not sources.serves(moved)
