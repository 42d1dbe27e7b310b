"""Infer the kind of targets from the names and cells of a table's columns.

A column of class names (``label``, ``class``, or any column of words) is a classification; whole numbers in a
column with such a name are classes. Several names per cell, separated by ``;``, or several columns of 0 and 1 (or
true and false) are multilabel targets. Other numbers are regression targets.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from pretrim.errors import DataError, first_of, shown

from .record import Known

CLASSES = ("label", "class", "labels", "classes", "category")
"""Names of columns whose whole numbers are classes, even if written as 0.0, as pandas does when a value is missing."""
NAMED = (*CLASSES, "target")
"""Names of columns of class names, even if these are whole numbers."""
SEPARATOR = ";"
MISSING = frozenset({"", "nan", "<na>", "nat"})
"""Cells that mean a missing value, in lower case; not ``none`` or ``NA``, which are used as class names."""
YES, NO = frozenset({"1", "1.0", "true"}), frozenset({"0", "0.0", "false"})
NUMERIC_FRACTION = 2 / 3
"""Minimum fraction of numeric cells for a column to count as numeric, and its other cells as errors."""
MAX_CLASSES = 10
"""Maximum number of different whole numbers that may have been meant as classes."""
MIN_ROWS = 3
"""Minimum number of rows for a column of 0, 1, 2, ... to count as row numbers."""
_UNNAMED = re.compile(r"(unnamed: ?\d+(_level_\d+)?|__index_level_\d+__)?", re.ASCII | re.IGNORECASE)
_COMMA = re.compile(r"[+-]?\d*,\d+", re.ASCII)


class Table(NamedTuple):
    """Columns of text with one cell per row, and the number of each row for error messages.

    The number is that of the line on which the row starts, as an editor shows it; rows of a parquet file are numbered
    from 1.
    """

    path: Path
    columns: Mapping[str, Sequence[str]]
    numbers: Sequence[int]

    def row(self, place: int) -> str:
        """Describe a row by its number."""
        return f"row {self.numbers[place]} of {self.path}"


class Targets(NamedTuple):
    """The targets of all rows (N x ...), their task, the names of the outputs, and notes for the user."""

    values: torch.Tensor
    task: str
    names: tuple[str, ...]
    notes: tuple[str, ...] = ()


def find(table: Table, hidden: Sequence[str], known: Known | None) -> Targets:
    """Return the targets of a table.

    Args:
        table: the table.
        hidden: columns used for other things: files, splits.
        known: the network to evaluate on this table; None: infer the task from the columns.

    Raises DataError if there are no targets, if one is missing, and if they are neither names nor numbers.
    """
    columns, notes = _without_row_numbers(
        {name: cells for name, cells in table.columns.items() if name not in hidden}, len(table.numbers)
    )
    if not columns:
        raise DataError(f"No column of labels in {table.path}: add label.")
    columns = _output_columns(columns, known)
    for name, cells in columns.items():
        _check_not_empty(table, name, cells)
        _check_points(table, name, cells)
    inferred = _inferred(table, columns, known)
    return inferred._replace(notes=(*notes, *inferred.notes))


def _without_row_numbers(
    columns: Mapping[str, Sequence[str]], count: int
) -> tuple[dict[str, Sequence[str]], tuple[str, ...]]:
    """Return the columns that may be targets, and a note on each dropped one: pandas writes row numbers."""
    kept, notes = {}, []
    for name, cells in columns.items():
        if _UNNAMED.fullmatch(name):
            title = repr(name) if name else "without a name"
            notes.append(
                f"the column {title} is not read: pandas writes row numbers there, to_csv(index=False) does not"
            )
        else:
            kept[name] = cells
    row_numbers = [name for name, cells in kept.items() if name.lower() not in NAMED and _are_row_numbers(cells, count)]
    if len(row_numbers) < len(kept):
        for name in row_numbers:
            notes.append(f"the column {name!r} counts the rows, and is not read as a target")
            del kept[name]
    return kept, tuple(notes)


def _are_row_numbers(cells: Sequence[str], count: int) -> bool:
    """Whether the cells are 0, 1, 2, ... or 1, 2, 3, ..."""
    if count < MIN_ROWS or cells[0] not in ("0", "1"):
        return False
    start = int(cells[0])
    return all(cell == str(start + index) for index, cell in enumerate(cells))


def _output_columns(columns: dict[str, Sequence[str]], known: Known | None) -> dict[str, Sequence[str]]:
    """Select the columns that match a network's outputs, if its outputs are columns."""
    if known is not None and known.task in ("regression", "multilabel") and set(known.classes) <= set(columns):
        return {name: columns[name] for name in known.classes}
    return columns


