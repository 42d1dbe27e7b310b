"""Torch data sets and loaders of one's own: the images and labels that they give are those that are trained on."""

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
    random_split,
)

import pretrim
from pretrim.data.items import Items, kept_labels, labels_of
from pretrim.data.own import from_torch
from pretrim.errors import DataError, PretrimError, UsageError
from pretrim.models import zoo

COUNT, SIDE = 20, 8
QUICK: dict[str, Any] = {"macs": "0.5x", "epochs": 1, "batch_size": 10, "threads": 1, "train_on": "cpu"}


class Numbered(Dataset[tuple[torch.Tensor, int]]):
    """uint8 images that are all of one value, their number; the class is whether it is odd."""

    classes = ("even", "odd")

    def __init__(self, count: int = COUNT) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, place: int) -> tuple[torch.Tensor, int]:
        if not -self.count <= place < self.count:
            raise IndexError(place)
        return torch.full((1, SIDE, SIDE), place, dtype=torch.uint8), place % 2


def network(outputs: int = 2) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, outputs))


def floats(count: int = COUNT, seed: int = 0) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    return TensorDataset(torch.rand(count, 1, SIDE, SIDE, generator=generator), torch.arange(count) % 2)


def numbers(loader: Any) -> set[int]:
    """The images that a loader stands for, as the test part of the data."""
    return set(from_torch((Numbered(), loader)).test.images[:][:, 0, 0, 0].tolist())


PARTS: dict[str, Callable[[], DataLoader[Any]]] = {
    "all": lambda: DataLoader(Numbered(), 7),
    "shuffled": lambda: DataLoader(Numbered(), 7, shuffle=True, drop_last=True),
    "one by one": lambda: DataLoader(Numbered(), batch_size=None),
    "sequential": lambda: DataLoader(Numbered(), 7, sampler=SequentialSampler(Numbered())),
    "sequential, of the first": lambda: DataLoader(Numbered(), 7, sampler=SequentialSampler(range(5))),
    "random": lambda: DataLoader(Numbered(), 7, sampler=RandomSampler(Numbered(), num_samples=COUNT)),
    "distributed": lambda: DataLoader(Numbered(), 7, sampler=DistributedSampler(Numbered(), 2, 1)),
    "subset": lambda: DataLoader(Numbered(), 7, sampler=SubsetRandomSampler([3, 4, 19])),
    "subset by a tensor": lambda: DataLoader(Numbered(), 7, sampler=SubsetRandomSampler(torch.tensor([3, 4]))),
    "a list": lambda: DataLoader(Numbered(), 7, sampler=[5, 1]),
    "a range": lambda: DataLoader(Numbered(), 7, sampler=range(5, 9)),
    "a range of as many": lambda: DataLoader(Numbered(), 7, sampler=range(COUNT - 1, -1, -1)),
    "an array": lambda: DataLoader(Numbered(), 7, sampler=np.array([2, 0])),
    "torch's batches of a subset": lambda: DataLoader(
        Numbered(), batch_sampler=BatchSampler(SubsetRandomSampler([3, 4, 19]), 2, False)
    ),
    "a subset of a subset": lambda: DataLoader(Subset(Numbered(), [4, 5, 6]), 2, sampler=SubsetRandomSampler([0, 2])),
}


@pytest.mark.parametrize("kind", PARTS)
def test_a_loader_stands_for_the_images_that_it_gives(kind: str) -> None:
    loader = PARTS[kind]()
    given = set(np.concatenate([np.atleast_1d(batch[0][..., 0, 0, 0].numpy()) for batch in loader]).tolist())
    whole = loader.drop_last or isinstance(loader.sampler, DistributedSampler)  # what is left out varies, or is shared
    assert numbers(loader) == (set(range(COUNT)) if whole else given)


