"""Parameters that no trace read (a head for another task): the channels that they may read keep their width."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from .channels import Channels, Ids, Labels
from .trace import Trace


def freeze_unread(
    model: nn.Module, channels: Channels, labels: Mapping[str, Labels], traces: Sequence[Trace]
) -> tuple[str, ...]:
    """Freeze the channels that unread layers may read; returns the names of their outermost modules.

    They are assumed to read the same channels as their sibling modules: other members of a list or dict, or those with
    a similar name. A layer without such siblings is only named.

    Args:
        model: the model that was traced.
        channels: the freezes are added to it.
        labels: channel ids of every parameter and buffer, by name.
        traces: the runs.
    """
    read = {name for trace in traces for operation in trace.operations for name in operation.parameters}
    unread = {name for name, parameter in model.named_parameters() if name not in read and parameter.dim() > 1}
    tops = tuple(dict.fromkeys(_outermost(model, name.rpartition(".")[0], read) for name in unread))
    for top in sorted(tops):
        reason = f"{top or 'the model'} may read it, which no example ran"
        for width in _input_widths(model, top):
            for ids in _read_by_siblings(model, top, width, labels, read):
                channels.freeze(ids, top, reason)
    return tuple(sorted(tops))


def _outermost(model: nn.Module, module: str, read: set[str]) -> str:
    """The outermost module around a layer in which nothing was read."""
    while module:
        parent = module.rpartition(".")[0]
        inside = [n for n, _ in model.get_submodule(parent).named_parameters(prefix=parent)] if parent else []
        if not inside or not read.isdisjoint(inside):
            break
        module = parent
    return module


SIMILAR = 3
"""Letters that similar names share at the start or the end, as in `head_a` and `head_b`."""
WIDTHS = (("in_channels", "out_channels"), ("in_features", "out_features"), ("input_size", "hidden_size"))
"""Attributes of torch's layers: how many channels they read and write."""


def _input_widths(model: nn.Module, top: str) -> list[int]:
    """The input widths of a module's layers, except those that an earlier layer may have produced."""
    produced = {1}
    widths = []
    for layer in model.get_submodule(top).modules() if top else ():
        for in_name, out_name in WIDTHS:
            width = getattr(layer, in_name, None)
            if isinstance(width, int):
                widths += [] if width in produced else [width]
                produced |= {width, int(getattr(layer, out_name, width))}
    return widths


def _read_by_siblings(
    model: nn.Module, top: str, width: int, labels: Mapping[str, Labels], read: set[str]
) -> list[Ids]:
    """The channels that sibling modules read with a weight of the same input width."""
    parent, _, name_in_parent = top.rpartition(".")
    is_container = isinstance(model.get_submodule(parent), (nn.ModuleDict, nn.ModuleList))
    read_labels = []
    for name, parameter in model.get_submodule(parent).named_parameters(prefix=parent):
        sibling = name.removeprefix(f"{parent}." if parent else "").partition(".")[0]
        is_similar = (
            is_container
            or sibling[:SIMILAR] == name_in_parent[:SIMILAR]
            or sibling[-SIMILAR:] == name_in_parent[-SIMILAR:]
        )
        label = labels[name][1] if is_similar and name in read and parameter.dim() > 1 else None
        if label is not None and len(label) == width:
            read_labels.append(label)
    return read_labels
