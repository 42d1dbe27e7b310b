"""Apply a plan: build a module of the same classes, with every parameter and buffer cut, and check it."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pretrim.analysis.analyze import analyze, follow, parameter_labels
from pretrim.analysis.channels import Channels
from pretrim.analysis.copies import Example, clone_module, named_tensors
from pretrim.analysis.identity import fingerprint, make_example
from pretrim.analysis.narrower import Mismatch, check_narrow
from pretrim.analysis.network import IntArray, Network
from pretrim.analysis.observer import Stage, stage
from pretrim.analysis.stored_integers import retarget_modules
from pretrim.analysis.trace import Learnt, trace
from pretrim.analysis.unused import unused_operations
from pretrim.cost.costs import cost
from pretrim.errors import ModelError, PlanError, UsageError, check_is, shown
from pretrim.planning.plan import Plan

from .fresh import fan_factors, filter_dimensions

Init: TypeAlias = Literal["fresh", "inherit"]
KeptMask: TypeAlias = NDArray[np.bool_]
"""Whether each channel of a network is kept, by channel id."""


def apply(model: nn.Module, plan: Plan, init: str = "fresh", network: Network | None = None) -> nn.Module:
    """Build the slim network of a plan. The model itself is not changed.

    Args:
        model: the dense network that the plan was made for.
        plan: the number of channels that each group keeps.
        init: ``"fresh"``: the values of the (untrained) model, with the weights of cut convolutions and linear
            layers rescaled by the fan ratio of their initialisation, so that training starts with the variances of
            the dense network. ``"inherit"``: the values of a trained model; the channels with the largest L1 norm stay.
        network: the analysis of the model that the plan was made from; without it, the model is analysed again.

    Returns:
        A new module of the same classes in the same train or eval mode, which carries its plan (:func:`plan_of`).

    Raises:
        PlanError: the plan is for another model.
        UsageError: an argument has the wrong type, or `init` is unknown.
        ModelError: the slim network does not behave as planned; a broken network is never returned.
    """
    check_is(model, nn.Module, "model to be a torch.nn.Module")
    check_is(plan, Plan, "plan to be a Plan, as pretrim.plan makes it")
    check_is(network, Network | None, "network to be None, or what pretrim.analyze(model, example) found")
    if not isinstance(init, str) or init not in get_args(Init):
        raise UsageError(f"Expected init to be one of {', '.join(get_args(Init))}, but got {shown(init)}.")
    if plan.fingerprint != fingerprint(model):
        raise PlanError(
            "Expected the model that the plan was made for, but its parameters have other names or shapes: "
            "make a plan for this model, or give the model of the plan."
        )
    if network is None or (plan.tried and network.tried != plan.tried):
        network = analyze(model, zeros_like_example(model, plan), plan.tried)
    if not _has_groups_of(plan, network):
        raise PlanError("Expected a plan for this network's channel groups, but its groups differ: make it again.")
    try:
        slim = _build(model, plan, init, network)
    except NotFollowed as error:
        learnt = follow(model, zeros_like_example(model, plan), network, plan.widths)
        if learnt is network:
            raise
        if not _has_groups_of(plan, learnt):
            raise PlanError(
                f"The analysis took a number in forward for one that follows every width ({error.difference}), and "
                f"knows better now: make the plan again, of pretrim.analyze(model, example, "
                f"tried={list(learnt.tried)})."
            ) from error
        slim = _build(model, plan, init, learnt)
    slim.__dict__["pretrim_plan"] = plan
    return slim


class NotFollowed(ModelError):
    """A slim network behaves differently from what its analysis says."""

    def __init__(self, difference: str) -> None:
        super().__init__(f"Expected the slim network to follow its plan, but {difference}: please report it.")
        self.difference = difference


def _has_groups_of(plan: Plan, network: Network) -> bool:
    """Whether a network has the channel groups that a plan was made for."""
    return [(g.name, g.channels) for g in network.groups] == [(g.name, g.channels) for g in plan.groups]


def _build(model: nn.Module, plan: Plan, init: str, network: Network) -> nn.Module:
    """Cut the slim network out of the model and check it."""
    keep = kept_channels(network, plan.widths, score(model, network) if init == "inherit" else None)
    slim = cut(model, network, plan.widths, keep, rescale=init == "fresh")
    try:
        check(slim, network, plan)
    except RuntimeError as error:
        if plan.example == network.example:
            raise
        raise PlanError(
            f"Expected a plan for inputs that the model takes, but it fails on the plan's: {error}"
        ) from error
    return slim


def plan_of(slim: nn.Module) -> Plan:
    """The plan that a slim network was built from. Raises UsageError for a network that carries none."""
    check_is(slim, nn.Module, "slim to be a torch.nn.Module, as pretrim.apply builds it")
    plan = slim.__dict__.get("pretrim_plan")
    if not isinstance(plan, Plan):
        raise UsageError(
            "Expected a slim network made by pretrim, but got a module without a plan: apply a plan first."
        )
    return plan


def kept_channels(network: Network, widths: IntArray, scores: NDArray[np.float64] | None = None) -> KeptMask:
    """Choose the channels that stay: the first ones of each group, or those with the highest scores.

    Before training, all channels of a group are equally good.

    Args:
        network: the analysed network.
        widths: number of channels that each group keeps (G).
        scores: score of every channel id; None: the first channels of each group stay.
    """
    if scores is None:
        return network.rank_of < widths[network.group_of]
    order = np.lexsort((network.rank_of, -scores, network.group_of))
    rank = np.empty(len(order), dtype=np.int64)
    starts = np.concatenate([[0], np.cumsum(network.dense)])
    rank[order] = np.arange(len(order)) - starts[network.group_of[order]]
    kept: KeptMask = rank < widths[network.group_of]
    return kept


def score(model: nn.Module, network: Network) -> NDArray[np.float64]:
    """L1 norm of each channel's filters, summed over coupled layers, by channel id (Li et al. 2017, section 3.1)."""
    values = dict(model.named_parameters())
    scores = np.zeros(len(network.group_of))
    for parameter, dim in filter_dimensions(network):
        weight = values[parameter.name].detach().abs().double()
        norms = weight.sum([d for d in range(weight.dim()) if d != dim]).cpu().numpy()
        channels = network.members[parameter.dims[dim]]
        np.add.at(scores, channels[channels >= 0], norms[channels >= 0])
    return scores


