"""Pictures of a report as a browser shows it, for the README and for looking at it.

    python scripts/screenshot.py runs/demo-report.html docs/images/report.png [--dark] [--width 1200] [--height 1500]

Needs playwright and a Chromium (Debian: apt-get install chromium).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from playwright.sync_api import sync_playwright

CHROMIUM = ("/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("page", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--width", type=int, default=1200)
    parser.add_argument("--height", type=int, default=0, help="0: the whole page")
    options = parser.parse_args()
    executable = next(path for path in CHROMIUM if Path(path).exists())
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(
            viewport={"width": options.width, "height": options.height or 900},
            color_scheme="dark" if options.dark else "light",
        )
        page.goto(options.page.resolve().as_uri())
        page.wait_for_selector("#tradeoff .plotly")
        page.wait_for_timeout(500)
        options.picture.parent.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=options.picture, full_page=not options.height)
        browser.close()


if __name__ == "__main__":
    main()
