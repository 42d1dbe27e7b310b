"""Parts of a tensor that are only put together again: LiteRT's converter drops both, and so do predictions of its file.

A split and a slice, and the `cat` that alone reads their parts in the order in which they lie, are the tensor itself,
or one part of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from pretrim.analysis.network import Operator

SPLITS = frozenset({"split", "split_with_sizes"})


@dataclass(frozen=True)
class Part:
    """A part of a tensor: of the buffer `whole`, along its dimension `dim`, from `start` on, `size` long."""

    whole: int
    dim: int
    start: int
    size: int


@dataclass(frozen=True)
class Rejoined:
    """What a network puts together again.

    Attributes:
        parts: by buffer, which part of another one it is: those that splits and slices write, and `joined`.
        joined: buffers that a `cat` writes, and that are one part.
        dropped: buffers that are read by these alone.
    """

    parts: dict[int, Part]
    joined: frozenset[int]
    dropped: frozenset[int]


def rejoined(operators: Sequence[Operator], size: Callable[[int], int]) -> Rejoined:
    """Find them.

    Args:
        operators: of a network, in order.
        size: of a dimension in the dense network.
    """
    found = {buffer: part for operator in operators for buffer, part in _parts(operator, size)}
    readers: dict[int, int] = {}
    for operator in operators:
        for buffer in operator.reads:
            readers[buffer] = readers.get(buffer, 0) + 1
    joined, dropped = dict[int, Part](), set[int]()
    for operator in operators:
        is_alone = all(readers[buffer] == 1 and buffer in found for buffer in operator.reads)
        if operator.op == "cat" and is_alone and not operator.parameters:
            parts = [found[buffer] for buffer in operator.reads]
            if _follow_each_other(parts, int(operator.attributes.get("dim", 0)) % len(operator.outputs[0])):
                first = parts[0]
                total = sum(part.size for part in parts)
                joined[operator.writes[0]] = Part(first.whole, first.dim, first.start, total)
                dropped.update(operator.reads)
    return Rejoined(found | joined, frozenset(joined), frozenset(dropped))


def _parts(operator: Operator, size: Callable[[int], int]) -> Iterator[tuple[int, Part]]:
    """The buffers that an operator writes, and which part of what it reads each of them is."""
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
    ends = [part.start + part.size for part in parts]
    is_one = all((part.whole, part.dim) == (parts[0].whole, dim) for part in parts)
    return is_one and all(part.start == end for part, end in zip(parts[1:], ends, strict=False))
