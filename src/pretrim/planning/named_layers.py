"""Layers that a user keeps by name: the patterns of `Options.freeze` and `Options.min_width`.

A pattern is the name of a layer or of a module that contains it (``layer1``, ``stages.0``), or a glob (``*.conv1``).
`pretrim profile` shows the names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

import numpy as np
from numpy.typing import NDArray

from pretrim.analysis.network import Frozen, IntArray, Network
from pretrim.errors import UsageError, shown


def is_meant(pattern: str, layer: str) -> bool:
    """Whether a pattern matches a layer, or a module that contains it.

    >>> is_meant("layer1", "layer1.0.conv1"), is_meant("layer1", "layer10"), is_meant("*.conv1", "layer1.0.conv1")
    (True, False, True)
    """
    return fnmatchcase(layer, pattern) or fnmatchcase(layer, f"{pattern}.*")


def frozen_groups(network: Network, patterns: Sequence[str]) -> NDArray[np.bool_]:
    """Whether a pattern matches one of each group's layers (G).

    Raises UsageError for a pattern that matches no layer.
    """
    for pattern in patterns:
        _check_named(network, pattern, "freeze")
    return np.array([_first_match(group.layers, patterns) is not None for group in network.groups], dtype=bool)


def fewest_filters(network: Network, min_width: int | Mapping[str, int]) -> IntArray:
    """The fewest filters that the layers of each group may keep (G): the largest number set for one of them.

    Raises UsageError for a pattern that matches no layer.
    """
    minimums = min_width if isinstance(min_width, Mapping) else {"*": min_width}
    for pattern in minimums:
        _check_named(network, pattern, "min_width")
    return np.array(
        [
            max((n for p, n in minimums.items() if any(is_meant(p, layer) for layer in group.layers)), default=1)
            for group in network.groups
        ],
        dtype=np.int64,
    )


def frozen_by_name(network: Network, patterns: Sequence[str]) -> tuple[Frozen, ...]:
    """The layers that patterns freeze, including layers coupled with a matched one, each with the reason."""
    frozen = {}
    is_frozen = frozen_groups(network, patterns)
    for group, _ in (pair for pair in zip(network.groups, is_frozen, strict=True) if pair[1]):
        matched = next(layer for layer in group.layers if _first_match([layer], patterns) is not None)
        for layer in group.layers:
            pattern = _first_match([layer], patterns)
            coupled = f"coupled with {matched}, frozen as requested"
            reason = coupled if pattern is None else f"frozen as asked ({pattern})"
            frozen[layer] = Frozen(layer, group.channels * group.multiplicity, reason)
    return tuple(frozen.values())


def _first_match(layers: Iterable[str], patterns: Sequence[str]) -> str | None:
    """The first pattern that matches one of these layers, in the order of the layers."""
    return next((pattern for layer in layers for pattern in patterns if is_meant(pattern, layer)), None)


def _check_named(network: Network, pattern: str, option: str) -> None:
    """Raise UsageError if a pattern of an option matches no layer, with the closest name."""
    names = list(dict.fromkeys(layer.name for layer in network.layers))
    if pattern == "*" or any(is_meant(pattern, name) for name in names):
        return
    modules = {name[:end] for name in names for end in range(1, len(name) + 1) if name[end : end + 1] in ("", ".")}
    close = get_close_matches(pattern, sorted(modules), n=1)
    hint = f"did you mean {close[0]}?" if close else "`pretrim profile` shows their names."
    raise UsageError(f"No layer is named by {option} {shown(pattern)}: {hint}")
