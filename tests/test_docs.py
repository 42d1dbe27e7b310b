"""Every example of the documentation runs, as written, and prints what the page shows."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def python_examples() -> list[tuple[str, str, str]]:
    """(page, code, what it prints) of every fenced Python block that shows its output."""
    pattern = re.compile(r"```python\n(.*?)```\n+prints\n+```\n(.*?)```", re.DOTALL)
    return [(page.name, *match) for page in PAGES for match in pattern.findall(page.read_text())]


def commands(page: Path) -> list[str]:
    """The indented lines of a page that begin with `pretrim`, without their remarks."""
    lines = re.findall(r"^    (pretrim .*)$", page.read_text(), re.MULTILINE)
    return [line.partition("#")[0].strip() for line in lines]


@pytest.mark.parametrize(("page", "code", "printed"), python_examples())
def test_a_python_example_prints_what_the_page_shows(page: str, code: str, printed: str, tmp_path: Path) -> None:
    foreign = "lightning" in code or "timm" in code
    flags = [] if foreign else ["-W", "error"]  # they warn of matters of their own
    result = subprocess.run([sys.executable, *flags, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout == printed


def test_the_readme_has_a_python_example() -> None:
    assert [page for page, _, _ in python_examples()].count("README.md") >= 1


@pytest.mark.parametrize(
    ("page", "least"),
    [("README.md", 5), ("docs/training.md", 3), ("docs/deploy.md", 10), ("docs/study.md", 3), ("docs/tutorial.md", 9)],
)
def test_the_commands_of_a_page_run_in_their_order(
    tmp_path: Path, page: str, least: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("L", (8, 8), 128).save(tmp_path / "digit.png")
    away = ("raspberrypi.local", "postgresql+psycopg", "hf:me/")  # no such board or server here
    lines = [line for line in commands(ROOT / page) if not any(name in line for name in away)]
    assert len(lines) >= least
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if page == "docs/tutorial.md":  # its network, and its images
        network, images = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
        (tmp_path / "my_net.py").write_text(network)
        subprocess.run([sys.executable, "-c", images], cwd=tmp_path, check=True)
    for line in lines:
        call = [sys.executable, "-m", *shlex.split(line)]
        result = subprocess.run(call, capture_output=True, text=True, cwd=tmp_path)
        assert result.returncode == 0, f"{line}\n{result.stderr}"
        assert result.stdout.strip(), line
    if page == "docs/study.md":  # its example reads the study that its commands made
        (code,) = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
        assert result.returncode == 0, result.stderr


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", text):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
