"""Limits on a network's costs: how users write them, and what they mean for one network.

A limit is absolute (``"250k"``, ``"20M"``, ``"512KiB"``, ``250_000``) or a share of the dense network (``"0.3x"``).
Short names are those of the device: ``ram`` for `peak_activation_bytes`, ``flash`` for `weight_bytes`. What a
microcontroller really takes can be limited too: ``artifact_bytes`` of flash, ``arena_bytes`` of RAM (`footprint.py`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pretrim.analysis.network import IntArray, Network
from pretrim.cost.costs import COSTS, CostName, costs
from pretrim.cost.formula import Cost, DType
from pretrim.cost.microcontroller import arena_cost, artifact_cost
from pretrim.errors import BudgetError, InfeasibleBudget, UsageError

DEVICE_COSTS = ("artifact_bytes", "arena_bytes")
LATENCY = "latency_ns"
ALIASES: dict[str, str] = {
    "ram": "peak_activation_bytes",
    "flash": "weight_bytes",
    "activation": "activation_bytes",
    "latency": LATENCY,
    **{name: name for name in (*COSTS, *DEVICE_COSTS, LATENCY)},
}
NO_LIMIT = 2**62
"""More than anything costs; limits beyond it would not fit an array"""
_TIME = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9}
_COUNT = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9}
_BYTES = {
    "B": 1,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
}
_AMOUNT = re.compile(r"\s*([+-]?(?:\d+(?:_\d+)*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*([A-Za-z]*)\s*")


class TimeCost(Cost, Protocol):
    """A measured latency (`latency/cost.py`)."""

    def by_layer(self, widths: ArrayLike) -> NDArray[np.float64]:
        """Seconds of each layer of the network: (n x G) -> (n x layers)."""


@dataclass(frozen=True)
class Limit:
    """One limit: an amount in the unit of its cost, or a share of the dense network's.

    >>> Limit.parse("macs", "20M")
    Limit(cost='macs', amount=20000000.0, is_share=False, text='20M')
    >>> Limit.parse("ram", "0.5x").is_share
    True
    """

    cost: str
    amount: float
    is_share: bool
    text: str

    @classmethod
    def parse(cls, name: str, value: str | int | float) -> Limit:
        """Read a limit as the user wrote it. Raises BudgetError, which says how limits are written."""
        if name not in ALIASES:
            raise UsageError(f"Expected a limit on one of {', '.join(ALIASES)}, but got {name!r}.")
        cost = ALIASES[name]
        text = str(value)
        match = _AMOUNT.fullmatch(text)
        unit = match[2] if match else ""
        example = "'512KiB'" if cost.endswith("bytes") else "'5ms'" if cost == LATENCY else "'250k'"
        units = _TIME if cost == LATENCY else {**_COUNT, **(_BYTES if cost.endswith("bytes") else {})}
        if match is None or not (unit == "x" or unit in units):
            raise BudgetError(
                f"Expected {name} to be an amount such as {example} or a share such as '0.3x', but got {text!r}."
            )
        amount = float(match[1].replace("_", ""))
        if amount <= 0 or not math.isfinite(amount):
            raise BudgetError(f"Expected {name} to be more than 0, but got {text!r}.")
        if unit != "x" and amount < 1 and unit in ("", "B"):
            raise BudgetError(f"Expected {name} to be at least 1, but got {text!r}: write a share as '{match[1]}x'.")
        if unit == "x" and amount > 1:
            raise BudgetError(f"Expected {name} to be at most the dense network's ('1x'), but got {text!r}.")
        return cls(cost, amount if unit == "x" else amount * units[unit], unit == "x", text)

    def resolve(self, dense: int) -> int:
        """The largest allowed value, in the unit of the cost."""
        return min(math.floor(self.amount * dense if self.is_share else self.amount), NO_LIMIT)


@dataclass(frozen=True)
class Budget:
    """Several limits at once, with the data type that bytes are counted in."""

    limits: tuple[Limit, ...]
    dtype: DType = "float32"
    latency: TimeCost | None = None

    @classmethod
    def parse(
        cls,
        limits: Mapping[str, str | int | float | None],
        dtype: DType = "float32",
        latency: TimeCost | None = None,
    ) -> Budget:
        """Read limits by name; None means no limit. Raises BudgetError if there is none, or one is given twice."""
        parsed = tuple(Limit.parse(name, value) for name, value in limits.items() if value is not None)
        if not parsed:
            raise BudgetError("Expected at least one limit (params, macs, flash, ram, activation), but got none.")
        if len({limit.cost for limit in parsed}) < len(parsed):
            raise BudgetError(f"Expected one limit per cost, but got {', '.join(limits)}: give each only once.")
        return cls(parsed, dtype, latency)

    def resolve(self, network: Network) -> Bounds:
        """The limits as numbers for one network.

        Raises:
            BudgetError: the dense network already meets every limit, with room to spare.
        """
        bounds = self.bounds(network)
        if (bounds.values > bounds.dense).all():
            limit, need = self.limits[0], _amount(self.limits[0].cost, int(bounds.dense[0]))
            raise BudgetError(
                f"Expected {_title(limit.cost)} below the dense network's {need}, but got {limit.text!r}: "
                f"it fits as it is, there is nothing to trim."
            )
        return bounds

    def bounds(self, network: Network) -> Bounds:
        """The same, without asking whether there is anything to trim."""
        found = [_functions(network, limit.cost, self.dtype, self.latency) for limit in self.limits]
        exact = tuple(function for _, function in found)
        dense = np.array([int(function(network.dense)) for function in exact], dtype=np.int64)
        values = np.array([limit.resolve(int(d)) for limit, d in zip(self.limits, dense, strict=True)], dtype=np.int64)
        return Bounds(tuple(function for function, _ in found), values, dense, exact, self.latency)


def _functions(network: Network, name: str, dtype: DType, latency: TimeCost | None) -> tuple[Cost, Cost]:
    """A cost as a formula to search by, and as it is: they differ where no formula is exact."""
    if name == LATENCY:
        if latency is None:
            raise UsageError("Expected a measured latency for a limit on it, but got none: see pretrim.latency.")
        return latency, latency
    if name == "arena_bytes":
        arena = arena_cost(network, dtype)
        return arena.bound, arena
    found = artifact_cost(network, dtype) if name == "artifact_bytes" else costs(network, dtype)[_as_cost(name)]
    return found, found


def _as_cost(name: str) -> CostName:
    return next(cost for cost in COSTS if cost == name)


@dataclass(frozen=True)
class Bounds:
    """Limits as numbers, and the costs they are on.

    Attributes:
        costs: to search by: formulas, which never fall when a width grows.
        values: the limits.
        dense: the costs of the dense network.
        exact: what must be within the limits in the end; the same as `costs` but for the arena.
    """

    costs: tuple[Cost, ...]
    values: IntArray
    dense: IntArray
    exact: tuple[Cost, ...]
    latency: TimeCost | None = None
    """Where it was measured, whether it is limited or not: it can be the weights of the draws"""

    def measure(self, widths: ArrayLike) -> IntArray:
        """Each limited cost at each row of widths: (n x G) -> (n x limits)."""
        return np.stack([cost(widths) for cost in self.costs], axis=-1)

    def met(self, widths: ArrayLike) -> NDArray[np.bool_]:
        """Which rows of widths meet every limit."""
        return np.asarray((self.measure(widths) <= self.values).all(axis=-1))

    def broken(self, widths: IntArray) -> list[str]:
        """What one row of widths breaks, in words."""
        return verify(self.exact, self.values.tolist(), widths)

    def as_they_are(self) -> Bounds:
        """The same limits, searched by the exact costs."""
        return Bounds(self.exact, self.values, self.dense, self.exact, self.latency)

    def tightened(self, widths: IntArray, limits: IntArray) -> Bounds:
        """Narrower limits to search by, where these widths kept the formulas but are over the true `limits`."""
        over = np.array([int(cost(widths)) for cost in self.exact]) - limits
        values = np.where(over > 0, np.minimum(self.measure(widths), self.values) - over, self.values)
        return Bounds(self.costs, values, self.dense, self.exact, self.latency)

    def check_reachable(self, smallest: IntArray, frozen: int = 0) -> None:
        """Raises InfeasibleBudget if even the narrowest legal network, with so many frozen layers, does not fit."""
        reached = self.measure(smallest)
        for cost, limit, value in zip(self.costs, self.values, reached, strict=True):
            if value > limit:
                most, needed = (_amount(cost.name, int(each)) for each in (limit, value))
                raise InfeasibleBudget(
                    f"Expected {_title(cost.name)} of at most {most}, but the narrowest legal network needs {needed}: "
                    f"raise the limit, or lower --round-to, --min-width or --min-features"
                    + (f" (frozen layers: {frozen}, `pretrim profile` says why)." if frozen else ".")
                )


def _title(name: str) -> str:
    """A cost as users call it."""
    return "latency" if name == LATENCY else name


def _amount(name: str, value: int) -> str:
    """As users write it: a latency in milliseconds."""
    return f"{value * 1e-6:.4g} ms" if name == LATENCY else f"{value:,}"


def verify(costs: Sequence[Cost], limits: Sequence[int], widths: IntArray) -> list[str]:
    """What a final plan breaks: costs that are no closed formulas (arena, latency) are checked after the search."""
    found = [(cost.name, int(cost(widths)), limit) for cost, limit in zip(costs, limits, strict=True)]
    return [f"{name} is {value:,}, the limit {limit:,}" for name, value, limit in found if value > limit]
