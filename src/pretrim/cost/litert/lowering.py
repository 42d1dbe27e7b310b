"""A network lowered to LiteRT: the operators, activations and constants of its file, as terms of the widths.

An activation has the image layout (N x ... x C, as LiteRT's convolutions read it) or PyTorch's layout (N x C x ...). As
in the converter, an operator that needs the other layout is preceded by a transposition.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from pretrim.analysis.network import Network, Operator
from pretrim.cost.formula import DType, Term

UNREAD = -1
"""Death of an activation that no node reads (yet)."""
INT_BYTES = 4
"""Bytes of an index in a constant: an element of a shape, permutation, padding or list of axes."""
SCALE_BYTES = 12
"""Bytes of the scale and zero point of an int8 tensor, or of one of its channels."""
MEAN_BYTES = 32
"""Scratch bytes of the kernel of MEAN: the index of a position, and the axes that are averaged."""


@dataclass(frozen=True)
class Node:
    """A LiteRT operator: its kind, the network's operator that it comes from, and the activations that it reads."""

    kind: str
    operator: Operator
    reads: tuple[int, ...]
    share: float = 1.0
    """Share of the network operator's multiply-accumulates; each step of a recurrent layer has an equal part."""


@dataclass(frozen=True)
class Value:
    """A tensor of the network: the activation that holds it, and its layout.

    Attributes:
        activation: index of the activation.
        dims: dimensions in PyTorch's order, as rows of the size table; empty for an input of the network.
        is_image: whether it has the image layout (channels last).
        is_flat: whether all dimensions but the channels are merged into one, as FULLY_CONNECTED reads and writes them.
    """

    activation: int
    dims: tuple[int, ...]
    is_image: bool
    is_flat: bool = False


