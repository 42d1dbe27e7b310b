"""A `forward` with `x.view(...)` does not run with channels last: such a network is trained in the default layout."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pretrim
from pretrim.data import DataSet, load
from pretrim.deploy import export
from pretrim.errors import ModelError
from pretrim.train import Execution, Recipe, Teacher, takes_channels_last, train

RECIPE = Recipe(epochs=1, batch_size=32, crop=0.0)
SOURCE = """
import torch.nn.functional as F
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.dim = 16
        self.a, self.norm, self.c = nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.Linear(16 * 64, 10)

    def forward(self, x):
        return self.c(F.relu(self.norm(self.a(x))).view(-1, self.dim * 64))


def build():
    return Net()
"""


class Net(nn.Module):
    def __init__(self, views: bool, colours: int = 1) -> None:
        super().__init__()
        self.views = views
        self.a, self.norm, self.c = nn.Conv2d(colours, 16, 3, padding=1), nn.BatchNorm2d(16), nn.Linear(16 * 64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.a(x)))
        return self.c(x.view(-1, 16 * 64) if self.views else x.flatten(1))  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return load("digits", image_size=8, limit=300)


@pytest.mark.parametrize("views", [True, False])
def test_training_uses_a_layout_that_the_network_runs_in(views: bool, digits: DataSet) -> None:
    training = train(Net(views), digits, RECIPE, execution=Execution(device="cpu", precision="float32"))
    assert training.execution.channels_last is not views
    with_bfloat16 = train(Net(views), digits, RECIPE, execution=Execution(device="cpu", precision="bfloat16"))
    assert with_bfloat16.execution.channels_last is not views


def test_the_teacher_has_to_run_in_the_layout_too(digits: DataSet) -> None:
    for student, teacher in ((True, False), (False, True)):
        training = train(
            Net(student),
            digits,
            RECIPE,
            execution=Execution("cpu"),
            teacher=Teacher(Net(teacher), digits.mean, digits.std),
        )
        assert training.execution.channels_last is False


def test_a_requested_layout_is_not_changed(digits: DataSet) -> None:
    with pytest.raises(ModelError, match=r"view size is not compatible .*test_memory_layout.py"):
        train(Net(True), digits, RECIPE, execution=Execution("cpu", channels_last=True))


@pytest.mark.parametrize("views", [True, False])
def test_checking_the_layout_changes_nothing(views: bool) -> None:
    model = Net(views).eval()
    model.norm.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    places = [tensor.data_ptr() for tensor in model.state_dict().values()]
    state = torch.random.get_rng_state()
    assert takes_channels_last(model, (1, 8, 8)) is not views
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert [tensor.data_ptr() for tensor in model.state_dict().values()] == places
    assert (model.training, model.norm.training) == (False, True)


def test_a_network_that_does_not_run_at_all_fails_with_its_own_error(digits: DataSet) -> None:
    class Broken(Net):
        def forward(self, x: Tensor) -> Tensor:
            raise ValueError("no luck today")

    assert takes_channels_last(Broken(False), (1, 8, 8))
    assert takes_channels_last(nn.Conv1d(1, 1, 3), (1, 8)), "signals have no such layout"
    with pytest.raises(ModelError, match="no luck today"):
        train(Broken(False), digits, RECIPE, execution=Execution("cpu"))


@pytest.mark.parametrize("pinned", [{}, {"layout": "contiguous"}], ids=["open", "pinned"])
def test_a_run_and_a_sweep_of_a_network_with_view(pinned: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "net.py"
    file.write_text(SOURCE)
    options: dict[str, Any] = {"data": "digits", "input": (1, 8, 8), "epochs": 1, "max_images": 200, "batch_size": 32}
    run = pretrim.compress(f"{file}:build", params="0.5x", output=tmp_path / "run", **options, **pinned)
    assert run.accuracy is not None and run.model.dim == run.model.a.out_channels < 16
    study = pretrim.sweep(
        f"{file}:build", keep=[0.5], modes="balanced,uniform", output=tmp_path / "study", **options, **pinned
    )
    assert {trial.state for trial in study.trials} == {"done"}


@pytest.mark.parametrize("int8", [False, True], ids=["float32", "int8"])
def test_the_litert_export_of_view_equals_that_of_flatten(int8: bool, tmp_path: Path) -> None:
    """With one channel both layouts are the same, so these images have three, which the converter puts last."""
    torch.manual_seed(0)
    views, flattens = Net(True, colours=3).eval(), Net(False, colours=3).eval()
    flattens.load_state_dict(views.state_dict())
    images = torch.rand(8, 3, 8, 8)
    options: dict[str, Any] = {"images": images} | ({"calibration": images} if int8 else {})
    artifacts = [
        export(network, tmp_path / f"{network.views}.tflite", "litert", **options) for network in (views, flattens)
    ]
    assert not any(artifact.proof["failed"] for artifact in artifacts)
    assert artifacts[0].file_bytes == artifacts[1].file_bytes
    assert artifacts[0].path.read_bytes() == artifacts[1].path.read_bytes()
