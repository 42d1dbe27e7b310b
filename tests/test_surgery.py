"""Tests of network surgery: initial weights of a slim network, the channels it keeps, and plans saved as files.

Variances at initialisation are compared with the dense network layer by layer, averaged over seeds.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import Net, conv, conv1
from reference import randomise, relative_error, run
from torch import Tensor, nn

import pretrim
from pretrim.analysis.network import Network
from pretrim.cost.costs import macs
from pretrim.errors import ModelError, PlanError, UsageError
from pretrim.models import BUILTIN
from pretrim.planning.plan import Plan
from pretrim.planning.search import plan_of_widths
from pretrim.surgery.apply import kept_channels, plan_of, score
from pretrim.surgery.fresh import fan_factors, fans

IMAGE = torch.zeros(1, 3, 8, 8)


# ---------------------------------------------------------------------------------------- variances at initialisation

Initialiser = Callable[[Tensor], Any]
INITIALISERS: dict[str, Initialiser] = {
    "he fan in": lambda w: nn.init.kaiming_normal_(w, mode="fan_in", nonlinearity="relu"),
    "he uniform fan in": lambda w: nn.init.kaiming_uniform_(w, mode="fan_in", nonlinearity="relu"),
    "he fan out": lambda w: nn.init.kaiming_normal_(w, mode="fan_out", nonlinearity="relu"),
    "glorot": nn.init.xavier_normal_,
    "glorot uniform": nn.init.xavier_uniform_,
    "lecun": lambda w: nn.init.kaiming_normal_(w, mode="fan_in", nonlinearity="linear"),
    "torch default": lambda w: nn.init.kaiming_uniform_(w, a=math.sqrt(5)),
}
# The widths differ so that fan-in and fan-out differ. There is a ReLU between the layers, and circular padding so that
# every output pixel sees nine input pixels. The layers are wide because a layer of n channels adds about 5/n to the
# relative variance of the measured quantities.
SIZES = (16, 128, 192, 160, 32)
WIDTHS = (64, 96, 120)


def chain_of_convolutions(initialise: Initialiser, seed: int, sizes: tuple[int, ...] = SIZES) -> nn.Module:
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layer = nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode="circular", bias=False)
        initialise(layer.weight)
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def variances(model: nn.Module, seed: int) -> tuple[list[float], list[float]]:
    """Mean squares of every convolution's output and of the loss gradient with respect to that output.

    The loss, the sum of the outputs times fixed random numbers, does not depend on the widths.
    """
    outputs: list[Tensor] = []

    def keep_output(_module: nn.Module, _args: Any, out: Tensor) -> None:
        out.retain_grad()
        outputs.append(out)

    hooks = [m.register_forward_hook(keep_output) for m in model.modules() if isinstance(m, nn.Conv2d)]
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(2, SIZES[0], 4, 4, generator=generator)
    result = model(images)
    (result * torch.randn(result.shape, generator=generator)).sum().backward()
    for hook in hooks:
        hook.remove()
    gradients = [out.grad for out in outputs]
    assert all(gradient is not None for gradient in gradients)
    squares = [
        [float(t.detach().square().mean()) for t in tensors if t is not None] for tensors in (outputs, gradients)
    ]
    return squares[0], squares[1]


def slim_over_dense(initialise: Initialiser, seeds: int = 30) -> tuple[np.ndarray, np.ndarray]:
    """Ratios of slim to dense variances per layer, averaged over seeds: activations, then gradients."""
    squares = []
    network = pretrim.analyze(chain_of_convolutions(initialise, 0), torch.zeros(1, SIZES[0], 8, 8))
    plan = plan_of_widths(network, WIDTHS)
    for seed in range(seeds):
        dense = chain_of_convolutions(initialise, seed)
        squares.append([variances(plan.apply(dense), seed), variances(dense, seed)])
    means = np.array(squares).mean(axis=0)  # axes: slim or dense, activations or gradients, layer
    ratios = means[0] / means[1]
    return ratios[0], ratios[1]


@pytest.mark.parametrize("name", ["he fan in", "he uniform fan in", "lecun", "torch default"])
def test_activations_keep_their_variance_under_fan_in_initialisation(name: str) -> None:
    activations, _ = slim_over_dense(INITIALISERS[name])
    assert np.abs(activations - 1.0).max() < 0.15


def test_gradients_keep_their_variance_under_fan_out_initialisation() -> None:
    _, gradients = slim_over_dense(INITIALISERS["he fan out"])
    assert np.abs(gradients - 1.0).max() < 0.15


@pytest.mark.parametrize("name", ["glorot", "glorot uniform"])
def test_glorot_weights_have_the_variance_of_the_slim_fans(name: str) -> None:
    """The variance is 2 / (fan-in + fan-out), computed from the fans of the slim layer."""
    network = pretrim.analyze(chain_of_convolutions(INITIALISERS[name], 0), torch.zeros(1, SIZES[0], 8, 8))
    slim = plan_of_widths(network, WIDTHS).apply(chain_of_convolutions(INITIALISERS[name], 0))
    for layer in slim:
        if isinstance(layer, nn.Conv2d):
            outputs, inputs = layer.weight.shape[:2]
            expected = 2.0 / (9 * (inputs + outputs))
            assert float(layer.weight.detach().square().mean()) == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize(
    ("name", "gain", "fan"),
    [("he fan in", 2.0, 1), ("he fan out", 2.0, 0), ("lecun", 1.0, 1), ("torch default", 1.0 / 3.0, 1)],
)
def test_fresh_weights_have_the_variance_of_their_initialiser_at_the_slim_size(
    name: str, gain: float, fan: int
) -> None:
    network = pretrim.analyze(chain_of_convolutions(INITIALISERS[name], 0), torch.zeros(1, SIZES[0], 8, 8))
    slim = plan_of_widths(network, WIDTHS).apply(chain_of_convolutions(INITIALISERS[name], 0))
    for layer in slim:
        if isinstance(layer, nn.Conv2d):
            expected = gain / (9 * layer.weight.shape[fan])
            assert float(layer.weight.detach().square().mean()) == pytest.approx(expected, rel=0.1)


def test_activations_keep_their_variance_through_a_linear_layer() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(256, 200, bias=False), nn.ReLU(), nn.Linear(200, 100, bias=False))
    network = pretrim.analyze(model, torch.zeros(1, 256))
    x = torch.randn(64, 256)
    with torch.no_grad():
        ratio = float(plan_of_widths(network, [60]).apply(model)(x).var() / model(x).var())
    assert ratio == pytest.approx(1.0, rel=0.25)


@pytest.mark.parametrize("name", ["he fan in", "he fan out", "torch default"])
def test_the_last_layer_is_rescaled_by_the_fan_that_changed(name: str) -> None:
    """The last layer's inputs shrink from 32 to 8: by fan-in its weights double, by fan-out they do not change."""
    sizes = (16, 32, 64)
    dense = chain_of_convolutions(INITIALISERS[name], 0, sizes)
    network = pretrim.analyze(dense, torch.zeros(1, 16, 8, 8))
    slim = plan_of_widths(network, [8]).apply(dense)
    factor = float((slim[2].weight / dense[2].weight[:, :8]).detach().mean())
    assert factor == pytest.approx(1.0 if name == "he fan out" else 2.0, rel=1e-5)


