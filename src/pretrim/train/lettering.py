"""Names drawn literally in plots: no formulas between dollar signs, no warnings of glyphs that matplotlib's font lacks.

Missing glyphs are taken from another font of this machine that has them, or are replaced by ``?``.
"""

from __future__ import annotations

from functools import cache
from typing import Any
from unicodedata import category

NO_LETTERS = ("Cc", "Cs")
"""Unicode categories of control characters, and of surrogates, which stand for undecodable bytes in file names."""
POINTS, DOTS_PER_INCH = 10, 144
"""Size at which a font is tried: some contain only bitmaps of a few sizes, which matplotlib cannot draw."""


def lettering(*texts: str) -> tuple[list[str], dict[str, Any]]:
    """Return texts that can be drawn, and the properties of matplotlib's `Text` to draw them with.

    Args:
        texts: names from files and users; line breaks are kept.

    >>> lettering("$5 to $10", "one\\x1btwo")[0]
    ['$5 to $10', 'one?two']
    """
    from matplotlib import rcParams

    texts = _replaced(frozenset(letter for letter in "".join(texts) if category(letter) in NO_LETTERS) - {"\n"}, texts)
    missing = _missing_glyphs(frozenset("".join(texts)) - {"\n"}, _default_font())
    family = _family_with(missing) if missing else None
    if family is None:
        texts = _replaced(missing, texts)
    return [*texts], {"parse_math": False, "fontfamily": [*rcParams["font.family"], *([family] if family else [])]}


def _replaced(letters: frozenset[str], texts: tuple[str, ...]) -> tuple[str, ...]:
    """Replace each of these letters by ``?``, and drop those that only modify the letter before."""
    table = str.maketrans({letter: "" if category(letter) in ("Mn", "Cf") else "?" for letter in letters})
    return tuple(text.translate(table) for text in texts)


def _default_font() -> str:
    """The file of the default font for text."""
    from matplotlib.font_manager import FontProperties, findfont

    return str(findfont(FontProperties()))


def _missing_glyphs(letters: frozenset[str], file: str) -> frozenset[str]:
    """The letters for which a font has no glyph."""
    from matplotlib.font_manager import get_font

    font = get_font(file)
    return frozenset(letter for letter in letters if not font.get_char_index(ord(letter)))


@cache
def _family_with(letters: frozenset[str]) -> str | None:
    """A font family of this machine that has and can draw all these letters."""
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
    except (OSError, RuntimeError, ValueError):  # the file is gone, or is a font that FreeType cannot scale
        return False
    return True
