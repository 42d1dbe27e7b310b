"""A study under every sequence of changes: no trial is lost, Optuna and the table agree, and no path leads outside."""

import os
import shutil
import signal
import sqlite3
import tempfile
import time
from collections import Counter
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule
from optuna.trial import TrialState
from test_study import ASKED, EXECUTION, SETTINGS, record, store_at

from pretrim.errors import StudyError
from pretrim.runs.owner import machine
from pretrim.study.folders import TRIALS, trial_folder
from pretrim.study.optuna_export import OptunaExport
from pretrim.study.rows import FINISHED, Trial
from pretrim.study.settings import StudyConfig, TrialSpec, key_of
from pretrim.study.store import MOST_TRIES, Finished, Store
from pretrim.study.sweep import default_storage, make_study, open_study
from pretrim.study.worker import work
from pretrim.train import Recipe

# ---------------------------------------------------------------------------------------- table and Optuna


class Changes(RuleBasedStateMachine):
    """Two processes and a third that dies work on one study; a model of every trial predicts its state."""

    keys: Bundle[str] = Bundle("keys")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        shutil.copy(EMPTY / "study.db", self.folder)
        self.stores = [Store(default_storage(self.folder), "study") for _ in range(2)]
        self.export = OptunaExport(self.stores[0], SETTINGS)
        self.finished = Finished(self.stores[0])
        self.seen: list[str] = []
        self.states: dict[str, str] = {}
        self.owners: dict[str, int] = {}
        self.deaths: dict[str, int] = {}

    def teardown(self) -> None:
        self.export.close()
        for store in self.stores:
            store.close()
        shutil.rmtree(self.folder)

    @rule(target=keys, specs=st.lists(st.sampled_from(ASKED), min_size=1, max_size=3))
    def add(self, specs: list[TrialSpec]) -> object:
        added = self.stores[0].add(specs)
        for key in added:
            self.states.setdefault(key, "waiting")
            self.deaths.setdefault(key, 0)
        return multiple(*added)

    @rule(target=keys)
    def search(self) -> object:
        spec, number = self.export.suggest(0)
        if key_of(SETTINGS, spec) in self.states:
            self.export.forget(number)
            return multiple()
        (key,) = self.stores[0].add([spec], optuna=number)
        self.states[key], self.deaths[key] = "waiting", 0
        return key

    @rule(process=st.sampled_from([0, 1]))
    def claim(self, process: int) -> None:
        trial = self.stores[process].claim()
        for key, count in self.deaths.items():
            if self.states[key] == "dead" and count >= MOST_TRIES:
                self.states[key] = "failed"
        if trial is None:
            assert not any(state in ("waiting", "dead") for state in self.states.values())
            return
        assert self.states[trial.key] in ("waiting", "dead")
        self.states[trial.key], self.owners[trial.key] = "running", process

    @rule(key=keys, process=st.sampled_from([0, 1]), accuracy=st.sampled_from([0.25, 1.0]))
    def finish(self, key: str, process: int, accuracy: float) -> None:
        owned = self.owns(key, process)
        assert self.stores[process].finish(key, record(accuracy)) == owned
        self.states[key] = "done" if owned else self.states[key]

    @rule(key=keys, process=st.sampled_from([0, 1]))
    def fail(self, key: str, process: int) -> None:
        owned = self.owns(key, process)
        assert self.stores[process].fail(key, "it broke") == owned
        self.states[key] = "failed" if owned else self.states[key]

    @rule(key=keys, process=st.sampled_from([0, 1]))
    def release(self, key: str, process: int) -> None:
        self.stores[process].release(key)
        if self.owns(key, process):
            self.states[key] = "waiting"

    @rule(key=keys, process=st.sampled_from([0, 1]))
    def advance(self, key: str, process: int) -> None:
        assert self.stores[process].advance(key) == self.owns(key, process)
        if self.owns(key, process):
            self.deaths[key] = 0

    @rule(key=keys)
    def die(self, key: str) -> None:
        """The process of a running trial is killed."""
        if self.states[key] != "running":
            return
        with closing(sqlite3.connect(self.folder / "study.db", isolation_level=None)) as database:
            owner = f"{machine()}:999999999:dead"
            database.execute("update pretrim_trials set owner = ? where key = ?", (owner, key))
        self.states[key], self.deaths[key] = "dead", self.deaths[key] + 1

    @rule(key=keys)
    def retry(self, key: str) -> None:
        failed = self.states[key] == "failed"
        assert self.stores[1].retry([key]) == int(failed)
        if failed:
            self.states[key], self.deaths[key] = "waiting", 0

    @rule(key=keys, exported=st.booleans())
    def die_while_publishing(self, key: str, exported: bool) -> None:
        trial = self.trials()[key]
        if trial.state in FINISHED and not trial.published and self.stores[1].publish(key) and exported:
            self.export._tell(trial)

    @rule()
    def sweep_again(self) -> None:
        """What a sweep does when it starts and at every check; afterwards the table and Optuna agree."""
        self.export.reconcile()
        for trial in self.trials().values():
            self.export.publish(trial)
        exported = [(entry.user_attrs.get("key"), entry.state) for entry in self.export.study.get_trials()]
        complete = Counter(key for key, state in exported if state == TrialState.COMPLETE)
        failed = {key for key, state in exported if state == TrialState.FAIL}
        assert complete == Counter(key for key, state in self.states.items() if state == "done")
        assert {key for key, state in self.states.items() if state == "failed"} <= failed

    @invariant()
    def the_table_matches_the_model(self) -> None:
        actual = {key: trial.state for key, trial in self.trials().items()}
        assert actual == {key: "running" if state == "dead" else state for key, state in self.states.items()}
        self.seen += [trial.key for trial in self.finished.new()]
        finished = {key for key, state in self.states.items() if state in FINISHED}
        assert finished <= set(self.seen) and len(self.seen) == len(set(self.seen)) == len(self.finished)

    def owns(self, key: str, process: int) -> bool:
        return self.states[key] == "running" and self.owners[key] == process

    def trials(self) -> dict[str, Trial]:
        return {trial.key: trial for trial in self.stores[0].trials()}