# ---------------------------------------------------------------------------------------- fans by hand


@pytest.mark.parametrize(
    ("shape", "groups", "expected"),
    [
        ((64, 32, 3, 3), 1, {"fan_in": 288, "fan_out": 576, "fan_out_of_group": 576, "mean": 432}),
        ((10, 20), 1, {"fan_in": 20, "fan_out": 10, "fan_out_of_group": 10, "mean": 15}),
        ((32, 1, 3, 3), 32, {"fan_in": 9, "fan_out": 288, "fan_out_of_group": 9, "mean": 148.5}),
        ((64, 8, 3, 3), 4, {"fan_in": 72, "fan_out": 576, "fan_out_of_group": 144, "mean": 324}),
    ],
)
def test_fans(shape: tuple[int, ...], groups: int, expected: dict[str, float]) -> None:
    assert fans(shape, groups) == expected


def factors_of(model: nn.Module, example: Tensor, share: float) -> dict[str, float]:
    network = pretrim.analyze(model, example)
    return fan_factors(model, network, (network.dense * share).astype(int))


@pytest.mark.parametrize("name", INITIALISERS)
def test_the_fan_of_an_initialiser_is_recognised(name: str) -> None:
    """Every free width is halved; the 16 inputs and 32 outputs of the network stay."""
    model = chain_of_convolutions(INITIALISERS[name], 0)
    factors = factors_of(model, torch.zeros(1, 16, 8, 8), 0.5)
    if name == "he fan out":
        expected = [2.0, 2.0, 2.0, 1.0]
    elif name.startswith("glorot"):
        expected = [(16 + 128) / (16 + 64), 2.0, 2.0, (160 + 32) / (80 + 32)]
    else:
        expected = [1.0, 2.0, 2.0, 2.0]
    actual = [factors.get(f"{2 * i}.weight", 1.0) for i in range(4)]
    assert actual == pytest.approx([math.sqrt(e) for e in expected])


