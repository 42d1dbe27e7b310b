"""What was measured of the modes beside uniform width, so that the tool can tell its user where one loses.

The figures are those of docs/results.md and its records (`benchmarks/results/accuracy.jsonl`); a test compares.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pretrim.cost.quantities import quantities

WHERE = "ResNet-20, CIFAR-10 at 16x16, a short training: docs/results.md"
CLEAR = 3.0
"""standard errors, from which on two ways are told apart: by two, one of ten comparisons of four seeds is by chance"""


@dataclass(frozen=True)
class Against:
    """Validation accuracy of a mode less that of uniform width at the same limit.

    Attributes:
        gained: points; the mean over seeds.
        error: its standard error.
        keep: the share of the limited cost that stayed.
    """

    gained: float
    error: float
    keep: float


UNIFORM: Mapping[tuple[str, str], Against] = {
    ("macs", "macs"): Against(gained=-1.29, error=0.74, keep=0.5),
    ("params", "macs"): Against(gained=-2.89, error=0.61, keep=0.5),
    ("memory", "macs"): Against(gained=-0.93, error=0.65, keep=0.5),
    ("params", "params"): Against(gained=0.76, error=0.52, keep=0.3),
    ("memory", "activation_bytes"): Against(gained=-0.21, error=0.60, keep=0.5),
}
"""By mode and limited cost"""


def loses(mode: str, limited: Iterable[str]) -> str | None:
    """Where uniform width was clearly more accurate than a mode under one of these limits, in words.

    >>> loses("uniform", ["macs"])
    """
    for cost in limited:
        drawn_by = quantities()[cost].criterion if mode == "joint" else mode
        found = UNIFORM.get((drawn_by, cost))
        if found is not None and found.gained < -CLEAR * found.error:
            return (
                f"at {found.keep:.0%} of the {cost}, uniform width was {-found.gained:.1f} ± {found.error:.1f} points "
                f"more accurate than the mode {drawn_by} ({WHERE}): compare with --mode uniform"
            )
    return None
