"""Every example in the documentation runs as written and prints what the page shows."""

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
    """(page, code, output) for every fenced Python block whose output the page shows."""
    pattern = re.compile(r"```python\n(.*?)```\n+prints\n+```\n(.*?)```", re.DOTALL)
    return [(page.name, *match) for page in PAGES for match in pattern.findall(page.read_text())]


def commands(page: Path) -> list[str]:
    """The indented lines of a page that begin with `pretrim`, without their comments."""
    lines = re.findall(r"^    (pretrim .*)$", page.read_text(), re.MULTILINE)
    return [line.partition("#")[0].strip() for line in lines]


@pytest.mark.parametrize(("page", "code", "output"), python_examples())
def test_a_python_example_prints_what_the_page_shows(page: str, code: str, output: str, tmp_path: Path) -> None:
    uses_other_packages = "lightning" in code or "timm" in code
    flags = [] if uses_other_packages else ["-W", "error"]  # those packages issue warnings of their own
    result = subprocess.run([sys.executable, *flags, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout == output


def test_the_readme_has_a_python_example() -> None:
    assert [page for page, _, _ in python_examples()].count("README.md") >= 1


@pytest.mark.parametrize(
    ("page", "minimum"),
    [("README.md", 5), ("docs/training.md", 3), ("docs/deploy.md", 10), ("docs/study.md", 3), ("docs/tutorial.md", 9)],
)
def test_the_commands_of_a_page_run_in_order(
    tmp_path: Path, page: str, minimum: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("L", (8, 8), 128).save(tmp_path / "digit.png")
    unavailable = ("raspberrypi.local", "postgresql+psycopg", "hf:me/")  # no such board or server here
    lines = [line for line in commands(ROOT / page) if not any(name in line for name in unavailable)]
    assert len(lines) >= minimum
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if page == "docs/tutorial.md":  # the page has the code of its network and of its images
        network, images = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
        (tmp_path / "my_net.py").write_text(network)
        subprocess.run([sys.executable, "-c", images], cwd=tmp_path, check=True)
    for line in lines:
        command = [sys.executable, "-m", *shlex.split(line)]
        result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        assert result.returncode == 0, f"{line}\n{result.stderr}"
        assert result.stdout.strip(), line
    if page == "docs/study.md":  # its Python example reads the study that the commands made
        (code,) = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
        assert result.returncode == 0, result.stderr


def test_links_between_pages_resolve() -> None:
    for page in PAGES:
        text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", text):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
