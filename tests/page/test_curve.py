"""What "Try several and keep the best" tried: its curve, and the way back to the form."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page, expect

from customedit.jobs.store import Jobs
from customedit.schemas.change import ChangeCurve
from customedit.storage.store import Storage

from ..api.conftest import Running, edit, finish_edit, upload
from .tab import Tab
from .test_iterating import newest

CURVE = ChangeCurve(
    values=(0.2, 0.35, 0.5, 1.0),
    source=(0.95, 0.9, 0.8, 0.5),
    reference=(0.5, 0.68, 0.7, 0.71),
    score=(0.1, 0.88, 0.71, 0.0),
    source_reference=0.48,
    chosen=0.35,
)


@pytest.fixture
def job(api: Running, jobs: Jobs, storage: Storage) -> dict[str, Any]:
    """An edit that was let choose, and is done."""
    client = api.client()
    made = edit(client, change="auto", references=[upload(client, "green")], guidance=3)
    finish_edit(jobs, storage, made["id"], curve=CURVE)
    return made


def shown(tab: Tab, job: dict[str, Any]) -> Page:
    tab.open(f"jobs/{job['id']}")
    tab.page.get_by_label("How much was tried").wait_for()
    return tab.page


def test_what_was_tried_is_shown_and_what_was_kept_is_called_by_it(
    tab: Tab, job: dict[str, Any]
) -> None:
    page = shown(tab, job)
    expect(page.get_by_role("heading", name="change 0.35")).to_be_visible()
    curve = page.get_by_label("How much was tried")
    expect(curve).to_contain_text("4 values were drawn. 35 % has the greatest score")
    rows = curve.get_by_role("row")
    expect(rows).to_have_count(5)
    expect(rows.nth(1)).to_have_text("20 %0.100.950.50")
    expect(rows.nth(2)).to_have_text("35 %kept0.880.900.68")
    points = curve.locator("svg .point")
    expect(points).to_have_count(4)
    heights = [float(points.nth(k).locator("circle").last.get_attribute("cy") or 0) for k in (0, 1)]
    assert heights[1] < heights[0]  # the greater score is higher up
    page.get_by_role("link", name="Edit again from here").click()
    expect(page.get_by_label("Try several and keep the best")).to_be_checked()


@pytest.mark.parametrize("by", ["table", "drawing"])
def test_a_value_leads_to_the_form_with_the_slider_on_it(
    tab: Tab, job: dict[str, Any], jobs: Jobs, by: str
) -> None:
    page = shown(tab, job)
    if by == "table":
        page.get_by_role("link", name="Edit again with 50 %").click()
    else:
        page.locator("svg .point").nth(2).click()
    expect(page.get_by_label("How much changes")).to_have_value("0.5")
    expect(page.get_by_label("Try several and keep the best")).not_to_be_checked()
    expect(page.get_by_alt_text("The picture to edit")).to_have_js_property("naturalWidth", 32)
    page.get_by_role("button", name="Edit", exact=True).click()
    page.locator(".saying").wait_for()
    made = newest(jobs)
    assert made["job"] != job["id"] and made["change"] == 0.5
    assert {**made, "job": None, "change": "auto"} == {**job["request"], "job": None}


def test_an_edit_of_one_value_has_no_curve(
    tab: Tab, api: Running, jobs: Jobs, storage: Storage
) -> None:
    made = edit(api.client(), change=0.4)
    finish_edit(jobs, storage, made["id"])
    tab.open(f"jobs/{made['id']}")
    tab.page.get_by_role("heading", name="change 0.4").wait_for()
    expect(tab.page.get_by_label("How much was tried")).to_have_count(0)
