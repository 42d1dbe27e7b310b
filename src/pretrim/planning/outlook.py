"""What to expect of a plan before it is trained: better than uniform width, about the same, or worse; and how surely.

The utility (`planning.utility`) of the plan is compared with that of uniform width under the same limits. Differences
are in log width: 0.1 is worth what ten per cent more width everywhere would be. In public tables of trained networks
(`benchmarks/widths.py`) plans that differ from uniform width by more than `EVEN` were more, or less, accurate as the
utility says in nearly every case; `SEEN` counts them. Where those tables say nothing, neither does this: limits that
none of them has, hundreds of classes, very narrow layers, networks that are not classifiers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from pretrim.analysis.network import IntArray, Network
from pretrim.cost.quantities import quantities

from .legal import FloatArray
from .utility import Utility

Verdict: TypeAlias = Literal["better", "same", "worse"]

EVEN = 0.05
"""of log width: plans that differ by less cannot be told apart"""
HALF_A_POINT = 0.5
"""of accuracy: what counts as the same"""
MOST_CLASSES = 100
"""in the tables"""
DIGITS = 4
"""of differences: more than that, they say nothing"""
LEAST_RATIO = 0.25
"""of the dense widths, in most of the tables"""
KINDS: Mapping[str, str] = {
    "params": "params",
    "weight_bytes": "params",
    "artifact_bytes": "params",
    "macs": "macs",
    "activation_bytes": "activation",
}
"""The limits of the tables"""
SEVERAL = "several"
SEEN: Mapping[tuple[str, Verdict], tuple[int, int]] = {
    ("macs", "better"): (217, 217),
    ("macs", "same"): (520, 471),
    ("macs", "worse"): (323, 285),
    ("params", "better"): (94, 94),
    ("params", "same"): (501, 461),
    ("params", "worse"): (465, 375),
    ("activation", "better"): (323, 323),
    ("activation", "same"): (325, 294),
    ("activation", "worse"): (200, 188),
    ("several", "better"): (554, 554),
    ("several", "same"): (1216, 1064),
    ("several", "worse"): (986, 827),
}
"""By kind of limit and verdict: plans in the tables, and those that turned out so (same: within half a point)"""


@dataclass(frozen=True)
class Outlook:
    """What to expect of a plan.

    Attributes:
        over_uniform: utility over that of uniform width under the same limits, in log width; None where uniform width
            cannot meet them.
        below_dense: utility below that of the dense network, in log width.
        verdict: of its accuracy against uniform width's; None where nothing is known.
        seen: plans in the tables with this verdict under this kind of limit.
        agreed: how many of them turned out so.
        unknown: why there is no verdict.
        rounding: log width that legal widths cost against the optimum; None for other methods than balanced.
        finer: a smaller `round_to`, and what it would cost.
    """

    over_uniform: float | None
    below_dense: float
    verdict: Verdict | None
    seen: int
    agreed: int
    unknown: str
    rounding: float | None = None
    finer: tuple[int, float] | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Outlook:
        """Read what :meth:`to_json` wrote. Raises KeyError, TypeError or ValueError for anything else."""
        finer = data["finer"]
        found = cls(**{**data, "finer": None if finer is None else (int(finer[0]), float(finer[1]))})
        numbers = (found.over_uniform, found.below_dense, found.seen, found.agreed, found.rounding)
        if not all(value is None or type(value) in (int, float) for value in numbers):
            raise ValueError(f"outlook is {dict(data)!r}")
        if found.verdict not in (None, *get_args(Verdict)):
            raise ValueError(f"verdict is {found.verdict!r}")
        return found

    def sentence(self) -> str:
        """For people.

        >>> Outlook(0.21, 0.3, "better", 40, 39, "").sentence()
        'better than uniform width (39 of 40 such plans in public tables were)'
        """
        if self.verdict is None:
            return f"not known ({self.unknown})"
        said = "about the same as" if self.verdict == "same" else f"{self.verdict} than"
        were = "were within half a point" if self.verdict == "same" else "were"
        return f"{said} uniform width ({self.agreed} of {self.seen} such plans in public tables {were})"


def verdict_of(over_uniform: float) -> Verdict:
    """What a difference in log width says.

    >>> verdict_of(0.06), verdict_of(-0.02), verdict_of(-0.3)
    ('better', 'same', 'worse')
    """
    return "same" if abs(over_uniform) < EVEN else "better" if over_uniform > 0 else "worse"


def log_width(worth: Utility, widths: FloatArray | IntArray, others: FloatArray | IntArray) -> float:
    """Utility of some widths (G) over that of others, as the log width that would be worth the same in every group.

    Args:
        worth: what widths are worth.
        widths: of each group (G).
        others: to compare with (G).
    """
    values = worth(np.stack([widths, others]))
    return float(values[0] - values[1]) / max(float(worth.weights.sum()), 1e-300)


def kind_of(limited: Sequence[str]) -> str | None:
    """The kind of limits in the tables; None for limits that they do not have."""
    kinds = {KINDS.get(name) for name in limited}
    if None in kinds or not kinds:
        return None
    return kinds.pop() if len(kinds) == 1 else SEVERAL


def outlook(
    network: Network, worth: Utility, widths: IntArray, uniform: IntArray | None, limited: Sequence[str]
) -> Outlook:
    """What to expect of widths.

    Args:
        network: the dense network, with at least one group.
        worth: its utility.
        widths: of the plan (G).
        uniform: widths of uniform width under the same limits (G); None where it cannot meet them.
        limited: names of the limited costs.
    """
    dense = network.dense
    below = round(log_width(worth, dense, widths), DIGITS)
    over = None if uniform is None else round(log_width(worth, widths, uniform), DIGITS)
    unknown = _why_unknown(worth, widths, dense, limited, over)
    if unknown or over is None:
        return Outlook(over, below, None, 0, 0, unknown)
    verdict = verdict_of(over)
    seen, agreed = SEEN.get((str(kind_of(limited)), verdict), (0, 0))
    return Outlook(over, below, verdict, seen, agreed, "")


def _why_unknown(worth: Utility, widths: IntArray, dense: IntArray, limited: Sequence[str], over: float | None) -> str:
    """Why nothing is known, or nothing."""
    if over is None:
        return "no uniform width meets the limits"
    if worth.classifier is None:
        return "the network is not a classifier"
    if worth.classifier.classes > MOST_CLASSES:
        return f"{worth.classifier.classes} classes: public tables have at most {MOST_CLASSES}"
    if kind_of(limited) is None:
        unusual = next(name for name in limited if name not in KINDS)
        return f"no public table has a limit on the {quantities()[unusual].title}"
    if (widths < dense * LEAST_RATIO).any() and verdict_of(over) != "worse":  # that it is worse is likely all the more
        return "layers below a quarter of their width: public tables have none"
    return ""
