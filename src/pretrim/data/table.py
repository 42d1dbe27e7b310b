"""A table of images: CSV or parquet with a column of files, columns of targets, and optionally one of splits.

The columns determine the kind of targets (`targets`). Every file is one image in one split: repeated rows are
dropped, and rows that contradict each other are refused.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from pretrim.errors import DataError, UsageError, shown

from . import targets
from .images import Resize, channels_of
from .record import Known, Parts, Split
from .stream import Streamed
from .targets import SEPARATOR, Table

FILES = ("image", "file", "filename", "file_name", "path", "img")
PART_COLUMNS = ("split", "part", "subset", "set")
PARTS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}
TABLES = ("labels.csv", "annotations.csv", "metadata.csv", "labels.tsv", "labels.parquet", "metadata.parquet")
"""File names by which a table is found in a folder."""
SEPARATORS = (",", "\t", ";")
DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")
SUFFIXES = (".csv", ".tsv", ".parquet")
DEFAULT_SIZE = 64
MAX_PATH_CHARS = 200
"""Maximum number of characters of a path in a message."""

RowsBySplit = Mapping[str, Sequence[int]]
"""The row indices of each split."""


class Rows(NamedTuple):
    """A table with the image file of each row, and the targets of all rows."""

    table: Table
    files: Sequence[Path]
    targets: targets.Targets


def find(folder: Path) -> Path | None:
    """Return the table in a folder, if it has one."""
    return next((folder / name for name in TABLES if (folder / name).is_file()), None)


def read(path: Path, resize: Resize, channels: int | None, known: Known | None = None) -> Parts:
    """Read the images of a table, resized to 64x64 unless another size is requested.

    File names are relative to the table's folder. Without `channels`, images are grey if every file is stored in grey,
    else in colour.

    Raises DataError for missing columns, files or labels, for an empty split, and for unknown split names.

    Args:
        path: the CSV or parquet file.
        resize: requested size, and how it is reached.
        channels: 1, 3 or 4.
        known: the network to evaluate on this table, which then needs neither a training split nor every class.
    """
    table = _table(path)
    files = _files(table)
    hidden = [name for names in (FILES, PART_COLUMNS) if (name := _column(table, names)) is not None]
    rows = Rows(table, files, targets.find(table, hidden, known))
    by_split = _rows_by_split(table, len(files), needed=() if known is not None else ("train",))
    _check_disjoint(rows, by_split)
    kept, repeats = _deduplicated(rows, by_split)
    channels = channels or channels_of(files)
    resize = resize.or_square(DEFAULT_SIZE)
    splits = {split: _split(rows, indices, path, resize, channels) for split, indices in kept.items()}
    inferred = rows.targets
    return Parts(
        name=path.resolve().parent.name,
        source=f"images of {path}",
        classes=inferred.names,
        train=splits.get("train") or next(iter(splits.values())).none(),
        validation=splits.get("validation"),
        test=splits.get("test"),
        flip=inferred.task != "regression",
        task=inferred.task,
        notes=(*inferred.notes, *repeats),
    )


def _split(rows: Rows, indices: Sequence[int], path: Path, resize: Resize, channels: int) -> Split:
    assert resize.size is not None
    images = Streamed([rows.files[index] for index in indices], str(path), channels, *resize.size, fit=resize.fit)
    return Split(images, rows.targets.values[torch.tensor(indices)])


def _table(path: Path) -> Table:
    table = _parquet(path) if path.suffix.lower() == ".parquet" else _csv(path)
    if not table.columns or not table.numbers:
        raise DataError(f"No rows in {path}: add one row per image, under a line of column names.")
    return table


def _csv(path: Path) -> Table:
    (_, head), *rows = _lines(path) or [(0, [])]
    head = [name.strip() for name in head]
    if repeated := [name for name in head if name and head.count(name) > 1]:
        raise DataError(f"Two columns of {path} are named {repeated[0]!r}: give each a name of its own.")
    for number, row in rows:
        if len(row) != len(head):
            raise DataError(f"Expected {len(head)} cells in row {number} of {path}, but got {len(row)}.")
    columns = {name: [row[column].strip() for _, row in rows] for column, name in enumerate(head)}
    return Table(path, columns, [number for number, _ in rows])


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    """Return the non-empty rows of a CSV, each with the number of the line it starts on.

    The first line determines the separator: comma, tab or semicolon. Spreadsheets write semicolons where numbers have a
    decimal comma, so 2,5 is then read as 2.5.
    """
    rows, start = [], 1
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            head = next((line for line in file if line.strip()), "")
            file.seek(0)
            separator = next((mark for mark in SEPARATORS if mark in head), SEPARATORS[0])
            reader = csv.reader(file, delimiter=separator)
            for row in reader:
                if any(cell.strip() for cell in row):
                    rows.append((start, [_with_point(cell) for cell in row] if separator == ";" else row))
                start = reader.line_num + 1
    except UnicodeDecodeError as error:
        raise DataError(f"Cannot read {path} as a CSV in UTF-8 ({error}): save it as UTF-8.") from error
    except csv.Error as error:
        raise DataError(f"Cannot read {path} as a CSV in UTF-8 ({error}).") from error
    return rows


def _with_point(cell: str) -> str:
    """Replace the decimal comma of a number by a point; leave any other cell unchanged."""
    return cell.replace(",", ".") if DECIMAL_COMMA.fullmatch(cell.strip()) else cell


def _parquet(path: Path) -> Table:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise UsageError("Parquet files need pyarrow: pip install 'pretrim[data]'.") from None
    try:
        arrow_table = parquet.read_table(path)
    except (ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"Cannot read the parquet file {path} ({reason}).") from error
    columns = {
        name: [_text(cell) for cell in arrow_table.column(name).to_pylist()] for name in arrow_table.column_names
    }
    return Table(path, columns, range(1, arrow_table.num_rows + 1))


def _text(cell: Any) -> str:
    if isinstance(cell, list):
        return SEPARATOR.join(map(str, cell))
    return "" if cell is None else str(cell)


def _files(table: Table) -> list[Path]:
    name = _column(table, FILES)
    if name is None:
        raise DataError(
            f"Expected a column {', '.join(FILES)} in {table.path}, but got {', '.join(table.columns)}: the first line "
            f"names the columns."
        )
    files = [_file(table.path.parent, cell) for cell in table.columns[name]]
    missing = [row for row, file in enumerate(files) if not os.path.isfile(file)]
    if missing:
        count = f" ({len(missing):,} of {len(files):,} are not)" if len(missing) > 1 else ""
        raise DataError(f"The image of {table.row(missing[0])} is not there: {_short(files[missing[0]])}{count}.")
    return files


def _short(file: Path) -> str:
    """Shorten a path for a message: cells that are not paths may be of any length."""
    text = str(file)
    return text if len(text) <= MAX_PATH_CHARS else f"{text[:MAX_PATH_CHARS]}..."


def _file(folder: Path, cell: str) -> Path:
    """Return the file that a cell names, also with Windows path separators."""
    file = folder / cell
    return folder / cell.replace("\\", "/") if "\\" in cell and not os.path.isfile(file) else file


def _column(table: Table, names: Sequence[str]) -> str | None:
    lower = {name.lower(): name for name in table.columns}
    return next((lower[name] for name in names if name in lower), None)


def _rows_by_split(table: Table, count: int, needed: Sequence[str]) -> dict[str, list[int]]:
    """Return the row indices of each split; all rows are training rows if there is no column of splits."""
    name = _column(table, PART_COLUMNS)
    if name is None:
        return {"train": list(range(count))}
    split_of = {cell: split for split, synonyms in PARTS.items() for cell in synonyms}
    rows: dict[str, list[int]] = {}
    for row, cell in enumerate(table.columns[name]):
        if cell.lower() not in split_of:
            raise DataError(
                f"Expected train, validation or test as the {name} of {table.row(row)}, but got {shown(cell)}."
            )
        rows.setdefault(split_of[cell.lower()], []).append(row)
    if missing := [split for split in needed if split not in rows]:
        raise DataError(
            f"Expected rows of the split {missing[0]} in {table.path}, but its {name} has {', '.join(rows)} alone."
        )
    return rows


def _check_disjoint(rows: Rows, by_split: RowsBySplit) -> None:
    """Raise DataError for an image in two splits: a test on training images says nothing."""
    split_of: dict[str, str] = {}
    for split, indices in by_split.items():
        for index in indices:
            file = rows.files[index]
            first = split_of.setdefault(os.path.normpath(file), split)
            if first != split:
                where = rows.table.row(index)
                raise DataError(f"{file} is in the split {first} and, in {where}, in {split}: keep one.")


def _deduplicated(rows: Rows, by_split: RowsBySplit) -> tuple[RowsBySplit, tuple[str, ...]]:
    """Keep each image once: a row and its copy could end up in both training and test splits.

    Raises DataError for one image with different targets.
    """
    first: dict[str, int] = {}
    for index, file in enumerate(map(os.path.normpath, rows.files)):
        earlier = first.setdefault(file, index)
        if earlier != index and not torch.equal(rows.targets.values[earlier], rows.targets.values[index]):
            where, before = rows.table.row(index), rows.table.numbers[earlier]
            raise DataError(
                f"{rows.files[index]} has other targets in {where} than in row {before}: keep one row per image "
                f"(several labels go into one cell, cat{SEPARATOR}dog)."
            )
    kept = set(first.values())
    repeated = len(rows.files) - len(kept)
    notes = (f"{repeated:,} of {len(rows.files):,} rows repeat the image of another, and are left out",)
    unique = {split: [index for index in indices if index in kept] for split, indices in by_split.items()}
    return unique, notes[: bool(repeated)]
