"""Execution settings: pinned ones are kept, the others are chosen by timing, and timing changes no values."""

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from test_train import small
from torch import nn

from pretrim.compat.onednn import avoided, is_affected
from pretrim.data import DataSet, load
from pretrim.errors import UsageError
from pretrim.train import Execution, ExecutionChoice, Recipe, train
from pretrim.train import execution as executions
from pretrim.train import state as states
from pretrim.train.execution import candidates, choose, fastest, pays_to_compile

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return load("digits", image_size=8, limit=300)


def settings_of(options: list[Execution]) -> list[tuple[str | None, bool | None]]:
    return [(option.precision, option.channels_last) for option in options]


def test_candidates_are_all_values_of_settings_that_are_not_pinned() -> None:
    assert settings_of(candidates(Execution(), CPU, bfloat16=True)) == [
        ("float32", True),
        ("float32", False),
        ("bfloat16", True),
        ("bfloat16", False),
    ]
    assert settings_of(candidates(Execution(), CPU, bfloat16=False)) == [("float32", True), ("float32", False)]
    assert settings_of(candidates(Execution(channels_last=False), CPU, bfloat16=False)) == [("float32", False)]
    assert settings_of(candidates(Execution(precision="bfloat16"), CPU, False)) == [
        ("bfloat16", True),
        ("bfloat16", False),
    ]
    assert settings_of(candidates(Execution(), GPU, bfloat16=True)) == [("bfloat16", True)]
    # GPUs from before 2020: float16 products are fast on some and slow on others, so both are timed.
    assert settings_of(candidates(Execution(), GPU, bfloat16=False)) == [("float32", True), ("float16", True)]


def test_slow_candidates_are_timed_once_and_the_others_again() -> None:
    options = candidates(Execution(), CPU, bfloat16=True)
    times = {options[0]: [9.0, 2.0, 3.0], options[1]: [2.5, 1.0, 1.5], options[2]: [2.1], options[3]: [1.2, 1.1, 1.1]}
    seconds = fastest(options, lambda option: times[option].pop(0))
    assert seconds == {options[0]: 2.0, options[1]: 1.0, options[2]: math.inf, options[3]: 1.1}
    assert not any(times.values())


def test_a_short_training_is_not_timed_and_a_long_one_is() -> None:
    calls: list[Execution] = []

    def chosen(steps: int, **pinned: Any) -> ExecutionChoice:
        calls.clear()
        return choose(Execution(**pinned), small(), CPU, calls.append, steps=steps, batch=64)

    assert chosen(steps=20).execution == Execution("cpu", "float32", True, False, torch.get_num_threads())
    assert not calls
    choice = chosen(steps=10_000)
    assert choice.execution.precision is not None and choice.execution.channels_last is not None
    assert len(calls) >= 4 and choice.speeds
    assert chosen(steps=10_000, channels_last=False, precision="float32").execution.channels_last is False
    assert not calls


def test_timing_does_not_change_the_trained_network(digits: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
    def trained() -> list[torch.Tensor]:
        model = small()
        training = train(model, digits, Recipe(epochs=2, batch_size=32), on_start=choices.append)
        pinned = training.execution
        second_model = small()
        repeated = train(second_model, digits, Recipe(epochs=2, batch_size=32), execution=pinned)
        assert [e.train_loss for e in training.epochs] == [e.train_loss for e in repeated.epochs]
        assert [e.train_score for e in training.epochs] == [e.train_score for e in repeated.epochs]
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), second_model.parameters(), strict=True))
        return [p.detach() for p in model.parameters()]

    choices: list[ExecutionChoice] = []
    trained()
    monkeypatch.setattr(executions, "SMALLEST_SHARE", 1e9)
    trained()
    assert not choices[0].speeds and choices[1].speeds


def test_compiling_pays_off_on_a_gpu_for_long_trainings() -> None:
    assert pays_to_compile(GPU, 3600)
    assert not pays_to_compile(GPU, 60)
    assert not pays_to_compile(CPU, 36_000)


