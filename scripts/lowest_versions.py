"""Claim: the lowest versions that pyproject.toml declares do the whole job. They are installed and used.

    python scripts/lowest_versions.py [FOLDER]     # a few hundred MB from the package index

Each package is laid over the environment at its lowest version, into a folder of its own (`pip install --target`);
torch stays the one that is there, and so does what these packages need themselves. Prints versions, then each command.
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
"""Another torch would be gigabytes; its lowest version is a matter of the machine that this runs on."""
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
    """``name==version`` of everything with a lower bound."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [
        *project["dependencies"],
        *(entry for extra in EXTRAS for entry in project["optional-dependencies"][extra]),
    ]
    found = []
    for entry in wanted:
        match = re.fullmatch(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?>=([0-9.]+).*", entry)
        if match is not None and match[1] not in KEPT:
            found.append(f"{match[1]}=={match[2]}")
    return found


def main() -> int:
    """Install, then use; the exit code says whether everything worked."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(sys.argv[1] if len(sys.argv) > 1 else made).resolve()
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
        for words in COMMANDS:
            call = [sys.executable, "-m", "pretrim", *words]
            done = subprocess.run(call, cwd=work, env=environment, capture_output=True, text=True)
            failed += done.returncode != 0
            said = "" if done.returncode == 0 else f": {done.stderr.strip().splitlines()[-1][:300]}"
            print(f"{'ok' if done.returncode == 0 else 'FAILED'}  pretrim {' '.join(words)}{said}", flush=True)
        return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
