"""The core API in Python: from a model to its slim network, as free functions and as thin methods on their records.

`Network.plan` and `Plan.apply` are attached here, in one place, so that no core module has to import the step that
comes after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from torch import nn

from pretrim.analysis.analyze import analyze
from pretrim.analysis.network import Network
from pretrim.cost.costs import costs
from pretrim.cost.formula import Cost
from pretrim.cost.quantities import OWN_OPTIONS, by_option
from pretrim.planning.options import Options
from pretrim.planning.plan import Plan
from pretrim.planning.search import make_plan, options_of, plan_of_widths
from pretrim.surgery.apply import apply, plan_of
from pretrim.wording import in_words_of_python

__all__ = ["Network", "Plan", "analyze", "apply", "costs", "plan", "plan_of", "plan_of_widths"]

Amount = str | int | float | None
KEYWORDS = {*OWN_OPTIONS, "costs", "dtype", *(field.name for field in fields(Options))}
"""Keywords of `plan`; error messages use them instead of command-line options"""


@in_words_of_python(KEYWORDS)
def plan(
    network: Network,
    *,
    params: Amount = None,
    macs: Amount = None,
    flash: Amount = None,
    ram: Amount = None,
    activation: Amount = None,
    latency: Amount = None,
    costs: Mapping[str, Cost] | None = None,
    dtype: str = "float32",
    **options: Any,
) -> Plan:
    """Plan how many filters each layer keeps so that every limit is met.

    Limits are absolute (``250_000``, ``"20M"``, ``"512KiB"``, ``"5ms"``) or shares of the dense network (``"0.5x"``).

    Args:
        network: the analysis from :func:`pretrim.analyze`.
        params: maximum number of parameters.
        macs: maximum multiply-accumulates per image.
        flash: maximum bytes of the weights.
        ram: maximum bytes of activations alive at once.
        activation: maximum bytes of all feature maps.
        latency: maximum time per image; needs a measured cost in `costs`.
        costs: cost functions measured or predicted for a device, by quantity (:mod:`pretrim.latency` measures
            ``latency_ns``).
        dtype: data type in which bytes are counted: float32, float16 or int8.
        options: planning options (`planning.options.Options`: ``mode``, ``round_to``, ``seed``, ...), and limits on
            other quantities by name (``artifact_bytes=``, ``arena_bytes=``: a microcontroller's flash and RAM).

    Raises:
        BudgetError: a limit is invalid, or the dense network already meets it.
        InfeasibleBudget: no network meets a limit; the message gives the smallest reachable value.
        UsageError: an unknown option.
    """
    named = {"params": params, "macs": macs, "flash": flash, "ram": ram, "activation": activation, "latency": latency}
    others = {name: options.pop(name) for name in list(options) if name in by_option()}
    return make_plan(network, named | others, options_of(options), dtype, costs)  # type: ignore[arg-type]  # make_plan checks it


def _apply(self: Plan, model: nn.Module, init: str = "fresh", network: Network | None = None) -> nn.Module:
    """Return a new, slim module; see :func:`pretrim.apply`."""
    return apply(model, self, init, network)


Network.plan = plan
Plan.apply = _apply
