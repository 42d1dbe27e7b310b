"""How each ATen operator passes, ties or freezes channels: one table of small functions.

A rule gets a :class:`Call`, one operator with its arguments by name, and returns the labels of its outputs. It ties
channels that the operator merges, and names in ``call.integers`` the Python integers among the arguments that have to
follow the widths (the sizes of a split, the ends of a slice). An operator without a rule freezes every channel that
reaches it: unknown never means elementwise.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, TypeAlias

import numpy as np
import torch

from .channels import Channels, Ids, Label, Labels
from .copies import tensors_in
from .sizes_read import Width

# The largest block of a reshape whose indices are followed one by one (64 MB of ids).
LARGEST_RESHAPE = 8_000_000


def distinct(ids: Ids) -> Ids:
    """Every id once, in the order of the first of each."""
    _, first = np.unique(ids, return_index=True)
    once: Ids = ids[np.sort(first)]
    return once


def no_widths(sizes: Sequence[int]) -> list[Width | None]:
    """Of sizes that nobody read from a tensor."""
    return [None] * len(sizes)


@dataclass
class Call:
    """One operator as it arrives: what it got, what it gave, and what its rule finds out about it."""

    op: str
    args: dict[str, Any]
    outputs: tuple[torch.Tensor, ...]
    module: str
    channels: Channels
    look: Callable[[torch.Tensor], Labels]
    hint: str = ""
    place: Callable[[], str] = str
    """Gives the file and line of the user's code that called it; asked for where channels are frozen."""
    sizes_read: Callable[[Sequence[int]], list[Width | None]] = no_widths
    """Which of the sizes that it asks for were read from a tensor's channels."""
    integers: list[tuple[int, Ids]] = field(default_factory=list)
    told: list[tuple[str, int, Ids]] = field(default_factory=list)
    """Arguments that no output shape tells, by name (see `argument`): their values, and the ids that they count."""
    factors: tuple[tuple[int, Label], ...] = ()
    """Sizes whose product is the number of multiply-accumulates, each with its label."""
    filters: Label = None
    """The ids of the filters (convolution) or features (matrix product) that the operator computes."""
    weight: torch.Tensor | None = None
    """The operand that may be a parameter; it is a layer if that operand does not depend on the input."""
    is_first: bool = False
    """Whether a reshape has its channels in the first of several dimensions (N x C x L)."""
    readings: list[Ids] = field(default_factory=list)
    """Channels that it may have in the first as well as in the last."""
    slid: list[Ids] = field(default_factory=list)
    """Channels that a window slides along."""
    mixed: list[Ids] = field(default_factory=list)
    """Channels whose values are reduced into one another's (norms, mean, softmax across channels)."""

    def tensor(self, name: str) -> torch.Tensor | None:
        value = self.args.get(name)
        return value if isinstance(value, torch.Tensor) else None

    def tensors(self) -> Iterable[torch.Tensor]:
        return tensors_in(*self.args.values())

    def tie(self, *labels: Label) -> Label:
        """Tie labels of one length; beside a dimension of fixed size (None) the others are frozen."""
        known = [label for label in labels if label is not None]
        for other in known[1:]:
            self.channels.tie(known[0], other)
        if not known:
            return None
        if len(known) < len(labels) and known[0].size > 1:
            self.freeze(known[0], f"{self.op} joins it with a tensor of fixed size")
            return None
        return known[0]

    def tie_rows(self, ids: Ids) -> Ids:
        """Tie the channels at the same place of each row of a matrix; returns the first row."""
        if len(ids) > 1:
            self.channels.tie(ids[:1], ids[1:])
        first: Ids = ids[0]
        return first

    def freeze(self, label: Label, reason: str) -> None:
        if label is not None:
            self.channels.freeze(label, self.module, reason, self.place())

    def slide(self, label: Ids) -> None:
        """Freeze what a window slides along."""
        self.freeze(label, f"{self.op} slides along it")
        self.slid.append(label)

    def mix(self, label: Label) -> None:
        if label is not None:
            self.mixed.append(label)

    def follow_reads(self, widths: Sequence[Width | None], labels: Sequence[Label]) -> None:
        """Tie dimensions, or parts of one, whose sizes were read from a tensor's channels to these."""
        for width, label in zip(widths, labels, strict=True):
            if width is not None and label is None:
                self.freeze(width.ids, f"its width is asked for as a size of {self.op}")
            elif width is not None and label is not None:
                read, asked = distinct(width.ids), distinct(label)
                share = Fraction(asked.size, read.size)
                unit = self.tie_rows(read.reshape(share.denominator, -1))
                self.channels.tie(self.tie_rows(asked.reshape(share.numerator, -1)), unit)

    def follow(self, value: int, ids: Label) -> None:
        """Note that the integer `value` among the arguments has to stay the number of `ids` that are kept."""
        if ids is not None:
            self.integers.append((value, ids))

    def tell(self, name: str, ids: Ids) -> None:
        """Note that the argument `name` has to be the number of `ids` that are kept."""
        self.told.append((name, argument(self.args, name), ids))


