"""A training that is stopped, for whatever reason, resumes exactly where it was, bit for bit."""

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from test_train import small

from pretrim.data import DataSet, load
from pretrim.errors import CheckpointError, PretrimError, UsageError
from pretrim.train import Execution, Interrupted, Progress, Recipe, Training, train
from pretrim.train import state as states

RECIPE = Recipe(epochs=5, batch_size=32, ema=0.9, mixup=0.2, cutout=0.25, label_smoothing=0.1, schedule="onecycle")
KILLS = 20


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return load("digits", image_size=8, limit=300)


def values(model: torch.nn.Module) -> list[torch.Tensor]:
    return [tensor.detach().clone() for tensor in model.state_dict().values()]


def same(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def without_times(training: Training) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in epoch.items() if key not in ("seconds", "images_per_s")}
        for epoch in training.to_json()["epochs"]
    ]


@pytest.fixture(scope="module")
def uninterrupted(digits: DataSet) -> tuple[list[torch.Tensor], list[dict[str, Any]]]:
    """The weights and epochs of a training that is never interrupted."""
    model = small()
    training = train(model, digits, RECIPE)
    return values(model), without_times(training)


def stopping(epoch: int, step: int, number: int = signal.SIGINT) -> Any:
    def on_step(progress: Progress) -> None:
        if (progress.epoch, progress.step, progress.ends_epoch) == (epoch, step, False):
            os.kill(os.getpid(), number)

    return on_step


Result = tuple[list[torch.Tensor], list[dict[str, Any]]]


@pytest.mark.parametrize(("epoch", "step"), [(1, 1), (2, 9), (3, 4), (5, 8)])
def test_a_signal_saves_the_state_and_resuming_is_bit_exact(
    digits: DataSet, uninterrupted: Result, tmp_path: Path, epoch: int, step: int
) -> None:
    path = tmp_path / "state.safetensors"
    steps = len(digits.train) // RECIPE.batch_size
    with pytest.raises(Interrupted, match=r"after epoch .*--resume goes on") as caught:
        train(small(), digits, RECIPE, checkpoint=path, on_step=stopping(epoch, step))
    assert caught.value.exit_code == 130
    saved = states.read(path)
    assert (len(saved.epochs), saved.step) == ((epoch - 1, step) if step < steps else (epoch, 0))
    model = small()
    training = train(model, digits, RECIPE, checkpoint=path, resume=True)
    assert same(values(model), uninterrupted[0])
    assert without_times(training) == uninterrupted[1]


def test_copies_of_a_state_keep_values_shapes_and_types() -> None:
    tensors = {
        "kernel": torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last),
        "batches": torch.tensor(7),
        "half": torch.randn(5).bfloat16(),
        "transposed": torch.randn(2, 6).t(),
        "none": torch.zeros(0, 3),
        "learnt": torch.randn(3, requires_grad=True),
        "steps": torch.arange(4),
    }
    copies = states.on_cpu(tensors)
    assert list(copies) == list(tensors)
    for name, copy in copies.items():
        assert copy.is_contiguous() and not copy.requires_grad and copy.dtype == tensors[name].dtype
        assert copy.shape == tensors[name].shape and torch.equal(copy, tensors[name])
        assert not copy.numel() or copy.data_ptr() != tensors[name].data_ptr()


