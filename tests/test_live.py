"""A study in progress: the progress of its trials, the time left, and the view in the terminal."""

from __future__ import annotations

import io
import re
import time
from pathlib import Path

import pytest
import sqlalchemy as sql
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from rich.console import Console
from torch import nn
from torch.utils.data import TensorDataset

import pretrim
from pretrim.cli.progress import Bars
from pretrim.cli.study_live import Forecast, Watched
from pretrim.study import progress as study_progress
from pretrim.study import sweep as sweeps
from pretrim.study.progress import Position, Running, running, tell
from pretrim.study.rows import PROGRESS, Trial
from pretrim.study.settings import TrialSpec
from pretrim.study.store import Store
from pretrim.study.sweep import Status
from pretrim.train import Progress

positions = st.builds(
    Position,
    epoch=st.integers(1, 300),
    epochs=st.just(300),
    done=st.floats(0, 1),
    seconds_left=st.floats(0, 1e6),
    score=st.none() | st.floats(0, 1),
)
modes = st.sampled_from(["balanced", "uniform", "params", "latency"])


def trial(key: str, mode: str = "balanced", state: str = "running", seconds: float | None = None) -> Trial:
    spec = TrialSpec(mode, 0.5, "macs", 0, round_to=1 if mode == "uniform" else 8)
    record = None if seconds is None else {"seconds": seconds, "costs": {}, "validation_accuracy": 0.5}
    return Trial(key, 0, spec, state, record)  # type: ignore[arg-type]


def status(*, waiting: int, running: list[Running], finished: tuple[Trial, ...] = ()) -> Status:
    counts = {"waiting": waiting, "running": len(running), "done": len(finished), "failed": 0, "stopped": 0}
    return Status(counts, finished, 10.0, waiting + len(running), tuple(running))


