"""Expected accuracy of a plan before training, relative to uniform width: better, about the same, or worse.

The utility (`planning.utility`) of the plan is compared with that of uniform width under the same limits. Differences
are in log width: 0.1 is worth as much as ten per cent more width in every layer. In public tables of trained networks
(`benchmarks/widths.py`), most plans that differed from uniform width by more than `SAME_WITHIN` were more, or less,
accurate as the utility says; `SEEN` has the counts. There is no verdict where those tables have no data: for limits
that none of them has, hundreds of classes, very narrow layers, and networks that are not classifiers.
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

SAME_WITHIN = 0.05
"""Difference in log width below which plans are expected to be about equally accurate."""
HALF_A_POINT = 0.5
"""Difference in accuracy, in percentage points, that counts as the same."""
MAX_CLASSES = 100
"""Maximum number of classes in the tables."""
DIGITS = 4
"""Decimal places of differences; more would not be meaningful."""
MIN_RATIO = 0.25
"""Smallest width relative to the dense width, in most of the tables."""
KINDS: Mapping[str, str] = {
    "params": "params",
    "weight_bytes": "params",
    "artifact_bytes": "params",
    "macs": "macs",
    "activation_bytes": "activation",
}
"""The kind of limit in the tables that each limited quantity corresponds to."""
SEVERAL = "several"
"""The kind of several limits at once."""
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
"""By kind of limit and verdict: the number of plans in the tables, and of those whose accuracy agreed with the verdict
(for the same: within half a point)."""


@dataclass(frozen=True)
class Outlook:
    """Expected accuracy of a plan.

    Attributes:
        over_uniform: utility above that of uniform width under the same limits, in log width; None if uniform width
            cannot meet them.
        below_dense: utility below that of the dense network, in log width.
        verdict: expected accuracy compared with uniform width; None if nothing is known.
        seen: number of plans in the tables with this verdict under this kind of limit.
        agreed: number of them whose accuracy agreed with the verdict.
        unknown: why there is no verdict; empty if there is one.
        rounding: utility lost by rounding to legal widths, in log width; None for methods other than balanced.
        finer: a smaller `round_to` with the loss it would have; None if it would not help.
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
        """The outlook as plain JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Outlook:
        """Read what :meth:`to_json` wrote. Raises KeyError, TypeError or ValueError for anything else."""
        finer = data["finer"]
        record = cls(**{**data, "finer": None if finer is None else (int(finer[0]), float(finer[1]))})
        numbers = (record.over_uniform, record.below_dense, record.seen, record.agreed, record.rounding)
        if not all(value is None or type(value) in (int, float) for value in numbers):
            raise ValueError(f"outlook is {dict(data)!r}")
        if record.verdict not in (None, *get_args(Verdict)):
            raise ValueError(f"verdict is {record.verdict!r}")
        return record

    def sentence(self) -> str:
        """The verdict and its evidence in words.

        >>> Outlook(0.21, 0.3, "better", 40, 39, "").sentence()
        'better than uniform width (39 of 40 such plans in public tables were)'
        """
        if self.verdict is None:
            return f"not known ({self.unknown})"
        compared = "about the same as" if self.verdict == "same" else f"{self.verdict} than"
        were = "were within half a point" if self.verdict == "same" else "were"
        return f"{compared} uniform width ({self.agreed} of {self.seen} such plans in public tables {were})"


def verdict_of(over_uniform: float) -> Verdict:
    """The verdict for a difference in log width.

    >>> verdict_of(0.06), verdict_of(-0.02), verdict_of(-0.3)
    ('better', 'same', 'worse')
    """
    return "same" if abs(over_uniform) < SAME_WITHIN else "better" if over_uniform > 0 else "worse"


def log_width(worth: Utility, widths: FloatArray | IntArray, others: FloatArray | IntArray) -> float:
    """Difference in utility between two vectors of widths, in log width.

    It is the change of log width that, made in every group, would change the weighted sum of log widths as much.

    Args:
        worth: the network's utility function.
        widths: width of each group (G).
        others: the widths to compare with (G).
    """
    values = worth(np.stack([widths, others]))
    return float(values[0] - values[1]) / max(float(worth.weights.sum()), 1e-300)


def kind_of(limited: Sequence[str]) -> str | None:
    """The kind of limit in the tables that the limited costs correspond to; None if the tables have no such limit."""
    kinds = {KINDS.get(name) for name in limited}
    if None in kinds or not kinds:
        return None
    return kinds.pop() if len(kinds) == 1 else SEVERAL


def outlook(
    network: Network, worth: Utility, widths: IntArray, uniform: IntArray | None, limited: Sequence[str]
) -> Outlook:
    """Expected accuracy of a plan's widths.

    Args:
        network: the dense network, with at least one group.
        worth: the network's utility function.
        widths: widths of the plan (G).
        uniform: uniform widths under the same limits (G); None if uniform width cannot meet them.
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
    """Why there can be no verdict; empty if there can."""
    if over is None:
        return "no uniform width meets the limits"
    if worth.classifier is None:
        return "the network is not a classifier"
    if worth.classifier.classes > MAX_CLASSES:
        return f"{worth.classifier.classes} classes: public tables have at most {MAX_CLASSES}"
    if kind_of(limited) is None:
        unusual = next(name for name in limited if name not in KINDS)
        return f"no public table has a limit on the {quantities()[unusual].title}"
    if (widths < dense * MIN_RATIO).any() and verdict_of(over) != "worse":  # "worse" is all the more likely then
        return "layers below a quarter of their width: public tables have none"
    return ""
