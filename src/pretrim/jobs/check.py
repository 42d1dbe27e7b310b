"""Does a file or a run fit a board, or any: flash, RAM, operators that are missing, and the time that it would take."""

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
    """What a file takes on one board.

    Attributes:
        board: its name.
        fits: whether file and arena are within the board's limits, and no operator is missing.
        problems: in words what does not fit, and what is missing.
        file_bytes: of the file.
        flash_limit: what the board leaves for a file; None where memory limits nothing (a computer).
        arena_bytes: of the tensor arena there; None for a computer, or where the file is not a ``.tflite``.
        ram_limit: what the board leaves for an arena, or all of a computer's RAM.
        verified: whether the interpreter for microcontrollers ran the file here.
        missing: operators that it does not have.
        times: predicted, each with machine, runtime, data type and threads (`board_systems.Prediction.record`).
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
        """Plain JSON."""
        lists = {name: list(getattr(self, name)) for name in ("problems", "missing", "times")}
        return {**vars(self), **lists}


@dataclass(frozen=True)
class Checked:
    """A file on some boards.

    Attributes:
        path: the file.
        data_type: that it computes in.
        boards: what it takes on each.
        filters: of all its layers; 0 where that is not known.
        zero_filters: of each layer that has any, how many are zero, and how many it has.
    """

    path: Path
    data_type: str
    boards: tuple[OnBoard, ...]
    filters: int = 0
    zero_filters: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def fits(self) -> bool:
        """Whether it fits the board that was asked about; of all boards, any microcontroller."""
        asked = [entry for entry in self.boards if entry.flash_limit is not None] or self.boards
        return any(entry.fits for entry in asked)

    def to_json(self) -> dict[str, Any]:
        """What `pretrim check --json` prints."""
        found = [entry.to_json() for entry in self.boards]
        zero = {layer: {"zero": count, "filters": of} for layer, (count, of) in self.zero_filters.items()}
        return {
            "path": str(self.path),
            "data_type": self.data_type,
            "fits": self.fits,
            "boards": found,
            "filters": self.filters,
            "zero_filters": zero,
        }


def check(path: str | Path, device: str = ALL, runtime: str | None = None, application: float | None = None) -> Checked:
    """Look at a ``.tflite``, an ``.onnx`` or the artifact of a run as boards would.

    Args:
        path: a file of anybody's, or a run that was exported.
        device: a board, or ``all``.
        runtime: whose time is meant; None: those that are known.
        application: share of flash and RAM reserved for the application; by default a quarter.

    Raises:
        UsageError: a board or runtime that is not known, or a file that is neither.
        ArtifactError: a damaged file, or a run without an artifact.
    """
    chosen = boards() if device == ALL else (board(device),)
    if application is not None and device != ALL and chosen[0].kind != "microcontroller":
        raise UsageError(f"--application is of microcontrollers, and {device} is none: leave it out.")
    file, runtime = _file_of(Path(path)), None if runtime == "litert" else runtime  # that is whose file it is
    share = APPLICATION_SHARE if application is None else application
    if file.suffix == ".onnx":
        return Checked(file, "as in the file", tuple(_onnx(file, entry, share) for entry in chosen))
    from pretrim.deploy.graph import read_graph

    graph, content = read_graph(file), file.read_bytes()
    systems = {entry.name: _systems(entry, graph.data_type, runtime, must=device != ALL) for entry in chosen}
    is_for_micro = any(entry.kind == "microcontroller" for entry in chosen)
    made = _interpreted(content, chosen) if is_for_micro else _Interpreted({})
    found = tuple(_on(entry, graph, made, share, systems[entry.name]) for entry in chosen)
    return Checked(file, graph.data_type, found, graph.filters, graph.zero_filters)


def _file_of(path: Path) -> Path:
    """A file as it is, or the artifact of a run: its ``.tflite`` first, of int8 before float32."""
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
    """The runtimes whose time is told on a board; of several boards, those that have the runtime that was named."""
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
    """What the interpreter for microcontrollers makes of a file.

    Attributes:
        arenas: by the name of a board; empty where it does not run the file.
        missing: operators that it does not have.
        problem: in words, why it does not run the file.
    """

    arenas: Mapping[str, BoardArena]
    missing: tuple[str, ...] = ()
    problem: str | None = None


def _interpreted(content: bytes, chosen: Sequence[Board]) -> _Interpreted:
    """The arena on each microcontroller, or why there is none."""
    from pretrim.deploy.board import arena_on_each
    from pretrim.deploy.micro import MissingOperators

    try:
        return _Interpreted(arena_on_each(content, [entry for entry in chosen if entry.kind == "microcontroller"]))
    except MissingOperators as error:
        return _Interpreted({}, error.names, f"operators that its interpreter has not: {', '.join(error.names)}")
    except ExportError as error:
        return _Interpreted({}, problem=str(error).rstrip("."))


def _on(entry: Board, graph: FileGraph, made: _Interpreted, share: float, systems: Sequence[System]) -> OnBoard:
    """A ``.tflite`` on one board."""
    limits = entry.limits(share)
    is_micro, arena = entry.kind == "microcontroller", made.arenas.get(entry.name)
    problems = [made.problem] if is_micro and made.problem is not None else []
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
        missing=made.missing if is_micro else (),
        times=tuple(_times(entry, graph, systems)),
    )


def _times(entry: Board, graph: FileGraph, systems: Sequence[System]) -> list[dict[str, Any]]:
    from pretrim.latency.on_board import predict
    from pretrim.latency.on_file import sketch_of_file

    sketched = sketch_of_file(graph)
    found = [predict(entry, system, sketched) for system in systems]
    return [basis.record({"file": ns}) for basis, ns in found]


def _onnx(file: Path, entry: Board, share: float) -> OnBoard:
    """An ``.onnx`` on one board: a computer loads it; what a microcontroller makes of it is not known here."""
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
