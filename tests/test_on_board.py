"""Figures reported for a board: its own flash, RAM, time and energy, never those of this machine."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from small import SHAPE, small

import pretrim
from pretrim.cost.microcontroller import arena_cost
from pretrim.devices import board, boards
from pretrim.errors import UsageError
from pretrim.latency.board_time import board_time
from pretrim.latency.on_board import arena_on, arena_text, kernels_of, runtimes_to_show

Call = Callable[..., tuple[int, str, str]]
NET = """from torch import nn


def build():
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1, groups=32), nn.ReLU(), nn.Conv2d(32, 64, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))
"""


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("net") / "net.py"
    file.write_text(NET)
    return f"{file}:build"


# ---------------------------------------------------------------------------------------- a limit on a board's time


def test_a_latency_limit_on_a_board(call: Call, net: str) -> None:
    """The latency is predicted for the board's core and the named runtime, and the record states all its conditions."""
    command = (
        "plan",
        net,
        "--input",
        "3x32x32",
        "--device",
        "stm32h743",
        "--latency",
        "0.5x",
        "--runtime",
        "st-edge-ai",
    )
    code, output, errors = call(*command, "--json")
    assert code == 0, errors
    device = json.loads(output)["device"]
    (time,) = device["times"]
    assert (time["machine"], time["runtime"], time["data_type"], time["threads"], time["source"]) == (
        "stm32h743",
        "st-edge-ai 8.1",
        "int8",
        1,
        "predicted",
    )
    assert time["slim_ns"] == device["slim"]["latency_ns"] <= 0.5 * device["dense"]["latency_ns"]
    low, high = time["slim_range_ns"]
    assert low < time["slim_ns"] < high and time["networks"] == 21
    code, output, _ = call(*command)
    assert code == 0 and re.search(r"latency, st-edge-ai 8.1, int8 +[\d.]+ ms \([\d.]+ to [\d.]+\)", output)
    assert "Cortex-M7, 480 MHz), X-CUBE-AI 8.1, int8, one core: fitted on 21 networks" in output


def test_a_latency_limit_on_a_board_from_python() -> None:
    model = small()
    network = pretrim.analyze(model, torch.zeros(1, *SHAPE))
    time = board_time(network, board("stm32h743"), "st-edge-ai")
    dense = int(time.cost(network.dense))
    plan = pretrim.plan(network, device="stm32h743", runtime="st-edge-ai", latency=f"{dense // 2}ns")
    assert plan.device is not None and int(time.cost(plan.widths)) <= dense // 2
    assert plan.device["slim"]["latency_ns"] == int(time.cost(plan.widths))
    unconstrained = pretrim.plan(network, device="stm32h743", runtime="st-edge-ai", latency="1s")
    assert (
        unconstrained.slim == unconstrained.dense
        and unconstrained.device is not None
        and len(unconstrained.device["times"]) == 1
    )
    with pytest.raises(UsageError, match="runtime needs a device"):
        pretrim.plan(network, runtime="st-edge-ai", macs="0.5x")
    with pytest.raises(UsageError, match="A latency of raspberry-pi-4 is measured, and none was given"):
        pretrim.plan(network, device="raspberry-pi-4", latency="0.5x")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--device", "nrf52840", "--latency", "9ms", "--runtime", "st-edge-ai"), r"No public measurement of 'st-edg"),
        (("--device", "nrf52840", "--runtime", "st-edge-ai"), r"No public .* take plumerai 2023\.05, hale"),
        (("--device", "stm32h743", "--latency", "9ms"), r"only predicted: add --runtime, one of st-edge-ai 8\.1"),
        (("--device", "stm32h743", "--latency", "9ms", "--runtime", "litert"), r"'litert' may be any of tflm-ref"),
        (("--device", "stm32h743", "--latency", "9ms", "--runtime", "toast"), r"of 'toast' on Cortex-M7 .* take st-"),
        (
            ("--device", "stm32h743", "--latency", "9ms", "--runtime", "onnx"),
            r"a microcontroller, which runs litert",
        ),
        (("--device", "grove-vision-ai-v2", "--latency", "9ms"), r"No public measurement of any runtime on Cortex-M55"),
        (
            ("--device", "esp32-s3", "--latency", "9ms", "--runtime", "esp-dl", "--dtype", "float32"),
            r"is in float32: take int8",
        ),
        (
            ("--device", "stm32h743", "--latency", "9ms", "--runtime", "st-edge-ai", "--ssh", "a@b"),
            r"cannot be measured from here: leave out --ssh",
        ),
        (("--macs", "0.5x", "--runtime", "st-edge-ai"), r"--runtime says whose latency counts"),
    ],
)
def test_a_wrong_combination_is_refused_in_one_line(
    call: Call, net: str, options: tuple[str, ...], message: str
) -> None:
    code, output, errors = call("plan", net, "--input", "3x32x32", *options)
    assert (code, output, errors.count("\n")) == (2, "", 1)
    assert re.match(f"error: .*{message}", errors), errors


