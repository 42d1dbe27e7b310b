"""Limits on the costs of a network: how users write them, and their values for one network.

A limit is absolute (``"250k"``, ``"20M"``, ``"512KiB"``, ``250_000``) or a share of the dense network (``"0.3x"``). It
is identified by a quantity's option (``ram``) or its name (``peak_activation_bytes``); `cost.quantities` has the table.
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
"""Larger than any cost. Limits are capped here, so that they fit an array of 64-bit integers."""
DIGITS = 4
"""Significant digits of milliseconds in messages."""
_COUNT = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}
_BYTES = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_UNITS: Mapping[Unit, Mapping[str, int]] = {  # keys in lower case: units are read in any case
    "count": _COUNT,
    "bytes": {**_COUNT, **_BYTES},
    "ns": {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9},
}
_EXAMPLES: Mapping[Unit, str] = {"count": "250k", "bytes": "512KiB", "ns": "5ms"}
_AMOUNT = re.compile(r"\s*([+-]?(?:\d+(?:_\d+)*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*([A-Za-z]*|%)\s*")
_SHARES: Mapping[str, float] = {"x": 1.0, "%": 0.01}


@dataclass(frozen=True)
class Limit:
    """A limit on one quantity: an amount in the quantity's unit, or a share of the dense network's value.

    Attributes:
        cost: the quantity's name.
        amount: the amount in the quantity's unit, or the share.
        is_share: whether `amount` is a share.
        text: the amount as the user wrote it.
        name: the quantity as the user named it, such as ``ram`` for ``peak_activation_bytes``.

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
        """Read a limit as the user wrote it.

        Raises:
            UsageError: there is no quantity of this name.
            BudgetError: the value is not a valid limit; the message says how limits are written.
        """
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
        """The quantity's entry in the table."""
        return quantities()[self.cost]

    def said(self, value: int | None = None) -> str:
        """The limit as it is written on the command line, for a message.

        Args:
            value: the limit in the quantity's unit; of a share, it is added in parentheses, rounded down.

        >>> Limit.parse("params", "0.5x").said(295), Limit.parse("arena_bytes", 1000).said(1000)
        ('--params 0.5x (295)', '--at-most arena_bytes=1000')
        """
        words = " ".join(as_options(self.name, shown(self.text)[1:-1]))
        if value is None or not self.is_share:
            return words
        return f"{words} ({amount_text(self.quantity.unit, value, up=False)})"

    def resolve(self, dense: int) -> int:
        """The largest allowed value in the quantity's unit, given the dense network's value."""
        amount = self.amount * dense if self.is_share else self.amount
        return math.floor(amount)


