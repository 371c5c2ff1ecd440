"""What is filled in from elsewhere: an earlier run, a preset, a draft. All of it, and no more."""

from __future__ import annotations

import io
from typing import Any

import httpx
import pytest
from PIL import Image
from playwright.sync_api import Page, Route, expect

from customedit.jobs.store import Jobs
from customedit.storage.store import Storage
from customedit.tenants.catalogue import Concepts

from ..api.conftest import Running, customize, edit, finish_concept, upload
from .tab import Tab
from .test_iterating import newest, send, sent_mask

HOOK = "https://hooks.example.com/anna"
WORDS = {"source_prompt": "a cup on a table", "target_prompt": "a blue cup on a table"}


def upload_clear(client: httpx.Client) -> str:
    """A mask that is transparent in its left half; gives its id."""
    mask, stream = Image.new("RGBA", (32, 24), "white"), io.BytesIO()
    mask.paste((0, 0, 0, 0), (0, 0, 16, 24))
    mask.save(stream, "PNG")
    answer = client.post("/v1/images", files={"file": ("m.png", stream.getvalue(), "image/png")})
    return str(answer.json()["id"])


@pytest.fixture
def look(api: Running, jobs: Jobs, concepts: Concepts, storage: Storage) -> str:
    """One that can be used: <x>."""
    return finish_concept(jobs, concepts, storage, customize(api.client(), token="<x>")["id"]).id


@pytest.fixture
def client(api: Running) -> httpx.Client:
    """One that may name webhooks."""
    made = api.client()
    assert made.post("/v1/webhooks/secret").status_code in (200, 201)
    return made


def opened(tab: Tab, view: str) -> Page:
    tab.open(view)
    expect(tab.page.get_by_alt_text("The picture to edit")).to_have_js_property("naturalWidth", 32)
    return tab.page


def sent_again(page: Page) -> None:
    page.get_by_role("button", name="Edit", exact=True).click()
    page.locator(".saying").wait_for()


def test_a_run_with_a_transparent_mask_is_sent_again_as_it_was(
    tab: Tab, client: httpx.Client, jobs: Jobs
) -> None:
    job = edit(
        client,
        **WORDS,
        mask=upload_clear(client),
        mask_marks="transparent",
        p2p={"reweight": {"blue": 2}},
        change=0.42,
        references=[upload(client, "green")],
        webhook=HOOK,
    )
    page = opened(tab, f"edit?job={job['id']}")
    told = page.get_by_text("Also kept from that run")
    expect(told).to_have_text(
        "Also kept from that run: 1 picture to compare with; reweight: blue 2."
    )
    page.reload()  # a draft keeps it as well
    expect(told).to_be_visible()
    sent_again(page)
    assert newest(jobs) == {"job": newest(jobs)["job"], **job["request"]}


def test_a_run_with_its_regions_is_sent_again_as_it_was(
    tab: Tab, api: Running, jobs: Jobs, look: str
) -> None:
    job = edit(
        api.client(),
        source_prompt="a cup on a table",
        target_prompt="a blue <x> cup on a table",
        concepts=[{"id": look, "weight": 0.93, "box": [0.123456, 0.2, 0.6, 0.9]}],
        p2p={
            "blend_over": "union",
            "blend_words": ["cup"],
            "blend_target_words": ["blue", "cup"],
            "subtract": ["table"],
            "threshold": 0.25,
            "words": {"blue": [0, 0.5]},
        },
        change=0.425,
        guidance=3.5,
        maps=True,
    )
    page = opened(tab, f"edit?job={job['id']}")
    told = page.get_by_text("Also kept from that run")
    expect(told).to_contain_text("blend target words: blue, cup; subtract: table; words: blue 0 to")
    expect(page.get_by_text("42.5 %")).to_be_visible()
    page.get_by_text("Everywhere", exact=True).click()  # where nothing is blended or left out
    expect(told).to_have_text("Also kept from that run: words: blue 0 to 0.5.")
    page.get_by_text("From the words", exact=True).click()
    page.wait_for_timeout(300)  # until the draft is kept
    page.reload()
    expect(told).to_contain_text("subtract: table")
    sent_again(page)
    assert newest(jobs) == {"job": newest(jobs)["job"], **job["request"]}


