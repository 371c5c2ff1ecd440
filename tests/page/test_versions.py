"""Versions of a picture: which can be compared, and those of older edits."""

from __future__ import annotations

from playwright.sync_api import Route, expect

from customedit.jobs.store import Jobs
from customedit.storage.store import Storage

from ..api.conftest import Running, edit, finish_edit, upload
from .tab import Tab


def test_any_two_pictures_of_a_run_are_compared(
    tab: Tab, api: Running, jobs: Jobs, storage: Storage
) -> None:
    page = tab.page
    job = edit(api.client(), method="sdedit", seeds=[0, 1])
    finish_edit(jobs, storage, job["id"], outputs=2)
    zero, one = "a blue cup, strength 0.5", "a blue cup, strength 0.5, seed 1"
    usual = ["the picture before it", "The upload"]
    tab.open(f"jobs/{job['id']}")
    choice = page.get_by_label("Compare with")
    options = choice.locator("option")
    expect(options).to_have_text([*usual, one])
    choice.select_option(label=one)
    before = page.locator(".layer.before img")
    expect(before).to_have_attribute("alt", f"Before: {one}")
    page.get_by_role("radio").nth(1).check(force=True)  # the one that it is compared with
    expect(options).to_have_text([*usual, zero])
    expect(before).to_have_attribute("alt", "Before: a cup")
    choice.select_option(label=zero)
    expect(before).to_have_attribute("alt", f"Before: {zero}")
    page.get_by_role("radio").nth(1).focus()  # the list stays as it is while this is shown
    expect(choice).to_have_value(f"{job['id']}.0")


def test_versions_of_older_edits_are_looked_for_when_asked(
    tab: Tab, api: Running, jobs: Jobs, storage: Storage
) -> None:
    client = api.client()
    first = edit(client, target_prompt="an old cup")
    finish_edit(jobs, storage, first["id"])
    other = upload(client, "green")
    for _ in range(3):
        edit(client, image=other)
    last = edit(client, target_prompt="a new cup")
    finish_edit(jobs, storage, last["id"])
    page = tab.page

    def small_pages(route: Route) -> None:
        route.continue_(url=route.request.url.replace("limit=100", "limit=1"))

    page.route("**/v1/jobs?kind=edit&limit=100*", small_pages)
    tab.open(f"jobs/{last['id']}")
    versions = page.get_by_label("Versions of the picture")
    expect(versions.get_by_text("among your newest 3 edits: older ones may be")).to_be_visible()
    expect(versions).to_contain_text("a new cup")
    expect(versions).not_to_contain_text("an old cup")
    versions.get_by_role("button", name="Look through older edits").click()
    expect(versions).to_contain_text("an old cup")
    expect(versions.get_by_text("older ones may be")).to_have_count(0)
    expect(page.get_by_label("Compare with")).to_contain_text("an old cup")
