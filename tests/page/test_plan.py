"""What the page tells before a form is sent: the base, sizes, time, and that no worker runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from customedit.jobs.store import Jobs

from ..api.conftest import Running, edit, png
from .tab import Tab, give
from .test_leaving import busy


def fill(page: Page, picture: Path) -> None:
    give(page, picture)
    page.get_by_label("What it shows").fill("a cup")
    page.get_by_label("What it is to show").fill("a blue cup")


@pytest.mark.usefixtures("worker")
def test_the_base_and_that_a_picture_is_scaled_are_told_at_the_upload(
    tab: Tab, jobs: Jobs, picture: Path
) -> None:
    tab.open("edit")
    page = tab.page
    give(page, picture)
    plan = page.get_by_label("What this would do")
    expect(plan).to_contain_text("mini draws, made for pictures of 16 × 16 pixels")
    expect(plan.locator(".warning")).to_contain_text("128 × 128 pixels. It is reduced to 16 × 16")
    assert not jobs.list("anna").items


@pytest.mark.usefixtures("worker")
def test_the_plan_is_asked_for_again_after_no_answer(tab: Tab, picture: Path) -> None:
    tab.expect("503")
    page = tab.page
    page.route("**/v1/edits?dry_run=true", busy, times=1)
    tab.open("edit")
    page.get_by_label("What it shows").wait_for()
    with page.expect_response("**/v1/edits?dry_run=true"):
        give(page, picture)
    page.get_by_label("What it shows").fill("a cup")  # not enough to ask for anything else
    expect(page.get_by_label("What this would do")).to_contain_text("mini draws")


@pytest.mark.usefixtures("worker")
def test_how_many_pictures_of_a_batch_are_scaled_is_told(tab: Tab, api: Running) -> None:
    client = api.client()
    sizes = ((16, 16), (64, 48), (64, 48), (128, 64), (16, 16))
    colours = ("red", "green", "blue", "white", "black")
    files = [("a.png", png(c, size), "image/png") for c, size in zip(colours, sizes, strict=True)]
    made = [client.post("/v1/images", files={"file": file}).json()["id"] for file in files]
    page = tab.page
    tab.open(f"edit?{'&'.join(f'image={name}' for name in made)}")
    plan = page.get_by_label("What this would do")
    told = "3 of 5 pictures are reduced to be drawn"
    expect(plan).to_contain_text(told)
    expect(plan).not_to_contain_text("The picture")
    page.get_by_label("What it shows").fill("a cup")
    page.get_by_label("What it is to show").fill("a blue cup")
    expect(plan).to_contain_text("the region of cup")
    expect(plan).to_contain_text(told)
    expect(plan).not_to_contain_text("The picture")
    asked = [r for r in tab.asked if "edits?dry_run" in r.url]
    assert len(asked) <= 8  # once for each size, and for what is typed
    page.get_by_role("button", name="Remove").first.click()
    expect(plan).to_contain_text("3 of 4 pictures are reduced")


def test_that_no_worker_runs_is_told_before_and_after(tab: Tab, jobs: Jobs, picture: Path) -> None:
    page = tab.page
    tab.open("edit")
    fill(page, picture)
    plan = page.get_by_label("What this would do")
    expect(plan).to_contain_text("No worker is running")
    expect(plan).to_contain_text("the region of cup")
    assert not jobs.list("anna").items
    page.get_by_role("button", name="Edit", exact=True).click()
    expect(page.locator(".saying")).to_contain_text("No worker is running")


@pytest.mark.usefixtures("worker")
def test_the_place_in_the_queue_is_told(tab: Tab, api: Running) -> None:
    client = api.client()
    edit(client)
    second = edit(client)
    tab.open(f"jobs/{second['id']}")
    expect(tab.page.locator(".saying")).to_contain_text("1 job is before it.")


def test_settings_are_saved_under_a_name(tab: Tab, picture: Path) -> None:
    page = tab.page
    tab.open("edit")
    page.get_by_text("Expert settings").click()
    page.get_by_label("Guidance", exact=True).fill("3")
    page.get_by_label("How much changes").press("ArrowRight")
    page.get_by_text("Presets", exact=True).click()
    page.get_by_role("button", name="Save", exact=True).click()
    page.get_by_text("Write a name of letters").wait_for()
    page.get_by_label("Save these settings as").fill("gentle")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_label("Preset", exact=True)).to_have_value("gentle")
    page.get_by_role("button", name="Start anew").click()
    expect(page.get_by_label("Guidance", exact=True)).to_have_value("")
    page.get_by_label("What it shows").fill("a vase")
    page.get_by_role("button", name="Use", exact=True).click()
    expect(page.get_by_label("Guidance", exact=True)).to_have_value("3")
    expect(page.get_by_text("51 %")).to_be_visible()
    expect(page.get_by_label("What it shows")).to_have_value("a vase")  # words stay
