"""Errors that a user can cause: each message is one line saying what was expected, what was given, and the fix.

The command line prints only the message and exits with the error's ``exit_code``:
2 for wrong usage (the call has to change), 1 for a failure (the call was right, but something outside it failed).
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from types import UnionType

MAX_SHOWN = 60
"""Maximum number of characters of a value in a message"""
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxlong = MAX_SHOWN
_SHORT.maxother = 10**9  # a module's repr is useless when truncated: `shown` names its class instead


class PretrimError(Exception):
    """Base class of every error that pretrim raises on purpose."""

    exit_code = 1


class UsageError(PretrimError):
    """The caller asked for something impossible: a wrong name, number, shape or option."""

    exit_code = 2


def shown(value: object) -> str:
    """Format a value for a message: its repr if that fits in 60 characters, otherwise its type and shape.

    >>> shown("0.5x"), shown([1, 2]), shown(dict), shown("a" * 99)[:32]
    ("'0.5x'", '[1, 2]', 'the class dict', "'aaaaaaaaaaaaaaaaaaaaaaaaaaa...a")
    >>> shown(["a name of a layer"] * 9), shown({1: "a"} | dict.fromkeys("bcde", "a text that is not short"))
    ('a list', 'a dict')
    """
    if isinstance(value, type):
        return f"the class {value.__name__}"
    try:
        line = " ".join(_SHORT.repr(value).split())
    except ValueError:  # Python refuses to convert integers of thousands of digits
        return "a number of thousands of digits"
    if len(line) <= MAX_SHOWN:
        return line
    name, shape = type(value).__name__, getattr(value, "shape", None)
    sizes = "x".join(map(str, shape)) if isinstance(shape, tuple) else ""
    return f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}{f' of {sizes}' if sizes else ''}"


IMAGE_CHANNELS = (1, 3, 4)
"""Possible numbers of image channels: grey, RGB, RGBA"""
SYNONYMS = {"flops": "macs (half the FLOPs)"}
"""Other common names of quantities"""


def unknown_option(name: str, known: Iterable[str]) -> UsageError:
    """Make the error for an unknown keyword: it suggests the closest known one, or lists them all.

    >>> print(unknown_option("mac", ["macs", "params"]), unknown_option("colour", ["macs", "params"]))
    Unknown option 'mac'. Did you mean macs? Unknown option 'colour': there are macs, params.
    """
    names = list(known)
    suggestion = f" Did you mean {SYNONYMS[name]}?" if name in SYNONYMS else hint(name, names)
    return UsageError(
        f"Unknown option {shown(name)}" + (f".{suggestion}" if suggestion else f": there are {', '.join(names)}.")
    )


def hint(name: object, known: Iterable[str]) -> str:
    """Suggest the closest known name, as a suffix for a message; empty if none is close.

    >>> hint("mac", ["macs", "params"]), hint("colour", ["macs"])
    (' Did you mean macs?', '')
    """
    close = get_close_matches(str(name), sorted(known), n=1)
    return f" Did you mean {close[0]}?" if close else ""


def channels_last_hint(shape: Sequence[int]) -> str:
    """Suggest the channels-first shape for an image shape with channels last, as in TensorFlow; otherwise empty.

    >>> channels_last_hint((224, 224, 3)), channels_last_hint((3, 224, 4)), channels_last_hint((64, 100))
    (' Did you mean 3x224x224?', '', '')
    """
    is_last = len(shape) == 3 and shape[2] in IMAGE_CHANNELS and min(shape[:2]) > max(IMAGE_CHANNELS)
    return f" Did you mean {shape[2]}x{shape[0]}x{shape[1]}?" if is_last else ""


def check_is(value: object, kind: type | UnionType | tuple[type, ...], expected: str, remedy: str = "") -> None:
    """Raise UsageError for a value of the wrong type: unlike the command line, Python callers have no parser.

    Args:
        value: the argument to check.
        kind: the type or types it must be an instance of.
        expected: the expectation in words, such as ``"model to be a torch.nn.Module"``.
        remedy: how to fix it, where `expected` does not make that clear.
    """
    if not isinstance(value, kind):
        raise UsageError(f"Expected {expected}, but got {shown(value)}{f': {remedy}' if remedy else ''}.")


class ModelError(PretrimError):
    """A model cannot be built, run or analysed; the message carries the model's own error."""


class BudgetError(UsageError):
    """A limit that is not a usable budget: zero, negative, not a number, or more than the dense network needs."""


class InfeasibleBudget(PretrimError):
    """No legal plan meets a limit; the message names the limit and the smallest reachable value.

    Attributes:
        limit: name of the limit, if a single limit cannot be met; otherwise None.
        needed: the smallest reachable value of that limit, as text; otherwise None.
        lower: names of the planning options without which the limit could be met, such as ``min_width``.
    """

    def __init__(
        self, message: str, limit: str | None = None, needed: str | None = None, lower: tuple[str, ...] = ()
    ) -> None:
        super().__init__(message)
        self.limit, self.needed, self.lower = limit, needed, lower


class PlanError(UsageError):
    """A plan that was made for another model, or that is damaged."""


class CheckpointError(PretrimError):
    """A run folder that is truncated, edited, not from pretrim, or that cannot be written."""


class DataError(PretrimError):
    """A data set that is missing, empty or damaged."""


class ExportError(PretrimError):
    """A network that a runtime cannot take, or an artifact whose outputs differ from the network's."""


class ArtifactError(PretrimError):
    """An artifact that is damaged or not from pretrim, or that a runtime cannot load."""


class MeasureError(PretrimError):
    """A failed measurement: the runtime failed, a host is unreachable, or its answer is damaged."""


class StudyError(PretrimError):
    """A study that is missing, damaged, from a newer version, or whose database cannot be used."""


def first_of(names: Sequence[str], most: int = 3) -> str:
    """List the first few names for a message, and how many more there are.

    >>> first_of(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
