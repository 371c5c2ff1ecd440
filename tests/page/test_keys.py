"""API keys on the page: made, shown once, revoked, and never the one in use."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import expect

from .. import web
from ..api.conftest import Running
from .tab import Tab
from .test_accessible import FAULTS, PHONE, violations


def test_a_key_is_made_and_revoked(tab: Tab, api: Running) -> None:
    tab.expect("404")  # no secret of webhooks was made
    page = tab.page
    tab.open("account")
    keys = page.get_by_role("list", name="API keys").get_by_role("listitem")
    expect(keys).to_have_count(1)
    expect(keys).to_contain_text("this key")
    expect(keys.get_by_role("button")).to_have_count(0)  # a key does not revoke itself
    page.locator("summary", has_text="Make a key").click()
    for scope in ("edit pictures", "send and delete pictures", "teach and import", "see what"):
        page.get_by_label(scope).uncheck()
    page.get_by_label("Days until it expires").fill("0")
    page.get_by_role("button", name="Make a key").click()
    expect(page.get_by_text("Choose at least one.")).to_be_visible()
    expect(page.get_by_text("Write a number, above 0")).to_be_visible()
    page.get_by_label("see what is there").check()
    page.get_by_label("Days until it expires").fill("30")
    page.get_by_label("Name of the key").fill("dashboard")
    page.get_by_role("button", name="Make a key").click()
    page.get_by_text("The key, shown this once").wait_for()
    text = page.get_by_role("status").locator("code", has_text="ce_").inner_text()
    answer = web.get(f"{api.url}/v1/limits", headers={"X-API-Key": text})
    assert answer.json()["scopes"] == ["read"]
    expect(keys).to_have_count(2)
    expect(keys.first).to_contain_text("dashboard")
    expect(keys.first).to_contain_text("expires")
    page.get_by_role("button", name="Revoke dashboard").click()
    page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
    expect(keys.first.locator(".badge")).to_have_text("✕ revoked")
    assert web.get(f"{api.url}/v1/limits", headers={"X-API-Key": text}).status_code == 401
    page.reload()
    expect(keys).to_have_count(2)
    assert text not in page.content()


def test_other_keys_see_no_keys_and_a_phone_shows_them(
    new_tab: Callable[..., Tab], api: Running
) -> None:
    tab = new_tab(**PHONE, color_scheme="dark")
    tab.expect("404")
    tab.open()
    tab.sign_in(api.key("anna", ("read",)))
    tab.open("account")
    tab.page.get_by_text("with a key of the scope admin, or by who runs").wait_for()
    assert not [r for r in tab.asked if "/v1/keys" in r.url]
    tab = new_tab(**PHONE, color_scheme="dark")
    tab.expect("404")
    tab.open()
    tab.sign_in(api.key("anna"))
    tab.open("account")
    expect(tab.page.get_by_role("list", name="API keys").get_by_role("listitem")).to_have_count(2)
    tab.page.locator("summary", has_text="Make a key").click()
    assert tab.page.evaluate(FAULTS) == []
    assert violations(tab) == []