def depthwise(initialise: Initialiser) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(conv1(3, 256), conv(256, 256, groups=256, bias=False), conv1(256, 64), conv1(64, 2))
    for layer in model:
        initialise(layer.weight)
    return model


def test_a_depthwise_layer_by_fan_in_stays_as_it_is() -> None:
    """The fan-in of a depthwise layer is its 9 taps, whatever the width."""
    assert factors_of(depthwise(INITIALISERS["he fan in"]), IMAGE, 0.25).get("1.weight", 1.0) == pytest.approx(1.0)


def test_a_depthwise_layer_by_fan_out_is_rescaled_by_its_width() -> None:
    """torch.nn.init counts a fan-out of 256 * 9, though every filter sees one channel; 64 of 256 give a factor of 2."""
    assert factors_of(depthwise(INITIALISERS["he fan out"]), IMAGE, 0.25)["1.weight"] == pytest.approx(2.0)


def test_a_depthwise_layer_by_fan_out_of_its_group_stays_as_it_is() -> None:
    """timm initialises EfficientNets this way: the fan-out divided by the number of groups."""

    def initialise(weight: Tensor) -> None:
        groups = 256 if weight.shape[1] == 1 else 1
        nn.init.normal_(weight, std=math.sqrt(2.0 / (weight[:, 0].numel() / groups)))

    assert factors_of(depthwise(initialise), IMAGE, 0.25).get("1.weight", 1.0) == pytest.approx(1.0)


def test_a_transposed_convolution_is_rescaled_by_the_fan_that_torch_counts() -> None:
    """torch takes the second dimension of (inputs, outputs, 2, 2) for the fan-in: 32 * 4 taps, now 8 * 4."""
    torch.manual_seed(0)
    model = nn.Sequential(conv1(3, 64), nn.ConvTranspose2d(64, 32, 2, stride=2, bias=False), conv1(32, 2))
    network = pretrim.analyze(model, IMAGE)
    factor = fan_factors(model, network, np.array([64, 8]))["1.weight"]
    assert factor == pytest.approx(2.0)


def test_weights_of_an_unknown_initialiser_are_rescaled_by_fan_in() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(conv1(3, 64), nn.ReLU(), conv1(64, 32), conv1(32, 2))
    for layer in model:
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, std=0.017)
    factors = factors_of(model, IMAGE, 0.25)
    assert [factors.get(f"{i}.weight", 1.0) for i in (0, 2, 3)] == pytest.approx([1.0, 2.0, 2.0])


def test_zero_weights_stay_zero() -> None:
    model = nn.Sequential(conv1(3, 16), conv1(16, 8), conv1(8, 2))
    nn.init.zeros_(model[1].weight)
    slim = pretrim.analyze(model, IMAGE).plan(macs="0.4x", round_to=1).apply(model)
    assert not slim[1].weight.any()


def test_norms_and_biases_are_not_rescaled() -> None:
    model = nn.Sequential(conv(3, 16), nn.BatchNorm2d(16), conv(16, 2))
    with torch.no_grad():
        model[0].bias.copy_(torch.arange(16.0))
        model[1].weight.copy_(torch.arange(16.0))
    slim = plan_of_widths(pretrim.analyze(model, IMAGE), [5]).apply(model)
    assert slim[0].bias.tolist() == slim[1].weight.tolist() == [0, 1, 2, 3, 4]


