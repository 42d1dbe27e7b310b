"""Data sets: what is read, how it is split, how it is augmented, and what is said of bad data."""

import gzip
import io
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pretrim import data
from pretrim.data import fashion_mnist
from pretrim.data.images import with_channels
from pretrim.data.record import Split, statistics
from pretrim.data.split import draw
from pretrim.errors import DataError, UsageError

pyarrow = pytest.importorskip("pyarrow")
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
    """A data set of the same form: ten classes in turn, each image filled with its label."""
    labels = (np.arange(count) % 10).astype(np.uint8)
    images = np.broadcast_to(labels[:, None, None], (count, 28, 28)).copy()
    for part in ("train", "t10k"):
        (root / f"{part}-images-idx3-ubyte").write_bytes(idx_bytes(images))
        (root / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx_bytes(labels)))
    return root


def make_parquet(path: Path, labels: list[int], columns: tuple[str, str] = ("img", "label")) -> None:
    from pyarrow import parquet

    images = []
    for label in labels:
        buffer = io.BytesIO()
        Image.new("RGB", (32, 32), (label * 20, 0, 0)).save(buffer, "PNG")
        images.append({"bytes": buffer.getvalue(), "path": None})
    parquet.write_table(pyarrow.table({columns[0]: images, columns[1]: labels}), path)


# ---------------------------------------------------------------------------------------- splitting


