"""Trim a CNN to its device before you train it.

    run = pretrim.compress(model, data="photos/", macs="0.5x", epochs=20, output="run")     # the whole job
    run.export("litert", int8=True).measure()

    network = pretrim.analyze(model, example)                                               # or step by step
    slim = pretrim.apply(model, pretrim.plan(network, macs="0.5x"))                         # train it with anything

Names are imported on first use, so that `pretrim --help` does not have to wait for torch.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .core import Network as Network
    from .core import Plan as Plan
    from .core import analyze as analyze
    from .core import apply as apply
    from .core import costs as costs
    from .core import plan_of as plan_of
    from .errors import PretrimError as PretrimError
    from .jobs.calls import Run as Run
    from .jobs.calls import Study as Study
    from .jobs.calls import compress as compress
    from .jobs.calls import open_run as open_run
    from .jobs.calls import open_study as open_study
    from .jobs.calls import plan as plan
    from .jobs.calls import slim as slim
    from .jobs.calls import sweep as sweep
    from .runs.load import load as load
    from .runs.load import read as read
    from .runs.record import RunRecord as RunRecord
    from .runs.save import save as save

_HOME = {
    "Network": "core",
    "Plan": "core",
    "PretrimError": "errors",
    "Run": "jobs.calls",
    "RunRecord": "runs.record",
    "Study": "jobs.calls",
    "analyze": "core",
    "apply": "core",
    "compress": "jobs.calls",
    "costs": "core",
    "load": "runs.load",
    "open_run": "jobs.calls",
    "open_study": "jobs.calls",
    "plan": "jobs.calls",
    "plan_of": "core",
    "read": "runs.load",
    "save": "runs.save",
    "slim": "jobs.calls",
    "sweep": "jobs.calls",
}
__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'pretrim' has no attribute {name!r}")
    if "IPython" in sys.modules and _HOME[name] in ("core", "jobs.calls"):  # notebooks display records as rich output
        importlib.import_module(".present.notebook", __name__).attach()
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    """Return the public names, including those not imported yet, for tab completion."""
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
