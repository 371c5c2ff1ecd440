"""Teaching and editing: what is sent, once, and what is wrong told where it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, Route, expect

from customedit.config.settings import Settings
from customedit.jobs.store import Jobs
from customedit.storage.store import Storage
from customedit.tenants.catalogue import Concepts

from ..api.conftest import Running, customize, edit, finish_concept
from .tab import Tab, give
from .test_leaving import Held

EVIL = '"><img src=x onerror="window.broken=1"><script>window.broken=1</script>'


def wrong(page: Page, label: str) -> str:
    """What is said to be wrong with a field."""
    field = page.get_by_label(label, exact=True)
    assert field.get_attribute("aria-invalid") == "true"
    ids = (field.get_attribute("aria-describedby") or "").split()
    return " ".join(page.locator(f"#{name}.error").inner_text() for name in ids[-1:])


def ready(api: Running, jobs: Jobs, concepts: Concepts, storage: Storage, **more: str) -> str:
    """A concept that can be used."""
    job = customize(api.client(), **more)
    return finish_concept(jobs, concepts, storage, job["id"]).id


def test_several_seeds_are_for_methods_that_draw_by_chance(
    tab: Tab, jobs: Jobs, picture: Path
) -> None:
    page = tab.page
    tab.open("edit")
    give(page, picture)
    page.get_by_label("What it shows").fill("a cup")
    page.get_by_label("What it is to show").fill("a blue cup")
    page.get_by_text("Expert settings").click()
    page.get_by_label("Seeds", exact=True).fill("1, 2")
    page.get_by_role("button", name="Edit", exact=True).click()
    assert wrong(page, "Seeds").startswith("Prompt-to-Prompt draws nothing by chance: 2 seeds")
    page.get_by_label("Method").select_option("ddpm")
    expect(page.get_by_label("Seeds", exact=True)).not_to_have_attribute("aria-invalid", "true")
    page.get_by_role("button", name="Edit", exact=True).click()
    page.locator(".saying").wait_for()
    assert jobs.list("anna").items[0].request["seeds"] == [1, 2]


def test_a_look_is_sent_once_though_the_first_answer_is_lost(
    tab: Tab, api: Running, jobs: Jobs, references: tuple[Path, ...]
) -> None:
    tab.expect("ERR_")
    page = tab.page
    tab.open("teach")
    chooser = page.locator("input[type=file]")
    chooser.set_input_files(references[:2])
    page.get_by_text("Two pictures are few").wait_for()
    chooser.set_input_files(references[2])
    expect(page.get_by_text("are few")).to_have_count(0)
    page.get_by_role("button", name=f"Remove {references[0].name}").first.click()
    page.get_by_text("Two pictures are few").wait_for()
    page.get_by_label("What the pictures show").fill("cup")
    page.get_by_label("Token", exact=True).fill("<plaid>")
    page.get_by_text("How it is trained").click()
    page.get_by_label("Steps", exact=True).fill("30")
    keys: list[str | None] = []

    def lose(route: Route) -> None:
        if route.request.method != "POST":
            return route.fallback()
        keys.append(route.request.headers.get("idempotency-key"))
        if len(keys) > 1:
            return route.fallback()
        route.fetch()  # it arrives; its answer does not
        return route.abort("connectionreset")

    page.route("**/v1/concepts", lose)
    page.get_by_role("button", name="Teach this look").click()
    page.locator(".saying").wait_for()
    assert len(keys) == 2 and keys[0] == keys[1] and keys[0]
    (made,) = jobs.list("anna").items
    assert made.request["training"] == {
        "way": "custom-diffusion",
        "steps": 30,
        "preview_every": 50,
        "seed": 0,
    }
    assert (made.request["noun"], made.request["token"]) == ("cup", "<plaid>")
    assert len(made.request["references"]) == 2


def test_what_is_wrong_is_said_at_its_field_until_it_is_mended(
    tab: Tab, references: tuple[Path, ...]
) -> None:
    page = tab.page
    tab.open("teach")
    page.get_by_role("button", name="Teach this look").click()
    assert "Say what the pictures show" in wrong(page, "What the pictures show")
    page.get_by_text("Choose at least one picture.").wait_for()
    give(page, references[0])
    expect(page.get_by_text("Choose at least one picture.")).to_be_hidden()
    noun = page.get_by_label("What the pictures show")
    noun.fill("!!")
    page.get_by_label("Token", exact=True).fill("Tartan Plaid")
    page.get_by_text("How it is trained").click()
    page.get_by_label("Steps", exact=True).fill("many")
    page.get_by_label("Batch").fill("99")
    page.get_by_text("How it is trained").click()
    asked = len(tab.asked)
    page.get_by_role("button", name="Teach this look").click()
    assert "Write words of letters" in wrong(page, "What the pictures show")
    assert "write <tartan-plaid>" in wrong(page, "Token")
    assert page.get_by_label("Steps", exact=True).is_visible()  # what was folded is open
    assert wrong(page, "Steps") == "Write a whole number from 1 to 20000."
    assert wrong(page, "Batch") == "Write a whole number from 1 to 32."
    assert not [r for r in tab.asked[asked:] if r.url.endswith("/v1/concepts")]
    assert page.evaluate("document.activeElement.getAttribute('aria-invalid')") == "true"
    noun.fill("c")
    expect(noun).not_to_have_attribute("aria-invalid", "true")
    page.get_by_label("Token", exact=True).fill("<plaid>")
    page.get_by_label("Steps", exact=True).fill("20")
    expect(page.get_by_text("Write a whole number from 1 to 20000.")).to_be_hidden()
    page.get_by_label("Batch").fill("")
    page.keyboard.press("Control+Enter")
    page.locator(".saying").wait_for()


def test_what_the_service_refuses_is_told_at_its_field(
    tab: Tab, references: tuple[Path, ...]
) -> None:
    tab.expect("422")
    page = tab.page
    tab.open("teach")
    problem = {
        "type": "/problems/validation",
        "title": "A field is not usable",
        "status": 422,
        "errors": [
            {"field": "noun", "problem": "noun: is not known here", "limit": ""},
            {"field": "training.way", "problem": "is not offered", "limit": "custom-diffusion"},
        ],
        "request_id": "req-1",
    }
    page.route("**/v1/concepts", lambda route: route.fulfill(status=422, json=problem))
    give(page, references[0])
    page.get_by_label("What the pictures show").fill("cup")
    page.get_by_role("button", name="Teach this look").click()
    page.locator(".problem").get_by_text("A field is not usable").wait_for()
    assert wrong(page, "What the pictures show") == "is not known here"
    assert "custom-diffusion" in wrong(page, "Way")
    assert page.locator(".problem").get_by_text("req-1").is_visible()
    page.get_by_label("What the pictures show").fill("mug")
    expect(page.get_by_text("is not known here")).to_be_hidden()


def test_the_button_says_that_it_sends_until_all_is_sent(
    tab: Tab, references: tuple[Path, ...]
) -> None:
    tab.expect("ERR_")
    page = tab.page
    tab.open("edit")
    held = Held(page, "**/v1/images", "POST", most=2)
    page.get_by_label("What it shows").fill("a cup")
    page.get_by_label("What it is to show").fill("a blue cup")
    give(page, references[:2])
    submit = page.locator("form.sends button[type=submit]")
    expect(submit).to_have_text("Edit 2 pictures")
    first, second = held.all(2)
    submit.click()
    expect(submit).to_have_text("Sending…")
    first.continue_()
    expect(page.locator(".thumbs .name").get_by_text("Sending")).to_have_count(1)
    expect(submit).to_have_text("Sending…")
    page.get_by_role("button", name=f"Remove {references[0].name}").first.click()
    second.abort("connectionreset")
    page.locator(".problem").get_by_text("The service does not answer").wait_for()
    expect(submit).to_have_text("Edit")


def test_what_is_no_picture_is_not_taken(tab: Tab, tmp_path: Path) -> None:
    tab.open("teach")
    text = tmp_path / "notes.txt"
    text.write_text("none")
    give(tab.page, text)
    tab.page.get_by_text("notes.txt is no PNG, JPEG or WebP").wait_for()


FULL = "1 queued and running jobs"


def test_a_full_queue_is_told_and_the_form_is_sent_once_there_is_room(
    new_tab: Callable[..., Tab], start: Callable[..., Running], settings: Settings, picture: Path
) -> None:
    api = start(settings, queue_limit_per_tenant=1)
    first = edit(api.client())
    tab = new_tab(api)
    tab.expect("429")
    tab.open("edit")
    tab.sign_in(api.key())
    page = tab.page
    give(page, picture)
    source, target = page.get_by_label("What it shows"), page.get_by_label("What it is to show")
    source.fill("a cup")
    target.fill("a green cup")
    plan = page.get_by_label("What this would do")
    expect(plan).to_contain_text(
        "1 of your jobs are queued or running: the request would be refused."
    )
    page.get_by_role("button", name="Edit", exact=True).click()
    told = page.locator("form > .problem, .problem[role=alert]").filter(
        has_text="Try again in 10 s"
    )
    expect(told).to_contain_text(FULL)
    page.reload()
    expect(source).to_have_value("a cup")
    expect(target).to_have_value("a green cup")
    expect(page.get_by_alt_text("The picture to edit")).to_have_js_property("complete", True)
    api.container.jobs.cancel("anna", first["id"])
    page.get_by_role("button", name="Edit", exact=True).click()
    page.locator(".saying").wait_for()
    assert api.container.jobs.list("anna").items[0].request["target_prompt"] == "a green cup"


@pytest.mark.parametrize("view", ["teach", "import"])
def test_a_full_queue_loses_nothing_of_the_other_forms(
    new_tab: Callable[..., Tab],
    start: Callable[..., Running],
    settings: Settings,
    references: tuple[Path, ...],
    tmp_path: Path,
    view: str,
) -> None:
    api = start(settings, queue_limit_per_tenant=1)
    first = edit(api.client())
    tab = new_tab(api)
    tab.expect("429")
    tab.open("concepts" if view == "import" else view)
    tab.sign_in(api.key())
    page = tab.page
    if view == "import":
        weights = tmp_path / "lora.safetensors"
        weights.write_bytes((2).to_bytes(8, "little") + b"{}" + bytes(1000))
        page.get_by_role("button", name="Import").click()
        form = page.get_by_label("Import a concept")
        form.get_by_label("File of weights").set_input_files(weights)
        sends = form.get_by_role("button", name="Import")
    else:
        give(page, references[:3])
        sends = page.get_by_role("button", name="Teach this look")
    noun = page.get_by_label("What the pictures show")
    noun.fill("vase")
    sends.click()
    told = page.locator(".problem").filter(has_text="Try again in 10 s")
    expect(told).to_contain_text(FULL)
    expect(noun).to_have_value("vase")
    api.container.jobs.cancel("anna", first["id"])
    sends.click()
    page.locator(".saying").wait_for()
    assert api.container.jobs.list("anna").items[0].request["noun"] == "vase"


def test_an_edit_names_only_looks_that_are_chosen(
    tab: Tab, api: Running, jobs: Jobs, concepts: Concepts, storage: Storage, picture: Path
) -> None:
    concept = ready(api, jobs, concepts, storage, token="<plaid>", name="Plaid")
    page = tab.page
    tab.open("edit")
    give(page, picture)
    page.get_by_label("What it shows").fill("a photo of a cup on a table")
    target = page.get_by_label("What it is to show")
    target.fill("a photo of a <plaid> patterned cup on a table")
    page.get_by_text("no look with this token is chosen").wait_for()
    before = len(tab.asked)
    page.get_by_role("button", name="Edit", exact=True).click()
    assert "choose the look" in wrong(page, "What it is to show")
    assert not [r for r in tab.asked[before:] if r.url.endswith("/v1/edits")]
    page.get_by_label("Plaid <plaid>").check()
    expect(page.get_by_text("no look with this token is chosen")).to_have_count(0)
    page.get_by_role("button", name="Write it from the line above").click()
    assert target.input_value() == "a photo of a <plaid> patterned cup on a table"
    target.fill("a new ")
    page.get_by_role("button", name="Insert <plaid>").click()
    assert target.input_value() == "a new <plaid> "
    weight = page.get_by_label("Weight")
    weight.focus()
    weight.press("ArrowLeft")
    page.get_by_text("Expert settings").click()
    page.get_by_role("button", name="Strengths: 0.3, 0.5, 0.7").click()
    page.get_by_text("are set under expert settings").wait_for()
    page.get_by_label("Inversion").select_option("ddim")
    page.get_by_label("Words of the region").fill("cup, table")
    page.get_by_role("button", name="Edit", exact=True).click()
    page.locator(".saying").wait_for()
    made = jobs.list("anna", kind="edit").items[0].request
    assert made["concepts"] == [{"id": concept, "weight": 0.99}]
    assert made["strengths"] == [0.3, 0.5, 0.7]
    assert (made["inversion"], made["p2p"]["blend_words"]) == ("ddim", ["cup", "table"])
    page.get_by_role("link", name="Edit again from here").click()
    expect(page.get_by_label("What it is to show")).to_have_value("a new <plaid>")
    expect(page.get_by_label("Strengths", exact=True)).to_have_value("0.3, 0.5, 0.7")
    expect(page.get_by_alt_text("The picture to edit")).to_have_js_property("complete", True)


def test_an_edit_is_checked_before_it_is_sent(tab: Tab, picture: Path) -> None:
    page = tab.page
    tab.open("edit")
    page.get_by_role("button", name="Edit", exact=True).click()
    page.get_by_text("Choose a picture.").wait_for()
    give(page, picture)
    expect(page.get_by_text("Choose a picture.")).to_be_hidden()
    page.get_by_label("What it is to show").fill("a blue cup")
    page.get_by_role("button", name="Edit", exact=True).click()
    assert "Say what the picture shows" in wrong(page, "What it shows")
    page.get_by_label("Method").select_option("sdedit")
    expect(page.get_by_text("Say what the picture shows")).to_be_hidden()
    page.get_by_text("Expert settings").click()
    expect(page.get_by_label("Words of the region")).to_be_visible()
    expect(page.get_by_text("Without words of what the picture shows")).to_be_visible()
    expect(page.get_by_role("group", name="SDEdit").get_by_label("Blend from")).to_be_visible()
    page.get_by_text("Everywhere", exact=True).click()
    expect(page.get_by_label("Words of the region")).to_be_hidden()
    expect(page.get_by_role("group", name="SDEdit").get_by_label("Blend from")).to_be_hidden()
    page.get_by_label("Strengths", exact=True).fill("0.5, 2, x")
    page.get_by_label("Guidance", exact=True).fill("99")
    page.get_by_role("button", name="Edit", exact=True).click()
    assert wrong(page, "Strengths") == "“2” does not fit. Each is a number from 0 to 1."
    assert wrong(page, "Guidance") == "Write a number from 0 to 50."


def test_one_slider_says_how_much_changes(
    tab: Tab, api: Running, jobs: Jobs, picture: Path
) -> None:
    page = tab.page
    tab.open("edit")
    give(page, picture)
    page.get_by_label("What it shows").fill("a cup")
    page.get_by_label("What it is to show").fill("a blue cup")
    change = page.get_by_label("How much changes")
    change.focus()
    for _ in range(3):
        change.press("ArrowRight")
    page.get_by_text("53 %").wait_for()
    page.keyboard.press("Control+Enter")
    page.locator(".saying").wait_for()
    request = jobs.list("anna", kind="edit").items[0].request
    assert request["change"] == 0.53 and "strengths" not in request


def test_a_mistyped_token_is_offered_as_it_was_meant(
    tab: Tab, api: Running, jobs: Jobs, concepts: Concepts, storage: Storage
) -> None:
    ready(api, jobs, concepts, storage, token="<plaid>", name="Plaid")
    page = tab.page
    tab.open("edit")
    page.get_by_label("Plaid <plaid>").wait_for()
    target = page.get_by_label("What it is to show")
    target.fill("a <plad> cup")
    page.get_by_role("button", name="Did you mean <plaid>?").click()
    expect(target).to_have_value("a <plaid> cup")
    expect(page.get_by_label("Plaid <plaid>")).to_be_checked()
    expect(page.locator(".advice .warning")).to_have_count(0)


def test_what_people_write_stays_text(
    tab: Tab, api: Running, jobs: Jobs, concepts: Concepts, storage: Storage
) -> None:
    concept = ready(api, jobs, concepts, storage, name=EVIL)
    page = tab.page
    for view in ("concepts", "jobs", f"edit?concept={concept}"):
        tab.open(view)
        page.get_by_text(EVIL).first.wait_for()
    assert page.evaluate("window.broken") is None
    assert page.locator("script:not([src]), img[src=x]").count() == 0


def test_a_concept_is_used_downloaded_and_deleted(
    tab: Tab, api: Running, jobs: Jobs, concepts: Concepts, storage: Storage
) -> None:
    concept = ready(api, jobs, concepts, storage, name="Plaid", token="<plaid>")
    page = tab.page
    tab.open("concepts")
    page.get_by_text("More").click()
    with page.expect_download() as file:
        page.get_by_role("button", name="Download weights", exact=True).click()
    assert file.value.suggested_filename == "plaid-customedit.safetensors"
    assert Path(file.value.path()).read_bytes() == b"weights of a test"
    page.get_by_role("link", name="Use it in an edit").click()
    expect(page.get_by_label("Plaid <plaid>")).to_be_checked()
    tab.open("concepts")
    page.get_by_text("More").click()
    page.get_by_role("button", name="Delete Plaid").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    page.get_by_role("heading", name="No looks yet").wait_for()
    assert concepts.get("anna", concept) is None
