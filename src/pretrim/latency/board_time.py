"""Time on a microcontroller that nobody here owns: cycles by kind of operator, fitted on public measurements.

``board_times.toml`` holds, for each processor core, runtime and version that others measured networks on, how many
cycles a multiply-accumulate and an output take, by kind of operator, how many networks that was fitted on, and the
error on architecture families that were left out of the fit. `scripts/fit_board_times.py` writes it.

The time depends on the runtime more than on the network (a multiply-accumulate on a Cortex-M7 takes from one cycle to
over forty), so a prediction always names its runtime and is always given with its range.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pretrim.analysis.network import IntArray, Network, Operator
from pretrim.cost.formula import Formula, Term, formula
from pretrim.cost.microcontroller import ACTIVATIONS, FUSES, Lowering, Node, lower
from pretrim.devices import Board
from pretrim.errors import UsageError

WEIGHTED = ("convolution", "pointwise", "depthwise", "dense")
"""Kinds of operators with multiply-accumulates"""
OTHERS = ("elementwise", "activation", "pool")
"""Kinds without: sums and products of feature maps, activations that are not fused, pools and means"""
ELEMENTWISE = frozenset({"add", "sub", "mul", "div"})
POOLS = frozenset({"max_pool2d_with_indices", "avg_pool2d", "mean"})
ELEMENT_FUNCTIONS = frozenset(
    {"relu", "hardtanh", "clamp", "leaky_relu", "prelu", "elu", "gelu", "silu", "mish", "softplus", "exp"}
    | {"sigmoid", "hardsigmoid", "hardswish", "tanh", "_softmax", "_log_softmax"}
)
"""Activations, where they are operators of their own. What is in none of these sets moves data, or was not measured by
anybody: its time is left out, and its name is said"""
TITLES = {
    "st-edge-ai": "X-CUBE-AI",
    "tflm-reference": "TFLM's reference kernels",
    "tflm-cmsis-nn": "TFLM with CMSIS-NN",
    "tflm-esp-nn": "TFLM with ESP-NN",
    "tflm-esp-nn-ansi-c": "TFLM with ESP-NN in plain C",
    "tflm-zephyr": "TFLM of Zephyr",
    "litert": "LiteRT",
    "microtvm": "microTVM",
    "tinyengine": "TinyEngine",
    "plumerai": "Plumerai",
    "hale": "Bosch HALE",
    "onnc": "ONNC",
    "esp-dl": "ESP-DL",
}
"""What runtimes are called in texts"""
ALIASES = {"x-cube-ai": "st-edge-ai", "stm32cube.ai": "st-edge-ai"}
"""Older names of runtimes"""
ONLY_ON = {"st-edge-ai": "STM32"}
"""What is in the titles of the boards that a runtime's licence and tools are limited to"""
ENOUGH = 10
"""Networks that make a version the first choice"""
SECOND_NS = 10**9
MICRO = 1e6


@dataclass(frozen=True)
class Work:
    """What a network makes a processor do for one image.

    Attributes:
        macs: multiply-accumulates by kind of operator.
        outputs: elements computed, by kind of operator; of a mean over all places, the elements it reads.
    """

    macs: Mapping[str, float]
    outputs: Mapping[str, float]


@dataclass(frozen=True)
class Part:
    """The work of one operator, as terms of the network's widths.

    Attributes:
        kind: one of `WEIGHTED` or `OTHERS`.
        macs: multiply-accumulates, where it has any.
        outputs: elements.
        parameters: the names of its weights and biases.
    """

    kind: str
    macs: Term | None
    outputs: Term
    parameters: tuple[str, ...]


def parts_of(network: Network) -> tuple[list[Part], tuple[str, ...]]:
    """The work of a network, operator by operator as LiteRT's converter makes them, and the kinds left out."""
    low = lower(network, "int8")
    merged = _merged(low)
    parts, left_out = [], []
    for number, node in enumerate(low.nodes):
        if number in merged:
            continue
        kind = _kind(low, node)
        if kind is None:
            left_out.append(node.kind)
            continue
        is_weighted = kind in WEIGHTED and bool(node.operator.factors)
        macs: Term | None = (1.0, node.operator.factors) if is_weighted else None
        parts.append(Part(kind, macs, _outputs(low, number, node), node.operator.parameters if is_weighted else ()))
    return parts, tuple(dict.fromkeys(left_out))


