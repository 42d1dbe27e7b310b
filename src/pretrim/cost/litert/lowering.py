"""A network on its way to LiteRT: the operators, activations and constants of its file, as terms of the widths.

An activation lies in the order of its images (N x ... x C, as LiteRT's convolutions read it) or in PyTorch's (N x C x
...); what needs the other order than it finds is preceded by a transposition, as the converter does it.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from pretrim.analysis.network import Network, Operator
from pretrim.cost.formula import DType, Term

UNREAD = -1
INT_BYTES = 4
"""of an index in a constant: a shape, a permutation, paddings, axes"""


SCALE_BYTES = 12
"""scale and zero point of a tensor in int8, or of one of its channels"""


MEAN_BYTES = 32
"""An index of a place, and of the dimensions that a mean is over, in its kernel's memory"""


@dataclass(frozen=True)
class Node:
    """An operator of LiteRT: what it is called here, what it was made of, and the activations it reads."""

    kind: str
    operator: Operator
    reads: tuple[int, ...]
    share: float = 1.0
    """of the operator's multiply-accumulates; one step of a recurrent layer has its part of them"""


@dataclass(frozen=True)
class Value:
    """A tensor as an operator of the network sees it: an activation, and how it is to be read.

    Attributes:
        activation: its number.
        dims: of the tensor in PyTorch's order, rows of the size table; empty for an input of the network.
        is_image: whether it lies in the order of images.
        is_flat: whether it has one dimension for all but the channels, as fully connected layers read and write it.
    """

    activation: int
    dims: tuple[int, ...]
    is_image: bool
    is_flat: bool = False


