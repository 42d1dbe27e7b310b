"""Warnings after a training: of what was trained so, and not of what is sound; and classes that are weighed alike."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from test_train import small, tiny
from torch import nn
from torch.nn import functional

from pretrim.data import DataSet, Split, load
from pretrim.errors import UsageError
from pretrim.train import EpochRecord, Execution, Recipe, diagnose, evaluate, majority_share, train
from pretrim.train.diagnosis import still_climbing
from pretrim.train.feed import BatchSource
from pretrim.train.outputs import class_weights

HOW = Execution(device="cpu", channels_last=False, precision="float32", threads=1)


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return load("digits", image_size=8, limit=600)


def records(train_accuracies: list[float], validation: list[float | None]) -> list[EpochRecord]:
    pairs = enumerate(zip(train_accuracies, validation, strict=True), start=1)
    return [EpochRecord(number, 1.0, t, v, 0.1, 100.0, 1.0) for number, (t, v) in pairs]


def shuffled(split: Split) -> Split:
    """Labels that have nothing to do with the images."""
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(0))
    return Split(split.images, split.labels[order])


def test_a_training_that_learns_by_heart_is_said(digits: DataSet) -> None:
    """The validation labels are of other images: nothing that is learnt helps there."""
    wrong = replace(digits, validation=shuffled(digits.validation))
    training = train(small(), wrong, Recipe(epochs=6, batch_size=32, learning_rate=0.05), execution=HOW)
    assert training.epochs[-1].train_score > 0.6
    said = [text for text in training.warnings if "no better than predicting one class" in text]
    assert len(said) == 1 and "while training accuracy climbed to" in said[0]
    assert said == [text for text in training.to_json()["warnings"] if "no better" in text]
    assert training.chance == majority_share(wrong.validation.labels)


def test_a_sound_training_is_not_warned_of(digits: DataSet) -> None:
    training = train(small(), digits, Recipe(epochs=25, batch_size=32, learning_rate=0.05), execution=HOW)
    assert (training.epochs[-1].validation_score or 0) > 0.8
    assert training.warnings == ()


def test_a_training_that_ends_too_soon_is_said(digits: DataSet) -> None:
    training = train(small(), digits, Recipe(epochs=4, batch_size=64, learning_rate=0.02), execution=HOW)
    assert [text for text in training.warnings if "still climbed in the last epoch (+" in text]
    assert any("--epochs 8" in text for text in training.warnings)


def test_a_network_that_learns_nothing_is_said_too(digits: DataSet) -> None:
    training = train(small(), digits, Recipe(epochs=3, batch_size=64, learning_rate=1e-9), execution=HOW)
    assert [text for text in training.warnings if "and so is training accuracy" in text]


@pytest.mark.parametrize(
    ("curve", "said"),
    [
        ([0.2, 0.5, 0.6, 0.65], "validation accuracy still climbed in the last epoch (+5.0 points)"),
        ([0.2, 0.5, 0.6, 0.605], None),
        ([0.5, 0.6, 0.5, 0.4], None),
        ([i / 100 for i in range(50, 90)], "in the last 4 epochs (+4.0 points): train longer, e.g. --epochs 60"),
        ([0.6] * 30, None),
        ([0.5], None),
        ([], None),
    ],
)
def test_climbing_is_measured_over_the_last_tenth(curve: list[float], said: str | None) -> None:
    found = still_climbing(records(curve, list(curve)), Recipe())
    assert found is said is None or (said is not None and found is not None and said in found)
    without = still_climbing(records(curve, [None] * len(curve)), Recipe())
    assert (without is None) == (found is None)
    assert without is None or without.startswith("training accuracy still climbed")


def test_what_is_learnt_by_heart_does_not_climb() -> None:
    assert still_climbing(records([0.9, 1.0, 1.0, 0.99], [0.5, 0.6, 0.7, 0.8]), Recipe()) is None


@pytest.mark.parametrize("accuracy", [0.2, 0.3])
def test_too_few_images_to_tell_are_not_said_to_be_at_chance(accuracy: float) -> None:
    """Seven of twelve right where one class is a third may be chance: that is all that twelve images say."""
    split = Split(torch.zeros(20, 1, 1, 1, dtype=torch.uint8), torch.arange(20) % 5)
    data = replace(tiny(split), classes=tuple("abcde"), validation=split)
    (found,) = [
        text
        for text in diagnose(records([0.3, 1.0], [0.2, accuracy]), data, Recipe())
        if "predicting one class" in text
    ]
    assert ("may be no better" in found) == (accuracy > 0.2) == ("too few to tell" in found)
    assert ("learns its training images and nothing else" in found) == (accuracy <= 0.2)


@pytest.mark.parametrize(
    ("accuracy", "images", "said"),
    [
        (
            0.75,
            4,
            "(95 %: 30.1 to 95.4 %) may be no better than predicting one class (50.0 %), and so may training accuracy",
        ),
        (
            0.51,
            1000,
            "(95 %: 47.9 to 54.1 %) is not significantly better than predicting one class (50.0 %), nor is training "
            "accuracy",
        ),
        (
            0.5,
            4,
            "validation accuracy 50.0 % of 4 images is no better than predicting one class (50.0 %), and so is "
            "training",
        ),
    ],
)
def test_what_is_said_of_chance_agrees_with_its_own_figures(accuracy: float, images: int, said: str) -> None:
    """A training that learnt nothing: 75 % are not said to be no better than 50 %; of few images more are wanted."""
    split = Split(torch.zeros(images, 1, 1, 1, dtype=torch.uint8), torch.arange(images) % 2)
    data = replace(tiny(split), classes=("a", "b"), validation=split, train=split)
    (found,) = [
        text
        for text in diagnose(records([0.5, 0.5], [0.5, accuracy]), data, Recipe())
        if "predicting one class" in text
    ]
    assert said in found
    assert ("train longer" in found) == ("too few to tell" not in found) == ((accuracy, images) != (0.75, 4))


@pytest.mark.parametrize(
    ("accuracy", "images", "warned"), [(0.2, 50, True), (0.22, 50, True), (0.6, 50, False), (0.25, 10_000, False)]
)
def test_chance_is_told_by_how_many_images_there_are(accuracy: float, images: int, warned: bool) -> None:
    labels = torch.arange(images) % 5
    split = Split(torch.zeros(images, 1, 1, 1, dtype=torch.uint8), labels)
    data = replace(tiny(split), classes=tuple("abcde"), validation=split)
    found = diagnose(records([0.3, 0.7], [0.2, accuracy]), data, Recipe())
    assert any("no better than predicting one class (20.0 %)" in text for text in found) == warned


def test_the_majority_is_that_of_the_validation_images() -> None:
    """90 % accuracy are nothing where 90 % of the images are of one class."""
    labels = (torch.arange(200) % 10 == 0).long()
    split = Split(torch.zeros(200, 1, 1, 1, dtype=torch.uint8), labels)
    data = replace(tiny(split), validation=split)
    assert majority_share(labels) == 0.9
    assert any("no better" in text for text in diagnose(records([0.8, 0.9], [0.9, 0.9]), data, Recipe()))
    assert not any("no better" in text for text in diagnose(records([0.8, 0.9], [0.9, 0.97]), data, Recipe()))
    assert majority_share(labels[:0]) == 0.0


# ---------------------------------------------------------------------------------------- imbalance


def lopsided(digits: DataSet, rare: int = 6) -> DataSet:
    """Digits with few images of 7, 8 and 9 to train on."""
    labels = digits.train.labels.numpy()
    kept = [np.flatnonzero(labels == label)[: rare if label > 6 else None] for label in range(10)]
    return replace(digits, train=digits.train.take(np.sort(np.concatenate(kept))))


def test_imbalance_is_said_unless_it_is_dealt_with(digits: DataSet) -> None:
    data = lopsided(digits)
    found = diagnose([], data, Recipe())
    assert len(found) == 1 and "6 of '7'" in found[0] and "--set balance=loss" in found[0]
    assert diagnose([], data, Recipe(balance="loss")) == diagnose([], data, Recipe(balance="sampling")) == ()
    assert diagnose([], digits, Recipe()) == ()


def test_weights_are_those_of_scikit_learn(digits: DataSet) -> None:
    labels = lopsided(digits).train.labels
    wanted = compute_class_weight("balanced", classes=np.arange(10), y=labels.numpy())
    assert class_weights(labels, 10).tolist() == pytest.approx(wanted.tolist())
    assert float(class_weights(labels, 10)[labels].mean()) == pytest.approx(1.0)
    assert class_weights(torch.tensor([0, 0, 2]), 4)[[0, 2]].tolist() == [0.75, 1.5]


@pytest.mark.parametrize("accumulate", [1, 4])
def test_the_weighted_loss_is_that_of_torch(digits: DataSet, accumulate: int) -> None:
    """One step on the whole set, of which torch's own weighted mean is known."""
    data = lopsided(digits)
    count = len(data.train) // 4 * 4
    data = replace(data, train=data.train.take(np.arange(count)))
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).double()
    images = (data.train.images.double() / 255 - data.mean[0]) / data.std[0]
    weight = class_weights(data.train.labels, 10)
    wanted = float(functional.cross_entropy(model(images), data.train.labels, weight=weight).detach())
    recipe = Recipe(epochs=1, batch_size=count, crop=0, balance="loss", accumulate=accumulate)
    assert train(model, data, recipe, execution=HOW).epochs[0].train_loss == pytest.approx(wanted, rel=1e-6)


