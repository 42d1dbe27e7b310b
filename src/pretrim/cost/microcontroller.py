"""What a network takes on a microcontroller: bytes of its ``.tflite`` and of the tensor arena, before they exist.

The network is followed as LiteRT's converter turns it (`litert`). The arena has a head, where activations are
placed at offsets that are free while they live, and a tail of the interpreter's own structures. The offsets are planned
here (`pack`) and written into the file, which TensorFlow Lite for Microcontrollers honours; its own planner takes up to
a third more. What operators take beside their tensors is fitted on small networks, two for each kind of operator
(`scripts/fit_operations.py`). `tests/test_footprint.py` holds predictions to 1 %; `benchmarks/footprint.py` and
`benchmarks/arenas.py` show how far off they are for networks that people use, here and on boards.
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
"""multiplier and shift of each output channel of a convolution"""


@dataclass(frozen=True)
class Operation:
    """What one operator of LiteRT takes beside its tensors.

    Attributes:
        file: bytes in the file: its inputs, outputs and options.
        host: bytes in the arena on a 64-bit host, beside its node: its options, and what its kernel keeps.
        board: the same where pointers have 32 bits.
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
"""`board` is what scripts/fit_operations.py finds. `file` and `host` were fitted in the same way before, on 53 networks
that are not kept: the 75 of the script are given to 0.25 and 0.45 % in the median (all of the file; of the arena, only
the interpreter's structures)."""
OTHER = Operation(25, 40, 24)
"""What an operator that is not in the table is taken for"""

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
"""LiteRT's name of what is called otherwise in PyTorch; the rest is called the same, in capitals"""


@dataclass(frozen=True)
class Structures:
    """Bytes of the interpreter's own structures, which depend on how long its pointers are.

    Attributes:
        fixed: once: the allocator, the planner, the graph, its input and output.
        node: each operator: pointers and numbers (`TfLiteNode` and its registration).
        tensor: each tensor (`TfLiteEvalTensor`).
        column: of `OPERATIONS`, that has what operators keep.
    """

    fixed: int
    node: int
    tensor: int
    column: Literal["host", "board"]

    def tail(self, operators: Iterable[str], tensors: int) -> int:
        """All of them, without what channels take.

        Args:
            operators: LiteRT's names of the operators of a file.
            tensors: how many the file has.
        """
        counts = Counter(operators)
        each = sum(count * (self.node + self.keeps(name)) for name, count in counts.items())
        return self.fixed + each + self.tensor * tensors

    def keeps(self, name: str) -> int:
        """Bytes of an operator's options, and of what its kernel keeps."""
        return int(getattr(OPERATIONS.get(name, OTHER), self.column))


STRUCTURES = {
    8: Structures(fixed=698, node=64, tensor=24, column="host"),
    4: Structures(fixed=300, node=32, tensor=12, column="board"),
}
"""By bytes of a pointer. A 64-bit host's are as `print_allocations` of the release 0.dev20261023 shows them. A
microcontroller's follow from the same declarations; the fixed part is what remains of MLPerf Tiny's and the person
detection network's arenas on an ESP32 (mcufit-bench: tests/test_board_arena.py)."""

MOST_JOINED = 10
"""Inputs of a CONCATENATION in TensorFlow Lite for Microcontrollers (``kMaxInputNum`` in its concatenation.cc)"""

# The flatbuffer, without the buffers in it.
FILE_BYTES = 700
KIND_BYTES = 21
"""each kind of operator, once"""
TENSOR_BYTES = 82
DIMENSION_BYTES = 5

Kernels: TypeAlias = Literal["reference", "cmsis-nn"]
"""Which kernels TensorFlow Lite for Microcontrollers was built with"""
CMSIS_NN_FIXED, CMSIS_NN_CONVOLUTION = 216, 8
"""Bytes that a build with CMSIS-NN keeps more: once, and each convolution. They are what is between an nRF52840 and an
ESP32 in mcufit-bench beside the kernels' working memory; the builds are of two releases, which may be the cause"""


def kept_by_kernels(operators: Iterable[str], kernels: Kernels) -> int:
    """Bytes of the arena on a microcontroller that kernels keep beside what the reference kernels do.

    Args:
        operators: LiteRT's names of the operators of a file.
        kernels: of the build.
    """
    if kernels == "reference":
        return 0
    return CMSIS_NN_FIXED + CMSIS_NN_CONVOLUTION * sum(name in CONVOLUTIONS for name in operators)


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
    for number, node in enumerate(low.nodes):
        operator = node.operator
        if node.kind != "convolution" or operator.attributes.get("transposed"):
            continue
        _, inputs, *kernel = operator.weight
        if is_depthwise(low, operator):
            found.append((number, (2.0, (operator.weight[0], *kernel))))
        elif math.prod(low.size(dim) for dim in kernel) > 1 or max(pair(operator.attributes.get("stride", 1))) > 1:
            found.append((number, (4.0, (inputs, *kernel))))
    return found


