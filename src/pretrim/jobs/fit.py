"""Before a training: is the plan's network, converted for its microcontroller, really within the plan's limits?

The file, the arena and the time do not depend on the weights, so the untrained slim network says what the trained one
will take.
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
"""of converting and trimming again; one is enough where the prediction is off by the same bytes at other widths"""
IMAGES = 4
TITLES = {"artifact_bytes": "file", "arena_bytes": "arena", "latency_ns": "predicted time"}


def fitted(plan: Plan, dense: DenseModel, target: Target, search: Search | None, reporter: Reporter) -> Plan:
    """The plan, proved on its converted network; or a narrower one that is, with the limits as its user wrote them.

    Args:
        plan: made for the target.
        dense: the network that it is of.
        target: a microcontroller, with the limits.
        search: how widths are chosen; None for a plan that was given, which is not changed.
        reporter: told what was really found.

    Raises:
        InfeasibleBudget: no plan was found whose file, arena and time are within the limits.
        ExportError: the network cannot be converted.
    """
    timed, found = time_limit(target, plan.to_json()), plan
    limits = {**limits_in_bytes(target, plan.to_json()), **({} if timed is None else {"latency_ns": timed.most_ns})}
    if not limits:
        return plan
    narrower = dict(limits)
    for _ in range(ROUNDS):
        real = converted(found, dense, target, timed)
        over = {name: real[name] - most for name, most in limits.items() if real[name] > most}
        if not over:
            return _proved(found, plan, real)
        said = ", ".join(_said(name, real[name], limits[name]) for name in over)
        if search is None:
            raise InfeasibleBudget(f"The plan does not fit once it is converted: {said}. Make it again with less.")
        reporter.say(f"note: converted before the training, {said}: trimmed again")
        predicted = (found.device or {})["slim"]  # below it, or the same plan would be found again
        narrower |= {
            name: _narrower(name, min(narrower[name], predicted[name]), real[name], limits[name]) for name in over
        }
        if min(narrower.values()) < 1:
            break
        found = _again(found, narrower, dense, target, search, reporter)
    raise InfeasibleBudget(f"No plan found whose converted network fits ({said}): lower the limit a little.")


def _narrower(name: str, planned: int, real: int, most: int) -> int:
    """What to plan with where a plan turns out larger than its limit: less by the same bytes, or by the same share of
    a time, which every operator that was not foreseen adds to.

    >>> _narrower("artifact_bytes", 4000, 4100, 4000), _narrower("latency_ns", 4000, 5000, 4000)
    (3900, 3200)
    """
    return planned * most // real if name == "latency_ns" else planned - (real - most)


def _said(name: str, taken: int, most: int) -> str:
    """What is over its limit, in words.

    >>> _said("artifact_bytes", 5000, 4000), _said("latency_ns", 5_420_000, 5_000_000)
    ('its file takes 5,000 bytes of 4,000', 'its predicted time is 5.42 ms of 5')
    """
    if name == "latency_ns":
        return f"its {TITLES[name]} is {taken * 1e-6:.3g} ms of {most * 1e-6:.3g}"
    return f"its {TITLES[name]} takes {taken:,} bytes of {most:,}"


def converted(plan: Plan, dense: DenseModel, target: Target, timed: TimeLimit | None = None) -> dict[str, int]:
    """Bytes of the file and of the arena on the target's board, of the plan's network with fresh weights.

    Args:
        plan: its widths.
        dense: the network they are of.
        target: data type and board.
        timed: a limit on its time, which is then given too, in nanoseconds.
    """
    import torch

    from pretrim.compat.silence import silence
    from pretrim.deploy import arena_on, litert_file
    from pretrim.surgery.apply import apply

    assert target.board is not None  # a microcontroller
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(IMAGES, *dense.input_shape, generator=generator)
    with torch.random.fork_rng(devices=[]), silence():  # what is trained later keeps the weights it would have had
        slim = as_if_trained(apply(dense.module, plan, "fresh", dense.network).eval())
        content = litert_file(slim, images, is_int8=target.int8)
    time = {} if timed is None else {"latency_ns": timed.of(content)}
    return {"artifact_bytes": len(content), "arena_bytes": arena_on(content, target.board).total_bytes, **time}


def as_if_trained(slim: nn.Module) -> nn.Module:
    """The network with other values where all of a tensor are equal, as none are after a training.

    Converters leave out what such values do not change: products with a norm's ones, sums with zeros, a slope for all.
    """
    import torch

    generator = torch.Generator().manual_seed(0)
    trained = [parameter for parameter in slim.parameters() if parameter.requires_grad]
    statistics = [buffer for name, buffer in slim.named_buffers() if "running_" in name]
    with torch.no_grad():
        for tensor in (*trained, *statistics):
            if tensor.is_floating_point() and tensor.numel() and bool((tensor == tensor.flatten()[0]).all()):
                tensor.add_(0.01 * torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype).to(tensor.device))
    return slim


def _again(
    plan: Plan, limits: Mapping[str, int], dense: DenseModel, target: Target, search: Search, reporter: Reporter
) -> Plan:
    """A plan within narrower limits, with those of the first one for the record."""
    from pretrim.planning.budget import Limit

    others = {name: text for name, text in target.limits.items() if Limit.parse(name, text).cost not in limits}
    units = {"latency_ns": "ns"}
    narrower = replace(
        target, limits={**others, **{name: f"{most}{units.get(name, '')}" for name, most in limits.items()}}
    )
    made = plan_network(dense.network, narrower, search, target.costs(dense, reporter), reporter)
    return replace(made, limits=plan.limits, model=plan.model)


def _proved(found: Plan, asked: Plan, real: Mapping[str, int]) -> Plan:
    """With what was really found, beside what was predicted."""
    device: dict[str, Any] = {**(found.device or {}), "converted": dict(real)}
    return replace(found, limits=asked.limits, device=device)