def test_what_is_kept_can_be_left_out(tab: Tab, api: Running, jobs: Jobs) -> None:
    job = edit(api.client(), **WORDS, p2p={"reweight": {"blue": 2}})
    page = opened(tab, f"edit?job={job['id']}")
    page.get_by_role("button", name="Leave it out").click()
    expect(page.get_by_text("Also kept")).to_have_count(0)
    sent_again(page)
    assert "p2p" not in newest(jobs)


def test_a_transparent_mask_is_painted_on_as_the_service_reads_it(
    tab: Tab, api: Running, client: httpx.Client, jobs: Jobs
) -> None:
    job = edit(client, **WORDS, mask=upload_clear(client), mask_marks="transparent")
    page = opened(tab, f"edit?job={job['id']}")
    surface = page.locator(".surface")
    surface.focus()
    for key in ("x", "ArrowRight", " "):  # erases right of the middle
        page.keyboard.press(key)
    send(page, "a green cup")
    mask = sent_mask(api, jobs)
    assert mask[12, 3] > 200 and mask[3, 29] == 0
    assert newest(jobs)["mask_marks"] == "white"


def used(page: Page, name: str) -> None:
    """Uses a preset."""
    page.get_by_label("Preset", exact=True).select_option(name)
    page.get_by_role("button", name="Use", exact=True).click()
    expect(page.locator("#live")).to_have_text(f"The settings of {name} are in the form")


def test_a_preset_leaves_what_it_cannot_hold(tab: Tab, client: httpx.Client, jobs: Jobs) -> None:
    presets: dict[str, dict[str, Any]] = {
        "gentle": {"change": 0.3, "steps": 20, "p2p": {"reweight": {"blue": 3}}},
        "all": {"p2p": {"blend_over": "none"}},
        "cup": {"p2p": {"blend_words": ["cup"]}},
    }
    for name, settings in presets.items():
        assert client.put(f"/v1/presets/{name}", json=settings).status_code == 201
    reference = upload(client, "green")
    job = edit(client, **WORDS, webhook=HOOK, references=[reference], maps=True)
    page = opened(tab, f"edit?job={job['id']}")
    page.get_by_text("Presets", exact=True).click()
    page.get_by_text("Expert settings").click()
    everywhere, painted, words = (
        page.get_by_role("radio", name=name) for name in ("Everywhere", "Painted", "From the words")
    )
    page.get_by_text("Painted", exact=True).click()
    used(page, "gentle")
    expect(painted).to_be_checked()
    page.get_by_text("Everywhere", exact=True).click()
    used(page, "gentle")
    expect(everywhere).to_be_checked()
    expect(page.get_by_label("Webhook")).to_have_value(HOOK)
    told = page.get_by_text("Also kept from the preset")
    expect(told).to_have_text(
        "Also kept from the preset: 1 picture to compare with; reweight: blue 3."
    )
    used(page, "cup")
    expect(words).to_be_checked()
    expect(page.get_by_label("Words of the region")).to_have_value("cup")
    used(page, "all")
    expect(everywhere).to_be_checked()
    used(page, "gentle")
    sent_again(page)
    made: Any = newest(jobs)
    assert (made["webhook"], made["references"], made["maps"]) == (HOOK, [reference], True)
    assert (made["change"], made["steps"]) == (0.3, 20)
    assert (made["p2p"]["blend_over"], made["p2p"]["reweight"]) == ("none", {"blue": 3})


def test_the_region_that_was_chosen_stays_with_every_method(tab: Tab) -> None:
    tab.open("edit")
    page = tab.page
    method = page.get_by_label("Method")
    for title in ("Everywhere", "From the words"):
        page.get_by_text(title, exact=True).click()
        for name in ("sdedit", "p2p"):
            method.select_option(name)
            expect(page.get_by_role("radio", name=title)).to_be_checked()


def test_an_sdedit_of_words_finds_its_region_and_one_of_an_earlier_version_does_not(
    tab: Tab, client: httpx.Client, jobs: Jobs
) -> None:
    job = edit(client, **WORDS, method="sdedit", sdedit={"threshold": 0.4})
    page = opened(tab, f"edit?job={job['id']}")
    expect(page.get_by_role("radio", name="From the words")).to_be_checked()
    sent_again(page)
    made: Any = newest(jobs)
    assert made["sdedit"]["threshold"] == 0.4

    def earlier(route: Route) -> None:
        answer = route.fetch()
        told = answer.json()
        told["request"].pop("sdedit")
        route.fulfill(response=answer, json=told)

    page.route(f"**/v1/jobs/{job['id']}*", earlier)
    page = opened(tab, f"edit?job={job['id']}")
    expect(page.get_by_role("radio", name="Everywhere")).to_be_checked()
    sent_again(page)
    made = newest(jobs)
    assert made["sdedit"]["blend_over"] == "none"


