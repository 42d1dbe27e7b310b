"""Releases: the wheel and the sdist contain every file that the code reads, and the wheel runs without a checkout."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import pretrim

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-d", str(folder)], cwd=ROOT, check=True)
    return folder


def run(*command: object, cwd: Path) -> str:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run([str(word) for word in command], cwd=cwd, env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_archives_contain_every_file_of_the_package(distributions: Path) -> None:
    source = ROOT / "src"
    files = {
        path.relative_to(source).as_posix()
        for path in source.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    (wheel,), (sdist,) = distributions.glob("*.whl"), distributions.glob("*.tar.gz")
    assert wheel.name.startswith(f"pretrim-{pretrim.__version__}-") and {"pretrim/py.typed"} <= files
    inside = set(zipfile.ZipFile(wheel).namelist())
    assert files <= inside
    assert {name for name in inside if not name.startswith("pretrim/")} == {
        f"pretrim-{pretrim.__version__}.dist-info/{name}"
        for name in ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE")
    }
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {f"src/{name}" for name in files} | {"README.md", "LICENSE", "pyproject.toml"} <= names


def test_the_wheel_runs_in_an_environment_of_its_own(distributions: Path, tmp_path: Path) -> None:
    """Its dependencies are linked from the environment of the tests; pretrim itself comes from the wheel."""
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv", cwd=tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip())
    (wheel,) = distributions.glob("*.whl")
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index")
    run(*pip, wheel, cwd=tmp_path)
    packages = [path for path in Path(sysconfig.get_path("purelib")).iterdir() if "pretrim" not in path.name]
    for path in packages:  # all but pretrim itself, which is an editable install there
        if not (site / path.name).exists():
            (site / path.name).symlink_to(path)
    home = run(python, "-c", "import pretrim; print(pretrim.__file__)", cwd=tmp_path).strip()
    assert Path(home).is_relative_to(tmp_path)
    pretrim_command = tmp_path / "venv" / "bin" / "pretrim"
    assert run(pretrim_command, "--version", cwd=tmp_path).strip() == f"pretrim {pretrim.__version__}"
    assert "demo" in run(pretrim_command, "--help", cwd=tmp_path)
    assert "nrf52840" in run(pretrim_command, "devices", cwd=tmp_path)  # data files
    assert "kept" in run(pretrim_command, "plan", "resnet20", "--macs", "0.5x", cwd=tmp_path)


def test_the_dockerfile_uses_existing_files_extras_and_versions() -> None:
    """Nothing stops a build: no missing file, no unknown extra, no torch or Python that pyproject.toml excludes."""
    dockerfile = (ROOT / "Dockerfile").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (extras,) = re.findall(r"^ARG EXTRAS=(.*)$", dockerfile, re.MULTILINE)
    assert set(extras.split(",")) <= project["optional-dependencies"].keys()
    (torch,) = re.findall(r"^ARG TORCH=(.*)$", dockerfile, re.MULTILINE)
    requirement = next(
        Requirement(dependency) for dependency in project["dependencies"] if dependency.startswith("torch")
    )
    assert torch in requirement.specifier
    (python,) = set(re.findall(r"^FROM python:([\d.]+)-slim", dockerfile, re.MULTILINE))
    assert python in SpecifierSet(project["requires-python"])
    copied = [
        word for line in re.findall(r"^COPY (?!--from)(.*)$", dockerfile, re.MULTILINE) for word in line.split()[:-1]
    ]
    assert copied and all((ROOT / name).exists() for name in copied)
    assert {project["readme"], *project["license-files"]} <= {*copied}  # hatchling reads them
