"""Going on from a result: continuing, branching, comparing, going back, painting the region."""

from __future__ import annotations

import ast
import io
import json
import shlex
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Page, expect

from customedit.jobs.store import Jobs
from customedit.storage.store import Storage
from customedit.tenants.catalogue import Concepts

from ..api.conftest import Running, customize, edit, finish_concept, finish_edit
from .tab import Tab, give
from .test_leaving import Held, busy


def newest(jobs: Jobs) -> dict[str, object]:
    """The request that was sent last, with the job's id."""
    job = jobs.list("anna", kind="edit").items[0]
    return {"job": job.id, **job.request}


def send(page: Page, target: str) -> None:
    page.get_by_label("What it is to show").fill(target)
    page.keyboard.press("Control+Enter")
    page.locator(".saying").wait_for()


def test_a_picture_is_continued_branched_compared_and_gone_back_to(
    tab: Tab, api: Running, jobs: Jobs, concepts: Concepts, storage: Storage
) -> None:
    page = tab.page
    look = finish_concept(jobs, concepts, storage, customize(api.client(), token="<x>")["id"]).id
    first = edit(
        api.client(), target_prompt="a blue <x> cup", method="sdedit", concepts=[{"id": look}]
    )
    finish_edit(jobs, storage, first["id"])
    tab.open(f"jobs/{first['id']}")

    page.get_by_role("link", name="Continue from this picture").click()
    expect(page.get_by_label("What it shows")).to_have_value("a blue cup")  # without its token
    page.get_by_role("button", name="Version 1").wait_for()
    send(page, "a green cup")
    second = newest(jobs)
    assert second["source_prompt"] == "a blue cup" and second["image"] != first["request"]["image"]
    content = api.client().get(f"/v1/images/{second['image']}/file").content
    assert Image.open(io.BytesIO(content)).convert("RGB").getpixel((3, 3)) == (0, 0, 255)
    finish_edit(jobs, storage, str(second["job"]), colour="green")
    page.get_by_role("heading", name="change 0.5").or_(
        page.get_by_role("heading", name="strength 0.5")
    ).first.wait_for()

    versions = page.get_by_label("Versions", exact=True)
    expect(versions.get_by_text("The upload")).to_be_visible()
    expect(versions.locator("li li li a.grow")).to_contain_text("a green cup")
    page.get_by_role("link", name="Continue from a blue <x> cup").click()  # a branch
    page.get_by_role("button", name="Version 1").wait_for()
    send(page, "a red cup")
    third = newest(jobs)
    assert third["image"] == second["image"]
    finish_edit(jobs, storage, str(third["job"]), colour="yellow")
    expect(versions.locator("li li li .version")).to_have_count(2)
    expect(versions.locator("[aria-current=true]")).to_contain_text("a red cup")

    slider = page.get_by_label("How much of the picture before is shown")
    slider.press("Home")
    page.get_by_label("Compare with").select_option(label="The upload")
    expect(page.locator(".layer.before img")).to_have_attribute("alt", "Before: The upload")
    expect(slider).to_have_attribute("aria-valuetext", "0 percent before")  # it stays

    page.get_by_role("link", name="Continue from this picture").click()
    shows = page.get_by_label("What it shows")
    step = page.locator(".trail [aria-current=step]")
    expect(step).to_have_text("Version 2")
    expect(shows).to_have_value("a red cup")
    page.get_by_role("button", name="Version 1").click()
    expect(shows).to_have_value("a blue cup")  # without its token
    page.get_by_role("button", name="Upload", exact=True).click()  # back to the beginning
    expect(shows).to_have_value("a cup")
    expect(step).to_have_text("Upload")
    page.wait_for_timeout(300)  # until the draft is kept
    page.reload()
    expect(step).to_have_text("Upload")
    page.get_by_role("button", name="Version 2").click()  # and forward again
    expect(shows).to_have_value("a red cup")
    expect(page.get_by_label("What it is to show")).to_have_value("a red cup")
    page.get_by_role("button", name="Upload", exact=True).click()
    send(page, "a yellow cup")
    fourth = newest(jobs)
    assert fourth["image"] == first["request"]["image"] and fourth["source_prompt"] == "a cup"


