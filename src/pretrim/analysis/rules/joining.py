"""Rules for operators that join or split tensors, or move their entries along a dimension."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
import torch

from pretrim.analysis.channels import Ids, Label, Labels

from .call import Call


def cat(call: Call) -> Labels:
    """Concatenate the channels along one dimension and tie them along the others."""
    parts = [t for t in call.args["tensors"] if t.dim() > 1 or t.numel()]
    dim = call.args.get("dim", 0) % call.outputs[0].dim()
    part_labels = [call.look(part) for part in parts]
    labels: list[Label] = []
    for axis in range(call.outputs[0].dim()):
        at_dim = [at[axis] for at in part_labels]
        labels.append(_join(call, parts, at_dim, dim) if axis == dim else call.tie(*at_dim))
    return tuple(labels)


def _join(call: Call, parts: Sequence[torch.Tensor], labels: Sequence[Label], dim: int) -> Label:
    if all(label is None for label in labels):
        return None
    ids = [
        call.channels.new(part.shape[dim]) if label is None else label
        for part, label in zip(parts, labels, strict=True)
    ]
    for label, part_ids in zip(labels, ids, strict=True):
        if label is None:
            call.freeze(part_ids, "a tensor of fixed size in a concatenation")
    return np.concatenate(ids)


def stack(call: Call) -> Labels:
    parts = call.args["tensors"]
    labels = [call.tie(*at_dim) for at_dim in zip(*(call.look(part) for part in parts), strict=True)]
    labels.insert(call.args.get("dim", 0) % call.outputs[0].dim(), None)
    return tuple(labels)


def split(call: Call) -> list[Labels]:
    """`split` and `chunk` into equal parts, which are tied: a chunk in two looks the same as parts of eight channels.

    If the last part is smaller, its channels are tied only to the first ones of the other parts: it stays smaller, and
    both `split` and `chunk` make as many parts of a narrower tensor.
    """
    x = call.args["self"]
    dim = call.args.get("dim", 0) % x.dim()
    ids = call.look(x)[dim]
    if ids is None:
        return [call.look(x) for _ in call.outputs]
    sizes = [out.shape[dim] for out in call.outputs]
    if len(sizes) > 1:
        equal = ids[: sizes[0] * (len(sizes) - 1)]
        call.tie_rows(equal.reshape(-1, sizes[0]))
        call.channels.tie(ids[: sizes[-1]], ids[len(equal) :])
    if call.hint == "whole":  # `split(self.width // 2)`
        call.follow(x.shape[dim], ids)
        return _parts(call, x, dim, ids, sizes, follow=())
    return _parts(call, x, dim, ids, sizes, follow=sizes[:1])


def split_with_sizes(call: Call) -> list[Labels]:
    x, sizes = call.args["self"], list(call.args["split_sizes"])
    dim = call.args.get("dim", 0) % x.dim()
    ids = call.look(x)[dim]
    if ids is None:
        return [call.look(x) for _ in call.outputs]
    if call.hint in ("tie", "whole") and len(set(sizes)) == 1:
        call.tie_rows(ids.reshape(len(sizes), -1))
        if call.hint == "whole":
            call.follow(x.shape[dim], ids)
            return _parts(call, x, dim, ids, sizes, follow=())
    if call.hint in WITH_REST:  # `[self.part, self.dim - self.part]`
        call.follow(x.shape[dim], ids)
        return _parts(call, x, dim, ids, sizes, follow=sizes[:-1])
    return _parts(call, x, dim, ids, sizes, follow=sizes)


WITH_REST = ("rest", "share rest")


def _parts(
    call: Call, x: torch.Tensor, dim: int, ids: Ids, sizes: Sequence[int], follow: Sequence[int]
) -> list[Labels]:
    labels = call.look(x)
    pieces = np.split(ids, np.cumsum(sizes)[:-1])
    call.follow_reads(call.sizes_read(sizes), pieces)
    for size, piece in zip(follow, pieces, strict=False):
        call.follow(size, piece)
    return [(*labels[:dim], piece, *labels[dim + 1 :]) for piece in pieces]


def take_slice(call: Call) -> Labels:
    """`x[:, a:b]`: the ids in the slice; both ends have to follow the widths."""
    x = call.args["self"]
    dim = call.args.get("dim", 0) % x.dim()
    labels, size = list(call.look(x)), x.shape[dim]
    ids = labels[dim]
    if ids is None:
        return tuple(labels)
    start, end, step = slice(call.args.get("start"), call.args.get("end"), call.args.get("step", 1)).indices(size)
    labels[dim] = ids[start:end:step]
    if 1 < step < size and size % step == 0 and start < step and end == size:  # `x[:, ::2]`: neighbours are tied
        call.tie_rows(ids.reshape(-1, step).T)
        return tuple(labels)
    if step != 1:
        call.freeze(ids, "sliced with a step")
    call.tell("start", ids[:start])
    if call.hint == "tie" and start == size - end:  # a slice from the middle
        call.tie(ids[:start], ids[end:])
    elif call.hint in ("tie", "whole") and size % 2 == 0 and size // 2 in (start, end):
        call.tie_rows(ids.reshape(2, -1))
        if call.hint == "whole":  # `x[:, : self.width // 2]`
            call.follow(size, ids)
            return tuple(labels)
    call.follow_reads(call.sizes_read([start, end]), [ids[:start], ids[:end]])
    if start > 0:
        call.follow(int(call.args["start"]), ids[:start] if call.args["start"] > 0 else ids[start:])
    if end < size and call.args.get("end") not in (None, sys.maxsize):
        call.follow(int(call.args["end"]), ids[:end] if call.args["end"] > 0 else ids[end:])
    return tuple(labels)


def select(call: Call) -> Labels:
    """`x[:, i]`: the dimension is removed, and its channels are frozen because one is picked by its number."""
    x = call.args["self"]
    dim = call.args["dim"] % x.dim()
    labels = call.look(x)
    call.freeze(labels[dim], "one channel is picked by index")
    return (*labels[:dim], *labels[dim + 1 :])


def unbind(call: Call) -> list[Labels]:
    x = call.args["self"]
    dim = call.args.get("dim", 0) % x.dim()
    labels = call.look(x)
    call.freeze(labels[dim], "every channel is taken by index")
    return [(*labels[:dim], *labels[dim + 1 :]) for _ in call.outputs]


def pad(call: Call) -> Labels:
    """Zeros padded to channels are channels too: they can be removed if the padding's integers can be retargeted."""
    x, pads = call.args["self"], list(call.args["pad"])
    labels = list(call.look(x))
    for index in range(len(pads) // 2):
        before, after = pads[2 * index], pads[2 * index + 1]
        axis = x.dim() - 1 - index
        ids = labels[axis]
        if ids is None or before == after == 0:
            continue
        if min(before, after) < 0:
            call.freeze(ids, "cropped by a padding below zero")
            ids = ids[max(-before, 0) : len(ids) - max(-after, 0)]
        head, tail = call.channels.new(max(before, 0)), call.channels.new(max(after, 0))
        if before > 0:
            call.tell(f"pad {2 * index}", head)
        if call.hint == "tie" and before == after:
            call.tie(head, tail)
        for value, padding_ids in ((before, head), (after, tail)):
            if value > 0:
                call.follow(value, padding_ids)
        labels[axis] = np.concatenate([head, ids, tail])
    return tuple(labels)


def roll(call: Call) -> Labels:
    x = call.args["self"]
    labels = list(call.look(x))
    for dim in call.args.get("dims") or range(x.dim()):
        call.freeze(labels[dim], "rolled by a fixed number of positions")
        labels[dim] = None
    return tuple(labels)


def flip(call: Call) -> Labels:
    x = call.args["self"]
    labels = list(call.look(x))
    for dim in call.args["dims"]:
        ids = labels[dim]
        labels[dim] = None if ids is None else ids[::-1]
    return tuple(labels)
