"""Data sets with targets: tables of labels or values, segmentation masks, and folders of bounding boxes."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
import torch
from PIL import Image
from pyarrow import parquet
from torch import nn

import pretrim
from pretrim import data
from pretrim.errors import DataError, PretrimError, UsageError
from pretrim.jobs.data import open_data
from pretrim.jobs.options import DataOptions
from pretrim.jobs.reporter import Kept
from pretrim.jobs.run import Evaluated, Run


def write_images(folder: Path, count: int = 12, size: int = 8) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.new("L", (size, size), 20 * number).save(folder / f"{number}.png")
    return folder


def write_table(folder: Path, head: str, rows: Sequence[str], name: str = "labels.csv") -> Path:
    (folder / name).write_text("\n".join([head, *rows]) + "\n")
    return folder / name


def write_masks(folder: Path, count: int = 12, size: int = 8, values: Sequence[int] = (0, 1)) -> Path:
    """Images whose right half is bright, with masks that have the second value in that half."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        half = np.zeros((size, size), dtype=np.uint8)
        half[:, size // 2 :] = 1
        Image.fromarray(half * 200 + number).save(folder / "images" / f"{number}.png")
        Image.fromarray(np.where(half == 1, values[1], values[0]).astype(np.uint8)).save(
            folder / "masks" / f"{number}.png"
        )
    return folder


# -------------------------------------------------------------------------------- tables


def test_one_text_column_is_a_classification(tmp_path: Path) -> None:
    write_images(tmp_path)
    rows = [f"{n}.png,{'dark' if n < 6 else 'light'},{'test' if n % 3 == 0 else 'train'}" for n in range(12)]
    write_table(tmp_path, "file,label,split", rows)
    dataset = data.load(str(tmp_path), image_size=4)
    assert (dataset.task, dataset.classes) == ("classification", ("dark", "light"))
    assert len(dataset.test) == 4 and len(dataset.train) + len(dataset.validation) == 8
    means = dataset.test.images[:].float().mean(dim=(1, 2, 3)) / 20
    assert means.round().tolist() == [0, 3, 6, 9]
    assert dataset.test.labels.tolist() == [0, 0, 1, 1]


def test_numbers_in_a_column_of_labels_are_classes_in_their_order(tmp_path: Path) -> None:
    write_images(tmp_path)
    write_table(tmp_path, "file,label", [f"{n}.png,{(0, 2, 10)[n % 3]}" for n in range(12)])
    dataset = data.load(str(tmp_path / "labels.csv"), image_size=4)
    assert (dataset.task, dataset.classes) == ("classification", ("0", "2", "10"))


@pytest.mark.parametrize("form", ["columns", "cells"])
def test_several_labels_per_image_are_multilabel(tmp_path: Path, form: str) -> None:
    write_images(tmp_path)
    if form == "columns":
        write_table(tmp_path, "file,cat,dog", [f"{n}.png,{n % 2},{int(n < 6)}" for n in range(12)])
    else:
        words = [";".join([*(["cat"] if n % 2 else []), *(["dog"] if n < 6 else [])]) for n in range(12)]
        write_table(tmp_path, "file,labels", [f"{n}.png,{word}" for n, word in enumerate(words)])
    dataset = data.load(str(tmp_path), image_size=4)
    assert (dataset.task, dataset.classes) == ("multilabel", ("cat", "dog"))
    numbers = (dataset.train.images[:].float().mean(dim=(1, 2, 3)) / 20).round()
    assert torch.equal(dataset.train.targets[:], torch.stack([numbers % 2, (numbers < 6).float()], dim=1))


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_numbers_in_other_columns_are_regression_targets(tmp_path: Path, suffix: str) -> None:
    write_images(tmp_path)
    if suffix == "csv":
        write_table(tmp_path, "file,x,y", [f"{n}.png,{n / 10},{-n}" for n in range(12)])
    else:
        columns = {
            "file": [f"{n}.png" for n in range(12)],
            "x": [n / 10 for n in range(12)],
            "y": list(range(0, -12, -1)),
        }
        parquet.write_table(pyarrow.table(columns), tmp_path / "labels.parquet")
    dataset = data.load(str(tmp_path / f"labels.{suffix}"), image_size=4)
    assert (dataset.task, dataset.classes) == ("regression", ("x", "y"))
    numbers = (dataset.train.images[:].float().mean(dim=(1, 2, 3)) / 20).round()
    assert torch.allclose(dataset.train.targets[:], torch.stack([numbers / 10, -numbers], dim=1))


@pytest.mark.parametrize("kind", ["regression", "multilabel"])
def test_a_table_from_training_to_the_prediction_for_one_image(tmp_path: Path, kind: str) -> None:
    folder = write_images(tmp_path / "data", 24)
    if kind == "regression":
        write_table(folder, "file,brightness", [f"{n}.png,{n / 12}" for n in range(24)])
    else:
        write_table(folder, "file,dark,even", [f"{n}.png,{int(n < 12)},{int(n % 2 == 0)}" for n in range(24)])
    outputs = 1 if kind == "regression" else 2
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, outputs)
    )
    run = pretrim.compress(
        network, str(folder), output=tmp_path / "run", macs="0.6x", round_to=4, input="1x8x8", epochs=2, batch_size=8,
        lr=0.02, threads=1, train_on="cpu",
    )  # fmt: skip
    assert run.purpose.name == kind
    (answer,) = run.predict([folder / "3.png"])
    pixels = data.decode_image(folder / "3.png", (1, 8, 8))[None]
    assert run.record is not None and run.record.normalisation is not None
    with torch.no_grad():
        expected = run.model(data.normalise(pixels, *run.record.normalisation))[0]
    if kind == "regression":
        assert answer["predictions"] == [{"output": "brightness", "value": pytest.approx(float(expected[0]))}]
    else:
        probabilities = {entry["class"]: entry["probability"] for entry in answer["predictions"]}
        assert probabilities == pytest.approx(dict(zip(("dark", "even"), expected.sigmoid().tolist(), strict=True)))


