"""Splits and slices that are only concatenated again: LiteRT's converter removes both, so the prediction does too.

If a `cat` is the only reader of adjacent parts of one tensor and joins them in order, its result is the tensor itself,
or one slice of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from pretrim.analysis.network import Operator

SPLITS = frozenset({"split", "split_with_sizes"})


@dataclass(frozen=True)
class Part:
    """A part of the buffer `whole`: `size` indices from `start` along dimension `dim`."""

    whole: int
    dim: int
    start: int
    size: int


@dataclass(frozen=True)
class Rejoined:
    """Parts of tensors in a network, and those that it joins again.

    Attributes:
        parts: the part of another buffer that a buffer is, by buffer: the outputs of splits and slices, and `joined`.
        joined: buffers that a `cat` writes and that are one contiguous part.
        dropped: buffers that only such a `cat` reads.
    """

    parts: dict[int, Part]
    joined: frozenset[int]
    dropped: frozenset[int]


def rejoined(operators: Sequence[Operator], size: Callable[[int], int]) -> Rejoined:
    """Find the parts of tensors that a network joins again.

    Args:
        operators: operators of the network, in order.
        size: function that gives the size of a dimension in the dense network.
    """
    split = {buffer: part for operator in operators for buffer, part in _parts(operator, size)}
    readers: dict[int, int] = {}
    for operator in operators:
        for buffer in operator.reads:
            readers[buffer] = readers.get(buffer, 0) + 1
    joined, dropped = dict[int, Part](), set[int]()
    for operator in operators:
        is_only_reader = all(readers[buffer] == 1 and buffer in split for buffer in operator.reads)
        if operator.op == "cat" and is_only_reader and not operator.parameters:
            parts = [split[buffer] for buffer in operator.reads]
            if _follow_each_other(parts, int(operator.attributes.get("dim", 0)) % len(operator.outputs[0])):
                first = parts[0]
                total = sum(part.size for part in parts)
                joined[operator.writes[0]] = Part(first.whole, first.dim, first.start, total)
                dropped.update(operator.reads)
    return Rejoined(split | joined, frozenset(joined), frozenset(dropped))


def _parts(operator: Operator, size: Callable[[int], int]) -> Iterator[tuple[int, Part]]:
    """The buffers that a split or slice writes, each with the part of its input that it is."""
    attributes = operator.attributes
    first = int(attributes.get("start") or 0)
    is_slice = operator.op == "slice" and attributes.get("step", 1) == 1 and first >= 0
    if not is_slice and operator.op not in SPLITS:
        return
    dim = int(attributes.get("dim", 0)) % len(operator.outputs[0])
    start = first if is_slice else 0
    for buffer, dims in zip(operator.writes, operator.outputs, strict=False):
        yield buffer, Part(operator.reads[0], dim, start, size(dims[dim]))
        start += size(dims[dim])


def _follow_each_other(parts: Sequence[Part], dim: int) -> bool:
    """Whether parts are of one tensor, along one dimension `dim`, and each begins where the previous one ends."""
    ends = [part.start + part.size for part in parts]
    same_tensor = all((part.whole, part.dim) == (parts[0].whole, dim) for part in parts)
    return same_tensor and all(part.start == end for part, end in zip(parts[1:], ends, strict=False))
