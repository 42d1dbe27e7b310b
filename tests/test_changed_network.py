"""Networks whose file was edited: the parameters have the same names and shapes, but the computation differs."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from test_study import SETTINGS
from torch import nn

import pretrim
from pretrim.data import load as load_data
from pretrim.errors import CheckpointError, PretrimError, StudyError, UsageError
from pretrim.jobs.reporter import Silent
from pretrim.models.dense import open_model
from pretrim.models.weights import load_weights
from pretrim.study.inputs import check_forward, open_inputs
from pretrim.study.sweep import make_study
from pretrim.train import Interrupted, Progress, Recipe, train
from pretrim.train import state as states

NET = """
from torch import nn

def build(num_classes=10, in_channels=1):
    return nn.Sequential(nn.Conv2d(in_channels, 8, 3), nn.{}, nn.Flatten(), nn.Linear(8 * 36, num_classes))
"""
CHANGED = r"operator 2 in 1 is sigmoid, and was relu"
OPTIONS: dict[str, Any] = {"params": "0.5x", "round_to": 1, "epochs": 2, "max_images": 100, "input": "1x8x8"}


@pytest.fixture
def net(tmp_path: Path) -> Callable[[str], str]:
    def write(activation: str) -> str:
        (tmp_path / "net.py").write_text(NET.format(activation))
        return f"{tmp_path}/net.py:build"

    return write


class Stopping(Silent):
    """A reporter that sends SIGINT in the second epoch."""

    @contextmanager
    def training(self, name: str) -> Iterator[Callable[[Progress], None]]:
        def on_step(progress: Progress) -> None:
            if progress.epoch == 2:
                os.kill(os.getpid(), signal.SIGINT)

        yield on_step


def test_a_run_is_refused_with_a_changed_file_and_the_change_is_named(
    net: Callable[[str], str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    with pytest.raises(Interrupted):
        pretrim.compress(net("ReLU()"), "digits", output=run, reporter=Stopping(), **OPTIONS)
    with pytest.raises(UsageError, match=r"had a different network's operator 2 in 1 \('relu', not 'sigmoid'\)"):
        pretrim.compress(net("Sigmoid()"), "digits", output=run, resume=True, **OPTIONS)
    pretrim.compress(net("ReLU()"), "digits", output=run, resume=True, **OPTIONS)
    accuracy = pretrim.open_run(run, model=net("ReLU()")).evaluate("digits").accuracy
    with pytest.raises(CheckpointError, match=f"The network has changed since the run was trained: {CHANGED}"):
        pretrim.open_run(run, model=net("Sigmoid()"))
    assert pretrim.open_run(run, model=net("ReLU()")).evaluate("digits").accuracy == accuracy
    record = (run / "run.json").read_text()
    (run / "run.json").write_text(record.replace(f'"torch": "{torch.__version__}"', '"torch": "2.0.0"'))
    with pytest.warns(UserWarning, match=CHANGED):  # another version of torch may trace other operators
        pretrim.open_run(run, model=net("Sigmoid()"))


@pytest.mark.parametrize(
    ("before", "after"),
    [("LeakyReLU(0.1)", "LeakyReLU(0.2)"), ("ReLU()", "Identity()"), ("Dropout(0.1)", "Dropout(0.2)")],
)
def test_a_changed_operator_changes_the_forward_but_not_the_fingerprint(
    net: Callable[[str], str], before: str, after: str
) -> None:
    first, same, other = (open_model(net(kind), (1, 8, 8), 10) for kind in (before, before, after))
    assert first.forward == same.forward != other.forward
    assert first.network.fingerprint == other.network.fingerprint


def test_a_study_refuses_a_changed_file(net: Callable[[str], str], tmp_path: Path) -> None:
    dense = open_model(net("ReLU()"), (1, 8, 8), 10)
    config = replace(SETTINGS, model=net("ReLU()"), forward=dense.forward or {})
    make_study(tmp_path / "study", config)
    open_inputs(config)
    changed = open_model(net("Sigmoid()"), (1, 8, 8), 10)
    with pytest.raises(StudyError, match=CHANGED):
        check_forward(config.forward, changed)
    with pytest.raises(StudyError, match=r"the study's own forward, but its operator 2 in 1 is 'relu', not 'sigmoid'"):
        make_study(tmp_path / "study", replace(config, forward=changed.forward or {}))
    assert open_model("resnet20", (1, 8, 8), 10).forward is None, "a library's network is known by its name"


# ---------------------------------------------------------------------------------------- states and weights


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10))


def test_a_flipped_bit_in_a_training_state_is_detected(tmp_path: Path) -> None:
    data, state = load_data("digits", image_size=8, limit=60), tmp_path / "state"
    train(small(), data, Recipe(epochs=1, batch_size=32), checkpoint=state)
    content = state.read_bytes()
    states.read(state)
    for position in [*range(0, 400, 7), *range(400, len(content), 997), len(content) - 1]:
        damaged = bytearray(content)
        damaged[position] ^= 1
        state.write_bytes(damaged)
        with pytest.raises(PretrimError):
            states.read(state)


def test_a_training_state_from_a_gpu_is_resumed_on_a_cpu(tmp_path: Path) -> None:
    data, state = load_data("digits", image_size=8, limit=60), tmp_path / "state"
    recipe = Recipe(epochs=2, batch_size=32)
    train(small(), data, recipe, checkpoint=state)
    saved = states.read(state)
    gpu_state = replace(saved, epochs=saved.epochs[:1], execution=replace(saved.execution, device="cuda:0"))
    states.write(gpu_state, state)
    assert train(small(), data, recipe, checkpoint=state, resume=True).execution.device == "cpu"
    assert states.read(state).execution.device == "cpu"


def test_training_is_resumed_if_the_data_folder_was_renamed(tmp_path: Path) -> None:
    data, state = load_data("digits", image_size=8, limit=60), tmp_path / "state"
    recipe = Recipe(epochs=2, batch_size=32)
    train(small(), data, recipe, checkpoint=state)
    train(small(), replace(data, name="moved", source="/elsewhere"), recipe, checkpoint=state, resume=True)
    other = load_data("digits", image_size=8, limit=60, seed=1)
    with pytest.raises(UsageError, match="had a different data's"):
        train(small(), other, recipe, checkpoint=state, resume=True)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(tmp_path: Path, value: float) -> None:
    weights = small().state_dict()
    weights["3.weight"][0, 0] = value
    save_file(weights, tmp_path / "weights.safetensors")
    with pytest.raises(
        CheckpointError, match=r"finite weights in .*weights\.safetensors, but 3\.weight holds NaN or inf"
    ):
        load_weights(small(), tmp_path / "weights.safetensors")
