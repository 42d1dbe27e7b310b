"""Costs compared with numbers computed by hand, and matrices of widths with their rows one by one."""

import re
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from networks import AWKWARD, Net, Recipe, build, conv, conv1, example, recipes
from reference import counted_macs
from torch import nn

import pretrim
from pretrim.analysis.network import Network
from pretrim.cost.costs import COSTS, MODES, cost, costs, layer_costs, layer_terms, moments
from pretrim.cost.formula import formula
from pretrim.errors import UsageError
from pretrim.planning.search import plan_of_widths

IMAGE = torch.zeros(1, 3, 8, 8)


@pytest.fixture(scope="module")
def chain() -> Network:
    """conv 3 -> 8, batch norm, relu, conv 8 -> 4 with stride 2, mean, linear 4 -> 5."""
    layers = [conv(3, 8), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3, stride=2, padding=1)]
    return pretrim.analyze(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)), IMAGE)


def by_hand(a: int, b: int) -> dict[str, int]:
    """The five costs of the chain in float32, with a and b filters."""
    return {
        "params": (27 * a + a) + 2 * a + (9 * a * b + b) + (5 * b + 5),
        "macs": 64 * 27 * a + 16 * 9 * a * b + 5 * b,
        "weight_bytes": 4 * ((27 * a + a) + 2 * a + (9 * a * b + b) + (5 * b + 5)),
        "activation_bytes": 4 * (64 * a + 16 * b + 5),
        "peak_activation_bytes": 4 * max(64 * (3 + a), 64 * a + 16 * b),
    }


@pytest.mark.parametrize("widths", [(8, 4), (1, 1), (5, 3), (8, 1), (2, 4)])
def test_five_costs_of_a_chain(chain: Network, widths: tuple[int, int]) -> None:
    assert plan_of_widths(chain, widths).slim == by_hand(*widths)


def test_int8_weights_take_one_byte_and_biases_four(chain: Network) -> None:
    weights, one_dimensional = 27 * 8 + 9 * 8 * 4 + 5 * 4, 8 + 2 * 8 + 4 + 5
    assert int(cost(chain, "weight_bytes", "int8")(chain.dense)) == weights + 4 * one_dimensional


def test_float16_takes_two_bytes(chain: Network) -> None:
    assert int(cost(chain, "activation_bytes", "float16")(chain.dense)) == 2 * (64 * 8 + 16 * 4 + 5)


def test_buffers_are_not_parameters(chain: Network) -> None:
    """The running mean, the running variance and the number of batches are not trained."""
    assert int(cost(chain, "params")(chain.dense)) == 224 + 16 + 292 + 25


@pytest.mark.parametrize(
    ("name", "attend"),
    [
        ("along", lambda m, x: m.k(x.mean((2, 3)).unsqueeze(1)).transpose(1, 2).unsqueeze(3)),  # efficient attention
        ("beside", lambda m, x: m.k(x.mean((2, 3)).reshape(-1, 1, 1)).reshape(len(x), -1, 1, 1)),
    ],
)
def test_macs_of_a_convolution_over_the_channels_follow_their_number(name: str, attend: Any) -> None:
    """A filter of three taps at each of `a` channels, which are the positions or the batch of the convolution."""
    model = Net(lambda m, x: m.b((y := m.a(x)) * attend(m, y)), a=conv1(3, 8), b=conv1(8, 2))
    model.k = nn.Conv1d(1, 1, 3, padding=1)
    network = pretrim.analyze(model, IMAGE)
    for a in (1, 3, 8):
        plan = plan_of_widths(network, [a, 1])
        assert plan.slim["macs"] == 64 * 3 * a + 3 * a + 64 * a * 2 == counted_macs(plan.apply(model), IMAGE)


def test_costs_do_not_depend_on_the_batch_size() -> None:
    model = nn.Sequential(conv(3, 8), conv(8, 2))
    single, batch = (pretrim.analyze(model, torch.zeros(size, 3, 8, 8)) for size in (1, 7))
    assert plan_of_widths(single, single.dense).dense == plan_of_widths(batch, batch.dense).dense


def test_attention_counts_its_matrix_products() -> None:
    """Queries, keys and values map 4 -> 8 (two heads of 4) on 64 pixels; scores and sums take 2 * 64 * 64 * 8."""
    recipe = Recipe(("Attention",), 4, "one", "map", 0)
    model = build(recipe)
    network = pretrim.analyze(model, example(recipe))
    projections = 64 * (3 * 4 * 8 + 8 * 4)
    expected = 64 * 27 * 4 + projections + 2 * 64 * 64 * 8 + 64 * 4 * 2
    assert int(cost(network, "macs")(network.dense)) == expected


def test_a_transposed_convolution_counts_from_its_input() -> None:
    network = pretrim.analyze(nn.Sequential(conv1(3, 8), nn.ConvTranspose2d(8, 4, 4, stride=2, padding=1)), IMAGE)
    assert int(cost(network, "macs")(network.dense)) == 64 * 24 + 64 * 8 * 4 * 16


def test_a_shared_layer_has_its_parameters_once_and_its_work_twice() -> None:
    net = next(net for net in AWKWARD if net.name == "shared")
    network = pretrim.analyze(net.build(), net.example)
    assert [layer.params for layer in layer_costs(network, network.dense) if layer.name == "b"] == [576, 576]
    assert int(cost(network, "params")(network.dense)) == 24 + 576 + 16


