"""Time on boards, predicted from public measurements: the work counted, the measured times, limits and errors."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small import SHAPE, small
from torch import nn

import pretrim
from pretrim.analysis.network import Network
from pretrim.cost.formula import LayeredCost
from pretrim.devices import Board, board, boards
from pretrim.errors import InfeasibleBudget, UsageError
from pretrim.latency.board_systems import (
    OTHERS,
    WEIGHTED,
    core_of,
    find_system,
    known_runtimes,
    systems,
    systems_of,
)
from pretrim.latency.board_time import board_time, parts_of, work_of

# ---------------------------------------------------------------------------------------- MLPerf Tiny's networks


def conv(into: int, out: int, kernel: int | tuple[int, int] = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    padding = kernel // 2 if isinstance(kernel, int) else (kernel[0] // 2, kernel[1] // 2)
    layer = nn.Conv2d(into, out, kernel, stride, padding, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(out), nn.ReLU())


class Block(nn.Module):
    def __init__(self, into: int, out: int, stride: int) -> None:
        super().__init__()
        self.first = conv(into, out, 3, stride)
        self.second = nn.Sequential(nn.Conv2d(out, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out))
        self.shortcut = nn.Conv2d(into, out, 1, stride) if stride > 1 else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.second(self.first(x)) + self.shortcut(x))


class Pooled(nn.Module):
    def __init__(self, features: nn.Module, channels: int, classes: int) -> None:
        super().__init__()
        self.features, self.head = features, nn.Linear(channels, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(x).mean((2, 3)))


def resnet8() -> nn.Module:
    return Pooled(nn.Sequential(conv(3, 16), Block(16, 16, 1), Block(16, 32, 2), Block(32, 64, 2)), 64, 10)


def separable(into: int, out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(conv(into, into, 3, stride, groups=into), conv(into, out, 1))


def mobilenet() -> nn.Module:
    widths = [8, 16, 32, 32, 64, 64, *[128] * 6, 256, 256]
    strides = [1, 2, 1, 2, 1, 2, *[1] * 5, 2, 1]
    blocks = [separable(into, out, stride) for into, out, stride in zip(widths, widths[1:], strides, strict=False)]
    return Pooled(nn.Sequential(conv(3, 8, 3, 2), *blocks), 256, 2)


def autoencoder() -> nn.Module:
    sizes = [640, *[128] * 4, 8, *[128] * 4, 640]
    layers: list[nn.Module] = []
    for into, out in pairwise(sizes):
        layers += [nn.Linear(into, out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


BUILDERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "ic": (resnet8, (3, 32, 32)),
    "vww": (mobilenet, (3, 96, 96)),
    "ad": (autoencoder, (640,)),
}


@pytest.fixture(scope="module")
def networks() -> dict[str, Network]:
    torch.manual_seed(0)
    return {name: pretrim.analyze(build(), torch.zeros(1, *shape)) for name, (build, shape) in BUILDERS.items()}


# ---------------------------------------------------------------------------------------- counts of work


def test_the_work_of_mlperf_tinys_networks(networks: dict[str, Network]) -> None:
    """Multiply-accumulates equal those of MLCommons' models, and numbers of outputs equal sums by hand."""
    ic, vww, ad = (work_of(networks[name]) for name in ("ic", "vww", "ad"))
    assert sum(ic.macs.values()) == 12_501_632
    assert ic.outputs["convolution"] == 3 * 16384 + 2 * 8192 + 2 * 4096
    assert ic.outputs["pointwise"] == 8192 + 4096 and ic.outputs["elementwise"] == 16384 + 8192 + 4096
    assert ic.outputs["dense"] == 10 and ic.outputs["pool"] == 4096
    assert sum(vww.macs.values()) == 7_489_664
    places = {48: 2304, 24: 576, 12: 144, 6: 36, 3: 9}
    depthwise = [(8, 48), (16, 24), (32, 24), (32, 12), (64, 12), (64, 6), *[(128, 6)] * 5, (128, 3), (256, 3)]
    assert vww.macs["depthwise"] == sum(9 * channels * places[side] for channels, side in depthwise)
    assert (ad.macs, ad.outputs["dense"]) == ({"dense": 264_192}, 1_672)


