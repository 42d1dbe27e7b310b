"""How each ATen operator of a network becomes operators of LiteRT: read off what litert-torch and its quantiser wrote.

Batch norms and activations go into the convolution before them; a convolution whose padding is not the one TensorFlow
calls SAME gets a PAD operator, with a copy of its input; norms that compute their own statistics, slopes of PReLU and
products of attention become chains of small operators. An operator of none of these kinds is counted as one, and named
(`Lowering.unknown`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace

from pretrim.analysis.network import Network, Operator

from .formula import DType, Term
from .lowering import UNREAD, Lowering, Value, input_shapes
from .rejoined import rejoined

DENSE = frozenset({"addmm", "linear", "mm"})
CONVOLUTIONS = DENSE | {"convolution"}
FUSES = CONVOLUTIONS | {"add", "sub", "mul", "max_pool2d_with_indices", "avg_pool2d", "batch_norm"}
"""Operators that an activation is computed with"""
ACTIVATIONS = frozenset({"relu"})
NORMS = frozenset({"native_batch_norm", "_native_batch_norm_legit_no_training", "batch_norm"})
RESHAPES = frozenset({"view", "_unsafe_view", "reshape", "squeeze", "unsqueeze", "flatten", "unflatten"})
NOTHING = frozenset({"empty", "t", "alias", "detach", "dropout", "clone", "expand", "repeat", "contiguous"})
FLOAT_IN_INT8 = frozenset({"leaky_relu"})
"""Operators that LiteRT's quantiser leaves in float32, between a copy to it and one back"""
SIGNAL, ACTIVATED_SIGNAL = "transposed signal", "activated signal"
"""What makes the output of a transposed convolution of signals: its norm is folded, its ReLU an operator of its own"""
RELU6 = (0.0, 6.0)
"""Its bounds; where no operator before computes it, the quantiser leaves it in float32, too"""
ELEMENTWISE = frozenset({"add", "sub", "mul"})
ALONE = frozenset({"relu", "hardtanh", "sigmoid", "tanh", "hardswish", "gelu"})
"""Functions of one value that are one operator, in whatever order the values lie"""
POOLS = frozenset({"max_pool2d_with_indices", "avg_pool2d"})
RESIZES = frozenset({"upsample_nearest2d", "upsample_bilinear2d"})
PADS = frozenset({"constant_pad_nd", "reflection_pad2d"})
PARTS = frozenset({"split", "split_with_sizes", "slice", "select", "chunk", "narrow", "unbind"})
SAME_SCALE = frozenset({"pad", "transpose", "reshape", "slice", "max_pool2d_with_indices"})
"""Operators of int8 whose output has the scale of their input: what is joined with others is scaled anew"""
BEFORE = POOLS | RESHAPES | PARTS | PADS | {"permute", "transpose"}
"""Operators of the network that begin with one of those"""


def lower(network: Network, dtype: DType = "float32") -> Lowering:
    """Follow the network's operators as LiteRT's converter and quantiser do."""
    low = Lowering(network, dtype)
    operators = [operator for operator in network.operators if not operator.is_unused]
    written = {buffer for operator in operators for buffer in operator.writes}
    inputs = [b for o in operators for b in o.reads if b not in written]
    for buffer, shape in zip(dict.fromkeys(inputs), input_shapes(network), strict=False):
        activation = low.activation((float(math.prod(shape)), ()), "input")
        if len(shape) == 3:  # N x T x C in the file
            low.constant(("permutation", 0, 2, 1), 3)
            activation = low.step("transpose", operators[0], activation, elements=low.elements[activation])
        low.home[buffer] = Value(activation, (), is_image=len(shape) == 4)
    follow = _Follow(low, operators)
    for number in range(len(operators)):
        follow.one(number)
    follow.end()
    return low


