"""Write docs/results-archive.md and its figures from the records of `accuracy.py`; that page is never edited by hand.

python benchmarks/results_page.py
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib
from accuracy import CHOSEN, CLAIMS, FACTORS, PEERS, RECORDS, records

matplotlib.use("Agg")
from matplotlib import pyplot

DOCS = RECORDS.parent.parent.parent / "docs"
PAGE, FIGURES = DOCS / "results-archive.md", DOCS / "results"
Record = dict[str, Any]
NAMES = {
    "vgg16": "VGG-16",
    "resnet20": "ResNet-20",
    "resnet50": "ResNet-50",
    "resnet56": "ResNet-56",
    "mobilenetv2": "MobileNetV2",
    "alexnet": "AlexNet",
}
PUBLISHED = (
    ("VGG-16-BN", "CHIP, fine-tuned", "81.6 / 58.1", "93.96 to 93.86"),
    ("VGG-16-BN", "OTOv2, from scratch", "95.0 / 73.4", "93.27"),
    ("VGG-16", "DNAL, from scratch", "86 / 48", "93.77 to 93.75"),
    ("ResNet-56", "DepGraph, fine-tuned", "50 / 53", "93.53 to 93.77"),
    ("ResNet-56", "CHIP, fine-tuned", "42.8 / 47.4", "93.26 to 94.16"),
    ("ResNet-56", "LAASP, one cycle", "- / 52.6", "93.61 to 93.04"),
    ("ResNet-50", "OTOv2, from scratch", "96.4 / 90.0", "93.62 to 94.39"),
    ("MobileNetV2", "DNAL, from scratch", "71.7 / 59.8", "94.31 to 94.01"),
    ("MobileNetV2", "uniform width x0.5", "68.8 / 68.2", "93.79 to 92.88"),
    ("MobileNetV2", "the method's journal version", "70 / 50", "no loss"),
)
"""Network, method, parameters and MACs removed (%), accuracy (%): CIFAR-10, from the papers"""
INTRODUCTION = (
    "**These short trainings could not tell the methods apart**: the whole gap between the dense network and uniform "
    "width is one to two points in them, and the seeds vary by one. [The results](results.md) are those that can.\n\n"
    "*What complexity-driven slimming at initialisation is worth, beside its peers.* This page is made by "
    "`benchmarks/results_page.py` from [the records](../benchmarks/results/accuracy.jsonl) of "
    "`benchmarks/accuracy.py`; a row is a network trained once, with one recipe for all rows of a table. Accuracies "
    "are mean ± standard deviation over seeds, in per cent; a seed draws the plan, the weights and the order of the "
    "images. What chooses looks at validation; test is read once."
)
LAST_STREAM = {"resnet20": ("stages.2.0.conv2", 64)}
"""The group of layers whose channels the classifier reads, and how many channels it has in the dense network"""
BINS = (1, 2, 4, 8, 16, 24, 32, 64)
"""Bins of that number of channels: each from one edge up to, but not including, the next"""
GOALS = {"mobilenetv2": 0.3, "vgg16": 0.3, "resnet56": 0.5, "resnet50": 0.5}
"""Percentage points of accuracy that may be lost against the dense network"""


@dataclass(frozen=True)
class Sample:
    """One quantity over several seeds."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def std(self) -> float:
        return statistics.stdev(self.values) if len(self.values) > 1 else math.nan

    def __str__(self) -> str:
        return f"{self.mean:.2f}" + (f" ± {self.std:.2f}" if len(self.values) > 1 else "")

    def difference(self, other: Sample) -> tuple[float, float]:
        """The difference between the means and its standard error (Welch)."""
        error = math.sqrt(sum(s.std**2 / len(s.values) for s in (self, other)))
        return self.mean - other.mean, error


def percent_sample(rows: Iterable[Record], name: str) -> Sample:
    """A field of several rows, in per cent."""
    return Sample(tuple(100 * row[name] for row in rows))


def remaining_percent(rows: Sequence[Record], cost: str) -> str:
    """The remaining cost, in per cent of the dense network's."""
    shares = Sample(tuple(100 * row["costs"][cost] / row["dense_costs"][cost] for row in rows))
    return f"{shares.mean:.1f}"