@pytest.mark.parametrize(
    "text",
    [
        "file,label\n0.png,a\n\n\n@",
        "\nfile,label\n  \n@",
        "file,label\r\n,\r\n0.png,a\r\n@",
        '"file",label\n0.png,"two\nlines"\n\n@',
        '\ufefffile,label\n0.png,"a\n\n\nb"\n@',
    ],
)
@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("1.png,", "No label in row {} of"),
        ("99.png,b", "The image of row {} of .* is not there"),
        ("1.png", "Expected 2 cells in row {} of .*, but got 1"),
    ],
)  # fmt: skip
def test_messages_number_rows_by_their_line_in_the_file(tmp_path: Path, text: str, row: str, message: str) -> None:
    """Blank lines, lines of commas only and multi-line cells above the row are all counted."""
    path = write_images(tmp_path, 2) / "labels.csv"
    path.write_bytes(text.replace("@", f"{row}\n").encode())
    with path.open(encoding="utf-8-sig") as file:  # an editor's line numbers
        line = next(number for number, line in enumerate(file, start=1) if line.startswith(row))
    with pytest.raises(DataError, match=message.format(line)):
        data.load(str(path), image_size=4)


def test_a_row_of_a_parquet_file_counts_from_one(tmp_path: Path) -> None:
    write_images(tmp_path, 2)
    parquet.write_table(pyarrow.table({"file": ["0.png", "1.png"], "label": ["a", ""]}), tmp_path / "labels.parquet")
    with pytest.raises(DataError, match=r"No label in row 2 of .*labels\.parquet"):
        data.load(str(tmp_path), image_size=4)


def test_duplicate_column_names_are_refused(tmp_path: Path) -> None:
    write_table(write_images(tmp_path, 2), "file,label,label", ["0.png,a,b", "1.png,b,a"])
    with pytest.raises(DataError, match=r"Two columns of .*labels\.csv are named 'label'"):
        data.load(str(tmp_path), image_size=4)


@pytest.mark.parametrize(
    ("head", "rows", "message"),
    [
        ("file,label", ["0.png,a", "1.png,"], r"No label in row 3 of .*labels.csv"),
        ("file,label", ["0.png,a", "99.png,b"], r"The image of row 3 of .* is not there: .*99.png"),
        ("file,label", ["0.png,a", "1.png,b,c"], r"Expected 2 cells in row 3 of .*labels.csv, but got 3"),
        ("file,label", [], r"No rows in .*labels.csv"),
        ("name,label", ["0.png,a"], "Expected a column image, file, .* but got name, label"),
        ("file", ["0.png"], "No column of labels in "),
        ("file,label", ["0.png,a", "1.png,a"], "Expected at least 2 classes in .* but got one"),
        (
            "file,xmin,ymin,label",
            ["0.png,1,2,cat", "1.png,1,2,dog"],
            r"Expected one column of names, or columns of numbers alone, in .*, but label has names \('cat'\), and x",
        ),
        ("file,x,y", ["0.png,1,2", "1.png,1,wide"], "Expected a number as the y of row 3 of .* but got 'wide'"),
        (
            "file,label,split",
            ["0.png,a,train", "1.png,b,later"],
            "Expected train, validation or test .* but got 'later'",
        ),
        (
            "file,label,split",
            ["0.png,a,train", "1.png,b,train", "1.png,b,test"],
            r"1.png is in the split train and, in row 4 of .*labels.csv, in test: keep one\.",
        ),
        ("file,label,split", ["0.png,a,test", "1.png,b,test"], "Expected rows of the split train in .* has test alone"),
    ],
)
def test_faulty_tables_are_refused(tmp_path: Path, head: str, rows: list[str], message: str) -> None:
    write_table(write_images(tmp_path / "data", 3), head, rows)
    with pytest.raises(DataError, match=message) as raised:
        pretrim.compress("resnet20", str(tmp_path / "data"), output=tmp_path / "run", macs="0.5x")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "run").exists()


def load_with_notes(path: Path, **options: Any) -> tuple[data.DataSet, list[str]]:
    """Load a data set with small images; returns it and the notes that were announced."""
    notes: list[str] = []
    return data.load(str(path), **{"image_size": 4, "announce": notes.append, **options}), notes


@pytest.mark.parametrize("name", ["", "Unnamed: 0", "__index_level_0__"])
@pytest.mark.parametrize(
    ("values", "expected"),
    [(["0", "1"], ("classification", ("0", "1"))), (["cat", "dog"], ("classification", ("cat", "dog")))],
)
def test_row_numbers_of_pandas_are_not_a_target(
    tmp_path: Path, name: str, values: list[str], expected: tuple[str, tuple[str, ...]]
) -> None:
    write_table(write_images(tmp_path), f"{name},file,label", [f"{n},{n}.png,{values[n % 2]}" for n in range(12)])
    dataset, notes = load_with_notes(tmp_path)
    assert (dataset.task, dataset.classes) == expected
    which = repr(name) if name else "without a name"
    assert notes == [
        f"note: the column {which} is not read: pandas writes row numbers there, to_csv(index=False) does not"
    ]


def test_row_numbers_alone_are_not_a_target(tmp_path: Path) -> None:
    write_table(write_images(tmp_path), ",file", [f"{n},{n}.png" for n in range(12)])
    with pytest.raises(DataError, match="No column of labels in"):
        load_with_notes(tmp_path)


@pytest.mark.parametrize("start", [0, 1])
def test_a_column_that_counts_rows_is_ignored_beside_other_columns(tmp_path: Path, start: int) -> None:
    write_table(write_images(tmp_path), "id,file,value", [f"{n + start},{n}.png,{n / 7}" for n in range(12)])
    dataset, notes = load_with_notes(tmp_path)
    assert (dataset.task, dataset.classes) == ("regression", ("value",))
    assert notes == ["note: the column 'id' counts the rows, and is not read as a target"]
    write_table(tmp_path, "file,value", [f"{n}.png,{n}" for n in range(12)])
    assert load_with_notes(tmp_path)[0].classes == ("value",)


