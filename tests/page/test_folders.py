"""Folders of pictures, chosen and dropped: a batch of what is a picture in them."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from customedit.jobs.store import Jobs

from ..api.conftest import Running, png
from .tab import Tab

PASSED = "2 files are no pictures and were passed over."


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pictures, one of them in a folder of its own, and two other files."""
    made = tmp_path / "cups"
    (made / "more").mkdir(parents=True)
    for name, colour in (("2.png", "red"), ("10.png", "green"), ("more/3.png", "blue")):
        (made / name).write_bytes(png(colour))
    (made / "notes.txt").write_text("none")
    (made / "more" / "Thumbs.db").write_bytes(b"none")
    return made


def choose(page: Page, folder: Path) -> None:
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose a folder").click()
    chooser.value.set_files(folder)


def drop(page: Page, *paths: Path) -> None:
    """Drop files and folders on the heading, as the desktop does."""
    box = page.get_by_role("heading", level=1).bounding_box()
    assert box is not None
    session = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        place = {"x": box["x"] + 5, "y": box["y"] + 5}
        session.send("Input.dispatchDragEvent", {"type": kind, **place, "data": data})
    session.detach()


def names(page: Page) -> list[str]:
    return page.locator(".thumbs .name").all_inner_texts()


@pytest.mark.parametrize("way", [choose, drop])
def test_a_folder_is_edited_as_a_batch(tab: Tab, jobs: Jobs, folder: Path, way: object) -> None:
    page = tab.page
    tab.open("edit")
    page.get_by_label("What it shows").wait_for()
    assert callable(way)
    way(page, folder)
    expect(page.get_by_role("button", name="Edit 3 pictures")).to_be_visible()
    expect(page.get_by_label("Several pictures")).to_be_checked()
    expect(page.get_by_text(PASSED)).to_be_visible()
    expect(page.get_by_text("Sending")).to_have_count(0)
    assert names(page) == ["2.png", "10.png", "3.png"]  # as people count
    page.get_by_label("What it shows").fill("a cup")
    page.get_by_label("What it is to show").fill("a blue cup")
    page.get_by_role("button", name="Edit 3 pictures").click()
    expect(page.locator(".tile")).to_have_count(3)
    assert len({job.request["image"] for job in jobs.list("anna").items}) == 3


def test_of_a_folder_and_files_beside_it_all_pictures_are_taken(
    tab: Tab, folder: Path, tmp_path: Path
) -> None:
    page = tab.page
    single, text = tmp_path / "single.png", tmp_path / "single.txt"
    single.write_bytes(png("yellow"))
    text.write_text("none")
    tab.open("teach")
    page.get_by_label("What the pictures show").wait_for()
    drop(page, single, folder, text)
    expect(page.get_by_text(PASSED)).to_be_visible()
    expect(page.get_by_text("single.txt is no PNG, JPEG or WebP")).to_be_visible()
    expect(page.locator(".thumbs img")).to_have_count(4)


def test_that_a_folder_has_no_pictures_is_told(tab: Tab, tmp_path: Path) -> None:
    page = tab.page
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("none")
    tab.open("jobs")
    page.get_by_role("heading", name="No jobs yet").wait_for()
    drop(page, tmp_path / "empty")
    page.get_by_role("heading", name="Edit a picture").wait_for()
    told = "There is no PNG, JPEG or WebP in the folder. 1 file is no picture and was passed over."
    expect(page.get_by_text(told)).to_be_visible()


def test_a_folder_that_is_dropped_on_the_pictures_is_uploaded(
    tab: Tab, api: Running, folder: Path
) -> None:
    page = tab.page
    tab.open("pictures")
    page.get_by_role("heading", name="No uploads yet").wait_for()
    drop(page, folder)
    expect(page.locator(".tile")).to_have_count(3)
    expect(page.get_by_text(PASSED)).to_be_visible()
    assert len(api.client().get("/v1/images").json()["items"]) == 3