@dataclass
class Lowering:
    """The LiteRT form of a network, built up operator by operator."""

    network: Network
    dtype: DType = "float32"
    nodes: list[Node] = field(default_factory=list)
    """LiteRT operators, in the order in which they run."""
    constants: int = 0
    """Number of tensors that are not activations."""
    constant_bytes: int = 0
    """Bytes of constants other than the network's parameters."""
    ranks: int = 0
    """Total number of dimensions of all tensors."""
    elements: list[Term] = field(default_factory=list)
    """Number of items in each activation."""
    births: list[int] = field(default_factory=list)
    """Index of the node that writes each activation."""
    deaths: list[int] = field(default_factory=list)
    """Index of the last node that reads each activation, or `UNREAD`."""
    made_by: dict[int, str] = field(default_factory=dict)
    """Kind of the operator that writes each activation."""
    weights: list[tuple[Term, Term]] = field(default_factory=list)
    """Number of weights and of output channels of each convolution or linear layer."""
    reused: list[tuple[Term, bool]] = field(default_factory=list)
    """Output channels of each layer that reuses another's weights, and whether it has its own biases in int8."""
    tables: list[Term] = field(default_factory=list)
    """Number of items in each other parameter or buffer that an operator reads: slopes, positions, scales."""
    scratch: list[tuple[int, Term]] = field(default_factory=list)
    """Scratch memory of a kernel while its node runs, as (node, items of the data type)."""
    unknown: list[str] = field(default_factory=list)
    """Descriptions of operators whose form in the file is unknown: each is counted as one operator."""
    home: dict[int, Value] = field(default_factory=dict)
    """Current value of each buffer of the network."""
    last_states: dict[int, int] = field(default_factory=dict)
    """Activation with the last state of a recurrent layer, by the network buffer that holds the states of all steps."""
    known: set[Hashable] = field(default_factory=set)
    """Keys of the constants in the file so far: equal constants are stored once."""
    relayouts: dict[tuple[int, str], Value] = field(default_factory=dict)
    """Copies of activations in the other layout, which are made once; by activation and layout."""

    @property
    def kinds(self) -> list[str]:
        """Kind of every node, in order."""
        return [node.kind for node in self.nodes]

    def node(self, kind: str, operator: Operator, *reads: int) -> None:
        """Append a node that reads activations.

        Args:
            kind: kind of the LiteRT operator.
            operator: the network's operator that it comes from.
            reads: indices of the activations that it reads.
        """
        self.nodes.append(Node(kind, operator, reads))
        for activation in reads:
            self.deaths[activation] = len(self.nodes) - 1

    def activation(self, elements: Term, kind: str, rank: int | None = None) -> int:
        """Add an activation that the last node writes, and return its index.

        Args:
            elements: number of items.
            kind: kind of the operator that writes it.
            rank: number of dimensions; None: as many as its term of elements has.
        """
        number = max(len(self.nodes) - 1, 0)
        self.elements.append(elements)
        self.births.append(number)
        self.deaths.append(UNREAD)
        self.made_by[len(self.elements) - 1] = kind
        self.ranks += rank or (len(elements[1]) if elements[0] == 1.0 else 4)
        return len(self.elements) - 1

    def step(self, kind: str, operator: Operator, *reads: int, elements: Term, rank: int | None = None) -> int:
        """Append a node with one output, and return the index of the output.

        Args:
            kind: kind of the LiteRT operator.
            operator: the network's operator that it comes from.
            reads: indices of the activations that it reads.
            elements: number of items in its output.
            rank: number of dimensions of its output, as in `activation`.
        """
        self.node(kind, operator, *reads)
        return self.activation(elements, kind, rank)

    def constant(self, key: Hashable, items: int) -> None:
        """Add a constant of indices, unless an equal one is in the file.

        Args:
            key: identity of the constant: equal for equal values.
            items: number of values.
        """
        if key not in self.known:
            self.known.add(key)
            self.constants += 1
            self.ranks += 1
            self.constant_bytes += items * INT_BYTES

    def works_in(self, elements: Term, *, is_mean: bool = False) -> None:
        """Add scratch memory of the last node, whose int8 kernel accumulates in int32; none in float32.

        Args:
            elements: number of items in its output.
            is_mean: whether the node is a MEAN, which also keeps indices.
        """
        if self.dtype == "int8":
            last = len(self.nodes) - 1
            self.scratch.append((last, (4 * elements[0], elements[1])))
            self.scratch += [(last, (float(MEAN_BYTES), ()))] * is_mean

    def number(self, key: Hashable) -> None:
        """Add a scalar constant, unless an equal one is in the file."""
        if key not in self.known:
            self.known.add(key)
            self.constants += 1
            self.constant_bytes += 1 + SCALE_BYTES if self.dtype == "int8" else 4

    def table(self, term: Term) -> None:
        """Add a parameter or buffer outside convolutions and linear layers, given its number of items."""
        self.tables.append(term)
        self.constants += 1
        self.ranks += 4

    def layer(self, weight: tuple[int, ...], channels: tuple[int, ...]) -> None:
        """Add the weights and biases of a convolution or linear layer.

        Args:
            weight: dimensions of its weights.
            channels: dimension of its output channels.
        """
        self.weights.append(((1.0, weight), (1.0, channels)))
        self.constants += 2
        self.ranks += len(weight) + 1

    def size(self, dim: int) -> int:
        """Size of a dimension in the dense network."""
        return int(self.network.sizes(self.network.dense)[dim])

    def items(self, term: Term) -> int:
        """Value of a term in the dense network."""
        return round(term[0] * math.prod(self.size(dim) for dim in term[1]))

    def places(self, value: Value) -> int:
        """Number of positions (pixels or time steps) of a tensor N x C x ... ."""
        return math.prod(self.size(dim) for dim in value.dims[2:])

    def rank(self, value: Value) -> int:
        """Number of dimensions of a tensor in PyTorch."""
        return len(value.dims) or len(input_shapes(self.network)[0])

    # ------------------------------------------------------------------------------------ layouts

    def as_image(self, value: Value, operator: Operator) -> Value:
        """Bring a tensor into the image layout; a signal N x C x T becomes an image of height 1."""
        if value.is_image or self.rank(value) not in (3, 4):
            return value
        kinds = ("reshape",) * (self.rank(value) == 3) + ("transpose",) * (not self._is_one_channel(value))
        return self._once(value, "image", operator, kinds)

    def _is_one_channel(self, value: Value) -> bool:
        """Whether a tensor is a network input with one channel, for which both layouts are the same."""
        return not value.dims and input_shapes(self.network)[0][1] == 1

    def as_torch(self, value: Value, operator: Operator) -> Value:
        """Bring a tensor into PyTorch's layout. With a single position, both layouts are the same."""
        if not value.is_image:
            return value
        if value.dims and self.places(value) == 1:
            return replace(value, is_image=False, is_flat=True)
        return self._once(value, "torch", operator, ("transpose",) + ("reshape",) * (self.rank(value) == 3))

    def _once(self, value: Value, layout: str, operator: Operator, kinds: Sequence[str]) -> Value:
        """The tensor in another layout, after operators of the given kinds; every copy is made once."""
        key = (value.activation, layout)
        if key not in self.relayouts:
            activation = value.activation
            for kind in kinds:
                self.constant((layout, kind, value.dims if kind == "reshape" else ()), 4)
                activation = self.step(kind, operator, activation, elements=self.elements[activation])
            self.relayouts[key] = Value(activation, value.dims, layout == "image")
        return self.relayouts[key]

    def reshaped(self, value: Value, operator: Operator, dims: tuple[int, ...]) -> Value:
        """Reshape a tensor in PyTorch's layout; two consecutive reshapes become one.

        Args:
            value: the tensor.
            operator: the network's operator that needs the reshape.
            dims: new dimensions, as rows of the size table.
        """
        activation = value.activation
        self.constant(("shape", tuple(self.size(dim) for dim in dims)), len(dims))
        if self.made_by[activation] != "reshape" or self.deaths[activation] != UNREAD:
            activation = self.step("reshape", operator, activation, elements=self.elements[activation])
        return Value(activation, dims, is_image=False)


def input_shapes(network: Network) -> list[Sequence[int]]:
    """Shapes of the network's inputs, in the order of `identity.describe`."""

    def walk(part: object) -> Iterator[Sequence[int]]:
        if isinstance(part, dict) and "shape" in part:
            yield part["shape"]
        elif isinstance(part, dict | list | tuple):
            for value in part.values() if isinstance(part, dict) else part:
                yield from walk(value)

    return list(walk(network.example))