def argument(args: Mapping[str, Any], name: str) -> int:
    """An integer among the arguments of an operator: `start` of a slice, counted from the front, or `pad 2`."""
    if name == "start":
        x = args["self"]
        return slice(args.get("start"), args.get("end")).indices(x.shape[args.get("dim", 0)])[0]
    key, _, index = name.partition(" ")
    return int(args[key][int(index)])


Rule: TypeAlias = Callable[[Call], Labels | list[Labels]]


def unknown(call: Call) -> list[Labels]:
    """Freeze every channel that reaches the operator, and say so."""
    freeze_inputs(call, f"no rule for the operator {call.op}")
    return [(None,) * out.dim() for out in call.outputs]


def freeze_inputs(call: Call, reason: str) -> None:
    for tensor in call.tensors():
        for label in call.look(tensor):
            call.freeze(label, reason)


# ---------------------------------------------------------------------------------------- elementwise


def pointwise(call: Call) -> list[Labels]:
    """Broadcast the inputs: channels that meet are tied; a dimension of size 1 meets nothing."""
    shape = call.outputs[0].shape if call.outputs else torch.Size()
    inputs = [(tensor.shape, call.look(tensor)) for tensor in call.tensors()]
    labels: list[Label] = []
    for place in range(-len(shape), 0):
        meeting = [at[place] for size, at in inputs if len(size) >= -place and size[place] == shape[place]]
        labels.append(call.tie(*meeting) if shape[place] > 1 else next(filter(lambda i: i is not None, meeting), None))
    return [tuple(labels) if out.shape == shape else (None,) * out.dim() for out in call.outputs]


def factory(call: Call) -> Labels:
    """A tensor made from nothing: its sizes may follow the widths, so each gets channels of its own."""
    out = call.outputs[0]
    labels = tuple(call.channels.new(size) if size > 1 else None for size in out.shape)
    for value, ids in zip(out.shape, labels, strict=True):
        if call.op in RAMPS:
            call.freeze(ids, f"{call.op} makes values that mean something by their place")
            continue
        call.follow(value, ids)
    call.follow_reads(call.sizes_read(out.shape), labels)
    return labels


def glu(call: Call) -> Labels:
    """Half of the channels gates the other half: tie the halves."""
    x = call.args["self"]
    labels, dim = list(call.look(x)), int(call.args.get("dim", -1)) % x.dim()
    ids = labels[dim]
    if ids is not None:
        labels[dim] = call.tie_rows(ids.reshape(2, -1))
    return tuple(labels)


# ---------------------------------------------------------------------------------------- contractions


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


def recurrent_input(call: Call) -> Labels:
    """The gates of all steps from the input: the rows of the gates are tied, unit by unit."""
    x, weight = call.args["input"], call.args["weight"]
    labels, (rows, columns) = call.look(x), call.look(weight)
    call.tie(labels[-1], columns)
    return (*labels[:-1], _gate_rows(call, labels[:-1], rows, columns))


