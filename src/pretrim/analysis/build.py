"""Build the frozen `Network` from traces: groups, sizes as functions of the widths, lifetimes of activations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .channels import Channels, Ids, Label, Labels
from .configuration import KeyPath
from .named_integers import StoredInteger
from .network import Frozen, Group, IntArray, Layer, Network, Operator, Parameter, Tensor
from .rules.operators import FACTORIES
from .trace import Operation, Trace


class SizeTable:
    """Assigns one row to each distinct dimension: fixed ones are keyed by size, others by their channels."""

    def __init__(self, channel_of: IntArray) -> None:
        self.channel_of = channel_of
        self.rows: dict[object, int] = {}
        self.members: list[Ids] = []
        self.fixed: list[int] = []

    def row(self, size: int, label: Label) -> int:
        channels = None if label is None else self.channel_of[label]
        if channels is None or (channels < 0).all():
            return self._add(size, np.full(0, -1, dtype=np.int64), size)
        return self._add(channels.tobytes(), channels, int((channels < 0).sum()))

    def count_of(self, ids: Ids) -> int:
        """The row of an integer, which counts channels regardless of their order."""
        return self.row(len(ids), ids[np.argsort(self.channel_of[ids], kind="stable")])

    def dims(self, shape: Sequence[int], labels: Labels) -> tuple[int, ...]:
        return tuple(self.row(size, label) for size, label in zip(shape, labels, strict=True))

    def pairs(self, pairs: Iterable[tuple[int, Label]]) -> tuple[int, ...]:
        return tuple(self.row(size, label) for size, label in pairs)

    def _add(self, key: object, members: Ids, fixed: int) -> int:
        if key not in self.rows:
            self.rows[key] = len(self.members)
            self.members.append(members)
            self.fixed.append(fixed)
        return self.rows[key]


@dataclass(frozen=True)
class Declared:
    """A parameter or buffer as declared by the model."""

    name: str
    shape: tuple[int, ...]
    labels: Labels
    is_trained: bool
    is_buffer: bool


@dataclass(frozen=True)
class Analysis:
    """The results of the traces, before groups are formed."""

    channels: Channels
    parameters: Sequence[Declared]
    inference: Trace
    others: tuple[Trace, ...]
    """Other paths through `forward`: in train mode, with other examples or outcomes."""
    example: Any
    fingerprint: str
    notes: tuple[str, ...]
    unused: frozenset[int] = frozenset()
    """Numbers of the inference operators that no output depends on."""


def build_network(analysis: Analysis) -> Network:
    """Resolve ties and freezes, form the groups, and express every size as a function of the widths."""
    root = analysis.channels.components()
    traces = [analysis.inference, *analysis.others]
    layer_operations = [o for trace in traces for o in trace.operations if o.filters is not None]
    frozen_by = _freeze_reasons(analysis.channels, root)
    channel_of = _number_channels(root, layer_operations, frozen_by)
    table = SizeTable(channel_of)
    parameters = tuple(
        Parameter(p.name, p.shape, table.dims(p.shape, p.labels), p.is_trained, p.is_buffer)
        for p in analysis.parameters
    )
    inference = _operators(analysis.inference, table, fuse=True, unused=analysis.unused)
    others = tuple(_operators(other, table, fuse=False) for other in analysis.others)
    tensors = _lifetimes(analysis.inference, inference, table)
    stored_integers, stored_integer_dims = _stored_integers(traces, table, frozen_by[root] >= 0)
    layers = _layers(inference, others)
    group_of, rank_of = _group_channels(table.members, int(channel_of.max(initial=-1)) + 1)
    coefficients, constants = _linear_forms(table, group_of)
    return Network(
        groups=_groups(layers, table.members, coefficients, group_of),
        frozen=_frozen_layers(layer_operations, root, channel_of, analysis.channels, frozen_by),
        layers=layers,
        operators=inference,
        other_runs=others,
        parameters=parameters,
        tensors=tensors,
        stored_integers=stored_integers,
        coefficients=coefficients,
        constants=constants,
        members=tuple(table.members),
        group_of=group_of,
        rank_of=rank_of,
        stored_integer_dims=stored_integer_dims,
        output_shapes=tuple(analysis.inference.output_shapes),
        example=analysis.example,
        fingerprint=analysis.fingerprint,
        notes=analysis.notes,
    )


def _freeze_reasons(channels: Channels, root: Ids) -> IntArray:
    """For each component, the number of the first freeze that applies to it; -1 if there is none."""
    frozen_by = np.full(channels.count, -1, dtype=np.int64)
    for number in range(len(channels.freezes) - 1, -1, -1):
        frozen_by[root[channels.freezes[number].ids]] = number
    return frozen_by


def _number_channels(root: Ids, layers: Sequence[Operation], frozen_by: IntArray) -> IntArray:
    """Number the components that a plan may remove: unfrozen filters of some layer. Others get -1."""
    is_filter = np.zeros(len(root), dtype=bool)
    for operation in layers:
        assert operation.filters is not None  # that is what makes it a layer
        is_filter[root[operation.filters]] = True
    prunable = np.flatnonzero(is_filter & (frozen_by < 0))
    number = np.full(len(root), -1, dtype=np.int64)
    number[prunable] = np.arange(len(prunable))
    return number[root]


def _operators(
    trace: Trace, table: SizeTable, *, fuse: bool, unused: frozenset[int] = frozenset()
) -> tuple[Operator, ...]:
    fused = _fusions(trace, unused) if fuse else {}
    return tuple(
        Operator(
            op=o.op,
            module=o.module,
            attributes=o.attributes,
            reads=o.reads,
            writes=o.writes,
            parameters=o.parameters,
            outputs=tuple(table.dims(shape, labels) for shape, labels in zip(o.shapes, o.outputs, strict=True)),
            factors=table.pairs(o.factors) if number not in unused else (),
            filters=None if o.filters is None else table.row(len(o.filters), o.filters),
            weight=table.pairs(o.weight),
            size_arguments=tuple((name, table.row(value, ids)) for name, value, ids in o.size_arguments),
            fused_into=fused.get(number),
            mixes=any((table.channel_of[ids] >= 0).any() for ids in o.mixed),
            site=o.site,
            is_unused=number in unused,
        )
        for number, o in enumerate(trace.operations)
    )


def _fusions(trace: Trace, unused: frozenset[int]) -> dict[int, int]:
    """Map operators fused into their producer to it: elementwise ones that are the only reader of their input."""
    readers: dict[int, list[int]] = {}
    writer: dict[int, int] = {}
    for number, operation in enumerate(trace.operations):
        for buffer in operation.reads if number not in unused else ():
            readers.setdefault(buffer, []).append(number)
        for buffer in operation.writes:
            writer[buffer] = number
    kept = {*trace.inputs, *trace.outputs}
    fused: dict[int, int] = {}
    for number, operation in enumerate(trace.operations):
        if not operation.fuses or len(operation.reads) != 1 or not operation.writes:
            continue
        source = operation.reads[0]
        if source in writer and source not in kept and len(readers.get(source, ())) == 1:
            fused[number] = fused.get(writer[source], writer[source])
    return fused


def _lifetimes(trace: Trace, operators: Sequence[Operator], table: SizeTable) -> tuple[Tensor, ...]:
    """Which activations take memory, and their lifetimes, with fused operators counted as one."""
    memory_of: dict[int, int] = {}  # for a buffer computed in place, the one whose memory it uses
    birth = dict.fromkeys(trace.inputs, 0)
    death: dict[int, int] = {}
    for number, operator in enumerate(operators):
        if operator.is_unused:
            continue
        for buffer in operator.reads:
            death[memory_of.get(buffer, buffer)] = number
        if operator.fused_into is not None:
            source = operator.reads[0]
            memory_of[operator.writes[0]] = memory_of.get(source, source)
        else:
            birth.update(dict.fromkeys(operator.writes, number))
    for buffer in trace.outputs:
        death[memory_of.get(buffer, buffer)] = len(operators) - 1
    buffers = trace.buffers
    return tuple(
        Tensor(table.dims(buffers[b].shape, buffers[b].labels), buffers[b].shape, born, death[b])
        for b, born in birth.items()
        if b in death
    )


class StoredIntegerConflict(Exception):
    """Raised when one stored integer would have to follow two different sets of channels."""

    def __init__(self, stored: StoredInteger) -> None:
        super().__init__(f"{stored.attribute} of {stored.module or 'the model'} stands for different channels")
        self.stored = stored


def _stored_integers(
    traces: Sequence[Trace], table: SizeTable, is_frozen: NDArray[np.bool_]
) -> tuple[tuple[StoredInteger, ...], tuple[int, ...]]:
    """The integers to retarget, without duplicates, with the dimensions they follow. Raises StoredIntegerConflict.

    A dimension that no plan changes may have the same size by chance (an image as high as a layer has filters); it is
    frozen. A dimension of a new tensor that is not frozen, though no layer computes it (zeros for a state), has to
    follow the integer.

    Args:
        traces: the traces, with the integers that each run found.
        table: gets the rows of their dimensions.
        is_frozen: whether each channel id is frozen.
    """
    unique: dict[tuple[str, str, KeyPath], tuple[StoredInteger, int]] = {}
    rows = [(stored, table.count_of(stored.ids)) for trace in traces for stored in trace.stored_integers]
    changing = [(stored, row) for stored, row in rows if (table.members[row] >= 0).any()]
    for stored, row in changing:
        _, known = unique.setdefault((stored.module, stored.attribute, stored.path), (stored, row))
        if known != row:
            raise StoredIntegerConflict(stored)
    for stored, row in rows:
        follows = (stored.module, stored.attribute, stored.path) in unique and stored.site.op in FACTORIES
        if follows and not table.members[row].size and not is_frozen[stored.ids].any():
            raise StoredIntegerConflict(stored)
    return tuple(stored for stored, _ in unique.values()), tuple(row for _, row in unique.values())


def _layers(inference: Sequence[Operator], others: Sequence[Sequence[Operator]]) -> tuple[Layer, ...]:
    """The layers of inference, and those that only other runs use (auxiliary heads in training)."""
    layers: dict[tuple[str, int], Layer] = {}
    known_parameters: set[str] = set()
    for operators in (inference, *others):
        is_inference = operators is inference
        for number, o in enumerate(operators):
            if o.filters is None or (not is_inference and known_parameters & set(o.parameters)):
                continue
            name = o.module or ", ".join(o.parameters)
            index = number if is_inference and not o.is_unused else -1
            layers[(name, len(layers))] = Layer(
                name, o.op, index, o.filters, o.weight, o.factors, o.outputs[0], o.parameters
            )
        known_parameters |= {name for o in operators if o.filters is not None for name in o.parameters}
    return tuple(layers.values())


def _group_channels(members: Sequence[Ids], count: int) -> tuple[IntArray, IntArray]:
    """Group channels by footprint: a 64-bit hash of (dimension, multiplicity) pairs, summed over dimensions.

    Returns the group of each channel, and its index within the group.
    """
    if count == 0:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    hashes = np.zeros(count, dtype=np.uint64)
    for dim, ids in enumerate(members):
        free = ids[ids >= 0]
        if free.size:
            channels, times = np.unique(free, return_counts=True)
            hashes[channels] += _scramble(np.uint64(dim * 1_000_003) + times.astype(np.uint64))
    _, first, group = np.unique(hashes, return_index=True, return_inverse=True)
    order = np.argsort(np.argsort(first))  # groups are ordered by their first channel
    group_of = order[group].astype(np.int64)
    rank_of = np.zeros(count, dtype=np.int64)
    for number in range(len(first)):
        inside = np.flatnonzero(group_of == number)
        rank_of[inside] = np.arange(len(inside))
    return group_of, rank_of


def _scramble(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """splitmix64's finalizer (Steele, Lea, Flood 2014): spreads small integers over 64 bits."""
    x = x * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _linear_forms(table: SizeTable, group_of: IntArray) -> tuple[IntArray, IntArray]:
    groups = int(group_of.max(initial=-1)) + 1
    width = np.bincount(group_of, minlength=groups)
    coefficients = np.zeros((len(table.members), groups), dtype=np.int64)
    for dim, ids in enumerate(table.members):
        free = ids[ids >= 0]
        if free.size:
            coefficients[dim] = np.bincount(group_of[free], minlength=groups) // width
    return coefficients, np.array(table.fixed, dtype=np.int64)


