"""A headless Chromium for pages on disk, and screenshots of them.

``python test/evaluation/report/browser.py PAGE.html PICTURE.png [WIDTH [light|dark [UNTIL]]]``
"""

from __future__ import annotations

import contextlib
import io
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser

NAMES = ("chromium", "chromium-browser", "chrome", "google-chrome", "google-chrome-stable")


def chromium() -> str | None:
    """Path of a Chromium on PATH."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextlib.contextmanager
def open_browser() -> Iterator[Browser]:
    """Starts Chromium without its sandbox, which containers often do not support."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


def main(
    page: str, picture: str, width: str = "1180", scheme: str = "light", until: str = ""
) -> None:
    """Saves a screenshot of a page in 256 colours, down to the element selected by UNTIL."""
    from PIL import Image

    with open_browser() as browser:
        tab = browser.new_page(viewport={"width": int(width), "height": 900}, color_scheme=scheme)
        tab.goto(Path(page).resolve().as_uri())
        box = tab.locator(until or "footer").bounding_box()
        height = box["y"] + (0 if until else box["height"])
        clip = {"x": 0, "y": 0, "width": int(width), "height": height}
        taken = tab.screenshot(full_page=True, clip=clip)
    few = Image.open(io.BytesIO(taken)).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    few.save(picture, optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
