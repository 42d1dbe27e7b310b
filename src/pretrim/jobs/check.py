"""Checks whether a file or a run fits a board, or any of them: flash, RAM, missing operators and predicted time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretrim.devices import APPLICATION_SHARE, Board, board, boards
from pretrim.errors import ExportError, UsageError
from pretrim.latency.board_systems import System

from .export import default_path
from .measure import artifacts_of

if TYPE_CHECKING:
    from pretrim.deploy.board import BoardArena
    from pretrim.deploy.graph import FileGraph

ALL = "all"


@dataclass(frozen=True)
class OnBoard:
    """The resources that a file needs on one board.

    Attributes:
        board: name of the board.
        fits: whether file and arena are within the board's limits, and no operator is missing.
        problems: descriptions of what does not fit and what is missing.
        file_bytes: size of the file.
        flash_limit: bytes that the board leaves for a file; None where memory is no limit (a computer).
        arena_bytes: size of the tensor arena on the board; None for a computer, or if the file is not a ``.tflite``.
        ram_limit: bytes that the board leaves for an arena, or all of a computer's RAM.
        verified: whether the microcontroller interpreter ran the file on this machine.
        missing: operators that the interpreter lacks.
        times: predicted times, each with machine, runtime, data type and threads (`board_systems.Prediction.record`).
    """

    board: str
    fits: bool
    problems: tuple[str, ...]
    file_bytes: int
    flash_limit: int | None
    arena_bytes: int | None
    ram_limit: int
    verified: bool
    missing: tuple[str, ...]
    times: tuple[Mapping[str, Any], ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON."""
        lists = {name: list(getattr(self, name)) for name in ("problems", "missing", "times")}
        return {**vars(self), **lists}


@dataclass(frozen=True)
class Checked:
    """A file checked against one or more boards.

    Attributes:
        path: the file.
        data_type: data type of its computation.
        boards: the result for each board.
        filters: total number of filters; 0 if unknown.
        zero_filters: for each layer with all-zero filters, their number and the layer's total.
    """

    path: Path
    data_type: str
    boards: tuple[OnBoard, ...]
    filters: int = 0
    zero_filters: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def fits(self) -> bool:
        """Whether the file fits the requested board or, if all boards were checked, any microcontroller."""
        relevant = [entry for entry in self.boards if entry.flash_limit is not None] or self.boards
        return any(entry.fits for entry in relevant)

    def to_json(self) -> dict[str, Any]:
        """Return the output of `pretrim check --json`."""
        boards = [entry.to_json() for entry in self.boards]
        zero = {layer: {"zero": count, "filters": of} for layer, (count, of) in self.zero_filters.items()}
        return {
            "path": str(self.path),
            "data_type": self.data_type,
            "fits": self.fits,
            "boards": boards,
            "filters": self.filters,
            "zero_filters": zero,
        }


def check(path: str | Path, device: str = ALL, runtime: str | None = None, application: float | None = None) -> Checked:
    """Check a ``.tflite``, an ``.onnx`` or the artifact of a run against boards.

    Args:
        path: any such file, or an exported run.
        device: a board, or ``all``.
        runtime: runtime to predict times for; None: all with known times.
        application: share of flash and RAM reserved for the application; by default a quarter.

    Raises:
        UsageError: an unknown board or runtime, or a file of another kind.
        ArtifactError: a damaged file, or a run without an artifact.
    """
    chosen = boards() if device == ALL else (board(device),)
    if application is not None and device != ALL and chosen[0].kind != "microcontroller":
        raise UsageError(f"--application reserves memory of a microcontroller, and {device} is not one: leave it out.")
    file, runtime = _file_of(Path(path)), None if runtime == "litert" else runtime  # it only names the format
    share = APPLICATION_SHARE if application is None else application
    if file.suffix == ".onnx":
        return Checked(file, "as in the file", tuple(_onnx(file, entry, share) for entry in chosen))
    from pretrim.deploy.graph import read_graph

    graph, content = read_graph(file), file.read_bytes()
    systems = {entry.name: _systems(entry, graph.data_type, runtime, must=device != ALL) for entry in chosen}
    is_for_micro = any(entry.kind == "microcontroller" for entry in chosen)
    interpreted = _interpreted(content, chosen) if is_for_micro else _Interpreted({})
    results = tuple(_on(entry, graph, interpreted, share, systems[entry.name]) for entry in chosen)
    return Checked(file, graph.data_type, results, graph.filters, graph.zero_filters)


