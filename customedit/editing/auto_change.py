"""``change: "auto"``: draws several values of ``change`` together and chooses one.

The rule, on unit vectors of CLIP's patches (``Similarity.patches``), each patch weighed by how much
of it lies inside the region (the union of all edits' regions; everywhere without one):

* s(c), source similarity: the mean cosine of each patch of the edit with the source's patch in its
  place. 1 where nothing changed.
* r(c), reference similarity: the mean, over the edit's patches, of the greatest cosine with any
  patch of any reference. r0 is that of the source itself.
* Both are scaled to the curve: S = (s - min s) / (1 - min s) and R = (r - r0) / (max r - r0), 0 at
  least.
* Chosen is the greatest harmonic mean 2 S R / (S + R), the smaller change among equals: the point
  after which more change costs more of the source than it gains of the look.
* If no value comes nearer to the references by ``LEAST_GAIN``, the value nearest to 1/2 is chosen,
  every method's default.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from customedit.editing.edit import EditResult
from customedit.errors import InputError
from customedit.metrics.similarity import Similarity
from customedit.schemas.change import ChangeCurve

LEAST_GAIN: Final = 0.01
"""Of reference similarity, under which the curve says nothing."""

USUAL: Final = 0.5
"""The value of ``change`` with every method's defaults."""


def check_auto(
    judge: Similarity | None, references: Sequence[Image.Image], remedy: str = "give a number"
) -> Similarity:
    """The judge of ``change: "auto"``; refused without what it compares with.

    remedy: against a missing judge.

    Raises InputError of ``change``.
    """
    if not references:
        raise InputError(
            "change", "auto has no references to compare with", "give references, or a number"
        )
    if judge is None:
        raise InputError("change", "auto needs a CLIP, and the base's profile names none", remedy)
    return judge


def chosen(
    judge: Similarity, results: Sequence[EditResult], references: Sequence[Image.Image]
) -> EditResult:
    """The edit that the rule chooses, with the curve in its plan.

    results: of one picture, by rising ``change``; references: one or more.
    """
    curve = change_curve(judge, results, references)
    result = next(r for r in results if r.plan.change == curve.chosen)
    return result.with_plan(result.plan.model_copy(update={"auto": curve}))


def change_curve(
    judge: Similarity, results: Sequence[EditResult], references: Sequence[Image.Image]
) -> ChangeCurve:
    """Measure ``results`` and choose by the rule."""
    values = [float(r.plan.change) for r in results if r.plan.change is not None]
    seen = judge.patches([results[0].source, *(r.image for r in results)])  # [1 + n, g, g, d]
    looks = judge.patches(references).flatten(0, 2)  # [patches, d]
    weights = _weights(results, int(seen.shape[1]))
    source = [_mean((own * seen[0]).sum(-1), weights) for own in seen]
    near = [_mean((own @ looks.T).amax(-1), weights) for own in seen]
    scores, best = choose(values, source[1:], near[1:], near[0])
    return ChangeCurve(
        values=tuple(values),
        source=_rounded(source[1:]),
        reference=_rounded(near[1:]),
        score=_rounded(scores),
        source_reference=round(near[0], 4),
        chosen=best,
    )


def choose(
    values: Sequence[float], source: Sequence[float], reference: Sequence[float], origin: float
) -> tuple[list[float], float]:
    """The score of each value and the value that is chosen.

    values: rising; source, reference: s and r of each; origin: r0.
    """
    lost, gained = 1 - min(source), max(reference) - origin
    if lost <= 0 or gained < LEAST_GAIN:
        return [0.0] * len(values), min(values, key=lambda value: abs(value - USUAL))
    scores = []
    for s, r in zip(source, reference, strict=True):
        kept = (s - min(source)) / lost
        near = max(0.0, (r - origin) / gained)
        scores.append(2 * kept * near / (kept + near) if kept + near > 0 else 0.0)
    return scores, values[scores.index(max(scores))]


def _weights(results: Sequence[EditResult], side: int) -> Tensor:
    """How much of each patch lies inside the region, [side, side] in [0, 1]."""
    regions = [r.region for r in results]
    whole = torch.ones(side, side)
    if any(region is None for region in regions):
        return whole
    union = torch.stack([r for r in regions if r is not None]).amax(0)
    cells = F.adaptive_avg_pool2d(union[None, None].float(), side)[0, 0]
    return cells if bool((cells > 0).any()) else whole


def _mean(cosines: Tensor, weights: Tensor) -> float:
    return float((cosines * weights).sum() / weights.sum())


def _rounded(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(round(value, 4) for value in values)
