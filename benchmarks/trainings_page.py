"""The section of docs/results.md on our own full trainings, from the records of `trainings.py`.

    python benchmarks/trainings_page.py          # benchmarks/results/trainings.md

Rows are compared in pairs: the same data set, network, limits and seed, uniform width against another way. A seed draws
the initial weights, the order of the images and the augmentation, and for the paper's mode the widths too.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import jsonl
from trainings import CELLS, RECORDS, WAYS, Cell

from pretrim.train import Recipe

Record = dict[str, Any]
PAGE = RECORDS.with_suffix(".md")
RESULTS = PAGE.parent.parent.parent / "docs" / "results.md"
HEADER = """# Results

*What the default method, `balanced`, is worth beside uniform width at the same limit.* First on tables of networks that
others trained, every network of a space; then on trainings of our own. This page is made by `benchmarks/widths.py` and
`benchmarks/trainings_page.py` from their records; nothing on it is written by hand.
[Earlier, short trainings](results-archive.md) could not tell methods apart and are kept for reference."""
NAMES = {
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "resnet20": "ResNet-20",
    "mobilenetv2 x0.5": "MobileNetV2 x0.5",
}
COSTS = {"params": "params", "macs": "MACs", "activation": "feature maps"}
SHARES = {"params": "params", "macs": "macs", "activation": "activation_bytes"}
INTRODUCTION = (
    "All {images:,} training images at 32x32, {epochs} epochs in batches of {batch_size}, one-cycle learning rate up "
    "to {learning_rate:g}, {precision}, on {machines}. Nothing was chosen by an accuracy, so no image was held out; "
    "the test images were looked at once, by the network of the last epoch. `uniform` is one width multiplier, filled "
    "up to the limit; `paper` is the paper's sampling in the mode of the limited cost, `joint` under several limits. "
    "Accuracies are means over seeds ± standard error, in per cent. Differences to uniform are taken seed by seed, "
    "also between machines (on the processor: {on_processor}); one of more than two standard errors "
    "is called *above* or *below*."
)


def estimate(values: Sequence[float]) -> tuple[float, float]:
    """Mean and its standard error, NaN of one value."""
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return statistics.fmean(values), error


def text(values: Sequence[float], sign: str = "") -> str:
    """``mean ± standard error``."""
    mean, error = estimate(values)
    return f"{mean:{sign}.2f}" + ("" if math.isnan(error) else f" ± {error:.2f}")


def verdict(differences: Sequence[float]) -> str:
    """What so many paired differences show.

    >>> verdict([1.0, 1.2, 0.9]), verdict([1.0, -1.2, 0.1]), verdict([1.0])
    ('above', 'not told apart', '')
    """
    if len(differences) < 2:
        return ""
    mean, error = estimate(differences)
    return "not told apart" if abs(mean) <= 2 * error else "above" if mean > 0 else "below"


def of_cell(records: Iterable[Record], cell: Cell, way: str) -> dict[int, Record]:
    """The newest record of every seed."""
    limits = [list(limit) for limit in cell.limits]
    return {
        record["seed"]: record
        for record in records
        if (record["data"], record["network"], record["limits"], record["way"])
        == (cell.data, cell.network, limits, way)
    }


def differences(records: Sequence[Record], cell: Cell, way: str) -> list[float]:
    """Points above uniform width, of each seed that both have."""
    own, uniform = of_cell(records, cell, way), of_cell(records, cell, "uniform")
    return [100 * (own[seed]["test_accuracy"] - uniform[seed]["test_accuracy"]) for seed in sorted({*own} & {*uniform})]


def limits_of(cell: Cell) -> str:
    return ", ".join(f"{100 * share:g} % {COSTS[cost]}" for cost, share in cell.limits)


def kind_of(cell: Cell) -> str:
    return COSTS[cell.limits[0][0]] if len(cell.limits) == 1 else "several"


def spent(records: Iterable[Record]) -> list[str]:
    """Parameters, MACs and feature maps, in per cent of the dense network's."""
    return [
        f"{statistics.fmean(100 * r['costs'][cost] / r['dense_costs'][cost] for r in records):.1f}"
        for cost in SHARES.values()
    ]


