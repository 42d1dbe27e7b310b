"""Tests of training: schedules and losses by hand, unusual outputs, repeatability, and that networks learn."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from pretrim.data import DataSet, Split, load, normalise
from pretrim.errors import DataError, ModelError, PretrimError, UsageError
from pretrim.train import (
    Classification,
    EpochRecord,
    Execution,
    Progress,
    Recipe,
    evaluate,
    learning_rate_at,
    make_optimizer,
    recalibrate,
    split_outputs,
    train,
)


class Small(nn.Module):
    """A convolution, a norm and a linear layer; in train mode `wrap` turns the scores into the outputs."""

    def __init__(self, wrap: Any = lambda x: x, classes: int = 10) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, kernel_size=3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(0.1)
        self.head = nn.Linear(8 * 16, classes)
        self.wrap = wrap

    def forward(self, x: torch.Tensor) -> Any:
        x = torch.relu(self.norm(self.conv(x)))
        scores = self.head(self.drop(nn.functional.adaptive_avg_pool2d(x, 4).flatten(1)))
        return self.wrap(scores) if self.training else scores


def small(**options: Any) -> Small:
    torch.manual_seed(0)
    return Small(**options)


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return load("digits", image_size=8, limit=300)


def test_training_learns_and_records_every_epoch(digits: DataSet) -> None:
    model = small()
    records = train(model, digits, Recipe(epochs=8, batch_size=32, learning_rate=0.1)).epochs
    assert [record.epoch for record in records] == list(range(1, 9))
    assert records[-1].train_loss < 0.5 * records[0].train_loss
    assert records[-1].validation_score == evaluate(model, digits.validation, digits.mean, digits.std).accuracy
    assert evaluate(model, digits.test, digits.mean, digits.std).accuracy > 0.8
    assert all(record.images_per_s > 0 and record.seconds > 0 for record in records)
    assert not model.training


def test_a_seed_determines_the_network_and_the_global_random_state_is_untouched(digits: DataSet) -> None:
    def trained(seed: int) -> torch.Tensor:
        model = small()
        state = torch.get_rng_state()
        train(model, digits, Recipe(epochs=1, batch_size=64, seed=seed))
        assert torch.equal(torch.get_rng_state(), state)
        return model.head.weight

    assert torch.equal(trained(1), trained(1))
    assert not torch.equal(trained(1), trained(2))


def test_progress_is_reported_after_every_step_and_epoch(digits: DataSet) -> None:
    reports: list[Progress] = []
    records = train(small(), digits, Recipe(epochs=2, batch_size=128), on_step=reports.append).epochs
    steps = len(digits.train) // 128
    assert [(p.epoch, p.step) for p in reports] == [(e, s) for e in (1, 2) for s in [*range(1, steps + 1), steps]]
    assert reports[0].validation_score is None
    assert reports[-1].validation_score == records[-1].validation_score
    assert reports[-1].loss == records[-1].train_loss
    assert reports[-1].seconds_left == 0
    assert [p.ends_epoch for p in reports] == ([False] * steps + [True]) * 2


def test_the_learning_rate_rises_linearly_and_falls_by_a_cosine() -> None:
    recipe = Recipe(epochs=10, learning_rate=0.4, warmup=1)
    rates = [learning_rate_at(step, 8, recipe) for step in range(1, 81)]
    assert rates[:8] == pytest.approx([0.05 * step for step in range(1, 9)])
    assert rates[8] == pytest.approx(0.4)
    assert rates[8 + 36] == pytest.approx(0.2)
    assert rates[8:] == sorted(rates[8:], reverse=True)
    assert 0 < rates[-1] < 0.001


def test_warmup_is_at_most_a_fifth_of_the_training() -> None:
    rates = [learning_rate_at(step, 10, Recipe(epochs=1, learning_rate=1.0, warmup=5)) for step in range(1, 11)]
    assert rates[:3] == pytest.approx([0.5, 1.0, 1.0])


def test_norms_and_biases_do_not_decay() -> None:
    model = small()
    model.conv.weight.requires_grad_(False)
    decayed, not_decayed = make_optimizer(model, Recipe(weight_decay=0.01)).param_groups
    assert [id(p) for p in decayed["params"]] == [id(model.head.weight)]
    assert {id(p) for p in not_decayed["params"]} == {id(p) for p in model.parameters() if p.dim() == 1}
    assert (decayed["weight_decay"], not_decayed["weight_decay"]) == (0.01, 0.0)
    assert decayed["nesterov"] and decayed["momentum"] == 0.9


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("batch_size", 1),
        ("seed", -1),
        ("seed", 2**64),
        ("learning_rate", 0.0),
        ("learning_rate", math.nan),
        ("weight_decay", -1.0),
        ("warmup", -1.0),
        ("crop", -0.5),
        ("crop", 1e9),
        ("label_smoothing", 1.0),
        ("ema", 1.0),
        ("mixup", -0.1),
        ("cutout", 1.5),
        ("resize_crop", -0.1),
        ("distillation", 2.0),
        ("temperature", 0.0),
        ("accumulate", 0),
        ("accumulate", 129),
        ("schedule", "steps"),
    ],
)
def test_a_recipe_refuses_values_out_of_range(name: str, value: float) -> None:
    with pytest.raises(UsageError, match=f"Expected {name} to be .*but got {value!r}"):
        Recipe(**{name: value})  # type: ignore[arg-type]


def first_loss(model: nn.Module, data: DataSet, **options: Any) -> float:
    """The loss of the first step; the options are fields of the recipe, or `channels_last`."""
    reports: list[Progress] = []
    layout = options.pop("channels_last", False)
    recipe = Recipe(epochs=1, batch_size=64, **options)
    train(model, data, recipe, execution=Execution(channels_last=layout), on_step=reports.append)
    return reports[0].loss


def test_auxiliary_outputs_weigh_three_tenths(digits: DataSet) -> None:
    plain = first_loss(small(), digits)
    as_tuple = first_loss(small(wrap=lambda x: (x, x, None)), digits)
    as_dict = first_loss(small(wrap=lambda x: {"aux": x, "out": x}), digits)
    assert as_tuple == pytest.approx(1.3 * plain)
    assert as_dict == pytest.approx(1.3 * plain)


def test_the_main_output_is_the_first_or_the_one_called_out() -> None:
    main, auxiliary = torch.zeros(1, 2), torch.ones(1, 2)
    assert split_outputs((main, auxiliary))[0] is main
    assert split_outputs({"aux": auxiliary, "out": main})[0] is main
    assert split_outputs({"scores": main, "other": auxiliary})[0] is main
    with pytest.raises(ModelError, match="Expected the model to return a tensor of class scores, but got dict"):
        split_outputs({})


def test_label_smoothing_changes_the_loss(digits: DataSet) -> None:
    assert first_loss(small(), digits, label_smoothing=0.1) != first_loss(small(), digits)


def test_the_data_set_decides_on_flips_by_default(digits: DataSet) -> None:
    assert not digits.flip
    default = first_loss(small(), digits)
    assert first_loss(small(), digits, flip=False) == default
    assert first_loss(small(), digits, flip=True) != default


def test_channels_last_gives_the_same_loss(digits: DataSet) -> None:
    model = small()
    loss = first_loss(model, digits, channels_last=True)
    assert loss == pytest.approx(first_loss(small(), digits), rel=1e-5)


def test_a_set_smaller_than_a_batch_is_one_batch() -> None:
    data = tiny(Split(torch.zeros(6, 1, 8, 8, dtype=torch.uint8), torch.arange(6) % 2))
    records = train(small(classes=2), data, Recipe(epochs=2, batch_size=128)).epochs
    assert len(records) == 2
    assert records[0].validation_score is None


def tiny(split: Split) -> DataSet:
    """A data set without validation images."""
    empty = Split(split.images[:0], split.labels[:0])
    return DataSet("tiny", "made up", ("a", "b"), split, empty, split, (0.0,), (1.0,), True, 0, "")


def test_a_training_set_of_one_image_is_refused() -> None:
    data = tiny(Split(torch.zeros(1, 1, 8, 8, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64)))
    with pytest.raises(DataError, match="Expected 2 or more training images, but got 1"):
        train(small(classes=2), data, Recipe())


def test_a_loss_that_is_not_finite_stops_the_training(digits: DataSet) -> None:
    model = small()
    with torch.no_grad():
        model.head.weight.fill_(math.inf)
    with pytest.raises(PretrimError, match=r"Expected a finite loss, but got nan in epoch 1, step 1: lower .*0\.1"):
        train(model, digits, Recipe(epochs=1))


def test_the_one_cycle_schedule_matches_torch() -> None:
    recipe = Recipe(epochs=5, learning_rate=0.4, schedule="onecycle")
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    reference = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.4, total_steps=40, cycle_momentum=False)
    for step in range(1, 41):
        assert learning_rate_at(step, 8, recipe) == pytest.approx(reference.get_last_lr()[0], rel=1e-9), step
        optimizer.step()
        if step < 40:
            reference.step()
    assert learning_rate_at(1, 1, Recipe(epochs=1, schedule="onecycle")) > 0


def test_accumulated_passes_give_the_gradient_of_the_whole_batch(digits: DataSet) -> None:
    def trained(accumulate: int) -> torch.Tensor:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10)).double()
        train(model, digits, Recipe(epochs=1, batch_size=64, accumulate=accumulate))
        return model[1].weight

    assert torch.allclose(trained(1), trained(4), rtol=0, atol=1e-12)


def test_mixup_weighs_two_labels_by_the_share_of_their_images() -> None:
    """With equal images of two classes and a model with constant scores, the loss shows how labels were mixed."""
    images = torch.zeros(64, 1, 4, 4, dtype=torch.uint8)
    data = tiny(Split(images, torch.arange(64) % 2))

    class ConstantScores(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = nn.Parameter(torch.tensor([1.0, 0.0]))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.bias.expand(len(x), 2)

    expected = -math.log(math.e / (math.e + 1)) / 2 - math.log(1 / (math.e + 1)) / 2
    # Half of the labels belong to each class, whatever the mixing weight.
    assert first_loss(ConstantScores(), data, mixup=0.5) == pytest.approx(expected, rel=1e-6)


def test_a_mixed_image_is_a_weighted_sum_of_two_images_of_its_batch() -> None:
    seen: list[torch.Tensor] = []

    class Recording(Small):
        def forward(self, x: torch.Tensor) -> Any:
            if self.training:  # skip the passes that recalibrate the norm
                seen.append(x.detach().flatten(1).clone())
            return super().forward(x)

    images = torch.randint(0, 256, (20, 1, 8, 8), dtype=torch.uint8)
    data = tiny(Split(images, torch.arange(20) % 2))
    for alpha in (1.0, 0.0):
        train(Recording(classes=2), data, Recipe(epochs=1, batch_size=20, mixup=alpha, crop=0, flip=False, seed=4))
    mixed, plain = seen
    parts = torch.linalg.lstsq(plain.T, mixed.T).solution.T
    share = float(parts.diagonal().median())
    assert 0.05 < share < 0.95
    for row, diag in zip(parts, parts.diagonal(), strict=True):
        others = row[(row - diag).abs() > 1e-3]
        if diag < 0.99:  # the image was not mixed with itself
            assert float(diag) == pytest.approx(share, abs=1e-3) or float(diag) == pytest.approx(1 - share, abs=1e-3)
        assert float(row.sum()) == pytest.approx(1, abs=1e-3)
        assert int((others.abs() > 1e-3).sum()) <= 1


def test_the_moving_average_matches_a_loop_and_becomes_the_weights(digits: DataSet) -> None:
    weights: list[torch.Tensor] = []
    model = small()

    def keep_weights(progress: Progress) -> None:
        if not progress.ends_epoch:
            weights.append(model.head.weight.detach().clone())

    first = model.head.weight.detach().clone()
    records = train(model, digits, Recipe(epochs=3, batch_size=64, ema=0.9), on_step=keep_weights).epochs
    average = first
    for update, value in enumerate(weights, start=1):
        decay = min(0.9, (1 + update) / (10 + update))
        average = decay * average + (1 - decay) * value
    assert torch.allclose(model.head.weight, average, atol=1e-6)
    assert not torch.allclose(model.head.weight, weights[-1], atol=1e-4)
    assert records[-1].validation_score == evaluate(model, digits.validation, digits.mean, digits.std).accuracy


def test_recalibrated_statistics_are_those_of_the_images(digits: DataSet) -> None:
    model = small()
    with torch.no_grad():
        model.norm.running_mean.fill_(7.0)  # type: ignore[union-attr]
        model.norm.running_var.fill_(9.0)  # type: ignore[union-attr]
    model.train()
    recalibrate(model, digits, images=10_000, batch_size=len(digits.train))
    assert model.training and model.norm.training and model.norm.momentum == 0.1
    with torch.no_grad():
        features = model.conv(normalise(digits.train.images, digits.mean, digits.std))
    assert torch.allclose(model.norm.running_mean, features.mean((0, 2, 3)), atol=1e-5)  # type: ignore[arg-type]
    assert torch.allclose(model.norm.running_var, features.var((0, 2, 3)), rtol=1e-4)  # type: ignore[arg-type]


def test_the_training_accuracy_is_measured_on_the_training_batches(digits: DataSet) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    before = evaluate(model, digits.train, digits.mean, digits.std).accuracy
    record: EpochRecord = train(model, digits, Recipe(epochs=1, batch_size=len(digits.train), crop=0)).epochs[0]
    assert record.train_score == before


class TwoHeads(nn.Module):
    """Two heads, of 10 and 3 classes; optionally the second one is returned in train mode only."""

    def __init__(self, *, only_in_training: bool) -> None:
        super().__init__()
        self.body, self.ten, self.three = nn.Flatten(), nn.Linear(64, 10), nn.Linear(64, 3)
        self.norm, self.only_in_training = nn.BatchNorm1d(64), only_in_training

    def forward(self, x: torch.Tensor) -> object:
        x = self.norm(self.body(x))
        both = self.training or not self.only_in_training
        return (self.ten(x), self.three(x)) if both else self.ten(x)


@pytest.mark.parametrize("only_in_training", [False, True])
def test_a_second_output_of_another_size_is_refused(digits: DataSet, only_in_training: bool) -> None:
    """It is refused before training, or in the first step if eval mode hides it; the model is left unchanged."""
    model, task = TwoHeads(only_in_training=only_in_training), Classification()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    message = (
        "since those beside the main one count as auxiliary heads, but got outputs of 10 and of 3: return the main"
    )
    if only_in_training:
        task.check(model, digits)
    else:
        with pytest.raises(ModelError, match=message):
            task.check(model, digits)
    assert model.training and all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with pytest.raises(ModelError, match=message):
        train(model, digits, Recipe(epochs=1))


def test_a_wrong_number_of_scores_is_refused(digits: DataSet) -> None:
    with pytest.raises(ModelError, match="Expected the model to return 10 class scores per image, but got 7"):
        train(small(classes=7), digits, Recipe(epochs=1))
    with pytest.raises(ModelError, match="Expected the model to return 10 or more class scores, but got 7"):
        evaluate(small(classes=7), digits.test, digits.mean, digits.std)


def test_a_forward_that_fails_in_train_mode_shows_its_own_error(digits: DataSet) -> None:
    def fail(x: torch.Tensor) -> torch.Tensor:
        raise ValueError("not ready")

    with pytest.raises(ModelError, match=r"on images of 128x1x8x8 in train mode: .*ValueError: not ready"):
        train(small(wrap=fail), digits, Recipe(epochs=1))


def test_a_model_without_trainable_parameters_is_refused(digits: DataSet) -> None:
    with pytest.raises(ModelError, match="Expected a model with parameters to train, but its outputs need no gradient"):
        train(small().requires_grad_(False), digits, Recipe(epochs=1))


def test_evaluation_matches_a_count_by_hand(digits: DataSet) -> None:
    model = small()
    model.conv.eval()
    evaluation = evaluate(model, digits.test, digits.mean, digits.std, batch_size=50)
    assert model.training and not model.conv.training
    with torch.no_grad():
        logits = model.eval()(normalise(digits.test.images, digits.mean, digits.std))
    guesses = logits.argmax(1)
    assert evaluation.n == len(digits.test)
    assert evaluation.accuracy == float((guesses == digits.test.labels).double().mean())
    assert evaluation.loss == pytest.approx(float(nn.functional.cross_entropy(logits, digits.test.labels)), rel=1e-5)
    for label in range(10):
        of_class = digits.test.labels == label
        assert evaluation.images_per_class[label] == int(of_class.sum())
        assert evaluation.per_class[label] == pytest.approx(float((guesses[of_class] == label).double().mean()))


def test_a_class_without_images_has_no_accuracy() -> None:
    split = Split(torch.zeros(3, 1, 8, 8, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64))
    assert evaluate(small(classes=2), split, (0.0,), (1.0,)).per_class[1] is None


def test_an_empty_split_is_refused() -> None:
    split = Split(torch.zeros(0, 1, 8, 8, dtype=torch.uint8), torch.zeros(0, dtype=torch.int64))
    with pytest.raises(DataError, match="No images to evaluate on"):
        evaluate(small(), split, (0.0,), (1.0,))