@pytest.mark.parametrize(
    ("head", "cells", "message"),
    [
        ("value", {5: "nan"}, r"Expected a number as the value of row 7 of .*labels\.csv, but got 'nan': correct it"),
        ("value", {5: "n/a", 6: "-"}, r"a number as the value of row 7 of .*, but got 'n/a' \(2 of 12 rows\): correct"),
        ("target", {5: "nan"}, "Expected a number as the target of row 7 of .*, but got 'nan': correct it"),
        ("value", {5: "0,5"}, "a decimal point in the numbers of value, but got '0,5' in row 7 of .*: write 0.5"),
        (
            "label",
            {n: f"{n},25" for n in range(12)},
            r"a decimal point in the numbers of label, but got '0,25' in row 2 of .* \(12 of 12 rows\): write 0\.25",
        ),
    ],
)
def test_a_faulty_number_does_not_turn_values_into_classes(
    tmp_path: Path, head: str, cells: dict[int, str], message: str
) -> None:
    write_table(write_images(tmp_path), f"file,{head}", [f'{n}.png,"{cells.get(n, n / 7)}"' for n in range(12)])
    with pytest.raises(DataError, match=message):
        load_with_notes(tmp_path)


@pytest.mark.parametrize("missing", ["nan", "NaN", "<NA>"])
def test_a_missing_label_is_not_a_class(tmp_path: Path, missing: str) -> None:
    cells = [missing if n in (5, 7, 8) else "cat" if n % 2 else "none" for n in range(12)]
    write_table(write_images(tmp_path), "file,label", [f"{n}.png,{cell}" for n, cell in enumerate(cells)])
    with pytest.raises(
        DataError, match=rf"No label in row 7 of .*labels\.csv \('{missing}', 3 rows lack one\): add it"
    ):
        load_with_notes(tmp_path)
    cells = [
        "cat" if n % 2 else "none" for n in range(12)
    ]  # "none" is a legitimate class, such as parts without a defect
    write_table(tmp_path, "file,label", [f"{n}.png,{cell}" for n, cell in enumerate(cells)])
    assert load_with_notes(tmp_path)[0].classes == ("cat", "none")


@pytest.mark.parametrize(
    ("name", "cells", "expected"),
    [
        ("label", ["0.0", "1.0", "2.0"], ("classification", ("0", "1", "2"))),
        ("class", ["1", "2.0"], ("classification", ("1", "2"))),
        ("label", ["007", "8"], ("classification", ("007", "8"))),
        ("label", ["0.0", "0.5"], ("regression", ("label",))),
        ("target", ["0.0", "1.0"], ("regression", ("target",))),
        ("label", ["True", "False"], ("classification", ("False", "True"))),
        ("red", ["True", "False"], ("classification", ("False", "True"))),
        ("grade", ["1", "2", "a", "b"], ("classification", ("1", "2", "a", "b"))),
    ],
)
def test_the_task_of_a_single_column(
    tmp_path: Path, name: str, cells: list[str], expected: tuple[str, tuple[str, ...]]
) -> None:
    write_table(write_images(tmp_path), f"file,{name}", [f"{n}.png,{cells[n % len(cells)]}" for n in range(12)])
    dataset = load_with_notes(tmp_path)[0]
    assert (dataset.task, dataset.classes) == expected


@pytest.mark.parametrize("words", [("False", "True"), ("false", "TRUE"), ("0.0", "1.0"), (False, True)])
def test_boolean_columns_are_labels(tmp_path: Path, words: tuple[Any, Any]) -> None:
    write_images(tmp_path)
    columns = {"cat": [words[n % 2] for n in range(12)], "dog": [words[int(n < 6)] for n in range(12)]}
    if isinstance(words[0], bool):
        parquet.write_table(
            pyarrow.table({"file": [f"{n}.png" for n in range(12)], **columns}), tmp_path / "labels.parquet"
        )
    else:
        write_table(tmp_path, "file,cat,dog", [f"{n}.png,{columns['cat'][n]},{columns['dog'][n]}" for n in range(12)])
    dataset = load_with_notes(tmp_path)[0]
    assert (dataset.task, dataset.classes) == ("multilabel", ("cat", "dog"))
    numbers = (dataset.train.images[:].float().mean(dim=(1, 2, 3)) / 20).round()
    assert torch.equal(dataset.train.targets[:], torch.stack([numbers % 2, (numbers < 6).float()], dim=1))


def test_a_note_says_that_few_whole_numbers_may_be_classes(tmp_path: Path) -> None:
    write_table(write_images(tmp_path), "file,defect", [f"{n}.png,{n % 2}" for n in range(12)])
    dataset, notes = load_with_notes(tmp_path)
    assert dataset.task == "regression"
    assert notes == [
        "note: defect has 2 whole numbers (0, 1) and is regressed: call the column label if they are classes"
    ]


def test_a_label_column_beside_numbers_is_refused(tmp_path: Path) -> None:
    write_table(write_images(tmp_path), "file,label,width", [f"{n}.png,{n % 3},24" for n in range(12)])
    with pytest.raises(DataError, match=r"but label has classes \('0'\), and width is there too: leave out"):
        load_with_notes(tmp_path)


@pytest.mark.parametrize("name", ["labels.csv", "labels.tsv", "LABELS.CSV"])
def test_cells_may_be_separated_by_tabs(tmp_path: Path, name: str) -> None:
    rows = [f"{n}.png\t{'a, b' if n % 2 else 'c'}" for n in range(12)]
    path = write_table(write_images(tmp_path), "file\tlabel", rows, name)
    assert load_with_notes(path)[0].classes == ("a, b", "c")


def test_cells_may_be_separated_by_semicolons_and_their_numbers_have_decimal_commas(tmp_path: Path) -> None:
    """The CSV format of spreadsheets in locales with a decimal comma."""
    write_table(
        write_images(tmp_path), "file;grams;note", [f"{n}.png;{n},5;{'12' if n else '-0,25'}" for n in range(12)]
    )
    dataset = data.load(str(tmp_path))
    assert (dataset.task, dataset.classes) == ("regression", ("grams", "note"))
    values = torch.cat([part.targets[:] for part in (dataset.train, dataset.validation, dataset.test)])
    assert sorted(values.tolist()) == [[0.5, -0.25], *([n + 0.5, 12.0] for n in range(1, 12))]