# ---------------------------------------------------------------------------------------- one figure each


def test_flash_and_ram_are_shown_once(call: Call, net: str) -> None:
    """The board's figures come first; those computed from weights and activations are not shown in addition."""
    code, output, _ = call("plan", net, "--input", "3x32x32", "--device", "stm32f407", "--macs", "0.5x")
    assert code == 0
    assert [output.count(word) for word in ("in flash", "(flash)", "in RAM", "(RAM)")] == [1, 0, 1, 0]
    assert output.startswith("On stm32f407, int8, predicted")
    code, output, _ = call("plan", net, "--input", "3x32x32", "--macs", "0.5x")
    assert code == 0 and "(flash)" in output and "(RAM)" in output and "On " not in output


@pytest.mark.parametrize("limit", ["0.5x", "20KiB", "20000"])
def test_every_notation_of_a_limit_on_the_arena(call: Call, net: str, limit: str) -> None:
    command = ("plan", net, "--input", "3x32x32", "--device", "stm32f407", "--at-most", f"arena_bytes={limit}")
    code, output, errors = call(*command)
    assert code == 0, errors
    assert re.search(r"tensor arena in RAM .* (fits|within 1 % of the limit)", output)


# ---------------------------------------------------------------------------------------- RAM of a 32-bit chip


def test_a_plan_for_a_board_has_the_arena_of_a_32_bit_chip(call: Call, net: str, tmp_path: Path) -> None:
    """CMSIS-NN's scratch memory is counted on a Cortex-M; on an ESP32 the text says that ESP-NN's is not."""
    image = torch.zeros(1, *SHAPE)
    network = pretrim.analyze(small(), image)
    for name, kernels in (("nrf52840", "cmsis-nn"), ("esp32-s3", "reference")):
        plan = pretrim.plan(network, device=name, macs="0.5x")
        assert plan.device is not None
        arena = plan.device["slim"]["arena_bytes"]
        assert arena == int(arena_cost(network, "int8", pointer_bytes=4, kernels=kernels)(plan.widths))  # type: ignore[arg-type]
        assert arena < int(arena_cost(network, "int8", kernels=kernels)(plan.widths))  # type: ignore[arg-type]
        assert ("without the memory that ESP-NN" in plan.device["arena_text"]) == (name == "esp32-s3")


def test_checking_a_plan_reproduces_its_figures() -> None:
    from pretrim.jobs.plan import check_plan
    from pretrim.models.dense import open_model

    model = small()
    dense = open_model(model, SHAPE, None)
    plan = pretrim.plan(dense.network, device="stm32h743", runtime="st-edge-ai", latency="0.5x")
    checked = check_plan(plan, dense)
    assert checked.device == plan.device
    with_three_times = pretrim.plan(dense.network, device="stm32h743", macs="0.5x")
    assert check_plan(with_three_times, dense).device == with_three_times.device


def test_kernels_of_boards_and_runtimes() -> None:
    assert kernels_of(board("stm32h743")) == "cmsis-nn" == kernels_of(board("rp2040"), "hale")
    assert kernels_of(board("stm32h743"), "tflm-reference 713b6ed") == "reference"
    assert kernels_of(board("esp32")) == kernels_of(board("grove-vision-ai-v2")) == "reference"
    assert "Helium" in arena_text(board("ek-ra8d1")) and "st-edge-ai plans" in arena_text(board("rp2040"), "st-edge-ai")


def test_scratch_memory_goes_where_the_plan_in_the_file_leaves_room() -> None:
    """The activations keep their offsets from the file: the head is never below the planned one, nor above both."""
    network = pretrim.analyze(small(), torch.zeros(1, *SHAPE))
    plain = arena_on(network, board("esp32"), "int8")
    cmsis = arena_on(network, board("nrf52840"), "int8")
    heads = [int(cost(network.dense) - cost.tail(network.dense)) for cost in (plain, cmsis)]
    assert heads[0] <= heads[1] <= heads[0] + 4 * 9 * 16 + 16  # the convolution of 16 channels unfolds two columns


# ---------------------------------------------------------------------------------------- devices


def test_devices_lists_the_known_times(call: Call) -> None:
    code, output, _ = call("devices", "stm32l4r5")
    assert code == 0 and re.search(r"st-edge-ai 8\.1 +int8 +2 .* mW", output)
    code, output, _ = call("devices", "raspberry-pi-5")
    assert code == 0 and "no public measurement of times on Cortex-A76 is known" in output
    records = json.loads(call("devices", "--json")[1])
    assert len(records) == len(boards())
    known = {record["name"]: record["times_of"] for record in records}
    assert known["raspberry-pi-5"] == [] and known["stm32h743"][0]["runtime"] == "st-edge-ai 8.1"
    assert runtimes_to_show(board("stm32h743"), "int8")[0] == "st-edge-ai 8.1"
    assert runtimes_to_show(board("grove-vision-ai-v2"), "int8") == []
