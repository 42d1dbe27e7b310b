"""Layer latencies on one machine over a grid of aligned widths: measured once, cached and interpolated."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from pretrim import records
from pretrim.deploy.runtime import RuntimeName
from pretrim.deploy.runtimes import SUFFIXES
from pretrim.errors import MeasureError, UsageError
from pretrim.files import write_text
from pretrim.measure.record import parse_answer
from pretrim.measure.run import Runner, here

from . import litert_layers, onnx_layers
from .layers import LayerKind

FORMAT, VERSION = "pretrim-latency", 1
GRID = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 4096)
MAX_POINTS = 6
"""Maximum number of grid points per axis, spread evenly on a logarithmic scale."""
ALIGNED, WIDE_ALIGNED = 8, 16
"""Kernels pad widths to a multiple, so widths in between take the time of the next one (16 in ONNX Runtime with
AVX-512, 8 otherwise)."""
PROBE = LayerKind.of(
    "conv", {"height": 16, "width": 16, "kernel": [3, 3], "stride": [1, 1], "dilation": [1, 1], "same": True}
)
PROBE_WIDTHS, PROBE_REPEATS, EQUAL_RATIO = (72, 80, 88, 96), 3, 0.95
"""Widths that distinguish the alignments, how often each is timed, and the ratio above which two times are equal."""
CHUNK = 24
"""Number of layers timed by one worker process."""
EMPTY_LAYER = LayerKind.of("add", {"height": 1, "width": 1})
"""A layer that does almost nothing: its time is the cost of starting a network."""
Progress = Callable[[int, int], None]
WRITERS = {"litert": litert_layers.model_of, "onnx": onnx_layers.model_of}
"""Writers of one-layer models. ExecuTorch is missing: its models need its compiler, which takes a second each."""
PROVIDERS: dict[RuntimeName, str] = {"litert": "CPU", "onnx": "CPUExecutionProvider"}
"""Default execution provider by runtime."""


@dataclass(frozen=True)
class LatencyKey:
    """Key of a latency table: the conditions that its measurements hold for.

    Attributes:
        device: name of the board, or of this machine's processor.
        runtime: litert or onnx.
        data_type: float32 or int8.
        provider: the execution provider.
        threads: number of threads of the runtime.
        signed: int8 activations in ONNX Runtime, as its ARM kernels need; otherwise uint8, for x86.
    """

    device: str
    runtime: RuntimeName
    data_type: str
    provider: str
    threads: int
    signed: bool = False

    def __post_init__(self) -> None:
        """Raises UsageError for a runtime or data type that no one-layer models can be written for."""
        if self.runtime not in WRITERS or self.data_type not in ("float32", "int8"):
            raise UsageError(
                f"Expected latency of {' or '.join(WRITERS)} in float32 or int8, but got {self.runtime} in "
                f"{self.data_type}: there are no tables for others."
            )

    @property
    def slug(self) -> str:
        """The key as a file name, without suffix."""
        data_type = f"signed-{self.data_type}" if self.signed else self.data_type
        parts = (self.device, self.runtime, data_type, self.provider, f"{self.threads}t")
        return "_".join(re.sub(r"[^A-Za-z0-9.-]+", "-", part).strip("-") for part in parts)


@dataclass(frozen=True)
class Curve:
    """Latency in seconds of one kind of layer as a function of its widths, non-decreasing along each axis."""

    axes: tuple[tuple[int, ...], ...]
    seconds: NDArray[np.float64]
    aligned: int = ALIGNED

    def __call__(self, widths: NDArray[np.int64]) -> NDArray[np.float64]:
        """Interpolate the latency: (n x axes) -> (n)."""
        widths = np.where(widths > ALIGNED, -(-widths // self.aligned) * self.aligned, widths)
        if len(self.axes) == 1:
            interpolated: NDArray[np.float64] = np.interp(widths[:, 0], self.axes[0], self.seconds)
            return interpolated
        rows, columns = (_position(widths[:, axis], self.axes[axis]) for axis in (0, 1))
        r, c = rows.astype(int), columns.astype(int)
        r1, c1 = np.minimum(r + 1, len(self.axes[0]) - 1), np.minimum(c + 1, len(self.axes[1]) - 1)
        dr, dc = rows - r, columns - c
        upper = self.seconds[r, c] * (1 - dc) + self.seconds[r, c1] * dc
        lower = self.seconds[r1, c] * (1 - dc) + self.seconds[r1, c1] * dc
        bilinear: NDArray[np.float64] = upper * (1 - dr) + lower * dr
        return bilinear


def _position(widths: NDArray[np.int64], axis: Sequence[int]) -> NDArray[np.float64]:
    """Convert widths to fractional indices into an axis."""
    return np.asarray(np.interp(widths, axis, np.arange(len(axis))))


@dataclass(frozen=True)
class Correction:
    """Correction from the sum of single-layer times to the whole network: ``real = factor * sum ** exponent``.

    Weights stay in the cache while one layer is timed repeatedly, but not in a whole network, and the less so the
    larger it is: the exponent is then above 1. int8 networks are slightly faster than the sum of their layers, which
    puts it below 1.
    """

    factor: float = 1.0
    exponent: float = 1.0

    def __call__(self, seconds: NDArray[np.float64]) -> NDArray[np.float64]:
        """Correct sums of layer times, in seconds."""
        corrected: NDArray[np.float64] = self.factor * seconds**self.exponent
        return corrected


@dataclass(frozen=True)
class Table:
    """The layer latencies measured under one key."""

    key: LatencyKey
    machine: Mapping[str, Any]
    start_s: float
    """Latency in seconds of a network that does nothing."""
    curves: Mapping[str, Curve] = field(repr=False)
    corrections: Mapping[str, Correction] = field(default_factory=dict, repr=False)
    """Correction by network key (`calibrate.py`), from the sum of single layers to the whole network."""
    aligned: int = ALIGNED
    """The kernels pad widths to a multiple of this."""

    def to_json(self) -> dict[str, Any]:
        """Convert to plain JSON."""
        curves = {
            key: {"axes": [list(axis) for axis in curve.axes], "seconds": curve.seconds.tolist()}
            for key, curve in self.curves.items()
        }
        key = {name: getattr(self.key, name) for name in LatencyKey.__dataclass_fields__}
        head = {"format": FORMAT, "version": VERSION, "place": key, "machine": dict(self.machine)}
        corrections = {key: [entry.factor, entry.exponent] for key, entry in self.corrections.items()}
        return {**head, "start_s": self.start_s, "aligned": self.aligned, "curves": curves, "corrections": corrections}

    @classmethod
    def from_json(cls, data: Any) -> Table:
        """Read what :meth:`to_json` wrote. Raises MeasureError for anything else."""
        remedy = "remove it"
        records.check_header(data, FORMAT, VERSION, source="The latency table", error=MeasureError)
        file = records.convert(data, _File, source="The latency table", error=MeasureError, remedy=remedy)
        try:
            curves = {key: curve.checked(file.aligned) for key, curve in file.curves.items()}
        except ValueError as error:
            raise MeasureError(f"The latency table is damaged ({error}): remove it.") from error
        corrections = {key: Correction(*pair) for key, pair in file.corrections.items()}
        return cls(file.place, file.machine, file.start_s, curves, corrections, file.aligned)


Width: TypeAlias = Annotated[int, msgspec.Meta(ge=1)]
Seconds: TypeAlias = Annotated[float, msgspec.Meta(ge=0)]


@dataclass(frozen=True)
class _Curve:
    """A `Curve` in its stored form."""

    axes: tuple[tuple[Width, ...], ...]
    seconds: tuple[Seconds | tuple[Seconds, ...], ...]

    def checked(self, aligned: int) -> Curve:
        """Convert to a `Curve`. Raises ValueError if the axes are invalid or do not match the values."""
        seconds = np.array(self.seconds, float)
        if not 1 <= len(self.axes) <= 2 or seconds.shape != tuple(map(len, self.axes)) or not seconds.size:
            raise ValueError("its axes do not fit")
        if any(list(axis) != sorted(set(axis)) for axis in self.axes):
            raise ValueError("its axes do not increase")
        return Curve(self.axes, seconds, aligned)


@dataclass(frozen=True)
class _File:
    """A `Table` in its stored form."""

    place: LatencyKey
    machine: Mapping[str, Any]
    start_s: float
    curves: Mapping[str, _Curve]
    corrections: Mapping[str, tuple[Annotated[float, msgspec.Meta(gt=0)], float]]
    aligned: Width = ALIGNED


def cache_folder() -> Path:
    """The folder of the tables: ``$XDG_CACHE_HOME/pretrim/latency``, by default below ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pretrim" / "latency"