def test_separate_activations_and_pools_are_counted() -> None:
    """A ReLU with no convolution before it and an average pool are operators of their own."""
    model = nn.Sequential(nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(2, 6, 3), nn.SiLU())
    work = work_of(pretrim.analyze(model, torch.zeros(1, *SHAPE)))
    assert work.outputs == {
        "activation": 2 * 256 + 6 * 36,  # the ReLU and the sigmoid of the SiLU
        "pool": 2 * 64,
        "convolution": 6 * 36,
        "elementwise": 6 * 36,  # the product of the SiLU
    }


def test_work_at_narrower_widths_is_that_of_the_slim_network() -> None:
    model = small()
    network = pretrim.analyze(model, torch.zeros(1, *SHAPE))
    plan = network.plan(macs="0.5x", round_to=1)
    slim = pretrim.analyze(plan.apply(model), torch.zeros(1, *SHAPE))
    assert work_of(network, plan.widths) == work_of(slim)


# ---------------------------------------------------------------------------------------- measured times

# Milliseconds published by MLCommons (tiny_results v1.0 to v1.3, closed division) and by the STM32 model zoo (for
# X-CUBE-AI 7.3 and 8.1): a few of the measurements that the coefficients are fitted on.
MEASURED = (
    ("ic", "Cortex-M7", 400, "st-edge-ai 8.1", 35.96),
    ("ic", "Cortex-M7", 280, "st-edge-ai 8.1", 51.948),
    ("ad", "Cortex-M7", 280, "st-edge-ai 8.1", 1.818),
    ("ic", "Cortex-M7", 400, "st-edge-ai 7.3", 37.91),
    ("vww", "Cortex-M7", 280, "st-edge-ai 7.3", 50.408),
    ("ic", "Cortex-M4", 120, "st-edge-ai 8.0", 221.976),
    ("vww", "Cortex-M4", 120, "st-edge-ai 8.0", 221.141),
    ("ad", "Cortex-M4", 120, "st-edge-ai 8.0", 7.579),
    ("ic", "Cortex-M33", 160, "hale 1.0", 117.744),
    ("vww", "Cortex-M33", 160, "hale 1.0", 114.745),
    ("ic", "Cortex-M0+", 64, "hale 1.0", 1669.449),
    ("ic", "Xtensa LX6", 240, "tflm-esp-nn ESP-IDF 5.5", 724.457),
    ("ad", "Xtensa LX6", 240, "tflm-esp-nn ESP-IDF 5.5", 49.29),
    ("ic", "Cortex-M4", 64, "tflm-cmsis-nn Arduino", 1241.774),
)


@pytest.mark.parametrize(("name", "core", "megahertz", "runtime", "measured"), MEASURED)
def test_predictions_are_near_the_measurements(
    networks: dict[str, Network], name: str, core: str, megahertz: int, runtime: str, measured: float
) -> None:
    system = next(s for s in systems() if (s.core, s.title, s.dtype) == (core, runtime, "int8"))
    predicted = system.cycles(work_of(networks[name])) / (megahertz * 1e3)
    assert predicted == pytest.approx(measured, rel=0.25)
    assert system.range[0] * predicted * 0.9 <= measured <= system.range[1] * predicted * 1.1


def test_the_runtime_matters_more_than_the_network(networks: dict[str, Network]) -> None:
    """Where TFLM's reference kernels take some forty cycles, CMSIS-NN's take four and ST's two (issue 20)."""
    times = [
        int(board_time(networks["vww"], board("stm32h743"), runtime).cost(networks["vww"].dense))
        for runtime in ("tflm-reference", "tflm-cmsis-nn", "st-edge-ai")
    ]
    assert times[0] > 8 * times[1] > 8 * times[2]


def test_every_system_records_what_it_was_fitted_on() -> None:
    for system in systems():
        assert system.networks >= 1 and system.families and system.sources and system.boards
        assert set(system.cycles_per_mac) == set(WEIGHTED) and set(system.cycles_per_output) == {*WEIGHTED, *OTHERS}
        assert min(*system.cycles_per_mac.values(), *system.cycles_per_output.values()) >= 0
        assert 0.3 < system.range[0] < 1 < system.range[1] < 3
        assert all("@" in source for source in system.sources)


