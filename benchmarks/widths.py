"""Claim: balanced widths are rarely worse than uniform width at the same limit, and achieve most of the possible gain.

The claim is tested on public tables in which every network of a search space was trained from scratch: NATS-Bench's
size space (arXiv 2009.00437; 32,768 networks on CIFAR-10 and CIFAR-100, 90 epochs, one seed, validation accuracy) and
the ResNet of Channel-Bench-Macro (16,384 networks on CIFAR-10, 60 epochs, mean of 3 seeds). The script builds the
network of each space, checks its costs against the table, and plans it under limits of 30, 45, 60 and 80 % on MACs,
parameters, feature maps, and pairs of them.

The accuracy of a plan is read from a smooth surrogate of the table: a second-degree polynomial in the logarithms of the
widths, plus a term in 1 / width for each of them, fitted to four fifths of the table. Its R2 on the remaining fifth is
printed. A surrogate is needed because exact uniform width and the optimum before rounding are not in the table, and
because the best of thousands of noisy accuracies (seeds differ by 0.2 points on CIFAR-10, 0.55 on CIFAR-100)
overestimates what its widths achieve.

    python benchmarks/widths.py FOLDER            # FOLDER holds nats_sss.csv.gz and channel_bench_resnet.csv.gz; 2 min
    python benchmarks/widths.py FOLDER --sample   # also write the small sample that tests/test_widths.py reads

Writes benchmarks/results/widths.jsonl and widths.md.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import pretrim
from pretrim.analysis.network import Network
from pretrim.planning.allocate import METHODS as ALLOCATORS
from pretrim.planning.balanced import program
from pretrim.planning.budget import Budget, ResolvedBudget
from pretrim.planning.legal import RULED, Problem
from pretrim.planning.options import Method, Options
from pretrim.planning.outlook import HALF_A_POINT, SEVERAL, Verdict, log_width, verdict_of
from pretrim.planning.program import solve
from pretrim.planning.utility import utility

HERE = Path(__file__).parent
RECORDS, TABLE = HERE / "results" / "widths.jsonl", HERE / "results" / "widths.md"
SAMPLE = HERE.parent / "tests" / "widths_sample.csv"
SAMPLED_ROWS = 120
"""Rows of each table in the sample, which then takes a few KB."""
HEADER = "network,classes,widths,accuracy"
SHARES = (0.30, 0.45, 0.60, 0.80)
COSTS = ("macs", "params", "activation")
DRAWS = 100
WORSE = 0.05
"""A plan counts as worse if it is more than this many percentage points below uniform width."""
FloatArray = NDArray[np.float64]


# ---------------------------------------------------------------------------------------- networks of the tables


def conv_norm(into: int, out: int, kernel: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(into, out, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out))


class Cell(nn.Module):
    """The cell of the size space. Its three nodes share one width; here, sums tie them, which add no cost."""

    def __init__(self, into: int, out: int) -> None:
        super().__init__()
        self.skip = nn.Identity() if into == out else conv_norm(into, out, 1)
        self.edges = nn.ModuleList(conv_norm(c, out, 3) for c in (into, into, out, out, out))

    def forward(self, x: Tensor) -> Tensor:
        a, b, c, d, e = self.edges
        skip = self.skip(x)
        node1 = skip + a(torch.relu(x))
        node2 = skip + b(torch.relu(x)) + c(torch.relu(node1))
        return skip + d(torch.relu(node1)) + e(torch.relu(node2))


class Reduction(nn.Module):
    """Halves height and width. A sum ties the widths of its two convolutions, as in `Cell`."""

    def __init__(self, into: int, out: int) -> None:
        super().__init__()
        self.first, self.second = conv_norm(into, out, 3, 2), conv_norm(out, out, 3)
        self.down = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(into, out, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(torch.relu(x))
        return y + self.second(torch.relu(y)) + self.down(x)


class SizeSpace(nn.Module):
    """The network of NATS-Bench's size space. Its five widths: stem and first stage, then each later part in turn."""

    def __init__(self, widths: Sequence[int], classes: int) -> None:
        super().__init__()
        width1, width2, width3, width4, width5 = widths
        self.stem, self.stage1 = conv_norm(3, width1, 3), Cell(width1, width1)
        self.reduce1, self.stage2 = Reduction(width1, width2), Cell(width2, width3)
        self.reduce2, self.stage3 = Reduction(width3, width4), Cell(width4, width5)
        if width2 == width3:  # not in the table's network; with this 1x1 convolution the two widths can differ
            self.stage2.skip = conv_norm(width2, width3, 1)
        if width4 == width5:
            self.stage3.skip = conv_norm(width4, width5, 1)
        self.last, self.head = nn.BatchNorm2d(width5), nn.Linear(width5, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.reduce1(self.stage1(self.stem(x)))
        x = self.stage3(self.reduce2(self.stage2(x)))
        return self.head(torch.relu(self.last(x)).mean((2, 3)))


class MacroResNet(nn.Module):
    """The ResNet of Channel-Bench-Macro: two residual blocks at 16x16, a block without a shortcut, and two at 8x8."""

    def __init__(self, widths: Sequence[int], classes: int) -> None:
        super().__init__()
        stream, a, b, c, second, d, e = widths
        self.stem = conv_norm(3, stream, 3, 2)
        self.blocks1 = nn.ModuleList(self._block(stream, inner, stream) for inner in (a, b))
        self.change = self._block(stream, c, second, 2)
        self.blocks2 = nn.ModuleList(self._block(second, inner, second) for inner in (d, e))
        self.head = nn.Linear(second, classes)

    def _block(self, into: int, inner: int, out: int, stride: int = 1) -> nn.Sequential:
        return nn.Sequential(conv_norm(into, inner, 3, stride), nn.ReLU(), conv_norm(inner, out, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        for block in self.blocks1:
            x = torch.relu(x + block(x))
        x = torch.relu(self.change(x))
        for block in self.blocks2:
            x = torch.relu(x + block(x))
        return self.head(x.mean((2, 3)))


# ---------------------------------------------------------------------------------------- tables and surrogates


@dataclass(frozen=True)
class Tabled:
    """A table of widths (n x G) and the accuracy of each network in per cent."""

    widths: FloatArray
    accuracy: FloatArray

    @cached_property
    def surrogate(self) -> Callable[[FloatArray], FloatArray]:
        coefficients = fit(self.widths[self.is_seen], self.accuracy[self.is_seen])
        return lambda rows: features(rows) @ coefficients

    @cached_property
    def is_seen(self) -> NDArray[np.bool_]:
        """A random four fifths of the rows, which the surrogate is fitted to."""
        return np.random.default_rng(0).random(len(self.widths)) < 0.8

    @cached_property
    def error(self) -> float:
        """Root-mean-square error of the surrogate on the held-out rows, in percentage points."""
        held_out = ~self.is_seen
        return float(np.sqrt(((self.accuracy[held_out] - self.surrogate(self.widths[held_out])) ** 2).mean()))

    @property
    def r2(self) -> float:
        """Share of the variance of the held-out rows that the surrogate explains."""
        return 1 - self.error**2 / float(self.accuracy[~self.is_seen].var())


def features(rows: FloatArray, pairs: bool = True) -> FloatArray:
    """Features of widths (n x G): 1, log w, 1 / w, and with `pairs` the products of pairs of logarithms."""
    logs = np.log(rows)
    products = [logs[:, i] * logs[:, j] for i in range(logs.shape[1]) for j in range(i + 1)] if pairs else []
    return np.column_stack([np.ones(len(rows)), logs, 1 / rows, *products])


def fit(rows: FloatArray, accuracy: FloatArray, pairs: bool = True) -> FloatArray:
    """Least-squares coefficients of the features."""
    coefficients: FloatArray = np.linalg.lstsq(features(rows, pairs), accuracy, rcond=None)[0]
    return coefficients


@dataclass(frozen=True)
class Family:
    """A dense network and the table of its narrower variants.

    Attributes:
        name: name in the output.
        dense: widths of the dense network, in the order of the table's columns.
        narrowest: narrowest widths in the table.
        classes: number of classes in the data.
        build: builds the network from widths and number of classes.
        table: widths and accuracies.
    """

    name: str
    dense: tuple[int, ...]
    narrowest: tuple[int, ...]
    classes: int
    build: Callable[[Sequence[int], int], nn.Module]
    table: Tabled

    @cached_property
    def network(self) -> Network:
        return pretrim.analyze(self.build(self.dense, self.classes), torch.zeros(1, 3, 32, 32))

    @cached_property
    def columns(self) -> list[int]:
        """The table's column of each group, found by narrowing one column at a time."""
        group_of_column = []
        for column in range(len(self.dense)):
            widths = [w - (w // 4) * (n == column) for n, w in enumerate(self.dense)]
            narrower = pretrim.analyze(self.build(widths, self.classes), torch.zeros(1, 3, 32, 32))
            (group,) = np.flatnonzero(narrower.dense != self.network.dense)
            group_of_column.append(int(group))
        return [group_of_column.index(group) for group in range(len(group_of_column))]

    def ordered(self, widths: Sequence[float]) -> FloatArray:
        """Reorder widths from the table's columns to the network's groups (... x G)."""
        return np.asarray(widths, dtype=np.float64)[..., self.columns]

    @cached_property
    def candidates(self) -> tuple[FloatArray, FloatArray]:
        """Widths in the table and on a grid over its range (n x G) with their accuracies, to find the best widths."""
        low, high = self.ordered(self.narrowest), self.network.dense.astype(np.float64)
        levels = 15 if len(low) == 5 else 8
        axes = [np.geomspace(a, b, levels) for a, b in zip(low, high, strict=True)]
        grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(low))
        table = self.ordered(self.table.widths)  # type: ignore[arg-type]
        rows = np.concatenate([grid, table[(table <= high).all(axis=1)]])
        return rows, self.accuracy(rows)

    def accuracy(self, widths: FloatArray) -> FloatArray:
        """Accuracy by the surrogate, given widths of the groups (n x G)."""
        rows = np.empty(widths.shape)
        rows[:, self.columns] = widths
        return self.table.surrogate(rows)


def read(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def families(folder: Path) -> list[Family]:
    """Two dense networks in the size space for each dataset, and the ResNet."""
    nats, macro = read(folder / "nats_sss.csv.gz"), read(folder / "channel_bench_resnet.csv.gz")
    sizes = np.array([[float(row[f"c{n}"]) for n in range(1, 6)] for row in nats])
    result = []
    for classes in (10, 100):
        table = Tabled(sizes, np.array([float(row[f"cifar{classes}_valid"]) for row in nats]))
        for name, dense in (("flat", (64,) * 5), ("pyramid", (16, 32, 32, 64, 64))):
            result.append(Family(f"{name}, CIFAR-{classes}", dense, (8,) * 5, classes, SizeSpace, table))
    widths = np.array([[float(row[f"c{n}"]) for n in range(7)] for row in macro])
    accuracy = np.array([np.mean([float(row[f"acc{n}"]) for n in (1, 2, 3)]) for row in macro])
    dense, narrowest = (256,) * 3 + (512,) * 4, (64,) * 3 + (128,) * 4
    result.append(Family("Channel-Bench ResNet", dense, narrowest, 10, MacroResNet, Tabled(widths, accuracy)))
    check_costs(nats, ("cifar10_macs", "cifar10_params"), [f"c{n}" for n in range(1, 6)], SizeSpace)
    check_costs(macro, ("flops", "params"), [f"c{n}" for n in range(7)], MacroResNet)
    return result


def check_costs(
    rows: Sequence[Mapping[str, str]], names: tuple[str, str], columns: Sequence[str], build: Callable[..., nn.Module]
) -> None:
    """Raise ValueError if the costs of a sample of the networks differ from their table."""
    for row in rows[:: max(1, len(rows) // 7)]:
        widths = [int(row[name]) for name in columns]
        if build is SizeSpace and (widths[1] == widths[2] or widths[3] == widths[4]):
            continue  # the table's network lacks the 1x1 convolution
        network = pretrim.analyze(build(widths, 10), torch.zeros(1, 3, 32, 32))
        costs = pretrim.costs(network)
        counted = (int(costs["macs"](network.dense)), int(costs["params"](network.dense)))
        if counted != (expected := tuple(int(float(row[name])) for name in names)):
            raise ValueError(f"Expected MACs and parameters of {widths} to be {expected}, but got {counted}.")


# ---------------------------------------------------------------------------------------- a single case


@dataclass(frozen=True)
class TabledProblem(Problem):
    """A problem whose legal widths are limited to the range of the table."""

    narrowest: FloatArray

    @cached_property
    def legal(self) -> Any:
        return tuple(legal[legal >= least] for legal, least in zip(super().legal, self.narrowest, strict=True))


@dataclass(frozen=True)
class Case:
    """A dense network and the limits on its costs."""

    family: Family
    limits: Mapping[str, str]

    @cached_property
    def budget(self) -> ResolvedBudget:
        return Budget.parse(self.limits).resolve(self.family.network)

    def problem(self, mode: Method = "balanced", round_to: int = 1) -> Problem:
        options = Options(mode=mode, round_to=round_to)
        return TabledProblem(self.family.network, self.budget, options, self.family.ordered(self.family.narrowest))

    def are_within_limits(self, rows: FloatArray) -> NDArray[np.bool_]:
        """Which widths (n x G, not necessarily integers) are within the limits."""
        values = [cost.formula(rows)[:, 0] for cost in self.budget.costs]  # type: ignore[attr-defined]
        return np.asarray((np.stack(values, axis=1) <= self.budget.values).all(axis=1))

    @cached_property
    def uniform(self) -> FloatArray:
        """Dense widths (G) scaled by the largest common ratio within the limits, not rounded."""
        dense, low, high = self.family.network.dense, 0.0, 1.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if self.are_within_limits((dense * middle)[None])[0] else (low, middle)
        return dense * low

    @property
    def is_tabled(self) -> bool:
        """Whether the table has networks as narrow as uniform width at these limits."""
        return bool((self.uniform >= self.family.ordered(self.family.narrowest)).all())


def cases(every_family: Sequence[Family]) -> list[Case]:
    """Each limit and pair of limits at each share, except where uniform width would be narrower than the table."""
    kinds = [(name,) for name in COSTS] + list(combinations(COSTS, 2))
    all_cases = [
        Case(family, dict.fromkeys(kind, f"{share}x")) for family in every_family for kind in kinds for share in SHARES
    ]
    return [case for case in all_cases if case.is_tabled]


def unrounded_balanced(case: Case) -> FloatArray:
    """The unrounded optimum of the program (1 x G)."""
    return solve(program(case.problem(), utility(case.family.network))).widths[None]


def plan_with(mode: Method, round_to: int = 8) -> Callable[[Case], FloatArray]:
    """Widths (count x G) as planned by `pretrim plan`: one plan of a deterministic mode, `DRAWS` of a random mode."""
    count = 1 if mode in RULED else DRAWS
    return lambda case: ALLOCATORS[mode](case.problem(mode, round_to), count).astype(np.float64)


METHODS: dict[str, Callable[[Case], FloatArray]] = {
    "balanced, not rounded": unrounded_balanced,
    "balanced": plan_with("balanced"),
    "balanced by 4": plan_with("balanced", 4),
    "joint": plan_with("joint"),
    "FA": plan_with("macs"),
    "PA": plan_with("params"),
    "MA": plan_with("memory"),
    "waterfill": plan_with("waterfill"),
    "random": plan_with("random"),
    "uniform, filled": plan_with("uniform"),
}


PLANS = [name for name in METHODS if name not in ("balanced, not rounded", "uniform, filled")]
JUDGED = 10
"""Draws of each method on which verdicts are counted."""


def judge(case: Case) -> dict[str, Any]:
    """Gain over exact uniform width in points: the mean over each method's draws, and that of the best widths known."""
    family = case.family
    uniform_accuracy = float(family.accuracy(case.uniform[None])[0])
    plans = {name: method(case) for name, method in METHODS.items()}
    gains = {name: float(family.accuracy(rows).mean()) - uniform_accuracy for name, rows in plans.items()}
    best_candidate = float(family.candidates[1][case.are_within_limits(family.candidates[0])].max())
    gains["best"] = max(
        best_candidate - uniform_accuracy,
        *(float(family.accuracy(rows).max()) - uniform_accuracy for rows in plans.values()),
    )
    return {
        "family": family.name,
        "limits": dict(case.limits),
        "uniform": round(uniform_accuracy, 3),
        "gains": {name: round(gain, 3) for name, gain in gains.items()},
        "verdicts": verdicts(case, plans),
    }


def verdicts(case: Case, plans: Mapping[str, FloatArray]) -> dict[str, list[int]]:
    """Verdicts of `pretrim plan` on plans against rounded uniform width: number of plans, and of those that agree."""
    network_utility, counts = utility(case.family.network), {verdict: [0, 0] for verdict in get_args(Verdict)}
    uniform = plans["uniform, filled"][0]
    uniform_accuracy = float(case.family.accuracy(uniform[None])[0])
    for name in PLANS:
        for row, accuracy in zip(plans[name][:JUDGED], case.family.accuracy(plans[name][:JUDGED]), strict=True):
            verdict, gain = verdict_of(log_width(network_utility, row, uniform)), accuracy - uniform_accuracy
            counts[verdict][0] += 1
            is_confirmed = {"better": gain > 0, "same": abs(gain) < HALF_A_POINT, "worse": gain < 0}
            counts[verdict][1] += int(is_confirmed[verdict])
    return counts


# ---------------------------------------------------------------------------------------- Markdown tables


def write_table(every_family: Sequence[Family], records: Sequence[Mapping[str, Any]]) -> None:
    lines = [
        "# Balanced widths and others, on public tables of trained networks",
        "",
        *summary(records),
        "",
        "Points over uniform width at exactly the same limit, the mean of limits of 30, 45, 60, 80 % (those that "
        "uniform width meets within the table):",
        "",
        *gain_table(records),
        "",
        "What `pretrim plan` says of a plan beside uniform width (by the utility, not by any training), and how many "
        "of the plans of all methods turned out so: by the same sign, or within half a point.",
        "",
        *verdict_table(records),
        "",
        "| family | networks | R2 of the surrogate on held-out ones | rms error, points |",
        "|---|---|---|---|",
    ]
    lines += [f"| {f.name} | {len(f.table.widths):,} | {f.table.r2:.3f} | {f.table.error:.2f} |" for f in every_family]
    lines += [
        "",
        "Made by `python benchmarks/widths.py`, whose first lines say how; `widths.jsonl` has every case.",
        "",
    ]
    TABLE.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def summary(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """For each method, the share of the best possible gain, and how often it is worse than uniform width."""
    by_limit = {"every limit": records} | {
        name: [r for r in records if kind_of(r) == name] for name in dict.fromkeys(map(kind_of, records))
    }
    lines = [
        f"{len(records)} cases. Worse: more than {WORSE} points below exact uniform width. Goals over every limit: "
        "85 % of the best possible gain and worse in at most 5 % of the cases, not rounded; 75 % and 10 % as plans "
        "are, rounded to 8.",
        "",
        "Share of the best possible gain (share of the cases that are worse), by what is limited:",
        "",
        "| method | " + " | ".join(f"{name} ({len(selected)})" for name, selected in by_limit.items()) + " |",
        "|---" * (1 + len(by_limit)) + "|",
        "| best, points | "
        + " | ".join(f"{mean_gain(selected, 'best'):+.2f}" for selected in by_limit.values())
        + " |",
    ]
    for name in METHODS:
        shares = [mean_gain(selected, name) / mean_gain(selected, "best") for selected in by_limit.values()]
        worse = [np.mean([r["gains"][name] < -WORSE for r in selected]) for selected in by_limit.values()]
        cells = [f"{share:.0%} ({worse_share:.0%})" for share, worse_share in zip(shares, worse, strict=True)]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def kind_of(record: Mapping[str, Any]) -> str:
    return SEVERAL if len(record["limits"]) > 1 else next(iter(record["limits"]))


def mean_gain(records: Sequence[Mapping[str, Any]], method: str) -> float:
    return float(np.mean([record["gains"][method] for record in records]))


def verdict_table(records: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = ["| limit | " + " | ".join(get_args(Verdict)) + " |", "|---|---|---|---|"]
    for kind in dict.fromkeys(map(kind_of, records)):
        counts_of_cases = [record["verdicts"] for record in records if kind_of(record) == kind]
        totals = [np.sum([counts[verdict] for counts in counts_of_cases], axis=0) for verdict in get_args(Verdict)]
        lines.append(f"| {kind} | " + " | ".join(f"{agreed} of {plans}" for plans, agreed in totals) + " |")
    return lines


def gain_table(records: Sequence[Mapping[str, Any]]) -> list[str]:
    names = ("best", *METHODS)
    lines = ["| limit | family | cases | " + " | ".join(names) + " |", "|---" * (3 + len(names)) + "|"]
    keys = dict.fromkeys((", ".join(record["limits"]), record["family"]) for record in records)
    for kind, family in sorted(keys):
        selected = [r for r in records if (", ".join(r["limits"]), r["family"]) == (kind, family)]
        means = [np.mean([r["gains"][name] for r in selected]) for name in names]
        lines.append(f"| {kind} | {family} | {len(selected)} | " + " | ".join(f"{mean:+.2f}" for mean in means) + " |")
    return lines


def write_sample(every_family: Sequence[Family]) -> None:
    """Write rows of each table, spread evenly over the ranks of accuracy, for a test to rank."""
    lines = [
        "# A sample of NATS-Bench's size space (MIT) and Channel-Bench-Macro: benchmarks/widths.py says which",
        HEADER,
    ]
    for family in every_family:
        if family.name.startswith("pyramid"):
            continue  # the same table as flat
        order = np.argsort(family.table.accuracy, kind="stable")
        for row in order[np.linspace(0, len(order) - 1, SAMPLED_ROWS).astype(int)]:
            widths = " ".join(str(int(width)) for width in family.table.widths[row])
            lines.append(f"{family.build.__name__},{family.classes},{widths},{family.table.accuracy[row]:.3f}")
    SAMPLE.write_text("\n".join(lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="with the two tables")
    parser.add_argument("--sample", action="store_true", help="write the sample of the tests")
    options = parser.parse_args()
    torch.set_num_threads(1)
    every_family = families(options.folder)
    if options.sample:
        write_sample(every_family)
    records = [judge(case) for case in cases(every_family)]
    RECORDS.write_text("".join(json.dumps(record) + "\n" for record in records))
    write_table(every_family, records)


if __name__ == "__main__":
    main()
