"""The study as a page: findings with intervals, curves, tables, pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from customedit.experiments.comparison import Comparison
from customedit.metrics import curves
from customedit.metrics.curves import Line, Point
from customedit.metrics.lookbench.intervals import Estimate

CLAIMS: Final = {
    "DreamBooth": "language-relevant parameters rather than the whole UNet",
    "Textual Inversion": "keys and values rather than the embedding alone",
    "default recipe": "the paper's recipe of training rather than the base's own",
    "caption": "a concept rather than a caption of the look",
    "best words": "a concept rather than the best plain words",
    "no augmented prompt": "augmented prompts",
    "no prior preservation": "prior preservation",
    "word swap": "refinement rather than word swap",
    "union mask": "the source's mask rather than the union mask",
    "DDIM inversion": "direct inversion rather than DDIM",
    "negative-prompt inversion": "direct inversion rather than negative-prompt inversion",
    "null-text inversion": "direct inversion rather than null-text inversion",
}
"""What the first variant would be better for, by the variant that lacks it."""

COLUMNS: Final = (
    ("source", "source", 3),
    ("reference", "reference", 3),
    ("text", "text", 3),
    ("gap", "gap closed", 2),
    ("ring", "ring, dB", 1),
    ("beyond", "beyond, dB", 1),
    ("iou", "shape, IoU", 2),
    ("right", "class right", 2),
)
"""Of the table of all means: the measure, its heading, digits."""


@dataclass(frozen=True)
class Finding:
    """The first variant against another: at equal source similarity, and each at its best.

    similarity: difference of reference similarity, None where the curves share no range; gap:
    difference of the gap closed.
    """

    variant: str
    editor: str
    similarity: Estimate | None
    gap: Estimate

    def as_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "variant": self.variant,
            "editor": self.editor,
            "reference_at_equal_source": _plain(self.similarity),
            "gap_at_best": _plain(self.gap),
        }


def _plain(estimate: Estimate | None) -> dict[str, Any] | None:
    return None if estimate is None else {**estimate.as_dict(), "verdict": verdict(estimate)}


def verdict(estimate: Estimate | None) -> str:
    """Whether the first variant is better, worse, or neither is shown."""
    if estimate is None:
        return "undecided"
    return {"above": "better", "below": "worse"}.get(estimate.verdict, "undecided")


@dataclass(frozen=True)
class Page:
    """text: Markdown; curves: file name to SVG."""

    text: str
    curves: dict[str, str]


def page(
    comparison: Comparison,
    findings: Sequence[Finding],
    strengths: Mapping[tuple[str, str], float],
    budgets: Mapping[str, Mapping[str, Any]],
    sheets: Sequence[str],
    first: str,
    steps: int,
) -> Page:
    """The page of a study.

    strengths: of (variant, editor), chosen on the tuning sources; budgets: the training of each
    variant that had a choice; sheets: picture files beside it, a look each.
    """
    pairs = dict.fromkeys((variant, editor) for variant, editor, _ in comparison.by_key)
    editors = sorted({editor for _, editor in pairs})
    drawn = {f"study-{editor}.svg": curve(comparison, editor) for editor in editors}
    looks, sources, seeds = map(len, (comparison.looks, comparison.sources, comparison.seeds))
    parts = [
        "# The study",
        "",
        "Written by `customedit study`: the comparison of Custom-Edit (arXiv 2305.15779) on the "
        "bundled base and LookBench's pairs ([lookbench.md](lookbench.md)). Similarities are "
        "cosines of the bundled CLIP, reference similarity of the region in the source's true "
        "mask. `preserve` is off, so that the figures show what the model draws.",
        "",
        f"{looks} looks x {sources} sources x {seeds} training seeds, {steps} DDIM steps. In "
        "parentheses are 95 % intervals over all three; a verdict is undecided where the interval "
        "holds zero.",
        "",
        "## Findings",
        "",
        f"{first} less each other variant. *Reference similarity* is compared at equal source "
        "similarity, over the range that both curves reach. *Gap closed* is the share of the "
        "distance to the right answer, each variant at the strength that does best on three "
        "sources which are not scored.",
        "",
        "| in favour of | against | editor | reference similarity | | gap closed | |",
        "|---|---|---|---|---|---|---|",
    ]
    for found in findings:
        similar = "no common range" if found.similarity is None else _shown(found.similarity, 4)
        parts.append(
            f"| {CLAIMS.get(found.variant, '')} | {found.variant} | {found.editor} | {similar} | "
            f"{verdict(found.similarity)} | {_shown(found.gap, 3)} | {verdict(found.gap)} |"
        )
    if budgets:
        parts += [
            "",
            f"Trainings with a choice took the budget that does best on those sources; all others "
            f"took that of {first}:",
            "",
        ]
        parts += [f"- {name}: {_settings(budget)}" for name, budget in budgets.items()]
    parts += ["", "## Curves", ""]
    parts += [f"![source against reference similarity, {e}](study-{e}.svg)" for e in editors]
    variants = ", ".join(dict.fromkeys(variant for variant, _ in pairs))
    parts += ["", "## Pictures", ""]
    parts += [
        f"The first source, first editor and seed; down: {variants}; right: rising strengths."
    ]
    parts += ["", *(f"![{name}]({name})" for name in sheets)]
    parts += ["", "## All means", "", *_rows(comparison, strengths)]
    return Page("\n".join(parts) + "\n", drawn)


def _settings(budget: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in budget.items()) or "the defaults"


def _rows(comparison: Comparison, strengths: Mapping[tuple[str, str], float]) -> list[str]:
    head = " | ".join(heading for _, heading, _ in COLUMNS)
    lines = [f"| variant | editor | strength | {head} |", "|---" * (3 + len(COLUMNS)) + "|"]
    for key in comparison.by_key:
        variant, editor, strength = key
        cells = [_number(comparison.estimate(key, m).value, digits) for m, _, digits in COLUMNS]
        mark = " (best)" if strengths.get((variant, editor)) == strength else ""
        lines.append(f"| {variant} | {editor} | {strength:g}{mark} | {' | '.join(cells)} |")
    return lines


def _number(value: float, digits: int) -> str:
    return "" if math.isnan(value) else f"{value:.{digits}f}"


def _shown(estimate: Estimate, digits: int) -> str:
    value, low, high = (f"{x:+.{digits}f}" for x in (estimate.value, estimate.low, estimate.high))
    return f"{value} ({low} to {high})"


def curve(comparison: Comparison, editor: str) -> str:
    """Source similarity to the right, reference similarity upwards, a line a variant, as SVG."""
    lines = []
    for variant in dict.fromkeys(v for v, e, _ in comparison.by_key if e == editor):
        xs, ys = (comparison.curve(variant, editor, m).value for m in ("source", "reference"))
        points = tuple(Point(float(x), float(y)) for x, y in zip(xs, ys, strict=True))
        lines.append(Line(points, variant))
    return curves.plot(lines, f"source similarity, {editor}", "reference similarity")
