"""Data with targets of their own: tables, masks, and folders of boxes."""

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


def pictures(folder: Path, count: int = 12, size: int = 8) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.new("L", (size, size), 20 * number).save(folder / f"{number}.png")
    return folder


def table(folder: Path, head: str, rows: Sequence[str], name: str = "labels.csv") -> Path:
    (folder / name).write_text("\n".join([head, *rows]) + "\n")
    return folder / name


def masks(folder: Path, count: int = 12, size: int = 8, values: Sequence[int] = (0, 1)) -> Path:
    """The right half of each image is bright, and of the second value."""
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


# ---------------------------------------------------------------------------------------- tables


def test_one_column_of_names_is_a_classification(tmp_path: Path) -> None:
    pictures(tmp_path)
    rows = [f"{n}.png,{'dark' if n < 6 else 'light'},{'test' if n % 3 == 0 else 'train'}" for n in range(12)]
    table(tmp_path, "file,label,split", rows)
    found = data.load(str(tmp_path), image_size=4)
    assert (found.task, found.classes) == ("classification", ("dark", "light"))
    assert len(found.test) == 4 and len(found.train) + len(found.validation) == 8
    means = found.test.images[:].float().mean(dim=(1, 2, 3)) / 20
    assert means.round().tolist() == [0, 3, 6, 9]
    assert found.test.labels.tolist() == [0, 0, 1, 1]


def test_numbers_in_a_column_of_labels_are_classes_in_their_order(tmp_path: Path) -> None:
    pictures(tmp_path)
    table(tmp_path, "file,label", [f"{n}.png,{(0, 2, 10)[n % 3]}" for n in range(12)])
    found = data.load(str(tmp_path / "labels.csv"), image_size=4)
    assert (found.task, found.classes) == ("classification", ("0", "2", "10"))


@pytest.mark.parametrize("form", ["columns", "cells"])
def test_several_labels_an_image(tmp_path: Path, form: str) -> None:
    pictures(tmp_path)
    if form == "columns":
        table(tmp_path, "file,cat,dog", [f"{n}.png,{n % 2},{int(n < 6)}" for n in range(12)])
    else:
        words = [";".join([*(["cat"] if n % 2 else []), *(["dog"] if n < 6 else [])]) for n in range(12)]
        table(tmp_path, "file,labels", [f"{n}.png,{word}" for n, word in enumerate(words)])
    found = data.load(str(tmp_path), image_size=4)
    assert (found.task, found.classes) == ("multilabel", ("cat", "dog"))
    numbers = (found.train.images[:].float().mean(dim=(1, 2, 3)) / 20).round()
    assert torch.equal(found.train.targets[:], torch.stack([numbers % 2, (numbers < 6).float()], dim=1))


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_other_numbers_are_values_to_regress(tmp_path: Path, suffix: str) -> None:
    pictures(tmp_path)
    if suffix == "csv":
        table(tmp_path, "file,x,y", [f"{n}.png,{n / 10},{-n}" for n in range(12)])
    else:
        columns = {
            "file": [f"{n}.png" for n in range(12)],
            "x": [n / 10 for n in range(12)],
            "y": list(range(0, -12, -1)),
        }
        parquet.write_table(pyarrow.table(columns), tmp_path / "labels.parquet")
    found = data.load(str(tmp_path / f"labels.{suffix}"), image_size=4)
    assert (found.task, found.classes) == ("regression", ("x", "y"))
    numbers = (found.train.images[:].float().mean(dim=(1, 2, 3)) / 20).round()
    assert torch.allclose(found.train.targets[:], torch.stack([numbers / 10, -numbers], dim=1))


@pytest.mark.parametrize("kind", ["regression", "multilabel"])
def test_a_table_through_the_whole_job_to_what_it_says_of_one_image(tmp_path: Path, kind: str) -> None:
    folder = pictures(tmp_path / "data", 24)
    if kind == "regression":
        table(folder, "file,brightness", [f"{n}.png,{n / 12}" for n in range(24)])
    else:
        table(folder, "file,dark,even", [f"{n}.png,{int(n < 12)},{int(n % 2 == 0)}" for n in range(24)])
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
    (said,) = run.predict([folder / "3.png"])
    pixels = data.decode_image(folder / "3.png", (1, 8, 8))[None]
    assert run.record is not None and run.record.normalisation is not None
    with torch.no_grad():
        wanted = run.model(data.normalise(pixels, *run.record.normalisation))[0]
    if kind == "regression":
        assert said["predictions"] == [{"output": "brightness", "value": pytest.approx(float(wanted[0]))}]
    else:
        found = {entry["class"]: entry["probability"] for entry in said["predictions"]}
        assert found == pytest.approx(dict(zip(("dark", "even"), wanted.sigmoid().tolist(), strict=True)))


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
    ("row", "said"),
    [
        ("1.png,", "No label in row {} of"),
        ("99.png,b", "The image of row {} of .* is not there"),
        ("1.png", "Expected 2 cells in row {} of .*, but got 1"),
    ],
)  # fmt: skip
def test_a_row_is_named_by_the_line_that_an_editor_shows(tmp_path: Path, text: str, row: str, said: str) -> None:
    """Whatever stands above it: blank lines, lines of commas, cells of several lines."""
    path = pictures(tmp_path, 2) / "labels.csv"
    path.write_bytes(text.replace("@", f"{row}\n").encode())
    with path.open(encoding="utf-8-sig") as file:  # as an editor counts
        line = next(number for number, line in enumerate(file, start=1) if line.startswith(row))
    with pytest.raises(DataError, match=said.format(line)):
        data.load(str(path), image_size=4)


