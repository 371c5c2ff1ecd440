"""The whole of it in a browser, with a real worker: teach a look, paint it, compare."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from customedit.config.settings import Settings

from .tab import Tab, give

ROOT = Path(__file__).parents[2]
QUICK = {
    "Steps": "12",
    "Crops of a reference": "3",
    "Class pictures": "2",
    "Steps of a class picture": "4",
}
MINUTES_MS = 150_000


@pytest.fixture
def worker(settings: Settings, tmp_path: Path) -> Iterator[None]:
    """``python -m worker``; the settings are in the environment."""
    env = os.environ | {
        "PYTHONPATH": str(ROOT),
        "CUSTOMEDIT_METRICS_PORT": "0",
        "CUSTOMEDIT_SCRATCH_DIR": str(tmp_path / "scratch"),
    }
    with (
        (tmp_path / "worker.log").open("wb") as out,
        subprocess.Popen(
            [sys.executable, "-m", "worker"], env=env, stdout=out, stderr=out, cwd=tmp_path
        ) as child,
    ):
        yield
        child.kill()


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.usefixtures("worker")
def test_a_look_is_taught_and_painted(tab: Tab, references: list[Path], picture: Path) -> None:
    page = tab.page
    tab.open("teach")
    give(page, references)
    expect(page.get_by_alt_text("Reference 5")).to_have_js_property("complete", True)
    page.get_by_label("What the pictures show").fill("cup")
    page.get_by_label("Token", exact=True).fill("<house>")
    page.get_by_label("Name", exact=True).fill("House style")
    page.get_by_text("How it is trained").click()
    for label, value in QUICK.items():
        page.get_by_label(label, exact=True).fill(value)
    page.get_by_role("button", name="Teach this look").click()
    page.get_by_role("heading", name="<house> is learned").wait_for(timeout=MINUTES_MS)

    page.get_by_role("link", name="Use it in an edit").click()
    give(page, picture)
    page.get_by_label("What it shows").fill("a photo of a cup on a table")
    page.get_by_role("button", name="Write it from the line above").click()
    prompt = "a photo of a <house> patterned cup on a table"
    assert page.get_by_label("What it is to show").input_value() == prompt
    page.get_by_text("Expert settings").click()
    page.get_by_label("Strengths", exact=True).fill("0.4, 0.8")
    page.get_by_label("Steps", exact=True).fill("6")
    page.get_by_label("Keep the attention maps").check()
    page.get_by_role("button", name="Edit", exact=True).click()

    slider = page.get_by_label("How much of the picture before is shown")
    slider.wait_for(timeout=MINUTES_MS)
    slider.press("End")
    expect(slider).to_have_attribute("aria-valuetext", "100 percent before")
    before = page.get_by_alt_text("Before: a photo of a cup on a table")
    expect(before).to_have_js_property("complete", True)
    assert before.evaluate("image => image.naturalWidth") > 0
    facts = page.get_by_label("The chosen picture")
    for what in ("Like the source", "Like the references", "Like the text"):
        assert facts.get_by_text(what).is_visible()
    assert facts.locator(".figure").count() == 3
    expect(page.get_by_role("radio")).to_have_count(2)
    assert page.locator(".strip .best").count() == 1
    chosen = page.get_by_role("radio", checked=True)
    chosen.focus()
    chosen.press("ArrowDown")
    other = page.get_by_role("radio", checked=True).locator("..").locator("strong").inner_text()
    expect(facts.get_by_role("heading")).to_contain_text(other)
    for extra in ("Sheet of all strengths", "Region that was edited"):
        expect(page.get_by_alt_text(extra)).to_have_js_property("complete", True)
    assert page.get_by_role("link", name="Attention maps").is_visible()
    with page.expect_download() as taken:
        facts.get_by_role("link", name="Download").click()
    assert re.fullmatch(r"job_\w+-strength-0\.\d-seed-0\.png", taken.value.suggested_filename)
    assert Path(taken.value.path()).read_bytes().startswith(b"\x89PNG")
    tab.open("jobs")
    expect(page.locator(".item")).to_have_count(2)
    expect(page.locator(".item .badge")).to_have_text(["✓ succeeded", "✓ succeeded"])
