"""The core in Python: from a model to its slim network, as free functions and as thin methods on their records.

The methods `Network.plan`, `Plan.apply` and `network.save` are attached here, in one place, so that no file of the core
has to know the step after its own.
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
"""Of `plan`: messages say these in the place of options"""


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
    """How many filters each layer keeps, so that every limit is met.

    Limits are absolute (``250_000``, ``"20M"``, ``"512KiB"``, ``"5ms"``) or shares of the dense network (``"0.5x"``).

    Args:
        network: what :func:`pretrim.analyze` found.
        params: maximum number of parameters.
        macs: maximum multiply-accumulates of one image.
        flash: maximum bytes of the weights.
        ram: maximum bytes of activations alive at once.
        activation: maximum bytes of all feature maps.
        latency: maximum time of one image; needs a measured cost in `costs`.
        costs: measured or predicted for a device, by quantity (:mod:`pretrim.latency` measures ``latency_ns``).
        dtype: the data type that bytes are counted in: float32, float16 or int8.
        options: of the method (`planning.options.Options`: ``mode``, ``round_to``, ``seed``, ...), and limits on other
            quantities by their name (``artifact_bytes=``, ``arena_bytes=``: a microcontroller's flash and RAM).

    Raises:
        BudgetError: a limit that is not one, or that the dense network meets already.
        InfeasibleBudget: no network meets a limit; the message says what is needed at least.
        UsageError: an unknown option.
    """
    named = {"params": params, "macs": macs, "flash": flash, "ram": ram, "activation": activation, "latency": latency}
    others = {name: options.pop(name) for name in list(options) if name in by_option()}
    return make_plan(network, named | others, options_of(options), dtype, costs)  # type: ignore[arg-type]  # it checks


def _apply(self: Plan, model: nn.Module, init: str = "fresh", network: Network | None = None) -> nn.Module:
    """A new, slim module; see :func:`pretrim.apply`."""
    return apply(model, self, init, network)


Network.plan = plan
Plan.apply = _apply