class _Follow:
    """The way through the operators of one network."""

    def __init__(self, low: Lowering, operators: Sequence[Operator]) -> None:
        self.low = low
        self.operators = operators
        self.read = {buffer for operator in operators for buffer in operator.reads}
        self.readers: dict[int, list[Operator]] = {}
        for operator in operators:
            for buffer in operator.reads:
                self.readers.setdefault(buffer, []).append(operator)
        self.rejoined = rejoined(operators, low.size)

    def one(self, number: int) -> None:
        """What one operator becomes."""
        operator, low = self.operators[number], self.low
        values = [low.home[buffer] for buffer in operator.reads if buffer in low.home]
        if not values:
            return
        if operator.op in NOTHING:
            for buffer in operator.writes:
                low.home[buffer] = values[0]
            return
        rule = RULES.get(operator.op, _unknown)
        found = rule(self, operator, values)
        self.keep(operator, found)

    def keep(self, operator: Operator, found: Sequence[Value]) -> None:
        """Remember what an operator wrote; one that works in place or only looks anew writes where it reads."""
        if not operator.writes and found:
            self.low.home[operator.reads[0]] = found[0]
        for buffer, value in zip(operator.writes, found, strict=False):
            self.low.home[buffer] = value

    def end(self) -> None:
        """Feature maps that the network returns are copied into PyTorch's order."""
        low, values = self.low, {value.activation: value for value in self.low.home.values()}
        for activation in [number for number, death in enumerate(low.deaths) if death == UNREAD]:
            value = values.get(activation)
            if value is not None and value.is_image and len(value.dims) in (3, 4) and low.places(value) > 1:
                low.as_torch(value, self.operators[-1])

    def dims(self, operator: Operator) -> tuple[int, ...]:
        """Of the operator's first output."""
        return operator.outputs[0]


Rule = Callable[[_Follow, Operator, list[Value]], list[Value]]


def _one(follow: _Follow, operator: Operator, *values: Value, kind: str = "") -> Value:
    """One operator of LiteRT, whose output lies as its first input does."""
    low, dims = follow.low, follow.dims(operator)
    activation = low.step(kind or operator.op, operator, *(v.activation for v in values), elements=(1.0, dims))
    return replace(values[0], activation=activation, dims=dims)


def _unknown(follow: _Follow, operator: Operator, values: list[Value]) -> list[Value]:
    """An operator whose form is not known: it is taken for one, with an output each, in PyTorch's order."""
    low = follow.low
    low.unknown.append(f"{operator.op} in {operator.module or 'the model'}")
    ready = [low.as_torch(value, operator) for value in values]
    _read_tables(low, operator)
    low.node(operator.op, operator, *(value.activation for value in ready))
    wanted = [
        dims for buffer, dims in zip(operator.writes, operator.outputs, strict=False) if buffer in follow.read
    ] or list(operator.outputs[:1])
    return [Value(low.activation((1.0, dims), operator.op), dims, is_image=False) for dims in wanted]


def _read_tables(low: Lowering, operator: Operator) -> None:
    """Parameters outside of convolutions and linear layers lie in the file, too."""
    by_name = {parameter.name: parameter for parameter in low.network.parameters}
    for name in operator.parameters:
        low.table((1.0, by_name[name].dims))


# ---------------------------------------------------------------------------------------- layers


def _convolution(follow: _Follow, operator: Operator, values: list[Value]) -> list[Value]:
    if not operator.weight or len(operator.weight) > 4:
        return _unknown(follow, operator, values)
    low, source = follow.low, follow.low.as_image(values[0], operator)
    read = source.activation
    if (pad := _explicit_padding(low, operator, source)) is not None:
        low.constant(("pad", *_paddings(operator)), 8)
        read = low.step("pad", operator, read, elements=pad)
    dims = follow.dims(operator)
    low.node("convolution", operator, read, *(value.activation for value in values[1:]))
    low.layer(operator.weight, dims[1:2])
    if operator.attributes.get("transposed"):
        return [_transposed_signal(follow, operator) if len(dims) == 3 else _cropped(follow, operator)]
    return [Value(low.activation((1.0, dims), "convolution"), dims, is_image=True)]


