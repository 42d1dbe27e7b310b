"""Cycles by kind of operator, fitted on public measurements on boards: samples, fit, and errors on held-out families.

The fit is non-negative least squares on the *relative* error, so that a network that takes 1 ms counts as much as one
that takes 1 s. On most systems, too few networks were measured for a separate coefficient for each kind of operator.
The kinds are therefore tied to five coefficients: multiply-accumulates of full and pointwise convolutions; of depthwise
convolutions; of dense layers; outputs of all these; outputs of everything else. A ridge penalty on the relative
distance, with the weight of `RIDGE` samples, pulls each coefficient towards its ratio to the others over all systems.
Each kind has its own coefficient where the measurements tell the kinds apart (times by operator, or many networks).
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
"""Order of the coefficients."""
TIED = np.eye(5)[[0, 0, 1, 2, 3, 3, 3, 3, 4, 4, 4]]
"""Matrix that ties the coefficients to five: kinds x tied coefficients."""
GUESS = np.array([1.0, 2.0, 1.5, 10.0, 15.0])
"""Initial common ratios of the tied coefficients, in units of the first. A coefficient without data keeps its value."""
RIDGE = 0.1
RATIO_RIDGE = 1.0
"""Weight of the ridge on the common ratios, with `GUESS` as prior. Both weights were chosen by the held-out error."""
MANY = 40
"""Minimum number of networks for a separate coefficient for each kind of operator."""
ENOUGH = 10
"""Minimum number of networks for a range from the system's own errors."""
LARGEST_DIFFERENCE = 0.01
"""Largest accepted relative difference between counted and stated multiply-accumulates."""
ALONE = frozenset({"autoencoder"})
"""Families that alone have a kind of operator. They are held out of their system, but not of the ratios, which would
then lack that kind."""
STATED_MHZ = {"128 (documented)": 128.0}


@dataclass(frozen=True)
class Key:
    """Identifies a system: its samples are fitted together."""

    core: str
    runtime: str
    version: str
    dtype: str


