"""Records of measurements, and the answers of `worker.py`, which may come from another machine."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, TypeAlias, TypedDict

import msgspec

from pretrim import records
from pretrim.errors import MeasureError

from .worker import MARK

MAX_TEXT = 200


@dataclass(frozen=True)
class Latency:
    """Seconds per inference of one image, over all runs of all processes."""

    median_s: float
    p90_s: float
    mean_s: float
    std_s: float
    fastest_s: float
    runs: int
    processes: int

    @classmethod
    def of(cls, processes: Sequence[Sequence[float]]) -> Latency:
        """Summarise the times of each run, grouped by process.

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
    """The measurement of one artifact on one machine.

    Attributes:
        artifact: path of the file.
        runtime: the runtime that ran it.
        data_type: data type of the artifact.
        provider: the execution provider that actually ran it.
        threads: number of threads of the runtime.
        latency: seconds per image.
        file_bytes: size of the file.
        memory_peak_bytes: peak memory of a process that runs it, including Python and the runtime; None if the system
            does not report it.
        memory_added_bytes: that peak minus the memory of the process before the runtime and the model were loaded.
        energy_j: joules of one inference, for the whole package or board; None if there is no counter.
        energy_source: the counter of the energy.
        machine: the machine it was measured on (`Machine`).
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
        """Convert to plain JSON."""
        return asdict(self)


Seconds: TypeAlias = Annotated[float, msgspec.Meta(gt=0)]
Bytes: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]


class Machine(TypedDict):
    """The machine of a measurement, as `worker.py` describes it."""

    cpu: str
    cores: int
    architecture: str
    system: str
    python: str
    runtime: str
    governor: str | None


@dataclass(frozen=True)
class Result:
    """One artifact's part of an answer."""

    provider: str
    samples_s: Annotated[tuple[Seconds, ...], msgspec.Meta(min_length=1)]
    energy_j: float | None
    energy_source: str | None


@dataclass(frozen=True)
class Answer:
    """The measurements of one worker process."""

    machine: Machine
    results: tuple[Result, ...]
    memory_before_bytes: Bytes | None
    memory_peak_bytes: Bytes | None

    @property
    def providers(self) -> tuple[str, ...]:
        """The execution provider that ran each artifact."""
        return tuple(result.provider for result in self.results)

    @property
    def samples_s(self) -> tuple[tuple[float, ...], ...]:
        """Seconds of each inference, by artifact."""
        return tuple(result.samples_s for result in self.results)

    @property
    def energy_j(self) -> tuple[float | None, ...]:
        """Joules per inference of each artifact."""
        return tuple(result.energy_j for result in self.results)

    @property
    def energy_source(self) -> tuple[str | None, ...]:
        """The energy counter of each artifact."""
        return tuple(result.energy_source for result in self.results)


def parse_answer(text: str, artifacts: int) -> Answer:
    """Find the worker's answer in its output, among any output of the runtime. Raises MeasureError if it is invalid."""
    line = next((line for line in text.splitlines() if line.startswith(MARK)), None)
    if line is None:
        raise MeasureError("The worker gave no measurement: run it again.")
    source, remedy = "The worker's answer", "Run it again"
    data = records.load(line.removeprefix(MARK), source=source, error=MeasureError, remedy=remedy)
    answer = records.convert(_printable(data), Answer, source=source, error=MeasureError, remedy=remedy)
    if len(answer.results) != artifacts:
        raise MeasureError(f"{source} has {len(answer.results)} results for {artifacts} artifacts. {remedy}.")
    return answer


def _printable(data: Any) -> Any:
    """Shorten texts from another machine, and drop control characters that would move the terminal's cursor."""
    if isinstance(data, str):
        return "".join(letter for letter in data if letter.isprintable())[:MAX_TEXT]
    if isinstance(data, dict):
        return {name: _printable(value) for name, value in data.items()}
    return [_printable(value) for value in data] if isinstance(data, list) else data
