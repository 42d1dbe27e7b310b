"""Cycles by kind of operator from public measurements on boards: samples, the fit, and families left out.

The choice: non-negative least squares on the *relative* error, so that a network of 1 ms counts as much as one of 1 s.
Few networks were measured on most systems, too few for a coefficient for each kind of operator. So the kinds are tied
to five numbers (multiply-accumulates of full and pointwise convolutions; of depthwise ones; of dense layers; outputs of
all these; outputs of everything else), and each is drawn towards its ratio to the others over all systems: a ridge on
the relative distance, of `RIDGE` of a sample. Where the measurements tell the kinds apart (times by operator, or many
networks), each kind has its own number.
"""

from __future__ import annotations

import csv
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from board_networks import find, mobilenet_v2
from numpy.typing import NDArray
from scipy.optimize import nnls

from pretrim.latency.board_systems import OTHERS, WEIGHTED, Work

Array = NDArray[np.float64]

KINDS = (*((kind, "mac") for kind in WEIGHTED), *((kind, "output") for kind in (*WEIGHTED, *OTHERS)))
"""The coefficients, in this order"""
TIED = np.eye(5)[[0, 0, 1, 2, 3, 3, 3, 3, 4, 4, 4]]
"""Kinds x the numbers that they are tied to"""
GUESS = np.array([1.0, 2.0, 1.5, 10.0, 15.0])
"""Where the search for the common ratios starts, in cycles of a multiply-accumulate; a number without data keeps it"""
RIDGE = 0.1
RATIO_RIDGE = 1.0
"""The same for the common ratios, whose prior is the guess. Both were chosen by the error of families left out."""
MANY = 40
"""Networks that tell the kinds of operators apart"""
ENOUGH = 10
"""Networks whose own errors make the range"""
LARGEST_DIFFERENCE = 0.01
"""between the multiply-accumulates counted and those stated, as a share"""
ALONE = frozenset({"autoencoder"})
"""The only family with a kind of operator: left out of its system, but not of the ratios, which would lack that kind"""
STATED_MHZ = {"128 (documented)": 128.0}


@dataclass(frozen=True)
class Key:
    """What is fitted together."""

    core: str
    runtime: str
    version: str
    dtype: str


@dataclass(frozen=True)
class Sample:
    """One network, or the operators of one kind in it, on one board.

    Attributes:
        key: core, runtime, version and data type.
        network: its name.
        family: of architectures.
        board: as the source calls it.
        work: what was computed.
        cycles: measured.
        power_mw: where energy was measured.
        source: repository and commit.
        is_part: some operators of a network, not all.
        is_guessed: only its multiply-accumulates are known (its outputs are those of MobileNetV2 for as many).
    """

    key: Key
    network: str
    family: str
    board: str
    work: Work
    cycles: float
    power_mw: float | None
    source: str
    is_part: bool = False
    is_guessed: bool = False

    @property
    def row(self) -> Array:
        """The work as coefficients are ordered."""
        counts = [(self.work.macs if of == "mac" else self.work.outputs).get(kind, 0.0) for kind, of in KINDS]
        return np.array(counts, dtype=float)


# ---------------------------------------------------------------------------------------- reading


