"""Values that cyclopts takes and that are refused here: a whole number that is none, a path that is empty.

cyclopts rounds ``--epochs 1.5`` to 2 epochs, on purpose, and makes ``.`` of ``-o ""``, as Python does.
(`cyclopts/_convert.py`, `_int`: https://github.com/BrianPugh/cyclopts. It has no setting for this, and a converter
would have to be named at each of the options. ``30.0`` is still 30.)
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from cyclopts import _convert


def refuse_fractions() -> None:
    """From now on, for every option that is a whole number. A cyclopts that is built otherwise rounds as before."""
    with suppress(AttributeError):
        rounded, converters = _convert._int, _convert._converters
        if converters[int] is rounded:
            converters[int] = whole


def refuse_empty_paths() -> None:
    """From now on, for every option that is a path. A cyclopts that is built otherwise takes them as before."""
    with suppress(AttributeError):
        _convert._converters.setdefault(Path, path)


def whole(text: str) -> int:
    """The number that a text is. Raises ValueError where it is no whole one, which cyclopts makes an error of.

    >>> whole("30.0"), whole("-3"), whole("0x10")
    (30, -3, 16)
    """
    found = _convert._int(text)
    if "." in text and float(text) != found:
        raise ValueError(f"{text} is no whole number")
    return found


def path(text: str) -> Path:
    """The path that a text is. Raises ValueError for an empty one, likewise."""
    if not text:
        raise ValueError("the path is empty")
    return Path(text)
