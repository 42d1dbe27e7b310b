"""The metrics that networks are judged and selected by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MAX_DIGITS = 16
"""Upper bound of the decimal places shown to tell two scores apart."""


@dataclass(frozen=True)
class Metric:
    """A metric of how good a network is.

    Attributes:
        name: its name in records: ``accuracy``, ``mean_iou``, ``mae``.
        higher_is_better: whether higher values are better.
        is_share: whether it ranges from 0 to 1 and is shown in percent.
    """

    name: str
    higher_is_better: bool = True
    is_share: bool = True

    @property
    def title(self) -> str:
        """The name for display."""
        return self.name.replace("_", " ")

    def worth(self, value: float) -> float:
        """The value, negated if lower is better, so that more is always better."""
        return value if self.higher_is_better else -value

    def show(self, value: float | None, digits: int = 1) -> str:
        """Format a value for display; '-' for None.

        >>> Metric("accuracy").show(0.5), Metric("mae", False, False).show(12.345)
        ('50.0 %', '12.3')
        """
        if value is None:
            return "-"
        return f"{100 * value:.{digits}f} %" if self.is_share else f"{value:.{digits + 2}g}"

    def show_apart(self, value: float, other: float) -> tuple[str, str]:
        """Format two values with as many digits as it takes to tell them apart.

        >>> Metric("accuracy").show_apart(0.9, 0.89996), Metric("accuracy").show_apart(0.9, 0.8)
        (('90.000 %', '89.996 %'), ('90.0 %', '80.0 %'))
        """
        for digits in range(1, MAX_DIGITS):
            shown = self.show(value, digits), self.show(other, digits)
            if shown[0] != shown[1]:
                return shown
        return self.show(value), self.show(other)  # they are equal

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {"name": self.name, "higher_is_better": self.higher_is_better, "is_share": self.is_share}

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | None) -> Metric:
        """Read what :meth:`to_json` wrote; None, as in records of older versions, is the accuracy."""
        return ACCURACY if data is None else cls(**data)


ACCURACY = Metric("accuracy")


@dataclass(frozen=True)
class Baseline:
    """The score of an answer that ignores the image.

    Attributes:
        score: its value of the selection metric.
        words: a description of the answer, such as "always one class".
    """

    score: float
    words: str
