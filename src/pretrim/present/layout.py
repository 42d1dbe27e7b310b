"""Tables that fit the terminal: nothing is cut, no name is broken over lines, no unit is parted from its number.

Where a table is wider than the terminal, columns that matter least are left out and named below it; where it is still
too wide, each row becomes a block of ``column  value`` lines. A pipe or file gets the whole table. Such a column that
says nothing in any row is left out everywhere, and a table without titles has no line for them.
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
"""The least width of a column of sentences; they wrap between words"""
NOTHING = ("", "-")
"""Cells without a value"""
GAP = 3
"""between columns, as Rich draws them"""


@dataclass(frozen=True)
class Heading:
    """A column, as it is written in code: marks, then its title.

    ``<`` words, on the left (numbers are on the right); ``~`` sentences, which may wrap; ``?`` can be left out.

    >>> Heading.parse("<?runtime")
    Heading(title='runtime', is_words=True, is_prose=False, is_optional=True)
    """

    title: str
    is_words: bool
    is_prose: bool
    is_optional: bool

    @classmethod
    def parse(cls, text: str) -> Heading:
        """Read the marks."""
        title = text.lstrip("<~?")
        marks = text[: len(text) - len(title)]
        return cls(title, bool({"<", "~"} & {*marks}), "~" in marks, "?" in marks)


class Table(RichTable):
    """Rich's table, with columns that say what may happen to them on a narrow terminal."""

    def __init__(self, *columns: str) -> None:
        super().__init__(box=box.SIMPLE_HEAD, pad_edge=False)
        self.headings: list[Heading] = []
        for column in columns:
            self.add(Heading.parse(column))

    def add(self, heading: Heading) -> None:
        """One more column."""
        self.headings.append(heading)
        align = "left" if heading.is_words else "right"
        self.add_column(Text(heading.title), justify=align, overflow="fold", no_wrap=not heading.is_prose)  # type: ignore[arg-type]


def show_table(console: Console, title: str, table: Table, without: Sequence[str] = ()) -> None:
    """A title, and the table as it fits.

    Args:
        console: where to.
        title: a line above the table.
        table: is not changed.
        without: titles of columns that the caller left out because the terminal is narrow.
    """
    table = _only(table, [place for place in range(len(table.headings)) if _says_something(table, place)])
    console.print(Text(title, style="bold"), soft_wrap=not console.is_terminal)
    if not console.is_terminal:
        console.width = max(console.width, _width(table, table.headings))
    if _width(table, [heading for heading in table.headings if not heading.is_optional]) > console.width:
        places = list(range(len(table.headings)))
        _show_blocks(console, table)
    else:
        places = _that_fit(table, console.width)
        console.print(_only(table, places))
    left_out = [heading.title for place, heading in enumerate(table.headings) if place not in places and heading.title]
    if without or left_out:
        console.print(Text(f"Left out at this width: {', '.join([*without, *left_out])}", style="dim"))


def fitted(table: Table, width: int) -> Table:
    """The table without the optional columns that do not fit so many columns of a terminal."""
    return _only(table, _that_fit(table, width))


def _says_something(table: Table, place: int) -> bool:
    """Whether a column has to stay, or has a value in any row."""
    cells = map(_plain, table.columns[place].cells)
    return not table.headings[place].is_optional or any(cell.strip() not in NOTHING for cell in cells)


def _that_fit(table: Table, width: int) -> list[int]:
    """The columns that stay: optional ones are left out, the last first, until the rest fits."""
    places = list(range(len(table.headings)))
    for place in reversed(places.copy()):
        if _width(table, [table.headings[other] for other in places]) <= width:
            break
        if table.headings[place].is_optional:
            places.remove(place)
    return places


def _only(table: Table, places: Sequence[int]) -> Table:
    """A table with some of the columns of another."""
    made = Table()
    for place in places:
        made.add(table.headings[place])
    made.show_header = any(heading.title for heading in made.headings)
    cells = [list(table.columns[place].cells) for place in places]
    for number, row in enumerate(table.rows):
        made.add_row(*(column[number] for column in cells), end_section=row.end_section)
    return made


def _width(table: Table, headings: Sequence[Heading]) -> int:
    """What these columns need so that nothing breaks: every column's longest line, but sentences may wrap."""
    total = 2 - GAP
    for heading, column in zip(table.headings, table.columns, strict=True):
        if heading in headings:
            lines = list(_lines(column))
            longest = max(map(cell_len, lines))
            word = max((cell_len(word) for line in lines for word in line.split()), default=0)
            total += (min(longest, max(word, PROSE_WIDTH)) if heading.is_prose else longest) + GAP
    return total


def _lines(column: Column) -> Iterator[str]:
    yield _plain(column.header)
    for cell in column.cells:
        yield from _plain(cell).split("\n")


def _plain(cell: object) -> str:
    return cell.plain if isinstance(cell, Text) else str(cell)


def _show_blocks(console: Console, table: Table) -> None:
    """A row a block: its first cell, then a line for each other column that says something."""
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
