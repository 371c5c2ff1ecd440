"""An editor's pictures measured and summed up, beside doing nothing, plain words and the bound."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import numpy as np

from customedit.metrics.lookbench import results
from customedit.metrics.lookbench.colour import Array, Pixels
from customedit.metrics.lookbench.dataset import Bench
from customedit.metrics.lookbench.intervals import (
    Draws,
    Estimate,
    LookMeans,
    gap_closed,
    look_means,
    of_look,
    over_looks,
)
from customedit.metrics.lookbench.looks import Look
from customedit.metrics.lookbench.measures import Answer, Measures, shapes
from customedit.metrics.lookbench.results import Results
from customedit.metrics.lookbench.sources import Source
from customedit.mini import judge as judging

Kind = Literal["nothing", "words", "edit", "copy", "answer"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
"""nothing: the uploaded picture; words: the edit by the best plain words; edit: what is scored;
copy: the right answer through the autoencoder; answer: the right answer itself."""

Copier = Callable[[Pixels], Pixels]
"""A picture through an autoencoder and back, uint8 [h, w, 3] to the same."""

MEASURES: Final = tuple(field.name for field in dataclasses.fields(Measures))


@dataclass(frozen=True)
class Row:
    """One picture: what it is, of which pair and seed, and its measures.

    seed: of an edit's training, and of what is drawn by chance for words; else 0.
    """

    kind: Kind
    look: str
    source: str
    seed: int
    measures: Measures

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Row:
        """The row of which ``as_dict`` made ``document``, but for the rounding."""
        measured = {name: document[name] for name in MEASURES}
        own = {name: value for name, value in document.items() if name not in MEASURES}
        return cls(**own, measures=Measures(**measured))

    def as_dict(self) -> dict[str, Any]:
        """As plain data, measures rounded to four places."""
        measured = dataclasses.asdict(self.measures)
        rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in measured.items()}
        return {
            "kind": self.kind,
            "look": self.look,
            "source": self.source,
            "seed": self.seed,
            **rounded,
        }


def bundled_judge() -> judging.Judge:
    """The bundled judge: trained on renders alone, no part of any editor."""
    from customedit import mini

    return judging.load(mini.path() / "judge.safetensors")


def pictures_of(
    bench: Bench, pictures: Results, copier: Copier | None, look: Look, source: Source
) -> list[tuple[Kind, int, Pixels]]:
    """Every picture of one pair: (kind, seed, pixels)."""
    uploaded, answer = bench.picture(source).image, bench.answer(look, source)
    pair = look.name, source.name
    out: list[tuple[Kind, int, Pixels]] = [("nothing", 0, uploaded)]
    words = pictures.words or {}
    out += [("words", s, results.load(f[pair], uploaded)) for s, f in words.items()]
    out += [("edit", s, results.load(f[pair], uploaded)) for s, f in pictures.edits.items()]
    if pictures.copies is not None:
        out.append(("copy", 0, results.load(pictures.copies[pair], uploaded)))
    elif copier is not None:
        out.append(("copy", 0, copier(answer)))
    else:
        raise ValueError("there are neither copies of the right answers nor a copier")
    return [*out, ("answer", 0, answer)]


def measure_all(
    bench: Bench,
    pictures: Results,
    copier: Copier | None,
    judge: judging.Judge,
    on_pair: Callable[[int, int], None] | None = None,
) -> list[Row]:
    """The rows of every picture; on_pair: told how many pairs are done, of how many."""
    rows = []
    for number, (look, source) in enumerate(bench.pairs):
        picture = bench.picture(source)
        answer = Answer(bench.answer(look, source), picture.image, picture.coverage, source.noun)
        shown = pictures_of(bench, pictures, copier, look, source)
        seen = shapes(judge, [pixels for _, _, pixels in shown], [answer] * len(shown))
        for (kind, seed, pixels), shape in zip(shown, seen, strict=True):
            rows.append(Row(kind, look.name, source.name, seed, answer.measure(pixels, shape)))
        if on_pair is not None:
            on_pair(number + 1, len(bench))
    return rows


@dataclass(frozen=True)
class LookScore:
    """One look: the gap that edits and plain words close, and their difference."""

    look: str
    edit: Estimate
    words: Estimate | None
    advantage: Estimate | None


@dataclass(frozen=True)
class Scores:
    """What the rows come to.

    figures: measure to kind to estimate; beside MEASURES there are "gap" (share of the gap closed,
    1 is the autoencoder's copy), "exact" (the same where 1 is the right answer itself) and
    "detail_gap" (as exact, by ``detail``: of that a copy may have hardly any). looks: by look.
    advantage: gap closed by edits less that by plain words, None without words. counts: of looks,
    sources and training seeds.
    """

    figures: Mapping[str, Mapping[Kind, Estimate]]
    looks: tuple[LookScore, ...]
    advantage: Estimate | None
    counts: tuple[int, int, int]

    def as_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "counts": dict(zip(("looks", "sources", "seeds"), self.counts, strict=True)),
            "figures": {
                name: {kind: estimate.as_dict() for kind, estimate in by_kind.items()}
                for name, by_kind in self.figures.items()
            },
            "edit_less_words": _compared(self.advantage),
            "looks": {
                entry.look: {
                    "edit": entry.edit.as_dict(),
                    "words": None if entry.words is None else entry.words.as_dict(),
                    "edit_less_words": _compared(entry.advantage),
                }
                for entry in self.looks
            },
        }


def _compared(difference: Estimate | None) -> dict[str, Any] | None:
    if difference is None:
        return None
    return {**difference.as_dict(), "verdict": difference.verdict}


def summarise(bench: Bench, rows: Sequence[Row]) -> Scores:
    """The scores of ``rows``, which hold every pair of ``bench``."""
    seeds = sorted({row.seed for row in rows if row.kind == "edit"})
    draws = Draws.of([look.family for look in bench.looks], len(bench.sources), len(seeds))
    figures = figures_by_look(bench, rows, draws)
    gap = figures["gap"]
    advantage = gap["edit"] - gap["words"] if "words" in gap else None
    return Scores(
        figures={
            name: {kind: over_looks(m, draws) for kind, m in by_kind.items()}
            for name, by_kind in figures.items()
        },
        looks=tuple(
            LookScore(
                look.name,
                of_look(gap["edit"], k),
                of_look(gap["words"], k) if "words" in gap else None,
                None if advantage is None else of_look(advantage, k),
            )
            for k, look in enumerate(bench.looks)
        ),
        advantage=None if advantage is None else over_looks(advantage, draws),
        counts=(len(bench.looks), len(bench.sources), len(seeds)),
    )


def figures_by_look(
    bench: Bench, rows: Sequence[Row], draws: Draws
) -> dict[str, dict[Kind, LookMeans]]:
    """The figures of ``Scores`` before the mean over looks: measure to kind to means.

    draws: two editors are compared on the same.
    """
    kinds = [kind for kind in KINDS if any(row.kind == kind for row in rows)]
    means = {
        name: {kind: look_means(_grid(bench, rows, kind, name), draws) for kind in kinds}
        for name in MEASURES
    }
    zero = LookMeans(np.zeros(len(bench.looks)), np.zeros((len(draws.looks), len(bench.looks))))
    shares: dict[str, dict[Kind, LookMeans]] = {"gap": {}, "exact": {}, "detail_gap": {}}
    for name, measure in (("gap", "distance"), ("exact", "distance"), ("detail_gap", "detail")):
        by_kind = means[measure]
        bound = by_kind["copy"] if name == "gap" else zero
        shares[name] = {k: gap_closed(by_kind[k], by_kind["nothing"], bound) for k in kinds}
    return shares | means


def _grid(bench: Bench, rows: Sequence[Row], kind: Kind, measure: str) -> Array:
    """One measure of one kind as [looks, sources, seeds], NaN where it is None."""
    looks = {look.name: k for k, look in enumerate(bench.looks)}
    sources = {source.name: k for k, source in enumerate(bench.sources)}
    mine = [row for row in rows if row.kind == kind]
    seeds = {seed: k for k, seed in enumerate(sorted({row.seed for row in mine}))}
    out = np.full((len(looks), len(sources), len(seeds)), np.nan)
    for row in mine:
        value = getattr(row.measures, measure)
        if value is not None:
            out[looks[row.look], sources[row.source], seeds[row.seed]] = float(value)
    return out


HEADINGS: Final[dict[Kind, str]] = {
    "nothing": "doing nothing",
    "words": "best plain words",
    "edit": "edit",
    "copy": "autoencoder's copy",
    "answer": "right answer",
}

LINES: Final = (
    ("gap", "gap closed inside the mask, of the autoencoder's", 1.0, 2, ""),
    ("exact", "gap closed inside the mask, of the right answer's", 1.0, 2, ""),
    ("detail_gap", "the same in edges and texture alone", 1.0, 2, ""),
    ("distance", "distance of patches", 1.0, 1, " Lab"),
    ("colour", "colour difference", 1.0, 1, " ΔE"),
    ("ring", "PSNR in the ring against the upload", 1.0, 1, " dB"),
    ("beyond", "PSNR beyond the ring", 1.0, 1, " dB"),
    ("iou", "shape: judge's IoU with the true mask", 1.0, 2, ""),
    ("right", "shape: class right", 100.0, 0, " %"),
)
"""Of the table: the figure, its words, a factor, digits, and the unit."""


def table(scores: Scores) -> list[str]:
    """The scores as lines of Markdown."""
    looks, sources, seeds = scores.counts
    kinds = [kind for kind in KINDS if kind in scores.figures["gap"]]
    lines = [
        f"{looks} looks x {sources} sources x {seeds} training seeds; 95 % intervals over all three"
        + ("" if seeds > 1 else " (one seed: training's chance is not in them)"),
        "",
        "| what | " + " | ".join(HEADINGS[kind] for kind in kinds) + " |",
        "|---|" + "---|" * len(kinds),
    ]
    for name, words, factor, digits, unit in LINES:
        cells = [_shown(scores.figures[name][kind], factor, digits, unit) for kind in kinds]
        lines.append(f"| {words} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "| look | gap closed | by best plain words | difference | |",
        "|---|---|---|---|---|",
    ]
    every = scores.figures["gap"]
    whole = LookScore("all", every["edit"], every.get("words"), scores.advantage)
    for entry in (*scores.looks, whole):
        cells = ["" if e is None else _shown(e) for e in (entry.edit, entry.words, entry.advantage)]
        verdict = "" if entry.advantage is None else entry.advantage.verdict
        lines.append(f"| {entry.look} | " + " | ".join(cells) + f" | {verdict} |")
    return lines


def _shown(estimate: Estimate, factor: float = 1.0, digits: int = 2, unit: str = "") -> str:
    if np.isnan(estimate.value):
        return "-"
    value, low, high = (factor * x for x in (estimate.value, estimate.low, estimate.high))
    text = f"{value:.{digits}f}{unit}"
    if np.isnan(low) or f"{low:.{digits}f}" == f"{high:.{digits}f}":
        return text
    return f"{text} ({low:.{digits}f} to {high:.{digits}f})"
