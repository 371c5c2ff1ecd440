"""Watching, cancelling and deleting jobs; results, deep links and addresses that run out."""

from __future__ import annotations

from playwright.sync_api import APIResponse, Route, expect

from customedit.jobs.records import JobError, JobProgress
from customedit.jobs.store import Jobs
from customedit.storage.store import Storage

from ..api.conftest import Running, claimed, customize, edit, finish_edit, png
from .conftest import Tab


def progress(step: int) -> JobProgress:
    return JobProgress(phase="train", step=step, steps=20, eta_s=30)


def test_a_training_is_seen_to_its_end(
    tab: Tab, api: Running, jobs: Jobs, storage: Storage
) -> None:
    job = customize(api.client())
    tab.open(f"jobs/{job['id']}")
    page = tab.page
    page.locator(".saying").wait_for()
    claim = claimed(jobs, job["id"])
    page.locator(".saying").get_by_text("At work.").wait_for()
    jobs.progress(claim, progress(5))
    page.locator("main").get_by_text("Learning 5 of 20, 30 s left").wait_for()
    bar = page.get_by_label("Progress").locator("progress")
    assert bar.evaluate("bar => bar.value") == 0.38  # 20 of 100 before the training, 72 for it
    assert page.title().startswith("38 % ")
    expect(page.locator(".head .badge")).to_have_text("◐ running 38 %")
    key = claim.key("preview.png")
    storage.put(key, png("green"), "image/png")
    jobs.progress(claim, JobProgress(phase="train", preview_key=key))  # as workers send them
    shown = page.get_by_alt_text("Preview after 5 steps")
    expect(shown).to_have_js_property("complete", True)
    assert shown.evaluate("image => image.naturalWidth") == 32
    assert bar.evaluate("bar => bar.value") == 0.38
    jobs.progress(claim, JobProgress(phase="edit", step=1, steps=20))  # draws its portrait
    page.locator("main").get_by_text("Drawing pictures 1 of 20").wait_for()
    assert bar.evaluate("bar => bar.value") == 0.38  # one bar, which never goes back
    assert page.title().startswith("38 % ")
    jobs.fail(
        claim, JobError(type="out-of-memory", title="Too large", detail="<b>ask for less</b>")
    )
    page.get_by_text("<b>ask for less</b>").wait_for()
    assert page.locator(".badge").inner_text() == "✕ failed"
    assert page.title().startswith("✕ ")


def test_a_broken_stream_goes_on_after_what_was_seen(tab: Tab, api: Running, jobs: Jobs) -> None:
    job = edit(api.client())
    claim = claimed(jobs, job["id"])
    told = api.container.jobs.events("anna", job["id"])
    broken = f'retry: 10\nid: {told[0].id}\nevent: state\ndata: {{"state": "queued"}}\n\nid: 9'
    asked: list[str | None] = []

    def once(route: Route) -> None:
        asked.append(route.request.headers.get("last-event-id"))
        if len(asked) == 1:
            route.fulfill(body=broken, content_type="text/event-stream")
        else:
            route.continue_()

    tab.page.route("**/events", once)
    with tab.page.expect_request(lambda request: "last-event-id" in request.headers):
        tab.open(f"jobs/{job['id']}")
    jobs.progress(claim, progress(7))
    tab.page.locator("main").get_by_text("Learning 7 of 20").wait_for()
    assert asked == [None, told[0].id]


def test_a_result_is_compared_and_survives_a_reload(
    tab: Tab, api: Running, jobs: Jobs, storage: Storage
) -> None:
    job = edit(api.client())
    finish_edit(jobs, storage, job["id"])
    tab.open(f"jobs/{job['id']}")
    tab.page.reload()
    slider = tab.page.get_by_label("How much of the picture before is shown")
    slider.focus()
    for _ in range(10):
        slider.press("ArrowRight")
    assert slider.get_attribute("aria-valuetext") == "60 percent before"
    frame = tab.page.locator(".frame")
    assert frame.evaluate("e => e.style.getPropertyValue('--at')") == "60%"
    assert tab.page.get_by_text("0.30").first.is_visible()
    for alt in ("Before: a cup", "After: a blue cup, strength 0.5"):
        loaded = tab.page.get_by_alt_text(alt, exact=True)
        expect(loaded).to_have_js_property("naturalWidth", 32)
    tab.page.get_by_text("Show recipe").click()
    assert '"steps": 50' in tab.page.get_by_label("Recipe as JSON").inner_text()
    tab.page.get_by_role("button", name="Copy").click()
    tab.page.get_by_role("button", name="Copied").wait_for()