@given(st.lists(st.integers(0, 4), min_size=15, max_size=80), st.floats(0.05, 0.5), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_a_draw_takes_the_same_share_of_every_class_and_nothing_twice(labels, share, seed):
    labels = np.array([*labels, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4])
    drawn, rest = draw(labels, share, seed)
    assert sorted([*drawn, *rest]) == list(range(len(labels)))
    for label in range(5):
        count = int((labels == label).sum())
        assert int((labels[drawn] == label).sum()) == min(max(1, round(share * count)), count - 1)


def test_the_same_seed_draws_the_same_on_every_machine():
    drawn, _ = draw(np.arange(40) % 4, 0.2, seed=7)
    assert drawn.tolist() == draw(np.arange(40) % 4, 0.2, seed=7)[0].tolist()
    assert drawn.tolist() != draw(np.arange(40) % 4, 0.2, seed=8)[0].tolist()
    assert drawn.tolist() == [6, 10, 21, 23, 24, 32, 37, 39]


def test_digits_have_three_disjoint_parts_that_make_up_the_whole():
    found = data.load("digits", image_size=8)
    assert len(found.train) + len(found.validation) + len(found.test) == 1797
    assert found.input_shape == (1, 8, 8) and found.classes == tuple("0123456789") and not found.flip
    assert "seed 0" in found.split_note and found.to_json()["sizes"]["test"] == len(found.test)


def test_digits_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    found = data.load("digits", image_size=8)
    ours = sorted(
        tuple(x.flatten().tolist()) for part in (found.train, found.validation, found.test) for x in part.images
    )
    theirs = sorted(tuple(np.rint(x.ravel() * 255 / 16).astype(int).tolist()) for x in load_digits().images)
    assert ours == theirs


def test_a_limit_keeps_every_class():
    found = data.load("digits", image_size=8, limit=50)
    assert 40 <= len(found.train) <= 60 and len(found.train.labels.unique()) == 10


def test_the_statistics_are_numpys():
    images = torch.randint(0, 256, (20, 3, 5, 5), dtype=torch.uint8)
    mean, std = statistics(images)
    scaled = images.numpy() / 255.0
    np.testing.assert_allclose(mean, scaled.mean(axis=(0, 2, 3)), atol=1e-6)
    np.testing.assert_allclose(std, scaled.std(axis=(0, 2, 3)), atol=1e-6)


# ---------------------------------------------------------------------------------------- sources


def test_fashion_mnist_is_padded_to_32_and_labels_follow_their_images(tmp_path):
    found = data.load(f"fashion-mnist:{make_fashion(tmp_path)}")
    assert found.input_shape == (1, 32, 32) and found.classes[9] == "Ankle boot"
    assert (found.test.images[:, 0, 16, 16] == found.test.labels).all()
    assert (found.test.images[:, 0, :2] == 0).all()


def test_a_folder_of_idx_files_is_recognised(tmp_path):
    assert data.load(str(make_fashion(tmp_path)), image_size=28).input_shape == (1, 28, 28)


@needs_debian
def test_debians_fashion_mnist_is_the_published_one():
    import hashlib

    for name, expected in fashion_mnist.FILES.items():
        raw = gzip.decompress((fashion_mnist.DEBIAN / f"{name}.gz").read_bytes())
        assert len(raw) > 10_000, name
        assert len(expected) == len(hashlib.md5(raw, usedforsecurity=False).hexdigest())
    found = data.load("fashion-mnist", limit=100)
    assert (len(found.validation), len(found.test)) == (6000, 10000)
    assert torch.bincount(found.test.labels).tolist() == [1000] * 10


def test_parquet_in_the_layout_of_the_hub(tmp_path):
    make_parquet(tmp_path / "train-00000-of-00002.parquet", list(range(10)) * 2)
    make_parquet(tmp_path / "train-00001-of-00002.parquet", [9, *range(9)] * 2)
    make_parquet(tmp_path / "test-00000-of-00001.parquet", [4])
    (tmp_path / "README.md").write_text("# CIFAR-10, a copy\n\nmore")
    found = data.load(f"cifar10:{tmp_path}")
    assert len(found.test) == 1 and found.classes[4] == "deer" and found.source.startswith("CIFAR-10, a copy")
    assert len(found.train) + len(found.validation) == 40
    assert (found.train.images[:, 0, 0, 0] == found.train.labels * 20).all()


def test_a_folder_with_a_folder_per_class(tmp_path):
    found = data.load(str(make_folder(tmp_path / "pets")), image_size=16)
    assert found.classes == ("cat", "dog") and found.input_shape == (3, 16, 16)
    assert len(found.train) + len(found.validation) + len(found.test) == 12


def test_parts_that_a_folder_brings_are_kept(tmp_path):
    for part, count in (("train", 5), ("val", 2), ("test", 3)):
        make_folder(tmp_path / part, count=count)
    found = data.load(str(tmp_path), image_size=8, channels=1)
    assert [len(part) for part in (found.train, found.validation, found.test)] == [10, 4, 6]
    assert found.input_shape == (1, 8, 8) and "as the data set brings them" in found.split_note


def test_an_image_is_resized_by_its_shorter_side_and_its_centre_cropped(tmp_path):
    image = Image.new("RGB", (40, 20), (0, 0, 0))
    image.paste((255, 255, 255), (10, 0, 30, 20))
    image.save(tmp_path / "wide.png")
    pixels = data.decode_image(tmp_path / "wide.png", (3, 10, 10))
    assert pixels.shape == (3, 10, 10) and pixels[:, :, 1:-1].min() > 250


def test_grey_and_colour_become_each_other():
    grey = torch.randint(0, 256, (2, 1, 4, 4), dtype=torch.uint8)
    assert (with_channels(with_channels(grey, 3), 1).int() - grey.int()).abs().max() <= 1


# ---------------------------------------------------------------------------------------- augmentation, batches


def test_crops_and_flips_are_those_of_a_loop_over_images():
    images = torch.randint(0, 256, (50, 3, 9, 7), dtype=torch.uint8)
    found = data.random_crop_flip(images, torch.Generator().manual_seed(3), padding=2)
    padded = torch.nn.functional.pad(images, (2, 2, 2, 2))
    places = set()
    for image, whole in zip(found, padded, strict=True):
        crops = {(y, x): whole[:, y : y + 9, x : x + 7] for y in range(5) for x in range(5)}
        here = {(y, x, f) for (y, x), c in crops.items() for f in (0, 1) if torch.equal(image, c.flip(2) if f else c)}
        assert here
        places |= here
    assert len({p[2] for p in places}) == 2 and len({p[:2] for p in places}) > 10


def test_without_flip_nothing_is_mirrored_and_the_generator_decides():
    images = torch.arange(2 * 6 * 6).reshape(2, 1, 6, 6)
    first = data.random_crop_flip(images, torch.Generator().manual_seed(1), padding=0, flip=False)
    assert torch.equal(first, images)
    again = [data.random_crop_flip(images, torch.Generator().manual_seed(5), padding=2) for _ in range(2)]
    assert torch.equal(*again)


def test_normalise_against_numpy():
    images = torch.randint(0, 256, (4, 2, 3, 3), dtype=torch.uint8)
    found = data.normalise(images, (0.4, 0.5), (0.2, 0.3)).numpy()
    expected = (images.numpy() / 255 - np.array([0.4, 0.5])[:, None, None]) / np.array([0.2, 0.3])[:, None, None]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_batches_give_every_image_once():
    split = Split(torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1), torch.arange(10))
    shuffled = list(data.batches(split, 4, generator=torch.Generator().manual_seed(0)))
    assert [len(labels) for _, labels in shuffled] == [4, 4, 2]
    together = torch.cat([labels for _, labels in shuffled])
    assert sorted(together.tolist()) == list(range(10)) and together.tolist() != list(range(10))
    assert all((images.flatten() == labels).all() for images, labels in shuffled)


