"""Running LookBench: everything is drawn once, and nothing again."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image

from customedit.diffusion.base import Base
from customedit.editing.settings import check_request
from customedit.errors import InputError
from customedit.experiments.lookbench import editor as lookbench_editor
from customedit.experiments.lookbench.editor import LibraryEditor, Recipe, Task
from customedit.experiments.lookbench.run import about_run, run
from customedit.experiments.lookbench.words import choose
from customedit.experiments.result_cache import named
from customedit.metrics.lookbench import dataset, report, results
from customedit.metrics.lookbench.colour import Pixels
from customedit.metrics.lookbench.dataset import Bench
from customedit.metrics.lookbench.folder import export
from customedit.metrics.lookbench.regions import Regions
from customedit.schemas.methods import EditMethod
from customedit.schemas.requests import EditOptions

METHODS: tuple[EditMethod, ...] = ("p2p", "sdedit", "ddpm", "masactrl")
QUICK = Recipe(steps=2, training={"steps": 1, "class_images": 0, "crops": 2})


class Counting:
    """An editor that is watched: how many edits it was asked for."""

    def __init__(self, editor: LibraryEditor) -> None:
        self.editor, self.edits, self.most = editor, 0, 10**6

    @property
    def by_chance(self) -> bool:
        return self.editor.by_chance

    def about(self) -> dict[str, Any]:
        return self.editor.about()

    def edit(self, tasks: Sequence[Task]) -> list[Pixels]:
        self.edits += len(tasks)
        if self.edits > self.most:
            raise KeyboardInterrupt
        return self.editor.edit(tasks)

    def copy(self, picture: Pixels) -> Pixels:
        return self.editor.copy(picture)


@pytest.fixture(scope="module")
def base() -> Base:
    return Base.load()


@pytest.fixture
def few() -> Bench:
    return dataset.bundled("small").select(["waves"], 2)


def test_a_run_draws_all_resumes_and_draws_nothing_again(
    base: Base, few: Bench, tmp_path: Path
) -> None:
    editor = Counting(LibraryEditor(base, QUICK, tmp_path))
    editor.most = 3  # the edits of a seed are there, the other seed's are not
    with pytest.raises(KeyboardInterrupt):
        run(few, editor, tmp_path, seeds=(0, 1))
    editor.edits, editor.most = 0, 10**6
    told: list[tuple[int, int, str]] = []
    done = run(few, editor, tmp_path, seeds=(0, 1), on_picture=lambda *x: told.append(x))
    waves = few.looks[0]
    assert done.words.keys() == {"waves"} and done.words["waves"] in waves.words
    assert editor.edits == 2 + len(waves.words) * len(few.tuning) + 2
    assert told[-1][:2] == (8, 8) and [x[0] for x in told] == sorted(x[0] for x in told)
    found = results.read(done.folder, few)
    assert set(found.edits) == {0, 1} and found.words and found.copies
    pictures = {s: [p.read_bytes() for p in files.values()] for s, files in found.edits.items()}
    assert pictures[0] != pictures[1]  # each seed has a training of its own

    editor.edits = 0
    again = run(few, editor, tmp_path, seeds=(0, 1))
    assert editor.edits == 0 and again.folder == done.folder
    more = run(dataset.bundled("small").select(["waves"], 3), editor, tmp_path, words=False)
    assert more.folder == done.folder and 0 < editor.edits <= 3


class Still:
    """An editor that changes nothing, at once."""

    by_chance = False

    def about(self) -> dict[str, Any]:
        return {"editor": "still"}

    def edit(self, tasks: Sequence[Task]) -> list[Pixels]:
        return [task.picture for task in tasks]

    def copy(self, picture: Pixels) -> Pixels:
        return picture


@dataclasses.dataclass(frozen=True)
class Asked:
    """What a run was asked for."""

    looks: tuple[str, ...]
    sources: int
    seeds: int
    words: bool


SEEDS = Asked(("waves",), 1, 3, True)
PAIRS = Asked(("plaid", "waves"), 2, 1, False)


@pytest.mark.parametrize("asked", [(SEEDS, PAIRS), (PAIRS, SEEDS)])
def test_what_is_asked_is_scored_whatever_other_runs_left(
    asked: tuple[Asked, Asked], tmp_path: Path
) -> None:
    for one in asked:
        bench = dataset.bundled("small").select(one.looks, one.sources)
        seeds = range(one.seeds)
        done = run(bench, Still(), tmp_path, seeds=seeds, words=one.words)
        scores = report.score(
            bench, done.folder, None, tmp_path / "report", trainings=seeds, words=one.words
        )
        assert scores.counts == (len(one.looks), one.sources, one.seeds)
        assert ("words" in scores.figures["gap"]) == one.words
    with pytest.raises(InputError, match="lacks"):  # all that is there is not whole
        results.read(done.folder, dataset.bundled("small").select(sources=2))


class Noisy(Still):
    """Draws a level by the seed, and tells which seeds it was asked for."""

    by_chance = True

    def __init__(self) -> None:
        self.seeds: list[int] = []

    def about(self) -> dict[str, Any]:
        return {"editor": "noisy"}

    def edit(self, tasks: Sequence[Task]) -> list[Pixels]:
        self.seeds += [task.seed for task in tasks if task.taught is None]
        return [np.full_like(task.picture, 40 * task.seed) for task in tasks]


def test_words_of_an_editor_that_draws_by_chance_have_every_seed(tmp_path: Path) -> None:
    bench, editor = dataset.bundled("small").select(["waves"], 1), Noisy()
    done = run(bench, editor, tmp_path, seeds=(0, 1, 2))
    tried = len(bench.tuning) * len(bench.looks[0].words)  # the wordings, by one seed
    assert editor.seeds == [0] * tried + [0, 1, 2]
    found = results.read(done.folder, bench, (0, 1, 2), words=True)
    assert found.words is not None and set(found.words) == {0, 1, 2}
    levels = [np.asarray(Image.open(*files.values())).max() for files in found.words.values()]
    assert levels == [0, 40, 80]
    scores = report.score(bench, done.folder, None, tmp_path / "report")
    assert scores.counts == (1, 1, 3) and scores.advantage is not None


def test_noise_of_plain_words_is_that_of_the_seed(base: Base, tmp_path: Path) -> None:
    task = Task(np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8)), "cup", "a cup", "a red cup")
    other = dataclasses.replace(task, seed=5)
    assert Recipe(method="sdedit").options(task).seeds == [0]
    assert Recipe(method="sdedit").options(other).seeds == [5]
    chance = {m: LibraryEditor(base, Recipe(method=m), tmp_path).by_chance for m in METHODS}
    assert chance == {"p2p": False, "sdedit": True, "ddpm": True, "masactrl": False}


def test_pictures_of_other_edits_and_trainings_are_drawn_again(
    base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = dataset.bundled("small").select(["waves"], 1)
    editor = LibraryEditor(base, QUICK, tmp_path)
    names = {named("run", about_run(bench, editor))}
    for version in ("EDITS", "TRAININGS"):
        monkeypatch.setattr(lookbench_editor, version, 99)
        names.add(named("run", about_run(bench, editor)))
    assert len(names) == 3


def test_a_set_of_pictures_that_are_not_square_is_scored(base: Base, tmp_path: Path) -> None:
    """Whatever size the base works at, copies and edits come back in the source's."""
    square = dataset.bundled("small").select(["waves"], 1)
    export(square, tmp_path / "bench")
    for path in (tmp_path / "bench").glob("*/**/*.png"):
        if "looks" not in path.parts:
            Image.open(path).resize((96, 64), Image.Resampling.BOX).save(path)
    bench = dataset.opened("small", tmp_path / "bench")
    editor = LibraryEditor(base, QUICK, tmp_path)
    assert base.size(96, 64) != (96, 64)
    assert editor.copy(bench.answer(bench.looks[0], bench.sources[0])).shape == (64, 96, 3)
    done = run(bench, editor, tmp_path)
    scores = report.score(bench, done.folder, None, tmp_path / "report", trainings=[0], words=True)
    assert scores.counts == (1, 1, 1) and scores.figures["gap"]["copy"].value == 1