def test_words_that_were_written_stay_on_the_way_back(
    tab: Tab, api: Running, jobs: Jobs, storage: Storage
) -> None:
    page = tab.page
    first = edit(api.client())
    finish_edit(jobs, storage, first["id"])
    tab.open(f"edit?from={first['id']}.0")
    page.get_by_role("button", name="Upload", exact=True).wait_for()
    page.get_by_label("What it shows").fill("a cup of tea")
    page.get_by_label("What it is to show").fill("a yellow cup of tea")
    page.get_by_role("button", name="Upload", exact=True).click()
    expect(page.locator(".trail [aria-current=step]")).to_have_text("Upload")
    page.get_by_role("button", name="Edit", exact=True).click()
    page.locator(".saying").wait_for()
    made = newest(jobs)
    assert made["image"] == first["request"]["image"]
    assert made["source_prompt"] == "a cup of tea"
    assert made["target_prompt"] == "a yellow cup of tea"


def test_the_way_is_kept_while_it_comes_late_or_not(
    tab: Tab, api: Running, jobs: Jobs, storage: Storage
) -> None:
    tab.expect("503")
    page = tab.page
    first = edit(api.client())
    finish_edit(jobs, storage, first["id"])
    tab.open(f"edit?from={first['id']}.0")
    page.get_by_role("button", name="Upload", exact=True).click()
    step = page.locator(".trail [aria-current=step]")
    expect(step).to_have_text("Upload")
    page.wait_for_timeout(300)  # until the draft is kept
    held = Held(page, "**/v1/jobs/*", most=9)
    page.reload()
    held.wait()
    page.get_by_label("What it shows").fill("a cup of tea")
    page.wait_for_timeout(500)  # until the draft is kept without its way
    page.unroute("**/v1/jobs/*")
    page.route("**/v1/jobs/*", busy, times=1)
    with page.expect_response("**/v1/jobs/*"):
        page.reload()
    page.get_by_label("What it shows").fill("a cup")
    page.wait_for_timeout(500)
    page.reload()
    expect(step).to_have_text("Upload")
    page.get_by_role("button", name="Version 1").wait_for()


def test_zoom_and_line_stay_when_another_output_is_chosen(
    tab: Tab, api: Running, jobs: Jobs, storage: Storage
) -> None:
    page = tab.page
    job = edit(api.client(), strengths=[0.3, 0.6])
    finish_edit(jobs, storage, job["id"], outputs=2)
    tab.open(f"jobs/{job['id']}")
    slider = page.get_by_label("How much of the picture before is shown")
    slider.focus()
    for key in ("ArrowRight", "ArrowRight", "+", "Shift+ArrowRight"):
        page.keyboard.press(key)
    frame = page.locator(".frame")
    style = frame.get_attribute("style")
    assert style is not None and "--zoom: 1.5" in style and "--at: 52%" in style
    assert "--x: 0%" not in style
    page.get_by_role("radio").nth(1).check(force=True)
    expect(page).to_have_url(f"{tab.url}/#/jobs/{job['id']}?output=1")
    assert frame.get_attribute("style") == style
    page.reload()
    expect(page.get_by_role("radio").nth(1)).to_be_checked()
    box = frame.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.2, box["y"] + 20)
    page.mouse.up()
    expect(slider).to_have_attribute("aria-valuetext", "20 percent before")


def sent_mask(api: Running, jobs: Jobs) -> NDArray[np.uint8]:
    """The mask [height, width] of the edit that was sent last, 0 to 255."""
    answer = api.client().get(f"/v1/images/{newest(jobs)['mask']}/file")
    return np.asarray(Image.open(io.BytesIO(answer.content)).convert("L"))


