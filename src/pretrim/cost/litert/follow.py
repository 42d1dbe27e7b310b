"""Traversal of a network's operators, each of which a rule turns into LiteRT operators."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace

from pretrim.analysis.network import Operator

from .lowering import UNREAD, Lowering, Value
from .rejoined import rejoined

DENSE = frozenset({"addmm", "linear", "mm"})
CONVOLUTIONS = DENSE | {"convolution"}
FUSES = CONVOLUTIONS | {"add", "sub", "mul", "max_pool2d_with_indices", "avg_pool2d", "batch_norm"}
"""Operators into which a following activation function is fused."""
ACTIVATIONS = frozenset({"relu"})
NORMS = frozenset({"native_batch_norm", "_native_batch_norm_legit_no_training", "batch_norm"})
RESHAPES = frozenset({"view", "_unsafe_view", "reshape", "squeeze", "unsqueeze", "flatten", "unflatten"})
NOTHING = frozenset({"empty", "t", "alias", "detach", "dropout", "clone", "expand", "repeat", "contiguous"})
POOLS = frozenset({"max_pool2d_with_indices", "avg_pool2d"})
PADS = frozenset({"constant_pad_nd", "reflection_pad2d"})
PARTS = frozenset({"split", "split_with_sizes", "slice", "select", "chunk", "narrow", "unbind"})


class Follow:
    """Traversal of the operators of one network, in the order in which they run.

    Args:
        low: the lowering that receives the LiteRT operators.
        operators: the network's operators, in order.
        rules: rule for each operator name; an operator without a rule is assumed to become one LiteRT operator.
    """

    def __init__(self, low: Lowering, operators: Sequence[Operator], rules: Mapping[str, Rule]) -> None:
        self.low = low
        self.operators = operators
        self.rules = rules
        self.read = {buffer for operator in operators for buffer in operator.reads}
        self.readers: dict[int, list[Operator]] = {}
        for operator in operators:
            for buffer in operator.reads:
                self.readers.setdefault(buffer, []).append(operator)
        self.rejoined = rejoined(operators, low.size)

    def one(self, operator: Operator) -> None:
        """Lower one operator by its rule."""
        low = self.low
        values = [low.home[buffer] for buffer in operator.reads if buffer in low.home]
        if not values:
            return
        if operator.op in NOTHING:
            for buffer in operator.writes:
                low.home[buffer] = values[0]
            return
        rule = self.rules.get(operator.op, unknown)
        self.keep(operator, rule(self, operator, values))

    def keep(self, operator: Operator, values: Sequence[Value]) -> None:
        """Record the values that an operator wrote; an in-place operator or a view replaces the value it read."""
        if not operator.writes and values:
            self.low.home[operator.reads[0]] = values[0]
        for buffer, value in zip(operator.writes, values, strict=False):
            self.low.home[buffer] = value

    def end(self) -> None:
        """Copy feature maps that the network returns into PyTorch's layout."""
        low, values = self.low, {value.activation: value for value in self.low.home.values()}
        for activation in [number for number, death in enumerate(low.deaths) if death == UNREAD]:
            value = values.get(activation)
            if value is not None and value.is_image and len(value.dims) in (3, 4) and low.places(value) > 1:
                low.as_torch(value, self.operators[-1])

    def dims(self, operator: Operator) -> tuple[int, ...]:
        """Dimensions of the operator's first output."""
        return operator.outputs[0]


Rule = Callable[[Follow, Operator, list[Value]], list[Value]]
"""Lowers an operator, given the values that it reads, and returns the values that it writes."""


def one_operator(follow: Follow, operator: Operator, *values: Value, kind: str = "") -> Value:
    """Add one LiteRT operator, whose output has the layout of its first input."""
    low, dims = follow.low, follow.dims(operator)
    activation = low.step(kind or operator.op, operator, *(v.activation for v in values), elements=(1.0, dims))
    return replace(values[0], activation=activation, dims=dims)


def cut(follow: Follow, value: Value, dims: tuple[int, ...], operator: Operator, start: tuple[Hashable, int]) -> Value:
    """Slice a tensor; the begin and the size of the slice are constants in the file.

    Args:
        follow: the traversal of the network.
        value: the tensor.
        dims: dimensions of the slice.
        operator: the network's operator that needs the slice.
        start: the sliced dimension and its first index; equal keys mean the same begin.
    """
    low, rank = follow.low, follow.low.rank(value)
    low.constant(("slice size", tuple(low.size(dim) for dim in dims), value.is_image), rank)
    low.constant(("slice", rank, start if start[1] else 0, value.is_image), rank)
    part = low.step("slice", operator, value.activation, elements=(1.0, dims))
    return replace(value, activation=part, dims=dims)


def unknown(follow: Follow, operator: Operator, values: list[Value]) -> list[Value]:
    """Rule for an operator of unknown form: one LiteRT operator with the same outputs, in PyTorch's layout."""
    low = follow.low
    low.unknown.append(f"{operator.op} in {operator.module or 'the model'}")
    ready = [low.as_torch(value, operator) for value in values]
    read_tables(low, operator)
    low.node(operator.op, operator, *(value.activation for value in ready))
    outputs = [
        dims for buffer, dims in zip(operator.writes, operator.outputs, strict=False) if buffer in follow.read
    ] or list(operator.outputs[:1])
    return [Value(low.activation((1.0, dims), operator.op), dims, is_image=False) for dims in outputs]


def read_tables(low: Lowering, operator: Operator) -> None:
    """Add the parameters that an operator other than a convolution or linear layer reads: the file has them too."""
    by_name = {parameter.name: parameter for parameter in low.network.parameters}
    for name in operator.parameters:
        low.table((1.0, by_name[name].dims))


def pair(value: int | Sequence[int]) -> tuple[int, int]:
    """Expand an argument to both image dimensions, as (rows, columns)."""
    if isinstance(value, int):
        return value, value
    return (value[0], value[-1]) if len(value) else (0, 0)
