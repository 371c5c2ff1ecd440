"""``customedit lookbench export | run | score``: edits measured against the right answer."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from customedit.cli import console, outputs
from customedit.cli.options import Options, dataclass_options, model_options
from customedit.errors import InputError
from customedit.schemas.concepts import TrainingOptions
from customedit.schemas.fields import Prompt
from customedit.schemas.requests import EditOptions

if TYPE_CHECKING:
    from customedit.diffusion.method import Progress
    from customedit.experiments.lookbench.editor import LibraryEditor
    from customedit.metrics.lookbench.dataset import Bench
    from customedit.metrics.lookbench.scores import Scores

_OF_EXPORT: Final = r"lookbench\.json|prompts\.json|looks|sources|answers"
_OF_REPORT: Final = r"scores\.(json|md)|[\w-]+\.png"
_OF_RUN: Final = r"run-[0-9a-f]+|references|concepts|classes|inversions"
"""The names in the folders that the commands write."""


class RunEdits(EditOptions):
    """The edits of a run: the prompts are those of the pairs."""

    source_prompt: Prompt = "a cup"
    target_prompt: Prompt = "a red cup"


_NOT_OF_EDITS: Final = (
    "source_prompt", "target_prompt", "preset", "strengths", "seeds", "everywhere",
)  # fmt: skip
_NOT_OF_TRAININGS: Final = ("seed", "preview_every", "checkpoint_every")
_EDITS: Final = Options(RunEdits, leave_out=_NOT_OF_EDITS)
_TRAINING: Final = Options(
    TrainingOptions, leave_out=_NOT_OF_TRAININGS, names={"steps": "--training-steps"}
)

app = typer.Typer(
    no_args_is_help=True,
    help=(
        "Measure editors that paint a look from references into pictures, against the right "
        "answer. To score another editor: export FOLDER, edit its pictures, score the edits."
    ),
)


@dataclass(frozen=True)
class Selection:
    """Which pairs of looks and sources."""

    size: Annotated[
        str,
        typer.Option(
            help="small (2 looks x 4 sources), public (8 x 24) or full (16 x 64, 1,024 pairs)."
        ),
    ] = "public"
    look: Annotated[
        list[str] | None, typer.Option("--look", help="Only this look; repeatable.")
    ] = None
    sources: Annotated[
        int | None, typer.Option(min=1, help="Only so many sources, evenly spaced.")
    ] = None
    bench: Annotated[
        Path | None,
        typer.Option(
            help="Other looks: a JSON file that the renderer paints from, or a folder laid out as "
            "export writes it. docs/lookbench.md has both."
        ),
    ] = None

    def open(self) -> Bench:
        """The pairs. Raises InputError."""
        from customedit.metrics.lookbench.dataset import SIZES, opened

        if self.size not in SIZES:
            raise InputError("size", f"{self.size!r} is unknown", f"take {', '.join(SIZES)}")
        chosen: Any = self.size
        return opened(chosen, self.bench).select(self.look or (), self.sources)


@app.command("export")
@dataclass_options(Selection)
def export_command(
    selection: Selection,
    folder: Annotated[Path, typer.Argument(help="Where the files go; made if it is missing.")],
    force: outputs.ForceOption = False,
    as_json: console.JsonOption = False,
) -> None:
    """Write references, sources, masks, prompts and right answers as files, for any editor.

    The editor learns looks/LOOK/*.png, edits sources/SOURCE.png as prompts.json says, and writes
    LOOK/SOURCE.png into a folder of its own, which ``lookbench score`` measures.
    """
    outputs.check_folder(folder, force, field="folder", ours=_OF_EXPORT)
    from customedit.metrics.lookbench.folder import INDEX, export

    bench = selection.open()
    if selection.bench is not None and selection.bench.resolve() == folder.resolve():
        raise InputError("folder", f"{folder} is the set itself", "give another")
    if (folder / INDEX).is_file():  # pictures of looks and sources that are not exported now
        for name in ("looks", "sources", "answers"):
            shutil.rmtree(folder / name, ignore_errors=True)
    files = export(bench, folder)
    console.say(
        {"folder": str(folder), "pairs": len(bench), "files": files},
        [f"{folder}: {len(bench)} pairs in {files} files"],
        as_json,
    )


@app.command("score")
@dataclass_options(Selection)
def score_command(
    selection: Selection,
    folder: Annotated[
        Path,
        typer.Argument(
            help="The edits, LOOK/SOURCE.png (or seed-N/LOOK/SOURCE.png of several trainings); "
            "beside them, if there are any, words/LOOK/SOURCE.png by the editor's best plain words "
            "and copies/LOOK/SOURCE.png, right answers through its autoencoder."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="For report and sheets; FOLDER/report if left out."),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            "--base", help="Whose autoencoder copies right answers where copies/ is missing; mini."
        ),
    ] = None,
    force: outputs.ForceOption = False,
    as_json: console.JsonOption = False,
) -> None:
    """Measure the edits in FOLDER against the right answers; write scores and picture sheets.

    1 is the autoencoder's copy of the right answer, 0 is doing nothing. Prints a table; scores.json
    has every picture's measures, and worst.png shows the worst edits.
    """
    report = out or folder / "report"
    from customedit.metrics.lookbench import results
    from customedit.metrics.lookbench.report import score

    bench = selection.open()
    own = results.read(folder, bench).copies is not None  # refuses a folder that lacks pictures
    outputs.check_folder(report, force, ours=_OF_REPORT)
    if own and base is not None:
        raise InputError(
            "base", f"is of no use: {folder} has copies of its own", "leave it out, or move copies/"
        )
    editor = None if own else _editor(base or "mini", "cpu", "float32", {}, folder)
    with console.bars(as_json) as show:
        copier = None if editor is None else editor.copy
        if report.is_dir():
            outputs.remove_former(report, _OF_REPORT)
        scores = score(bench, folder, copier, report, on_pair=_counter(show, "measuring"))
    _say(scores, report, as_json)


@app.command("run")
@model_options(edits=_EDITS, training=_TRAINING)
@dataclass_options(Selection)
def run_command(
    selection: Selection,
    edits: RunEdits,
    training: TrainingOptions,
    out: Annotated[
        Path,
        typer.Option("-o", "--out", help="Pictures, concepts and report; kept between runs."),
    ] = Path("runs/lookbench"),
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Trainings of each look.")] = 1,
    no_words: Annotated[
        bool, typer.Option("--no-words", help="Leave out the edits by plain words.")
    ] = False,
    strength: Annotated[
        float | None,
        typer.Option(
            help="Instead of --change; how much of the source stays (0 to 1); sdedit: goes."
        ),
    ] = None,
    true_mask: Annotated[
        bool,
        typer.Option("--true-mask", help="Give the edits the true mask, as a user would draw it."),
    ] = False,
    base: console.BaseOption = "mini",
    device: console.DeviceOption = "cpu",
    dtype: console.DtypeOption = "float32",
    force: outputs.ForceOption = False,
    as_json: console.JsonOption = False,
) -> None:
    """Learn every look with these settings, paint it on every source, and score the edits.

    Stops and resumes at any point. Settings have folders of their own inside OUT.
    """
    outputs.check_folder(out, force, ours=_OF_RUN, resumable=True)
    from customedit.experiments.lookbench.run import run
    from customedit.metrics.lookbench.report import score

    bench = selection.open()
    settings: dict[str, Any] = {
        **{name: getattr(edits, name) for name in _EDITS.parameters()},
        "strength": strength,
        "true_mask": true_mask,
        "training": training.model_dump(exclude_none=True, exclude=set(_NOT_OF_TRAININGS)),
    }
    editor = _editor(base, device, dtype, settings, out)
    with console.bars(as_json) as show:
        editor.on_progress = show
        done = run(
            bench,
            editor,
            out,
            seeds=range(seeds),
            words=not no_words,
            on_picture=_counter(show, "pictures"),
        )
        report = done.folder / "report"
        if report.is_dir():
            outputs.remove_former(report, _OF_REPORT)
        scores = score(
            bench,
            done.folder,
            editor.copy,
            report,
            trainings=range(seeds),
            words=not no_words,
            about={**done.about, "words": done.words},
            on_pair=_counter(show, "measuring"),
        )
    _say(scores, report, as_json)


def _editor(
    base: str, device: str, dtype: str, settings: dict[str, Any], folder: Path
) -> LibraryEditor:
    from customedit.experiments.lookbench.editor import LibraryEditor, Recipe

    recipe = Recipe(**settings)  # refuses unusable settings before a base is loaded
    return LibraryEditor(console.load_base(base, device, dtype), recipe, folder)


def _counter(show: Callable[[Progress], None], phase: str) -> Callable[..., None]:
    """Shows counts (done, of, what) as the progress of ``phase``."""
    from customedit.diffusion.method import Progress

    return lambda done, of, *_: show(Progress(phase, done, of))


def _say(scores: Scores, report: Path, as_json: bool) -> None:
    from customedit.metrics.lookbench.scores import table

    lines = [*table(scores), "", f"{report}: scores.json, scores.md, worst.png and a sheet a look"]
    console.say({"report": str(report), **scores.as_dict()}, lines, as_json)