def main() -> None:
    FIGURES.mkdir(exist_ok=True)
    trainings = records()
    lines = [
        "# Short trainings",
        "",
        INTRODUCTION,
        "",
        *goals_section(trainings),
        *factors_section(trainings),
        *matching_limits_section(trainings),
        *classifier_inputs_section(trainings),
        *comparison_section(trainings, "peers", "2. Beside peers"),
        *claims_section(trainings),
        *comparison_section(trainings, "fashion", "4. Fashion-MNIST"),
        *published_section(),
    ]
    PAGE.write_text("\n".join(lines).rstrip() + "\n")
    print(PAGE.read_text())


def settings_line(rows: Sequence[Record]) -> str:
    """The settings of one table, in words."""
    first = rows[0]
    protocol, execution, machine = first["protocol"], first["execution"], first["machine"]
    images = "all training images" if protocol["images"] is None else f"{protocol['images']:,} training images"
    size = "" if protocol["side"] is None else f" at {protocol['side']}x{protocol['side']}"
    devices = dict.fromkeys(row["machine"]["gpu" if execution["device"] != "cpu" else "cpu"] for row in rows)
    device = " and ".join(devices) + (f", {execution['threads']} thread" if execution["device"] == "cpu" else "")
    return (
        f"{first['data']}{size}, {images}, {protocol['epochs']} epochs, "
        f"batches of {protocol['batch_size']}, learning rate {protocol['learning_rate']:g}, {execution['precision']}; "
        f"{device}, torch {machine['torch']}."
    )


def group_by(rows: Iterable[Record], *names: str) -> dict[tuple[Any, ...], list[Record]]:
    """Group rows by the values of these fields."""
    grouped: dict[tuple[Any, ...], list[Record]] = {}
    for row in rows:
        key = tuple(json.dumps(row[name]) if isinstance(row[name], list | dict) else row[name] for name in names)
        grouped.setdefault(key, []).append(row)
    return grouped


# ---------------------------------------------------------------------------------------- the tables


def table_header(*names: str) -> list[str]:
    """The first two lines of a table."""
    return [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]


ACCURACIES = ("validation", "test", "over uniform, validation", "over uniform, test")


def accuracies(group: Sequence[Record], uniform: Sequence[Record] | None, way: str) -> list[str]:
    """The cells of the columns `ACCURACIES`."""
    names = ("validation_accuracy", "test_accuracy")
    return [
        *(str(percent_sample(group, name)) for name in names),
        *(_difference_from_uniform(group, uniform, way, name) for name in names),
    ]


def goals_section(trainings: list[Record]) -> list[str]:
    lines = [
        "## Goals",
        "",
        "They are of full-length training on a GPU, which was not at hand. A short training says little of what a "
        "network reaches in the end, and large networks learn slowly.",
        "",
        "| goal | |",
        "|---|---|",
    ]
    for network, points in GOALS.items():
        limits = ", ".join(f"-{100 * (1 - keep):.0f} % {name}" for name, keep in CLAIMS[network].items())
        selected = [row for row in trainings if row["stage"] == "claims" and row["network"] == network]
        verdicts = [_goal_verdict(rows, points) for rows in group_by(selected, "protocol", "execution").values()]
        verdict = "; ".join(filter(None, verdicts)) or "not run"
        lines.append(f"| {NAMES[network]} at {limits}: at most {points} points lost | {verdict} |")
    return [*lines, ""]


def _goal_verdict(rows: list[Record], points: float) -> str:
    """Whether a goal is met under one protocol; empty if a way was not run, or has only one seed."""
    ways = {way: percent_sample(group, "test_accuracy") for (way,), group in group_by(rows, "way").items()}
    if not {"dense", "joint", "uniform"} <= set(ways) or min(len(accuracy.values) for accuracy in ways.values()) < 2:
        return ""
    lost = -ways["joint"].difference(ways["dense"])[0]
    gain, _ = ways["joint"].difference(ways["uniform"])
    is_exceeded = gain > max(ways["joint"].std, ways["uniform"].std)
    protocol = rows[0]["protocol"]
    training = (
        ""
        if protocol["images"] is None
        else f"in short training ({protocol['epochs']} epochs of {protocol['images']:,} images), "
    )
    change = f"{lost:.2f} points lost" if lost >= 0 else f"{-lost:.2f} points above the dense network"
    return (
        f"{training}n = {len(ways['joint'].values)}, {'met' if lost <= points else 'not met'}: {change}; "
        f"uniform {'exceeded' if is_exceeded else 'not exceeded'} by more than one deviation ({gain:+.2f})"
    )