def _merged(low: Lowering) -> set[int]:
    """ReLUs that LiteRT does not run: those that repeat another of the same feature map, and all of a feature map that
    nothing else reads, which become a part of the operator that makes it."""
    readers: dict[int, list[int]] = {}
    for number, node in enumerate(low.nodes):
        for activation in node.reads:
            readers.setdefault(activation, []).append(number)
    merged: set[int] = set()
    for activation, numbers in readers.items():
        relus = [number for number in numbers if low.nodes[number].kind in ACTIVATIONS]
        is_fused = relus == numbers and low.made_by[activation] in FUSES
        merged.update(relus if is_fused else relus[1:])
    return merged


def work_of(network: Network, widths: ArrayLike | None = None) -> Work:
    """The work of a network at widths (G), by default the dense network's."""
    sizes = network.sizes(network.dense if widths is None else widths)
    macs: dict[str, float] = {}
    outputs: dict[str, float] = {}
    for part in parts_of(network)[0]:
        for term, into in ((part.macs, macs), (part.outputs, outputs)):
            if term is not None:
                into[part.kind] = into.get(part.kind, 0.0) + term[0] * float(np.prod(sizes[list(term[1])]))
    return Work(macs, outputs)


def _kind(low: Lowering, node: Node) -> str | None:
    """Which of the kinds an operator is; None for those whose time is not known."""
    operator = node.operator
    if node.kind == "convolution":
        return _kind_of_convolution(low, operator)
    if node.kind in ("addmm", "linear", "mm", "bmm", "matmul"):
        return "dense"
    if node.kind in ELEMENTWISE:
        return "elementwise"
    if node.kind in POOLS:
        return "pool"
    return "activation" if node.kind in ELEMENT_FUNCTIONS else None


def _kind_of_convolution(low: Lowering, operator: Operator) -> str:
    sizes = low.network.sizes(low.network.dense)
    kernel = [int(sizes[dim]) for dim in operator.weight[1:]]
    if int(operator.attributes.get("groups", 1)) > 1 and kernel[0] == 1:
        return "depthwise"
    return "pointwise" if max(kernel[1:], default=1) == 1 else "convolution"


def _outputs(low: Lowering, number: int, node: Node) -> Term:
    if node.kind == "mean":
        return low.elements[node.reads[0]]
    written = [t for t, birth in enumerate(low.births) if birth == number and low.made_by[t] != "input"]
    return low.elements[written[0]] if written else low.elements[node.reads[0]]


# ---------------------------------------------------------------------------------------- what was measured


