"""What a network takes on a microcontroller: bytes of its ``.tflite`` and of the tensor arena, before they exist.

The operators are followed as LiteRT's converter turns them: batch norms and activations go into the convolution before
them; a convolution whose padding is not the one TensorFlow calls SAME gets a PAD operator, with a copy of its input.
The arena has a head, where activations are placed at offsets that are free while they live, and a tail of the
interpreter's own structures. The offsets are planned here (`pack`) and written into the file, which TensorFlow Lite for
Microcontrollers honours; its own planner takes up to a third more. The constants were read off the real files and
arenas of VGG-16, ResNet-20 and -56 and MobileNetV2 (`benchmarks/footprint.py` shows how far off they are).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pretrim.analysis.network import IntArray, Network, Operator

from .arena import pack, place, top
from .formula import DType, FormulaCost, Term, formula, item_bytes

CHANNEL_BYTES = 8
"""multiplier and shift of each output channel of a convolution"""


@dataclass(frozen=True)
class Structures:
    """Bytes of the interpreter's own structures, which depend on how long its pointers are.

    Attributes:
        fixed: once: the allocator, the planner, the graph.
        node: each operator: eight pointers or numbers (`TfLiteNode` and its registration), and its options.
        tensor: each tensor (`TfLiteEvalTensor`).
        kernel: what a convolution, a sum or a mean keeps (its `OpData`), aligned.
        dense: what a fully connected layer keeps.
    """

    fixed: int
    node: int
    tensor: int
    kernel: int
    dense: int

    def tail(self, nodes: int, tensors: int, kernels: int, dense: int) -> int:
        """All of them, without what channels take; dense layers are not among `kernels`.

        Args:
            nodes: operators of the file.
            tensors: tensors of the file.
            kernels: convolutions, depthwise ones too.
            dense: fully connected layers.
        """
        return self.fixed + self.node * nodes + self.tensor * tensors + self.kernel * kernels + self.dense * dense


STRUCTURES = {
    8: Structures(fixed=552, node=64 + 25, tensor=24, kernel=80, dense=80),
    4: Structures(fixed=300, node=32 + 25, tensor=12, kernel=64, dense=48),
}
"""By bytes of a pointer. A 64-bit host's are as `print_allocations` of the release 0.dev20261023 shows them. A
microcontroller's follow from the same declarations; the fixed part is what remains of MLPerf Tiny's and the person
detection network's arenas on an ESP32 (mcufit-bench: tests/test_board_arena.py)."""

# The flatbuffer, without the buffers in it.
FILE_BYTES = 730
TENSOR_BYTES = 118
SCALE_BYTES = 12
"""scale and zero point of each channel, of weights and of biases"""
SHAPE_BYTES = PERMUTATION_BYTES = 16
"""four int32"""

DENSE = frozenset({"addmm", "linear", "mm"})
CONVOLUTIONS = DENSE | {"convolution"}
FUSES = CONVOLUTIONS | {"add", "sub", "mul", "max_pool2d_with_indices", "avg_pool2d", "batch_norm"}
"""Operators that an activation is computed with"""
ACTIVATIONS = frozenset({"relu"})
NORMS = frozenset({"native_batch_norm", "_native_batch_norm_legit_no_training", "batch_norm"})
RESHAPES = frozenset({"view", "_unsafe_view", "reshape", "squeeze", "unsqueeze", "flatten"})
NOTHING = frozenset({"empty", "t", "alias", "detach", "dropout", "permute", "transpose"})
UNREAD = -1
Kernels: TypeAlias = Literal["reference", "cmsis-nn"]
"""Which kernels TensorFlow Lite for Microcontrollers was built with"""
KEEP = frozenset({"add", "sub", "mul", "mean"})
FLOAT_IN_INT8 = frozenset({"leaky_relu"})
"""Operators that LiteRT's quantiser leaves in float32, between a copy to it and one back"""


@dataclass(frozen=True)
class Node:
    """An operator of LiteRT: what it is called here, what it was made of, and the activations it reads."""

    kind: str
    operator: Operator
    reads: tuple[int, ...]


