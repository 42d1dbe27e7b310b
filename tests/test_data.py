"""Data sets: reading, splitting, normalisation and batches, and the error messages for bad data."""

import errno
import functools
import gzip
import hashlib
import http.server
import io
import json
import os
import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pretrim import data
from pretrim.data import fashion_mnist
from pretrim.data.images import decode, size_of, with_channels
from pretrim.data.parquet import class_names
from pretrim.data.record import PIECE, Split, statistics
from pretrim.data.split import draw, limited
from pretrim.errors import DataError, UsageError

needs_debian = pytest.mark.skipif(
    not fashion_mnist.DEBIAN.exists(), reason="Debian's package dataset-fashion-mnist is not installed"
)


def make_image(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (20, 10)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def make_folder(root: Path, classes: tuple[str, ...] = ("cat", "dog"), count: int = 6) -> Path:
    for number, name in enumerate(classes):
        for index in range(count):
            make_image(root / name / f"{index}.png", (40 * number, 10 * index, 200))
    return root


def idx_bytes(values: np.ndarray) -> bytes:
    return b"\0\0\x08" + bytes([values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


def make_fashion(root: Path, count: int = 30) -> Path:
    """A data set in the format of Fashion-MNIST: ten classes in turn, each image filled with its label."""
    labels = (np.arange(count) % 10).astype(np.uint8)
    images = np.broadcast_to(labels[:, None, None], (count, 28, 28)).copy()
    for part in ("train", "t10k"):
        (root / f"{part}-images-idx3-ubyte").write_bytes(idx_bytes(images))
        (root / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx_bytes(labels)))
    return root


def encoded(mode: str, size: tuple[int, int], colour: object) -> dict[str, bytes | None]:
    """An image as the Hugging Face hub stores it in parquet files."""
    buffer = io.BytesIO()
    Image.new(mode, size, colour).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def write_parquet(path: Path, images: list, labels: list, columns: tuple[str, str] = ("img", "label")) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({columns[0]: images, columns[1]: labels, "note": ["x"] * len(labels)}), path)


def make_parquet(path: Path, labels: list[int], columns: tuple[str, str] = ("img", "label")) -> None:
    """32x32 images whose red value is 20 times their label."""
    write_parquet(path, [encoded("RGB", (32, 32), (label * 20, 0, 0)) for label in labels], labels, columns)


def digest(split: Split) -> str:
    return hashlib.sha256(split.images.numpy().tobytes() + split.labels.numpy().tobytes()).hexdigest()


def rows(split: Split) -> set[bytes]:
    return {image.numpy().tobytes() for image in split.images}


# ---------------------------------------------------------------------------------------- splitting


@given(st.lists(st.integers(0, 4), min_size=15, max_size=80), st.floats(0.05, 0.5), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_a_draw_takes_the_same_share_of_every_class_and_no_image_twice(labels, share, seed):
    labels = np.array([*labels, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4])
    drawn, rest = draw(labels, share, seed)
    assert sorted([*drawn, *rest]) == list(range(len(labels)))
    for label in range(5):
        count = int((labels == label).sum())
        assert int((labels[drawn] == label).sum()) == min(max(1, round(share * count)), count - 1)


def test_the_same_seed_draws_the_same_images_on_every_machine():
    drawn, _ = draw(np.arange(40) % 4, 0.2, seed=7)
    assert drawn.tolist() == draw(np.arange(40) % 4, 0.2, seed=7)[0].tolist()
    assert drawn.tolist() != draw(np.arange(40) % 4, 0.2, seed=8)[0].tolist()
    assert drawn.tolist() == [6, 10, 21, 23, 24, 32, 37, 39]


def test_the_three_splits_of_the_digits_add_up_to_the_whole_data_set():
    dataset = data.load("digits", image_size=8)
    assert len(dataset.train) + len(dataset.validation) + len(dataset.test) == 1797
    assert dataset.input_shape == (1, 8, 8) and dataset.classes == tuple("0123456789") and not dataset.flip
    assert "seed 0" in dataset.split_note and dataset.to_json()["sizes"]["test"] == len(dataset.test)


def test_the_digits_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    dataset = data.load("digits", image_size=8)
    ours = sorted(
        tuple(image.flatten().tolist())
        for part in (dataset.train, dataset.validation, dataset.test)
        for image in part.images
    )
    theirs = sorted(tuple(np.rint(image.ravel() * 255 / 16).astype(int).tolist()) for image in load_digits().images)
    assert ours == theirs


def test_the_split_of_the_digits_is_the_same_on_every_machine():
    dataset = data.load("digits", image_size=8, seed=3)
    assert digest(dataset.validation) == "2d3357bddb227954e76c062c21611bd51febb7a84b5fb2dcce5ff6b608d2a8f0"
    assert digest(dataset.test) == "270d1827cf8f4ef51cfbda59968d4bba66a69c450a7c080de5637c9bead0125d"
    assert dataset.split_seed == 3 and digest(data.load("digits", image_size=8, seed=4).test) != digest(dataset.test)


def test_the_splits_of_a_folder_share_no_image_and_lose_none(tmp_path):
    dataset = data.load(str(make_folder(tmp_path, count=20)), image_size=4, validation=0.2)
    parts = [rows(part) for part in (dataset.train, dataset.validation, dataset.test)]
    assert [len(part) for part in parts] == [26, 6, 8] and len(set.union(*parts)) == 40
    assert all(torch.bincount(part.labels).tolist() == [len(part) // 2] * 2 for part in (dataset.train, dataset.test))


def test_the_split_does_not_depend_on_file_system_order(tmp_path):
    names = [f"{number}.png" for number in range(8)]
    for root, order in ((tmp_path / "a", names), (tmp_path / "b", names[::-1])):
        for name in order:
            for label in ("x", "y") if order is names else ("y", "x"):
                make_image(root / label / name, (int(name[0]) * 30, 120 * (label == "x"), 0))
    first, second = (data.load(str(tmp_path / root), image_size=4) for root in "ab")
    assert [digest(part) for part in (first.train, first.validation, first.test)] == [
        digest(part) for part in (second.train, second.validation, second.test)
    ]


def test_a_limit_keeps_every_class_and_the_note_gives_the_number_of_images():
    dataset = data.load("digits", image_size=8, limit=50)
    assert len(dataset.train) == 50 and torch.bincount(dataset.train.labels).tolist() == [5] * 10
    assert "; 50 training images" in dataset.split_note
    assert "; 1,458 training images" in data.load("digits", image_size=8, limit=9999).split_note


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.data())
@settings(max_examples=60, deadline=None)
def test_a_limit_is_met_exactly_in_proportion_and_with_every_class(sizes, draws):
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    limit = draws.draw(st.integers(len(sizes), sum(sizes)))
    split = Split(torch.arange(len(labels)).view(-1, 1, 1, 1), labels)
    subset = limited(split, limit, seed=draws.draw(st.integers(0, 9)))
    counts = torch.bincount(subset.labels, minlength=len(sizes)).tolist()
    assert len(subset) == limit == len(subset.images.unique()) and min(counts) >= 1
    assert torch.equal(labels[subset.images.flatten()], subset.labels)
    assert all(count <= limit * size / sum(sizes) + 1 for count, size in zip(counts, sizes, strict=True))


def test_the_record_of_a_data_set_is_plain_json():
    dataset = data.load("digits", image_size=8)
    record = json.loads(json.dumps(dataset.to_json()))
    assert record["sizes"] == {"train": 1458, "validation": 160, "test": 179} and record["input_shape"] == [1, 8, 8]
    assert set(record) == {
        *("name", "source", "classes", "input_shape", "mean", "std", "sizes", "split_seed", "split_note"),
        "padding",
    }


def test_mean_and_std_match_numpy():
    images = torch.randint(0, 256, (PIECE + 20, 3, 2, 2), dtype=torch.uint8)
    mean, std = statistics(images)
    scaled = images.numpy() / 255.0
    np.testing.assert_allclose(mean, scaled.mean(axis=(0, 2, 3)), atol=1e-6)
    np.testing.assert_allclose(std, scaled.std(axis=(0, 2, 3)), atol=1e-6)


# ---------------------------------------------------------------------------------------- sources


def test_fashion_mnist_is_padded_to_32_and_labels_follow_their_images(tmp_path):
    dataset = data.load(f"fashion-mnist:{make_fashion(tmp_path)}")
    assert dataset.input_shape == (1, 32, 32) and dataset.classes[9] == "Ankle boot" and dataset.flip
    assert dataset.source == f"Fashion-MNIST, IDX files in {tmp_path}, not the published ones"
    assert (dataset.test.images[:, 0, 16, 16] == dataset.test.labels).all()
    assert (dataset.test.images[:, 0, :2] == 0).all()


def test_asking_for_the_default_size_of_fashion_mnist_changes_nothing(tmp_path):
    make_fashion(tmp_path)
    default, explicit = (data.load(f"fashion-mnist:{tmp_path}", image_size=size) for size in (None, 32))
    assert torch.equal(default.test.images, explicit.test.images)
    assert data.load(f"fashion-mnist:{tmp_path}", image_size=14).input_shape == (1, 14, 14)


def test_an_image_file_is_padded_as_the_images_of_its_data_set_were(tmp_path):
    dataset = data.load(f"fashion-mnist:{make_fashion(tmp_path)}")
    image = dataset.test.images[7]
    Image.fromarray(image[0, 2:-2, 2:-2].numpy()).save(tmp_path / "7.png")
    assert dataset.padding == 2 and image[0, 1].sum() == 0
    assert torch.equal(data.decode_image(tmp_path / "7.png", dataset.input_shape, dataset.padding), image)
    make_image(tmp_path / "large.png", (200, 200, 200), (90, 90))
    large = data.decode_image(tmp_path / "large.png", dataset.input_shape, dataset.padding)
    assert large[0, 2:-2, 2:-2].unique().tolist() == [200] and large.count_nonzero() == 28 * 28
    assert data.load(f"fashion-mnist:{tmp_path}", image_size=14).padding == 0


def test_idx_files_of_the_same_names_are_not_taken_for_fashion_mnist(tmp_path):
    dataset = data.load(str(make_fashion(tmp_path)), image_size=28, channels=3)
    assert dataset.input_shape == (3, 28, 28) and dataset.name == tmp_path.name
    assert dataset.classes == tuple("0123456789") and not dataset.flip  # MNIST's own files have the same names


@needs_debian
def test_debians_fashion_mnist_has_the_recorded_checksums():
    for name, sums in fashion_mnist.FILES.items():
        content = gzip.decompress((fashion_mnist.DEBIAN / f"{name}.gz").read_bytes())
        assert hashlib.sha256(content).hexdigest() == sums.sha256_of_content, name


@needs_debian
@pytest.mark.parametrize(("part", "packed_at"), [("train", 1504176606), ("t10k", 1504176627)])
def test_debians_label_files_differ_from_the_published_ones_in_the_gzip_header_only(part, packed_at):
    name = f"{part}-labels-idx1-ubyte"
    stripped = (fashion_mnist.DEBIAN / f"{name}.gz").read_bytes()
    head = b"\x1f\x8b\x08\x08" + struct.pack("<I", packed_at) + stripped[8:10] + name.encode() + b"\0"
    md5 = hashlib.md5(head + stripped[10:], usedforsecurity=False).hexdigest()
    assert md5 == fashion_mnist.FILES[name].md5_of_gz


@needs_debian
def test_fashion_mnist_is_found_and_recognised_by_content():
    dataset = data.load(str(fashion_mnist.DEBIAN), limit=100)
    assert dataset.classes == fashion_mnist.CLASSES and dataset.name == "fashion-mnist"
    assert dataset.source == f"Fashion-MNIST, IDX files in {fashion_mnist.DEBIAN}"
    assert (len(dataset.validation), len(dataset.test)) == (6000, 10000)
    assert torch.bincount(dataset.test.labels).tolist() == [1000] * 10


def test_parsing_a_handmade_idx_file():
    content = b"\0\0\x08\x03" + struct.pack(">3I", 2, 1, 3) + bytes([1, 2, 3, 4, 5, 6])
    assert fashion_mnist.parse_idx(content, 3, "here").tolist() == [[[1, 2, 3]], [[4, 5, 6]]]


def test_parquet_in_the_layout_of_the_hub(tmp_path):
    make_parquet(tmp_path / "train-00000-of-00002.parquet", list(range(10)) * 2)
    make_parquet(tmp_path / "train-00001-of-00002.parquet", [9, *range(9)] * 2)
    make_parquet(tmp_path / "test-00000-of-00001.parquet", [4])
    (tmp_path / "README.md").write_text("# CIFAR-10, a copy\n\nmore")
    dataset = data.load(f"cifar10:{tmp_path}")
    assert len(dataset.test) == 1 and dataset.classes[4] == "deer" and dataset.source.startswith("CIFAR-10, a copy")
    assert len(dataset.train) + len(dataset.validation) == 40
    assert (dataset.train.images[:, 0, 0, 0] == dataset.train.labels * 20).all()


def test_parquet_with_a_validation_split_and_the_column_image(tmp_path):
    for part, labels in (("train", [0, 1, 2]), ("validation", [1, 2]), ("test", [0])):
        make_parquet(tmp_path / f"{part}-00000-of-00001.parquet", labels, ("image", "label"))
    dataset = data.load(str(tmp_path), image_size=16)
    assert dataset.validation.labels.tolist() == [1, 2] and dataset.split_note.startswith("all three splits")
    assert dataset.classes == ("0", "1", "2") and dataset.input_shape == (3, 16, 16) and dataset.name == tmp_path.name


def test_class_names_are_read_from_parquet(tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    images = [Image.new("L", (4, 4), 10 * number) for number in range(8)]
    hub_dataset = datasets.Dataset.from_dict({"image": images, "label": [0, 1] * 4}, features=features)
    hub_dataset.to_parquet(tmp_path / "train-0.parquet")
    dataset = data.load(str(tmp_path))
    assert dataset.classes == ("cat", "dog") and dataset.input_shape == (1, 4, 4)


@pytest.mark.parametrize("metadata", ['{"info": 1}', "{", '{"info": {"features": {"label": {"names": ["a", "a"]}}}}'])
def test_unusable_class_names_in_parquet_are_ignored(metadata):
    assert class_names({b"huggingface": metadata.encode()}, "label") == ()


def test_grey_parquet_stays_grey(tmp_path):
    write_parquet(tmp_path / "train-0.parquet", [encoded("L", (5, 5), 10 * k) for k in range(8)], [0, 1] * 4)
    assert data.load(str(tmp_path)).input_shape == (1, 5, 5)
    assert data.load(str(tmp_path), channels=3).input_shape == (3, 5, 5)


def test_a_folder_with_one_subfolder_per_class(tmp_path):
    dataset = data.load(str(make_folder(tmp_path / "pets")), image_size=16)
    assert dataset.classes == ("cat", "dog") and dataset.input_shape == (3, 16, 16)
    assert len(dataset.train) + len(dataset.validation) + len(dataset.test) == 12


def test_the_existing_splits_of_a_folder_are_kept(tmp_path):
    for part, count in (("train", 5), ("val", 2), ("test", 3)):
        make_folder(tmp_path / part, count=count)
    dataset = data.load(str(tmp_path), image_size=8, channels=1)
    assert [len(part) for part in (dataset.train, dataset.validation, dataset.test)] == [10, 4, 6]
    assert dataset.input_shape == (1, 8, 8) and "as the data set has them" in dataset.split_note


def test_names_of_splits_may_be_capitalised(tmp_path):
    for part, count in (("Training", 5), ("Testing", 3)):
        make_folder(tmp_path / part, count=count)
    dataset = data.load(str(tmp_path))
    assert (
        dataset.classes == ("cat", "dog")
        and len(dataset.train) + len(dataset.validation) == 10
        and len(dataset.test) == 6
    )


@pytest.mark.parametrize(("last_mode", "channels"), [("L", 1), ("LA", 1), ("I;16", 1), ("RGB", 3), ("P", 3)])
def test_a_folder_is_grey_only_if_every_image_is(tmp_path, last_mode, channels):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for index in range(4):
            Image.new("L", (6, 6), 50).save(tmp_path / name / f"{index}.png")
    Image.new(last_mode, (6, 6)).save(tmp_path / "dog" / "last.png")
    assert data.load(str(tmp_path)).input_shape == (channels, 64, 64)


def test_hidden_files_and_other_suffixes_are_not_images(tmp_path):
    make_folder(tmp_path)
    for name in ("cat/._0.png", "cat/notes.txt", ".thumbnails/0.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"not an image")
    dataset = data.load(str(tmp_path), image_size=8)
    assert (
        dataset.classes == ("cat", "dog")
        and len(rows(dataset.train) | rows(dataset.validation) | rows(dataset.test)) == 12
    )


def test_a_class_may_have_the_name_of_a_split(tmp_path):
    dataset = data.load(str(make_folder(tmp_path, ("bus", "train"))), image_size=8)
    assert dataset.classes == ("bus", "train") and "seed 0" in dataset.split_note


def test_prediction_decodes_an_image_as_training_does(tmp_path):
    dataset = data.load(str(make_folder(tmp_path, count=6)), image_size=8)
    image = data.decode_image(tmp_path / "cat" / "3.png", dataset.input_shape)
    assert image.numpy().tobytes() in rows(dataset.train) | rows(dataset.validation) | rows(dataset.test)


def test_transparency_in_a_palette_is_ignored(tmp_path):
    image = Image.effect_mandelbrot((8, 8), (-2, -1, 1, 1), 9).quantize(9)
    image.save(tmp_path / "x.png", transparency=bytes([0, 128, 255]))
    pixels = data.decode_image(tmp_path / "x.png", (3, 8, 8))  # a warning would fail the test
    assert np.array_equal(pixels.permute(1, 2, 0), np.asarray(image.convert("RGB")))


def test_a_narrow_range_of_16_bit_grey_is_stretched(tmp_path):
    """Thermal cameras use about a thousand of 65,536 levels; the upper byte alone would distinguish only four."""
    levels = np.linspace(51_200, 52_200, 256).round().astype(np.uint16)
    decoded = {}
    for name, values in (("thermal", levels), ("twelve_bit", levels - 51_000), ("even", levels * 0 + 51_200)):
        Image.fromarray(values.astype(np.uint16).reshape(16, 16)).save(tmp_path / f"{name}.png")
        decoded[name] = data.decode_image(tmp_path / f"{name}.png", (1, 16, 16))
    assert len(decoded["thermal"].unique()) == 256
    assert torch.equal(decoded["thermal"], decoded["twelve_bit"])
    assert decoded["even"].unique().tolist() == [51_200 >> 8]


def test_16_bit_grey_of_the_whole_range_keeps_its_upper_byte(tmp_path):
    Image.fromarray(np.array([[0, 256, 40_000, 65_535]], dtype=np.uint16)).save(tmp_path / "deep.png")
    for channels in (1, 3):
        assert data.decode_image(tmp_path / "deep.png", (channels, 1, 4))[0, 0].tolist() == [0, 1, 156, 255]


def test_a_very_thin_image_needs_little_memory(tmp_path):
    Image.new("L", (1, 60_000), 7).save(tmp_path / "thin.png")
    # Resizing the whole image before the crop would take 224 x 13,440,000 pixels.
    assert (data.decode_image(tmp_path / "thin.png", (1, 224, 224)) == 7).all()


def test_an_image_is_resized_by_its_shorter_side_and_its_centre_cropped(tmp_path):
    image = Image.new("RGB", (40, 20), (0, 0, 0))
    image.paste((255, 255, 255), (10, 0, 30, 20))
    image.save(tmp_path / "wide.png")
    pixels = data.decode_image(tmp_path / "wide.png", (3, 10, 10))
    assert pixels.shape == (3, 10, 10) and pixels[:, :, 1:-1].min() > 250


def test_converting_grey_to_colour_and_back_keeps_the_pixels():
    grey = torch.randint(0, 256, (2, 1, 4, 4), dtype=torch.uint8)
    assert (with_channels(with_channels(grey, 3), 1).int() - grey.int()).abs().max() <= 1


# ---------------------------------------------------------------------------------------- augmentation, batches


def test_normalise_against_numpy():
    images = torch.randint(0, 256, (4, 2, 3, 3), dtype=torch.uint8)
    normalised = data.normalise(images, (0.4, 0.5), (0.2, 0.3)).numpy()
    expected = (images.numpy() / 255 - np.array([0.4, 0.5])[:, None, None]) / np.array([0.2, 0.3])[:, None, None]
    np.testing.assert_allclose(normalised, expected, atol=1e-5)


def test_normalise_needs_a_mean_per_channel():
    with pytest.raises(UsageError, match="each of 3 channels, but got 1 and 1"):
        data.normalise(torch.zeros(1, 3, 2, 2, dtype=torch.uint8), (0.5,), (0.5,))


@pytest.mark.parametrize("size", [0, -1])
def test_a_batch_size_below_one_is_refused(size):
    with pytest.raises(UsageError, match="a batch of 1 or more"):
        next(data.batches(Split(torch.zeros(2, 1, 1, 1, dtype=torch.uint8), torch.zeros(2).long()), size))


def test_batches_without_a_generator_keep_the_order():
    split = Split(torch.zeros(5, 1, 1, 1, dtype=torch.uint8), torch.arange(5))
    assert [labels.tolist() for _, labels in data.batches(split, 2)] == [[0, 1], [2, 3], [4]]


def test_shuffled_batches_give_every_image_once():
    split = Split(torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1), torch.arange(10))
    shuffled = list(data.batches(split, 4, generator=torch.Generator().manual_seed(0)))
    assert [len(labels) for _, labels in shuffled] == [4, 4, 2]
    together = torch.cat([labels for _, labels in shuffled])
    assert sorted(together.tolist()) == list(range(10)) and together.tolist() != list(range(10))
    assert all((images.flatten() == labels).all() for images, labels in shuffled)


# ---------------------------------------------------------------------------------------- bad data


@pytest.mark.parametrize(
    ("spec", "kind", "message"),
    [
        ("fashon-mnist", UsageError, "Did you mean fashion-mnist"),
        ("cifar10", UsageError, "write cifar10:FOLDER"),
        ("cifra10:/tmp", UsageError, r"'cifra10:/tmp'\. Did you mean cifar10"),
        ("no/such/folder", UsageError, r"or a folder as data, but got 'no/such/folder'\. Check the path"),
        ("", UsageError, "but got ''"),
        ("cifar10:nowhere", DataError, "nowhere is not one"),
        ("fashion-mnist:", DataError, "but nothing is not one"),
        ("digits:.", UsageError, r"Expected digits alone.* got digits:\."),
    ],
)
def test_a_wrong_data_set_name_is_answered_with_what_was_expected(spec, kind, message):
    with pytest.raises(kind, match=message):
        data.load(spec)


def test_an_empty_folder(tmp_path):
    with pytest.raises(DataError, match="the folder is empty"):
        data.load(str(tmp_path))


def test_a_folder_with_one_class(tmp_path):
    with pytest.raises(DataError, match=r"at least 2 classes .* got one \(cat\)"):
        data.load(str(make_folder(tmp_path, ("cat",))))


@pytest.mark.parametrize("unreadable", ["fox", "cat/more"])
def test_a_class_folder_that_cannot_be_read_is_not_left_out(tmp_path, monkeypatch, unreadable):
    make_folder(tmp_path, ("cat", "dog", "fox"))
    make_image(tmp_path / "cat" / "more" / "0.png", (1, 2, 3))
    scandir = os.scandir

    def refuse(folder):  # tests may run as root, for whom permissions do not count
        if os.fspath(folder) == str(tmp_path / unreadable):
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=rf"Permission denied: '{tmp_path / unreadable}'\): check its permissions"):
        data.load(str(tmp_path))


def test_too_few_images_to_split(tmp_path):
    with pytest.raises(DataError, match="'cat' has 2"):
        data.load(str(make_folder(tmp_path, count=2)))


def test_a_corrupt_image_is_named(tmp_path):
    make_folder(tmp_path)
    (tmp_path / "cat" / "bad.png").write_bytes(b"not an image")
    with pytest.raises(DataError, match=r"cat.bad\.png"):
        data.load(str(tmp_path))


def png_of(width: int, height: int) -> bytes:
    """A PNG file of a few bytes whose header declares this size."""
    chunks = [
        (b"IHDR", struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"")),
        (b"IEND", b""),
    ]
    packed = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def test_an_image_that_promises_too_many_pixels_is_not_decoded(tmp_path):
    (tmp_path / "bomb.png").write_bytes(png_of(20_000, 20_000))
    with pytest.raises(DataError, match=r"bomb\.png.*decompression bomb"):
        data.decode_image(tmp_path / "bomb.png", (1, 8, 8))


def test_an_image_format_that_runs_a_program_is_not_opened(tmp_path):
    make_image(tmp_path / "page.eps", (1, 2, 3))
    (tmp_path / "page.eps").rename(tmp_path / "page.png")  # Pillow would hand an EPS file to Ghostscript
    with pytest.raises(DataError, match=r"page\.png.*of no known format"):
        data.decode_image(tmp_path / "page.png", (3, 8, 8))


def test_a_jpeg_that_is_cut_short_is_named(tmp_path):
    make_folder(tmp_path)
    Image.effect_noise((64, 64), 90).save(tmp_path / "dog" / "cut.jpg")
    (tmp_path / "dog" / "cut.jpg").write_bytes((tmp_path / "dog" / "cut.jpg").read_bytes()[:-400])
    with pytest.raises(DataError, match=r"Cannot read the image in .*cut\.jpg \(.*truncated.*fix or remove it"):
        data.load(str(tmp_path))


def test_pixels_of_other_than_8_or_16_bits(tmp_path):
    Image.new("F", (4, 4), 0.5).save(tmp_path / "float.tiff")
    with pytest.raises(DataError, match="mode F, not of 8 or 16 bits"):
        data.decode_image(tmp_path / "float.tiff", (1, 4, 4))


def test_images_larger_than_memory():
    with pytest.raises(UsageError, match="Expected 1,797 images of 100000000x100000000 to fit in memory"):
        data.load("digits", image_size=10**8)


def test_a_folder_given_as_an_image_is_refused(tmp_path):
    with pytest.raises(DataError, match="is a folder: give the image files in it"):
        data.decode_image(tmp_path, (3, 8, 8))


def test_a_missing_image_and_an_input_of_5_channels_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"No file .*none\.png: check the path"):
        data.decode_image(tmp_path / "none.png", (3, 4, 4))
    with pytest.raises(DataError, match="1, 3 or 4 channels, but its input has 5"):
        data.decode_image(tmp_path / "none.png", (5, 4, 4))


def test_a_missing_training_split_is_refused(tmp_path):
    make_folder(tmp_path / "val")
    make_folder(tmp_path / "test")
    with pytest.raises(DataError, match="got validation and test alone: add a train split"):
        data.load(str(tmp_path))


def test_splits_without_a_folder_per_class_are_refused(tmp_path):
    for part in ("train", "test"):
        make_image(tmp_path / part / "0.png", (1, 2, 3))
    with pytest.raises(DataError, match=r"No folder of images per class in .*put them in .*test/CLASS/"):
        data.load(str(tmp_path))


def test_a_folder_of_images_without_classes(tmp_path):
    make_image(tmp_path / "0.png", (1, 2, 3))
    with pytest.raises(DataError, match=r"No folder of images per class in .*: put them in .*/CLASS/"):
        data.load(str(tmp_path))


def test_classes_that_the_training_split_lacks_are_refused(tmp_path):
    make_folder(tmp_path / "train")
    make_folder(tmp_path / "test", ("cat", "cow"))
    with pytest.raises(DataError, match="got cow too"):
        data.load(str(tmp_path))


def test_parquet_without_the_columns(tmp_path):
    make_parquet(tmp_path / "train-0.parquet", [0, 1], ("picture", "label"))
    with pytest.raises(DataError, match="the columns img and label"):
        data.load(str(tmp_path))


def test_a_corrupt_parquet_file(tmp_path):
    (tmp_path / "train-0.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match="Cannot read the parquet file"):
        data.load(f"cifar10:{tmp_path}")


def test_labels_out_of_range(tmp_path):
    make_parquet(tmp_path / "train-0.parquet", [0, 11] * 5)
    with pytest.raises(DataError, match="labels from 0 to 9"):
        data.load(f"cifar10:{tmp_path}")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["a", "b"] * 3, "Expected whole numbers as labels in .*, but got string"),
        ([0.0, 1.0] * 3, "but got double: number the classes"),
        ([0] * 6, "at least 2 classes .* got labels up to 0"),
        ([0, 10**9] * 3, "labels below 6, the number of images .* got 1000000000"),
        ([0, -1] * 3, "at least 2 classes"),
        ([0, None] * 3, "Some rows of .* have no image or no label"),
    ],
)
def test_invalid_labels_are_refused(tmp_path, labels, message):
    write_parquet(tmp_path / "train-0.parquet", [encoded("L", (2, 2), 0)] * 6, labels)
    with pytest.raises(DataError, match=message):
        data.load(str(tmp_path))