# ---------------------------------------------------------------------------------------- inherited channels


def test_inherit_keeps_the_channels_with_the_largest_l1_norm() -> None:
    model = nn.Sequential(conv1(3, 5), conv1(5, 2))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([1.0, -5.0, 3.0, -0.5, 4.0])[:, None, None, None].expand(5, 3, 1, 1))
    network = pretrim.analyze(model, IMAGE)
    slim = plan_of_widths(network, [3]).apply(model, init="inherit")
    assert slim[0].weight[:, 0, 0, 0].tolist() == [-5.0, 3.0, 4.0]
    assert torch.equal(slim[1].weight, model[1].weight[:, [1, 2, 4]])


def test_coupled_layers_are_scored_together() -> None:
    """Filter norms 1, 9, 2 of one layer and 6, 1, 1 of the other sum to 7, 10 and 3."""
    model = Net(lambda m, x: m.c(m.a(x) + m.b(x)), a=conv1(3, 3), b=conv1(3, 3), c=conv1(3, 2))
    with torch.no_grad():
        for layer, values in ((model.a, [1.0, 9.0, 2.0]), (model.b, [6.0, 1.0, 1.0])):
            layer.weight.copy_(torch.tensor(values)[:, None, None, None].expand(3, 3, 1, 1) / 3.0)
    network = pretrim.analyze(model, IMAGE)
    assert score(model, network).tolist() == pytest.approx([7.0, 10.0, 3.0])
    assert kept_channels(network, np.array([1]), score(model, network)).tolist() == [False, True, False]


def test_the_first_channels_are_kept_among_equal_norms() -> None:
    model = nn.Sequential(conv1(3, 4), conv1(4, 2))
    nn.init.ones_(model[0].weight)
    network = pretrim.analyze(model, IMAGE)
    assert kept_channels(network, np.array([2]), score(model, network)).tolist() == [True, True, False, False]


def test_fresh_keeps_the_first_channels() -> None:
    network = pretrim.analyze(nn.Sequential(conv(3, 4), conv(4, 3), conv(3, 2)), IMAGE)
    kept = kept_channels(network, np.array([1, 2]))
    assert kept[network.group_of == 0].tolist() == [True, False, False, False]
    assert kept[network.group_of == 1].tolist() == [True, True, False]


def test_inherit_at_full_width_changes_nothing() -> None:
    model = randomise(BUILTIN["resnet20"](), 0).eval()
    network = pretrim.analyze(model, torch.zeros(1, 3, 32, 32, dtype=torch.float64))
    slim = plan_of_widths(network, network.dense).apply(model, init="inherit")
    assert all(torch.equal(t, slim.state_dict()[name]) for name, t in model.state_dict().items())


def test_an_unknown_init_is_refused() -> None:
    model = nn.Sequential(conv(3, 4), conv(4, 2))
    plan = plan_of_widths(pretrim.analyze(model, IMAGE), [2])
    with pytest.raises(UsageError, match=r"Expected init to be one of fresh, inherit, but got 'copy'\."):
        plan.apply(model, init="copy")


def test_the_slim_network_carries_its_plan() -> None:
    model = nn.Sequential(conv(3, 4), conv(4, 2))
    plan = plan_of_widths(pretrim.analyze(model, IMAGE), [2])
    assert plan_of(plan.apply(model)) is plan


def test_a_network_without_a_plan_is_refused() -> None:
    with pytest.raises(UsageError, match="Expected a slim network made by pretrim, but got a module without a plan"):
        plan_of(nn.Linear(2, 2))


# ---------------------------------------------------------------------------------------- unusual modules


def _weight_norm(layer: nn.Module) -> nn.Module:
    return nn.utils.parametrizations.weight_norm(layer)


def _spectral_norm(layer: nn.Module) -> nn.Module:
    return nn.utils.parametrizations.spectral_norm(layer)


def _old_weight_norm(layer: nn.Module) -> nn.Module:
    with pytest.warns(FutureWarning):
        return nn.utils.weight_norm(layer)