def test_systems_with_many_networks_meet_the_error_goals() -> None:
    """On microcontrollers, families left out of the fit: median error at most 10 %, 90th percentile at most 25 %."""
    many = [system for system in systems() if system.networks >= 10 and not system.core.startswith("Cortex-A")]
    assert {(system.core, system.title) for system in many} == {
        ("Cortex-M7", "st-edge-ai 7.3"),
        ("Cortex-M7", "st-edge-ai 8.1"),
        ("Cortex-M33", "tflm-zephyr 3.7"),
    }
    for system in many:
        assert system.median_error is not None and system.median_error <= 0.10
        assert system.p90_error is not None and system.p90_error <= 0.25


# ---------------------------------------------------------------------------------------- the cost


def test_a_limit_in_milliseconds_and_the_mode_latency(networks: dict[str, Network]) -> None:
    network = networks["ic"]
    time = board_time(network, board("stm32h743"), "st-edge-ai")
    assert isinstance(time.cost, LayeredCost)
    dense = int(time.cost(network.dense))
    half = pretrim.plan(network, latency=f"{dense * 0.5e-6}ms", costs={"latency_ns": time.cost}, dtype="int8")
    assert 0.4 * dense < int(time.cost(half.widths)) <= dense // 2 + 1
    drawn = pretrim.plan(network, macs="0.5x", mode="latency", costs={"latency_ns": time.cost}, dtype="int8")
    assert drawn.slim["macs"] <= drawn.dense["macs"] // 2
    with pytest.raises(InfeasibleBudget, match=r"^latency 1us cannot be met"):
        pretrim.plan(network, latency="1us", costs={"latency_ns": time.cost}, dtype="int8")