def factors_section(trainings: list[Record]) -> list[str]:
    lines = [
        "## 1. One factor at a time",
        "",
        "From FLOPs-aware sampling (FA: a draw takes a twentieth of a layer, static shares, coupled layers summed) at "
        "half the MACs, one thing changed. `joint` draws by the limits given and is FA itself where MACs are the one "
        "limit. The last column is validation accuracy less that of uniform width, ± the standard error of that "
        "difference; *separated* where it is over three times that error, of four seeds or more.",
        "",
    ]
    selected = [row for row in trainings if row["stage"] == "factors"]
    if not selected:
        return [*lines, "Not run.", ""]
    for (network, protocol, _), rows in group_by(selected, "network", "protocol", "execution").items():
        ways = {way: group for (way,), group in group_by(rows, "way").items()}
        lines += [
            f"### {NAMES[network]}, n = {_seed_counts(ways.values())} seeds",
            "",
            settings_line(rows),
            "",
            *table_header("way", "MACs %", "parameters %", "feature maps %", "validation", "test", "over uniform"),
        ]
        order = [way for way in ("dense", *FACTORS) if way in ways]
        for way in order:
            group = ways[way]
            cells = [way, *(remaining_percent(group, cost) for cost in ("macs", "params", "activation_bytes"))]
            cells += [str(percent_sample(group, name)) for name in ("validation_accuracy", "test_accuracy")]
            cells.append(_difference_from_uniform(group, ways.get("uniform"), way))
            lines.append(f"| {' | '.join(cells)} |")
        lines += ["", *_verdict_lines(ways)]
        name = f"factors-{network}-{json.loads(protocol)['name']}.png"
        _dot_plot({way: percent_sample(ways[way], "validation_accuracy") for way in order}, FIGURES / name)
        missing = [way for way in FACTORS if way not in ways]
        lines += ["", f"![Validation accuracy by way, {NAMES[network]}](results/{name})", ""]
        lines += [f"Not run: {', '.join(missing)}.", ""] if missing else []
    return lines


def matching_limits_section(trainings: list[Record]) -> list[str]:
    lines = ["### Each mode at a limit on what it is for", ""]
    selected = [row for row in trainings if row["stage"] == "own"]
    for (network, _, _), rows in group_by(selected, "network", "protocol", "execution").items():
        lines += [f"{NAMES[network]}, {settings_line(rows)}", ""]
        lines += table_header("way", "n", "MACs %", "parameters %", "feature maps %", *ACCURACIES)
        by_limit = group_by(rows, "limits", "way")
        for (limits, way), group in sorted(by_limit.items(), key=lambda entry: entry[0]):
            kept = "".join(f", {keep:.0%} of the {name}" for name, keep in json.loads(limits))
            cells = [
                way + kept,
                str(len(group)),
                *(remaining_percent(group, cost) for cost in ("macs", "params", "activation_bytes")),
            ]
            cells += accuracies(group, by_limit.get((limits, "uniform")), way)
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return lines if selected else [*lines, "Not run.", ""]


def classifier_inputs_section(trainings: list[Record]) -> list[str]:
    """Accuracy by the number of channels that the classifier reads, over all trained plans: it explains the losses."""
    lines = [
        "### What the classifier reads",
        "",
        "Every network above and below, by the channels that its classifier reads: of a residual stream, which is "
        "drawn as often as all its layers together. Validation accuracy less the mean of uniform width at the same "
        "limit; mean and extremes. By default the complexity-driven modes keep two channels for each class, or a "
        "quarter of the dense network's where that is less (`min_features`); the rows of the other tables are drawn "
        "without, but for *features kept*.",
        "",
    ]
    for network, (group, dense) in LAST_STREAM.items():
        points = _accuracy_by_channels([row for row in trainings if row["network"] == network], group)
        if not points:
            continue
        lines += table_header(f"channels of {dense}, {NAMES[network]}", "networks", "over uniform", "from", "to")
        for low, high in pairwise((*BINS[:-1], dense + 1)):
            gains = [gain for kept, gain, _ in points if low <= kept < high]
            if gains:
                name = str(low) if high == low + 1 else f"{low} to {high - 1}"
                cells = [name, str(len(gains)), *(f"{f(gains):+.1f}" for f in (statistics.fmean, min, max))]
                lines.append(f"| {' | '.join(cells)} |")
        _scatter_plot(points, FIGURES / f"features-{network}.png", f"channels that the classifier reads, of {dense}")
        lines += ["", f"![Accuracy over uniform width by those channels](results/features-{network}.png)", ""]
    return lines


