"""Rules for operators that sort, pick or move values along a dimension without channels; the others pass through."""

from __future__ import annotations

import torch

from pretrim.analysis.channels import Label, Labels

from .call import Call, unknown


def along(call: Call) -> list[Labels]:
    """Sorting, cumulative sums, the k largest or the k-th value, along an image's rows or pixels."""
    x = call.args["self"]
    labels = call.look(x)
    dim = int(call.args.get("dim", -1)) % max(x.dim(), 1)
    if labels and labels[dim] is not None:
        return unknown(call)
    return [labels if out.dim() == x.dim() else (*labels[:dim], *labels[dim + 1 :]) for out in call.outputs]


def triangle(call: Call) -> Labels | list[Labels]:
    """Values above or below the diagonal of the last two dimensions are set to zero."""
    labels = call.look(call.args["self"])
    return labels if all(label is None for label in labels[-2:]) else unknown(call)


def unfold(call: Call) -> Labels | list[Labels]:
    """Windows along a dimension; the positions inside each window form a new last dimension."""
    labels = call.look(call.args["self"])
    return unknown(call) if labels[call.args["dimension"]] is not None else (*labels, None)


def index_select(call: Call) -> Labels | list[Labels]:
    labels = call.look(call.args["self"])
    return unknown(call) if labels[call.args["dim"]] is not None else labels


def gather(call: Call) -> Labels | list[Labels]:
    """`gather` and `scatter`: each channel has its own indices, and all tensors have the same channels."""
    x, dim = call.args["self"], call.args["dim"]
    inputs = [(tensor.shape, call.look(tensor)) for tensor in call.tensors()]
    labels: list[Label] = []
    for axis, size in enumerate(x.shape):
        meeting = [at[axis] for _, at in inputs]
        is_picked_from = axis == dim % x.dim()
        if any(label is not None for label in meeting) and (is_picked_from or any(s[axis] != size for s, _ in inputs)):
            return unknown(call)
        labels.append(call.tie(*meeting))
    return tuple(labels)


def index(call: Call) -> Labels | list[Labels]:
    """`x[:, :, rows, columns]`: the dimensions of the indices replace those that they index.

    They come first if the indexed dimensions are not adjacent.
    """
    axes = _indexed(call)
    if axes is None:
        return unknown(call)
    new_dims = [None] * max(call.args["indices"][axis].dim() for axis in axes)
    kept = [label for axis, label in enumerate(call.look(call.args["self"])) if axis not in axes]
    at = axes[0] if axes[-1] - axes[0] == len(axes) - 1 else 0
    return (*kept[:at], *new_dims, *kept[at:])


def index_put(call: Call) -> Labels | list[Labels]:
    """`x[:, :, rows] = 0`: one value for all channels."""
    is_single = call.args["values"].numel() == 1
    return call.look(call.args["self"]) if is_single and _indexed(call) is not None else unknown(call)


def _indexed(call: Call) -> list[int] | None:
    """The indexed dimensions; None if channels are indexed, or used as indices, or an index is a mask."""
    labels = call.look(call.args["self"])
    indices = {axis: index for axis, index in enumerate(call.args["indices"]) if index is not None}
    of_channels = any(labels[axis] is not None for axis in indices)
    by_channels = any(label is not None for index in indices.values() for label in call.look(index))
    by_mask = any(index.dtype in (torch.bool, torch.uint8) for index in indices.values())
    return None if of_channels or by_channels or by_mask or not indices else list(indices)
