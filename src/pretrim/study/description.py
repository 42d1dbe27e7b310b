"""A description of the dense network for reports, stored in the study's folder: layers, groups, shares per mode."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pretrim import records
from pretrim.cost.costs import MODES, layer_terms
from pretrim.cost.formula import formula
from pretrim.errors import StudyError
from pretrim.files import write_text

from .inputs import TrialInputs

NETWORK = "network.json"


def write_network(folder: Path, inputs: TrialInputs) -> None:
    """Write the description, unless it exists already."""
    if not (folder / NETWORK).exists():
        write_text(folder / NETWORK, json.dumps(describe(inputs)) + "\n")


def describe(inputs: TrialInputs) -> dict[str, Any]:
    """Describe the network as plain JSON: names and dense widths of the groups, and each layer's share in each mode."""
    network = inputs.dense.network
    shares = {}
    for mode in MODES:
        values = formula(network, layer_terms(network, mode))(network.dense[None])[0]
        total = float(values.sum()) or 1.0
        shares[mode] = [float(value) / total for value in values]
    return {
        "model": inputs.dense.name,
        "input_shape": list(inputs.data.input_shape),
        "classes": list(inputs.data.classes),
        "data": inputs.data.source,
        "groups": [group.name for group in network.groups],
        "channels": [int(width) for width in network.dense],
        "layers": [layer.name for layer in network.layers],
        "shares": shares,
    }


def read_network(folder: Path) -> dict[str, Any] | None:
    """Read the description; None if it is missing or damaged."""
    source = folder / NETWORK
    try:
        plain = records.load(source.read_bytes(), source=source, error=StudyError, remedy="remove it")
        records.convert(plain, _Described, source=source, error=StudyError, remedy="remove it")
    except (OSError, StudyError):
        return None
    return dict(plain)


@dataclass(frozen=True)
class _Described:
    """The fields that the report reads."""

    model: str
    input_shape: tuple[int, ...]
    classes: tuple[str, ...]
    data: str
    groups: tuple[str, ...]
    channels: tuple[int, ...]
    layers: tuple[str, ...]
    shares: Mapping[str, tuple[float, ...]]
