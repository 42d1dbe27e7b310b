"""What is said to fit does: the untrained network is converted, and the plan trimmed again where it does not."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small import SHAPE, images, small
from torch import nn

import pretrim
from pretrim.deploy import arena_on, export, litert_file, micro
from pretrim.deploy.graph import FileGraph, graph_of, read_graph
from pretrim.devices import board
from pretrim.errors import ArtifactError, InfeasibleBudget
from pretrim.jobs.export import on_board
from pretrim.jobs.file_time import time_limit
from pretrim.jobs.fit import fitted
from pretrim.jobs.options import Search, TargetOptions
from pretrim.jobs.plan import plan_for
from pretrim.jobs.reporter import Silent
from pretrim.jobs.target import Target, find_target
from pretrim.latency.on_board import sketch
from pretrim.latency.on_file import sketch_of_file
from pretrim.models.dense import DenseModel, open_model
from pretrim.present.device import _verdict


@pytest.fixture(scope="module")
def content() -> bytes:
    return litert_file(small(), images(8))


@pytest.fixture(scope="module")
def graph(content: bytes) -> FileGraph:
    return graph_of(content)


@pytest.fixture(scope="module")
def dense() -> DenseModel:
    return open_model(small(), SHAPE, None)


# ---------------------------------------------------------------------------------------- the file as a board sees it


def test_a_file_tells_its_work_and_its_arena(graph: FileGraph, content: bytes) -> None:
    """As the network's own analysis, operator by operator; the activations as the real interpreter places them."""
    network = pretrim.analyze(small(), torch.zeros(1, *SHAPE))
    of_network, of_file = sketch(network, network.dense), sketch_of_file(graph)
    assert of_file == {name: of_network[name] for name in ("work", "left_out")}
    assert {kind: graph.arena(kind) for kind in ("reference", "cmsis-nn")} == of_network["arena_bytes"]
    real = micro.arena(content)
    assert graph.head() == real.head_bytes
    assert graph.arena(pointer_bytes=8) == pytest.approx(real.total_bytes, rel=0.02)
    assert graph.names == ("ADD", "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "MEAN", "PAD")


ONE_CHANNEL: dict[str, tuple[list[nn.Module], tuple[int, ...]]] = {
    "grey image": ([nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 8, 3, 2, 1)], (1, 16, 16)),
    "strided, oblong": ([nn.Conv2d(1, 16, (10, 4), 2, (5, 1)), nn.ReLU(), nn.Conv2d(16, 8, 1)], (1, 49, 10)),
    "pointwise": ([nn.Conv2d(1, 16, 1), nn.ReLU(), nn.Conv2d(16, 8, 3)], (1, 16, 16)),
    "dilated": ([nn.Conv2d(1, 16, 3, dilation=2, padding=2), nn.ReLU(), nn.Conv2d(16, 8, 3)], (1, 16, 16)),
    "transposed": ([nn.ConvTranspose2d(1, 16, 2, 2), nn.ReLU(), nn.Conv2d(16, 8, 3)], (1, 8, 8)),
    "signal": ([nn.Conv1d(1, 16, 9, 2, 4), nn.ReLU(), nn.Conv1d(16, 8, 3)], (1, 64)),
}


@pytest.mark.parametrize("kind", ONE_CHANNEL)
def test_a_plan_prices_what_the_converter_makes_of_one_channel(kind: str) -> None:
    """LiteRT makes a DEPTHWISE_CONV_2D of it, which takes longer, and other memory of CMSIS-NN's."""
    layers, shape = ONE_CHANNEL[kind]
    torch.manual_seed(0)
    model = nn.Sequential(*layers, nn.Flatten(2), Mean()).eval()
    network = pretrim.analyze(model, torch.zeros(1, *shape))
    graph = graph_of(litert_file(model, torch.randn(4, *shape)))
    of_network = sketch(network, network.dense)
    assert ("DEPTHWISE_CONV_2D" in graph.names) is (kind != "transposed")
    assert of_network["work"] == sketch_of_file(graph)["work"]
    assert of_network["arena_bytes"]["cmsis-nn"] == pytest.approx(graph.arena("cmsis-nn"), rel=0.02)


