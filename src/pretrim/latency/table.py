"""How long layers take on one machine, over a grid of aligned widths: measured once, kept, and interpolated."""

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
MOST_POINTS = 6
"""of an axis; they are spread evenly by their logarithm"""
ALIGNED, WIDER = 8, 16
"""Widths in between take the time of the next multiple, as kernels pad them: ONNX Runtime's to 16 with AVX-512"""
PROBE = LayerKind.of(
    "conv", {"height": 16, "width": 16, "kernel": [3, 3], "stride": [1, 1], "dilation": [1, 1], "same": True}
)
PROBED, PROBES, FLAT = (72, 80, 88, 96), 3, 0.95
"""Widths that tell one alignment from the other, how often each is timed, and from which ratio on two are equal"""
CHUNK = 24
"""layers that one process of the worker times"""
NOTHING = LayerKind.of("add", {"height": 1, "width": 1})
"""A layer that does next to nothing: what starting a network takes"""
Progress = Callable[[int, int], None]
WRITERS = {"litert": litert_layers.model_of, "onnx": onnx_layers.model_of}
"""Of models of one layer; ExecuTorch's cannot be written without its compiler, a second for each"""
PROVIDERS: dict[RuntimeName, str] = {"litert": "CPU", "onnx": "CPUExecutionProvider"}
"""What runs a model, where nothing else is asked for"""


@dataclass(frozen=True)
class LatencyKey:
    """What a table holds for: its key.

    Attributes:
        device: a board's name, or this machine's processor.
        runtime: litert or onnx.
        data_type: float32 or int8.
        provider: what runs it.
        threads: of the runtime.
        signed: int8 activations in ONNX Runtime, as its kernels for ARM want them; uint8 otherwise, for x86.
    """

    device: str
    runtime: RuntimeName
    data_type: str
    provider: str
    threads: int
    signed: bool = False

    def __post_init__(self) -> None:
        """Raises UsageError for what no layers can be written for."""
        if self.runtime not in WRITERS or self.data_type not in ("float32", "int8"):
            raise UsageError(
                f"Expected latency of {' or '.join(WRITERS)} in float32 or int8, but got {self.runtime} in "
                f"{self.data_type}: there are no tables of others."
            )

    @property
    def slug(self) -> str:
        """As a file name."""
        kind = f"signed-{self.data_type}" if self.signed else self.data_type
        words = (self.device, self.runtime, kind, self.provider, f"{self.threads}t")
        return "_".join(re.sub(r"[^A-Za-z0-9.-]+", "-", word).strip("-") for word in words)


