"""Run a study's trials: create or open its folder, run the worker processes, and report progress."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from pretrim import records
from pretrim.errors import PretrimError, StudyError
from pretrim.files import write_text

from .database import sqlite_url, without_password
from .folders import TRIALS
from .inputs import TrialInputs
from .optuna_export import OptunaExport
from .progress import Running, running
from .rows import Trial
from .settings import StudyConfig
from .store import Finished, Store
from .worker import MACHINE_AT_FAULT, NoLonger, run_claimed

FORMAT, VERSION = "pretrim-study", 1
RECORD, DATABASE, LOGS = "study.json", "study.db", "logs"
LOOK_EVERY_S = 0.25
"""Seconds between two looks at the workers and the table."""


@dataclass(frozen=True)
class Status:
    """The progress of a sweep.

    Attributes:
        counts: number of trials in each state.
        finished: trials that finished since the last status.
        seconds: time since this sweep began.
        left: number of waiting and running trials, plus suggestions still to come.
        running: trials that are being trained, with their progress.
    """

    counts: dict[str, int]
    finished: tuple[Trial, ...]
    seconds: float
    left: int
    running: tuple[Running, ...] = ()


@dataclass
class Search:
    """A sampler's suggestions, requested as workers become free.

    Attributes:
        count: total number of suggestions.
        seed: seed of each trial.
        made: number of suggestions made so far.
    """

    count: int
    seed: int = 0
    made: int = field(default=0, init=False)


@dataclass(frozen=True)
class _Described:
    """Contents of ``study.json``."""

    name: str
    storage: str | None = None


def open_study(folder: Path, storage: str | None = None, name: str | None = None) -> Store:
    """Open the study in a folder. Raises StudyError if there is none.

    Args:
        folder: the study's folder.
        storage: URL of its database; None for the one that ``study.json`` names.
        name: the study's name in the database; None for the one in ``study.json``.
    """
    file = folder / RECORD
    try:
        text = file.read_bytes()
    except FileNotFoundError as error:
        raise StudyError(f"No study in {folder} (it has no {RECORD}): make one with `pretrim sweep`.") from error
    except OSError as error:
        raise StudyError(f"Cannot read {RECORD} of the study in {folder} ({error.strerror}).") from error
    remedy = "take a copy of the study"
    plain = records.load(text, source=file, error=StudyError, remedy=remedy)
    records.check_header(plain, FORMAT, VERSION, source=file, error=StudyError)
    description = records.convert(plain, _Described, source=file, error=StudyError, remedy=remedy)
    return Store(storage or description.storage or default_storage(folder), name or description.name)


def default_storage(folder: Path) -> str:
    """URL of the SQLite file in the study's folder."""
    return sqlite_url(folder / DATABASE)


def make_study(folder: Path, settings: StudyConfig, storage: str | None = None, name: str | None = None) -> Store:
    """Create a study in a folder, or open the existing one if its settings are the same.

    Args:
        folder: for the runs, the logs and, unless `storage` is given, the database.
        settings: settings that all trials share.
        storage: SQLAlchemy URL of a database. Its password is not stored in the folder.
        name: the study's name in the database; by default the folder's name.

    Raises StudyError if the folder holds something else, or the study has other settings.
    """
    file = folder / RECORD
    is_new = check_study_folder(folder)
    if file.exists():
        existing = open_study(folder, storage, name)
        name = existing.name
        storage = existing.url if storage is None and existing.url != default_storage(folder) else storage
    store = Store(storage or default_storage(folder), name or folder.resolve().name)
    try:
        if storage is None:
            folder.mkdir(parents=True, exist_ok=True)
        store.create(settings)  # first, so that an unusable database leaves no folder behind
        (folder / TRIALS).mkdir(parents=True, exist_ok=True)
        (folder / LOGS).mkdir(exist_ok=True)
        if not file.exists():
            url = None if storage is None else without_password(storage)
            plain = {"format": FORMAT, "version": VERSION, "name": store.name, "storage": url}
            write_text(file, json.dumps(plain, indent=2) + "\n")
    except OSError as error:
        raise StudyError(f"Cannot write the study to {folder}: {error.strerror}.") from error
    finally:
        if is_new and not file.exists():
            shutil.rmtree(folder, ignore_errors=True)
    return store


def check_study_folder(folder: Path) -> bool:
    """Check that a folder can hold a study, before any work is done; returns whether it does not exist yet.

    Raises StudyError if it cannot.
    """
    file = folder / RECORD
    try:
        exists, is_folder = folder.exists() or folder.is_symlink(), folder.is_dir()
        if exists and not is_folder:
            raise StudyError(f"{folder} is a file: choose a folder for the study.")
        if is_folder and not file.exists() and any(folder.iterdir()):
            raise StudyError(f"{folder} holds other files than a study: choose another.")
    except OSError as error:
        raise StudyError(f"Cannot write the study to {folder}: {error.strerror}.") from error
    return not exists


def sweep(
    folder: Path,
    store: Store,
    *,
    workers: int = 1,
    search: Search | None = None,
    on_status: Callable[[Status], None] = lambda status: None,
) -> None:
    """Run workers until every trial is finished. A sweep can be stopped at any moment and started again.

    Args:
        folder: the study's folder.
        store: its trials.
        workers: number of processes on this machine; they are spread over its GPUs, one GPU each.
        search: a sampler's suggestions to run beside the trials that are queued already.
        on_status: called with the progress about four times a second, and at the end.

    Raises:
        StudyError: the database cannot be used.
        PretrimError: the machine is at fault, for example a full disk; running trials wait again and nothing is lost.
    """
    _Sweep(folder, store, workers, search, on_status).run()


