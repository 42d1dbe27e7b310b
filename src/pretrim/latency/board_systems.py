"""Processor cores and runtimes with public measurements: the contents of ``board_times.toml``, looked up by name.

`scripts/fit_board_times.py` writes that file. For each core, runtime and version it holds the cycles per
multiply-accumulate and per output element by kind of operator, the number of networks in the fit, and the error on
architecture families held out of the fit. Nothing heavy is imported here, since `pretrim devices` lists these systems.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

from pretrim.devices import Board
from pretrim.errors import UsageError, shown

WEIGHTED = ("convolution", "pointwise", "depthwise", "dense")
"""Kinds of operators with multiply-accumulates."""
OTHERS = ("elementwise", "activation", "pool")
"""Kinds without them: sums and products of feature maps, activations that are not fused, pooling and means."""
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
"""Display names of runtimes."""
ALIASES = {"x-cube-ai": "st-edge-ai", "stm32cube.ai": "st-edge-ai"}
"""Former names of runtimes."""
SAME_FILES = {"litert": "tflm"}
"""Names of file formats, with the microcontroller runtime that runs them."""
ONLY_ON = {"st-edge-ai": "STM32"}
"""Runtimes whose licence and tools are limited to some boards, with a text that these boards' titles contain."""
ENOUGH = 10
"""A version fitted on at least this many networks is preferred."""
SECOND_NS = 10**9
MICRO = 1e6


@dataclass(frozen=True)
class Work:
    """The operations that a network performs for one image.

    Attributes:
        macs: multiply-accumulates by kind of operator.
        outputs: output elements by kind of operator; for a mean over all positions, the elements that it reads.
    """

    macs: Mapping[str, float]
    outputs: Mapping[str, float]


@dataclass(frozen=True)
class System:
    """A core with a runtime that has public measurements; an entry of ``board_times.toml``.

    Attributes:
        core: name of the core as boards give it, without its vendor.
        runtime, version: the runtime that ran the networks; the version is empty if the source does not state it.
        dtype: int8 or float32.
        networks: number of different networks in the fit.
        families: their architecture families.
        boards: the boards they were measured on.
        kinds: the kinds of operators in these networks.
        cycles_per_mac, cycles_per_output: cycles by kind of operator.
        median_error, p90_error: error on families held out of the fit, as a fraction of the measured time; None if
            there is only one family.
        range: 10th and 90th percentile of measured over predicted time, on the networks held out here or, if these are
            few, on those of all systems with few networks.
        power_mw: power by board, where energy was measured.
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
        """Name of the runtime with its version."""
        return f"{self.runtime} {self.version}".strip()

    def cycles(self, work: Work) -> float:
        """Predict the cycles for one image."""
        macs = sum(self.cycles_per_mac[kind] * count for kind, count in work.macs.items())
        return macs + sum(self.cycles_per_output[kind] * count for kind, count in work.outputs.items())


@cache
def systems() -> tuple[System, ...]:
    """All systems in ``board_times.toml``."""
    data = tomllib.loads(files(__package__).joinpath("board_times.toml").read_text(encoding="utf-8"))
    return tuple(System(**{name: _as_tuple(value) for name, value in entry.items()}) for entry in data["system"])


@cache
def wide_range() -> tuple[float, float]:
    """The widest of all ranges, for networks with operators of a kind that was not measured on their system."""
    return min(system.range[0] for system in systems()), max(system.range[1] for system in systems())


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def core_of(board: Board) -> str:
    """The core of a board as the measurements name it."""
    return board.core_name


def known_runtimes(board: Board, dtype: str | None = None) -> tuple[str, ...]:
    """Runtimes with public measurements on the core of a board, such as ``st-edge-ai 8.1``.

    Of several versions, the one that the runtime's name alone refers to comes first: the newest of those with ten
    networks or more, or else the newest of all.
    """
    return tuple(dict.fromkeys(system.title for system in systems_of(board, dtype)))


def systems_of(board: Board, dtype: str | None = None) -> list[System]:
    """The systems of a board's core, in one data type or (None) in any; the default system comes first."""
    core = core_of(board)
    matching = [
        system
        for system in systems()
        if system.core == core and dtype in (None, system.dtype) and ONLY_ON.get(system.runtime, "") in board.title
    ]
    return sorted(matching, key=_preference, reverse=True)


def _preference(system: System) -> tuple[bool, list[int], int]:
    version = [int(number) for number in re.findall(r"\d+", system.version)]
    return system.networks >= ENOUGH, version, system.networks


def find_system(board: Board, runtime: str | None, dtype: str) -> System:
    """Find the system of a board and a runtime. Raises UsageError, which lists the known ones, unless it is unique.

    Args:
        board: the board.
        runtime: name of the runtime; None for the only known one.
        dtype: data type of the network.
    """
    core = core_of(board)
    if not systems_of(board, None):
        ethos = " Vela estimates its Ethos-U's cycles for a .tflite." if board.ethos_u else ""
        raise UsageError(f"No public measurement of any runtime on {core} ({board.name}) is known to pretrim.{ethos}")
    known = known_runtimes(board, dtype)
    if not known:
        dtypes = ", ".join(sorted({system.dtype for system in systems_of(board, None)}))
        raise UsageError(f"No public measurement on {core} ({board.name}) is in {dtype}: take {dtypes}.")
    matching = _named(systems_of(board, dtype), runtime)
    names = ", ".join(known)
    if runtime is None and len({system.runtime for system in matching}) > 1:
        raise UsageError(f"Name the runtime, since times on {board.name} depend on it most: one of {names}.")
    if not matching:
        raise UsageError(
            f"No public measurement of {shown(runtime)} on {core} ({board.name}) in {dtype}: take {names}."
        )
    if len({system.runtime for system in matching}) > 1:
        several = ", ".join(dict.fromkeys(system.title for system in matching))
        raise UsageError(f"Expected one runtime, but {shown(runtime)} may be any of {several}: name it in full.")
    return matching[0]


