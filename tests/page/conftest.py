"""A browser that is there already, and a front end with its page open in it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.sync_api import Browser, BrowserContext, sync_playwright
from redis import Redis

from customedit.config.settings import Settings
from customedit.diffusion.profile import Sizes
from customedit.estimates import workers
from customedit.estimates.speed import Speed
from customedit.estimates.workers import WorkerBase, WorkerReport, Workers
from customedit.mini import samples

from ..api.conftest import ALL, Running, api, concepts, jobs, start
from .tab import PATIENCE_MS, Tab, chromium

__all__ = ["api", "concepts", "jobs", "start"]  # the front end's own fixtures

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
