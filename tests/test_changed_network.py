"""A network whose file was changed: names and shapes of parameters are as before, and what it computes is not."""

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
    """Ctrl-C in the second epoch."""

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
    with pytest.raises(UsageError, match=r"had another network's operator 2 in 1 \('relu', not 'sigmoid'\)"):
        pretrim.compress(net("Sigmoid()"), "digits", output=run, resume=True, **OPTIONS)
    pretrim.compress(net("ReLU()"), "digits", output=run, resume=True, **OPTIONS)
    accuracy = pretrim.open_run(run, model=net("ReLU()")).evaluate("digits").accuracy
    with pytest.raises(CheckpointError, match=f"The network has changed since the run was trained: {CHANGED}"):
        pretrim.open_run(run, model=net("Sigmoid()"))
    assert pretrim.open_run(run, model=net("ReLU()")).evaluate("digits").accuracy == accuracy
    record = (run / "run.json").read_text()
    (run / "run.json").write_text(record.replace(f'"torch": "{torch.__version__}"', '"torch": "2.0.0"'))
    with pytest.warns(UserWarning, match=CHANGED):  # another torch may trace it in other operators
        pretrim.open_run(run, model=net("Sigmoid()"))


@pytest.mark.parametrize(
    ("was", "now"), [("LeakyReLU(0.1)", "LeakyReLU(0.2)"), ("ReLU()", "Identity()"), ("Dropout(0.1)", "Dropout(0.2)")]
)
def test_what_a_network_computes_is_known_by_its_operators(net: Callable[[str], str], was: str, now: str) -> None:
    first, again, other = (open_model(net(kind), (1, 8, 8), 10) for kind in (was, was, now))
    assert first.forward == again.forward != other.forward
    assert first.network.fingerprint == other.network.fingerprint


def test_a_study_is_of_the_file_as_it_was(net: Callable[[str], str], tmp_path: Path) -> None:
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


def test_every_flipped_bit_of_a_training_state_is_seen(tmp_path: Path) -> None:
    data, state = load_data("digits", image_size=8, limit=60), tmp_path / "state"
    train(small(), data, Recipe(epochs=1, batch_size=32), checkpoint=state)
    content = state.read_bytes()
    states.read(state)
    for place in [*range(0, 400, 7), *range(400, len(content), 997), len(content) - 1]:
        damaged = bytearray(content)
        damaged[place] ^= 1
        state.write_bytes(damaged)
        with pytest.raises(PretrimError):
            states.read(state)


def test_a_state_of_a_gpu_goes_on_on_a_cpu_and_says_so(tmp_path: Path) -> None:
    data, state = load_data("digits", image_size=8, limit=60), tmp_path / "state"
    recipe = Recipe(epochs=2, batch_size=32)
    train(small(), data, recipe, checkpoint=state)
    kept = states.read(state)
    of_gpu = replace(kept, epochs=kept.epochs[:1], execution=replace(kept.execution, device="cuda:0"))
    states.write(of_gpu, state)
    assert train(small(), data, recipe, checkpoint=state, resume=True).execution.device == "cpu"
    assert states.read(state).execution.device == "cpu"


def test_a_renamed_folder_of_data_is_the_same_data(tmp_path: Path) -> None:
    data, state = load_data("digits", image_size=8, limit=60), tmp_path / "state"
    recipe = Recipe(epochs=2, batch_size=32)
    train(small(), data, recipe, checkpoint=state)
    train(small(), replace(data, name="moved", source="/elsewhere"), recipe, checkpoint=state, resume=True)
    other = load_data("digits", image_size=8, limit=60, seed=1)
    with pytest.raises(UsageError, match="had another data's"):
        train(small(), other, recipe, checkpoint=state, resume=True)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_named(tmp_path: Path, value: float) -> None:
    weights = small().state_dict()
    weights["3.weight"][0, 0] = value
    save_file(weights, tmp_path / "weights.safetensors")
    with pytest.raises(
        CheckpointError, match=r"finite weights in .*weights\.safetensors, but 3\.weight holds NaN or inf"
    ):
        load_weights(small(), tmp_path / "weights.safetensors")
