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
    from .analysis import analyze as analyze
    from .checkpoint import RunRecord as RunRecord
    from .checkpoint import load as load
    from .checkpoint import read as read
    from .checkpoint import save as save
    from .cost import costs as costs
    from .errors import PretrimError as PretrimError
    from .network import Network as Network
    from .plan import Plan as Plan
    from .surgery import apply as apply
    from .surgery import plan_of as plan_of

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