class Centred(nn.Module):
    """A parametrization that couples every weight of a filter."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight - weight.mean((1, 2, 3), keepdim=True)


def _parametrized(layer: nn.Module) -> nn.Module:
    nn.utils.parametrize.register_parametrization(layer, "weight", Centred())
    return layer


@pytest.mark.parametrize("wrap", [_weight_norm, _spectral_norm, _old_weight_norm, _parametrized])
def test_layers_with_a_computed_weight_follow_their_plan(wrap: Callable[[nn.Module], nn.Module]) -> None:
    model = nn.Sequential(conv(3, 8), wrap(conv(8, 6)), conv(6, 2))
    network = pretrim.analyze(model, IMAGE)
    widths = np.maximum(1, network.dense // 2)
    plan = plan_of_widths(network, widths)
    slim = plan.apply(model)
    assert sum(p.numel() for p in slim.parameters()) == plan.slim["params"]
    assert slim(IMAGE).shape == (1, 2, 8, 8)


def test_filters_of_a_layer_with_weight_norm_can_be_removed() -> None:
    model = nn.Sequential(_weight_norm(conv(3, 8)), conv(8, 2))
    assert [group.channels for group in pretrim.analyze(model, IMAGE).groups] == [8]


def test_removing_filters_of_a_layer_with_weight_norm_leaves_the_others_unchanged() -> None:
    """Weight norm acts per filter; the next layer loses the matching input channels."""
    model = randomise(nn.Sequential(_weight_norm(conv(3, 8)), conv(8, 2)), 0)
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    network = pretrim.analyze(model, images)
    plan = plan_of_widths(network, [3])
    kept = torch.from_numpy(np.flatnonzero(kept_channels(network, plan.widths, score(model, network))))
    by_hand = F.conv2d(model[0](images)[:, kept], model[1].weight[:, kept], model[1].bias, padding=1).detach()
    assert relative_error(run(plan.apply(model, init="inherit"), images), [by_hand]) < 1e-10


class Tied(nn.Module):
    """Two layers that share one weight, as in an auto-encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = conv1(8, 8), conv1(8, 8), conv1(8, 2)
        self.stem = conv(3, 8)
        self.b.weight = self.a.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.b(F.relu(self.a(self.stem(x)))))


def test_tied_weights_stay_tied() -> None:
    model = Tied()
    slim = plan_of_widths(pretrim.analyze(model, IMAGE), [5]).apply(model)
    assert slim.a.weight is slim.b.weight
    assert slim.a.weight.shape == (5, 5, 1, 1)


def test_tied_weights_are_counted_once() -> None:
    model = Tied()
    network = pretrim.analyze(model, IMAGE)
    assert plan_of_widths(network, [8]).dense["params"] == sum(p.numel() for p in model.parameters()) == 304


def test_frozen_parameters_stay_frozen() -> None:
    model = nn.Sequential(conv(3, 8), conv(8, 8), conv(8, 2))
    model[0].weight.requires_grad_(False)
    slim = plan_of_widths(pretrim.analyze(model, IMAGE), [4]).apply(model)
    assert [p.requires_grad for p in slim.parameters()] == [False, True, True, True, True, True]


def test_half_precision_is_kept() -> None:
    model = nn.Sequential(conv(3, 8), conv(8, 2)).to(torch.bfloat16)
    slim = plan_of_widths(pretrim.analyze(model, IMAGE.to(torch.bfloat16)), [4]).apply(model)
    assert {p.dtype for p in slim.parameters()} == {torch.bfloat16}


def test_size_attributes_of_torch_layers_are_updated() -> None:
    layers = [conv(3, 8), nn.BatchNorm2d(8), nn.PReLU(8), conv(8, 8, groups=8), nn.GroupNorm(4, 8), nn.Flatten()]
    model = nn.Sequential(*layers, nn.Linear(512, 10), nn.Linear(10, 2))
    # The 4 groups of 2 channels are cut to 1 channel each.
    slim = plan_of_widths(pretrim.analyze(model, IMAGE), [1, 7]).apply(model)
    assert (slim[0].in_channels, slim[0].out_channels, slim[1].num_features, slim[2].num_parameters) == (3, 4, 4, 4)
    assert (slim[3].groups, slim[3].in_channels, slim[3].out_channels, slim[4].num_channels) == (4, 4, 4, 4)
    assert (slim[6].in_features, slim[6].out_features, slim[7].in_features) == (256, 7, 7)


