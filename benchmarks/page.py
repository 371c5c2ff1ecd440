"""The page on a slow line and in Lighthouse: ``python benchmarks/page.py URL --key FILE``.

First paint: the sign-in and, signed in, the form of an edit, from nothing in the browser's cache,
at 1.6 Mbit/s and 150 ms (Lighthouse's slow 4G), by the browser's own clock. Lighthouse's
accessibility is of every view, on a phone and on a desk, by ``npx lighthouse`` (Node.js with npm,
and the npm registry at its first call); ``--no-lighthouse`` leaves it out. The service should have
a look, an edit and a batch, so that their views are there.
"""

from __future__ import annotations

import json
import shutil
import socket
import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
from playwright.sync_api import BrowserContext, Page, sync_playwright

from customedit.client import CustomEdit

NAMES = ("chromium", "chromium-browser", "google-chrome")
LINE = {"offline": False, "latency": 150, "downloadThroughput": 200_000, "uploadThroughput": 93_750}
"""Latency in ms, throughput in bytes a second."""

VIEWS = ("edit", "teach", "concepts", "pictures", "pictures?of=results", "jobs", "account")
BAR_S, BAR = 2.0, 98
LIGHTHOUSE = "lighthouse@13.5.0"

app = typer.Typer(add_completion=False)


@app.command()
def main(
    url: str,
    key: Annotated[Path, typer.Option(help="File with an API key.")],
    repeats: Annotated[int, typer.Option(min=1, help="Loads of each page.")] = 5,
    lighthouse: Annotated[bool, typer.Option(help="Also run Lighthouse.")] = True,
) -> None:
    """Print first paints and Lighthouse's scores; fails where a bar is missed."""
    text = key.read_text().strip()
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        raise typer.BadParameter("no chromium is installed")
    port = free_port()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            folder,
            executable_path=program,
            args=["--no-sandbox", f"--remote-debugging-port={port}"],
        )
        missed = []
        for name, signed_in in (("sign-in", False), ("form of an edit", True)):
            if signed_in:
                sign_in(context, url, text)
            paints = [first_paint(context, url, signed_in) for _ in range(repeats)]
            first, shown = (statistics.median(one) for one in zip(*paints, strict=True))
            print(f"{name}: first paint {first:.2f} s, shown after {shown:.2f} s")
            missed += [name] if first > BAR_S else []
        if lighthouse:
            for view in [*VIEWS, *own_views(url, text)]:
                scores = {kind: score(f"{url}/#/{view}", port, kind) for kind in ("phone", "desk")}
                told = ", ".join(f"{kind} {found}" for kind, (found, _) in scores.items())
                print(f"{view}: {told}")
                for kind, (found, failed) in scores.items():
                    missed += [f"{view} {kind}: {', '.join(failed)}"] if found < BAR else []
        context.close()
    if missed:
        print("missed:", *missed, sep="\n  ")
        raise typer.Exit(1)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def sign_in(context: BrowserContext, url: str, key: str) -> None:
    """Sign in for all tabs of ``context``."""
    page = context.new_page()
    page.goto(url)
    page.get_by_label("API key").fill(key)
    page.get_by_label("Stay signed in").check()
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("navigation", name="Main").wait_for()
    page.close()


def first_paint(context: BrowserContext, url: str, signed_in: bool) -> tuple[float, float]:
    """Seconds until something is painted, and until the form is there, on a slow line."""
    page = context.new_page()
    line = context.new_cdp_session(page)
    line.send("Network.enable")
    line.send("Network.setCacheDisabled", {"cacheDisabled": True})
    line.send("Network.emulateNetworkConditions", LINE)
    page.goto(url, wait_until="commit")
    page.get_by_label("What it is to show" if signed_in else "API key").wait_for(timeout=60_000)
    shown = page.evaluate("performance.now() / 1000")
    paint = painted(page)
    page.close()
    return paint, shown


def painted(page: Page) -> float:
    """First contentful paint, in seconds after the navigation began."""
    found: float = page.evaluate(
        "performance.getEntriesByName('first-contentful-paint')[0].startTime / 1000"
    )
    return found


def own_views(url: str, key: str) -> list[str]:
    """The views of a training, an edit and a batch of the tenant, as far as there are some."""
    with CustomEdit(url, key) as service:
        jobs = list(service.jobs(state="succeeded").items)
    found = []
    for kind in ("edit", "customize"):
        found += [f"jobs/{job.id}" for job in jobs if job.kind == kind][:1]
    found += [f"batches/{job.batch}" for job in jobs if job.batch][:1]
    return found


def score(address: str, port: int, kind: str) -> tuple[int, list[str]]:
    """Lighthouse's score of accessibility of 100, and the audits that failed."""
    command = [
        "npx", "--yes", LIGHTHOUSE, address, f"--port={port}", "--only-categories=accessibility",
        "--disable-storage-reset", "--output=json", "--quiet",
        *(["--preset=desktop"] if kind == "desk" else []),
    ]  # fmt: skip
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    report: dict[str, Any] = json.loads(run.stdout)
    audits = report["audits"]
    failed = [name for name, audit in audits.items() if audit["score"] == 0]
    return round(100 * report["categories"]["accessibility"]["score"]), failed


if __name__ == "__main__":
    app()