def load_table(key: LatencyKey) -> Table | None:
    """Load the cached table of a key; None if there is none. Raises MeasureError if it is damaged."""
    file = cache_folder() / f"{key.slug}.json"
    try:
        table = Table.from_json(records.load(file.read_bytes(), source=file, error=MeasureError, remedy="remove it"))
        if table.key != key:
            raise ValueError(f"it was measured under {table.key}")
        return table
    except FileNotFoundError:
        return None
    except (OSError, ValueError, MeasureError) as error:
        raise MeasureError(f"Cannot read the latency table {file}: remove it.") from error


def check_cache() -> None:
    """Check, before minutes of measuring, that a table can be saved. Raises MeasureError otherwise."""
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _cannot_save(folder, error) from error


def save_table(table: Table) -> None:
    """Save a table in the cache. Raises MeasureError if it cannot be written."""
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / f"{table.key.slug}.json", json.dumps(table.to_json()) + "\n")
    except OSError as error:
        raise _cannot_save(folder, error) from error


def _cannot_save(folder: Path, error: OSError) -> MeasureError:
    return MeasureError(f"Cannot keep a latency table in {folder}: {error.strerror}. Set XDG_CACHE_HOME to another.")


# ---------------------------------------------------------------------------------------- measuring


def axis_of(largest: int, *, is_fixed: bool) -> tuple[int, ...]:
    """The grid points of an axis up to a width: a few aligned widths, spread evenly on a logarithmic scale.

    >>> axis_of(64, is_fixed=False), axis_of(3, is_fixed=True)
    ((1, 8, 16, 32, 48, 64), (3,))
    """
    if is_fixed:
        return (largest,)
    points = [point for point in GRID if point < largest and (point >= ALIGNED or point == 1)] + [largest]
    if len(points) > MAX_POINTS:
        indices = np.linspace(0, len(points) - 1, MAX_POINTS).round().astype(int)
        points = [points[index] for index in indices]
    return tuple(points)


