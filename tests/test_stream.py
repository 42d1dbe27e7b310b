"""Streamed images are those in memory; prefetching keeps order, errors and its promise to stay ahead."""

import io
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from test_train import small

from pretrim import data
from pretrim.data import DataSet, Streamed, batches, prefetched
from pretrim.errors import DataError
from pretrim.train import Recipe, evaluate, train


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 images of three classes, brighter by class, of several sizes."""
    root = tmp_path_factory.mktemp("images")
    draws = np.random.default_rng(0)
    for label, name in enumerate(("cat", "dog", "owl")):
        (root / name).mkdir()
        for number in range(40):
            pixels = draws.integers(0, 100, (10 + number % 3, 12)) + 70 * label
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{number}.png")
    return root


def encoded(size: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((size, size), 9, dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


def in_parquet(folder: Path, sizes: list[int]) -> Path:
    rows = [{"bytes": encoded(size)} for size in sizes]
    table = pa.table({"image": rows, "label": [number % 2 for number in range(len(sizes))]})
    pq.write_table(table, folder / "train-0.parquet")
    return folder


def both(spec: str, **options: int) -> tuple[DataSet, DataSet]:
    kept, streamed = data.load(spec, **options), data.load(spec, memory=0, **options)
    assert (kept.streamed, streamed.streamed) == (False, True)
    return kept, streamed


@pytest.mark.parametrize("options", [{"image_size": 8}, {"image_size": 8, "channels": 3, "limit": 30}])
def test_a_streamed_folder_has_the_same_images(folder: Path, options: dict[str, int]) -> None:
    kept, streamed = both(str(folder), **options)
    assert kept.to_json() == streamed.to_json() and kept.input_shape == streamed.input_shape
    for one, other in zip(
        (kept.train, kept.validation, kept.test), (streamed.train, streamed.validation, streamed.test), strict=True
    ):
        assert isinstance(other.images, Streamed) and len(one) == len(other)
        assert torch.equal(one.images[:], other.images[:]) and torch.equal(one.labels, other.labels)
        places = torch.tensor([3, 0, 2])
        assert torch.equal(one.images[places], other.images[places])
        assert torch.equal(one.take(places.numpy()).images[:], other.take(places.numpy()).images[:])


def test_a_streamed_parquet_set_has_the_same_images(tmp_path: Path) -> None:
    kept, streamed = both(str(in_parquet(tmp_path, [8] * 40)))
    assert torch.equal(kept.train.images[:], streamed.train.images[:])
    assert streamed.train.images.shape == (len(kept.train), 1, 8, 8)


def test_batches_are_the_same_in_order_and_shuffled(folder: Path) -> None:
    kept, streamed = both(str(folder), image_size=8)
    for seed in (None, 4):
        generators = [None if seed is None else torch.Generator().manual_seed(seed) for _ in range(2)]
        pairs = zip(
            batches(kept.train, 32, generator=generators[0]),
            batches(streamed.train, 32, generator=generators[1]),
            strict=True,
        )
        for (images, labels), (others, their_labels) in pairs:
            assert torch.equal(images, others) and torch.equal(labels, their_labels)


def test_training_on_streamed_images_gives_the_same_network(folder: Path) -> None:
    networks = []
    for source in both(str(folder), image_size=8):
        model = small(classes=3)
        train(model, source, Recipe(epochs=3, batch_size=32, mixup=0.2))
        networks.append(model)
        assert evaluate(model, source.test, source.mean, source.std).n == len(source.test)
    assert all(torch.equal(*pair) for pair in zip(*(n.state_dict().values() for n in networks), strict=True))


def test_what_does_not_fit_is_streamed_by_its_pixels(folder: Path) -> None:
    needed = 120 * 8 * 8
    assert not data.load(str(folder), image_size=8, memory=needed).streamed
    assert data.load(str(folder), image_size=8, memory=needed - 1).streamed
    assert data.load(str(folder), image_size=8, channels=3, memory=needed).streamed


def test_a_damaged_image_is_named_when_it_is_reached(folder: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(5):
            content = (folder / "cat" / f"{number}.png").read_bytes()
            (tmp_path / name / f"{number}.png").write_bytes(content)
    streamed = data.load(str(tmp_path), image_size=8, memory=0, channels=1)
    for path in tmp_path.rglob("3.png"):
        path.write_bytes(path.read_bytes()[:60])
    every = [streamed.train, streamed.validation, streamed.test]
    with pytest.raises(DataError, match=r"Cannot read the image in .*3\.png"):
        [batch for split in every for batch in batches(split, 4)]


def test_images_of_other_sizes_are_said_when_they_are_reached(tmp_path: Path) -> None:
    """Here by the mean, which is taken from all images of so small a set."""
    where = in_parquet(tmp_path, [8] * 35 + [9] * 5)
    with pytest.raises(DataError, match=r"Expected images of one size.* but got 8x8 and 9x9: give an image size"):
        data.load(str(where), memory=0)
    images = Streamed([encoded(9), encoded(9)], "there", 1, 8, 8, resize=False)
    with pytest.raises(DataError, match=r"one size in there, but got 8x8 and 9x9: give an image size"):
        images[:]


# ---------------------------------------------------------------------------------------- prefetching


def test_prefetched_items_come_in_order_from_another_thread() -> None:
    threads = list(prefetched(lambda number: (number, threading.current_thread()), 10))
    assert [number for number, _ in threads] == list(range(10))
    assert threading.current_thread() not in {thread for _, thread in threads}
    assert list(prefetched(lambda number: number, 0)) == []


def test_items_are_fetched_before_they_are_asked_for_but_not_all() -> None:
    fetched: list[int] = []
    third = threading.Event()

    def fetch(number: int) -> int:
        fetched.append(number)
        if number == 2:
            third.set()
        return number

    items = prefetched(fetch, 100, ahead=2)
    assert next(items) == 0
    assert third.wait(timeout=10)  # without anybody asking for it
    items.close()  # type: ignore[attr-defined]
    assert fetched == [0, 1, 2]


def test_an_error_comes_in_its_place() -> None:
    def fetch(number: int) -> int:
        if number == 3:
            raise DataError("the fourth is broken")
        return number

    got = []
    with pytest.raises(DataError, match="the fourth is broken"):
        for item in prefetched(fetch, 10):
            got.append(item)
    assert got == [0, 1, 2]