def _check_not_empty(table: Table, name: str, cells: Sequence[str]) -> None:
    """Raise DataError for empty cells; in a column `labels` that uses ``;`` they mean that there is no label."""
    if name.lower() == "labels" and any(SEPARATOR in cell for cell in cells):
        return
    _check_no_gaps(table, name, [index for index, cell in enumerate(cells) if not cell])


def _check_no_gaps(table: Table, name: str, rows: Sequence[int]) -> None:
    if rows:
        cell = table.columns[name][rows[0]]
        remarks = [f"{cell!r}"] * bool(cell) + [f"{len(rows)} rows lack one"] * (len(rows) > 1)
        details = f" ({', '.join(remarks)})" if remarks else ""
        raise DataError(f"No {name} in {table.row(rows[0])}{details}: add it, or leave it out.")


def _check_points(table: Table, name: str, cells: Sequence[str]) -> None:
    """Raise DataError for a column of numbers with a decimal comma."""
    commas = [index for index, cell in enumerate(cells) if _COMMA.fullmatch(cell)]
    if commas and _are_mostly(cells, lambda cell: is_number(cell) or bool(_COMMA.fullmatch(cell))):
        cell = cells[commas[0]]
        raise DataError(
            f"Expected a decimal point in the numbers of {name}, but got {cell!r} in {table.row(commas[0])}"
            f"{_of_all(len(commas), len(cells))}: write {cell.replace(',', '.')}."
        )


def _of_all(count: int, total: int) -> str:
    return f" ({count:,} of {total:,} rows)" if count > 1 else ""


def _inferred(table: Table, columns: Mapping[str, Sequence[str]], known: Known | None) -> Targets:
    """Return the targets of the columns, as inferred or as a network's task requires."""
    task = None if known is None else known.task
    name, cells = next(iter(columns.items()))
    if len(columns) > 1 and task in (None, "multilabel") and all(map(_is_yes_or_no, columns.values())):
        values = [[float(cell.lower() in YES) for cell in row] for row in zip(*columns.values(), strict=True)]
        return Targets(torch.tensor(values), "multilabel", tuple(columns))
    if task == "multilabel":
        return _multilabel(cells)
    _check_alone(table, columns)
    if len(columns) > 1 or task == "regression":
        return Targets(_numbers(table, columns), "regression", tuple(columns))
    if any(SEPARATOR in cell for cell in cells) and task is None:
        return _multilabel(cells)
    if task is None and _is_numeric(name, cells):
        return Targets(_numbers(table, columns), "regression", (name,), _note_on_classes(name, cells))
    return _classification(table, name, min_classes=2 if task is None else 1)


def _is_yes_or_no(cells: Sequence[str]) -> bool:
    return all(cell.lower() in YES | NO for cell in cells)


def _check_alone(table: Table, columns: Mapping[str, Sequence[str]]) -> None:
    """Raise DataError for a column of classes beside others: boxes with their class, a patient, a comment."""
    for name, cells in columns.items():
        if len(columns) == 1:
            return
        has_names = not any(is_number(cell) for cell in cells)
        if has_names or (name.lower() in CLASSES and _are_whole(name, cells)):
            kind = "names" if has_names else "classes"
            raise DataError(
                f"Expected one column of names, or columns of numbers alone, in {table.path}, but {name} has {kind} "
                f"({shown(cells[0])}), and {next(other for other in columns if other != name)} is there too: leave out "
                f"what is not a target. Boxes need a task of your own: --task FILE.py:CLASS."
            )


