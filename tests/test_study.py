"""Tests of studies: every trial is stored and run exactly once, with several workers and after crashes."""

import gc
import hashlib
import json
import multiprocessing
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, ClassVar

import optuna
import pytest

from pretrim.errors import StudyError, UsageError
from pretrim.runs.owner import machine
from pretrim.study import store as table
from pretrim.study.optuna_export import OptunaExport
from pretrim.study.settings import StudyConfig, TrialSpec, grid, key_of
from pretrim.study.stopping import is_hopeless
from pretrim.study.store import Store
from pretrim.study.sweep import Status, default_storage, make_study, open_study, sweep
from pretrim.train import Execution, Recipe

EXECUTION = Execution(device="cpu", precision="float32", channels_last=False, compile=False, threads=1)
SETTINGS = StudyConfig(
    model="resnet20",
    data="digits",
    image=(1, 8, 8),
    max_images=300,
    recipe=Recipe(epochs=2, batch_size=64, learning_rate=0.05),
    execution=EXECUTION,
)
ASKED = grid(["params", "macs", "uniform"], [0.5, 0.25], 1)


def record(accuracy: float = 0.5, macs: int = 100) -> dict[str, Any]:
    costs = {"params": 10, "macs": macs, "weight_bytes": 40, "activation_bytes": 9, "peak_activation_bytes": 4}
    return {
        "costs": costs,
        "dense": costs,
        "widths": [1],
        "validation_accuracy": accuracy,
        "test_accuracy": accuracy,
        "epochs": [[1.0, accuracy, accuracy]],
        "seconds": 1.0,
    }


def store_at(folder: Path) -> Store:
    store = Store(default_storage(folder), "study")
    store.create(SETTINGS)
    return store


def results(store: Store) -> dict[str, Any]:
    """The records of all trials by key, without their durations."""
    return {
        trial.key: {name: value for name, value in (trial.record or {}).items() if name != "seconds"}
        for trial in store.trials()
    }


# ---------------------------------------------------------------------------------------- specifications of trials


def test_the_specs_of_a_grid() -> None:
    assert [(spec.mode, spec.budget_fraction, spec.limit, spec.round_to) for spec in ASKED] == [
        ("dense", 1.0, "macs", 8),
        ("params", 0.5, "params", 8),
        ("macs", 0.5, "macs", 8),
        ("uniform", 0.5, "macs", 1),
        ("params", 0.25, "params", 8),
        ("macs", 0.25, "macs", 8),
        ("uniform", 0.25, "macs", 1),
    ]
    assert {spec.limit for spec in grid(["params", "memory"], [0.5], 2, limit="macs", dense=False)} == {"macs"}
    assert ASKED[1].name == replace(ASKED[1], seed=9).name == "params at 0.5 of params"
    assert replace(ASKED[1], round_to=4).name == "params at 0.5 of params, round_to 4"
    for arguments, message in (
        ((["flops"], [0.5], 1), "Expected modes among balanced, .* but got 'flops'"),
        ((["macs"], [1.5], 1), "Expected budget fractions between 0 and 1, but got 1.5"),
        ((["macs"], [0.5], 0), "Expected seeds to be at least 1, but got 0"),
    ):
        with pytest.raises(UsageError, match=message):
            grid(*arguments)


def test_a_key_depends_on_the_settings_and_the_spec() -> None:
    keys = {key_of(SETTINGS, spec) for spec in ASKED}
    assert len(keys) == len(ASKED) and all(len(key) == 16 for key in keys)
    other = replace(SETTINGS, recipe=replace(SETTINGS.recipe, epochs=3))
    assert key_of(other, ASKED[0]) != key_of(SETTINGS, ASKED[0])
    assert key_of(StudyConfig.from_json(json.loads(json.dumps(SETTINGS.to_json()))), ASKED[0]) == key_of(
        SETTINGS, ASKED[0]
    )