def test_negative_labels(tmp_path):
    write_parquet(tmp_path / "train-0.parquet", [encoded("L", (2, 2), 0)] * 6, [0, 1, -1] * 2)
    with pytest.raises(DataError, match=r"labels from 0 to 1 in .*, but got -1\.\.1"):
        data.load(str(tmp_path))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([{"bytes": None, "path": "0.png"}] * 8, "Some rows of .* have no image or no label"),
        ([{"bytes": b"no image", "path": None}] * 8, r"Cannot read the image in .*\(train\)"),
        (
            [encoded("L", (2, 2 + k // 6), 0) for k in range(8)],
            r"images of one size in .*\(train\), but got 2x2 and 3x2: give an image",
        ),
    ],
)
def test_invalid_images_are_refused(tmp_path, images, message):
    write_parquet(tmp_path / "train-0.parquet", images, [0, 1] * (len(images) // 2))
    with pytest.raises(DataError, match=message):
        data.load(str(tmp_path))


def test_parquet_without_rows(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    empty = pyarrow.table({"img": [encoded("L", (2, 2), 0)], "label": [0]}).slice(0, 0)
    parquet.write_table(empty, tmp_path / "train-0.parquet")
    with pytest.raises(DataError, match="No rows in"):
        data.load(str(tmp_path))


@pytest.mark.parametrize(
    ("package", "spec", "message"),
    [
        ("sklearn.datasets", "digits", "The digits need scikit-learn"),
        ("pyarrow", "cifar10:.", "Parquet files need pyarrow"),
    ],
)
def test_a_missing_package_is_named_with_its_install_command(tmp_path, monkeypatch, package, spec, message):
    (tmp_path / "train-0.parquet").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, package, None)  # Python's own mark for a module that cannot be imported
    with pytest.raises(UsageError, match=rf"{message}.*pip install 'pretrim\[data\]'"):
        data.load(spec)


def test_idx_files_with_mismatched_shapes_or_labels_are_refused(tmp_path):
    make_fashion(tmp_path)
    images, labels = tmp_path / "train-images-idx3-ubyte", tmp_path / "train-labels-idx1-ubyte.gz"
    labels.write_bytes(gzip.compress(images.read_bytes()))
    with pytest.raises(DataError, match="IDX file of bytes in 1 dimensions"):
        data.load(f"fashion-mnist:{tmp_path}")
    labels.write_bytes(gzip.compress(idx_bytes(np.zeros(29, dtype=np.uint8))))
    with pytest.raises(DataError, match=r"a label for each image .* but got 29 for 30"):
        data.load(f"fashion-mnist:{tmp_path}")
    labels.write_bytes(gzip.compress(idx_bytes(np.full(30, 10, dtype=np.uint8))))
    with pytest.raises(DataError, match=r"labels from 0 to 9 .* but got 10\.\.10"):
        data.load(f"fashion-mnist:{tmp_path}")
    labels.unlink()
    with pytest.raises(DataError, match=r"No train-labels-idx1-ubyte\.gz in "):
        data.load(f"fashion-mnist:{tmp_path}")


@pytest.mark.parametrize("damage", [lambda b: b[:-5], lambda b: b"\1\0\x08" + b[3:], lambda b: b[:6]])
def test_a_damaged_idx_file(tmp_path, damage):
    make_fashion(tmp_path)
    file = tmp_path / "train-images-idx3-ubyte"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(DataError, match=r"IDX file of bytes|cut short"):
        data.load(f"fashion-mnist:{tmp_path}")


def flipped(content: bytes) -> bytes:
    return content[:12] + bytes([content[12] ^ 0xFF]) + content[13:]


@pytest.mark.parametrize("damage", [lambda b: b[:-9], flipped, lambda b: b"no gzip"])
def test_a_damaged_gzip_file(tmp_path, damage):
    make_fashion(tmp_path)
    file = tmp_path / "train-labels-idx1-ubyte.gz"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(DataError, match=r"Cannot read the IDX file .*train-labels-idx1-ubyte\.gz"):
        data.load(f"fashion-mnist:{tmp_path}")


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        """Keep the test output free of request logs."""


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A server with a small Fashion-MNIST, with its checksums instead of the real ones and without Debian's copy."""
    folder = tmp_path / "server"
    folder.mkdir()
    sums = {}
    for name in fashion_mnist.FILES:
        values = np.arange(30) % 10 if "labels" in name else np.zeros((30, 28, 28))
        content = idx_bytes(values.astype(np.uint8))
        packed = gzip.compress(content)
        (folder / f"{name}.gz").write_bytes(packed)
        md5 = hashlib.md5(packed, usedforsecurity=False).hexdigest()
        sums[name] = fashion_mnist.Sums(md5, hashlib.sha256(content).hexdigest())
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    monkeypatch.setattr(fashion_mnist, "ADDRESS", f"http://127.0.0.1:{server.server_port}/")
    monkeypatch.setattr(fashion_mnist, "FILES", sums)
    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path / "nowhere")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield folder
    server.shutdown()
    server.server_close()


def test_a_download_is_checked_kept_and_not_repeated(published, tmp_path):
    announcements = []
    dataset = data.load("fashion-mnist", announce=announcements.append)
    assert len(announcements) == 1 and f"(30 MB) from {fashion_mnist.ADDRESS} to {tmp_path}" in announcements[0]
    assert len(dataset.test) == 30 and "not the published" not in dataset.source
    data.load("fashion-mnist", announce=announcements.append)
    assert len(announcements) == 1


def test_a_download_with_a_wrong_checksum_is_not_kept(published, tmp_path):
    first = published / "train-images-idx3-ubyte.gz"
    first.write_bytes(gzip.compress(b"something else"))
    with pytest.raises(DataError, match=r"published checksum for train-images-idx3-ubyte\.gz"):
        data.load("fashion-mnist", announce=lambda _: None)
    assert not list((tmp_path / "cache").rglob("*.gz"))


def test_a_download_that_is_not_found(published):
    (published / "train-images-idx3-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"nor available from the network \(File not found\): apt-get install"):
        data.load("fashion-mnist", announce=lambda _: None)


def test_a_download_is_announced_and_leaves_nothing_without_a_network(tmp_path, monkeypatch):
    monkeypatch.setattr(fashion_mnist, "ADDRESS", "http://127.0.0.1:9/")  # nothing listens on the discard port
    announcements = []
    with pytest.raises(DataError, match="apt-get install dataset-fashion-mnist"):
        fashion_mnist.download(tmp_path / "cache", announcements.append)
    assert "downloading Fashion-MNIST" in announcements[0] and not list((tmp_path / "cache").iterdir())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("validation", value) for value in (0.0, 1.5, float("nan"))),
        *(("limit", 3), ("seed", -1), ("image_size", 0), ("image_size", -1), ("channels", 2)),
    ],
)
def test_bad_options(name, value):
    with pytest.raises(UsageError, match="Expected"):
        data.load("digits", **{name: value})


