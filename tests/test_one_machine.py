"""Latencies hold for one machine, runtime, data type and number of threads; a study never mixes them up."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console
from small import CLASSES, SHAPE, small
from torch.utils.data import TensorDataset

import pretrim
from pretrim.devices import board
from pretrim.errors import UsageError
from pretrim.jobs.study import Study
from pretrim.latency.board_time import board_time
from pretrim.present.advice import show_advice
from pretrim.present.device import energy_text, time_text
from pretrim.present.study import show_trials
from pretrim.report import Shown, contents
from pretrim.study.predicted import predicted
from pretrim.study.recommend import candidates, machines_of, of_one_machine

Call = Callable[..., tuple[int, str, str]]
HERE = {"runtime": "litert", "data_type": "float32", "threads": 1, "provider": "CPU"}


def data() -> tuple[TensorDataset, TensorDataset]:
    torch.manual_seed(0)
    splits = [TensorDataset(torch.randn(count, *SHAPE), torch.arange(count) % CLASSES) for count in (40, 20)]
    return splits[0], splits[1]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Three networks with latencies stored for this machine, the fastest 0.2 ms."""
    study = pretrim.sweep(
        small(),
        data(),
        output=tmp_path_factory.mktemp("studies") / "study",
        keep=[0.6, 0.3],
        modes="uniform",
        epochs=1,
        batch_size=20,
        threads=1,
        train_on="cpu",
    )
    for number, trial in enumerate(sorted(study.trials, key=lambda entry: (entry.record or {})["costs"]["macs"])):
        seconds = 2e-4 * (number + 1)
        study.store.measured(trial.key, {"latency_s": seconds, "energy_j": 0.5, "machine": {"cpu": "Xeon"}, **HERE})
    return study


def test_latencies_of_a_board_come_from_its_own_model(study: Study, call: Call) -> None:
    """0.4 ms on this machine says nothing about a board: refused without a runtime, predicted with one."""
    command = ("recommend", study.path, "--device", "stm32h743", "--latency", "0.4ms")
    code, output, errors = call(*command)
    assert (code, output) == (2, "") and "The time on stm32h743 is predicted, and depends on the runtime most" in errors
    network = pretrim.analyze(small(), torch.zeros(1, *SHAPE))
    time = board_time(network, board("stm32h743"), "st-edge-ai")
    widths = {trial.key: (trial.record or {})["widths"] for trial in study.trials}
    on_board = {key: int(time.cost(torch.tensor(row).numpy())) * 1e-9 for key, row in widths.items()}
    median = sorted(on_board.values())[1]
    code, output, errors = call(*command[:-1], f"{median * 1e9:.0f}ns", "--runtime", "st-edge-ai", "--json")
    assert code == 0, errors
    record = json.loads(output)
    assert record["fitting"] == 2 and record["latency_of"].startswith("stm32h743 (Cortex-M7, 480 MHz), X-CUBE-AI 8.1")
    key = record["best"]["key"]
    assert (
        record["best"]["costs"]["latency"] == pytest.approx(on_board[key], abs=2e-9) and on_board[key] <= median + 2e-9
    )
    # 0.5x is relative to the dense network's time on the board.
    code, output, _ = call(*command[:-1], "0.5x", "--runtime", "st-edge-ai")
    assert (
        code == 0
        and "X-CUBE-AI 8.1, int8, one core: fitted on 21 networks: predicted, 0.88 to 1.24 times the prediction"
        in output
    )


def test_energy_is_that_of_the_board_or_none(study: Study, call: Call) -> None:
    """Energy on this machine says nothing about a board; on a board it is time x measured power."""
    command = ("recommend", study.path, "--runtime", "st-edge-ai 8.1", "--device")
    unknown_power = json.loads(call(*command, "stm32h743", "--json")[1])
    assert "energy" not in unknown_power["best"]["costs"] and "latency" in unknown_power["best"]["costs"]
    known_power = json.loads(call(*command, "stm32l4r5", "--json")[1])
    (power,) = re.findall(r"energy: time x ([\d.]+) mW, as measured there", known_power["latency_of"])
    takes = known_power["best"]["costs"]
    assert takes["energy"] == pytest.approx(takes["latency"] * float(power) * 1e-3, rel=0.01)


def test_trials_of_a_sweep_for_a_board_show_time_and_energy_there(study: Study) -> None:
    spec = {"device": "stm32l4r5", "runtime": "st-edge-ai 8.1"}
    planned = [replace(trial, spec=replace(trial.spec, **spec)) for trial in study.trials]
    prediction = predicted(planned[0])
    assert prediction is not None and predicted(study.trials[0]) is None
    console = Console(width=200, record=True, file=StringIO())
    show_trials(console, planned)
    output = console.export_text()
    assert energy_text(prediction, "slim") in output and time_text(prediction, "slim") in output
    assert "on its board, predicted: stm32l4r5 (Cortex-M4, 120 MHz), X-CUBE-AI 8.1" in output