def _multilabel(cells: Sequence[str]) -> Targets:
    """Return multilabel targets from cells of several names."""
    words = [{word.strip() for word in cell.split(SEPARATOR) if word.strip()} for cell in cells]
    names = tuple(sorted({word for labels in words for word in labels}))
    values = torch.tensor([[float(name in labels) for name in names] for labels in words])
    return Targets(values, "multilabel", names)


def _is_numeric(name: str, cells: Sequence[str]) -> bool:
    """Whether a column holds regression targets: numbers, except whole ones in a column of classes."""
    return _are_mostly(cells, is_number) and not (name.lower() in NAMED and _are_whole(name, cells))


def _note_on_classes(name: str, cells: Sequence[str]) -> tuple[str, ...]:
    """Return a note on few different whole numbers, which may be meant as classes."""
    values = sorted({float(cell) for cell in cells})
    if not 1 < len(values) <= MAX_CLASSES or len(values) * 2 > len(cells) or any(value % 1 for value in values):
        return ()
    few = first_of([f"{value:g}" for value in values])
    return (
        f"{name} has {len(values)} whole numbers ({few}) and is regressed: call the column label if they are classes",
    )


def _are_whole(name: str, cells: Sequence[str]) -> bool:
    """Whether all non-missing cells are whole numbers; 1.0 counts as one only in a column of classes."""
    present = [cell for cell in cells if cell.lower() not in MISSING]
    if name.lower() not in CLASSES:
        return all(is_number(cell) and not set(cell.lower()) & set(".e") for cell in present)
    return all(is_number(cell) and float(cell).is_integer() for cell in present)


def _are_mostly(cells: Sequence[str], matches: Callable[[str], bool]) -> bool:
    """Whether nearly all non-missing cells match, so that the others are errors."""
    present = [cell for cell in cells if cell.lower() not in MISSING]
    return sum(map(matches, present)) >= NUMERIC_FRACTION * len(present) > 0


def _classification(table: Table, name: str, min_classes: int) -> Targets:
    """Return class numbers from one name per cell; numeric names are sorted by value."""
    cells = table.columns[name]
    _check_no_gaps(table, name, [index for index, cell in enumerate(cells) if cell.lower() in MISSING])
    if _are_whole(name, cells):
        cells = [cell if set(cell).isdisjoint(".eE") else str(int(float(cell))) for cell in cells]
    names = tuple(sorted(set(cells), key=lambda cell: (not cell.isdigit(), int(cell) if cell.isdigit() else 0, cell)))
    if len(names) < min_classes:
        raise DataError(f"Expected at least {min_classes} classes in {table.path}, but got one ({names[0]}).")
    number = {cell: index for index, cell in enumerate(names)}
    return Targets(torch.tensor([number[cell] for cell in cells]), "classification", names)


def is_number(cell: str) -> bool:
    """Whether a cell is a finite number.

    >>> is_number("0.5"), is_number("nan"), is_number("0,5")
    (True, False, False)
    """
    try:
        return math.isfinite(float(cell))
    except ValueError:
        return False


def _numbers(table: Table, columns: Mapping[str, Sequence[str]]) -> torch.Tensor:
    """Return regression targets, N x columns, float32."""
    for name, cells in columns.items():
        errors = [index for index, cell in enumerate(cells) if not is_number(cell)]
        if errors:
            raise DataError(
                f"Expected a number as the {name} of {table.row(errors[0])}, but got {shown(cells[errors[0]])}"
                f"{_of_all(len(errors), len(cells))}: correct it, or leave it out."
            )
    return torch.tensor([[float(cell) for cell in row] for row in zip(*columns.values(), strict=True)])
