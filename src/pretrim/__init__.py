"""Trim a CNN to its device before you train it.

    network = pretrim.analyze(model, example)
    slim = network.plan(mode="macs", macs="0.5x").apply(model)

The names are loaded when they are first used, so that `pretrim --help` need not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from pretrim.analysis.analyze import analyze as analyze
    from pretrim.analysis.network import Network as Network
    from pretrim.cost.costs import costs as costs
    from pretrim.planning.plan import Plan as Plan
    from pretrim.runs.load import load as load
    from pretrim.runs.load import read as read
    from pretrim.runs.record import RunRecord as RunRecord
    from pretrim.runs.save import save as save
    from pretrim.surgery.apply import apply as apply
    from pretrim.surgery.apply import plan_of as plan_of

    from .errors import PretrimError as PretrimError

_HOME = {
    "Network": "network",
    "Plan": "plan",
    "PretrimError": "errors",
    "analyze": "analysis",
    "RunRecord": "checkpoint",
    "apply": "surgery",
    "costs": "cost",
    "load": "checkpoint",
    "plan_of": "surgery",
    "read": "checkpoint",
    "save": "checkpoint",
}
__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'pretrim' has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