CORES = (
    (r"Cortex.*M0\+", "Cortex-M0+"),
    (r"Cortex.*M33", "Cortex-M33"),
    (r"Cortex.*M4F?", "Cortex-M4"),
    (r"Cortex.*M7", "Cortex-M7"),
    (r"Cortex.*M85", "Cortex-M85"),
    (r"2x Cortex-A7", "Cortex-A7"),
    (r"Xtensa (LX\d)", r"Xtensa \1"),
    (r"RISC-V", "RISC-V"),
    (r"RISC-V HP", "RISC-V HP"),
)
RUNTIMES = (
    (r".*X-CUBE-AI v?(\d+\.\d+).*", "st-edge-ai", r"\1"),
    (r".*X-CUBE-AI ?", "st-edge-ai", ""),
    (r".*STEDGE-AI.*", "st-edge-ai", "internal"),
    (r".*plumerai Plumerai Inference Engine.*?([\d.]*)", "plumerai", r"\1"),
    (r".*HALE\) version ([\d.]+)", "hale", r"\1"),
    (r".* (Krai|OctoML|cTuning) microTVM", "microtvm", ""),
    (r".*ONNC", "onnc", ""),
    (r".*TensorFlow Lite for micro CMSIS", "tflm-cmsis-nn", ""),
    (r"TFLM cmsis-nn-or-reference", "tflm-cmsis-nn", "Arduino"),
    (r"TFLM esp-nn-optimized", "tflm-esp-nn", "ESP-IDF 5.5"),
    (r"TFLM ansi-c-reference", "tflm-esp-nn-ansi-c", "ESP-IDF 5.5"),
    (r"TFLM esp-nn", "tflm-esp-nn", ""),
    (r"TFLM reference @(\w+)", "tflm-reference", r"\1"),
    (r"TFLM reference", "tflm-reference", ""),
    (r"CMSIS-NN @(\w+)", "tflm-cmsis-nn", r"\1"),
    (r"TinyEngine @(\w+)", "tinyengine", r"\1"),
    (r"TFLM, Zephyr ([\d.]+)", "tflm-zephyr", r"\1"),
    (r"ESP-DL, 1 core", "esp-dl", ""),
    (r"TFLite 2\.11, X-LINUX-AI v(5\.0)\.0", "litert", r"2.11 (X-LINUX-AI \1)"),
    (r"TFLite 2\.11, [78]\.[\d.]+", "litert", "2.11"),
)
INTERNAL_BYTES = {"STM32H747I-DISCO": (2**20, 2**21), "STM32F769I-DISCO": (2**19, 2**21)}
"""RAM and flash on the chip, of boards that have more beside it, which is slower (ST's data sheets)"""
ALIASES = {"STM32H769I-DISCO": "STM32F769I-DISCO"}
"""A slip in a table: ST makes no STM32H769"""
INVERTED_RESIDUAL = {"mcunet": "MCUNet", "proxyless": "ProxylessNAS"}
"""Networks of MobileNetV2's blocks, whose exact graphs are not public text; their multiply-accumulates are"""


@dataclass(frozen=True)
class Excluded:
    """A measurement that is not used, and why."""

    network: str
    board: str
    runtime: str
    reason: str


def match(table: Iterable[tuple[str, ...]], text: str) -> tuple[str, ...] | None:
    """The entries of the first row whose pattern is the whole text, with its groups filled in."""
    for pattern, *entries in table:
        if (found := re.fullmatch(pattern, text)) is not None:
            return tuple(found.expand(entry) for entry in entries)
    return None


