"""`make demo`: the main jobs on real data, in a few minutes on two cores.

Compresses ResNet-20 under three limits at once for Fashion-MNIST where its files are (Debian's package
dataset-fashion-mnist, or the folder in FASHION_MNIST), otherwise for scikit-learn's digits; then sweeps three modes and
uniform width over two budgets, recommends one network under limits, and writes the report. The images are made smaller
(16x16) and few, so that two cores are done in some minutes; the accuracies are those of so short a training.
Nothing is downloaded.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from pretrim.cli import main

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
RUN, STUDY, REPORT = Path("runs/demo"), Path("runs/demo-study"), Path("runs/demo-report.html")
PINNED = ["--layout", "channels_last", "--precision", "float32"]
"""Not chosen by timing: the table is the same every time (with the same number of threads)."""


def data_set() -> list[str]:
    """The options that name the data and how long to train on it."""
    folder = os.environ.get("FASHION_MNIST") or (str(DEBIAN) if DEBIAN.exists() else None)
    if folder is None:
        print("Fashion-MNIST is not on this machine (Debian: apt-get install dataset-fashion-mnist): taking digits.")
        return ["--data", "digits", "--input", "1x16x16", "--epochs", "12"]
    return ["--data", f"fashion-mnist:{folder}", "--input", "1x16x16", "--epochs", "3", "--limit", "8000"]


def run(*arguments: str) -> None:
    """A command as a user would type it; the demo ends where one fails."""
    print("\n$ pretrim", " ".join(arguments), flush=True)
    try:
        main(arguments)
    except SystemExit as end:
        if end.code:
            sys.exit(end.code)


if __name__ == "__main__":
    for old in (RUN, STUDY):
        shutil.rmtree(old, ignore_errors=True)
    RUN.parent.mkdir(exist_ok=True)
    limits = ["--macs", "0.4x", "--params", "0.4x", "--ram", "0.75x"]
    run("compress", "resnet20", *data_set(), *limits, *PINNED, "--with-dense", "-o", str(RUN))
    budgets = ["--modes", "balanced,params,macs,uniform", "--keep", "0.5,0.25"]
    workers = str(min(os.cpu_count() or 1, 4))
    run("sweep", "resnet20", *data_set(), *budgets, *PINNED, "--workers", workers, "-o", str(STUDY))
    run("recommend", str(STUDY), "--params", "0.4x", "--ram", "0.8x")
    run("report", str(STUDY), "-o", str(REPORT))
    print(f"\nOpen {REPORT} in a browser: move a limit, click a point.")