EMPTY = Path()


@pytest.fixture(scope="module", autouse=True)
def empty_study(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Creating Optuna's tables takes most of a second, so they are created once and copied."""
    global EMPTY
    EMPTY = tmp_path_factory.mktemp("empty")
    OptunaExport(store_at(EMPTY), SETTINGS).close()


quick = settings(
    max_examples=15,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.reuse, Phase.generate),  # every example opens a database, so shrinking would take minutes
)
TestChanges = Changes.TestCase
TestChanges.settings = quick


def test_a_retried_trial_reaches_optuna(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    (key,) = store.add(ASKED[:1])
    export = OptunaExport(store, SETTINGS)
    for end in (lambda: store.fail(key, "no luck"), lambda: store.finish(key, record(0.5))):
        assert store.claim() is not None and end()
        export.publish(store.trials()[0])
        store.retry([key])
    assert [trial.state.name for trial in export.study.get_trials()] == ["FAIL", "COMPLETE"]
    export.close()


# ---------------------------------------------------------------------------------------- killed while it advances

NET = """
from torch import nn

def build(num_classes=10, in_channels=1):
    return nn.Sequential(nn.Conv2d(in_channels, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, num_classes))
"""
KILLS = 20


@pytest.mark.filterwarnings("ignore:os.fork")  # JAX warns of it if another test of this process has imported it
def test_a_trial_that_is_killed_repeatedly_but_advances_is_completed(tmp_path: Path) -> None:
    """Real processes, each killed by SIGKILL once it has finished another epoch."""
    (tmp_path / "net.py").write_text(NET)
    recipe = Recipe(epochs=5 * KILLS, batch_size=64, learning_rate=0.01, recalibration=0)
    shared = StudyConfig(f"{tmp_path}/net.py:build", "digits", (1, 8, 8), 100, recipe, EXECUTION)
    folder, warm_up_folder = tmp_path / "study", tmp_path / "before"
    spec = TrialSpec("params", 0.5, "params", round_to=1)
    warm_up = make_study(warm_up_folder, replace(shared, recipe=replace(recipe, epochs=1)))
    warm_up.add([spec])
    # A first study, so that everything a worker imports is loaded before the forks.
    work(warm_up_folder, warm_up.url, warm_up.name, os.getppid())
    store = make_study(folder, shared)
    (key,) = store.add([spec])
    log, epochs = folder / TRIALS / key / "log.jsonl", 0
    for _ in range(KILLS):
        child = start_worker(folder, store)
        # The table is updated after the log: once the log has two more epochs, the table has at least one more.
        while (now := len(log.read_text().splitlines()) if log.exists() else 0) < epochs + 2:
            assert os.waitpid(child, os.WNOHANG) == (0, 0), "it ended of itself"
            time.sleep(0.001)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        epochs = now
    assert os.waitpid(start_worker(folder, store), 0)[1] == 0
    (trial,) = store.trials()
    assert trial.state == "done", trial.error
    assert len((trial.record or {})["epochs"]) == 5 * KILLS
    assert not [entry.name for entry in log.parent.iterdir() if entry.name.endswith(".tmp")]


def start_worker(folder: Path, store: Store) -> int:
    """Start a worker in a process of its own and return its id."""
    parent, child = os.getpid(), os.fork()
    if child:
        return child
    try:
        work(folder, store.url, store.name, parent)
        os._exit(0)
    finally:
        os._exit(1)


# ---------------------------------------------------------------------------------------- damaged rows and folders


@pytest.mark.parametrize("key", ["../../outside", "/tmp/outside", "0123456789abcdef", "ABCDEF0123456789", "..", ""])
def test_a_row_whose_key_does_not_match_its_trial_is_never_run(tmp_path: Path, key: str) -> None:
    folder = tmp_path / "study"
    store = make_study(folder, SETTINGS)
    good, bad = store.add(ASKED[:2])
    with closing(sqlite3.connect(folder / "study.db", isolation_level=None)) as database:
        database.execute("update pretrim_trials set key = ?, number = -1 where key = ?", (key, bad))
    assert [trial.key for trial in store.trials()] == [good] and set(store.damaged) == {key}
    claimed = store.claim()
    assert claimed is not None and claimed.key == good and store.claim() is None
    assert store.counts()["failed"] == 1
    assert not (tmp_path / "outside").exists() and not Path("/tmp/outside").exists()
    with pytest.raises(StudyError, match=r"^The trial .* would be outside of .*trials: the study is damaged"):
        trial_folder(folder, "../../outside")


def test_a_trial_folder_that_links_elsewhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "study" / "trials").mkdir(parents=True)
    (tmp_path / "study" / "trials" / "0123456789abcdef").symlink_to(tmp_path)
    with pytest.raises(StudyError, match="would be outside of"):
        trial_folder(tmp_path / "study", "0123456789abcdef")


