"""What a measurement found, as a record; and the answers of `worker.py`, which may come from another machine."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pretrim.errors import MeasureError

from .worker import MARK

LONGEST_TEXT = 200
MACHINE = ("cpu", "cores", "architecture", "system", "python", "runtime", "governor")


@dataclass(frozen=True)
class Latency:
    """Seconds an inference takes: one image, over every run of every process."""

    median_s: float
    p90_s: float
    mean_s: float
    std_s: float
    fastest_s: float
    runs: int
    processes: int

    @classmethod
    def of(cls, processes: Sequence[Sequence[float]]) -> Latency:
        """From the times of each run, process by process.

        >>> Latency.of([[1.0, 2.0], [3.0]]).median_s
        2.0
        """
        times = sorted(time for process in processes for time in process)
        return cls(
            median_s=statistics.median(times),
            p90_s=times[min(math.ceil(0.9 * len(times)), len(times)) - 1],
            mean_s=statistics.fmean(times),
            std_s=statistics.stdev(times) if len(times) > 1 else 0.0,
            fastest_s=times[0],
            runs=len(times),
            processes=len(processes),
        )


@dataclass(frozen=True)
class Measurement:
    """One artifact on one machine.

    Attributes:
        artifact: its file.
        runtime: what ran it.
        data_type: of the artifact.
        provider: the execution provider that really ran it.
        threads: of the runtime.
        latency: how long an image takes.
        file_bytes: size of the file.
        memory_peak_bytes: of a process that runs it, with Python and the runtime; None where the system does not say.
        memory_added_bytes: that peak, less what the process had before the runtime and the model were loaded.
        energy_j: of one inference, of the whole package or board; None where nothing counts it.
        energy_source: what counted it.
        machine: where: cpu, cores, architecture, system, python, runtime.
    """

    artifact: str
    runtime: str
    data_type: str
    provider: str
    threads: int
    latency: Latency
    file_bytes: int
    memory_peak_bytes: int | None
    memory_added_bytes: int | None
    energy_j: float | None
    energy_source: str | None
    machine: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Answer:
    """What one process of the worker found."""

    machine: Mapping[str, Any]
    providers: tuple[str, ...]
    samples_s: tuple[tuple[float, ...], ...]
    energy_j: tuple[float | None, ...]
    energy_source: tuple[str | None, ...]
    memory_before_bytes: int | None
    memory_peak_bytes: int | None


def parse_answer(text: str, artifacts: int) -> Answer:
    """Read what the worker printed, among whatever the runtime printed. Raises MeasureError for anything else."""
    line = next((line for line in text.splitlines() if line.startswith(MARK)), None)
    if line is None:
        raise MeasureError("Expected a measurement, but the worker gave none: run it again.")
    try:
        data = json.loads(line.removeprefix(MARK))
        results = data["results"]
        if len(results) != artifacts:
            raise ValueError(f"{len(results)} results for {artifacts} artifacts")
        return Answer(
            machine={name: _plain(data["machine"][name]) for name in MACHINE},
            providers=tuple(str(_plain(entry["provider"])) for entry in results),
            samples_s=tuple(_times(entry["samples_s"]) for entry in results),
            energy_j=tuple(_number(entry["energy_j"]) for entry in results),
            energy_source=tuple(_text(entry["energy_source"]) for entry in results),
            memory_before_bytes=_bytes(data["memory_before_bytes"]),
            memory_peak_bytes=_bytes(data["memory_peak_bytes"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise MeasureError(f"Expected a complete measurement, but it is damaged ({error!r}): run it again.") from error


def _plain(value: Any) -> str | int | None:
    """Text or a whole number from another machine: short, and with nothing that moves a terminal's cursor."""
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return "".join(letter for letter in value if letter.isprintable())[:LONGEST_TEXT]


def _text(value: Any) -> str | None:
    return None if value is None else str(_plain(value))


def _times(values: Any) -> tuple[float, ...]:
    times = tuple(float(value) for value in values)
    if not times or not all(math.isfinite(time) and time > 0 for time in times):
        raise ValueError("times are not above 0")
    return times


def _number(value: Any) -> float | None:
    if value is None:
        return None
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{number} joules")
    return number


def _bytes(value: Any) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r} bytes")
    return value
