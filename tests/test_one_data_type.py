"""A plan counts its limits in the exported data type; each of --int8, --no-int8 and --dtype implies the others."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from small import SHAPE, small

import pretrim
from pretrim.errors import UsageError
from pretrim.jobs.fit import converted
from pretrim.jobs.options import Search, TargetOptions
from pretrim.jobs.plan import plan_for
from pretrim.jobs.reporter import Silent
from pretrim.jobs.sweep import GridOptions, StudyOptions, SweepOptions, _data_type
from pretrim.jobs.target import Target, find_target
from pretrim.models.dense import open_model

Call = Callable[..., tuple[int, str, str]]
MACS = ("--macs", "0.5x")


def target(**options: object) -> Target:
    return find_target(TargetOptions(**options), {"params": "0.5x"}, Search())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "dtype"),
    [
        ({}, "float32"),
        ({"dtype": "int8"}, "int8"),
        ({"dtype": "float16"}, "float16"),
        ({"device": "raspberry-pi-4"}, "float32"),
        ({"device": "raspberry-pi-4", "int8": True}, "int8"),
        ({"device": "raspberry-pi-4", "dtype": "int8"}, "int8"),
        ({"device": "stm32f407"}, "int8"),
        ({"device": "stm32f407", "int8": False}, "float32"),
        ({"device": "stm32f407", "dtype": "float32"}, "float32"),
        ({"runtime": "onnx"}, "float32"),
        ({"runtime": "onnx", "int8": True}, "int8"),
        ({"runtime": "onnx", "dtype": "int8", "int8": True}, "int8"),
    ],
)
def test_limits_are_counted_in_the_exported_type(options: dict[str, object], dtype: str) -> None:
    resolved = target(**options)
    assert resolved.dtype == dtype and resolved.int8 is (dtype == "int8")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--device", "stm32f407", "--dtype", "float32", "--int8"), "--int8 and --dtype float32: leave out one"),
        (("--device", "stm32f407", "--dtype", "int8", "--no-int8"), "--no-int8 and --dtype int8: leave out one"),
        (("--device", "stm32f407", "--dtype", "float16"), "--dtype float32 or int8 for stm32f407, but got 'float16'"),
        (("--device", "raspberry-pi-4", *MACS, "--dtype", "float16"), "float32 or int8 for raspberry-pi-4"),
    ],
)
def test_types_that_contradict_are_refused(call: Call, options: tuple[str, ...], message: str) -> None:
    code, output, errors = call("plan", "resnet20", "--input", "1x16x16", *options)
    assert (code, output) == (2, "") and errors.startswith("error: ") and message in errors and errors.count("\n") == 1


def test_a_plan_names_the_type_that_it_counts_in(call: Call) -> None:
    command = ("plan", "resnet20", "--input", "1x16x16", "--device", "raspberry-pi-4", "--flash", "200KiB")
    for options, dtype in (((), "float32"), (("--int8",), "int8")):
        code, output, errors = call(*command, *options)
        assert code == 0 and re.search(rf"Plan for resnet20 .*bytes in {dtype}", output), errors
        plan = json.loads(call(*command, *options, "--json")[1])
        assert plan["dtype"] == dtype and plan["slim"]["weight_bytes"] <= 200 * 1024


def test_a_microcontroller_gets_float32_on_request() -> None:
    """The file converted before the training is float32 too, and so are its limits."""
    dense = open_model(small(), SHAPE, None)
    float32_target = find_target(TargetOptions(device="stm32f407", int8=False), {"macs": "0.5x"}, Search())
    plan = plan_for(dense, float32_target, Search(), Silent())
    real, predicted = converted(plan, dense, float32_target), (plan.device or {})["slim"]
    assert plan.dtype == "float32"
    assert predicted["artifact_bytes"] == pytest.approx(real["artifact_bytes"], rel=0.03)
    assert predicted["arena_bytes"] == pytest.approx(real["arena_bytes"], rel=0.03)


def test_a_file_has_the_type_of_the_limits_of_its_plan(call: Call, tmp_path: Path) -> None:
    """A plan with limits in bytes determines the type of the file; another type is refused before training."""
    plan, run = tmp_path / "plan.json", tmp_path / "run"
    limits = ("--input", "1x16x16", "--dtype", "int8", "--flash", "100KiB", "-o", plan)
    assert call("plan", "resnet20", *limits)[0] == 0
    command = ("compress", "resnet20", "--data", "digits", "--input", "1x16x16", "--plan", plan, "-o", run)
    command += ("--epochs", "1", "--max-images", "40", "--threads", "1", "--layout", "channels_last")
    code, _, errors = call(*command, "--runtime", "litert", "--no-int8")
    assert code == 2 and "counted in float32, which is exported, but it counts in int8" in errors
    assert not run.exists()
    code, _, errors = call(*command, "--runtime", "litert", "--precision", "float32")
    assert [file.name for file in run.glob("*.tflite")] == ["model.int8.tflite"], errors


def test_a_study_counts_in_the_exported_type() -> None:
    def data_type(device: str = "", **options: object) -> str:
        grid = GridOptions(device=device) if device else GridOptions()
        return _data_type(StudyOptions(grid=grid, sweep=SweepOptions(**options)))  # type: ignore[arg-type]

    assert [data_type(), data_type(int8=True, runtime="onnx"), data_type("stm32f407")] == ["float32", "int8", "int8"]
    assert data_type("raspberry-pi-4") == "float32"
    for device, options in (("", {"dtype": "int8", "int8": False}), ("stm32f407", {"dtype": "float32"})):
        with pytest.raises(UsageError, match="Expected "):
            data_type(device, **options)
    with pytest.raises(UsageError, match="no file is exported in it"):
        data_type(dtype="float16", runtime="onnx")


def test_the_python_api_refuses_the_same_types() -> None:
    network = pretrim.analyze(small(), torch.zeros(1, *SHAPE))
    with pytest.raises(UsageError, match=r"^Expected dtype float32 or int8 for nrf52840"):
        pretrim.plan(network, device="nrf52840", dtype="float16")
    assert pretrim.plan(network, device="raspberry-pi-4", macs="0.5x").dtype == "float32"
