"""Predicted size in bytes of a network's ``.tflite`` file and tensor arena on a microcontroller.

The prediction follows how LiteRT's converter transforms the network (`litert`). The arena has a head, which holds the
activations at offsets that are free during their lifetimes, and a tail with the interpreter's own structures. The
offsets are planned here (`pack`) and stored in the file, which TensorFlow Lite for Microcontrollers honours; its own
planner takes up to a third more. What operators take beside their tensors is fitted on small networks, two for each
kind of operator (`scripts/fit_operations.py`). `tests/test_footprint.py` holds predictions to within 1 %;
`benchmarks/footprint.py` and `benchmarks/arenas.py` show the errors for widely used networks, on a host and on boards.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pretrim.analysis.network import IntArray, Network, Operator
from pretrim.errors import first_of

from .arena import pack, place, top
from .formula import DType, FormulaCost, Term, formula, item_bytes
from .litert.follow import pair
from .litert.lowering import SCALE_BYTES, UNREAD, Lowering, Node
from .litert.rules import lower
from .micro_operators import lacking

CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")
CHANNEL_BYTES = 8
"""Arena bytes for each output channel of a convolution: its requantisation multiplier and shift."""


@dataclass(frozen=True)
class Operation:
    """Bytes that one LiteRT operator takes beside its tensors.

    Attributes:
        file: bytes in the file, for its lists of inputs and outputs and its options.
        host: bytes in the arena on a 64-bit host in addition to its node, for its options and its kernel's own data.
        board: like `host`, with 32-bit pointers.
    """

    file: int
    host: int
    board: int


OPERATIONS = {
    "ADD": Operation(27, 68, 70),
    "AVERAGE_POOL_2D": Operation(66, 75, 70),
    "BATCH_MATMUL": Operation(0, 1147, 1131),
    "BROADCAST_TO": Operation(20, 30, 14),
    "CONCATENATION": Operation(35, 85, 38),
    "CONV_2D": Operation(67, 112, 90),
    "DEPTHWISE_CONV_2D": Operation(67, 118, 90),
    "DEQUANTIZE": Operation(-6, 35, 25),
    "DIV": Operation(27, 68, 52),
    "FULLY_CONNECTED": Operation(64, 117, 62),
    "HARD_SWISH": Operation(2, 36, 30),
    "LEAKY_RELU": Operation(-6, 35, 25),
    "LOGISTIC": Operation(2, 23, 18),
    "MAX_POOL_2D": Operation(62, 72, 71),
    "MEAN": Operation(49, 70, 32),
    "MIRROR_PAD": Operation(33, 54, 48),
    "MUL": Operation(46, 52, 56),
    "PAD": Operation(27, 65, 66),
    "PADV2": Operation(44, 65, 66),
    "QUANTIZE": Operation(47, 32, 52),
    "RELU": Operation(32, 8, 26),
    "RESHAPE": Operation(25, 36, 34),
    "RESIZE_BILINEAR": Operation(60, 18, 3),
    "RESIZE_NEAREST_NEIGHBOR": Operation(50, 14, 3),
    "RSQRT": Operation(-10, 31, 89),
    "SLICE": Operation(12, 5, 1),
    "SOFTMAX": Operation(17, 85, 66),
    "SQUARED_DIFFERENCE": Operation(-11, 118, 102),
    "SUB": Operation(22, 94, 70),
    "TANH": Operation(2, 22, 14),
    "TRANSPOSE": Operation(11, 0, 0),
    "TRANSPOSE_CONV": Operation(70, 126, 107),
}
"""Fitted values. `board` comes from scripts/fit_operations.py. `file` and `host` were fitted earlier in the same way,
on 53 networks that were not kept; on the script's 75 networks their median errors are 0.25 % and 0.45 % (of the whole
file, and of the interpreter's structures in the arena)."""
OTHER = Operation(25, 40, 24)
"""Values for an operator that is not in the table."""

NAMES = {
    **dict.fromkeys(("addmm", "linear", "mm"), "FULLY_CONNECTED"),
    "convolution": "CONV_2D",
    **dict.fromkeys(("bmm", "matmul"), "BATCH_MATMUL"),
    "cat": "CONCATENATION",
    **dict.fromkeys(("_softmax", "_safe_softmax"), "SOFTMAX"),
    "max_pool2d_with_indices": "MAX_POOL_2D",
    "avg_pool2d": "AVERAGE_POOL_2D",
    "pad_v2": "PADV2",
    "constant_pad_nd": "PAD",
    "reflection_pad2d": "MIRROR_PAD",
    "sigmoid": "LOGISTIC",
    "hardswish": "HARD_SWISH",
    "hardtanh": "RELU",
    "upsample_nearest2d": "RESIZE_NEAREST_NEIGHBOR",
    "upsample_bilinear2d": "RESIZE_BILINEAR",
}
"""LiteRT's names of operators that PyTorch calls differently; all others have the same name in capitals."""


