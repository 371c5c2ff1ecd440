"""Makes the pictures of the tutorial: ``python docs/tutorial/pictures.py URL --key FILE``.

It does in Chromium what ``docs/tutorial.md`` says, on a service that has the look ``<plaid>``
ready, and writes what is seen then beside this file. The screenshot of the README is ``page.webp``.
"""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Annotated

import typer
from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

from customedit.client import CustomEdit, TrainingOptions
from customedit.mini import samples

FOLDER = Path(__file__).parent
WIDTH, HEIGHT = 1120, 900
TALLEST = 1000
MINUTES_MS = 600_000
CUPS = [source.image for source in samples.sources() if source.image.stem.endswith("-cup")]
LOOK = samples.looks()[0]
SHOWS = "a photo of a cup on a table"


def main(
    url: str,
    key: Annotated[Path, typer.Option(help="File with an API key.")],
    progress: Annotated[bool, typer.Option(help="Also begin a training, to show it.")] = True,
) -> None:
    """Write all pictures."""
    text = key.read_text().strip()
    with CustomEdit(url, text) as service, sync_playwright() as playwright:
        look = next(c for c in service.concepts().items if c.token == "<plaid>" and c.preview_url)
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.set_default_timeout(MINUTES_MS)
        page.goto(url)
        page.get_by_label("API key").fill(text)
        page.get_by_role("button", name="Sign in").click()
        page.get_by_role("navigation", name="Main").wait_for()
        teach(page, url)
        if progress:
            learning(page, url, service)
        edit(page, url, look.id)
        region(page)
        versions(page)
        batch(page)
        browser.close()


def shoot(page: Page, name: str, tallest: int = TALLEST) -> None:
    """Write what is seen from the top of the page as ``name``.webp."""
    page.evaluate("window.scrollTo(0, 0)")
    page.wait_for_timeout(500)
    seen = Image.open(io.BytesIO(page.screenshot(full_page=True)))
    picture = seen.convert("RGB").crop((0, 0, seen.width, min(seen.height, tallest)))
    picture.save(FOLDER / f"{name}.webp", quality=80, method=6)
    print(name, (FOLDER / f"{name}.webp").stat().st_size, "bytes")


def send(page: Page, button: str = "Edit") -> None:
    """Press a button."""
    page.get_by_role("button", name=button, exact=True).click()


def drawn(page: Page) -> None:
    """Wait for the result of an edit."""
    page.get_by_label("The chosen picture").wait_for()
    page.get_by_label("Compare with").wait_for()
    page.wait_for_load_state("networkidle")


def teach(page: Page, url: str) -> None:
    """The form of a look, filled in and left."""
    page.goto(f"{url}/#/teach")
    page.locator("input[type=file]").set_input_files(LOOK.images)
    page.get_by_label("What the pictures show").fill("cup")
    page.get_by_label("Token", exact=True).fill("<plaid>")
    page.get_by_label("Name", exact=True).fill("Plaid")
    page.get_by_text("steps of training").wait_for()
    shoot(page, "teach")
    send(page, "Start anew")


def learning(page: Page, url: str, service: CustomEdit) -> None:
    """A training that is shown while it runs and then cancelled."""
    job = service.customize(
        references=[service.upload(path).id for path in LOOK.images],
        noun="cup", token="<plaid>", name="Plaid",
        training=TrainingOptions(steps=250, class_images=2, class_steps=4, preview_every=40),
    )  # fmt: skip
    page.goto(f"{url}/#/jobs/{job.id}")
    page.get_by_role("heading", name="Preview").wait_for()
    shoot(page, "learning", 760)
    service.cancel(job.id)


def edit(page: Page, url: str, look: str) -> None:
    """The form of an edit, and its result."""
    page.goto(f"{url}/#/edit?concept={look}")
    page.locator("input[type=file]").first.set_input_files(CUPS[0])
    page.get_by_label("What it shows").fill(SHOWS)
    send(page, "Write it from the line above")
    page.get_by_text("of 40 tokens").first.wait_for()
    page.get_by_text("It will be done").wait_for()
    shoot(page, "edit", 1200)
    send(page)
    drawn(page)
    shoot(page, "page")
    page.get_by_role("button", name="Attention of cup").focus()
    shoot(page, "result")


def region(page: Page) -> None:
    """The region that was found, painted on."""
    page.get_by_role("link", name="Adjust the region").click()
    surface = page.locator(".surface")
    surface.wait_for()
    page.wait_for_load_state("networkidle")
    box = surface.bounding_box()
    assert box is not None
    at = [(0.62, 0.42), (0.68, 0.55), (0.66, 0.7)]
    page.mouse.move(box["x"] + box["width"] * at[0][0], box["y"] + box["height"] * at[0][1])
    page.mouse.down()
    for x, y in at[1:]:
        page.mouse.move(box["x"] + box["width"] * x, box["y"] + box["height"] * y, steps=5)
    page.mouse.up()
    shoot(page, "region")
    send(page)
    drawn(page)


def versions(page: Page) -> None:
    """A continued version and a branch, compared."""
    target = page.get_by_label("What it is to show")
    page.get_by_role("link", name="Continue from this picture").click()
    page.get_by_role("button", name="Version 1").wait_for()
    target.fill("a photo of a patterned cup on a red table")
    send(page)
    drawn(page)
    page.get_by_label("Versions", exact=True).get_by_role("link", name="Continue").nth(-2).click()
    page.get_by_role("button", name="Version 1").wait_for()
    target.fill("a photo of a patterned cup on a green table")
    send(page)
    drawn(page)
    page.get_by_label("Compare with").select_option(index=1)
    page.wait_for_load_state("networkidle")
    shoot(page, "versions", 1400)


def batch(page: Page) -> None:
    """Three pictures with one form."""
    page.get_by_role("link", name="Edit", exact=True).click()
    send(page, "Start anew")
    page.locator("input[type=file]").first.set_input_files(CUPS[:3])
    page.get_by_role("checkbox", name="<plaid>").first.check()
    page.get_by_label("What it shows").fill(SHOWS)
    send(page, "Write it from the line above")
    send(page, "Edit 3 pictures")
    expect(page.get_by_text("3 succeeded")).to_be_visible(timeout=MINUTES_MS)
    page.wait_for_load_state("networkidle")
    shoot(page, "batch", 760)


if __name__ == "__main__":
    typer.run(main)