def row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def cell_table(records: Sequence[Record], predicted: Mapping[Cell, float]) -> list[str]:
    """A line for each way of each cell."""
    names = [
        "data",
        "network",
        "limit",
        "way",
        *(f"{name} %" for name in COSTS.values()),
        "n",
        "test",
        "over uniform",
        "",
    ]
    lines = [
        row([*names, *(["balanced, by the tables"] if predicted else [])]),
        "|---" * (len(names) + bool(predicted)) + "|",
    ]
    shown = set()
    for cell in CELLS:
        for way in ("dense", *WAYS):
            of = Cell(cell.data, cell.network) if way == "dense" else cell
            own = {} if (of, way) in shown else of_cell(records, of, way)
            shown.add((of, way))
            if not own:
                continue
            found = [own[seed] for seed in sorted(own)]
            over = [] if way in ("dense", "uniform") else differences(records, cell, way)
            entries = [NAMES[cell.data], NAMES[cell.network], limits_of(of), way, *spent(found), str(len(found))]
            entries += [text([100 * r["test_accuracy"] for r in found]), text(over, "+") if over else "", verdict(over)]
            if predicted:
                entries.append(f"{predicted[cell]:+.2f}" if way == "balanced" and cell in predicted else "")
            lines.append(row(entries))
    return lines


def kind_table(records: Sequence[Record]) -> list[str]:
    """Differences to uniform width by kind of limit, over all cells of the kind."""
    lines = [row(["network", "limit on", "way", "cells", "pairs", "over uniform", ""]), "|---" * 7 + "|"]
    kinds = dict.fromkeys((cell.network, kind_of(cell)) for cell in CELLS)
    for network, kind in kinds:
        for way in WAYS:
            parts = [differences(records, c, way) for c in CELLS if (c.network, kind_of(c)) == (network, kind)]
            pairs = [value for part in parts for value in part]
            if pairs and way != "uniform":
                counts = [str(sum(map(bool, parts))), str(len(pairs))]
                lines.append(row([NAMES[network], kind, way, *counts, text(pairs, "+"), verdict(pairs)]))
    return lines


def not_run(records: Sequence[Record], seeds: int = 3) -> str:
    """The cells and ways with fewer seeds than wanted."""
    short = []
    for cell in CELLS:
        counts = {way: len(of_cell(records, cell, way)) for way in WAYS}
        if ways := ", ".join(f"{way} ({count} of {seeds} seeds)" for way, count in counts.items() if count < seeds):
            short.append(f"{NAMES[cell.data]}, {NAMES[cell.network]} at {limits_of(cell)}: {ways}")
    return f"Not run: {'; '.join(short)}." if short else "Every row was run."


def settings(records: Sequence[Record]) -> Record:
    """How all of them were trained. Raises ValueError where they were trained in several ways."""
    unset = asdict(Recipe())  # fields that are newer than a record
    plain = [
        {**unset, **r["recipe"], "seed": 0, "images": r["images"], "precision": r["execution"]["precision"]}
        for r in records
    ]
    if any(each != plain[0] for each in plain):
        raise ValueError("the records are of several recipes, which cannot be compared: keep those of one")
    *most, last = dict.fromkeys(_processor(record["machine"]) for record in records)
    slow = {f"{NAMES[r['network']]} {r['way']}" for r in records if r["machine"]["gpu"] == "none"}
    machines = " and ".join(filter(None, [", ".join(most), last]))
    return {**plain[0], "machines": machines, "on_processor": ", ".join(sorted(slow)) or "none"}


def _processor(machine: Mapping[str, str]) -> str:
    return machine["cpu"] if machine["gpu"] == "none" else machine["gpu"]


def section(records: Sequence[Record], predicted: Mapping[Cell, float] | None = None) -> list[str]:
    """Lines of Markdown.

    Args:
        records: of `trainings.py`.
        predicted: points over uniform width that the public tables gave for `balanced`, by cell.
    """
    lines = ["## Our own trainings", ""]
    if not records:
        return [*lines, "Not run.", ""]
    lines += [
        INTRODUCTION.format(**settings(records)),
        "",
        *kind_table(records),
        "",
        *cell_table(records, predicted or {}),
        "",
    ]
    return [*lines, not_run(records), ""]


def main() -> None:
    PAGE.write_text("\n".join(section(jsonl.read(RECORDS))))
    tables = (PAGE.parent / "widths.md").read_text().partition("\n\n")[2]
    RESULTS.write_text("\n\n".join([HEADER, "## Public trainings", tables.strip(), PAGE.read_text().strip()]) + "\n")
    print(RESULTS.read_text())


if __name__ == "__main__":
    main()