@dataclass(frozen=True)
class Structures:
    """Bytes of the interpreter's own structures in the arena, which depend on the pointer size.

    Attributes:
        fixed: bytes taken once, for the allocator, the planner, the graph, and its input and output.
        node: bytes per operator, for its pointers and numbers (`TfLiteNode` and its registration).
        tensor: bytes per tensor (`TfLiteEvalTensor`).
        column: the column of `OPERATIONS` with what each operator keeps.
    """

    fixed: int
    node: int
    tensor: int
    column: Literal["host", "board"]

    def tail(self, operators: Iterable[str], tensors: int) -> int:
        """Total bytes, without the per-channel data of convolutions.

        Args:
            operators: LiteRT's names of the operators in a file.
            tensors: number of tensors in the file.
        """
        counts = Counter(operators)
        nodes = sum(count * (self.node + self.keeps(name)) for name, count in counts.items())
        return self.fixed + nodes + self.tensor * tensors

    def keeps(self, name: str) -> int:
        """Bytes of an operator's options and of the data its kernel keeps."""
        return int(getattr(OPERATIONS.get(name, OTHER), self.column))


STRUCTURES = {
    8: Structures(fixed=698, node=64, tensor=24, column="host"),
    4: Structures(fixed=300, node=32, tensor=12, column="board"),
}
"""Structures by pointer size in bytes. The values for a 64-bit host are those that `print_allocations` of release
0.dev20261023 shows. The values for a microcontroller follow from the same declarations; their fixed part is what
remains of the arenas of MLPerf Tiny's networks and the person detection network on an ESP32 (mcufit-bench:
tests/test_board_arena.py)."""

MAX_CONCATENATED = 10
"""Most inputs of a CONCATENATION in TensorFlow Lite for Microcontrollers (``kMaxInputNum`` in its concatenation.cc)."""

# Bytes of the flatbuffer, without the data buffers in it.
FILE_BYTES = 700
"""Fixed part of the flatbuffer."""
KIND_BYTES = 21
"""Bytes for each distinct kind of operator."""
TENSOR_BYTES = 82
"""Bytes for each tensor."""
DIMENSION_BYTES = 5
"""Bytes for each dimension of a tensor."""

Kernels: TypeAlias = Literal["reference", "cmsis-nn"]
"""The kernels that TensorFlow Lite for Microcontrollers was built with."""
CMSIS_NN_FIXED, CMSIS_NN_CONVOLUTION = 216, 8
"""Extra arena bytes of a CMSIS-NN build: once, and for each convolution. They are the difference between an nRF52840
and an ESP32 in mcufit-bench, apart from the kernels' scratch memory; the two builds are of different releases, which
may be the cause."""


def kept_by_kernels(operators: Iterable[str], kernels: Kernels) -> int:
    """Arena bytes that a build's kernels keep on a microcontroller, in addition to those of the reference kernels.

    Args:
        operators: LiteRT's names of the operators in a file.
        kernels: kernels of the build.
    """
    if kernels == "reference":
        return 0
    return CMSIS_NN_FIXED + CMSIS_NN_CONVOLUTION * sum(name in CONVOLUTIONS for name in operators)


