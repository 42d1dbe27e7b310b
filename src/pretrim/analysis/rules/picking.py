"""Operators that sort, pick or move values along a dimension: where it holds no channels, the others pass."""

from __future__ import annotations

import torch

from pretrim.analysis.channels import Label, Labels

from .call import Call, unknown


def along(call: Call) -> list[Labels]:
    """Sorting, running sums, the k largest, the k-th of all: of an image's rows or pixels."""
    x = call.args["self"]
    labels = call.look(x)
    dim = int(call.args.get("dim", -1)) % max(x.dim(), 1)
    if labels and labels[dim] is not None:
        return unknown(call)
    return [labels if out.dim() == x.dim() else (*labels[:dim], *labels[dim + 1 :]) for out in call.outputs]


def triangle(call: Call) -> Labels | list[Labels]:
    """What is above or below the diagonal of the last two dimensions is zero."""
    labels = call.look(call.args["self"])
    return labels if all(label is None for label in labels[-2:]) else unknown(call)


def unfold(call: Call) -> Labels | list[Labels]:
    """Windows along a dimension; the places of each are a new last one."""
    labels = call.look(call.args["self"])
    return unknown(call) if labels[call.args["dimension"]] is not None else (*labels, None)


def index_select(call: Call) -> Labels | list[Labels]:
    labels = call.look(call.args["self"])
    return unknown(call) if labels[call.args["dim"]] is not None else labels


def gather(call: Call) -> Labels | list[Labels]:
    """`gather` and `scatter`: each channel has places of its own, in as many channels as there are."""
    x, dim = call.args["self"], call.args["dim"]
    looked = [(tensor.shape, call.look(tensor)) for tensor in call.tensors()]
    labels: list[Label] = []
    for place, size in enumerate(x.shape):
        here = [at[place] for _, at in looked]
        is_picked_from = place == dim % x.dim()
        if any(label is not None for label in here) and (is_picked_from or any(s[place] != size for s, _ in looked)):
            return unknown(call)
        labels.append(call.tie(*here))
    return tuple(labels)


def index(call: Call) -> Labels | list[Labels]:
    """`x[:, :, rows, columns]`: the dimensions of the indices take the place of those that they index, or come first
    where others stand between."""
    places = _indexed(call)
    if places is None:
        return unknown(call)
    made = [None] * max(call.args["indices"][place].dim() for place in places)
    kept = [label for place, label in enumerate(call.look(call.args["self"])) if place not in places]
    at = places[0] if places[-1] - places[0] == len(places) - 1 else 0
    return (*kept[:at], *made, *kept[at:])


def index_put(call: Call) -> Labels | list[Labels]:
    """`x[:, :, rows] = 0`: one value for every channel."""
    is_one = call.args["values"].numel() == 1
    return call.look(call.args["self"]) if is_one and _indexed(call) is not None else unknown(call)


def _indexed(call: Call) -> list[int] | None:
    """The dimensions that are indexed; None where channels are, or by channels, or by a mask."""
    labels = call.look(call.args["self"])
    indices = {place: each for place, each in enumerate(call.args["indices"]) if each is not None}
    of_channels = any(labels[place] is not None for place in indices)
    by_channels = any(label is not None for each in indices.values() for label in call.look(each))
    by_mask = any(each.dtype in (torch.bool, torch.uint8) for each in indices.values())
    return None if of_channels or by_channels or by_mask or not indices else list(indices)
