"""What a view still waits for when it is left takes nothing from what comes after it."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, Route, expect

from customedit.jobs.store import Jobs

from ..api.conftest import ALL, Running, png
from .tab import PATIENCE_MS, Tab
from .test_library import PASTE


class Held:
    """Requests to addresses like ``pattern`` that wait until they are let go; ``most`` at most."""

    def __init__(self, page: Page, pattern: str, method: str = "GET", most: int = 1) -> None:
        self.page, self.method, self.most = page, method, most
        self.routes: list[Route] = []
        page.route(pattern, self._hold)

    def _hold(self, route: Route) -> None:
        if route.request.method == self.method and len(self.routes) < self.most:
            self.routes.append(route)
        else:
            route.fallback()

    def wait(self) -> Route:
        """The first of them, once it is there."""
        for _ in range(PATIENCE_MS // 50):
            if self.routes:
                return self.routes[0]
            self.page.wait_for_timeout(50)
        raise AssertionError("nothing is asked for")


def leave_and_return(page: Page, view: str) -> None:
    page.get_by_role("link", name="Looks").click()
    page.get_by_role("heading", name="Looks", exact=True).wait_for()
    page.get_by_role("link", name=view, exact=True).click()


def test_an_edit_that_is_still_being_sent_leaves_what_is_typed_since(
    tab: Tab, jobs: Jobs, picture: Path
) -> None:
    page = tab.page
    tab.open("edit")
    page.locator("input[type=file]").first.set_input_files(picture)
    source, target = page.get_by_label("What it shows"), page.get_by_label("What it is to show")
    source.fill("a cup")
    target.fill("a blue cup")
    held = Held(page, "**/v1/edits", "POST")
    page.get_by_role("button", name="Edit", exact=True).click()
    held.wait()
    leave_and_return(page, "Edit")
    target.fill("a green cup")
    held.wait().continue_()
    expect(page.locator("#live")).to_have_text("The edit is sent")
    assert jobs.list("anna").items[0].request["target_prompt"] == "a blue cup"
    assert page.url.endswith("#/edit")
    page.reload()
    expect(target).to_have_value("a green cup")


def test_a_look_that_is_still_being_sent_leaves_what_is_typed_since(
    tab: Tab, jobs: Jobs, references: tuple[Path, ...]
) -> None:
    page = tab.page
    tab.open("teach")
    page.locator("input[type=file]").set_input_files(references[:3])
    noun = page.get_by_label("What the pictures show")
    noun.fill("cup")
    held = Held(page, "**/v1/concepts", "POST")
    page.get_by_role("button", name="Teach this look").click()
    held.wait()
    leave_and_return(page, "Teach")
    noun.fill("vase")
    held.wait().continue_()
    expect(page.locator("#live")).to_have_text("The look is sent, and is being taught")
    assert jobs.list("anna").items[0].request["noun"] == "cup"
    assert page.url.endswith("#/teach")
    leave_and_return(page, "Teach")
    expect(noun).to_have_value("vase")


def test_a_picture_that_arrives_late_leaves_what_is_typed_since(tab: Tab, picture: Path) -> None:
    page = tab.page
    tab.open("edit")
    page.get_by_label("What it shows").fill("a cup")
    held = Held(page, "**/v1/images", "POST")
    page.locator("input[type=file]").first.set_input_files(picture)
    held.wait()
    leave_and_return(page, "Edit")
    page.get_by_label("What it shows").fill("a vase")
    with page.expect_response("**/v1/images"):
        held.wait().continue_()
    page.wait_for_timeout(500)  # longer than a draft waits to be kept
    page.reload()
    expect(page.get_by_label("What it shows")).to_have_value("a vase")


def test_the_form_of_an_edit_is_shown_with_what_it_begins_with(tab: Tab) -> None:
    page = tab.page
    tab.open("edit")
    source = page.get_by_label("What it shows")
    source.fill("a cup")
    page.get_by_role("link", name="Looks").click()
    page.get_by_role("heading", name="Looks", exact=True).wait_for()
    held = Held(page, "**/v1/concepts?*")
    page.get_by_role("link", name="Edit", exact=True).click()
    held.wait()
    expect(source).to_be_hidden()
    page.keyboard.press("Control+Enter")  # there is nothing to be sent yet
    held.wait().continue_()
    expect(source).to_have_value("a cup")
    assert not [r for r in tab.asked if r.method == "POST" and r.url.endswith("/v1/edits")]


def leave(page: Page) -> None:
    page.locator("#account summary").click()
    page.get_by_role("button", name="Sign out").click()
    page.get_by_text("You are signed out.").wait_for()


def test_a_pasted_picture_is_not_sent_for_the_next_who_signs_in(tab: Tab, api: Running) -> None:
    tab.expect("ERR_")
    page = tab.page
    tab.open("jobs")
    page.get_by_role("heading", name="No jobs yet").wait_for()
    held = Held(page, "**/v1/concepts?*")  # so that the form does not open
    page.evaluate(PASTE, ["paste", base64.b64encode(png("green")).decode()])
    held.wait()
    leave(page)
    tab.sign_in(api.key("bert", ALL))
    page.get_by_label("What it shows").wait_for()
    page.wait_for_timeout(500)
    assert not [r for r in tab.asked if r.method == "POST" and r.url.endswith("/v1/images")]
    assert api.client("bert").get("/v1/images").json()["items"] == []


def test_a_picture_is_pasted_by_a_key_that_may_send_some(
    new_tab: Callable[..., Tab], api: Running
) -> None:
    tab = new_tab()
    tab.open("jobs")
    tab.sign_in(api.key("anna", ("read",)))
    page = tab.page
    page.get_by_role("heading", name="No jobs yet").wait_for()
    page.evaluate(PASTE, ["paste", base64.b64encode(png("green")).decode()])
    page.get_by_text("It lacks the scope edits:write").wait_for()
    leave(page)
    tab.sign_in(api.key("bert", ALL))
    page.get_by_label("What it shows").wait_for()
    assert api.client("bert").get("/v1/images").json()["items"] == []


@pytest.mark.parametrize("status", [200, 401])
def test_an_answer_for_the_key_before_is_not_taken(tab: Tab, api: Running, status: int) -> None:
    tab.expect("401")
    page = tab.page
    tab.open("jobs")
    page.get_by_role("heading", name="No jobs yet").wait_for()
    held = Held(page, "**/v1/limits")
    page.locator("#account summary").click()
    route = held.wait()
    page.get_by_role("button", name="Sign out").click()
    tab.sign_in(api.key("bert", ALL))
    limits = api.client("anna").get("/v1/limits").json()
    with page.expect_response("**/v1/limits"):
        route.fulfill(status=status, json=limits if status == 200 else {"title": "no"})
    page.get_by_role("link", name="Looks").click()
    page.get_by_role("heading", name="No looks yet").wait_for()
    expect(page.locator("#account summary")).to_have_text("bert")