def test_several_labels_in_a_cell_of_a_semicolon_table(tmp_path: Path) -> None:
    rows = [f'{n}.png;"{"cat;dog" if n % 2 else "cat"}"' for n in range(12)]
    write_table(write_images(tmp_path), "file;label", rows)
    assert (data.load(str(tmp_path)).task, data.load(str(tmp_path)).classes) == ("multilabel", ("cat", "dog"))


def test_windows_paths(tmp_path: Path) -> None:
    write_images(tmp_path / "all" / "img")
    write_table(tmp_path, "file,label", [f"all\\img\\{n}.png,{n % 2}" for n in range(12)])
    assert load_with_notes(tmp_path)[0].classes == ("0", "1")


def test_missing_images_are_counted(tmp_path: Path) -> None:
    write_table(write_images(tmp_path, 10), "file,label", [f"{n}.png,{n % 2}" for n in range(12)])
    with pytest.raises(DataError, match=r"The image of row 12 of .* is not there: .*10\.png \(2 of 12 are not\)"):
        load_with_notes(tmp_path)


def test_a_table_in_another_encoding_is_refused_with_a_hint(tmp_path: Path) -> None:
    (write_images(tmp_path) / "labels.csv").write_bytes("file,label\n0.png,Kätzchen\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"as a CSV in UTF-8 .*: save it as UTF-8"):
        load_with_notes(tmp_path)


def test_repeated_rows_of_an_image_are_left_out(tmp_path: Path) -> None:
    """If its rows were split independently, the same image could be in both the training and the test split."""
    rows = [f"{'./' * (n >= 12)}{n % 12}.png,{n % 2}" for n in range(24)]
    write_table(write_images(tmp_path), "file,label", rows)
    dataset, notes = load_with_notes(tmp_path)
    means = [part.images[:].float().mean(dim=(1, 2, 3)) for part in (dataset.train, dataset.validation, dataset.test)]
    assert sorted((torch.cat(means) / 20).round().tolist()) == list(range(12))
    assert notes == ["note: 12 of 24 rows repeat the image of another, and are left out"]


@pytest.mark.parametrize(("head", "rows"), [("label", "ab"), ("x,y", ["1,2", "1,3"])])
def test_one_image_with_two_targets_is_refused(tmp_path: Path, head: str, rows: Sequence[str]) -> None:
    cells = [f"{n}.png,{rows[n % 2]}" for n in range(12)]
    write_table(write_images(tmp_path), f"file,{head}", [*cells, f"0.png,{rows[1]}"])
    with pytest.raises(
        DataError, match=r"0\.png has other targets in row 14 of .* than in row 2: keep one row per image"
    ):
        load_with_notes(tmp_path)


def test_one_image_in_two_parts_is_refused_whichever_way_its_path_is_written(tmp_path: Path) -> None:
    rows = [f"{n}.png,{n % 2},train" for n in range(12)]
    write_table(write_images(tmp_path), "file,label,split", [*rows, "./3.png,1,test"])
    with pytest.raises(DataError, match=r"3\.png is in the split train and, in row 14 of .*, in test: keep one"):
        load_with_notes(tmp_path)


@pytest.mark.parametrize("stored", ["struct", "bytes"])
@pytest.mark.parametrize("name", ["labels.parquet", "data.parquet"])
def test_a_parquet_file_that_contains_its_images(tmp_path: Path, name: str, stored: str) -> None:
    write_images(tmp_path / "from")
    content = [(tmp_path / "from" / f"{n}.png").read_bytes() for n in range(12)]
    images = content if stored == "bytes" else [{"bytes": image, "path": None} for image in content]
    parquet.write_table(pyarrow.table({"image": images, "label": [n % 2 for n in range(12)]}), tmp_path / name)
    dataset = load_with_notes(tmp_path / name)[0]
    assert (dataset.task, dataset.classes) == ("classification", ("0", "1"))
    numbers = (dataset.train.images[:].float().mean(dim=(1, 2, 3)) / 20).round()
    assert torch.equal(dataset.train.labels, (numbers % 2).long())


def test_a_long_cell_that_is_not_a_path_is_shortened(tmp_path: Path) -> None:
    write_table(tmp_path, "file,label", [f"{'x' * 5000},a", f"{'y' * 5000},b"])
    with pytest.raises(
        DataError, match=r"The image of row 2 of .* is not there: .*x\.\.\. \(2 of 2 are not\)"
    ) as raised:
        load_with_notes(tmp_path)
    assert len(str(raised.value)) < 600


def test_a_table_with_too_few_images_gets_a_hint_about_its_split_column(tmp_path: Path) -> None:
    write_table(write_images(tmp_path), "file,label", [f"{n}.png,{'a' if n else 'b'}" for n in range(12)])
    with pytest.raises(DataError, match=r"'b' has 1: add some, or provide splits .* a column split of a table"):
        load_with_notes(tmp_path)


# -------------------------------------------------------------------------------- masks


@pytest.mark.parametrize("values", [(0, 1), (0, 255)])
def test_images_and_masks_are_a_segmentation(tmp_path: Path, values: tuple[int, int]) -> None:
    """The two folders are not read as classes named images and masks. Mask values 0 and 255 are two classes."""
    dataset = data.load(str(write_masks(tmp_path, values=values)), image_size=8)
    assert (dataset.task, dataset.classes, dataset.train.targets.shape[1:]) == ("segmentation", ("0", "1"), (8, 8))
    assert torch.equal(dataset.train.targets[:] == 1, dataset.train.images[:][:, 0] >= 200)


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_masks_get_the_shape_of_their_images(tmp_path: Path, fit: Any) -> None:
    dataset = data.load(str(write_masks(tmp_path, size=16)), image_size=(8, 12), fit=fit)
    images, targets = dataset.train.images[:][:, 0], dataset.train.targets[:]
    sure = (images >= 200) | (images < 40)  # bilinear resizing blurs the edge
    inside = targets != 255
    assert torch.equal((targets == 1)[sure & inside], (images >= 200)[sure & inside])
    assert bool(inside.all()) == (fit != "pad")


def test_parts_and_names_of_masks(tmp_path: Path) -> None:
    for part, count in (("train", 8), ("val", 3), ("test", 4)):
        write_masks(tmp_path / part, count)
    (tmp_path / "classes.txt").write_text("sky\nroad\n")
    dataset = data.load(str(tmp_path), image_size=8)
    assert dataset.classes == ("sky", "road")
    assert [len(part) for part in (dataset.train, dataset.validation, dataset.test)] == [8, 3, 4]


def test_a_folder_of_masks_through_the_whole_job(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(),
        nn.Conv2d(16, 2, 1),
    )  # fmt: skip
    run = pretrim.compress(
        network, str(write_masks(tmp_path / "data", 24)), output=tmp_path / "run", macs="0.6x", round_to=4,
        input="1x8x8", epochs=4, batch_size=8, lr=0.05, threads=1, train_on="cpu",
    )  # fmt: skip
    assert run.metric.name == "mean_iou"
    assert run.score is not None and run.score > 0.5
    assert run.evaluate(str(tmp_path / "data")).score == pytest.approx(run.score)


def remove(file: str) -> Any:
    return lambda folder: (folder / file).unlink()


def save_colour_mask(folder: Path) -> None:
    Image.new("RGB", (8, 8)).save(folder / "masks" / "0.png")


def save_black_masks(folder: Path) -> None:
    for file in (folder / "masks").iterdir():
        Image.new("L", (8, 8)).save(file)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove("masks/3.png"), r"No mask for .*images/3.png: there is none of that name"),
        (remove("images/3.png"), r"No image for .*masks/3.png: there is none of that name"),
        (save_colour_mask, r"Expected a mask with one class per pixel .* but it is RGB: store class numbers"),
        (save_black_masks, "Expected masks of at least 2 classes in .* but every known pixel is of class 0"),
        (
            lambda folder: (folder / "classes.txt").write_text("sky\n"),
            "Expected 2 names in .*classes.txt, .* but got 1",
        ),
        (
            lambda folder: shutil.rmtree(folder / "images"),
            r"Expected a folder images beside .*/masks, with an image of the same name for each mask",
        ),
        (
            lambda folder: (folder / "masks" / "0.png").write_text("x"),
            "Cannot read the mask .*0.png",
        ),
    ],
)
def test_faulty_masks_are_refused(tmp_path: Path, damage: Any, message: str) -> None:
    damage(write_masks(tmp_path, 6))
    with pytest.raises(DataError, match=message) as raised:
        data.load(str(tmp_path), image_size=8)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("values", "names", "classes", "message"),
    [
        ((0, 1), "", ("0", "1"), "masks have the values 0, 1: 2 classes"),
        ((0, 255), "", ("0", "1"), "masks have the values 0 and 255, which are the classes 0 and 1"),
        ((1, 2), "", ("0", "1", "2"), "masks have the values 1, 2: 3 classes, of which no mask has 0"),
        (
            (1, 255),
            "",
            ("0", "1"),
            "masks have the values 1, 255: 2 classes, of which no mask has 0; 255 counts nowhere",
        ),
        ((0, 5), "a\nb\nc\nd\ne\nf\n", tuple("abcdef"), "values 0, 5: 6 classes, of which no mask has 1 to 4"),
        ((0, 1), "\ufeffsky\nroad\n", ("sky", "road"), "masks have the values 0, 1: 2 classes"),
    ],
)
def test_a_note_says_how_mask_values_become_classes(
    tmp_path: Path, values: tuple[int, int], names: str, classes: tuple[str, ...], message: str
) -> None:
    write_masks(tmp_path, values=values)
    if names:
        (tmp_path / "classes.txt").write_text(names, encoding="utf-8")
    dataset, notes = load_with_notes(tmp_path, image_size=8)
    assert dataset.classes == classes
    assert len(notes) == 1 and notes[0].startswith("note: ") and notes[0].endswith(message)


