"""Refuse values that cyclopts accepts: fractions for whole numbers, and empty paths.

cyclopts rounds ``--epochs 1.5`` to 2 epochs on purpose, and turns ``-o ""`` into ``.``, as Python does.
(`cyclopts/_convert.py`, `_int`: https://github.com/BrianPugh/cyclopts. It has no setting for this, and otherwise every
option would need its own converter. ``30.0`` is still 30.)
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from cyclopts import _convert


def refuse_fractions() -> None:
    """Refuse fractions for all integer options from now on. No effect if cyclopts' internals differ."""
    with suppress(AttributeError):
        rounding, converters = _convert._int, _convert._converters
        if converters[int] is rounding:
            converters[int] = whole


def refuse_empty_paths() -> None:
    """Refuse empty paths for all path options from now on. No effect if cyclopts' internals differ."""
    with suppress(AttributeError):
        _convert._converters.setdefault(Path, path)


def whole(text: str) -> int:
    """Convert a text to a whole number. Raises ValueError if it is none, which cyclopts reports as an error.

    >>> whole("30.0"), whole("-3"), whole("0x10")
    (30, -3, 16)
    """
    number = _convert._int(text)
    if "." in text and float(text) != number:
        raise ValueError(f"{text} is not a whole number")
    return number


def path(text: str) -> Path:
    """Convert a text to a path. Raises ValueError if it is empty, which cyclopts reports as an error."""
    if not text:
        raise ValueError("the path is empty")
    return Path(text)
