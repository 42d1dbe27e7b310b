"""What the columns of a table are targets of, told from their names and cells.

A column of class names (``label``, ``class``, or any column of words) is a classification, whole numbers in it are
classes; several names in one cell, with ``;`` between them, or several columns of 0 and 1 (or true and false) are
labels; other numbers are values to regress.
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
"""Columns whose whole numbers are classes, also where they are written as 0.0, as pandas does beside a missing one"""
NAMED = (*CLASSES, "target")
"""Columns of class names, also where these are whole numbers"""
BETWEEN = ";"
MISSING = frozenset({"", "nan", "<na>", "nat"})
"""Cells that say, in any case, that there is no value; not ``none`` or ``NA``, which people call classes"""
YES, NO = frozenset({"1", "1.0", "true"}), frozenset({"0", "0.0", "false"})
MOSTLY = 2 / 3
"""Of the cells of a column: where as many are numbers, the others are faults"""
FEW = 10
"""Different whole numbers of a column that may have been meant as classes"""
COUNTED = 3
"""Rows from which on a column of 0, 1, 2, ... is taken for a count of them"""
_UNNAMED = re.compile(r"(unnamed: ?\d+(_level_\d+)?|__index_level_\d+__)?", re.ASCII | re.IGNORECASE)
_COMMA = re.compile(r"[+-]?\d*,\d+", re.ASCII)


class Table(NamedTuple):
    """Columns of text, each with a cell a row, and the number of each row, for errors.

    The number is that of the line on which the row starts, as an editor shows it; in a parquet file it counts from 1.
    """

    path: Path
    columns: Mapping[str, Sequence[str]]
    numbers: Sequence[int]

    def row(self, place: int) -> str:
        """The name of a row."""
        return f"row {self.numbers[place]} of {self.path}"


class Targets(NamedTuple):
    """The targets of all rows (N x ...), what they are of, the names of the outputs, and what to tell the user."""

    values: torch.Tensor
    task: str
    names: tuple[str, ...]
    notes: tuple[str, ...] = ()


def find(table: Table, hidden: Sequence[str], known: Known | None) -> Targets:
    """The targets of a table.

    Args:
        table: of cells.
        hidden: columns that are something else: files, parts.
        known: of a network that is to be evaluated on the table; None: the columns say what they are.

    Raises DataError where there are none, where one is missing, and where they are neither names nor numbers.
    """
    columns, notes = _without_row_numbers(
        {name: cells for name, cells in table.columns.items() if name not in hidden}, len(table.numbers)
    )
    if not columns:
        raise DataError(f"No column of labels in {table.path}: add label.")
    columns = _of_outputs(columns, known)
    for name, cells in columns.items():
        _check_there(table, name, cells)
        _check_points(table, name, cells)
    found = _told(table, columns, known)
    return found._replace(notes=(*notes, *found.notes))


def _without_row_numbers(
    columns: Mapping[str, Sequence[str]], count: int
) -> tuple[dict[str, Sequence[str]], tuple[str, ...]]:
    """The columns that may be targets, and a sentence on each that is none: pandas writes its row numbers."""
    kept, notes = {}, []
    for name, cells in columns.items():
        if _UNNAMED.fullmatch(name):
            which = repr(name) if name else "without a name"
            notes.append(
                f"the column {which} is not read: pandas writes row numbers there, to_csv(index=False) does not"
            )
        else:
            kept[name] = cells
    counts = [name for name, cells in kept.items() if name.lower() not in NAMED and _counts(cells, count)]
    if len(counts) < len(kept):
        for name in counts:
            notes.append(f"the column {name!r} counts the rows, and is not read as a target")
            del kept[name]
    return kept, tuple(notes)


def _counts(cells: Sequence[str], count: int) -> bool:
    """Whether the cells are 0, 1, 2, ... or 1, 2, 3, ..."""
    if count < COUNTED or cells[0] not in ("0", "1"):
        return False
    start = int(cells[0])
    return all(cell == str(start + place) for place, cell in enumerate(cells))


def _of_outputs(columns: dict[str, Sequence[str]], known: Known | None) -> dict[str, Sequence[str]]:
    """The columns that a network has an output for, where its outputs are columns."""
    if known is not None and known.task in ("regression", "multilabel") and set(known.classes) <= set(columns):
        return {name: columns[name] for name in known.classes}
    return columns


def _check_there(table: Table, name: str, cells: Sequence[str]) -> None:
    """Raises DataError for empty cells; with ``;`` in others of the column `labels` they say that there is no label."""
    if name.lower() == "labels" and any(BETWEEN in cell for cell in cells):
        return
    _check_none(table, name, [place for place, cell in enumerate(cells) if not cell])


def _check_none(table: Table, name: str, places: Sequence[int]) -> None:
    if places:
        cell = table.columns[name][places[0]]
        said = [f"{cell!r}"] * bool(cell) + [f"{len(places)} rows lack one"] * (len(places) > 1)
        more = f" ({', '.join(said)})" if said else ""
        raise DataError(f"No {name} in {table.row(places[0])}{more}: add it, or leave it out.")


def _check_points(table: Table, name: str, cells: Sequence[str]) -> None:
    """Raises DataError for a column of numbers with a decimal comma."""
    commas = [place for place, cell in enumerate(cells) if _COMMA.fullmatch(cell)]
    if commas and _are_mostly(cells, lambda cell: is_number(cell) or bool(_COMMA.fullmatch(cell))):
        cell = cells[commas[0]]
        raise DataError(
            f"Expected a decimal point in the numbers of {name}, but got {cell!r} in {table.row(commas[0])}"
            f"{_of_all(len(commas), len(cells))}: write {cell.replace(',', '.')}."
        )


def _of_all(count: int, total: int) -> str:
    return f" ({count:,} of {total:,} rows)" if count > 1 else ""


def _told(table: Table, columns: Mapping[str, Sequence[str]], known: Known | None) -> Targets:
    """What the columns say of themselves, or what the outputs of a network ask of them."""
    task = None if known is None else known.task
    name, cells = next(iter(columns.items()))
    if len(columns) > 1 and task in (None, "multilabel") and all(map(_is_yes_or_no, columns.values())):
        values = [[float(cell.lower() in YES) for cell in row] for row in zip(*columns.values(), strict=True)]
        return Targets(torch.tensor(values), "multilabel", tuple(columns))
    if task == "multilabel":
        return _of_labels(cells)
    _check_alone(table, columns)
    if len(columns) > 1 or task == "regression":
        return Targets(_numbers(table, columns), "regression", tuple(columns))
    if any(BETWEEN in cell for cell in cells) and task is None:
        return _of_labels(cells)
    if task is None and _is_of_values(name, cells):
        return Targets(_numbers(table, columns), "regression", (name,), _maybe_classes(name, cells))
    return _of_classes(table, name, least=2 if task is None else 1)


def _is_yes_or_no(cells: Sequence[str]) -> bool:
    return all(cell.lower() in YES | NO for cell in cells)


def _check_alone(table: Table, columns: Mapping[str, Sequence[str]]) -> None:
    """Raises DataError for a column of classes beside others: boxes with their class, a patient, a comment."""
    for name, cells in columns.items():
        if len(columns) == 1:
            return
        has_names = not any(is_number(cell) for cell in cells)
        if has_names or (name.lower() in CLASSES and _are_whole(name, cells)):
            what = "names" if has_names else "classes"
            raise DataError(
                f"Expected one column of names, or columns of numbers alone, in {table.path}, but {name} has {what} "
                f"({shown(cells[0])}), and {next(other for other in columns if other != name)} is there too: leave out "
                f"what is no target. Boxes take a task of your own: --task FILE.py:CLASS."
            )


def _of_labels(cells: Sequence[str]) -> Targets:
    """Several names a cell."""
    words = [{word.strip() for word in cell.split(BETWEEN) if word.strip()} for cell in cells]
    names = tuple(sorted({word for some in words for word in some}))
    values = torch.tensor([[float(name in some) for name in names] for some in words])
    return Targets(values, "multilabel", names)


def _is_of_values(name: str, cells: Sequence[str]) -> bool:
    """Whether a column has values to regress: numbers, but for whole ones in a column of classes."""
    return _are_mostly(cells, is_number) and not (name.lower() in NAMED and _are_whole(name, cells))


def _maybe_classes(name: str, cells: Sequence[str]) -> tuple[str, ...]:
    """A sentence on few whole numbers, which may be meant as classes."""
    values = sorted({float(cell) for cell in cells})
    if not 1 < len(values) <= FEW or len(values) * 2 > len(cells) or any(value % 1 for value in values):
        return ()
    few = first_of([f"{value:g}" for value in values])
    return (
        f"{name} has {len(values)} whole numbers ({few}) and is regressed: call the column label if they are classes",
    )


def _are_whole(name: str, cells: Sequence[str]) -> bool:
    """Whether all cells that are there are whole numbers; 1.0 is one in a column of classes alone."""
    there = [cell for cell in cells if cell.lower() not in MISSING]
    if name.lower() not in CLASSES:
        return all(is_number(cell) and not set(cell.lower()) & set(".e") for cell in there)
    return all(is_number(cell) and float(cell).is_integer() for cell in there)


def _are_mostly(cells: Sequence[str], is_such: Callable[[str], bool]) -> bool:
    """Whether nearly all of the cells that are there are of a kind, so that the others are faults."""
    there = [cell for cell in cells if cell.lower() not in MISSING]
    return sum(map(is_such, there)) >= MOSTLY * len(there) > 0


def _of_classes(table: Table, name: str, least: int) -> Targets:
    """One name a cell; numbers in their order."""
    cells = table.columns[name]
    _check_none(table, name, [place for place, cell in enumerate(cells) if cell.lower() in MISSING])
    if _are_whole(name, cells):
        cells = [cell if set(cell).isdisjoint(".eE") else str(int(float(cell))) for cell in cells]
    names = tuple(sorted(set(cells), key=lambda cell: (not cell.isdigit(), int(cell) if cell.isdigit() else 0, cell)))
    if len(names) < least:
        raise DataError(f"Expected at least {least} classes in {table.path}, but got one ({names[0]}).")
    number = {cell: place for place, cell in enumerate(names)}
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
    """N x columns, float32."""
    for name, cells in columns.items():
        faults = [place for place, cell in enumerate(cells) if not is_number(cell)]
        if faults:
            raise DataError(
                f"Expected a number as the {name} of {table.row(faults[0])}, but got {shown(cells[faults[0]])}"
                f"{_of_all(len(faults), len(cells))}: mend it, or leave it out."
            )
    return torch.tensor([[float(cell) for cell in row] for row in zip(*columns.values(), strict=True)])
