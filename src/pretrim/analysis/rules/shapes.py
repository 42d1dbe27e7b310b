"""Rules for operators that give the same entries another shape."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from pretrim.analysis.channels import Ids, Label, Labels
from pretrim.analysis.sizes_read import Width

from .call import Call, unknown

# Maximum number of entries in a block of a reshape whose indices are followed one by one (64 MB of ids).
LARGEST_RESHAPE = 8_000_000


def permute(call: Call) -> Labels:
    labels = call.look(call.args["self"])
    return tuple(labels[dim] for dim in call.args["dims"])


def transpose(call: Call) -> Labels:
    labels = list(call.look(call.args["self"]))
    a, b = (0, -1) if call.op == "t" else (call.args["dim0"], call.args["dim1"])
    if labels:
        labels[a], labels[b] = labels[b], labels[a]
    return tuple(labels)


def unsqueeze(call: Call) -> Labels:
    labels = list(call.look(call.args["self"]))
    labels.insert(call.args["dim"] % (len(labels) + 1), None)
    return tuple(labels)


def squeeze(call: Call) -> Labels | list[Labels]:
    """Dimensions of size 1 are removed. In place, they are gone already, and only their number is known."""
    x, dims = call.args["self"], call.args.get("dim")
    labels = call.look(x)
    dims = range(len(labels)) if dims is None else [dims] if isinstance(dims, int) else dims
    removed = {dim % max(len(labels), 1) for dim in dims}
    if x.dim() == len(labels):
        removed = {dim for dim in removed if x.shape[dim] == 1}
    elif len(removed) != len(labels) - x.dim():
        return unknown(call)
    return tuple(label for axis, label in enumerate(labels) if axis not in removed)


def expand(call: Call) -> Labels:
    """An expanded dimension of size 1 gets new channels: its size may follow the widths."""
    x, out = call.args["self"], call.outputs[0]
    extra = out.dim() - x.dim()
    labels: list[Label] = [*[None] * extra, *call.look(x)]
    for axis, size in enumerate(out.shape):
        if size > 1 and (axis < extra or x.shape[axis - extra] == 1):
            labels[axis] = call.channels.new(size)
        if call.args["size"][axis] != -1:
            call.follow(size, labels[axis])
    call.follow_reads(call.sizes_read(call.args["size"]), labels)
    return tuple(labels)


def as_strided(call: Call) -> list[Labels]:
    """New strides for the same shape (pooling does this for channels-last tensors); other shapes are not followed."""
    x = call.args["self"]
    return [call.look(x)] if call.outputs[0].shape == x.shape else unknown(call)


def repeat(call: Call) -> Labels:
    """Channels are copied; a repeated dimension of size 1 gets new channels, as in `expand`."""
    x, repeats = call.args["self"], list(call.args["repeats"])
    extra = len(repeats) - x.dim()
    sizes, old_labels = [1] * extra + list(x.shape), [None] * extra + list(call.look(x))
    new_labels = [
        call.channels.new(times) if size == 1 < times else None for size, times in zip(sizes, repeats, strict=True)
    ]
    for times, label in zip(repeats, new_labels, strict=True):
        call.follow(times, label)
    call.follow_reads(call.sizes_read(repeats), new_labels)
    copied = [
        None if label is None else np.tile(label, times) for label, times in zip(old_labels, repeats, strict=True)
    ]
    return tuple(new if new is not None else old for new, old in zip(new_labels, copied, strict=True))


def view(call: Call) -> Labels:
    """Reshape: dimensions are matched in blocks of equal size, and channels are followed within each block."""
    x, out = call.args["self"], call.outputs[0]
    labels: list[Label] = [None] * out.dim()
    sizes = call.args.get("size", out.shape)
    widths = call.sizes_read(sizes)
    for ins, outs in blocks(x.shape, out.shape):
        block = [(x.shape[axis], call.look(x)[axis]) for axis in ins]
        is_unflattened = len(ins) == 1 and len(outs) >= 3 and outs == list(range(1, out.dim()))
        read_from_tensor = [index for index, axis in enumerate(outs) if widths[axis] is not None]
        first = read_from_tensor[0] if len(read_from_tensor) == 1 else 0 if is_unflattened or call.is_first else None
        carried = _carry(call, block, [out.shape[axis] for axis in outs], first)
        if len(ins) == 1 and len(outs) == 2 and first is None and min(out.shape[axis] for axis in outs) > 1:
            call.readings.extend(label for label in carried if label is not None)
        for axis, label in zip(outs, carried, strict=True):
            labels[axis] = label
    call.follow_reads([None if is_own(w, ids) else w for w, ids in zip(widths, labels, strict=True)], labels)
    for axis, (value, label) in enumerate(zip(sizes, labels, strict=True)):
        if value != -1 and out.shape[axis] > 1:
            call.follow(value, label)
    return tuple(labels)


def is_own(width: Width | None, label: Label) -> bool:
    """Whether a width was read from the same channels, so that a reshape of them needs no tie."""
    return width is not None and label is not None and bool(np.isin(label, width.ids).all())


def blocks(ins: Sequence[int], outs: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Cut two shapes of equal product into the smallest runs of dimensions with equal products.

    >>> blocks([2, 8, 5, 5], [2, 4, 2, 25])
    [([0], [0]), ([1], [1, 2]), ([2, 3], [3])]
    """
    result: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(ins) or j < len(outs):
        a, b = ([i], ins[i]) if i < len(ins) else ([], 1), ([j], outs[j]) if j < len(outs) else ([], 1)
        (left, p), (right, q) = a, b
        i, j = i + len(left), j + len(right)
        while p != q:
            if p < q:
                left.append(i)
                p, i = p * ins[i], i + 1
            else:
                right.append(j)
                q, j = q * outs[j], j + 1
        result.append((left, right))
    return result


