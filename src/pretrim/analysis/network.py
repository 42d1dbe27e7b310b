"""The frozen record of a network: channel groups, operators, and every size as a linear function of the widths.

Channels with the same *footprint* (the same tensor dimensions, with the same multiplicities) are interchangeable: they
form a group of `n` channels, of which a plan keeps `w`. The size of any dimension is then ``A @ w + b``, so every cost
that is a product of sizes is a closed formula (``cost.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .channels import Ids
from .named_integers import StoredInteger
from .observer import Site

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Group:
    """Interchangeable channels: the literature's coupled layers."""

    name: str
    """The first layer whose filters they are."""
    layers: tuple[str, ...]
    """Every layer whose filters they are."""
    channels: int
    """How many there are in the dense network."""
    multiplicity: int
    """Filters of the first layer that one channel stands for (2 where a chunk in two ties the halves)."""


@dataclass(frozen=True)
class Frozen:
    """Filters that no plan may remove, and why."""

    layer: str
    filters: int
    reason: str
    place: str = ""
    """File and line of the operator that is the reason; empty where it is none of the user's own code."""


@dataclass(frozen=True)
class Parameter:
    """A parameter or buffer, with its dimensions as rows of the size table."""

    name: str
    shape: tuple[int, ...]
    dims: tuple[int, ...]
    is_trained: bool
    """Whether training changes it; a fixed filter is a parameter, too, and not trained."""
    is_buffer: bool


@dataclass(frozen=True)
class Tensor:
    """An activation with memory of its own, alive from operator `birth` to operator `death` (inclusive)."""

    dims: tuple[int, ...]
    shape: tuple[int, ...]
    birth: int
    death: int


@dataclass(frozen=True)
class Operator:
    """One ATen operator in the order of execution; dimensions are rows of the size table."""

    op: str
    module: str
    attributes: Mapping[str, Any]
    """Its plain arguments: stride, padding, dilation, groups, ..."""
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    """Buffers, by number; reshapes and in-place operators write none."""
    parameters: tuple[str, ...]
    outputs: tuple[tuple[int, ...], ...]
    factors: tuple[int, ...]
    filters: int | None
    weight: tuple[int, ...]
    told: tuple[tuple[str, int], ...]
    """Arguments that no output shape tells: their names (`rules.argument`) and sizes."""
    fused_into: int | None
    """The operator whose output it is computed on in place (conv + norm + activation), if any."""
    mixes: bool
    """Whether it reduces over prunable channels, so that removing some changes what the others see."""
    site: Site
    is_scaled: bool = False
    """Whether a number that it takes is computed from widths (`x * channels**-0.5`), and so changes with them."""
    is_unused: bool = False
    """Whether no output of the network depends on it: converters drop it, and it has no costs."""


@dataclass(frozen=True)
class Layer:
    """A convolution or linear layer with weights of its own."""

    name: str
    op: str
    operator: int
    """Its place in `Network.operators`; -1 if it runs in training only, or nothing reads its result."""
    filters: int
    weight: tuple[int, ...]
    factors: tuple[int, ...]
    output: tuple[int, ...]
    parameters: tuple[str, ...]


@dataclass(frozen=True)
class Network:
    """What pretrim knows of a model: everything costs, plans and surgery need, and nothing that can change."""

    groups: tuple[Group, ...]
    frozen: tuple[Frozen, ...]
    layers: tuple[Layer, ...]
    operators: tuple[Operator, ...]
    other_runs: tuple[tuple[Operator, ...], ...]
    """Operators of each other way through `forward`: in train mode, with other examples or outcomes."""
    parameters: tuple[Parameter, ...]
    tensors: tuple[Tensor, ...]
    stored_integers: tuple[StoredInteger, ...]
    coefficients: IntArray = field(repr=False)
    """A of ``sizes = A @ w + b``: dimensions x groups."""
    constants: IntArray = field(repr=False)
    members: tuple[Ids, ...] = field(repr=False)
    """For every dimension, the channel at each index; channels of fixed dimensions are -1."""
    group_of: IntArray = field(repr=False)
    """The group of each channel."""
    rank_of: IntArray = field(repr=False)
    """The place of each channel within its group."""
    stored_integer_dims: tuple[int, ...]
    output_shapes: tuple[tuple[int, ...], ...]
    example: Any
    """Shapes and data types of the inputs, as `identity.describe` gives them."""
    fingerprint: str
    """Of the dense model's parameters and buffers (`identity.fingerprint`)."""
    notes: tuple[str, ...]
    tried: tuple[Mapping[str, int], ...] = ()
    """Widths by group that narrower copies had, beside those that every analysis tries: of plans that failed once."""

    plan: ClassVar[Callable[..., Any]]
    """:func:`pretrim.plan`, attached by `pretrim.core`."""

    @cached_property
    def dense(self) -> IntArray:
        """Widths of the dense network, one per group."""
        return np.array([group.channels for group in self.groups], dtype=np.int64)

    @property
    def mixers(self) -> tuple[str, ...]:
        """Operators whose values depend on how many channels there are, as ``operator in module``.

        They reduce over prunable channels, or take a number that `forward` computes from widths.
        """
        seen = [f"{o.op} in {o.module or 'the model'}" for o in self.operators if o.mixes or o.is_scaled]
        return tuple(dict.fromkeys(seen))

    @property
    def forward(self) -> dict[str, str]:
        """What `forward` computes, operator by operator: parameters' names and shapes do not tell ReLU from Sigmoid.

        The operator by its number and module, of every run that was traced; sizes are left out, as a plan changes them.
        """
        runs = (self.operators, *self.other_runs)
        operators = [operator for run in runs for operator in run if operator.op not in _WITHOUT_EFFECT]
        return {f"operator {place} in {o.module or 'the model'}": _shown(o) for place, o in enumerate(operators, 1)}

    def sizes(self, widths: ArrayLike) -> IntArray:
        """Sizes of every dimension for one vector of widths (G) or a matrix of them (n x G)."""
        return np.asarray(widths) @ self.coefficients.T + self.constants


def first_difference(was: Mapping[str, str], now: Mapping[str, str]) -> str | None:
    """The first operator of two networks' `forward` that differs, in words; None where they compute the same.

    >>> first_difference({"operator 1 in act": "relu"}, {"operator 1 in act": "sigmoid"})
    'operator 1 in act is sigmoid, and was relu'
    """
    places = [place for place in {**was, **now} if was.get(place) != now.get(place)]
    if not places:
        return None
    return f"{places[0]} is {now.get(places[0], 'missing')}, and was {was.get(places[0], 'missing')}"


_WITHOUT_EFFECT = ("empty",)
_SIZES = ("size", "shape", "sizes", "split_size", "split_sizes", "self_shape", "input_size")


def _shown(operator: Operator) -> str:
    """An operator with its plain arguments, as ``hardtanh(max_val=6.0, min_val=0.0)``."""
    given = {name: value for name, value in sorted(operator.attributes.items()) if name not in _SIZES}
    told = ", ".join(f"{name}={value}" for name, value in given.items() if value is not None)
    return f"{operator.op}({told})" if told else operator.op