@settings(max_examples=100, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(progress=st.lists(st.tuples(modes, st.none() | positions), max_size=20), width=st.integers(40, 140))
def test_the_view_fits_the_terminal(progress: list[tuple[str, Position | None]], width: int) -> None:
    """One or two lines per trial, no line wider than the terminal, and no name cut off."""
    watched = Watched()
    watched.see(
        status(
            waiting=2,
            running=[Running(trial(str(number), mode), position) for number, (mode, position) in enumerate(progress)],
        )
    )
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    console.print(watched.drawn(width))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    lines = text.rstrip("\n").split("\n")
    assert [line for line in lines if len(line.rstrip()) > width] == []
    assert len(lines) <= 2 + 2 * min(len(progress), 12) + (len(progress) > 12)
    for mode, position in progress[:12]:
        assert f"{mode} at 0.5 of macs, seed 0" in text
        assert position is None or f"epoch {position.epoch}/300" in text
    assert (f"and {len(progress) - 12} more" in text) == (len(progress) > 12)


def test_the_time_left_follows_from_the_speed_of_the_trials() -> None:
    clock = [100.0]
    forecast = Forecast(lambda: clock[0])
    forecast.see(status(waiting=3, running=[Running(trial("a")), Running(trial("b"))]))
    assert forecast.seconds_left() is None  # no trial has reported progress yet
    half = Position(epoch=2, epochs=4, done=0.5, seconds_left=10)
    both_running = [Running(trial("a"), half), Running(trial("b"), half)]
    forecast.see(status(waiting=3, running=both_running))  # 20 s per trial: 10 + 10 s, and three more, two at a time
    assert forecast.seconds_left() == 40
    clock[0] += 7
    forecast.see(status(waiting=3, running=both_running))  # no news since, so it counts down
    assert forecast.seconds_left() == 33
    finished_trial = trial("c", state="done", seconds=50)  # (50 + 20 + 20) / 3 = 30 s per trial
    forecast.see(status(waiting=3, running=both_running, finished=(finished_trial,)))
    assert forecast.seconds_left() == (20 + 3 * 30) / 2
    last_running = [Running(trial("a"), Position(4, 4, 0.9, 6.0))]
    forecast.see(status(waiting=0, running=last_running))  # the last trial reports its own time left
    assert forecast.seconds_left() == 6


@pytest.mark.parametrize("width", [40, 80, 120])
def test_the_bar_of_a_training_fits_and_leaves_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int
) -> None:
    """The time left decreases; a narrow terminal drops the loss and the speed, but never the epoch and the time."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", str(width))
    with Bars().training("slim") as on_step:
        for step in (1, 2, 3):
            on_step(Progress(2, 2, step, 3, 1.25, 0.5, 1000.0, 30.0 - 10 * step, step == 3))
            time.sleep(0.3)  # the view is drawn four times a second
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err)
    *drawn_lines, last_line = [line for part in text.split("\r") for line in part.split("\n") if line.strip()]
    assert last_line == "training, slim: epoch 2/2  loss 1.250  validation 50.0 %  1,000 images/s"
    assert {len(line.rstrip()) <= width and "epoch 2/2" in line for line in drawn_lines} == {True}
    times_left = [re.findall(r"\d:\d\d(?= left)", line)[0] for line in drawn_lines]
    assert times_left == sorted(times_left, reverse=True) and times_left[0] != times_left[-1]
    assert {"images/s" in line for line in drawn_lines} == {width == 120}


def test_progress_of_a_running_trial_is_read_and_damaged_progress_is_unknown(tmp_path: Path) -> None:
    store, key = stored(tmp_path)
    assert running(store) == []
    claimed = store.claim()
    assert claimed is not None and [entry.position for entry in running(store)] == [None]
    for position in (Position(1, 3, 0.25, 12.0), Position(2, 3, 0.5, 8.0, 0.75)):
        tell(store, key, position)
        assert [(entry.trial.key, entry.position) for entry in running(store)] == [(key, position)]
    for text in ("", "{", "[]", '{"epoch": 0}', '{"epoch": 1, "epochs": 3, "done": 7, "seconds_left": 1}', "\x1b[2J"):
        with store.engine.connect() as connection:
            connection.execute(sql.update(PROGRESS).values(told=text))
        assert [entry.position for entry in running(store)] == [None]
    store.release(key)
    assert running(store) == []


def stored(folder: Path) -> tuple[Store, str]:
    """A study with one waiting trial, and the key of that trial."""
    from test_study import ASKED, SETTINGS

    store = Store(sweeps.default_storage(folder), "study")
    store.create(SETTINGS)
    return store, store.add(ASKED[:1])[0]


def test_a_sweep_sees_the_progress_of_its_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress goes from the first epoch to the last, and never backwards."""
    observed: list[tuple[str, Position]] = []
    look = sweeps._Sweep.look

    def recording_look(self: sweeps._Sweep) -> Status:
        current = look(self)
        observed.extend((entry.trial.key, entry.position) for entry in current.running if entry.position is not None)
        return current

    monkeypatch.setattr(study_progress, "EVERY_S", 0.001)
    monkeypatch.setattr(sweeps, "LOOK_EVERY_S", 0.0)
    monkeypatch.setattr(sweeps._Sweep, "look", recording_look)
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
    images = TensorDataset(torch.randn(64, 1, 6, 6), torch.arange(64) % 2)
    options = {"epochs": 3, "batch_size": 8, "threads": 1, "train_on": "cpu", "precision": "float32", "round_to": 1}
    pretrim.sweep(
        model, (images, images), output=tmp_path / "study", modes="uniform", keep=[0.5], dense=False, **options
    )  # type: ignore[arg-type]
    shares_done = [position.done for _, position in observed]
    assert shares_done == sorted(shares_done) and {position.epochs for _, position in observed} == {3}
    assert {position.epoch for _, position in observed} >= {1, 3}
    assert {position.score is None for _, position in observed} == {True, False}