def test_one_data_set_divided_by_samplers_is_trained_and_tested_on_different_images(tmp_path: Path) -> None:
    order = torch.randperm(COUNT, generator=torch.Generator().manual_seed(0)).tolist()
    parts = [DataLoader(floats(), 4, sampler=SubsetRandomSampler(some)) for some in (order[:12], order[12:])]
    run = pretrim.compress(network(), parts, output=tmp_path / "run", **QUICK)
    assert run.data is not None and run.record is not None
    data = run.data
    assert run.record.data["sizes"] == {"train": 10, "validation": 2, "test": 8}  # type: ignore[index]
    assert run.record.data["source"] == "your own data (TensorDataset)"  # type: ignore[index]
    test = floats().tensors[0][order[12:]]
    assert torch.equal(data.test.images[:], test)
    trained = torch.cat([data.train.images[:], data.validation.images[:]])
    assert not any(torch.equal(one, other) for one in trained for other in test)
    assert run.evaluate(parts).images == 8


class OwnSampler(Sampler[int]):
    def __iter__(self) -> Iterator[int]:
        return iter([0, 0, 1])

    def __len__(self) -> int:
        return 3


class Reversed(SequentialSampler):
    def __iter__(self) -> Iterator[int]:
        return iter(range(5))


class OwnBatches(BatchSampler):
    def __iter__(self) -> Iterator[list[int]]:
        return iter([[0, 0]])


class OwnLoader(DataLoader[Any]):
    def __iter__(self) -> Any:
        return ((images * 2, labels) for images, labels in super().__iter__())


def own_collate(items: Any) -> Any:
    images, labels = default_collate(items)
    return images / 255, labels


class Prefetching:
    """As timm's: it holds a loader, and moves and normalises what comes out of it."""

    def __init__(self, loader: DataLoader[Any]) -> None:
        self.loader, self.dataset = loader, loader.dataset

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Any:
        return iter(self.loader)


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "weighted": (
        lambda: DataLoader(Numbered(), 4, sampler=WeightedRandomSampler([1.0] * COUNT, COUNT)),
        r"but got a WeightedRandomSampler: give .*loader\.dataset\), and for classes .* set=\{'balance': 'sampling'\}",
    ),
    "with replacement": (
        lambda: DataLoader(Numbered(), 4, sampler=RandomSampler(Numbered(), replacement=True)),
        "but got a RandomSampler with replacement=True: give the data set",
    ),
    "some of them": (
        lambda: DataLoader(Numbered(), 4, sampler=RandomSampler(Numbered(), num_samples=5)),
        "but got a RandomSampler with num_samples=5: give the data set",
    ),
    "twice, once from the end": (
        lambda: DataLoader(Numbered(), 4, sampler=SubsetRandomSampler([COUNT - 1, 0, -1])),
        "but its SubsetRandomSampler yields an image twice",
    ),
    "twice": (
        lambda: DataLoader(Numbered(), 4, sampler=SubsetRandomSampler([1, 2, 1])),
        "but its SubsetRandomSampler yields an image twice",
    ),
    "unknown": (lambda: DataLoader(Numbered(), 4, sampler=OwnSampler()), "takes each image once, but got a OwnSampler"),
    "derived": (lambda: DataLoader(Numbered(), 4, sampler=Reversed(Numbered())), "but got a Reversed"),
    "batches": (
        lambda: DataLoader(Numbered(), batch_sampler=OwnBatches(SequentialSampler(Numbered()), 2, False)),
        "without a batch_sampler of its own, but got a OwnBatches",
    ),
    "a list of batches": (lambda: DataLoader(Numbered(), batch_sampler=[[0, 1], [1, 2]]), "but got a list"),
    "collate": (lambda: DataLoader(Numbered(), 4, collate_fn=own_collate), "without a collate_fn"),
    "derived loader": (lambda: OwnLoader(Numbered(), 4), "torch's own class, but got a OwnLoader, which may change"),
    "another library's": (
        lambda: Prefetching(DataLoader(Numbered(), 4)),
        r"but got a Prefetching: give its data set \(loader\.dataset\)",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_a_loader_makes_of_its_data_set_otherwise_is_refused(tmp_path: Path, kind: str) -> None:
    made, said = REFUSED[kind]
    for parts in ((made(), Numbered()), (Numbered(), made())):
        with pytest.raises(UsageError, match=said) as caught:
            pretrim.compress(network(), parts, output=tmp_path / "run", **QUICK)
        assert "\n" not in str(caught.value) and "loader.dataset" in str(caught.value)
        assert not (tmp_path / "run").exists()


@pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is not installed")
def test_a_loader_of_timm_is_taken_by_its_data_set() -> None:
    """Its fast_collate and its PrefetchLoader normalise; the data set that it made ready has uint8 arrays."""
    zoo.timm()
    from timm.data import create_loader

    class Pictures(Dataset[Any]):
        transform: Any = None

        def __len__(self) -> int:
            return COUNT

        def __getitem__(self, place: int) -> Any:
            return self.transform(Image.new("RGB", (SIDE, SIDE), (place, 0, 0))), place % 2

    given: dict[str, Any] = {"batch_size": 4, "num_workers": 0, "device": torch.device("cpu")}
    loader = create_loader(Pictures(), (3, SIDE, SIDE), is_training=False, **given)
    with pytest.raises(UsageError, match=r"PrefetchLoader: give its data set \(loader\.dataset\)"):
        from_torch((loader, loader))
    data = from_torch((loader.dataset, loader.dataset))
    assert data.test.images[:].dtype == torch.uint8 and data.input_shape == (3, SIDE, SIDE)
    plain = create_loader(Pictures(), (3, SIDE, SIDE), is_training=True, use_prefetcher=False, **given)
    assert len(from_torch((plain, plain)).test) == COUNT


# ------------------------------------------------------------------------------------ labels


class Digits(Dataset[tuple[Any, int]]):
    """As torchvision's: ``targets`` are kept as they are stored, and changed when an item is asked for."""

    def __init__(self, change: Callable[[int], int] | None = None, *, is_float: bool = True) -> None:
        self.targets = [place % 10 for place in range(COUNT)]
        self.target_transform, self.is_float = change, is_float

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, place: int) -> tuple[Any, int]:
        image = torch.full((1, SIDE, SIDE), place)
        label = self.targets[place]
        return (
            image / 10 if self.is_float else image.to(torch.uint8),
            self.target_transform(label) if self.target_transform is not None else label,
        )


