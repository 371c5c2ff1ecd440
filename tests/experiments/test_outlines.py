"""Outlines against true masks: what is measured, and that the command tells it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from customedit.experiments import outlines
from customedit.experiments.outlines import Outlined, cells_of, measure, summary, without_colours
from customedit.images import outline
from customedit.metrics.lookbench.dataset import SourcePicture, bundled
from customedit.metrics.lookbench.regions import Regions


def test_a_region_is_the_things_cells_and_one_more_around() -> None:
    coverage = np.zeros((128, 128), np.float32)
    coverage[32:48, 32:64] = 1  # 2 x 4 cells
    coverage[48:50, 32:64] = 1  # a quarter of the next ones
    wanted = np.zeros((16, 16))
    wanted[3:7, 3:9] = 1
    assert (cells_of(coverage) == wanted).all()


def test_a_right_outline_costs_nothing_and_a_cell_too_many_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = bundled("small").picture(bundled("small").sources[0])
    regions = Regions.of(source.coverage)

    def measured(found: np.ndarray) -> Outlined:
        monkeypatch.setattr(outline, "outline_region", lambda *_: found.astype(np.float32))
        return measure(source)

    right = measured(regions.inside)
    assert (right.overlap, right.ring, right.lost) == (1, 0, 0)
    wide = measured(np.maximum(regions.inside, 0.5 * regions.ring))
    assert (wide.overlap, wide.lost) == (1, 0) and wide.ring == pytest.approx(0.25)
    none = measured(np.zeros_like(source.coverage))
    assert (none.overlap, none.ring, none.lost) == (0, 0, 1)


def test_colours_are_left_out_for_a_while_alone() -> None:
    """A ring, through which the wall is seen: edges alone fill the hole."""
    y, x = np.mgrid[0:128, 0:128]
    distance = np.hypot(x - 65, y - 60)
    ring = (distance < 42) & (distance > 12)
    grain = np.random.default_rng(3).integers(-8, 9, (128, 128, 1))
    image = np.where(ring[..., None], (170, 60, 50), (150, 140, 130)) + grain
    source = SourcePicture(image.astype(np.uint8), ring.astype(np.float32))
    before, with_colours = outline.OVERLAP, measure(source)
    with without_colours():
        assert measure(source).overlap < with_colours.overlap - 0.05
    assert before == outline.OVERLAP and measure(source) == with_colours


def test_figures_are_means_and_the_worst() -> None:
    found = summary([Outlined(0.9, 0.01, 0.0), Outlined(0.5, 0.03, 0.02)])
    assert found == {
        "sources": 2, "overlap_mean": 0.7, "overlap_least": 0.5, "ring_mean": 0.02,
        "lost_mean": 0.01,
    }  # fmt: skip
    assert summary([]) == {"sources": 0}


def test_the_command_tells_both_ways_and_both_sets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outlines.main(sources=2, out=tmp_path / "outlines.json")
    told = json.loads((tmp_path / "outlines.json").read_text())
    assert list(told) == ["with colours", "without colours"]
    for figures in told.values():
        assert [figures[name]["sources"] for name in ("all", "public", "others")] == [2, 1, 1]
        assert 0.5 < figures["all"]["overlap_least"] <= figures["all"]["overlap_mean"] <= 1
    assert "overlap_least" in capsys.readouterr().out
