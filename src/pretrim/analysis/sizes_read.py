"""Sizes that `forward` reads from one tensor and uses for another (``B, N, C = x.shape; y.reshape(B, N, h, C // h)``).

Torch sees plain integers. Here a size read from a dimension with channels is an integer that remembers them, even after
division or multiplication. When it is used as a size of another tensor, the channels of both are tied.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from .channels import Ids, Labels

KEEP_SIZES = ("einops",)
"""Packages that cache the sizes they read, and would use one tensor's size for another."""
SHAPE: Any = torch.Tensor.shape.__get__  # type: ignore[attr-defined]  # a property defined in C
LIKE = frozenset(["view_as", "reshape_as", "expand_as"])
OnEqual: TypeAlias = Callable[["Width", int], None]


def ignore(width: Width, number: int) -> None:
    """Default callback for widths whose comparisons do not matter."""


class Width(int):
    """A number of channels read from a tensor, or a multiple or fraction of it."""

    ids: Ids
    share: Fraction
    """Ratio of this number to the number of channels."""
    on_equal: OnEqual
    """Called with every number that `forward` finds equal to this one."""

    def __new__(cls, value: int, ids: Ids, share: Fraction = Fraction(1), on_equal: OnEqual = ignore) -> Width:
        width = super().__new__(cls, value)
        width.ids, width.share, width.on_equal = ids, share, on_equal
        return width

    def _with(self, value: int, share: Fraction) -> Width:
        return Width(value, self.ids, share, self.on_equal)

    def __eq__(self, other: Any) -> bool:
        is_equal = int.__eq__(self, other)
        if is_equal is True:
            self.on_equal(self, other)
        return is_equal

    def __ne__(self, other: Any) -> bool:
        is_equal = self.__eq__(other)
        return is_equal if is_equal is NotImplemented else not is_equal

    __hash__ = int.__hash__

    def __mul__(self, other: Any) -> Any:
        if type(other) is int and other > 0:
            return self._with(int(self) * other, self.share * other)
        return int(self) * other

    __rmul__ = __mul__

    def __add__(self, other: Any) -> Any:
        if isinstance(other, Width) and np.array_equal(other.ids, self.ids):
            return self._with(int(self) + int(other), self.share + other.share)
        return int(self) + other

    def __sub__(self, other: Any) -> Any:
        if isinstance(other, Width) and other < self and np.array_equal(other.ids, self.ids):
            return self._with(int(self) - int(other), self.share - other.share)
        return int(self) - other

    def __floordiv__(self, other: Any) -> Any:
        if type(other) is int and other > 0 and int(self) % other == 0:
            return self._with(int(self) // other, self.share / other)
        return int(self) // other

    def __deepcopy__(self, memo: Any) -> int:
        return int(self)


class SizesRead(TorchFunctionMode):
    """Gives `forward` widths instead of integers, and keeps the integer arguments of the running call."""

    def __init__(self, look: Callable[[Tensor], Labels], on_equal: OnEqual = ignore) -> None:
        super().__init__()
        self.look = look
        self.on_equal = on_equal
        self.asked: list[int] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == "size" or (name == "__get__" and func == SHAPE):
            return self._read(args[0], func(*args, **kwargs), args[1:], kwargs)
        outer, self.asked = self.asked, self._integer_arguments(name, args, kwargs)
        try:
            return func(*args, **kwargs)
        finally:
            self.asked = outer

    def _read(self, tensor: Tensor, result: Any, positional: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """The same sizes, as widths where the dimensions hold channels."""
        if any(package in sys._getframe(2).f_code.co_filename for package in KEEP_SIZES):
            return result
        labels = self.look(tensor)
        if isinstance(result, torch.Size):
            return torch.Size([self._width(size, label) for size, label in zip(result, labels, strict=True)])
        return self._width(result, labels[kwargs.get("dim", positional[0] if positional else 0)])

    def _width(self, size: int, label: Ids | None) -> int:
        return size if label is None or size < 2 else Width(size, label, on_equal=self.on_equal)

    def _integer_arguments(self, name: str, args: Any, kwargs: Mapping[str, Any]) -> list[int]:
        """The integers among the arguments of a call, in order; empty if none is a width."""
        if name in LIKE:
            other = args[1] if len(args) > 1 else kwargs["other"]
            integers = [self._width(size, label) for size, label in zip(other.shape, self.look(other), strict=True)]
        else:
            integers = [number for leaf in tree_leaves([*args, *kwargs.values()]) for number in _integers(leaf)]
        return integers if any(isinstance(number, Width) for number in integers) else []

    def of(self, sizes: Sequence[int]) -> list[Width | None]:
        """For each size argument of an operator, the width that the running call passed for it, if any.

        Matched by position if the call has as many integers as the operator has sizes, else by value if only one width
        has it.
        """
        if len(self.asked) == len(sizes) and all(int(a) in (b, -1) for a, b in zip(self.asked, sizes, strict=True)):
            return [number if isinstance(number, Width) else None for number in self.asked]
        by_value = {int(number): number for number in self.asked if isinstance(number, Width)}
        ambiguous = {int(number) for number in self.asked if by_value.get(int(number)) is not number}
        return [None if size in ambiguous else by_value.get(size) for size in sizes]


def _integers(argument: Any) -> list[int]:
    """The integers in one argument: the argument itself, or the ends of a slice."""
    parts = (argument.start, argument.stop) if isinstance(argument, slice) else (argument,)
    return [part for part in parts if isinstance(part, int)]
