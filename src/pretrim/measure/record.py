"""What a measurement found, as a record; and the answers of `worker.py`, which may come from another machine."""

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

LONGEST_TEXT = 200


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
        machine: where it was measured (`Machine`).
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


Seconds: TypeAlias = Annotated[float, msgspec.Meta(gt=0)]
Bytes: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]


class Machine(TypedDict):
    """Where it was measured: what `worker.py` tells of its machine."""

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
    """What one process of the worker found."""

    machine: Machine
    results: tuple[Result, ...]
    memory_before_bytes: Bytes | None
    memory_peak_bytes: Bytes | None

    @property
    def providers(self) -> tuple[str, ...]:
        """What ran each artifact."""
        return tuple(result.provider for result in self.results)

    @property
    def samples_s(self) -> tuple[tuple[float, ...], ...]:
        """The times of each artifact's inferences."""
        return tuple(result.samples_s for result in self.results)

    @property
    def energy_j(self) -> tuple[float | None, ...]:
        """Of each artifact's inference."""
        return tuple(result.energy_j for result in self.results)

    @property
    def energy_source(self) -> tuple[str | None, ...]:
        """What counted each artifact's energy."""
        return tuple(result.energy_source for result in self.results)


def parse_answer(text: str, artifacts: int) -> Answer:
    """Read what the worker printed, among whatever the runtime printed. Raises MeasureError for anything else."""
    line = next((line for line in text.splitlines() if line.startswith(MARK)), None)
    if line is None:
        raise MeasureError("The worker gave no measurement: run it again.")
    source, mend = "The worker's answer", "Run it again"
    data = records.load(line.removeprefix(MARK), source=source, error=MeasureError, mend=mend)
    answer = records.convert(_printable(data), Answer, source=source, error=MeasureError, mend=mend)
    if len(answer.results) != artifacts:
        raise MeasureError(f"{source} has {len(answer.results)} results for {artifacts} artifacts. {mend}.")
    return answer


def _printable(data: Any) -> Any:
    """Text from another machine: short, and with nothing that moves a terminal's cursor."""
    if isinstance(data, str):
        return "".join(letter for letter in data if letter.isprintable())[:LONGEST_TEXT]
    if isinstance(data, dict):
        return {name: _printable(value) for name, value in data.items()}
    return [_printable(value) for value in data] if isinstance(data, list) else data
