"""How sure an accuracy is, wherever one is shown: in a run's record and folder, on the terminal, in the page."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from rich.console import Console
from test_report import TRIALS, Opened, browser, trial, written  # noqa: F401

import pretrim
from pretrim.cli import main
from pretrim.data import DataSet, load
from pretrim.jobs.study import Advice
from pretrim.present.advice import show_advice
from pretrim.present.run import show_comparison
from pretrim.present.study import show_trials
from pretrim.present.text import compared, interval
from pretrim.report.contents import PAIRED, pairs
from pretrim.study.recommend import candidates, recommend
from pretrim.study.rows import Trial
from pretrim.train import Execution, Recipe, compare, evaluate, pack, unpack, wilson

SMALL = ("--input", "1x8x8", "--max-images", "300", "--macs", "0.6x")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slim network and its dense one, 4 epochs each."""
    folder = tmp_path_factory.mktemp("sureness") / "run"
    arguments = ["compress", "resnet20", "--data", "digits", *SMALL, "--epochs", "4", "--batch-size", "32"]
    with pytest.raises(SystemExit) as end:
        main([*arguments, "--dense", "--worst", "12", "-o", str(folder)])
    assert end.value.code in (0, None)
    return folder


def test_a_run_says_how_sure_it_is_and_compares_with_the_dense_network(run: Path) -> None:
    """Every figure again, from the two networks themselves."""
    opened = pretrim.open_run(run)
    data = load("digits", image_size=8, limit=300)
    dense = pretrim.open_run(run / "dense")
    found = [evaluate(one.model, data.test, *one.classifier.normalisation) for one in (dense, opened)]
    record = json.loads(json.dumps(opened.to_json()))
    for which, evaluation in zip(("dense", "slim"), found, strict=True):
        right = int(evaluation.right.sum())
        assert record[which]["test_accuracy"] == right / len(data.test)
        assert record[which]["test_interval_95"] == wilson(right, len(data.test)).to_json()
        assert record[which]["test_images"] == len(data.test)
    assert record["comparison"] == json.loads(json.dumps(compare(found[0].right, found[1].right).to_json()))
    assert torch.equal(unpack(record["results"]["test"]["right"]), found[1].right)
    assert record["results"]["recalibration_images"] == 256


def test_a_run_folder_shows_where_the_network_errs(run: Path) -> None:
    plain = json.loads((run / "confusion.json").read_text())
    opened = pretrim.open_run(run)
    assert plain["accuracy"] == opened.accuracy and sum(map(sum, plain["confusion"])) == plain["images"]
    evaluated = opened.evaluate("digits").to_json()
    assert evaluated["confusion"] == plain["confusion"]
    assert [entry["interval_95"] for entry in evaluated["classes"]] == [c["interval_95"] for c in plain["classes"]]
    assert len(json.loads((run / "worst.json").read_text())["images"]) == 12
    for name in ("confusion.png", "worst.png", "curve.png", "dense/confusion.png"):
        with Image.open(run / name) as picture:
            picture.load()


def test_the_table_of_compress_has_intervals_and_the_paired_test(run: Path) -> None:
    console = Console(width=120, record=True, file=io.StringIO())
    show_comparison(console, pretrim.open_run(run).to_json())
    text = console.export_text()
    assert "95 % interval, n = 179" in text
    assert "slim against dense: " in text and "on the same 179 images, McNemar p = " in text


def test_evaluate_prints_intervals(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["evaluate", str(run), "--data", "digits"])
    out = capsys.readouterr().out
    accuracy = pretrim.open_run(run).accuracy
    assert accuracy is not None
    assert "95 % interval" in out and interval(wilson(round(accuracy * 179), 179).to_json()) in out


