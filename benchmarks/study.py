"""Claims: `recommend` and `report` take 10 s and 1 GiB for 10,000 stored trials; a front of 100,000 points takes 1 s.

    python benchmarks/study.py         # a minute; writes results/study.md

The trials are synthetic (random costs and accuracies, curves of 30 epochs, 30 widths); the database is SQLite. Each
command runs in a separate process, as for a user.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import sqlalchemy as sql

from pretrim.study import rows as tables
from pretrim.study.pareto import front
from pretrim.study.settings import StudyConfig, TrialSpec, key_of
from pretrim.study.sweep import make_study

RESULT = Path(__file__).parent / "results" / "study.md"
TRIALS, POINTS, EPOCHS, WIDTHS = 10_000, 100_000, 30, 30


def fill(folder: Path) -> None:
    """Create a study with synthetic trials."""
    random = np.random.default_rng(0)
    config = StudyConfig(model="resnet20", data="cifar10")
    store = make_study(folder, config)
    names = ("params", "macs", "weight_bytes", "activation_bytes", "peak_activation_bytes", "artifact_bytes")
    dense = dict.fromkeys((*names, "arena_bytes"), 1_000_000)
    rows = []
    for number in range(TRIALS):
        share = float(random.uniform(0.05, 0.95))
        accuracy = float(np.clip(0.9 + 0.1 * np.log10(share) + random.normal(0, 0.02), 0, 1))
        record = {
            "costs": {name: int(1_000_000 * share ** random.uniform(0.5, 1.5)) for name in dense},
            "dense": dense,
            "widths": random.integers(1, 64, WIDTHS).tolist(),
            "validation_accuracy": accuracy,
            "test_accuracy": accuracy,
            "epochs": [[1.0, round(accuracy * n / EPOCHS, 4), round(accuracy * n / EPOCHS, 4)] for n in range(EPOCHS)],
            "seconds": 60.0,
        }
        mode = ("params", "macs", "memory", "uniform")[number % 4]
        spec = TrialSpec(mode, round(share, 4), "macs", number)
        row = {"study": store.name, "key": key_of(config, spec), "number": number, "asked": json.dumps(spec.to_json())}
        row |= {"state": "done", "record": json.dumps(record), "beat": 0, "tries": 1, "published": 1}
        rows.append(row)
    with store.engine.connect() as connection:
        connection.execute(sql.insert(tables.TRIALS), rows)
    store.close()


def timed(*command: str) -> tuple[float, float]:
    """Seconds and peak memory in MiB of a command."""
    code = (
        "import resource, sys; from pretrim.cli import main\ntry: main(sys.argv[1:])\nexcept SystemExit as end: pass\n"
    )
    code += "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"
    start = time.perf_counter()
    result = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, check=True)
    return time.perf_counter() - start, int(result.stderr.splitlines()[-1]) / 1024


def main() -> None:
    lines = [
        "# A study of many trials",
        "",
        f"{TRIALS:,} trials in SQLite; medians of 3 runs, each in a process of its own.",
        "",
        "| | s | MiB | goal |",
        "|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as base:
        folder, page = Path(base) / "study", Path(base) / "report.html"
        fill(folder)
        for title, command in (
            ("recommend", ("recommend", str(folder), "--macs", "0.5x")),
            ("report", ("report", str(folder), "-o", str(page))),
        ):
            runs = [timed(*command) for _ in range(3)]
            seconds, memory = (statistics.median(column) for column in zip(*runs, strict=True))
            lines.append(f"| {title} | {seconds:.1f} | {memory:.0f} | 10 s, 1,024 MiB |")
        lines.append(f"| size of the page, MiB | | {page.stat().st_size / 2**20:.1f} | 8 MiB |")
    random = np.random.default_rng(0)
    for columns in (1, 2, 3):
        costs, values = random.random((POINTS, columns)), random.random(POINTS)
        durations = []
        for _ in range(3):
            start = time.perf_counter()
            on_front = front(costs, values)
            durations.append(time.perf_counter() - start)
        title = f"front of {POINTS:,} points, {columns} cost{'s' if columns > 1 else ''} ({on_front.sum()} on it)"
        lines.append(f"| {title} | {statistics.median(durations):.2f} | | 1 s |")
    RESULT.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
