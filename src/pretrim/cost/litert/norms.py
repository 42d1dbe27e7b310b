"""Norms: a part of a convolution, or chains of small operators."""

from __future__ import annotations

from dataclasses import replace

from pretrim.analysis.network import Operator
from pretrim.cost.formula import Term

from .follow import CONVOLUTIONS, DENSE, NOTHING, RESHAPES, Follow, one_operator, read_tables
from .layers import ACTIVATED_SIGNAL, SIGNAL
from .lowering import Lowering, Value


def batch_norm(follow: Follow, operator: Operator, values: list[Value]) -> list[Value]:
    """Nothing behind a convolution of images or a transposed one; behind one of signals a product and a sum, four
    operators elsewhere."""
    low, value = follow.low, values[0]
    if operator.attributes.get("training") and not any("running" in name for name in operator.parameters):
        return _instance_norm(follow, operator, value)
    is_signal, made_by = len(value.dims) == 3, low.made_by[value.activation]
    is_after_convolution = made_by in CONVOLUTIONS
    is_folded = (is_after_convolution and not is_signal) or made_by in (SIGNAL, ACTIVATED_SIGNAL)
    if is_folded and operator.fused_into is not None:
        return [value]
    value = low.as_torch(value, operator) if is_signal else value
    for kind in ("mul", "add") if is_after_convolution else ("sub", "mul", "mul", "add"):
        low.table((1.0, value.dims[1:2]))
        value = one_operator(follow, operator, value, kind=kind)
    return [value]


def _instance_norm(follow: Follow, operator: Operator, value: Value) -> list[Value]:
    low, value = follow.low, follow.low.as_torch(value, operator)
    whole, rows = low.elements[value.activation], (1.0, value.dims[1:2])
    do = _Chain(low, operator, 4)
    mean = do("mean", value.activation, elements=rows, constant=("axes", 2, 3))
    centred = do("sub", value.activation, mean, elements=whole)
    deviation = _deviation(do, centred, whole, rows)
    made = do("mul", centred, deviation, elements=whole)
    if operator.parameters:
        low.table(rows)
        low.table(rows)
        made = do("add", do("mul", made, elements=whole), elements=whole)
    return [replace(value, activation=made)]


class _Chain:
    """Operators of LiteRT that one operator of the network becomes, whose tensors have about `rank` dimensions."""

    def __init__(self, low: Lowering, operator: Operator, rank: int) -> None:
        self.low, self.operator, self.rank = low, operator, rank

    def __call__(self, kind: str, *reads: int, elements: Term, constant: tuple[object, ...] = ()) -> int:
        """One of them.

        Args:
            kind: what it is called here.
            reads: activations.
            elements: of its output.
            constant: that it reads, too.
        """
        if constant and constant[0] in ("number", "epsilon"):
            self.low.number(constant)
        elif constant:
            self.low.constant(constant, len(constant) - 1)
        made = self.low.step(kind, self.operator, *reads, elements=elements, rank=self.rank)
        if kind == "mean":
            self.low.works_in(elements, is_mean=True)
        return made


def _deviation(do: _Chain, centred: int, whole: Term, rows: Term) -> int:
    """One over the standard deviation of centred values."""
    squares = do("mul", centred, centred, elements=whole)
    variance = do("mean", squares, elements=rows, constant=("axes", 2, 3))
    shifted = do("add", variance, elements=rows, constant=("epsilon", rows[1]))
    if do.low.items(rows) > 1:
        shifted = do("reshape", shifted, elements=rows, constant=("shape", rows[1], 4, 4, 4))
    return do("rsqrt", shifted, elements=rows)


def group_norm(follow: Follow, operator: Operator, values: list[Value]) -> list[Value]:
    """Statistics of each group, then one product and one sum with a scale and a shift of each channel."""
    low, value = follow.low, follow.low.as_torch(values[0], operator)
    whole, rows, channels = low.elements[value.activation], (1.0, operator.outputs[1]), (1.0, value.dims[1:2])
    do = _Chain(low, operator, 4)
    grouped = do("reshape", value.activation, elements=whole, constant=("groups", operator.module, 4, 4, 4))
    mean = do("mean", grouped, elements=rows, constant=("axes", 2, 3))
    deviation = _deviation(do, do("sub", grouped, mean, elements=whole), whole, rows)
    if operator.parameters:
        low.table(channels)
        low.table(channels)
        scale = do("mul", deviation, elements=channels)
        negative = do("mul", mean, elements=rows, constant=("number", -1.0))
        shift = do("add", do("mul", negative, scale, elements=channels), elements=channels)
    else:
        scale = do("broadcast_to", deviation, elements=channels, constant=("broadcast", *channels[1], 4, 4, 4))
        negative = do("mul", mean, elements=rows, constant=("number", -1.0))
        shift = do("broadcast_to", do("mul", negative, deviation, elements=rows), elements=channels)
    if low.items(rows) < low.items(channels):
        shape = ("channels", *channels[1], 4, 4, 4)
        scale, shift = (do("reshape", each, elements=channels, constant=shape) for each in (scale, shift))
    made = do("add", do("mul", value.activation, scale, elements=whole), shift, elements=whole)
    return [replace(value, activation=made)]


def layer_norm(follow: Follow, operator: Operator, values: list[Value]) -> list[Value]:
    """Statistics of each row. The scale and the shift go into a linear layer, where nothing else reads the result."""
    low, value = follow.low, follow.low.as_torch(values[0], operator)
    whole, rows = low.elements[value.activation], (1.0, operator.outputs[1])
    do = _Chain(low, operator, 2)
    source = value.activation
    if len(value.dims) != 3:
        source = do("reshape", source, elements=whole, constant=("rows", operator.module, 4, 4))
    shape = ("shape", *rows[1], 4, 4)[:4]
    mean = do("mean", source, elements=rows, constant=("axes", 2))
    column = do("reshape", mean, elements=rows, constant=shape)
    squares = do("squared_difference", source, column, elements=whole)
    variance = do("mean", squares, elements=rows, constant=("axes", 2))
    deviation = do("rsqrt", do("add", variance, elements=rows, constant=("epsilon", rows[1])), elements=rows)
    shift = do("sub", do("mul", deviation, mean, elements=rows), elements=rows, constant=("number", 0.0))
    columns = [do("reshape", deviation, elements=rows, constant=shape)]
    made = do("mul", source, columns[0], elements=whole)
    made = do("add", made, do("reshape", shift, elements=rows, constant=shape), elements=whole)
    made = _affine(follow, operator, value, do, made)
    if len(value.dims) != 3:
        made = do("reshape", made, elements=whole, constant=("back", operator.module, 4, 4, 4))
    return [replace(value, activation=made)]


def _affine(follow: Follow, operator: Operator, value: Value, do: _Chain, made: int) -> int:
    """The scale and shift of a norm, as a product and a sum where no linear layer takes them in."""
    low, whole = follow.low, follow.low.elements[value.activation]
    after = [each for each in follow.readers.get(operator.writes[0], ()) if each.op not in RESHAPES | NOTHING]
    if not operator.parameters or (after and all(each.op in DENSE for each in after)):
        return made
    read_tables(low, operator)
    return do("add", do("mul", made, elements=whole), elements=whole)
