"""Python callers have no parser: a value of a wrong type is one line that says what is wanted."""

import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from torch import nn

import pretrim
from pretrim.errors import ModelError, PretrimError, UsageError
from pretrim.jobs import calls
from pretrim.jobs.sweep import StudyOptions, _specs
from pretrim.study.settings import TrialSpec


def net() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 2)
    )


EXAMPLE = torch.zeros(1, 1, 8, 8)
PARTS = torch.utils.data.TensorDataset(torch.rand(16, 1, 8, 8), torch.arange(16) % 2)


def compress(output: Any, model: Any = None, **options: Any) -> Any:
    given = {"macs": "0.5x", "epochs": 1, "batch_size": 8, "round_to": 4, "threads": 1, "train_on": "cpu"} | options
    return pretrim.compress(net() if model is None else model, data=(PARTS, PARTS), output=output, **given)


NETWORK = pretrim.analyze(net(), EXAMPLE)


def sweep(output: Any, **options: Any) -> Any:
    return pretrim.sweep(net(), (PARTS, PARTS), output=output, **options)


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
    "a field of the recipe that is none": (
        lambda to: compress(to, set={"mixups": 1}),
        "set to name fields of the recipe, but got 'mixups'. Did you mean mixup",
    ),
    "a field of the recipe of another type": (
        lambda to: compress(to, set={"mixup": "a"}),
        "mixup to be a number, but got 'a'",
    ),
    "a field of the recipe with true": (
        lambda to: compress(to, set={"epochs": True}),
        "epochs to be a whole number, but got True",
    ),
    "a recipe that is none": (
        lambda to: compress(to, set=3),
        r"set to be a mapping such as \{'mixup': 0.2\}, but got 3",
    ),
    "truth": (lambda to: compress(to, dense="no"), "dense to be True or False, but got 'no'"),
    "frozen module": (lambda to: compress(to, freeze=net()), "freeze to be a list of names of layers, but got a Seq"),
    "frozen module of a plan": (
        lambda _: NETWORK.plan(macs="0.5x", freeze=net()),
        "freeze to be a list of names of layers, but got a Seq",
    ),
    "trials of true": (lambda to: sweep(to, keep=True), r"keep to be fractions such as \[0.7, 0.5\], but got True"),
    "no trials": (lambda to: sweep(to, keep=[]), r"keep to be fractions such as \[0.7, 0.5\], but got \[\]"),
    "no modes": (lambda to: sweep(to, modes=[]), r"modes to be a list of names, but got \[\]"),
    "a list of seeds": (lambda to: sweep(to, seeds=[0, 1]), r"seeds to be a whole number, but got \[0, 1\]"),
    "several limits": (lambda to: sweep(to, macs=["0.5x"]), r"macs to be an amount .*, but got \['0.5x'\]"),
    "no output": (lambda _: compress(None), "output to be the name of a folder, but got None"),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_wrong_type_is_one_line(tmp_path: Path, name: str) -> None:
    call, said = CALLS[name]
    with pytest.raises(UsageError, match=f"^Expected {said}") as caught:
        call(tmp_path / "run")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 200
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", ["mac", "flops", "see", "colour"])
def test_an_option_that_is_none_is_refused_alike_by_every_call(tmp_path: Path, wrong: str) -> None:
    said = set()
    for call in (partial(compress, tmp_path / "run"), partial(pretrim.plan, NETWORK), NETWORK.plan):
        with pytest.raises(UsageError, match=f"^Unknown option '{wrong}'") as caught:
            call(**{wrong: "0.5x"})
        assert "block" not in str(caught.value) and "\n" not in str(caught.value)
        said.add(str(caught.value).partition(": there are ")[0])
        assert wrong != "colour" or {"macs", "mode", "round_to"} <= set(re.findall(r"\w+", str(caught.value)))
    assert len(said) == 1, said
    meant = {"mac": "macs", "flops": "macs (half the FLOPs)", "see": "seed"}
    assert wrong == "colour" or said == {f"Unknown option '{wrong}'. Did you mean {meant[wrong]}?"}


GIVEN = {
    "one number": {"keep": 0.5},
    "a text": {"keep": "0.5"},
    "a number of NumPy": {"keep": np.float64(0.5)},
    "an array": {"keep": np.array([0.5])},
    "a tensor": {"budget_fraction": torch.tensor([0.5], dtype=torch.float64)},
    "a generator": {"keep": (n / 10 for n in (5,))},
    "texts": {"budget_fraction": ("0.5x",), "modes": (mode for mode in ["uniform"])},
}


@pytest.mark.parametrize("name", GIVEN)
def test_the_lists_of_a_sweep_are_taken_in_every_form(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[TrialSpec] = []

    def asked(model: Any, data: Any, output: Path, options: StudyOptions, reporter: Any) -> Any:
        found.extend(_specs(options))
        return MagicMock()

    monkeypatch.setattr(calls, "run_sweep", asked)
    sweep(tmp_path / "study", **{"modes": "uniform", "dense": False} | GIVEN[name])
    assert [(spec.mode, spec.budget_fraction) for spec in found] == [("uniform", 0.5)]


def test_fields_of_the_recipe_are_listed_where_none_is_near(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^Expected set to name fields out of epochs, .*, qat, but got 'nope'\.$"):
        compress(tmp_path / "run", set={"nope": 1})


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
