"""Claim: balanced widths are hardly ever worse than uniform width at the same limit, and gain most of what there is.

Judged on networks that others trained from scratch, every one of a space: NATS-Bench's size space (arXiv 2009.00437;
32,768 networks on CIFAR-10 and CIFAR-100, 90 epochs, one seed, validation accuracy) and the ResNet of
Channel-Bench-Macro (16,384 networks on CIFAR-10, 60 epochs, mean of 3 seeds). The network of each space is built here,
its costs are compared with the table's, and pretrim plans it under limits of 30, 45, 60 and 80 % on MACs, parameters,
feature maps, and pairs of them.

The accuracy of a plan is read from a smooth surrogate of the table: a polynomial of second degree in the logarithms of
the widths, and a term in 1 / width for each of them, fitted to four fifths of the table; its R2 on the other fifth is
printed. A surrogate is used because exact uniform width and the optimum before rounding are not in the table, and
because the best of thousands of noisy accuracies (seeds differ by 0.2 points on CIFAR-10, 0.55 on CIFAR-100) is above
what its widths give.

    python benchmarks/widths.py FOLDER            # with nats_sss.csv.gz and channel_bench_resnet.csv.gz; two minutes
    python benchmarks/widths.py FOLDER --sample   # and write the small sample that tests/test_widths.py reads

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
"""of each table: a few KB"""
HEADER = "network,classes,widths,accuracy"
SHARES = (0.30, 0.45, 0.60, 0.80)
COSTS = ("macs", "params", "activation")
DRAWS = 100
WORSE = 0.05
"""points below uniform width, from which on a plan counts as worse"""
FloatArray = NDArray[np.float64]


# ---------------------------------------------------------------------------------------- the tables' networks


def conv_norm(into: int, out: int, kernel: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(into, out, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out))


class Cell(nn.Module):
    """The size space's cell. Its three nodes have one width there; they are tied here by sums, which cost nothing."""

    def __init__(self, into: int, out: int) -> None:
        super().__init__()
        self.skip = nn.Identity() if into == out else conv_norm(into, out, 1)
        self.edges = nn.ModuleList(conv_norm(c, out, 3) for c in (into, into, out, out, out))

    def forward(self, x: Tensor) -> Tensor:
        a, b, c, d, e = self.edges
        skip = self.skip(x)
        one = skip + a(torch.relu(x))
        two = skip + b(torch.relu(x)) + c(torch.relu(one))
        return skip + d(torch.relu(one)) + e(torch.relu(two))


