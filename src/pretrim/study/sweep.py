"""Run a study's trials: worker processes, what becomes of them, and what is known so far."""

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
from .inputs import TrialInputs
from .optuna_export import OptunaExport
from .places import TRIALS
from .progress import Running, running
from .rows import Trial
from .settings import StudyConfig
from .store import Finished, Store
from .worker import MACHINE_AT_FAULT, NoLonger, run_claimed

FORMAT, VERSION = "pretrim-study", 1
RECORD, DATABASE, LOGS = "study.json", "study.db", "logs"
LOOK_EVERY_S = 0.25


@dataclass(frozen=True)
class Status:
    """Where a sweep is.

    Attributes:
        counts: trials in each state.
        finished: what has finished since the last call.
        seconds: since this sweep began.
        left: trials that wait or run, with suggestions still to come.
        running: trials that are being trained, and where they are.
    """

    counts: dict[str, int]
    finished: tuple[Trial, ...]
    seconds: float
    left: int
    running: tuple[Running, ...] = ()


@dataclass
class Search:
    """Suggestions of a sampler, as workers become free.

    Attributes:
        count: how many in all.
        seed: of each trial.
    """

    count: int
    seed: int = 0
    made: int = field(default=0, init=False)


@dataclass(frozen=True)
class _Described:
    """``study.json``."""

    name: str
    storage: str | None = None


def open_study(folder: Path, storage: str | None = None, name: str | None = None) -> Store:
    """The study of a folder. Raises StudyError if there is none.

    Args:
        folder: of the study.
        storage: its database; None: the one that the folder names.
        name: in the database; likewise.
    """
    record = folder / RECORD
    try:
        text = record.read_bytes()
    except FileNotFoundError as error:
        raise StudyError(f"No study in {folder} (it has no {RECORD}): make one with `pretrim sweep`.") from error
    except OSError as error:
        raise StudyError(f"Cannot read {RECORD} of the study in {folder} ({error.strerror}).") from error
    mend = "take a copy of the study"
    plain = records.load(text, source=record, error=StudyError, mend=mend)
    records.check_header(plain, FORMAT, VERSION, source=record, error=StudyError)
    known = records.convert(plain, _Described, source=record, error=StudyError, mend=mend)
    return Store(storage or known.storage or default_storage(folder), name or known.name)


def default_storage(folder: Path) -> str:
    """SQLite in the study's folder."""
    return sqlite_url(folder / DATABASE)


def make_study(folder: Path, settings: StudyConfig, storage: str | None = None, name: str | None = None) -> Store:
    """Make a study in a folder, or open the one that is there, if it is the same.

    Args:
        folder: for runs, logs and, without a storage, the database.
        settings: what all trials share.
        storage: a database's address as SQLAlchemy writes it. Its password is not kept in the folder.
        name: of the study in the database; by default the folder's.

    Raises StudyError if the folder holds something else, or the study has other settings.
    """
    record = folder / RECORD
    is_new = check_study_folder(folder)
    if record.exists():
        known = open_study(folder, storage, name)
        name = known.name
        storage = known.url if storage is None and known.url != default_storage(folder) else storage
    store = Store(storage or default_storage(folder), name or folder.resolve().name)
    try:
        if storage is None:
            folder.mkdir(parents=True, exist_ok=True)
        store.create(settings)  # a database that cannot be used leaves no folder
        (folder / TRIALS).mkdir(parents=True, exist_ok=True)
        (folder / LOGS).mkdir(exist_ok=True)
        if not record.exists():
            url = None if storage is None else without_password(storage)
            plain = {"format": FORMAT, "version": VERSION, "name": store.name, "storage": url}
            write_text(record, json.dumps(plain, indent=2) + "\n")
    except OSError as error:
        raise StudyError(f"Cannot write the study to {folder}: {error.strerror}.") from error
    finally:
        if is_new and not record.exists():
            shutil.rmtree(folder, ignore_errors=True)
    return store


def check_study_folder(folder: Path) -> bool:
    """Raises StudyError, before any work, for a folder that cannot become a study's; whether it is yet to be made."""
    record = folder / RECORD
    try:
        is_there, is_folder = folder.exists() or folder.is_symlink(), folder.is_dir()
        if is_there and not is_folder:
            raise StudyError(f"{folder} is a file: choose a folder for the study.")
        if is_folder and not record.exists() and any(folder.iterdir()):
            raise StudyError(f"{folder} holds other files than a study: choose another.")
    except OSError as error:
        raise StudyError(f"Cannot write the study to {folder}: {error.strerror}.") from error
    return not is_there


