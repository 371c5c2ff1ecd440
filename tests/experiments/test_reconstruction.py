"""How near inversions come back: exact where theory says so, and means and minima of what is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from customedit.diffusion.base import Base
from customedit.editing.settings import INVERSIONS
from customedit.experiments import reconstruction
from customedit.experiments.reconstruction import measure_kind
from customedit.metrics.similarity import psnr
from customedit.mini import samples
from customedit.schemas.methods import InversionKind

STEPS = 2
CUP, JAR = samples.sources()[:2]


@pytest.fixture(scope="module")
def base() -> Base:
    return Base.load()


def figures(
    base: Base, kind: InversionKind, sources: list[samples.Source], guidance: float
) -> tuple[float, float]:
    """PSNR in the mean and at least; the seconds depend on the machine."""
    found = measure_kind(base, kind, sources, STEPS, guidance)
    assert set(found) == {"psnr_mean", "psnr_least", "seconds_mean"}
    assert found["seconds_mean"] >= 0
    return found["psnr_mean"], found["psnr_least"]


def test_direct_inversion_comes_back_exactly_at_any_guidance(base: Base) -> None:
    for guidance in (base.guidance, 15.0):
        assert figures(base, "direct", [CUP], guidance) == (99.0, 99.0)


def test_negative_prompt_inversion_is_ddim_inversion_without_guidance(base: Base) -> None:
    """Its unconditional half reads the source prompt, so guidance cancels (arXiv 2305.16807)."""
    exact = figures(base, "ddim", [CUP], 1.0)
    assert figures(base, "negative-prompt", [CUP], base.guidance) == exact
    assert 0 < exact[0] < 99


@pytest.mark.slow
def test_null_text_comes_nearer_than_ddim_under_guidance(base: Base) -> None:
    optimised, _ = figures(base, "null-text", [CUP], base.guidance)
    plain, _ = figures(base, "ddim", [CUP], base.guidance)
    assert plain < optimised < 99


def test_the_mean_and_the_least_are_those_of_single_sources(base: Base) -> None:
    one, two = (figures(base, "ddim", [source], base.guidance)[0] for source in (CUP, JAR))
    mean, least = figures(base, "ddim", [CUP, JAR], base.guidance)
    assert one != two
    assert mean == pytest.approx((one + two) / 2, abs=0.011)  # figures have two decimals
    assert least == min(one, two)


def test_blur_of_the_autoencoder_does_not_count(base: Base) -> None:
    """Direct inversion comes back exactly, although the autoencoder does not give the source."""
    source = Image.open(CUP.image).convert("RGB")
    assert psnr(base.decode(base.encode(source))[0], source) < 60


def test_all_kinds_are_measured_on_sources_taken_evenly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, list[str], int, float]] = []

    def measured(
        base: Base, kind: InversionKind, sources: list[samples.Source], steps: int, guidance: float
    ) -> dict[str, Any]:
        asked.append((kind, [s.name for s in sources], steps, guidance))
        return {"psnr_mean": 1.0}

    monkeypatch.setattr(reconstruction, "measure_kind", measured)
    out = tmp_path / "figures.json"
    reconstruction.main(count=4, steps=3, out=out)
    names = [s.name for s in samples.sources()[::6]]
    guidance = Base.load().guidance
    assert asked == [(kind, names, 3, guidance) for kind in INVERSIONS]
    told = json.loads(out.read_text())
    assert told.pop("sources") == 4 and told.pop("steps") == 3
    assert told.pop("guidance") == guidance
    assert told == {kind: {"psnr_mean": 1.0} for kind in INVERSIONS}
