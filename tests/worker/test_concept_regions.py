"""A real worker: a look learned, and painted in one part of a picture by box and by mask."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from customedit.jobs.records import ConceptOutcome, EditOutcome, uses_of

from .bench import LOOK, SOURCE, Bench, Workers

FEW: dict[str, Any] = {"steps": 2, "crops": 1, "class_images": 1, "class_steps": 2}


@pytest.mark.timeout(600)
def test_a_look_is_painted_in_a_part_of_the_picture(
    bench: Bench, workers: Workers, tmp_path: Path
) -> None:
    workers.start().ready()
    learned = ConceptOutcome.model_validate(bench.succeeded(bench.customize(1, **FEW), 200))
    painted = Image.new("L", (128, 128))
    painted.paste(255, (32, 16, 96, 112))
    painted.save(tmp_path / "mask.png")
    mask = bench.image(tmp_path / "mask.png")
    places: list[dict[str, Any]] = [{"box": [0.25, 0.125, 0.75, 0.875]}, {"mask": mask}]
    common = {"target_prompt": SOURCE.target_prompt(LOOK), "feather": 0.0}
    edits = [bench.edit(concepts=[{"id": learned.concept} | place], **common) for place in places]
    assert mask in uses_of(bench.get(edits[1])) and mask not in uses_of(bench.get(edits[0]))
    source = np.asarray(Image.open(SOURCE.image).convert("RGB"))
    inside = np.asarray(painted) > 0
    pictures, used = [], []
    for job in edits:
        outcome = EditOutcome.model_validate(bench.succeeded(job, 200))
        (shown,) = outcome.outputs
        used.append(shown.recipe["concepts"][0])
        assert outcome.region_words == [] and outcome.mask_key is not None
        region = np.asarray(Image.open(io.BytesIO(bench.storage.get(outcome.mask_key))))
        assert np.array_equal(region > 127, inside)
        pictures.append(np.asarray(Image.open(io.BytesIO(bench.storage.get(shown.image_key)))))
        changed = (pictures[-1] != source).any(2)
        assert changed[inside].any() and not changed[~inside].any()
    apart = pictures[0].astype(int) - pictures[1]  # the box and its mask are one region
    assert np.abs(apart).max() <= 2  # rounding: the two jobs share calls with each other
    assert used[0]["box"] == [0.25, 0.125, 0.75, 0.875] and used[0]["mask"] is None
    assert used[1]["box"] is None and len(used[1]["mask"]) == 64
    small = bench.edit(concepts=[{"id": learned.concept, "box": [0, 0, 0.01, 0.01]}], **common)
    error = bench.finished(small, 200).error
    assert error is not None and error.field == "concepts[0].box"