def sweep(
    folder: Path,
    store: Store,
    *,
    workers: int = 1,
    search: Search | None = None,
    on_status: Callable[[Status], None] = lambda status: None,
) -> None:
    """Work until every trial is finished. It can be stopped at any moment, and started again.

    Args:
        folder: of the study.
        store: its trials.
        workers: processes on this machine; with GPUs each gets one of its own.
        search: suggestions to make beside what was asked for.
        on_status: is told where it is, about four times a second, and at the end.

    Raises:
        StudyError: the database cannot be used.
        PretrimError: the machine is at fault, say a full disk: what was running waits, nothing is lost.
    """
    _Sweep(folder, store, workers, search, on_status).run()


def sweep_here(
    folder: Path,
    store: Store,
    inputs: TrialInputs,
    *,
    on_status: Callable[[Status], None] = lambda status: None,
) -> None:
    """The same in this process, one trial after another: for networks and data that no other process can open.

    Args:
        folder: of the study.
        store: its trials.
        inputs: the network and the data.
        on_status: is told where it is, before and after each trial, and in it.

    Raises:
        StudyError, PretrimError: as `sweep`.
        KeyboardInterrupt: a signal stopped it; the trial that was running waits, with its state.
    """
    seen = _Sweep(folder, store, 1, None, on_status)
    shown = [time.monotonic()]

    def show() -> None:
        if time.monotonic() - shown[0] > LOOK_EVERY_S:
            on_status(seen.look())
            shown[0] = time.monotonic()

    try:
        on_status(seen.look())
        while (trial := store.claim()) is not None:
            try:
                run_claimed(folder, store, store.config(), trial, lambda: inputs, lambda: False, show)
            except NoLonger:
                raise KeyboardInterrupt from None
            on_status(seen.look())
    finally:
        seen.mirror.close()


class _Sweep:
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
        """Tell Optuna what is finished, and count."""
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
        """Suggestions that no row of ours follows were lost between two writes."""
        if self.search is None:
            return
        numbers = self.store.suggested()
        self.search.made = len(numbers)
        for number in self.mirror.open_numbers():
            if number not in numbers:
                self.mirror.forget(number)

    def _suggest(self) -> None:
        """As many as there are free workers: what is finished by then, a sampler can learn from."""
        if self.search is None:
            return
        counts = self.store.counts()
        busy = counts["waiting"] + counts["running"]
        while self.search.made < self.search.count and busy < self.workers:
            asked, number = self.mirror.suggest(self.search.seed)
            before = sum(self.store.counts().values())
            self.store.add([asked], optuna=number)
            self.search.made += 1
            if sum(self.store.counts().values()) == before:  # asked for before: its result is known, or soon is
                self.mirror.forget(number)
            else:
                busy += 1

    # ------------------------------------------------------------------------------------ processes

    def _start(self, status: Status) -> None:
        """Start workers while there is something for them to do. One that dies is started again."""
        waiting = status.counts["waiting"] + status.counts["running"] - len(self.processes)
        for place in range(self.workers):
            if waiting > 0 and place not in self.processes:
                self.processes[place] = self._worker(place)
                waiting -= 1

    def _worker(self, place: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "pretrim.study.worker", "--folder", str(self.folder)]
        command += ["--storage", self.store.url, "--name", self.store.name, "--parent", str(os.getpid())]
        environment = dict(os.environ)
        gpus = torch.cuda.device_count()
        if gpus:
            environment["CUDA_VISIBLE_DEVICES"] = str(place % gpus)
        with self._log(place).open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, env=environment)

    def _log(self, place: int) -> Path:
        return self.folder / LOGS / f"worker-{place}.log"

    def _reap(self) -> None:
        """Workers that have ended. Raises PretrimError where the machine is at fault."""
        for place, process in list(self.processes.items()):
            code = process.poll()
            if code is None:
                continue
            del self.processes[place]
            if code == MACHINE_AT_FAULT:
                said = _last_line(self._log(place))
                raise PretrimError(f"{said} The trials that were running wait: run the same command again.")
            if code == 1:
                # Not in a trial: before one was claimed, say while the network was built.
                raise PretrimError(f"A worker did not start: {_last_line(self._log(place))}")

    def _stop(self) -> None:
        """End the workers; each saves its state first."""
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()


def _last_line(log: Path) -> str:
    try:
        lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    except OSError:
        lines = []
    return lines[-1][:500] if lines else f"see {log}."
