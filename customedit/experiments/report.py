"""The study as a page: curves, tables, and findings with their figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from customedit.metrics import curves
from customedit.metrics.curves import Line, Point

Table = dict[tuple[str, str, float], dict[str, float]]
Gaps = dict[tuple[str, str], float | None]

CLAIMS: Final = {
    "DreamBooth": "trains language-relevant parameters better than the whole UNet",
    "Textual Inversion": "trains keys and values better than the embedding alone",
    "no augmented prompt": "augmented prompts raise reference similarity",
    "no prior preservation": "prior preservation helps",
    "word swap": "refinement beats word swap",
    "union mask": "the source-only mask beats the union mask",
    "DDIM inversion": "direct inversion beats DDIM",
    "negative-prompt inversion": "direct inversion beats negative-prompt inversion",
    "null-text inversion": "direct inversion beats null-text inversion",
}
"""What the first variant would be better for, by the variant that lacks it."""


@dataclass(frozen=True)
class Page:
    """text: Markdown; curves: file name to SVG."""

    text: str
    curves: dict[str, str]


def page(
    table: Table, gaps: Gaps, sheets: list[str], first: str, steps: int, looks: int, sources: int
) -> Page:
    """The page of a study; ``sheets``: picture files beside it, a look each."""
    editors = sorted({editor for _, editor, _ in table})
    pictures = {f"study-{editor}.svg": curve(table, editor) for editor in editors}
    parts = [
        "# The study",
        "",
        "Written by `customedit study`: the comparison of Custom-Edit (arXiv 2305.15779) on the "
        "bundled base and its samples. Similarities are cosines of the bundled CLIP; reference "
        "similarity is of the region in the source's true mask; PSNR and SSIM are outside it.",
        "",
        f"{looks} looks x {sources} sources, {steps} DDIM steps. Small differences mean nothing: "
        "one training of each, one small world.",
        "",
        "## Findings",
        "",
        f"Mean difference in reference similarity between {first} and each variant at equal source "
        "similarity, over the range that both curves reach.",
        "",
        "| claim | against | editor | difference | |",
        "|---|---|---|---|---|",
    ]
    for (variant, editor), gap in gaps.items():
        claim = CLAIMS.get(variant, "")
        if gap is None:
            parts.append(f"| {claim} | {variant} | {editor} | no common range | undecided |")
        else:
            word = "agrees" if gap > 0 else "contradicts"
            parts.append(f"| {claim} | {variant} | {editor} | {gap:+.4f} | {word} |")
    parts += ["", "## Curves", ""]
    parts += [f"![source against reference similarity, {e}](study-{e}.svg)" for e in editors]
    variants = ", ".join(dict.fromkeys(variant for variant, _, _ in table))
    parts += ["", "## Pictures", ""]
    parts += [f"The first source, p2p; down: {variants}; right: strengths rising.", ""]
    parts += [f"![{name}]({name})" for name in sheets]
    parts += ["", "## All means", "", *_rows(table)]
    return Page("\n".join(parts) + "\n", pictures)


def _rows(table: Table) -> list[str]:
    names = ("source", "reference", "text", "outside_psnr", "outside_ssim")
    head = (
        "| variant | editor | strength | source | reference | text | PSNR outside | SSIM outside |"
    )
    lines = [head, "|---|---|---|---|---|---|---|---|"]
    for (variant, editor, strength), found in table.items():
        cells = [f"{found[n]:.3f}" if n in found else "" for n in names]
        lines.append(f"| {variant} | {editor} | {strength:g} | {' | '.join(cells)} |")
    return lines


def curve(table: Table, editor: str) -> str:
    """Source similarity to the right, reference similarity upwards, a line a variant, as SVG."""
    lines: dict[str, list[Point]] = {}
    for (variant, e, _), found in sorted(table.items(), key=lambda item: item[0][2]):
        if e == editor and "reference" in found:
            lines.setdefault(variant, []).append(Point(found["source"], found["reference"]))
    variants = dict.fromkeys(variant for variant, e, _ in table if e == editor)
    return curves.plot(
        [Line(tuple(lines[variant]), variant) for variant in variants if variant in lines],
        f"source similarity, {editor}",
        "reference similarity",
    )
