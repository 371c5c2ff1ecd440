"""The library: looks and pictures, searched, imported, chosen, deleted; the webhooks' secret."""

from __future__ import annotations

import base64
import threading
from pathlib import Path

from playwright.sync_api import Route, expect
from redis import Redis

from customedit.jobs.store import Jobs
from customedit.jobs.webhooks import Webhooks
from customedit.storage.store import Storage
from customedit.tenants.catalogue import Concepts

from ..api.conftest import Running, customize, edit, finish_concept, finish_edit, png, upload
from .tab import Tab, import_form

PASTE = """([kind, text]) => {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], "from-elsewhere.png", { type: "image/png" }));
  const event = kind === "paste"
    ? new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true })
    : new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true });
  document.body.dispatchEvent(event);
}"""


TEXT = """(text) => {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const untouched = (place, event) => place.dispatchEvent(event); // false: its default is prevented
  const data = (picture) => {
    const made = new DataTransfer();
    made.setData("text/plain", "a cup");
    if (picture) made.items.add(new File([bytes], "cells.png", { type: "image/png" }));
    return made;
  };
  const usual = { bubbles: true, cancelable: true };
  const paste = () => new ClipboardEvent("paste", { clipboardData: data(true), ...usual });
  const drag = (kind) => new DragEvent(kind, { dataTransfer: data(false), ...usual });
  const field = document.querySelector("textarea");
  return {
    "paste in a field": untouched(field, paste()),
    "paste beside fields": untouched(document.body, paste()),
    "dragover": untouched(field, drag("dragover")),
    "drop": untouched(field, drag("drop")),
    "drop on the pictures": untouched(document.querySelector(".pictures"), drag("drop")),
  };
}"""


def test_looks_are_searched(
    tab: Tab, api: Running, jobs: Jobs, concepts: Concepts, storage: Storage
) -> None:
    client = api.client()
    for number in range(26):
        customize(client, name=f"Look {number}", token=f"<look-{number}>")
    page = tab.page
    tab.open("concepts")
    cards = page.locator(".concept:visible")
    expect(cards).to_have_count(24)
    page.get_by_label("Search").fill("look-0")  # the oldest is fetched for the search
    expect(cards).to_have_count(1)
    expect(cards).to_contain_text("Look 0")
    page.get_by_label("Search").fill("nothing like it")
    page.get_by_role("heading", name="None like that").wait_for()


def test_a_concept_is_imported(tab: Tab, jobs: Jobs, tmp_path: Path) -> None:
    weights = tmp_path / "lora.safetensors"
    weights.write_bytes((2).to_bytes(8, "little") + b"{}" + bytes(1000))  # looks like weights
    page = tab.page
    tab.open("concepts")
    page.get_by_role("button", name="Import").click()
    form = page.get_by_label("Import a concept")
    form.get_by_role("button", name="Import").click()
    form.get_by_text("Choose a file.").wait_for()
    form.get_by_label("File of weights").set_input_files(weights)
    expect(form.get_by_text("Choose a file.")).to_be_hidden()
    form.get_by_label("Token").fill("<lora>")
    form.get_by_role("button", name="Import").click()
    page.locator(".saying").wait_for()
    (job,) = jobs.list("anna", kind="import").items
    assert job.request["token"] == "<lora>"


def test_an_import_whose_answer_is_lost_is_sent_again_under_its_key(
    tab: Tab, jobs: Jobs, tmp_path: Path
) -> None:
    tab.expect("ERR_")
    page, form = tab.page, import_form(tab, tmp_path)
    keys: list[str | None] = []

    def lose(route: Route) -> None:
        keys.append(route.request.headers.get("idempotency-key"))
        route.abort("connectionreset") if len(keys) <= 4 else route.fallback()

    page.route("**/v1/concepts/import", lose)
    form.get_by_role("button", name="Import").click()
    form.get_by_text("The service does not answer").wait_for()
    assert len(keys) == 3 and keys[0] and len(set(keys)) == 1
    form.get_by_role("button", name="Import").click()
    page.locator(".saying").wait_for()
    assert len(keys) == 5 and len(set(keys)) == 1
    assert len(jobs.list("anna", kind="import").items) == 1


