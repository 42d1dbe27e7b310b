"""Python callers have no parser: a value of a wrong type is one line that says what is wanted."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import pretrim
from pretrim.errors import ModelError, PretrimError, UsageError


def net() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 2)
    )


EXAMPLE = torch.zeros(1, 1, 8, 8)
PARTS = torch.utils.data.TensorDataset(torch.rand(16, 1, 8, 8), torch.arange(16) % 2)


def compress(output: Any, model: Any = None, **options: Any) -> Any:
    given = {"macs": "0.5x", "epochs": 1, "batch_size": 8, "round_to": 4, "threads": 1, "train_on": "cpu"} | options
    return pretrim.compress(net() if model is None else model, data=(PARTS, PARTS), output=output, **given)


CALLS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a class": (
        lambda _: pretrim.analyze(nn.Conv2d, EXAMPLE),
        "model to be a torch.nn.Module, but got the class Conv2d",
    ),
    "a name": (lambda _: pretrim.analyze("resnet20", EXAMPLE), "model to be a torch.nn.Module, but got 'resnet20'"),
    "no model": (lambda _: pretrim.analyze(None, EXAMPLE), "model to be a torch.nn.Module, but got None"),
    "a shape": (lambda _: pretrim.analyze(net(), (1, 1, 8, 8)), r"example to be a tensor .* but got \(1, 1, 8, 8\)"),
    "a list": (lambda _: pretrim.analyze(net(), [1, 1, 8, 8]), r"example to be a tensor .* but got \[1, 1, 8, 8\]"),
    "an array": (lambda _: pretrim.analyze(net(), EXAMPLE.numpy()), "example to be a tensor .* but got .*array"),
    "a module to plan": (lambda _: pretrim.plan(net(), macs="0.5x"), "network to be what pretrim.analyze"),
    "swapped": (lambda _: pretrim.apply({}, net()), r"model to be a torch.nn.Module, but got \{\}"),
    "no plan": (lambda _: pretrim.apply(net(), {}), r"plan to be a Plan, as pretrim.plan makes it, but got \{\}"),
    "epochs": (lambda to: compress(to, epochs="2"), "epochs to be a whole number, but got '2'"),
    "half an epoch": (lambda to: compress(to, epochs=1.5), r"epochs to be a whole number, but got 1\.5"),
    "true": (lambda to: compress(to, batch_size=True), "batch_size to be a whole number, but got True"),
    "lr": (lambda to: compress(to, lr="0.1"), r"lr to be a number, but got '0\.1'"),
    "device": (lambda to: compress(to, device=torch.device("cpu")), "device to be the name of a board"),
    "output": (lambda _: compress(5), "output to be the name of a folder, but got 5"),
    "no run": (lambda _: pretrim.open_run(5), "path to be the name of a run's folder, but got 5"),
    "no study": (lambda _: pretrim.open_study(None), "path to be the name of a study's folder, but got None"),
    "no output": (lambda _: compress(None), "output to be the name of a folder, but got None"),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_wrong_type_is_one_line(tmp_path: Path, name: str) -> None:
    call, said = CALLS[name]
    with pytest.raises(UsageError, match=f"^Expected {said}") as caught:
        call(tmp_path / "run")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 200
    assert list(tmp_path.iterdir()) == []


def test_a_class_that_needs_arguments_is_no_builder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"Conv2d\(\) did not build a network: .*missing 3 required"):
        compress(tmp_path / "run", model=nn.Conv2d)


def test_an_unknown_device_is_not_explained_by_torch(tmp_path: Path) -> None:
    with pytest.raises(PretrimError, match=r"but got 'tpu': torch knows no such device\.$"):
        compress(tmp_path / "run", train_on="tpu")


def test_numbers_of_numpy_and_shapes_are_taken(tmp_path: Path) -> None:
    run = compress(tmp_path / "run", epochs=np.int64(1), batch_size=np.int32(8), lr=np.float32(0.01), input=(1, 8, 8))
    assert run.record is not None and tuple(run.record.input_shape or ()) == (1, 8, 8)
    assert run.record.results is not None


def test_completion_by_the_tab_key_finds_every_public_name() -> None:
    """Names are loaded when they are first used: `dir` has to know them before."""
    done = subprocess.run(
        [sys.executable, "-c", "import pretrim; print(*dir(pretrim))"], capture_output=True, text=True
    )
    names = done.stdout.split()
    assert set(pretrim.__all__) <= set(names) and not {"Any", "TYPE_CHECKING", "importlib", "sys"} & set(names)