class Remapped(Digits):
    """A subclass that joins two classes, of which the second one is rare."""

    def __getitem__(self, place: int) -> tuple[Any, int]:
        image, label = super().__getitem__(place)
        return image, 0 if place == 13 else label


def halved(label: int) -> int:
    return label % 2


@pytest.mark.parametrize("is_float", [True, False])
@pytest.mark.parametrize(
    "divided",
    [
        lambda dataset: dataset,
        lambda dataset: Subset(dataset, [9, 3, 4, 13]),
        lambda dataset: Subset(Subset(dataset, range(2, 20)), [0, 11, 17]),
        lambda dataset: random_split(dataset, [15, 5], generator=torch.Generator().manual_seed(0))[0],
        lambda dataset: ConcatDataset([dataset, Subset(dataset, [1, 13])]),
        lambda dataset: DataLoader(dataset, 4, sampler=SubsetRandomSampler([13, 12, 11])),
    ],
)
@pytest.mark.parametrize("made", [lambda **how: Digits(halved, **how), Remapped, Digits])
def test_labels_are_those_that_items_have(made: Any, divided: Any, is_float: bool) -> None:
    part = divided(made(is_float=is_float))
    found = from_torch((part, part, part))
    items = part.dataset if isinstance(part, DataLoader) else part
    places = part.sampler.indices if isinstance(part, DataLoader) else range(len(items))  # type: ignore[attr-defined]
    assert found.test.labels.tolist() == [items[place][1] for place in places]


@pytest.mark.skipif(importlib.util.find_spec("torchvision") is None, reason="torchvision is not installed")
def test_the_labels_of_torchvision_are_taken_without_reading_every_image(tmp_path: Path) -> None:
    zoo.torchvision()
    from torchvision.datasets import ImageFolder

    asked: list[int] = []

    def transform(image: Image.Image) -> torch.Tensor:
        asked.append(1)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255

    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for number in range(150):
            Image.new("RGB", (4, 4)).save(tmp_path / name / f"{number}.png")
    photos = ImageFolder(tmp_path, transform=transform)
    half = ConcatDataset([Subset(photos, range(0, 300, 2)), Subset(photos, range(1, 300, 2))])
    labels = labels_of(Items(half, "training"))
    assert labels.tolist() == ([0] * 75 + [1] * 75) * 2 and len(asked) < 80
    photos.target_transform = lambda label: 1 - label
    assert kept_labels(photos) is None and labels_of(Items(photos, "training"))[0] == 1
    photos.target_transform, photos.targets = None, [0] * 300  # items have those of `samples`
    assert labels_of(Items(photos, "training")).tolist() == [0] * 150 + [1] * 150