@dataclass(frozen=True)
class ArenaCost:
    """Bytes of the tensor arena.

    The arena may grow when a width shrinks, so plans are searched by `bound` and verified by this cost.
    """

    elements: Callable[[IntArray], NDArray[np.float64]]
    """Number of items in each activation, then in each kernel's scratch buffer: (n x G) -> (n x buffers)."""
    births: tuple[int, ...]
    """Index of the operator that first needs each buffer."""
    deaths: tuple[int, ...]
    """Index of the operator that last needs each buffer."""
    tail: FormulaCost
    """Bytes of the interpreter's own structures."""
    bound: FormulaCost
    """A lower bound for any planner: the largest total of buffers alive at once, plus the tail."""
    item: int
    """Bytes of one item."""
    planned: bool = True
    """Whether buffers are placed by `pack`, whose offsets `export` stores in the file, or by the microcontroller's own
    planner."""
    unplanned: int = 0
    """Number of buffers at the end that a plan in the file does not cover: they are placed around the planned ones."""
    name: str = "arena_bytes"

    def __call__(self, widths: ArrayLike) -> IntArray:
        """Values (n) for widths (n x G), or one value for widths (G)."""
        rows = np.atleast_2d(np.asarray(widths, dtype=np.int64))
        sizes = np.rint(self.elements(rows)).astype(np.int64) * self.item
        values = np.array([self._head(row) for row in sizes.tolist()], dtype=np.int64) + self.tail(rows)
        result: IntArray = values[0] if np.ndim(widths) == 1 else values
        return result

    def _head(self, sizes: list[int]) -> int:
        """Bytes of the head: activations at the offsets that the file stores, with scratch memory in the gaps."""
        covered = len(sizes) - self.unplanned
        fixed = pack(sizes[:covered], self.births[:covered], self.deaths[:covered]) if self.planned else []
        return top(sizes, place(sizes, self.births, self.deaths, fixed=fixed))


def arena_cost(
    network: Network,
    dtype: DType = "int8",
    *,
    planned: bool = True,
    pointer_bytes: Literal[4, 8] = 8,
    kernels: Kernels = "reference",
) -> ArenaCost:
    """Bytes of the tensor arena as a function of widths.

    Args:
        network: the analysed network.
        dtype: data type of its activations.
        planned: whether buffers are placed by `pack`, as in exported files, or by the microcontroller's own planner.
        pointer_bytes: 4 on a microcontroller; 8 on a 64-bit host, as measured by `deploy.micro`.
        kernels: kernels of the build. Those of CMSIS-NN need scratch memory in int8 (`cmsis_nn_scratch`).
    """
    low, item = lower(network, dtype), item_bytes(dtype)
    kernel_scratch = cmsis_nn_scratch(low) if kernels == "cmsis-nn" and dtype == "int8" else []
    scratch = [*low.scratch, *kernel_scratch]
    nodes = [node for node, _ in scratch]
    births, deaths = (*low.births, *nodes), (*_deaths(low), *nodes)
    elements = [*low.elements, *(size for _, size in scratch)]
    tail = _tail(low, STRUCTURES[pointer_bytes])
    if dtype == "int8" and pointer_bytes == 4:
        tail.append((float(kept_by_kernels(names_of(low), kernels)), ()))
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
        unplanned=len(kernel_scratch),
    )


def _deaths(low: Lowering) -> tuple[int, ...]:
    """Index of the last node that needs each activation; one that no node reads is an output and lives to the end."""
    last = len(low.nodes) - 1
    return tuple(last if death == UNREAD else death for death in low.deaths)


def _together(births: Sequence[int], deaths: Sequence[int]) -> list[tuple[int, ...]]:
    """The distinct sets of buffers (by index) that are alive at the same moment."""
    moments = {
        tuple(t for t in range(len(births)) if births[t] <= moment <= deaths[t]) for moment in {*births, *deaths}
    }
    return sorted(moments)


def cmsis_nn_scratch(low: Lowering) -> list[tuple[int, Term]]:
    """Scratch memory in bytes of CMSIS-NN's int8 kernels on cores with the DSP extension, as (node, term) pairs.

    A convolution expands two columns of its input to int16 (``arm_convolve_s8_get_buffer_size``), a depthwise
    convolution its filters (``arm_depthwise_conv_s8_opt_get_buffer_size_dsp``), and a pointwise convolution of stride 1
    needs none. Helium kernels (Cortex-M55, M85) differ and are not covered.
    """
    scratch: list[tuple[int, Term]] = []
    for number, node in enumerate(low.nodes):
        operator = node.operator
        if node.kind != "convolution" or operator.attributes.get("transposed"):
            continue
        _, inputs, *kernel = operator.weight
        if is_depthwise(low, operator):
            scratch.append((number, (2.0, (operator.weight[0], *kernel))))
        elif math.prod(low.size(dim) for dim in kernel) > 1 or max(pair(operator.attributes.get("stride", 1))) > 1:
            scratch.append((number, (4.0, (inputs, *kernel))))
    return scratch


def names_of(low: Lowering) -> list[str]:
    """LiteRT's name of each operator, in order."""
    return [_name(low, node) for node in low.nodes]


