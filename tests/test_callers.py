"""What Python callers see of the calls: short records, their own keywords in messages, chance as they left it."""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import pretrim
from pretrim.errors import BudgetError, InfeasibleBudget, PretrimError, UsageError
from pretrim.jobs.delivered import Delivered
from pretrim.jobs.reporter import Silent

QUICK: dict[str, Any] = {"epochs": 1, "batch_size": 8, "threads": 1, "train_on": "cpu"}
EXAMPLE = torch.zeros(1, 1, 8, 8)
PARTS = TensorDataset(torch.rand(200, 1, 8, 8), torch.arange(200) % 2)


def net() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 2)
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("made")


@pytest.fixture(scope="module")
def run(folder: Path) -> pretrim.Run:
    return pretrim.compress(net(), (PARTS, PARTS), output=folder / "run", macs="0.5x", dense=True, **QUICK)


@pytest.fixture(scope="module")
def study(folder: Path) -> pretrim.Study:
    return pretrim.sweep(net(), (PARTS, PARTS), output=folder / "study", modes="uniform", keep=0.5, **QUICK)


def test_a_run_shows_itself_in_a_line(run: pretrim.Run) -> None:
    shown = repr(run)
    assert "\n" not in shown and len(shown) < 400, "its record has thousands of characters"
    plan = run.plan
    assert str(run.path) in shown and "Sequential" in shown and run.metric.show(run.accuracy or 0.0, 1) in shown
    assert f"{plan.slim['params']:,} of {plan.dense['params']:,} (" in shown and " macs" in shown
    assert "of the dense network" in shown
    assert repr(replace(run, record=None)).endswith("in a process that wrote no run)")
    assert str(run.evaluate((PARTS, PARTS))).startswith(f"Evaluated({str(run.path)!r}: accuracy ")
    assert "200 images" in repr(run.evaluate((PARTS, PARTS)))


def test_a_study_shows_itself_in_a_line(study: pretrim.Study) -> None:
    assert repr(study) == f"Study({str(study.path)!r}: 2 done)"


def test_an_exported_run_shows_itself_in_a_line(run: pretrim.Run) -> None:
    made = run.export("onnx")
    about = f"{str(made.path)!r}: onnx, float32, {made.artifact.file_bytes:,} bytes"
    assert (repr(made), repr(made.artifact)) == (f"Delivered({about})", f"Artifact({about})")
    assert repr(Delivered(made.artifact, {"name": "rp2040"})) == f"Delivered({about}, on rp2040)"
    assert len(repr(replace(run, artifact=made))) < 500


NETWORK = pretrim.analyze(net(), EXAMPLE)
CALLS: dict[str, tuple[Callable[[Path], object], type[PretrimError], str]] = {
    "no limit": (lambda _: pretrim.plan(NETWORK), BudgetError, r"\(params, macs, .*e\.g\. `macs='0\.5x'`\.$"),
    "too low": (
        lambda _: pretrim.plan(NETWORK, macs=10),
        InfeasibleBudget,
        r"^macs 10 cannot be met; .*: raise the limit",
    ),
    "a quantity": (
        lambda _: pretrim.plan(NETWORK, arena_bytes=10),
        InfeasibleBudget,
        r"^arena_bytes 10 cannot be met; .*: raise the limit",
    ),
    "a method": (
        lambda _: NETWORK.plan(macs=10, round_to=4),
        InfeasibleBudget,
        r"^macs 10 cannot be met; .*: raise the limit",
    ),
    "its option": (
        lambda _: pretrim.plan(NETWORK, params=200, min_width=16),
        InfeasibleBudget,
        r"raise the limit, or lower min_width\.$",
    ),
    "a host": (
        lambda to: pretrim.compress(net(), (PARTS, PARTS), output=to, macs="0.5x", ssh="me@there"),
        UsageError,
        r"^ssh and estimate need a latency: add latency LIMIT or mode latency",
    ),
    "twice": (
        lambda to: pretrim.compress(net(), (PARTS, PARTS), output=to, macs="0.5x", lr=1, set={"learning_rate": 1}),
        UsageError,
        r"in set and by an option",
    ),
    "workers": (
        lambda to: pretrim.sweep(net(), (PARTS, PARTS), output=to, workers=10**4),
        UsageError,
        r"^Expected workers to be from 1",
    ),
    "fractions": (
        lambda to: pretrim.sweep(net(), (PARTS, PARTS), output=to, keep=["a"]),
        UsageError,
        r"^Expected budget_fraction with fractions",
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_messages_name_keywords_and_not_options_of_the_command_line(name: str, tmp_path: Path) -> None:
    call, kind, said = CALLS[name]
    with pytest.raises(kind, match=said) as caught:
        call(tmp_path / "out")
    assert "--" not in str(caught.value)
    assert not isinstance(caught.value, InfeasibleBudget) or caught.value.limit is not None, "the error stays as it was"


def test_methods_of_runs_and_studies_name_keywords(run: pretrim.Run, study: pretrim.Study) -> None:
    with pytest.raises(UsageError, match=r"^Expected runtime to be one of onnx"):
        run.export("onx")
    with pytest.raises(UsageError, match=r"^runtime selects whose time counts on a board: add device NAME"):
        study.recommend(runtime="tflm")
    with pytest.raises(UsageError, match=r"^Expected device to be the name of a board"):
        study.recommend(device=3)  # type: ignore[arg-type]


def chance() -> list[int]:
    """A number for each generator that everybody shares; equal ones are in the same state."""
    numpy = np.random.get_state(legacy=False)
    states = torch.get_rng_state().tolist(), random.getstate(), (numpy["state"]["key"].tolist(), numpy["state"]["pos"])
    return [hash(repr(state)) for state in states]


class Drawing(Silent):
    """Draws, as a user's own code that a training calls may."""

    def planned(self, plan: pretrim.Plan) -> None:
        random.random(), np.random.rand(), torch.rand(1)


def test_calls_leave_chance_as_it_was(run: pretrim.Run, tmp_path: Path) -> None:
    given, model = {"model": net(), "data": (PARTS, PARTS), "reporter": Drawing(), **QUICK}, net()
    calls: dict[str, Callable[[], object]] = {
        "analyze": lambda: pretrim.analyze(model, EXAMPLE),
        "plan": lambda: pretrim.plan(NETWORK, macs="0.5x", mode="macs"),
        "apply": lambda: pretrim.apply(model, pretrim.plan(NETWORK, macs="0.5x")),
        "compress": lambda: pretrim.compress(output=tmp_path / "run", macs="0.5x", **given),
        "sweep": lambda: pretrim.sweep(output=tmp_path / "study", modes="uniform", keep=0.5, dense=False, **given),
        "slim": lambda: pretrim.slim("resnet20", output=tmp_path / "slim"),
        "evaluate": lambda: run.evaluate((PARTS, PARTS)),
        "load": lambda: pretrim.load(run.path, model="resnet20"),
    }
    refused = []
    for name, call in calls.items():
        before = chance()
        try:
            call()
        except PretrimError:
            refused.append(name)
        assert chance() == before, name
    assert refused == ["load"]  # it is another network, which is found once it is built


def test_chance_is_as_it_was_after_an_error(tmp_path: Path) -> None:
    model = net()  # draws its weights
    before = chance()
    with pytest.raises(InfeasibleBudget):
        pretrim.compress(model, (PARTS, PARTS), output=tmp_path / "run", macs=10, **QUICK)
    assert chance() == before
