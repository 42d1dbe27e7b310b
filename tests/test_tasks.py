"""Networks for other things than classes: the built-in tasks and a user's own, through every command."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, jaccard_score
from torch import nn
from torch.utils.data import Dataset, TensorDataset

import pretrim
from pretrim.data import Augmentation, draw
from pretrim.errors import DataError, PretrimError, UsageError
from pretrim.tasks import BUILTIN, Keypoints, MetricTask, MultiLabel, OwnTask, Regression, Segmentation, find
from pretrim.tasks.dense import confusion
from pretrim.tasks.values import average_precision
from pretrim.train import Metric, Recipe, Task

SIDE = 8
QUICK: dict[str, Any] = {
    "epochs": 3,
    "batch_size": 8,
    "lr": 0.02,
    "train_on": "cpu",
    "precision": "float32",
    "threads": 1,
    "macs": "0.6x",
    "round_to": 4,
}
SWEPT = {name: value for name, value in QUICK.items() if name not in ("macs", "round_to")}


def network(outputs: int) -> nn.Module:
    """A row of numbers from an image."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2), nn.ReLU(),
        nn.Flatten(), nn.Linear(144, outputs),
    )  # fmt: skip


def maps(outputs: int) -> nn.Module:
    """A map of numbers from an image, of its size."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(),
        nn.Conv2d(16, outputs, 1),
    )  # fmt: skip


def spots(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Dark images with one bright block of 3x3, and the row and column of its centre."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.randint(1, SIDE - 1, (count, 2), generator=generator)
    images = 0.1 * torch.randn(count, 1, SIDE, SIDE, generator=generator)
    images[blocks(places)[:, None]] = 3.0
    return images, places


def blocks(places: torch.Tensor) -> torch.Tensor:
    """Which pixels are in the block, N x H x W."""
    grid = torch.arange(SIDE)
    near = (grid - places[..., None]).abs() <= 1
    return near[:, 0, :, None] & near[:, 1, None, :]


def targets_of(task: str, places: torch.Tensor) -> torch.Tensor:
    row, column = places.unbind(1)
    if task == "regression":
        return torch.stack([row, column], dim=1) / SIDE
    if task == "multilabel":
        return torch.stack([row < SIDE // 2, column < SIDE // 2], dim=1).float()
    if task == "segmentation":
        return blocks(places).long()
    return ((places.flip(1) + 0.5) / SIDE)[:, None]


def parts(task: str, counts: tuple[int, ...] = (64, 32, 32)) -> tuple[TensorDataset, ...]:
    made = [spots(count, seed) for seed, count in enumerate(counts)]
    return tuple(TensorDataset(images, targets_of(task, places)) for images, places in made)


NETWORKS = {
    "regression": lambda: network(2),
    "multilabel": lambda: network(2),
    "segmentation": lambda: maps(2),
    "keypoints": lambda: maps(1),
}
TASKS = list(NETWORKS)


class Distance:
    """A task of a user's own, with an answer that is not the output: the place as one number."""

    directions: ClassVar = {"distance": "min", "r": "max"}
    outputs = 2

    def data(self) -> Any:
        return parts("regression")

    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return nn.functional.mse_loss(output, target)

    def postprocess(self, output: torch.Tensor) -> torch.Tensor:
        return output.clamp(0, 1)

    def metrics(self, output: torch.Tensor, target: torch.Tensor) -> dict[str, float]:
        correlation = np.corrcoef(output.flatten().numpy(), target.flatten().numpy())[0, 1]
        return {"distance": float((output - target).norm(dim=1).mean()), "r": float(correlation)}


FILE = """
import torch
from torch import nn
from torch.utils.data import TensorDataset


def build():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2), nn.ReLU(),
        nn.Flatten(), nn.Linear(144, 2),
    )


class Task:
    directions = {"mae": "min"}

    def data(self):
        made = []
        for seed, count in enumerate((64, 32)):
            generator = torch.Generator().manual_seed(seed)
            places = torch.randint(0, 8, (count, 2), generator=generator)
            images = torch.zeros(count, 1, 8, 8)
            images[torch.arange(count), 0, places[:, 0], places[:, 1]] = 3.0
            made.append(TensorDataset(images, places / 8))
        return made

    def loss(self, output, target):
        return nn.functional.mse_loss(output, target)

    def metrics(self, output, target):
        return {"mae": (output - target).abs().mean()}
"""


