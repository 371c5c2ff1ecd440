"""Signing in and out, and what a key's scopes leave of the page."""

from __future__ import annotations

from collections.abc import Callable

from ..api.conftest import Running, customize, edit
from .conftest import Tab


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
    assert tab.page.evaluate("sessionStorage.length") == 0
    tab.sign_in(api.key())
    tab.page.get_by_role("heading", name="No concepts yet").wait_for()  # where the address led
    assert tab.page.evaluate("localStorage.length") == 0
    assert tab.page.evaluate("document.cookie") == ""


def test_what_the_tenant_may_do_is_told_and_one_can_leave(tab: Tab) -> None:
    account = tab.page.locator("#account")
    account.get_by_text("anna").click()
    account.get_by_text("600").wait_for()
    account.get_by_text("0 of 100").wait_for()
    account.get_by_role("button", name="Sign out").click()
    tab.page.get_by_text("You are signed out.").wait_for()
    assert tab.page.evaluate("sessionStorage.length") == 0
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
    tab.page.get_by_role("link", name="Concepts").click()
    tab.page.get_by_text("Your key is not valid any more.").wait_for()
    assert tab.page.evaluate("sessionStorage.length") == 0


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
    assert page.get_by_role("navigation").inner_text().split() == ["Concepts", "Jobs"]
    assert page.get_by_role("button", name="Cancel").count() == 0
    for view, wait in (("jobs", "a blue cup"), ("concepts", "<look>")):
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