def _named(known: list[System], name: str | None) -> list[System]:
    """The systems that a name matches: by runtime, by runtime and version, or else by the start of the runtime."""
    if name is None:
        return known
    wanted = name.strip().lower().replace("@", " ")
    wanted = SAME_FILES.get(wanted, wanted)
    for alias, runtime in ALIASES.items():
        wanted = wanted.replace(alias, runtime)
    exact = [system for system in known if wanted in (system.runtime, system.title.lower())]
    return exact or [system for system in known if system.runtime.startswith(f"{wanted}-")]


@dataclass(frozen=True)
class Prediction:
    """The basis of a latency prediction on a board, with everything that must be stated along with it.

    Attributes:
        board: the microcontroller.
        system: the fitted measurements.
        left_out: kinds of operators whose time is not counted.
        unmeasured: kinds of operators in this network that no measured network had; their cycles are scaled from other
            systems, and the range is the widest of all.
    """

    board: Board
    system: System
    left_out: tuple[str, ...]
    unmeasured: tuple[str, ...]

    @classmethod
    def of(cls, board: Board, system: System, kinds: Collection[str], left_out: Collection[str]) -> Prediction:
        """Create the prediction for a network with operators of these kinds.

        Args:
            board: the board.
            system: the measurements.
            kinds: the kinds of the network's operators.
            left_out: kinds that the fit does not cover.
        """
        unmeasured = tuple(kind for kind in (*WEIGHTED, *OTHERS) if kind in kinds and kind not in system.kinds)
        return Prediction(board, system, tuple(left_out), unmeasured)

    @property
    def core(self) -> str:
        """The board's core, as the measurements name it."""
        return core_of(self.board)

    @property
    def clock_hz(self) -> int:
        """The board's clock rate in Hz."""
        return self.board.clock_hz

    @property
    def label(self) -> str:
        """One line with the board, core, clock, runtime and version, data type, and number of fitted networks."""
        system, board = self.system, self.board
        basis = f"{system.networks} networks" if system.networks > 1 else "one network"
        clock = f"{board.clock_hz / MICRO:g} MHz"
        missing = f", none with {' or '.join(self.unmeasured)} operators" if self.unmeasured else ""
        runtime = f"{TITLES.get(system.runtime, system.runtime)} {system.version or '(version not stated)'}"
        return (
            f"{board.name} ({core_of(board)}, {clock}), {runtime}, {system.dtype}, one core: fitted on {basis}{missing}"
        )

    @property
    def range(self) -> tuple[float, float]:
        """Factors that turn the prediction into the lower and upper end of its range."""
        return wide_range() if self.unmeasured else self.system.range

    def ns(self, work: Work) -> int:
        """Predict the nanoseconds for one image."""
        return round(self.system.cycles(work) * SECOND_NS / self.board.clock_hz)

    def range_of(self, ns: float) -> tuple[int, int]:
        """The range of a predicted time in nanoseconds; it covered four in five networks of held-out families."""
        return round(ns * self.range[0]), round(ns * self.range[1])

    def energy_uj(self, ns: float) -> float | None:
        """Microjoules for a time in nanoseconds; None if this board's power was not measured with this runtime."""
        return None if self.power_mw is None else self.power_mw * ns / MICRO

    @property
    def power_mw(self) -> float | None:
        """Power in milliwatts of this board with this runtime, the median over networks; None if not measured."""
        return self.system.power_mw.get(self.board.name)

    @property
    def energy_label(self) -> str | None:
        """How the energy is computed, in words; None if there is no energy."""
        return None if self.power_mw is None else f"time x {self.power_mw:.3g} mW, as measured there"

    def record(self, values: Mapping[str, int]) -> dict[str, Any]:
        """Predicted times as plain JSON, with everything they are based on.

        Args:
            values: nanoseconds by name: ``{"dense": 1_000_000, "slim": 500_000}``.
        """
        record: dict[str, Any] = {
            "source": "predicted",
            "machine": self.board.name,
            "processor": f"{core_of(self.board)}, {self.board.clock_hz / MICRO:g} MHz",
            "runtime": self.system.title,
            "data_type": self.system.dtype,
            "threads": 1,
            "networks": self.system.networks,
            "label": self.label,
            "energy_label": self.energy_label,
            "left_out": list(self.left_out),
        }
        for name, ns in values.items():
            record[f"{name}_ns"] = int(ns)
            record[f"{name}_range_ns"] = list(self.range_of(ns))
            record[f"{name}_uj"] = self.energy_uj(ns)
            record[f"{name}_range_uj"] = [self.energy_uj(end) for end in self.range_of(ns)]
        return record
