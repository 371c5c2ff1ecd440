"""Nothing that was typed is lost: reload, navigation, a key that ends, a lost connection."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, expect

from customedit.jobs.store import Jobs

from .. import web
from ..api.conftest import ALL, Running, edit
from .tab import Tab, give, import_form

SOURCE, TARGET = "a cup on a table", "a blue cup on a table"


def fill(page: Page, picture: Path) -> None:
    page.get_by_label("What it shows").fill(SOURCE)  # once the form is open: it is filled in then
    page.get_by_label("What it is to show").fill(TARGET)
    give(page, picture)
    page.get_by_text("Expert settings").click()
    page.get_by_label("Guidance", exact=True).fill("3")
    page.locator(".thumbs .name").get_by_text(picture.name, exact=True).wait_for()  # it is sent


def there(page: Page) -> None:
    """What ``fill`` filled in is in the form."""
    expect(page.get_by_label("What it shows")).to_have_value(SOURCE)
    expect(page.get_by_label("What it is to show")).to_have_value(TARGET)
    expect(page.get_by_label("Guidance", exact=True)).to_have_value("3")
    expect(page.get_by_alt_text("The picture to edit")).to_have_js_property("complete", True)


def test_a_form_survives_reload_and_navigation(tab: Tab, picture: Path) -> None:
    page = tab.page
    tab.open("edit")
    fill(page, picture)
    page.reload()
    there(page)
    page.get_by_role("link", name="Jobs").click()
    page.get_by_role("heading", name="No jobs yet").wait_for()
    page.get_by_role("link", name="Edit", exact=True).click()
    there(page)
    page.get_by_role("button", name="Start anew").click()
    expect(page.get_by_label("What it shows")).to_have_value("")
    page.get_by_role("button", name="Bring it back").click()
    there(page)


def test_a_job_to_begin_from_does_not_take_what_was_typed(
    tab: Tab, api: Running, picture: Path
) -> None:
    page = tab.page
    job = edit(api.client())
    tab.open("edit")
    fill(page, picture)
    tab.open(f"jobs/{job['id']}")
    page.get_by_role("link", name="Edit again from here").click()
    expect(page.get_by_label("What it is to show")).to_have_value("a blue cup")
    page.get_by_label("What it is to show").fill("a green cup")
    page.reload()
    expect(page.get_by_label("What it is to show")).to_have_value("a green cup")
    page.get_by_role("button", name="Start anew").click()
    page.get_by_role("button", name="Bring it back").click()
    expect(page.get_by_label("What it is to show")).to_have_value("a green cup")


def test_what_was_sent_is_not_offered_again(tab: Tab, jobs: Jobs, picture: Path) -> None:
    page = tab.page
    tab.open("edit")
    fill(page, picture)
    page.keyboard.press("Control+Enter")
    page.locator(".saying").wait_for()
    (job,) = jobs.list("anna").items
    tab.open(f"edit?job={job.id}")
    expect(page.get_by_label("What it is to show")).to_have_value(TARGET)
    expect(page.get_by_role("button", name="Bring it back")).to_have_count(0)


def test_a_key_that_ends_leads_back_to_the_form(
    new_tab: Callable[..., Tab], api: Running, jobs: Jobs, picture: Path
) -> None:
    key, text = api.keys.create("anna", scopes=ALL)
    tab = new_tab()
    tab.expect("401")
    tab.open("edit")
    tab.sign_in(text)
    page = tab.page
    page.get_by_label("What it shows").wait_for()
    fill(page, picture)
    api.keys.revoke(key.id)
    page.keyboard.press("Control+Enter")
    page.get_by_text("Your key is not valid any more.").wait_for()
    tab.sign_in(api.key("anna", ALL))
    there(page)
    page.get_by_role("button", name="Edit", exact=True).click()
    page.locator(".saying").wait_for()
    assert jobs.list("anna").items[0].request["target_prompt"] == TARGET


def test_what_one_tenant_typed_is_not_shown_to_another(
    new_tab: Callable[..., Tab], api: Running, picture: Path
) -> None:
    tab = new_tab()
    tab.open("edit")
    tab.sign_in(api.key("anna", ALL))
    fill(tab.page, picture)
    tab.page.locator("#account").get_by_text("anna").click()
    tab.page.get_by_role("button", name="Sign out").click()
    tab.sign_in(api.key("bert", ALL))
    expect(tab.page.get_by_label("What it shows")).to_have_value("")


def test_a_lost_connection_is_said_and_the_form_is_sent_later(
    tab: Tab, jobs: Jobs, picture: Path
) -> None:
    tab.expect("ERR_INTERNET_DISCONNECTED")
    page = tab.page
    tab.open("edit")
    page.get_by_label("What it shows").wait_for()
    page.context.set_offline(True)
    give(page, picture)
    page.get_by_text("not sent yet").wait_for()
    page.get_by_label("What it shows").fill(SOURCE)
    page.get_by_label("What it is to show").fill(TARGET)
    page.get_by_role("button", name="Edit", exact=True).click()
    page.locator(".problem").get_by_text("The service does not answer").wait_for()
    expect(page.get_by_label("What it is to show")).to_have_value(TARGET)
    page.context.set_offline(False)
    page.get_by_role("button", name="Edit", exact=True).click()
    page.locator(".saying").wait_for()
    assert len(jobs.list("anna").items) == 1


def test_a_look_that_is_being_filled_in_is_kept(tab: Tab, references: tuple[Path, ...]) -> None:
    page = tab.page
    tab.open("teach")
    give(page, references[:2])
    page.get_by_label("What the pictures show").fill("vase")
    page.get_by_text("How it is trained").click()
    page.get_by_label("Steps", exact=True).fill("77")
    page.locator(".thumbs .name").get_by_text(references[1].name, exact=True).wait_for()
    page.reload()
    expect(page.get_by_label("What the pictures show")).to_have_value("vase")
    expect(page.get_by_label("Steps", exact=True)).to_have_value("77")
    expect(page.locator(".thumbs img")).to_have_count(2)
    page.keyboard.press("Control+Enter")
    page.locator(".saying").wait_for()
    tab.open("teach")
    expect(page.get_by_label("What the pictures show")).to_have_value("")  # it was sent


def away_and_back(page: Page, there: str, back: str) -> None:
    page.wait_for_timeout(300)  # until the draft is kept
    page.get_by_role("link", name=there, exact=True).click()
    page.get_by_role("heading", name=there, exact=True).wait_for()
    page.evaluate("to => { location.hash = to; }", f"#/{back}")


def test_an_import_that_is_being_filled_in_is_kept(tab: Tab, jobs: Jobs, tmp_path: Path) -> None:
    page, form = tab.page, import_form(tab, tmp_path)
    form.get_by_label("Take it though the base").check()
    away_and_back(page, "Jobs", "concepts")
    expect(form.get_by_label("Token")).to_have_value("<lora>")
    expect(form.get_by_label("Take it though the base")).to_be_checked()
    expect(form.get_by_text("Choose lora.safetensors again")).to_be_visible()
    form.get_by_label("File of weights").set_input_files(tmp_path / "lora.safetensors")
    expect(form.get_by_text("Choose lora.safetensors again")).to_have_count(0)
    form.get_by_role("button", name="Import").click()
    page.locator(".saying").wait_for()
    assert jobs.list("anna", kind="import").items[0].request["token"] == "<lora>"
    tab.open("concepts")
    page.get_by_role("heading", name="Looks", exact=True).wait_for()
    expect(form).to_have_count(0)  # it was sent
    page.get_by_role("button", name="Import").click()
    expect(form.get_by_label("Token")).to_have_value("")
    form.get_by_label("Token").fill("<other>")
    page.wait_for_timeout(300)
    form.get_by_role("button", name="Cancel").click()
    page.reload()
    page.get_by_role("heading", name="Looks", exact=True).wait_for()
    expect(form).to_have_count(0)  # it was given up


def test_a_key_that_is_being_filled_in_is_kept_and_one_that_was_made_is_not(
    tab: Tab, api: Running
) -> None:
    tab.expect("404")  # no secret of webhooks was made
    page = tab.page
    tab.open("account")
    page.locator("summary", has_text="Make a key").click()
    page.get_by_label("Name of the key").fill("dashboard")
    page.get_by_label("Days until it expires").fill("30")
    page.get_by_label("edit pictures").uncheck()
    away_and_back(page, "Jobs", "account")
    expect(page.get_by_label("Name of the key")).to_have_value("dashboard")
    expect(page.get_by_label("Days until it expires")).to_have_value("30")
    expect(page.get_by_label("edit pictures")).not_to_be_checked()
    page.get_by_role("button", name="Make a key").click()
    page.get_by_text("The key, shown this once").wait_for()
    text = page.get_by_role("status").locator("code", has_text="ce_").inner_text()
    assert web.get(f"{api.url}/v1/limits", headers={"X-API-Key": text}).status_code == 200
    page.wait_for_timeout(500)  # longer than a draft waits to be kept
    kept = page.evaluate("JSON.stringify([{...sessionStorage}, {...localStorage}])")
    assert text not in kept and "dashboard" not in kept
    page.reload()
    page.locator("summary", has_text="Make a key").click()
    expect(page.get_by_label("Name of the key")).to_have_value("")


def test_the_name_of_a_preset_is_kept_until_it_is_saved(tab: Tab, api: Running) -> None:
    page = tab.page
    tab.open("edit")
    page.get_by_text("Presets", exact=True).click()
    page.get_by_label("Save these settings as").fill("gentle")
    page.get_by_label("With the words and looks").check()
    away_and_back(page, "Jobs", "edit")
    expect(page.get_by_label("Save these settings as")).to_have_value("gentle")
    expect(page.get_by_label("With the words and looks")).to_be_checked()
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_label("Preset", exact=True)).to_have_value("gentle")
    away_and_back(page, "Jobs", "edit")
    page.get_by_label("What it shows").wait_for()
    expect(page.get_by_label("Save these settings as")).to_have_value("")
    assert [one["name"] for one in api.client().get("/v1/presets").json()["items"]] == ["gentle"]