def _accuracy_by_channels(rows: list[Record], group: str) -> list[tuple[int, float, str]]:
    """For each sampled network: its channels, the percentage points over uniform width, and the way."""
    points = []
    for (_, limits), comparable in group_by(rows, "stage", "limits").items():
        uniform = [row for row in comparable if row["way"] == "uniform"]
        drawn = [row for row in comparable if row["options"] is not None and row["way"] != "uniform"]
        if limits != "[]" and uniform:
            mean = percent_sample(uniform, "validation_accuracy").mean
            points += [(row["widths"][group], 100 * row["validation_accuracy"] - mean, row["way"]) for row in drawn]
    return points


def comparison_section(trainings: list[Record], stage: str, title: str) -> list[str]:
    lines = [f"## {title}", ""]
    if stage == "peers":
        lines += [
            "Torch-Pruning ranks the filters of the trained dense network globally and fine-tunes for half the epochs "
            "again; its training time has both.",
            "",
        ]
    selected = [row for row in trainings if row["stage"] == stage]
    by_network = group_by(selected, "network", "protocol", "execution")
    for (network, _, _), rows in by_network.items():
        dense = {row["seed"]: row for row in rows if row["way"] == "dense"}
        lines += [f"### {NAMES[network]}", "", settings_line(rows), ""]
        lines += table_header(
            "way", "n", "MACs %", "parameters %", "validation", "test", "over uniform", "training, % of dense"
        )
        order = ["dense", *CHOSEN, *PEERS]
        by_limit = group_by(rows, "limits", "way")
        for limits, way in sorted(
            by_limit, key=lambda key: (key[0] != "[]", _descending_budgets(key[0]), order.index(key[1]))
        ):
            group = by_limit[limits, way]
            paired = [row for row in group if row["seed"] in dense and row["machine"] == dense[row["seed"]]["machine"]]
            extra = 1.0 if way in PEERS else 0.0
            cost = [row["training_s"] / dense[row["seed"]]["training_s"] + extra for row in paired]
            kept = "".join(f", {share:.0%} of the {name}" for name, share in json.loads(limits))
            cells = [way + kept, str(len(group)), remaining_percent(group, "macs"), remaining_percent(group, "params")]
            cells += [str(percent_sample(group, name)) for name in ("validation_accuracy", "test_accuracy")]
            cells.append(_difference_from_uniform(group, by_limit.get((limits, "uniform")), way))
            cells.append(f"{100 * statistics.fmean(cost):.0f}" if cost else "")
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    expected = ("resnet20",) if stage == "fashion" else ("resnet20", "vgg16", "resnet56", "mobilenetv2")
    missing = [NAMES[name] for name in expected if name not in {key[0] for key in by_network}]
    return [*lines, f"Not run: {', '.join(missing)}.", ""] if missing else lines


def claims_section(trainings: list[Record]) -> list[str]:
    lines = ["## 3. Published reductions", ""]
    selected = [row for row in trainings if row["stage"] == "claims"]
    by_network = group_by(selected, "network", "protocol", "execution")
    for (network, _, _), rows in by_network.items():
        lines += [f"### {NAMES[network]}", "", settings_line(rows), ""]
        limits = "; ".join(f"{name} {keep:.0%}" for name, keep in CLAIMS[network].items())
        lines += [f"Kept at most: {limits}.", ""]
        lines += table_header("way", "n", "parameters %", "MACs %", "feature maps %", *ACCURACIES)
        ways = {way: group for (way,), group in group_by(rows, "way").items()}
        for way, group in ways.items():
            cells = [
                way,
                str(len(group)),
                *(remaining_percent(group, cost) for cost in ("params", "macs", "activation_bytes")),
            ]
            cells += accuracies(group, ways.get("uniform"), way)
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    missing = [NAMES[name] for name in CLAIMS if name not in {key[0] for key in by_network}]
    return [*lines, f"Not run: {', '.join(missing)}.", ""] if missing else lines