# ---------------------------------------------------------------------------------------- metrics


@pytest.mark.parametrize("seed", range(5))
def test_average_precision_is_that_of_scikit_learn(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(0, 10, (40,), generator=generator) / 10.0  # with ties
    wanted = torch.rand(40, generator=generator) < 0.3
    wanted[0] = True
    assert average_precision(scores, wanted) == pytest.approx(average_precision_score(wanted, scores), abs=1e-9)


def test_mean_iou_is_that_of_scikit_learn() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(6, 4, 8, 8, generator=generator)
    masks = torch.randint(0, 4, (6, 8, 8), generator=generator)
    masks[:, :2] = 255
    found = Segmentation().metrics(confusion(scores, masks), masks)
    known = masks != 255
    wanted = jaccard_score(masks[known], scores.argmax(1)[known], average="macro")
    assert found["mean_iou"] == pytest.approx(wanted, abs=1e-6)
    assert found["pixel_accuracy"] == pytest.approx(float((scores.argmax(1) == masks)[known].float().mean()))


def test_regression_by_hand() -> None:
    found = Regression().metrics(torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([1.0, 2.0, 3.0]))
    assert found["mae"] == pytest.approx(1 / 3)
    assert found["rmse"] == pytest.approx(math.sqrt(1 / 3))
    assert found["r2"] == pytest.approx(1 - 1 / 2)


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        ([[1e6], [3.3e6]], "the targets' deviation is 1.15e+06: scale them to about 1"),
        ([[0.0, 1.0], [2e6, 2.0]], "the targets' deviation is from 0.5 to 1e+06: scale them to about 1"),
        ([[5.0], [5.0]], "all training targets are the same: there is nothing to learn from them, check the data."),
    ],
)
def test_targets_that_are_hard_to_learn_are_said(targets: list[list[float]], said: str) -> None:
    split = SimpleNamespace(targets=torch.tensor(targets))
    (found,) = Regression().warnings([], SimpleNamespace(train=split, validation=split), Recipe())  # type: ignore[arg-type]
    assert found.startswith(said)


def test_keypoints_by_hand() -> None:
    """A heatmap that is sure of a cell says the cell's centre; a point that is not seen counts nowhere."""
    heat = torch.full((2, 1, 4, 4), -50.0)
    heat[0, 0, 1, 2], heat[1, 0, 3, 3] = 50.0, 50.0
    task = Keypoints()
    points = task.postprocess(heat)
    assert points[0, 0].tolist() == pytest.approx([2.5 / 4, 1.5 / 4])
    target = torch.tensor([[[2.5 / 4, 1.5 / 4 + 0.05]], [[math.nan, math.nan]]])
    assert task.metrics(points, target) == pytest.approx({"pck": 1.0, "mean_error": 0.05})


def test_masks_move_with_their_images() -> None:
    """Wherever the bright pixel went, the mask went; what came from outside is of no class."""
    images, places = spots(32, 0)
    masks = targets_of("segmentation", places)
    how = Augmentation(padding=2, flip=True)
    draws = draw(32, (SIDE, SIDE), how, torch.Generator().manual_seed(0))
    from pretrim.data import augment

    moved, masked = augment(images, draws, how)[:, 0], Segmentation().augmented(masks, draws, how)
    assert torch.equal(moved > 2.5, masked == 1)
    assert torch.equal(moved == 0, masked == 255)


@pytest.mark.parametrize("task", [kind() for kind in BUILTIN.values()], ids=lambda task: task.name)
def test_every_task_says_what_chooses(task: Task) -> None:
    assert task.metric.name and find(task.name).metric == task.metric