@dataclass
class Lowering:
    """A network on its way to LiteRT."""

    network: Network
    dtype: DType = "float32"
    nodes: list[Node] = field(default_factory=list)
    constants: int = 0
    """tensors that hold no activation"""
    constant_bytes: int = 0
    elements: list[Term] = field(default_factory=list)
    births: list[int] = field(default_factory=list)
    deaths: list[int] = field(default_factory=list)
    home: dict[int, int] = field(default_factory=dict)
    """the activation that a buffer is"""
    made_by: dict[int, str] = field(default_factory=dict)
    weights: list[tuple[Term, Term]] = field(default_factory=list)
    """of each convolution or linear layer: its weights and its output channels"""
    tables: list[Term] = field(default_factory=list)
    """Elements of every other parameter and buffer that an operator reads: slopes, positions, scales"""
    scratch: list[tuple[int, Term]] = field(default_factory=list)
    """memory that a kernel works in while its node runs, in items of the data type"""

    @property
    def kinds(self) -> list[str]:
        """Of every node."""
        return [node.kind for node in self.nodes]

    def node(self, kind: str, operator: Operator, *reads: int) -> None:
        """A new node that reads activations."""
        self.nodes.append(Node(kind, operator, reads))
        for activation in reads:
            self.deaths[activation] = len(self.nodes) - 1

    def activation(self, elements: Term, kind: str) -> int:
        """A new activation, which the last operator writes."""
        number = max(len(self.nodes) - 1, 0)
        self.elements.append(elements)
        self.births.append(number)
        self.deaths.append(UNREAD)
        self.made_by[len(self.elements) - 1] = kind
        return len(self.elements) - 1

    def of(self, buffer: int) -> int:
        """The activation of a buffer: the network's inputs are met when they are first read."""
        if buffer not in self.home:
            raise KeyError(f"buffer {buffer} is read before it is written")
        return self.home[buffer]


def lower(network: Network, dtype: DType = "float32") -> Lowering:
    """Follow the network's operators as LiteRT's converter and quantiser do."""
    low = Lowering(network, dtype)
    operators = [operator for operator in network.operators if not operator.is_unused]
    written = {buffer for operator in operators for buffer in operator.writes}
    shapes = _input_shapes(network)
    inputs = [b for o in operators for b in o.reads if b not in written]
    for buffer, shape in zip(dict.fromkeys(inputs), shapes, strict=False):
        low.home[buffer] = low.activation((float(math.prod(shape)), ()), "input")
    read = {buffer for operator in operators for buffer in operator.reads}
    for operator in operators:
        _lower(low, operator, read)
    _return(low)
    return low


def _return(low: Lowering) -> None:
    """Feature maps that the network returns are copied into PyTorch's order."""
    sizes = low.network.sizes(low.network.dense)
    for activation in [number for number, death in enumerate(low.deaths) if death == UNREAD]:
        factor, dims = low.elements[activation]
        if len(dims) == 4 and math.prod(int(sizes[dim]) for dim in dims[2:]) > 1:
            low.node("transpose", _last(low.network), activation)
            low.constants += 1
            low.constant_bytes += PERMUTATION_BYTES
            low.activation((factor, dims), "transpose")


def _last(network: Network) -> Operator:
    """The last operator that an output depends on."""
    return next(operator for operator in reversed(network.operators) if not operator.is_unused)


def _input_shapes(network: Network) -> list[Sequence[int]]:
    """Shapes of the inputs, in the order in which `identity.describe` gives them."""
    found: list[Sequence[int]] = []

    def walk(part: object) -> None:
        if isinstance(part, dict) and "shape" in part:
            found.append(part["shape"])
        elif isinstance(part, dict):
            for value in part.values():
                walk(value)
        elif isinstance(part, list | tuple):
            for value in part:
                walk(value)

    walk(network.example)
    return found


def _lower(low: Lowering, operator: Operator, read: set[int]) -> None:
    reads = [low.of(buffer) for buffer in operator.reads if buffer in low.home]
    if operator.op in NOTHING or not reads:
        for buffer in operator.writes if reads else ():
            low.home[buffer] = reads[0]
        return
    if operator.op in RESHAPES:
        _reshape(low, operator, reads[0])
    elif operator.op in NORMS and _is_weighted(low, reads[0]) and operator.fused_into is not None:
        low.home[operator.writes[0]] = reads[0]
    elif _is_fused_activation(operator, low.made_by[reads[0]]):
        for buffer in operator.writes or operator.reads:
            low.home[buffer] = reads[0]
        low.made_by[reads[0]] = "activated"
    elif operator.op in CONVOLUTIONS and operator.weight:
        _convolve(low, operator, reads)
    else:
        _others(low, operator, reads, read)