def test_one_damaged_row_does_not_make_a_study_unreadable(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    keys = store.add(ASKED)
    for _ in keys:
        trial = store.claim()
        assert trial is not None and store.finish(trial.key, record())
    nested = "[" * 100_000
    damage = ["{}", nested, '{"costs": {"params": true}}', f'{{"epochs": {"1" * 5000}}}', "NaN", "\x1b[31m", None]
    with closing(sqlite3.connect(tmp_path / "study.db", isolation_level=None)) as database:
        for key, text in zip(keys[1:], damage, strict=False):
            database.execute("update pretrim_trials set record = ? where key = ?", (text, key))
    good, *others = store.trials()
    assert good.state == "done" and {trial.state for trial in others} == {"failed"}
    assert all(trial.error and "\n" not in trial.error and trial.error.isprintable() for trial in others)
    assert store.retry(keys) == len(others)


def test_settings_of_earlier_versions_with_fewer_entries_are_read(tmp_path: Path) -> None:
    """The keys of their trials are computed from the settings as stored."""
    store = store_at(tmp_path)
    entries = SETTINGS.to_json()
    del entries["recipe"]["recalibration"]
    with closing(sqlite3.connect(tmp_path / "study.db", isolation_level=None)) as database:
        import json

        database.execute("update pretrim_studies set settings = ?", (json.dumps(entries, sort_keys=True),))
    reopened = Store(store.url, "study")
    (key,) = reopened.add(ASKED[:1])
    assert key != key_of(SETTINGS, ASKED[0]) and [trial.key for trial in reopened.trials()] == [key]
    assert reopened.config() == SETTINGS


PRINTABLE = "".join(chr(code) for code in range(32, 127) if chr(code) not in "/")


@pytest.mark.parametrize(
    "name", [PRINTABLE, "a?b", "a%20b", "a#b&c=d", "{SCHEMA}", "größe 模型", "%s%(x)s", "-o", "a:b@c"]
)
def test_a_study_may_be_in_a_folder_of_any_name(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name / "study"
    store = make_study(folder, SETTINGS)
    store.add(ASKED[:1])
    export = OptunaExport(store, SETTINGS)
    export.close()
    store.close()
    assert [trial.spec for trial in open_study(folder).trials()] == ASKED[:1]
    assert [entry.name for entry in tmp_path.iterdir()] == [name]
    assert sorted(entry.name for entry in folder.iterdir()) == ["logs", "study.db", "study.json", "trials"]


def test_reading_creates_no_file_and_a_failed_creation_leaves_none(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="No study called study in "):
        Store(f"sqlite:///{tmp_path}/missing.db", "study").config()
    for url in ("postgresql+psycopg://me@127.0.0.1:1/none", "sqlite:////proc/none/study.db", "nonsense"):
        with pytest.raises(StudyError):
            make_study(tmp_path / "new" / "study", SETTINGS, url)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    int8_settings = replace(SETTINGS, dtype="int8")
    make_study(tmp_path / "mine", SETTINGS)
    with pytest.raises(StudyError, match="the study's own dtype"):
        make_study(tmp_path / "mine", int8_settings)
    assert (tmp_path / "mine" / "study.json").exists()