class Mean(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(2)


def test_a_file_without_a_memory_plan_is_placed_as_the_interpreter_does(content: bytes) -> None:
    from pretrim.deploy.tflite import MEMORY_PLAN

    plain = content.replace(MEMORY_PLAN, b"x" * len(MEMORY_PLAN))
    assert graph_of(plain).fixed == () and graph_of(plain).head() == micro.arena(plain).head_bytes


def test_the_arena_of_a_board_is_not_the_hosts(content: bytes) -> None:
    found = arena_on(content, board("nrf52840"))
    assert found.verified and found.host_bytes == micro.arena(content).total_bytes > found.total_bytes
    assert found.total_bytes >= graph_of(content).arena("cmsis-nn")


@pytest.mark.parametrize("damage", [b"", b"x" * 200, None])
def test_a_damaged_file_is_one_line(content: bytes, damage: bytes | None, tmp_path) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "model.tflite"
    file.write_bytes(content[:8] + b"\xff" * 300 if damage is None else damage)
    with pytest.raises(ArtifactError, match=r"is not a \.tflite|The \.tflite .* is damaged") as caught:
        read_graph(file)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------------------------- the loop


def target_of(limits: dict[str, int], search: Search) -> Target:
    return find_target(TargetOptions(device="nrf52840"), dict(limits), search)


class Heard(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


class Spread(nn.Module):
    """An operator whose form in the file is not known: it becomes several, and is predicted as one."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x - x.var((2, 3), keepdim=True)


def test_a_plan_that_fits_by_prediction_alone_is_trimmed_again() -> None:
    """The limit is the file that is predicted; what is really made is larger, until the plan is narrower."""
    torch.manual_seed(0)
    dense = open_model(nn.Sequential(nn.Conv2d(2, 16, 3), Spread(), nn.Conv2d(16, 4, 3)), SHAPE, None)
    search, heard = Search(round_to=1), Heard()
    half = pretrim.plan(dense.network, device="nrf52840", macs="0.5x", round_to=1)
    assert half.device is not None
    target = target_of({"artifact_bytes": half.device["slim"]["artifact_bytes"]}, search)
    plan = plan_for(dense, target, search, heard)
    found = fitted(plan, dense, target, search, heard)
    assert found.device is not None and found.limits == plan.limits
    assert found.device["converted"]["artifact_bytes"] <= int(target.limits["artifact_bytes"])
    assert any("trimmed again" in line for line in heard.lines), "the prediction of this network is not too low"
    assert (found.widths != plan.widths).any()


def test_a_limit_on_the_time_is_held_against_the_converted_network() -> None:
    """Its operators take longer than those that were planned with; what is trained is within the limit."""
    torch.manual_seed(0)
    dense = open_model(nn.Sequential(nn.Conv2d(2, 16, 3), Spread(), nn.Conv2d(16, 4, 3)), SHAPE, None)
    search, heard = Search(round_to=1), Heard()
    options = TargetOptions(device="stm32h743", runtime="st-edge-ai")
    target = find_target(options, {"latency": "0.5x"}, search)
    plan = plan_for(dense, target, search, heard)
    timed = time_limit(target, plan.to_json())
    assert timed is not None and plan.device is not None
    assert timed.most_ns == plan.device["dense"]["latency_ns"] // 2
    found = fitted(plan, dense, target, search, heard)
    assert re.search(r"its predicted time is [\d.e-]+ ms of [\d.e-]+: trimmed again", "\n".join(heard.lines))
    assert found.device is not None and found.limits == plan.limits
    assert found.device["converted"]["latency_ns"] <= timed.most_ns
    with pytest.raises(InfeasibleBudget, match="does not fit once it is converted: its predicted time is"):
        fitted(plan, dense, target, None, Silent())


def test_an_exported_file_is_held_against_the_limit_on_its_time(tmp_path: Path) -> None:
    """That of the plan too, where the export names the board alone."""
    network = pretrim.analyze(small(), torch.zeros(1, *SHAPE))
    plan = pretrim.plan(network, device="stm32h743", runtime="st-edge-ai", latency="0.5x").to_json()
    target = find_target(TargetOptions(device="stm32h743"), {}, Search())
    made = export(small(), tmp_path / "m.tflite", "litert", images=images(8), calibration=images(8))
    heard = Heard()
    found = on_board(replace(made, plan=plan), target, heard)
    assert found is not None and found["time"]["runtime"] == plan["device"]["times"][0]["runtime"]
    said = f"its predicted time is {found['time']['ns'] * 1e-6:.3g} ms, more than the limit of"
    assert len(found["problems"]) == 1 and found["problems"][0].startswith(said) and said in heard.lines[0]
    other = find_target(TargetOptions(device="stm32f407"), {}, Search())
    assert time_limit(other, plan) is None and time_limit(target, None) is None


def test_a_plan_that_was_given_is_refused_and_not_changed(dense: DenseModel) -> None:
    plan = pretrim.plan(dense.network, device="nrf52840", macs="0.5x")
    target = target_of({"artifact_bytes": 4000}, Search())
    before = torch.get_rng_state()
    with pytest.raises(InfeasibleBudget, match=r"does not fit once it is converted: its file takes .* bytes of 4,0"):
        fitted(plan, dense, target, None, Silent())
    assert torch.equal(before, torch.get_rng_state()), "what is trained later has the weights it would have had"


def test_what_is_predicted_to_fit_barely_is_not_said_to_fit() -> None:
    verdicts: Sequence[str] = [_verdict(taken, 1000, is_real=False) for taken in (980, 999, 1001)]
    assert verdicts == ["fits", "within 1 % of the limit", "too large"]
    assert np.unique(verdicts).size == 3