def test_warnings_are_printed_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One step of training at no rate: nothing is learnt, and that is said."""
    arguments = ["compress", "resnet20", "--data", "digits", *SMALL, "--epochs", "1", "--lr", "1e-9"]
    with pytest.raises(SystemExit):
        main([*arguments, "-o", str(tmp_path / "run"), "--json"])
    captured = capsys.readouterr()
    record = json.loads(captured.out)
    assert len(record["warnings"]) == 1 and "is no better than predicting one class" in record["warnings"][0]
    assert f"warning, slim: {record['warnings'][0]}" in captured.err
    assert record["results"]["chance"] == pytest.approx(0.1, abs=0.02)
    assert not (tmp_path / "run" / "worst.png").exists()


def test_a_wrong_number_of_worst_images_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["compress", "resnet20", "--data", "digits", *SMALL, "--worst", "-1", "-o", str(tmp_path / "run")])
    assert end.value.code == 2 and "Expected --worst to be 0 or more images, but got -1" in capsys.readouterr().err


def test_weights_that_are_given_are_compared_too(run: Path, tmp_path: Path) -> None:
    """With --from there is no dense run, but the dense network is tested."""
    dense = pretrim.open_run(run / "dense")
    from safetensors.torch import save_file

    save_file(
        {name: tensor.contiguous() for name, tensor in dense.model.state_dict().items()}, tmp_path / "w.safetensors"
    )
    slim = pretrim.compress(
        "resnet20", "digits", output=tmp_path / "run", input="1x8x8", max_images=300, macs="0.6x", epochs=1,
        weights=tmp_path / "w.safetensors",
    )  # fmt: skip
    assert slim.comparison is not None and slim.comparison.images == 179
    assert slim.to_json()["dense"]["test_images"] == 179


# ---------------------------------------------------------------------------------------- studies


def with_images(one: Trial, seed: int) -> Trial:
    """The trial with which of 500 validation images it was right about."""
    record = dict(one.record or {})
    order = torch.randperm(500, generator=torch.Generator().manual_seed(seed))
    right = torch.zeros(500, dtype=torch.bool)
    right[order[: round(500 * record["validation_accuracy"])]] = True
    known = {"interval_95": wilson(int(right.sum()), 500).to_json(), "images": 500, "right": pack(right)}
    warnings = ["validation accuracy still climbed in the last epoch (+4.0 points): train longer, e.g. --epochs 4."]
    return Trial(**{**vars(one), "record": {**record, "validation": known, "test": known, "warnings": warnings}})


STUDY = [with_images(one, number) if one.record is not None else one for number, one in enumerate(TRIALS)]


def test_recommend_shows_intervals_and_whether_the_choice_is_sure() -> None:
    found = recommend(candidates(STUDY), {"macs": 2e7})
    console = Console(width=140, record=True, file=io.StringIO())
    show_advice(console, Advice(Path("study"), {"macs": 2e7}, found))
    text = console.export_text()
    assert found.comparison is not None and found.best is not None
    low, high = wilson(440, 500).to_json()
    assert f"{interval([low, high])}, n = 500" in text
    assert f"best against next best: {compared(found.comparison.to_json())}" in text.replace("\n", " ")
    assert "no significant difference" in text


def test_sweep_shows_intervals_and_says_how_many_were_warned_of() -> None:
    console = Console(width=140, record=True, file=io.StringIO())
    show_trials(console, STUDY)
    text = console.export_text()
    assert interval(wilson(450, 500).to_json()) in text
    assert "warning: dense, seed 0: validation accuracy still climbed" in text
    assert "7 more trials have warnings" in text
    console = Console(width=140, record=True, file=io.StringIO())
    show_trials(console, STUDY[:2])
    assert "1 more trial has warnings" in console.export_text()


def test_pairs_of_a_page_are_those_of_the_networks() -> None:
    found = candidates(STUDY)
    rows = pairs(found)
    assert sum(len(row) for row in rows.values()) == 8 * 7 // 2
    by_key = {one.key: one for one in found}
    for first, row in rows.items():
        for second, (difference, low, high, p) in row.items():
            wanted = compare(*(unpack((by_key[key].validated or {})["right"]) for key in (first, second)))
            assert difference == pytest.approx(wanted.difference) and p == pytest.approx(wanted.p_value, rel=1e-3)
            assert (low, high) == pytest.approx((wanted.interval.low, wanted.interval.high), rel=1e-3)
    assert pairs(candidates(TRIALS)) == {}


def test_pairs_are_bounded() -> None:
    many = [with_images(trial(number, "macs", 0.5, 0.5 + number / 1000), number) for number in range(PAIRED + 20)]
    assert sum(len(row) for row in pairs(candidates(many)).values()) == PAIRED * (PAIRED - 1) // 2


def test_the_page_says_how_sure_the_choice_is(browser: Any, tmp_path: Path) -> None:  # noqa: F811
    opened = Opened(browser, written(tmp_path / "report.html", "study", STUDY), "max-macs=20000000")
    said = opened.text("#answer").split("+2.0 points for ")[0]  # then follows what more MACs would buy
    found = recommend(candidates(STUDY), {"macs": 20_000_000})
    assert found.best is not None and found.comparison is not None
    low, high = wilson(440, 500).to_json()
    assert f"88.0 % validation (95 %: {100 * low:.1f} to {100 * high:.1f} %, n = 500)" in said
    assert "Against the next best, macs at 0.5 of macs, seed 0: +1.0 points (95 %: " in said
    assert ("no significant difference" in said) == (not found.comparison.is_significant)
    (bought,) = found.buys
    assert bought.comparison is not None
    against_dense = opened.text("#told-apart")
    assert against_dense.startswith("Against the dense network: -2.0 points (95 %: ")
    assert ("no significant difference" in against_dense) == (not bought.comparison.is_significant)
    assert opened.problems == []
    opened.context.close()


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return load("digits", image_size=8, limit=300)


def test_the_three_short_sweeps_of_the_documents_are_no_longer_at_chance(digits: DataSet) -> None:
    """FA, uniform and dense at a few epochs, as README and docs sweep: each is above what it was without."""
    for mode in ("macs", "uniform", None):
        accuracies = []
        for recalibration in (0, 2048):
            torch.manual_seed(0)
            model = pretrim.models.BUILTIN["resnet20"](num_classes=10, in_channels=1)
            network = pretrim.analyze(model, torch.zeros(1, 1, 8, 8))
            module = model if mode is None else network.plan(mode=mode, macs="0.5x", seed=0).apply(model)
            recipe = Recipe(epochs=4, batch_size=64, recalibration=recalibration)
            how = Execution(device="cpu", channels_last=True, precision="float32", threads=1)
            pretrim.train.train(module, digits, recipe, execution=how)
            accuracies.append(evaluate(module, digits.test, digits.mean, digits.std).accuracy)
        before, after = accuracies
        assert after > before + 0.1 and wilson(round(179 * after), 179).low > 0.15, (mode, accuracies)