@dataclass(frozen=True)
class Budget:
    """One or more limits, with the data type that bytes are counted in."""

    limits: tuple[Limit, ...]
    dtype: DType = "float32"

    @classmethod
    def parse(cls, limits: Mapping[str, str | int | float | None], dtype: DType = "float32") -> Budget:
        """Read limits by name; None means no limit.

        Raises BudgetError if there is no limit at all, or two on the same quantity.
        """
        parsed = tuple(Limit.parse(name, value) for name, value in limits.items() if value is not None)
        if not parsed:
            options = ", ".join(f"--{quantity.option}" for quantity in BUILTIN[:5])
            raise BudgetError(f"No limit given ({options}): add one, e.g. `--macs 0.5x`.")
        if len({limit.cost for limit in parsed}) < len(parsed):
            raise BudgetError(f"Expected one limit per cost, but got {', '.join(limits)}: give each only once.")
        return cls(parsed, dtype)

    def resolve(self, network: Network, costs: Mapping[str, Cost] | None = None) -> ResolvedBudget:
        """Resolve the limits to numbers for one network.

        Args:
            network: the dense network, which shares refer to.
            costs: costs measured or predicted for a device, by name; all others come from the table of quantities.

        Raises:
            BudgetError: the dense network already meets every limit, with room to spare.
            UsageError: a limit is on a cost that must be measured on a device, and the cost was not given.
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
        """Like `resolve`, but also accepts limits that the dense network already meets."""
        handed = dict(costs or {})
        exact = tuple(self._cost(network, limit, handed) for limit in self.limits)
        dense = np.array([int(function(network.dense)) for function in exact], dtype=np.int64)
        values = np.array([limit.resolve(int(d)) for limit, d in zip(self.limits, dense, strict=True)], dtype=np.int64)
        search_costs = tuple(function.bound if isinstance(function, BoundedCost) else function for function in exact)
        return ResolvedBudget(search_costs, values, dense, exact, self.limits, handed)

    def _cost(self, network: Network, limit: Limit, handed: Mapping[str, Cost]) -> Cost:
        """The cost that a limit is on: the one that was passed in, or the one of the table of quantities."""
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
    """Limits as numbers for one network, with the costs that they are on.

    Attributes:
        costs: the costs to search by, one per limit: they never fall when a width grows.
        values: the limits, in the units of their costs.
        dense: exact costs of the dense network.
        exact: the costs that must meet the limits in the end; equal to `costs` except where a cost has a bound.
        limits: the limits as the user wrote them.
        handed: every cost that was passed in, limited or not, by name: one known by layer can weight the draws.
    """

    costs: tuple[Cost, ...]
    values: IntArray
    dense: IntArray
    exact: tuple[Cost, ...]
    limits: tuple[Limit, ...]
    handed: Mapping[str, Cost] = field(default_factory=dict)

    @property
    def dense_fits(self) -> bool:
        """Whether the dense network meets every limit."""
        return bool((self.dense <= self.values).all())

    @property
    def is_exact(self) -> bool:
        """Whether the search uses the exact costs, with no bounds in place of them."""
        return self.costs == self.exact

    def measure(self, widths: ArrayLike) -> IntArray:
        """Evaluate each limited cost at each row of widths: (n x G) -> (n x limits)."""
        return np.stack([function(widths) for function in self.costs], axis=-1)

    def met(self, widths: ArrayLike) -> NDArray[np.bool_]:
        """Whether each row of widths meets every limit: (n x G) -> (n)."""
        return np.asarray((self.measure(widths) <= self.values).all(axis=-1))

    def broken(self, widths: IntArray) -> list[str]:
        """One message for each limit that one row of widths (G) exceeds by its exact cost."""
        reached = [int(function(widths)) for function in self.exact]
        return [
            f"{amount_text(limit.quantity.unit, value)} exceeds {limit.said(int(maximum))}"
            for limit, value, maximum in zip(self.limits, reached, self.values, strict=True)
            if value > maximum
        ]

    def with_exact_costs(self) -> ResolvedBudget:
        """The same limits, with the exact costs as the costs to search by."""
        return replace(self, costs=self.exact)

    def with_margin(self, widths: IntArray, limits: IntArray, lowest: IntArray) -> ResolvedBudget:
        """Tighten the limits to search by, where widths that met them exceed the true `limits` by the exact costs.

        A limit that is exceeded becomes the bound that the widths reached, less the excess.

        Args:
            widths: the widths that the search returned (G).
            limits: the true limits on the exact costs.
            lowest: bounds of the narrowest network: with lower limits, no widths would fit.
        """
        over = np.array([int(function(widths)) for function in self.exact]) - limits
        narrower = np.maximum(np.minimum(self.measure(widths), self.values) - over, lowest)
        return replace(self, values=np.where(over > 0, np.minimum(narrower, self.values), self.values))


def _text(value: object) -> str:
    """An amount as text; a tensor or array of one number is read as that number."""
    number = value.item() if hasattr(value, "item") and not getattr(value, "shape", None) else value
    try:
        return str(number)
    except ValueError:  # Python does not write an integer of thousands of digits
        return f"{'-' if number < 0 else ''}1e{sys.get_int_max_str_digits()}"  # type: ignore[operator]


def amount_text(unit: Unit, value: int, *, up: bool = True) -> str:
    """Format a value for a message. Copied as a limit, the text (rounded up) always allows the value.

    Args:
        unit: unit of the value.
        value: the value; nanoseconds are shown as milliseconds with `DIGITS` significant digits.
        up: whether milliseconds are rounded up. A limit is rounded down, so that a value above it never reads the same.

    >>> amount_text("bytes", 49152), amount_text("ns", 5_000_000), amount_text("count", 8062)
    ('49,152 bytes', '5 ms', '8,062')
    >>> amount_text("ns", 5_000_001), amount_text("ns", 5_000_999, up=False)
    ('5.001 ms', '5 ms')
    """
    if unit == "ns":
        step: int = 10 ** max(len(str(value)) - DIGITS, 0)
        return f"{(-(-value // step) if up else value // step) * step * 1e-6:.{DIGITS}g} ms"
    return f"{value:,} bytes" if unit == "bytes" else f"{value:,}"
