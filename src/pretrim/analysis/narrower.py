"""Narrower copies of a model on meta tensors, compared operator by operator with what the network predicts."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from .copies import clone_module, describe_failure
from .meta_kernels import resized
from .network import IntArray, Network, Operator
from .observer import Observer, Stage
from .rules.call import argument
from .rules.operators import POINTWISE
from .stored_integers import cut_shapes, retarget_modules

SMALL_GROUP = 8
BY_NUMBER = frozenset(["slice", "split_with_sizes", "constant_pad_nd"])
"""Operators whose integer arguments say how many channels to take (equal parts, as in `chunk`, need none)."""
TRIALS_BY_NUMBER = 4


class Mismatch(Exception):
    """Raised when a narrower network deviates from the prediction, with the operator where it does."""

    def __init__(
        self, operator: Operator | None, message: str, *, other_operator: bool = False, raised: bool = False
    ) -> None:
        super().__init__(message)
        self.operator = operator
        self.other_operator = other_operator
        self.raised = raised


def trial_widths(network: Network) -> list[IntArray]:
    """Widths about half the dense ones, in which no two groups shrink alike (the golden ratio spreads them evenly).

    Groups keep at least two channels if they have more: a dimension of size 1 makes torch run other operators. Small
    groups have too few widths to differ, so two more trials give neighbouring ones different widths. Where `forward`
    takes channels by number (slices, splits, padding), a number may fit one narrower network by chance, so more trials,
    odd widths included, are added.
    """
    places = np.arange(len(network.groups))
    ratio = 0.3 + 0.4 * ((places + 1) * 0.6180339887498949 % 1.0)
    min_widths = np.where(network.dense > 2, 2, 1)
    max_widths = np.where(network.dense - 1 > min_widths, network.dense - 1, network.dense)
    first = np.maximum(min_widths, np.floor(network.dense * ratio)).astype(np.int64)
    small = network.dense <= SMALL_GROUP
    variants = [np.where(small, np.where(places >> bit & 1, max_widths, min_widths), first) for bit in (0, 1)]
    trials = [first, *variants] if small.any() else [first]
    if takes_by_number(network):
        random = np.random.default_rng(0)
        trials += [random.integers(min_widths, network.dense, endpoint=True) for _ in range(TRIALS_BY_NUMBER)]
        trials += [
            np.where(random.random(len(min_widths)) < 0.5, min_widths, network.dense) for _ in range(TRIALS_BY_NUMBER)
        ]
    return trials


def takes_by_number(network: Network) -> bool:
    """Whether `forward` takes channels by number (slices, splits, padding)."""
    return any(operator.op in BY_NUMBER and takes_channels(network, operator) for operator in network.operators)


def takes_channels(network: Network, operator: Operator) -> bool:
    """Whether an operator's outputs have a dimension that plans change."""
    return any(network.coefficients[row].any() for dims in operator.outputs for row in dims)


class Checker(Observer):  # type: ignore[no-untyped-call]
    """Compares every operator of a narrower copy with what the network predicts for it."""

    def __init__(self, operators: Sequence[Operator], sizes: IntArray) -> None:
        super().__init__()
        self.operators = operators
        self.sizes = sizes
        self.number = 0
        self.scaled: set[int] = set()
        """Indices of elementwise operators that take another number than in the dense network."""

    @property
    def expected(self) -> Operator | None:
        return self.operators[self.number] if self.number < len(self.operators) else None

    @property
    def at_fault(self) -> Operator | None:
        """The operator before which `forward` raised; for a reshape that copies first, the one that reshapes."""
        copied, reshaped = (*self.operators[self.number : self.number + 2], None, None)[:2]
        if copied and reshaped and (copied.op, reshaped.op) == ("clone", "_unsafe_view"):
            return reshaped if copied.site[:3] == reshaped.site[:3] else copied
        return copied

    def observe(self, op: str, args: dict[str, Any], outputs: tuple[torch.Tensor, ...]) -> None:
        """See `Observer.observe`.

        Args:
            op: the operator's name.
            args: its arguments, by name.
            outputs: its output tensors.
        """
        expected = self.expected
        if expected is None or expected.op != op:
            dense = expected.op if expected else "nothing"
            raise Mismatch(expected, f"it ran {op} where the dense network ran {dense}", other_operator=True)
        for out, dims in zip(outputs, expected.outputs, strict=True):
            shape = tuple(self.sizes[list(dims)])
            if tuple(out.shape) != shape:
                raise Mismatch(expected, f"{op} gave {tuple(out.shape)} instead of {tuple(map(int, shape))}")
        for name, row in expected.size_arguments:
            if (value := argument(args, name)) != self.sizes[row]:
                raise Mismatch(expected, f"{op} got {name} {value} instead of {int(self.sizes[row])}")
        if op in POINTWISE and any(args.get(name) != number for name, number in _numbers(expected)):
            self.scaled.add(self.number)
        self.number += 1


def _numbers(operator: Operator) -> list[tuple[str, int | float]]:
    """The plain numbers among an operator's arguments, by name."""
    return [(name, value) for name, value in operator.attributes.items() if isinstance(value, (int, float))]


def narrow_stage(run: Stage, network: Network, widths: IntArray) -> Stage:
    """Build a narrower copy of a staged model. On meta tensors, parameters and buffers of the same kind share a tensor.

    Args:
        run: the dense model, ready to run.
        network: the analysed network.
        widths: channels that each group keeps (G).
    """
    shapes = cut_shapes(network, widths)
    cache: dict[tuple[object, ...], torch.Tensor] = {}

    def narrow(name: str, tensor: torch.Tensor) -> torch.Tensor:
        key = (shapes[name], tensor.dtype, isinstance(tensor, nn.Parameter))
        if run.meta is None or key not in cache:
            cache[key] = _narrow(tensor, shapes[name])
        return cache[key]

    with run.meta if run.meta is not None else nullcontext():
        model = clone_module(run.model, narrow)
    retarget_modules(model, run.model, network, widths)
    return replace(run, model=model)


def _narrow(tensor: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    if tensor.is_meta:
        new = resized(tensor, shape)
    else:
        new = tensor[tuple(slice(size) for size in shape)].detach().clone() if shape else tensor.detach().clone()
    return nn.Parameter(new, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else new


def check_narrow(run: Stage, operators: Sequence[Operator], sizes: IntArray) -> set[int]:
    """Run a narrower model and compare every operator with the predicted sizes. Raises Mismatch.

    Returns the indices of elementwise operators that took another number than in the dense run.

    Args:
        run: the narrow model, ready to run.
        operators: the operators of the dense run, in execution order.
        sizes: predicted size of every dimension in the size table.
    """
    checker = Checker(operators, sizes)
    try:
        run.run(checker)
    except Mismatch:
        raise
    except Exception as error:
        raise Mismatch(checker.at_fault, f"forward raised {describe_failure(error)}", raised=True) from error
    if checker.expected is not None:
        raise Mismatch(checker.expected, f"it ended before {checker.expected.op}")
    return checker.scaled
