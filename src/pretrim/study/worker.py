"""A worker process, which runs a study's trials one at a time until none is left: ``python -m pretrim.study.worker``.

It is a separate process so that a crash in a kernel loses one trial, not the sweep. Exit codes: 0, nothing is left to
do; 3, the machine is at fault (a full disk, the database) and the trial was given back.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pretrim.train import Progress

    from .inputs import TrialInputs
    from .progress import Teller
    from .rows import Trial
    from .settings import StudyConfig
    from .store import Finished, Store

MACHINE_AT_FAULT = 3
"""Exit code for errors of the machine."""


class NoLonger(BaseException):
    """Raised to stop working on a trial: the parent is gone, another process took the trial over, or a signal came."""


def main(arguments: list[str] | None = None) -> int:
    """Work until no trial is left and return the exit code. An error is printed as the last line on stderr."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--storage", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--parent", type=int, required=True)
    options = parser.parse_args(arguments)

    from pretrim.errors import PretrimError

    try:
        work(options.folder, options.storage, options.name, options.parent)
    except NoLonger:
        return 0
    except (PretrimError, OSError) as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return MACHINE_AT_FAULT
    return 0


def work(folder: Path, storage: str, name: str, parent: int) -> None:
    """Claim, run and record trials until none is left or the parent process is gone.

    Args:
        folder: the study's folder.
        storage: URL of its database.
        name: the study's name in the database.
        parent: id of the parent process; this process ends when it does.
    """
    from .inputs import open_inputs
    from .store import Store

    store = Store(storage, name, is_known=True)
    config = store.config()
    inputs: list[TrialInputs] = []

    def cached_inputs() -> TrialInputs:
        if not inputs:
            inputs.append(open_inputs(config))
        return inputs[0]

    while os.getppid() == parent and (trial := store.claim()) is not None:
        print(f"trial {trial.number}: {trial.spec.name}, seed {trial.spec.seed}", file=sys.stderr, flush=True)
        run_claimed(folder, store, config, trial, cached_inputs, lambda: os.getppid() != parent)


def run_claimed(
    folder: Path,
    store: Store,
    config: StudyConfig,
    trial: Trial,
    inputs: Callable[[], TrialInputs],
    is_orphaned: Callable[[], bool],
    on_step: Callable[[], None] = lambda: None,
) -> None:
    """Run a trial that this process has claimed, and record its outcome.

    Args:
        folder: the study's folder.
        store: its trials.
        config: its settings.
        trial: the claimed trial.
        inputs: returns the network and the data; its errors count as failures of the trial.
        is_orphaned: returns whether the parent process is gone.
        on_step: called after each training step.

    Raises:
        NoLonger: the trial was given back because the parent is gone, another process took it over, or a signal came.
        PretrimError, OSError: the machine is at fault; the trial was given back.
    """
    from pretrim.errors import PretrimError
    from pretrim.train import Interrupted

    from .folders import trial_folder
    from .progress import Teller
    from .store import Finished
    from .trial import Stopped, run_trial

    rivals = Finished(store)
    done: list[tuple[dict[str, int], list[float]]] = []

    def on_epoch(spent: dict[str, int], curve: tuple[float, ...]) -> None:
        store.advance(trial.key)
        if config.stop_hopeless and is_outdone(rivals, done, spent, curve, config.recipe.epochs):
            raise Stopped(spent, curve)

    teller = Teller(store, trial.key)
    with _beating(store, trial.key, teller) as lost:

        def after_step(progress: Progress) -> None:
            if lost.is_set() or is_orphaned():
                raise NoLonger
            teller.on_step(progress)
            on_step()

        try:
            run = trial_folder(folder, trial.key)
            store.finish(trial.key, run_trial(config, inputs(), trial.spec, run, on_step=after_step, on_epoch=on_epoch))
        except Stopped as stopped:
            store.finish(trial.key, _record_until_stopped(config, *stopped.args), "stopped")
        except (NoLonger, Interrupted, KeyboardInterrupt):
            store.release(trial.key)
            raise NoLonger from None
        except Exception as error:
            if is_the_machine(error):
                store.release(trial.key)
                raise
            traceback.print_exc()
            text = str(error) if isinstance(error, PretrimError) else f"{type(error).__name__}: {error}"
            store.fail(trial.key, " ".join(text.split()))


def _record_until_stopped(config: StudyConfig, spent: dict[str, int], curve: tuple[float, ...]) -> dict[str, Any]:
    """The record of a trial that was stopped early: its plan's costs and its scores so far."""
    return {
        "costs": spent,
        "metric": config.metric.to_json(),
        f"validation_{config.metric.name}": curve[-1],
        "epochs": [[None, None, value] for value in curve],
    }


@contextmanager
def _beating(store: Store, key: str, teller: Teller) -> Iterator[threading.Event]:
    """Send heartbeats and progress every few seconds; the yielded event is set once the trial is no longer ours."""
    from pretrim.errors import PretrimError

    from .progress import EVERY_S
    from .store import BEAT_S

    lost, done = threading.Event(), threading.Event()

    def beat() -> None:
        last_beat = time.monotonic()
        while not done.wait(EVERY_S):
            with suppress(PretrimError):  # the database may be unreachable for a moment
                teller.tell()
            if time.monotonic() - last_beat < BEAT_S:
                continue
            last_beat = time.monotonic()
            with suppress(PretrimError):
                if not store.beat(key):
                    lost.set()
                    return

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield lost
    finally:
        done.set()
        thread.join()


def is_outdone(
    rivals: Finished,
    known: list[tuple[dict[str, int], list[float]]],
    spent: dict[str, int],
    curve: tuple[float, ...],
    epochs: int,
) -> bool:
    """Whether a finished trial with a cheaper plan was far better after the same number of epochs.

    Args:
        rivals: the study's trials as they finish.
        known: costs and curves of finished trials; trials that finished since the last call are added.
        spent: costs of this trial's plan.
        curve: its validation scores so far.
        epochs: number of epochs of the whole training.
    """
    from .stopping import is_hopeless

    done = [trial.record for trial in rivals.new() if trial.state == "done" and trial.record is not None]
    known += [(dict(record["costs"]), [point[2] or 0.0 for point in record["epochs"]]) for record in done]
    return is_hopeless(spent, curve, epochs, known)


def is_the_machine(error: BaseException | None) -> bool:
    """Whether an error or one of its causes is the machine's fault: a full disk or an unusable database."""
    from pretrim.errors import StudyError

    while error is not None:
        if isinstance(error, StudyError):
            return True
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG):
            return True
        error = error.__cause__ or error.__context__
    return False


if __name__ == "__main__":
    sys.exit(main())