@dataclass
class Lowering:
    """What a network becomes, operator by operator."""

    network: Network
    dtype: DType = "float32"
    nodes: list[Node] = field(default_factory=list)
    constants: int = 0
    """tensors that hold no activation"""
    constant_bytes: int = 0
    ranks: int = 0
    """dimensions of all tensors together"""
    elements: list[Term] = field(default_factory=list)
    births: list[int] = field(default_factory=list)
    deaths: list[int] = field(default_factory=list)
    made_by: dict[int, str] = field(default_factory=dict)
    weights: list[tuple[Term, Term]] = field(default_factory=list)
    """of each convolution or linear layer: its weights and its output channels"""
    reused: list[tuple[Term, bool]] = field(default_factory=list)
    """output channels of a layer whose weights are another's, and whether it has biases of its own in int8"""
    tables: list[Term] = field(default_factory=list)
    """Elements of every other parameter and buffer that an operator reads: slopes, positions, scales"""
    scratch: list[tuple[int, Term]] = field(default_factory=list)
    """memory that a kernel works in while its node runs, in items of the data type"""
    unknown: list[str] = field(default_factory=list)
    """Operators whose form in the file is not known, in words: they are taken for one operator"""
    home: dict[int, Value] = field(default_factory=dict)
    """what each buffer of the network is, as it was looked at last"""
    last_states: dict[int, int] = field(default_factory=dict)
    """The activation of the last step, by the buffer of the network that has all steps of a recurrent layer"""
    known: set[Hashable] = field(default_factory=set)
    """Constants that are in the file already: equal ones are there once"""
    in_order: dict[tuple[int, str], Value] = field(default_factory=dict)
    """Copies of activations in another order, which are made once"""

    @property
    def kinds(self) -> list[str]:
        """Of every node."""
        return [node.kind for node in self.nodes]

    def node(self, kind: str, operator: Operator, *reads: int) -> None:
        """A new node that reads activations.

        Args:
            kind: of the operator.
            operator: of the network, that it comes from.
            reads: numbers of the activations.
        """
        self.nodes.append(Node(kind, operator, reads))
        for activation in reads:
            self.deaths[activation] = len(self.nodes) - 1

    def activation(self, elements: Term, kind: str, rank: int | None = None) -> int:
        """A new activation, which the last operator writes.

        Args:
            elements: as a term of sizes.
            kind: of the operator.
            rank: how many dimensions it has; None: those of its elements.
        """
        number = max(len(self.nodes) - 1, 0)
        self.elements.append(elements)
        self.births.append(number)
        self.deaths.append(UNREAD)
        self.made_by[len(self.elements) - 1] = kind
        self.ranks += rank or (len(elements[1]) if elements[0] == 1.0 else 4)
        return len(self.elements) - 1

    def step(self, kind: str, operator: Operator, *reads: int, elements: Term, rank: int | None = None) -> int:
        """A node with one output.

        Args:
            kind: what it is called here.
            operator: of the network, that it is a part of.
            reads: activations.
            elements: of its output.
            rank: as in `activation`.
        """
        self.node(kind, operator, *reads)
        return self.activation(elements, kind, rank)

    def constant(self, key: Hashable, items: int) -> None:
        """A constant of indices, unless an equal one is in the file.

        Args:
            key: what it is; equal for equal values.
            items: how many values it has.
        """
        if key not in self.known:
            self.known.add(key)
            self.constants += 1
            self.ranks += 1
            self.constant_bytes += items * INT_BYTES

    def works_in(self, elements: Term, *, is_mean: bool = False) -> None:
        """The memory of the last node, whose kernel sums up in int32 in int8.

        Args:
            elements: of its output.
            is_mean: whether it counts places, too.
        """
        if self.dtype == "int8":
            last = len(self.nodes) - 1
            self.scratch.append((last, (4 * elements[0], elements[1])))
            self.scratch += [(last, (float(MEAN_BYTES), ()))] * is_mean

    def number(self, key: Hashable) -> None:
        """A constant that is one number, unless an equal one is in the file."""
        if key not in self.known:
            self.known.add(key)
            self.constants += 1
            self.constant_bytes += 1 + SCALE_BYTES if self.dtype == "int8" else 4

    def table(self, term: Term) -> None:
        """Values of the network's own, as many as the term says."""
        self.tables.append(term)
        self.constants += 1
        self.ranks += 4

    def layer(self, weight: tuple[int, ...], channels: tuple[int, ...]) -> None:
        """The weights and biases of a convolution or linear layer.

        Args:
            weight: dimensions of its weights.
            channels: the dimension of its outputs.
        """
        self.weights.append(((1.0, weight), (1.0, channels)))
        self.constants += 2
        self.ranks += len(weight) + 1

    def size(self, dim: int) -> int:
        """Of a dimension in the dense network."""
        return int(self.network.sizes(self.network.dense)[dim])

    def items(self, term: Term) -> int:
        """What a term comes to in the dense network."""
        return round(term[0] * math.prod(self.size(dim) for dim in term[1]))

    def places(self, value: Value) -> int:
        """Pixels or steps of a tensor N x C x ... ."""
        return math.prod(self.size(dim) for dim in value.dims[2:])

    def rank(self, value: Value) -> int:
        """Dimensions of a tensor in PyTorch."""
        return len(value.dims) or len(input_shapes(self.network)[0])

    # ------------------------------------------------------------------------------------ orders

    def as_image(self, value: Value, operator: Operator) -> Value:
        """The tensor in the order of images; a signal N x C x T is an image of height 1."""
        if value.is_image or self.rank(value) not in (3, 4):
            return value
        kinds = ("reshape",) * (self.rank(value) == 3) + ("transpose",) * (not self._is_one_channel(value))
        return self._once(value, "image", operator, kinds)

    def _is_one_channel(self, value: Value) -> bool:
        """Whether a tensor is an input of the network with one channel, which has one order alone."""
        return not value.dims and input_shapes(self.network)[0][1] == 1

    def as_torch(self, value: Value, operator: Operator) -> Value:
        """The tensor in PyTorch's order. Where there is one place alone, both orders are the same."""
        if not value.is_image:
            return value
        if value.dims and self.places(value) == 1:
            return replace(value, is_image=False, is_flat=True)
        return self._once(value, "torch", operator, ("transpose",) + ("reshape",) * (self.rank(value) == 3))

    def _once(self, value: Value, order: str, operator: Operator, kinds: Sequence[str]) -> Value:
        key = (value.activation, order)
        if key not in self.in_order:
            activation = value.activation
            for kind in kinds:
                self.constant((order, kind, value.dims if kind == "reshape" else ()), 4)
                activation = self.step(kind, operator, activation, elements=self.elements[activation])
            self.in_order[key] = Value(activation, value.dims, order == "image")
        return self.in_order[key]

    def reshaped(self, value: Value, operator: Operator, dims: tuple[int, ...]) -> Value:
        """The tensor in PyTorch's order with other dimensions; two such steps in a row are one.

        Args:
            value: that is reshaped.
            operator: of the network, that asks for it.
            dims: rows of the size table.
        """
        activation = value.activation
        self.constant(("shape", tuple(self.size(dim) for dim in dims)), len(dims))
        if self.made_by[activation] != "reshape" or self.deaths[activation] != UNREAD:
            activation = self.step("reshape", operator, activation, elements=self.elements[activation])
        return Value(activation, dims, is_image=False)


def input_shapes(network: Network) -> list[Sequence[int]]:
    """Shapes of the inputs, in the order in which `identity.describe` gives them."""

    def walk(part: object) -> Iterator[Sequence[int]]:
        if isinstance(part, dict) and "shape" in part:
            yield part["shape"]
        elif isinstance(part, dict | list | tuple):
            for value in part.values() if isinstance(part, dict) else part:
                yield from walk(value)

    return list(walk(network.example))