def test_a_row_of_a_parquet_file_counts_from_one(tmp_path: Path) -> None:
    pictures(tmp_path, 2)
    parquet.write_table(pyarrow.table({"file": ["0.png", "1.png"], "label": ["a", ""]}), tmp_path / "labels.parquet")
    with pytest.raises(DataError, match=r"No label in row 2 of .*labels\.parquet"):
        data.load(str(tmp_path), image_size=4)


def test_two_columns_of_one_name_are_said(tmp_path: Path) -> None:
    table(pictures(tmp_path, 2), "file,label,label", ["0.png,a,b", "1.png,b,a"])
    with pytest.raises(DataError, match=r"Two columns of .*labels\.csv are named 'label'"):
        data.load(str(tmp_path), image_size=4)


@pytest.mark.parametrize(
    ("head", "rows", "said"),
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
def test_what_is_wrong_with_a_table(tmp_path: Path, head: str, rows: list[str], said: str) -> None:
    table(pictures(tmp_path / "data", 3), head, rows)
    with pytest.raises(DataError, match=said) as raised:
        pretrim.compress("resnet20", str(tmp_path / "data"), output=tmp_path / "run", macs="0.5x")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "run").exists()


def told(path: Path, **options: Any) -> tuple[data.DataSet, list[str]]:
    """The data, and what was said of them."""
    said: list[str] = []
    return data.load(str(path), **{"image_size": 4, "announce": said.append, **options}), said


@pytest.mark.parametrize("name", ["", "Unnamed: 0", "__index_level_0__"])
@pytest.mark.parametrize(
    ("values", "wanted"),
    [(["0", "1"], ("classification", ("0", "1"))), (["cat", "dog"], ("classification", ("cat", "dog")))],
)
def test_row_numbers_of_pandas_are_no_target(
    tmp_path: Path, name: str, values: list[str], wanted: tuple[str, tuple[str, ...]]
) -> None:
    table(pictures(tmp_path), f"{name},file,label", [f"{n},{n}.png,{values[n % 2]}" for n in range(12)])
    found, said = told(tmp_path)
    assert (found.task, found.classes) == wanted
    which = repr(name) if name else "without a name"
    assert said == [
        f"note: the column {which} is not read: pandas writes row numbers there, to_csv(index=False) does not"
    ]


def test_row_numbers_alone_are_no_target(tmp_path: Path) -> None:
    table(pictures(tmp_path), ",file", [f"{n},{n}.png" for n in range(12)])
    with pytest.raises(DataError, match="No column of labels in"):
        told(tmp_path)


@pytest.mark.parametrize("start", [0, 1])
def test_a_column_that_counts_the_rows_is_no_target_beside_others(tmp_path: Path, start: int) -> None:
    table(pictures(tmp_path), "id,file,value", [f"{n + start},{n}.png,{n / 7}" for n in range(12)])
    found, said = told(tmp_path)
    assert (found.task, found.classes) == ("regression", ("value",))
    assert said == ["note: the column 'id' counts the rows, and is not read as a target"]
    table(tmp_path, "file,value", [f"{n}.png,{n}" for n in range(12)])
    assert told(tmp_path)[0].classes == ("value",)


