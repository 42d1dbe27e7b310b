"""Rules for elementwise operators, and for those that create new tensors."""

from __future__ import annotations

import torch

from pretrim.analysis.channels import Label, Labels

from .call import Call
from .operators import RAMPS


def pointwise(call: Call) -> list[Labels]:
    """Broadcast the inputs: aligned channels are tied; a dimension of size 1 is aligned with nothing."""
    shape = call.outputs[0].shape if call.outputs else torch.Size()
    labels = _broadcast(call, shape)
    return [labels if out.shape == shape else (None,) * out.dim() for out in call.outputs]


def _broadcast(call: Call, shape: torch.Size) -> Labels:
    """Labels of an elementwise result, in the shape that the inputs are broadcast to."""
    inputs = [(tensor.shape, call.look(tensor)) for tensor in call.tensors()]
    labels: list[Label] = []
    for axis in range(-len(shape), 0):
        aligned = [
            input_labels[axis] for size, input_labels in inputs if len(size) >= -axis and size[axis] == shape[axis]
        ]
        labels.append(call.tie(*aligned) if shape[axis] > 1 else next(filter(lambda i: i is not None, aligned), None))
    return tuple(labels)


def loss(call: Call) -> Labels:
    """Two tensors are compared element by element, and usually reduced to one number."""
    shape = torch.broadcast_shapes(*(tensor.shape for tensor in call.tensors()))  # type: ignore[no-untyped-call]
    labels = _broadcast(call, shape)
    if call.outputs[0].dim() == len(labels):
        return labels
    for label in labels:
        call.mix(label)
    return ()


def factory(call: Call) -> Labels:
    """A newly created tensor: its sizes may follow the widths, so each dimension gets new channels."""
    out = call.outputs[0]
    labels = tuple(call.channels.new(size) if size > 1 else None for size in out.shape)
    for value, ids in zip(out.shape, labels, strict=True):
        if call.op in RAMPS:
            call.freeze(ids, f"{call.op} makes values whose meaning depends on their position")
            continue
        call.follow(value, ids)
    call.follow_reads(call.sizes_read(out.shape), labels)
    return labels


def glu(call: Call) -> Labels:
    """Half of the channels gates the other half, so the halves are tied."""
    x = call.args["self"]
    labels, dim = list(call.look(x)), int(call.args.get("dim", -1)) % x.dim()
    ids = labels[dim]
    if ids is not None:
        labels[dim] = call.tie_rows(ids.reshape(2, -1))
    return tuple(labels)
