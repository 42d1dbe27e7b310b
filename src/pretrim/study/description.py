"""What a report shows of the network itself, kept in the study's folder: layers, groups, shares in each mode."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pretrim.cost.costs import MODES, layer_terms
from pretrim.cost.formula import formula
from pretrim.files import write_text

from .inputs import TrialInputs

NETWORK = "network.json"


def write_network(folder: Path, inputs: TrialInputs) -> None:
    """Write it, once."""
    if not (folder / NETWORK).exists():
        write_text(folder / NETWORK, json.dumps(describe(inputs)) + "\n")


def describe(inputs: TrialInputs) -> dict[str, Any]:
    """Plain JSON: names and dense widths of the groups, and the share of each layer in each mode."""
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
    """What was written; None where it is missing or damaged."""
    try:
        found = json.loads((folder / NETWORK).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and "groups" in found else None