# ---------------------------------------------------------------------------------------- the whole job


@pytest.mark.parametrize("task", TASKS)
def test_a_task_through_compress_evaluate_and_export(task: str, tmp_path: Path) -> None:
    """By its own metric everywhere: in the record, in the evaluation, and in the proof of int8."""
    data = parts(task)
    run = pretrim.compress(
        NETWORKS[task](), data, output=tmp_path / "run", task=task, **QUICK | {"epochs": 10, "lr": 0.05}
    )
    name = BUILTIN[task]().metric.name
    assert run.metric.name == name
    assert run.accuracy is None
    assert run.score == run.results[f"test_{name}"]
    chance = run.results["chance"]
    if chance is not None:
        assert run.metric.worth(run.results[f"validation_{name}"]) > run.metric.worth(chance)
    lines = [json.loads(line) for line in (run.path / "log.jsonl").read_text().splitlines()]
    assert lines[-1][f"validation_{name}"] is not None
    assert "validation_accuracy" not in lines[-1]
    again = pretrim.open_run(run.path, model=NETWORKS[task]()).evaluate(data)
    assert again.score == pytest.approx(run.score, abs=1e-6)
    assert again.interval is not None and again.interval[0] <= again.score <= again.interval[1]
    made = run.export("onnx", int8=True).artifact
    assert made.proof["accuracy"] is None
    judged = made.proof["metric"]
    assert judged["name"] == name and judged["pytorch"] == pytest.approx(run.score, abs=1e-5)


@pytest.mark.parametrize("task", TASKS)
def test_a_task_through_sweep_recommend_report_and_three_runtimes(task: str, tmp_path: Path) -> None:
    """The same metric chooses a trial, is on the page, and proves the trial's files; int8 says what it loses."""
    data, metric = parts(task), BUILTIN[task]().metric
    network = NETWORKS[task]()
    quick = SWEPT | {"epochs": 1}
    study = pretrim.sweep(network, data, output=tmp_path / "s", task=task, keep=[0.6, 0.3], modes="uniform", **quick)
    assert [trial.state for trial in study.trials] == ["done"] * 3
    best = study.recommend(macs="1x").found.best
    assert best is not None and best.metric == metric
    assert metric.worth(best.validation) == max(metric.worth(trial.validation) for trial in study.trials)
    page = study.report(tmp_path / "report.html").read_text()
    assert f'"metric":{json.dumps(metric.to_json(), separators=(",", ":"))}' in page
    run = pretrim.open_run(study.path / "trials" / best.key, model=network)
    for runtime, int8 in (("onnx", False), ("litert", False), ("litert", True), ("executorch", False)):
        judged = run.export(runtime, int8=int8, data=data).artifact.proof["metric"]
        assert judged["name"] == metric.name and judged["pytorch"] == pytest.approx(run.score, abs=1e-5)
        lost = metric.worth(judged["pytorch"]) - metric.worth(judged["artifact"])
        assert judged["loss"] == pytest.approx(lost, abs=1e-9)
        assert int8 or abs(lost) < 1e-3


def test_a_task_of_ones_own_by_object(tmp_path: Path) -> None:
    run = pretrim.compress(network(2), output=tmp_path / "run", task=Distance(), **QUICK)
    assert run.metric == Metric("distance", higher_is_better=False, is_share=False)
    assert run.export("onnx").artifact.proof["metric"]["name"] == "distance"
    with pytest.raises(UsageError, match="The run is of a task of your own: name it again, --task Distance"):
        pretrim.open_run(run.path, model=network(2)).evaluate(parts("regression"))
    again = pretrim.open_run(run.path, model=network(2), task=Distance()).evaluate()
    assert again.score == pytest.approx(run.score)


def test_a_sweep_chooses_by_the_direction_of_the_metric(tmp_path: Path) -> None:
    """Where less is better, the recommended network has the smallest error."""
    study = pretrim.sweep(network(2), output=tmp_path / "s", task=Distance, keep=[0.6, 0.3], modes="uniform", **SWEPT)
    assert [trial.state for trial in study.trials] == ["done"] * 3
    best = study.recommend(macs="1x").found.best
    assert best is not None
    assert best.validation == min(trial.validation for trial in study.trials)
    page = study.report(tmp_path / "report.html").read_text()
    assert '"metric":{"name":"distance","higher_is_better":false,"is_share":false}' in page


