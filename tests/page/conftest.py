"""A browser that is there already, and a front end with its page open in it."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Locator,
    Page,
    Request,
    expect,
    sync_playwright,
)
from redis import Redis

from customedit.config.settings import Settings
from customedit.diffusion.profile import Sizes
from customedit.estimates import workers
from customedit.estimates.speed import Speed
from customedit.estimates.workers import WorkerBase, WorkerReport, Workers
from customedit.mini import samples

from ..api.conftest import ALL, Running, api, concepts, jobs, start

__all__ = ["api", "concepts", "jobs", "start"]  # the front end's own fixtures

NAMES = ("chromium", "chromium-browser", "google-chrome")

PATIENCE_MS: Final = 60_000
"""How long the page may take where every core is busy with other tests."""

expect.set_options(timeout=PATIENCE_MS)

WORKER: Final = "worker-of-a-test"
"""The worker that ``claimed`` claims jobs for."""

BASE: Final = WorkerBase(
    name="mini",
    fingerprint="f",
    architecture="Mini",
    device="cpu",
    dtype="float32",
    guidance=4.0,
    sizes=Sizes(side=16, multiple=8, factor=8),
    rows=24,
    cells=8192,
    training={
        "custom-diffusion": {
            "steps": 250,
            "class_images": 8,
            "class_steps": 50,
            "crops": 20,
            "preview_every": 0,
            "batch": 4,
        }
    },
)


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
class Chromium:
    """The browser, from the first test that wants it to the last of the page's in a row.

    Playwright's loop runs in this thread until it ends: meanwhile no other of asyncio's does, as
    tests of other rooms need.
    """

    launched: Browser | None = None
    _ends: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def there(self) -> Browser:
        if self.launched is None or not self.launched.is_connected():
            self.end()
            program = chromium()
            arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
            playwright = self._ends.enter_context(sync_playwright())
            self.launched = self._ends.enter_context(
                playwright.chromium.launch(executable_path=program, args=arguments)
            )
        return self.launched

    def end(self) -> None:
        self._ends.close()
        self.launched = None


CHROMIUM: Final = Chromium()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(nextitem: pytest.Item | None) -> Generator[None, Any, Any]:
    try:
        return (yield)
    finally:
        if nextitem is None or nextitem.path.parent != Path(__file__).parent:
            CHROMIUM.end()


def pytest_sessionfinish() -> None:
    CHROMIUM.end()  # where a test that failed was the last


@pytest.fixture
def browser() -> Browser:
    return CHROMIUM.there()


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
        """Open the view of a hash such as ``jobs``, as a bookmark would."""
        self.page.goto(f"{self.url}/#/{view}" if view else f"{self.url}/")
        # The view before goes when the page hears of the address: a file must not be given to it.
        self.page.evaluate("() => new Promise((done) => setTimeout(done, 50))")

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


@pytest.fixture
def new_tab(browser: Browser, api: Running, settings: Settings) -> Iterator[Callable[..., Tab]]:
    """Opens tabs; in the end none of them may have complained or asked anyone but API and S3.

    other: a front end of other settings.
    """
    opened: list[tuple[BrowserContext, Tab]] = []

    def make(other: Running = api, **options: object) -> Tab:
        context = browser.new_context(**options)  # type: ignore[arg-type]
        tab = Tab(context.new_page(), other.url)
        tab.page.set_default_timeout(PATIENCE_MS)
        tab.listen()
        opened.append((context, tab))
        return tab

    yield make
    for _, tab in opened:
        assert tab.complaints() == []
        assert tab.origins() <= {tab.url, settings.s3_endpoint}
    for context, _ in opened:
        context.close()


@pytest.fixture
def tab(new_tab: Callable[..., Tab], api: Running) -> Tab:
    """A tab that is signed in with a key that may do everything."""
    made = new_tab()
    made.open()
    made.sign_in(api.key("anna", ALL))
    return made


@pytest.fixture
def beat(
    api: Running, redis_client: Redis, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Workers]:
    """Lets ``WORKER`` say that it lives, which holds however long the browser takes to start.

    It gives where workers say so. speed: what it measured.
    """

    def begin(speed: Speed | None = None) -> Workers:
        monkeypatch.setattr(workers, "GONE_S", 600.0)
        found = Workers(redis_client, api.settings)
        found.beat(
            WorkerReport(
                name=WORKER, kinds=("edit", "customize"), slots=2, base=BASE, speed=speed or {}
            )
        )
        return found

    return begin


@pytest.fixture
def worker(beat: Callable[..., Workers]) -> None:
    """A worker that lives and has measured nothing."""
    beat()


@pytest.fixture
def picture() -> Path:
    """A picture to edit."""
    return samples.sources()[3].image


@pytest.fixture
def references() -> tuple[Path, ...]:
    """Pictures of a look."""
    return samples.looks()[0].images


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
