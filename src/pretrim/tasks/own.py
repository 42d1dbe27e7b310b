"""User-defined tasks: any object with a loss, metrics and their directions.

class Task:
    directions = {"mae": "min", "r2": "max"}  # all metrics; the first one selects networks (or `chosen_by`)

    def loss(self, output, target):  # the mean over a batch; output is what the network returns
        return torch.nn.functional.l1_loss(output, target)

    def metrics(self, output, target):  # numbers of a whole split, by name
        return {"mae": ..., "r2": ...}

    def postprocess(self, output):  # optional: answers for `metrics`, one row per image
        return output

    def data(self):  # optional: (train, test) or (train, validation, test), torch data sets
        return train, validation, test

    outputs = ("x", "y")  # optional: names or number of the outputs, for networks given by name
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from pretrim.analysis.copies import describe_failure
from pretrim.errors import UsageError, shown
from pretrim.train import Metric

from .base import MetricTask

DIRECTIONS = {"max": True, "min": False}


class OwnTask(MetricTask):
    """A task that wraps a user's object.

    Args:
        given: the object.
        name: its name in records: the command-line argument that named it, or the name of its class.

    Raises UsageError if a required method or attribute is missing or invalid.
    """

    def __init__(self, given: Any, name: str) -> None:
        self.given, self.name = given, name
        for method in ("loss", "metrics"):
            if not callable(getattr(given, method, None)):
                raise UsageError(f"Expected the task {name} to have a method {method}(output, target): add it.")
        directions = _directions(given, name)
        chosen = getattr(given, "chosen_by", next(iter(directions)))
        if chosen not in directions:
            raise UsageError(
                f"Expected chosen_by of the task {name} to be one of {', '.join(directions)}, but got {shown(chosen)}."
            )
        is_share = chosen in tuple(getattr(given, "shares", ()))
        self.metric = Metric(chosen, DIRECTIONS[directions[chosen]], is_share)
        self.largest_loss = float(getattr(given, "largest_loss", MetricTask.largest_loss if is_share else 0.1))

    @property
    def has_data(self) -> bool:
        """Whether the task provides its own data."""
        return callable(getattr(self.given, "data", None))

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs: those the task gives, or their indices if it gives only a number; empty if neither."""
        outputs = getattr(self.given, "outputs", ())
        return tuple(map(str, range(outputs))) if isinstance(outputs, int) else tuple(map(str, outputs))

    def loss(self, output: Any, target: torch.Tensor) -> torch.Tensor:
        """Call the user's loss."""
        loss: torch.Tensor = self.given.loss(output, target)
        return loss

    def metrics(self, output: Any, target: torch.Tensor) -> Mapping[str, float]:
        """Call the user's metrics."""
        values: Mapping[str, float] = self.given.metrics(output, target)
        return values

    def postprocess(self, output: Any) -> Any:
        """Call the user's `postprocess`, if there is one."""
        postprocess = getattr(self.given, "postprocess", None)
        return postprocess(output) if callable(postprocess) else output

    def data(self) -> Sequence[Any]:
        """Load the user's data sets. Raises UsageError if there are none or loading them fails."""
        if not self.has_data:
            raise UsageError(f"Name the data: the task {self.name} has no method data().")
        try:
            splits: Sequence[Any] = self.given.data()
        except Exception as error:  # the user's own code; its error is shown
            raise UsageError(f"{self.name}.data() raised {describe_failure(error)}.") from error
        return splits


def _directions(task: Any, name: str) -> dict[str, str]:
    directions = getattr(task, "directions", None)
    if not isinstance(directions, Mapping) or not directions:
        raise UsageError(
            f'Expected the task {name} to have a metric: add directions = {{"mae": "min"}}, "max" where more is better.'
        )
    for metric, direction in directions.items():
        if direction not in DIRECTIONS:
            raise UsageError(
                f'Expected the direction of {metric} in the task {name} as "min" or "max", {shown(direction)}.'
            )
    return {str(metric): direction for metric, direction in directions.items()}