def _name(low: Lowering, node: Node) -> str:
    if node.kind != "convolution":
        return NAMES.get(node.kind, node.kind.upper())
    if node.operator.attributes.get("transposed"):
        return "TRANSPOSE_CONV"
    return "DEPTHWISE_CONV_2D" if is_depthwise(low, node.operator) else "CONV_2D"


def is_depthwise(low: Lowering, operator: Operator) -> bool:
    """Whether LiteRT's converter turns a convolution into a DEPTHWISE_CONV_2D.

    It does where each filter reads one channel: there are as many groups as input channels. That includes a convolution
    with a single input channel, such as a greyscale image or a signal.

    Args:
        low: the lowered network.
        operator: one of its convolutions, not transposed.
    """
    return low.size(operator.weight[1]) == 1


def lower_bound(network: Network) -> str | None:
    """A note that file and arena may be larger than predicted; None if the LiteRT form of every operator is known."""
    unknown = list(dict.fromkeys(lower(network, "int8").unknown))
    if not unknown:
        return None
    return f"file and arena may be larger: what LiteRT makes of {first_of(unknown)} is not known"


def refused_by_micro(network: Network, dtype: DType = "int8") -> str | None:
    """Why TensorFlow Lite for Microcontrollers cannot run a network, regardless of memory; None if it can.

    Args:
        network: the analysed network.
        dtype: data type of the file.
    """
    low = lower(network, dtype)
    problem = _lacking_operators(low) or _joined_too_many(low)
    return None if problem is None else f"TensorFlow Lite for Microcontrollers does not run this network: {problem}"


def _lacking_operators(low: Lowering) -> str | None:
    """Which operators of the network the interpreter lacks, as the rest of a message."""
    operators = []
    for node in low.nodes:
        operator = node.operator
        name = lacking(operator.op, operator.attributes, is_int8=low.dtype == "int8")
        if name is not None:
            operators.append(f"{name} (of {operator.op} in {operator.module or 'the model'})")
    return f"it has no {first_of(list(dict.fromkeys(operators)))}" if operators else None


def _joined_too_many(low: Lowering) -> str | None:
    """That a concatenation has more inputs than the interpreter allows, as the rest of a message."""
    inputs = [(len(n.reads), n.operator.module or "the model") for n in low.nodes if n.kind == "cat"]
    count, where = max(inputs, default=(0, ""))
    if count <= MAX_CONCATENATED:
        return None
    return f"it joins {MAX_CONCATENATED} tensors at most, and {where} needs {count}"


def _tail(low: Lowering, structures: Structures) -> list[Term]:
    """Terms of the arena's tail, in bytes."""
    fixed = structures.tail(names_of(low), _tensors(low))
    outputs = [*(channels for _, channels in low.weights), *(channels for channels, _ in low.reused)]
    return [(float(fixed), ()), *((CHANNEL_BYTES * factor, dims) for factor, dims in outputs)]


def _tensors(low: Lowering) -> int:
    """Number of tensors in the file."""
    biases = sum(has_biases for _, has_biases in low.reused) if low.dtype == "int8" else 0
    return len(low.elements) + low.constants + biases


def artifact_cost(network: Network, dtype: DType = "int8") -> FormulaCost:
    """Bytes of the ``.tflite`` file as a function of widths."""
    low, item = lower(network, dtype), item_bytes(dtype)
    is_int8 = dtype == "int8"
    terms: list[Term] = [(float(_metadata(low)), ())]
    for (factor, weight), (_, channels) in low.weights:
        terms.append((item * factor, weight))
        terms.append((4.0 + 2 * SCALE_BYTES * is_int8, channels))  # biases take four bytes in either data type
    terms += [(4.0 + SCALE_BYTES, dims) for (_, dims), has_biases in low.reused if is_int8 and has_biases]
    terms += [(item * factor, dims) for factor, dims in low.tables]
    return FormulaCost("artifact_bytes", formula(network, [terms]))


def _metadata(low: Lowering) -> int:
    """Bytes of the file that do not depend on the widths: everything except parameters and per-channel scales."""
    names, tensors = names_of(low), _tensors(low)
    operators = sum(OPERATIONS.get(name, OTHER).file for name in names) + KIND_BYTES * len(set(names))
    scales = SCALE_BYTES * (len(low.elements) + len(low.tables)) * (low.dtype == "int8")
    tensor_bytes = TENSOR_BYTES * tensors + DIMENSION_BYTES * low.ranks
    return FILE_BYTES + tensor_bytes + operators + low.constant_bytes + scales
