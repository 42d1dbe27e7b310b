"""The time that public measurements predict for a file on its microcontroller, held against the limit of its plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pretrim.devices import Board

    from .target import Target

MS = 1e-6
"""Milliseconds of a nanosecond"""


@dataclass(frozen=True)
class TimeLimit:
    """The most that an image may take on a board.

    Attributes:
        board: a microcontroller.
        runtime: whose time it is, with its version.
        most_ns: nanoseconds.
    """

    board: Board
    runtime: str
    most_ns: int

    def of(self, content: bytes) -> int:
        """Nanoseconds that the operators of a ``.tflite`` are predicted to take there.

        Raises UsageError where nothing is known of this runtime with the file's data type.
        """
        from pretrim.deploy.graph import graph_of
        from pretrim.latency.board_systems import find_system
        from pretrim.latency.on_board import predict
        from pretrim.latency.on_file import sketch_of_file

        graph = graph_of(content)
        return predict(self.board, find_system(self.board, self.runtime, graph.data_type), sketch_of_file(graph))[1]

    def problem(self, taken_ns: int) -> str | None:
        """In words, that a file takes longer; None where it does not."""
        if taken_ns <= self.most_ns:
            return None
        return f"its predicted time is {taken_ns * MS:.3g} ms, more than the limit of {self.most_ns * MS:.3g}"


def time_limit(target: Target, plan: Mapping[str, Any] | None) -> TimeLimit | None:
    """The smallest limit on the time of a target's board: the target's, and that of a plan that was made for it.

    None without one, and for a board whose time is measured. Shares are of the dense network of the plan.
    """
    from pretrim.planning.budget import Limit

    device = (plan or {}).get("device") or {}
    times = device.get("times", ())
    is_its_board = target.board is not None and device.get("name") == target.board.name
    runtime = target.on_board or (times[0]["runtime"] if is_its_board and len(times) == 1 else None)
    if target.board is None or not target.is_microcontroller or runtime is None:
        return None
    texts = [*target.limits.items(), *((plan or {}).get("limits", {}).items() if is_its_board else ())]
    limits = [limit for limit in (Limit.parse(name, text) for name, text in texts) if limit.cost == "latency_ns"]
    dense = device.get("dense", {}).get("latency_ns", 0)
    most = [limit.resolve(dense) for limit in limits if not limit.is_share or dense]
    return TimeLimit(target.board, runtime, min(most)) if most else None
