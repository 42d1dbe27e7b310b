"""The errors a user can cause: each message is one line with what was expected, what came, and the mend.

The command line prints the message alone and exits with the error's ``exit_code``:
2 for wrong use (the call has to change), 1 for a failure (the call was right, the world was not).
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from types import UnionType

MOST_SHOWN = 60
"""characters of a value in a message"""
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxlong = MOST_SHOWN
_SHORT.maxother = 10**9  # cut out of its middle, a module's text says nothing: its class is named instead


class PretrimError(Exception):
    """Base of every error that pretrim raises on purpose."""

    exit_code = 1


class UsageError(PretrimError):
    """The caller asked for something that cannot be: a wrong name, number, shape or option."""

    exit_code = 2


def shown(value: object) -> str:
    """A value for a message: as Python writes it, where that is a line of at most 60 characters, or what it is.

    >>> shown("0.5x"), shown([1, 2]), shown(dict), shown("a" * 99)[:32]
    ("'0.5x'", '[1, 2]', 'the class dict', "'aaaaaaaaaaaaaaaaaaaaaaaaaaa...a")
    >>> shown(["a name of a layer"] * 9), shown({1: "a"} | dict.fromkeys("bcde", "a text that is not short"))
    ('a list', 'a dict')
    """
    if isinstance(value, type):
        return f"the class {value.__name__}"
    try:
        line = " ".join(_SHORT.repr(value).split())
    except ValueError:  # Python does not write an integer of thousands of digits
        return "a number of thousands of digits"
    if len(line) <= MOST_SHOWN:
        return line
    name, shape = type(value).__name__, getattr(value, "shape", None)
    sizes = "x".join(map(str, shape)) if isinstance(shape, tuple) else ""
    return f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}{f' of {sizes}' if sizes else ''}"


IMAGE_CHANNELS = (1, 3, 4)
"""Channels of images: grey, RGB, RGBA"""
SYNONYMS = {"flops": "macs (half the FLOPs)"}
"""What others call a quantity"""


def unknown_option(name: str, known: Iterable[str]) -> UsageError:
    """The error for a keyword that is none: the one that may have been meant, or all there are.

    >>> print(unknown_option("mac", ["macs", "params"]), unknown_option("colour", ["macs", "params"]))
    Unknown option 'mac'. Did you mean macs? Unknown option 'colour': there are macs, params.
    """
    names = list(known)
    meant = f" Did you mean {SYNONYMS[name]}?" if name in SYNONYMS else hint(name, names)
    return UsageError(f"Unknown option {shown(name)}" + (f".{meant}" if meant else f": there are {', '.join(names)}."))


def hint(name: object, known: Iterable[str]) -> str:
    """What a user may have meant, to be put behind a message; empty where no name is near.

    >>> hint("mac", ["macs", "params"]), hint("colour", ["macs"])
    (' Did you mean macs?', '')
    """
    close = get_close_matches(str(name), sorted(known), n=1)
    return f" Did you mean {close[0]}?" if close else ""


def channels_last_hint(shape: Sequence[int]) -> str:
    """The shape that was meant where the channels of an image stand last, as in TensorFlow; empty for any other.

    >>> channels_last_hint((224, 224, 3)), channels_last_hint((3, 224, 4)), channels_last_hint((64, 100))
    (' Did you mean 3x224x224?', '', '')
    """
    is_last = len(shape) == 3 and shape[2] in IMAGE_CHANNELS and min(shape[:2]) > max(IMAGE_CHANNELS)
    return f" Did you mean {shape[2]}x{shape[0]}x{shape[1]}?" if is_last else ""


def check_is(value: object, kind: type | UnionType | tuple[type, ...], expected: str, mend: str = "") -> None:
    """Raises UsageError for a value of another type: Python callers have no parser that says so.

    Args:
        value: what was given.
        kind: what it has to be an instance of.
        expected: in words, ``"model to be a torch.nn.Module"``.
        mend: what to do, where `expected` does not say it.
    """
    if not isinstance(value, kind):
        raise UsageError(f"Expected {expected}, but got {shown(value)}{f': {mend}' if mend else ''}.")


class ModelError(PretrimError):
    """A model cannot be built, run or analysed; the message carries the model's own error."""


class BudgetError(UsageError):
    """A limit that is not a budget: zero, negative, not a number, or more than the dense network needs."""


class InfeasibleBudget(PretrimError):
    """No legal plan meets a limit; the message names the limit and the smallest value that can be reached.

    Attributes:
        limit: its name, where one alone is in the way.
        needed: the smallest value that can be reached, in words, likewise.
        lower: the options of the plan without which it could be met.
    """

    def __init__(
        self, message: str, limit: str | None = None, needed: str | None = None, lower: tuple[str, ...] = ()
    ) -> None:
        super().__init__(message)
        self.limit, self.needed, self.lower = limit, needed, lower


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