@pytest.mark.parametrize(
    ("head", "cells", "said"),
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
def test_a_fault_among_numbers_makes_no_classes(tmp_path: Path, head: str, cells: dict[int, str], said: str) -> None:
    table(pictures(tmp_path), f"file,{head}", [f'{n}.png,"{cells.get(n, n / 7)}"' for n in range(12)])
    with pytest.raises(DataError, match=said):
        told(tmp_path)


@pytest.mark.parametrize("missing", ["nan", "NaN", "<NA>"])
def test_a_missing_label_is_no_class(tmp_path: Path, missing: str) -> None:
    cells = [missing if n in (5, 7, 8) else "cat" if n % 2 else "none" for n in range(12)]
    table(pictures(tmp_path), "file,label", [f"{n}.png,{cell}" for n, cell in enumerate(cells)])
    with pytest.raises(
        DataError, match=rf"No label in row 7 of .*labels\.csv \('{missing}', 3 rows lack one\): add it"
    ):
        told(tmp_path)
    cells = ["cat" if n % 2 else "none" for n in range(12)]  # as of parts without a defect
    table(tmp_path, "file,label", [f"{n}.png,{cell}" for n, cell in enumerate(cells)])
    assert told(tmp_path)[0].classes == ("cat", "none")


@pytest.mark.parametrize(
    ("name", "cells", "wanted"),
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
def test_what_one_column_is(tmp_path: Path, name: str, cells: list[str], wanted: tuple[str, tuple[str, ...]]) -> None:
    table(pictures(tmp_path), f"file,{name}", [f"{n}.png,{cells[n % len(cells)]}" for n in range(12)])
    found = told(tmp_path)[0]
    assert (found.task, found.classes) == wanted


@pytest.mark.parametrize("words", [("False", "True"), ("false", "TRUE"), ("0.0", "1.0"), (False, True)])
def test_columns_of_yes_and_no_are_labels(tmp_path: Path, words: tuple[Any, Any]) -> None:
    pictures(tmp_path)
    columns = {"cat": [words[n % 2] for n in range(12)], "dog": [words[int(n < 6)] for n in range(12)]}
    if isinstance(words[0], bool):
        parquet.write_table(
            pyarrow.table({"file": [f"{n}.png" for n in range(12)], **columns}), tmp_path / "labels.parquet"
        )
    else:
        table(tmp_path, "file,cat,dog", [f"{n}.png,{columns['cat'][n]},{columns['dog'][n]}" for n in range(12)])
    found = told(tmp_path)[0]
    assert (found.task, found.classes) == ("multilabel", ("cat", "dog"))
    numbers = (found.train.images[:].float().mean(dim=(1, 2, 3)) / 20).round()
    assert torch.equal(found.train.targets[:], torch.stack([numbers % 2, (numbers < 6).float()], dim=1))


def test_few_whole_numbers_may_have_been_meant_as_classes(tmp_path: Path) -> None:
    table(pictures(tmp_path), "file,defect", [f"{n}.png,{n % 2}" for n in range(12)])
    found, said = told(tmp_path)
    assert found.task == "regression"
    assert said == [
        "note: defect has 2 whole numbers (0, 1) and is regressed: call the column label if they are classes"
    ]


def test_classes_beside_numbers_are_not_regressed(tmp_path: Path) -> None:
    table(pictures(tmp_path), "file,label,width", [f"{n}.png,{n % 3},24" for n in range(12)])
    with pytest.raises(DataError, match=r"but label has classes \('0'\), and width is there too: leave out"):
        told(tmp_path)


@pytest.mark.parametrize("name", ["labels.csv", "labels.tsv", "LABELS.CSV"])
def test_cells_may_be_separated_by_tabs(tmp_path: Path, name: str) -> None:
    rows = [f"{n}.png\t{'a, b' if n % 2 else 'c'}" for n in range(12)]
    path = table(pictures(tmp_path), "file\tlabel", rows, name)
    assert told(path)[0].classes == ("a, b", "c")


def test_cells_may_be_separated_by_semicolons_and_their_numbers_have_decimal_commas(tmp_path: Path) -> None:
    """As a spreadsheet saves a CSV where numbers are written so."""
    table(pictures(tmp_path), "file;grams;note", [f"{n}.png;{n},5;{'12' if n else '-0,25'}" for n in range(12)])
    found = data.load(str(tmp_path))
    assert (found.task, found.classes) == ("regression", ("grams", "note"))
    values = torch.cat([part.targets[:] for part in (found.train, found.validation, found.test)])
    assert sorted(values.tolist()) == [[0.5, -0.25], *([n + 0.5, 12.0] for n in range(1, 12))]


def test_several_labels_a_cell_between_semicolons(tmp_path: Path) -> None:
    rows = [f'{n}.png;"{"cat;dog" if n % 2 else "cat"}"' for n in range(12)]
    table(pictures(tmp_path), "file;label", rows)
    assert (data.load(str(tmp_path)).task, data.load(str(tmp_path)).classes) == ("multilabel", ("cat", "dog"))


def test_paths_as_windows_writes_them(tmp_path: Path) -> None:
    pictures(tmp_path / "all" / "img")
    table(tmp_path, "file,label", [f"all\\img\\{n}.png,{n % 2}" for n in range(12)])
    assert told(tmp_path)[0].classes == ("0", "1")


def test_all_missing_images_are_counted(tmp_path: Path) -> None:
    table(pictures(tmp_path, 10), "file,label", [f"{n}.png,{n % 2}" for n in range(12)])
    with pytest.raises(DataError, match=r"The image of row 12 of .* is not there: .*10\.png \(2 of 12 are not\)"):
        told(tmp_path)


def test_a_table_in_another_encoding_is_told_to_be_saved_again(tmp_path: Path) -> None:
    (pictures(tmp_path) / "labels.csv").write_bytes("file,label\n0.png,Kätzchen\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"as a CSV in UTF-8 .*: save it as UTF-8"):
        told(tmp_path)


def test_rows_of_one_image_are_one_image(tmp_path: Path) -> None:
    """Drawn apart, one of them would be trained on, and the other be the test."""
    rows = [f"{'./' * (n >= 12)}{n % 12}.png,{n % 2}" for n in range(24)]
    table(pictures(tmp_path), "file,label", rows)
    found, said = told(tmp_path)
    means = [part.images[:].float().mean(dim=(1, 2, 3)) for part in (found.train, found.validation, found.test)]
    assert sorted((torch.cat(means) / 20).round().tolist()) == list(range(12))
    assert said == ["note: 12 of 24 rows repeat the image of another, and are left out"]


@pytest.mark.parametrize(("head", "rows"), [("label", "ab"), ("x,y", ["1,2", "1,3"])])
def test_one_image_with_two_targets_is_refused(tmp_path: Path, head: str, rows: Sequence[str]) -> None:
    cells = [f"{n}.png,{rows[n % 2]}" for n in range(12)]
    table(pictures(tmp_path), f"file,{head}", [*cells, f"0.png,{rows[1]}"])
    with pytest.raises(
        DataError, match=r"0\.png has other targets in row 14 of .* than in row 2: keep one row per image"
    ):
        told(tmp_path)


def test_one_image_in_two_parts_however_it_is_written(tmp_path: Path) -> None:
    rows = [f"{n}.png,{n % 2},train" for n in range(12)]
    table(pictures(tmp_path), "file,label,split", [*rows, "./3.png,1,test"])
    with pytest.raises(DataError, match=r"3\.png is in the split train and, in row 14 of .*, in test: keep one"):
        told(tmp_path)


@pytest.mark.parametrize("stored", ["struct", "bytes"])
@pytest.mark.parametrize("name", ["labels.parquet", "data.parquet"])
def test_one_parquet_file_of_images(tmp_path: Path, name: str, stored: str) -> None:
    pictures(tmp_path / "from")
    content = [(tmp_path / "from" / f"{n}.png").read_bytes() for n in range(12)]
    images = content if stored == "bytes" else [{"bytes": image, "path": None} for image in content]
    parquet.write_table(pyarrow.table({"image": images, "label": [n % 2 for n in range(12)]}), tmp_path / name)
    found = told(tmp_path / name)[0]
    assert (found.task, found.classes) == ("classification", ("0", "1"))
    numbers = (found.train.images[:].float().mean(dim=(1, 2, 3)) / 20).round()
    assert torch.equal(found.train.labels, (numbers % 2).long())


def test_a_cell_that_is_no_path_is_not_printed_whole(tmp_path: Path) -> None:
    table(tmp_path, "file,label", [f"{'x' * 5000},a", f"{'y' * 5000},b"])
    with pytest.raises(
        DataError, match=r"The image of row 2 of .* is not there: .*x\.\.\. \(2 of 2 are not\)"
    ) as raised:
        told(tmp_path)
    assert len(str(raised.value)) < 600


def test_a_table_with_too_few_images_is_told_of_its_own_parts(tmp_path: Path) -> None:
    table(pictures(tmp_path), "file,label", [f"{n}.png,{'a' if n else 'b'}" for n in range(12)])
    with pytest.raises(DataError, match=r"'b' has 1: add some, or provide splits .* a column split of a table"):
        told(tmp_path)


# ---------------------------------------------------------------------------------------- masks


@pytest.mark.parametrize("values", [(0, 1), (0, 255)])
def test_images_and_masks_are_a_segmentation(tmp_path: Path, values: tuple[int, int]) -> None:
    """And not two classes, images and masks. Masks of 0 and 255 are of two classes."""
    found = data.load(str(masks(tmp_path, values=values)), image_size=8)
    assert (found.task, found.classes, found.train.targets.shape[1:]) == ("segmentation", ("0", "1"), (8, 8))
    assert torch.equal(found.train.targets[:] == 1, found.train.images[:][:, 0] >= 200)


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_masks_get_the_shape_of_their_images(tmp_path: Path, fit: Any) -> None:
    found = data.load(str(masks(tmp_path, size=16)), image_size=(8, 12), fit=fit)
    images, targets = found.train.images[:][:, 0], found.train.targets[:]
    sure = (images >= 200) | (images < 40)  # bilinear images have an edge in between
    inside = targets != 255
    assert torch.equal((targets == 1)[sure & inside], (images >= 200)[sure & inside])
    assert bool(inside.all()) == (fit != "pad")


def test_parts_and_names_of_masks(tmp_path: Path) -> None:
    for part, count in (("train", 8), ("val", 3), ("test", 4)):
        masks(tmp_path / part, count)
    (tmp_path / "classes.txt").write_text("sky\nroad\n")
    found = data.load(str(tmp_path), image_size=8)
    assert found.classes == ("sky", "road")
    assert [len(part) for part in (found.train, found.validation, found.test)] == [8, 3, 4]


def test_a_folder_of_masks_through_the_whole_job(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(),
        nn.Conv2d(16, 2, 1),
    )  # fmt: skip
    run = pretrim.compress(
        network, str(masks(tmp_path / "data", 24)), output=tmp_path / "run", macs="0.6x", round_to=4, input="1x8x8",
        epochs=4, batch_size=8, lr=0.05, threads=1, train_on="cpu",
    )  # fmt: skip
    assert run.metric.name == "mean_iou"
    assert run.score is not None and run.score > 0.5
    assert run.evaluate(str(tmp_path / "data")).score == pytest.approx(run.score)


def without(file: str) -> Any:
    return lambda folder: (folder / file).unlink()


def colour(folder: Path) -> None:
    Image.new("RGB", (8, 8)).save(folder / "masks" / "0.png")


def black(folder: Path) -> None:
    for file in (folder / "masks").iterdir():
        Image.new("L", (8, 8)).save(file)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (without("masks/3.png"), r"No mask for .*images/3.png: there is none of that name"),
        (without("images/3.png"), r"No image for .*masks/3.png: there is none of that name"),
        (colour, r"Expected a mask with one class per pixel .* but it is RGB: store class numbers"),
        (black, "Expected masks of at least 2 classes in .* but every known pixel is of class 0"),
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
def test_what_is_wrong_with_masks(tmp_path: Path, damage: Any, said: str) -> None:
    damage(masks(tmp_path, 6))
    with pytest.raises(DataError, match=said) as raised:
        data.load(str(tmp_path), image_size=8)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("values", "names", "classes", "said"),
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
def test_what_values_of_masks_are_made_is_said(
    tmp_path: Path, values: tuple[int, int], names: str, classes: tuple[str, ...], said: str
) -> None:
    masks(tmp_path, values=values)
    if names:
        (tmp_path / "classes.txt").write_text(names, encoding="utf-8")
    found, notes = told(tmp_path, image_size=8)
    assert found.classes == classes
    assert len(notes) == 1 and notes[0].startswith("note: ") and notes[0].endswith(said)


def test_a_pad_round_masks_of_two_values_is_of_no_class(tmp_path: Path) -> None:
    found = data.load(str(masks(tmp_path, size=16, values=(0, 255))), image_size=(8, 16), fit="pad")
    assert found.train.targets[:].unique().tolist() == [0, 1, 255]
    assert bool((found.train.targets[:, :, :4] == 255).all())


def shades(folder: Path) -> None:
    for number, file in enumerate(sorted((folder / "masks").iterdir())):
        Image.new("L", (8, 8), (0, 128, 200)[number % 3]).save(file)


def as_jpeg(folder: Path) -> None:
    for file in (folder / "masks").iterdir():
        Image.open(file).save(file.with_suffix(".jpg"))
        file.unlink()


def of_another_shape(folder: Path) -> None:
    Image.new("L", (16, 4)).save(folder / "masks" / "3.png")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (shades, r"classes 0, 1, 2, \.\.\. in .*, but their values are 0, 128, 200: re-number them 0 to 2, or"),
        (as_jpeg, r"Expected a mask .* but .*masks/0\.jpg is a JPEG, whose compression changes .* as PNG"),
        (
            of_another_shape,
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
def test_masks_that_would_be_believed_wrongly(tmp_path: Path, damage: Any, said: str) -> None:
    damage(masks(tmp_path, 6))
    with pytest.raises(DataError, match=said) as raised:
        data.load(str(tmp_path), image_size=8)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("size", [(4, 4), (16, 16), (8, 9)])
def test_a_mask_may_be_of_another_size(tmp_path: Path, size: tuple[int, int]) -> None:
    """In the proportions of its image, to a pixel."""
    masks(tmp_path, 6)
    for file in (tmp_path / "masks").iterdir():
        Image.open(file).resize(size, Image.Resampling.NEAREST).save(file)
    found = data.load(str(tmp_path), image_size=8)
    assert torch.equal(found.train.targets[:] == 1, found.train.images[:][:, 0] >= 200)


# ---------------------------------------------------------------------------------------- what is left out, or absent


@pytest.mark.parametrize(
    ("files", "said"),
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
def test_files_that_are_not_read_are_counted(tmp_path: Path, files: dict[str, str], said: str) -> None:
    for name in "ab":
        pictures(tmp_path / name)
    for file, content in files.items():
        (tmp_path / file).parent.mkdir(exist_ok=True)
        if content.startswith("->"):
            (tmp_path / file).symlink_to(content.removeprefix("->"))
        else:
            (tmp_path / file).write_text(content)
    found, notes = told(tmp_path)
    assert [note.startswith(f"note: {said.replace('@', str(tmp_path))}") for note in notes] == [True]
    assert len(found.train) + len(found.validation) + len(found.test) == 24


def test_files_beside_images_and_masks_are_counted(tmp_path: Path) -> None:
    (masks(tmp_path) / "masks" / "0.xcf").write_text("")
    assert told(tmp_path)[1][1].startswith("note: 1 .xcf file is not read (such as ")


def test_a_class_without_images_is_said(tmp_path: Path) -> None:
    for name in "ab":
        pictures(tmp_path / name)
    for name in ("c", ".cache", "__MACOSX"):
        (tmp_path / name).mkdir()
    found, said = told(tmp_path)
    assert (found.classes, said) == (("a", "b"), ["note: c has no images"])


@pytest.mark.parametrize("is_there", [False, True])
def test_a_part_may_lack_a_class_and_it_is_said(tmp_path: Path, is_there: bool) -> None:
    for part, classes in (("train", "abc"), ("test", "ab")):
        for name in classes:
            pictures(tmp_path / part / name)
    if is_there:
        (tmp_path / "test" / "c").mkdir()
    found, said = told(tmp_path)
    assert found.classes == ("a", "b", "c") and sorted(set(found.test.labels.tolist())) == [0, 1]
    assert said == ["note: the test split has no image of the class c"]


def test_a_part_of_a_table_may_lack_a_class(tmp_path: Path) -> None:
    rows = [f"{n}.png,{'abc'[n % 3 if n < 9 else 0]},{'train' if n < 9 else 'test'}" for n in range(12)]
    table(pictures(tmp_path), "file,label,split", rows)
    assert "note: the test split has no image of the class b, c" in told(tmp_path)[1]


@pytest.mark.parametrize("inner", ["photos", "photos 2024"])
def test_classes_one_folder_further_down(tmp_path: Path, inner: str) -> None:
    for name in "ab":
        pictures(tmp_path / inner / name)
    with pytest.raises(DataError, match=rf"got one \({inner}\): did you mean {tmp_path / inner}\?"):
        told(tmp_path)


# ---------------------------------------------------------------------------------------- labels that few images have


def test_a_rare_label_is_in_every_part(tmp_path: Path) -> None:
    rows = [f"{n}.png,{int(n % 2)},{int(n in (3, 14, 25))}" for n in range(40)]
    table(pictures(tmp_path, 40), "file,cat,rare", rows)
    for seed in range(4):
        found, said = told(tmp_path, seed=seed)
        parts = (found.train, found.validation, found.test)
        assert [int(part.targets[:, 1].sum()) for part in parts] == [1, 1, 1] and not said
        assert sum(map(len, parts)) == 40


def test_a_label_of_too_few_images_for_all_parts_is_trained_on(tmp_path: Path) -> None:
    table(pictures(tmp_path, 40), "file,cat,rare", [f"{n}.png,{int(n % 2)},{int(n == 3)}" for n in range(40)])
    for seed in range(4):
        assert told(tmp_path, seed=seed)[1] == [
            "note: the validation split has no image with the label rare",
            "note: the test split has no image with the label rare",
        ]


def test_a_part_without_any_label_is_refused(tmp_path: Path) -> None:
    rows = [f"{n}.png,{int(n < 9 and n % 2)},{int(n < 6)},{'train' if n < 9 else 'test'}" for n in range(12)]
    table(pictures(tmp_path), "file,cat,dog,split", rows)
    with pytest.raises(DataError, match=r"No image of the test split of .* has a label, so that no score can be given"):
        told(tmp_path)


def test_a_training_whose_first_images_have_no_label(tmp_path: Path) -> None:
    """They are those that the task is tried on."""
    rows = [f"{n}.png,{int(n >= 12)},{int(n >= 16)},{('train', 'val', 'test')[n % 3]}" for n in range(24)]
    table(pictures(tmp_path / "data", 24), "file,cat,dog,split", rows)
    network = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 2)
    )
    run = pretrim.compress(
        network, str(tmp_path / "data"), output=tmp_path / "run", macs="0.6x", round_to=4, input="1x8x8", epochs=1,
        batch_size=8, threads=1, train_on="cpu",
    )  # fmt: skip
    assert run.metric.name == "mean_ap" and run.score is not None


# ---------------------------------------------------------------------------------------- what is said of all data


@pytest.mark.parametrize(
    ("head", "row", "said"),
    [
        ("label", lambda n: "abcdefg"[n % 2], "classification, 2 classes: a, b"),
        ("label", lambda n: "abcdefg"[n % 7], "classification, 7 classes: a, b, c, d, e, ..."),
        ("cat,dog", lambda n: f"{n % 2},{n % 3 // 2}", "multilabel, 2 labels: cat, dog"),
        ("weight", lambda n: f"{n / 7}", "regression, 1 target: weight"),
    ],
)
def test_what_a_table_is_taken_for_is_said(tmp_path: Path, head: str, row: Callable[[int], str], said: str) -> None:
    table(pictures(tmp_path, 28), f"file,{head}", [f"{n}.png,{row(n)}" for n in range(28)])
    heard = Kept()
    open_data(str(tmp_path), DataOptions(), reporter=heard)
    assert heard.lines[-1].startswith(f"data: images of {tmp_path}/labels.csv: {said} (test: ")


def test_what_masks_are_taken_for_is_said(tmp_path: Path) -> None:
    heard = Kept()
    open_data(str(masks(tmp_path, values=(0, 2))), DataOptions(), reporter=heard)
    assert heard.lines[-1].startswith(f"data: images and masks in {tmp_path}: segmentation, 3 classes: 0, 1, 2 (test: ")


# ---------------------------------------------------------------------------------------- data to evaluate


def trained(folder: Path, outputs: int = 3, **options: Any) -> Run:
    """A short training of a small network on grey images of 8x8."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, outputs)
    )
    return pretrim.compress(
        network, str(folder), output=folder.parent / "run", macs="0.6x", round_to=4, input="1x8x8", epochs=1,
        batch_size=8, threads=1, train_on="cpu", **options,
    )  # fmt: skip


def classes(folder: Path, names: str = "abc", count: int = 12, bright: int = 60) -> Path:
    for number, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for image in range(count):
            Image.new("L", (8, 8), bright * number + image).save(folder / name / f"{image}.png")
    return folder


@pytest.fixture(scope="module")
def of_classes(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of three classes of 12 images each, of which 1 each is the test part."""
    return trained(classes(tmp_path_factory.mktemp("own") / "data"))


def judged(run: Run, place: Path) -> tuple[Evaluated, list[str]]:
    """How the run does on the data of a place, and what was said."""
    heard = Kept()
    return run.evaluate(str(place), heard), heard.lines


def test_the_data_of_the_run_are_judged_by_their_test_part(of_classes: Run, tmp_path: Path) -> None:
    """At their place or another."""
    own = of_classes.path.parent / "data"
    for place in (own, Path(shutil.copytree(own, tmp_path / "data")), Path(shutil.copytree(own, tmp_path / "moved"))):
        found, said = judged(of_classes, place)
        assert (found.images, found.score) == (3, of_classes.score)
        assert said == [f"data: images in {place}: classification, 3 classes: a, b, c ({found.data['split_note']})"]
        assert found.data["split_note"].startswith("test: 3 of 36 images, seed 0")


def test_data_of_a_run_with_a_mean_of_its_own_are_its_own_where_they_were_moved(tmp_path: Path) -> None:
    data = classes(tmp_path / "data")
    run = trained(data, mean="0.5", std="0.25", max_images=12)
    assert judged(run, Path(shutil.copytree(data, tmp_path / "there" / "data")))[0].images == 3
    assert judged(run, Path(shutil.copytree(data, tmp_path / "there" / "photos")))[0].images == 3


def test_data_of_the_run_that_have_grown_are_said_to_have(of_classes: Run, tmp_path: Path) -> None:
    run = trained(classes(tmp_path / "data"))
    classes(tmp_path / "more", count=20)
    shutil.copytree(tmp_path / "more", tmp_path / "data", dirs_exist_ok=True)
    found, said = judged(run, tmp_path / "data")
    assert found.images == 6
    assert said[0] == (
        "note: data has more or fewer images than when the run was trained: some of the test images may have been "
        "trained on"
    )


def test_a_part_of_the_data_of_the_run_is_said_to_be_that(tmp_path: Path) -> None:
    for part in ("train", "test"):
        classes(tmp_path / "data" / part)
    run = trained(tmp_path / "data")
    assert judged(run, tmp_path / "data")[0].images == 36
    found, said = judged(run, tmp_path / "data" / "train")
    assert found.images == 36
    assert said[0].endswith(
        "train is part of the data that the run was trained on: its images may have been trained on"
    )


def test_data_of_the_run_that_have_shrunk_are_not_judged_by_what_was_trained(tmp_path: Path) -> None:
    run = trained(classes(tmp_path / "data"))
    for number in range(2, 12):
        (tmp_path / "data" / "b" / f"{number}.png").unlink()
    with pytest.raises(DataError, match="Expected at least 3 training images of each class in data, but 'b' has 2"):
        judged(run, tmp_path / "data")


@pytest.mark.parametrize(("names", "count"), [("abc", 12), ("abc", 13), ("abc", 2), ("b", 1), ("ca", 5)])
def test_all_of_new_data_are_judged(of_classes: Run, tmp_path: Path, names: str, count: int) -> None:
    """Even as many images as the run has, too few to be split, or one class."""
    found, said = judged(of_classes, classes(tmp_path / "new", names, count, bright=50))
    assert found.images == len(names) * count
    assert {entry["name"]: entry["images"] for entry in found.details["classes"]} == {
        name: count * (name in names) for name in "abc"
    }
    end = f"classification, 3 classes: a, b, c (test: all {found.images} images)"
    assert said[-1] == f"data: images in {tmp_path / 'new'}: {end}"
    missing = ", ".join(sorted(set("abc") - set(names)))
    assert said[:-1] == [f"note: the test split has no image of the class {missing}"] * bool(missing)


def test_images_of_new_data_go_to_the_classes_of_their_names(of_classes: Run, tmp_path: Path) -> None:
    """Whatever their order: images of one class, by its name, are right as often as the network says that name."""
    classes(tmp_path / "new", "c", 6)
    files = sorted((tmp_path / "new" / "c").iterdir())
    says = [answer["predictions"][0]["class"] for answer in of_classes.predict(files)]
    assert judged(of_classes, tmp_path / "new")[0].score == says.count("c") / 6


@pytest.mark.parametrize(
    ("parts", "images"), [(("test",), 3), (("train", "test"), 3), (("train", "val"), 6), (("val",), 3)]
)
def test_new_data_in_parts(of_classes: Run, tmp_path: Path, parts: tuple[str, ...], images: int) -> None:
    for part in parts:
        classes(tmp_path / "new" / part, count=1)
    found, said = judged(of_classes, tmp_path / "new")
    assert found.images == images
    assert said[-1].endswith("(test: the split of 3 images)" if "test" in parts else f"(test: all {images} images)")


def test_new_data_with_a_class_that_the_run_does_not_have(of_classes: Run, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"Expected the run's classes \(a, b, c\), but new has a, d: give data with the"
    ):
        judged(of_classes, classes(tmp_path / "new", "ad"))


def test_new_tables(of_classes: Run, tmp_path: Path) -> None:
    path = table(pictures(tmp_path, 4), "file,label,split", [f"{n}.png,{'ca'[n % 2]},test" for n in range(4)])
    found, said = judged(of_classes, path)
    assert [entry["images"] for entry in found.details["classes"]] == [2, 0, 2]
    assert said[-1].endswith("(test: the split of 4 images)")


def test_new_tables_of_labels_and_values(tmp_path: Path) -> None:
    """Which the columns of a small table would not say."""
    own = pictures(tmp_path / "labels" / "data", 24)
    table(own, "file,labels", [f"{n}.png,{'cat' if n % 2 else 'dog;cat'}" for n in range(24)])
    new = table(pictures(tmp_path / "new"), "file,labels", [f"{n}.png,{'dog' if n % 2 else 'cat'}" for n in range(4)])
    found, _ = judged(trained(own, outputs=2), new)
    assert (found.metric.name, found.images) == ("mean_ap", 4)
    own = pictures(tmp_path / "values" / "data", 24)
    table(own, "file,x,y", [f"{n}.png,{n / 7},{-n / 5}" for n in range(24)])
    new = table(pictures(tmp_path / "new"), "y,note,file,x", [f"1,a,{n}.png,0" for n in range(4)])
    run = trained(own, outputs=2)
    found, said = judged(run, new)
    x, y = (
        torch.tensor(
            [
                answer["predictions"][place]["value"]
                for answer in run.predict([tmp_path / "new" / f"{n}.png" for n in range(4)])
            ]
        )
        for place in (0, 1)
    )
    assert found.score == pytest.approx(float(((x - 0).abs() + (y - 1).abs()).mean() / 2), rel=1e-4)
    assert said[-1].endswith(": regression, 2 targets: x, y (test: all 4 images)")


def test_new_masks(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 3, 1))
    run = pretrim.compress(
        network, str(masks(tmp_path / "data", 24, values=(1, 2))), output=tmp_path / "run", macs="0.6x", round_to=4,
        input="1x8x8", epochs=1, batch_size=8, threads=1, train_on="cpu",
    )  # fmt: skip
    found, said = judged(run, masks(tmp_path / "new", 5, values=(0, 0)))
    assert (found.images, found.metric.name) == (5, "mean_iou")
    assert said[-1].endswith(": segmentation, 3 classes: 0, 1, 2 (test: all 5 images)")
    with pytest.raises(DataError, match=r"Expected the run's classes \(0, 1, 2\), but more has 0, 1, 2, 3: give data"):
        judged(run, masks(tmp_path / "more", 5, values=(2, 3)))


# ---------------------------------------------------------------------------------------- boxes


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
def test_boxes_are_recognised_and_what_to_do_is_said(tmp_path: Path, file: str, name: str) -> None:
    pictures(tmp_path / "train" / "images")
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text('{"categories": []}' if file == "train/boxes.json" else "{}")
    beside = file.startswith(("train/images/", "train/boxes"))
    with pytest.raises(UsageError, match=f"holds boxes in the format of {name}, .* examples/detection"):
        data.load(str((tmp_path / file).parent if beside else tmp_path))


@pytest.mark.parametrize(("file", "text"), [("data.yaml", "names: [a, b]"), ("some.json", '{"a": [{"bbox": [1]}]}')])
def test_a_file_of_boxes_is_recognised(tmp_path: Path, file: str, text: str) -> None:
    (tmp_path / file).write_text(text)
    with pytest.raises(UsageError, match=f"{file} holds boxes in the format of"):
        data.load(str(tmp_path / file))
    with pytest.raises(UsageError, match=f"or a folder as data, but got '.*none-{file}'. Check the path"):
        data.load(str(tmp_path / f"none-{file}"))


def test_other_texts_beside_classes_are_no_boxes(tmp_path: Path) -> None:
    for name in "ab":
        pictures(tmp_path / name, 6)
    (tmp_path / "README.txt").write_text("mine")
    (tmp_path / "meta.json").write_text("{}")
    assert data.load(str(tmp_path), image_size=4).classes == ("a", "b")


def test_a_task_that_the_data_are_not_of(tmp_path: Path) -> None:
    masks(tmp_path / "data")
    with pytest.raises(PretrimError, match="data has targets of a segmentation, not of a regression"):
        pretrim.compress("resnet20", str(tmp_path / "data"), output=tmp_path / "run", macs="0.5x", task="regression")
    assert not (tmp_path / "run").exists()
