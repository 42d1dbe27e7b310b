"""How steps are run: what is pinned stays, what is open is timed, and the values are as they were."""

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


def shown(options: list[Execution]) -> list[tuple[str | None, bool | None]]:
    return [(option.precision, option.channels_last) for option in options]


def test_candidates_are_all_that_is_not_pinned() -> None:
    assert shown(candidates(Execution(), CPU, bfloat16=True)) == [
        ("float32", True),
        ("float32", False),
        ("bfloat16", True),
        ("bfloat16", False),
    ]
    assert shown(candidates(Execution(), CPU, bfloat16=False)) == [("float32", True), ("float32", False)]
    assert shown(candidates(Execution(channels_last=False), CPU, bfloat16=False)) == [("float32", False)]
    assert shown(candidates(Execution(precision="bfloat16"), CPU, False)) == [("bfloat16", True), ("bfloat16", False)]
    assert shown(candidates(Execution(), GPU, bfloat16=True)) == [("bfloat16", True)]
    # A GPU of before 2020: products in float16 are fast on some and slow on others, so both are timed.
    assert shown(candidates(Execution(), GPU, bfloat16=False)) == [("float32", True), ("float16", True)]


def test_the_fastest_is_taken_and_the_hopeless_is_tried_once() -> None:
    options = candidates(Execution(), CPU, bfloat16=True)
    clock = {options[0]: [9.0, 2.0, 3.0], options[1]: [2.5, 1.0, 1.5], options[2]: [2.1], options[3]: [1.2, 1.1, 1.1]}
    seconds = fastest(options, lambda option: clock[option].pop(0))
    assert seconds == {options[0]: 2.0, options[1]: 1.0, options[2]: math.inf, options[3]: 1.1}
    assert not any(clock.values())


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


def test_timing_leaves_the_network_as_it_was(digits: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
    def trained() -> list[torch.Tensor]:
        model = small()
        training = train(model, digits, Recipe(epochs=2, batch_size=32), on_start=choices.append)
        pinned = training.execution
        again = small()
        repeated = train(again, digits, Recipe(epochs=2, batch_size=32), execution=pinned)
        assert [e.train_loss for e in training.epochs] == [e.train_loss for e in repeated.epochs]
        assert [e.train_score for e in training.epochs] == [e.train_score for e in repeated.epochs]
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
        return [p.detach() for p in model.parameters()]

    choices: list[ExecutionChoice] = []
    trained()
    monkeypatch.setattr(executions, "SMALLEST_SHARE", 1e9)
    trained()
    assert not choices[0].speeds and choices[1].speeds


def test_compiling_pays_on_a_gpu_for_long_trainings() -> None:
    assert pays_to_compile(GPU, 3600)
    assert not pays_to_compile(GPU, 60)
    assert not pays_to_compile(CPU, 36_000)


@pytest.mark.parametrize(("name", "value"), [("precision", "float8"), ("threads", 0), ("threads", 100_000)])
def test_execution_refuses(name: str, value: Any) -> None:
    with pytest.raises(UsageError, match=f"Expected {name} to be .*but got {value!r}"):
        Execution(**{name: value})


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_products_of_16_bits_train_float32_weights(digits: DataSet, precision: Any) -> None:
    model = small()
    training = train(model, digits, Recipe(epochs=4, batch_size=32), execution=Execution(precision=precision))
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert training.epochs[-1].train_loss < 0.75 * training.epochs[0].train_loss


def test_float16_gradients_are_those_of_float32_to_its_rounding(digits: DataSet) -> None:
    """One step without momentum or decay moves the weights by the gradient: the scale has been taken out again."""
    recipe = Recipe(epochs=1, batch_size=len(digits.train), warmup=0, weight_decay=0.0, momentum=0.0, crop=0.0)
    moved = {}
    for precision in ("float32", "float16"):
        model = small()
        before = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
        train(model, digits, recipe, execution=Execution(precision=precision))  # type: ignore[arg-type]
        moved[precision] = nn.utils.parameters_to_vector(model.parameters()).detach() - before
    off = (moved["float16"] - moved["float32"]).norm() / moved["float32"].norm()
    assert 0 < off < 0.01


def test_gradients_beyond_float16_lower_the_scale_and_lose_no_weights(digits: DataSet, tmp_path: Path) -> None:
    """Scaled by 65,536 a gradient of over 1 is infinite in float16: such steps are left out until the scale fits."""

    def steep() -> nn.Module:
        model = small()
        last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
        with torch.no_grad():
            last.weight.mul_(300)
        return model

    model, path = steep(), tmp_path / "state"
    recipe = Recipe(epochs=2, batch_size=32, learning_rate=0.001)
    training = train(model, digits, recipe, execution=Execution(precision="float16"), checkpoint=path)
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())
    assert math.isfinite(training.epochs[-1].train_loss)
    assert states.read(path).scaling["scale"] < 65536


def test_threads_are_as_asked_and_put_back(digits: DataSet) -> None:
    before, seen = torch.get_num_threads(), []
    train(
        small(), digits, Recipe(epochs=1, batch_size=64), execution=Execution(threads=2),
        on_step=lambda _: seen.append(torch.get_num_threads()),
    )  # fmt: skip
    assert set(seen) == {2} and torch.get_num_threads() == before


# ---------------------------------------------------------------------------------------- oneDNN's defect

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
    """Without the way around it this ends in `double free or corruption` on a CPU with AVX2 (oneDNN #6035)."""
    done = subprocess.run([sys.executable, "-c", STRIDED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("groups", [1, 2])
def test_pixels_left_out_first_are_a_stride(groups: int) -> None:
    layer = nn.Conv2d(4, 6, 1, stride=(2, 3), groups=groups)
    images = torch.rand(2, 4, 9, 8)
    wanted = layer(images)
    with avoided(nn.Sequential(layer), active=True):
        assert torch.allclose(layer(images), wanted, atol=1e-6)
        assert "forward" in vars(layer)
    assert "forward" not in vars(layer)
    with avoided(nn.Sequential(layer), active=False):
        assert "forward" not in vars(layer)


def test_only_strided_1x1_convolutions_of_few_channels_are_changed() -> None:
    assert is_affected(nn.Conv2d(8, 4, 1, stride=2))
    assert is_affected(nn.Conv2d(32, 32, 1, stride=2, groups=32))
    others = [nn.Conv2d(8, 4, 1), nn.Conv2d(16, 4, 1, stride=2), nn.Conv2d(8, 4, 3, stride=2), nn.Linear(2, 2)]
    assert not any(map(is_affected, others))