def test_padding_around_binary_masks_is_ignored(tmp_path: Path) -> None:
    dataset = data.load(str(write_masks(tmp_path, size=16, values=(0, 255))), image_size=(8, 16), fit="pad")
    assert dataset.train.targets[:].unique().tolist() == [0, 1, 255]
    assert bool((dataset.train.targets[:, :, :4] == 255).all())


def save_grey_masks(folder: Path) -> None:
    for number, file in enumerate(sorted((folder / "masks").iterdir())):
        Image.new("L", (8, 8), (0, 128, 200)[number % 3]).save(file)


def save_masks_as_jpeg(folder: Path) -> None:
    for file in (folder / "masks").iterdir():
        Image.open(file).save(file.with_suffix(".jpg"))
        file.unlink()


def save_mask_of_another_shape(folder: Path) -> None:
    Image.new("L", (16, 4)).save(folder / "masks" / "3.png")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            save_grey_masks,
            r"classes 0, 1, 2, \.\.\. in .*, but their values are 0, 128, 200: re-number them 0 to 2, or",
        ),
        (save_masks_as_jpeg, r"Expected a mask .* but .*masks/0\.jpg is a JPEG, whose compression changes .* as PNG"),
        (
            save_mask_of_another_shape,
            r"but .*masks/3\.png has 16 x 4 pixels and .*images/3\.png has 8 x 8: give each image a mask of its own",
        ),
        (
            lambda folder: shutil.copy(folder / "images" / "3.png", folder / "images" / "3.bmp"),
            r"images/3\.bmp and .*images/3\.png have one name, .*: keep one",
        ),
        (
            lambda folder: shutil.copy(folder / "masks" / "3.png", folder / "masks" / "3.tif"),
            r"masks/3\.png and .*masks/3\.tif have one name, .*: keep one",
        ),
    ],
)
def test_masks_that_could_be_misread_are_refused(tmp_path: Path, damage: Any, message: str) -> None:
    damage(write_masks(tmp_path, 6))
    with pytest.raises(DataError, match=message) as raised:
        data.load(str(tmp_path), image_size=8)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("size", [(4, 4), (16, 16), (8, 9)])