def test_sigterm_stops_too_and_handlers_are_restored(digits: DataSet, tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(Interrupted) as caught:
        train(small(), digits, RECIPE, checkpoint=tmp_path / "s", on_step=stopping(1, 2, signal.SIGTERM))
    assert caught.value.exit_code == 143
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_second_signal_stops_at_once(digits: DataSet, tmp_path: Path) -> None:
    def twice(progress: Progress) -> None:
        signal.raise_signal(signal.SIGINT)  # in this thread: two equal signals to another thread may be merged
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(small(), digits, RECIPE, checkpoint=tmp_path / "s", on_step=twice)


def test_resuming_a_finished_training_changes_nothing(digits: DataSet, uninterrupted: Result, tmp_path: Path) -> None:
    path = tmp_path / "state"
    train(small(), digits, RECIPE, checkpoint=path)
    model = small()
    training = train(model, digits, RECIPE, checkpoint=path, resume=True)
    assert same(values(model), uninterrupted[0]) and without_times(training) == uninterrupted[1]


def test_dropout_and_layout_are_resumed_too(digits: DataSet, tmp_path: Path) -> None:
    """Momentum buffers have a layout too; a state stores values, whatever their order in memory."""
    execution, path = Execution(channels_last=True), tmp_path / "state"
    unbroken, resumed = small(), small()
    train(unbroken, digits, RECIPE, execution=execution)
    with pytest.raises(Interrupted):
        train(small(), digits, RECIPE, execution=execution, checkpoint=path, on_step=stopping(2, 3))
    training = train(resumed, digits, RECIPE, checkpoint=path, resume=True)
    assert training.execution.channels_last
    assert same(values(unbroken), values(resumed))


def test_the_loss_scale_of_float16_is_resumed_too(digits: DataSet, tmp_path: Path) -> None:
    """The scale grows after a number of steps without an infinite gradient, so the count must continue on resuming."""
    execution, path = Execution(precision="float16"), tmp_path / "state"
    unbroken, resumed = small(), small()
    train(unbroken, digits, RECIPE, execution=execution, checkpoint=tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(small(), digits, RECIPE, execution=execution, checkpoint=path, on_step=stopping(2, 3))
    train(resumed, digits, RECIPE, checkpoint=path, resume=True)
    assert same(values(unbroken), values(resumed))
    assert states.read(path).scaling == states.read(tmp_path / "whole").scaling
    assert states.read(path).scaling["_growth_tracker"] > 0


# ---------------------------------------------------------------------------------------- kill -9

KILLED = """
import os, random, signal, sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
import torch
torch.set_num_threads(1)
from pretrim.data import load
from pretrim.train import train
from pretrim.files import write_bytes
from safetensors.torch import save
from test_resume import RECIPE
from test_train import small

folder, kills, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
digits = load("digits", image_size=8, limit=300)
train(small(), digits, RECIPE)  # whatever it imports is there before the forks

def work(state, result):
    model = small()
    train(model, digits, RECIPE, checkpoint=state, resume=True)
    write_bytes(result, save(dict(model.state_dict())))
    os._exit(0)

def start(state, result):
    child = os.fork()
    if not child:
        try:
            work(state, result)
        finally:
            os._exit(1)
    return child

began = time.perf_counter()
assert os.waitpid(start(folder / "whole.state", folder / "whole"), 0)[1] == 0
took = time.perf_counter() - began
draws = random.Random(seed)
for number in range(kills):
    state, result = folder / f"{{number}}.state", folder / f"{{number}}"
    child = start(state, result)
    time.sleep(draws.uniform(0, took))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    print("killed", number, "state" if state.exists() else "nothing", flush=True)
    assert os.waitpid(start(state, result), 0)[1] == 0, number
"""


def test_kill_9_at_random_moments_changes_nothing(tmp_path: Path) -> None:
    """Real processes, killed at 20 moments spread over the whole training, each then run to its end."""
    code = KILLED.format(tests=str(Path(__file__).parent))
    seed = random.randrange(10**6)
    command = [sys.executable, "-c", code, str(tmp_path), str(KILLS), str(seed)]
    result = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert result.returncode == 0, f"seed {seed}: {result.stderr}"
    expected = (tmp_path / "whole").read_bytes()
    assert result.stdout.count("killed") == KILLS
    assert result.stdout.count("state") >= 5, "the moments were not spread"
    for number in range(KILLS):
        assert (tmp_path / str(number)).read_bytes() == expected, f"kill {number} of seed {seed}"


# ---------------------------------------------------------------------------------------- refused states


@pytest.fixture
def stopped(digits: DataSet, tmp_path: Path) -> Path:
    path = tmp_path / "state.safetensors"
    with pytest.raises(Interrupted):
        train(small(), digits, RECIPE, checkpoint=path, made_of={"plan": "a"}, on_step=stopping(2, 3))
    return path


def test_a_different_training_is_not_resumed(digits: DataSet, stopped: Path) -> None:
    def resumed(recipe: Recipe = RECIPE, plan: str = "a", **options: Any) -> Training:
        return train(small(), digits, recipe, checkpoint=stopped, resume=True, made_of={"plan": plan}, **options)

    with pytest.raises(UsageError, match=r"had a different recipe's epochs \(5, not 6\)"):
        resumed(Recipe(**{**vars(RECIPE), "epochs": 6}))
    with pytest.raises(UsageError, match=r"had a different plan \('a', not 'b'\)"):
        resumed(plan="b")
    with pytest.raises(UsageError, match=r"as the training was started \(cpu, float32, channels_last"):
        resumed(execution=Execution(channels_last=False))
    assert len(resumed(execution=Execution(channels_last=True)).epochs) == 5


def test_a_damaged_state_is_refused(digits: DataSet, stopped: Path) -> None:
    content = stopped.read_bytes()
    for damaged, message in ((content[:-9], "the (training's )?state"), (b"", "the (training's )?state")):
        stopped.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=message):
            train(small(), digits, RECIPE, checkpoint=stopped, resume=True)


def test_the_state_holds_only_safetensors_and_json(stopped: Path) -> None:
    with safe_open(stopped, framework="pt") as file:
        header = json.loads(file.metadata()["pretrim"])
        assert {"model.conv.weight", "momentum.conv.weight", "average.norm.running_var"} <= set(file.keys())
    assert header["format"] == "pretrim-training" and header["step"] == 3


FULL = """
import resource, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import torch
torch.set_num_threads(1)
from pretrim.data import load
from pretrim.errors import PretrimError
from pretrim.train import train
from test_resume import RECIPE
from test_train import small
state = Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (state.stat().st_size // 2, resource.RLIM_INFINITY))
try:
    digits = load("digits", image_size=8, limit=300)
    train(small(), digits, RECIPE, checkpoint=state, resume=True, made_of={{"plan": "a"}})
except PretrimError as error:
    sys.exit(str(error))
"""


def test_a_full_disk_keeps_the_last_state(digits: DataSet, stopped: Path, uninterrupted: Result) -> None:
    """The system refuses to write the whole file, as on a full disk (a limit on file sizes needs no root)."""
    before = stopped.read_bytes()
    code = FULL.format(tests=str(Path(__file__).parent))
    result = subprocess.run([sys.executable, "-c", code, str(stopped)], capture_output=True, text=True)
    assert "File too large. The previous state is still there. Make room" in result.stderr, result.stderr
    assert stopped.read_bytes() == before
    assert [path.name for path in stopped.parent.iterdir()] == [stopped.name]
    model = small()
    train(model, digits, RECIPE, checkpoint=stopped, resume=True, made_of={"plan": "a"})
    assert same(values(model), uninterrupted[0])


def test_a_loss_that_is_not_finite_keeps_the_last_state(digits: DataSet, tmp_path: Path) -> None:
    path, model = tmp_path / "state", small()

    def spoil(progress: Progress) -> None:
        if (progress.epoch, progress.step) == (3, 4):
            with torch.no_grad():
                model.head.weight.fill_(float("inf"))

    with pytest.raises(PretrimError, match="Expected a finite loss, but got nan in epoch 3, step 5"):
        train(model, digits, RECIPE, checkpoint=path, on_step=spoil)
    saved = states.read(path)
    assert (len(saved.epochs), saved.step) == (2, 0)
    assert all(torch.isfinite(tensor).all() for tensor in saved.tensors.values())


def test_weights_that_the_last_step_breaks_are_not_kept(digits: DataSet, tmp_path: Path) -> None:
    path, model = tmp_path / "state", small()

    def spoil(progress: Progress) -> None:
        if progress.epoch == 2 and progress.step == progress.steps:
            with torch.no_grad():
                model.head.weight.fill_(float("nan"))

    with pytest.raises(PretrimError, match=r"Expected finite weights, but some are not in epoch 2, step \d+: lower"):
        train(model, digits, RECIPE, checkpoint=path, on_step=spoil)
    assert len(states.read(path).epochs) == 1
