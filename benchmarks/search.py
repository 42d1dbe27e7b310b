"""Question: does a zero-cost score, computed on untrained networks, choose better plans than chance?

At half the MACs of ResNet-20 (CIFAR-10, short trainings): the best of 100 random plans by NASWOT, SynFlow and ZiCo, 5
random plans without selection, and uniform width; 3 seeds of each. It is run as a study and is therefore resumable.

    python benchmarks/search.py --data cifar10:../shared/data/cifar10 [--workers 2]    # 24 + 3 trainings
    python benchmarks/search.py --table

The study is stored in build/search, the records for the table in benchmarks/results/search.jsonl.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

from pretrim.study.settings import StudyConfig, TrialSpec
from pretrim.study.sweep import make_study, sweep
from pretrim.train import Execution, Recipe

HERE = Path(__file__).parent
RECORDS, TABLE = HERE / "results" / "search.jsonl", HERE / "results" / "search.md"
FOLDER = HERE.parent / "build" / "search"
SCORES = ("naswot", "synflow", "zico")
KEPT = ("asked", "costs", "validation_accuracy", "test_accuracy", "widths")
SEEDS, RANDOM_PLANS, CANDIDATES, KEEP = 3, 5, 100, 0.5


def planned_trials() -> dict[str, list[TrialSpec]]:
    """Trials by method of choosing the plan. Each unselected random plan has its own seed."""
    trials_of = {
        score: [TrialSpec("random", KEEP, "macs", n, score=score, candidates=CANDIDATES) for n in range(SEEDS)]
        for score in SCORES
    }
    trials_of["chance"] = [TrialSpec("random", KEEP, "macs", 100 + n) for n in range(SEEDS * RANDOM_PLANS)]
    trials_of["uniform"] = [TrialSpec("uniform", KEEP, "macs", n, round_to=1) for n in range(SEEDS)]
    return trials_of


def run(data: str, workers: int) -> None:
    settings = StudyConfig(
        model="resnet20",
        data=data,
        image=(3, 16, 16),
        limit=8000,
        recipe=Recipe(epochs=6, batch_size=64, learning_rate=0.05),
        execution=Execution(device="cpu", precision="float32", channels_last=True, compile=False, threads=1),
    )
    store = make_study(FOLDER, settings)
    trials_of = planned_trials()
    keys = {way: store.add(trials) for way, trials in trials_of.items()}
    sweep(FOLDER, store, workers=workers)
    way_of = {key: way for way, way_keys in keys.items() for key in way_keys}
    with RECORDS.open("w") as file:
        for trial in store.trials():
            if trial.state == "done" and trial.record is not None:
                record = {name: trial.record[name] for name in KEPT}
                file.write(json.dumps({"way": way_of[trial.key], **record}) + "\n")


def table() -> str:
    records = [json.loads(line) for line in RECORDS.read_text().splitlines()]
    lines = [
        "# Scores of untrained networks",
        "",
        "ResNet-20 at half the MACs, CIFAR-10 at 16x16, 8,000 images, 6 epochs; "
        f"the best of {CANDIDATES} random plans by each score.",
        "",
        "| chosen by | n | validation accuracy, % | test accuracy, % |",
        "|---|---|---|---|",
    ]
    for way in planned_trials():
        way_records = [record for record in records if record["way"] == way]
        if way_records:
            cells = [
                _mean([record[name] for record in way_records]) for name in ("validation_accuracy", "test_accuracy")
            ]
            lines.append(f"| {way} | {len(way_records)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _mean(values: list[float]) -> str:
    return f"{100 * statistics.fmean(values):.2f} ± {100 * statistics.stdev(values) if len(values) > 1 else 0:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", default="cifar10:../shared/data/cifar10")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    if not options.table:
        run(options.data, options.workers)
    TABLE.write_text(table())


if __name__ == "__main__":
    main()