def names_of(low: Lowering) -> list[str]:
    """LiteRT's names of the operators."""
    return [_name(low, node) for node in low.nodes]


def _name(low: Lowering, node: Node) -> str:
    if node.kind != "convolution":
        return NAMES.get(node.kind, node.kind.upper())
    if node.operator.attributes.get("transposed"):
        return "TRANSPOSE_CONV"
    return "DEPTHWISE_CONV_2D" if is_depthwise(low, node.operator) else "CONV_2D"


def is_depthwise(low: Lowering, operator: Operator) -> bool:
    """Whether LiteRT's converter makes a DEPTHWISE_CONV_2D of a convolution: as many groups as input channels, so that
    each filter reads one channel. One group of one channel, a grey image or a signal, is that as well.

    Args:
        low: the network on its way to LiteRT.
        operator: a convolution of it, that is not transposed.
    """
    return low.size(operator.weight[1]) == 1


def lower_bound(network: Network) -> str | None:
    """In words, that file and arena may be larger than predicted; None where every operator's form is known."""
    unknown = list(dict.fromkeys(lower(network, "int8").unknown))
    if not unknown:
        return None
    return f"file and arena may be larger: what LiteRT makes of {first_of(unknown)} is not known"


def refused_by_micro(network: Network, dtype: DType = "int8") -> str | None:
    """In words, what TensorFlow Lite for Microcontrollers refuses whatever the memory; None where that is nothing.

    Args:
        network: analysed.
        dtype: of the file.
    """
    low = lower(network, dtype)
    problem = _lacking_operators(low) or _joined_too_many(low)
    return None if problem is None else f"TensorFlow Lite for Microcontrollers does not run this network: {problem}"


def _lacking_operators(low: Lowering) -> str | None:
    found = []
    for node in low.nodes:
        operator = node.operator
        name = lacking(operator.op, operator.attributes, is_int8=low.dtype == "int8")
        if name is not None:
            found.append(f"{name} (of {operator.op} in {operator.module or 'the model'})")
    return f"it has no {first_of(list(dict.fromkeys(found)))}" if found else None


def _joined_too_many(low: Lowering) -> str | None:
    joined = [(len(n.reads), n.operator.module or "the model") for n in low.nodes if n.kind == "cat"]
    most, where = max(joined, default=(0, ""))
    return f"it joins {MOST_JOINED} tensors at most, and {where} needs {most}" if most > MOST_JOINED else None


def _tail(low: Lowering, structures: Structures) -> list[Term]:
    fixed = structures.tail(names_of(low), _tensors(low))
    channels = [*(of_layer for _, of_layer in low.weights), *(of_layer for of_layer, _ in low.reused)]
    return [(float(fixed), ()), *((CHANNEL_BYTES * factor, dims) for factor, dims in channels)]


def _tensors(low: Lowering) -> int:
    biases = sum(has_biases for _, has_biases in low.reused) if low.dtype == "int8" else 0
    return len(low.elements) + low.constants + biases


def artifact_cost(network: Network, dtype: DType = "int8") -> FormulaCost:
    """Bytes of the ``.tflite`` as a function of widths."""
    low, item = lower(network, dtype), item_bytes(dtype)
    is_int8 = dtype == "int8"
    terms: list[Term] = [(float(_metadata(low)), ())]
    for (factor, weight), (_, channels) in low.weights:
        terms.append((item * factor, weight))
        terms.append((4.0 + 2 * SCALE_BYTES * is_int8, channels))  # biases have four bytes either way
    terms += [(4.0 + SCALE_BYTES, dims) for (_, dims), has_biases in low.reused if is_int8 and has_biases]
    terms += [(item * factor, dims) for factor, dims in low.tables]
    return FormulaCost("artifact_bytes", formula(network, [terms]))


def _metadata(low: Lowering) -> int:
    """The file without what its layers hold."""
    names, tensors = names_of(low), _tensors(low)
    operators = sum(OPERATIONS.get(name, OTHER).file for name in names) + KIND_BYTES * len(set(names))
    scales = SCALE_BYTES * (len(low.elements) + len(low.tables)) * (low.dtype == "int8")
    of_tensors = TENSOR_BYTES * tensors + DIMENSION_BYTES * low.ranks
    return FILE_BYTES + of_tensors + operators + low.constant_bytes + scales
