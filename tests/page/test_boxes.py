"""Looks in parts of the picture: boxes drawn, moved by keys, written as numbers, kept and sent."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from customedit.jobs.store import Jobs
from customedit.storage.store import Storage
from customedit.tenants.catalogue import Concepts

from ..api.conftest import Running, customize, edit, finish_concept, upload_mask
from .tab import Tab, give
from .test_accessible import FAULTS, PHONE, violations

TARGET = "a <left> cup on a <right> table"


@pytest.fixture
def looks(api: Running, jobs: Jobs, concepts: Concepts, storage: Storage) -> list[str]:
    """Two that can be used: <left> and <right>."""
    made = [customize(api.client(), token=token) for token in ("<left>", "<right>")]
    return [finish_concept(jobs, concepts, storage, job["id"]).id for job in made]


@pytest.fixture
def form(tab: Tab, api: Running, looks: list[str]) -> Page:
    """An edit of a picture whose target names both."""
    tab.open(f"edit?image={edit(api.client())['request']['image']}")
    filled(tab.page)
    return tab.page


def filled(page: Page) -> None:
    page.get_by_label("What it shows").fill("a cup on a table")
    page.get_by_label("What it is to show").fill(TARGET)
    for token in ("<left>", "<right>"):
        page.get_by_role("button", name=f"Choose {token}").click()
    expect(page.get_by_alt_text("The picture to edit")).to_have_js_property("naturalWidth", 32)


def part(page: Page, token: str) -> Locator:
    return page.get_by_role("group", name=f"Where {token} acts")


def drag(page: Page, begin: Sequence[float], end: Sequence[float]) -> None:
    """Over the picture, from one place to another, both as shares of its sides."""
    page.locator(".stage").evaluate("stage => stage.scrollIntoView({block: 'center'})")
    area = page.locator(".boxes").bounding_box()
    assert area is not None
    first, last = (
        (area["x"] + x * area["width"], area["y"] + y * area["height"]) for x, y in (begin, end)
    )
    page.mouse.move(*first)
    page.mouse.down()
    page.mouse.move(*last, steps=4)
    page.mouse.up()


def sides(page: Page, token: str) -> list[float]:
    """What is written for a box, in percent."""
    fields = part(page, token).get_by_role("textbox")
    return [float(fields.nth(k).input_value()) for k in range(4)]


def sent(jobs: Jobs, page: Page) -> list[dict[str, Any]]:
    """Sends the form; the concepts of the request."""
    page.get_by_role("button", name="Edit", exact=True).click()
    page.locator(".saying").wait_for()
    found: list[dict[str, Any]] = jobs.list("anna", kind="edit").items[0].request["concepts"]
    return found


def test_the_box_of_a_look_that_is_chosen_no_more_is_not_drawn(form: Page) -> None:
    part(form, "<left>").get_by_role("button", name="Only in a part").click()
    drawing = re.compile(r"\bdrawing\b")
    expect(form.locator(".boxes")).to_have_class(drawing)
    form.get_by_role("checkbox", name="<left>").uncheck()
    expect(form.locator(".boxes")).not_to_have_class(drawing)


def test_boxes_are_drawn_dragged_and_moved_by_keys(form: Page, tab: Tab, jobs: Jobs) -> None:
    part(form, "<left>").get_by_role("button", name="Only in a part").click()
    drag(form, (0.9, 0.1), (0.96, 0.2))  # over nothing: it draws
    drag(form, (0.93, 0.15), (0.13, 0.35))  # in the box: it moves as far as it goes
    assert sides(form, "<left>") == pytest.approx([10, 30, 16, 40], abs=1)
    drag(form, (0.16, 0.4), (0.5, 0.8))  # at its corner: it grows
    assert sides(form, "<left>") == pytest.approx([10, 30, 50, 80], abs=1)

    part(form, "<right>").get_by_role("button", name="Only in a part").click()
    boxes = form.get_by_role("application", name="acts from")
    expect(boxes.locator(".boxname")).to_have_text(["<left>", "<right>"])
    colours = boxes.evaluate_all("all => all.map((one) => getComputedStyle(one).borderTopColor)")
    assert len(set(colours)) == 2
    name = boxes.first.locator(".boxname").bounding_box()
    assert name is not None and name["height"] < 30  # a label, not a bar over the picture
    assert sides(form, "<right>") == [25, 25, 75, 75]
    boxes.nth(1).focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowUp", "Shift+ArrowLeft", "Shift+ArrowDown"):
        form.keyboard.press(key)
    assert sides(form, "<right>") == [27, 24, 76, 75]
    for label, value in {"Left": "60", "Right": "100", "Bottom": "95.5"}.items():
        part(form, "<right>").get_by_label(label).fill(value)
    expect(boxes.nth(1)).to_have_attribute(
        "style", "left: 60%; top: 24%; width: 40%; height: 71.5%;"
    )
    right, left = sent(jobs, form)  # the newest look first, as they are listed
    assert left["box"] == pytest.approx([0.1, 0.3, 0.5, 0.8], abs=0.01)
    assert right["box"] == [0.6, 0.24, 1, 0.955]

    form.get_by_text("API call of this run").click()
    form.get_by_text("Python", exact=True).click()
    call = form.get_by_label("API call with Python").inner_text()
    ast.parse(call)
    assert "box=(0.6, 0.24, 1, 0.955))" in call
    tab.open(f"edit?job={jobs.list('anna', kind='edit').items[0].id}")  # edit again from here
    expect(form.get_by_role("application", name="<right> acts from 60 to 100")).to_be_visible()
    form.get_by_role("application", name="<left> acts from").focus()
    form.keyboard.press("Delete")
    expect(boxes).to_have_count(1)
    assert [use.get("box") for use in sent(jobs, form)] == [right["box"], None]


def test_a_touch_draws_while_the_brush_is_there(
    new_tab: Callable[..., Tab], api: Running, looks: list[str]
) -> None:
    tab = new_tab(**PHONE, has_touch=True)
    tab.open()
    tab.sign_in(api.key())
    tab.open(f"edit?image={edit(api.client())['request']['image']}")
    page = tab.page
    filled(page)
    page.get_by_text("Painted", exact=True).click()
    part(page, "<left>").get_by_role("button", name="Only in a part").click()
    draw = part(page, "<left>").get_by_role("button", name="Draw on the picture")
    expect(draw).to_have_attribute("aria-pressed", "true")
    undo = page.get_by_role("button", name="Undo")
    touch(page, (0.02, 0.1), (0.2, 0.6))
    assert sides(page, "<left>") == pytest.approx([2, 10, 20, 60], abs=1)
    expect(draw).to_have_attribute("aria-pressed", "false")
    expect(undo).to_be_disabled()
    touch(page, (0.1, 0.2), (0.15, 0.3))  # now it paints, over the box as well
    expect(undo).to_be_enabled()
    assert sides(page, "<left>") == pytest.approx([2, 10, 20, 60], abs=1)
    assert page.evaluate(FAULTS) == []
    assert violations(tab) == []


def touch(page: Page, begin: tuple[float, float], end: tuple[float, float]) -> None:
    """A finger drawn over the picture, from one place to another."""
    page.locator(".stage").evaluate("stage => stage.scrollIntoView({block: 'center'})")
    area = page.locator(".boxes").bounding_box()
    assert area is not None
    devtools = page.context.new_cdp_session(page)
    places = [
        (area["x"] + x * area["width"], area["y"] + y * area["height"]) for x, y in (begin, end)
    ]
    for kind, place in zip(("touchStart", "touchMove"), places, strict=True):
        points = [{"x": place[0], "y": place[1]}]
        devtools.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    devtools.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


def test_what_is_wrong_with_a_box_is_said_at_its_look(form: Page, tab: Tab) -> None:
    tab.expect("422")
    left = part(form, "<left>")
    left.get_by_role("button", name="Only in a part").click()
    left.get_by_label("Left").fill("80")
    form.keyboard.press("Control+Enter")
    error = form.locator(".choose", has_text="<left>").locator(".error")
    expect(error).to_have_text("Left must be less than right.")
    left.get_by_label("Left").fill("many")
    expect(error).to_have_text("Write for left a number from 0 to 100.")
    left.get_by_label("Left").fill("10")
    expect(error).to_be_hidden()
    form.get_by_label("What it is to show").fill("a cup on a <right> table")
    form.keyboard.press("Control+Enter")
    expect(error).to_have_text("The line does not name <left>: name it, or remove the box.")
    form.get_by_label("What it is to show").fill(TARGET)
    expect(error).to_be_hidden()
    right = part(form, "<right>")
    right.get_by_role("button", name="Only in a part").click()
    problem = {
        "type": "/problems/validation", "title": "A field is not usable", "status": 422,
        "errors": [{"field": "concepts[1].box", "problem": "is too small", "limit": ""}],
    }  # fmt: skip
    form.route("**/v1/edits", lambda route: route.fulfill(status=422, json=problem))
    form.keyboard.press("Control+Enter")
    expect(error).to_have_text("is too small")
    assert form.evaluate("document.activeElement.closest('[role=group]').ariaInvalid") == "true"


def test_boxes_are_kept_by_drafts_and_presets_and_go_to_every_picture_of_a_batch(
    form: Page, tab: Tab, jobs: Jobs, references: tuple[Path, ...]
) -> None:
    left = part(form, "<left>")
    left.get_by_role("button", name="Only in a part").click()
    left.get_by_label("Right").fill("40")
    left.get_by_label("Top").fill("half")
    form.reload()
    expect(left.get_by_label("Top")).to_have_value("half")  # nothing typed is lost
    left.get_by_label("Top").fill("5")
    form.get_by_text("Presets", exact=True).click()
    form.get_by_label("Save these settings as").fill("parted")
    form.get_by_label("With the words and looks").check()
    form.get_by_role("button", name="Save", exact=True).click()
    form.get_by_label("Preset", exact=True).wait_for()
    form.get_by_role("button", name="Start anew").click()
    expect(form.get_by_role("application", name="acts from")).to_have_count(0)
    form.get_by_role("button", name="Use", exact=True).click()
    expect(left.get_by_label("Right")).to_have_value("40")
    give(form, references[:2])
    expect(left.get_by_role("button", name="Draw on the picture")).to_be_disabled()
    form.get_by_role("button", name="Edit 2 pictures").click()
    expect(form.locator(".tile")).to_have_count(2)
    made = [job.request["concepts"] for job in jobs.list("anna", kind="edit").items[:2]]
    assert made[0] == made[1]
    assert [0.25, 0.05, 0.4, 0.75] in [use.get("box") for use in made[0]]


def test_a_mask_of_an_earlier_request_stays_until_it_is_removed(
    tab: Tab, api: Running, jobs: Jobs, looks: list[str]
) -> None:
    client = api.client()
    mask = upload_mask(client)
    uses = [{"id": looks[0], "mask": mask}, {"id": looks[1], "weight": 0.5}]
    first = edit(client, source_prompt="a cup on a table", target_prompt=TARGET, concepts=uses)
    page = tab.page
    tab.open(f"edit?job={first['id']}")
    part(page, "<left>").get_by_text("where the mask of the earlier request is white").wait_for()
    made = {use["id"]: (use.get("mask"), use["weight"]) for use in sent(jobs, page)}
    assert made == {looks[0]: (mask, 1), looks[1]: (None, 0.5)}
    tab.open(f"edit?job={first['id']}")
    page.get_by_role("button", name="Remove the mask").click()
    assert all("mask" not in use for use in sent(jobs, page))