def test_advice_for_a_board_without_a_latency_limit_shows_no_latencies_of_this_machine(study: Study) -> None:
    advice = study.recommend(device="stm32h743")
    assert advice.latency_of is None and advice.found.best is not None
    assert "latency" not in advice.found.best.costs
    dense_arenas = (study.trials[0].record or {})["on_boards"]["dense"]["arena_bytes"]
    assert dense_arenas["cmsis-nn"] >= dense_arenas["reference"] > 0
    console = Console(width=200, record=True, file=StringIO())
    show_advice(console, advice)
    header = console.export_text().splitlines()[2]
    assert "Tensor arena" in header and ".tflite" in header and "activations" not in header and "weights" not in header
    arenas = {name: study.recommend(device=name).found.best for name in ("stm32h743", "esp32")}
    assert all(best is not None for best in arenas.values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "raspberry-pi-5", "latency": "1ms"}, r"No latency of raspberry-pi-5 .*timed on Xeon, LiteRT"),
        ({"device": "nrf52840", "latency": "1ms", "runtime": "st-edge-ai"}, "No public measurement of 'st-edge-ai'"),
        ({"device": "grove-vision-ai-v2", "latency": "1ms"}, "No public measurement of any runtime on Cortex-M55"),
        ({"latency": "1ms", "runtime": "st-edge-ai"}, "runtime selects whose time counts on a board"),
    ],
)
def test_limits_without_a_known_latency_are_refused(study: Study, options: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        study.recommend(**options)  # type: ignore[arg-type]


def test_latencies_of_this_machine_are_labelled_everywhere(study: Study, call: Call) -> None:
    label = "Xeon, LiteRT, float32, 1 thread: measured"
    code, output, _ = call("recommend", study.path, "--latency", "0.4ms")
    assert code == 0 and f"latency: {label}" in output
    assert study.recommend(latency="0.4ms").to_json()["latency_of"] == label
    page = contents(Shown("study", study.trials, None))
    named = [(resource["title"], resource["detail"]) for resource in page["resources"] if resource["name"] == "latency"]
    assert named == [("Latency", label)]


def test_latencies_of_two_machines_are_not_compared(study: Study, tmp_path: Path) -> None:
    first = study.trials[0]
    measured_before = dict(first.measured or {})
    study.store.measured(first.key, {**measured_before, "machine": {"cpu": "Cortex"}})
    try:
        with pytest.raises(UsageError, match=r"were not all timed on one machine \(Xeon.*; Cortex"):
            study.recommend(latency="0.4ms")
        all_candidates = candidates(study.trials)
        assert len(machines_of(all_candidates)) == 2
        kept = of_one_machine(all_candidates)
        assert sum("latency" in candidate.costs for candidate in kept) == 2 and len(machines_of(kept)) == 1
        assert study.recommend(macs="1x").found.of == 3
    finally:
        study.store.measured(first.key, measured_before)


def test_a_sweep_for_a_board_meets_its_latency_limit(tmp_path: Path) -> None:
    """The plans use the latency model and the arena of the board, never the table of this machine."""
    options = {"modes": "balanced", "budget_fraction": "1", "dense": False, "epochs": 1, "batch_size": 20}
    options |= {"threads": 1, "train_on": "cpu", "device": "nrf52840", "latency": "0.5x"}
    with pytest.raises(UsageError, match="only predicted: add runtime, one of plumerai"):
        pretrim.sweep(small(), data(), output=tmp_path / "refused", **options)
    for runtime in ("onnx", "executorch"):
        message = f"which runs litert, not {runtime}: use runtime to name the one whose time counts, one of plumerai"
        with pytest.raises(UsageError, match=message):
            pretrim.sweep(small(), data(), output=tmp_path / "refused", runtime=runtime, **options)
        with pytest.raises(UsageError, match="A study has no latencies of raspberry-pi-5"):
            pretrim.sweep(
                small(), data(), output=tmp_path / "refused", runtime=runtime, **{**options, "device": "raspberry-pi-5"}
            )
    with pytest.raises(UsageError, match="'litert' may be any of tflm-reference 713b6ed, tflm-cmsis-nn 011bf32"):
        pretrim.sweep(
            small(), data(), output=tmp_path / "refused", runtime="litert", **{**options, "device": "stm32h743"}
        )
    assert not (tmp_path / "refused").exists()
    with pytest.raises(UsageError, match="A study has no latencies of raspberry-pi-5"):
        pretrim.sweep(small(), data(), output=tmp_path / "refused", **{**options, "device": "raspberry-pi-5"})
    study = pretrim.sweep(small(), data(), output=tmp_path / "study", runtime="tflm", **options)
    (trial,) = study.trials
    assert trial.spec.name == "balanced on nrf52840, runtime tflm"
    network = pretrim.analyze(small(), torch.zeros(1, *SHAPE))
    cost = board_time(network, board("nrf52840"), "tflm").cost
    widths = torch.tensor((trial.record or {})["widths"]).numpy()
    assert int(cost(widths)) <= 0.5 * int(cost(network.dense))