def test_other_settings_have_a_folder_of_their_own(base: Base, few: Bench, tmp_path: Path) -> None:
    def folder(recipe: Recipe) -> Path:
        one = few.select(sources=1)
        return run(one, LibraryEditor(base, recipe, tmp_path), tmp_path, words=False).folder

    assert folder(QUICK) == folder(QUICK)
    leaking = Recipe(steps=2, preserve=False, training=QUICK.training)
    assert folder(QUICK) != folder(leaking)


def test_plain_words_are_chosen_by_the_measure_on_tuning_sources(
    base: Base, few: Bench, tmp_path: Path
) -> None:
    class Told(LibraryEditor):
        """Gives the right answer for one wording and the upload for the others."""

        def edit(self, tasks: Sequence[Task]) -> list[Pixels]:
            shown = {few.picture(s).image.tobytes(): s for s in few.tuning}
            return [
                few.answer(few.looks[0], shown[task.picture.tobytes()])
                if "white and blue zigzag" in task.target_prompt
                else task.picture
                for task in tasks
            ]

    kept = tmp_path / "kept.json"
    found = choose(few, Told(base, QUICK, tmp_path), few.looks[0], kept)
    assert found.words == "white and blue zigzag" and found.distances[found.words] == 0
    assert set(found.distances) == set(few.looks[0].words)
    few.tuning = ()
    with pytest.raises(InputError, match="tuning sources"):
        choose(few, Told(base, QUICK, tmp_path), few.looks[0], tmp_path / "other.json")