def _groups(
    layers: Sequence[Layer], members: Sequence[Ids], coefficients: IntArray, group_of: IntArray
) -> tuple[Group, ...]:
    width = np.bincount(group_of, minlength=coefficients.shape[1])
    owners: list[list[Layer]] = [[] for _ in width]
    for layer in layers:
        for group in np.flatnonzero(coefficients[layer.filters]):
            owners[group].append(layer)
    names: dict[str, int] = {}
    groups = []
    for number, group_layers in enumerate(owners):
        name = group_layers[0].name
        names[name] = names.get(name, 0) + 1
        label = name if names[name] == 1 else f"{name}#{names[name]}"
        layer_names = tuple(dict.fromkeys(layer.name for layer in group_layers))
        groups.append(Group(label, layer_names, int(width[number]), int(coefficients[group_layers[0].filters, number])))
    return tuple(groups)


def _frozen_layers(
    layers: Sequence[Operation], root: Ids, channel_of: IntArray, channels: Channels, frozen_by: IntArray
) -> tuple[Frozen, ...]:
    """The filters that may not be removed, layer by layer, each with the first reason."""
    frozen: dict[str, Frozen] = {}
    for operation in layers:
        assert operation.filters is not None  # that is what makes it a layer
        name = operation.module or ", ".join(operation.parameters)
        roots = root[operation.filters[channel_of[operation.filters] < 0]]
        if not roots.size or name in frozen:
            continue
        freeze = channels.freezes[int(frozen_by[roots].max())]
        where = f" (in {freeze.module})" if freeze.module not in ("", name) else ""
        frozen[name] = Frozen(name, len(roots), freeze.reason + where, freeze.source_line)
    return tuple(frozen.values())