def _cropped(follow: _Follow, operator: Operator) -> Value:
    """The output of a transposed convolution; with output padding the whole one is made first, and its sides cut."""
    low, dims = follow.low, follow.dims(operator)
    sizes = [low.size(dim) for dim in dims[2:]]
    extra, padding = (pair(operator.attributes.get(name, 0))[: len(sizes)] for name in ("output_padding", "padding"))
    cut = [(size, size + 2 * p - more) for size, p, more in zip(sizes, padding, extra, strict=True)]
    wholes = [whole if any(extra) else size for size, whole in cut]
    low.constant(("shape", *wholes, dims[1]), 4)
    term = (float(math.prod(wholes)), dims[:2]) if any(extra) else (1.0, dims)
    low.works_in(term)
    made = low.activation(term, "convolution", len(dims))
    for place, (size, whole) in enumerate(zip(sizes, wholes, strict=True)):
        if size != whole:
            wholes[place] = size
            low.constant(("slice size", *wholes, dims[1]), 4)
            low.constant(("slice", *wholes, dims[1], place), 4)
            made = low.step("slice", operator, made, elements=(float(math.prod(wholes)), dims[:2]), rank=len(dims))
    low.made_by[made] = "convolution"  # which computes norms and activations that come behind the slices
    return Value(made, dims, is_image=True)


def _transposed_signal(follow: _Follow, operator: Operator) -> Value:
    """The output of a transposed convolution of signals, an image of height 1; with output padding the whole one is
    made first, and its ReLU, and then the signal is cut in PyTorch's order."""
    low, dims = follow.low, follow.dims(operator)
    padding, extra = (pair(operator.attributes.get(name, 0))[0] for name in ("padding", "output_padding"))
    whole = low.size(dims[2]) + (2 * padding - extra if extra else 0)
    term = (float(whole), dims[:2]) if extra else (1.0, dims)
    low.constant(("shape", 1, whole, dims[1]), 4)
    low.works_in(term)
    made = low.activation(term, SIGNAL, 4)
    if not extra:
        return Value(made, dims, is_image=True)
    is_activated = _is_activated(follow, operator)
    if is_activated:
        made = low.step("relu", operator, made, elements=term, rank=4)
    signal = low.as_torch(Value(made, dims, is_image=True), operator)
    value = _slice(follow, signal, dims, operator, (2, padding))
    low.made_by[value.activation] = ACTIVATED_SIGNAL if is_activated else SIGNAL
    return value


def _is_activated(follow: _Follow, operator: Operator) -> bool:
    """Whether a ReLU alone reads what an operator computes, or its norm."""
    after = follow.readers.get(operator.writes[0], [])
    if after and after[0].op in NORMS:
        after = follow.readers.get(after[0].writes[0], [])
    return bool(after) and after[0].op in ACTIVATIONS and (len(after) == 1 or not after[0].writes)


def _dense(follow: _Follow, operator: Operator, values: list[Value]) -> list[Value]:
    if not operator.weight:
        return _product(follow, operator, values)
    low, dims = follow.low, follow.dims(operator)
    ready = [low.as_torch(value, operator).activation for value in values]
    low.node(operator.op, operator, *ready)
    low.layer(operator.weight, dims[-1:])
    return [Value(low.activation((1.0, dims), operator.op), dims, is_image=False, is_flat=True)]


def _product(follow: _Follow, operator: Operator, values: list[Value]) -> list[Value]:
    """A product of two activations; of two matrices it is a fully connected layer."""
    low, dims = follow.low, follow.dims(operator)
    is_matrix = math.prod(low.size(dim) for dim in dims[:-2]) == 1
    ready = [low.as_torch(value, operator) for value in values]
    if is_matrix:
        ready = [value if value.is_flat else low.reshaped(value, operator, value.dims[-2:]) for value in ready]
    kind = "mm" if is_matrix and _is_transposed(low, ready[-1]) else "bmm"
    made = low.step(kind, operator, *(value.activation for value in ready), elements=(1.0, dims))
    return [Value(made, dims, is_image=False, is_flat=is_matrix)]


def _is_transposed(low: Lowering, value: Value) -> bool:
    """Whether a matrix is read along its other dimension than it was written."""
    constant, dims = low.elements[value.activation]
    return constant == 1.0 and dims[-2:] == value.dims[-1:-3:-1] and len(set(value.dims[-2:])) == 2