def _file_of(path: Path) -> Path:
    """Return the file itself, or the artifact of a run: preferably a ``.tflite``, int8 before float32."""
    if not path.exists():
        raise UsageError(f"No file {path}: give a .tflite, an .onnx or a run.")
    if not path.is_dir():
        if path.suffix not in (".tflite", ".onnx"):
            raise UsageError(f"Expected a .tflite, an .onnx or a run, but got {path.name!r}.")
        return path
    for int8 in (True, False):
        if (file := default_path(path, "litert", int8)).exists():
            return file
    return artifacts_of(path)[0].path


def _systems(entry: Board, dtype: str, runtime: str | None, *, must: bool) -> list[System]:
    """Select the runtimes to predict times for on a board; empty if it lacks the named one and that is not required."""
    if entry.kind != "microcontroller":
        return []
    from pretrim.latency.on_board import systems_to_show

    try:
        return systems_to_show(entry, dtype, runtime)
    except UsageError:
        if must:
            raise
        return []


@dataclass(frozen=True)
class _Interpreted:
    """The microcontroller interpreter's result for a file.

    Attributes:
        arenas: tensor arena by board name; empty if the interpreter cannot run the file.
        missing: operators that the interpreter lacks.
        problem: description of why it cannot run the file.
    """

    arenas: Mapping[str, BoardArena]
    missing: tuple[str, ...] = ()
    problem: str | None = None


def _interpreted(content: bytes, chosen: Sequence[Board]) -> _Interpreted:
    """Compute the arena on each microcontroller, or why there is none."""
    from pretrim.deploy.board import arena_on_each
    from pretrim.deploy.micro import MissingOperators

    try:
        return _Interpreted(arena_on_each(content, [entry for entry in chosen if entry.kind == "microcontroller"]))
    except MissingOperators as error:
        return _Interpreted({}, error.names, f"operators that its interpreter lacks: {', '.join(error.names)}")
    except ExportError as error:
        return _Interpreted({}, problem=str(error).rstrip("."))


def _on(entry: Board, graph: FileGraph, interpreted: _Interpreted, share: float, systems: Sequence[System]) -> OnBoard:
    """Check a ``.tflite`` against one board."""
    limits = entry.limits(share)
    is_micro, arena = entry.kind == "microcontroller", interpreted.arenas.get(entry.name)
    problems = [interpreted.problem] if is_micro and interpreted.problem is not None else []
    if "artifact_bytes" in limits and graph.file_bytes > limits["artifact_bytes"]:
        problems.append(f"the file takes {graph.file_bytes:,} bytes, more than {limits['artifact_bytes']:,}")
    ram = limits.get("arena_bytes", entry.ram_bytes)
    if arena is not None and arena.total_bytes > ram:
        problems.append(f"the arena takes {arena.total_bytes:,} bytes, more than {ram:,}")
    return OnBoard(
        board=entry.name,
        fits=not problems,
        problems=tuple(problems),
        file_bytes=graph.file_bytes,
        flash_limit=limits.get("artifact_bytes"),
        arena_bytes=None if arena is None else arena.total_bytes,
        ram_limit=ram,
        verified=arena is not None and arena.verified,
        missing=interpreted.missing if is_micro else (),
        times=tuple(_times(entry, graph, systems)),
    )


def _times(entry: Board, graph: FileGraph, systems: Sequence[System]) -> list[dict[str, Any]]:
    from pretrim.latency.on_board import predict
    from pretrim.latency.on_file import sketch_of_file

    sketch = sketch_of_file(graph)
    predictions = [predict(entry, system, sketch) for system in systems]
    return [basis.record({"file": ns}) for basis, ns in predictions]


def _onnx(file: Path, entry: Board, share: float) -> OnBoard:
    """Check an ``.onnx`` against one board: computers load it, microcontrollers need it exported to ``.tflite``."""
    size = file.stat().st_size
    limits = entry.limits(share)
    problems = []
    if entry.kind == "microcontroller":
        problems.append("its interpreter loads .tflite: export with --runtime litert")
        if size > limits["artifact_bytes"]:
            problems.append(f"the file takes {size:,} bytes, more than {limits['artifact_bytes']:,}")
    elif size > entry.ram_bytes:
        problems.append(f"the file takes {size:,} bytes, more than all RAM")
    ram = limits.get("arena_bytes", entry.ram_bytes)
    return OnBoard(
        entry.name, not problems, tuple(problems), size, limits.get("artifact_bytes"), None, ram, False, (), ()
    )