def measure_table(
    key: LatencyKey,
    wanted: Mapping[LayerKind, tuple[tuple[int, ...], ...]],
    *,
    known: Table | None = None,
    ask: Runner = here,
    progress: Progress = lambda done, of: None,
) -> Table:
    """Measure the layers that a table lacks, and return the table extended by them.

    Args:
        key: the key to measure under.
        wanted: the layer kinds to measure, each with the axes of its widths.
        known: the table measured earlier under this key; curves that already cover the widths are not measured again.
        ask: runs the worker, here or over ssh.
        progress: called with the number of layers done and their total.

    Raises:
        UsageError: the runtime is missing, or has no layers of this data type.
        MeasureError: the measurement failed.
    """
    curves = dict(known.curves) if known is not None else {}
    missing = {kind: axes for kind, axes in wanted.items() if not _covers(curves.get(kind.key), axes)}
    jobs = [(kind, widths) for kind, axes in missing.items() for widths in product(*axes)]
    if known is not None and not jobs:
        return known
    jobs.append((EMPTY_LAYER, (1,)))
    seconds: dict[tuple[str, tuple[int, ...]], float] = {}
    machine: Mapping[str, Any] = {}
    for start in range(0, len(jobs), CHUNK):
        chunk = jobs[start : start + CHUNK]
        machine, times = _time_layers(key, chunk, ask)
        seconds.update(((kind.key, widths), time) for (kind, widths), time in zip(chunk, times, strict=True))
        progress(min(start + CHUNK, len(jobs)), len(jobs))
    aligned = known.aligned if known is not None else _alignment(key, ask)
    start_s = seconds[EMPTY_LAYER.key, (1,)]
    for kind, axes in missing.items():
        grid = np.array([seconds[kind.key, widths] for widths in product(*axes)]).reshape([len(axis) for axis in axes])
        grid = np.maximum(grid - start_s, 0.0)
        for axis in range(grid.ndim):  # measurement noise must not make a wider layer faster
            grid = np.maximum.accumulate(grid, axis=axis)
        curves[kind.key] = Curve(axes, grid, aligned)
    return Table(key, machine, start_s, curves, {} if known is None else known.corrections, aligned)


def _alignment(key: LatencyKey, ask: Runner) -> int:
    """Find the multiple that kernels pad widths to.

    It is 16 if 72 channels take as long as 80 and 88 as long as 96, but 80 do not take as long as 88.
    """
    jobs = [(PROBE, (width, width)) for _ in range(PROBE_REPEATS) for width in PROBE_WIDTHS]
    times = np.array(_time_layers(key, jobs, ask)[1]).reshape(PROBE_REPEATS, len(PROBE_WIDTHS)).min(axis=0)
    is_wide = (
        times[0] > EQUAL_RATIO * times[1] and times[2] > EQUAL_RATIO * times[3] and times[1] < EQUAL_RATIO * times[2]
    )
    return WIDE_ALIGNED if is_wide else ALIGNED


def _covers(curve: Curve | None, axes: Iterable[tuple[int, ...]]) -> bool:
    """Whether a curve covers the range of widths on each axis."""
    if curve is None:
        return False
    pairs = list(zip(curve.axes, axes, strict=True))
    return all(have[-1] >= want[-1] and have[0] <= want[0] for have, want in pairs)


def _time_layers(
    key: LatencyKey, jobs: Sequence[tuple[LayerKind, tuple[int, ...]]], ask: Runner
) -> tuple[Mapping[str, Any], list[float]]:
    """Time layers in one worker process: the machine's record, and the median seconds of each layer."""
    write = WRITERS[key.runtime]
    with tempfile.TemporaryDirectory() as folder:
        files, entries = [], []
        for number, (kind, widths) in enumerate(jobs):
            model = write(kind, widths, int8=key.data_type == "int8", signed=key.signed)
            file = Path(folder) / f"{number}{SUFFIXES[key.runtime]}"
            file.write_bytes(model.content)
            files.append(file)
            entry = {"shape": list(model.shape), "data_type": model.data_type}
            # A sum has two inputs of the same shape; a loader uses only as many as its model has.
            entries.append({"path": file.name, "runtime": key.runtime, "inputs": [entry, entry]})
        request = {"artifacts": entries, "threads": key.threads, "each": True, "runs": 5, "seconds": 0.01}
        request |= {"warmup_s": 0.003, "rounds": 1, "providers": [key.provider]}
        answer = parse_answer(ask(request, files), len(jobs))
    return answer.machine, [samples[0] for samples in answer.samples_s]
