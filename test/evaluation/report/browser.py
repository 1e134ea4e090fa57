"""A headless Chromium for pages on disk, and pictures of them.

``python test/evaluation/report/browser.py PAGE.html PICTURE.png [WIDTH] [light|dark]`` takes one.
"""

from __future__ import annotations

import contextlib
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
    """Starts Chromium; without its sandbox, which containers often cannot give it."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


def main(page: str, picture: str, width: str = "1280", scheme: str = "light") -> None:
    """Takes a picture of a whole page."""
    size = {"width": int(width), "height": 900}
    with open_browser() as browser:
        tab = browser.new_page(viewport=size, color_scheme=scheme)
        tab.goto(Path(page).resolve().as_uri())
        tab.screenshot(path=picture, full_page=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
