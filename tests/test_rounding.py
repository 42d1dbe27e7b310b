"""Quantisation-aware training: rounding equals torch's fake quantisation and commutes with norm folding."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from pretrim.data import load
from pretrim.errors import UsageError
from pretrim.train import Execution, Interrupted, Recipe, train
from pretrim.train.rounding import forward, round_activation, round_weight, rounded

EXECUTION = Execution(device="cpu", precision="float32", channels_last=False, compile=False, threads=1)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.ConvTranspose2d(8, 4, 2, stride=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16, 10),
    )


def test_weights_are_rounded_like_torch() -> None:
    weight = torch.randn(6, 5, 3, 3, generator=torch.Generator().manual_seed(0))
    weight[2] = 0
    for axis in (0, 1):
        other_axes = [dimension for dimension in range(4) if dimension != axis]
        scale = (weight.abs().amax(dim=other_axes) / 127).clamp_min(1e-12)
        expected = torch.fake_quantize_per_channel_affine(
            weight, scale, torch.zeros(len(scale), dtype=torch.int32), axis, -128, 127
        )
        torch.testing.assert_close(round_weight(weight, axis), expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("shift", [-3.0, 0.0, 0.4, 5.0])
def test_activations_are_rounded_like_torch(shift: float) -> None:
    values = torch.rand(4, 3, 5, 5, generator=torch.Generator().manual_seed(1)) + shift
    low, high = min(values.min().item(), 0.0), max(values.max().item(), 0.0)
    scale = (high - low) / 255
    expected = torch.fake_quantize_per_tensor_affine(values, scale, round(-128 - low / scale), -128, 127)
    rounded_values = round_activation(values)
    assert rounded_values.unique().numel() > 40  # of 256 levels, at most 255 / 6 = 42 hold the shifted values
    torch.testing.assert_close(rounded_values, expected, rtol=0, atol=1e-5)
    assert round_activation(torch.zeros(2, 2)).tolist() == [[0, 0], [0, 0]]


def test_gradients_pass_through_the_rounding() -> None:
    weight = torch.randn(4, 3, requires_grad=True)
    (round_weight(weight) * torch.arange(3.0)).sum().backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [[0.0, 1.0, 2.0]] * 4


def test_rounding_before_folding_a_norm_equals_rounding_after_it() -> None:
    weight, factor = torch.randn(8, 3, 3, 3), torch.rand(8) + 0.1
    folded = weight * factor.view(-1, 1, 1, 1)
    torch.testing.assert_close(round_weight(folded), round_weight(weight) * factor.view(-1, 1, 1, 1))


def test_a_rounded_forward_pass_rounds_every_layer_and_leaves_the_model_unchanged() -> None:
    model = network()
    before, images = deepcopy(model.state_dict()), torch.randn(4, 1, 8, 8)
    model.eval()
    expected = images
    for module in model:
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            copied = deepcopy(module)
            copied.weight.data = round_weight(module.weight, axis=1 if isinstance(module, nn.ConvTranspose2d) else 0)
            expected = copied(round_activation(expected))
        else:
            expected = module(expected)
    output = forward(model, images)
    torch.testing.assert_close(output, expected)
    assert not torch.allclose(output, model(images), rtol=1e-6)
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with pytest.raises(RuntimeError), rounded(model):
        raise RuntimeError
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_the_last_epochs_round_and_a_stopped_training_resumes_bit_for_bit(tmp_path: Path) -> None:
    data = load("digits", seed=0)
    recipe = Recipe(epochs=3, batch_size=256, learning_rate=0.05, qat=2)

    def trained(recipe: Recipe) -> dict[str, torch.Tensor]:
        model = network()
        train(model, data, recipe, execution=EXECUTION)
        return model.state_dict()

    uninterrupted, without_rounding = trained(recipe), trained(replace(recipe, qat=0))
    assert not torch.equal(uninterrupted["0.weight"], without_rounding["0.weight"])

    model, state, count = network(), tmp_path / "state.safetensors", 0

    def stop(_: object) -> None:
        nonlocal count
        count += 1
        if count == 8:  # in the second epoch
            raise Interrupted("stopped", 2)

    with pytest.raises(Interrupted):
        train(model, data, recipe, execution=EXECUTION, checkpoint=state, on_step=stop)
    resumed = network()
    train(resumed, data, recipe, execution=EXECUTION, checkpoint=state, resume=True)
    assert all(torch.equal(value, uninterrupted[name]) for name, value in resumed.state_dict().items())


def test_a_number_of_qat_epochs_out_of_range_is_refused() -> None:
    with pytest.raises(UsageError, match=r"Expected qat to be at most epochs \(3\), but got 4\."):
        Recipe(epochs=3, qat=4)
    with pytest.raises(UsageError, match="Expected qat to be at least 0, but got -1"):
        Recipe(qat=-1)