def test_uploads_are_chosen_edited_together_and_deleted(tab: Tab, api: Running) -> None:
    client = api.client()
    colours = ("red", "green", "blue")
    images = [upload(client, colour) for colour in colours]
    page = tab.page
    tab.open("pictures")
    ticks = page.locator(".tile input[type=checkbox]")
    expect(ticks).to_have_count(3)
    ticks.nth(0).check()
    ticks.nth(1).check()
    page.get_by_role("link", name="Edit 2 together").click()
    expect(page.get_by_label("Several pictures")).to_be_checked()
    expect(page.locator(".thumbs li:visible")).to_have_count(2)
    tab.open("pictures")
    ticks.nth(2).check()
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(ticks).to_have_count(2)
    left = {image["id"] for image in client.get("/v1/images").json()["items"]}
    assert left == set(images[1:])  # the last one in the list was the oldest


def test_uploads_are_found_by_the_names_of_their_files(tab: Tab, api: Running) -> None:
    client = api.client()
    evil = "<img src=x onerror=alert(1)>.png"
    for name, colour in (("Blue cup.png", "blue"), ("table.png", "red"), (evil, "green")):
        client.post("/v1/images", files={"file": (name, png(colour), "image/png")})
    page = tab.page
    tab.open("pictures")
    tiles = page.locator(".tile:visible")
    expect(tiles).to_have_count(3)
    page.get_by_label("Search").fill("cup blue")
    expect(tiles).to_have_count(1)
    expect(tiles.locator(".name")).to_have_text("Blue cup.png")
    expect(tiles.locator(".hint")).to_contain_text("32 × 24 · 1 KiB")
    page.get_by_label("Search").fill("img src")
    expect(tiles.locator(".name")).to_have_text(evil)
    page.get_by_label("Search").fill("32")
    expect(tiles).to_have_count(3)
    tiles.filter(has_text="Blue cup.png").get_by_role("link").first.click()
    expect(page.locator(".thumbs .name").first).to_have_text("Blue cup.png")


def test_results_are_found_by_their_words_and_deleted(
    tab: Tab, api: Running, jobs: Jobs, storage: Storage
) -> None:
    client = api.client()
    for colour in ("blue", "green"):
        finish_edit(jobs, storage, edit(client, target_prompt=f"a {colour} cup")["id"])
    page = tab.page
    tab.open("pictures?of=results")
    tiles = page.locator(".tile:visible")
    expect(tiles).to_have_count(2)
    page.get_by_label("Search").fill("green")
    expect(tiles).to_have_count(1)
    page.get_by_label("Choose a green cup").check()
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    page.get_by_role("heading", name="None like that").wait_for()
    assert [job.request["target_prompt"] for job in jobs.list("anna").items] == ["a blue cup"]


def test_all_pictures_of_a_deleted_edit_leave_the_list(
    tab: Tab, api: Running, jobs: Jobs, storage: Storage
) -> None:
    client = api.client()
    for colour, outputs in (("blue", 1), ("green", 3)):
        job = edit(client, target_prompt=f"a {colour} cup", strengths=[0.3, 0.5, 0.6][:outputs])
        finish_edit(jobs, storage, job["id"], outputs=outputs)
    page = tab.page
    tab.open("pictures?of=results")
    tiles = page.locator(".tile")
    expect(tiles).to_have_count(4)
    ticks = page.get_by_label("Choose a green cup")
    ticks.nth(0).check()
    ticks.nth(2).check()
    page.get_by_role("button", name="Delete").click()
    asked = page.get_by_role("dialog")
    expect(asked).to_contain_text("All pictures of its edit go with it.")
    asked.get_by_role("button", name="Delete").click()
    expect(tiles).to_have_count(1)
    expect(tiles).to_contain_text("a blue cup")


