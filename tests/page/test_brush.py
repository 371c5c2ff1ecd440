"""The edge of what is painted: soft by so much, with the mouse as with a pen that is pressed."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from playwright.sync_api import Page, expect

from customedit.jobs.store import Jobs

from ..api.conftest import Running, png
from .tab import Tab
from .test_iterating import sent_mask

SIDE = 256
SIZE = 60
DIAMETER = (0.01 + 0.49 * (SIZE / 100) ** 1.6) * SIDE
"""Of the brush, in pixels of the picture."""


def set_to(page: Page, label: str, value: int) -> None:
    page.get_by_label(label, exact=True).evaluate("(slider, to) => { slider.value = to; }", value)


def painting(tab: Tab, api: Running, soft: int) -> Page:
    """The form with a picture and a brush of ``SIZE`` with so soft an edge, in percent."""
    client = api.client()
    data = png("white", (SIDE, SIDE))
    image = client.post("/v1/images", files={"file": ("a.png", data, "image/png")}).json()["id"]
    page = tab.page
    tab.open(f"edit?image={image}")
    picture = page.get_by_alt_text("The picture to edit")
    expect(picture).to_have_js_property("naturalWidth", SIDE)
    page.get_by_label("What it shows").fill("a cup")
    page.get_by_label("What it is to show").fill("a blue cup")
    page.get_by_text("Painted", exact=True).click()
    set_to(page, "Size", SIZE)
    set_to(page, "Soft edge", soft)
    page.locator(".surface").scroll_into_view_if_needed()
    return page


def stroke(page: Page, kind: str, force: Callable[[float], float]) -> None:
    """Paint downwards through the middle, from 0.2 to 0.8 of the height. force: at each height."""
    box = page.locator(".surface").bounding_box()
    assert box is not None
    session = page.context.new_cdp_session(page)

    def send(event: str, share: float) -> None:
        place = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] * share}
        pressed = {"button": "left", "buttons": 1, "clickCount": 1, "pointerType": kind}
        message = {"type": event, "force": force(share), **pressed, **place}
        session.send("Input.dispatchMouseEvent", message)

    send("mousePressed", 0.2)
    for share in np.linspace(0.2, 0.8, 25)[1:]:
        send("mouseMoved", float(share))
    send("mouseReleased", 0.8)
    session.detach()


def painted(page: Page, api: Running, jobs: Jobs) -> NDArray[np.float64]:
    """The mask that is sent, [height, width] in [0, 1]."""
    page.get_by_role("button", name="Edit", exact=True).click()
    page.locator(".saying").wait_for()
    return sent_mask(api, jobs).astype(float) / 255


def profile(width: float, blur: float) -> NDArray[np.float64]:
    """A line through the middle of ``width``, with the shadow's Gaussian of half the blur."""
    sigma = max(blur / 2, 1e-3)
    away = np.arange(SIDE) + 0.5 - SIDE / 2
    below = np.vectorize(lambda z: 0.5 * (1 + math.erf(z / math.sqrt(2))))
    return np.asarray(below((away + width / 2) / sigma) - below((away - width / 2) / sigma))


def grey(row: NDArray[np.float64]) -> int:
    return int(((row > 0.08) & (row < 0.92)).sum())


@pytest.mark.parametrize("soft", [0, 30, 60])
def test_the_soft_edge_is_as_soft_as_it_says(tab: Tab, api: Running, jobs: Jobs, soft: int) -> None:
    page = painting(tab, api, soft)
    stroke(page, "mouse", lambda _: 0.5)  # which a mouse has always
    row = painted(page, api, jobs)[SIDE // 2]
    wanted = profile(DIAMETER * (1 - soft / 200), DIAMETER * soft / 100)
    assert np.abs(row - wanted).max() < 0.12 if soft else grey(row) <= 4
    assert abs(grey(row) - grey(wanted)) <= 6


def test_the_edge_of_a_pen_stays_soft_while_its_pressure_rises(
    tab: Tab, api: Running, jobs: Jobs
) -> None:
    page = painting(tab, api, 60)
    stroke(page, "pen", lambda share: 0.3 + (share - 0.2))  # 0.3 to 0.9
    mask = painted(page, api, jobs)
    pressure = 0.6  # in the middle, and on average
    wanted = profile(DIAMETER * 0.7 * pressure, DIAMETER * 0.6 * pressure)
    assert np.abs(mask[SIDE // 2] - wanted).max() < 0.15
    assert grey(mask[SIDE // 2]) >= 16  # on both sides
    assert mask[SIDE * 7 // 10].sum() > mask[SIDE * 3 // 10].sum()  # it grows wider
