"""The Python API checks types itself: a value of a wrong type gives a one-line error that names what is expected."""

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
DATASET = torch.utils.data.TensorDataset(torch.rand(16, 1, 8, 8), torch.arange(16) % 2)


def compress(output: Any, model: Any = None, **options: Any) -> Any:
    arguments = {"macs": "0.5x", "epochs": 1, "batch_size": 8, "round_to": 4, "threads": 1, "train_on": "cpu"} | options
    return pretrim.compress(net() if model is None else model, data=(DATASET, DATASET), output=output, **arguments)


MODEL = net()
NETWORK = pretrim.analyze(MODEL, EXAMPLE)
PLAN = pretrim.plan(NETWORK, macs="0.5x", round_to=4)
SLIM = pretrim.apply(MODEL, PLAN)


def sweep(output: Any, **options: Any) -> Any:
    return pretrim.sweep(net(), (DATASET, DATASET), output=output, **options)


WRONG_CALLS: dict[str, tuple[Callable[[Path], object], str]] = {
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
    "epochs": (lambda folder: compress(folder, epochs="2"), "epochs to be a whole number, but got '2'"),
    "half an epoch": (lambda folder: compress(folder, epochs=1.5), r"epochs to be a whole number, but got 1\.5"),
    "true": (lambda folder: compress(folder, batch_size=True), "batch_size to be a whole number, but got True"),
    "lr": (lambda folder: compress(folder, lr="0.1"), r"lr to be a number, but got '0\.1'"),
    "device": (lambda folder: compress(folder, device=torch.device("cpu")), "device to be the name of a board"),
    "output": (lambda _: compress(5), "output to be the name of a folder, but got 5"),
    "threads of an execution": (lambda _: Execution(threads="a"), "threads to be a whole number or None, but got 'a'"),
    "truth of an execution": (lambda _: Execution(compile="y"), "compile to be True, False or None, but got 'y'"),
    "device of an execution": (lambda _: Execution(device=3), "device to be the name of one, .* but got 3"),
    "recipe": (lambda _: Recipe(epochs="3"), "epochs to be a whole number, but got '3'"),
    "no run": (lambda _: pretrim.open_run(5), "path to be the name of a run's folder, but got 5"),
    "no study": (lambda _: pretrim.open_study(None), "path to be the name of a study's folder, but got None"),
    "a field of the recipe that is none": (
        lambda folder: compress(folder, set={"mixups": 1}),
        "set to name fields of the recipe, but got 'mixups'. Did you mean mixup",
    ),
    "a field of the recipe of another type": (
        lambda folder: compress(folder, set={"mixup": "a"}),
        "mixup to be a number, but got 'a'",
    ),
    "a field of the recipe with true": (
        lambda folder: compress(folder, set={"epochs": True}),
        "epochs to be a whole number, but got True",
    ),
    "a recipe that is none": (
        lambda folder: compress(folder, set=3),
        r"set to be a mapping such as \{'mixup': 0.2\}, but got 3",
    ),
    "truth": (lambda folder: compress(folder, dense="no"), "dense to be True or False, but got 'no'"),
    "frozen module": (
        lambda folder: compress(folder, freeze=net()),
        "freeze to be a list of names of layers, but got a Seq",
    ),
    "frozen module of a plan": (
        lambda _: NETWORK.plan(macs="0.5x", freeze=net()),
        "freeze to be a list of names of layers, but got a Seq",
    ),
    "trials of true": (
        lambda folder: sweep(folder, keep=True),
        r"keep to be fractions such as \[0.7, 0.5\], but got True",
    ),
    "no trials": (lambda folder: sweep(folder, keep=[]), r"keep to be fractions such as \[0.7, 0.5\], but got \[\]"),
    "no modes": (lambda folder: sweep(folder, modes=[]), r"modes to be a list of names, but got \[\]"),
    "a list of seeds": (lambda folder: sweep(folder, seeds=[0, 1]), r"seeds to be a whole number, but got \[0, 1\]"),
    "several limits": (lambda folder: sweep(folder, macs=["0.5x"]), r"macs to be an amount .*, but got \['0.5x'\]"),
    "no output": (lambda _: compress(None), "output to be the name of a folder, but got None"),
}


@pytest.mark.parametrize("name", WRONG_CALLS)
def test_a_wrong_type_gives_a_one_line_error(tmp_path: Path, name: str) -> None:
    call, message = WRONG_CALLS[name]
    with pytest.raises(UsageError, match=f"^Expected {message}") as caught:
        call(tmp_path / "run")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 200
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", ["mac", "flops", "see", "colour"])
def test_an_unknown_option_is_refused_in_the_same_way_by_every_call(tmp_path: Path, option: str) -> None:
    messages = set()
    for call in (partial(compress, tmp_path / "run"), partial(pretrim.plan, NETWORK), NETWORK.plan):
        with pytest.raises(UsageError, match=f"^Unknown option '{option}'") as caught:
            call(**{option: "0.5x"})
        assert "block" not in str(caught.value) and "\n" not in str(caught.value)
        messages.add(str(caught.value).partition(": there are ")[0])
        assert option != "colour" or {"macs", "mode", "round_to"} <= set(re.findall(r"\w+", str(caught.value)))
    assert len(messages) == 1, messages
    suggestions = {"mac": "macs", "flops": "macs (half the FLOPs)", "see": "seed"}
    assert option == "colour" or messages == {f"Unknown option '{option}'. Did you mean {suggestions[option]}?"}


LISTS_OF_A_SWEEP = {
    "one number": {"keep": 0.5},
    "a text": {"keep": "0.5"},
    "a number of NumPy": {"keep": np.float64(0.5)},
    "an array": {"keep": np.array([0.5])},
    "a tensor": {"budget_fraction": torch.tensor([0.5], dtype=torch.float64)},
    "a generator": {"keep": (n / 10 for n in (5,))},
    "texts": {"budget_fraction": ("0.5x",), "modes": (mode for mode in ["uniform"])},
}


