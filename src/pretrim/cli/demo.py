"""`pretrim demo`: the main jobs on real data, in a few minutes on two cores.

The images are few and scaled down to 16x16, and training is short, which limits the accuracies. Nothing is downloaded.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from pretrim.errors import UsageError

from . import render
from .steps import pretrim

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
PINNED = ("--layout", "channels_last", "--precision", "float32")
"""Fixed instead of chosen by timing, so that the table is reproducible (with the same number of threads)."""


def demo(
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"], metavar="FOLDER", help="New folder to save in.")] = Path(
        "pretrim-demo"
    ),
    overwrite: Annotated[bool, Parameter(help="Replace what an earlier demo left in it.")] = False,
) -> None:
    """Show the main jobs on real images, in a few minutes.

    On Fashion-MNIST where its files are (the folder in FASHION_MNIST, or Debian's package dataset-fashion-mnist), else
    on scikit-learn's digits, made hard.
    """
    run, study, report = output / "run", output / "study", output / "report.html"
    if overwrite:
        _remove_earlier(run, study)
    elif output.exists():
        raise UsageError(f"{output} exists: choose another folder with -o, or --overwrite.")
    output.mkdir(parents=True, exist_ok=True)
    data = _data_set()
    limits = ("--macs", "0.4x", "--params", "0.4x", "--ram", "0.75x")
    pretrim("compress", "resnet20", *data, *limits, *PINNED, "--dense", "-o", run)
    widths = ("--modes", "balanced,params,macs,uniform", "--budget-fraction", "0.3,0.08")
    workers = ("--workers", min(os.cpu_count() or 1, 4))
    pretrim("sweep", "resnet20", *data, *widths, *PINNED, *workers, "-o", study)
    pretrim("recommend", study, "--params", "0.4x", "--ram", "0.8x")
    pretrim("report", study, "-o", report)
    render.say(f"\nOpen {report} in a browser: move a limit, click a point.")


def _data_set() -> tuple[str, ...]:
    """The options for the data set and the length of training."""
    folder = os.environ.get("FASHION_MNIST") or (str(DEBIAN) if DEBIAN.exists() else None)
    if folder is not None:
        return ("--data", f"fashion-mnist:{folder}", "--input", "1x16x16", "--epochs", "3", "--max-images", "8000")
    render.say(
        "Fashion-MNIST is not on this machine (Debian: apt-get install dataset-fashion-mnist): taking hard-digits."
    )
    return ("--data", "hard-digits", "--input", "1x16x16", "--epochs", "20", "--batch-size", "32")


def _remove_earlier(*folders: Path) -> None:
    """Remove folders that `pretrim` wrote, recognised by the record of a run or the database of a study."""
    import shutil

    for folder in folders:
        if (folder / "run.json").exists() or (folder / "study.db").exists():
            shutil.rmtree(folder)
