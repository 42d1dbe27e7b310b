"""The table of quantities that can be limited: name, option, unit and help text of each, and the function for it.

Limits, command-line options, printed tables, studies and reports all read this table. Another package adds a quantity
through an entry point in the group ``pretrim.costs`` that names a :class:`Quantity`.

This module imports nothing heavy, so that ``pretrim --help`` can read the table quickly.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import Literal, TypeAlias

Unit: TypeAlias = Literal["count", "bytes", "ns"]
Criterion: TypeAlias = Literal["params", "macs", "memory", "latency"]
"""What counts as a layer's complexity: the paper's PA, FA and MA, or measured time."""


@dataclass(frozen=True)
class Quantity:
    """A resource that a network needs and a user can limit.

    Attributes:
        name: name in records and files, which includes the unit.
        option: name that users write: ``--ram`` on the command line, ``ram=`` in Python.
        title: heading in tables.
        unit: unit of the values: plain counts, bytes or nanoseconds.
        criterion: the layer complexity that represents the quantity when layers are drawn.
        factory: ``module:function`` that returns the `Cost` for (network, dtype). None if the quantity must be measured
            on a device, such as a latency: the cost is then passed to the planner.
        is_peak: whether the quantity is the memory at one moment rather than a sum over all layers.
        help: one line of help for the command line.
    """

    name: str
    option: str
    title: str
    unit: Unit
    criterion: Criterion
    factory: str | None = None
    is_peak: bool = False
    help: str = ""


BUILTIN = (
    Quantity(
        "params",
        "params",
        "parameters",
        "count",
        "params",
        "pretrim.cost.costs:params",
        help="Maximum number of parameters: 250k, or 0.5x (50%) of the dense network's.",
    ),
    Quantity(
        "macs",
        "macs",
        "MACs",
        "count",
        "macs",
        "pretrim.cost.costs:macs",
        help="Maximum multiply-accumulates per image: 20M, or 0.5x.",
    ),
    Quantity(
        "weight_bytes",
        "flash",
        "weights (flash)",
        "bytes",
        "params",
        "pretrim.cost.costs:weight_bytes",
        help="Maximum size of the weights: 512KiB, or 0.5x.",
    ),
    Quantity(
        "peak_activation_bytes",
        "ram",
        "peak memory (RAM)",
        "bytes",
        "memory",
        "pretrim.cost.costs:peak_activation_bytes",
        is_peak=True,
        help="Maximum memory of activations alive at once: 256KiB, or 0.5x.",
    ),
    Quantity(
        "activation_bytes",
        "activation",
        "activation memory",
        "bytes",
        "memory",
        "pretrim.cost.costs:activation_bytes",
        help="Maximum size of all feature maps together: 1MiB, or 0.5x.",
    ),
    Quantity(
        "artifact_bytes",
        "artifact_bytes",
        ".tflite file",
        "bytes",
        "params",
        "pretrim.cost.microcontroller:artifact_cost",
        help="Maximum size of the .tflite file.",
    ),
    Quantity(
        "arena_bytes",
        "arena_bytes",
        "tensor arena",
        "bytes",
        "memory",
        "pretrim.cost.microcontroller:arena_cost",
        is_peak=True,
        help="Maximum size of the tensor arena.",
    ),
    Quantity(
        "latency_ns",
        "latency",
        "latency",
        "ns",
        "latency",
        help="Maximum time per image on one thread of the runtime: 5ms, or 0.5x.",
    ),
)
OWN_OPTIONS = ("params", "macs", "flash", "ram", "activation", "latency")
"""Quantities with a command-line option of their own; the others are limited by ``--at-most NAME=AMOUNT``."""
GROUP = "pretrim.costs"
"""Entry-point group of quantities that other packages add."""


@cache
def quantities() -> dict[str, Quantity]:
    """All quantities by name: the built-in ones, then those of other packages."""
    by_name = {quantity.name: quantity for quantity in BUILTIN}
    for entry in entry_points(group=GROUP):
        quantity: Quantity = entry.load()
        by_name.setdefault(quantity.name, quantity)
    return by_name


def as_options(name: str, amount: str) -> tuple[str, str]:
    """A limit as two command-line arguments.

    >>> as_options("macs", "0.5x"), as_options("arena_bytes", "96KiB")
    (('--macs', '0.5x'), ('--at-most', 'arena_bytes=96KiB'))
    """
    return (f"--{name}", amount) if name in OWN_OPTIONS else ("--at-most", f"{name}={amount}")


@cache
def by_option() -> dict[str, Quantity]:
    """All quantities by the names that users may write: option or name."""
    entries = quantities().values()
    return {quantity.option: quantity for quantity in entries} | {quantity.name: quantity for quantity in entries}
