"""Claim: the time a sweep spends on one more trial does not grow with the number of stored trials.

    python benchmarks/scaling_sweep.py        # a minute or two; writes results/scaling_sweep.md

No network is trained: each trial is claimed, finishes an epoch, is stored, seen by the sweep and reported to Optuna, as
by a worker and a sweep, on SQLite in memory, to exclude disk time. Each block of 250 trials is timed, up to 2,000
stored trials.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np

from pretrim.study.settings import StudyConfig, TrialSpec
from pretrim.study.sweep import _Sweep, make_study

RESULT = Path(__file__).parent / "results" / "scaling_sweep.md"
TRIALS, BLOCK, EPOCHS = 2_000, 250, 30
COSTS = ("params", "macs", "weight_bytes", "activation_bytes", "peak_activation_bytes")


def record(number: int) -> dict[str, object]:
    """The record of a synthetic trial of thirty epochs."""
    accuracy = (number % 97) / 100
    costs = dict.fromkeys(COSTS, 1000 + number)
    curve = [[1.0, accuracy, accuracy]] * EPOCHS
    results = {"validation_accuracy": accuracy, "test_accuracy": accuracy, "epochs": curve, "widths": [8] * 30}
    return {"costs": costs, "dense": costs, **results, "seconds": 1.0}


def timed(folder: Path) -> list[float]:
    """Milliseconds per trial, for each block."""
    store = make_study(folder, StudyConfig(model="resnet20", data="digits"))
    store.add([TrialSpec("params", 0.5, "params", seed) for seed in range(TRIALS)])
    sweep = _Sweep(folder, store, 1, None, lambda status: None)
    blocks = []
    for start in range(0, TRIALS, BLOCK):
        start_time = time.perf_counter()
        for number in range(start, start + BLOCK):
            trial = store.claim()
            assert trial is not None and store.advance(trial.key) and store.finish(trial.key, record(number))
            assert len(sweep.look().finished) == 1
        blocks.append(1e3 * (time.perf_counter() - start_time) / BLOCK)
        print(f"{start + BLOCK} stored: {blocks[-1]:.1f} ms a trial", flush=True)
    sweep.mirror.close()
    return blocks


def main() -> None:
    """Measure, and write the page."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        blocks = timed(Path(folder) / "study")
    stored = [BLOCK * (number + 1) for number in range(len(blocks))]
    slope = float(np.polyfit(stored, blocks, 1)[0])
    rows = [f"| {count:,} | {value:.1f} |" for count, value in zip(stored, blocks, strict=True)]
    lines = [
        "# One more trial of a sweep",
        "",
        f"SQLite on a file system in memory, {EPOCHS} epochs a trial, no training; by `benchmarks/scaling_sweep.py`.",
        "",
        "| trials stored | ms a trial |",
        "|---:|---:|",
        *rows,
        "",
        f"Slope: {1e3 * slope:.1f} ms for 1,000 more stored trials.",
    ]
    RESULT.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
