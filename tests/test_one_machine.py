"""A time is of one machine, runtime, data type and number of threads: a study never answers for another's."""

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
    parts = [TensorDataset(torch.randn(count, *SHAPE), torch.arange(count) % CLASSES) for count in (40, 20)]
    return parts[0], parts[1]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Three networks, the fastest timed at 0.2 ms on this machine."""
    made = pretrim.sweep(
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
    for number, trial in enumerate(sorted(made.trials, key=lambda one: (one.record or {})["costs"]["macs"])):
        seconds = 2e-4 * (number + 1)
        made.store.measured(trial.key, {"latency_s": seconds, "energy_j": 0.5, "machine": {"cpu": "Xeon"}, **HERE})
    return made


def test_a_board_is_answered_by_its_own_model(study: Study, call: Call) -> None:
    """0.4 ms here is no answer to what takes 0.4 ms there: refused without a runtime, predicted with one."""
    ask = ("recommend", study.path, "--device", "stm32h743", "--latency", "0.4ms")
    code, out, said = call(*ask)
    assert (code, out) == (2, "") and "The time on stm32h743 is predicted, and depends on the runtime most" in said
    network = pretrim.analyze(small(), torch.zeros(1, *SHAPE))
    time = board_time(network, board("stm32h743"), "st-edge-ai")
    widths = {trial.key: (trial.record or {})["widths"] for trial in study.trials}
    theirs = {key: int(time.cost(torch.tensor(row).numpy())) * 1e-9 for key, row in widths.items()}
    middle = sorted(theirs.values())[1]
    code, out, said = call(*ask[:-1], f"{middle * 1e9:.0f}ns", "--runtime", "st-edge-ai", "--json")
    assert code == 0, said
    found = json.loads(out)
    assert found["fitting"] == 2 and found["latency_of"].startswith("stm32h743 (Cortex-M7, 480 MHz), X-CUBE-AI 8.1")
    key = found["best"]["key"]
    assert found["best"]["costs"]["latency"] == pytest.approx(theirs[key], abs=2e-9) and theirs[key] <= middle + 2e-9
    code, out, _ = call(*ask[:-1], "0.5x", "--runtime", "st-edge-ai")  # of the dense network's time there
    assert (
        code == 0
        and "X-CUBE-AI 8.1, int8, one core: fitted on 21 networks: predicted, 0.88 to 1.24 times the prediction" in out
    )


def test_energy_is_the_board_s_own_or_none(study: Study, call: Call) -> None:
    """What an image takes here says nothing of a board; there it is the time by the power that was measured."""
    ask = ("recommend", study.path, "--runtime", "st-edge-ai 8.1", "--device")
    found = json.loads(call(*ask, "stm32h743", "--json")[1])
    assert "energy" not in found["best"]["costs"] and "latency" in found["best"]["costs"]
    known = json.loads(call(*ask, "stm32l4r5", "--json")[1])
    (power,) = re.findall(r"energy: time x ([\d.]+) mW, as measured there", known["latency_of"])
    takes = known["best"]["costs"]
    assert takes["energy"] == pytest.approx(takes["latency"] * float(power) * 1e-3, rel=0.01)


def test_trials_of_a_sweep_for_a_board_show_time_and_energy_there(study: Study) -> None:
    spec = {"device": "stm32l4r5", "runtime": "st-edge-ai 8.1"}
    planned = [replace(one, spec=replace(one.spec, **spec)) for one in study.trials]
    found = predicted(planned[0])
    assert found is not None and predicted(study.trials[0]) is None
    console = Console(width=200, record=True, file=StringIO())
    show_trials(console, planned)
    shown = console.export_text()
    assert energy_text(found, "slim") in shown and time_text(found, "slim") in shown
    assert "on its board, predicted: stm32l4r5 (Cortex-M4, 120 MHz), X-CUBE-AI 8.1" in shown


def test_without_a_question_about_time_a_board_shows_none_of_this_machines(study: Study) -> None:
    advice = study.recommend(device="stm32h743")
    assert advice.latency_of is None and advice.found.best is not None
    assert "latency" not in advice.found.best.costs
    sketched = (study.trials[0].record or {})["on_boards"]["dense"]["arena_bytes"]
    assert sketched["cmsis-nn"] >= sketched["reference"] > 0
    console = Console(width=200, record=True, file=StringIO())
    show_advice(console, advice)
    head = console.export_text().splitlines()[2]
    assert "Tensor arena" in head and ".tflite" in head and "activations" not in head and "weights" not in head
    arenas = {name: study.recommend(device=name).found.best for name in ("stm32h743", "esp32")}
    assert all(one is not None for one in arenas.values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "raspberry-pi-5", "latency": "1ms"}, r"No latency of raspberry-pi-5 .*timed on Xeon, LiteRT"),
        ({"device": "nrf52840", "latency": "1ms", "runtime": "st-edge-ai"}, "No public measurement of 'st-edge-ai'"),
        ({"device": "grove-vision-ai-v2", "latency": "1ms"}, "No public measurement of any runtime on Cortex-M55"),
        ({"latency": "1ms", "runtime": "st-edge-ai"}, "runtime selects whose time counts on a board"),
    ],
)
def test_what_cannot_be_answered_is_refused(study: Study, options: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        study.recommend(**options)  # type: ignore[arg-type]


def test_this_machines_times_say_so_everywhere(study: Study, call: Call) -> None:
    label = "Xeon, LiteRT, float32, 1 thread: measured"
    code, out, _ = call("recommend", study.path, "--latency", "0.4ms")
    assert code == 0 and f"latency: {label}" in out
    assert study.recommend(latency="0.4ms").to_json()["latency_of"] == label
    page = contents(Shown("study", study.trials, None))
    named = [(one["title"], one["detail"]) for one in page["resources"] if one["name"] == "latency"]
    assert named == [("Latency", label)]


def test_times_of_two_machines_do_not_compare(study: Study, tmp_path: Path) -> None:
    first = study.trials[0]
    before = dict(first.measured or {})
    study.store.measured(first.key, {**before, "machine": {"cpu": "Cortex"}})
    try:
        with pytest.raises(UsageError, match=r"were not all timed on one machine \(Xeon.*; Cortex"):
            study.recommend(latency="0.4ms")
        found = candidates(study.trials)
        assert len(machines_of(found)) == 2
        kept = of_one_machine(found)
        assert sum("latency" in one.costs for one in kept) == 2 and len(machines_of(kept)) == 1
        assert study.recommend(macs="1x").found.of == 3
    finally:
        study.store.measured(first.key, before)


def test_a_sweep_for_a_board_keeps_its_time(tmp_path: Path) -> None:
    """Planned by the board's own model and arena, and never by this machine's table."""
    ask = {"modes": "balanced", "budget_fraction": "1", "dense": False, "epochs": 1, "batch_size": 20}
    ask |= {"threads": 1, "train_on": "cpu", "device": "nrf52840", "latency": "0.5x"}
    with pytest.raises(UsageError, match="only predicted: add runtime, one of plumerai"):
        pretrim.sweep(small(), data(), output=tmp_path / "refused", **ask)
    for runtime in ("onnx", "executorch"):
        said = f"which runs litert, not {runtime}: use runtime to name the one whose time counts, one of plumerai"
        with pytest.raises(UsageError, match=said):
            pretrim.sweep(small(), data(), output=tmp_path / "refused", runtime=runtime, **ask)
        with pytest.raises(UsageError, match="A study has no latencies of raspberry-pi-5"):
            pretrim.sweep(
                small(), data(), output=tmp_path / "refused", runtime=runtime, **{**ask, "device": "raspberry-pi-5"}
            )
    with pytest.raises(UsageError, match="'litert' may be any of tflm-reference 713b6ed, tflm-cmsis-nn 011bf32"):
        pretrim.sweep(small(), data(), output=tmp_path / "refused", runtime="litert", **{**ask, "device": "stm32h743"})
    assert not (tmp_path / "refused").exists()
    with pytest.raises(UsageError, match="A study has no latencies of raspberry-pi-5"):
        pretrim.sweep(small(), data(), output=tmp_path / "refused", **{**ask, "device": "raspberry-pi-5"})
    study = pretrim.sweep(small(), data(), output=tmp_path / "study", runtime="tflm", **ask)
    (trial,) = study.trials
    assert trial.spec.name == "balanced on nrf52840, runtime tflm"
    network = pretrim.analyze(small(), torch.zeros(1, *SHAPE))
    cost = board_time(network, board("nrf52840"), "tflm").cost
    widths = torch.tensor((trial.record or {})["widths"]).numpy()
    assert int(cost(widths)) <= 0.5 * int(cost(network.dense))
