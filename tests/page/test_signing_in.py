"""Signing in and out, and what a key's scopes leave of the page."""

from __future__ import annotations

from collections.abc import Callable

from ..api.conftest import Running
from .conftest import READ_ONLY, Tab


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
