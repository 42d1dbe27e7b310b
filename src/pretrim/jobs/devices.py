"""The known boards, their limits, and the runtimes for which public measurements predict times."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pretrim.devices import Board, board, boards


def board_records(name: str | None = None) -> list[dict[str, Any]]:
    """Return boards as plain JSON: their specifications, ``limits``, and ``times_of`` (runtimes with predicted times).

    Raises UsageError for an unknown board.
    """
    selected = boards() if name is None else (board(name),)
    return [{**asdict(entry), "limits": entry.limits(), "times_of": _times_of(entry)} for entry in selected]


def _times_of(entry: Board) -> list[dict[str, Any]]:
    from pretrim.latency.board_systems import ENOUGH, systems_of

    if entry.kind != "microcontroller":
        return []
    return [
        {
            "runtime": system.title,
            "data_type": system.dtype,
            "networks": system.networks,
            "median_error": system.median_error,
            "p90_error": system.p90_error,
            "range": list(system.range),
            "range_is_shared": system.networks < ENOUGH,
            "power_mw": system.power_mw.get(entry.name),
            "sources": list(system.sources),
        }
        for system in systems_of(entry)
    ]
