"""Operators whose results are never used: converters drop them, so they cost nothing on a device."""

from __future__ import annotations

from collections.abc import Iterator

from .rules.operators import RESHAPES, VIEWS
from .trace import Operation, Trace


def unused_operations(trace: Trace) -> frozenset[int]:
    """The indices of operators that no output of the network depends on.

    An operator without output tensors counts as used: it reads a value that decides the path, or checks one.
    """
    storage = _storage(trace)
    needed = set(trace.outputs)
    unused = []
    for number in range(len(trace.operations) - 1, -1, -1):
        operation = trace.operations[number]
        if not operation.reads:  # it does not depend on the input
            continue
        if not operation.shapes or _is_needed(operation, needed, storage):
            needed.update(operation.reads)
        else:
            unused.append(number)
    return frozenset(unused)


def _is_needed(operation: Operation, needed: set[int], storage: dict[int, int]) -> bool:
    if operation.writes:
        return not needed.isdisjoint(operation.writes)
    if operation.op in RESHAPES:
        return not needed.isdisjoint(operation.reads)
    needed_storage = {storage.get(buffer, buffer) for buffer in needed}
    return any(storage.get(buffer, buffer) in needed_storage for buffer in operation.reads)


def _storage(trace: Trace) -> dict[int, int]:
    """Map each buffer that is a view to the first buffer in the same memory."""
    storage: dict[int, int] = {}
    for source, view in _views(trace):
        storage[view] = storage.get(source, source)
    return storage


def _views(trace: Trace) -> Iterator[tuple[int, int]]:
    """Pairs of a buffer and a view of it."""
    for operation in trace.operations:
        if operation.op in VIEWS and len(operation.reads) == 1:
            for view in operation.writes:
                yield operation.reads[0], view
