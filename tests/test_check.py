"""`pretrim check`: which boards a file of anybody's fits, what is missing, and how long it would take."""

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
    """Flash and arena as the board has them, the time as the network's own analysis predicts it."""
    code, out, _ = call("check", file, "--device", "stm32h743", "--runtime", "st-edge-ai", "--json")
    (entry,) = json.loads(out)["boards"]
    assert (code, entry["fits"], entry["problems"], entry["missing"]) == (0, True, [], [])
    assert entry["file_bytes"] == len(file.read_bytes()) and entry["flash_limit"] == 1_470_464
    assert entry["verified"] and entry["arena_bytes"] < micro.arena(file.read_bytes()).total_bytes
    network = pretrim.analyze(small(), torch.zeros(1, *SHAPE))
    time = board_time(network, board("stm32h743"), "st-edge-ai")
    assert entry["times"][0]["file_ns"] == pytest.approx(int(time.cost(network.dense)), abs=1)
    assert entry["times"][0]["label"] == time.label
    code, out, _ = call("check", file, "--device", "stm32h743", "--runtime", "st-edge-ai")
    assert code == 0 and re.search(r"stm32h743 +fits .* st-edge-ai 8\.1", out) and time.label in out


def test_energy_is_shown_where_the_power_of_the_board_is_known(file: Path, call: Call) -> None:
    """With the range of its time, and what it rests on."""
    _, out, _ = call("check", file, "--device", "stm32l4r5", "--runtime", "st-edge-ai 8.1", "--json")
    (time,) = json.loads(out)["boards"][0]["times"]
    assert time["file_range_uj"] == pytest.approx(
        [time["file_uj"] * end / time["file_ns"] for end in time["file_range_ns"]]
    )
    _, out, _ = call("check", file, "--device", "stm32l4r5", "--runtime", "st-edge-ai 8.1")
    assert "energy" in out and re.search(r" mJ \(.* to .*\)", out) and "mW, as measured there" in out
    _, out, _ = call("check", file, "--device", "stm32h743", "--runtime", "st-edge-ai")
    assert "energy" not in out


def test_a_table_over_all_boards(file: Path, call: Call) -> None:
    code, out, _ = call("check", file, "--device", "all", "--json")
    found = json.loads(out)
    assert code == 0 and [entry["board"] for entry in found["boards"]] == [entry.name for entry in boards()]
    assert found["fits"] and all(entry["fits"] for entry in found["boards"])
    code, table, _ = call("devices", "--for", file)
    assert code == 0 and all(re.search(rf"^ {entry.name} ", table, re.M) for entry in boards())


def test_what_does_not_fit_says_why_and_exits_with_1(file: Path, call: Call) -> None:
    code, out, said = call("check", file, "--device", "esp32", "--application", "0.95")
    assert code == 1 and re.search(r"esp32 +no: RAM", out) is not None
    assert re.fullmatch(
        r"error: .*model.tflite does not fit esp32: the arena takes [\d,]+ bytes, more than .*\.\n", said
    )


def test_missing_operators_are_named(tmp_path: Path, call: Call) -> None:
    """TFLM has no kernel for the error function of a GELU, as the converter writes it."""
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.GELU(), nn.Conv2d(4, 4, 1)).eval()
    content = litert.convert(model, images(1)).content
    missing = missing_operators(content)
    path = tmp_path / "gelu.tflite"
    path.write_bytes(content)
    found = check(path, "nrf52840").boards[0]
    assert missing and found.missing == missing and not found.fits and found.arena_bytes is None
    code, out, said = call("check", path, "--device", "all")
    assert code == 1 and "no: operators" in out and said.endswith("does not fit any microcontroller.\n")
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
def test_wrong_questions_are_one_line(
    file: Path, call: Call, tmp_path: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    names = {"FILE": file, "FILE.txt": tmp_path / "x.txt", "EMPTY": tmp_path, "BAD": tmp_path / "bad.tflite"}
    for name in ("FILE.txt", "BAD"):
        names[name].write_text("x" * 100)
    got, out, said = call("check", *(names.get(word, word) for word in arguments))
    assert (got, out, said.count("\n")) == (code, "", 1) and re.match(f"error: {message}", said), said


def test_an_onnx_is_for_computers(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"x" * 1000)
    by_name = {entry.board: entry for entry in check(path).boards}
    assert by_name["raspberry-pi-5"].fits and not by_name["stm32h743"].fits
    assert "its interpreter loads .tflite" in by_name["stm32h743"].problems[0]
    assert replace(by_name["raspberry-pi-5"]).to_json()["times"] == []


def test_zero_filters_of_a_file_are_counted_by_layer(call: Call, tmp_path: Path) -> None:
    """Their int8 weights are all the zero point; of a full, a depthwise and a dense layer."""
    network = small()
    with torch.no_grad():
        for layer, count in ((network.down[0], 5), (network.deep[0], 3), (network.head, 1)):
            layer.weight[:count] = 0.0
    path = tmp_path / "zeros.tflite"
    path.write_bytes(litert_file(network, images(8)))
    code, out, _ = call("check", path, "--device", "stm32h743", "--json")
    record = json.loads(out)
    assert code == 0 and record["filters"] == 16 + 32 + 32 + 32 + 4
    assert [(layer["zero"], layer["filters"]) for layer in record["zero_filters"].values()] == [
        (5, 32),
        (3, 32),
        (1, 4),
    ]
    code, out, _ = call("check", path, "--device", "stm32h743")
    assert code == 0 and "9 of 116 filters are zero: run `pretrim slim`" in out


def test_a_file_without_zero_filters_says_nothing_of_them(file: Path, call: Call) -> None:
    code, out, _ = call("check", file, "--device", "stm32h743")
    assert code == 0 and "are zero" not in out
