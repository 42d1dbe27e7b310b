"""Python callers have no parser: a value of a wrong type is one line that says what is wanted."""

import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from inspect import signature
from pathlib import Path
from types import FunctionType
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from torch import nn

import pretrim
from pretrim.errors import ModelError, PretrimError, UsageError
from pretrim.jobs import calls
from pretrim.jobs.calls import CompressKeywords, SweepKeywords
from pretrim.jobs.sweep import StudyOptions, _specs
from pretrim.study.settings import TrialSpec
from pretrim.train import Execution, Recipe


def net() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 2)
    )


EXAMPLE = torch.zeros(1, 1, 8, 8)
PARTS = torch.utils.data.TensorDataset(torch.rand(16, 1, 8, 8), torch.arange(16) % 2)


def compress(output: Any, model: Any = None, **options: Any) -> Any:
    given = {"macs": "0.5x", "epochs": 1, "batch_size": 8, "round_to": 4, "threads": 1, "train_on": "cpu"} | options
    return pretrim.compress(net() if model is None else model, data=(PARTS, PARTS), output=output, **given)


MODEL = net()
NETWORK = pretrim.analyze(MODEL, EXAMPLE)
PLAN = pretrim.plan(NETWORK, macs="0.5x", round_to=4)
SLIM = pretrim.apply(MODEL, PLAN)


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
    "threads of an execution": (lambda _: Execution(threads="a"), "threads to be a whole number or None, but got 'a'"),
    "truth of an execution": (lambda _: Execution(compile="y"), "compile to be True, False or None, but got 'y'"),
    "device of an execution": (lambda _: Execution(device=3), "device to be the name of one, .* but got 3"),
    "recipe": (lambda _: Recipe(epochs="3"), "epochs to be a whole number, but got '3'"),
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


WRONG: dict[str, Any] = {
    "None": None,
    "a text": "a text",
    "no text": "",
    "bytes": b"bytes",
    "3": 3,
    "-1": -1,
    "half": 0.5,
    "nan": float("nan"),
    "true": True,
    "a list": [1],
    "a dict": {"a": 1},
    "a set": {1},
    "a path": Path("a path"),
    "torch": torch,
    "a network": NETWORK,
    "a plan": PLAN,
    "a module": MODEL,
    "a function": net,
    "a class": nn.Conv2d,
    "a tensor": EXAMPLE,
    "an array": np.zeros((2, 2)),
    "an object": object(),
}
SEARCH = (
    "mode",
    "round_to",
    "min_width",
    "freeze",
    "min_features",
    "seed",
    "step",
    "fraction",
    "share_update",
    "draws",
)
LIMITS = ("params", "macs", "flash", "ram", "activation", "latency", "arena_bytes", "at_most")
PUBLIC: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "analyze": (pretrim.analyze, {"model": MODEL, "example": EXAMPLE, "tried": ()}),
    "apply": (pretrim.apply, {"model": MODEL, "plan": PLAN, "init": "fresh", "network": NETWORK}),
    "compress": (
        pretrim.compress,
        {"model": MODEL, "data": (PARTS, PARTS), "output": "run", "macs": "0.5x", "epochs": 1},
    ),
    "costs": (pretrim.costs, {"network": NETWORK, "dtype": "int8"}),
    "load": (pretrim.load, {"path": "saved", "model": MODEL}),
    "open_run": (pretrim.open_run, {"path": "saved", "model": MODEL, "task": None, "reporter": None}),
    "open_study": (pretrim.open_study, {"path": "study", "storage": None}),
    "plan": (pretrim.plan, {"network": NETWORK, "macs": "0.5x"}),
    "plan_of": (pretrim.plan_of, {"slim": SLIM}),
    "read": (pretrim.read, {"path": "saved"}),
    "save": (pretrim.save, {"slim": SLIM, "path": "new", "overwrite": True}),
    "slim": (pretrim.slim, {"source": MODEL, "output": "slim", "input": "1x8x8", "overwrite": True}),
    "sweep": (
        pretrim.sweep,
        {"model": MODEL, "data": (PARTS, PARTS), "output": "study", "modes": "uniform", "epochs": 1},
    ),
}
"""Each public function, with keywords that it takes"""
OTHERS: dict[str, tuple[str, ...]] = {
    "compress": ("weights", "reporter", *(name for name in CompressKeywords.__annotations__)),
    "plan": ("device", "runtime", "application", "dtype", "costs", *LIMITS[:-1], *SEARCH),
    "save": ("reference", "classes", "normalisation", "input_shape", "data", "results", "forward", "into"),
    "slim": ("data", "weights", "model", "reporter"),
    "sweep": ("keep", "reporter", *(name for name in SweepKeywords.__annotations__)),
}
"""Keywords that it takes as well"""