def test_a_mask_may_have_another_resolution_than_its_image(tmp_path: Path, size: tuple[int, int]) -> None:
    """Its aspect ratio must match that of its image to within a pixel."""
    write_masks(tmp_path, 6)
    for file in (tmp_path / "masks").iterdir():
        Image.open(file).resize(size, Image.Resampling.NEAREST).save(file)
    dataset = data.load(str(tmp_path), image_size=8)
    assert torch.equal(dataset.train.targets[:] == 1, dataset.train.images[:][:, 0] >= 200)


# -------------------------------------------------------------------------------- skipped files, missing classes


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"a/x.HEIC": "", "a/more/y.heic": ""},
            "2 .heic files are not read (such as @/a/more/y.heic): save pictures as .jpg",
        ),
        ({"b/notes.txt": "", "b/Thumbs.db": "", "b/.hidden": ""}, "1 .txt file is not read (such as @/b/notes.txt)"),
        ({"b/LIESMICH": ""}, "1 file without a suffix is not read (such as @/b/LIESMICH)"),
        ({"b/link.png": "->nowhere.png"}, "1 link to nothing is not read (such as @/b/link.png)"),
        ({"b/more": "->../a"}, "1 link to a folder is not read (such as @/b/more)"),
    ],
)
def test_skipped_files_are_counted(tmp_path: Path, files: dict[str, str], message: str) -> None:
    for name in "ab":
        write_images(tmp_path / name)
    for file, content in files.items():
        (tmp_path / file).parent.mkdir(exist_ok=True)
        if content.startswith("->"):
            (tmp_path / file).symlink_to(content.removeprefix("->"))
        else:
            (tmp_path / file).write_text(content)
    dataset, notes = load_with_notes(tmp_path)
    assert [note.startswith(f"note: {message.replace('@', str(tmp_path))}") for note in notes] == [True]
    assert len(dataset.train) + len(dataset.validation) + len(dataset.test) == 24


def test_skipped_files_beside_masks_are_counted(tmp_path: Path) -> None:
    (write_masks(tmp_path) / "masks" / "0.xcf").write_text("")
    assert load_with_notes(tmp_path)[1][1].startswith("note: 1 .xcf file is not read (such as ")


def test_a_note_names_a_class_without_images(tmp_path: Path) -> None:
    for name in "ab":
        write_images(tmp_path / name)
    for name in ("c", ".cache", "__MACOSX"):
        (tmp_path / name).mkdir()
    dataset, notes = load_with_notes(tmp_path)
    assert (dataset.classes, notes) == (("a", "b"), ["note: c has no images"])


@pytest.mark.parametrize("is_there", [False, True])
def test_a_note_says_that_a_part_lacks_a_class(tmp_path: Path, is_there: bool) -> None:
    for part, classes in (("train", "abc"), ("test", "ab")):
        for name in classes:
            write_images(tmp_path / part / name)
    if is_there:
        (tmp_path / "test" / "c").mkdir()
    dataset, notes = load_with_notes(tmp_path)
    assert dataset.classes == ("a", "b", "c") and sorted(set(dataset.test.labels.tolist())) == [0, 1]
    assert notes == ["note: the test split has no image of the class c"]


def test_a_part_of_a_table_may_lack_a_class(tmp_path: Path) -> None:
    rows = [f"{n}.png,{'abc'[n % 3 if n < 9 else 0]},{'train' if n < 9 else 'test'}" for n in range(12)]
    write_table(write_images(tmp_path), "file,label,split", rows)
    assert "note: the test split has no image of the class b, c" in load_with_notes(tmp_path)[1]


@pytest.mark.parametrize("inner", ["photos", "photos 2024"])
def test_class_folders_one_level_deeper_are_suggested(tmp_path: Path, inner: str) -> None:
    for name in "ab":
        write_images(tmp_path / inner / name)
    with pytest.raises(DataError, match=rf"got one \({inner}\): did you mean {tmp_path / inner}\?"):
        load_with_notes(tmp_path)


# -------------------------------------------------------------------------------- rare labels


def test_a_rare_label_is_in_every_part(tmp_path: Path) -> None:
    rows = [f"{n}.png,{int(n % 2)},{int(n in (3, 14, 25))}" for n in range(40)]
    write_table(write_images(tmp_path, 40), "file,cat,rare", rows)
    for seed in range(4):
        dataset, notes = load_with_notes(tmp_path, seed=seed)
        parts = (dataset.train, dataset.validation, dataset.test)
        assert [int(part.targets[:, 1].sum()) for part in parts] == [1, 1, 1] and not notes
        assert sum(map(len, parts)) == 40


def test_a_label_with_too_few_images_stays_in_training(tmp_path: Path) -> None:
    write_table(write_images(tmp_path, 40), "file,cat,rare", [f"{n}.png,{int(n % 2)},{int(n == 3)}" for n in range(40)])
    for seed in range(4):
        assert load_with_notes(tmp_path, seed=seed)[1] == [
            "note: the validation split has no image with the label rare",
            "note: the test split has no image with the label rare",
        ]


def test_a_part_without_any_label_is_refused(tmp_path: Path) -> None:
    rows = [f"{n}.png,{int(n < 9 and n % 2)},{int(n < 6)},{'train' if n < 9 else 'test'}" for n in range(12)]
    write_table(write_images(tmp_path), "file,cat,dog,split", rows)
    with pytest.raises(DataError, match=r"No image of the test split of .* has a label, so that no score can be given"):
        load_with_notes(tmp_path)


def test_training_when_the_first_images_have_no_label(tmp_path: Path) -> None:
    """The task is tried out on the first training images before training starts."""
    rows = [f"{n}.png,{int(n >= 12)},{int(n >= 16)},{('train', 'val', 'test')[n % 3]}" for n in range(24)]
    write_table(write_images(tmp_path / "data", 24), "file,cat,dog,split", rows)
    network = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 2)
    )
    run = pretrim.compress(
        network, str(tmp_path / "data"), output=tmp_path / "run", macs="0.6x", round_to=4, input="1x8x8", epochs=1,
        batch_size=8, threads=1, train_on="cpu",
    )  # fmt: skip
    assert run.metric.name == "mean_ap" and run.score is not None


# -------------------------------------------------------------------------------- the printed summary of the data


