"""The errors a user can cause: each message is one line with what was expected, what came, and the mend.

The command line prints the message alone and exits with the error's ``exit_code``:
2 for wrong use (the call has to change), 1 for a failure (the call was right, the world was not).
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from types import UnionType


class PretrimError(Exception):
    """Base of every error that pretrim raises on purpose."""

    exit_code = 1


class UsageError(PretrimError):
    """The caller asked for something that cannot be: a wrong name, number, shape or option."""

    exit_code = 2


def check_is(value: object, kind: type | UnionType | tuple[type, ...], expected: str) -> None:
    """Raises UsageError for a value of another type: Python callers have no parser that says so.

    Args:
        value: what was given.
        kind: what it has to be an instance of.
        expected: in words, ``"model to be a torch.nn.Module"``.
    """
    if isinstance(value, kind):
        return
    got = f"the class {value.__name__}" if isinstance(value, type) else reprlib.repr(value)
    shown = " ".join(got.split())
    raise UsageError(f"Expected {expected}, but got {shown if len(shown) <= 60 else f'a {type(value).__name__}'}.")


def as_typed(error: UsageError, options: Mapping[str, str]) -> UsageError:
    """The same error in the words of whoever gave the value: the name of the option in the place of the field's.

    >>> str(as_typed(UsageError("Expected learning_rate to be more than 0."), {"learning_rate": "--lr"}))
    'Expected --lr to be more than 0.'
    """
    text = str(error)
    for field, option in options.items():
        text = text.replace(f"Expected {field} to ", f"Expected {option} to ", 1)
    return type(error)(text)


class ModelError(PretrimError):
    """A model cannot be built, run or analysed; the message carries the model's own error."""


class BudgetError(UsageError):
    """A limit that is not a budget: zero, negative, not a number, or more than the dense network needs."""


class InfeasibleBudget(PretrimError):
    """No legal plan meets a limit; the message names the limit and the smallest value that can be reached.

    Attributes:
        limit: its name, where one alone is in the way.
        needed: the smallest value that can be reached, in words, likewise.
    """

    def __init__(self, message: str, limit: str | None = None, needed: str | None = None) -> None:
        super().__init__(message)
        self.limit, self.needed = limit, needed


class PlanError(UsageError):
    """A plan that does not belong to the model at hand, or that is damaged."""


class CheckpointError(PretrimError):
    """A run folder that is truncated, edited, foreign, or that cannot be written."""


class DataError(PretrimError):
    """A data set that is missing, empty or damaged."""


class ExportError(PretrimError):
    """A network that a runtime cannot take, or an artifact that does not compute what the network does."""


class ArtifactError(PretrimError):
    """An artifact that is damaged or foreign, or that a runtime cannot load."""


class MeasureError(PretrimError):
    """A measurement that could not be made: the runtime failed, a host cannot be reached, an answer is damaged."""


class StudyError(PretrimError):
    """A study that is missing, damaged, of a newer version, or whose database cannot be used."""


def first_of(names: Sequence[str], most: int = 3) -> str:
    """Some names for a message, and how many more there are.

    >>> first_of(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
