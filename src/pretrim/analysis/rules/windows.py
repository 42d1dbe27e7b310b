"""Rules for operators that reduce dimensions, slide windows along them, or move pixels to channels and back."""

from __future__ import annotations

import math

import numpy as np

from pretrim.analysis.channels import Ids, Label, Labels

from .call import Call, Rule
from .elementwise import pointwise


def reduction(call: Call) -> list[Labels]:
    """Sum, mean, max and the like: the reduced dimensions are removed, or stay with size 1."""
    if "other" in call.args:  # max(a, b) of two tensors
        return pointwise(call)
    x = call.args["self"]
    dims = call.args.get("dim")
    dims = range(x.dim()) if dims is None or dims == [] else [dims] if isinstance(dims, int) else dims
    reduced = {dim % max(x.dim(), 1) for dim in dims}
    labels = call.look(x)
    for dim in reduced & set(range(len(labels))):
        call.mix(labels[dim])
    kept: list[Label] = []
    for axis, label in enumerate(labels):
        if axis not in reduced:
            kept.append(label)
        elif call.args.get("keepdim", False):
            kept.append(None)
    return [tuple(kept) if out.dim() == len(kept) else (None,) * out.dim() for out in call.outputs]


def window(spatial: int) -> Rule:
    """Pooling, resizing and padding of the last `spatial` dimensions: channels before them pass through."""

    def rule(call: Call) -> list[Labels]:
        x = call.tensor("self") if "self" in call.args else call.tensor("input")
        assert x is not None  # every schema of this rule has one of the two
        labels = call.look(x)
        slid = [_averaged(call, axis, spatial, labels[axis - spatial]) for axis in range(spatial)]
        passed = (*labels[: len(labels) - spatial], *slid)
        return [passed if out.dim() == x.dim() else (None,) * out.dim() for out in call.outputs]

    return rule


def _averaged(call: Call, axis: int, spatial: int, label: Label) -> Label:
    """Spatial dimension number `axis`: freeze its channels, unless a local response norm averages neighbours."""
    if label is None:
        return None
    if call.op not in ("avg_pool2d", "avg_pool3d") or axis or not _is_one_step(call, spatial):
        call.slide(label)
        return None
    call.mix(label)
    kernel = int(call.args["kernel_size"][0])
    middle: Ids = label[kernel // 2 : len(label) - (kernel - 1) // 2]
    return middle


def _is_one_step(call: Call, spatial: int) -> bool:
    """Whether an average is taken at every position of the first dimension, without padding."""
    return call.args.get("stride") in ([1], [1] * spatial) and call.args.get("padding", [0]) in ([0], [0] * spatial)


def max_unpool(spatial: int) -> Rule:
    """Values return to the positions that max pooling took them from: channels of values and indices are tied."""

    def rule(call: Call) -> Labels | list[Labels]:
        for at_dim in zip(call.look(call.args["self"]), call.look(call.args["indices"]), strict=True):
            call.tie(*at_dim)
        return window(spatial)(call)

    return rule


def grid_sample(call: Call) -> Labels:
    labels = call.look(call.args["input"])
    for label in call.look(call.args["grid"]):
        call.freeze(label, f"{call.op} reads positions from it")
    return (*labels[:2], *[None] * (len(labels) - 2))


def pixel_shuffle(call: Call) -> Labels:
    """Each output channel comes from r*r neighbouring input channels: tie them."""
    labels, r = call.look(call.args["self"]), int(call.args["upscale_factor"])
    ids = labels[-3]
    folded = None if ids is None else call.tie_rows(ids.reshape(-1, r * r).T)
    return (*labels[:-3], folded, None, None)


def pixel_unshuffle(call: Call) -> Labels:
    labels, r = call.look(call.args["self"]), int(call.args["downscale_factor"])
    ids = labels[-3]
    return (*labels[:-3], None if ids is None else np.repeat(ids, r * r), None, None)


def channel_shuffle(call: Call) -> Labels:
    labels, groups = list(call.look(call.args["self"])), int(call.args["groups"])
    ids = labels[1]
    if ids is not None:
        call.tie_rows(ids.reshape(groups, -1))
        labels[1] = ids.reshape(groups, -1).T.ravel()
    return tuple(labels)


def im2col(call: Call) -> Labels:
    """Unfold: every channel becomes k*k rows."""
    labels = call.look(call.args["self"])
    ids = labels[-3]
    times = math.prod(call.args["kernel_size"])
    return (*labels[:-3], None if ids is None else np.repeat(ids, times), None)


def col2im(call: Call) -> Labels:
    """Fold: k*k neighbouring rows become one channel; tie them."""
    labels = call.look(call.args["self"])
    ids = labels[-2]
    folded = None if ids is None else call.tie_rows(ids.reshape(-1, math.prod(call.args["kernel_size"])).T)
    return (*labels[:-2], folded, None, None)
