"""The Python calls: the whole job on a network and data of one's own, checked against the core and the folder."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

import nbformat
import pytest
import torch
from nbclient import NotebookClient
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import pretrim
from pretrim.data.own import from_torch
from pretrim.errors import BudgetError, DataError, UsageError
from pretrim.jobs import options
from pretrim.jobs.calls import CompressKeywords, SweepKeywords
from pretrim.jobs.compress import CompressOptions
from pretrim.jobs.reporter import Kept
from pretrim.jobs.sweep import StudyOptions, threads_of_each
from pretrim.train import evaluate

SIDE, CLASSES = 8, 3
QUICK: dict[str, Any] = {"epochs": 2, "batch_size": 16, "train_on": "cpu", "precision": "float32", "threads": 1}
FILE = """
import torch
from torch import nn

def build(num_classes=3, in_channels=1):
    return nn.Sequential(
        nn.Conv2d(in_channels, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, num_classes),
    )
"""


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, CLASSES),
    )


def tensors(count: int, seed: int) -> TensorDataset:
    """Float images as the network takes them; the class is how bright they are."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    images = torch.randn(count, 1, SIDE, SIDE, generator=generator) * 0.3 + (labels.float() - 1)[:, None, None, None]
    return TensorDataset(images, labels)


class Pixels(Dataset[tuple[torch.Tensor, int]]):
    """uint8 images, with names of classes."""

    classes = ("dark", "grey", "bright")

    def __init__(self, count: int) -> None:
        images, self.labels = tensors(count, 0).tensors
        self.images = ((images + 2) * 60).clamp(0, 255).to(torch.uint8)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, place: int) -> tuple[torch.Tensor, int]:
        return self.images[place], int(self.labels[place])


def test_the_whole_job_on_a_module_and_data_sets_of_ones_own(tmp_path: Path) -> None:
    model = network()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    parts = (tensors(120, 0), tensors(60, 1), tensors(60, 2))
    run = pretrim.compress(model, parts, macs="0.5x", output=tmp_path / "run", **QUICK)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items()), "it is not changed"
    network_of = pretrim.analyze(model, torch.zeros(1, 1, SIDE, SIDE))
    assert run.plan.widths.tolist() == pretrim.plan(network_of, macs="0.5x").widths.tolist()
    macs = pretrim.costs(network_of)["macs"]
    assert int(macs(run.plan.widths)) <= 0.5 * int(macs(network_of.dense))
    images, labels = parts[2].tensors
    right = (run.model(images).argmax(1) == labels).float().mean().item()
    assert run.accuracy == pytest.approx(right), "by the user's own images, as they are"
    saved = pretrim.load(tmp_path / "run", model=model)
    assert torch.allclose(saved.eval()(images), run.model(images), atol=1e-5)
    exported = run.export("onnx")
    assert exported.path == tmp_path / "run" / "model.onnx" and exported.measure(runs=3, processes=1).latency_s > 0
    assert run.evaluate(parts).accuracy == run.accuracy


def test_a_network_of_a_file_and_pixels_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(FILE)
    data = (DataLoader(Pixels(90), batch_size=7), DataLoader(Pixels(45), batch_size=7))
    run = pretrim.compress(
        f"{tmp_path}/net.py:build", data, params="0.6x", output=tmp_path / "run", dense=True, **QUICK
    )
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["classes"] == ["dark", "grey", "bright"] and record["model"]["name"].endswith("net.py:build")
    assert run.plan.slim["params"] <= 0.6 * run.plan.dense["params"] and run.dense_accuracy is not None
    again = pretrim.open_run(tmp_path / "run", model=f"{tmp_path}/net.py:build")
    assert again.accuracy == run.accuracy


