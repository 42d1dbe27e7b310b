"""Claim: pretrim works with the lowest dependency versions declared in pyproject.toml. They are installed and used.

    python scripts/lowest_versions.py [FOLDER]     # a few hundred MB from the package index

The packages are installed at their lowest versions into a separate folder (`pip install --target`), which takes
precedence over the environment. torch and the dependencies of these packages stay those of the environment. Prints the
versions, then each command with its result.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
EXTRAS = ("data", "study", "onnx")
KEPT = ("torch",)
"""Packages of the environment that are kept. Another torch would take gigabytes, and which versions run depends on the
machine."""
NET = """
from torch import nn
def build(num_classes=10, in_channels=1):
    return nn.Sequential(nn.Conv2d(in_channels, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, num_classes))
"""
SMALL = ["--data", "digits", "--input", "1x8x8", "--max-images", "100", "--epochs", "1"]
COMMANDS = [
    ["-h"],
    ["plan", "-h"],
    ["plan", "net.py:build", "--input", "1x8x8", "--params", "0.5x", "--round-to", "1", "-o", "plan.json"],
    ["compress", "net.py:build", *SMALL, "--plan", "plan.json", "-o", "run"],
    ["evaluate", "run", "--data", "digits", "--model", "net.py:build"],
    ["export", "run", "--runtime", "onnx", "--model", "net.py:build"],
    ["measure", "run", "--runs", "5", "--processes", "1"],
    [
        "sweep",
        "net.py:build",
        *SMALL,
        "--modes",
        "params",
        "--budget-fraction",
        "0.5",
        "--round-to",
        "1",
        "-o",
        "study",
    ],
    ["recommend", "study", "--params", "0.9x"],
    ["report", "study", "-o", "report.html"],
]


def lowest() -> list[str]:
    """``name==version`` for every dependency with a lower bound, except `KEPT`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    requirements = [
        *project["dependencies"],
        *(requirement for extra in EXTRAS for requirement in project["optional-dependencies"][extra]),
    ]
    pins = []
    for requirement in requirements:
        matched = re.fullmatch(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?>=([0-9.]+).*", requirement)
        if matched is not None and matched[1] not in KEPT:
            pins.append(f"{matched[1]}=={matched[2]}")
    return pins


def main() -> int:
    """Install the packages and run the commands. Returns the exit code, 1 if any command failed."""
    with tempfile.TemporaryDirectory() as temporary_folder:
        folder = Path(sys.argv[1] if len(sys.argv) > 1 else temporary_folder).resolve()
        packages, work = folder / "packages", folder / "work"
        work.mkdir(parents=True, exist_ok=True)
        print("installing", *lowest(), flush=True)
        pip = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--no-compile",
            "--target",
            str(packages),
        ]
        subprocess.run([*pip, "--upgrade", *lowest()], check=True)
        (work / "net.py").write_text(NET)
        path = os.pathsep.join([str(packages), str(ROOT / "src")])
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        failed = 0
        for arguments in COMMANDS:
            command = [sys.executable, "-m", "pretrim", *arguments]
            completed = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True)
            failed += completed.returncode != 0
            message = "" if completed.returncode == 0 else f": {completed.stderr.strip().splitlines()[-1][:300]}"
            print(
                f"{'ok' if completed.returncode == 0 else 'FAILED'}  pretrim {' '.join(arguments)}{message}", flush=True
            )
        return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
