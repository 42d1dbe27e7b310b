"""Stages the documentation for mkdocs: `python scripts/docs_site.py`, then `mkdocs build --strict` (`make docs`).

The pages are the Markdown files of the repository. They are copied into build/docs with every file that they link to,
at the same relative paths, so that their links stay valid; the reference pages are generated from the code.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STAGED = ROOT / "build" / "docs"
PAGES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "docs/*.md")
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
LISTED = re.compile(r"^(- .*|\d+\. .*)$")

PYTHON = """# Python

The whole job:

::: pretrim.compress
::: pretrim.sweep
::: pretrim.open_run
::: pretrim.open_study
::: pretrim.Run
::: pretrim.Study

Step by step, with a training loop of your own:

::: pretrim.analyze
::: pretrim.plan
::: pretrim.apply
::: pretrim.save
::: pretrim.load
::: pretrim.Network
::: pretrim.Plan

Errors:

::: pretrim.errors
"""


def main() -> None:
    """Stage all pages."""
    shutil.rmtree(STAGED, ignore_errors=True)
    pages = [path for pattern in PAGES for path in sorted(ROOT.glob(pattern))]
    staged: set[Path] = set()
    while pages:
        path = pages.pop()
        if path in staged:
            continue
        staged.add(path)
        target = STAGED / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".md":
            text = path.read_text()
            pages += linked(path, text)
            target.write_text(with_lists(text))
        else:
            shutil.copyfile(path, target)
    write_reference()


def linked(page: Path, text: str) -> Iterator[Path]:
    """The files of the repository that a page links to."""
    for link in LINK.findall(text):
        path = (page.parent / link).resolve()
        if path.is_file() and path.is_relative_to(ROOT):
            yield path


def with_lists(text: str) -> str:
    """Insert a blank line before every list that follows a paragraph: Python-Markdown needs it, GitHub does not."""
    lines: list[str] = []
    in_code_block = False
    for line in text.splitlines():
        in_code_block ^= line.startswith("```")
        previous = lines[-1] if lines else ""
        if (
            not in_code_block
            and LISTED.match(line)
            and previous
            and not LISTED.match(previous)
            and not previous.startswith(" ")
        ):
            lines.append("")
        lines.append(line)
    return "\n".join(lines) + "\n"


def write_reference() -> None:
    """Write the reference pages: the input for mkdocstrings, and the help of every command."""
    from pretrim.cli import app

    folder = STAGED / "reference"
    folder.mkdir(parents=True)
    (folder / "python.md").write_text(PYTHON)
    commands = app.generate_docs(output_format="markdown")
    _, command_pages = commands.split("**Commands**:", 1)  # the page has its own title and table of contents
    (folder / "cli.md").write_text(f"# Command line\n\n{command_pages}")


if __name__ == "__main__":
    main()
