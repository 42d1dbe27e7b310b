"""Rules for norms, which are folded into a convolution or become chains of small operators."""

from __future__ import annotations

from dataclasses import replace

from pretrim.analysis.network import Operator
from pretrim.cost.formula import Term

from .follow import CONVOLUTIONS, DENSE, NOTHING, RESHAPES, Follow, one_operator, read_tables
from .layers import ACTIVATED_SIGNAL, SIGNAL
from .lowering import Lowering, Value


def batch_norm(follow: Follow, operator: Operator, values: list[Value]) -> list[Value]:
    """Rule for batch norm.

    It is folded into a 2-D or transposed convolution before it. After a 1-D convolution it becomes a product and a sum,
    elsewhere four operators. Without running statistics, in training mode, it is an instance norm.
    """
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
    """The chain of operators of an instance norm."""
    low, value = follow.low, follow.low.as_torch(value, operator)
    full, stats = low.elements[value.activation], (1.0, value.dims[1:2])
    do = _Chain(low, operator, 4)
    mean = do("mean", value.activation, elements=stats, constant=("axes", 2, 3))
    centred = do("sub", value.activation, mean, elements=full)
    inverse_std = _inverse_std(do, centred, full, stats)
    output = do("mul", centred, inverse_std, elements=full)
    if operator.parameters:
        low.table(stats)
        low.table(stats)
        output = do("add", do("mul", output, elements=full), elements=full)
    return [replace(value, activation=output)]


class _Chain:
    """Appends the LiteRT operators that one network operator becomes; each output counts as `rank` dimensions."""

    def __init__(self, low: Lowering, operator: Operator, rank: int) -> None:
        self.low, self.operator, self.rank = low, operator, rank

    def __call__(self, kind: str, *reads: int, elements: Term, constant: tuple[object, ...] = ()) -> int:
        """Append one operator, and return the index of its output.

        Args:
            kind: kind of the LiteRT operator.
            reads: indices of the activations that it reads.
            elements: number of items in its output.
            constant: key of a constant that it also reads.
        """
        if constant and constant[0] in ("number", "epsilon"):
            self.low.number(constant)
        elif constant:
            self.low.constant(constant, len(constant) - 1)
        output = self.low.step(kind, self.operator, *reads, elements=elements, rank=self.rank)
        if kind == "mean":
            self.low.works_in(elements, is_mean=True)
        return output


def _inverse_std(do: _Chain, centred: int, full: Term, stats: Term) -> int:
    """The reciprocal of the standard deviation of centred values.

    Args:
        do: appends the operators.
        centred: index of the activation with the centred values.
        full: number of items in the tensor.
        stats: number of items in its mean or variance.
    """
    squares = do("mul", centred, centred, elements=full)
    variance = do("mean", squares, elements=stats, constant=("axes", 2, 3))
    shifted = do("add", variance, elements=stats, constant=("epsilon", stats[1]))
    if do.low.items(stats) > 1:
        shifted = do("reshape", shifted, elements=stats, constant=("shape", stats[1], 4, 4, 4))
    return do("rsqrt", shifted, elements=stats)


def group_norm(follow: Follow, operator: Operator, values: list[Value]) -> list[Value]:
    """Rule for group norm: statistics per group, then a product and a sum with a scale and a shift per channel."""
    low, value = follow.low, follow.low.as_torch(values[0], operator)
    full, stats, channels = low.elements[value.activation], (1.0, operator.outputs[1]), (1.0, value.dims[1:2])
    do = _Chain(low, operator, 4)
    grouped = do("reshape", value.activation, elements=full, constant=("groups", operator.module, 4, 4, 4))
    mean = do("mean", grouped, elements=stats, constant=("axes", 2, 3))
    inverse_std = _inverse_std(do, do("sub", grouped, mean, elements=full), full, stats)
    if operator.parameters:
        low.table(channels)
        low.table(channels)
        scale = do("mul", inverse_std, elements=channels)
        negative = do("mul", mean, elements=stats, constant=("number", -1.0))
        shift = do("add", do("mul", negative, scale, elements=channels), elements=channels)
    else:
        scale = do("broadcast_to", inverse_std, elements=channels, constant=("broadcast", *channels[1], 4, 4, 4))
        negative = do("mul", mean, elements=stats, constant=("number", -1.0))
        shift = do("broadcast_to", do("mul", negative, inverse_std, elements=stats), elements=channels)
    if low.items(stats) < low.items(channels):
        shape = ("channels", *channels[1], 4, 4, 4)
        scale, shift = (do("reshape", factor, elements=channels, constant=shape) for factor in (scale, shift))
    output = do("add", do("mul", value.activation, scale, elements=full), shift, elements=full)
    return [replace(value, activation=output)]


def layer_norm(follow: Follow, operator: Operator, values: list[Value]) -> list[Value]:
    """Rule for layer norm: statistics per row.

    The scale and shift parameters are folded into the linear layers that read the result, if nothing else reads it.
    """
    low, value = follow.low, follow.low.as_torch(values[0], operator)
    full, stats = low.elements[value.activation], (1.0, operator.outputs[1])
    do = _Chain(low, operator, 2)
    source = value.activation
    if len(value.dims) != 3:
        source = do("reshape", source, elements=full, constant=("rows", operator.module, 4, 4))
    shape = ("shape", *stats[1], 4, 4)[:4]
    mean = do("mean", source, elements=stats, constant=("axes", 2))
    column = do("reshape", mean, elements=stats, constant=shape)
    squares = do("squared_difference", source, column, elements=full)
    variance = do("mean", squares, elements=stats, constant=("axes", 2))
    inverse_std = do("rsqrt", do("add", variance, elements=stats, constant=("epsilon", stats[1])), elements=stats)
    shift = do("sub", do("mul", inverse_std, mean, elements=stats), elements=stats, constant=("number", 0.0))
    scale = do("reshape", inverse_std, elements=stats, constant=shape)
    output = do("mul", source, scale, elements=full)
    output = do("add", output, do("reshape", shift, elements=stats, constant=shape), elements=full)
    output = _affine(follow, operator, value, do, output)
    if len(value.dims) != 3:
        output = do("reshape", output, elements=full, constant=("back", operator.module, 4, 4, 4))
    return [replace(value, activation=output)]


def _affine(follow: Follow, operator: Operator, value: Value, do: _Chain, normalised: int) -> int:
    """Apply a norm's scale and shift as a product and a sum, unless linear layers absorb them."""
    low, full = follow.low, follow.low.elements[value.activation]
    readers = [reader for reader in follow.readers.get(operator.writes[0], ()) if reader.op not in RESHAPES | NOTHING]
    if not operator.parameters or (readers and all(reader.op in DENSE for reader in readers)):
        return normalised
    read_tables(low, operator)
    return do("add", do("mul", normalised, elements=full), elements=full)
