"""Messages in the words of whoever gave the values: options on the command line, keywords in Python.

They are written once, in the words of the command line (``--round-to``).
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
"""Keywords that Python has no such word for"""


def as_keywords(text: str, known: Collection[str]) -> str:
    """A message with the keywords of a Python call in the place of options; whole commands stay as they are.

    Args:
        text: with options as on the command line.
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
    """A call whose errors name its keywords, which the jobs below call by their options on the command line."""

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
    """The same error in the words of whoever gave the value: the name of the option in the place of the field's.

    >>> str(as_typed(UsageError("Expected learning_rate to be more than 0."), {"learning_rate": "--lr"}))
    'Expected --lr to be more than 0.'
    """
    text = str(error)
    for field, option in options.items():
        text = text.replace(f"Expected {field} to ", f"Expected {option} to ", 1)
    return type(error)(text)