def test_a_file_through_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    from pretrim.cli import main

    def call(*arguments: Any) -> Any:
        try:
            main(list(map(str, arguments)))
        except SystemExit as end:
            assert not end.code, capsys.readouterr()
        return json.loads(capsys.readouterr().out)

    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.py").write_text(FILE)
    own = ("--task", "my.py:Task")
    few = ("--epochs", 2, "--batch-size", 8, "--lr", 0.02, "--threads", 1, "--train-on", "cpu", "--json")
    record = call("compress", "my.py:build", *own, "--macs", "0.6x", "--round-to", 4, "-o", "run", *few)
    assert record["slim"]["test_mae"] == record["results"]["test_mae"]
    assert "test_accuracy" not in record["slim"]
    found = call("evaluate", "run", *own, "--model", "my.py:build", "--json")
    assert found["mae"] == pytest.approx(record["slim"]["test_mae"])
    made = call("export", "run", *own, "--model", "my.py:build", "--runtime", "onnx", "--json")
    assert made["proof"]["metric"]["name"] == "mae"  # on the data that the task brings
    made = call("export", "run", *own, "--model", "my.py:build", "--runtime", "onnx", "--int8", "--json")
    assert made["proof"]["metric"]["pytorch"] == pytest.approx(record["slim"]["test_mae"])
    trials = call("sweep", "my.py:build", *own, "--modes", "uniform", "--budget-fraction", "0.5", "-o", "study", *few)
    assert [trial["state"] for trial in trials] == ["done", "done"]
    best = call("recommend", "study", "--json")["best"]
    assert best["validation_mae"] == min(trial["record"]["validation_mae"] for trial in trials)


class Flipping(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """A data set whose transform is random: image and mask are mirrored together."""

    def __init__(self, count: int = 64) -> None:
        images, places = spots(count, 0)
        self.images, self.masks = images, targets_of("segmentation", places)
        self.generator = torch.Generator().manual_seed(0)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, place: int) -> tuple[torch.Tensor, torch.Tensor]:
        if torch.rand((), generator=self.generator) < 0.5:
            return self.images[place].flip(-1), self.masks[place].flip(-1)
        return self.images[place], self.masks[place]


def test_random_transforms_of_image_and_target_stay_together() -> None:
    from pretrim.data.own import from_torch
    from pretrim.train import Recipe
    from pretrim.train.feed import BatchSource

    data = from_torch((Flipping(), Flipping(32)), task="segmentation")
    feed = BatchSource(data, Recipe(epochs=1, batch_size=8), torch.device("cpu"), task=Segmentation())
    for epoch in (1, 2):
        for (batch,) in feed.epoch(epoch):
            assert torch.equal(batch.images[:, 0] > 2.5, batch.targets == 1)


# ---------------------------------------------------------------------------------------- what is wrong


class NoMetric:
    def loss(self, output: Any, target: Any) -> Any: ...

    def metrics(self, output: Any, target: Any) -> Any: ...


class NotANumber(Distance):
    def metrics(self, output: torch.Tensor, target: torch.Tensor) -> dict[str, float]:
        return {"distance": math.nan}


class OtherMetric(Distance):
    def metrics(self, output: torch.Tensor, target: torch.Tensor) -> dict[str, float]:
        return {"mse": 0.0}


class Raising(Distance):
    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return output @ target


class NoScalar(Distance):
    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return (output - target) ** 2


class Sideways(Distance):
    directions: ClassVar = {"distance": "left"}


class OneTensor(Distance):
    def data(self) -> Any:
        return torch.zeros(3)


class OtherTargets(Distance):
    """The test part has a third number; the loss would broadcast it."""

    def data(self) -> Any:
        train, validation, test = parts("regression")
        return train, validation, TensorDataset(test.tensors[0], torch.zeros(len(test), 3))


