"""Take screenshots of a report in a browser, for the README and for inspection.

    python scripts/screenshot.py runs/demo-report.html docs/images/report.png [--dark] [--width 1400] [--height 900]
    python scripts/screenshot.py runs/demo-report.html pictures/ --all

`--all` takes the page in desktop and phone size, light and dark, in full and as first shown, and also as a PDF.
Needs playwright and a Chromium (Debian: apt-get install chromium).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

CHROMIUM = ("/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome")
SCREENS = {"desktop": (1400, 900), "phone": (390, 844)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("page", type=Path)
    parser.add_argument("picture", type=Path, help="the file; with --all, a folder")
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--width", type=int, default=1400)
    parser.add_argument("--height", type=int, default=0, help="0: the whole page")
    parser.add_argument("--state", default="", help="of the page, as its address has it: net=KEY&board=stm32h743")
    parser.add_argument("--all", action="store_true")
    options = parser.parse_args()
    address = options.page.resolve().as_uri() + (f"#{options.state}" if options.state else "")
    with chromium() as browser:
        if options.all:
            take_all(browser, address, options.picture)
        else:
            options.picture.parent.mkdir(parents=True, exist_ok=True)
            take(browser, address, options.picture, options.width, options.height, dark=options.dark)


@contextmanager
def chromium() -> Iterator[Any]:
    executable = next(path for path in CHROMIUM if Path(path).exists())
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


def take_all(browser: Any, address: str, folder: Path) -> None:
    """Take the page on each screen in both colour schemes, and as a PDF."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (width, height) in SCREENS.items():
        for dark in (False, True):
            scheme = "dark" if dark else "light"
            take(browser, address, folder / f"{name}-{scheme}-first.png", width, height, dark=dark)
            take(browser, address, folder / f"{name}-{scheme}.png", width, 0, dark=dark)
    page = open_page(browser, address, *SCREENS["desktop"], dark=True)
    page.pdf(path=folder / "paper.pdf", format="A4", prefer_css_page_size=True, print_background=True)
    page.close()


def take(browser: Any, address: str, picture: Path, width: int, height: int, *, dark: bool) -> None:
    page = open_page(browser, address, width, height or 900, dark=dark)
    page.screenshot(path=picture, full_page=not height)
    page.close()


def open_page(browser: Any, address: str, width: int, height: int, *, dark: bool) -> Any:
    scheme = "dark" if dark else "light"
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    page.on("console", lambda message: print(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: print(error))
    page.goto(address)
    page.wait_for_selector("body[data-ready]")
    page.wait_for_timeout(300)
    return page


if __name__ == "__main__":
    main()