@dataclass(frozen=True)
class System:
    """A core with a runtime that others measured networks on; an entry of ``board_times.toml``.

    Attributes:
        core: as boards name it, without its maker.
        runtime, version: of what ran the networks; the version is empty where its source does not say.
        dtype: int8 or float32.
        networks: how many different networks it was fitted on.
        families: their architecture families.
        boards: where they were measured.
        kinds: of operators that they have.
        cycles_per_mac, cycles_per_output: by kind of operator.
        median_error, p90_error: of families left out of the fit, as shares of the measured time; None where there is
            one family alone.
        range: the 10th and 90th percentile of measured by predicted, of what was left out here or, where that is
            little, of all systems with few networks.
        power_mw: by board, where energy was measured.
        sources: repositories and commits.
    """

    core: str
    runtime: str
    version: str
    dtype: str
    networks: int
    families: tuple[str, ...]
    boards: tuple[str, ...]
    kinds: tuple[str, ...]
    cycles_per_mac: Mapping[str, float]
    cycles_per_output: Mapping[str, float]
    range: tuple[float, float]
    sources: tuple[str, ...]
    median_error: float | None = None
    p90_error: float | None = None
    power_mw: Mapping[str, float] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The runtime with its version."""
        return f"{self.runtime} {self.version}".strip()

    def cycles(self, work: Work) -> float:
        """Of one image."""
        macs = sum(self.cycles_per_mac[kind] * count for kind, count in work.macs.items())
        return macs + sum(self.cycles_per_output[kind] * count for kind, count in work.outputs.items())


@cache
def systems() -> tuple[System, ...]:
    """Everything in ``board_times.toml``."""
    data = tomllib.loads(files(__package__).joinpath("board_times.toml").read_text(encoding="utf-8"))
    return tuple(System(**{name: _frozen(value) for name, value in entry.items()}) for entry in data["system"])


@cache
def wide_range() -> tuple[float, float]:
    """Of networks with operators of a kind that was not measured on their system: the widest of all ranges."""
    return min(system.range[0] for system in systems()), max(system.range[1] for system in systems())


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def core_of(board: Board) -> str:
    """The core of a board as the measurements name it: without maker, and without what its suffix says of floats.

    >>> from pretrim.devices import board
    >>> core_of(board("stm32f407")), core_of(board("rp2040"))
    ('Cortex-M4', 'Cortex-M0+')
    """
    name = board.core.removeprefix("Arm ").partition(" (")[0]
    return name[:-1] if name.startswith("Cortex-M") and name.endswith("F") else name


def known_runtimes(board: Board, dtype: str | None = None) -> tuple[str, ...]:
    """Runtimes with public measurements on the core of a board: ``st-edge-ai 8.1``, ... Of several versions the one
    that is meant by the runtime's name alone comes first: the newest of those with ten networks or more, or of all.
    """
    return tuple(dict.fromkeys(system.title for system in _of_core(board, dtype)))


def _of_core(board: Board, dtype: str | None) -> list[System]:
    core = core_of(board)
    found = [
        system
        for system in systems()
        if system.core == core and dtype in (None, system.dtype) and ONLY_ON.get(system.runtime, "") in board.title
    ]
    return sorted(found, key=_preference, reverse=True)


def _preference(system: System) -> tuple[bool, list[int], int]:
    version = [int(number) for number in re.findall(r"\d+", system.version)]
    return system.networks >= ENOUGH, version, system.networks


# ---------------------------------------------------------------------------------------- the cost


@dataclass(frozen=True)
class BoardTimeCost:
    """Nanoseconds of one image on a microcontroller as a function of widths; it never falls when a width grows.

    Attributes:
        total: one column.
        layers: a column for each layer of the network.
        range: factors from the prediction to the range.
        label: the board, its clock, the runtime and what it was fitted on.
    """

    total: Formula
    layers: Formula
    range: tuple[float, float]
    label: str
    name: str = "latency_ns"

    def __call__(self, widths: ArrayLike) -> IntArray:
        """Values (n) for widths (n x G), or one value for widths (G)."""
        rows = np.atleast_2d(np.asarray(widths, dtype=np.int64))
        values = np.rint(self.total(rows)[:, 0]).astype(np.int64)
        result: IntArray = values[0] if np.ndim(widths) == 1 else values
        return result

    def by_layer(self, widths: ArrayLike) -> NDArray[np.float64]:
        """Nanoseconds of each layer of the network: (n x G) -> (n x layers)."""
        return self.layers(np.atleast_2d(np.asarray(widths, dtype=np.int64)))

    def interval(self, widths: ArrayLike) -> tuple[IntArray, IntArray]:
        """The lower and the upper end of the range, each shaped as the values are."""
        low, high = (np.rint(self(widths) * factor).astype(np.int64) for factor in self.range)
        return low, high


@dataclass(frozen=True)
class BoardTime:
    """A prediction of time on a board, with everything that has to be said of it.

    Attributes:
        board: the name of the board.
        core, clock_hz: of its processor.
        system: the measurements that it is fitted on.
        cost: nanoseconds as a function of widths.
        left_out: kinds of operators whose time is not counted.
        unmeasured: kinds of operators of this network that no measured network had; their cycles are those of other
            systems, scaled, and the range is the widest of all.
    """

    board: str
    core: str
    clock_hz: int
    system: System
    cost: BoardTimeCost
    left_out: tuple[str, ...]
    unmeasured: tuple[str, ...]

    @property
    def label(self) -> str:
        """In one line: board, core, clock, runtime with version, data type, and what it is fitted on."""
        return self.cost.label

    def range_of(self, ns: float) -> tuple[int, int]:
        """The range of a predicted time: four in five networks of families left out of the fit were within it."""
        return round(ns * self.cost.range[0]), round(ns * self.cost.range[1])

    def energy_uj(self, ns: float) -> float | None:
        """Microjoules for a time, where the power of this very board was measured with this runtime; else None."""
        power = self.system.power_mw.get(self.board)
        return None if power is None else power * ns / MICRO


def board_time(network: Network, board: Board, runtime: str | None = None, dtype: str = "int8") -> BoardTime:
    """Predict the time of a network on a board by measurements of other networks on the same kind of processor.

    Args:
        network: analysed.
        board: a microcontroller.
        runtime: its name, as `known_runtimes` gives it, with a version (``"st-edge-ai 8.1"``) or without one: the
            version with most networks. None where only one is known.
        dtype: int8 or float32.

    Raises UsageError where no public measurement has this core with this runtime and data type; the message lists
    those that are known.
    """
    system = _system(board, runtime, dtype)
    parts, left_out = parts_of(network)
    ns = SECOND_NS / board.clock_hz
    unmeasured = tuple(kind for kind in (*WEIGHTED, *OTHERS) if kind in _kinds(parts) and kind not in system.kinds)
    cost = BoardTimeCost(
        total=formula(network, [[term for part in parts for term in _terms(part, system, ns)]]),
        layers=formula(network, _by_layer(network, parts, system, ns)),
        range=wide_range() if unmeasured else system.range,
        label=_label(board, system, unmeasured),
    )
    return BoardTime(board.name, core_of(board), board.clock_hz, system, cost, left_out, unmeasured)


def _kinds(parts: list[Part]) -> set[str]:
    return {part.kind for part in parts}


def _terms(part: Part, system: System, ns: float) -> Iterator[Term]:
    if part.macs is not None:
        yield ns * system.cycles_per_mac[part.kind] * part.macs[0], part.macs[1]
    yield ns * system.cycles_per_output[part.kind] * part.outputs[0], part.outputs[1]


def _by_layer(network: Network, parts: list[Part], system: System, ns: float) -> list[list[Term]]:
    place = {layer.parameters: number for number, layer in enumerate(network.layers)}
    columns: list[list[Term]] = [[] for _ in network.layers]
    for part in parts:
        if part.parameters in place:
            columns[place[part.parameters]].extend(_terms(part, system, ns))
    return columns


def _label(board: Board, system: System, unmeasured: tuple[str, ...]) -> str:
    of = f"{system.networks} networks" if system.networks > 1 else "one network"
    clock = f"{board.clock_hz / MICRO:g} MHz"
    missing = f", none with {' or '.join(unmeasured)} operators" if unmeasured else ""
    runtime = f"{TITLES.get(system.runtime, system.runtime)} {system.version or '(version not stated)'}"
    return f"{board.name} ({core_of(board)}, {clock}), {runtime}, {system.dtype}, one core: fitted on {of}{missing}"


def _system(board: Board, runtime: str | None, dtype: str) -> System:
    """The measurements for a board and a runtime. Raises UsageError, which lists what is known."""
    core = core_of(board)
    if not _of_core(board, None):
        ethos = " Vela estimates its Ethos-U's cycles for a .tflite." if board.ethos_u else ""
        raise UsageError(f"No public measurement of any runtime on {core} ({board.name}) is known to pretrim.{ethos}")
    known = known_runtimes(board, dtype)
    if not known:
        dtypes = ", ".join(sorted({system.dtype for system in _of_core(board, None)}))
        raise UsageError(f"No public measurement on {core} ({board.name}) is in {dtype}: take {dtypes}.")
    found = [system for system in _of_core(board, dtype) if _is_called(system, runtime)]
    names = ", ".join(known)
    if runtime is None and len({system.runtime for system in found}) > 1:
        raise UsageError(f"Name the runtime, since times on {board.name} depend on it most: one of {names}.")
    if not found:
        raise UsageError(f"No public measurement of {runtime!r} on {core} ({board.name}) in {dtype}: take {names}.")
    if len({system.runtime for system in found}) > 1:
        several = ", ".join(dict.fromkeys(system.title for system in found))
        raise UsageError(f"Expected one runtime, but {runtime!r} may be any of {several}: name it in full.")
    return found[0]


def _is_called(system: System, name: str | None) -> bool:
    """Whether a user means this system: by the runtime, by runtime and version, or by the start of the runtime."""
    if name is None:
        return True
    wanted = name.strip().lower().replace("@", " ")
    for alias, runtime in ALIASES.items():
        wanted = wanted.replace(alias, runtime)
    return wanted in (system.runtime, system.title.lower()) or system.runtime.startswith(f"{wanted}-")