def test_a_preset_is_saved_though_the_form_has_what_it_cannot_hold(
    tab: Tab, client: httpx.Client
) -> None:
    job = edit(client, **WORDS, maps=True, webhook=HOOK, references=[upload(client, "green")])
    page = opened(tab, f"edit?job={job['id']}")
    page.get_by_text("Presets", exact=True).click()
    page.get_by_label("Save these settings as").fill("mine")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.locator("#live")).to_have_text("Saved as mine")
    settings = client.get("/v1/presets/mine").json()["settings"]
    assert settings["change"] == 0.5 and not {"maps", "webhook", "references"} & settings.keys()


def test_a_picture_that_is_chosen_twice_at_once_can_be_painted_on(tab: Tab, api: Running) -> None:
    upload(api.client())
    page = tab.page
    tab.open("edit")
    page.get_by_text("Take one that was sent before").click()
    earlier = page.get_by_role("button", name="Take the picture of")
    earlier.evaluate("button => { button.click(); button.click(); }")
    expect(page.get_by_alt_text("The picture to edit")).to_have_js_property("naturalWidth", 32)
    page.get_by_text("Painted", exact=True).click()
    page.get_by_label("What it shows").fill("a cup")
    page.get_by_label("What it is to show").fill("a blue cup")
    page.get_by_role("button", name="Edit", exact=True).click()
    page.get_by_text("Nothing is painted: paint where").wait_for()


def test_a_form_behind_a_question_is_not_sent(tab: Tab, api: Running, jobs: Jobs) -> None:
    client = api.client()
    assert client.put("/v1/presets/gentle", json={"steps": 20}).status_code == 201
    page = opened(tab, f"edit?image={upload(client)}")
    page.get_by_label("What it shows").fill("a cup")
    page.get_by_label("What it is to show").fill("a blue cup")
    page.get_by_text("Presets", exact=True).click()
    page.get_by_role("button", name="Delete", exact=True).click()
    asked = page.get_by_role("dialog")
    asked.wait_for()
    page.keyboard.press("Control+Enter")
    page.wait_for_timeout(500)
    assert jobs.list("anna").items == [] and "#/edit" in page.url


def test_what_is_brought_back_is_alone(
    tab: Tab, client: httpx.Client, jobs: Jobs, look: str
) -> None:
    first = upload(client, "yellow")
    page = opened(tab, f"edit?image={first}")
    page.get_by_label("What it shows").fill("a cup")
    page.get_by_label("What it is to show").fill("a yellow <x> cup")
    page.get_by_role("checkbox", name="<x>").check()
    page.wait_for_timeout(300)  # until the draft is kept
    other = edit(
        client,
        source_prompt="a cup",
        target_prompt="a <x> cup",
        concepts=[{"id": look, "weight": 0.5, "box": [0.1, 0.2, 0.6, 0.9]}],
        p2p={"reweight": {"cup": 2}},
        guidance=3,
    )
    opened(tab, f"edit?job={other['id']}")
    expect(page.get_by_label("What it is to show")).to_have_value("a <x> cup")
    page.get_by_role("button", name="Bring it back").click()
    expect(page.get_by_label("What it is to show")).to_have_value("a yellow <x> cup")
    expect(page.get_by_text("Also kept")).to_have_count(0)
    sent_again(page)
    made = newest(jobs)
    assert made["image"] == first and made["concepts"] == [{"id": look, "weight": 1.0}]
    assert "p2p" not in made and "guidance" not in made


def test_a_token_in_the_line_of_an_inverted_picture_is_told(
    tab: Tab, api: Running, look: str
) -> None:
    job = edit(
        api.client(),
        source_prompt="a <x> cup",
        target_prompt="a blue <x> cup",
        method="sdedit",
        concepts=[{"id": look}],
    )
    page = opened(tab, f"edit?job={job['id']}")
    expect(page.get_by_role("button", name="Take it out")).to_have_count(0)
    page.get_by_label("Method").select_option("p2p")
    page.get_by_role("button", name="Edit", exact=True).click()
    page.get_by_text("<x>: describe the picture without it.").wait_for()
    page.get_by_role("button", name="Take it out").click()
    expect(page.get_by_label("What it shows")).to_have_value("a cup")
    expect(page.get_by_text("describe the picture without it")).to_be_hidden()
