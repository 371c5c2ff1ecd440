"""All of the page's work by keyboard alone, on a phone's and a desk's width, in light and dark.

Sign in, teach, edit, paint a region, continue twice, branch, compare, a batch of three, delete. No
pointer is used; what is wanted is reached by the Tab key, and must be seen when it has the focus.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from customedit.jobs.records import JobRecord
from customedit.jobs.store import Jobs
from customedit.storage.store import Storage
from customedit.tenants.catalogue import Concepts

from ..api.conftest import ALL, Running, finish_concept, finish_edit
from .tab import Tab
from .test_accessible import LOOKS, violations

MOST = 150
"""Presses of Tab until something is taken for out of reach."""

FOCUSED = """element => {
  if (element !== document.activeElement) return false;
  const { top, bottom } = element.getBoundingClientRect();
  const bar = document.getElementById("bar").getBoundingClientRect();
  if (bottom <= (bar.top === 0 ? bar.bottom : 0) || top >= innerHeight) throw new Error("unseen");
  return true;
}"""


class Hands:
    """Somebody with a keyboard."""

    def __init__(self, page: Page) -> None:
        self.page = page
        page.on("filechooser", lambda _: None)  # from here on choosers come to the test, at once

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def reach(self, wanted: Locator, key: str = "Tab") -> None:
        """Press Tab until ``wanted`` has the focus."""
        wanted.wait_for(state="attached")
        for _ in range(MOST):
            self.press(key)
            if wanted.evaluate(FOCUSED):
                return
        raise AssertionError(f"{wanted} is not reached")

    def follow(self, wanted: Locator) -> None:
        """Reach a link or a button and press it."""
        self.reach(wanted)
        self.press("Enter")

    def write(self, wanted: Locator, text: str, key: str = "Tab") -> None:
        """Reach a field and write ``text`` in place of what is there."""
        self.reach(wanted, key)
        self.press("Control+a")
        self.page.keyboard.type(text)

    def choose_files(self, files: Path | Sequence[Path]) -> None:
        self.reach(self.page.locator("input[type=file]").first)
        with self.page.expect_file_chooser() as chooser:
            self.press("Enter")
        chooser.value.set_files(files)


def newest(jobs: Jobs) -> JobRecord:
    return jobs.list("anna").items[0]


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("screen", "scheme"), LOOKS)
def test_everything_is_done_by_keyboard(
    new_tab: Callable[..., Tab],
    api: Running,
    jobs: Jobs,
    concepts: Concepts,
    storage: Storage,
    references: tuple[Path, ...],
    picture: Path,
    screen: dict[str, object],
    scheme: str,
) -> None:
    tab = new_tab(**screen, color_scheme=scheme, reduced_motion="reduce")
    page, hands = tab.page, Hands(tab.page)
    tab.open()

    hands.write(page.get_by_label("API key"), api.key("anna", ALL))  # sign in
    hands.press("Enter")
    page.get_by_role("heading", name="Edit a picture").wait_for()

    hands.press("t")  # teach
    page.get_by_role("heading", name="Teach a look").wait_for()
    hands.choose_files(references[:3])
    hands.write(page.get_by_label("What the pictures show"), "cup")
    hands.write(page.get_by_label("Token", exact=True), "<plaid>")
    hands.press("Control+Enter")
    page.locator(".saying").wait_for()
    finish_concept(jobs, concepts, storage, newest(jobs).id)
    hands.follow(page.get_by_role("link", name="Use it in an edit"))

    page.get_by_role("heading", name="Edit a picture").wait_for()  # edit
    expect(page.get_by_role("checkbox", name="<plaid>")).to_be_checked()
    hands.choose_files(picture)
    page.get_by_alt_text("The picture to edit").wait_for()
    hands.write(page.get_by_label("What it shows"), "a cup on a table")
    hands.follow(page.get_by_role("button", name="Write it from the line above"))
    target = page.get_by_label("What it is to show")
    expect(target).to_have_value("a <plaid> patterned cup on a table")
    slider = page.get_by_label("How much changes")
    hands.reach(slider)
    hands.press("ArrowRight")
    hands.press("Control+Enter")
    page.locator(".saying").wait_for()
    first = newest(jobs)
    assert first.request["change"] == 0.51 and len(first.request["concepts"]) == 1
    finish_edit(jobs, storage, first.id, region=True, words=["a", "cup"])

    hands.reach(page.get_by_role("button", name="Attention of cup"))  # what the words looked at
    expect(page.locator(".layer.over canvas")).to_be_visible()

    hands.follow(page.get_by_role("link", name="Adjust the region"))  # paint a region
    surface = page.locator(".surface")
    surface.wait_for()
    hands.reach(surface)
    hands.press("]")
    page.keyboard.down(" ")
    hands.press("ArrowRight", "ArrowDown")
    page.keyboard.up(" ")
    hands.press("Control+z", "Control+Shift+z", "Control+Enter")
    page.locator(".saying").wait_for()
    painted = newest(jobs)
    mask = api.client().get(f"/v1/images/{painted.request['mask']}/file").content
    assert np.asarray(Image.open(io.BytesIO(mask)).convert("L")).max() == 255
    finish_edit(jobs, storage, painted.id)

    before = painted  # continue twice
    for target_prompt, colour in (("a green cup", "green"), ("a red cup", "red")):
        hands.follow(page.get_by_role("link", name="Continue from this picture"))
        page.get_by_role("button", name="Version 1").wait_for()
        hands.write(target, target_prompt, "Shift+Tab" if focused(target) else "Tab")
        hands.press("Control+Enter")
        page.locator(".saying").wait_for()
        made = newest(jobs)
        assert made.request["image"] == f"out_{before.id.removeprefix('job_')}_0"
        finish_edit(jobs, storage, made.id, colour=colour)
        page.get_by_label("The chosen picture").wait_for()
        before = made

    hands.follow(page.get_by_role("link", name="Continue from a green cup"))  # branch
    page.get_by_role("button", name="Version 1").wait_for()
    hands.write(target, "a yellow cup")
    hands.press("Control+Enter")
    page.locator(".saying").wait_for()
    branch = newest(jobs)
    assert branch.request["image"] == before.request["image"]
    finish_edit(jobs, storage, branch.id, colour="yellow")

    other = page.get_by_label("Compare with")  # compare
    other.wait_for()
    line = page.get_by_label("How much of the picture before is shown")
    hands.reach(line)
    hands.press("Home", "ArrowRight", "+")
    expect(line).to_have_attribute("aria-valuetext", "1 percent before")
    hands.reach(other)
    hands.press("ArrowDown")
    expect(page.locator(".layer.before img")).to_have_attribute("alt", "Before: The upload")
    assert violations(tab) == []

    hands.press("Shift+Tab", "p")  # a batch of three
    page.get_by_role("heading", name="Pictures", exact=True).wait_for()
    ticks = page.locator(".tile input[type=checkbox]")
    for number in range(3):
        hands.reach(ticks.nth(number))
        hands.press(" ")
    hands.reach(page.get_by_role("link", name="Edit 3 together"), "Shift+Tab")
    hands.press("Enter")
    page.get_by_role("button", name="Edit 3 pictures").wait_for()
    hands.write(page.get_by_label("What it shows"), "a cup")
    hands.write(target, "a blue cup")
    hands.press("Control+Enter")
    expect(page.locator(".tile")).to_have_count(3)
    for job in jobs.list("anna", state="queued").items:
        finish_edit(jobs, storage, job.id)
    page.get_by_text("3 succeeded").wait_for()

    hands.press("j")  # delete
    rows = page.locator(".item")
    expect(rows).to_have_count(9)
    hands.follow(page.get_by_role("button", name="Delete a yellow cup"))
    asked = page.get_by_role("dialog")
    hands.follow(asked.get_by_role("button", name="Delete"))
    expect(rows).to_have_count(8)
    assert jobs.get("anna", branch.id) is None


def focused(wanted: Locator) -> bool:
    return bool(wanted.evaluate("element => element === document.activeElement"))