def cut(model: nn.Module, network: Network, widths: IntArray, kept_mask: KeptMask, *, rescale: bool) -> nn.Module:
    """Copy the model with only the kept channels in every parameter and buffer.

    Args:
        model: the dense model, which is not changed.
        network: the analysed network.
        widths: number of channels that each group keeps (G).
        kept_mask: whether each channel id stays.
        rescale: whether weights are scaled up to make up for the smaller fan (`fan_factors`).
    """
    parameters = {parameter.name: parameter for parameter in network.parameters}
    factors = fan_factors(model, network, widths) if rescale else {}
    kept = np.append(kept_mask, True)  # channel -1 marks an index that belongs to no channel: it stays

    def narrow(name: str, tensor: torch.Tensor) -> torch.Tensor:
        """Cut one parameter or buffer; keeps the memory format."""
        new = tensor.detach()
        for dim, row in enumerate(parameters[name].dims):
            members = network.members[row]
            if members.size and not kept[members].all():
                index = torch.from_numpy(np.flatnonzero(kept[members])).to(new.device)
                new = new.index_select(dim, index)
        new = new * factors[name] if name in factors else new.clone()
        if tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last):
            new = new.contiguous(memory_format=torch.channels_last)
        return nn.Parameter(new, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else new

    slim = clone_module(model, narrow)
    retarget_modules(slim, model, network, widths)
    return slim


def check(slim: nn.Module, network: Network, plan: Plan) -> None:
    """Check a slim network by running it on meta tensors.

    The shapes of every operator and the number of parameters must be as planned.

    Args:
        slim: the cut model.
        network: the analysis of the dense model.
        plan: the plan of the slim network.

    Raises:
        ModelError: a shape or the number of parameters differs.
    """
    run = stage(slim, zeros_like_example(slim, plan), real=any("real tensors" in note for note in network.notes))
    try:
        check_narrow(run, network.operators, network.sizes(plan.widths))
    except Mismatch as mismatch:
        # A dimension of size 1 is contiguous either way, so torch may run a view instead of a copy, and it may multiply
        # elementwise instead of computing a product over one channel: then the counts decide.
        if not (mismatch.other_operator and _counts_as_planned(run, network, plan)):
            raise NotFollowed(str(mismatch)) from None
    counted = sum(parameter.numel() for parameter in slim.parameters())
    if counted != int(cost(network, "params")(plan.widths)):
        raise ModelError(f"Expected {plan.slim['params']:,} parameters, but counted {counted:,}: please report it.")


def zeros_like_example(model: nn.Module, plan: Plan) -> Example:
    """Inputs of zeros with the plan's shapes and data types, on the model's device."""
    with next((tensor.device for _, tensor in named_tensors(model)), torch.device("cpu")):
        example: Example = make_example(plan.example)
        return example


def _counts_as_planned(run: Stage, network: Network, plan: Plan) -> bool:
    """Whether the slim network's own trace has the planned output shapes and multiply-accumulates.

    With groups of one channel, the trace may have fewer multiply-accumulates than planned: torch may compute a product
    over one channel elementwise (einsum), which is planned but not counted.
    """
    channels = Channels()
    labels = {name: parameter_labels(tensor, channels) for name, tensor in named_tensors(run.model)}
    slim_trace = trace(run, channels, labels, Learnt())
    unused = unused_operations(slim_trace) if run.meta is not None else frozenset()
    operations = [operation for number, operation in enumerate(slim_trace.operations) if number not in unused]
    macs = sum(math.prod(size for size, _ in operation.factors) for operation in operations if operation.factors)
    planned = int(cost(network, "macs")(plan.widths))
    same = macs == planned or (macs < planned and bool((plan.widths == 1).any()))
    return same and slim_trace.output_shapes == list(network.output_shapes)