def _gate_rows(call: Call, lead: Labels, rows: Label, columns: Label) -> Label:
    """Rows of a weight of (gates x units): a unit has one in each gate."""
    weight, out = call.args["weight"], call.outputs[0]
    bias = call.tensor("bias")
    if bias is not None:
        call.tie(rows, call.look(bias)[0])
    if rows is not None:
        call.tie_rows(rows.reshape(int(call.args["gates"]), -1))
    call.factors = (*zip(out.shape[:-1], lead, strict=True), *zip(weight.shape, (rows, columns), strict=True))
    call.filters, call.weight = rows, weight
    return rows


def recurrent_state(call: Call) -> Labels:
    """The gates of all steps from the state before: its units are the columns, and the rows of each gate."""
    labels, (rows, columns) = call.look(call.args["input"]), call.look(call.args["weight"])
    call.tie(labels[-1], rows)
    _gate_rows(call, labels[:-1], rows, columns)
    units = None if rows is None else rows.reshape(int(call.args["gates"]), -1)[0]
    narrow = units
    projection = call.tensor("projection")
    if projection is not None:
        narrow = call.look(projection)[0]
        call.tie(units, call.look(projection)[1])
    call.tie(narrow, columns)
    for name, label in (("state", narrow), ("cell", units)):
        start = call.tensor(name)
        if start is not None:
            call.tie(call.look(start)[-1], label)
    return (*labels[:-1], units)


def recurrent_projection(call: Call) -> Labels:
    """The state of an LSTM made narrower at each step (Sak et al. 2014)."""
    weight, labels = call.args["weight"], call.look(call.args["input"])
    rows, columns = call.look(weight)
    call.tie(labels[-1], columns)
    call.factors = (*zip(call.outputs[0].shape, (*labels[:-1], rows), strict=True), (weight.shape[1], columns))
    call.filters, call.weight = rows, weight
    return (*labels[:-1], rows)


def recurrent_last(call: Call) -> list[Labels]:
    """States after the last step: the layers and directions of a module have one width."""
    kinds = [[call.look(t) for t in call.args[name]] for name in ("outputs", "states")]
    batch = kinds[0][0][call.args["batch"]]
    widths = [call.tie(*(labels[-1] for labels in looked)) for looked in kinds]
    return [(None, batch, width) for width, _ in zip(widths, call.outputs, strict=False)]


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


# ---------------------------------------------------------------------------------------- normalisation


def batch_norm(call: Call) -> list[Labels]:
    """Scale, shift and running statistics are tied to the channels they belong to."""
    x = call.args["input"]
    labels = call.look(x)
    for name in ("weight", "bias", "running_mean", "running_var"):
        tensor = call.tensor(name)
        if tensor is not None:
            call.tie(labels[1], call.look(tensor)[0])
    if call.args.get("training"):  # it reduces over the others: images and pixels, but input channels of weights
        for label in (labels[0], *labels[2:]):
            call.mix(label)
    return [labels if out.shape == x.shape else _statistic(out, x, labels[1]) for out in call.outputs]


def _statistic(out: torch.Tensor, x: torch.Tensor, label: Label) -> Labels:
    return (label,) if out.shape == x.shape[1:2] else (None,) * out.dim()


def layer_norm(call: Call) -> list[Labels]:
    """The last dimensions are normalised together: their channels are tied to scale and shift."""
    x, shape = call.args["input"], call.args["normalized_shape"]
    labels = call.look(x)
    for place, size in enumerate(shape):
        label = labels[x.dim() - len(shape) + place]
        call.mix(label)
        call.follow(size, label)
        for name in ("weight", "bias"):
            tensor = call.tensor(name)
            if tensor is not None:
                call.tie(label, call.look(tensor)[place])
    statistics = (*labels[: x.dim() - len(shape)], *[None] * len(shape))
    return [labels, *[statistics for _ in call.outputs[1:]]]