@dataclass(frozen=True)
class Curve:
    """Seconds of one kind of layer over its widths, never falling along an axis."""

    axes: tuple[tuple[int, ...], ...]
    seconds: NDArray[np.float64]
    aligned: int = ALIGNED

    def __call__(self, widths: NDArray[np.int64]) -> NDArray[np.float64]:
        """Interpolated: (n x axes) -> (n)."""
        widths = np.where(widths > ALIGNED, -(-widths // self.aligned) * self.aligned, widths)
        if len(self.axes) == 1:
            found: NDArray[np.float64] = np.interp(widths[:, 0], self.axes[0], self.seconds)
            return found
        rows, columns = (_position(widths[:, place], self.axes[place]) for place in (0, 1))
        r, c = rows.astype(int), columns.astype(int)
        r1, c1 = np.minimum(r + 1, len(self.axes[0]) - 1), np.minimum(c + 1, len(self.axes[1]) - 1)
        dr, dc = rows - r, columns - c
        upper = self.seconds[r, c] * (1 - dc) + self.seconds[r, c1] * dc
        lower = self.seconds[r1, c] * (1 - dc) + self.seconds[r1, c1] * dc
        both: NDArray[np.float64] = upper * (1 - dr) + lower * dr
        return both


def _position(widths: NDArray[np.int64], axis: Sequence[int]) -> NDArray[np.float64]:
    """Where widths lie between the points of an axis, as fractions of its steps."""
    return np.asarray(np.interp(widths, axis, np.arange(len(axis))))


@dataclass(frozen=True)
class Correction:
    """Whole networks over the sum of their layers, measured one by one: ``real = factor * sum ** exponent``.

    Weights that stay in the cache while one layer is timed again and again do not in a network, the less the larger it
    is, so the exponent is above 1; int8 networks are a little faster than their parts, and it is below.
    """

    factor: float = 1.0
    exponent: float = 1.0

    def __call__(self, seconds: NDArray[np.float64]) -> NDArray[np.float64]:
        """Corrected sums."""
        found: NDArray[np.float64] = self.factor * seconds**self.exponent
        return found


@dataclass(frozen=True)
class Table:
    """What was measured in one place."""

    place: LatencyKey
    machine: Mapping[str, Any]
    start_s: float
    """of a network that does nothing"""
    curves: Mapping[str, Curve] = field(repr=False)
    corrections: Mapping[str, Correction] = field(default_factory=dict, repr=False)
    """By network (`calibrate.py`): from the sum of single layers to the whole"""
    aligned: int = ALIGNED
    """What the kernels there pad widths to a multiple of"""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        curves = {
            key: {"axes": [list(axis) for axis in curve.axes], "seconds": curve.seconds.tolist()}
            for key, curve in self.curves.items()
        }
        place = {name: getattr(self.place, name) for name in LatencyKey.__dataclass_fields__}
        head = {"format": FORMAT, "version": VERSION, "place": place, "machine": dict(self.machine)}
        corrections = {key: [entry.factor, entry.exponent] for key, entry in self.corrections.items()}
        return {**head, "start_s": self.start_s, "aligned": self.aligned, "curves": curves, "corrections": corrections}

    @classmethod
    def from_json(cls, data: Any) -> Table:
        """Read what :meth:`to_json` wrote. Raises MeasureError for anything else."""
        mend = "remove it"
        records.check_header(data, FORMAT, VERSION, source="The latency table", error=MeasureError)
        file = records.convert(data, _File, source="The latency table", error=MeasureError, mend=mend)
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
    """A `Curve` as it is stored."""

    axes: tuple[tuple[Width, ...], ...]
    seconds: tuple[Seconds | tuple[Seconds, ...], ...]

    def checked(self, aligned: int) -> Curve:
        """Raises ValueError where axes and values do not fit."""
        seconds = np.array(self.seconds, float)
        if not 1 <= len(self.axes) <= 2 or seconds.shape != tuple(map(len, self.axes)) or not seconds.size:
            raise ValueError("its axes do not fit")
        if any(list(axis) != sorted(set(axis)) for axis in self.axes):
            raise ValueError("its axes do not rise")
        return Curve(self.axes, seconds, aligned)


@dataclass(frozen=True)
class _File:
    """A `Table` as it is stored."""

    place: LatencyKey
    machine: Mapping[str, Any]
    start_s: float
    curves: Mapping[str, _Curve]
    corrections: Mapping[str, tuple[Annotated[float, msgspec.Meta(gt=0)], float]]
    aligned: Width = ALIGNED


def cache_folder() -> Path:
    """Where tables are kept: ``$XDG_CACHE_HOME/pretrim/latency``, by default below ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pretrim" / "latency"


def load_table(place: LatencyKey) -> Table | None:
    """The table of a place, if one is kept. Raises MeasureError if it is damaged."""
    file = cache_folder() / f"{place.slug}.json"
    try:
        found = Table.from_json(records.load(file.read_bytes(), source=file, error=MeasureError, mend="remove it"))
        if found.place != place:
            raise ValueError(f"it is of {found.place}")
        return found
    except FileNotFoundError:
        return None
    except (OSError, ValueError, MeasureError) as error:
        raise MeasureError(f"Cannot read the latency table {file}: remove it.") from error


def check_cache() -> None:
    """Before minutes of measuring: can its table be kept? Raises MeasureError."""
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _not_kept(folder, error) from error


def save_table(table: Table) -> None:
    """Keep a table. Raises MeasureError where that cannot be done."""
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / f"{table.place.slug}.json", json.dumps(table.to_json()) + "\n")
    except OSError as error:
        raise _not_kept(folder, error) from error


def _not_kept(folder: Path, error: OSError) -> MeasureError:
    return MeasureError(f"Cannot keep a latency table in {folder}: {error.strerror}. Set XDG_CACHE_HOME to another.")


# ---------------------------------------------------------------------------------------- measuring


def axis_of(largest: int, *, is_fixed: bool) -> tuple[int, ...]:
    """The points of an axis up to a width: aligned ones, few and spread evenly by their logarithm.

    >>> axis_of(64, is_fixed=False), axis_of(3, is_fixed=True)
    ((1, 8, 16, 32, 48, 64), (3,))
    """
    if is_fixed:
        return (largest,)
    points = [point for point in GRID if point < largest and (point >= ALIGNED or point == 1)] + [largest]
    if len(points) > MOST_POINTS:
        chosen = np.linspace(0, len(points) - 1, MOST_POINTS).round().astype(int)
        points = [points[place] for place in chosen]
    return tuple(points)


def measure_table(
    place: LatencyKey,
    wanted: Mapping[LayerKind, tuple[tuple[int, ...], ...]],
    *,
    known: Table | None = None,
    ask: Runner = here,
    progress: Progress = lambda done, of: None,
) -> Table:
    """Measure the layers that a table lacks, and give both together.

    Args:
        place: where.
        wanted: kinds of layers, with the axes of the widths to measure them at.
        known: what was measured there before; what it has and reaches as far is not measured again.
        ask: runs the worker, here or over ssh.
        progress: is told how many layers are done, of how many.

    Raises:
        UsageError: the runtime is missing, or has no layers of this data type.
        MeasureError: it failed.
    """
    kept = dict(known.curves) if known is not None else {}
    missing = {kind: axes for kind, axes in wanted.items() if not _reaches(kept.get(kind.key), axes)}
    jobs = [(kind, widths) for kind, axes in missing.items() for widths in product(*axes)]
    if known is not None and not jobs:
        return known
    jobs.append((NOTHING, (1,)))
    seconds: dict[tuple[str, tuple[int, ...]], float] = {}
    machine: Mapping[str, Any] = {}
    for start in range(0, len(jobs), CHUNK):
        chunk = jobs[start : start + CHUNK]
        machine, found = _time(place, chunk, ask)
        seconds.update(((kind.key, widths), took) for (kind, widths), took in zip(chunk, found, strict=True))
        progress(min(start + CHUNK, len(jobs)), len(jobs))
    aligned = known.aligned if known is not None else _alignment(place, ask)
    start_s = seconds[NOTHING.key, (1,)]
    for kind, axes in missing.items():
        grid = np.array([seconds[kind.key, widths] for widths in product(*axes)]).reshape([len(axis) for axis in axes])
        grid = np.maximum(grid - start_s, 0.0)
        for axis in range(grid.ndim):  # noise must not make a wider layer faster
            grid = np.maximum.accumulate(grid, axis=axis)
        kept[kind.key] = Curve(axes, grid, aligned)
    return Table(place, machine, start_s, kept, {} if known is None else known.corrections, aligned)


def _alignment(place: LatencyKey, ask: Runner) -> int:
    """What the kernels pad widths to: 16 where 72 channels take as long as 80, and 88 as long as 96, but 80 do not."""
    jobs = [(PROBE, (width, width)) for _ in range(PROBES) for width in PROBED]
    found = np.array(_time(place, jobs, ask)[1]).reshape(PROBES, len(PROBED)).min(axis=0)
    is_wider = found[0] > FLAT * found[1] and found[2] > FLAT * found[3] and found[1] < FLAT * found[2]
    return WIDER if is_wider else ALIGNED


def _reaches(curve: Curve | None, axes: Iterable[tuple[int, ...]]) -> bool:
    """Whether a curve covers the widths."""
    if curve is None:
        return False
    pairs = list(zip(curve.axes, axes, strict=True))
    return all(have[-1] >= want[-1] and have[0] <= want[0] for have, want in pairs)


def _time(
    place: LatencyKey, jobs: Sequence[tuple[LayerKind, tuple[int, ...]]], ask: Runner
) -> tuple[Mapping[str, Any], list[float]]:
    """Median seconds of some layers, in one process."""
    write = WRITERS[place.runtime]
    with tempfile.TemporaryDirectory() as folder:
        files, entries = [], []
        for number, (kind, widths) in enumerate(jobs):
            written = write(kind, widths, int8=place.data_type == "int8", signed=place.signed)
            file = Path(folder) / f"{number}{SUFFIXES[place.runtime]}"
            file.write_bytes(written.content)
            files.append(file)
            one = {"shape": list(written.shape), "data_type": written.data_type}
            # A sum has two inputs, which are of one shape; a loader takes as many as its model has.
            entries.append({"path": file.name, "runtime": place.runtime, "inputs": [one, one]})
        request = {"artifacts": entries, "threads": place.threads, "each": True, "runs": 5, "seconds": 0.01}
        request |= {"warmup_s": 0.003, "rounds": 1, "providers": [place.provider]}
        answer = parse_answer(ask(request, files), len(jobs))
    return answer.machine, [samples[0] for samples in answer.samples_s]
