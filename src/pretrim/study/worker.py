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
import traceback
from pathlib import Path
from typing import Any

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
    parser.add_argument("--parallel", action="store_true")
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
    """Claim, run, record."""
    from pretrim.errors import PretrimError
    from pretrim.train import Interrupted

    from .store import BEAT_S, Store, Trial
    from .subjects import subject_of
    from .trial import Stopped, run_trial

    store = Store(storage, name)
    settings = store.settings()
    subject: Any = None

    def run(trial: Trial) -> None:
        nonlocal subject
        lost = threading.Event()
        beating = threading.Event()

        def beat() -> None:
            while not beating.wait(BEAT_S):
                try:
                    if not store.beat(trial.key):
                        lost.set()
                        return
                except PretrimError:
                    pass  # the database is away for a moment; whoever finds it so for a minute takes over

        def on_step(progress: Any) -> None:
            if lost.is_set() or os.getppid() != parent:
                raise NoLonger

        def on_epoch(spent: dict[str, int], curve: tuple[float, ...]) -> None:
            if settings.hopeless and is_outdone(store, spent, curve, settings.recipe.epochs):
                raise Stopped(spent, curve)

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            subject = subject or subject_of(settings)
            found = run_trial(
                settings, subject, trial.asked, folder / "trials" / trial.key, on_step=on_step, on_epoch=on_epoch
            )
            store.finish(trial.key, found)
        except Stopped as stopped:
            spent, curve = stopped.args
            record = {"costs": spent, "validation_accuracy": curve[-1], "epochs": [[None, None, v] for v in curve]}
            store.finish(trial.key, record, "stopped")
        except (NoLonger, Interrupted, KeyboardInterrupt):
            store.release(trial.key)
            raise NoLonger from None
        except Exception as error:
            if is_the_machine(error):
                store.release(trial.key)
                raise
            traceback.print_exc()
            said = str(error) if isinstance(error, PretrimError) else f"{type(error).__name__}: {error}"
            store.fail(trial.key, " ".join(said.split()))
        finally:
            beating.set()
            thread.join()

    while os.getppid() == parent and (trial := store.claim()) is not None:
        print(f"trial {trial.number}: {trial.asked.name}, seed {trial.asked.seed}", file=sys.stderr, flush=True)
        run(trial)


def is_outdone(store: Any, spent: dict[str, int], curve: tuple[float, ...], epochs: int) -> bool:
    """Whether a trial that is done costs less and was far better by now."""
    from .stopping import is_hopeless

    done = [trial.record for trial in store.trials() if trial.state == "done" and trial.record is not None]
    others = [(record["costs"], [point[2] or 0.0 for point in record["epochs"]]) for record in done]
    return is_hopeless(spent, curve, epochs, others)


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