def test_tensor_attributes_are_copied_not_shared() -> None:
    model = nn.Sequential(conv(3, 4), conv(4, 2))
    model.scale = torch.ones(3)
    slim = plan_of_widths(pretrim.analyze(model, IMAGE), [2]).apply(model)
    slim.scale.zero_()
    assert model.scale.tolist() == [1.0, 1.0, 1.0]


def test_features_stored_by_a_hook_do_not_prevent_a_copy() -> None:
    """After a training step such features belong to an autograd graph, which copy.deepcopy refuses."""
    model = nn.Sequential(conv(3, 8), conv(8, 8), conv(8, 2))
    model.features = {"seen": []}
    model[1].register_forward_hook(lambda _module, _args, out: model.features["seen"].append(out))
    model(IMAGE).sum().backward()
    slim = pretrim.analyze(model, IMAGE).plan(macs="0.5x").apply(model)
    assert slim.features["seen"][0] is not model.features["seen"][0]


@pytest.mark.filterwarnings("ignore:.*torch.jit.* is deprecated")
def test_a_compiled_model_is_analysed_and_slimmed_uncompiled() -> None:
    plain = nn.Sequential(conv(3, 8), nn.ReLU(), conv(8, 2))
    compiled = torch.compile(plain)
    frames_before = torch._dynamo.utils.counters["frames"]["total"]
    network = pretrim.analyze(compiled, IMAGE)
    slim = network.plan(macs="0.5x", round_to=1).apply(compiled)
    assert torch._dynamo.utils.counters["frames"]["total"] == frames_before
    assert macs(network)(network.dense) == macs(pretrim.analyze(plain, IMAGE))(network.dense)
    assert slim._orig_mod[0].out_channels == 4


def test_a_view_with_a_fixed_size_freezes_its_layer_and_names_the_fix() -> None:
    """PyTorch's own tutorial flattens features this way: ``x.view(-1, 16 * 5 * 5)``."""
    layers = {"a": conv(3, 8), "c": nn.Linear(8 * 8 * 8, 2)}
    frozen = pretrim.analyze(Net(lambda m, x: m.c(m.a(x).view(-1, 8 * 8 * 8)), **layers), IMAGE).frozen[0]
    assert frozen.layer == "a"
    assert frozen.reason == (
        "view with the number 512, which stays when the network is narrower (x.flatten(1) would follow)"
    )
    assert not pretrim.analyze(Net(lambda m, x: m.c(m.a(x).flatten(1)), **layers), IMAGE).frozen[1:]


class ScriptedSwish(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(x)


@pytest.mark.filterwarnings("ignore:.*torch.jit.* is deprecated")
def test_a_scripted_activation_passes_channels_through() -> None:
    model = randomise(nn.Sequential(conv(3, 8), torch.jit.script(ScriptedSwish()), conv(8, 2)), 0)
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    network = pretrim.analyze(model, images)
    slim = plan_of_widths(network, [3]).apply(model, "inherit")
    kept = torch.from_numpy(np.sort(np.argsort(-model[0].weight.detach().abs().sum((1, 2, 3)).numpy())[:3]))
    x = F.conv2d(images, model[0].weight[kept], model[0].bias[kept], padding=1)
    by_hand = F.conv2d(x * torch.sigmoid(x), model[2].weight[:, kept], model[2].bias, padding=1)
    assert relative_error(run(slim, images), [by_hand.detach()]) < 1e-10


@pytest.mark.filterwarnings("ignore:.*torch.jit.* is deprecated")
def test_a_scripted_layer_is_refused_by_name() -> None:
    model = nn.Sequential(conv(3, 8), torch.jit.script(nn.Sequential(conv(8, 8), nn.ReLU())), conv(8, 2))
    with pytest.raises(ModelError, match="but got a TorchScript module in 1: give the Python model"):
        pretrim.analyze(model, IMAGE)


def test_a_model_on_the_meta_device_is_slimmed_there() -> None:
    """A meta model has no values, and its device is not that of the zeros that a plan stores as example inputs."""
    with torch.device("meta"):
        model = nn.Sequential(conv(3, 8), nn.ReLU(), conv(8, 2))
    slim = pretrim.analyze(model, IMAGE.to("meta")).plan(macs="0.5x").apply(model)
    assert slim(IMAGE.to("meta")).shape == (1, 2, 8, 8)
    assert slim[0].weight.shape[0] < 8


def test_a_slim_network_is_trained_like_any_other() -> None:
    model = BUILTIN["resnet20"]().train()
    slim = pretrim.analyze(model, torch.zeros(1, 3, 32, 32)).plan(macs="0.5x").apply(model)
    slim(torch.randn(4, 3, 32, 32)).sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in slim.parameters())


