"""For everyone: labels, names, contrast, the keyboard, narrow screens, light and dark."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from customedit.jobs.records import JobError, JobProgress
from customedit.jobs.store import Jobs
from customedit.storage.store import Storage
from customedit.tenants.catalogue import Concepts

from ..api.conftest import (
    Running,
    claimed,
    customize,
    edit,
    finish_concept,
    finish_edit,
    upload,
)
from .tab import Tab
from .test_curve import CURVE
from .test_leaving import Held

FAULTS = (Path(__file__).with_name("faults.js")).read_text()
"""A function that lists what is wrong with the page as it stands."""

AXE = Path(__file__).with_name("node_modules") / "axe-core" / "axe.min.js"
"""The rules of axe, from npm; where they are not installed, our own checks stand alone."""

PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 740}}
DESK: dict[str, Any] = {"viewport": {"width": 1440, "height": 900}}

LOOKS = [
    pytest.param(PHONE, "light", id="light-phone"),
    pytest.param(DESK, "dark", id="dark-desk"),
    pytest.param(PHONE, "dark", id="dark-phone", marks=pytest.mark.slow),
    pytest.param(DESK, "light", id="light-desk", marks=pytest.mark.slow),
]
"""Widths and colours. Places depend on the one and contrasts on the other: two show each once."""


@pytest.fixture
def views(api: Running, jobs: Jobs, concepts: Concepts, storage: Storage) -> dict[str, str]:
    """Every view there is, with something in it, and what is there once it is all shown."""
    client = api.client()
    learned = customize(client, name="a-name-without-any-place-to-break-it-" * 4, token="<plaid>")
    finish_concept(jobs, concepts, storage, learned["id"])
    edited = edit(client, target_prompt="words" * 60)
    finish_edit(jobs, storage, edited["id"], region=True, words=["a", "cup"])
    chosen = edit(client, change="auto", references=[upload(client, "green")])
    finish_edit(jobs, storage, chosen["id"], curve=CURVE)
    waiting = edit(client)
    lost = edit(client)
    wrong = JobError(type="out-of-memory", title="Too large", detail="word" * 60, field="image")
    jobs.fail(claimed(jobs, lost["id"]), wrong)
    stuck = edit(client)
    jobs.progress(claimed(jobs, stuck["id"]), JobProgress(phase="edit", step=3, steps=50))
    images = [upload(client, colour) for colour in ("red", "green", "blue")]
    words = {"source_prompt": "a cup", "target_prompt": "cups" * 60}
    batch = client.post("/v1/batches", json={"images": images, **words}).json()
    ended, failing, _ = (job["id"] for job in batch["jobs"])
    finish_edit(jobs, storage, ended)
    jobs.fail(claimed(jobs, failing), wrong)
    return {
        "teach": "form",
        f"edit?concept={learned['concept']}": ".choose.on",
        "concepts": ".concept",
        "pictures": ".tile",
        "pictures?of=results": ".tile",
        "account": ".columns",
        f"edit?job={edited['id']}&region=found": ".surface",
        "jobs": ".item:nth-child(9)",
        f"jobs/{learned['id']}": ".learned",
        f"jobs/{edited['id']}": ".versions",
        f"jobs/{waiting['id']}": "progress",
        f"jobs/{stuck['id']}": ".head .badge.stuck",
        f"jobs/{lost['id']}": ".problem",
        f"jobs/{chosen['id']}": ".curve",
        f"batches/{batch['id']}": ".tile + .tile + .tile",
        "none": ".empty",
    }


def violations(tab: Tab) -> list[str]:
    """What axe finds wrong with the page as it stands: all of its rules but experimental ones."""
    if not AXE.is_file():
        if os.environ.get("CI_BROWSER") == "required":
            pytest.fail("no axe: npm ci --prefix tests/page")
        return []
    tab.page.evaluate(AXE.read_text())
    found = tab.page.evaluate("async () => (await axe.run()).violations")
    return [f"{one['id']}: {node['html']}" for one in found for node in one["nodes"]]


@pytest.mark.parametrize(("screen", "scheme"), LOOKS)
def test_every_view_is_for_everyone(
    new_tab: Callable[..., Tab],
    api: Running,
    views: dict[str, str],
    screen: dict[str, Any],
    scheme: str,
) -> None:
    tab = new_tab(**screen, color_scheme=scheme, reduced_motion="reduce")
    tab.expect("404")  # no secret of webhooks was made
    tab.open()
    tab.page.get_by_label("API key").wait_for()
    assert tab.page.evaluate(FAULTS) == []
    assert violations(tab) == []
    tab.sign_in(api.key())
    for view, shown in views.items():
        tab.open(view)
        tab.page.locator(shown).first.wait_for()
        tab.page.evaluate("for (const d of document.querySelectorAll('details')) d.open = true")
        assert tab.page.evaluate(FAULTS) == [], view
        assert violations(tab) == [], view
    tab.open("concepts")
    tab.page.get_by_role("button", name="Import").click()
    form = tab.page.get_by_label("Import a concept")
    assert tab.page.evaluate(FAULTS) == []
    assert violations(tab) == []
    form.get_by_role("button", name="Import").click()  # with its errors shown
    form.get_by_text("Choose a file.").wait_for()
    assert tab.page.evaluate(FAULTS) == []
    assert violations(tab) == []
    tab.open("teach")
    tab.page.get_by_role("button", name="Teach this look").click()  # likewise
    assert tab.page.evaluate(FAULTS) == []
    assert violations(tab) == []
    tab.page.get_by_role("heading", name="Teach a look").click()
    tab.page.keyboard.press("?")
    tab.page.get_by_role("dialog").wait_for()
    assert violations(tab) == []


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
    page.get_by_role("heading", name="No looks yet").wait_for()
    page.reload()
    page.get_by_role("heading", name="No looks yet").wait_for()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    assert page.url.endswith("#/concepts")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.type") == "search"
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # after the search and the import: Teach a look
    page.get_by_role("heading", name="Teach a look").wait_for()
    assert page.evaluate("document.activeElement.tagName") == "H1"
    assert page.title() == "Teach a look · Custom-Edit"
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.type") == "file"
    ring = page.locator(".drop").evaluate("e => getComputedStyle(e).outlineStyle")
    assert ring == "solid"


def test_single_keys_lead_to_views_until_they_are_turned_off(tab: Tab) -> None:
    page = tab.page
    tab.open("jobs")
    page.get_by_role("heading", name="Jobs", exact=True).wait_for()
    page.keyboard.press("l")
    page.get_by_role("heading", name="Looks", exact=True).wait_for()
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.type") == "search"
    page.keyboard.press("t")  # typed, not a shortcut
    expect(page.get_by_label("Search")).to_have_value("t")
    page.get_by_role("heading", name="Looks", exact=True).click()
    page.keyboard.press("?")
    page.get_by_role("dialog").get_by_label("Single letters").uncheck()
    page.get_by_role("dialog").get_by_role("button", name="Close").click()
    page.keyboard.press("j")
    assert page.url.endswith("#/concepts")


def test_the_pictures_of_a_batch_have_names_before_they_come(tab: Tab, api: Running) -> None:
    client = api.client()
    images = [upload(client, colour) for colour in ("red", "green")]
    words = {"source_prompt": "a cup", "target_prompt": "a blue cup"}
    batch = client.post("/v1/batches", json={"images": images, **words}).json()
    held = Held(tab.page, "**/v1/images/*", most=2)
    tab.open(f"batches/{batch['id']}")
    held.wait()
    pictures = tab.page.get_by_role("list", name="Pictures of the batch")
    expect(pictures.get_by_role("link", name="See a blue cup")).to_have_count(2)
    assert tab.page.evaluate(FAULTS) == []
    for route in held.routes:
        route.continue_()
    expect(pictures.get_by_role("img")).to_have_count(2)
    expect(pictures.get_by_role("link", name="See a blue cup")).to_have_count(2)