def test_an_address_that_ran_out_is_asked_for_again(
    tab: Tab, api: Running, jobs: Jobs, storage: Storage
) -> None:
    job = edit(api.client())
    finish_edit(jobs, storage, job["id"])
    tab.expect("403")
    refused: list[str] = []

    def first(route: Route) -> None:
        if route.request.url not in refused and "/jobs/" in route.request.url and not refused:
            refused.append(route.request.url)
            route.fulfill(status=403)
        else:
            route.continue_()

    tab.page.route(f"{api.settings.s3_endpoint}/**", first)
    tab.open(f"jobs/{job['id']}")
    after = tab.page.get_by_alt_text("After: a blue cup, strength 0.5", exact=True)
    expect(after).to_have_js_property("naturalWidth", 32)
    assert len(refused) == 1


def test_the_list_is_filtered_and_turned_over(tab: Tab, api: Running, jobs: Jobs) -> None:
    client = api.client()
    made = [edit(client, target_prompt=f"a blue{number} cup")["id"] for number in range(22)]
    customize(client, name="a training")
    page = tab.page
    tab.open("jobs")
    page.get_by_text("a training").wait_for()
    rows = page.locator(".item")
    expect(rows).to_have_count(20)
    page.get_by_role("button", name="More").click()
    expect(rows).to_have_count(23)
    page.get_by_label("Kind").select_option("customize")
    expect(rows).to_have_count(1)
    page.get_by_label("State").select_option("failed")
    page.get_by_role("heading", name="None like that").wait_for()
    page.get_by_label("Kind").select_option("")
    page.get_by_label("State").select_option("")
    expect(rows).to_have_count(20)
    jobs.progress(claimed(jobs, made[-1]), progress(3))  # one that the list shows
    page.locator("main").get_by_text("Learning 3 of 20").wait_for()
    page.get_by_role("button", name="Cancel a blue20 cup").click()
    rows.nth(2).get_by_text("cancelled").wait_for()


def test_a_deleted_job_does_not_come_back_with_an_answer_that_was_under_way(
    tab: Tab, api: Running
) -> None:
    client = api.client()
    ended = edit(client, target_prompt="a red cup")["id"]
    api.container.jobs.cancel("anna", ended)
    edit(client)  # is open, so that the list is asked for again
    page = tab.page
    tab.open("jobs")
    rows = page.locator(".item")
    expect(rows).to_have_count(2)
    held: list[tuple[Route, APIResponse]] = []

    def hold(route: Route) -> None:
        if held:
            return route.fallback()
        return held.append((route, route.fetch()))

    page.route("**/v1/jobs?*", hold)
    with page.expect_request("**/v1/jobs?*"):
        pass
    page.get_by_role("button", name="Delete a red cup").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(rows).to_have_count(1)
    ((route, answer),) = held
    with page.expect_response("**/v1/jobs?*"):
        route.fulfill(response=answer)
    with page.expect_response("**/v1/jobs?*"):  # the next round
        pass
    expect(rows).to_have_count(1)


def test_an_address_that_names_nothing_says_so(tab: Tab) -> None:
    tab.expect("404")
    tab.open("jobs/job_00000000000000000000000000")
    tab.page.get_by_text("Not found").wait_for()
    assert tab.page.locator(".problem").get_by_text("Request ").is_visible()
    tab.open("nowhere")
    tab.page.get_by_role("heading", name="No such page").wait_for()


def test_a_job_is_cancelled(tab: Tab, api: Running, jobs: Jobs) -> None:
    job = edit(api.client())
    tab.open(f"jobs/{job['id']}")
    tab.page.get_by_role("button", name="Cancel").click()
    tab.page.get_by_text("It was cancelled").wait_for()
    tab.page.get_by_role("button", name="Delete").click()
    tab.page.get_by_role("dialog").get_by_role("button", name="Keep it").click()
    tab.page.get_by_role("button", name="Delete").click()
    tab.page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    tab.page.get_by_role("heading", name="No jobs yet").wait_for()
    assert api.container.jobs.get("anna", job["id"]) is None
