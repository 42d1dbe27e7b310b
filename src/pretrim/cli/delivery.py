"""From a saved network to a proved artifact, and what it takes on the board that it is for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretrim.errors import ExportError, UsageError

from .options import RUNTIMES, one_of
from .progress import say

if TYPE_CHECKING:
    from pretrim.data import DataSet
    from pretrim.deploy import Artifact
    from pretrim.devices import Board


@dataclass(frozen=True)
class Delivery:
    """What is to be exported.

    Attributes:
        board: for which device; None for none in particular.
        to: the runtime.
        int8: in eight bits.
    """

    board: Board | None
    to: str
    int8: bool


def find_delivery(board: Board | None, to: str | None, int8: bool | None) -> Delivery | None:
    """What the options ask for; None if nothing is to be exported.

    Raises UsageError where they contradict each other, or a package is missing: before the training, not after it.
    """
    if board is None and to is None:
        if int8 is not None:
            raise UsageError("Expected --to or --device with --int8, but got neither: name the runtime or the board.")
        return None
    if to is not None:
        one_of("--to", to, RUNTIMES)
    is_micro = board is not None and board.kind == "microcontroller"
    runtime = to or (board.runtime if board is not None else "")
    if is_micro and runtime != "litert":
        raise UsageError(f"Expected --to litert for a microcontroller, but got {runtime!r}: leave it out.")

    from pretrim.deploy import check_installed

    check_installed(runtime)  # type: ignore[arg-type]  # it is checked
    return Delivery(board, runtime, is_micro if int8 is None else int8)


def deliver(run: Path, model: str, data: DataSet, delivery: Delivery) -> dict[str, Any]:
    """Export a run in its folder, and look at it as its board would. Returns the record of both."""
    from . import export
    from .opened import open_run

    target = export.default_path(run, delivery.to, delivery.int8)
    named = model if ".py" in model else None  # the user named this file as MODEL, so it may be run
    material = export.Material(data.name, data.train, data.test)
    signed = delivery.board is not None  # every board is ARM's or a microcontroller
    try:
        artifact = export.write(open_run(run, named), target, delivery.to, material, int8=delivery.int8, signed=signed)
    except ExportError as error:
        raise ExportError(f"{error} The trained network is in {run}: `pretrim export` takes it from there.") from error
    return {**artifact.to_json(), "path": str(target), "board": on_board(artifact, delivery.board)}


def on_board(artifact: Artifact, board: Board | None) -> dict[str, Any] | None:
    """Flash and RAM of a microcontroller that an artifact takes, by its own interpreter where that is installed."""
    if board is None or board.flash_bytes is None:
        return None
    from pretrim.deploy import check

    found = check(artifact, board)
    if found["problems"]:
        say(f"warning: on {board.name}, {'; '.join(found['problems'])}")
    return found