def test_a_region_is_painted_with_the_pointer(
    tab: Tab, api: Running, jobs: Jobs, storage: Storage
) -> None:
    page = tab.page
    source = edit(api.client())["request"]["image"]
    tab.open(f"edit?image={source}")
    page.get_by_label("What it shows").fill("a cup")
    page.get_by_label("What it is to show").fill("a blue cup")
    page.get_by_text("Painted", exact=True).click()
    page.keyboard.press("Control+Enter")
    page.get_by_text("Nothing is painted").wait_for()
    surface = page.locator(".surface")
    surface.scroll_into_view_if_needed()
    box = surface.bounding_box()
    assert box is not None

    def stroke(x: float) -> None:
        page.mouse.move(box["x"] + box["width"] * x, box["y"] + box["height"] * 0.3)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * x, box["y"] + box["height"] * 0.7, steps=4)
        page.mouse.up()

    stroke(0.25)
    expect(page.get_by_text("Nothing is painted")).to_be_hidden()
    stroke(0.75)
    page.get_by_role("button", name="Undo").click()
    page.get_by_role("button", name="Redo").click()
    page.get_by_role("button", name="Undo").click()
    page.reload()  # what was painted is kept
    page.get_by_role("button", name="Undo").wait_for()
    expect(page.get_by_role("button", name="Undo")).to_be_enabled()
    send(page, "a blue cup")
    mask = sent_mask(api, jobs)
    assert mask.shape == (24, 32)
    assert mask[12, 8] > 200 and mask[12, 24] == 0


def test_the_region_that_was_found_is_adjusted_by_keyboard(
    tab: Tab, api: Running, jobs: Jobs, storage: Storage
) -> None:
    page = tab.page
    job = edit(api.client())
    finish_edit(jobs, storage, job["id"], region=True)
    tab.open(f"jobs/{job['id']}")
    page.get_by_role("link", name="Adjust the region").click()
    surface = page.locator(".surface")
    surface.wait_for()
    expect(page.get_by_alt_text("The picture to edit")).to_have_js_property("naturalWidth", 32)
    surface.focus()
    page.keyboard.press("x")  # erases from the middle
    page.keyboard.down(" ")
    page.keyboard.press("ArrowRight")
    page.keyboard.up(" ")
    page.keyboard.press("Control+z")
    page.keyboard.press("Control+Shift+z")
    send(page, "a green cup")
    mask = sent_mask(api, jobs)
    assert mask[12, 16] < 128 and mask[7, 9] > 200
    assert mask[2, 2] == 0


def test_several_pictures_are_edited_with_one_form(
    tab: Tab, jobs: Jobs, storage: Storage, references: tuple[Path, ...]
) -> None:
    page = tab.page
    tab.open("edit")
    give(page, references[:3])
    expect(page.get_by_label("Several pictures")).to_be_checked()
    page.get_by_label("What it shows").fill("a cup")
    page.get_by_label("What it is to show").fill("a blue cup")
    page.get_by_role("button", name="Edit 3 pictures").click()
    expect(page.locator(".tile")).to_have_count(3)
    expect(page).to_have_title("0 % a blue cup · Custom-Edit")
    first, *_ = jobs.list("anna").items
    finish_edit(jobs, storage, first.id)
    page.get_by_text("1 succeeded").wait_for()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_text("2 cancelled").wait_for()
    assert len({job.request["image"] for job in jobs.list("anna").items}) == 3


def test_the_api_call_of_a_training_makes_the_same_request(
    tab: Tab, api: Running, jobs: Jobs
) -> None:
    page = tab.page
    job = customize(api.client(), attribute="", training={"steps": 20, "augment_crops": False})
    tab.open(f"jobs/{job['id']}")
    page.get_by_text("API call of this run").click()
    words = shlex.split(page.get_by_label("API call with curl").inner_text())
    body = json.loads(words[words.index("-d") + 1])
    assert body["attribute"] == "" and body["training"] == {"steps": 20, "augment_crops": False}
    assert api.client().post("/v1/concepts", json=body).status_code == 202
    assert jobs.list("anna", kind="customize").items[0].request == job["request"]


def test_the_api_call_of_a_run_makes_the_same_request(tab: Tab, api: Running, jobs: Jobs) -> None:
    page = tab.page
    job = edit(api.client(), target_prompt="a cup of 'tea'", p2p={"blend_words": ["cup"]})
    tab.open(f"jobs/{job['id']}")
    page.get_by_text("API call of this run").click()
    words = shlex.split(page.get_by_label("API call with curl").inner_text())
    assert words[1] == f"{api.url}/v1/edits"
    body = json.loads(words[words.index("-d") + 1])
    assert api.client().post("/v1/edits", json=body).status_code == 202
    again = newest(jobs)
    assert {**again, "job": None} == {**job["request"], "job": None}
    page.get_by_text("Python", exact=True).click()
    call = page.get_by_label("API call with Python").inner_text()
    ast.parse(call)
    assert 'blend_words=["cup"]' in call and "P2POptions(" in call