def group_norm(call: Call) -> list[Labels]:
    """Groups stay, each as wide as the others: channels at the same place of each group are tied."""
    x, groups = call.args["input"], int(call.args["group"])
    labels = call.look(x)
    ids = labels[1]
    for name in ("weight", "bias"):
        tensor = call.tensor(name)
        if tensor is not None:
            call.tie(ids, call.look(tensor)[0])
    if ids is not None and call.hint == "whole":  # `group_norm(x, x.shape[1] // 4)`: groups go, not their channels
        first = call.tie_rows(ids.reshape(groups, -1).T)
        return [labels, *[(labels[0], first) for _ in call.outputs[1:]]]
    if ids is not None and groups == len(ids):  # each channel alone, like an instance norm
        call.follow(groups, ids)
        return [labels, *[(labels[0], ids) for _ in call.outputs[1:]]]
    if ids is not None:
        call.tie_rows(ids.reshape(groups, -1))
        call.mix(ids)
    return [labels, *[(labels[0], None) for _ in call.outputs[1:]]]


def renorm(call: Call) -> Labels:
    """Slices that are too long are made shorter: what is not there makes none longer."""
    return call.look(call.args["self"])


def embedding(call: Call) -> Labels:
    """Rows picked by their number, which have to stay; their columns are channels."""
    rows, columns = call.look(call.args["weight"])
    call.freeze(rows, "rows are picked by their number")
    return (*call.look(call.args["indices"]), columns)


def softmax(call: Call) -> Labels:
    x = call.args["self"]
    labels = call.look(x)
    call.mix(labels[call.args["dim"] % x.dim()])
    return labels


def cumulative(call: Call) -> list[Labels]:
    """A running sum along a dimension without channels passes them on."""
    x = call.args["self"]
    labels = call.look(x)
    if labels[call.args["dim"] % x.dim()] is not None:
        return unknown(call)
    return [labels for _ in call.outputs]


# ---------------------------------------------------------------------------------------- reductions, windows


def reduction(call: Call) -> list[Labels]:
    """Sum, mean, max and the like: the reduced dimensions go, or stay with size 1."""
    if "other" in call.args:  # max(a, b) of two tensors
        return pointwise(call)
    x = call.args["self"]
    dims = call.args.get("dim")
    dims = range(x.dim()) if dims is None or dims == [] else [dims] if isinstance(dims, int) else dims
    gone = {dim % max(x.dim(), 1) for dim in dims}
    labels = call.look(x)
    for dim in gone & set(range(len(labels))):
        call.mix(labels[dim])
    kept: list[Label] = []
    for place, label in enumerate(labels):
        if place not in gone:
            kept.append(label)
        elif call.args.get("keepdim", False):
            kept.append(None)
    return [tuple(kept) if out.dim() == len(kept) else (None,) * out.dim() for out in call.outputs]


def window(spatial: int) -> Rule:
    """Pooling, resizing and padding of the last `spatial` dimensions: channels before them pass."""

    def rule(call: Call) -> list[Labels]:
        x = call.tensor("self") if "self" in call.args else call.tensor("input")
        assert x is not None  # every schema of this rule has one of the two
        labels = call.look(x)
        slid = [_averaged(call, place, spatial, labels[place - spatial]) for place in range(spatial)]
        passed = (*labels[: len(labels) - spatial], *slid)
        return [passed if out.dim() == x.dim() else (None,) * out.dim() for out in call.outputs]

    return rule


