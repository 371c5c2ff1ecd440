"""Signing in and out, and what a key's scopes leave of the page."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import expect

from ..api.conftest import Running, customize, edit
from .tab import Tab

HOLDS_KEY = """(place) =>
  Object.values(window[place]).some((text) => text.startsWith("ce_"))"""


def test_a_wrong_key_is_told_and_a_right_one_opens(
    new_tab: Callable[..., Tab], api: Running
) -> None:
    tab = new_tab()
    tab.expect("401")
    tab.open("concepts")
    tab.page.get_by_label("API key").fill("ce_nonsense")
    tab.page.get_by_role("button", name="Sign in").click()
    key = tab.page.get_by_label("API key")
    tab.page.get_by_text("This key is not known here").wait_for()
    assert key.get_attribute("aria-invalid") == "true"
    assert not tab.page.evaluate(HOLDS_KEY, "sessionStorage")
    tab.sign_in(api.key())
    tab.page.get_by_role("heading", name="No looks yet").wait_for()  # where the address led
    assert not tab.page.evaluate(HOLDS_KEY, "localStorage")
    assert tab.page.evaluate("document.cookie") == ""


def test_what_the_tenant_may_do_is_told_and_one_can_leave(tab: Tab) -> None:
    account = tab.page.locator("#account")
    account.get_by_text("anna").click()
    account.get_by_text("600").wait_for()
    account.get_by_text("0 of 100").wait_for()
    account.get_by_role("button", name="Sign out").click()
    tab.page.get_by_text("You are signed out.").wait_for()
    assert not tab.page.evaluate(HOLDS_KEY, "sessionStorage")
    tab.page.reload()
    tab.page.get_by_label("API key").wait_for()


def test_a_key_that_ends_meanwhile_leads_back_to_the_door(
    new_tab: Callable[..., Tab], api: Running
) -> None:
    key, text = api.keys.create("anna", scopes=("read",))
    tab = new_tab()
    tab.expect("401")
    tab.open()
    tab.sign_in(text)
    api.keys.revoke(key.id)
    tab.page.get_by_role("link", name="Looks").click()
    tab.page.get_by_text("Your key is not valid any more.").wait_for()
    assert not tab.page.evaluate(HOLDS_KEY, "sessionStorage")


def test_a_key_that_may_only_read_sees_no_actions(
    new_tab: Callable[..., Tab], api: Running
) -> None:
    writer = api.client()
    customize(writer)
    job = edit(writer)
    tab = new_tab()
    tab.open(f"jobs/{job['id']}")
    tab.sign_in(api.key("anna", ("read",)))
    page = tab.page
    page.get_by_text("queued").first.wait_for()
    assert page.get_by_role("navigation").inner_text().split() == ["Looks", "Pictures", "Jobs"]
    assert page.get_by_role("button", name="Cancel").count() == 0
    for view, wait in (("jobs", "a blue cup"), ("concepts", "<look>"), ("pictures", "32 × 24")):
        tab.open(view)
        page.get_by_text(wait).first.wait_for()
        names = page.locator("main button:visible").all_inner_texts()
        assert set(names) <= {"Refresh"}, names
    for view, scope in (("teach", "concepts:write"), ("edit", "edits:write")):
        tab.open(view)
        page.get_by_text(f"It lacks the scope {scope}").wait_for()
        assert page.locator("form").count() == 0


def test_a_key_that_may_not_read_is_told_so(new_tab: Callable[..., Tab], api: Running) -> None:
    tab = new_tab()
    tab.expect("403")
    tab.open()
    tab.page.get_by_label("API key").fill(api.key("anna", ("edits:write",)))
    tab.page.get_by_role("button", name="Sign in").click()
    tab.page.get_by_text("This key may not read").wait_for()


def test_all_tabs_are_signed_in_when_one_wishes_so(
    new_tab: Callable[..., Tab], api: Running
) -> None:
    tab = new_tab()
    tab.open("jobs")
    other = Tab(tab.page.context.new_page(), api.url)
    other.open("concepts")
    tab.page.get_by_label("Stay signed in").check()
    tab.sign_in(api.key())
    other.page.get_by_role("heading", name="No looks yet").wait_for()  # it followed
    third = Tab(tab.page.context.new_page(), api.url)
    third.open("teach")
    third.page.get_by_role("heading", name="Teach a look").wait_for()
    third.page.locator("#account").get_by_text("anna").click()
    third.page.get_by_role("button", name="Sign out").click()
    for one in (tab, other):
        one.page.get_by_text("You were signed out in another tab.").wait_for()
        assert not one.page.evaluate(HOLDS_KEY, "localStorage")


def test_a_tab_follows_when_another_signs_in_with_another_key(
    new_tab: Callable[..., Tab], api: Running
) -> None:
    tab = new_tab()
    tab.open("jobs")
    tab.page.get_by_label("Stay signed in").check()
    tab.sign_in(api.key("anna"))
    other = Tab(tab.page.context.new_page(), api.url)
    other.open("jobs")
    other.page.get_by_role("heading", name="No jobs yet").wait_for()
    other.page.evaluate("key => localStorage.setItem('customedit.key', key)", api.key("bert"))
    expect(tab.page.locator("#account summary")).to_have_text("bert")
    tab.page.get_by_role("heading", name="No jobs yet").wait_for()


def test_a_key_of_one_tab_stays_in_it(new_tab: Callable[..., Tab], api: Running) -> None:
    tab = new_tab()
    tab.open()
    tab.sign_in(api.key())
    other = Tab(tab.page.context.new_page(), api.url)
    other.open("jobs")
    other.page.get_by_label("API key").wait_for()