@pytest.mark.parametrize("name", LISTS_OF_A_SWEEP)
def test_sweep_accepts_lists_in_every_form(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    specs: list[TrialSpec] = []

    def fake_sweep(model: Any, data: Any, output: Path, options: StudyOptions, reporter: Any) -> Any:
        specs.extend(_specs(options))
        return MagicMock()

    monkeypatch.setattr(calls, "run_sweep", fake_sweep)
    sweep(tmp_path / "study", **{"modes": "uniform", "dense": False} | LISTS_OF_A_SWEEP[name])
    assert [(spec.mode, spec.budget_fraction) for spec in specs] == [("uniform", 0.5)]


def test_fields_of_the_recipe_are_listed_if_no_name_is_similar(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^Expected set to name fields out of epochs, .*, qat, but got 'nope'\.$"):
        compress(tmp_path / "run", set={"nope": 1})


def test_a_class_that_needs_arguments_is_refused_as_a_builder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"Conv2d\(\) did not build a network: .*missing 3 required"):
        compress(tmp_path / "run", model=nn.Conv2d)


def test_an_unknown_device_gives_our_own_message(tmp_path: Path) -> None:
    with pytest.raises(PretrimError, match=r"but got 'tpu': torch knows no such device\.$"):
        compress(tmp_path / "run", train_on="tpu")


def test_numpy_numbers_and_shapes_are_accepted(tmp_path: Path) -> None:
    run = compress(tmp_path / "run", epochs=np.int64(1), batch_size=np.int32(8), lr=np.float32(0.01), input=(1, 8, 8))
    assert run.record is not None and tuple(run.record.input_shape or ()) == (1, 8, 8)
    assert run.record.results is not None


WRONG_VALUES: dict[str, Any] = {
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
PUBLIC_FUNCTIONS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "analyze": (pretrim.analyze, {"model": MODEL, "example": EXAMPLE, "tried": ()}),
    "apply": (pretrim.apply, {"model": MODEL, "plan": PLAN, "init": "fresh", "network": NETWORK}),
    "compress": (
        pretrim.compress,
        {"model": MODEL, "data": (DATASET, DATASET), "output": "run", "macs": "0.5x", "epochs": 1},
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
        {"model": MODEL, "data": (DATASET, DATASET), "output": "study", "modes": "uniform", "epochs": 1},
    ),
}
"""Each public function with valid arguments"""
OTHER_KEYWORDS: dict[str, tuple[str, ...]] = {
    "compress": ("weights", "reporter", *(name for name in CompressKeywords.__annotations__)),
    "plan": ("device", "runtime", "application", "dtype", "costs", *LIMITS[:-1], *SEARCH),
    "save": ("reference", "classes", "normalisation", "input_shape", "data", "results", "forward", "into"),
    "slim": ("data", "weights", "model", "reporter"),
    "sweep": ("keep", "reporter", *(name for name in SweepKeywords.__annotations__)),
}
"""Further keywords of each public function"""


def test_every_public_function_is_tried_with_wrong_types() -> None:
    functions = {name for name in pretrim.__all__ if isinstance(getattr(pretrim, name), FunctionType)}
    assert functions == PUBLIC_FUNCTIONS.keys()
    for name, (function, arguments) in PUBLIC_FUNCTIONS.items():
        named = {
            key
            for key, parameter in signature(function).parameters.items()
            if parameter.kind is not parameter.VAR_KEYWORD
        }
        assert named <= {*arguments, *OTHER_KEYWORDS.get(name, ())}


@pytest.mark.parametrize("name", PUBLIC_FUNCTIONS)
def test_a_public_function_accepts_an_argument_or_refuses_it_in_one_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is trained: jobs check their arguments before they train."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pretrim.jobs.compress._Job.run", MagicMock())
    monkeypatch.setattr("pretrim.jobs.smallest.compress_within", MagicMock())
    monkeypatch.setattr("pretrim.jobs.sweep._loaded", MagicMock(side_effect=UsageError("it begins")))
    pretrim.save(SLIM, "saved")
    function, arguments = PUBLIC_FUNCTIONS[name]
    for argument in (*arguments, *OTHER_KEYWORDS.get(name, ())):
        for value_name, value in WRONG_VALUES.items():
            try:
                function(**{**arguments, argument: value})
            except PretrimError as error:
                assert "\n" not in str(error) and len(str(error)) < 420, (argument, value_name, str(error))
            except Exception as error:
                pytest.fail(f"{name}({argument}={value_name}) raises {type(error).__name__}: {error}")


@pytest.mark.parametrize(
    ("call", "message"),
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
def test_messages_about_wrong_types(call: Callable[[], object], message: str) -> None:
    with pytest.raises(UsageError, match=f"^Expected {message}"):
        call()


def test_a_plan_that_cannot_be_written_gives_a_one_line_error(tmp_path: Path) -> None:
    with pytest.raises(
        PretrimError, match=r"^Cannot write the plan .*none/plan\.json \(No such file or directory\)\.$"
    ):
        PLAN.save(tmp_path / "none" / "plan.json")


def test_dir_lists_every_public_name() -> None:
    """Public names are loaded on first use, but `dir` has to list them before that."""
    result = subprocess.run(
        [sys.executable, "-c", "import pretrim; print(*dir(pretrim))"], capture_output=True, text=True
    )
    names = result.stdout.split()
    assert set(pretrim.__all__) <= set(names) and not {"Any", "TYPE_CHECKING", "importlib", "sys"} & set(names)
