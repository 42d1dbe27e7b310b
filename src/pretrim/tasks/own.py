"""A task of the user's own: any object with a loss, metrics and their directions.

class Task:
    directions = {"mae": "min", "r2": "max"}  # every metric; the first one chooses (or `chosen_by` names it)

    def loss(self, output, target):  # mean over the batch; output is what the network returns
        return torch.nn.functional.l1_loss(output, target)

    def metrics(self, output, target):  # numbers, by name, of a whole split
        return {"mae": ..., "r2": ...}

    def postprocess(self, output):  # optional: answers, with a row an image, that `metrics` gets
        return output

    def data(self):  # optional: (train, test) or (train, validation, test), torch data sets
        return train, validation, test

    outputs = ("x", "y")  # optional: names of the outputs, or their number, for networks by name
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
    """An object of the user's as a task.

    Args:
        given: the object.
        name: in records; how it was named on the command line, or its class.

    Raises UsageError where it lacks something.
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
        """Whether the task brings its own data."""
        return callable(getattr(self.given, "data", None))

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs, as far as the task says; their numbers where it gives their number."""
        found = getattr(self.given, "outputs", ())
        return tuple(map(str, range(found))) if isinstance(found, int) else tuple(map(str, found))

    def loss(self, output: Any, target: torch.Tensor) -> torch.Tensor:
        """The user's."""
        found: torch.Tensor = self.given.loss(output, target)
        return found

    def metrics(self, output: Any, target: torch.Tensor) -> Mapping[str, float]:
        """The user's."""
        found: Mapping[str, float] = self.given.metrics(output, target)
        return found

    def postprocess(self, output: Any) -> Any:
        """The user's, where there is one."""
        own = getattr(self.given, "postprocess", None)
        return own(output) if callable(own) else output

    def data(self) -> Sequence[Any]:
        """The user's data sets. Raises UsageError where there are none, or they cannot be had."""
        if not self.has_data:
            raise UsageError(f"Name the data: the task {self.name} has no method data().")
        try:
            found: Sequence[Any] = self.given.data()
        except Exception as error:  # the user's own code; its error is shown
            raise UsageError(f"{self.name}.data() raised {describe_failure(error)}.") from error
        return found


def _directions(given: Any, name: str) -> dict[str, str]:
    found = getattr(given, "directions", None)
    if not isinstance(found, Mapping) or not found:
        raise UsageError(
            f'Expected the task {name} to have a metric: add directions = {{"mae": "min"}}, "max" where more is better.'
        )
    for metric, direction in found.items():
        if direction not in DIRECTIONS:
            raise UsageError(
                f'Expected the direction of {metric} in the task {name} as "min" or "max", {shown(direction)}.'
            )
    return {str(metric): direction for metric, direction in found.items()}
