"""Lossless slimming: filters that are zero, constant or never read are removed, and the outputs agree up to rounding.

The filters to remove are counted by hand for each family of networks. That nothing else changes is checked on the
outputs, both of these families and of random networks with random filters set to zero.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from random import Random

import hypothesis
import hypothesis.strategies as st
import pytest
import torch
from networks import Recipe, Residual, SqueezeExcite, build, conv, example, recipes
from reference import randomise
from small import SHAPE, small
from torch import Tensor, nn

import pretrim
from pretrim.analysis.network import Network
from pretrim.surgery.dead import DeadFilters, find_dead, largest_difference, remove_dead

Call = Callable[..., tuple[int, str, str]]
EXACT = 1e-12


def analyse(model: nn.Module, inputs: object) -> tuple[Network, DeadFilters]:
    network = pretrim.analyze(model, inputs)  # type: ignore[arg-type]  # any kind of example
    return network, find_dead(model, network, inputs)  # type: ignore[arg-type]


def slim_of(model: nn.Module, channels: int = 3, side: int = 8) -> tuple[nn.Module, dict[str, tuple[int, int, int]]]:
    """The slim network, checked against the dense one, and per group the zero, constant and unread filters removed."""
    single, batch = (torch.randn(size, channels, side, side, dtype=torch.float64) for size in (1, 5))
    network, dead = analyse(model.double().eval(), single)
    slim = remove_dead(model, network, dead)
    assert largest_difference(model, slim, [single, batch]) < EXACT
    return slim, {group.group: (group.zero, group.constant, group.unread) for group in dead.groups if group.removed}


def zero(layer: nn.Module, *filters: int, bias: float = 0.0) -> None:
    """Set filters of a layer to zero and their biases to a number."""
    with torch.no_grad():
        layer.weight[list(filters)] = 0.0  # type: ignore[index]
        if layer.bias is not None:
            layer.bias[list(filters)] = bias  # type: ignore[index]


def head(channels: int) -> tuple[nn.Module, ...]:
    return nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 4)


# ---------------------------------------------------------------------------------------- families of networks


def test_zero_filters_are_removed_and_constants_are_folded_into_the_next_bias() -> None:
    model = randomise(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU(), *head(6)), 0)
    zero(model[0], 1, 2)
    zero(model[0], 5, bias=0.7)
    zero(model[0], 6, bias=-0.7)  # zero after the ReLU
    zero(model[2], 4, bias=0.3)  # a constant input of the classifier
    slim, removed = slim_of(model)
    assert removed == {"0": (3, 1, 0), "2": (0, 1, 0)}
    assert (slim[0].weight.shape, slim[2].weight.shape) == ((4, 3, 3, 3), (5, 4, 3, 3))
    before, after = model[2].bias, slim[2].bias
    kept = [0, 1, 2, 3, 5]
    torch.testing.assert_close(after, (before + 0.7 * model[2].weight[:, 5].sum((1, 2)))[kept])
    assert slim_of(slim)[1] == {}


def test_a_constant_before_zero_padding_stays_and_the_reason_is_given() -> None:
    model = randomise(nn.Sequential(conv(3, 8), nn.ReLU(), conv(8, 6), nn.ReLU(), *head(6)), 0)
    zero(model[0], 1)
    zero(model[0], 5, bias=0.7)
    _, dead = analyse(model, torch.zeros(1, 3, 8, 8, dtype=torch.float64))
    assert dead.removed == 1
    assert dead.groups[0].spared == ((1, "2 pads with zeros, so a constant differs at the border"),)
    slim_of(model)


def test_a_constant_is_folded_into_the_norm_after_a_layer_without_bias() -> None:
    layers = (nn.Conv2d(3, 8, 3), nn.Sigmoid(), nn.Conv2d(8, 6, 1, bias=False), nn.BatchNorm2d(6), nn.ReLU())
    model = randomise(nn.Sequential(*layers, *head(6)), 0)
    zero(model[0], 2, 3)  # the sigmoid of zero is a half
    slim, removed = slim_of(model)
    assert removed == {"0": (0, 2, 0)}
    moved = model[3].running_mean - 0.5 * model[2].weight[:, 2:4].sum((1, 2, 3))
    torch.testing.assert_close(slim[3].running_mean, moved)


def test_without_bias_and_norm_a_constant_stays() -> None:
    model = randomise(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Sigmoid(), nn.Conv2d(8, 6, 1, bias=False), *head(6)), 0)
    zero(model[0], 2, 3)
    _, dead = analyse(model, torch.zeros(1, 3, 8, 8, dtype=torch.float64))
    assert dead.removed == 0 and dead.groups[0].spared == ((2, "2 has no bias of its own to take a constant"),)


def test_a_norm_whose_scale_is_zero_is_a_constant() -> None:
    model = randomise(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), *head(8)), 0)
    with torch.no_grad():
        model[1].weight[[0, 3]] = 0.0
        model[1].bias[[0, 3]] = torch.tensor([0.4, -0.4], dtype=torch.float64)
    assert slim_of(model)[1] == {"0": (1, 1, 0)}


def test_unread_filters_are_removed_with_those_that_only_feed_them() -> None:
    plain = nn.Sequential(conv(3, 8), nn.ReLU(), conv(8, 6), nn.ReLU(), conv(6, 5), nn.ReLU(), *head(5))
    model = randomise(plain, 0)
    with torch.no_grad():
        model[8].weight[:, 2] = 0.0  # filter 2 of layer 4 is not read,
        model[4].weight[[0, 1, 3, 4], 1] = 0.0  # filter 1 of layer 2 is read by that filter alone,
        model[2].weight[[0, 2, 3, 4, 5], 7] = 0.0  # and so is filter 7 of layer 0 by filter 1 of layer 2
    assert slim_of(model)[1] == {"0": (0, 0, 1), "2": (0, 0, 1), "4": (0, 0, 1)}


def test_a_residual_channel_is_dead_only_if_all_layers_that_write_it_are() -> None:
    model = randomise(nn.Sequential(conv(3, 8), nn.ReLU(), Residual(8, Random(0)), *head(8)), 0)
    block = model[2]
    zero(model[0], 1, 2)
    with torch.no_grad():  # the second layer that writes the stream: only channel 1
        block.last.weight[1] = block.last.bias[1] = 0.0
    assert slim_of(model)[1] == {"0": (1, 0, 0)}


def test_depthwise_filters_are_removed_with_their_channel() -> None:
    layers = (conv(8, 8, groups=8, bias=False), nn.BatchNorm2d(8), nn.ReLU6(), nn.Conv2d(8, 6, 1))
    model = randomise(nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), *layers, nn.ReLU(), *head(6)), 0)
    zero(model[0], 3)  # the norm turns it into another constant, at the border as well: no padding follows
    zero(model[2], 5)
    slim, removed = slim_of(model)
    assert sum(map(sum, removed.values())) == 2 and slim[0].out_channels == slim[2].groups == slim[5].in_channels == 6


def test_grouped_filters_are_removed_if_dead_in_every_group() -> None:
    model = randomise(nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), conv(8, 6, groups=2), nn.ReLU(), *head(6)), 0)
    zero(model[0], 1, 5, 2)  # 1 and 5 have the same position in both groups; 6, the counterpart of 2, is not zero
    slim, removed = slim_of(model)
    assert removed == {"0": (1, 0, 0)} and slim[2].weight.shape == (6, 3, 3, 3)


def test_a_gate_is_removed_with_the_channel_that_it_gates() -> None:
    for seed in range(4):  # these seeds give gates of linear layers and of convolutions
        model = randomise(nn.Sequential(conv(3, 8), nn.ReLU(), SqueezeExcite(8, Random(seed)), *head(8)), 0)
        zero(model[0], 1, 6)
        slim, removed = slim_of(model)
        assert removed == {"0": (2, 0, 0)} and slim[2].excite.weight.shape[0] == slim[2].squeeze.weight.shape[1] == 6


def test_branches_of_a_concatenation_lose_their_dead_filters_separately() -> None:
    model = randomise(Branches(), 0)
    zero(model.left, 0, 2)
    zero(model.right, 1, bias=0.5)
    slim, removed = slim_of(model)
    assert removed == {"left": (2, 0, 0), "right": (0, 1, 0)} and slim.join.weight.shape == (5, 7, 1, 1)


def test_a_layer_whose_filters_are_all_dead_keeps_one() -> None:
    model = randomise(nn.Sequential(conv(3, 8), nn.ReLU(), conv(8, 6), nn.ReLU(), *head(6)), 0)
    zero(model[0], *range(8))
    slim, removed = slim_of(model)
    assert removed["0"] == (7, 0, 0) and slim[0].out_channels == 1


class Branches(nn.Module):
    """Two branches of different widths, concatenated."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.join, self.out = conv(3, 4), conv(3, 6), nn.Conv2d(10, 5, 1), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.left(x).relu(), self.right(x).relu()], 1)
        return self.out(self.join(x).relu().mean((2, 3)))