def _averaged(call: Call, place: int, spatial: int, label: Label) -> Label:
    """A dimension that a window slides along, `place` of `spatial`: a local response norm averages its neighbours."""
    if label is None:
        return None
    if call.op not in ("avg_pool2d", "avg_pool3d") or place or not _is_one_step(call, spatial):
        call.slide(label)
        return None
    call.mix(label)
    kernel = int(call.args["kernel_size"][0])
    middle: Ids = label[kernel // 2 : len(label) - (kernel - 1) // 2]
    return middle


def _is_one_step(call: Call, spatial: int) -> bool:
    """Whether an average is taken at every place of the first dimension, without padding of its own."""
    return call.args.get("stride") in ([1], [1] * spatial) and call.args.get("padding", [0]) in ([0], [0] * spatial)


def max_unpool(spatial: int) -> Rule:
    """Values go back to the places that a max pooling took others from: the channels of both are tied."""

    def rule(call: Call) -> Labels | list[Labels]:
        for here in zip(call.look(call.args["self"]), call.look(call.args["indices"]), strict=True):
            call.tie(*here)
        return window(spatial)(call)

    return rule


def grid_sample(call: Call) -> Labels:
    labels = call.look(call.args["input"])
    for label in call.look(call.args["grid"]):
        call.freeze(label, f"{call.op} reads positions from it")
    return (*labels[:2], *[None] * (len(labels) - 2))


def pixel_shuffle(call: Call) -> Labels:
    """Each output channel takes r*r neighbouring input channels: tie them."""
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


# ---------------------------------------------------------------------------------------- joining and taking apart


def cat(call: Call) -> Labels:
    """Concatenate the channels along one dimension, tie them along the others."""
    parts = [t for t in call.args["tensors"] if t.dim() > 1 or t.numel()]
    dim = call.args.get("dim", 0) % call.outputs[0].dim()
    looked = [call.look(part) for part in parts]
    labels: list[Label] = []
    for place in range(call.outputs[0].dim()):
        here = [at[place] for at in looked]
        labels.append(_join(call, parts, here, dim) if place == dim else call.tie(*here))
    return tuple(labels)


def _join(call: Call, parts: Sequence[torch.Tensor], here: Sequence[Label], dim: int) -> Label:
    if all(label is None for label in here):
        return None
    ids = [
        call.channels.new(part.shape[dim]) if label is None else label for part, label in zip(parts, here, strict=True)
    ]
    for label, own in zip(here, ids, strict=True):
        if label is None:
            call.freeze(own, "a part of fixed size in a concatenation")
    return np.concatenate(ids)


def stack(call: Call) -> Labels:
    parts = call.args["tensors"]
    labels = [call.tie(*here) for here in zip(*(call.look(part) for part in parts), strict=True)]
    labels.insert(call.args.get("dim", 0) % call.outputs[0].dim(), None)
    return tuple(labels)


def split(call: Call) -> list[Labels]:
    """`split` and `chunk` into equal parts: tied, for nothing tells a chunk in two from parts of eight channels."""
    x = call.args["self"]
    dim = call.args.get("dim", 0) % x.dim()
    ids = call.look(x)[dim]
    if ids is None:
        return [call.look(x) for _ in call.outputs]
    sizes = [out.shape[dim] for out in call.outputs]
    if len(set(sizes)) > 1:
        call.freeze(ids, "split into unequal parts")
    elif call.hint != "apart":
        call.tie_rows(ids.reshape(len(sizes), -1))
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
    """`x[:, a:b]`: the ids of the slice; both ends have to follow the widths."""
    x = call.args["self"]
    dim = call.args.get("dim", 0) % x.dim()
    labels, size = list(call.look(x)), x.shape[dim]
    ids = labels[dim]
    if ids is None:
        return tuple(labels)
    start, end, step = slice(call.args.get("start"), call.args.get("end"), call.args.get("step", 1)).indices(size)
    labels[dim] = ids[start:end:step]
    if 1 < step < size and size % step == 0 and start < step and end == size:  # `x[:, ::2]`: neighbours go together
        call.tie_rows(ids.reshape(-1, step).T)
        return tuple(labels)
    if step != 1:
        call.freeze(ids, "sliced with a step")
    call.tell("start", ids[:start])
    if call.hint == "tie" and start == size - end:  # from the middle
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
    """`x[:, i]`: the dimension goes; a channel that is picked by its number has to stay."""
    x = call.args["self"]
    dim = call.args["dim"] % x.dim()
    labels = call.look(x)
    call.freeze(labels[dim], "one channel is picked by its number")
    return (*labels[:dim], *labels[dim + 1 :])


def unbind(call: Call) -> list[Labels]:
    x = call.args["self"]
    dim = call.args.get("dim", 0) % x.dim()
    labels = call.look(x)
    call.freeze(labels[dim], "every channel is taken by its number")
    return [(*labels[:dim], *labels[dim + 1 :]) for _ in call.outputs]


def pad(call: Call) -> Labels:
    """Zeros beside channels are channels too: they can go if the pad's integers can be retargeted."""
    x, pads = call.args["self"], list(call.args["pad"])
    labels = list(call.look(x))
    for index in range(len(pads) // 2):
        before, after = pads[2 * index], pads[2 * index + 1]
        place = x.dim() - 1 - index
        ids = labels[place]
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
        for value, own in ((before, head), (after, tail)):
            if value > 0:
                call.follow(value, own)
        labels[place] = np.concatenate([head, ids, tail])
    return tuple(labels)


def roll(call: Call) -> Labels:
    x = call.args["self"]
    labels = list(call.look(x))
    for dim in call.args.get("dims") or range(x.dim()):
        call.freeze(labels[dim], "rolled by a fixed number of places")
        labels[dim] = None
    return tuple(labels)


def flip(call: Call) -> Labels:
    x = call.args["self"]
    labels = list(call.look(x))
    for dim in call.args["dims"]:
        ids = labels[dim]
        labels[dim] = None if ids is None else ids[::-1]
    return tuple(labels)


# ---------------------------------------------------------------------------------------- shapes


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


def squeeze(call: Call) -> Labels:
    x = call.args["self"]
    dims = call.args.get("dim")
    dims = range(x.dim()) if dims is None else [dims] if isinstance(dims, int) else dims
    gone = {dim % x.dim() for dim in dims if x.shape[dim] == 1}
    return tuple(label for place, label in enumerate(call.look(x)) if place not in gone)


def expand(call: Call) -> Labels:
    """A dimension of size 1 that is repeated gets channels of its own: its size may follow the widths."""
    x, out = call.args["self"], call.outputs[0]
    extra = out.dim() - x.dim()
    labels: list[Label] = [*[None] * extra, *call.look(x)]
    for place, size in enumerate(out.shape):
        if size > 1 and (place < extra or x.shape[place - extra] == 1):
            labels[place] = call.channels.new(size)
        if call.args["size"][place] != -1:
            call.follow(size, labels[place])
    call.follow_reads(call.sizes_read(call.args["size"]), labels)
    return tuple(labels)


def as_strided(call: Call) -> list[Labels]:
    """New strides for the same shape (pooling does that for channels-last tensors); other shapes are not followed."""
    x = call.args["self"]
    return [call.look(x)] if call.outputs[0].shape == x.shape else unknown(call)


def repeat(call: Call) -> Labels:
    x, repeats = call.args["self"], list(call.args["repeats"])
    extra = len(repeats) - x.dim()
    labels: list[Label] = [None] * extra
    for label, times in zip(call.look(x), repeats[extra:], strict=True):
        labels.append(None if label is None else np.tile(label, times))
    return tuple(labels)


def view(call: Call) -> Labels:
    """Reshape: dimensions are matched in blocks of equal size, and in each the channels are followed."""
    x, out = call.args["self"], call.outputs[0]
    labels: list[Label] = [None] * out.dim()
    asked = call.args.get("size", out.shape)
    widths = call.sizes_read(asked)
    for ins, outs in blocks(x.shape, out.shape):
        here = [(x.shape[place], call.look(x)[place]) for place in ins]
        is_unflattened = len(ins) == 1 and len(outs) >= 3 and outs == list(range(1, out.dim()))
        read = [at for at, place in enumerate(outs) if widths[place] is not None]
        first = read[0] if len(read) == 1 else 0 if is_unflattened or call.is_first else None
        carried = _carry(call, here, [out.shape[place] for place in outs], first)
        if len(ins) == 1 and len(outs) == 2 and first is None and min(out.shape[place] for place in outs) > 1:
            call.readings.extend(label for label in carried if label is not None)
        for place, label in zip(outs, carried, strict=True):
            labels[place] = label
    call.follow_reads([None if is_own(w, ids) else w for w, ids in zip(widths, labels, strict=True)], labels)
    for place, (value, label) in enumerate(zip(asked, labels, strict=True)):
        if value != -1 and out.shape[place] > 1:
            call.follow(value, label)
    return tuple(labels)


def is_own(width: Width | None, label: Label) -> bool:
    """Whether a width was read from these channels, so that a reshape of them needs no tie."""
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
    """Which output dimension of one block carries the channels of its input dimensions.

    Features that become a whole image (C x H x W, in a generator) are read as channels first, and a dimension whose
    size was read from channels as these: `first` is then its place.
    """
    nothing: list[Label] = [None] * len(outs)
    labelled = [label for size, label in ins if label is not None and size > 1]
    if len(ins) == len(outs) == 1:
        return [ins[0][1]]
    if not labelled or math.prod(outs) == 0:
        return nothing
    if len(labelled) > 1 or math.prod(outs) > LARGEST_RESHAPE:
        for label in labelled:
            call.freeze(label, f"{call.op} folds two channel dimensions into one")
        return nothing
    flat = _flatten(ins).reshape(outs)
    wide = [place for place, size in enumerate(outs) if size > 1]
    carrier = next((place for place in reversed(wide) if _varies_only_along(flat, place)), None)
    if carrier is None:
        likely = [place for place in wide if place == first]
        carrier = _carrier_by_hint([place for place in wide if place != first] + likely, call.hint)
    rows = np.moveaxis(flat, carrier, -1).reshape(-1, outs[carrier])
    nothing[carrier] = call.tie_rows(rows) if not (rows == rows[0]).all() else rows[0]
    return nothing


def _carrier_by_hint(wide: Sequence[int], hint: str) -> int:
    """(groups, channels of a group) unless a trial showed that another dimension follows the widths."""
    order = [wide[-1], *wide[:-1]]
    return order[int(hint.removeprefix("carrier")) % len(order)] if hint.startswith("carrier") else order[0]


def _flatten(ins: list[tuple[int, Label]]) -> Ids:
    shape = [size for size, _ in ins]
    place = next(i for i, (size, label) in enumerate(ins) if label is not None and size > 1)
    ids = ins[place][1]
    assert ids is not None
    around = [1] * len(shape)
    around[place] = shape[place]
    flat: Ids = np.broadcast_to(ids.reshape(around), shape).ravel()
    return flat


def _varies_only_along(block: Ids, place: int) -> bool:
    rows = np.moveaxis(block, place, -1).reshape(-1, block.shape[place])
    return bool((rows == rows[0]).all())


# ---------------------------------------------------------------------------------------- the table

POINTWISE = frozenset(
    """
    abs acos acosh add addcdiv addcmul alias angle asin asinh atan atan2 atanh bernoulli bitwise_and
    bitwise_not bitwise_or bitwise_xor cauchy ceil celu clamp clamp_max clamp_min clone contiguous
    copy copysign cos cosh deg2rad detach digamma div elu empty_like eq erf erfc erfinv exp exp2
    expm1 exponential fill floor floor_divide fmax fmin fmod frac full_like ge gelu geometric gt
    hardshrink hardsigmoid hardswish hardtanh heaviside hypot isfinite isinf isnan le leaky_relu
    lerp lgamma lift_fresh lift_fresh_copy log log10 log1p log2 log_normal log_sigmoid_forward
    logaddexp logical_and logical_not logical_or logical_xor logit lt masked_fill maximum minimum
    mish mul nan_to_num native_dropout ne neg normal ones_like polar pow _prelu_kernel rad2deg
    rand_like randint_like randn_like random real reciprocal relu relu6 remainder round
    rrelu_with_noise rsqrt rsub selu sgn sigmoid sign signbit silu sin sinc sinh softplus softshrink
    special_expit special_erf special_ndtr sqrt square sub tan tanh threshold _to_copy trunc uniform
    view_dtype where xlogy zero zeros_like __and__ __or__ __xor__
    """.split()
)
RAMPS = frozenset(["arange", "linspace", "logspace"])
FACTORIES = frozenset(
    """
    arange empty empty_strided eye full linspace logspace new_empty new_empty_strided new_full
    new_ones new_zeros ones rand randint randn randperm scalar_tensor zeros
    """.split()
)
REDUCTIONS = frozenset(
    """
    all amax amin any argmax argmin count_nonzero linalg_vector_norm logsumexp max mean median min
    nanmean nansum norm prod std std_mean sum var var_mean
    """.split()
)
WINDOWS: dict[int, str] = {
    1: """
    max_pool1d_with_indices avg_pool1d adaptive_avg_pool1d adaptive_max_pool1d upsample_linear1d
    upsample_nearest1d _upsample_nearest_exact1d reflection_pad1d replication_pad1d
    """,
    2: """
    max_pool2d_with_indices avg_pool2d _adaptive_avg_pool2d adaptive_avg_pool2d adaptive_max_pool2d
    upsample_bicubic2d upsample_bilinear2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa
    upsample_nearest2d _upsample_nearest_exact2d reflection_pad2d replication_pad2d
    fractional_max_pool2d
    """,
    3: """
    max_pool3d_with_indices avg_pool3d _adaptive_avg_pool3d adaptive_max_pool3d upsample_trilinear3d
    upsample_nearest3d reflection_pad3d replication_pad3d
    """,
}
BATCH_NORMS = """
    native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training cudnn_batch_norm
    miopen_batch_norm _batch_norm_with_update _batch_norm_no_update
    """.split()

# Reshapes keep their bytes where they are; the network's memory counts them with the tensor they came from.
RESHAPES = frozenset(
    """
    view _unsafe_view reshape _reshape_alias expand unsqueeze squeeze alias detach lift_fresh lift_fresh_copy t
    """.split()
)
# Others whose results share memory with their input: what is written into one is in the other (`x[:, :k] = y`).
VIEWS = frozenset("slice select split split_with_sizes unbind permute transpose narrow diagonal unfold".split())
NORMS = frozenset([*BATCH_NORMS, "native_layer_norm", "native_group_norm", "_fused_rms_norm"])

RULES: dict[str, Rule] = {
    **dict.fromkeys(POINTWISE, pointwise),
    **dict.fromkeys(FACTORIES, factory),
    **dict.fromkeys(REDUCTIONS, reduction),
    **{name: window(spatial) for spatial, names in WINDOWS.items() for name in names.split()},
    **dict.fromkeys(BATCH_NORMS, batch_norm),
    **dict.fromkeys(["mm", "bmm", "addmm", "baddbmm", "mv"], matrix_product),
    **dict.fromkeys(["_softmax", "_log_softmax"], softmax),
    **dict.fromkeys(["cumsum", "cumprod", "cummax", "cummin", "logcumsumexp", "sort"], cumulative),
    **dict.fromkeys(["view", "_unsafe_view", "reshape", "_reshape_alias", "_reshape_copy"], view),
    **dict.fromkeys(["transpose", "t"], transpose),
    **dict.fromkeys(["pixel_shuffle"], pixel_shuffle),
    **dict.fromkeys(["channel_shuffle", "native_channel_shuffle"], channel_shuffle),
    **dict.fromkeys(["dot", "vdot"], inner_product),
    **dict.fromkeys(["_cdist_forward", "_euclidean_dist"], distances),
    "_fused_rms_norm": layer_norm,
    "recurrent_input": recurrent_input,
    "recurrent_last": recurrent_last,
    "recurrent_projection": recurrent_projection,
    "recurrent_state": recurrent_state,
    "_weight_norm_interface": weight_norm,
    "as_strided": as_strided,
    "cat": cat,
    "col2im": col2im,
    "constant_pad_nd": pad,
    "convolution": convolution,
    "embedding": embedding,
    "expand": expand,
    "flip": flip,
    "glu": glu,
    "grid_sampler_2d": grid_sample,
    "im2col": im2col,
    "max_unpool2d": max_unpool(2),
    "max_unpool3d": max_unpool(3),
    "native_group_norm": group_norm,
    "native_layer_norm": layer_norm,
    "permute": permute,
    "pixel_unshuffle": pixel_unshuffle,
    "renorm": renorm,
    "repeat": repeat,
    "roll": roll,
    "select": select,
    "slice": take_slice,
    "split": split,
    "split_with_sizes": split_with_sizes,
    "squeeze": squeeze,
    "stack": stack,
    "unbind": unbind,
    "unsqueeze": unsqueeze,
}
