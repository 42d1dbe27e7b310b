"""Streamed images equal images in memory; prefetching keeps the order, passes errors on and stays ahead."""

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
    """120 images of several sizes in three classes that differ in brightness."""
    root = tmp_path_factory.mktemp("images")
    draws = np.random.default_rng(0)
    for label, name in enumerate(("cat", "dog", "owl")):
        (root / name).mkdir()
        for number in range(40):
            pixels = draws.integers(0, 100, (10 + number % 3, 12)) + 70 * label
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{number}.png")
    return root


def png(size: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((size, size), 9, dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


def write_parquet(folder: Path, sizes: list[int]) -> Path:
    rows = [{"bytes": png(size)} for size in sizes]
    table = pa.table({"image": rows, "label": [number % 2 for number in range(len(sizes))]})
    pq.write_table(table, folder / "train-0.parquet")
    return folder


def load_both(spec: str, **options: int) -> tuple[DataSet, DataSet]:
    in_memory, streamed = data.load(spec, **options), data.load(spec, memory=0, **options)
    assert (in_memory.streamed, streamed.streamed) == (False, True)
    return in_memory, streamed


@pytest.mark.parametrize("options", [{"image_size": 8}, {"image_size": 8, "channels": 3, "limit": 30}])
def test_a_streamed_folder_has_the_same_images(folder: Path, options: dict[str, int]) -> None:
    in_memory, streamed = load_both(str(folder), **options)
    assert in_memory.to_json() == streamed.to_json() and in_memory.input_shape == streamed.input_shape
    for split, lazy in zip(
        (in_memory.train, in_memory.validation, in_memory.test),
        (streamed.train, streamed.validation, streamed.test),
        strict=True,
    ):
        assert isinstance(lazy.images, Streamed) and len(split) == len(lazy)
        assert torch.equal(split.images[:], lazy.images[:]) and torch.equal(split.labels, lazy.labels)
        indices = torch.tensor([3, 0, 2])
        assert torch.equal(split.images[indices], lazy.images[indices])
        assert torch.equal(split.take(indices.numpy()).images[:], lazy.take(indices.numpy()).images[:])


def test_a_streamed_parquet_set_has_the_same_images(tmp_path: Path) -> None:
    in_memory, streamed = load_both(str(write_parquet(tmp_path, [8] * 40)))
    assert torch.equal(in_memory.train.images[:], streamed.train.images[:])
    assert streamed.train.images.shape == (len(in_memory.train), 1, 8, 8)


def test_batches_are_the_same_in_order_and_shuffled(folder: Path) -> None:
    in_memory, streamed = load_both(str(folder), image_size=8)
    for seed in (None, 4):
        generators = [None if seed is None else torch.Generator().manual_seed(seed) for _ in range(2)]
        pairs = zip(
            batches(in_memory.train, 32, generator=generators[0]),
            batches(streamed.train, 32, generator=generators[1]),
            strict=True,
        )
        for (images, labels), (streamed_images, streamed_labels) in pairs:
            assert torch.equal(images, streamed_images) and torch.equal(labels, streamed_labels)


def test_training_on_streamed_images_gives_the_same_network(folder: Path) -> None:
    networks = []
    for source in load_both(str(folder), image_size=8):
        model = small(classes=3)
        train(model, source, Recipe(epochs=3, batch_size=32, mixup=0.2))
        networks.append(model)
        assert evaluate(model, source.test, source.mean, source.std).n == len(source.test)
    assert all(torch.equal(*pair) for pair in zip(*(n.state_dict().values() for n in networks), strict=True))


def test_images_that_do_not_fit_into_memory_are_streamed(folder: Path) -> None:
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
    splits = [streamed.train, streamed.validation, streamed.test]
    with pytest.raises(DataError, match=r"Cannot read the image in .*3\.png"):
        [batch for split in splits for batch in batches(split, 4)]


def test_images_of_different_sizes_are_an_error_when_they_are_reached(tmp_path: Path) -> None:
    """Loading reaches them when it computes the mean, which uses all images of such a small set."""
    source = write_parquet(tmp_path, [8] * 35 + [9] * 5)
    with pytest.raises(DataError, match=r"Expected images of one size.* but got 8x8 and 9x9: give an image size"):
        data.load(str(source), memory=0)
    images = Streamed([png(9), png(9)], "there", 1, 8, 8, resize=False)
    with pytest.raises(DataError, match=r"one size in there, but got 8x8 and 9x9: give an image size"):
        images[:]


# ---------------------------------------------------------------------------------------- prefetching


def test_prefetched_items_come_in_order_from_another_thread() -> None:
    threads = list(prefetched(lambda number: (number, threading.current_thread()), 10))
    assert [number for number, _ in threads] == list(range(10))
    assert threading.current_thread() not in {thread for _, thread in threads}
    assert list(prefetched(lambda number: number, 0)) == []


def test_a_limited_number_of_items_is_fetched_ahead() -> None:
    fetched: list[int] = []
    third = threading.Event()

    def fetch(number: int) -> int:
        fetched.append(number)
        if number == 2:
            third.set()
        return number

    items = prefetched(fetch, 100, ahead=2)
    assert next(items) == 0
    assert third.wait(timeout=10)  # although it was not requested
    items.close()  # type: ignore[attr-defined]
    assert fetched == [0, 1, 2]


def test_an_error_is_raised_after_the_items_before_it() -> None:
    def fetch(number: int) -> int:
        if number == 3:
            raise DataError("the fourth is broken")
        return number

    items = []
    with pytest.raises(DataError, match="the fourth is broken"):
        for item in prefetched(fetch, 10):
            items.append(item)
    assert items == [0, 1, 2]