def _explicit_padding(low: Lowering, operator: Operator, source: Value) -> Term | None:
    """The padded copy of the input, where TensorFlow's SAME is another padding than PyTorch's."""
    given = pair(operator.attributes.get("padding", 0))
    if not any(given) or operator.attributes.get("transposed"):
        return None
    sizes = [low.size(dim) for dim in source.dims[2:]] or list(input_shapes(low.network)[0])[2:]
    if _is_same(operator, sizes, [low.size(dim) for dim in operator.weight[2:]]):
        return None
    padded = math.prod(size + 2 * p for size, p in zip(sizes, given, strict=False))
    constant, dims = low.elements[source.activation]
    return (constant * padded, source.dims[:2]) if source.dims else (constant / math.prod(sizes) * padded, dims)


def _is_same(operator: Operator, sizes: Sequence[int], kernel: Sequence[int]) -> bool:
    """Whether an operator's padding is the one that TensorFlow calls SAME."""
    given = pair(operator.attributes.get("padding", 0))
    stride = pair(operator.attributes.get("stride") or tuple(kernel))
    dilation = pair(operator.attributes.get("dilation", 1))
    places = zip(sizes, kernel, stride, dilation, given, strict=False)
    return all(_same(size, k, s, d) == (p, p) for size, k, s, d, p in places)


def _paddings(operator: Operator) -> tuple[int, int]:
    """Rows and columns that a convolution or pool pads on each side."""
    given = pair(operator.attributes.get("padding", 0))
    return (0, given[0]) if len(operator.weight) == 3 else given