def test_studies_from_before_latencies_had_a_runtime_can_be_continued(tmp_path: Path) -> None:
    """Their keys and rows were made from eight fields; a spec with another runtime gets another key."""
    latency_spec = grid(["latency"], [0.5], 1, dense=False)[0]
    old_fields = {"mode": "latency", "keep": 0.5, "limit": "latency", "seed": 0, "step": "fraction", "round_to": 8}
    old_fields |= {"candidates": 1, "score": ""}
    text = json.dumps([SETTINGS.to_json(), old_fields], sort_keys=True)
    assert key_of(SETTINGS, latency_spec) == hashlib.sha256(text.encode()).hexdigest()[:16]
    store = store_at(tmp_path)
    (key,) = store.add([latency_spec])
    with closing(sqlite3.connect(tmp_path / "study.db", isolation_level=None)) as database:
        assert json.loads(database.execute("select asked from pretrim_trials").fetchone()[0]) == old_fields
    assert store.trials()[0].spec == latency_spec and store.add([latency_spec]) == [key] and len(store.trials()) == 1
    modes = ["latency", "macs"]
    by_onnx, by_macs = grid(modes, [0.5], 1, dense=False, runtime="onnx")
    assert (by_onnx.runtime, by_onnx.name) == ("onnx", "latency at 0.5 of latency, runtime onnx")
    assert by_macs == grid(modes, [0.5], 1, dense=False)[1], "a limit on MACs is of no runtime"
    assert grid(["uniform"], [0.5], 1, limit="latency", dense=False, runtime="onnx")[0].runtime == "onnx"
    assert store.add([by_onnx, by_macs])[0] != key and store.trials()[1].spec == by_onnx


# ---------------------------------------------------------------------------------------- the table


