"""Watching, cancelling and deleting jobs; results, deep links and addresses that run out."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import APIResponse, Page, Route, expect

from customedit.estimates.speed import Line, call
from customedit.estimates.workers import Workers
from customedit.jobs.records import JobError, JobProgress
from customedit.jobs.store import Jobs
from customedit.storage.store import Storage

from ..api.conftest import Running, claimed, customize, edit, finish_edit, png, upload
from .conftest import WORKER
from .tab import Tab


def progress(step: int) -> JobProgress:
    return JobProgress(phase="train", step=step, steps=20, eta_s=3000)


@pytest.mark.usefixtures("worker")
def test_a_training_is_seen_to_its_end(
    tab: Tab, api: Running, jobs: Jobs, storage: Storage
) -> None:
    job = customize(api.client())
    tab.open(f"jobs/{job['id']}")
    page = tab.page
    page.locator(".saying").wait_for()
    claim = claimed(jobs, job["id"])
    page.locator(".saying").get_by_text("At work.").wait_for()
    bar = page.get_by_label("Progress").locator("progress")
    jobs.progress(claim, JobProgress(phase="train"))  # it begins: the references come first
    page.locator("main").get_by_text("Encoding pictures").wait_for()
    assert bar.evaluate("bar => bar.value") == 0.02
    jobs.progress(claim, JobProgress(phase="class images", step=2, steps=8))
    page.locator("main").get_by_text("Drawing class pictures 2 of 8").wait_for()
    assert bar.evaluate("bar => bar.value") == 0.1025
    jobs.progress(claim, progress(5))
    page.locator("main").get_by_text("Learning 5 of 20, 50 min left").wait_for()
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
    page.reload()  # what is stored tells no step: the phase is known
    expect(page.locator(".head .badge")).to_have_text("◐ running 20 %")
    for step, phase in enumerate(("preview", "edit"), 1):  # what workers call it
        jobs.progress(claim, JobProgress(phase=phase, step=step, steps=20))
        page.locator("main").get_by_text(f"Drawing a preview {step} of 20").wait_for()
        assert page.title().startswith("9")  # 92 of 100 before it
    jobs.fail(
        claim, JobError(type="out-of-memory", title="Too large", detail="<b>ask for less</b>")
    )
    page.get_by_text("<b>ask for less</b>").wait_for()
    assert page.locator(".badge").inner_text() == "✕ failed"
    assert page.title().startswith("✕ ")


def a_second_a_row() -> Line:
    line = Line()
    line.add(1, 1.0, 1.0)
    line.add(3, 3.0, 1.0)
    return line


def test_the_time_that_is_left_comes_down_while_the_job_runs(
    tab: Tab, api: Running, jobs: Jobs, beat: Callable[..., Workers]
) -> None:
    """It is the service's for all phases, read again: not the one of the beginning."""
    beat({call(4): a_second_a_row(), "edit": Line(n=1, x=1, y=0.1, xx=1, xy=0.1)})
    job = edit(api.client())
    page = tab.page
    tab.open(f"jobs/{job['id']}")
    said = page.locator(".saying")
    expect(said).to_contain_text("It will be done in about 3 min")
    claim = claimed(jobs, job["id"])
    jobs.progress(claim, JobProgress(phase="edit", step=5, steps=50, eta_s=1))
    expect(said).to_have_text(re.compile(r"^Painting 5 of 50, 2 min left$"))
    jobs.progress(claim, JobProgress(phase="edit", step=45, steps=50, eta_s=1))
    expect(said).to_have_text(re.compile(r"^Painting 45 of 50, 1?\d s left$"))
    tab.open("jobs")
    listed = page.locator(".item .hint")
    expect(listed).to_have_text(re.compile(r"^Painting 45 of 50, 1?\d s left$"))
    jobs.progress(claim, JobProgress(phase="edit", step=49, steps=50, eta_s=1))
    expect(listed).to_have_text(re.compile(r"^Painting 49 of 50, \d s left$"))


