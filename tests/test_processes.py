"""Two processes (gloo) give what one gives; launched as users launch them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pretrim.errors import UsageError
from pretrim.train import make_accelerator

WORK = """
import sys
import torch
from torch import nn
from safetensors.torch import save_file
from pretrim.data import load
from pretrim.train import Recipe, Execution, evaluate, is_main, train

kind, accumulate, path = sys.argv[1], int(sys.argv[2]), sys.argv[3]
torch.set_num_threads(1)
data = load("digits", image_size=8, limit=640)
torch.manual_seed(0)
if kind == "plain":
    model = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(128, 10))
    model = model.double()
    recipe = Recipe(epochs=1, batch_size=64, crop=0, flip=False, accumulate=accumulate, ema=0.5)
else:
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(256, 10),
    )
    recipe = Recipe(epochs=10, batch_size=64, ema=0.9, mixup=0.1, learning_rate=0.05)
training = train(model, data, recipe, execution=Execution(device="cpu", channels_last=False))
if is_main():
    accuracy = evaluate(model, data.test, data.mean, data.std).accuracy
    last = training.epochs[-1]
    metadata = {"accuracy": str(accuracy), "loss": str(last.train_loss), "validation": str(last.validation_score)}
    metadata |= {"steps": str(len(data.train) // 64), "processes": str(training.processes)}
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, path, metadata)
"""
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
LAUNCH = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1"]
"""On CPUs it starts several processes by mpirun alone; torchrun needs nothing."""
ALONE = {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}


def started(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("ACCELERATE")}
    return subprocess.run(command, capture_output=True, text=True, env={**env, **ALONE}, **options)  # type: ignore[call-overload,no-any-return]


def trained(
    tmp_path: Path, kind: str, processes: int, accumulate: int = 1
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    from safetensors import safe_open

    script, path = tmp_path / "work.py", tmp_path / f"{kind}-{processes}-{accumulate}"
    script.write_text(WORK)
    launcher = TORCHRUN if processes == 2 else [sys.executable]
    done = started([*launcher, str(script), kind, str(accumulate), str(path)])
    assert done.returncode == 0, done.stderr
    with safe_open(path, framework="pt") as file:
        return load_file(path), file.metadata()


def test_two_processes_give_the_weights_of_one(tmp_path: Path) -> None:
    """No batch norm, float64, no augmentation, 10 steps of the same global batches."""
    alone, said = trained(tmp_path, "plain", 1)
    assert said["steps"] == "10"
    for accumulate in (1, 2):
        together, also = trained(tmp_path, "plain", 2, accumulate)
        assert also["processes"] == "2"
        for name, tensor in alone.items():
            assert torch.allclose(tensor, together[name], rtol=0, atol=1e-8), name
        assert float(also["loss"]) == pytest.approx(float(said["loss"]), abs=1e-8)
        assert float(also["validation"]) == pytest.approx(float(said["validation"]))


def test_with_batch_norm_the_accuracy_agrees(tmp_path: Path) -> None:
    """Each process normalises by its own half of a batch, so the weights differ."""
    _, alone = trained(tmp_path, "norm", 1)
    _, together = trained(tmp_path, "norm", 2)
    assert float(alone["accuracy"]) > 0.85
    assert abs(float(alone["accuracy"]) - float(together["accuracy"])) < 0.06


COMPRESS = ["compress", "resnet20", "--data", "digits", "--input", "1x8x8", "--limit", "128", "--macs", "0.5x"]


@pytest.mark.parametrize(("launcher", "processes"), [(TORCHRUN, 2), (LAUNCH, 1)], ids=["torchrun", "accelerate"])
def test_compress_is_launched_as_usual(tmp_path: Path, launcher: list[str], processes: int) -> None:
    bfloat16 = ["--mixed_precision", "bf16"] if launcher is LAUNCH else []
    call = [*launcher, *bfloat16, "-m", "pretrim", *COMPRESS, "--epochs", "2", "--json", "-o", "run"]
    done = started(call, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["results"]["processes"] == processes
    assert record["results"]["execution"]["precision"] == ("bfloat16" if bfloat16 else "float32")
    assert done.stderr.count("epoch 2/2") == 1
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "README.md", "confusion.json", "confusion.png", "curve.png", "log.jsonl", "run.json", "weights.safetensors"
    ]  # fmt: skip


def test_two_processes_stop_together_and_go_on(tmp_path: Path) -> None:
    call = [*TORCHRUN, "-m", "pretrim", *COMPRESS, "--epochs", "12", "-o", "run"]
    env = {**os.environ, **ALONE}
    with subprocess.Popen(call, cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        lines = iter(process.stderr.readline, "")
        assert any("epoch 2/12" in line for line in lines)
        process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
    assert process.returncode != 0 and "--resume goes on from there" in rest, rest
    assert [path.name for path in (tmp_path / "run").iterdir() if path.suffix == ".safetensors"] == [
        "training.safetensors"
    ]
    for _ in range(3):  # torchrun may leave its port for a moment
        done = started([*call, "--resume"], cwd=tmp_path)
        if done.returncode == 0:
            break
        time.sleep(1)
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "run" / "log.jsonl").read_text().splitlines()) == 12


def test_a_device_that_is_not_there_is_said() -> None:
    with pytest.raises(UsageError, match=r"Expected a device of this machine .* but got 'abacus'"):
        make_accelerator("abacus")