def test_balanced_sampling_draws_every_class_as_often(digits: DataSet) -> None:
    data = lopsided(digits)
    feed = BatchSource(data, Recipe(batch_size=50, balance="sampling"), torch.device("cpu"))

    def drawn(epoch: int) -> torch.Tensor:
        return torch.cat([batch.targets for step in feed.epoch(epoch) for batch in step])

    counts = torch.bincount(drawn(1), minlength=10)
    assert int(counts.max()) - int(counts.min()) <= 1 and int(counts.sum()) == feed.steps * 50
    assert torch.equal(drawn(1), drawn(1)) and not torch.equal(drawn(1), drawn(2))


def test_sampled_images_are_of_their_class() -> None:
    """Each image is its own number; its label must be the one that it has."""
    labels = torch.tensor([0] * 90 + [3] * 8 + [1] * 2)
    images = torch.arange(100, dtype=torch.uint8)[:, None, None, None].expand(100, 1, 2, 2).clone()
    data = replace(tiny(Split(images, labels)), classes=tuple("abcd"), mean=(0.0,), std=(1 / 255,))
    feed = BatchSource(data, Recipe(batch_size=100, crop=0, flip=False, balance="sampling"), torch.device("cpu"))
    seen: set[int] = set()
    for epoch in range(1, 6):
        for batch in next(iter(feed.epoch(epoch))):
            places = batch.images[:, 0, 0, 0].round().long()
            assert torch.equal(labels[places], batch.targets)
            seen |= set(places.tolist())
    assert seen >= set(range(90, 100)) and len(seen) > 80


@pytest.mark.parametrize("balance", ["loss", "sampling"])
def test_rare_classes_are_found_more_often(digits: DataSet, balance: str) -> None:
    data = lopsided(digits, rare=4)

    def rare(how: str) -> float:
        model = small()
        recipe = Recipe(epochs=10, batch_size=32, learning_rate=0.05, balance=how)  # type: ignore[arg-type]
        train(model, data, recipe, execution=HOW)
        found = evaluate(model, digits.test, digits.mean, digits.std).per_class
        return sum(value or 0.0 for value in found[7:]) / 3

    assert rare(balance) > rare("none") + 0.05


def test_another_balance_is_refused() -> None:
    with pytest.raises(UsageError, match="Expected balance to be none or loss or sampling, but got 'weights'"):
        Recipe(balance="weights")  # type: ignore[arg-type]
