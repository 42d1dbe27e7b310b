"""Error messages in the user's own terms: options on the command line, keywords in Python.

Messages are written once, with command-line options (``--round-to``), and translated for Python callers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from functools import wraps
from typing import ParamSpec, TypeVar

from .errors import PretrimError, UsageError

P = ParamSpec("P")
T = TypeVar("T")

_COMMAND = re.compile(r"(`pretrim [^`]*`)")
_EXAMPLE = re.compile(r"`--([a-z][a-z-]*) ([^`\s]+)`")
_OTHER_LIMIT = re.compile(r"--at-most ([a-z_]+)=")
_OPTION = re.compile(r"(?<![\w-])--([a-z][a-z-]*)")
RENAMED = {"from": "weights"}
"""Options whose Python keyword has another name: ``from`` is reserved in Python"""


def as_keywords(text: str, known: Collection[str]) -> str:
    """Replace command-line options in a message by the keywords of a Python call; whole commands are left alone.

    Args:
        text: a message with options as on the command line.
        known: the keywords of the call.

    >>> as_keywords("Lower --round-to (see `pretrim plan --help`), or leave out --ray.", ["round_to"])
    'Lower round_to (see `pretrim plan --help`), or leave out --ray.'
    >>> as_keywords("add one, e.g. `--macs 0.5x`.", ["macs"])
    "add one, e.g. `macs='0.5x'`."
    >>> as_keywords("--at-most arena_bytes=96KiB cannot be met: raise the limit.", [])
    'arena_bytes 96KiB cannot be met: raise the limit.'
    """
    text = _OTHER_LIMIT.sub(lambda match: f"{match[1]} ", text)

    def keyword(option: str) -> str | None:
        name = RENAMED.get(option, option.replace("-", "_"))
        return name if name in known else None

    def example(match: re.Match[str]) -> str:
        return match[0] if keyword(match[1]) is None else f"`{keyword(match[1])}='{match[2]}'`"

    def option(match: re.Match[str]) -> str:
        return keyword(match[1]) or match[0]

    parts = _COMMAND.split(text)
    parts[::2] = [_OPTION.sub(option, _EXAMPLE.sub(example, part)) for part in parts[::2]]
    return "".join(parts)


def in_words_of_python(known: Collection[str]) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Decorate a function so that its errors name Python keywords instead of command-line options."""

    def decorated(function: Callable[P, T]) -> Callable[P, T]:
        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            try:
                return function(*args, **kwargs)
            except PretrimError as error:
                error.args = (as_keywords(str(error), known), *error.args[1:])
                raise

        return call

    return decorated


def as_typed(error: UsageError, options: Mapping[str, str]) -> UsageError:
    """Return the error with field names replaced by the options that the user typed.

    >>> str(as_typed(UsageError("Expected learning_rate to be more than 0."), {"learning_rate": "--lr"}))
    'Expected --lr to be more than 0.'
    """
    text = str(error)
    for field, option in options.items():
        text = text.replace(f"Expected {field} to ", f"Expected {option} to ", 1)
    return type(error)(text)