def _is_weighted(low: Lowering, activation: int) -> bool:
    return low.made_by[activation] in CONVOLUTIONS


def _is_fused_activation(operator: Operator, made_by: str) -> bool:
    """ReLU, ReLU6 and the like become a part of the operator before; other activations are operators."""
    alone = operator.fused_into is not None or not operator.writes
    bounds = operator.attributes.get("min_val"), operator.attributes.get("max_val")
    is_one = operator.op in ACTIVATIONS or (operator.op == "hardtanh" and bounds in ((0.0, 6.0), (-1.0, 1.0)))
    return is_one and alone and made_by in FUSES


def _reshape(low: Lowering, operator: Operator, activation: int) -> None:
    """Where channels and places are put in one dimension, they are first put in PyTorch's order."""
    sizes = low.network.sizes(low.network.dense)
    shape = [int(sizes[dim]) for dim in operator.outputs[0]]
    elements = low.elements[activation]
    if len(shape) != 2 or len(elements[1]) != 4 or low.made_by[activation] == "mean":
        return
    if math.prod(int(sizes[dim]) for dim in elements[1][2:]) > 1:
        for kind in ("transpose", "reshape"):
            low.node(kind, operator, activation)
            low.constants += 1
            activation = low.activation((1.0, operator.outputs[0]), kind)
    low.home[operator.reads[0]] = activation


def _convolve(low: Lowering, operator: Operator, reads: list[int]) -> None:
    source = reads[0]
    if operator.op == "convolution" and (pad := _explicit_padding(low, operator, source)) is not None:
        low.node("pad", operator, source)
        low.constants += 1
        low.constant_bytes += 32  # four pairs of int32
        source = low.activation(pad, "pad")
    low.node(operator.op, operator, source, *reads[1:])
    channels: Term = (1.0, operator.outputs[0][1:2])
    low.weights.append(((1.0, operator.weight), channels))
    low.constants += 2
    if operator.attributes.get("transposed"):
        low.constants += 1
        low.constant_bytes += SHAPE_BYTES
        if low.dtype == "int8":  # it sums up in int32
            low.scratch.append((len(low.nodes) - 1, (4.0, operator.outputs[0])))
    low.home[operator.writes[0]] = low.activation((1.0, operator.outputs[0]), operator.op)


def _explicit_padding(low: Lowering, operator: Operator, source: int) -> Term | None:
    """The padded copy of the input, where TensorFlow's SAME is another padding than PyTorch's."""
    given, stride, dilation = (_pair(operator.attributes.get(name, 0)) for name in ("padding", "stride", "dilation"))
    constant, dims = low.elements[source]
    is_image = len(operator.weight) == 4
    if not any(given) or not is_image or len(dims) not in (0, 4) or operator.attributes.get("transposed"):
        return None
    sizes = low.network.sizes(low.network.dense)
    if dims:
        height, width = (int(sizes[dim]) for dim in dims[2:])
    else:
        height, width = list(_input_shapes(low.network)[0])[2:]
    kernel = [int(sizes[dim]) for dim in operator.weight[2:]]
    if all(
        _same(size, k, s, d) == (p, p)
        for size, k, s, d, p in zip((height, width), kernel, stride, dilation, given, strict=True)
    ):
        return None
    padded = (height + 2 * given[0]) * (width + 2 * given[1])
    if dims:
        return (constant * padded, dims[:2])
    return (constant / (height * width) * padded, ())