def test_importing_the_package_imports_no_optional_dependency():
    code = "import sys, pretrim.data; print([m for m in ('sklearn', 'pyarrow', 'torchvision') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_photos_are_turned_upright(tmp_path: Path, suffix: str) -> None:
    """A phone held upright stores its photo sideways and records that (EXIF orientation 6: rotate it clockwise)."""
    upright = np.zeros((16, 8, 3), np.uint8)
    upright[:4] = 255  # the top is white
    exif = Image.Exif()
    exif[0x0112] = 6
    file = tmp_path / f"photo.{suffix}"
    Image.fromarray(np.rot90(upright).copy()).save(file, exif=exif)
    assert size_of(file, "here") == (16, 8)
    decoded = decode(file, "here", channels=3, size=None).astype(int)
    assert decoded.shape == (16, 8, 3) and np.abs(decoded - upright).mean() < 16


@pytest.mark.parametrize("kind", ["empty", "unlabelled"])
def test_a_split_without_classes_is_not_silently_ignored(tmp_path, kind):
    """Otherwise test images would be drawn from the training split although a folder named test exists."""
    for name in ("cat", "dog"):
        save(tmp_path / "train" / name / "0.png", 10)
    (tmp_path / "Test").mkdir()
    if kind == "unlabelled":
        save(tmp_path / "Test" / "0.png", 10)
    with pytest.raises(DataError, match=r"No folder of images per class in .*Test: sort its images by class, or move"):
        data.load(str(tmp_path))


def test_a_split_without_masks_is_not_silently_ignored(tmp_path):
    for part in ("train", "val"):
        save(tmp_path / part / "images" / "0.png", 10)
    save(tmp_path / "train" / "masks" / "0.png", 1)
    with pytest.raises(DataError, match=r"Expected images and masks in .*val, as in the other splits: add them"):
        data.load(str(tmp_path))


def save(path, grey):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8), grey).save(path)