def test_a_trial_is_stored_once(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    keys = store.add(ASKED)
    assert store.add(ASKED) == keys
    assert [trial.key for trial in store.trials()] == keys
    trial = store.claim()
    assert trial is not None and trial.key == keys[0]
    assert store.finish(trial.key, record())
    assert not store.finish(trial.key, record(0.9)), "it is finished already"
    store.add(ASKED)
    assert store.counts() == {"waiting": 6, "running": 0, "done": 1, "failed": 0, "stopped": 0}
    assert store.trials()[0].record == record()


def test_a_running_trial_is_not_claimed_by_another_worker(tmp_path: Path) -> None:
    first_worker, second_worker = store_at(tmp_path), store_at(tmp_path)
    first_worker.add(ASKED[:2])
    first_trial, second_trial = first_worker.claim(), second_worker.claim()
    assert first_trial and second_trial and first_trial.key != second_trial.key
    assert first_worker.claim() is None and second_worker.claim() is None
    assert first_worker.beat(first_trial.key) and not second_worker.beat(first_trial.key)
    assert not second_worker.finish(first_trial.key, record()), "it is not the other's"
    first_worker.release(first_trial.key)
    reclaimed = second_worker.claim()
    assert reclaimed is not None and reclaimed.key == first_trial.key
    assert not first_worker.beat(first_trial.key)


def test_a_trial_of_a_process_that_died_is_taken_over_at_once(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    store.add(ASKED[:1])
    child = multiprocessing.get_context("spawn").Process(target=_claim_in_child, args=(tmp_path,))
    child.start()
    child.join()
    trial = store.claim()
    assert trial is not None
    assert store.claim() is None


def _claim_in_child(folder: Path) -> None:
    assert store_at(folder).claim() is not None


def test_a_trial_on_another_machine_is_taken_over_when_it_is_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote, local = store_at(tmp_path), store_at(tmp_path)
    remote.owner = "another-machine/1:1:abc"
    remote.add(ASKED[:1])
    trial = remote.claim()
    assert trial is not None and local.claim() is None
    monkeypatch.setattr(table, "GRACE_S", 0.2)
    time.sleep(0.3)
    assert remote.beat(trial.key)
    assert local.claim() is None, "it has just been heard of"
    time.sleep(0.3)
    taken = local.claim()
    assert taken is not None and taken.key == trial.key
    assert not remote.finish(trial.key, record()), "it came back too late"


def test_a_trial_whose_process_dies_repeatedly_has_failed(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    store.add(ASKED[:1])
    for _ in range(table.MOST_TRIES):
        dying = store_at(tmp_path)
        dying.owner = f"{machine()}:999999999:dead"
        assert dying.claim() is not None
    assert store.claim() is None
    (trial,) = store.trials()
    assert (trial.state, trial.error) == ("failed", "its process died 3 times: see the logs of the study")
    assert store.retry([trial.key]) == 1 and store.claim() is not None


def test_other_settings_and_newer_versions_are_refused(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    with pytest.raises(StudyError, match=r"Expected the study's own recipe, but its epochs is 2, not 5: all trials"):
        store.create(replace(SETTINGS, recipe=replace(SETTINGS.recipe, epochs=5)))
    with closing(sqlite3.connect(tmp_path / "study.db", isolation_level=None)) as database:
        database.execute("update pretrim_studies set version = 2")
    with pytest.raises(StudyError, match=r"Expected a study of version 1, but it is of version 2: update pretrim\."):
        store.config()
    with pytest.raises(StudyError, match=r"No study called other in .*study\.db"):
        Store(default_storage(tmp_path), "other").config()


@pytest.mark.parametrize("damage", ["head", "middle", "cut"])
def test_a_corrupt_database_is_reported_and_not_changed(tmp_path: Path, damage: str) -> None:
    make_study(tmp_path / "study", SETTINGS).add(ASKED)
    file = tmp_path / "study" / "study.db"
    content = bytearray(file.read_bytes())
    if damage == "head":
        content[:64] = b"x" * 64
    elif damage == "middle":
        content[4096:] = b"\xff" * (len(content) - 4096)
    else:
        content = content[: len(content) // 2]
    file.write_bytes(content)
    with pytest.raises(StudyError, match=r"^[^\n]*(Cannot|is not an SQLite database)[^\n]*$") as error:
        open_study(tmp_path / "study").trials()
    assert "study.db" in str(error.value)
    assert file.read_bytes() == content


@pytest.mark.parametrize("text", ["{}", "[]", "3", '{"costs": {}, "validation_accuracy": "high"}'])
def test_a_damaged_result_is_reported(tmp_path: Path, text: str) -> None:
    store = store_at(tmp_path)
    (key,) = store.add(ASKED[:1])
    with closing(sqlite3.connect(tmp_path / "study.db", isolation_level=None)) as database:
        database.execute("update pretrim_trials set state = 'done', record = ?", (text,))
    (trial,) = store.trials()
    assert trial.state == "failed" and trial.error is not None
    assert re.fullmatch(rf"The result of trial {key} is damaged: [^\n]*\.", trial.error)
    assert store.retry([key]) == 1 and store.claim() is not None, "it can be run again"


class Watched(sqlite3.Connection):
    """Records connections that are garbage-collected without being closed; Python 3.13 warns about each."""

    unclosed: ClassVar[list[str]] = []

    def __del__(self) -> None:
        try:
            self.unclosed.append(f"after {self.total_changes} changes")
        except sqlite3.ProgrammingError:
            pass  # it was closed


def test_every_connection_to_a_file_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those of a store that is never closed, of Optuna's tables, and of tables that cannot be opened."""
    monkeypatch.setattr(sqlite3.dbapi2, "connect", partial(sqlite3.connect, factory=Watched))
    monkeypatch.setattr(Watched, "unclosed", [])
    store = store_at(tmp_path)
    store.add(ASKED)
    assert store.trials() and OptunaExport(store, SETTINGS).open_numbers() == []
    with closing(sqlite3.connect(tmp_path / "study.db", isolation_level=None)) as database:
        database.execute("drop table studies")
    with pytest.raises(StudyError, match="with Optuna"):
        OptunaExport(store, SETTINGS)
    with pytest.raises(StudyError, match="Cannot use the database"):
        Store(default_storage(tmp_path / "nowhere"), "study").create(SETTINGS)
    gc.collect()
    assert Watched.unclosed == []
    forgotten = sqlite3.dbapi2.connect(tmp_path / "study.db")
    del forgotten
    gc.collect()
    assert len(Watched.unclosed) == 1, "the check itself"


def test_folders_that_are_not_studies_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(StudyError, match=r"holds other files than a study"):
        make_study(tmp_path, SETTINGS)
    with pytest.raises(StudyError, match=r"No study in .* \(it has no study\.json"):
        open_study(tmp_path)
    with pytest.raises(StudyError, match=r"Cannot read study\.json of the study in .*notes\.txt \(Not a dir"):
        open_study(tmp_path / "notes.txt")
    folder = tmp_path / "study"
    make_study(folder, SETTINGS)
    described = json.loads((folder / "study.json").read_text())
    (folder / "study.json").write_text(json.dumps({**described, "version": 9}))
    with pytest.raises(StudyError, match=r"is of version 9, and this pretrim reads up to 1: update pretrim"):
        open_study(folder)
    with pytest.raises(StudyError, match=r"Expected a database as SQLAlchemy names it, .* but got "):
        Store("nonsense", "study")


def test_a_password_is_not_shown_in_errors(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"postgresql\+psycopg://me:\*\*\*@127\.0\.0\.1:1/none") as error:
        make_study(tmp_path / "study", SETTINGS, "postgresql+psycopg://me:secret@127.0.0.1:1/none")
    assert "secret" not in str(error.value)


def test_hopeless_trials_by_hand() -> None:
    cheap = ({"macs": 4, "params": 4}, [0.3, 0.4, 0.5, 0.5])
    expensive = ({"macs": 4, "params": 9}, [0.3, 0.4, 0.9, 0.9])
    costs = {"macs": 5, "params": 5}
    assert is_hopeless(costs, [0.1, 0.2, 0.39], 8, [cheap])
    assert not is_hopeless(costs, [0.1, 0.2, 0.41], 8, [cheap])
    assert not is_hopeless(costs, [0.1, 0.2, 0.1], 8, [expensive])
    assert not is_hopeless(costs, [0.1, 0.2], 8, [cheap]), "too early"
    assert not is_hopeless(costs, [0.1, 0.2, 0.1], 16, [cheap]), "less than a quarter"
    assert not is_hopeless(costs, [0.1, 0.2, 0.3, 0.3], 4, [cheap]), "it is over"


# ---------------------------------------------------------------------------------------- sweeps


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("undisturbed") / "study"
    store = make_study(folder, SETTINGS)
    store.add(ASKED)
    statuses: list[Status] = []
    sweep(folder, store, workers=2, on_status=statuses.append)
    assert store.counts()["done"] == len(ASKED)
    assert sum(len(status.finished) for status in statuses) == len(ASKED) and statuses[-1].left == 0
    return folder, results(store)


def test_a_sweep_is_an_optuna_study_and_its_trials_are_runs(undisturbed: tuple[Path, dict[str, Any]]) -> None:
    import pretrim

    folder, records = undisturbed
    study = optuna.load_study(study_name="study", storage=default_storage(folder))
    trials = study.get_trials()
    assert sorted(trial.user_attrs["key"] for trial in trials) == sorted(records)
    assert all(trial.state == optuna.trial.TrialState.COMPLETE for trial in trials)
    by_key = {trial.user_attrs["key"]: trial.values for trial in trials}
    for key, record_of_trial in records.items():
        assert by_key[key][:3] == [
            record_of_trial["validation_accuracy"],
            record_of_trial["costs"]["params"],
            record_of_trial["costs"]["macs"],
        ]
    store = open_study(folder)
    for trial in store.trials():
        slim = pretrim.load(folder / "trials" / trial.key)
        assert sum(p.numel() for p in slim.parameters()) == (trial.record or {})["costs"]["params"]
        share = (trial.record or {})["costs"]["macs"] / (trial.record or {})["dense"]["macs"]
        if trial.spec.limit == "macs":
            assert share <= trial.spec.budget_fraction
    # A second sweep has nothing to do.
    before = (folder / "study.db").read_bytes()
    sweep(folder, store)
    assert (folder / "study.db").read_bytes() == before


SCRIPT = """
import sys
from pathlib import Path
from pretrim.study.sweep import open_study, sweep
folder = Path(sys.argv[1])
sweep(folder, open_study(folder), workers=2)
"""
KILLS = 10


def test_kill_9_at_any_moment_loses_nothing(undisturbed: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    """Kill the sweep or one of its workers ten times; every key is then done once, with the undisturbed results."""
    folder, random = tmp_path / "study", Random(0)
    store = make_study(folder, SETTINGS)
    store.add(ASKED)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for kill in range(KILLS):
        process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(folder)], env=environment)
        time.sleep(random.uniform(2.0, 9.0))
        children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
        victims = [process.pid] if kill % 2 == 0 or not children else [int(random.choice(children)), process.pid]
        for victim in victims:
            try:
                os.kill(victim, signal.SIGKILL)
            except ProcessLookupError:
                pass
        process.wait()
    with store.engine.connect() as connection:  # do not count our kills as failed tries
        connection.exec_driver_sql("update pretrim_trials set tries = 0")
    store.retry([trial.key for trial in store.trials() if trial.state == "failed"])
    sweep(folder, open_study(folder), workers=2)
    assert results(store) == undisturbed[1]
    study = optuna.load_study(study_name="study", storage=default_storage(folder))
    keys = [trial.user_attrs.get("key") for trial in study.get_trials()]
    assert len(keys) == len(set(keys)) and set(keys) <= set(undisturbed[1])


def test_two_sweeps_on_one_study_at_once(undisturbed: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder = tmp_path / "study"
    store = make_study(folder, SETTINGS)
    store.add(ASKED)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    sweeps = [subprocess.Popen([sys.executable, "-c", SCRIPT, str(folder)], env=environment) for _ in range(2)]
    assert [process.wait(timeout=300) for process in sweeps] == [0, 0]
    assert results(store) == undisturbed[1]
    study = optuna.load_study(study_name="study", storage=default_storage(folder))
    assert len(study.get_trials()) == len(ASKED)


def test_a_trial_that_raises_does_not_stop_the_others(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    store = make_study(folder, replace(SETTINGS, recipe=replace(SETTINGS.recipe, epochs=1)))
    store.add([TrialSpec("macs", 0.001, "macs"), TrialSpec("macs", 0.5, "macs")])
    sweep(folder, store)
    bad, good = store.trials()
    assert bad.state == "failed" and bad.error is not None
    assert bad.error.startswith("--macs 0.001x (") and "cannot be met; the narrowest network needs" in bad.error
    assert good.state == "done"
    study = optuna.load_study(study_name="study", storage=default_storage(folder))
    assert sorted(trial.state.name for trial in study.get_trials()) == ["COMPLETE", "FAIL"]


def test_any_rounding_step_of_a_trial_is_exported_to_optuna(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    store.add([TrialSpec("macs", 0.5, "macs", round_to=8), TrialSpec("macs", 0.5, "macs", round_to=128)])
    optuna_export = OptunaExport(store, SETTINGS)
    while (trial := store.claim()) is not None:
        store.finish(trial.key, record())
    for trial in store.trials():
        optuna_export.publish(trial)
    assert [trial.params["round_to"] for trial in optuna_export.study.get_trials()] == [8, 128]
    optuna_export.close()


def test_a_search_uses_a_sampler_and_reports_to_it(tmp_path: Path) -> None:
    from pretrim.study.sweep import Search

    folder = tmp_path / "study"
    store = make_study(folder, replace(SETTINGS, recipe=replace(SETTINGS.recipe, epochs=1)))
    sweep(folder, store, search=Search(3))
    trials = store.trials()
    assert 1 <= len(trials) <= 3 and {trial.state for trial in trials} <= {"done", "failed"}
    study = optuna.load_study(study_name="study", storage=default_storage(folder))
    assert len(study.get_trials()) == 3
    assert not study.get_trials(states=(optuna.trial.TrialState.RUNNING,))
    sweep(folder, store, search=Search(3))
    assert len(study.get_trials()) == 3, "asked for again, it is done already"


FULL = """
import resource, sys
from pathlib import Path
from pretrim.errors import PretrimError
from pretrim.study.sweep import open_study, sweep
folder = Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
try:
    sweep(folder, open_study(folder))
except PretrimError as error:
    print(error)
"""


def test_a_full_disk_stops_the_sweep_and_leaves_the_trials_waiting(tmp_path: Path) -> None:
    """Writing weights fails as on a full disk; it is simulated by a limit on file sizes, which needs no root."""
    folder = tmp_path / "study"
    store = make_study(folder, SETTINGS)
    store.add(ASKED[:2])
    result = subprocess.run([sys.executable, "-c", FULL, str(folder)], capture_output=True, text=True, check=True)
    assert result.stdout.startswith("Cannot write ") and result.stdout.count("\n") == 1, result.stdout + result.stderr
    assert "The interrupted trials are queued again: run the same command." in result.stdout
    assert store.counts()["waiting"] == 2 and not list(folder.glob("trials/*/trial.json"))
    sweep(folder, store)
    assert store.counts()["done"] == 2


# ---------------------------------------------------------------------------------------- a shared database


SERVERS: dict[str, list[str]] = {}
"""The command that starts a server, by its address"""


@pytest.fixture(scope="module")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A PostgreSQL server from Debian's packages, started for these tests."""
    bin_folders = sorted(Path("/usr/lib/postgresql").glob("*/bin")) if Path("/usr/lib/postgresql").exists() else []
    if not bin_folders:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    pytest.importorskip("psycopg")
    folder = tmp_path_factory.mktemp("postgresql")
    user = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
    for parent in (folder, *folder.parents[:3]):
        if os.getuid() == 0 and parent.is_relative_to("/tmp") and parent != Path("/tmp"):
            parent.chmod(0o755)
    if user:
        subprocess.run(["chown", "postgres", str(folder)], check=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data = folder / "data"
    initdb = [str(bin_folders[-1] / "initdb"), "-D", str(data), "-A", "trust", "-U", "me", "--no-sync"]
    subprocess.run([*user, *initdb], check=True, capture_output=True)
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    pg_ctl = str(bin_folders[-1] / "pg_ctl")
    url = f"postgresql+psycopg://me@127.0.0.1:{port}/postgres"
    control = [*user, pg_ctl, "-D", str(data)]
    SERVERS[url] = [*control, "-o", options, "-l", str(folder / "log"), "-t", "300", "-w", "start"]
    subprocess.run(SERVERS[url], check=True)
    yield url
    subprocess.run([*control, "-m", "immediate", "stop"], check=False, capture_output=True)  # it may be down already


def restart_server(url: str) -> None:
    """Stop a server as a power cut would, and start it again after a second."""
    start = SERVERS[url]
    subprocess.run([*start[: start.index("-o")], "-m", "immediate", "stop"], check=True, capture_output=True)
    time.sleep(1)
    subprocess.run(start, check=True, stdout=subprocess.DEVNULL)


def test_a_study_in_postgresql(postgresql: str, undisturbed: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    """Two people work on one study, each with their own folder."""
    folders = [tmp_path / "mine", tmp_path / "yours"]
    stores = [make_study(folder, SETTINGS, postgresql, "team") for folder in folders]
    for store in stores:
        store.add(ASKED)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    sweeps = [subprocess.Popen([sys.executable, "-c", SCRIPT, str(folder)], env=environment) for folder in folders]
    assert [process.wait(timeout=300) for process in sweeps] == [0, 0]
    opened = open_study(folders[1])
    assert results(stores[0]) == results(opened) == undisturbed[1]
    runs = [list((folder / "trials").glob("*/run.json")) for folder in folders]
    assert len(runs[0]) + len(runs[1]) == len(ASKED)
    assert "me@127.0.0.1" in (folders[0] / "study.json").read_text()
    optuna_export = OptunaExport(opened, SETTINGS)
    assert len(optuna_export.study.get_trials()) == len(ASKED)
    for connection in (*stores, opened, optuna_export):
        connection.close()


def test_workers_wait_for_a_restart_of_the_database(postgresql: str, tmp_path: Path) -> None:
    """Trials are claimed, stored and published to Optuna while the server stops and is back a second later."""
    store = make_study(tmp_path / "study", SETTINGS, postgresql, "restarted")
    store.add(ASKED)
    optuna_export, finished = OptunaExport(store, SETTINGS), 0
    restart = threading.Thread(target=restart_server, args=(postgresql,))
    while (trial := store.claim()) is not None:
        if finished == 2:
            restart.start()
            time.sleep(0.5)
        assert store.advance(trial.key) and store.finish(trial.key, record())
        optuna_export.publish(next(other for other in store.trials() if other.key == trial.key))
        finished += 1
    restart.join()
    assert store.counts()["done"] == finished == len(ASKED) == len(optuna_export.study.get_trials())
    optuna_export.close()
    store.close()
    with pytest.raises(StudyError, match="Cannot use the database"):
        Store("postgresql+psycopg://me@127.0.0.1:1/none", "study").config()  # never connected, so it is not waited for
