"""Latency as a cost, from a table of single-layer times measured here or on the board, or from public measurements.

The names below are imported on first use, so that boards and their times can be listed without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .calibrate import measured_cost as measured_cost
    from .cost import LatencyCost as LatencyCost
    from .cost import latency_cost as latency_cost
    from .cost import wanted_axes as wanted_axes
    from .table import PROVIDERS as PROVIDERS
    from .table import LatencyKey as LatencyKey
    from .table import Table as Table
    from .table import load_table as load_table
    from .table import measure_table as measure_table
    from .table import save_table as save_table

_MODULES = {
    "PROVIDERS": "table",
    "LatencyCost": "cost",
    "LatencyKey": "table",
    "Table": "table",
    "latency_cost": "cost",
    "load_table": "table",
    "measure_table": "table",
    "measured_cost": "calibrate",
    "save_table": "table",
    "wanted_axes": "cost",
}
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)
