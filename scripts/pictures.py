"""The README's pictures: commands in a terminal as SVG, and a browser screenshot of the committed study's report.

    python scripts/pictures.py            # docs/images/terminal.svg, docs/studies/cifar10-resnet20/report.png
    python scripts/pictures.py --look DIR # also render the SVG as PNG into DIR, for inspection

The commands are run in a pseudo-terminal of `COLUMNS` columns, and their output is drawn unchanged; their progress,
which goes to stderr, is not part of the picture. Needs playwright and a Chromium (Debian: chromium).
"""

from __future__ import annotations

import argparse
import fcntl
import io
import os
import pty
import re
import shlex
import struct
import subprocess
import sys
import tempfile
import termios
from pathlib import Path

from report_of_trials import described, read
from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text
from screenshot import chromium, take

from pretrim.report import Shown, contents, write_page

ROOT = Path(__file__).resolve().parent.parent
TERMINAL = ROOT / "docs" / "images" / "terminal.svg"
STUDY = ROOT / "docs" / "studies" / "cifar10-resnet20"
COLUMNS, ROWS = 88, 60
COMMANDS = (
    "pretrim plan resnet20 --macs 0.4x --params 90k",
    """pretrim compress resnet20 --data hard-digits --input 1x16x16 \\
      --macs 0.4x --params 90k --epochs 12 --dense -o run""",
)
REPORT = {"width": 1200, "height": 1500, "state": "max-params=130000&board=nrf52840"}
THEME = TerminalTheme(
    (250, 250, 248),
    (36, 41, 47),
    [
        (36, 41, 47),
        (196, 43, 28),
        (17, 99, 41),
        (149, 97, 0),
        (9, 80, 198),
        (130, 55, 200),
        (27, 124, 131),
        (87, 96, 106),
    ],
)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--look", type=Path, help="folder for the SVG as PNG")
    options = parser.parse_args()
    TERMINAL.parent.mkdir(exist_ok=True)
    TERMINAL.write_text(terminal_svg(COMMANDS), encoding="utf-8")
    with chromium() as browser:
        report_picture(browser, STUDY / "report.png")
        if options.look is not None:
            options.look.mkdir(parents=True, exist_ok=True)
            page = browser.new_page(viewport={"width": 1100, "height": 900})
            page.goto(TERMINAL.as_uri())
            page.screenshot(path=options.look / "terminal.png")


def terminal_svg(commands: tuple[str, ...]) -> str:
    """The terminal after these commands, as SVG. No font is downloaded: the viewer's own monospace font is used."""
    console = Console(
        record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor", highlight=False
    )
    with tempfile.TemporaryDirectory() as folder:
        for command in commands:
            console.print(Text.assemble(("$ ", "bold green"), (command, "bold")), soft_wrap=False)
            console.print(Text.from_ansi(run(command, Path(folder)).rstrip()))
            console.print()
    svg = console.export_svg(title="pretrim", theme=THEME, unique_id="pretrim")
    svg = re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.DOTALL)
    return "\n".join(line.rstrip() for line in svg.replace("Fira Code, monospace", "monospace").splitlines()) + "\n"


def run(command: str, folder: Path) -> str:
    """The output of a command whose stdout is a terminal. Raises CalledProcessError if it fails."""
    reader, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    words = [sys.executable, "-m", *shlex.split(command.replace("\\\n", ""))]
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS)}
    process = subprocess.Popen(words, stdout=terminal, stderr=subprocess.DEVNULL, cwd=folder, env=environment)
    os.close(terminal)
    chunks = []
    try:
        while chunk := os.read(reader, 1 << 16):
            chunks.append(chunk)
    except OSError:  # Linux raises EIO once the other side is closed
        pass
    os.close(reader)
    if process.wait():
        raise subprocess.CalledProcessError(process.returncode, command)
    return b"".join(chunks).decode().replace("\r\n", "\n")


def report_picture(browser: object, picture: Path) -> None:
    """Take a screenshot of the committed study's report, with a limit and a board selected."""
    report = Shown(STUDY.name, read(STUDY / "trials.jsonl"), described("resnet20", "CIFAR-10", (3, 16, 16), 10))
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        write_page(page, f"{report.name}: trade-off", contents(report))
        address = f"{page.as_uri()}#{REPORT['state']}"
        take(browser, address, picture, REPORT["width"], REPORT["height"], dark=False)


if __name__ == "__main__":
    main()