def test_a_slim_network_can_be_slimmed_again() -> None:
    model = nn.Sequential(conv(3, 8), conv(8, 2))
    once = plan_of_widths(pretrim.analyze(model, IMAGE), [6]).apply(model)
    twice = plan_of_widths(pretrim.analyze(once, IMAGE), [4]).apply(once)
    assert twice[0].out_channels == 4


def test_an_example_without_images_is_refused() -> None:
    with pytest.raises(ModelError, match=r"at least one image, but got a shape of \(0, 3, 8, 8\)"):
        pretrim.analyze(conv(3, 4), torch.zeros(0, 3, 8, 8))


def test_a_model_that_cannot_be_copied_raises_a_model_error() -> None:
    model = nn.Sequential(conv(3, 4), conv(4, 2))
    model.stream = (number for number in range(3))
    with pytest.raises(ModelError):
        pretrim.analyze(model, IMAGE)


# ---------------------------------------------------------------------------------------- plans as files


@pytest.fixture(scope="module")
def dense() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(conv(3, 8), nn.ReLU(), conv(8, 6), conv(6, 2))


@pytest.fixture(scope="module")
def network(dense: nn.Module) -> Network:
    return pretrim.analyze(dense, IMAGE)


@pytest.fixture
def plan(network: Network) -> Plan:
    return network.plan(mode="macs", macs="0.5x", ram="0.9x", seed=3, round_to=1)


def test_a_plan_survives_a_round_trip_through_json(plan: Plan) -> None:
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


def test_a_plan_survives_a_round_trip_through_a_file(plan: Plan, tmp_path: Path) -> None:
    plan.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == plan


def test_a_plan_from_a_file_gives_the_same_network(plan: Plan, dense: nn.Module, tmp_path: Path) -> None:
    plan.save(tmp_path / "plan.json")
    slim, again = plan.apply(dense), Plan.load(tmp_path / "plan.json").apply(dense)
    assert all(torch.equal(a, b) for a, b in zip(slim.parameters(), again.parameters(), strict=True))