@pytest.mark.parametrize(
    ("head", "row", "summary"),
    [
        ("label", lambda n: "abcdefg"[n % 2], "classification, 2 classes: a, b"),
        ("label", lambda n: "abcdefg"[n % 7], "classification, 7 classes: a, b, c, d, e, ..."),
        ("cat,dog", lambda n: f"{n % 2},{n % 3 // 2}", "multilabel, 2 labels: cat, dog"),
        ("weight", lambda n: f"{n / 7}", "regression, 1 target: weight"),
    ],
)
def test_the_summary_names_the_task_of_a_table(
    tmp_path: Path, head: str, row: Callable[[int], str], summary: str
) -> None:
    write_table(write_images(tmp_path, 28), f"file,{head}", [f"{n}.png,{row(n)}" for n in range(28)])
    reporter = Kept()
    open_data(str(tmp_path), DataOptions(), reporter=reporter)
    assert reporter.lines[-1].startswith(f"data: images of {tmp_path}/labels.csv: {summary} (test: ")


def test_the_summary_names_the_classes_of_masks(tmp_path: Path) -> None:
    reporter = Kept()
    open_data(str(write_masks(tmp_path, values=(0, 2))), DataOptions(), reporter=reporter)
    assert reporter.lines[-1].startswith(
        f"data: images and masks in {tmp_path}: segmentation, 3 classes: 0, 1, 2 (test: "
    )


# -------------------------------------------------------------------------------- evaluating a run on other data


def train(folder: Path, outputs: int = 3, **options: Any) -> Run:
    """Train a small network for one epoch on 8x8 greyscale images."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, outputs)
    )
    return pretrim.compress(
        network, str(folder), output=folder.parent / "run", macs="0.6x", round_to=4, input="1x8x8", epochs=1,
        batch_size=8, threads=1, train_on="cpu", **options,
    )  # fmt: skip


def write_classes(folder: Path, names: str = "abc", count: int = 12, bright: int = 60) -> Path:
    for number, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for image in range(count):
            Image.new("L", (8, 8), bright * number + image).save(folder / name / f"{image}.png")
    return folder


@pytest.fixture(scope="module")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run trained on three classes of 12 images each; the test split has one image of each class."""
    return train(write_classes(tmp_path_factory.mktemp("own") / "data"))


def evaluate(run: Run, path: Path) -> tuple[Evaluated, list[str]]:
    """Evaluate the run on the data at a path; returns the result and the lines that were reported."""
    reporter = Kept()
    return run.evaluate(str(path), reporter), reporter.lines


def test_the_training_data_are_evaluated_on_their_test_split(trained_run: Run, tmp_path: Path) -> None:
    """This holds for the original folder and for copies of it elsewhere, under the same name or another."""
    original = trained_run.path.parent / "data"
    for path in (
        original,
        Path(shutil.copytree(original, tmp_path / "data")),
        Path(shutil.copytree(original, tmp_path / "moved")),
    ):
        result, lines = evaluate(trained_run, path)
        assert (result.images, result.score) == (3, trained_run.score)
        assert lines == [f"data: images in {path}: classification, 3 classes: a, b, c ({result.data['split_note']})"]
        assert result.data["split_note"].startswith("test: 3 of 36 images, seed 0")


def test_moved_training_data_are_recognised_despite_a_custom_mean(tmp_path: Path) -> None:
    data = write_classes(tmp_path / "data")
    run = train(data, mean="0.5", std="0.25", max_images=12)
    assert evaluate(run, Path(shutil.copytree(data, tmp_path / "there" / "data")))[0].images == 3
    assert evaluate(run, Path(shutil.copytree(data, tmp_path / "there" / "photos")))[0].images == 3


def test_a_note_says_that_the_training_data_have_grown(tmp_path: Path) -> None:
    run = train(write_classes(tmp_path / "data"))
    write_classes(tmp_path / "more", count=20)
    shutil.copytree(tmp_path / "more", tmp_path / "data", dirs_exist_ok=True)
    result, lines = evaluate(run, tmp_path / "data")
    assert result.images == 6
    assert lines[0] == (
        "note: data has more or fewer images than when the run was trained: some of the test images may have been "
        "trained on"
    )


def test_a_note_says_that_a_folder_is_a_part_of_the_training_data(tmp_path: Path) -> None:
    for part in ("train", "test"):
        write_classes(tmp_path / "data" / part)
    run = train(tmp_path / "data")
    assert evaluate(run, tmp_path / "data")[0].images == 36
    result, lines = evaluate(run, tmp_path / "data" / "train")
    assert result.images == 36
    assert lines[0].endswith(
        "train is part of the data that the run was trained on: its images may have been trained on"
    )


def test_training_data_that_have_shrunk_too_far_are_refused(tmp_path: Path) -> None:
    run = train(write_classes(tmp_path / "data"))
    for number in range(2, 12):
        (tmp_path / "data" / "b" / f"{number}.png").unlink()
    with pytest.raises(DataError, match="Expected at least 3 training images of each class in data, but 'b' has 2"):
        evaluate(run, tmp_path / "data")


@pytest.mark.parametrize(("names", "count"), [("abc", 12), ("abc", 13), ("abc", 2), ("b", 1), ("ca", 5)])
def test_all_images_of_new_data_are_evaluated(trained_run: Run, tmp_path: Path, names: str, count: int) -> None:
    """This includes as many images as the run was trained on, too few to split, and a single class."""
    result, lines = evaluate(trained_run, write_classes(tmp_path / "new", names, count, bright=50))
    assert result.images == len(names) * count
    assert {entry["name"]: entry["images"] for entry in result.details["classes"]} == {
        name: count * (name in names) for name in "abc"
    }
    end = f"classification, 3 classes: a, b, c (test: all {result.images} images)"
    assert lines[-1] == f"data: images in {tmp_path / 'new'}: {end}"
    missing = ", ".join(sorted(set("abc") - set(names)))
    assert lines[:-1] == [f"note: the test split has no image of the class {missing}"] * bool(missing)


def test_classes_of_new_data_are_matched_by_name(trained_run: Run, tmp_path: Path) -> None:
    """Classes are matched by name, not by position: with images of class c alone, accuracy is the share predicted c."""
    write_classes(tmp_path / "new", "c", 6)
    files = sorted((tmp_path / "new" / "c").iterdir())
    says = [answer["predictions"][0]["class"] for answer in trained_run.predict(files)]
    assert evaluate(trained_run, tmp_path / "new")[0].score == says.count("c") / 6