def test_what_was_ticked_before_an_upload_is_ticked_no_more(
    tab: Tab, api: Running, tmp_path: Path
) -> None:
    tab.expect("503")
    client = api.client()
    images = {upload(client, colour) for colour in ("red", "green")}
    files = [tmp_path / name for name in ("1.png", "2.png")]
    for file, colour in zip(files, ("blue", "yellow"), strict=True):
        file.write_bytes(png(colour))
    page = tab.page
    tab.open("pictures")
    ticks = page.locator(".tile input[type=checkbox]")
    for number in range(2):
        ticks.nth(number).check()
    expect(page.get_by_text("2 chosen")).to_be_visible()
    sent: list[Route] = []

    def refuse_second(route: Route) -> None:
        sent.append(route)
        if len(sent) < 2:
            return route.fallback()
        return route.fulfill(status=503, json={"title": "The store does not answer"})

    page.route("**/v1/images", refuse_second)
    page.get_by_label("Pictures to upload").set_input_files(files)
    page.get_by_text("The store does not answer").wait_for()
    expect(page.get_by_text("1 of 2 pictures were sent.")).to_be_visible()
    expect(page.locator(".tile")).to_have_count(3)  # with the one that was sent
    expect(page.get_by_text("chosen")).to_have_count(0)
    expect(page.get_by_role("button", name="Delete")).to_have_count(0)
    assert images < {image["id"] for image in client.get("/v1/images").json()["items"]}


def test_text_is_pasted_and_dropped_as_text(tab: Tab) -> None:
    """Programs of tables lay a picture of the cells beside their text."""
    page = tab.page
    tab.open("edit")
    page.get_by_label("What it shows").wait_for()
    encoded = base64.b64encode(png("green")).decode()
    untouched = page.evaluate(TEXT, encoded)
    assert untouched == {
        "paste in a field": True,
        "paste beside fields": False,
        "dragover": True,
        "drop": True,
        "drop on the pictures": True,
    }
    expect(page.get_by_alt_text("The picture to edit")).to_have_count(1)  # of the paste beside


def test_pictures_are_pasted_and_dropped_anywhere(tab: Tab, api: Running) -> None:
    page = tab.page
    encoded = base64.b64encode(png("green")).decode()
    tab.open("jobs")
    page.get_by_role("heading", name="No jobs yet").wait_for()
    page.evaluate(PASTE, ["paste", encoded])
    page.get_by_role("heading", name="Edit a picture").wait_for()
    expect(page.get_by_alt_text("The picture to edit")).to_have_js_property("naturalWidth", 32)
    tab.open("teach")
    page.get_by_role("heading", name="Teach a look").wait_for()
    page.evaluate(PASTE, ["drop", encoded])
    expect(page.get_by_alt_text("Reference 1")).to_have_js_property("naturalWidth", 32)


def test_the_secret_of_webhooks_is_made_and_deliveries_are_told(
    tab: Tab, api: Running, redis_client: Redis
) -> None:
    tab.expect("404")  # there is none yet
    page = tab.page
    tab.open("account")
    page.get_by_role("button", name="Make a secret").click()
    page.get_by_text("shown this once").wait_for()
    assert api.client().get("/v1/webhooks/secret").status_code == 200
    page.reload()
    page.get_by_role("button", name="Make a new secret").wait_for()
    page.get_by_text("None of your last jobs names a webhook.").wait_for()
    address = "https://hooks.example.com/anna"
    jobs = [
        edit(api.client(), webhook=address, target_prompt=f"a {c} cup") for c in ("red", "blue")
    ]
    page.reload()
    named = page.get_by_role("listitem").filter(has_text=address)
    expect(named).to_contain_text("by 2 jobs, last a blue cup")
    expect(named.get_by_role("link")).to_have_attribute("href", f"#/jobs/{jobs[1]['id']}")
    told = page.get_by_role("list", name=f"Deliveries to {address}").get_by_role("listitem")
    expect(told).to_have_text(["a blue cup: not sent yet", "a red cup: not sent yet"])
    for job in jobs:
        api.container.jobs.cancel("anna", job["id"])
    hooks = Webhooks(redis_client, api.settings, api.container.jobs)
    sending = threading.Thread(target=hooks.deliver_due, args=[1])  # the browser's loop is here
    sending.start()
    sending.join(60)
    page.reload()
    expect(told.filter(has_text="about to be sent")).to_have_count(1)
    tried = told.filter(has_text="not delivered after 1 attempt: ")
    expect(tried).to_contain_text("; tried again ")  # in some seconds, or now


def test_references_of_a_look_are_shown(
    tab: Tab, api: Running, jobs: Jobs, concepts: Concepts, storage: Storage
) -> None:
    job = customize(api.client(), name="Plaid")
    finish_concept(jobs, concepts, storage, job["id"])
    page = tab.page
    tab.open(f"edit?concept={job['concept']}")
    expect(page.get_by_alt_text("Reference 1 of Plaid")).to_have_js_property("naturalWidth", 32)