class Reduction(nn.Module):
    """Half the height and width; its two convolutions are tied likewise."""

    def __init__(self, into: int, out: int) -> None:
        super().__init__()
        self.first, self.second = conv_norm(into, out, 3, 2), conv_norm(out, out, 3)
        self.down = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(into, out, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(torch.relu(x))
        return y + self.second(torch.relu(y)) + self.down(x)


class SizeSpace(nn.Module):
    """The network of NATS-Bench's size space: widths of stem and first stage, and of each part after it."""

    def __init__(self, widths: Sequence[int], classes: int) -> None:
        super().__init__()
        one, two, three, four, five = widths
        self.stem, self.stage1 = conv_norm(3, one, 3), Cell(one, one)
        self.reduce1, self.stage2 = Reduction(one, two), Cell(two, three)
        self.reduce2, self.stage3 = Reduction(three, four), Cell(four, five)
        if two == three:  # the table has no 1x1 convolution there; with it the two widths can differ
            self.stage2.skip = conv_norm(two, three, 1)
        if four == five:
            self.stage3.skip = conv_norm(four, five, 1)
        self.last, self.head = nn.BatchNorm2d(five), nn.Linear(five, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.reduce1(self.stage1(self.stem(x)))
        x = self.stage3(self.reduce2(self.stage2(x)))
        return self.head(torch.relu(self.last(x)).mean((2, 3)))


class MacroResNet(nn.Module):
    """The ResNet of Channel-Bench-Macro: two residual blocks at 16x16, one without a shortcut, two at 8x8."""

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
    """A table of widths (n x G) with the accuracy of each network, in per cent."""

    widths: FloatArray
    accuracy: FloatArray

    @cached_property
    def surrogate(self) -> Callable[[FloatArray], FloatArray]:
        factors = fit(self.widths[self.is_seen], self.accuracy[self.is_seen])
        return lambda rows: features(rows) @ factors

    @cached_property
    def is_seen(self) -> NDArray[np.bool_]:
        """Four fifths of the rows, at random."""
        return np.random.default_rng(0).random(len(self.widths)) < 0.8

    @cached_property
    def error(self) -> float:
        """Of the rows that the surrogate was not fitted to: the root of the mean square, in points."""
        held = ~self.is_seen
        return float(np.sqrt(((self.accuracy[held] - self.surrogate(self.widths[held])) ** 2).mean()))

    @property
    def r2(self) -> float:
        """The share of the variance of those rows that it explains."""
        return 1 - self.error**2 / float(self.accuracy[~self.is_seen].var())


def features(rows: FloatArray, pairs: bool = True) -> FloatArray:
    """Of widths (n x G): 1, log w, 1 / w, and the products of pairs of logarithms."""
    logs = np.log(rows)
    products = [logs[:, i] * logs[:, j] for i in range(logs.shape[1]) for j in range(i + 1)] if pairs else []
    return np.column_stack([np.ones(len(rows)), logs, 1 / rows, *products])


def fit(rows: FloatArray, accuracy: FloatArray, pairs: bool = True) -> FloatArray:
    """The factors of the features, by least squares."""
    factors: FloatArray = np.linalg.lstsq(features(rows, pairs), accuracy, rcond=None)[0]
    return factors


@dataclass(frozen=True)
class Family:
    """A dense network, and the table that has narrower ones.

    Attributes:
        name: for people.
        dense: its widths, in the table's columns.
        narrowest: the table's narrowest widths.
        classes: of the data.
        build: the network from widths and classes.
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
        """Of each group of the network, its column in the table: a narrower one is found by its widths."""
        found = []
        for number in range(len(self.dense)):
            widths = [w - (w // 4) * (n == number) for n, w in enumerate(self.dense)]
            narrower = pretrim.analyze(self.build(widths, self.classes), torch.zeros(1, 3, 32, 32))
            (group,) = np.flatnonzero(narrower.dense != self.network.dense)
            found.append(int(group))
        return [found.index(group) for group in range(len(found))]

    def ordered(self, widths: Sequence[float]) -> FloatArray:
        """Widths of the groups (... x G) from those of the table's columns."""
        return np.asarray(widths, dtype=np.float64)[..., self.columns]

    @cached_property
    def candidates(self) -> tuple[FloatArray, FloatArray]:
        """Widths of the table and of a grid over its range (n x G), and their accuracies: the best is among them."""
        low, high = self.ordered(self.narrowest), self.network.dense.astype(np.float64)
        levels = 15 if len(low) == 5 else 8
        axes = [np.geomspace(a, b, levels) for a, b in zip(low, high, strict=True)]
        grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(low))
        table = self.ordered(self.table.widths)  # type: ignore[arg-type]
        rows = np.concatenate([grid, table[(table <= high).all(axis=1)]])
        return rows, self.accuracy(rows)

    def accuracy(self, widths: FloatArray) -> FloatArray:
        """By the surrogate, of groups' widths (n x G)."""
        rows = np.empty(widths.shape)
        rows[:, self.columns] = widths
        return self.table.surrogate(rows)


def read(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def families(folder: Path) -> list[Family]:
    """Two dense networks in the size space for each data set, and the ResNet."""
    nats, macro = read(folder / "nats_sss.csv.gz"), read(folder / "channel_bench_resnet.csv.gz")
    sizes = np.array([[float(row[f"c{n}"]) for n in range(1, 6)] for row in nats])
    found = []
    for classes in (10, 100):
        table = Tabled(sizes, np.array([float(row[f"cifar{classes}_valid"]) for row in nats]))
        for name, dense in (("flat", (64,) * 5), ("pyramid", (16, 32, 32, 64, 64))):
            found.append(Family(f"{name}, CIFAR-{classes}", dense, (8,) * 5, classes, SizeSpace, table))
    widths = np.array([[float(row[f"c{n}"]) for n in range(7)] for row in macro])
    accuracy = np.array([np.mean([float(row[f"acc{n}"]) for n in (1, 2, 3)]) for row in macro])
    dense, narrowest = (256,) * 3 + (512,) * 4, (64,) * 3 + (128,) * 4
    found.append(Family("Channel-Bench ResNet", dense, narrowest, 10, MacroResNet, Tabled(widths, accuracy)))
    check_costs(nats, ("cifar10_macs", "cifar10_params"), [f"c{n}" for n in range(1, 6)], SizeSpace)
    check_costs(macro, ("flops", "params"), [f"c{n}" for n in range(7)], MacroResNet)
    return found


def check_costs(
    rows: Sequence[Mapping[str, str]], names: tuple[str, str], columns: Sequence[str], build: Callable[..., nn.Module]
) -> None:
    """Some of the networks cost what their table says. Raises ValueError."""
    for row in rows[:: max(1, len(rows) // 7)]:
        widths = [int(row[name]) for name in columns]
        if build is SizeSpace and (widths[1] == widths[2] or widths[3] == widths[4]):
            continue  # without the 1x1 convolution there
        network = pretrim.analyze(build(widths, 10), torch.zeros(1, 3, 32, 32))
        costs = pretrim.costs(network)
        found = (int(costs["macs"](network.dense)), int(costs["params"](network.dense)))
        if found != (told := tuple(int(float(row[name])) for name in names)):
            raise ValueError(f"Expected MACs and parameters of {widths} to be {told}, but got {found}.")


# ---------------------------------------------------------------------------------------- one case


@dataclass(frozen=True)
class TabledProblem(Problem):
    """A problem without the widths that the table does not have."""

    narrowest: FloatArray

    @cached_property
    def legal(self) -> Any:
        return tuple(legal[legal >= least] for legal, least in zip(super().legal, self.narrowest, strict=True))


@dataclass(frozen=True)
class Case:
    """A dense network and its limits."""

    family: Family
    limits: Mapping[str, str]

    @cached_property
    def budget(self) -> ResolvedBudget:
        return Budget.parse(self.limits).resolve(self.family.network)

    def problem(self, mode: Method = "balanced", round_to: int = 1) -> Problem:
        options = Options(mode=mode, round_to=round_to)
        return TabledProblem(self.family.network, self.budget, options, self.family.ordered(self.family.narrowest))

    def met(self, rows: FloatArray) -> NDArray[np.bool_]:
        """Which widths (n x G), whole numbers or not, are within the limits."""
        values = [cost.formula(rows)[:, 0] for cost in self.budget.costs]  # type: ignore[attr-defined]
        return np.asarray((np.stack(values, axis=1) <= self.budget.values).all(axis=1))

    @cached_property
    def uniform(self) -> FloatArray:
        """One ratio for all widths, not rounded, that meets the limits with nothing to spare: G."""
        dense, low, high = self.family.network.dense, 0.0, 1.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if self.met((dense * middle)[None])[0] else (low, middle)
        return dense * low

    @property
    def is_tabled(self) -> bool:
        """Whether the table has networks as narrow as that."""
        return bool((self.uniform >= self.family.ordered(self.family.narrowest)).all())


def cases(found: Sequence[Family]) -> list[Case]:
    """Each limit and each pair of them at each share; without those that uniform width meets only outside the table."""
    kinds = [(name,) for name in COSTS] + list(combinations(COSTS, 2))
    every = [Case(family, dict.fromkeys(kind, f"{share}x")) for family in found for kind in kinds for share in SHARES]
    return [case for case in every if case.is_tabled]


def balanced_exactly(case: Case) -> FloatArray:
    """The optimum of the program, not rounded: 1 x G."""
    return solve(program(case.problem(), utility(case.family.network))).widths[None]


def planned(mode: Method, round_to: int = 8) -> Callable[[Case], FloatArray]:
    """Plans (count x G) as `pretrim plan` makes them; many where they are drawn."""
    count = 1 if mode in RULED else DRAWS
    return lambda case: ALLOCATORS[mode](case.problem(mode, round_to), count).astype(np.float64)


METHODS: dict[str, Callable[[Case], FloatArray]] = {
    "balanced, not rounded": balanced_exactly,
    "balanced": planned("balanced"),
    "balanced by 4": planned("balanced", 4),
    "joint": planned("joint"),
    "FA": planned("macs"),
    "PA": planned("params"),
    "MA": planned("memory"),
    "waterfill": planned("waterfill"),
    "random": planned("random"),
    "uniform, filled": planned("uniform"),
}


PLANS = [name for name in METHODS if name not in ("balanced, not rounded", "uniform, filled")]
JUDGED = 10
"""draws of each method that verdicts are counted on"""


def judge(case: Case) -> dict[str, Any]:
    """Every method's points over exact uniform width, the mean of its draws, and those of the best widths there are."""
    family = case.family
    base = float(family.accuracy(case.uniform[None])[0])
    plans = {name: method(case) for name, method in METHODS.items()}
    gains = {name: float(family.accuracy(rows).mean()) - base for name, rows in plans.items()}
    there = float(family.candidates[1][case.met(family.candidates[0])].max())
    gains["best"] = max(there - base, *(float(family.accuracy(rows).max()) - base for rows in plans.values()))
    return {
        "family": family.name,
        "limits": dict(case.limits),
        "uniform": round(base, 3),
        "gains": {name: round(gain, 3) for name, gain in gains.items()},
        "verdicts": verdicts(case, plans),
    }


def verdicts(case: Case, plans: Mapping[str, FloatArray]) -> dict[str, list[int]]:
    """What `pretrim plan` says of plans beside uniform width in the same steps: how many, and how many turn out so."""
    worth, counts = utility(case.family.network), {verdict: [0, 0] for verdict in get_args(Verdict)}
    uniform = plans["uniform, filled"][0]
    base = float(case.family.accuracy(uniform[None])[0])
    for name in PLANS:
        for row, accuracy in zip(plans[name][:JUDGED], case.family.accuracy(plans[name][:JUDGED]), strict=True):
            verdict, over = verdict_of(log_width(worth, row, uniform)), accuracy - base
            counts[verdict][0] += 1
            is_so = {"better": over > 0, "same": abs(over) < HALF_A_POINT, "worse": over < 0}
            counts[verdict][1] += int(is_so[verdict])
    return counts


# ---------------------------------------------------------------------------------------- the tables in words


def write_table(found: Sequence[Family], records: Sequence[Mapping[str, Any]]) -> None:
    lines = [
        "# Balanced widths and others, on public tables of trained networks",
        "",
        *summary(records),
        "",
        "Points over uniform width at exactly the same limit, the mean of limits of 30, 45, 60, 80 % (those that "
        "uniform width meets within the table):",
        "",
        *by_kind(records),
        "",
        "What `pretrim plan` says of a plan beside uniform width (by the utility, not by any training), and how many "
        "of the plans of all methods turned out so: by the same sign, or within half a point.",
        "",
        *said(records),
        "",
        "| family | networks | R2 of the surrogate on held-out ones | rms error, points |",
        "|---|---|---|---|",
    ]
    lines += [f"| {f.name} | {len(f.table.widths):,} | {f.table.r2:.3f} | {f.table.error:.2f} |" for f in found]
    lines += [
        "",
        "Made by `python benchmarks/widths.py`, whose first lines say how; `widths.jsonl` has every case.",
        "",
    ]
    TABLE.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def summary(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """For each method, which share of the best possible gain it has, and how often it is worse than uniform width."""
    kinds = {"every limit": records} | {
        name: [r for r in records if kind_of(r) == name] for name in dict.fromkeys(map(kind_of, records))
    }
    lines = [
        f"{len(records)} cases. Worse: more than {WORSE} points below exact uniform width. Goals over every limit: "
        "85 % of the best possible gain and worse in at most 5 % of the cases, not rounded; 75 % and 10 % as plans "
        "are, rounded to 8.",
        "",
        "Share of the best possible gain (share of the cases that are worse), by what is limited:",
        "",
        "| method | " + " | ".join(f"{name} ({len(there)})" for name, there in kinds.items()) + " |",
        "|---" * (1 + len(kinds)) + "|",
        "| best, points | " + " | ".join(f"{mean_gain(there, 'best'):+.2f}" for there in kinds.values()) + " |",
    ]
    for name in METHODS:
        shares = [mean_gain(there, name) / mean_gain(there, "best") for there in kinds.values()]
        worse = [np.mean([r["gains"][name] < -WORSE for r in there]) for there in kinds.values()]
        cells = [f"{share:.0%} ({bad:.0%})" for share, bad in zip(shares, worse, strict=True)]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def kind_of(record: Mapping[str, Any]) -> str:
    return SEVERAL if len(record["limits"]) > 1 else next(iter(record["limits"]))


def mean_gain(records: Sequence[Mapping[str, Any]], method: str) -> float:
    return float(np.mean([record["gains"][method] for record in records]))


def said(records: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = ["| limit | " + " | ".join(get_args(Verdict)) + " |", "|---|---|---|---|"]
    for kind in dict.fromkeys(map(kind_of, records)):
        there = [record["verdicts"] for record in records if kind_of(record) == kind]
        totals = [np.sum([counts[verdict] for counts in there], axis=0) for verdict in get_args(Verdict)]
        lines.append(f"| {kind} | " + " | ".join(f"{agreed} of {seen}" for seen, agreed in totals) + " |")
    return lines


def by_kind(records: Sequence[Mapping[str, Any]]) -> list[str]:
    names = ("best", *METHODS)
    lines = ["| limit | family | cases | " + " | ".join(names) + " |", "|---" * (3 + len(names)) + "|"]
    keys = dict.fromkeys((", ".join(record["limits"]), record["family"]) for record in records)
    for kind, family in sorted(keys):
        there = [r for r in records if (", ".join(r["limits"]), r["family"]) == (kind, family)]
        means = [np.mean([r["gains"][name] for r in there]) for name in names]
        lines.append(f"| {kind} | {family} | {len(there)} | " + " | ".join(f"{mean:+.2f}" for mean in means) + " |")
    return lines


def write_sample(found: Sequence[Family]) -> None:
    """Rows of each table, drawn evenly over the accuracies, so that a test can rank them."""
    lines = [
        "# A sample of NATS-Bench's size space (MIT) and Channel-Bench-Macro: benchmarks/widths.py says which",
        HEADER,
    ]
    for family in found:
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
    found = families(options.folder)
    if options.sample:
        write_sample(found)
    records = [judge(case) for case in cases(found)]
    RECORDS.write_text("".join(json.dumps(record) + "\n" for record in records))
    write_table(found, records)


if __name__ == "__main__":
    main()