def test_a_study_of_a_module_goes_on_recommends_and_reports(tmp_path: Path) -> None:
    data = (tensors(90, 0), tensors(45, 1))
    given: dict[str, Any] = {"modes": "macs,uniform", "keep": [0.5], "output": tmp_path / "study", **QUICK}
    study = pretrim.sweep(network(), data, **given)
    assert [trial.state for trial in study.trials] == ["done"] * 3
    best = max(
        (trial for trial in study.trials if trial.spec.mode != "dense"), key=lambda t: t.record["validation_accuracy"]
    )
    advice = study.recommend(macs="0.6x")
    assert advice.found.best is not None
    assert advice.found.best.validation == best.record["validation_accuracy"]
    assert advice.path is not None and (advice.path / "run.json").exists()
    assert study.report(tmp_path / "report.html").read_text().startswith("<!doctype html>")
    more = pretrim.sweep(network(), data, **{**given, "keep": [0.5, 0.25]})
    assert len(more.trials) == 5 and {trial.key for trial in study.trials} <= {trial.key for trial in more.trials}


def test_a_board_with_room_for_the_dense_network_gets_no_trials(tmp_path: Path) -> None:
    """At 1 % of that board's memory the network does not fit, and is trimmed."""
    data, reporter = (tensors(90, 0), tensors(45, 1)), Kept()
    options: dict[str, Any] = {"modes": "balanced,uniform", "device": "stm32h743", "seeds": 2, **QUICK}
    study = pretrim.sweep(
        network(), data, **options, budget_fraction=[1, 0.01], output=tmp_path / "study", reporter=reporter
    )
    trials = [(trial.spec.name, trial.state) for trial in study.trials]
    assert {state for _, state in trials} == {"done"} and len(trials) == 6
    assert {name for name, _ in trials} == {
        "dense",
        "balanced on stm32h743 at 0.01 of its memory",
        "uniform on stm32h743 at 0.01 of its memory",
    }
    note = "note: nothing to trim on stm32h743, the dense network fits as it is: 4 trials are left out"
    assert reporter.lines.count(note) == 1
    with pytest.raises(BudgetError, match=r"^Nothing to trim on stm32h743: the dense network fits as it is\. Lower"):
        pretrim.sweep(network(), data, **options, output=tmp_path / "another")
    with pytest.raises(BudgetError, match=r"^Nothing to trim at 100G macs: the dense network fits as it is\. Lower"):
        pretrim.sweep(network(), data, **QUICK, macs="100G", output=tmp_path / "another")
    assert not (tmp_path / "another").exists()


def test_several_limits_and_boards_are_questions_of_a_study(tmp_path: Path) -> None:
    asked = {"modes": "joint", "macs": "0.8x", "params": "0.7x", "budget_fraction": [1, 0.5], "dense": False, **QUICK}
    study = pretrim.sweep(network(), (tensors(90, 0), tensors(45, 1)), output=tmp_path / "study", **asked)
    assert [trial.spec.name for trial in study.trials] == [
        "joint at 0.7x params, 0.8x macs",
        "joint at 0.35x params, 0.4x macs",
    ]
    for trial, share in zip(study.trials, (1.0, 0.5), strict=True):
        costs, dense = trial.record["costs"], trial.record["dense"]
        assert costs["macs"] <= share * 0.8 * dense["macs"] and costs["params"] <= share * 0.7 * dense["params"]


def test_a_trial_is_known_by_what_is_really_asked() -> None:
    """Under one limit joint and the mode of that limit are the same plan, and one trial."""
    from pretrim.study.settings import StudyConfig, TrialSpec, key_of

    config = StudyConfig("resnet20", "digits")
    assert key_of(config, TrialSpec("joint", 0.5, "macs")) == key_of(config, TrialSpec("macs", 0.5, "macs"))
    assert key_of(config, TrialSpec("joint", 0.5, "params")) == key_of(config, TrialSpec("params", 0.5, "params"))
    assert key_of(config, TrialSpec("joint", 0.5, "ram")) != key_of(config, TrialSpec("memory", 0.5, "ram"))
    uniform = TrialSpec("uniform", 0.5, "macs", step="filter")
    assert key_of(config, uniform) == key_of(config, TrialSpec("uniform", 0.5, "macs")), "nothing is drawn"