@pytest.mark.usefixtures("worker")
def test_a_time_that_only_the_worker_knows_is_not_said_for_longer_than_it_lasts(
    tab: Tab, api: Running, jobs: Jobs
) -> None:
    job = edit(api.client())
    claim = claimed(jobs, job["id"])
    jobs.progress(claim, JobProgress(phase="edit", step=5, steps=50, eta_s=3))
    tab.open(f"jobs/{job['id']}")
    said = tab.page.locator(".saying")
    expect(said).to_contain_text("Painting 5 of 50")
    expect(said).to_have_text("Painting 5 of 50")


def test_that_the_worker_of_a_running_job_is_gone_is_said_everywhere(
    tab: Tab,
    api: Running,
    jobs: Jobs,
    beat: Callable[..., Workers],
    lapse: Callable[[str], None],
) -> None:
    alive = beat()
    client = api.client()
    images = [upload(client, colour) for colour in ("red", "green")]
    words = {"source_prompt": "a cup", "target_prompt": "a blue cup"}
    batch = client.post("/v1/batches", json={"images": images, **words}).json()
    job = batch["jobs"][0]["id"]
    jobs.progress(claimed(jobs, job), JobProgress(phase="edit", step=3, steps=50))
    page = tab.page
    told = "Painting 3 of 50. No worker is running. The job is kept and is taken up again"
    tab.open(f"jobs/{job}")
    said, badge = page.locator(".saying"), page.locator(".head .badge")
    expect(said).to_have_text("Painting 3 of 50")
    expect(badge).not_to_contain_text("no worker")
    alive.leave(WORKER)  # as one does that ends what it has begun
    expect(said).to_have_text("Painting 3 of 50")
    lapse(job)
    expect(said).to_contain_text(told)
    expect(badge).to_have_text(re.compile(r"^◐ running \d+ %, no worker$"))
    tab.open("jobs")
    rows = page.locator(".item")
    expect(rows.filter(has_text="◐ running").locator(".hint")).to_contain_text(told)
    expect(rows.locator(".badge").filter(has_text="no worker")).to_have_count(2)
    beat()
    expect(rows.locator(".badge").filter(has_text="no worker")).to_have_count(0)
    tab.open(f"batches/{batch['id']}")
    expect(page.locator(".head .badge")).to_have_text("◐ running")
    alive.leave(WORKER)
    expect(page.locator(".head .badge")).to_have_text("◐ running, no worker")
    expect(page.get_by_role("status").filter(has_text="1 running")).to_contain_text(
        "No worker is running."
    )
    expect(page.locator(".tile .badge").filter(has_text="no worker")).to_have_count(2)


def test_a_worker_that_does_not_report_is_told(
    tab: Tab, api: Running, jobs: Jobs, beat: Callable[..., Workers]
) -> None:
    """It is there, and says nothing of its job: frozen, or cut off."""
    beat()
    job = edit(api.client())
    claim = claimed(jobs, job["id"])
    jobs.progress(claim, JobProgress(phase="edit", step=3, steps=50, eta_s=3000))
    page = tab.page
    page.clock.install()
    tab.open(f"jobs/{job['id']}")
    silent = page.get_by_text("The worker has not reported for")
    expect(page.locator(".saying")).to_have_text("Painting 3 of 50, 50 min left")
    expect(silent).to_have_count(0)
    page.clock.fast_forward(60_000)
    expect(page.locator(".saying")).to_have_text("Painting 3 of 50")  # nobody knows how long
    expect(silent).to_contain_text("If it is lost, another one takes the job over.")
    jobs.progress(claim, JobProgress(phase="edit", step=4, steps=50))
    expect(page.locator(".saying")).to_have_text("Painting 4 of 50")
    expect(silent).to_have_count(0)


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


