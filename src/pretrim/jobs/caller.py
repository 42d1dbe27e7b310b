"""What the calls of Python users owe their callers: words that can be typed there, and chance as it was."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

from pretrim.errors import PretrimError

P = ParamSpec("P")
T = TypeVar("T")

_COMMAND = re.compile(r"(`pretrim [^`]*`)")
_EXAMPLE = re.compile(r"`--([a-z][a-z-]*) ([^`\s]+)`")
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
    """

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


@contextmanager
def _chance_kept() -> Iterator[None]:
    """Generators of random numbers that everybody shares, Python's, NumPy's and torch's, are left as they were."""
    import numpy as np
    import torch

    python, numpy = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def keeps_chance(function: Callable[P, T]) -> Callable[P, T]:
    """A call that seeds generators for itself, and leaves the caller's numbers to come as they would have been."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        with _chance_kept():
            return function(*args, **kwargs)

    return call
