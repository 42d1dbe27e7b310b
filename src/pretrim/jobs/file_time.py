"""Compares the time that public measurements predict for a file on its microcontroller with the plan's limit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pretrim.devices import Board

    from .target import Target

MS = 1e-6
"""Milliseconds per nanosecond"""


@dataclass(frozen=True)
class TimeLimit:
    """The maximum time per image on a board.

    Attributes:
        board: the microcontroller.
        runtime: the runtime the time holds for, with its version.
        most_ns: maximum in nanoseconds.
    """

    board: Board
    runtime: str
    most_ns: int

    def of(self, content: bytes) -> int:
        """Predict the nanoseconds that the operators of a ``.tflite`` take on the board.

        Raises UsageError if no measurements are known for this runtime with the file's data type.
        """
        from pretrim.deploy.graph import graph_of
        from pretrim.latency.board_systems import find_system
        from pretrim.latency.on_board import predict
        from pretrim.latency.on_file import sketch_of_file

        graph = graph_of(content)
        return predict(self.board, find_system(self.board, self.runtime, graph.data_type), sketch_of_file(graph))[1]

    def problem(self, taken_ns: int) -> str | None:
        """Describe by how much a file exceeds the limit; None if it does not."""
        if taken_ns <= self.most_ns:
            return None
        return f"its predicted time is {taken_ns * MS:.3g} ms, more than the limit of {self.most_ns * MS:.3g}"


def time_limit(target: Target, plan: Mapping[str, Any] | None) -> TimeLimit | None:
    """Find the smallest time limit for a target's board, among the target's own and those of a plan made for the board.

    None if there is no limit, or if times on the board are measured. Shares refer to the plan's dense network.
    """
    from pretrim.planning.budget import Limit

    device = (plan or {}).get("device") or {}
    times = device.get("times", ())
    is_its_board = target.board is not None and device.get("name") == target.board.name
    runtime = target.on_board or (times[0]["runtime"] if is_its_board and len(times) == 1 else None)
    if target.board is None or not target.is_microcontroller or runtime is None:
        return None
    amounts = [*target.limits.items(), *((plan or {}).get("limits", {}).items() if is_its_board else ())]
    limits = [limit for limit in (Limit.parse(name, text) for name, text in amounts) if limit.cost == "latency_ns"]
    dense = device.get("dense", {}).get("latency_ns", 0)
    candidates = [limit.resolve(dense) for limit in limits if not limit.is_share or dense]
    return TimeLimit(target.board, runtime, min(candidates)) if candidates else None
