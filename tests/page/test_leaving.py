"""What a view still waits for when it is left takes nothing from what comes after it."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import FileChooser, Locator, Page, Route, expect

from customedit.jobs.store import Jobs

from ..api.conftest import ALL, Running, png
from .tab import PATIENCE_MS, Tab, give
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
        return self.all(1)[0]

    def all(self, count: int) -> list[Route]:
        """All of them, once there are ``count``."""
        for _ in range(PATIENCE_MS // 50):
            if len(self.routes) >= count:
                return self.routes
            self.page.wait_for_timeout(50)
        raise AssertionError(f"{len(self.routes)} are asked for")


def busy(route: Route) -> None:
    """Answer as a service that cannot answer now."""
    route.fulfill(status=503, json={"title": "The store does not answer"})


def leave_and_return(page: Page, view: str) -> None:
    page.get_by_role("link", name="Looks").click()
    page.get_by_role("heading", name="Looks", exact=True).wait_for()
    page.get_by_role("link", name=view, exact=True).click()


def test_an_edit_that_is_still_being_sent_leaves_what_is_typed_since(
    tab: Tab, jobs: Jobs, picture: Path
) -> None:
    page = tab.page
    tab.open("edit")
    give(page, picture)
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
    give(page, references[:3])
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
    give(page, picture)
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


def test_an_upload_ends_with_the_key_that_it_began_with(
    tab: Tab, api: Running, tmp_path: Path
) -> None:
    files = [tmp_path / name for name in ("1.png", "2.png")]
    for file, colour in zip(files, ("red", "green"), strict=True):
        file.write_bytes(png(colour))
    page = tab.page
    tab.open("pictures")
    held = Held(page, "**/v1/images", "POST")
    page.get_by_label("Pictures to upload").set_input_files(files)
    held.wait()
    leave(page)
    tab.sign_in(api.key("bert", ALL))
    page.get_by_role("heading", name="No uploads yet").wait_for()
    with page.expect_response("**/v1/images"):
        held.wait().continue_()
    page.wait_for_timeout(500)
    assert api.client("bert").get("/v1/images").json()["items"] == []
    assert len(api.client("anna").get("/v1/images").json()["items"]) == 1


def test_an_upload_goes_on_when_its_view_is_left(tab: Tab, api: Running, tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("1.png", "2.png")]
    for file, colour in zip(files, ("red", "green"), strict=True):
        file.write_bytes(png(colour))
    page = tab.page
    tab.open("pictures")
    held = Held(page, "**/v1/images", "POST")
    page.get_by_label("Pictures to upload").set_input_files(files)
    held.wait()
    page.get_by_role("link", name="Looks").click()
    page.get_by_role("heading", name="Looks", exact=True).wait_for()
    held.wait().continue_()
    expect(page.locator("#live")).to_have_text("2 of 2 pictures were sent.")
    assert len(api.client().get("/v1/images").json()["items"]) == 2


def test_a_dialog_of_files_gives_nothing_to_the_next_who_signs_in(
    tab: Tab, api: Running, picture: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "cups"
    folder.mkdir()
    (folder / "1.png").write_bytes(png())
    page = tab.page
    dialogs: list[tuple[FileChooser, Path]] = []

    def open_dialog(button: Locator, files: Path = picture) -> None:
        with page.expect_file_chooser() as opened:
            button.click()
        dialogs.append((opened.value, files))

    tab.open("pictures")
    open_dialog(page.get_by_role("button", name="Upload pictures"))
    tab.open("teach")
    open_dialog(page.locator("label.drop"))
    tab.open("edit")
    open_dialog(page.locator("label.drop"))
    open_dialog(page.get_by_role("button", name="Choose a folder"), folder)
    page.get_by_text("Painted", exact=True).click()
    open_dialog(page.get_by_role("button", name="Load a mask picture"))
    leave(page)
    tab.sign_in(api.key("bert", ALL))
    page.get_by_label("What it shows").wait_for()
    for dialog, files in dialogs:
        dialog.set_files(files)
    page.wait_for_timeout(500)
    assert not [r for r in tab.asked if r.method == "POST" and r.url.endswith("/v1/images")]
    assert api.client("bert").get("/v1/images").json()["items"] == []


def test_a_question_is_not_answered_by_the_next_who_signs_in(
    new_tab: Callable[..., Tab], api: Running
) -> None:
    for tenant in ("anna", "bert"):
        client = api.client(tenant)
        assert client.put("/v1/presets/gentle", json={"steps": 20}).status_code == 201
    tab = new_tab()
    tab.open("edit")
    page = tab.page
    page.get_by_label("Stay signed in").check()
    tab.sign_in(api.key("anna", ALL))
    page.get_by_text("Presets", exact=True).click()
    page.get_by_role("button", name="Delete", exact=True).click()
    question = page.get_by_role("dialog")
    question.wait_for()
    other = Tab(page.context.new_page(), api.url)
    other.open("jobs")
    other.page.evaluate("key => localStorage.setItem('customedit.key', key)", api.key("bert", ALL))
    expect(page.locator("#account summary")).to_have_text("bert")
    expect(question).to_have_count(0)
    page.get_by_label("What it shows").wait_for()
    assert api.client("bert").get("/v1/presets/gentle").status_code == 200
    assert api.client("anna").get("/v1/presets/gentle").status_code == 200


def test_a_mask_that_arrives_late_is_not_put_into_an_emptied_form(tab: Tab, picture: Path) -> None:
    page = tab.page
    tab.open("edit")
    page.get_by_text("Painted", exact=True).click()
    held = Held(page, "**/v1/images", "POST")
    page.get_by_label("A mask picture").set_input_files(picture)
    held.wait()
    page.get_by_role("button", name="Start anew").click()
    with page.expect_response("**/v1/images"):
        held.wait().continue_()
    page.wait_for_timeout(300)
    page.get_by_label("What it shows").fill("a vase")
    page.wait_for_timeout(500)  # until the draft is kept
    draft = page.evaluate("JSON.parse(sessionStorage.getItem('customedit.draft.anna.edit'))")
    assert draft["controls"]["source"] == "a vase"
    assert draft["region"]["start"] is None


COUNT_ADDRESSES = """() => {
  window.held = new Set();
  const { createObjectURL: make, revokeObjectURL: free } = URL;
  URL.createObjectURL = (file) => {
    const url = make.call(URL, file);
    window.held.add(url);
    return url;
  };
  URL.revokeObjectURL = (url) => { window.held.delete(url); free.call(URL, url); };
}"""


def test_pictures_that_are_shown_no_more_are_freed(tab: Tab, references: tuple[Path, ...]) -> None:
    page = tab.page
    tab.open("edit")
    page.get_by_label("What it shows").wait_for()
    page.evaluate(COUNT_ADDRESSES)
    give(page, references[:3])
    expect(page.locator(".thumbs img")).to_have_count(3)
    expect(page.get_by_text("Sending")).to_have_count(0)
    assert page.evaluate("window.held.size") == 3
    page.get_by_label("Several pictures").uncheck()
    expect(page.get_by_alt_text("The picture to edit")).to_be_visible()
    assert page.evaluate("window.held.size") == 1
    page.get_by_role("link", name="Looks").click()
    page.get_by_role("heading", name="Looks", exact=True).wait_for()
    assert page.evaluate("window.held.size") == 0


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