def sweep_here(
    folder: Path,
    store: Store,
    inputs: TrialInputs,
    *,
    on_status: Callable[[Status], None] = lambda status: None,
) -> None:
    """Like `sweep`, but in this process, one trial at a time: for networks and data that no other process can open.

    Args:
        folder: the study's folder.
        store: its trials.
        inputs: the network and the data.
        on_status: called with the progress before, during and after each trial.

    Raises:
        StudyError, PretrimError: as for `sweep`.
        KeyboardInterrupt: a signal stopped the sweep; the running trial waits again and keeps its training state.
    """
    state = _Sweep(folder, store, 1, None, on_status)
    last_shown = [time.monotonic()]

    def show_status() -> None:
        if time.monotonic() - last_shown[0] > LOOK_EVERY_S:
            on_status(state.look())
            last_shown[0] = time.monotonic()

    try:
        on_status(state.look())
        while (trial := store.claim()) is not None:
            try:
                run_claimed(folder, store, store.config(), trial, lambda: inputs, lambda: False, show_status)
            except NoLonger:
                raise KeyboardInterrupt from None
            on_status(state.look())
    finally:
        state.mirror.close()


class _Sweep:
    """A sweep in progress: its worker processes, the Optuna export and the trials reported so far."""

    def __init__(
        self,
        folder: Path,
        store: Store,
        workers: int,
        search: Search | None,
        on_status: Callable[[Status], None],
    ) -> None:
        self.folder, self.store, self.workers, self.search, self.on_status = folder, store, workers, search, on_status
        self.mirror = OptunaExport(store, store.config())
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        self.mirror.reconcile()
        self.started = time.monotonic()
        self.finished = Finished(store)

    def run(self) -> None:
        self._close_suggestions()
        try:
            while True:
                self._suggest()
                status = self.look()
                self.on_status(status)
                if not status.left:
                    return
                self._reap()
                self._start(status)
                time.sleep(LOOK_EVERY_S)
        finally:
            self._stop()
            self.mirror.close()

    def look(self) -> Status:
        """Publish newly finished trials to Optuna and return the current status."""
        counts, finished = self.store.counts(), self.finished.new()
        for trial in finished:
            self.mirror.publish(trial)
        left = counts["waiting"] + counts["running"]
        if self.search is not None:
            left += self.search.count - self.search.made
        return Status(
            {str(state): count for state, count in counts.items()},
            tuple(finished),
            time.monotonic() - self.started,
            left,
            tuple(running(self.store)) if counts["running"] else (),
        )

    def _close_suggestions(self) -> None:
        """Close Optuna's suggestions that have no row in the table: a process died between the two writes."""
        if self.search is None:
            return
        numbers = self.store.suggested()
        self.search.made = len(numbers)
        for number in self.mirror.open_numbers():
            if number not in numbers:
                self.mirror.forget(number)

    def _suggest(self) -> None:
        """Ask for a suggestion per free worker, no earlier, so that the sampler learns from all finished trials."""
        if self.search is None:
            return
        counts = self.store.counts()
        busy = counts["waiting"] + counts["running"]
        while self.search.made < self.search.count and busy < self.workers:
            spec, number = self.mirror.suggest(self.search.seed)
            total = sum(self.store.counts().values())
            self.store.add([spec], optuna=number)
            self.search.made += 1
            if sum(self.store.counts().values()) == total:  # a duplicate: its result is known, or will be
                self.mirror.forget(number)
            else:
                busy += 1

    # ------------------------------------------------------------------------------------ processes

    def _start(self, status: Status) -> None:
        """Start workers while there are trials for them. A worker that dies is replaced."""
        waiting = status.counts["waiting"] + status.counts["running"] - len(self.processes)
        for index in range(self.workers):
            if waiting > 0 and index not in self.processes:
                self.processes[index] = self._start_worker(index)
                waiting -= 1

    def _start_worker(self, index: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "pretrim.study.worker", "--folder", str(self.folder)]
        command += ["--storage", self.store.url, "--name", self.store.name, "--parent", str(os.getpid())]
        environment = dict(os.environ)
        gpus = torch.cuda.device_count()
        if gpus:
            environment["CUDA_VISIBLE_DEVICES"] = str(index % gpus)
        with self._log(index).open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, env=environment)

    def _log(self, index: int) -> Path:
        return self.folder / LOGS / f"worker-{index}.log"

    def _reap(self) -> None:
        """Remove workers that have ended. Raises PretrimError if the machine is at fault or a worker did not start."""
        for index, process in list(self.processes.items()):
            code = process.poll()
            if code is None:
                continue
            del self.processes[index]
            if code == MACHINE_AT_FAULT:
                message = _last_line(self._log(index))
                raise PretrimError(f"{message} The interrupted trials are queued again: run the same command.")
            if code == 1:
                # The worker failed before it claimed a trial, so no trial can record the error.
                raise PretrimError(f"A worker did not start: {_last_line(self._log(index))}")

    def _stop(self) -> None:
        """Terminate the workers; each saves its training state first."""
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()


def _last_line(log: Path) -> str:
    """The last line of a log that is not empty, or a reference to the log."""
    try:
        lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    except OSError:
        lines = []
    return lines[-1][:500] if lines else f"see {log}."