# ---------------------------------------------------------------------------------------- bad data


@pytest.mark.parametrize(
    ("spec", "kind", "said"),
    [
        ("fashon-mnist", UsageError, "Did you mean fashion-mnist"),
        ("cifar10", UsageError, "write cifar10:FOLDER"),
        ("cifar10:nowhere", DataError, "nowhere is not one"),
    ],
)
def test_a_wrong_name_says_what_was_expected(spec, kind, said):
    with pytest.raises(kind, match=said):
        data.load(spec)


def test_an_empty_folder(tmp_path):
    with pytest.raises(DataError, match="the folder is empty"):
        data.load(str(tmp_path))


def test_a_folder_with_one_class(tmp_path):
    with pytest.raises(DataError, match=r"at least 2 classes .* got one \(cat\)"):
        data.load(str(make_folder(tmp_path, ("cat",))))


def test_too_few_images_to_split(tmp_path):
    with pytest.raises(DataError, match="'cat' has 2"):
        data.load(str(make_folder(tmp_path, count=2)))


def test_a_corrupt_image_is_named(tmp_path):
    make_folder(tmp_path)
    (tmp_path / "cat" / "bad.png").write_bytes(b"not an image")
    with pytest.raises(DataError, match=r"cat.bad\.png"):
        data.load(str(tmp_path))


def test_other_classes_in_a_part(tmp_path):
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
    with pytest.raises(DataError, match="Expected a parquet file"):
        data.load(f"cifar10:{tmp_path}")


def test_labels_out_of_range(tmp_path):
    make_parquet(tmp_path / "train-0.parquet", [0, 11] * 5)
    with pytest.raises(DataError, match="labels from 0 to 9"):
        data.load(f"cifar10:{tmp_path}")


@pytest.mark.parametrize("damage", [lambda b: b[:-5], lambda b: b"\1\0\x08" + b[3:], lambda b: b[:6]])
def test_a_damaged_idx_file(tmp_path, damage):
    make_fashion(tmp_path)
    file = tmp_path / "train-images-idx3-ubyte"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(DataError, match=r"IDX file of bytes|cut short"):
        data.load(f"fashion-mnist:{tmp_path}")


def test_a_damaged_gzip_file(tmp_path):
    make_fashion(tmp_path)
    file = tmp_path / "train-labels-idx1-ubyte.gz"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(DataError, match="cannot be read"):
        data.load(f"fashion-mnist:{tmp_path}")


def test_a_download_is_announced_and_leaves_nothing_without_a_network(tmp_path, monkeypatch):
    monkeypatch.setattr(fashion_mnist, "ADDRESS", "http://127.0.0.1:9/")  # nothing listens on the discard port
    said = []
    with pytest.raises(DataError, match="apt-get install dataset-fashion-mnist"):
        fashion_mnist.download(tmp_path / "cache", said.append)
    assert "downloading Fashion-MNIST" in said[0] and not list((tmp_path / "cache").iterdir())


@pytest.mark.parametrize(("name", "value"), [("validation", 0.0), ("validation", 1.5), ("limit", 3)])
def test_bad_options(name, value):
    with pytest.raises(UsageError, match="Expected"):
        data.load("digits", image_size=8, **{name: value})


def test_importing_the_package_imports_no_optional_one():
    code = "import sys, pretrim.data; print([m for m in ('sklearn', 'pyarrow') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