def published_section() -> list[str]:
    return [
        "## Published numbers",
        "",
        "CIFAR-10, from the papers; other recipes, so they are not to be set against the tables above.",
        "",
        *table_header("network", "method", "parameters / MACs removed, %", "accuracy, %"),
        *(f"| {' | '.join(row)} |" for row in PUBLISHED),
        "",
    ]


def _descending_budgets(limits: str) -> list[float]:
    """Sort key that puts the largest budget first."""
    return [-keep for _, keep in json.loads(limits)]


def _seed_counts(parts: Iterable[Sequence[Record]]) -> str:
    counts = sorted({len(rows) for rows in parts})
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"


def _difference_from_uniform(
    group: Sequence[Record], uniform: Sequence[Record] | None, way: str, name: str = "validation_accuracy"
) -> str:
    if uniform is None or way in ("uniform", "dense") or min(len(group), len(uniform)) < 2:
        return ""
    gain, error = percent_sample(group, name).difference(percent_sample(uniform, name))
    return f"{gain:+.2f} ± {error:.2f}" + (
        ", separated" if abs(gain) > 3 * error and min(len(group), len(uniform)) > 3 else ""
    )


def _verdict_lines(ways: dict[str, list[Record]]) -> list[str]:
    """State which ways differ from uniform width."""
    differences = {way: _difference_from_uniform(group, ways.get("uniform"), way) for way, group in ways.items()}
    separated = {way: text for way, text in differences.items() if text.endswith("separated")}
    better = "; ".join(way for way, text in separated.items() if text.startswith("+")) or "none"
    worse = "; ".join(way for way, text in separated.items() if text.startswith("-")) or "none"
    rest = "; ".join(way for way, text in differences.items() if text and way not in separated) or "none"
    return [f"Above uniform width: {better}. Below: {worse}. Cannot be told apart from it with so few seeds: {rest}."]


def _dot_plot(ways: dict[str, Sample], target: Path) -> None:
    """One row per way, the best on top: every seed as a ring, the mean as a dot, its standard error as a line."""
    order = sorted(ways, key=lambda way: ways[way].mean)
    figure, axes = pyplot.subplots(figsize=(7, 0.36 * len(order) + 1.0), layout="constrained")
    for position, way in enumerate(order):
        accuracy = ways[way]
        colour = {"uniform": "#c2410c", "dense": "#6b7280"}.get(way, "#1d4ed8")
        axes.plot(accuracy.values, [position] * len(accuracy.values), "o", mfc="none", mec=colour, ms=4, alpha=0.5)
        error = accuracy.std / math.sqrt(len(accuracy.values)) if len(accuracy.values) > 1 else 0.0
        axes.errorbar(accuracy.mean, position, xerr=error, fmt="o", color=colour, capsize=3, ms=6)
    if "uniform" in ways:
        axes.axvline(ways["uniform"].mean, color="#c2410c", lw=0.8, ls=":")
    axes.set_yticks(range(len(order)), order)
    axes.set_xlabel("validation accuracy, %  (dot: mean, line: its standard error, rings: seeds)")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", alpha=0.25)
    figure.savefig(target, dpi=160)
    pyplot.close(figure)


def _scatter_plot(points: list[tuple[int, float, str]], target: Path, label: str) -> None:
    """One dot per network, with different colours for the complexity-driven modes and the random ones."""
    figure, axes = pyplot.subplots(figsize=(7, 3.6), layout="constrained")
    for name, colour, chosen in (
        ("drawn by complexity", "#1d4ed8", [p for p in points if not p[2].startswith(("random", "waterfill"))]),
        ("random or waterfill", "#c2410c", [p for p in points if p[2].startswith(("random", "waterfill"))]),
    ):
        axes.plot([p[0] for p in chosen], [p[1] for p in chosen], "o", mfc="none", mec=colour, ms=5, label=name)
    axes.axhline(0, color="#6b7280", lw=0.8, ls=":")
    axes.set_xscale("log", base=2)
    ticks = [tick for tick in (1, 2, 4, 8, 16, 32, 64) if tick <= max(p[0] for p in points)]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_xlabel(label)
    axes.set_ylabel("points over uniform width")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(target, dpi=160)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
