"""Limits on what a network takes: how users write them, and what they mean for one network.

A limit is absolute (``"250k"``, ``"20M"``, ``"512KiB"``, ``250_000``) or a share of the dense network (``"0.3x"``). It
is called by a quantity's option (``ram``) or its name (``peak_activation_bytes``); `cost.quantities` has the table.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pretrim.analysis.network import IntArray, Network
from pretrim.cost.costs import cost
from pretrim.cost.formula import BoundedCost, Cost, DType
from pretrim.cost.quantities import BUILTIN, Quantity, Unit, as_options, by_option, quantities
from pretrim.errors import BudgetError, UsageError, shown

NO_LIMIT = 2**62
"""More than anything costs; limits beyond it would not fit an array"""
DIGITS = 4
"""of milliseconds in messages"""
_COUNT = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}
_BYTES = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_UNITS: Mapping[Unit, Mapping[str, int]] = {  # in lower case: any is read, nobody limits a network to millibytes
    "count": _COUNT,
    "bytes": {**_COUNT, **_BYTES},
    "ns": {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9},
}
_EXAMPLES: Mapping[Unit, str] = {"count": "250k", "bytes": "512KiB", "ns": "5ms"}
_AMOUNT = re.compile(r"\s*([+-]?(?:\d+(?:_\d+)*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*([A-Za-z]*|%)\s*")
_SHARES: Mapping[str, float] = {"x": 1.0, "%": 0.01}


@dataclass(frozen=True)
class Limit:
    """One limit: an amount in the unit of its quantity, or a share of the dense network's.

    Attributes:
        cost: the quantity's name.
        amount: in its unit, or a share.
        is_share: whether it is one.
        text: as the user wrote it.
        name: what the user called it: ``ram`` rather than ``peak_activation_bytes``.

    >>> Limit.parse("macs", "20M")
    Limit(cost='macs', amount=20000000.0, is_share=False, text='20M', name='macs')
    >>> Limit.parse("ram", "0.5x").is_share, Limit.parse("ram", "50%").amount
    (True, 0.5)
    """

    cost: str
    amount: float
    is_share: bool
    text: str
    name: str

    @classmethod
    def parse(cls, name: str, value: str | int | float) -> Limit:
        """Read a limit as the user wrote it. Raises BudgetError, which says how limits are written."""
        quantity = by_option().get(name)
        if quantity is None:
            raise UsageError(f"Expected a limit on one of {', '.join(by_option())}, but got {shown(name)}.")
        text = _text(value)
        match = _AMOUNT.fullmatch(text)
        unit = match[2].lower() if match else ""
        units = _UNITS[quantity.unit]
        if match is None or not (unit in _SHARES or unit in units):
            raise BudgetError(
                f"Expected {name} to be an amount such as {_EXAMPLES[quantity.unit]!r} or a share such as '0.3x' or "
                f"'30%', but got {shown(text if isinstance(value, str | int | float) else value)}."
            )
        amount = float(match[1].replace("_", ""))  # infinite beyond 1e308
        if amount <= 0:
            raise BudgetError(f"Expected {name} to be more than 0, but got {shown(text)}.")
        if amount < 1 and unit in ("", "b"):
            raise BudgetError(
                f"Expected {name} to be at least 1, but got {shown(text)}: write a share as '{match[1]}x'."
            )
        is_share = unit in _SHARES
        amount = amount * _SHARES[unit] if is_share else min(amount * units[unit], NO_LIMIT)
        if is_share and amount > 1:
            raise BudgetError(f"Expected {name} to be at most the dense network's ('1x'), but got {shown(text)}.")
        return cls(quantity.name, amount, is_share, text, name)

    @property
    def quantity(self) -> Quantity:
        """Its row in the table."""
        return quantities()[self.cost]

    def said(self, value: int | None = None) -> str:
        """As it is written on the command line, for a message.

        Args:
            value: what it comes to, which is told of a share, rounded down.

        >>> Limit.parse("params", "0.5x").said(295), Limit.parse("arena_bytes", 1000).said(1000)
        ('--params 0.5x (295)', '--at-most arena_bytes=1000')
        """
        words = " ".join(as_options(self.name, shown(self.text)[1:-1]))
        if value is None or not self.is_share:
            return words
        return f"{words} ({amount_text(self.quantity.unit, value, up=False)})"

    def resolve(self, dense: int) -> int:
        """The largest allowed value, in the unit of the cost."""
        amount = self.amount * dense if self.is_share else self.amount
        return math.floor(amount)


@dataclass(frozen=True)
class Budget:
    """Several limits at once, with the data type that bytes are counted in."""

    limits: tuple[Limit, ...]
    dtype: DType = "float32"

    @classmethod
    def parse(cls, limits: Mapping[str, str | int | float | None], dtype: DType = "float32") -> Budget:
        """Read limits by name; None means no limit. Raises BudgetError if there is none, or one is given twice."""
        parsed = tuple(Limit.parse(name, value) for name, value in limits.items() if value is not None)
        if not parsed:
            options = ", ".join(f"--{quantity.option}" for quantity in BUILTIN[:5])
            raise BudgetError(f"No limit given ({options}): add one, e.g. `--macs 0.5x`.")
        if len({limit.cost for limit in parsed}) < len(parsed):
            raise BudgetError(f"Expected one limit per cost, but got {', '.join(limits)}: give each only once.")
        return cls(parsed, dtype)

    def resolve(self, network: Network, costs: Mapping[str, Cost] | None = None) -> ResolvedBudget:
        """The limits as numbers for one network.

        Args:
            network: that the shares are of.
            costs: by name, what is measured or predicted for a device; the rest come from the table of quantities.

        Raises:
            BudgetError: the dense network already meets every limit, with room to spare.
            UsageError: a limit on a cost that only a device can tell, and that was not given.
        """
        resolved = self.resolve_any(network, costs)
        if (resolved.values > resolved.dense).all():
            limit = self.limits[0]
            need = amount_text(limit.quantity.unit, int(resolved.dense[0]), up=False)
            raise BudgetError(
                f"Nothing to trim: the dense network needs {need} and meets {limit.said()} as it is. Lower the limit."
            )
        return resolved

    def resolve_any(self, network: Network, costs: Mapping[str, Cost] | None = None) -> ResolvedBudget:
        """The same, also where the dense network meets every limit."""
        handed = dict(costs or {})
        exact = tuple(self._cost(network, limit, handed) for limit in self.limits)
        dense = np.array([int(function(network.dense)) for function in exact], dtype=np.int64)
        values = np.array([limit.resolve(int(d)) for limit, d in zip(self.limits, dense, strict=True)], dtype=np.int64)
        search = tuple(function.bound if isinstance(function, BoundedCost) else function for function in exact)
        return ResolvedBudget(search, values, dense, exact, self.limits, handed)

    def _cost(self, network: Network, limit: Limit, handed: Mapping[str, Cost]) -> Cost:
        if limit.cost in handed:
            return handed[limit.cost]
        if limit.quantity.factory is None:
            raise UsageError(
                f"{limit.said()} needs a {limit.quantity.title} that was measured, and none was given: "
                f"see pretrim.latency."
            )
        return cost(network, limit.cost, self.dtype)


@dataclass(frozen=True)
class ResolvedBudget:
    """Limits as numbers, and the costs they are on.

    Attributes:
        costs: to search by: they never fall when a width grows.
        values: the limits.
        dense: the costs of the dense network.
        exact: what must be within the limits in the end; the same as `costs` but for those with a bound.
        limits: as the user wrote them.
        handed: every cost that was given, limited or not, by name: one known by layer can weight the draws.
    """

    costs: tuple[Cost, ...]
    values: IntArray
    dense: IntArray
    exact: tuple[Cost, ...]
    limits: tuple[Limit, ...]
    handed: Mapping[str, Cost] = field(default_factory=dict)

    @property
    def is_exact(self) -> bool:
        """Whether the costs to search by are the costs as they are."""
        return self.costs == self.exact

    def measure(self, widths: ArrayLike) -> IntArray:
        """Each limited cost at each row of widths: (n x G) -> (n x limits)."""
        return np.stack([function(widths) for function in self.costs], axis=-1)

    def met(self, widths: ArrayLike) -> NDArray[np.bool_]:
        """Which rows of widths meet every limit."""
        return np.asarray((self.measure(widths) <= self.values).all(axis=-1))

    def broken(self, widths: IntArray) -> list[str]:
        """What one row of widths exceeds by the exact costs, in words."""
        reached = [int(function(widths)) for function in self.exact]
        return [
            f"{amount_text(limit.quantity.unit, value)} exceeds {limit.said(int(most))}"
            for limit, value, most in zip(self.limits, reached, self.values, strict=True)
            if value > most
        ]

    def with_exact_costs(self) -> ResolvedBudget:
        """The same limits, searched by the exact costs."""
        return replace(self, costs=self.exact)

    def with_margin(self, widths: IntArray, limits: IntArray, lowest: IntArray) -> ResolvedBudget:
        """Narrower limits to search by, where these widths kept the bounds but exceed the true `limits`.

        Args:
            widths: what was found (G).
            limits: what has to be kept by the exact costs.
            lowest: bounds of the narrowest network, below which nothing would be found.
        """
        over = np.array([int(function(widths)) for function in self.exact]) - limits
        narrower = np.maximum(np.minimum(self.measure(widths), self.values) - over, lowest)
        return replace(self, values=np.where(over > 0, np.minimum(narrower, self.values), self.values))


def _text(value: object) -> str:
    """An amount as a text: a tensor of one number is that number."""
    number = value.item() if hasattr(value, "item") and not getattr(value, "shape", None) else value
    try:
        return str(number)
    except ValueError:  # Python does not write an integer of thousands of digits
        return f"{'-' if number < 0 else ''}1e{sys.get_int_max_str_digits()}"  # type: ignore[operator]


def amount_text(unit: Unit, value: int, *, up: bool = True) -> str:
    """A value for people, exact enough to be a limit: what is met by the text is met by the value.

    Args:
        unit: of the value.
        value: nanoseconds are shown as milliseconds with four digits.
        up: how these are rounded; the other way for a limit, so that what exceeds it never reads the same.

    >>> amount_text("bytes", 49152), amount_text("ns", 5_000_000), amount_text("count", 8062)
    ('49,152 bytes', '5 ms', '8,062')
    >>> amount_text("ns", 5_000_001), amount_text("ns", 5_000_999, up=False)
    ('5.001 ms', '5 ms')
    """
    if unit == "ns":
        step: int = 10 ** max(len(str(value)) - DIGITS, 0)
        return f"{(-(-value // step) if up else value // step) * step * 1e-6:.{DIGITS}g} ms"
    return f"{value:,} bytes" if unit == "bytes" else f"{value:,}"