def read(folder: Path) -> tuple[list[Sample], list[Excluded]]:
    """All samples of a folder of measurements, and what was left out."""
    with (folder / "measured.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    samples: list[Sample] = []
    excluded: list[Excluded] = []
    for row in rows:
        found = _sample(row)
        if isinstance(found, Sample):
            samples.append(found)
        else:
            excluded.append(Excluded(row["model"], row["board"], row["runtime"], found))
    for rule, reason in ((_copied, "copied from an older version of the runtime"), (_has_dead_filters, DEAD)):
        out = [sample for sample in samples if rule(sample, samples)]
        excluded += [Excluded(s.network, s.board, f"{s.key.runtime} {s.key.version}", reason) for s in out]
        samples = [sample for sample in samples if sample not in out]
    return samples + list(_by_operator(folder)), excluded


def _sample(row: Mapping[str, str]) -> Sample | str:
    """One row, or why it is not used."""
    core, runtime = match(CORES, _clean(row["core"])), match(RUNTIMES, row["runtime"])
    if core is None or runtime is None:
        return "not a microcontroller's core, or a runtime of one company's own chip"
    if row["dtype"] not in ("int8", "float32"):
        return f"data type {row['dtype']}"
    if re.search("max_performance|min_ram", row["board"]):
        return "a variant of the runtime's build"
    megahertz = STATED_MHZ.get(row["mhz"]) or float(row["mhz"] or 0)
    if megahertz < 10:
        return "clock not known"
    board = ALIASES.get(row["board"], row["board"])
    if _is_external(row, board):
        return "weights or activations in memory outside of the chip"
    counted = _count(row)
    if isinstance(counted, str):
        return counted
    family, work, is_guessed = counted
    milliseconds = float(row["latency_ms"])
    power = float(row["energy_uJ"]) / milliseconds if row["energy_uJ"] else None
    key = Key(core[0], runtime[0], runtime[1], row["dtype"])
    source = row["origin"].partition(":")[0]
    cycles = milliseconds * megahertz * 1e3
    return Sample(key, row["model"], family, board, work, cycles, power, source, is_guessed=is_guessed)


def _clean(core: str) -> str:
    core = core.replace("®", "").split(" (")[0].strip()
    return re.sub(r"^(?:32-[Bb]it )?(?:ARM|Arm) |^32-[Bb]it | with FPU$| 32-bit RISC core$", "", core)


def _is_external(row: Mapping[str, str], board: str) -> bool:
    limits = INTERNAL_BYTES.get(board)
    if limits is None:
        return False
    return float(row["ram_bytes"] or 0) > limits[0] or float(row["flash_bytes"] or 0) > limits[1]


def _count(row: Mapping[str, str]) -> tuple[str, Work, bool] | str:
    """Family, work, and whether the outputs are guessed; or why it cannot be counted."""
    stated = float(row["macs"] or 0)
    found = find(row["model"])
    if found is not None:
        counted = sum(found[1].macs.values())
        if stated and abs(counted / stated - 1) > LARGEST_DIFFERENCE:
            return f"another network: {counted:,.0f} multiply-accumulates counted, {stated:,.0f} stated"
        return (*found, False)
    family = INVERTED_RESIDUAL.get(row["model"].partition("-")[0])
    if family is None or not stated:
        return "its graph is not public text"
    like = mobilenet_v2(0.35, 128).work
    share = stated / sum(like.macs.values())
    scaled = [{kind: count * share for kind, count in counts.items()} for counts in (like.macs, like.outputs)]
    return family, Work(*scaled), True


def _copied(sample: Sample, samples: Sequence[Sample]) -> bool:
    """Tables of a newer version that repeat the times of an older one, to the digit."""
    if sample.key.runtime != "litert" or sample.key.version == "2.11":
        return False
    return any(
        other.key.version == "2.11" and other.key.runtime == "litert" and other.cycles == sample.cycles
        for other in samples
    )


DEAD = "the runtime removes its dead filters (971 of 1,496 are zero), so its work is not known"


def _has_dead_filters(sample: Sample, samples: Sequence[Sample]) -> bool:
    """MLPerf's MobileNet where it takes no more cycles for a multiply-accumulate than ResNet-8 does, which has no
    depthwise layers: then the runtime left out the two thirds of its filters that are zero."""
    if not sample.network.startswith("MobileNetV1-0.25 96 (MLPerf"):
        return False
    rates = [
        other.cycles / sum(other.work.macs.values())
        for other in samples
        if (other.key, other.board, other.family) == (sample.key, sample.board, "ResNet") and not other.is_part
    ]
    return bool(rates) and sample.cycles / sum(sample.work.macs.values()) < 1.1 * min(rates)


OPERATORS = {
    "CONV_2D": (("convolution", "pointwise"), ("convolution", "pointwise")),
    "DEPTHWISE_CONV_2D": (("depthwise",), ("depthwise",)),
    "FULLY_CONNECTED": (("dense",), ("dense",)),
    "ADD": ((), ("elementwise",)),
    "AVERAGE_POOL_2D": ((), ("pool",)),
}
TARGETS = {
    "esp32": (Key("Xtensa LX6", "tflm-esp-nn", "ESP-IDF 5.5", "int8"), "esp32 devkit"),
    "nano33ble": (Key("Cortex-M4", "tflm-cmsis-nn", "Arduino", "int8"), "nano33ble"),
}


def _by_operator(folder: Path) -> Iterable[Sample]:
    """Times by operator, as samples that hold those operators alone."""
    with (folder / "mcufit_bench_layers.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["op"] in OPERATORS]
    for row in rows:
        found = find(row["model"])
        assert found is not None, row["model"]
        family, work = found
        macs, outputs = OPERATORS[row["op"]]
        part = Work(
            {kind: work.macs[kind] for kind in macs if kind in work.macs},
            {kind: work.outputs[kind] for kind in outputs if kind in work.outputs},
        )
        key, board = TARGETS[row["target"]]
        cycles = float(row["us_per_inference"]) * float(row["cpu_mhz"])
        source = row["origin"].partition(":")[0]
        if sum(part.macs.values()) > 10_000 or not macs:  # a classifier of a few outputs is all overhead
            yield Sample(key, row["model"], family, board, part, cycles, None, source, is_part=True)


# ---------------------------------------------------------------------------------------- fitting


def solve(rows: Array, prior: Array, ridge: float = RIDGE) -> Array:
    """Coefficients of least relative error, none negative, drawn towards a prior.

    Args:
        rows: work divided by measured cycles (samples x coefficients).
        prior: coefficients (all positive).
        ridge: what a relative distance of 1 from the prior costs, in squared relative errors.
    """
    weight = np.sqrt(ridge)
    left = np.vstack([rows, weight * np.diag(1 / prior)])
    right = np.concatenate([np.ones(len(rows)), np.full(len(prior), weight)])
    found: Array = nnls(left, right)[0]
    return found


def groups(samples: Iterable[Sample]) -> dict[Key, list[Sample]]:
    """Samples by what is fitted together."""
    found: dict[Key, list[Sample]] = {}
    for sample in samples:
        found.setdefault(sample.key, []).append(sample)
    return found


def ratios(samples: Sequence[Sample], rounds: int = 15) -> Array:
    """What the four numbers are to each other over all systems, whose speeds differ; the first is 1.

    A system counts with the root of its samples, so that none decides alone.
    """
    ratio, weight = GUESS.copy(), np.sqrt(RATIO_RIDGE)
    by_key = groups(sample for sample in samples if not sample.is_part).values()
    weights = np.concatenate([np.full(len(group), len(group) ** -0.25) for group in by_key])
    for _ in range(rounds):
        scales = np.concatenate([np.full(len(group), speed(group, ratio)) for group in by_key])
        rows = [sample.row @ TIED / sample.cycles for group in by_key for sample in group]
        rows = np.array(rows) * (weights * scales)[:, None]
        left = np.vstack([rows, weight * np.diag(1 / GUESS)])
        right = np.concatenate([weights, np.full(len(GUESS), weight)])
        ratio = np.maximum(nnls(left, right)[0], 1e-3 * GUESS)
        ratio /= ratio[0]
    return ratio


def speed(group: Sequence[Sample], ratio: Array) -> float:
    """Cycles of the first number, by the median sample."""
    return float(np.exp(statistics.median(np.log(s.cycles / (s.row @ TIED @ ratio)) for s in group)))


def fit(group: Sequence[Sample], ratio: Array) -> Array:
    """A system's cycles for each of `KINDS`."""
    prior = ratio * speed(group, ratio)
    tells_apart = any(s.is_part for s in group) or len({s.network for s in group}) >= MANY
    if tells_apart:
        rows = np.array([sample.row / sample.cycles for sample in group])
        return solve(rows, TIED @ prior, RIDGE / 10)
    rows = np.array([sample.row @ TIED / sample.cycles for sample in group])
    return np.asarray(TIED @ solve(rows, prior))


# ---------------------------------------------------------------------------------------- leaving families out


@dataclass(frozen=True)
class Guess:
    """A network that was left out, with what was predicted."""

    sample: Sample
    cycles: float

    @property
    def error(self) -> float:
        """As a share of what was measured."""
        return self.cycles / self.sample.cycles - 1


class Ratios:
    """The common ratios without some families, each computed once."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.samples = samples
        self._found: dict[frozenset[str], Array] = {}

    def without(self, families: frozenset[str] = frozenset()) -> Array:
        """Over all samples of other families."""
        if families not in self._found:
            self._found[families] = ratios([sample for sample in self.samples if sample.family not in families])
        return self._found[families]


def left_out(group: Sequence[Sample], common: Ratios) -> list[Guess]:
    """Every whole network of a system, predicted without its family: here, and in the ratios over all systems.

    A system with one family is left out by fifths of its networks instead, and one with one network not at all.
    """
    found: list[Guess] = []
    is_one_family = len({sample.family for sample in group}) == 1
    for held in _parts(group):
        rest = [sample for sample in group if sample not in held]
        if not rest:
            continue
        families = frozenset() if is_one_family else frozenset({sample.family for sample in held} - ALONE)
        coefficients = fit(rest, common.without(families))
        found += [Guess(sample, float(sample.row @ coefficients)) for sample in held if not sample.is_part]
    return found


def _parts(group: Sequence[Sample]) -> list[list[Sample]]:
    families = sorted({sample.family for sample in group})
    if len(families) > 1:
        return [[sample for sample in group if sample.family == family] for family in families]
    names = sorted({sample.network for sample in group})
    parts = [set(names[number::5]) for number in range(min(5, len(names)))]
    return [[sample for sample in group if sample.network in part] for part in parts]


@dataclass(frozen=True)
class Fitted:
    """A system with its coefficients, and what families left out of it said.

    Attributes:
        key: core, runtime, version, data type.
        samples: that it was fitted on.
        coefficients: cycles for each of `KINDS`.
        guesses: of networks left out.
    """

    key: Key
    samples: Sequence[Sample]
    coefficients: Array
    guesses: Sequence[Guess]

    @property
    def networks(self) -> int:
        """Different ones."""
        return len({sample.network for sample in self.samples})

    def error(self, quantile: float) -> float | None:
        """Of the networks left out; None where none was."""
        errors = [abs(guess.error) for guess in self.guesses]
        return float(np.quantile(errors, quantile)) if errors else None


def fit_all(samples: Sequence[Sample]) -> list[Fitted]:
    """Every system of some samples."""
    common = Ratios(samples)
    return [
        Fitted(key, group, fit(group, common.without()), left_out(group, common))
        for key, group in sorted(groups(samples).items(), key=lambda item: str(item[0]))
    ]


def factors(guesses: Iterable[Guess]) -> tuple[float, float]:
    """The 10th and 90th percentile of measured by predicted: four in five networks are within them.

    A family that alone has a kind of operator does not count: a system that it was left out of lacks that kind.
    """
    found = [1 / (1 + guess.error) for guess in without_alone(guesses)]
    low, high = np.quantile(found, (0.1, 0.9), method="weibull")
    return float(low), float(high)


def without_alone(guesses: Iterable[Guess]) -> list[Guess]:
    """Those of families that share their kinds of operators with others; all where there is no such."""
    found = list(guesses)
    return [guess for guess in found if guess.sample.family not in ALONE] or found


def family_factors(guesses: Iterable[Guess]) -> tuple[float, float]:
    """The same where many networks of several families were measured: four in five networks of a *new* family.

    Networks of a family are off in the same direction. So of each family the extremes are taken, and of those the
    percentiles: ranges of all networks alike held only two thirds of a family that they were made without.
    """
    factors_of: dict[str, list[float]] = {}
    for guess in without_alone(guesses):
        factors_of.setdefault(guess.sample.family, []).append(1 / (1 + guess.error))
    low = np.quantile([min(found) for found in factors_of.values()], 0.1, method="weibull")
    high = np.quantile([max(found) for found in factors_of.values()], 0.9, method="weibull")
    return float(low), float(high)


def coverage(guesses: Sequence[Guess]) -> float:
    """The share of networks within a range that was made without their family."""
    kept = without_alone(guesses)
    inside = []
    for family in {guess.sample.family for guess in kept}:
        low, high = family_factors([guess for guess in kept if guess.sample.family != family])
        inside += [low <= 1 / (1 + guess.error) <= high for guess in kept if guess.sample.family == family]
    return sum(inside) / len(inside)


def by_one_network(group: Sequence[Sample], common: Ratios) -> list[Guess]:
    """Every network of a system predicted by each network of another family alone, as where only one was measured."""
    whole = [sample for sample in group if not sample.is_part]
    found: list[Guess] = []
    for known in {sample.network: sample for sample in whole}.values():
        for other in whole:
            if other.family != known.family:
                coefficients = fit([known], common.without(frozenset({other.family} - ALONE)))
                found.append(Guess(other, float(other.row @ coefficients)))
    return found


def is_varied(system: Fitted) -> bool:
    """Whether enough networks of more than one family were measured for a range of its own."""
    return system.networks >= ENOUGH and len({sample.family for sample in system.samples}) > 1


def ranges(fitted: Sequence[Fitted], samples: Sequence[Sample]) -> dict[Key, tuple[float, float]]:
    """Each system's range: by its own networks where they are many; else as wide as those of all systems with few, or
    with one, and as its own."""
    common = Ratios(samples)
    few = [system for system in fitted if system.networks < ENOUGH]
    shared = factors(guess for system in few for guess in system.guesses)
    by_one = factors(guess for system in few for guess in by_one_network(system.samples, common))
    found = {}
    for system in fitted:
        if is_varied(system):
            found[system.key] = family_factors(system.guesses)
            continue
        parts = [shared if system.networks > 1 else by_one]
        parts += [factors(system.guesses)] if system.guesses else []
        found[system.key] = min(low for low, _ in parts), max(high for _, high in parts)
    return found