def test_a_divided_data_set_has_the_names_of_the_whole() -> None:
    data = from_torch(random_split(Numbered(), [12, 8], generator=torch.Generator().manual_seed(0)))
    assert data.classes == ("even", "odd") and data.source == "your own data (Numbered)"


# ------------------------------------------------------------------------------------ items


class ItemsOf(Dataset[Any]):
    """Whatever a function gives for each number."""

    def __init__(self, give: Callable[[int], Any]) -> None:
        self.give = give

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, place: int) -> Any:
        return self.give(place)


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(())

    def __len__(self) -> int:
        return COUNT


def broken(place: int) -> Any:
    if place == 7:
        raise OSError("image file is truncated\n(4 bytes)")
    return torch.rand(1, SIDE, SIDE), place % 2


def spoilt(value: float) -> Callable[[int], Any]:
    def give(place: int) -> Any:
        image = torch.rand(1, SIDE, SIDE)
        image[0, 3, 3] = value if place == 11 else 0.5
        return image, place % 2

    return give


WRONG: dict[str, tuple[Any, type[PretrimError], str]] = {
    "a stream": (Stream(), UsageError, "by number, but got a Stream: an iterable data set has no length and no index"),
    "a loader of a stream": (DataLoader(Stream(), 4), UsageError, "but got a Stream: an iterable data set"),
    "three parts": (
        ItemsOf(lambda place: (torch.rand(1, 8, 8), 0, place)),
        DataError,
        r"^Expected items \(image, label\), but item 0 of the training data has 3 parts: .* __getitem__ returns those",
    ),
    "a dict": (ItemsOf(lambda place: {"image": 1}), DataError, "item 0 of the training data is a dict: give"),
    "an error": (
        ItemsOf(broken),
        DataError,
        r"^Cannot read item 7 of the training data \(OSError: image file is truncated\): fix the item",
    ),
    "an error in a part": (
        DataLoader(ItemsOf(broken), 4, sampler=SubsetRandomSampler([3, 7])),
        DataError,
        "Cannot read item 7 of the training data",
    ),
    "NaN": (
        ItemsOf(spoilt(float("nan"))),
        DataError,
        "^Expected finite images, but item 11 of the training data holds NaN or infinity: fix",
    ),
    "infinity": (ItemsOf(spoilt(float("inf"))), DataError, "item 11 of the training data holds NaN or infinity"),
    "other shapes": (
        ItemsOf(lambda place: (torch.rand(1, 8, 8 + (place == 5)), place % 2)),
        DataError,
        "but got 1x8x8 and, in item 5 of the training data, 1x8x9: resize",
    ),
    "other shapes of pixels": (
        ItemsOf(lambda place: (Image.new("L", (8 + (place == 5), 8)), place % 2)),
        DataError,
        "but got 1x8x8 and, in item 5 of the training data, 1x8x9: resize",
    ),
    "whole numbers": (
        ItemsOf(lambda place: (np.zeros((1, 8, 8), np.int64), 0)),
        DataError,
        "but item 0 of the training data has an int64 array of 1x8x8",
    ),
    "two kinds": (
        ItemsOf(lambda place: (Image.new("L", (8, 8)) if place == 5 else torch.rand(1, 8, 8), place % 2)),
        DataError,
        "as in the first one, but item 5 of the training data has a PIL image: give one kind",
    ),
    "one-hot": (
        ItemsOf(lambda place: (torch.rand(1, 8, 8), torch.eye(2)[place % 2])),
        DataError,
        "class number as the label of item 0 of the training data, but got a float32 tensor of 2",
    ),
    "half a class": (ItemsOf(lambda place: (torch.rand(1, 8, 8), 0.5)), DataError, r"item 0 .*, but got 0\.5\.$"),
    "no class": (ItemsOf(lambda place: (torch.rand(1, 8, 8), float("inf"))), DataError, "item 0 .*, but got inf"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_wrong_with_items_is_one_line_that_names_the_item(tmp_path: Path, kind: str) -> None:
    dataset, error, said = WRONG[kind]
    with pytest.raises(error, match=said) as caught:
        pretrim.compress(network(), (dataset, floats(), floats()), output=tmp_path / "run", **QUICK)
    assert "\n" not in str(caught.value)


def test_the_error_of_an_item_is_kept() -> None:
    with pytest.raises(DataError) as caught:
        from_torch((floats(), ItemsOf(broken)))
    assert "of the test data" in str(caught.value) and isinstance(caught.value.__cause__, OSError)


@pytest.mark.parametrize("part", [0, 1, 2])
def test_images_that_are_not_finite_are_told_in_every_part(tmp_path: Path, part: int) -> None:
    parts = [floats(seed=seed) for seed in range(3)]
    parts[part].tensors[0][4, 0, 0, 0] = torch.inf
    with pytest.raises(DataError, match=rf"item 4 of the {('training', 'validation', 'test')[part]} data holds NaN"):
        pretrim.compress(network(), parts, output=tmp_path / "run", **QUICK)


@pytest.mark.parametrize("model", ["resnet20", nn.Sequential(nn.Conv2d(16, 8, 3), nn.Flatten())])
def test_arrays_with_their_channels_last_are_refused(tmp_path: Path, model: Any) -> None:
    """Networks whose builder takes the number of channels would be built for 16 of them, and trained."""
    pairs = [(np.full((16, 16, 3), n, dtype=np.uint8), n % 2) for n in range(40)]
    with pytest.raises(DataError, match=r"item 0 of the training data has a uint8 array .*\. Did you mean 3x16x16\?$"):
        pretrim.compress(model, (pairs, pairs), output=tmp_path / "run", macs="0.5x")
    floats = [(torch.from_numpy(image / 255.0), label) for image, label in pairs]
    with pytest.raises(UsageError, match=r"Did you mean 3x16x16\?$"):
        pretrim.compress("resnet20", (floats, floats), output=tmp_path / "run", macs="0.5x")
    assert not (tmp_path / "run").exists()


def test_arrays_are_images_as_tensors_are() -> None:
    images = np.random.default_rng(0).random((COUNT, 1, SIDE, SIDE)).astype(np.float64)
    found = from_torch([ItemsOf(lambda place: (images[place, :, :, ::-1], place % 2))] * 2).test
    assert found.images[:].dtype == torch.float32
    assert np.allclose(found.images[:].numpy(), images[..., ::-1])
    levels = (images * 255).astype(np.uint8)
    held = from_torch([ItemsOf(lambda place: (levels[place, :, ::-1], place % 2))] * 2).test
    assert np.array_equal(held.images[:].numpy(), levels[:, :, ::-1])


# ------------------------------------------------------------------------------------ what the network says of them


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_targets_that_are_not_finite_are_told(tmp_path: Path, value: float) -> None:
    def part(count: int, place: int | None = None) -> TensorDataset:
        targets = torch.rand(count, 2)
        if place is not None:
            targets[place, 1] = value
        return TensorDataset(torch.rand(count, 1, SIDE, SIDE), targets)

    given: dict[str, Any] = {"task": "regression", "output": tmp_path / "run", **QUICK}
    with pytest.raises(PretrimError, match=r"but got .*: 1 training targets hold NaN or infinity, keep them out"):
        pretrim.compress(network(), (part(COUNT, 12), part(COUNT), part(COUNT)), **given)
    with pytest.raises(PretrimError, match=r"on new weights, but got .*: targets hold NaN or infinity, correct them"):
        pretrim.compress(network(), (part(COUNT, 2), part(COUNT), part(COUNT)), overwrite=True, **given)


def test_a_network_of_other_classes_than_the_data_is_told_so(tmp_path: Path) -> None:
    for outputs in (1, 1000):
        said = (
            rf"Expected the model to return 2 .* but got {outputs}: the data have 2 classes\. Build .*\(num_classes=2\)"
        )
        with pytest.raises(PretrimError, match=said):
            pretrim.compress(network(outputs), (floats(), floats()), output=tmp_path / "run", overwrite=True, **QUICK)
