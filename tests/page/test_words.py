"""The words of an edit: tokens counted and unknown words named while typing, attention shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect
from redis import Redis

from customedit import mini
from customedit.diffusion.facts import BaseFacts, TokenizerFacts
from customedit.jobs.bases import Bases
from customedit.jobs.store import Jobs
from customedit.storage.store import Storage

from ..api.conftest import Running, edit, finish_edit
from .tab import Tab

TOKENIZER = (mini.path() / "tokenizer" / "tokenizer.json").read_text()
WORDS = ("a", "photo", "of", "cup", "table", "on", "red")


@pytest.fixture
def base(api: Running, redis_client: Redis, storage: Storage) -> None:
    """A worker that named its base, which reads ten tokens."""
    tokenizer = TokenizerFacts(length=10, definition=TOKENIZER)
    facts = BaseFacts(fingerprint="f", tokenizers=(tokenizer,), name="mini", words=WORDS)
    Bases(redis_client, api.settings, storage).publish(facts)


@pytest.mark.usefixtures("base")
def test_tokens_are_counted_and_unknown_words_named_while_typing(tab: Tab) -> None:
    page = tab.page
    tab.open("edit")
    source, target = page.get_by_label("What it shows"), page.get_by_label("What it is to show")
    source.fill("a photo of a cup on a tabel")
    target.fill("a photo of a red cup on a red table")
    expect(page.get_by_text("12 of 10 tokens: too long by 2")).to_be_visible()
    expect(page.get_by_text("mini was not trained with “tabel”.")).to_be_visible()
    page.get_by_role("button", name="Did you mean table?").click()
    expect(source).to_have_value("a photo of a cup on a table")
    expect(page.get_by_text("was not trained with")).to_have_count(0)
    expect(source).to_be_focused()
    target.fill("a red cup")
    expect(page.get_by_text("5 of 10 tokens")).to_be_visible()
    target.fill("")
    expect(page.get_by_text("of 10 tokens")).to_have_count(1)


def lit(page: Page) -> list[int]:
    """The cells of the map over the picture that are not black, row by row; none: no map."""
    found: list[int] = page.evaluate(
        """() => {
          const canvas = document.querySelector(".layer.over canvas");
          if (!canvas) return [];
          return [...canvas.getContext("2d").getImageData(0, 0, 2, 2).data]
            .filter((_, at) => at % 4 === 0).flatMap((value, at) => (value > 128 ? [at] : []));
        }"""
    )
    return found


def test_a_words_attention_is_shown_while_it_is_hovered_focused_or_pressed(
    new_tab: Callable[..., Tab], api: Running, jobs: Jobs, storage: Storage
) -> None:
    tab = new_tab()
    tab.expect("Canvas2D")  # what this test reads, not the page
    page = tab.page

    def readable(route: Any) -> None:  # the store's pictures cannot be read by a page
        answer = route.fetch()
        headers = {**answer.headers, "access-control-allow-origin": "*"}
        route.fulfill(response=answer, headers=headers)

    page.add_init_script(
        "const make = document.createElement.bind(document);"
        "document.createElement = (name) => {"
        " const made = make(name); if (name === 'img') made.crossOrigin = 'anonymous';"
        " return made; };"
    )
    page.route(f"{api.settings.s3_endpoint}/**", readable)
    tab.open()
    tab.sign_in(api.key("anna"))
    job = edit(api.client(), strengths=[0.3, 0.6])
    finish_edit(jobs, storage, job["id"], outputs=2, words=["a", "blue", "cup"])
    tab.open(f"jobs/{job['id']}")
    words = page.get_by_role("group", name="Attention of the words").get_by_role("button")
    expect(words).to_have_text(["a", "blue", "cup"])
    assert lit(page) == []
    words.nth(1).hover()
    expect(page.locator(".layer.over.on canvas")).to_be_visible()
    page.wait_for_function("document.querySelector('.layer.over canvas')")
    assert wait_lit(page) == [1]
    words.nth(2).focus()  # what is under the pointer comes first
    assert wait_lit(page) == [1]
    page.mouse.move(0, 0)
    assert wait_lit(page) == [2]
    page.keyboard.press("Enter")
    expect(words.nth(2)).to_have_attribute("aria-pressed", "true")
    page.get_by_role("button", name="Fit").focus()
    assert wait_lit(page) == [2]
    words.nth(2).focus()
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Fit").focus()
    expect(page.locator(".layer.over canvas")).to_have_count(0)


def wait_lit(page: Page) -> list[int]:
    """The same once the picture of the maps has come."""
    for _ in range(50):
        if found := lit(page):
            return found
        page.wait_for_timeout(50)
    return []
