"""A process that works on a study's trials, one after another, until none is left: ``python -m pretrim.study.worker``.

It is a process of its own so that a crash in a kernel takes one trial with it, not the sweep. Exit codes: 0, nothing is
left to do; 3, the machine is at fault (a full disk, the database): the trial was given back.
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


class NoLonger(BaseException):
    """The sweep that started this process is gone, or another one took the trial over."""


def main(arguments: list[str] | None = None) -> int:
    """Work until nothing is left. What goes wrong is said in the last line on stderr."""
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
    """Claim, run, record; until nothing is left, or the process that started this one is gone.

    Args:
        folder: of the study.
        storage: its database.
        name: of the study in it.
        parent: process whose end ends this one.
    """
    from .inputs import open_inputs
    from .store import Store

    store = Store(storage, name, is_known=True)
    config = store.config()
    inputs: list[TrialInputs] = []

    def opened() -> TrialInputs:
        if not inputs:
            inputs.append(open_inputs(config))
        return inputs[0]

    while os.getppid() == parent and (trial := store.claim()) is not None:
        print(f"trial {trial.number}: {trial.spec.name}, seed {trial.spec.seed}", file=sys.stderr, flush=True)
        run_claimed(folder, store, config, trial, opened, lambda: os.getppid() != parent)


def run_claimed(
    folder: Path,
    store: Store,
    config: StudyConfig,
    trial: Trial,
    inputs: Callable[[], TrialInputs],
    is_orphaned: Callable[[], bool],
    on_step: Callable[[], None] = lambda: None,
) -> None:
    """Run a trial that this process has claimed, and record what came of it.

    Args:
        folder: of the study.
        store: its trials.
        config: what they share.
        trial: the one that was claimed.
        inputs: the network and the data; what it raises is the trial's failure.
        is_orphaned: whether nobody waits for the answer any more.
        on_step: is called after each step of the training.

    Raises:
        NoLonger: it was given back, because nobody waits, another process took it over, or a signal came.
        PretrimError, OSError: the machine is at fault; the trial was given back.
    """
    from pretrim.errors import PretrimError
    from pretrim.train import Interrupted

    from .places import trial_folder
    from .progress import Teller
    from .store import Finished
    from .trial import Stopped, run_trial

    rivals = Finished(store)
    others: list[tuple[dict[str, int], list[float]]] = []

    def on_epoch(spent: dict[str, int], curve: tuple[float, ...]) -> None:
        store.advance(trial.key)
        if config.stop_hopeless and is_outdone(rivals, others, spent, curve, config.recipe.epochs):
            raise Stopped(spent, curve)

    teller = Teller(store, trial.key)
    with _beating(store, trial.key, teller) as lost:

        def after_step(progress: Progress) -> None:
            if lost.is_set() or is_orphaned():
                raise NoLonger
            teller.on_step(progress)
            on_step()

        try:
            at = trial_folder(folder, trial.key)
            store.finish(trial.key, run_trial(config, inputs(), trial.spec, at, on_step=after_step, on_epoch=on_epoch))
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
    """Of a trial that was outdone: what it cost, and the scores it had by then."""
    return {
        "costs": spent,
        "metric": config.metric.to_json(),
        f"validation_{config.metric.name}": curve[-1],
        "epochs": [[None, None, value] for value in curve],
    }


@contextmanager
def _beating(store: Store, key: str, teller: Teller) -> Iterator[threading.Event]:
    """Say every few seconds that a trial is being worked on, and where it is; the event: it is not ours any more."""
    from pretrim.errors import PretrimError

    from .progress import EVERY_S
    from .store import BEAT_S

    lost, done = threading.Event(), threading.Event()

    def beat() -> None:
        beaten = time.monotonic()
        while not done.wait(EVERY_S):
            with suppress(
                PretrimError
            ):  # the database is away for a moment; whoever finds it so for a minute takes over
                teller.tell()
            if time.monotonic() - beaten < BEAT_S:
                continue
            beaten = time.monotonic()
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
    """Whether a trial that is done costs less and was far better by now.

    Args:
        rivals: the study's trials as they finish.
        known: costs and curve of those that are done; what has finished since the last call is added.
        spent: costs of this trial.
        curve: its validation accuracies so far.
        epochs: of the whole training.
    """
    from .stopping import is_hopeless

    done = [trial.record for trial in rivals.new() if trial.state == "done" and trial.record is not None]
    known += [(dict(record["costs"]), [point[2] or 0.0 for point in record["epochs"]]) for record in done]
    return is_hopeless(spent, curve, epochs, known)


def is_the_machine(error: BaseException | None) -> bool:
    """A full disk or an unusable database, which no trial is to blame for, anywhere in the chain of causes."""
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
