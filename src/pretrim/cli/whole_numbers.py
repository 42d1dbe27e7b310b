"""cyclopts rounds ``--epochs 1.5`` to 2 epochs, on purpose: a whole number is refused here where it is none.

(`cyclopts/_convert.py`, `_int`: https://github.com/BrianPugh/cyclopts. It has no setting for this, and a converter
would have to be named at each of the options. ``30.0`` is still 30.)
"""

from __future__ import annotations

from contextlib import suppress

from cyclopts import _convert


def refuse_fractions() -> None:
    """From now on, for every option that is a whole number. A cyclopts that is built otherwise rounds as before."""
    with suppress(AttributeError):
        rounded, converters = _convert._int, _convert._converters
        if converters[int] is rounded:
            converters[int] = whole


def whole(text: str) -> int:
    """The number that a text is. Raises ValueError where it is no whole one, which cyclopts makes an error of.

    >>> whole("30.0"), whole("-3"), whole("0x10")
    (30, -3, 16)
    """
    found = _convert._int(text)
    if "." in text and float(text) != found:
        raise ValueError(f"{text} is no whole number")
    return found