@dataclass(frozen=True)
class Sample:
    """A measurement of one network, or of its operators of one kind, on one board.

    Attributes:
        key: core, runtime, version and data type.
        network: name of the network.
        family: architecture family.
        board: name of the board in the source.
        work: operations performed.
        cycles: measured cycles.
        power_mw: power in milliwatts; None where energy was not measured.
        source: repository and commit.
        is_part: whether only some operators of the network are included.
        is_guessed: whether only the multiply-accumulates are known; the outputs are then those of MobileNetV2, scaled
            to the same number of multiply-accumulates.
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
        """The work in the order of the coefficients."""
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
"""Internal RAM and flash of boards that also have slower external memory (ST's data sheets)."""
ALIASES = {"STM32H769I-DISCO": "STM32F769I-DISCO"}
"""A typo in a source table: ST makes no STM32H769."""
INVERTED_RESIDUAL = {"mcunet": "MCUNet", "proxyless": "ProxylessNAS"}
"""Networks built of MobileNetV2's blocks. Their multiply-accumulates are public, their exact graphs are not."""


@dataclass(frozen=True)
class Excluded:
    """A measurement that is not used, with the reason."""

    network: str
    board: str
    runtime: str
    reason: str


def match(table: Iterable[tuple[str, ...]], text: str) -> tuple[str, ...] | None:
    """Entries of the first row whose pattern matches the whole text, with the matched groups filled in."""
    for pattern, *entries in table:
        if (matched := re.fullmatch(pattern, text)) is not None:
            return tuple(matched.expand(entry) for entry in entries)
    return None


def read(folder: Path) -> tuple[list[Sample], list[Excluded]]:
    """All samples in a folder of measurements, and the measurements that were excluded."""
    with (folder / "measured.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    samples: list[Sample] = []
    excluded: list[Excluded] = []
    for row in rows:
        sample_or_reason = _sample(row)
        if isinstance(sample_or_reason, Sample):
            samples.append(sample_or_reason)
        else:
            excluded.append(Excluded(row["model"], row["board"], row["runtime"], sample_or_reason))
    for rule, reason in ((_copied, "copied from an older version of the runtime"), (_has_dead_filters, DEAD)):
        removed = [sample for sample in samples if rule(sample, samples)]
        excluded += [Excluded(s.network, s.board, f"{s.key.runtime} {s.key.version}", reason) for s in removed]
        samples = [sample for sample in samples if sample not in removed]
    return samples + list(_by_operator(folder)), excluded


def _sample(row: Mapping[str, str]) -> Sample | str:
    """The sample of one row, or the reason why the row is not used."""
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
    """Family, work, and whether the outputs are guessed; or the reason why the work cannot be counted."""
    stated = float(row["macs"] or 0)
    known = find(row["model"])
    if known is not None:
        counted = sum(known[1].macs.values())
        if stated and abs(counted / stated - 1) > LARGEST_DIFFERENCE:
            return f"another network: {counted:,.0f} multiply-accumulates counted, {stated:,.0f} stated"
        return (*known, False)
    family = INVERTED_RESIDUAL.get(row["model"].partition("-")[0])
    if family is None or not stated:
        return "its graph is not public text"
    reference = mobilenet_v2(0.35, 128).work
    share = stated / sum(reference.macs.values())
    scaled = [{kind: count * share for kind, count in counts.items()} for counts in (reference.macs, reference.outputs)]
    return family, Work(*scaled), True


def _copied(sample: Sample, samples: Sequence[Sample]) -> bool:
    """Whether the time is from a table of a newer version that repeats an older version's times to the digit."""
    if sample.key.runtime != "litert" or sample.key.version == "2.11":
        return False
    return any(
        other.key.version == "2.11" and other.key.runtime == "litert" and other.cycles == sample.cycles
        for other in samples
    )


DEAD = "the runtime removes its dead filters (971 of 1,496 are zero), so its work is not known"


def _has_dead_filters(sample: Sample, samples: Sequence[Sample]) -> bool:
    """Whether the sample is MLPerf's MobileNet on a runtime that removes its zero filters (two thirds of them).

    This is the case if it takes about as few cycles per multiply-accumulate as ResNet-8, which has no depthwise layers.
    """
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
    """Samples from times by operator; each holds the operators of one kind only."""
    with (folder / "mcufit_bench_layers.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["op"] in OPERATORS]
    for row in rows:
        known = find(row["model"])
        assert known is not None, row["model"]
        family, work = known
        macs, outputs = OPERATORS[row["op"]]
        part = Work(
            {kind: work.macs[kind] for kind in macs if kind in work.macs},
            {kind: work.outputs[kind] for kind in outputs if kind in work.outputs},
        )
        key, board = TARGETS[row["target"]]
        cycles = float(row["us_per_inference"]) * float(row["cpu_mhz"])
        source = row["origin"].partition(":")[0]
        if sum(part.macs.values()) > 10_000 or not macs:  # a classifier with few outputs is mostly overhead
            yield Sample(key, row["model"], family, board, part, cycles, None, source, is_part=True)


# ---------------------------------------------------------------------------------------- fitting


def solve(rows: Array, prior: Array, ridge: float = RIDGE) -> Array:
    """Non-negative coefficients with the smallest relative error, pulled towards a prior.

    Args:
        rows: work divided by measured cycles (samples x coefficients).
        prior: prior coefficients, all positive.
        ridge: penalty for a relative distance of 1 from the prior, in squared relative errors.
    """
    weight = np.sqrt(ridge)
    matrix = np.vstack([rows, weight * np.diag(1 / prior)])
    target = np.concatenate([np.ones(len(rows)), np.full(len(prior), weight)])
    coefficients: Array = nnls(matrix, target)[0]
    return coefficients


def groups(samples: Iterable[Sample]) -> dict[Key, list[Sample]]:
    """Samples by system."""
    by_key: dict[Key, list[Sample]] = {}
    for sample in samples:
        by_key.setdefault(sample.key, []).append(sample)
    return by_key


def ratios(samples: Sequence[Sample], rounds: int = 15) -> Array:
    """Common ratios of the tied coefficients over all systems, whose speeds differ; the first is 1.

    Each system is weighted by the square root of its number of samples, so that no single system dominates.
    """
    ratio, weight = GUESS.copy(), np.sqrt(RATIO_RIDGE)
    by_key = groups(sample for sample in samples if not sample.is_part).values()
    weights = np.concatenate([np.full(len(group), len(group) ** -0.25) for group in by_key])
    for _ in range(rounds):
        scales = np.concatenate([np.full(len(group), speed(group, ratio)) for group in by_key])
        rows = [sample.row @ TIED / sample.cycles for group in by_key for sample in group]
        rows = np.array(rows) * (weights * scales)[:, None]
        matrix = np.vstack([rows, weight * np.diag(1 / GUESS)])
        target = np.concatenate([weights, np.full(len(GUESS), weight)])
        ratio = np.maximum(nnls(matrix, target)[0], 1e-3 * GUESS)
        ratio /= ratio[0]
    return ratio


def speed(group: Sequence[Sample], ratio: Array) -> float:
    """First tied coefficient of a system, in cycles: the median over samples, given the ratios."""
    return float(np.exp(statistics.median(np.log(s.cycles / (s.row @ TIED @ ratio)) for s in group)))


def fit(group: Sequence[Sample], ratio: Array) -> Array:
    """Coefficients of a system: cycles for each of `KINDS`."""
    prior = ratio * speed(group, ratio)
    tells_apart = any(s.is_part for s in group) or len({s.network for s in group}) >= MANY
    if tells_apart:
        rows = np.array([sample.row / sample.cycles for sample in group])
        return solve(rows, TIED @ prior, RIDGE / 10)
    rows = np.array([sample.row @ TIED / sample.cycles for sample in group])
    return np.asarray(TIED @ solve(rows, prior))


# ---------------------------------------------------------------------------------------- held-out families


@dataclass(frozen=True)
class Guess:
    """A held-out network with its predicted cycles."""

    sample: Sample
    cycles: float

    @property
    def error(self) -> float:
        """Relative error of the prediction."""
        return self.cycles / self.sample.cycles - 1


class Ratios:
    """Common ratios without some families, computed once for each set of families."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.samples = samples
        self._ratios: dict[frozenset[str], Array] = {}

    def without(self, families: frozenset[str] = frozenset()) -> Array:
        """Ratios over the samples of all other families."""
        if families not in self._ratios:
            self._ratios[families] = ratios([sample for sample in self.samples if sample.family not in families])
        return self._ratios[families]


def left_out(group: Sequence[Sample], common: Ratios) -> list[Guess]:
    """Predict every whole network of a system with its family held out of the system's fit and of the common ratios.

    In a system with a single family, fifths of its networks are held out instead. A system with a single network gives
    no predictions.
    """
    guesses: list[Guess] = []
    is_one_family = len({sample.family for sample in group}) == 1
    for held_out in _parts(group):
        rest = [sample for sample in group if sample not in held_out]
        if not rest:
            continue
        families = frozenset() if is_one_family else frozenset({sample.family for sample in held_out} - ALONE)
        coefficients = fit(rest, common.without(families))
        guesses += [Guess(sample, float(sample.row @ coefficients)) for sample in held_out if not sample.is_part]
    return guesses


def _parts(group: Sequence[Sample]) -> list[list[Sample]]:
    families = sorted({sample.family for sample in group})
    if len(families) > 1:
        return [[sample for sample in group if sample.family == family] for family in families]
    names = sorted({sample.network for sample in group})
    parts = [set(names[number::5]) for number in range(min(5, len(names)))]
    return [[sample for sample in group if sample.network in part] for part in parts]


@dataclass(frozen=True)
class Fitted:
    """A system with its coefficients and its predictions of held-out networks.

    Attributes:
        key: core, runtime, version and data type.
        samples: samples that the system was fitted on.
        coefficients: cycles for each of `KINDS`.
        guesses: predictions of held-out networks.
    """

    key: Key
    samples: Sequence[Sample]
    coefficients: Array
    guesses: Sequence[Guess]

    @property
    def networks(self) -> int:
        """Number of distinct networks."""
        return len({sample.network for sample in self.samples})

    def error(self, quantile: float) -> float | None:
        """Quantile of the absolute relative error on held-out networks; None if there are none."""
        errors = [abs(guess.error) for guess in self.guesses]
        return float(np.quantile(errors, quantile)) if errors else None


def fit_all(samples: Sequence[Sample]) -> list[Fitted]:
    """Fit every system that occurs in the samples."""
    common = Ratios(samples)
    return [
        Fitted(key, group, fit(group, common.without()), left_out(group, common))
        for key, group in sorted(groups(samples).items(), key=lambda item: str(item[0]))
    ]


def factors(guesses: Iterable[Guess]) -> tuple[float, float]:
    """10th and 90th percentile of measured divided by predicted cycles: four in five networks are in between.

    Families that alone have a kind of operator do not count, since a system without them lacks that kind.
    """
    measured_by_predicted = [1 / (1 + guess.error) for guess in without_alone(guesses)]
    low, high = np.quantile(measured_by_predicted, (0.1, 0.9), method="weibull")
    return float(low), float(high)


def without_alone(guesses: Iterable[Guess]) -> list[Guess]:
    """Predictions without the families that alone have a kind of operator; all predictions if no others are left."""
    all_guesses = list(guesses)
    return [guess for guess in all_guesses if guess.sample.family not in ALONE] or all_guesses


def family_factors(guesses: Iterable[Guess]) -> tuple[float, float]:
    """Like `factors`, for many networks of several families: the range for four in five networks of a *new* family.

    Errors of networks in a family have the same direction. The percentiles are therefore taken over the extremes of
    each family: percentiles over all networks covered only two thirds of a held-out family.
    """
    factors_of: dict[str, list[float]] = {}
    for guess in without_alone(guesses):
        factors_of.setdefault(guess.sample.family, []).append(1 / (1 + guess.error))
    low = np.quantile([min(family) for family in factors_of.values()], 0.1, method="weibull")
    high = np.quantile([max(family) for family in factors_of.values()], 0.9, method="weibull")
    return float(low), float(high)


def coverage(guesses: Sequence[Guess]) -> float:
    """Share of networks that are within a range computed without their family."""
    kept = without_alone(guesses)
    inside = []
    for family in {guess.sample.family for guess in kept}:
        low, high = family_factors([guess for guess in kept if guess.sample.family != family])
        inside += [low <= 1 / (1 + guess.error) <= high for guess in kept if guess.sample.family == family]
    return sum(inside) / len(inside)


def by_one_network(group: Sequence[Sample], common: Ratios) -> list[Guess]:
    """Predict every network of a system from each single network of another family, as if only that were measured."""
    whole_networks = [sample for sample in group if not sample.is_part]
    predictions: list[Guess] = []
    for reference in {sample.network: sample for sample in whole_networks}.values():
        for other in whole_networks:
            if other.family != reference.family:
                coefficients = fit([reference], common.without(frozenset({other.family} - ALONE)))
                predictions.append(Guess(other, float(other.row @ coefficients)))
    return predictions


def is_varied(system: Fitted) -> bool:
    """Whether enough networks of more than one family were measured for the system to have its own range."""
    return system.networks >= ENOUGH and len({sample.family for sample in system.samples}) > 1


def ranges(fitted: Sequence[Fitted], samples: Sequence[Sample]) -> dict[Key, tuple[float, float]]:
    """Range of each system.

    A system with many networks (`is_varied`) has its own range. The range of any other covers its own errors and the
    range over all systems with few networks. For a system with a single network, that shared range is replaced by the
    range of predictions from a single network.
    """
    common = Ratios(samples)
    small_systems = [system for system in fitted if system.networks < ENOUGH]
    shared = factors(guess for system in small_systems for guess in system.guesses)
    from_one = factors(guess for system in small_systems for guess in by_one_network(system.samples, common))
    range_of = {}
    for system in fitted:
        if is_varied(system):
            range_of[system.key] = family_factors(system.guesses)
            continue
        candidates = [shared if system.networks > 1 else from_one]
        candidates += [factors(system.guesses)] if system.guesses else []
        range_of[system.key] = min(low for low, _ in candidates), max(high for _, high in candidates)
    return range_of
