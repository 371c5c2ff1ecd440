"""The study as a page: curves, tables, and findings with their figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

Table = dict[tuple[str, str, float], dict[str, float]]
Gaps = dict[tuple[str, str], float | None]

_COLOURS: Final = (
    "#2a6f4e", "#b5482a", "#3a5fa8", "#8a6d1c", "#7a3d8f", "#555555", "#c2185b", "#00838f",
    "#9e9d24", "#5d4037",
)  # fmt: skip

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
"""What the first arm would be better for, by the arm that lacks it."""


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
    curves = {f"study-{editor}.svg": curve(table, editor) for editor in editors}
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
        f"Mean difference in reference similarity between {first} and each arm at equal source "
        "similarity, over the range that both curves reach.",
        "",
        "| claim | against | editor | difference | |",
        "|---|---|---|---|---|",
    ]
    for (arm, editor), gap in gaps.items():
        claim = CLAIMS.get(arm, "")
        if gap is None:
            parts.append(f"| {claim} | {arm} | {editor} | no common range | not told |")
        else:
            word = "agrees" if gap > 0 else "contradicts"
            parts.append(f"| {claim} | {arm} | {editor} | {gap:+.4f} | {word} |")
    parts += ["", "## Curves", ""]
    parts += [f"![source against reference similarity, {e}](study-{e}.svg)" for e in editors]
    arms = ", ".join(dict.fromkeys(arm for arm, _, _ in table))
    parts += ["", "## Pictures", ""]
    parts += [f"The first source, p2p; down: {arms}; right: strengths rising.", ""]
    parts += [f"![{name}]({name})" for name in sheets]
    parts += ["", "## All means", "", *_rows(table)]
    return Page("\n".join(parts) + "\n", curves)


def _rows(table: Table) -> list[str]:
    names = ("source", "reference", "text", "outside_psnr", "outside_ssim")
    head = "| arm | editor | strength | source | reference | text | PSNR outside | SSIM outside |"
    lines = [head, "|---|---|---|---|---|---|---|---|"]
    for (arm, editor, strength), found in table.items():
        cells = [f"{found[n]:.3f}" if n in found else "" for n in names]
        lines.append(f"| {arm} | {editor} | {strength:g} | {' | '.join(cells)} |")
    return lines


def curve(table: Table, editor: str) -> str:
    """Source similarity to the right, reference similarity upwards, a line an arm, as SVG."""
    arms = list(dict.fromkeys(arm for arm, e, _ in table if e == editor))
    points = {
        arm: [
            (v["source"], v["reference"])
            for (a, e, _), v in sorted(table.items(), key=lambda item: item[0][2])
            if (a, e) == (arm, editor) and "reference" in v
        ]
        for arm in arms
    }
    flat = [p for line in points.values() for p in line]
    (x0, x1), (y0, y1) = (_span([p[k] for p in flat]) for k in (0, 1))

    def place(x: float, y: float) -> str:
        return f"{60 + 420 * (x - x0) / (x1 - x0):.1f},{300 - 270 * (y - y0) / (y1 - y0):.1f}"

    out = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 700 350" font-family="sans-serif" '
        'font-size="12"><rect width="700" height="350" fill="white"/>'
        '<path d="M60 20V300H490" fill="none" stroke="#888"/>'
        f'<text x="270" y="336" text-anchor="middle">source similarity, {editor}</text>'
        '<text transform="translate(16 160) rotate(-90)" text-anchor="middle">reference similarity'
        f'</text><text x="60" y="316">{x0:.2f}</text><text x="480" y="316" text-anchor="end">'
        f'{x1:.2f}</text><text x="54" y="300" text-anchor="end">{y0:.2f}</text>'
        f'<text x="54" y="30" text-anchor="end">{y1:.2f}</text>'
    ]
    for k, (arm, line) in enumerate(points.items()):
        colour = _COLOURS[k % len(_COLOURS)]
        path = " ".join(place(x, y) for x, y in line)
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}"/>')
        for x, y in line:
            a, b = place(x, y).split(",")
            out.append(f'<circle cx="{a}" cy="{b}" r="3" fill="{colour}"/>')
        out.append(f'<text x="500" y="{30 + 18 * k}" fill="{colour}">{arm}</text>')
    return "".join(out) + "</svg>\n"


def _span(values: list[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    edge = max(0.01, 0.08 * (high - low))
    return low - edge, high + edge