class OtherImages(Distance):
    def data(self) -> Any:
        train, _, test = parts("regression")
        return train, TensorDataset(torch.zeros(4, 1, 9, 9), torch.zeros(4, 2)), test


class NoKey(Distance):
    """The text of a KeyError is the key alone."""

    def data(self) -> Any:
        return {}["labels"]


class NoKeyInMetrics(Distance):
    def metrics(self, output: torch.Tensor, target: torch.Tensor) -> dict[str, float]:
        return {"distance": {}["labels"]}


class NoData(Distance):
    data = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("task", "data", "said"),
    [
        (NoMetric(), None, "Expected the task NoMetric to have a metric"),
        (object(), None, "Expected the task object to have a method loss"),
        (Sideways(), None, 'Expected the direction of distance in the task Sideways as "min" or "max"'),
        (NotANumber(), None, "Expected a finite distance from NotANumber.metrics, but got nan"),
        (OtherMetric(), None, "Expected OtherMetric.metrics to return distance, by which networks are compared"),
        (Raising(), None, "Expected Raising.loss to take an output of 4x2 and a target of 4x2, but it raised Runtime"),
        (NoScalar(), None, "Expected NoScalar.loss to return the mean loss, one number as a tensor, got 4x2"),
        (OneTensor(), None, r"Expected data as \(train, test\) or \(train, validation, test\), but got a Tensor"),
        (OtherTargets(), None, "Expected targets of one shape in every split of the data, but got 2 and 3"),
        (OtherImages(), None, "Expected images of one shape in every split of the data, but got 1x8x8 and 1x9x9"),
        (NoKey(), None, r"NoKey.data\(\) raised KeyError: 'labels' \(test_tasks.py:\d+\)\."),
        (NoKeyInMetrics(), None, r"but it raised KeyError: 'labels' \(test_tasks.py:\d+\)"),
        (NoData(), None, "Name the data: the task NoData has no method data"),
        ("regression", None, "^Name the data: data digits"),
        ("regresion", parts("regression"), "Expected a task of .* but got 'regresion'. Did you mean regression"),
        ("nowhere.py:Task", None, "there is no file nowhere.py"),
        ("regression", parts("keypoints"), "Expected a network for regression with 1x2 outputs.* but got 2"),
        ("segmentation", parts("segmentation"), "Expected a network for segmentation with an output N x classes"),
        ("regression", "digits", "digits has targets of a classification, not of a regression"),
        ("multilabel", parts("multilabel", (0, 4)), "A split of the data is empty."),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) > 20 else None,
)
def test_what_is_wrong_is_said_in_one_line_and_nothing_is_written(
    task: Any, data: Any, said: str, tmp_path: Path
) -> None:
    with pytest.raises(PretrimError, match=said) as raised:
        pretrim.compress(network(2), data, output=tmp_path / "run", task=task, **QUICK)
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("NoMetric", 2, "to have a metric"),
        ("NotANumber", 1, "Expected a finite mae from my.py:NotANumber.metrics, but"),
    ],
)
def test_a_wrong_task_in_a_file_is_one_line(
    name: str, code: int, said: str, call: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    """As on the command line: nothing on stdout, no traceback, no folder."""
    monkeypatch.chdir(tmp_path)
    wrong = {
        "NoMetric": "class NoMetric(Task):\n    directions = {}\n",
        "NotANumber": "class NotANumber(Task):\n    def metrics(self, o, t):\n        return {'mae': float('nan')}\n",
    }
    (tmp_path / "my.py").write_text(FILE + wrong[name])
    found, out, error = call("compress", "my.py:build", "--task", f"my.py:{name}", "--macs", "0.6x", "-o", "run")
    assert (found, out) == (code, "") and said in error.splitlines()[-1]
    assert "Traceback" not in error and [path.name for path in tmp_path.iterdir() if path.suffix] == ["my.py"]
    assert not (tmp_path / "run").exists()


def test_a_metric_that_ends_in_nan_keeps_the_training_and_writes_no_run(tmp_path: Path) -> None:
    """It is said when it comes; the state stays, so that `resume` goes on once the metric is mended."""

    class Late(Distance):
        calls = 0

        def metrics(self, output: torch.Tensor, target: torch.Tensor) -> dict[str, float]:
            Late.calls += 1
            return {"distance": math.nan if Late.calls > 2 else 1.0}

    with pytest.raises(PretrimError, match=r"Expected a finite distance from Late\.metrics, but got nan"):
        pretrim.compress(network(2), output=tmp_path / "run", task=Late(), **QUICK)
    kept = {path.name for path in (tmp_path / "run").iterdir()}
    assert "training.safetensors" in kept and not kept & {"run.json", "weights.safetensors"}


def test_metrics_that_take_long_are_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two hundred draws of a minute each, as COCO's metrics of thousands of images are, would be hours."""
    from pretrim.data.own import from_torch
    from pretrim.tasks import base

    class Counting(Distance):
        calls = 0

        def metrics(self, output: torch.Tensor, target: torch.Tensor) -> dict[str, float]:
            Counting.calls += 1
            return {"distance": float((output - target).abs().mean())}

    data, task = from_torch(parts("regression"), task="own"), OwnTask(Counting(), "Counting")
    assert task.assess(network(2), data.test, data.mean, data.std).ends is not None
    assert Counting.calls == 1 + base.RESAMPLES
    monkeypatch.setattr(base, "MOST_SECONDS", 0.0)
    assert task.assess(network(2), data.test, data.mean, data.std).ends is None
    assert Counting.calls == 2 + base.RESAMPLES


@pytest.mark.parametrize("change", [{"label_smoothing": 0.1}, {"balance": "loss"}])
def test_what_a_recipe_cannot_ask_of_a_task(change: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs classes, which the task regression does not have"):
        pretrim.compress(
            network(2), parts("regression"), output=tmp_path / "run", task="regression", set=change, **QUICK
        )
    assert list(tmp_path.iterdir()) == []


def test_targets_of_several_shapes() -> None:
    from pretrim.data.own import from_torch

    class Boxes(Dataset[Any]):
        def __len__(self) -> int:
            return 4

        def __getitem__(self, place: int) -> Any:
            return np.zeros((4, 4), dtype=np.uint8), torch.zeros(place, 4)

    with pytest.raises(PretrimError, match="Expected targets of one shape, but got 0x4 and 1x4: pad"):
        from_torch((Boxes(), Boxes()), task="boxes")


def test_labels_that_no_image_has_count_in_no_mean() -> None:
    found = MultiLabel().metrics(torch.tensor([[1.0, 1.0], [-1.0, -1.0]]), torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
    assert found == {"mean_ap": 1.0, "f1": 1.0, "exact_match": 0.5}


def test_own_tasks_say_which_metric_chooses() -> None:
    class Two(Distance):
        directions: ClassVar = {"a": "max", "b": "min"}
        chosen_by = "b"
        shares = ("b",)

    assert OwnTask(Two(), "Two").metric == Metric("b", higher_is_better=False, is_share=True)


@pytest.mark.parametrize(
    ("task", "output", "target", "said"),
    [
        ("multilabel", torch.zeros(4, 2), torch.zeros(4, 2), "none of 4 has a label"),
        ("segmentation", torch.zeros(4, 3, 3), torch.full((4, 8, 8), 255), "none of 4 has a pixel of a known class"),
        ("keypoints", torch.zeros(4, 2, 2), torch.full((4, 2, 2), math.nan), "none of 4 has a point that is seen"),
    ],
)
def test_images_that_nothing_can_be_judged_by(task: str, output: torch.Tensor, target: torch.Tensor, said: str) -> None:
    found = find(task)
    assert isinstance(found, MetricTask)
    with pytest.raises(DataError, match=f"Expected images to evaluate a network on, but {said}: give the validation"):
        found.measured(output, target)