def test_every_public_function_is_tried_with_wrong_types() -> None:
    functions = {name for name in pretrim.__all__ if isinstance(getattr(pretrim, name), FunctionType)}
    assert functions == PUBLIC.keys()
    for name, (function, given) in PUBLIC.items():
        named = {key for key, one in signature(function).parameters.items() if one.kind is not one.VAR_KEYWORD}
        assert named <= {*given, *OTHERS.get(name, ())}


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_function_takes_an_argument_or_refuses_it_in_one_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is trained: what a job checks is checked before."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pretrim.jobs.compress._Job.run", MagicMock())
    monkeypatch.setattr("pretrim.jobs.smallest.compress_within", MagicMock())
    monkeypatch.setattr("pretrim.jobs.sweep._prepared", MagicMock(side_effect=UsageError("it begins")))
    pretrim.save(SLIM, "saved")
    function, given = PUBLIC[name]
    for argument in (*given, *OTHERS.get(name, ())):
        for what, value in WRONG.items():
            try:
                function(**{**given, argument: value})
            except PretrimError as error:
                assert "\n" not in str(error) and len(str(error)) < 420, (argument, what, str(error))
            except Exception as error:
                pytest.fail(f"{name}({argument}={what}) raises {type(error).__name__}: {error}")


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: pretrim.apply(MODEL, PLAN, network="x"), "network to be None, or what pretrim.analyze.* but got 'x'"),
        (lambda: pretrim.costs(MODEL), "network to be what pretrim.analyze.* found, but got a Sequential"),
        (lambda: pretrim.plan_of(None), "slim to be a torch.nn.Module, .* but got None"),
        (lambda: pretrim.plan(NETWORK, macs="0.5x", costs={"foo": 1}), "costs of params, .* but got 'foo'"),
        (lambda: pretrim.plan(NETWORK, macs="0.5x", costs={"latency_ns": 1}), "the cost latency_ns to be a function"),
        (lambda: pretrim.plan(MODEL, macs="0.5x", device="stm32h743"), "network to be what pretrim.analyze"),
        (lambda: pretrim.read(3), "path to be the name of a run's folder, but got 3"),
        (lambda: PLAN.save(None), "path to be the name of a file, but got None"),
        (lambda: pretrim.Plan.load(3), "path to be the name of a file, but got 3"),
        (lambda: pretrim.analyze(MODEL, torch), "example to be a tensor .* but got a module"),
        (lambda: pretrim.analyze(MODEL, EXAMPLE, tried="a"), "tried to be a list of widths by group"),
    ],
)  # fmt: skip
def test_what_a_wrong_type_is_told(call: Callable[[], object], said: str) -> None:
    with pytest.raises(UsageError, match=f"^Expected {said}"):
        call()


def test_a_plan_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        PretrimError, match=r"^Cannot write the plan .*none/plan\.json \(No such file or directory\)\.$"
    ):
        PLAN.save(tmp_path / "none" / "plan.json")


def test_completion_by_the_tab_key_finds_every_public_name() -> None:
    """Names are loaded when they are first used: `dir` has to know them before."""
    done = subprocess.run(
        [sys.executable, "-c", "import pretrim; print(*dir(pretrim))"], capture_output=True, text=True
    )
    names = done.stdout.split()
    assert set(pretrim.__all__) <= set(names) and not {"Any", "TYPE_CHECKING", "importlib", "sys"} & set(names)