def _carry(call: Call, ins: list[tuple[int, Label]], outs: list[int], first: int | None = None) -> list[Label]:
    """Decide which output dimension of one block carries the channels of its input dimensions.

    `first` is the index of the preferred dimension: one whose size was read from channels, or the first one where
    features become a whole image (C x H x W, in a generator).
    """
    result: list[Label] = [None] * len(outs)
    labelled = [axis for axis, (size, label) in enumerate(ins) if label is not None and size > 1]
    if len(ins) == len(outs) == 1:
        return [ins[0][1]]
    if not labelled or math.prod(outs) == 0:
        return result
    if math.prod(outs) > LARGEST_RESHAPE:
        for axis in labelled:
            call.freeze(ins[axis][1], f"{call.op} has too many entries to follow")
        return result
    if len(labelled) > 1:
        ins = _with_one_label(call, ins, labelled)
    flat = _flatten(ins).reshape(outs)
    wide = [axis for axis, size in enumerate(outs) if size > 1]
    carrier = next((axis for axis in reversed(wide) if _varies_only_along(flat, axis)), None)
    if carrier is None:
        likely = [axis for axis in wide if axis == first]
        carrier = _carrier_by_hint([axis for axis in wide if axis != first] + likely, call.hint)
    rows = np.moveaxis(flat, carrier, -1).reshape(-1, outs[carrier])
    result[carrier] = call.tie_rows(rows) if not (rows == rows[0]).all() else rows[0]
    return result


def _with_one_label(call: Call, ins: list[tuple[int, Label]], labelled: list[int]) -> list[tuple[int, Label]]:
    """If several channel dimensions are folded into one, follow the widest and freeze the channels of the others."""
    widest = max(labelled, key=lambda axis: ins[axis][0])
    for axis in labelled:
        if axis != widest:
            call.freeze(ins[axis][1], f"{call.op} folds two channel dimensions into one")
    return [(size, label if axis == widest else None) for axis, (size, label) in enumerate(ins)]


def _carrier_by_hint(wide: Sequence[int], hint: str) -> int:
    """The last dimension (groups x channels of a group), unless a trial hints that another one follows the widths."""
    order = [wide[-1], *wide[:-1]]
    return order[int(hint.removeprefix("carrier")) % len(order)] if hint.startswith("carrier") else order[0]


def _flatten(ins: list[tuple[int, Label]]) -> Ids:
    shape = [size for size, _ in ins]
    axis = next(i for i, (size, label) in enumerate(ins) if label is not None and size > 1)
    ids = ins[axis][1]
    assert ids is not None
    around = [1] * len(shape)
    around[axis] = shape[axis]
    flat: Ids = np.broadcast_to(ids.reshape(around), shape).ravel()
    return flat


def _varies_only_along(block: Ids, axis: int) -> bool:
    rows = np.moveaxis(block, axis, -1).reshape(-1, block.shape[axis])
    return bool((rows == rows[0]).all())
