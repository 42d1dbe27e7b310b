"""`pretrim profile`: what each layer costs, what is coupled, and what is frozen and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import options, render
from .target import DTYPE

if TYPE_CHECKING:
    from .subject import Subject


def profile(
    model: options.Model,
    input: options.Input = None,
    classes: options.Classes = None,
    dtype: options.DTypeOption = None,
    json: options.Json = False,
) -> None:
    """Show what each layer costs, and which layers can be trimmed."""
    shape = options.input_shape(model, input)
    from .subject import open_model

    record = profile_record(open_model(model, shape, classes), dtype or DTYPE)
    if json:
        render.print_json(record)
    else:
        render.show_profile(render.output(), record)


def profile_record(subject: Subject, dtype: str) -> dict[str, Any]:
    """Totals, layers with their share in each mode, groups, frozen layers and notes, as plain JSON.

    A layer's ``params`` are its weights alone: biases and norms follow the filters, and count in the totals.
    """
    from dataclasses import asdict
    from typing import cast

    from pretrim.cost.costs import costs, layer_costs
    from pretrim.cost.formula import DType, item_bytes

    item_bytes(cast(DType, dtype))  # says which data types there are
    kind, network = cast(DType, dtype), subject.network
    layers = [asdict(layer) for layer in layer_costs(network, network.dense, kind)]
    for mode, column in (("params", "params"), ("macs", "macs"), ("memory", "activation_bytes")):
        whole = sum(layer[column] for layer in layers)
        for layer in layers:
            layer.setdefault("shares", {})[mode] = layer[column] / whole if whole else 0.0
    return {
        "model": subject.reference.name,
        "arguments": dict(subject.reference.arguments),
        "input": list(subject.input_shape),
        "dtype": dtype,
        "totals": {name: int(cost(network.dense)) for name, cost in costs(network, kind).items()},
        "layers": layers,
        "groups": [
            {"name": group.name, "channels": group.channels, "layers": list(group.layers)} for group in network.groups
        ],
        "frozen": [asdict(frozen) for frozen in network.frozen],
        "notes": list(network.notes),
    }
