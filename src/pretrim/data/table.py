"""A table of images: CSV or parquet with a column of files, columns of targets, and, if it has one, of parts.

What the targets are follows from the columns (`targets`). Every file is one image of one part: a row that repeats
another is left out, and rows that contradict each other are refused.
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
from .targets import BETWEEN, Table

FILES = ("image", "file", "filename", "file_name", "path", "img")
PART_COLUMNS = ("split", "part", "subset", "set")
PARTS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}
TABLES = ("labels.csv", "annotations.csv", "metadata.csv", "labels.tsv", "labels.parquet", "metadata.parquet")
"""Names by which a table is found in a folder"""
SEPARATORS = (",", "\t", ";")
DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")
SUFFIXES = (".csv", ".tsv", ".parquet")
DEFAULT_SIZE = 64
MOST_OF_A_PATH = 200
"""Characters in a message"""

Places = Mapping[str, Sequence[int]]
"""The rows of each part"""


class Rows(NamedTuple):
    """What the rows of a table are: files, and the targets of all of them."""

    table: Table
    files: Sequence[Path]
    targets: targets.Targets


def find(folder: Path) -> Path | None:
    """The table in a folder, if it has one."""
    return next((folder / name for name in TABLES if (folder / name).is_file()), None)


def read(path: Path, resize: Resize, channels: int | None, known: Known | None = None) -> Parts:
    """The images of a table, resized to 64x64 unless another size is asked for.

    Files are named from the table's own folder. Without `channels` the images are grey where every one is stored in
    grey.

    Raises DataError for missing columns, files or labels, for an empty part, and for unknown parts.

    Args:
        path: the CSV or parquet file.
        resize: the size that is wanted, and how it is reached.
        channels: 1, 3 or 4.
        known: of a network that is to be evaluated on the table, which then needs no training part, nor every class.
    """
    table = _table(path)
    files = _files(table)
    hidden = [name for names in (FILES, PART_COLUMNS) if (name := _column(table, names)) is not None]
    rows = Rows(table, files, targets.find(table, hidden, known))
    places = _places(table, len(files), needed=() if known is not None else ("train",))
    _check_apart(rows, places)
    kept, repeats = _once(rows, places)
    channels = channels or channels_of(files)
    splits = {part: _split(rows, found, path, resize.or_square(DEFAULT_SIZE), channels) for part, found in kept.items()}
    found = rows.targets
    return Parts(
        name=path.resolve().parent.name,
        source=f"images of {path}",
        classes=found.names,
        train=splits.get("train") or next(iter(splits.values())).none(),
        validation=splits.get("validation"),
        test=splits.get("test"),
        flip=found.task != "regression",
        task=found.task,
        notes=(*found.notes, *repeats),
    )


def _split(rows: Rows, places: Sequence[int], path: Path, resize: Resize, channels: int) -> Split:
    assert resize.size is not None
    images = Streamed([rows.files[row] for row in places], str(path), channels, *resize.size, fit=resize.fit)
    return Split(images, rows.targets.values[torch.tensor(places)])


def _table(path: Path) -> Table:
    table = _parquet(path) if path.suffix.lower() == ".parquet" else _csv(path)
    if not table.columns or not table.numbers:
        raise DataError(f"No rows in {path}: add an image a row, under a line of names.")
    return table


def _csv(path: Path) -> Table:
    (_, head), *rows = _lines(path) or [(0, [])]
    head = [name.strip() for name in head]
    if twice := [name for name in head if name and head.count(name) > 1]:
        raise DataError(f"Two columns of {path} are named {twice[0]!r}: give each a name of its own.")
    for number, row in rows:
        if len(row) != len(head):
            raise DataError(f"Expected {len(head)} cells in row {number} of {path}, but got {len(row)}.")
    columns = {name: [row[at].strip() for _, row in rows] for at, name in enumerate(head)}
    return Table(path, columns, [number for number, _ in rows])


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    """The rows of a CSV that are not empty, each with the number of the line it starts on.

    Cells are separated as the first line is: by commas, by tabs, or by semicolons, as spreadsheets do where numbers
    have a decimal comma; there 2,5 is read as 2.5.
    """
    found, start = [], 1
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            head = next((line for line in file if line.strip()), "")
            file.seek(0)
            separator = next((mark for mark in SEPARATORS if mark in head), SEPARATORS[0])
            reader = csv.reader(file, delimiter=separator)
            for row in reader:
                if any(cell.strip() for cell in row):
                    found.append((start, [_with_point(cell) for cell in row] if separator == ";" else row))
                start = reader.line_num + 1
    except UnicodeDecodeError as error:
        raise DataError(f"Cannot read {path} as a CSV in UTF-8 ({error}): save it as UTF-8.") from error
    except csv.Error as error:
        raise DataError(f"Cannot read {path} as a CSV in UTF-8 ({error}).") from error
    return found


def _with_point(cell: str) -> str:
    """A number with a decimal comma as one with a point; any other cell as it is."""
    return cell.replace(",", ".") if DECIMAL_COMMA.fullmatch(cell.strip()) else cell


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
    return "" if cell is None else str(cell)


def _files(table: Table) -> list[Path]:
    name = _column(table, FILES)
    if name is None:
        raise DataError(
            f"Expected a column {', '.join(FILES)} in {table.path}, but got {', '.join(table.columns)}: the first line "
            f"names the columns."
        )
    files = [_file(table.path.parent, cell) for cell in table.columns[name]]
    missing = [place for place, file in enumerate(files) if not os.path.isfile(file)]
    if missing:
        count = f" ({len(missing):,} of {len(files):,} are not)" if len(missing) > 1 else ""
        raise DataError(f"The image of {table.row(missing[0])} is not there: {_short(files[missing[0]])}{count}.")
    return files


def _short(file: Path) -> str:
    """A path in a message: cells that are none may be of any length."""
    text = str(file)
    return text if len(text) <= MOST_OF_A_PATH else f"{text[:MOST_OF_A_PATH]}..."


def _file(folder: Path, cell: str) -> Path:
    """A file by its cell, also as Windows writes it."""
    file = folder / cell
    return folder / cell.replace("\\", "/") if "\\" in cell and not os.path.isfile(file) else file


def _column(table: Table, names: Sequence[str]) -> str | None:
    lower = {name.lower(): name for name in table.columns}
    return next((lower[name] for name in names if name in lower), None)


def _places(table: Table, count: int, needed: Sequence[str]) -> dict[str, list[int]]:
    """The rows of each part; all are of the training part where no column says otherwise."""
    name = _column(table, PART_COLUMNS)
    if name is None:
        return {"train": list(range(count))}
    part_of = {word: part for part, words in PARTS.items() for word in words}
    found: dict[str, list[int]] = {}
    for place, word in enumerate(table.columns[name]):
        if word.lower() not in part_of:
            raise DataError(
                f"Expected train, validation or test as the {name} of {table.row(place)}, but got {shown(word)}."
            )
        found.setdefault(part_of[word.lower()], []).append(place)
    if missing := [part for part in needed if part not in found]:
        raise DataError(
            f"Expected rows of the part {missing[0]} in {table.path}, but its {name} has {', '.join(found)} alone."
        )
    return found


def _check_apart(rows: Rows, places: Places) -> None:
    """Raises DataError for an image in two parts: what was trained on says nothing in a test."""
    part_of: dict[str, str] = {}
    for part, found in places.items():
        for row in found:
            file = rows.files[row]
            first = part_of.setdefault(os.path.normpath(file), part)
            if first != part:
                where = rows.table.row(row)
                raise DataError(f"{file} is in the part {first} and, in {where}, in {part}: keep one.")


def _once(rows: Rows, places: Places) -> tuple[Places, tuple[str, ...]]:
    """Each image once: drawn apart, a row and its copy would be trained on and tested.

    Raises DataError for one image with different targets.
    """
    first: dict[str, int] = {}
    for row, file in enumerate(map(os.path.normpath, rows.files)):
        other = first.setdefault(file, row)
        if other != row and not torch.equal(rows.targets.values[other], rows.targets.values[row]):
            where, before = rows.table.row(row), rows.table.numbers[other]
            raise DataError(
                f"{rows.files[row]} has other targets in {where} than in row {before}: keep one row an image (several "
                f"labels of it go into one cell, cat{BETWEEN}dog)."
            )
    kept = set(first.values())
    repeated = len(rows.files) - len(kept)
    notes = (f"{repeated:,} of {len(rows.files):,} rows repeat the image of another, and are left out",)
    return {part: [row for row in found if row in kept] for part, found in places.items()}, notes[: bool(repeated)]