@pytest.mark.parametrize(("name", "value"), [("precision", "float8"), ("threads", 0), ("threads", 100_000)])
def test_execution_refuses_values_out_of_range(name: str, value: Any) -> None:
    with pytest.raises(UsageError, match=f"Expected {name} to be .*but got {value!r}"):
        Execution(**{name: value})


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_16_bit_precision_trains_float32_weights(digits: DataSet, precision: Any) -> None:
    model = small()
    training = train(model, digits, Recipe(epochs=4, batch_size=32), execution=Execution(precision=precision))
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert training.epochs[-1].train_loss < 0.75 * training.epochs[0].train_loss


def test_float16_gradients_equal_those_of_float32_up_to_rounding(digits: DataSet) -> None:
    """One step without momentum or decay moves the weights by the gradient, so the scale must be divided out."""
    recipe = Recipe(epochs=1, batch_size=len(digits.train), warmup=0, weight_decay=0.0, momentum=0.0, crop=0.0)
    changes = {}
    for precision in ("float32", "float16"):
        model = small()
        before = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
        train(model, digits, recipe, execution=Execution(precision=precision))  # type: ignore[arg-type]
        changes[precision] = nn.utils.parameters_to_vector(model.parameters()).detach() - before
    relative_error = (changes["float16"] - changes["float32"]).norm() / changes["float32"].norm()
    assert 0 < relative_error < 0.01


def test_overflowing_float16_gradients_lower_the_scale_and_leave_the_weights_finite(
    digits: DataSet, tmp_path: Path
) -> None:
    """Scaled by 65,536, gradients above 1 overflow float16; such steps are skipped until the scale is low enough."""

    def with_large_gradients() -> nn.Module:
        model = small()
        last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
        with torch.no_grad():
            last.weight.mul_(300)
        return model

    model, path = with_large_gradients(), tmp_path / "state"
    recipe = Recipe(epochs=2, batch_size=32, learning_rate=0.001)
    training = train(model, digits, recipe, execution=Execution(precision="float16"), checkpoint=path)
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())
    assert math.isfinite(training.epochs[-1].train_loss)
    assert states.read(path).scaling["scale"] < 65536


def test_the_number_of_threads_is_set_and_restored(digits: DataSet) -> None:
    before, threads_seen = torch.get_num_threads(), []
    train(
        small(), digits, Recipe(epochs=1, batch_size=64), execution=Execution(threads=2),
        on_step=lambda _: threads_seen.append(torch.get_num_threads()),
    )  # fmt: skip
    assert set(threads_seen) == {2} and torch.get_num_threads() == before


# ---------------------------------------------------------------------------------------- a bug in oneDNN

STRIDED = """
import torch
from torch import nn
from pretrim.data import load
from pretrim.train import Execution, Recipe, train
torch.set_num_threads(1)
data = load("digits", image_size=16, limit=256)
def trained(channels_last):
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 24, 1, stride=2), nn.ReLU()]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 10)).double().float()
    train(model, data, Recipe(epochs=2, batch_size=128), execution=Execution(channels_last=channels_last))
    return model
pairs = zip(trained(True).parameters(), trained(False).parameters())
assert all(torch.allclose(a, b, atol=1e-5) for a, b in pairs)
"""


def test_strided_convolutions_of_few_channels_train_in_channels_last() -> None:
    """Without the workaround this ends in `double free or corruption` on a CPU with AVX2 (oneDNN #6035)."""
    result = subprocess.run([sys.executable, "-c", STRIDED], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("groups", [1, 2])
def test_slicing_the_pixels_first_equals_a_stride(groups: int) -> None:
    layer = nn.Conv2d(4, 6, 1, stride=(2, 3), groups=groups)
    images = torch.rand(2, 4, 9, 8)
    expected = layer(images)
    with avoided(nn.Sequential(layer), active=True):
        assert torch.allclose(layer(images), expected, atol=1e-6)
        assert "forward" in vars(layer)
    assert "forward" not in vars(layer)
    with avoided(nn.Sequential(layer), active=False):
        assert "forward" not in vars(layer)


def test_only_strided_1x1_convolutions_of_few_channels_are_changed() -> None:
    assert is_affected(nn.Conv2d(8, 4, 1, stride=2))
    assert is_affected(nn.Conv2d(32, 32, 1, stride=2, groups=32))
    unaffected = [nn.Conv2d(8, 4, 1), nn.Conv2d(16, 4, 1, stride=2), nn.Conv2d(8, 4, 3, stride=2), nn.Linear(2, 2)]
    assert not any(map(is_affected, unaffected))
