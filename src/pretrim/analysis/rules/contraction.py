"""Rules for operators that multiply and sum: convolutions, matrix products, and similar ones."""

from __future__ import annotations

import numpy as np
import torch

from pretrim.analysis.channels import Label, Labels

from .call import Call


def convolution(call: Call) -> Labels:
    """Filters become the output channels; input channels are tied to the weight, and across groups if there are any."""
    x, weight, groups = call.args["input"], call.args["weight"], int(call.args["groups"])
    x_labels, w_labels = call.look(x), call.look(weight)
    transposed = bool(call.args["transposed"])
    channel_dim = 1 if x.dim() == weight.dim() else 0
    pass_filters = _depthwise if _is_depthwise(x, groups, channel_dim) else _grouped
    out_ids = pass_filters(call, x_labels[channel_dim], w_labels[0], w_labels[1], groups, transposed)
    bias = call.tensor("bias")
    if bias is not None:
        call.tie(out_ids, call.look(bias)[0])
    out, passed = call.outputs[0], _windows(call, x, x_labels, channel_dim)
    window = x if transposed else out
    call.factors = (
        *zip(weight.shape, (*w_labels[:2], *[None] * (weight.dim() - 2)), strict=True),
        *zip(window.shape[:channel_dim], x_labels[:channel_dim], strict=True),
        *zip(window.shape[channel_dim + 1 :], passed, strict=True),
    )
    call.filters, call.weight = w_labels[0] if out_ids is None and not transposed else out_ids, weight
    return (*x_labels[:channel_dim], out_ids, *passed)


def _is_depthwise(x: torch.Tensor, groups: int, channel_dim: int) -> bool:
    return groups > 1 and groups == x.shape[channel_dim]


def _depthwise(call: Call, x: Label, w0: Label, w1: Label, groups: int, transposed: bool) -> Label:
    """One group per channel: the channel is tied to its filters, and the integer `groups` follows."""
    outputs = call.args["weight"].shape[1] * groups if transposed else call.args["weight"].shape[0]
    call.follow(groups, x)
    if transposed:
        call.tie(x, w0)
        return None if x is None else np.repeat(x, outputs // groups)
    if x is None or w0 is None:
        return call.tie(x, w0)
    repeated = np.repeat(x, outputs // groups)
    call.tie(repeated, w0)
    return repeated


def _grouped(call: Call, x: Label, w0: Label, w1: Label, groups: int, transposed: bool) -> Label:
    """Every group keeps the same positions: input channels are tied across groups, and so are filters."""
    if transposed:
        call.tie(x, w0)
        if w0 is not None and groups > 1:
            call.tie_rows(w0.reshape(groups, -1))
        return w1 if w1 is None else np.tile(w1, groups)
    call.tie(x if x is None else call.tie_rows(x.reshape(groups, -1)), w1)
    if w0 is not None and groups > 1:
        call.tie_rows(w0.reshape(groups, -1))
    return w0


def _windows(call: Call, x: torch.Tensor, labels: Labels, channel_dim: int) -> Labels:
    """Spatial dimensions hold no channels, except in attention that slides along the channels (ECA)."""
    out: list[Label] = []
    for axis in range(channel_dim + 1, x.dim()):
        label = labels[axis]
        if label is not None and call.outputs[0].shape[axis] == x.shape[axis]:
            call.mix(label)
        elif label is not None:
            call.slide(label)
            label = None
        out.append(label)
    return tuple(out)


def matrix_product(call: Call) -> Labels:
    """`mm`, `bmm`, `addmm`, `baddbmm`, `mv`: the contracted dimension is tied, the others pass through."""
    left = call.tensor("mat1") if "mat1" in call.args else call.tensor("batch1")
    right = call.tensor("mat2") if "mat2" in call.args else call.tensor("batch2")
    left = call.args["self"] if left is None else left
    right = call.args["vec"] if right is None else right
    assert left is not None and right is not None  # every schema of this rule names both
    a, b = call.look(left), call.look(right)
    contracted = 1 if right.dim() == 3 else 0
    call.tie(a[-1], b[contracted])
    batch = (call.tie(a[0], b[0]),) if contracted else ()
    columns = (b[-1],) if right.dim() > 1 else ()
    labels = (*batch, a[-2], *columns)
    if call.op in ("addmm", "baddbmm"):
        added = call.args["self"]
        for axis, label in enumerate(call.look(added)[::-1], start=1):
            if added.shape[-axis] == call.outputs[0].shape[-axis]:
                call.tie(labels[-axis], label)
    call.factors = (*zip(call.outputs[0].shape, labels, strict=True), (left.shape[-1], a[-1]))
    call.filters, call.weight = columns[0] if columns else None, right
    return labels


def inner_product(call: Call) -> Labels:
    """`dot`, `vdot`: both vectors are contracted."""
    tensors = list(call.tensors())
    call.mix(call.tie(*(call.look(tensor)[0] for tensor in tensors)))
    return ()


def distances(call: Call) -> Labels:
    """Distances between all rows of two matrices: their columns are tied, and removed ones contribute nothing."""
    out, pair = call.outputs[0], [(t, call.look(t)) for t in (call.args["x1"], call.args["x2"])]
    call.tie(*(labels[-1] for _, labels in pair))
    lead = [
        call.tie(*(labels[at] for t, labels in pair if t.dim() >= -at and t.shape[at] == out.shape[at]))
        for at in range(-out.dim(), -2)
    ]
    return (*lead, *(labels[-2] for _, labels in pair))


def weight_norm(call: Call) -> list[Labels]:
    """A weight as direction times length (Salimans, Kingma 2016): lengths are tied to the direction's dimension."""
    v, g = call.args["v"], call.args["g"]
    labels = call.look(v)
    for axis, size in enumerate(g.shape):
        if size > 1:
            call.tie(labels[axis], call.look(g)[axis])
    return [labels if out.shape == v.shape else call.look(g) for out in call.outputs]
