"""Cores and runtimes that others measured networks on: what is in ``board_times.toml``, and what users call it.

`scripts/fit_board_times.py` writes that file: for each processor core, runtime and version how many cycles a
multiply-accumulate and an output take, by kind of operator, how many networks that was fitted on, and the error on
architecture families that were left out of the fit. Nothing heavy is imported here: `pretrim devices` lists it.
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
"""Kinds of operators with multiply-accumulates"""
OTHERS = ("elementwise", "activation", "pool")
"""Kinds without: sums and products of feature maps, activations that are not fused, pools and means"""
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
SAME_FILES = {"litert": "tflm"}
"""Runtimes by the name of their file format, which the interpreter for microcontrollers runs"""
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
    """The core of a board as the measurements name it."""
    return board.core_name


def known_runtimes(board: Board, dtype: str | None = None) -> tuple[str, ...]:
    """Runtimes with public measurements on the core of a board: ``st-edge-ai 8.1``, ... Of several versions the one
    that is meant by the runtime's name alone comes first: the newest of those with ten networks or more, or of all.
    """
    return tuple(dict.fromkeys(system.title for system in systems_of(board, dtype)))


def systems_of(board: Board, dtype: str | None = None) -> list[System]:
    """The systems of a board's core, in any data type or in one; first the one that is meant where none is named."""
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


def find_system(board: Board, runtime: str | None, dtype: str) -> System:
    """The measurements for a board and a runtime. Raises UsageError, which lists what is known.

    Args:
        board: the board.
        runtime: its name; None: the only one that is known.
        dtype: of the network.
    """
    core = core_of(board)
    if not systems_of(board, None):
        ethos = " Vela estimates its Ethos-U's cycles for a .tflite." if board.ethos_u else ""
        raise UsageError(f"No public measurement of any runtime on {core} ({board.name}) is known to pretrim.{ethos}")
    known = known_runtimes(board, dtype)
    if not known:
        dtypes = ", ".join(sorted({system.dtype for system in systems_of(board, None)}))
        raise UsageError(f"No public measurement on {core} ({board.name}) is in {dtype}: take {dtypes}.")
    found = _called(systems_of(board, dtype), runtime)
    names = ", ".join(known)
    if runtime is None and len({system.runtime for system in found}) > 1:
        raise UsageError(f"Name the runtime, since times on {board.name} depend on it most: one of {names}.")
    if not found:
        raise UsageError(
            f"No public measurement of {shown(runtime)} on {core} ({board.name}) in {dtype}: take {names}."
        )
    if len({system.runtime for system in found}) > 1:
        several = ", ".join(dict.fromkeys(system.title for system in found))
        raise UsageError(f"Expected one runtime, but {shown(runtime)} may be any of {several}: name it in full.")
    return found[0]


def _called(known: list[System], name: str | None) -> list[System]:
    """Those that a user means: by the runtime, by runtime and version, or else by the start of the runtime."""
    if name is None:
        return known
    wanted = name.strip().lower().replace("@", " ")
    wanted = SAME_FILES.get(wanted, wanted)
    for alias, runtime in ALIASES.items():
        wanted = wanted.replace(alias, runtime)
    named = [system for system in known if wanted in (system.runtime, system.title.lower())]
    return named or [system for system in known if system.runtime.startswith(f"{wanted}-")]


@dataclass(frozen=True)
class Prediction:
    """What a time on a board is predicted by, with everything that has to be said of it.

    Attributes:
        board: the microcontroller.
        system: the measurements that it is fitted on.
        left_out: kinds of operators whose time is not counted.
        unmeasured: kinds of operators of this network that no measured network had; their cycles are those of other
            systems, scaled, and the range is the widest of all.
    """

    board: Board
    system: System
    left_out: tuple[str, ...]
    unmeasured: tuple[str, ...]

    @classmethod
    def of(cls, board: Board, system: System, kinds: Collection[str], left_out: Collection[str]) -> Prediction:
        """For a network with operators of these kinds.

        Args:
            board: the board.
            system: the measurements.
            kinds: of the operators of the network.
            left_out: kinds that the fit knows nothing of.
        """
        unmeasured = tuple(kind for kind in (*WEIGHTED, *OTHERS) if kind in kinds and kind not in system.kinds)
        return Prediction(board, system, tuple(left_out), unmeasured)

    @property
    def core(self) -> str:
        """The board's core, as measurements name it."""
        return core_of(self.board)

    @property
    def clock_hz(self) -> int:
        """The board's clock."""
        return self.board.clock_hz

    @property
    def label(self) -> str:
        """In one line: board, core, clock, runtime with version, data type, and what it is fitted on."""
        system, board = self.system, self.board
        of = f"{system.networks} networks" if system.networks > 1 else "one network"
        clock = f"{board.clock_hz / MICRO:g} MHz"
        missing = f", none with {' or '.join(self.unmeasured)} operators" if self.unmeasured else ""
        runtime = f"{TITLES.get(system.runtime, system.runtime)} {system.version or '(version not stated)'}"
        return f"{board.name} ({core_of(board)}, {clock}), {runtime}, {system.dtype}, one core: fitted on {of}{missing}"

    @property
    def range(self) -> tuple[float, float]:
        """Factors from the prediction to the range."""
        return wide_range() if self.unmeasured else self.system.range

    def ns(self, work: Work) -> int:
        """The time of one image."""
        return round(self.system.cycles(work) * SECOND_NS / self.board.clock_hz)

    def range_of(self, ns: float) -> tuple[int, int]:
        """The range of a predicted time: four in five networks of families left out of the fit were within it."""
        return round(ns * self.range[0]), round(ns * self.range[1])

    def energy_uj(self, ns: float) -> float | None:
        """Microjoules for a time, where the power of this very board was measured with this runtime; else None."""
        return None if self.power_mw is None else self.power_mw * ns / MICRO

    @property
    def power_mw(self) -> float | None:
        """Milliwatts of this very board with this runtime, the median over networks; None where none was measured."""
        return self.system.power_mw.get(self.board.name)

    @property
    def energy_label(self) -> str | None:
        """What an energy rests on, in words; None where there is none."""
        return None if self.power_mw is None else f"time x {self.power_mw:.3g} mW, as measured there"

    def record(self, values: Mapping[str, int]) -> dict[str, Any]:
        """A predicted time as plain JSON, with all that it holds for.

        Args:
            values: nanoseconds by what they are of: ``{"dense": 1_000_000, "slim": 500_000}``.
        """
        found: dict[str, Any] = {
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
            found[f"{name}_ns"] = int(ns)
            found[f"{name}_range_ns"] = list(self.range_of(ns))
            found[f"{name}_uj"] = self.energy_uj(ns)
            found[f"{name}_range_uj"] = [self.energy_uj(end) for end in self.range_of(ns)]
        return found