def test_a_plan_with_several_named_inputs_survives_a_round_trip_through_json() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 6), nn.Linear(5, 6)

        def forward(self, left: Tensor, right: Tensor, scale: float = 1.0) -> Tensor:
            return (self.a(left) * self.b(right) * scale).mean(1, keepdim=True)

    network = pretrim.analyze(Two(), {"left": torch.zeros(1, 4), "right": torch.zeros(1, 5), "scale": 2.0})
    plan = plan_of_widths(network, np.maximum(1, network.dense // 2))
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


def test_a_plan_records_its_limits_and_options(plan: Plan) -> None:
    assert plan.limits == {"macs": "0.5x", "peak_activation_bytes": "0.9x"}
    assert (plan.options["mode"], plan.options["seed"], plan.options["round_to"]) == ("macs", 3, 1)


def test_a_plan_is_frozen(plan: Plan) -> None:
    with pytest.raises(AttributeError):
        plan.seed = 1  # type: ignore[attr-defined]


def damaged(plan: Plan, change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    data = plan.to_json()
    change(data)
    return data


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("groups"), "The plan is damaged: object missing required field `groups`. Make it again"),
        (lambda d: d.pop("fingerprint"), r"damaged: object missing required field `fingerprint`\. Make it again\."),
        (lambda d: d.pop("dense"), "damaged"),
        (lambda d: d.update(groups=3), "damaged"),
        (lambda d: d["groups"][0].pop("kept"), "damaged"),
        (lambda d: d["groups"][0].update(kept=0), "keeps 0 of 8"),
        (lambda d: d["groups"][0].update(kept=9), "keeps 9 of 8"),
        (lambda d: d["groups"][0].update(kept="3"), r"at \$\.groups\[0\]\.kept, expected `int`, got `str`"),
        (lambda d: d["groups"][0].update(kept=2.5), r"at \$\.groups\[0\]\.kept, expected `int`, got `float`"),
        (lambda d: d["groups"][0].update(kept=True), r"at \$\.groups\[0\]\.kept, expected `int`, got `bool`"),
        (lambda d: d["groups"][0].update(layers=None), "damaged"),
        (lambda d: d.update(dtype="int4"), "damaged"),
        (lambda d: d.update(dense=None), "damaged"),
        (lambda d: d.update(example=None), "damaged"),
        (lambda d: d.update(version=2), "Expected a plan of version 1, but got 2: update pretrim"),
        (lambda d: d.pop("version"), "Expected a plan of version 1, but got None"),
        (lambda d: d.update(format="onnx"), "The file is JSON, but not a plan of pretrim"),
    ],
    ids=[
        *("no groups", "no fingerprint", "no dense costs", "groups a number", "no width", "width 0", "width too large"),
        *("width a text", "width a fraction", "width a truth value", "layers none", "data type unknown", "costs none"),
        *("example none", "version 2", "no version", "another format"),
    ],
)
def test_damaged_plans_are_refused(plan: Plan, change: Callable[[dict[str, Any]], Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        Plan.from_json(damaged(plan, change))


@pytest.mark.parametrize("data", [[], None, "plan", 3, {}])
def test_json_that_is_not_a_plan_is_refused(data: Any) -> None:
    with pytest.raises(PlanError, match="The file is JSON, but not a plan of pretrim"):
        Plan.from_json(data)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        (b"{", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"", "not valid JSON"),
        (b"[" * 100_000, "nested too deeply"),
    ],
    ids=["missing", "truncated", "bytes", "empty", "deep"],
)
def test_files_that_are_not_a_plan_are_refused(content: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(PlanError, match=re.escape(str(path)) + f".*{message}"):
        Plan.load(path)


def test_a_plan_for_another_model_is_refused(plan: Plan) -> None:
    other = nn.Sequential(conv(3, 8), nn.ReLU(), conv(8, 7), conv(7, 2))
    with pytest.raises(PlanError, match="Expected the model that the plan was made for, but its parameters have other"):
        plan.apply(other)


def test_a_plan_with_edited_groups_is_refused(plan: Plan, dense: nn.Module) -> None:
    data = damaged(plan, lambda d: d["groups"][0].update(name="another"))
    with pytest.raises(PlanError, match="Expected a plan for this network's channel groups, but its groups differ"):
        Plan.from_json(data).apply(dense)


@pytest.mark.parametrize("widths", [[1], [1, 2, 3], [0, 1], [9, 1], [-1, 1]])
def test_invalid_widths_are_refused(network: Network, widths: list[int]) -> None:
    with pytest.raises(UsageError, match="Expected 2 widths, each from 1 to its group's channels, but got"):
        plan_of_widths(network, widths)


def test_fractional_widths_are_refused(network: Network) -> None:
    with pytest.raises(UsageError, match="Expected 2 widths"):
        plan_of_widths(network, [2.7, 1.2])


class FixedTransform(nn.Module):
    """A layer whose weight is a buffer, such as a cosine transform: it counts as a layer, but it is not trained."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 32, 3)
        self.register_buffer("transform", torch.randn(32, 32, 1, 1))
        self.last = nn.Linear(32, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.conv2d(self.first(x), self.transform).relu()
        return self.last(x.mean((2, 3)))


@pytest.mark.parametrize("weights", ["fresh", "inherit"])
def test_a_layer_whose_weight_is_a_buffer_is_slimmed(weights: str) -> None:
    model = FixedTransform()
    slim = pretrim.analyze(model, torch.zeros(1, 3, 8, 8)).plan(macs="0.5x").apply(model, weights)
    assert slim(torch.zeros(2, 3, 8, 8)).shape == (2, 4)
    assert slim.transform.shape[0] < 32
