"""The frozen record of a network: channel groups, operators, and every size as a linear function of the widths.

Channels with the same *footprint* (the same tensor dimensions, with the same multiplicities) are interchangeable: they
form a group of `n` channels, of which a plan keeps `w`. The size of any dimension is then ``A @ w + b``, so every cost
that is a product of sizes has a closed form (``pretrim.cost``).
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
    """A group of interchangeable channels (the literature's coupled layers)."""

    name: str
    """The first layer whose filters are in the group."""
    layers: tuple[str, ...]
    """Every layer whose filters are in the group."""
    channels: int
    """Number of channels in the dense network."""
    multiplicity: int
    """Filters of the first layer per channel of the group (2 where a chunk in two ties the halves)."""


@dataclass(frozen=True)
class Frozen:
    """Filters that no plan may remove, and why."""

    layer: str
    filters: int
    reason: str
    source_line: str = ""
    """File and line of the operator that is the reason; empty if it is not in the user's own code."""


@dataclass(frozen=True)
class Parameter:
    """A parameter or buffer, with its dimensions as rows of the size table."""

    name: str
    shape: tuple[int, ...]
    dims: tuple[int, ...]
    is_trained: bool
    """Whether training changes it; a fixed filter is also a parameter, but not trained."""
    is_buffer: bool


@dataclass(frozen=True)
class Tensor:
    """An activation with its own memory, alive from operator `birth` to operator `death` (inclusive)."""

    dims: tuple[int, ...]
    shape: tuple[int, ...]
    birth: int
    death: int


@dataclass(frozen=True)
class Operator:
    """One ATen operator, in execution order; dimensions are rows of the size table."""

    op: str
    module: str
    attributes: Mapping[str, Any]
    """Its non-tensor arguments: stride, padding, dilation, groups, ..."""
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    """Buffer numbers, like `reads`; reshapes and in-place operators write none."""
    parameters: tuple[str, ...]
    outputs: tuple[tuple[int, ...], ...]
    factors: tuple[int, ...]
    filters: int | None
    weight: tuple[int, ...]
    size_arguments: tuple[tuple[str, int], ...]
    """Arguments that the output shapes do not determine: their names (`rules.call.argument`) and sizes."""
    fused_into: int | None
    """The operator on whose output it is computed in place (conv + norm + activation), if any."""
    mixes: bool
    """Whether it reduces over prunable channels, so that removing some changes the values of the others."""
    site: Site
    is_scaled: bool = False
    """Whether it takes a number computed from widths (`x * channels**-0.5`), which changes with them."""
    is_unused: bool = False
    """Whether no output of the network depends on it: converters drop it, so it costs nothing."""


@dataclass(frozen=True)
class Layer:
    """A convolution or linear layer with its own weights."""

    name: str
    op: str
    operator: int
    """Index of its operator in `Network.operators`; -1 if it runs in training only, or nothing reads its result."""
    filters: int
    weight: tuple[int, ...]
    factors: tuple[int, ...]
    output: tuple[int, ...]
    parameters: tuple[str, ...]


@dataclass(frozen=True)
class Network:
    """The immutable record of an analysed model: everything that costs, plans and surgery need."""

    groups: tuple[Group, ...]
    frozen: tuple[Frozen, ...]
    layers: tuple[Layer, ...]
    operators: tuple[Operator, ...]
    other_runs: tuple[tuple[Operator, ...], ...]
    """Operators of each other path through `forward`: in train mode, with other examples or outcomes."""
    parameters: tuple[Parameter, ...]
    tensors: tuple[Tensor, ...]
    stored_integers: tuple[StoredInteger, ...]
    coefficients: IntArray = field(repr=False)
    """A in ``sizes = A @ w + b`` (dimensions x groups)."""
    constants: IntArray = field(repr=False)
    """b in ``sizes = A @ w + b``."""
    members: tuple[Ids, ...] = field(repr=False)
    """For every dimension, the channel at each index; -1 where it is fixed, and empty for a dimension of fixed size."""
    group_of: IntArray = field(repr=False)
    """The group of each channel."""
    rank_of: IntArray = field(repr=False)
    """Index of each channel within its group."""
    stored_integer_dims: tuple[int, ...]
    output_shapes: tuple[tuple[int, ...], ...]
    example: Any
    """Shapes and data types of the inputs, as `identity.describe` returns them."""
    fingerprint: str
    """Fingerprint of the dense model's parameters and buffers (`identity.fingerprint`)."""
    notes: tuple[str, ...]
    tried: tuple[Mapping[str, int], ...] = ()
    """Widths by group of earlier plans that failed: narrower copies were tried at these too, beside the usual ones."""

    plan: ClassVar[Callable[..., Any]]
    """:func:`pretrim.plan`, attached by `pretrim.core`."""

    @cached_property
    def dense(self) -> IntArray:
        """Widths of the dense network, one per group."""
        return np.array([group.channels for group in self.groups], dtype=np.int64)

    @property
    def mixers(self) -> tuple[str, ...]:
        """Operators whose values depend on the number of channels, as ``operator in module``.

        They reduce over prunable channels, or take a number that `forward` computes from widths.
        """
        names = [f"{o.op} in {o.module or 'the model'}" for o in self.operators if o.mixes or o.is_scaled]
        return tuple(dict.fromkeys(names))

    @property
    def forward(self) -> dict[str, str]:
        """What `forward` computes, operator by operator: parameters' names and shapes do not tell ReLU from Sigmoid.

        Maps the number and module of each operator, over all traced runs, to its text; sizes are left out because a
        plan changes them.
        """
        runs = (self.operators, *self.other_runs)
        operators = [operator for run in runs for operator in run if operator.op not in _WITHOUT_EFFECT]
        return {f"operator {number} in {o.module or 'the model'}": _format(o) for number, o in enumerate(operators, 1)}

    def sizes(self, widths: ArrayLike) -> IntArray:
        """Sizes of every dimension, for one vector of widths (G) or a matrix of them (n x G)."""
        return np.asarray(widths) @ self.coefficients.T + self.constants


def first_difference(was: Mapping[str, str], now: Mapping[str, str]) -> str | None:
    """Describe the first operator that differs between two networks' `forward`; None if they compute the same.

    >>> first_difference({"operator 1 in act": "relu"}, {"operator 1 in act": "sigmoid"})
    'operator 1 in act is sigmoid, and was relu'
    """
    changed = [key for key in {**was, **now} if was.get(key) != now.get(key)]
    if not changed:
        return None
    return f"{changed[0]} is {now.get(changed[0], 'missing')}, and was {was.get(changed[0], 'missing')}"


_WITHOUT_EFFECT = ("empty",)
_SIZE_ARGUMENTS = ("size", "shape", "sizes", "split_size", "split_sizes", "self_shape", "input_size")


def _format(operator: Operator) -> str:
    """Format an operator with its non-tensor arguments, as ``hardtanh(max_val=6.0, min_val=0.0)``."""
    attributes = {name: value for name, value in sorted(operator.attributes.items()) if name not in _SIZE_ARGUMENTS}
    arguments = ", ".join(f"{name}={value}" for name, value in attributes.items() if value is not None)
    return f"{operator.op}({arguments})" if arguments else operator.op
