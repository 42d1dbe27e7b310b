"""Checks before training that the plan's network, once converted for its microcontroller, meets the plan's limits.

File size, arena and time do not depend on the weights, so the untrained slim network needs what the trained one will.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pretrim.errors import InfeasibleBudget

from .export import limits_in_bytes
from .file_time import TimeLimit, time_limit
from .options import Search
from .plan import plan_network
from .reporter import Reporter
from .target import Target

if TYPE_CHECKING:
    from torch import nn

    from pretrim.models.dense import DenseModel
    from pretrim.planning.plan import Plan

ROUNDS = 5
"""Maximum rounds of converting and trimming again; one suffices if the prediction error stays constant in bytes"""
IMAGES = 4
TITLES = {"artifact_bytes": "file", "arena_bytes": "arena", "latency_ns": "predicted time"}


def fitted(plan: Plan, dense: DenseModel, target: Target, search: Search | None, reporter: Reporter) -> Plan:
    """Return the plan if its converted network meets the limits, otherwise a narrower plan that does.

    The returned plan keeps the limits as the user wrote them.

    Args:
        plan: a plan made for the target.
        dense: the dense network that the plan is for.
        target: a microcontroller, with the limits.
        search: how widths are chosen; None for a plan given by the user, which is not changed.
        reporter: told which limits the converted network exceeds.

    Raises:
        InfeasibleBudget: no plan was found whose file, arena and time are within the limits.
        ExportError: the network cannot be converted.
    """
    timed, candidate = time_limit(target, plan.to_json()), plan
    limits = {**limits_in_bytes(target, plan.to_json()), **({} if timed is None else {"latency_ns": timed.most_ns})}
    if not limits:
        return plan
    tightened = dict(limits)
    for _ in range(ROUNDS):
        actual = converted(candidate, dense, target, timed)
        over = {name: actual[name] - most for name, most in limits.items() if actual[name] > most}
        if not over:
            return _with_measured(candidate, plan, actual)
        excess = ", ".join(_describe_excess(name, actual[name], limits[name]) for name in over)
        if search is None:
            raise InfeasibleBudget(
                f"The plan does not fit once it is converted: {excess}. Make a new one with lower limits."
            )
        reporter.say(f"note: converted before the training, {excess}: trimmed again")
        predicted = (candidate.device or {})["slim"]  # plan below the prediction, or the same plan would be found again
        tightened |= {
            name: _tightened(name, min(tightened[name], predicted[name]), actual[name], limits[name]) for name in over
        }
        if min(tightened.values()) < 1:
            break
        candidate = _replan(candidate, tightened, dense, target, search, reporter)
    raise InfeasibleBudget(f"No plan found whose converted network fits ({excess}): lower the limit a little.")


def _tightened(name: str, planned: int, actual: int, limit: int) -> int:
    """Compute the tightened limit to plan with after a plan exceeded its limit: less by the excess bytes or, for times,
    by the same ratio, since every unforeseen operator adds to the time.

    >>> _tightened("artifact_bytes", 4000, 4100, 4000), _tightened("latency_ns", 4000, 5000, 4000)
    (3900, 3200)
    """
    return planned * limit // actual if name == "latency_ns" else planned - (actual - limit)


def _describe_excess(name: str, taken: int, limit: int) -> str:
    """Describe which value exceeds its limit.

    >>> _describe_excess("artifact_bytes", 5000, 4000), _describe_excess("latency_ns", 5_420_000, 5_000_000)
    ('its file takes 5,000 bytes of 4,000', 'its predicted time is 5.42 ms of 5')
    """
    if name == "latency_ns":
        return f"its {TITLES[name]} is {taken * 1e-6:.3g} ms of {limit * 1e-6:.3g}"
    return f"its {TITLES[name]} takes {taken:,} bytes of {limit:,}"


def converted(plan: Plan, dense: DenseModel, target: Target, timed: TimeLimit | None = None) -> dict[str, int]:
    """Convert the plan's network with fresh weights; return the bytes of its file and of its arena on the board.

    Args:
        plan: the plan whose widths are used.
        dense: the dense network that the plan is for.
        target: data type and board.
        timed: a time limit; if given, the predicted nanoseconds are returned too.
    """
    import torch

    from pretrim.compat.silence import silence
    from pretrim.deploy import arena_on, litert_file
    from pretrim.surgery.apply import apply

    assert target.board is not None  # a microcontroller
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(IMAGES, *dense.input_shape, generator=generator)
    with torch.random.fork_rng(devices=[]), silence():  # or the training would start from other initial weights
        slim = as_if_trained(apply(dense.module, plan, "fresh", dense.network).eval())
        content = litert_file(slim, images, is_int8=target.int8)
    times = {} if timed is None else {"latency_ns": timed.of(content)}
    return {"artifact_bytes": len(content), "arena_bytes": arena_on(content, target.board).total_bytes, **times}


def as_if_trained(slim: nn.Module) -> nn.Module:
    """Perturb, in place, each tensor whose values are all equal, which never happens in a trained network.

    Converters optimise such constants away: multiplying by a norm's ones, adding zeros, one slope for all channels.
    """
    import torch

    generator = torch.Generator().manual_seed(0)
    parameters = [parameter for parameter in slim.parameters() if parameter.requires_grad]
    statistics = [buffer for name, buffer in slim.named_buffers() if "running_" in name]
    with torch.no_grad():
        for tensor in (*parameters, *statistics):
            if tensor.is_floating_point() and tensor.numel() and bool((tensor == tensor.flatten()[0]).all()):
                tensor.add_(0.01 * torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype).to(tensor.device))
    return slim


def _replan(
    plan: Plan, limits: Mapping[str, int], dense: DenseModel, target: Target, search: Search, reporter: Reporter
) -> Plan:
    """Plan again within tightened limits; the new plan's record keeps the original limits."""
    from pretrim.planning.budget import Limit

    other_limits = {name: text for name, text in target.limits.items() if Limit.parse(name, text).cost not in limits}
    units = {"latency_ns": "ns"}
    tightened = replace(
        target, limits={**other_limits, **{name: f"{limit}{units.get(name, '')}" for name, limit in limits.items()}}
    )
    replanned = plan_network(dense.network, tightened, search, target.costs(dense, reporter), reporter)
    return replace(replanned, limits=plan.limits, model=plan.model)


def _with_measured(candidate: Plan, original: Plan, actual: Mapping[str, int]) -> Plan:
    """Return the plan with the converted network's figures recorded beside the predicted ones."""
    device: dict[str, Any] = {**(candidate.device or {}), "converted": dict(actual)}
    return replace(candidate, limits=original.limits, device=device)