@pytest.mark.parametrize(
    ("parts", "images"), [(("test",), 3), (("train", "test"), 3), (("train", "val"), 6), (("val",), 3)]
)
def test_new_data_in_parts(trained_run: Run, tmp_path: Path, parts: tuple[str, ...], images: int) -> None:
    for part in parts:
        write_classes(tmp_path / "new" / part, count=1)
    result, lines = evaluate(trained_run, tmp_path / "new")
    assert result.images == images
    assert lines[-1].endswith("(test: the split of 3 images)" if "test" in parts else f"(test: all {images} images)")


def test_new_data_with_a_class_that_the_run_does_not_have(trained_run: Run, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"Expected the run's classes \(a, b, c\), but new has a, d: give data with the"
    ):
        evaluate(trained_run, write_classes(tmp_path / "new", "ad"))


def test_new_tables(trained_run: Run, tmp_path: Path) -> None:
    path = write_table(write_images(tmp_path, 4), "file,label,split", [f"{n}.png,{'ca'[n % 2]},test" for n in range(4)])
    result, lines = evaluate(trained_run, path)
    assert [entry["images"] for entry in result.details["classes"]] == [2, 0, 2]
    assert lines[-1].endswith("(test: the split of 4 images)")


def test_new_tables_of_labels_and_values(tmp_path: Path) -> None:
    """The task comes from the run: the columns of so small a table would not determine it."""
    training_data = write_images(tmp_path / "labels" / "data", 24)
    write_table(training_data, "file,labels", [f"{n}.png,{'cat' if n % 2 else 'dog;cat'}" for n in range(24)])
    new_table = write_table(
        write_images(tmp_path / "new"), "file,labels", [f"{n}.png,{'dog' if n % 2 else 'cat'}" for n in range(4)]
    )
    result, _ = evaluate(train(training_data, outputs=2), new_table)
    assert (result.metric.name, result.images) == ("mean_ap", 4)
    training_data = write_images(tmp_path / "values" / "data", 24)
    write_table(training_data, "file,x,y", [f"{n}.png,{n / 7},{-n / 5}" for n in range(24)])
    new_table = write_table(write_images(tmp_path / "new"), "y,note,file,x", [f"1,a,{n}.png,0" for n in range(4)])
    run = train(training_data, outputs=2)
    result, lines = evaluate(run, new_table)
    x, y = (
        torch.tensor(
            [
                answer["predictions"][place]["value"]
                for answer in run.predict([tmp_path / "new" / f"{n}.png" for n in range(4)])
            ]
        )
        for place in (0, 1)
    )
    assert result.score == pytest.approx(float(((x - 0).abs() + (y - 1).abs()).mean() / 2), rel=1e-4)
    assert lines[-1].endswith(": regression, 2 targets: x, y (test: all 4 images)")


def test_new_masks(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 3, 1))
    run = pretrim.compress(
        network, str(write_masks(tmp_path / "data", 24, values=(1, 2))), output=tmp_path / "run", macs="0.6x",
        round_to=4, input="1x8x8", epochs=1, batch_size=8, threads=1, train_on="cpu",
    )  # fmt: skip
    result, lines = evaluate(run, write_masks(tmp_path / "new", 5, values=(0, 0)))
    assert (result.images, result.metric.name) == (5, "mean_iou")
    assert lines[-1].endswith(": segmentation, 3 classes: 0, 1, 2 (test: all 5 images)")
    with pytest.raises(DataError, match=r"Expected the run's classes \(0, 1, 2\), but more has 0, 1, 2, 3: give data"):
        evaluate(run, write_masks(tmp_path / "more", 5, values=(2, 3)))


# -------------------------------------------------------------------------------- boxes


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("annotations/instances_train.json", "COCO"),
        ("train/_annotations.coco.json", "COCO"),
        ("data.yaml", "YOLO"),
        ("train/labels/0.txt", "YOLO"),
        ("train/images/0.txt", "YOLO"),
        ("Annotations/0.xml", "Pascal VOC"),
        ("train/images/0.xml", "Pascal VOC"),
        ("train/boxes.json", "COCO"),
    ],
)
def test_box_annotations_are_recognised_and_refused_with_a_hint(tmp_path: Path, file: str, name: str) -> None:
    write_images(tmp_path / "train" / "images")
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text('{"categories": []}' if file == "train/boxes.json" else "{}")
    beside = file.startswith(("train/images/", "train/boxes"))
    with pytest.raises(UsageError, match=f"holds boxes in the format of {name}, .* examples/detection"):
        data.load(str((tmp_path / file).parent if beside else tmp_path))


@pytest.mark.parametrize(("file", "text"), [("data.yaml", "names: [a, b]"), ("some.json", '{"a": [{"bbox": [1]}]}')])
def test_a_single_annotation_file_is_recognised(tmp_path: Path, file: str, text: str) -> None:
    (tmp_path / file).write_text(text)
    with pytest.raises(UsageError, match=f"{file} holds boxes in the format of"):
        data.load(str(tmp_path / file))
    with pytest.raises(UsageError, match=f"or a folder as data, but got '.*none-{file}'. Check the path"):
        data.load(str(tmp_path / f"none-{file}"))


def test_other_text_files_beside_classes_are_not_box_annotations(tmp_path: Path) -> None:
    for name in "ab":
        write_images(tmp_path / name, 6)
    (tmp_path / "README.txt").write_text("mine")
    (tmp_path / "meta.json").write_text("{}")
    assert data.load(str(tmp_path), image_size=4).classes == ("a", "b")


def test_a_task_that_does_not_match_the_data_is_refused(tmp_path: Path) -> None:
    write_masks(tmp_path / "data")
    with pytest.raises(PretrimError, match="data has targets of a segmentation, not of a regression"):
        pretrim.compress("resnet20", str(tmp_path / "data"), output=tmp_path / "run", macs="0.5x", task="regression")
    assert not (tmp_path / "run").exists()