def test_keywords_are_the_fields_of_the_options() -> None:
    for keywords, record, own in ((CompressKeywords, CompressOptions, {"from"}), (SweepKeywords, StudyOptions, set())):
        kinds = [get_type_hints(record)[field.name] for field in fields(record)]
        names = {field.name.removesuffix("_") for kind in kinds for field in fields(kind)}
        assert set(get_type_hints(keywords)) == names - own


class Endless(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(())


@pytest.mark.parametrize(
    ("call", "kind", "said"),
    [
        (lambda p: pretrim.compress(network(), (tensors(9, 0),), macs="0.5x", output=p), UsageError, "but got 1 parts"),
        (lambda p: pretrim.compress(network(), (Endless(), Endless()), macs="0.5x", output=p), UsageError, "no length"),
        (lambda p: pretrim.compress(network(), (tensors(0, 0),) * 2, macs=9, output=p), DataError, "is empty"),
        (lambda p: pretrim.compress(network(), "digits", mac="0.5x", output=p), UsageError, "Did you mean macs?"),
        (lambda p: pretrim.compress(network(), "digits", mode="best", output=p), UsageError, "mode to be one of"),
        (lambda p: pretrim.compress(network(), "digits", output=p), UsageError, "No limit given"),
        (lambda p: pretrim.compress(3, "digits", macs="0.5x", output=p), pretrim.PretrimError, "a torch.nn.Module"),
        (lambda p: pretrim.sweep(network(), "digits", workers=2, output=p), UsageError, "in this process"),
    ],
)  # fmt: skip
def test_wrong_use_says_how_to_mend_it_and_writes_nothing(
    call: Any, kind: type[Exception], said: str, tmp_path: Path
) -> None:
    with pytest.raises(kind, match=said):
        call(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_data_of_ones_own_are_taken_as_they_are() -> None:
    ready = from_torch((tensors(30, 0), tensors(15, 1)))
    first = tensors(30, 0).tensors[0]
    assert len(ready.train) + len(ready.validation) == 30 and len(ready.test) == 15
    from pretrim.data import normalise

    shown = normalise(ready.test.images[:], ready.mean, ready.std)
    assert torch.allclose(shown, tensors(15, 1).tensors[0], atol=1e-6) and first.shape[1:] == shown.shape[1:]
    pixels = from_torch((Pixels(30), Pixels(15)))
    assert pixels.train.images[:].dtype == torch.uint8 and pixels.classes == ("dark", "grey", "bright")
    model = nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, CLASSES))
    assert 0 <= evaluate(model, pixels.test, pixels.mean, pixels.std).accuracy <= 1


CELLS = [
    "import torch; from torch import nn; import pretrim\n"
    "model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1),"
    " nn.Flatten(), nn.Linear(32, 4))",
    "network = pretrim.analyze(model, torch.zeros(1, 3, 16, 16)); network",
    "pretrim.plan(network, macs='0.5x')",
]


def test_records_show_themselves_in_a_notebook(tmp_path: Path) -> None:
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    done = NotebookClient(
        book, timeout=120, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    ).execute()
    shown = [cell["outputs"][-1]["data"]["text/html"] for cell in done.cells[1:]]
    assert "Channel groups" in shown[0] and "PA" in shown[0]
    assert "Filters kept" in shown[1] and "█" in shown[1] and "color: inherit" in shown[1]


def test_no_default_is_written_a_second_time() -> None:
    """Fields of the option records say nothing unless asked: the core has the defaults."""
    for kind in (options.Limits, options.TargetOptions, options.Search, options.DataOptions, options.MachineOptions):
        assert {field.default for field in fields(kind)} <= {None, False, ()}


@pytest.mark.parametrize(("of_torch", "workers", "each"), [(8, 1, 8), (8, 3, 2), (2, 4, 1)])
def test_workers_share_the_threads_that_torch_would_take(of_torch: int, workers: int, each: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(of_torch)  # as OMP_NUM_THREADS does
    try:
        assert threads_of_each(workers) == each
    finally:
        torch.set_num_threads(before)