def test_a_preview_alone_leaves_how_far_a_listed_job_is(
    tab: Tab, api: Running, jobs: Jobs, storage: Storage
) -> None:
    claim = claimed(jobs, customize(api.client())["id"])
    jobs.progress(claim, progress(5))
    page = tab.page
    tab.open("jobs")
    badge = page.locator(".item .badge")
    expect(badge).to_contain_text("running 38 %")
    key = claim.key("preview.png")
    storage.put(key, png("green"), "image/png")
    jobs.progress(claim, JobProgress(phase="train", preview_key=key))
    expect(page.locator(".item img.thumb")).to_have_count(1)
    expect(badge).to_contain_text("running 38 %")


def two_rounds(page: Page) -> None:
    """Until a list was asked for and answered after this call."""
    for _ in range(2):
        with page.expect_response("**/v1/jobs?*"):
            pass


def test_older_jobs_come_with_more_and_not_first(tab: Tab, api: Running) -> None:
    client = api.client()
    made = [edit(client, target_prompt=f"a blue{number} cup")["id"] for number in range(22)]
    api.container.jobs.cancel("anna", made[10])
    page = tab.page
    tab.open("jobs")
    rows = page.locator(".item")
    expect(rows).to_have_count(20)
    page.get_by_role("button", name="Delete a blue10 cup").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(rows).to_have_count(19)
    two_rounds(page)  # each asks for 20 jobs, one of which is older than those that are shown
    newest = edit(client, target_prompt="a new cup")["id"]
    expect(rows).to_have_count(20)
    page.get_by_role("button", name="More").click()
    expect(rows).to_have_count(22)
    links = rows.locator("a.title").evaluate_all("links => links.map((a) => a.hash)")
    left = [newest, *(name for name in reversed(made) if name != made[10])]
    assert links == [f"#/jobs/{name}" for name in left]


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


def test_that_a_running_job_is_being_cancelled_stays_said(
    tab: Tab, api: Running, jobs: Jobs
) -> None:
    job = edit(api.client())
    claim = claimed(jobs, job["id"])
    page = tab.page
    tab.open(f"jobs/{job['id']}")
    cancel, said = page.get_by_role("button", name="Cancel"), page.get_by_text("Cancelling…")
    cancel.wait_for()
    api.container.jobs.cancel("anna", job["id"])  # in another tab
    expect(said).to_be_visible()
    jobs.progress(claim, JobProgress(phase="edit", step=1, steps=50, warnings=["The mask is odd"]))
    page.get_by_text("The mask is odd").wait_for()  # for which the head is drawn again
    expect(said).to_be_visible()
    expect(cancel).to_have_count(0)


def test_a_picture_of_a_batch_keeps_focus_and_picture_while_it_is_drawn(
    tab: Tab, api: Running, jobs: Jobs
) -> None:
    client = api.client()
    images = [upload(client, colour) for colour in ("red", "green")]
    words = {"source_prompt": "a cup", "target_prompt": "a blue cup"}
    batch = client.post("/v1/batches", json={"images": images, **words}).json()
    claim = claimed(jobs, batch["jobs"][0]["id"])
    page = tab.page
    tab.open(f"batches/{batch['id']}")
    link = page.get_by_role("link", name="See a blue cup").first
    shown = link.locator("img")
    expect(shown).to_have_js_property("naturalWidth", 32)
    shown.evaluate("image => { image.marked = true; }")
    link.focus()
    for step in (1, 2):
        jobs.progress(claim, JobProgress(phase="edit", step=step, steps=50))
        page.get_by_text(f"Painting {step} of 50").wait_for()
    expect(link).to_be_focused()
    assert shown.evaluate("image => image.marked")
    assert len([r for r in tab.asked if re.search(r"/v1/images/\w+$", r.url)]) == 2
    page.get_by_role("button", name="Cancel").click()
    page.get_by_text("Cancelling…").wait_for()  # one of them is at work
    expect(page.get_by_role("button", name="Cancel")).to_have_count(0)


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