def test_unusable_settings_are_refused_before_any_work(base: Base, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="steps"):
        LibraryEditor(base, Recipe(training={"steps": -1}), tmp_path)


@pytest.mark.parametrize("method", get_args(EditMethod))
def test_edits_are_those_of_the_defaults(method: EditMethod) -> None:
    task = Task(np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8)), "cup", "a cup", "a red cup")
    options = Recipe(method).options(task)
    given = EditOptions.model_validate(
        {"source_prompt": "a cup", "target_prompt": "a red cup", "method": method}
        | {method: {"blend_words": ["cup"]}}
    )
    assert check_request(options) == check_request(given) and check_request(options).preserve


def test_a_soft_edge_is_that_of_the_edits_and_is_told_where_it_is_given() -> None:
    task = Task(np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8)), "cup", "a cup", "a red cup")
    for feather, width in ((None, 2.0), (8.0, 8.0)):
        recipe = Recipe(true_mask=True, feather=feather)
        checked = check_request(recipe.options(task), mask=True)
        assert checked.own_feather == width
        assert recipe.about().get("feather") == feather
        assert Recipe(**recipe.about()) == recipe
    assert "feather" not in Recipe().about()  # as kept by versions without it


def test_an_edit_that_keeps_the_picture_gives_back_its_size(base: Base, tmp_path: Path) -> None:
    source = dataset.bundled("small").sources[0]
    picture, coverage = dataset.bundled("small").picture(source)
    words = source.target_prompt("red dotted")
    task = Task(picture, coverage, source.noun, source.prompt, words)
    editor = LibraryEditor(base, Recipe(steps=2, preserve=True, true_mask=True), tmp_path)
    (edited,) = editor.edit([task])
    assert edited.shape == picture.shape
    far = Regions.of(coverage).beyond
    assert (edited == picture)[far].all() and (edited != picture)[coverage == 1].mean() > 0.5
    assert np.abs(editor.copy(picture).astype(int) - picture).mean() < 20