def test_a_head_used_in_training_only_has_parameters_but_no_work() -> None:
    net = next(net for net in AWKWARD if net.name == "auxiliary head")
    network = pretrim.analyze(net.build(), net.example)
    by_name = {layer.name: layer for layer in layer_costs(network, network.dense)}
    assert (by_name["auxiliary"].params, by_name["auxiliary"].macs, by_name["auxiliary"].activation_bytes) == (24, 0, 0)


def test_layer_costs_by_hand(chain: Network) -> None:
    rows = [
        (layer.name, layer.kind, layer.filters, layer.params, layer.macs, layer.activation_bytes)
        for layer in layer_costs(chain, [5, 3])
    ]
    assert rows == [
        ("0", "convolution", 5, 135, 64 * 135, 4 * 320),
        ("3", "convolution", 3, 135, 16 * 135, 4 * 48),
        ("6", "linear", 5, 15, 15, 4 * 5),
    ]


def test_norm_and_activation_take_no_memory_of_their_own() -> None:
    plain = pretrim.analyze(nn.Sequential(conv(3, 8), conv(8, 2)), IMAGE)
    normed = pretrim.analyze(
        nn.Sequential(conv(3, 8), nn.BatchNorm2d(8), nn.SiLU(), nn.Hardtanh(), conv(8, 2), nn.Sigmoid()), IMAGE
    )
    peaks = [int(cost(network, "peak_activation_bytes")(network.dense)) for network in (plain, normed)]
    assert peaks == [4 * 64 * 11, 4 * 64 * 11]


def test_a_reshape_takes_no_memory_of_its_own() -> None:
    model = Net(lambda m, x: m.b(m.a(x).view(len(x), -1, 64).view(len(x), -1, 8, 8)), a=conv(3, 8), b=conv(8, 2))
    assert int(cost(pretrim.analyze(model, IMAGE), "peak_activation_bytes")([8])) == 4 * 64 * 11


def test_an_output_of_the_network_stays_until_the_end() -> None:
    """The first map (4 channels) is returned, so it is still alive when the last convolution runs (8 + 8)."""
    model = Net(lambda m, x: ((y := m.a(x)), m.c(m.b(y))), a=conv(3, 4), b=conv(4, 8), c=conv(8, 8))
    network = pretrim.analyze(model, IMAGE)
    assert int(cost(network, "peak_activation_bytes", "int8")(network.dense)) == 64 * (4 + 8 + 8)


def test_moments_of_a_chain_are_pairs_of_consecutive_tensors(chain: Network) -> None:
    """They are: image and first map, first and second map, second map and its mean, mean and scores."""
    assert len(moments(chain)) == 4


@pytest.mark.parametrize("name", COSTS)
def test_a_matrix_of_widths_gives_the_same_costs_as_its_rows(chain: Network, name: str) -> None:
    widths = np.random.default_rng(0).integers(1, chain.dense + 1, size=(200, 2))
    function = cost(chain, name)
    assert function(widths).tolist() == [int(function(row)) for row in widths]
    assert function(widths).tolist() == [by_hand(*row)[name] for row in widths.tolist()]


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(recipe=recipes(), seed=st.integers(0, 1000))
def test_costs_never_fall_when_a_width_grows(recipe: Recipe, seed: int) -> None:
    network = pretrim.analyze(build(recipe), example(recipe))
    narrow = np.random.default_rng(seed).integers(1, network.dense + 1)
    for function in costs(network, "int8").values():
        wider = narrow + np.eye(len(narrow), dtype=np.int64)
        assert (function(wider) >= function(narrow)).all() if len(narrow) else True


def test_rows_of_a_matrix_of_widths_are_independent(chain: Network) -> None:
    widths = np.array([[8, 4], [1, 1]])
    assert cost(chain, "params")(widths).tolist() == cost(chain, "params")(widths[::-1])[::-1].tolist()


def test_costs_are_exact_beyond_single_precision() -> None:
    model = nn.Sequential(nn.Conv2d(3, 512, 3, padding=1), nn.Conv2d(512, 509, 3, padding=1), nn.Conv2d(509, 2, 1))
    network = pretrim.analyze(model, torch.zeros(1, 3, 224, 224))
    pixels = 224 * 224
    assert int(cost(network, "macs")([511, 509])) == pixels * (27 * 511 + 9 * 511 * 509 + 2 * 509)


@pytest.mark.parametrize("mode", MODES)
def test_layer_terms_of_the_three_modes(chain: Network, mode: str) -> None:
    expected = {
        "params": [27 * 8, 9 * 32, 20],
        "macs": [64 * 27 * 8, 16 * 9 * 32, 20],
        "memory": [64 * 8, 16 * 4, 5],
    }
    assert formula(chain, layer_terms(chain, mode))(chain.dense[None])[0].tolist() == expected[mode]


def test_an_unknown_cost_is_refused(chain: Network) -> None:
    with pytest.raises(UsageError, match=re.escape("Expected cost to be one of params, macs, weight_bytes")):
        cost(chain, "latency")


def test_an_unknown_data_type_is_refused(chain: Network) -> None:
    with pytest.raises(UsageError, match=re.escape("Expected dtype to be one of float32, float16, int8, but got")):
        cost(chain, "params", "int4")


def test_an_unknown_mode_is_refused(chain: Network) -> None:
    with pytest.raises(UsageError, match=re.escape("Expected mode to be one of params, macs, memory, but got 'flops'")):
        layer_terms(chain, "flops")
