"""What a scoring writes: the figures for people and for machines, and sheets of pictures."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Final

from customedit import mini
from customedit.files import replacing
from customedit.metrics.lookbench import results, sheets
from customedit.metrics.lookbench.dataset import VERSION, Bench
from customedit.metrics.lookbench.scores import (
    Copier,
    Scores,
    bundled_judge,
    measure_all,
    summarise,
    table,
)

SCORES: Final = "scores.json"
TABLE: Final = "scores.md"


def score(
    bench: Bench,
    folder: Path,
    copier: Copier | None,
    out: Path,
    *,
    trainings: Collection[int] | None = None,
    words: bool | None = None,
    about: Mapping[str, Any] | None = None,
    on_pair: Callable[[int, int], None] | None = None,
) -> Scores:
    """Measure the pictures in ``folder`` (``results.py``) and write the report into ``out``.

    copier: the autoencoder; None where ``folder`` has copies of its own. trainings, words: which
    of the pictures, as for ``results.read``; all that are there without them. about: what made the
    pictures, written beside the figures. out: gets ``scores.json`` with every row, ``scores.md``
    and the sheets; it is made if it is not there. on_pair: told how many pairs are measured, of how
    many.

    Raises InputError for missing and unusable pictures.
    """
    pictures = results.read(folder, bench, trainings, words)
    rows = measure_all(bench, pictures, copier, bundled_judge(), on_pair)
    scores = summarise(bench, rows)
    out.mkdir(parents=True, exist_ok=True)
    sheets.write(bench, pictures, copier, rows, out)
    document = {
        "lookbench": {
            "version": VERSION,
            **bench.identity(),
            "judge": hashlib.sha256((mini.path() / "judge.safetensors").read_bytes()).hexdigest()[
                :16
            ],
            "looks": [look.name for look in bench.looks],
            "sources": [source.name for source in bench.sources],
        },
        "about": about,
        "scores": scores.as_dict(),
        "rows": [row.as_dict() for row in rows],
    }
    with replacing(out / SCORES) as draft:
        draft.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    with replacing(out / TABLE) as draft:
        draft.write_text("\n".join(table(scores)) + "\n", encoding="utf-8")
    return scores
