"""`pretrim check`: which boards any given file fits, which operators are missing, and the predicted latency."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small import SHAPE, images, small
from torch import nn

import pretrim
from pretrim.deploy import litert, litert_file, micro
from pretrim.deploy.micro import missing_operators
from pretrim.devices import board, boards
from pretrim.jobs.check import check
from pretrim.latency.board_time import board_time

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("check") / "model.tflite"
    path.write_bytes(litert_file(small(), images(8)))
    return path


def test_a_file_on_one_board(file: Path, call: Call) -> None:
    """Flash and arena are those of the board; the latency equals the prediction from the network's analysis."""
    code, output, _ = call("check", file, "--device", "stm32h743", "--runtime", "st-edge-ai", "--json")
    (entry,) = json.loads(output)["boards"]
    assert (code, entry["fits"], entry["problems"], entry["missing"]) == (0, True, [], [])
    assert entry["file_bytes"] == len(file.read_bytes()) and entry["flash_limit"] == 1_470_464
    assert entry["verified"] and entry["arena_bytes"] < micro.arena(file.read_bytes()).total_bytes
    network = pretrim.analyze(small(), torch.zeros(1, *SHAPE))
    time = board_time(network, board("stm32h743"), "st-edge-ai")
    assert entry["times"][0]["file_ns"] == pytest.approx(int(time.cost(network.dense)), abs=1)
    assert entry["times"][0]["label"] == time.label
    code, output, _ = call("check", file, "--device", "stm32h743", "--runtime", "st-edge-ai")
    assert code == 0 and re.search(r"stm32h743 +fits .* st-edge-ai 8\.1", output) and time.label in output


def test_energy_is_shown_if_the_power_of_the_board_is_known(file: Path, call: Call) -> None:
    """Energy has the same relative range as the latency, and its basis is shown."""
    _, output, _ = call("check", file, "--device", "stm32l4r5", "--runtime", "st-edge-ai 8.1", "--json")
    (time,) = json.loads(output)["boards"][0]["times"]
    assert time["file_range_uj"] == pytest.approx(
        [time["file_uj"] * bound / time["file_ns"] for bound in time["file_range_ns"]]
    )
    _, output, _ = call("check", file, "--device", "stm32l4r5", "--runtime", "st-edge-ai 8.1")
    assert "energy" in output and re.search(r" mJ \(.* to .*\)", output) and "mW, as measured there" in output
    _, output, _ = call("check", file, "--device", "stm32h743", "--runtime", "st-edge-ai")
    assert "energy" not in output


def test_a_table_over_all_boards(file: Path, call: Call) -> None:
    code, output, _ = call("check", file, "--device", "all", "--json")
    result = json.loads(output)
    assert code == 0 and [entry["board"] for entry in result["boards"]] == [entry.name for entry in boards()]
    assert result["fits"] and all(entry["fits"] for entry in result["boards"])
    code, table, _ = call("devices", "--for", file)
    assert code == 0 and all(re.search(rf"^ {entry.name} ", table, re.M) for entry in boards())


def test_a_file_that_does_not_fit_exits_with_1_and_says_why(file: Path, call: Call) -> None:
    code, output, errors = call("check", file, "--device", "esp32", "--application", "0.95")
    assert code == 1 and re.search(r"esp32 +no: RAM", output) is not None
    assert re.fullmatch(
        r"error: .*model.tflite does not fit esp32: the arena takes [\d,]+ bytes, more than .*\.\n", errors
    )


def test_missing_operators_are_named(tmp_path: Path, call: Call) -> None:
    """TFLM has no kernel for a GELU as the converter writes it."""
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.GELU(), nn.Conv2d(4, 4, 1)).eval()
    content = litert.convert(model, images(1)).content
    missing = missing_operators(content)
    path = tmp_path / "gelu.tflite"
    path.write_bytes(content)
    result = check(path, "nrf52840").boards[0]
    assert missing and result.missing == missing and not result.fits and result.arena_bytes is None
    code, output, errors = call("check", path, "--device", "all")
    assert code == 1 and "no: operators" in output and errors.endswith("does not fit any microcontroller.\n")
    assert all(entry.fits for entry in check(path).boards if entry.flash_limit is None), "computers run it"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("FILE", "--device", "toaster"), 2, "Expected a device that pretrim knows"),
        (("FILE", "--device", "nrf52840", "--runtime", "st-edge-ai"), 2, "No public measurement of 'st-edge-ai'"),
        (("nowhere.tflite", "--device", "all"), 2, "No file nowhere.tflite: give a .tflite, an .onnx or a run"),
        (("FILE.txt", "--device", "all"), 2, "Expected a .tflite, an .onnx or a run, but got 'x.txt'"),
        (
            ("EMPTY", "--device", "all"),
            1,
            "No artifact in .*: make one with `pretrim export RUN --runtime onnx`, where",
        ),
        (("BAD", "--device", "all"), 1, ".* is not a .tflite"),
    ],
)
def test_wrong_arguments_give_one_line(
    file: Path, call: Call, tmp_path: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    paths = {"FILE": file, "FILE.txt": tmp_path / "x.txt", "EMPTY": tmp_path, "BAD": tmp_path / "bad.tflite"}
    for name in ("FILE.txt", "BAD"):
        paths[name].write_text("x" * 100)
    exit_code, output, errors = call("check", *(paths.get(word, word) for word in arguments))
    assert (exit_code, output, errors.count("\n")) == (code, "", 1) and re.match(f"error: {message}", errors), errors


def test_an_onnx_file_fits_computers_only(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"x" * 1000)
    by_name = {entry.board: entry for entry in check(path).boards}
    assert by_name["raspberry-pi-5"].fits and not by_name["stm32h743"].fits
    assert "its interpreter loads .tflite" in by_name["stm32h743"].problems[0]
    assert replace(by_name["raspberry-pi-5"]).to_json()["times"] == []


def test_zero_filters_of_a_file_are_counted_by_layer(call: Call, tmp_path: Path) -> None:
    """The int8 weights of such filters all equal the zero point; here in conv, depthwise and linear layers."""
    network = small()
    with torch.no_grad():
        for layer, count in ((network.down[0], 5), (network.deep[0], 3), (network.head, 1)):
            layer.weight[:count] = 0.0
    path = tmp_path / "zeros.tflite"
    path.write_bytes(litert_file(network, images(8)))
    code, output, _ = call("check", path, "--device", "stm32h743", "--json")
    record = json.loads(output)
    assert code == 0 and record["filters"] == 16 + 32 + 32 + 32 + 4
    assert [(layer["zero"], layer["filters"]) for layer in record["zero_filters"].values()] == [
        (5, 32),
        (3, 32),
        (1, 4),
    ]
    code, output, _ = call("check", path, "--device", "stm32h743")
    assert code == 0 and "9 of 116 filters are zero: run `pretrim slim`" in output


def test_zero_filters_are_not_mentioned_if_there_are_none(file: Path, call: Call) -> None:
    code, output, _ = call("check", file, "--device", "stm32h743")
    assert code == 0 and "are zero" not in output
