"""A line with a name, a progress bar and text, fitted to the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

MOST_BAR, LEAST_BAR = 40, 8
"""Maximum and minimum width of a bar, in columns."""
GAP = 2
"""Spaces between columns."""


def line(name: str, done: float, total: float, words: str, width: int) -> Table:
    """A line whose bar takes the remaining room, up to `MOST_BAR` columns, or is left out if there is too little.

    Args:
        name: text before the bar; may be empty.
        done: how much of `total` is done.
        total: value of a full bar.
        words: text after the bar.
        width: width of the terminal, in columns.
    """
    room = room_for_bar(name, words, width)
    grid = Table.grid(padding=(0, GAP, 0, 0))
    cells = [Text(name, no_wrap=True)] if name else []
    bar = [ProgressBar(total=total, completed=done, width=min(room, MOST_BAR))] if room >= LEAST_BAR else []
    grid.add_row(*cells, *bar, Text(words))
    return grid


def room_for_bar(name: str, words: str, width: int) -> int:
    """Columns that remain for a bar between a name and a text; negative if these do not fit on their own.

    Args:
        name: text before the bar.
        words: text after the bar.
        width: width of the terminal, in columns.
    """
    return width - cell_len(words) - GAP - (cell_len(name) + GAP if name else 0)


def that_fit(name: str, parts: Sequence[tuple[str, int]], width: int) -> str:
    """Join the parts that fit into a line: the least important are left out, down to the most important one.

    Args:
        name: text before the bar.
        parts: texts in the order of display, each with its rank: 0 and 1 matter more than a bar.
        width: width of the terminal, in columns.
    """
    kept = list(parts)
    while len(kept) > 1:
        least_important = max(kept, key=lambda part: part[1])
        if room_for_bar(name, _joined(kept), width) >= (LEAST_BAR if least_important[1] > 1 else -GAP):
            break
        kept.remove(least_important)
    return _joined(kept)


def _joined(parts: Sequence[tuple[str, int]]) -> str:
    return "  ".join(text for text, _ in parts)


def clock(seconds: float) -> str:
    """Format seconds as M:SS or H:MM:SS.

    >>> clock(62), clock(3 * 3600 + 61)
    ('1:02', '3:01:01')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
