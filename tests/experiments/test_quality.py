"""The sheets of quality.md: what is on them, and that what a run kept is taken as it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from customedit.diffusion.base import Base
from customedit.errors import InputError
from customedit.experiments import quality
from customedit.experiments.lookbench.editor import LibraryEditor, Recipe, Task
from customedit.experiments.lookbench.run import Run, run
from customedit.images.layout import LINE, MARGIN
from customedit.metrics.lookbench import report, results
from customedit.metrics.lookbench.colour import Pixels
from customedit.metrics.lookbench.dataset import bundled
from customedit.metrics.lookbench.measures import Measures
from customedit.metrics.lookbench.scores import Row
from customedit.mini import samples

QUICK = Recipe(steps=2, training={"steps": 1, "class_images": 0, "crops": 2})


def row(source: int, distance: float, kind: str = "edit", seed: int = 0) -> Row:
    measures = Measures(distance, 1.0, 1.0, 30.0, None, 0.5, True)
    return Row(kind, "plaid", f"{source}", seed, measures)  # type: ignore[arg-type]  # one of the kinds


def test_rows_come_back_from_a_report() -> None:
    assert Row.of(row(3, 12.5).as_dict()) == row(3, 12.5)


def test_extremes_are_of_what_an_edit_could_have_helped() -> None:
    copies = [row(k, 20.0 if k == 0 else 5.0, "copy") for k in range(6)]
    edits = [row(k, d) for k, d in enumerate((24.0, 12.0, 6.0, 10.0, 30.0, 8.0))]
    best, worst = quality.extremes([*copies, *edits], "plaid", each=2)
    assert [r.source for r in best] == ["2", "5"] and [r.source for r in worst] == ["4", "1"]
    best, worst = quality.extremes([*copies, *edits], "plaid")
    assert (len(best), len(worst)) == (3, 3)
    assert [r.source for r in quality.extremes([*copies, edits[0]], "plaid").best] == ["0"]
    assert quality.extremes([*copies, edits[0]], "plaid").worst == []


def test_a_photograph_of_an_unknown_thing_is_edited_by_its_own_word() -> None:
    told = {photo.name: quality.worded(photo) for photo in samples.photos()}
    assert told["coffee"].noun == "cup" and told["cat"].noun == "cat"
    target = told["rocket"].target_prompt("<plaid> patterned")
    assert target == "a photo of a <plaid> patterned rocket"


@pytest.fixture(scope="module")
def base() -> Base:
    return Base.load()


def scored_run(base: Base, recipe: Recipe, folder: Path) -> Run:
    bench = bundled("small").select(["waves"], 2)
    editor = LibraryEditor(base, recipe, folder)
    done = run(bench, editor, folder, words=False)
    out = done.folder / "report"
    report.score(
        bench, done.folder, None, out, trainings=[0], words=False,
        about={**done.about, "words": done.words},
    )  # fmt: skip
    return done


def test_sheets_are_made_of_a_scored_run(
    base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = scored_run(base, QUICK, tmp_path)
    drawn: list[str] = []
    edit = LibraryEditor.edit

    def watched(self: LibraryEditor, tasks: Sequence[Task]) -> list[Pixels]:
        drawn.extend(task.source_prompt for task in tasks)
        return edit(self, tasks)

    monkeypatch.setattr(LibraryEditor, "edit", watched)
    monkeypatch.setattr(Base, "load", lambda *_, **__: base)
    concepts = sorted((tmp_path / "concepts").iterdir())
    quality.main(done.folder, tmp_path / "sheets")
    assert drawn == [photo.prompt for photo in samples.photos()]
    assert sorted((tmp_path / "concepts").iterdir()) == concepts  # what the run learned

    with Image.open(tmp_path / "sheets" / "waves.jpg") as sheet:
        width, height = 128 + 2 * MARGIN, 128 + 2 * MARGIN + 2 * LINE
        assert sheet.size == (6 * width, 3 * height)  # references, one nearest, one furthest
        scored = quality.read(done.folder)
        (best,), (worst,) = quality.extremes(scored.rows, "waves")
        for line, shown in ((1, best), (2, worst)):
            path = results.find(done.folder / "seed-0", "waves", shown.source)
            assert path is not None
            left, top = width + MARGIN, line * height + MARGIN
            tile = sheet.crop((left, top, left + 128, top + 128))
            away = np.abs(np.asarray(tile, int) - np.asarray(Image.open(path), int))
            assert away.mean() < 6  # of JPEG
    with Image.open(tmp_path / "sheets" / "photos.jpg") as sheet:
        assert sheet.size == (6 * width, height)

    drawn.clear()
    quality.main(done.folder, tmp_path / "sheets")
    assert drawn == []


def test_what_is_no_run_or_another_base_is_refused(base: Base, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        quality.read(tmp_path)
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "scores.json").write_text('{"about": null, "lookbench": {}}')
    with pytest.raises(InputError, match="not of a run on LookBench's own pairs"):
        quality.read(tmp_path)
    about = {"editor": LibraryEditor(base, QUICK, tmp_path).about()}
    made = quality.Scored(tmp_path / "run", about, bundled("small").looks, bundled("small"), ())
    assert quality.editor_of(made, base).recipe == dataclasses.replace(QUICK)
    other = dataclasses.replace(base, name="other")
    with pytest.raises(InputError, match="base: other is not the one of the run"):
        quality.editor_of(made, other)
    with pytest.raises(InputError, match="look: 'tartan' is not of the run; take one of plaid"):
        made.look("tartan")
