"""Parameters that no trace read (a head that another task uses): what they may read has to stay as wide as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from .channels import Channels, Ids, Labels
from .trace import Trace


def freeze_unread(
    model: nn.Module, channels: Channels, labels: Mapping[str, Labels], traces: Sequence[Trace]
) -> tuple[str, ...]:
    """Freeze the channels that unread layers may read; returns the names of their outermost modules.

    They read what the modules beside them do: other members of a list or dict, or those of a similar name. A layer
    without such neighbours is only named.

    Args:
        model: the model that was traced.
        channels: gets the freezes.
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
    """The largest module round a layer in which nothing was read."""
    while module:
        parent = module.rpartition(".")[0]
        inside = [n for n, _ in model.get_submodule(parent).named_parameters(prefix=parent)] if parent else []
        if not inside or not read.isdisjoint(inside):
            break
        module = parent
    return module


SIMILAR = 3
"""Letters in common at the start or the end of two names, as of `head_a` and `head_b`."""
WIDTHS = (("in_channels", "out_channels"), ("in_features", "out_features"), ("input_size", "hidden_size"))
"""Of torch's layers: how many channels they read and make."""


def _input_widths(model: nn.Module, top: str) -> list[int]:
    """How many channels the layers of a module read, without those that a layer before may have made."""
    made = {1}
    widths = []
    for layer in model.get_submodule(top).modules() if top else ():
        for into, out in WIDTHS:
            width = getattr(layer, into, None)
            if isinstance(width, int):
                widths += [] if width in made else [width]
                made |= {width, int(getattr(layer, out, width))}
    return widths


def _read_by_siblings(
    model: nn.Module, top: str, width: int, labels: Mapping[str, Labels], read: set[str]
) -> list[Ids]:
    """What the modules beside it read by a weight of the same width."""
    parent, _, own = top.rpartition(".")
    is_container = isinstance(model.get_submodule(parent), (nn.ModuleDict, nn.ModuleList))
    found = []
    for name, parameter in model.get_submodule(parent).named_parameters(prefix=parent):
        beside = name.removeprefix(f"{parent}." if parent else "").partition(".")[0]
        is_like = is_container or beside[:SIMILAR] == own[:SIMILAR] or beside[-SIMILAR:] == own[-SIMILAR:]
        label = labels[name][1] if is_like and name in read and parameter.dim() > 1 else None
        if label is not None and len(label) == width:
            found.append(label)
    return found
