"""A plan counts its limits in the data type that is exported: one of --int8, --no-int8 and --dtype implies the rest."""

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
def test_limits_are_counted_in_what_is_exported(options: dict[str, object], dtype: str) -> None:
    found = target(**options)
    assert found.dtype == dtype and found.int8 is (dtype == "int8")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--device", "stm32f407", "--dtype", "float32", "--int8"), "--int8 and --dtype float32: leave out one"),
        (("--device", "stm32f407", "--dtype", "int8", "--no-int8"), "--no-int8 and --dtype int8: leave out one"),
        (("--device", "stm32f407", "--dtype", "float16"), "--dtype float32 or int8 for stm32f407, but got 'float16'"),
        (("--device", "raspberry-pi-4", *MACS, "--dtype", "float16"), "float32 or int8 for raspberry-pi-4"),
    ],
)
def test_types_that_contradict_are_refused(call: Call, options: tuple[str, ...], said: str) -> None:
    code, out, error = call("plan", "resnet20", "--input", "1x16x16", *options)
    assert (code, out) == (2, "") and error.startswith("error: ") and said in error and error.count("\n") == 1


def test_a_plan_names_the_type_that_it_counts_in(call: Call) -> None:
    ask = ("plan", "resnet20", "--input", "1x16x16", "--device", "raspberry-pi-4", "--flash", "200KiB")
    for more, dtype in (((), "float32"), (("--int8",), "int8")):
        code, out, said = call(*ask, *more)
        assert code == 0 and re.search(rf"Plan for resnet20 .*bytes in {dtype}", out), said
        plan = json.loads(call(*ask, *more, "--json")[1])
        assert plan["dtype"] == dtype and plan["slim"]["weight_bytes"] <= 200 * 1024


def test_a_microcontroller_is_given_float32_where_that_is_asked_for() -> None:
    """The file that is converted before the training, and its limits, are float32 as well."""
    dense = open_model(small(), SHAPE, None)
    asked = find_target(TargetOptions(device="stm32f407", int8=False), {"macs": "0.5x"}, Search())
    plan = plan_for(dense, asked, Search(), Silent())
    real, predicted = converted(plan, dense, asked), (plan.device or {})["slim"]
    assert plan.dtype == "float32"
    assert predicted["artifact_bytes"] == pytest.approx(real["artifact_bytes"], rel=0.03)
    assert predicted["arena_bytes"] == pytest.approx(real["arena_bytes"], rel=0.03)


def test_a_file_has_the_type_of_the_limits_of_its_plan(call: Call, tmp_path: Path) -> None:
    """A plan that limits bytes passes its type on to the file; another one is refused before anything is trained."""
    plan, run = tmp_path / "plan.json", tmp_path / "run"
    limits = ("--input", "1x16x16", "--dtype", "int8", "--flash", "100KiB", "-o", plan)
    assert call("plan", "resnet20", *limits)[0] == 0
    ask = ("compress", "resnet20", "--data", "digits", "--input", "1x16x16", "--plan", plan, "-o", run)
    ask += ("--epochs", "1", "--max-images", "40", "--threads", "1", "--layout", "channels_last")
    code, _, said = call(*ask, "--runtime", "litert", "--no-int8")
    assert code == 2 and "counted in float32, which is exported, but it counts in int8" in said
    assert not run.exists()
    code, _, said = call(*ask, "--runtime", "litert", "--precision", "float32")
    assert [file.name for file in run.glob("*.tflite")] == ["model.int8.tflite"], said


def test_a_study_counts_in_what_it_exports() -> None:
    def found(device: str = "", **how: object) -> str:
        grid = GridOptions(device=device) if device else GridOptions()
        return _data_type(StudyOptions(grid=grid, sweep=SweepOptions(**how)))  # type: ignore[arg-type]

    assert [found(), found(int8=True, runtime="onnx"), found("stm32f407")] == ["float32", "int8", "int8"]
    assert found("raspberry-pi-4") == "float32"
    for device, how in (("", {"dtype": "int8", "int8": False}), ("stm32f407", {"dtype": "float32"})):
        with pytest.raises(UsageError, match="Expected "):
            found(device, **how)
    with pytest.raises(UsageError, match="no file is exported in it"):
        found(dtype="float16", runtime="onnx")


def test_python_refuses_the_same() -> None:
    network = pretrim.analyze(small(), torch.zeros(1, *SHAPE))
    with pytest.raises(UsageError, match=r"^Expected dtype float32 or int8 for nrf52840"):
        pretrim.plan(network, device="nrf52840", dtype="float16")
    assert pretrim.plan(network, device="raspberry-pi-4", macs="0.5x").dtype == "float32"