def _same(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """TensorFlow's padding, before and after: as many as make ``ceil(size / stride)`` places.

    >>> _same(32, 3, 1, 1), _same(32, 3, 2, 1), _same(33, 3, 2, 1)
    ((1, 1), (0, 1), (1, 1))
    """
    total = max((-(-size // stride) - 1) * stride + dilation * (kernel - 1) + 1 - size, 0)
    return total // 2, total - total // 2


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    return (value[0], value[-1]) if len(value) else (0, 0)


def _others(low: Lowering, operator: Operator, reads: list[int], read: set[int]) -> None:
    if operator.op in NORMS:  # one that follows no convolution: a product and a sum
        for kind in ("mul", "add"):
            low.node(kind, operator, *reads)
            low.constants += 1
            reads = [low.activation((1.0, operator.outputs[0]), kind)]
        low.home[operator.writes[0]] = reads[0]
        return
    if operator.op == "silu" or (low.dtype == "int8" and operator.op in FLOAT_IN_INT8):
        low.home[(operator.writes or operator.reads)[0]] = _several(low, operator, reads[0])
        return
    _read_tables(low, operator)
    low.node(operator.op, operator, *reads)
    low.constants += operator.op == "mean"
    low.constant_bytes += 8 * (operator.op == "mean")
    if not operator.writes:
        low.home[operator.reads[0]] = low.activation(low.elements[reads[0]], operator.op)
    last = operator is _last(low.network)
    for buffer, dims in zip(operator.writes, operator.outputs, strict=False):
        if buffer in read or last:
            low.home[buffer] = low.activation((1.0, dims), operator.op)


def _read_tables(low: Lowering, operator: Operator) -> None:
    """Parameters outside of convolutions and linear layers lie in the file, too."""
    by_name = {parameter.name: parameter for parameter in low.network.parameters}
    for name in operator.parameters:
        low.tables.append((1.0, by_name[name].dims))
        low.constants += 1


def _several(low: Lowering, operator: Operator, source: int) -> int:
    """An operator that becomes several: a sigmoid and a product, or one in float32 between its copies."""
    factor, dims = low.elements[source]
    if operator.op == "silu":
        low.node("sigmoid", operator, source)
        gate = low.activation((factor, dims), "sigmoid")
        low.node("mul", operator, source, gate)
        return low.activation((factor, dims), "mul")
    for kind, width in (("dequantize", 4.0), (operator.op, 4.0), ("quantize", 1.0)):
        low.node(kind, operator, source)
        source = low.activation((width * factor, dims), kind)
    return source


@dataclass(frozen=True)
class ArenaCost:
    """Bytes of the tensor arena. It may rise when a width falls: plans are searched by `bound` and verified by this."""

    elements: Callable[[IntArray], NDArray[np.float64]]
    """Items of each activation, then of what CMSIS-NN's kernels work in"""
    births: tuple[int, ...]
    deaths: tuple[int, ...]
    tail: FormulaCost
    bound: FormulaCost
    """The largest sum of activations alive at once, and the tail: what no planner can go below"""
    item: int
    planned: bool = True
    """By `pack`, whose offsets `export` writes into the file; else by the microcontroller's own planner"""
    unplanned: int = 0
    """How many of the last elements no plan in the file knows of: they go where the planned ones leave room"""
    name: str = "arena_bytes"

    def __call__(self, widths: ArrayLike) -> IntArray:
        """Values (n) for widths (n x G), or one value for widths (G)."""
        rows = np.atleast_2d(np.asarray(widths, dtype=np.int64))
        sizes = np.rint(self.elements(rows)).astype(np.int64) * self.item
        values = np.array([self._head(row) for row in sizes.tolist()], dtype=np.int64) + self.tail(rows)
        result: IntArray = values[0] if np.ndim(widths) == 1 else values
        return result

    def _head(self, sizes: list[int]) -> int:
        """Bytes of the activations, placed as the file's plan has them, and of scratch memory in the gaps."""
        known = len(sizes) - self.unplanned
        fixed = pack(sizes[:known], self.births[:known], self.deaths[:known]) if self.planned else []
        return top(sizes, place(sizes, self.births, self.deaths, fixed=fixed))


def arena_cost(
    network: Network,
    dtype: DType = "int8",
    *,
    planned: bool = True,
    pointer_bytes: Literal[4, 8] = 8,
    kernels: Kernels = "reference",
) -> ArenaCost:
    """The arena as a function of widths.

    Args:
        network: analysed.
        dtype: of its activations.
        planned: by `pack`, as `export` writes it into the file; else by the microcontroller's own planner.
        pointer_bytes: 4 on a microcontroller; 8 on a 64-bit host, as `deploy.micro` measures it.
        kernels: those of CMSIS-NN work in memory of their own, in int8: `cmsis_nn_scratch`.
    """
    low, item = lower(network, dtype), item_bytes(dtype)
    of_kernels = cmsis_nn_scratch(low) if kernels == "cmsis-nn" and dtype == "int8" else []
    scratch = [*low.scratch, *of_kernels]
    places = [place for place, _ in scratch]
    births, deaths = (*low.births, *places), (*_deaths(low), *places)
    elements = [*low.elements, *(size for _, size in scratch)]
    tail = _tail(low, STRUCTURES[pointer_bytes])
    alive = _together(births, deaths)
    columns = [[*tail, *((item * elements[t][0], elements[t][1]) for t in moment)] for moment in alive]
    return ArenaCost(
        elements=formula(network, [[size] for size in elements]),
        births=births,
        deaths=deaths,
        tail=FormulaCost("tail_bytes", formula(network, [tail])),
        bound=FormulaCost("arena_bytes", formula(network, columns)),
        item=item,
        planned=planned,
        unplanned=len(of_kernels),
    )


def _deaths(low: Lowering) -> tuple[int, ...]:
    """What nobody reads is an output, and lives to the end."""
    last = len(low.nodes) - 1
    return tuple(last if death == UNREAD else death for death in low.deaths)


def _together(births: Sequence[int], deaths: Sequence[int]) -> list[tuple[int, ...]]:
    moments = {
        tuple(t for t in range(len(births)) if births[t] <= moment <= deaths[t]) for moment in {*births, *deaths}
    }
    return sorted(moments)


def cmsis_nn_scratch(low: Lowering) -> list[tuple[int, Term]]:
    """Memory that CMSIS-NN's int8 kernels work in while a node runs, on cores with the DSP extension.

    A convolution unfolds two columns of its input to int16 (``arm_convolve_s8_get_buffer_size``), a depthwise one its
    filters (``arm_depthwise_conv_s8_opt_get_buffer_size_dsp``); a pointwise one of stride 1 needs none. Helium's
    kernels (Cortex-M55, M85) differ and are not counted.
    """
    found: list[tuple[int, Term]] = []
    sizes = low.network.sizes(low.network.dense)
    for number, node in enumerate(low.nodes):
        operator = node.operator
        if node.kind != "convolution" or operator.attributes.get("transposed"):
            continue
        _, inputs, *kernel = operator.weight
        is_depthwise = int(operator.attributes.get("groups", 1)) > 1 and int(sizes[inputs]) == 1
        if is_depthwise:
            found.append((number, (2.0, (operator.weight[0], *kernel))))
        elif math.prod(int(sizes[dim]) for dim in kernel) > 1 or max(_pair(operator.attributes.get("stride", 1))) > 1:
            found.append((number, (4.0, (inputs, *kernel))))
    return found


def _tail(low: Lowering, structures: Structures) -> list[Term]:
    dense = sum(kind in DENSE for kind in low.kinds)
    kernels = sum(kind in CONVOLUTIONS | KEEP for kind in low.kinds) - dense
    fixed = structures.tail(len(low.nodes), len(low.elements) + low.constants, kernels, dense)
    return [(float(fixed), ()), *((CHANNEL_BYTES * factor, dims) for _, (factor, dims) in low.weights)]


def artifact_cost(network: Network, dtype: DType = "int8") -> FormulaCost:
    """Bytes of the ``.tflite`` as a function of widths."""
    low, item = lower(network, dtype), item_bytes(dtype)
    is_int8 = dtype == "int8"
    tensors = len(low.elements) + low.constants
    fixed = FILE_BYTES + TENSOR_BYTES * tensors + low.constant_bytes + (SCALE_BYTES * len(low.elements)) * is_int8
    terms: list[Term] = [(float(fixed), ())]
    for (factor, weight), (_, channels) in low.weights:
        terms.append((item * factor, weight))
        terms.append((4.0 + 2 * SCALE_BYTES * is_int8, channels))  # biases have four bytes either way
    terms += [(item * factor, dims) for factor, dims in low.tables]
    return FormulaCost("artifact_bytes", formula(network, [terms]))
