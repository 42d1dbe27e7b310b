"""Names in pictures as they are: no formulas between dollars, no warning of letters that matplotlib's font lacks.

Such letters come from another font of this machine that has them, or else are a ``?``.
"""

from __future__ import annotations

from functools import cache
from typing import Any
from unicodedata import category

NO_LETTERS = ("Cc", "Cs")
"""Unicode's categories of control characters, and of bytes that were no text in a file's name"""
POINTS, DOTS_PER_INCH = 10, 144
"""At which a font is tried: some hold pictures of a few sizes alone, which matplotlib cannot draw"""


def lettering(*texts: str) -> tuple[list[str], dict[str, Any]]:
    """Texts that can be drawn, and the properties of matplotlib's `Text` to draw them with.

    Args:
        texts: names from files and of users; line ends stay.

    >>> lettering("$5 to $10", "one\\x1btwo")[0]
    ['$5 to $10', 'one?two']
    """
    from matplotlib import rcParams

    texts = _without(frozenset(letter for letter in "".join(texts) if category(letter) in NO_LETTERS) - {"\n"}, texts)
    lacking = _lacking(frozenset("".join(texts)) - {"\n"}, _usual_font())
    family = _family_with(lacking) if lacking else None
    if family is None:
        texts = _without(lacking, texts)
    return [*texts], {"parse_math": False, "fontfamily": [*rcParams["font.family"], *([family] if family else [])]}


def _without(letters: frozenset[str], texts: tuple[str, ...]) -> tuple[str, ...]:
    """Texts with a ``?`` for each of these letters, and nothing for those that only change the letter before."""
    table = str.maketrans({letter: "" if category(letter) in ("Mn", "Cf") else "?" for letter in letters})
    return tuple(text.translate(table) for text in texts)


def _usual_font() -> str:
    """The file of the font that text is drawn with."""
    from matplotlib.font_manager import FontProperties, findfont

    return str(findfont(FontProperties()))


def _lacking(letters: frozenset[str], file: str) -> frozenset[str]:
    """Those of the letters that a font has not."""
    from matplotlib.font_manager import get_font

    font = get_font(file)
    return frozenset(letter for letter in letters if not font.get_char_index(ord(letter)))


@cache
def _family_with(letters: frozenset[str]) -> str | None:
    """A font of this machine that has all these letters and can draw them."""
    from matplotlib.font_manager import fontManager

    return next((entry.name for entry in fontManager.ttflist if _can_draw(entry.fname, letters)), None)


def _can_draw(file: str, letters: frozenset[str]) -> bool:
    from matplotlib.ft2font import FT2Font

    try:
        font = FT2Font(file)
        font.set_size(POINTS, DOTS_PER_INCH)
        if not all(font.get_char_index(ord(letter)) for letter in letters):
            return False
        for letter in letters:
            font.load_char(ord(letter))
    except (OSError, RuntimeError, ValueError):  # a file that is gone, or of a kind that FreeType has no sizes of
        return False
    return True
