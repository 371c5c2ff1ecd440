"""What the service does not give for a while stays in a form; what got no answer is sent once."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, Route, expect

from customedit.jobs.store import Jobs
from customedit.storage.store import Storage
from customedit.tenants.catalogue import Concepts

from ..api.conftest import Running, customize, edit, finish_concept, upload, upload_mask
from .tab import Tab
from .test_iterating import newest, send, sent_mask
from .test_leaving import busy

COLOURS = ("red", "green", "blue", "white", "black", "yellow")


def refuse(page: Page, pattern: str) -> Callable[[], None]:
    """Lets the service be busy for GETs of addresses like ``pattern``; gives what ends it."""

    def answer(route: Route) -> None:
        busy(route) if route.request.method == "GET" else route.fallback()

    page.route(pattern, answer)
    return lambda: page.unroute(pattern, answer)


def draft_is_kept(page: Page) -> None:
    page.wait_for_timeout(500)


def write(page: Page, source: str, target: str) -> None:
    page.get_by_label("What it shows").fill(source)
    page.get_by_label("What it is to show").fill(target)


def test_pictures_that_are_not_given_for_a_while_stay_chosen(
    tab: Tab, api: Running, jobs: Jobs
) -> None:
    for status in ("503", "404", "422"):  # 422: the plan asks for one that is deleted
        tab.expect(status)
    client = api.client()
    images = [upload(client, colour) for colour in COLOURS]
    page = tab.page
    tab.open(f"edit?{'&'.join(f'image={name}' for name in images)}")
    write(page, "a cup", "a blue cup")
    draft_is_kept(page)
    again = refuse(page, "**/v1/images/*")
    told = page.get_by_text("6 pictures cannot be shown now, and stay chosen.")
    for _ in range(2):  # the draft is kept with all of them
        asked = len(tab.asked)
        page.reload()
        told.wait_for()
        asked_for = [r for r in tab.asked[asked:] if "/v1/images/" in r.url]
        assert len(asked_for) <= 4  # one that is refused is enough to ask for no more
        draft_is_kept(page)
    expect(page.get_by_text("The store does not answer")).to_be_visible()
    expect(page.get_by_role("button", name="Edit 6 pictures")).to_be_visible()
    assert client.delete(f"/v1/images/{images[2]}").status_code == 204
    page.get_by_role("button", name="Try again").click()
    told.wait_for()
    again()
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".thumbs img")).to_have_count(5)
    expect(told).to_have_count(0)
    expect(page.get_by_text("1 picture of this form was deleted meanwhile.")).to_be_visible()
    page.get_by_role("button", name="Edit 5 pictures").click()
    expect(page.locator(".tile")).to_have_count(5)
    left = set(images) - {images[2]}
    assert {job.request["image"] for job in jobs.list("anna").items} == left


def test_a_look_that_is_not_given_for_a_while_stays_chosen(
    tab: Tab, api: Running, jobs: Jobs, concepts: Concepts, storage: Storage
) -> None:
    tab.expect("503")
    client = api.client()
    look = finish_concept(jobs, concepts, storage, customize(client, token="<x>")["id"]).id
    page = tab.page
    tab.open(f"edit?image={upload(client)}")
    write(page, "a cup", "a <x> cup")
    page.get_by_role("checkbox", name="<x>").check()
    draft_is_kept(page)
    none = {"items": [], "next_cursor": None}
    page.route(re.compile(r"/v1/concepts\?"), lambda route: route.fulfill(json=none))  # it is older
    again = refuse(page, "**/v1/concepts/*")
    told = page.get_by_text("1 look cannot be shown now, and stays chosen.")
    for _ in range(2):
        page.reload()
        told.wait_for()
        draft_is_kept(page)
    expect(page.get_by_text("no look with this token is chosen")).to_have_count(0)
    again()
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("checkbox", name="<x>")).to_be_checked()
    expect(told).to_have_count(0)
    refuse(page, "**/v1/concepts/*")
    page.reload()
    told.wait_for()
    page.get_by_role("button", name="Edit", exact=True).click()
    page.locator(".saying").wait_for()
    assert newest(jobs)["concepts"] == [{"id": look, "weight": 1.0}]


def test_a_mask_that_is_not_given_for_a_while_is_kept_with_what_is_painted_on_it(
    tab: Tab, api: Running, jobs: Jobs
) -> None:
    tab.expect("503")
    client = api.client()
    job = edit(client, mask=upload_mask(client))
    page = tab.page
    tab.open(f"edit?job={job['id']}")
    expect(page.get_by_alt_text("The picture to edit")).to_have_js_property("naturalWidth", 32)
    surface = page.locator(".surface")
    surface.focus()
    page.keyboard.down(" ")
    page.keyboard.press("ArrowRight")
    page.keyboard.up(" ")
    draft_is_kept(page)
    again = refuse(page, "**/v1/images/*/file")
    load = page.get_by_role("button", name="Load the mask again")
    for _ in range(2):
        page.reload()
        load.wait_for()
        expect(surface).to_be_hidden()
        draft_is_kept(page)
    page.get_by_role("button", name="Edit", exact=True).click()
    page.get_by_text("The mask was not loaded: load it again, or leave it out.").wait_for()
    again()
    load.click()
    expect(surface).to_be_visible()
    send(page, "a green cup")
    mask = sent_mask(api, jobs)
    assert mask[12, 3] > 200 and mask[12, 16] > 128
    assert mask[2, 29] == 0


def test_what_the_address_names_is_asked_for_again_after_no_answer(tab: Tab, api: Running) -> None:
    tab.expect("503")
    page = tab.page
    tab.open("edit")
    write(page, "a vase", "a red vase")
    draft_is_kept(page)
    job = edit(api.client())
    again = refuse(page, "**/v1/jobs/*")
    tab.open(f"edit?job={job['id']}")
    page.locator("form").get_by_text("The store does not answer").wait_for()
    draft_is_kept(page)
    again()
    page.reload()
    target = page.get_by_label("What it is to show")
    expect(target).to_have_value("a blue cup")
    page.get_by_role("button", name="Bring it back").click()
    expect(target).to_have_value("a red vase")


@pytest.mark.parametrize("pictures", [1, 2])
def test_a_form_without_an_answer_makes_one_job_though_the_page_is_loaded_again(
    tab: Tab, api: Running, jobs: Jobs, pictures: int
) -> None:
    tab.expect("ERR_")
    client = api.client()
    page = tab.page
    names = [f"image={upload(client, colour)}" for colour in COLOURS[:pictures]]
    tab.open(f"edit?{'&'.join(names)}")
    write(page, "a cup", "a blue cup")
    path = "**/v1/edits" if pictures == 1 else "**/v1/batches"
    button = "Edit" if pictures == 1 else "Edit 2 pictures"

    def lose(route: Route) -> None:
        route.fetch()  # it arrives; its answer does not
        route.abort("connectionreset")

    page.route(path, lose)
    page.get_by_role("button", name=button, exact=True).click()
    page.locator(".problem").get_by_text("The service does not answer").wait_for()
    page.unroute(path)
    page.reload()
    page.get_by_role("button", name=button, exact=True).click()
    page.locator(".head .badge").wait_for()
    assert len(jobs.list("anna").items) == pictures
    page.go_back()
    write(page, "a cup", "a blue cup")
    page.get_by_role("button", name=button, exact=True).click()  # once more, since one wishes so
    page.locator(".head .badge").wait_for()
    assert len(jobs.list("anna").items) == 2 * pictures
