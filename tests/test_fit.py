"""A plan said to fit does fit: the untrained network is converted, and the plan is trimmed again if it is too large."""

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


# ---------------------------------------------------------------------------------------- files on boards


def test_work_and_arena_are_read_from_a_file(graph: FileGraph, content: bytes) -> None:
    """The file agrees with the analysis of the network per operator, and with the real interpreter's arena."""
    network = pretrim.analyze(small(), torch.zeros(1, *SHAPE))
    network_sketch, file_sketch = sketch(network, network.dense), sketch_of_file(graph)
    assert file_sketch == {name: network_sketch[name] for name in ("work", "left_out")}
    assert {kind: graph.arena(kind) for kind in ("reference", "cmsis-nn")} == network_sketch["arena_bytes"]
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
def test_a_plan_predicts_how_a_one_channel_convolution_is_converted(kind: str) -> None:
    """LiteRT converts it to DEPTHWISE_CONV_2D, which takes longer and needs other CMSIS-NN buffers."""
    layers, shape = ONE_CHANNEL[kind]
    torch.manual_seed(0)
    model = nn.Sequential(*layers, nn.Flatten(2), Mean()).eval()
    network = pretrim.analyze(model, torch.zeros(1, *shape))
    graph = graph_of(litert_file(model, torch.randn(4, *shape)))
    network_sketch = sketch(network, network.dense)
    assert ("DEPTHWISE_CONV_2D" in graph.names) is (kind != "transposed")
    assert network_sketch["work"] == sketch_of_file(graph)["work"]
    assert network_sketch["arena_bytes"]["cmsis-nn"] == pytest.approx(graph.arena("cmsis-nn"), rel=0.02)


class Mean(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(2)


def test_the_arena_of_a_file_without_a_memory_plan_is_placed_like_the_interpreters(content: bytes) -> None:
    from pretrim.deploy.tflite import MEMORY_PLAN

    plain = content.replace(MEMORY_PLAN, b"x" * len(MEMORY_PLAN))
    assert graph_of(plain).fixed == () and graph_of(plain).head() == micro.arena(plain).head_bytes


def test_the_arena_on_a_board_is_smaller_than_on_the_host(content: bytes) -> None:
    arena = arena_on(content, board("nrf52840"))
    assert arena.verified and arena.host_bytes == micro.arena(content).total_bytes > arena.total_bytes
    assert arena.total_bytes >= graph_of(content).arena("cmsis-nn")


@pytest.mark.parametrize("damage", [b"", b"x" * 200, None])
def test_a_damaged_file_gives_a_one_line_error(content: bytes, damage: bytes | None, tmp_path) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "model.tflite"
    file.write_bytes(content[:8] + b"\xff" * 300 if damage is None else damage)
    with pytest.raises(ArtifactError, match=r"is not a \.tflite|The \.tflite .* is damaged") as caught:
        read_graph(file)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------------------------- the loop


def target_of(limits: dict[str, int], search: Search) -> Target:
    return find_target(TargetOptions(device="nrf52840"), dict(limits), search)


class Recording(Silent):
    """A reporter that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


class UnknownOperator(nn.Module):
    """An operator of unknown form: the file has several operators for it, but the prediction counts one."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x - x.var((2, 3), keepdim=True)


def test_a_plan_that_fits_only_by_prediction_is_trimmed_again() -> None:
    """The limit is the predicted size of the file; the real file is larger until the plan is trimmed again."""
    torch.manual_seed(0)
    dense = open_model(nn.Sequential(nn.Conv2d(2, 16, 3), UnknownOperator(), nn.Conv2d(16, 4, 3)), SHAPE, None)
    search, reporter = Search(round_to=1), Recording()
    half_plan = pretrim.plan(dense.network, device="nrf52840", macs="0.5x", round_to=1)
    assert half_plan.device is not None
    target = target_of({"artifact_bytes": half_plan.device["slim"]["artifact_bytes"]}, search)
    plan = plan_for(dense, target, search, reporter)
    fitted_plan = fitted(plan, dense, target, search, reporter)
    assert fitted_plan.device is not None and fitted_plan.limits == plan.limits
    assert fitted_plan.device["converted"]["artifact_bytes"] <= int(target.limits["artifact_bytes"])
    assert any("trimmed again" in line for line in reporter.lines), "the prediction of this network is not too low"
    assert (fitted_plan.widths != plan.widths).any()


def test_a_limit_on_the_time_applies_to_the_converted_network() -> None:
    """The converted operators take longer than planned; the final plan is within the limit."""
    torch.manual_seed(0)
    dense = open_model(nn.Sequential(nn.Conv2d(2, 16, 3), UnknownOperator(), nn.Conv2d(16, 4, 3)), SHAPE, None)
    search, reporter = Search(round_to=1), Recording()
    options = TargetOptions(device="stm32h743", runtime="st-edge-ai")
    target = find_target(options, {"latency": "0.5x"}, search)
    plan = plan_for(dense, target, search, reporter)
    limit = time_limit(target, plan.to_json())
    assert limit is not None and plan.device is not None
    assert limit.most_ns == plan.device["dense"]["latency_ns"] // 2
    fitted_plan = fitted(plan, dense, target, search, reporter)
    assert re.search(r"its predicted time is [\d.e-]+ ms of [\d.e-]+: trimmed again", "\n".join(reporter.lines))
    assert fitted_plan.device is not None and fitted_plan.limits == plan.limits
    assert fitted_plan.device["converted"]["latency_ns"] <= limit.most_ns
    with pytest.raises(InfeasibleBudget, match="does not fit once it is converted: its predicted time is"):
        fitted(plan, dense, target, None, Silent())


def test_an_exported_file_is_checked_against_the_limit_on_its_time(tmp_path: Path) -> None:
    """The limit of the plan holds even if the export names only the board."""
    network = pretrim.analyze(small(), torch.zeros(1, *SHAPE))
    plan = pretrim.plan(network, device="stm32h743", runtime="st-edge-ai", latency="0.5x").to_json()
    target = find_target(TargetOptions(device="stm32h743"), {}, Search())
    artifact = export(small(), tmp_path / "m.tflite", "litert", images=images(8), calibration=images(8))
    reporter = Recording()
    record = on_board(replace(artifact, plan=plan), target, reporter)
    assert record is not None and record["time"]["runtime"] == plan["device"]["times"][0]["runtime"]
    message = f"its predicted time is {record['time']['ns'] * 1e-6:.3g} ms, more than the limit of"
    assert len(record["problems"]) == 1 and record["problems"][0].startswith(message) and message in reporter.lines[0]
    other_board = find_target(TargetOptions(device="stm32f407"), {}, Search())
    assert time_limit(other_board, plan) is None and time_limit(target, None) is None


def test_a_plan_from_the_user_is_refused_instead_of_changed(dense: DenseModel) -> None:
    plan = pretrim.plan(dense.network, device="nrf52840", macs="0.5x")
    target = target_of({"artifact_bytes": 4000}, Search())
    random_state = torch.get_rng_state()
    with pytest.raises(InfeasibleBudget, match=r"does not fit once it is converted: its file takes .* bytes of 4,0"):
        fitted(plan, dense, target, None, Silent())
    assert torch.equal(random_state, torch.get_rng_state()), "what is trained later has the weights it would have had"


def test_a_prediction_just_below_the_limit_is_not_called_a_fit() -> None:
    verdicts: Sequence[str] = [_verdict(size, 1000, is_real=False) for size in (980, 999, 1001)]
    assert verdicts == ["fits", "within 1 % of the limit", "too large"]
    assert np.unique(verdicts).size == 3
