"""A table of images: CSV or parquet with a column of files, columns of targets, and, if it has one, of parts.

What the targets are follows from the columns: one of names (``label``, ``class``) is a classification; several names in
one cell, with ``;`` between them, or several columns of 0 and 1 are labels; other numbers are values to regress.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from pretrim.errors import DataError, UsageError

from .images import Resize, channels_of
from .record import Parts, Split
from .stream import Streamed

FILES = ("image", "file", "filename", "file_name", "path", "img")
PART_COLUMNS = ("split", "part", "subset", "set")
NAMED = ("label", "class", "labels", "classes", "category", "target")
"""Columns of class names, also where these are whole numbers"""
PARTS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}
TABLES = ("labels.csv", "annotations.csv", "metadata.csv", "labels.parquet", "metadata.parquet")
"""Names by which a table is found in a folder"""
DEFAULT_SIZE = 64
BETWEEN = ";"


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
    """The targets of all rows, what they are of, and the names of the outputs."""

    values: torch.Tensor
    task: str
    names: tuple[str, ...]


def find(folder: Path) -> Path | None:
    """The table in a folder, if it has one."""
    return next((folder / name for name in TABLES if (folder / name).is_file()), None)


def read(path: Path, resize: Resize, channels: int | None) -> Parts:
    """The images of a table, resized to 64x64 unless another size is asked for.

    Files are named from the table's own folder. Without `channels` the images are grey where every one is stored in
    grey.

    Raises DataError for missing columns, files or labels, for an empty part, and for unknown parts.

    Args:
        path: the CSV or parquet file.
        resize: the size that is wanted, and how it is reached.
        channels: 1, 3 or 4.
    """
    table = _table(path)
    files = _files(table)
    targets = _targets(table)
    places = _places(table, len(files))
    _check_apart(table, files, places)
    channels = channels or channels_of(files)
    size = resize.or_square(DEFAULT_SIZE)
    splits = {}
    for part, rows in places.items():
        assert size.size is not None
        images = Streamed([files[row] for row in rows], str(path), channels, *size.size, fit=size.fit)
        splits[part] = Split(images, targets.values[torch.tensor(rows)])
    return Parts(
        name=path.resolve().parent.name,
        source=f"images of {path}",
        classes=targets.names,
        train=splits["train"],
        validation=splits.get("validation"),
        test=splits.get("test"),
        flip=targets.task != "regression",
        task=targets.task,
    )


def _table(path: Path) -> Table:
    table = _parquet(path) if path.suffix == ".parquet" else _csv(path)
    if not table.columns or not table.numbers:
        raise DataError(f"No rows in {path}: add an image a row, under a line of names.")
    return table


def _csv(path: Path) -> Table:
    (_, head), *rows = _lines(path) or [(0, [])]
    head = [name.strip() for name in head]
    if len(head) == 1 and BETWEEN in head[0]:
        raise DataError(f"The columns of {path} are separated by semicolons: separate them by commas.")
    if twice := [name for name in head if head.count(name) > 1]:
        raise DataError(f"Two columns of {path} are named {twice[0]!r}: give each a name of its own.")
    for number, row in rows:
        if len(row) != len(head):
            raise DataError(f"Expected {len(head)} cells in row {number} of {path}, but got {len(row)}.")
    columns = {name: [row[at].strip() for _, row in rows] for at, name in enumerate(head)}
    return Table(path, columns, [number for number, _ in rows])


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    """The rows of a CSV that are not empty, each with the number of the line it starts on."""
    found, start = [], 1
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            for row in reader:
                if any(cell.strip() for cell in row):
                    found.append((start, row))
                start = reader.line_num + 1
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"Cannot read {path} as a CSV in UTF-8 ({error}).") from error
    return found


def _parquet(path: Path) -> Table:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise UsageError("Parquet files need pyarrow: pip install 'pretrim[data]'.") from None
    try:
        found = parquet.read_table(path)
    except (ArrowException, OSError) as error:
        said = str(error).splitlines()[0]
        raise DataError(f"Cannot read the parquet file {path} ({said}).") from error
    columns = {name: [_text(cell) for cell in found.column(name).to_pylist()] for name in found.column_names}
    return Table(path, columns, range(1, found.num_rows + 1))


def _text(cell: Any) -> str:
    if isinstance(cell, list):
        return BETWEEN.join(map(str, cell))
    return "" if cell is None else str(int(cell) if isinstance(cell, bool) else cell)


def _files(table: Table) -> list[Path]:
    name = _column(table, FILES)
    if name is None:
        raise DataError(f"Expected a column {', '.join(FILES)} in {table.path}, but got {', '.join(table.columns)}.")
    files = [table.path.parent / cell for cell in table.columns[name]]
    for place, file in enumerate(files):
        if not file.is_file():
            raise DataError(f"The image of {table.row(place)} is not there: {file}.")
    return files


def _column(table: Table, names: Sequence[str]) -> str | None:
    lower = {name.lower(): name for name in table.columns}
    return next((lower[name] for name in names if name in lower), None)


def _places(table: Table, count: int) -> dict[str, list[int]]:
    """The rows of each part; all are of the training part where no column says otherwise."""
    name = _column(table, PART_COLUMNS)
    if name is None:
        return {"train": list(range(count))}
    part_of = {word: part for part, words in PARTS.items() for word in words}
    found: dict[str, list[int]] = {}
    for place, word in enumerate(table.columns[name]):
        if word.lower() not in part_of:
            raise DataError(
                f"Expected train, validation or test as the {name} of {table.row(place)}, but got {word!r}."
            )
        found.setdefault(part_of[word.lower()], []).append(place)
    if "train" not in found:
        raise DataError(
            f"Expected rows of the part train in {table.path}, but its {name} has {', '.join(found)} alone."
        )
    return found


def _check_apart(table: Table, files: Sequence[Path], places: Mapping[str, Sequence[int]]) -> None:
    """Raises DataError for an image in two parts: what was trained on says nothing in a test."""
    part_of: dict[Path, str] = {}
    for part, rows in places.items():
        for row in rows:
            first = part_of.setdefault(files[row], part)
            if first != part:
                raise DataError(f"{files[row]} is in the part {first} and, in {table.row(row)}, in {part}: keep one.")


def _targets(table: Table) -> Targets:
    hidden = {_column(table, FILES), _column(table, PART_COLUMNS)}
    columns = {name: cells for name, cells in table.columns.items() if name not in hidden}
    if not columns:
        raise DataError(f"No column of labels in {table.path}: add label.")
    for name, cells in columns.items():
        for place, cell in enumerate(cells):
            if not cell and not (name.lower() == "labels" and any(BETWEEN in other for other in cells)):
                raise DataError(f"No {name} in {table.row(place)}: add it, or leave it out.")
    if len(columns) > 1 and all(set(cells) <= {"0", "1"} for cells in columns.values()):
        return Targets(_numbers(table, columns), "multilabel", tuple(columns))
    named = _column(table, NAMED)
    if named is not None and len(columns) == 1:
        return _of_names(table, named)
    if len(columns) == 1 and not _are_numbers(next(iter(columns.values()))):
        return _of_names(table, next(iter(columns)))
    _check_no_names(table, columns)
    return Targets(_numbers(table, columns), "regression", tuple(columns))


def _check_no_names(table: Table, columns: Mapping[str, Sequence[str]]) -> None:
    """Raises DataError for a column of names beside others: boxes with their class, a patient, a comment."""
    for name, cells in columns.items():
        if len(columns) > 1 and not any(_are_numbers([cell]) for cell in cells):
            raise DataError(
                f"Expected one column of names, or columns of numbers alone, in {table.path}, but {name} has names "
                f"({cells[0]!r}), and {next(other for other in columns if other != name)} is there too: leave out what "
                f"is no target. Boxes take a task of your own: --task FILE.py:CLASS."
            )


def _of_names(table: Table, column: str) -> Targets:
    """One name a cell, or several."""
    cells = table.columns[column]
    if any(BETWEEN in cell for cell in cells):
        words = [{word.strip() for word in cell.split(BETWEEN) if word.strip()} for cell in cells]
        names = tuple(sorted({word for some in words for word in some}))
        values = torch.tensor([[float(name in some) for name in names] for some in words])
        return Targets(values, "multilabel", names)
    if column.lower() not in NAMED and _are_numbers(cells):
        return Targets(_numbers(table, {column: cells}), "regression", (column,))
    if _are_numbers(cells) and any("." in cell or "e" in cell.lower() for cell in cells):
        return Targets(_numbers(table, {column: cells}), "regression", (column,))
    names = tuple(sorted(set(cells), key=lambda name: (not name.isdigit(), int(name) if name.isdigit() else 0, name)))
    if len(names) < 2:
        raise DataError(f"Expected at least 2 classes in {table.path}, but got one ({names[0]}).")
    return Targets(torch.tensor([names.index(cell) for cell in cells]), "classification", names)


def _are_numbers(cells: Sequence[str]) -> bool:
    try:
        return all(torch.tensor(float(cell)).isfinite() for cell in cells)
    except ValueError:
        return False


def _numbers(table: Table, columns: Mapping[str, Sequence[str]]) -> torch.Tensor:
    """N x columns, float32."""
    for name, cells in columns.items():
        for place, cell in enumerate(cells):
            if not _are_numbers([cell]):
                raise DataError(f"Expected a number as the {name} of {table.row(place)}, but got {cell!r}.")
    return torch.tensor([[float(cell) for cell in row] for row in zip(*columns.values(), strict=True)])
