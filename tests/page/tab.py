"""The page in a tab of a browser, as the page's tests use it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import ConsoleMessage, Locator, Page, Request, expect

NAMES: Final = ("chromium", "chromium-browser", "google-chrome")

PATIENCE_MS: Final = 60_000
"""How long the page may take where every core is busy with other tests."""

expect.set_options(timeout=PATIENCE_MS)

MOVE: Final = """
(address) => new Promise((done) => {
  window.addEventListener("hashchange", () => done(), { once: true });
  location.assign(address);
})
"""
"""Goes to another hash of the page, and waits for the event by which the page hears of it. The page
listens for longer, so that it has heard before."""


def chromium() -> str:
    """The browser's program; without one the tests are skipped, or fail where one is required."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        why = "no chromium: apt-get install --no-install-recommends chromium"
        if os.environ.get("CI_BROWSER") == "required":
            pytest.fail(why)
        pytest.skip(why)
    return found


@dataclass
class Tab:
    """The page in a tab of its own, what its console said and whom it asked."""

    page: Page
    url: str
    said: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)
    asked: list[Request] = field(default_factory=list)

    def listen(self) -> None:
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request))

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.said.append(message.text)

    def open(self, view: str = "") -> None:
        """Open the view of a hash such as ``jobs``, as a bookmark would.

        Of a page that is there the view before is gone then: a file must not be given to it.
        """
        address = f"{self.url}/#/{view}" if view else f"{self.url}/"
        shown, _, hash_ = self.page.url.partition("#")
        if view and shown == f"{self.url}/" and hash_ != f"/{view}":
            self.page.evaluate(MOVE, address)
        else:
            self.page.goto(address)

    def sign_in(self, key: str) -> None:
        self.page.get_by_label("API key").fill(key)
        self.page.get_by_role("button", name="Sign in").click()
        self.page.get_by_role("navigation", name="Main").wait_for()

    def expect(self, text: str) -> None:
        """The console may say this: the browser tells of every answer over 399 by itself."""
        self.expected.append(text)

    def complaints(self) -> list[str]:
        """What the console said that no test expects."""
        return [line for line in self.said if not any(text in line for text in self.expected)]

    def origins(self) -> set[str]:
        """Whom the page asked."""
        parts = [urlsplit(request.url) for request in self.asked]
        return {f"{p.scheme}://{p.netloc}" for p in parts if p.scheme not in ("blob", "data")}


def import_form(tab: Tab, folder: Path) -> Locator:
    """The form that imports a concept, with a file of weights, in ``folder``, and a token."""
    weights = folder / "lora.safetensors"
    weights.write_bytes((2).to_bytes(8, "little") + b"{}" + bytes(1000))
    tab.open("concepts")
    tab.page.get_by_role("button", name="Import").click()
    form = tab.page.get_by_label("Import a concept")
    form.get_by_label("File of weights").set_input_files(weights)
    form.get_by_label("Token").fill("<lora>")
    return form


def give(page: Page, files: Path | Sequence[Path]) -> None:
    """Choose pictures for the form of a view, once what it begins with is in it."""
    page.locator("form.sends").wait_for()
    page.locator("input[type=file]").first.set_input_files(files)
