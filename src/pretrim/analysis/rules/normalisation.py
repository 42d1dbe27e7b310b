"""Rules for norms, softmax and embeddings."""

from __future__ import annotations

import torch

from pretrim.analysis.channels import Label, Labels

from .call import Call


def batch_norm(call: Call) -> list[Labels]:
    """Scale, shift and running statistics are tied to the channels they belong to."""
    x = call.args["input"]
    labels = call.look(x)
    for name in ("weight", "bias", "running_mean", "running_var"):
        tensor = call.tensor(name)
        if tensor is not None:
            call.tie(labels[1], call.look(tensor)[0])
    if call.args.get("training"):  # reduces over the other dimensions: images and pixels, or input channels of a weight
        for label in (labels[0], *labels[2:]):
            call.mix(label)
    return [labels if out.shape == x.shape else _statistic(out, x, labels[1]) for out in call.outputs]


def _statistic(out: torch.Tensor, x: torch.Tensor, label: Label) -> Labels:
    return (label,) if out.shape == x.shape[1:2] else (None,) * out.dim()


def layer_norm(call: Call) -> list[Labels]:
    """The last dimensions are normalised together: their channels are tied to scale and shift."""
    x, shape = call.args["input"], call.args["normalized_shape"]
    labels = call.look(x)
    for axis, size in enumerate(shape):
        label = labels[x.dim() - len(shape) + axis]
        call.mix(label)
        call.follow(size, label)
        for name in ("weight", "bias"):
            tensor = call.tensor(name)
            if tensor is not None:
                call.tie(label, call.look(tensor)[axis])
    statistics = (*labels[: x.dim() - len(shape)], *[None] * len(shape))
    return [labels, *[statistics for _ in call.outputs[1:]]]


def group_norm(call: Call) -> list[Labels]:
    """The number of groups stays, and all are equally wide: channels at the same position of each group are tied."""
    x, groups = call.args["input"], int(call.args["group"])
    labels = call.look(x)
    ids = labels[1]
    for name in ("weight", "bias"):
        tensor = call.tensor(name)
        if tensor is not None:
            call.tie(ids, call.look(tensor)[0])
    if ids is not None and call.hint == "whole":  # `group_norm(x, x.shape[1] // 4)`: whole groups are removed
        first = call.tie_rows(ids.reshape(groups, -1).T)
        return [labels, *[(labels[0], first) for _ in call.outputs[1:]]]
    if ids is not None and groups == len(ids):  # one group per channel, like an instance norm
        call.follow(groups, ids)
        return [labels, *[(labels[0], ids) for _ in call.outputs[1:]]]
    if ids is not None:
        call.tie_rows(ids.reshape(groups, -1))
        call.mix(ids)
    return [labels, *[(labels[0], None) for _ in call.outputs[1:]]]


def renorm(call: Call) -> Labels:
    """Slices whose norm is too large are scaled down: removed channels never increase a norm."""
    return call.look(call.args["self"])


def embedding(call: Call) -> Labels:
    """Rows are picked by their number, so they are frozen; columns are channels."""
    rows, columns = call.look(call.args["weight"])
    call.freeze(rows, "rows are picked by index")
    return (*call.look(call.args["indices"]), columns)


def softmax(call: Call) -> Labels:
    x = call.args["self"]
    labels = call.look(x)
    call.mix(labels[call.args["dim"] % x.dim()])
    return labels