def _same(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """TensorFlow's padding, before and after: as many as make ``ceil(size / stride)`` places.

    >>> _same(32, 3, 1, 1), _same(32, 3, 2, 1), _same(33, 3, 2, 1)
    ((1, 1), (0, 1), (1, 1))
    """
    total = max((-(-size // stride) - 1) * stride + dilation * (kernel - 1) + 1 - size, 0)
    return total // 2, total - total // 2


def pair(value: int | Sequence[int]) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    return (value[0], value[-1]) if len(value) else (0, 0)


# ---------------------------------------------------------------------------------------- value by value


def _elementwise(follow: _Follow, operator: Operator, values: list[Value]) -> list[Value]:
    """A sum or product; all its operands lie in one order. A bias that follows a matrix product is a part of it."""
    low = follow.low
    if _is_bias(low, operator, values):
        return [replace(values[0], dims=follow.dims(operator))]
    if any(value.is_image for value in values):
        values = [low.as_image(value, operator) for value in values]
    _read_tables(low, operator)
    if isinstance(number := operator.attributes.get("other"), int | float):
        low.number(("number", number))
    largest = max(values, key=lambda value: len(value.dims) or 9)
    made = _one(follow, operator, *values)
    return [replace(largest, activation=made.activation, dims=made.dims)]


def _is_bias(low: Lowering, operator: Operator, values: list[Value]) -> bool:
    made_by = low.made_by[values[0].activation]
    return operator.op == "add" and len(values) == 1 and made_by in {"mm", "linear"} and len(operator.parameters) == 1


def _function(follow: _Follow, operator: Operator, values: list[Value]) -> list[Value]:
    """ReLU, ReLU6 and the like become a part of the operator before; other functions are operators."""
    low, value = follow.low, values[0]
    is_done = low.made_by[value.activation] == ACTIVATED_SIGNAL and operator.op in ACTIVATIONS
    if is_done or _is_fused_activation(low, operator, value):
        low.made_by[value.activation] = "activated"
        return [value]
    if low.dtype == "int8" and (operator.op in FLOAT_IN_INT8 or _bounds(operator) == RELU6):
        return [_in_float(low, operator, value)]
    return [_one(follow, operator, value)]


def _is_fused_activation(low: Lowering, operator: Operator, value: Value) -> bool:
    alone = operator.fused_into is not None or not operator.writes
    is_one = operator.op in ACTIVATIONS or _bounds(operator) in (RELU6, (-1.0, 1.0))
    return is_one and alone and low.made_by[value.activation] in FUSES and not _is_apart(low, operator, value)


def _is_apart(low: Lowering, operator: Operator, value: Value) -> bool:
    """Whether it is a ReLU6 behind a transposed convolution, which only computes a ReLU."""
    before = low.nodes[low.births[value.activation]].operator
    return bool(before.attributes.get("transposed")) and operator.op not in ACTIVATIONS


def _bounds(operator: Operator) -> tuple[float, float] | None:
    """Of a function that is the identity between two values."""
    given = operator.attributes
    return (given["min_val"], given["max_val"]) if operator.op == "hardtanh" else None


def _in_float(low: Lowering, operator: Operator, value: Value) -> Value:
    """One operator in float32 between a copy to it and one back."""
    activation, (factor, dims) = value.activation, low.elements[value.activation]
    for kind, width in (("dequantize", 4.0), (operator.op, 4.0), ("quantize", 1.0)):
        activation = low.step(kind, operator, activation, elements=(width * factor, dims))
    return replace(value, activation=activation)


def _silu(follow: _Follow, operator: Operator, values: list[Value]) -> list[Value]:
    """A sigmoid and a product."""
    low, source = follow.low, values[0].activation
    gate = low.step("sigmoid", operator, source, elements=low.elements[source])
    return [replace(values[0], activation=low.step("mul", operator, source, gate, elements=low.elements[source]))]


def _gate(follow: _Follow, operator: Operator, values: list[Value]) -> list[Value]:
    """One half of the channels, times the sigmoid of the other."""
    low, source, half = follow.low, values[0].activation, (1.0, follow.dims(operator))
    low.constant(("slice size", operator.module), 4)
    halves = []
    for number in range(2):
        low.constant(("slice", operator.module, number), 4)
        halves.append(low.step("slice", operator, source, elements=half))
    gate = low.step("sigmoid", operator, halves[1], elements=half)
    made = low.step("mul", operator, halves[0], gate, elements=half)
    return [replace(values[0], activation=made, dims=half[1])]


def _hard_sigmoid(follow: _Follow, operator: Operator, values: list[Value]) -> list[Value]:
    """ReLU6(x + 3) / 6: the sum and ReLU6 go into a convolution before, the sixth into one that follows."""
    low, value = follow.low, values[0]
    if low.made_by[value.activation] not in CONVOLUTIONS:
        low.number(("number", 3.0))
        value = _one(follow, operator, value, kind="add")
    after = follow.readers.get((operator.writes or operator.reads)[0], [])
    if len(after) == 1 and after[0].op == "convolution":
        return [value]
    low.number(("number", 1 / 6))
    return [_one(follow, operator, value, kind="mul")]


def _prelu(follow: _Follow, operator: Operator, values: list[Value]) -> list[Value]:
    """ReLU(x) - slope * (-x): LiteRT has an operator for it, which the converter does not use."""
    low, value = follow.low, values[0]
    positive = _one(follow, operator, value, kind="relu")
    low.number(("number", -1.0))
    _read_tables(low, operator)
    negative = _one(follow, operator, _one(follow, operator, value, kind="mul"), kind="mul")
    return [_one(follow, operator, positive, negative, kind="sub")]


# ---------------------------------------------------------------------------------------- norms


def _batch_norm(follow: _Follow, operator: Operator, values: list[Value]) -> list[Value]:
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
        value = _one(follow, operator, value, kind=kind)
    return [value]


def _instance_norm(follow: _Follow, operator: Operator, value: Value) -> list[Value]:
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


def _group_norm(follow: _Follow, operator: Operator, values: list[Value]) -> list[Value]:
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


def _layer_norm(follow: _Follow, operator: Operator, values: list[Value]) -> list[Value]:
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


def _affine(follow: _Follow, operator: Operator, value: Value, do: _Chain, made: int) -> int:
    """The scale and shift of a norm, as a product and a sum where no linear layer takes them in."""
    low, whole = follow.low, follow.low.elements[value.activation]
    after = [each for each in follow.readers.get(operator.writes[0], ()) if each.op not in RESHAPES | NOTHING]
    if not operator.parameters or (after and all(each.op in DENSE for each in after)):
        return made
    _read_tables(low, operator)
    return do("add", do("mul", made, elements=whole), elements=whole)


# ---------------------------------------------------------------------------------------- shapes


def _view(follow: _Follow, operator: Operator, values: list[Value]) -> list[Value]:
    """Linear layers look at any tensor as a matrix; elsewhere a tensor is put in PyTorch's order and reshaped."""
    low, value, dims = follow.low, values[0], follow.dims(operator)
    if _is_signal_as_image(low, value, dims) or _same_sizes(low, value, dims):
        return [replace(value, dims=dims) if value.dims else value]
    value = low.as_torch(value, operator)
    if _is_for_linear(follow, operator, value):
        return [replace(value, dims=dims)]
    return [low.reshaped(value, operator, dims) if not value.is_flat or value.is_image else replace(value, dims=dims)]


def _is_signal_as_image(low: Lowering, value: Value, dims: tuple[int, ...]) -> bool:
    """Whether a signal is only looked at as an image of height 1, or back, as pools of one dimension do it."""
    sizes = [[low.size(dim) for dim in each if low.size(dim) != 1] for each in (value.dims, dims)]
    return value.is_image and {len(value.dims), len(dims)} == {3, 4} and sizes[0] == sizes[1]


def _same_sizes(low: Lowering, value: Value, dims: tuple[int, ...]) -> bool:
    return [low.size(dim) for dim in value.dims] == [low.size(dim) for dim in dims]


def _is_for_linear(follow: _Follow, operator: Operator, value: Value) -> bool:
    """Whether a linear layer makes a matrix of its input, or a tensor of its output."""
    low = follow.low
    if low.made_by[value.activation] in DENSE and value.is_flat:
        return True
    after = [each for each in follow.readers.get(operator.reads[0], ()) if each.module == operator.module]
    last = operator.outputs[0][-1]
    is_linear = any(each.op in DENSE and each.weight for each in after)
    return is_linear and bool(value.dims) and low.size(value.dims[-1]) == low.size(last)


def _permute(follow: _Follow, operator: Operator, values: list[Value]) -> list[Value]:
    """From one order of images to the other it is nothing; a matrix is transposed by the product that reads it."""
    low, value, dims = follow.low, values[0], follow.dims(operator)
    order = _order(operator, low.rank(value))
    if value.is_image and order == (0, 2, 3, 1):
        return [Value(value.activation, dims, is_image=False)]
    if not value.is_image and order == (0, 3, 1, 2):
        return [Value(value.activation, dims, is_image=True)]
    value = low.as_torch(value, operator)
    if value.is_flat and _is_for_product(follow, operator):
        return [replace(value, dims=dims)]
    low.constant(("permutation", *order), len(order))
    return [Value(_one(follow, operator, value, kind="transpose").activation, dims, is_image=False)]


def _order(operator: Operator, rank: int) -> tuple[int, ...]:
    """The permutation of a transposition."""
    if "dims" in operator.attributes:
        return tuple(int(dim) % rank for dim in operator.attributes["dims"])
    order = list(range(rank))
    one, other = (int(operator.attributes.get(name, default)) for name, default in (("dim0", -2), ("dim1", -1)))
    order[one], order[other] = order[other], order[one]
    return tuple(order)


def _is_for_product(follow: _Follow, operator: Operator) -> bool:
    after = follow.readers.get(operator.writes[0], []) if operator.writes else []
    return any(each.op in {"bmm", "matmul"} for each in after)


def _cat(follow: _Follow, operator: Operator, values: list[Value]) -> list[Value]:
    """In int8, parts of another scale than the whole are scaled anew."""
    low = follow.low
    if operator.writes and operator.writes[0] in follow.rejoined.joined:
        return [_rejoined(follow, operator, values[0])]
    if any(value.is_image for value in values):
        values = [low.as_image(value, operator) for value in values]
    _read_tables(low, operator)
    if low.dtype == "int8" and not _are_one_tensor(low, values):
        values = [
            _scaled_anew(low, operator, value) if _has_own_scale(follow, buffer, value) else value
            for buffer, value in zip(operator.reads, values, strict=False)
        ]
    return [_one(follow, operator, *values)]


def _rejoined(follow: _Follow, operator: Operator, whole: Value) -> Value:
    """What is put together of parts that lie side by side: the tensor that they are of, or one part of it."""
    low, dims, part = follow.low, follow.dims(operator), follow.rejoined.parts[operator.writes[0]]
    if not whole.dims or low.size(whole.dims[part.dim]) == part.size:
        return replace(whole, dims=dims)
    return _slice(follow, whole, dims, operator, (part.dim, part.start))


def _are_one_tensor(low: Lowering, values: list[Value]) -> bool:
    """Whether they are all parts of one tensor, so that what they make together has its range, and so its scale."""
    parts = {value.activation for value in values}
    wholes = {_whole(low, part) for part in parts}
    elements = [sum(low.items(low.elements[number]) for number in numbers) for numbers in (parts, wholes)]
    return len(wholes) == 1 and elements[0] == elements[1]


def _whole(low: Lowering, activation: int) -> int:
    """The activation whose scale one has in int8: itself, or what it was cut from, moved or padded."""
    while low.made_by[activation] in SAME_SCALE and low.nodes[low.births[activation]].reads:
        activation = low.nodes[low.births[activation]].reads[0]
    return activation


def _has_own_scale(follow: _Follow, buffer: int, value: Value) -> bool:
    low = follow.low
    if low.made_by[value.activation] in SAME_SCALE:
        return True
    return any(_begins_with_same_scale(low, each, value) for each in follow.readers.get(buffer, ()))


def _begins_with_same_scale(low: Lowering, operator: Operator, value: Value) -> bool:
    if operator.op == "convolution" and operator.weight and value.is_image:
        return _explicit_padding(low, operator, value) is not None
    return operator.op in BEFORE


def _scaled_anew(low: Lowering, operator: Operator, value: Value) -> Value:
    made = low.step("quantize", operator, value.activation, elements=low.elements[value.activation])
    return replace(value, activation=made)


def _parts(follow: _Follow, operator: Operator, values: list[Value]) -> list[Value]:
    """A slice of its own for each part that is read."""
    found = []
    for buffer, dims in zip(operator.writes, operator.outputs, strict=False):
        is_made = buffer in follow.read and buffer not in follow.rejoined.dropped
        part = follow.rejoined.parts.get(buffer)
        start = ("of", buffer) if part is None else (part.dim, part.start)
        found.append(_slice(follow, values[0], dims, operator, start) if is_made else values[0])
    return found


def _slice(
    follow: _Follow, value: Value, dims: tuple[int, ...], operator: Operator, start: tuple[Hashable, int]
) -> Value:
    """A part of a tensor, with where it begins and how large it is as constants.

    Args:
        follow: the way through the network.
        value: the tensor.
        dims: of the part.
        operator: that asks for it.
        start: the dimension that is cut, and its first index; what is equal begins at the same place.
    """
    low, rank = follow.low, follow.low.rank(value)
    low.constant(("slice size", tuple(low.size(dim) for dim in dims), value.is_image), rank)
    low.constant(("slice", rank, start if start[1] else 0, value.is_image), rank)
    made = low.step("slice", operator, value.activation, elements=(1.0, dims))
    return replace(value, activation=made, dims=dims)


def _mean(follow: _Follow, operator: Operator, values: list[Value]) -> list[Value]:
    """In the order it finds where the dimensions stay, else in PyTorch's."""
    low, value, dims = follow.low, values[0], follow.dims(operator)
    axes = operator.attributes.get("dim") or ()
    axes = (axes,) if isinstance(axes, int) else tuple(axes)
    keeps = bool(operator.attributes.get("keepdim"))
    value = value if keeps else low.as_torch(value, operator)
    low.constant(("axes", *(sorted(axis % low.rank(value) for axis in axes)), value.is_image), len(axes))
    made = _one(follow, operator, value)
    low.works_in((1.0, dims), is_mean=True)
    return [replace(made, dims=dims, is_image=value.is_image and keeps, is_flat=False)]


def _pool(follow: _Follow, operator: Operator, values: list[Value]) -> list[Value]:
    """A padding that TensorFlow has no name for is a copy: of zeros, or of the smallest value where a pool looks for
    the largest."""
    low, value = follow.low, follow.low.as_image(values[0], operator)
    given, sizes = pair(operator.attributes.get("padding", 0)), [low.size(dim) for dim in value.dims[2:]]
    if not any(given) or _is_same(operator, sizes, pair(operator.attributes["kernel_size"])):
        return [_one(follow, operator, value)]
    low.constant(("pad", *given), 8)
    kind = "pad"
    if operator.op == "max_pool2d_with_indices":
        kind = "pad_v2"
        low.number(("number", -math.inf))
    places = math.prod(size + 2 * p for size, p in zip(sizes, given, strict=False))
    padded = low.step(kind, operator, value.activation, elements=(float(places), value.dims[:2]))
    return [_one(follow, operator, replace(value, activation=padded))]


def _adaptive_pool(follow: _Follow, operator: Operator, values: list[Value]) -> list[Value]:
    """To a fixed number of places that the image is a multiple of: an average pool."""
    return [_one(follow, operator, follow.low.as_image(values[0], operator), kind="avg_pool2d")]


def _resize(follow: _Follow, operator: Operator, values: list[Value]) -> list[Value]:
    low, dims = follow.low, follow.dims(operator)
    low.constant(("size", *(low.size(dim) for dim in dims[2:])), 2)
    return [_one(follow, operator, low.as_image(values[0], operator))]


def _pad(follow: _Follow, operator: Operator, values: list[Value]) -> list[Value]:
    low, given = follow.low, tuple(operator.attributes.get("pad", operator.attributes.get("padding", ())))
    low.constant(("pad", *given[1:4:2]) if len(given) == 4 else ("pad", *given), 8)
    return [_one(follow, operator, values[0])]


def _softmax(follow: _Follow, operator: Operator, values: list[Value]) -> list[Value]:
    """Over the dimension that lies last; before and after another one, a transposition."""
    low, value = follow.low, values[0]
    rank = low.rank(value)
    axis = int(operator.attributes.get("dim", -1)) % rank
    if axis == (1 if value.is_image else rank - 1):
        ready = low.reshaped(value, operator, value.dims) if value.is_flat and rank > 2 else value
        return [replace(_one(follow, operator, ready), is_flat=False)]
    value = low.as_torch(value, operator)
    for kind in ("transpose", operator.op, "transpose"):
        low.constant(("permutation", "softmax", axis), rank)
        value = _one(follow, operator, value, kind=kind)
    return [value]


def _pixel_shuffle(follow: _Follow, operator: Operator, values: list[Value]) -> list[Value]:
    """Three reshapes with two transpositions between them."""
    value = follow.low.as_torch(values[0], operator)
    for number, kind in enumerate(("reshape", "transpose", "reshape", "transpose", "reshape")):
        follow.low.constant((operator.op, operator.module, number), 4)
        value = _one(follow, operator, value, kind=kind)
    return [value]


def _channel_shuffle(follow: _Follow, operator: Operator, values: list[Value]) -> list[Value]:
    """Two reshapes with a transposition between them."""
    value = follow.low.as_torch(values[0], operator)
    for number, kind in enumerate(("reshape", "transpose", "reshape")):
        follow.low.constant((operator.op, operator.module, number), 5 if number < 2 else 4)
        value = _one(follow, operator, value, kind=kind)
    return [value]


RULES: dict[str, Rule] = {
    "convolution": _convolution,
    **dict.fromkeys(DENSE, _dense),
    **dict.fromkeys(("bmm", "matmul"), _product),
    **dict.fromkeys(ELEMENTWISE, _elementwise),
    **dict.fromkeys(ALONE | FLOAT_IN_INT8, _function),
    "silu": _silu,
    "glu": _gate,
    "hardsigmoid": _hard_sigmoid,
    **dict.fromkeys(("_prelu_kernel", "prelu"), _prelu),
    **dict.fromkeys(NORMS, _batch_norm),
    "native_group_norm": _group_norm,
    "native_layer_norm": _layer_norm,
    **dict.fromkeys(RESHAPES, _view),
    **dict.fromkeys(("permute", "transpose"), _permute),
    **dict.fromkeys(PARTS, _parts),
    "cat": _cat,
    "mean": _mean,
    **dict.fromkeys(POOLS, _pool),
    "_adaptive_avg_pool2d": _adaptive_pool,
    **dict.fromkeys(RESIZES, _resize),
    **dict.fromkeys(PADS, _pad),
    **dict.fromkeys(("_softmax", "_safe_softmax"), _softmax),
    "pixel_shuffle": _pixel_shuffle,
    "channel_shuffle": _channel_shuffle,
}
"""How each operator is followed"""
