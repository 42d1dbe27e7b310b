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
    from .core import Network as Network
    from .core import Plan as Plan
    from .core import analyze as analyze
    from .core import apply as apply
    from .core import costs as costs
    from .core import plan as plan
    from .core import plan_of as plan_of
    from .errors import PretrimError as PretrimError
    from .runs.load import load as load
    from .runs.load import read as read
    from .runs.record import RunRecord as RunRecord
    from .runs.save import save as save

_HOME = {
    "Network": "core",
    "Plan": "core",
    "PretrimError": "errors",
    "RunRecord": "runs.record",
    "analyze": "core",
    "apply": "core",
    "costs": "core",
    "load": "runs.load",
    "plan": "core",
    "plan_of": "core",
    "read": "runs.load",
    "save": "runs.save",
}
__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'pretrim' has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
