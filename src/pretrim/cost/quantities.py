"""One table of what can be limited: each quantity's name, option, unit and text, and what computes it.

Everything that names a quantity reads this table: limits, options of the command line, tables, studies, reports.
Another package adds one through an entry point of the group ``pretrim.costs`` that names a :class:`Quantity`.

Nothing heavy is imported here, so that ``pretrim --help`` can read the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import Literal, TypeAlias

Unit: TypeAlias = Literal["count", "bytes", "ns"]
Criterion: TypeAlias = Literal["params", "macs", "memory", "latency"]
"""What counts as a layer's complexity: the paper's PA, FA and MA, and measured time"""


@dataclass(frozen=True)
class Quantity:
    """Something that a network takes.

    Attributes:
        name: in records and files; the unit is part of it.
        option: as users write it: ``--ram`` on the command line, ``ram=`` in Python.
        title: in tables.
        unit: of its values: plain numbers, bytes or nanoseconds.
        criterion: the complexity of a layer that stands for it when layers are drawn.
        factory: ``module:function`` called with (network, dtype), which returns its `Cost`. None where only a
            device can say, as a measured latency: the planner is then handed the cost.
        is_peak: whether it is the memory of one moment, not of all layers together.
        help: one line for the command line.
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
"""Those with an option on the command line; the others are asked for by ``--at-most NAME=AMOUNT``"""
GROUP = "pretrim.costs"


@cache
def quantities() -> dict[str, Quantity]:
    """Every quantity by its name: the built-in ones, then those of other packages."""
    found = {quantity.name: quantity for quantity in BUILTIN}
    for entry in entry_points(group=GROUP):
        quantity: Quantity = entry.load()
        found.setdefault(quantity.name, quantity)
    return found


def as_options(name: str, amount: str) -> tuple[str, str]:
    """A limit as it is asked for on the command line, in two words.

    >>> as_options("macs", "0.5x"), as_options("arena_bytes", "96KiB")
    (('--macs', '0.5x'), ('--at-most', 'arena_bytes=96KiB'))
    """
    return (f"--{name}", amount) if name in OWN_OPTIONS else ("--at-most", f"{name}={amount}")


@cache
def by_option() -> dict[str, Quantity]:
    """Every quantity by what users may call it: its option or its name."""
    every = quantities().values()
    return {quantity.option: quantity for quantity in every} | {quantity.name: quantity for quantity in every}
