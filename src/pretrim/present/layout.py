"""Tables that fit the terminal: no text is cut, no name is broken across lines, no unit is separated from its number.

If a table is wider than the terminal, its optional columns are left out, last first, and named below it; if it is still
too wide, each row becomes a block of ``column  value`` lines. A pipe or file gets the whole table. An optional column
that is empty in every row is always left out, and a table without titles has no header line.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
from rich.table import Column
from rich.table import Table as RichTable
from rich.text import Text

PROSE_WIDTH = 24
"""Minimum width of a column of prose, which wraps between words."""
NOTHING = ("", "-")
"""Texts of cells without a value."""
GAP = 3
"""Characters between columns, as Rich draws them."""


@dataclass(frozen=True)
class Heading:
    """A column heading, written in code as marks followed by the title.

    ``<``: words, aligned left (numbers are aligned right); ``~``: prose, which may wrap; ``?``: optional.

    >>> Heading.parse("<?runtime")
    Heading(title='runtime', is_words=True, is_prose=False, is_optional=True)
    """

    title: str
    is_words: bool
    is_prose: bool
    is_optional: bool

    @classmethod
    def parse(cls, text: str) -> Heading:
        """Parse marks and title."""
        title = text.lstrip("<~?")
        marks = text[: len(text) - len(title)]
        return cls(title, bool({"<", "~"} & {*marks}), "~" in marks, "?" in marks)


class Table(RichTable):
    """A Rich table whose columns declare how they adapt to a narrow terminal."""

    def __init__(self, *columns: str) -> None:
        super().__init__(box=box.SIMPLE_HEAD, pad_edge=False)
        self.headings: list[Heading] = []
        for column in columns:
            self.add(Heading.parse(column))

    def add(self, heading: Heading) -> None:
        """Add a column."""
        self.headings.append(heading)
        align = "left" if heading.is_words else "right"
        self.add_column(Text(heading.title), justify=align, overflow="fold", no_wrap=not heading.is_prose)  # type: ignore[arg-type]


def show_table(console: Console, title: str, table: Table, without: Sequence[str] = ()) -> None:
    """Print a title and the table in the form that fits the console.

    Args:
        console: console to print to.
        title: a line above the table.
        table: the table; it is not changed.
        without: titles of columns that the caller left out because the terminal is narrow.
    """
    table = _select(table, [index for index in range(len(table.headings)) if _is_shown(table, index)])
    console.print(Text(title, style="bold"), soft_wrap=not console.is_terminal)
    if not console.is_terminal:
        console.width = max(console.width, _width(table, table.headings))
    if _width(table, [heading for heading in table.headings if not heading.is_optional]) > console.width:
        indices = list(range(len(table.headings)))
        _show_blocks(console, table)
    else:
        indices = _fitting(table, console.width)
        console.print(_select(table, indices))
    left_out = [heading.title for index, heading in enumerate(table.headings) if index not in indices and heading.title]
    if without or left_out:
        console.print(Text(f"Left out at this width: {', '.join([*without, *left_out])}", style="dim"))


def fitted(table: Table, width: int) -> Table:
    """The table without the optional columns that do not fit a terminal of this width."""
    return _select(table, _fitting(table, width))


def _is_shown(table: Table, index: int) -> bool:
    """Whether a column is required, or has a value in any row."""
    cells = map(_plain, table.columns[index].cells)
    return not table.headings[index].is_optional or any(cell.strip() not in NOTHING for cell in cells)


def _fitting(table: Table, width: int) -> list[int]:
    """Indices of the columns that stay: optional ones are left out, last first, until the rest fits."""
    indices = list(range(len(table.headings)))
    for index in reversed(indices.copy()):
        if _width(table, [table.headings[other] for other in indices]) <= width:
            break
        if table.headings[index].is_optional:
            indices.remove(index)
    return indices


def _select(table: Table, indices: Sequence[int]) -> Table:
    """A table with only the given columns of another."""
    selected = Table()
    for index in indices:
        selected.add(table.headings[index])
    selected.show_header = any(heading.title for heading in selected.headings)
    cells = [list(table.columns[index].cells) for index in indices]
    for number, row in enumerate(table.rows):
        selected.add_row(*(column[number] for column in cells), end_section=row.end_section)
    return selected


def _width(table: Table, headings: Sequence[Heading]) -> int:
    """Width that these columns need: the longest line of each, except that prose may wrap."""
    total = 2 - GAP
    for heading, column in zip(table.headings, table.columns, strict=True):
        if heading in headings:
            lines = list(_lines(column))
            longest = max(map(cell_len, lines))
            word = max((cell_len(word) for line in lines for word in line.split()), default=0)
            total += (min(longest, max(word, PROSE_WIDTH)) if heading.is_prose else longest) + GAP
    return total


def _lines(column: Column) -> Iterator[str]:
    """All lines of a column, header included, as plain text."""
    yield _plain(column.header)
    for cell in column.cells:
        yield from _plain(cell).split("\n")


def _plain(cell: object) -> str:
    return cell.plain if isinstance(cell, Text) else str(cell)


def _show_blocks(console: Console, table: Table) -> None:
    """Print each row as a block: its first cell, then a line for each other cell with a value."""
    titles = [heading.title for heading in table.headings]
    for row in zip(*(column.cells for column in table.columns), strict=True):
        console.print(Text(f" {_plain(row[0])}"), soft_wrap=True)
        block = RichTable.grid(padding=(0, 2))
        block.add_column(no_wrap=True, style="dim")
        block.add_column(overflow="fold")
        for title, cell in zip(titles[1:], row[1:], strict=True):
            if _plain(cell).strip() not in NOTHING:
                block.add_row(Text(title), cell if isinstance(cell, Text) else Text(str(cell)))
        console.print(Padding(block, (0, 0, 0, 3)))
    console.print()
