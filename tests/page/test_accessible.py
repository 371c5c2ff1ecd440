"""For everyone: labels, names, contrast, the keyboard, narrow screens, light and dark."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from customedit.jobs.store import Jobs
from customedit.storage.store import Storage
from customedit.tenants.catalogue import Concepts

from ..api.conftest import Running, customize, edit, finish_concept, finish_edit
from .conftest import Tab

FAULTS = (Path(__file__).with_name("faults.js")).read_text()
"""A function that lists what is wrong with the page as it stands."""

PHONE: dict[str, Any] = {"viewport": {"width": 360, "height": 740}}
DESK: dict[str, Any] = {"viewport": {"width": 1280, "height": 800}}


@pytest.fixture
def views(api: Running, jobs: Jobs, concepts: Concepts, storage: Storage) -> dict[str, str]:
    """Every view there is, with something in it, and what is there once it is all shown."""
    client = api.client()
    learned = customize(client, name="a-name-without-any-place-to-break-it-" * 4, token="<plaid>")
    finish_concept(jobs, concepts, storage, learned["id"])
    edited = edit(client, target_prompt="words" * 60)
    finish_edit(jobs, storage, edited["id"])
    waiting = edit(client)
    return {
        "teach": "form",
        f"edit?concept={learned['concept']}": ".choose.on",
        "concepts": ".concept",
        "jobs": ".item + .item + .item",
        f"jobs/{learned['id']}": ".learned",
        f"jobs/{edited['id']}": ".compare",
        f"jobs/{waiting['id']}": "progress",
        "none": ".empty",
    }


@pytest.mark.parametrize("screen", [PHONE, DESK], ids=["phone", "desk"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_view_is_for_everyone(
    new_tab: Callable[..., Tab],
    api: Running,
    views: dict[str, str],
    screen: dict[str, Any],
    scheme: str,
) -> None:
    tab = new_tab(**screen, color_scheme=scheme, reduced_motion="reduce")
    tab.open()
    assert tab.page.evaluate(FAULTS) == []
    tab.sign_in(api.key())
    for view, shown in views.items():
        tab.open(view)
        tab.page.locator(shown).wait_for()
        tab.page.evaluate("for (const d of document.querySelectorAll('details')) d.open = true")
        assert tab.page.evaluate(FAULTS) == [], view
    tab.open("teach")
    tab.page.get_by_role("button", name="Teach this look").click()  # with its errors shown
    assert tab.page.evaluate(FAULTS) == []


FAULTY = {
    "contrast": "document.querySelector('h1').style.color = '#999'",
    "no label": "document.querySelector('label').remove()",
    "no alt": "document.querySelector('img').removeAttribute('alt')",
    "scrolls sideways": "document.querySelector('h1').style.width = '3000px'",
    "id twice": "document.querySelector('h1').id = 'main'",
}


@pytest.mark.parametrize("fault", FAULTY)
def test_the_check_finds_faults(new_tab: Callable[..., Tab], fault: str) -> None:
    tab = new_tab()
    tab.open()
    tab.page.get_by_label("API key").wait_for()
    tab.page.evaluate(FAULTY[fault])
    assert any(line.startswith(fault) for line in tab.page.evaluate(FAULTS))


def test_the_keyboard_alone_will_do(tab: Tab) -> None:
    page = tab.page
    tab.open("concepts")
    page.get_by_role("heading", name="No concepts yet").wait_for()
    page.reload()
    page.get_by_role("heading", name="No concepts yet").wait_for()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    assert page.url.endswith("#/concepts")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # the first thing there: Teach a look
    page.get_by_role("heading", name="Teach a look").wait_for()
    assert page.evaluate("document.activeElement.tagName") == "H1"
    assert page.title() == "Teach a look · Custom-Edit"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.type") == "file"
    ring = page.locator(".drop").evaluate("e => getComputedStyle(e).outlineStyle")
    assert ring == "solid"
