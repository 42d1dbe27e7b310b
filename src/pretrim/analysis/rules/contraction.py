"""Operators that multiply and add up: convolutions, matrix products, and what is built like them."""

from __future__ import annotations

import numpy as np
import torch

from pretrim.analysis.channels import Label, Labels

from .call import Call


def convolution(call: Call) -> Labels:
    """Filters are new channels; input channels are tied to the weight, across groups where there are several."""
    x, weight, groups = call.args["input"], call.args["weight"], int(call.args["groups"])
    x_labels, w_labels = call.look(x), call.look(weight)
    transposed = bool(call.args["transposed"])
    into = 1 if x.dim() == weight.dim() else 0
    pass_filters = _depthwise if _is_depthwise(x, groups, into) else _grouped
    out_ids = pass_filters(call, x_labels[into], w_labels[0], w_labels[1], groups, transposed)
    bias = call.tensor("bias")
    if bias is not None:
        call.tie(out_ids, call.look(bias)[0])
    out, passed = call.outputs[0], _windows(call, x, x_labels, into)
    window = x if transposed else out
    call.factors = (
        *zip(weight.shape, (*w_labels[:2], *[None] * (weight.dim() - 2)), strict=True),
        *zip(window.shape[:into], x_labels[:into], strict=True),
        *zip(window.shape[into + 1 :], passed, strict=True),
    )
    call.filters, call.weight = w_labels[0] if out_ids is None and not transposed else out_ids, weight
    return (*x_labels[:into], out_ids, *passed)


def _is_depthwise(x: torch.Tensor, groups: int, into: int) -> bool:
    return groups > 1 and groups == x.shape[into]


def _depthwise(call: Call, x: Label, w0: Label, w1: Label, groups: int, transposed: bool) -> Label:
    """One group a channel: the channel, its filters and the integer `groups` go together."""
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
    """Every group keeps the same places: input channels are tied across groups, and so are filters."""
    if transposed:
        call.tie(x, w0)
        if w0 is not None and groups > 1:
            call.tie_rows(w0.reshape(groups, -1))
        return w1 if w1 is None else np.tile(w1, groups)
    call.tie(x if x is None else call.tie_rows(x.reshape(groups, -1)), w1)
    if w0 is not None and groups > 1:
        call.tie_rows(w0.reshape(groups, -1))
    return w0


def _windows(call: Call, x: torch.Tensor, labels: Labels, into: int) -> Labels:
    """Spatial dimensions hold no channels, but for attention that slides along the channels (ECA)."""
    out: list[Label] = []
    for place in range(into + 1, x.dim()):
        label = labels[place]
        if label is not None and call.outputs[0].shape[place] == x.shape[place]:
            call.mix(label)
        elif label is not None:
            call.slide(label)
            label = None
        out.append(label)
    return tuple(out)


def matrix_product(call: Call) -> Labels:
    """`mm`, `bmm`, `addmm`, `baddbmm`, `mv`: the contracted dimension is tied, the others pass."""
    left = call.tensor("mat1") if "mat1" in call.args else call.tensor("batch1")
    right = call.tensor("mat2") if "mat2" in call.args else call.tensor("batch2")
    left = call.args["self"] if left is None else left
    right = call.args["vec"] if right is None else right
    assert left is not None and right is not None  # every schema of this rule names both
    a, b = call.look(left), call.look(right)
    at = 1 if right.dim() == 3 else 0
    call.tie(a[-1], b[at])
    batch = (call.tie(a[0], b[0]),) if at else ()
    columns = (b[-1],) if right.dim() > 1 else ()
    labels = (*batch, a[-2], *columns)
    if call.op in ("addmm", "baddbmm"):
        added = call.args["self"]
        for place, label in enumerate(call.look(added)[::-1], start=1):
            if added.shape[-place] == call.outputs[0].shape[-place]:
                call.tie(labels[-place], label)
    call.factors = (*zip(call.outputs[0].shape, labels, strict=True), (left.shape[-1], a[-1]))
    call.filters, call.weight = columns[0] if columns else None, right
    return labels


def inner_product(call: Call) -> Labels:
    """`dot`, `vdot`: both vectors are contracted."""
    tensors = list(call.tensors())
    call.mix(call.tie(*(call.look(tensor)[0] for tensor in tensors)))
    return ()


def distances(call: Call) -> Labels:
    """Between all rows of one matrix and of another: their columns are tied, and add nothing where they are gone."""
    out, pair = call.outputs[0], [(t, call.look(t)) for t in (call.args["x1"], call.args["x2"])]
    call.tie(*(labels[-1] for _, labels in pair))
    lead = [
        call.tie(*(labels[at] for t, labels in pair if t.dim() >= -at and t.shape[at] == out.shape[at]))
        for at in range(-out.dim(), -2)
    ]
    return (*lead, *(labels[-2] for _, labels in pair))


def weight_norm(call: Call) -> list[Labels]:
    """A weight as direction times length (Salimans, Kingma 2016): the lengths go with the direction's dimension."""
    v, g = call.args["v"], call.args["g"]
    labels = call.look(v)
    for place, size in enumerate(g.shape):
        if size > 1:
            call.tie(labels[place], call.look(g)[place])
    return [labels if out.shape == v.shape else call.look(g) for out in call.outputs]