# ---------------------------------------------------------------------------------------- what stays


def test_channels_that_an_operator_mixes_stay() -> None:
    """A layer norm divides by the standard deviation of all channels, which changes if a zero channel is removed."""

    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.out = conv(3, 8), nn.LayerNorm(8), nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.norm(self.conv(x).mean((2, 3))))

    model = randomise(Normed(), 0)
    zero(model.conv, 1, 2)
    assert slim_of(model)[1] == {}


def test_a_partially_overwritten_tensor_is_not_constant() -> None:
    """A write through one view also counts for the other views of the same memory."""

    class Written(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.out = conv(3, 8), nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            y[:, :, 2:, :] += x.mean(1, keepdim=True)[:, :, 2:, :]
            return self.out(y.mean((2, 3)))

    model = randomise(Written(), 0)
    zero(model.conv, 1, 2)
    assert slim_of(model)[1] == {}


def test_a_layer_that_runs_twice_takes_no_constant() -> None:
    """The constant would be added in both calls, although their inputs differ."""

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.again, self.out = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.again(self.first(x).relu()).relu()
            return self.out(self.again(x).relu().mean((2, 3)))

    model = randomise(Twice(), 0)
    zero(model.first, 1, bias=0.5)
    zero(model.again, 1, bias=0.5)
    assert slim_of(model)[1] == {}


def test_a_norm_takes_no_constant_from_a_layer_that_is_also_an_output() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1, bias=False)
            self.norm, self.out = nn.BatchNorm2d(4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            y = self.second(self.first(x).relu())
            return y, self.out(self.norm(y).mean((2, 3)))

    model = randomise(Both(), 0)
    zero(model.first, 1, bias=0.5)
    zero(model.first, 2)
    assert slim_of(model)[1] == {"first": (1, 0, 0)}


# ---------------------------------------------------------------------------------------- any network


def zeroed(model: nn.Module, seed: int) -> nn.Module:
    """The model, with random filters, columns and scales of norms set to zero."""
    random = Random(seed)
    share = random.choice([0.2, 0.5, 0.8])
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                axis = random.choice([0, 0, 1])
                chosen = [index for index in range(module.weight.shape[axis]) if random.random() < share]
                module.weight.index_fill_(axis, torch.tensor(chosen, dtype=torch.long), 0)
                if module.bias is not None and axis == 0 and random.random() < 0.7:
                    module.bias[chosen] = 0.0
            elif isinstance(module, nn.BatchNorm2d):
                chosen = [index for index in range(module.num_features) if random.random() < share]
                module.weight[chosen] = 0.0
                module.bias[chosen] = random.choice([0.0, -1.0, 0.5])
    return model


@hypothesis.given(recipes(3), st.integers(0, 2**16))
@hypothesis.settings(
    max_examples=12, deadline=None, derandomize=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
def test_random_networks_with_random_dead_filters_compute_the_same(recipe: Recipe, seed: int) -> None:
    model = zeroed(randomise(build(recipe), seed), seed)
    inputs = [example(recipe, number, batch, torch.float64) for number, batch in ((1, 1), (2, 3))]
    network, dead = analyse(model, inputs[0])
    slim = remove_dead(model, network, dead)
    assert largest_difference(model, slim, inputs) < EXACT
    assert sum(group.removed for group in dead.groups) == dead.removed
    assert sum(p.numel() for p in slim.parameters()) <= sum(p.numel() for p in model.parameters()) - dead.removed


BASE = small()


@hypothesis.given(st.sets(st.integers(0, 15), max_size=15), st.sets(st.integers(0, 31), max_size=31))
@hypothesis.settings(max_examples=8, deadline=None, derandomize=True)
def test_exactly_the_zeroed_filters_are_removed(stem: set[int], out: set[int]) -> None:
    """A stem and a residual block: zero filters of the stem are removed, and those zero in all terms of a sum."""
    model = copy.deepcopy(BASE).double()
    with torch.no_grad():
        for norm, chosen in ((model.stem[1], stem), (model.down[1], out), (model.deep[1], out)):
            norm.weight[sorted(chosen)] = 0.0
            norm.bias[sorted(chosen)] = -0.5
        model.out.weight[sorted(out)] = model.out.bias[sorted(out)] = 0.0  # type: ignore[assignment]
    network, dead = analyse(model, torch.zeros(1, *SHAPE, dtype=torch.float64))
    assert dict(zip((g.name for g in network.groups), dead.widths, strict=True)) == {
        "stem.0": 16 - len(stem),
        "down.0": 32 - len(out),
    }
    images = torch.randn(4, *SHAPE, dtype=torch.float64)
    assert largest_difference(model, remove_dead(model, network, dead), [images]) < EXACT


# ---------------------------------------------------------------------------------------- the command


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("net") / "net.py"
    file.write_text(NET)
    return f"{file}:build"


@pytest.fixture(scope="module")
def trained(net: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slim run on digits in which two filters of the first layer and one of the second are set to zero."""
    path = tmp_path_factory.mktemp("dead") / "run"
    run = pretrim.compress(net, "digits", output=path, macs="0.5x", round_to=1, epochs=1, batch_size=256)
    zero(run.model[0], 0, 2, bias=-0.1)  # type: ignore[index]
    zero(run.model[2], 1, bias=0.2)  # type: ignore[index]
    record = run.record
    assert record is not None
    fields = ("reference", "classes", "normalisation", "input_shape", "data", "results", "forward")
    pretrim.save(run.model, path, **{name: getattr(record, name) for name in fields}, overwrite=True)
    return path


def test_a_run_is_slimmed_and_stays_a_run(call: Call, net: str, trained: Path, tmp_path: Path) -> None:
    """The saved run evaluates to the same score, can be exported and verified, and has no dead filter left."""
    out, model_option = tmp_path / "slim", ("--model", net)
    code, output, errors = call("slim", trained, "--dead", "-o", out, *model_option, "--json")
    assert code == 0, errors
    record = json.loads(output)
    assert record["removed"] == 3 and record["after"]["macs"] < record["before"]["macs"]
    assert record["difference"]["exact"] < EXACT and record["difference"]["stored"] < 1e-6
    slim = pretrim.open_run(out, net)
    assert sum(p.numel() for p in slim.model.parameters()) == record["after"]["params"] == slim.plan.slim["params"]
    scores = [pretrim.open_run(path, net).evaluate("digits").to_json() for path in (trained, out)]
    assert scores[0]["accuracy"] == scores[1]["accuracy"]
    code, output, errors = call("export", out, "--runtime", "onnx", *model_option, "--json")
    assert code == 0 and json.loads(output)["proof"]["relative_error"] < 1e-4, errors
    assert call("measure", out, "--runs", 2)[0] == 0
    code, output, _ = call("slim", out, "--dead", *model_option, "-o", tmp_path / "again")
    assert code == 0 and "no filter is dead" in output and not (tmp_path / "again").exists()


def test_the_tables_show_layers_and_the_difference_of_the_outputs(
    call: Call, net: str, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder has a project file with settings for data, which a run does not use."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pretrim.toml").write_text(f'model = "{net}"\ndata = "digits"\n[images]\ninput = "1x8x8"\n')
    code, output, errors = call("slim", trained, "--dead", "-o", tmp_path / "slim")
    assert "--data, --input is not used" in errors
    assert code == 0 and "3 of " in output and "filters are dead" in output
    assert "apart in double precision" in output and f"Saved in {tmp_path / 'slim'}" in output


def test_trained_weights_of_a_dense_network_are_slimmed(call: Call, net: str, tmp_path: Path) -> None:
    """A file, weights and data give a run that can be evaluated; a module in Python gives one that can be loaded."""
    weights = tmp_path / "net.pth"
    namespace: dict[str, object] = {}
    exec(NET, namespace)
    model = namespace["build"]()  # type: ignore[operator]
    zero(model[0], 0, 3)
    zero(model[2], 1, bias=0.2)
    torch.save(model.state_dict(), weights)
    arguments = (net, "--from", weights, "--dead")
    code, output, errors = call("slim", *arguments, "--data", "digits", "-o", tmp_path / "run", "--json")
    assert code == 0, errors
    assert [(g["zero"], g["constant"]) for g in json.loads(output)["groups"]] == [(2, 0), (0, 1)]
    run = pretrim.open_run(tmp_path / "run", net)
    images = torch.randn(3, 1, 8, 8)
    torch.testing.assert_close(run.model(images), model.eval()(images))
    assert run.score is not None and run.evaluate("digits").score == run.score
    slimmed = pretrim.slim(model, input="1x8x8", output=tmp_path / "python")
    assert slimmed.removed == 3 and slimmed.run is not None
    torch.testing.assert_close(slimmed.run.model(images), model(images))


NET = """
from torch import nn

def build():
    pool = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 10))
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU(), *pool)
"""


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("resnet20",), 2, "add --dead"),
        (("resnet20", "--dead", "--from", "missing.pth"), 2, "missing.pth"),
        (("nothing", "--dead"), 2, "Expected a run's folder or a model that pretrim knows (alexnet, "),
        (("resnet21", "--dead"), 2, "Did you mean resnet20"),
        (("nothing.py", "--dead"), 2, "Expected FILE.py:FUNCTION, but got 'nothing.py'"),
        ((".", "--dead"), 1, "No run in . "),
        ((".", "--dead", "--classes", "3"), 2, "leave out --classes"),
    ],
)
def test_wrong_calls_are_refused_in_one_line_and_write_nothing(
    call: Call, tmp_path: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    exit_code, output, errors = call("slim", *arguments, "-o", tmp_path / "run")
    assert (exit_code, output) == (code, "") and message in errors and errors.count("\n") == 1
    assert not (tmp_path / "run").exists()