def test_times_of_layers_add_up_to_the_total_of_a_network_of_dense_layers(networks: dict[str, Network]) -> None:
    network = networks["ad"]  # it has only dense layers
    cost = board_time(network, board("esp32-s3"), "tflm-esp-nn").cost
    assert cost.by_layer(network.dense).sum() == pytest.approx(int(cost(network.dense)), rel=1e-6)
    rows = np.stack([network.dense, np.maximum(network.dense // 2, 1)])
    assert cost.by_layer(rows).shape == (2, len(network.layers))
    assert cost(rows).tolist() == [int(cost(row)) for row in rows]


@settings(deadline=None)  # the machine may be busy
@given(st.data())
def test_time_never_falls_when_a_width_grows(networks: dict[str, Network], data: st.DataObject) -> None:
    network = networks["vww"]
    cost = board_time(network, board("stm32h743"), "st-edge-ai").cost
    widths = np.array([data.draw(st.integers(1, int(width))) for width in network.dense])
    wider = widths.copy()
    group = data.draw(st.integers(0, len(widths) - 1))
    wider[group] = data.draw(st.integers(int(widths[group]), int(network.dense[group])))
    assert int(cost(wider)) >= int(cost(widths))


def test_time_is_proportional_to_the_clock_and_has_its_range(networks: dict[str, Network]) -> None:
    slow, fast = (board_time(networks["ic"], board(name), "st-edge-ai 8.1") for name in ("stm32f746", "stm32h743"))
    nanoseconds = [int(time.cost(networks["ic"].dense)) for time in (slow, fast)]
    assert nanoseconds[0] / nanoseconds[1] == pytest.approx(fast.clock_hz / slow.clock_hz, rel=1e-6)
    low, high = fast.range_of(nanoseconds[1])
    assert low < nanoseconds[1] < high
    assert tuple(int(end) for end in fast.cost.interval(networks["ic"].dense)) == (low, high)
    assert fast.label == "stm32h743 (Cortex-M7, 480 MHz), X-CUBE-AI 8.1, int8, one core: fitted on 21 networks"


def test_operators_of_a_kind_that_was_not_measured_widen_the_range(networks: dict[str, Network]) -> None:
    """NATS-Bench has no depthwise layers, so the label of its system says so and the narrow range is widened."""
    time = board_time(networks["vww"], board("rp2350"), "tflm-zephyr")
    assert time.unmeasured == ("depthwise",) and "none with depthwise operators" in time.label
    assert time.cost.range[0] < time.system.range[0] and time.cost.range[1] > time.system.range[1]


def test_operators_without_a_known_time_are_named(networks: dict[str, Network]) -> None:
    """A mean that drops its dimensions reads PyTorch's layout, so the converter inserts a transpose."""
    assert parts_of(networks["ic"])[1] == ("pad", "transpose")
    assert board_time(networks["ic"], board("stm32h743"), "st-edge-ai").left_out == ("pad", "transpose")


def test_an_operator_that_nobody_measured_is_named_and_not_guessed() -> None:
    model = nn.Sequential(nn.Conv2d(2, 4, 1), nn.Upsample(scale_factor=2), nn.Conv2d(4, 4, 1))
    network = pretrim.analyze(model, torch.zeros(1, *SHAPE))
    time = board_time(network, board("stm32h743"), "st-edge-ai")
    assert any("upsample" in name for name in time.left_out)
    assert set(work_of(network).outputs) == {"pointwise"}


def test_energy_is_known_only_where_power_was_measured(networks: dict[str, Network]) -> None:
    time = board_time(networks["ic"], board("stm32h743"), "st-edge-ai 8.1")
    assert time.energy_uj(1e6) is None  # power was measured on an STM32H7A3, not on this board
    measured = next(system for system in systems() if system.title == "st-edge-ai 8.1" and system.core == "Cortex-M7")
    assert measured.power_mw["stm32h7a3"] == pytest.approx(6310.692 / 51.948, rel=0.02)  # MLCommons v1.1, ResNet-8


# ---------------------------------------------------------------------------------------- names and errors


def test_runtimes_of_a_board() -> None:
    assert known_runtimes(board("stm32h743"))[0] == "st-edge-ai 8.1"
    assert not any(name.startswith("st-edge-ai") for name in known_runtimes(board("nrf52840")))
    assert "st-edge-ai 8.1" in known_runtimes(board("nicla-vision"))  # an Arduino board with an STM32H747
    assert known_runtimes(board("raspberry-pi-5")) == ()
    assert {name for system in systems() for name in system.power_mw} <= {entry.name for entry in boards()}
    assert {core_of(entry) for entry in boards() if entry.kind == "microcontroller"} >= {"Cortex-M4", "Xtensa LX7"}


@pytest.mark.parametrize("dtype", ["int8", "float32"])
@pytest.mark.parametrize("device", [entry.name for entry in boards() if systems_of(entry)])
def test_every_runtime_that_a_message_lists_is_accepted(device: str, dtype: str) -> None:
    """A name may be a prefix of another (tflm-esp-nn); without a version, the newest well-measured one is taken."""
    for title in known_runtimes(board(device), dtype):
        system = find_system(board(device), title, dtype)
        assert title in (system.title, system.runtime)


@pytest.mark.parametrize("name", ["st-edge-ai", "ST-Edge-AI 8.1", "st-edge-ai@8.1", "x-cube-ai", "x-cube-ai 8.1"])
def test_spellings_of_a_runtime(networks: dict[str, Network], name: str) -> None:
    assert board_time(networks["ic"], board("stm32h743"), name).system.title == "st-edge-ai 8.1"


@pytest.mark.parametrize(
    ("device", "runtime", "dtype", "message"),
    [
        ("stm32h743", None, "int8", r"Name the runtime, since times on stm32h743 depend on it most: one of st-edge-ai"),
        ("stm32h743", "tflm", "int8", r"'tflm' may be any of tflm-reference 713b6ed, tflm-cmsis-nn 011bf32"),
        ("stm32h743", "onnx", "int8", r"No public measurement of 'onnx' on Cortex-M7 \(stm32h743\) in int8: take st-"),
        ("nrf52840", "st-edge-ai", "int8", r"No public measurement of 'st-edge-ai' on Cortex-M4 \(nrf52840\) in int8"),
        ("esp32-s3", "esp-dl", "float32", r"No public measurement on Xtensa LX7 \(esp32-s3\) is in float32: take int8"),
        ("grove-vision-ai-v2", "tflm", "int8", r"No public measurement of any runtime on Cortex-M55 .* Vela estimates"),
        ("raspberry-pi-5", "litert", "int8", r"No public measurement of any runtime on Cortex-A76"),
    ],
)
def test_a_wrong_combination_is_refused_in_one_line(
    networks: dict[str, Network], device: str, runtime: str | None, dtype: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        board_time(networks["ic"], board(device), runtime, dtype)
    assert "\n" not in str(caught.value)


def test_a_custom_board(networks: dict[str, Network]) -> None:
    """A prediction depends only on the core and the clock of a board."""
    custom = Board(
        **{**board("stm32h743").__dict__, "name": "stm32-own", "core": "Arm Cortex-M4F (r0p1)", "clock_hz": 80_000_000}
    )
    assert board_time(networks["ic"], custom, "st-edge-ai 10.2").core == "Cortex-M4"
