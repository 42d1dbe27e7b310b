"""A sweep on a Ray cluster: each trial is a Ray task, and only the driver accesses the table.

A task trains in a temporary folder of its node and sends the record and the run's files back. When a node is lost, Ray
runs its tasks on another one; each result is written to the table once, by the driver, under the trial's key. Ray
exchanges pickled code and results between nodes, so the cluster must be trusted.
"""

from __future__ import annotations

import json
import socket
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from pretrim.errors import PretrimError, UsageError, shown
from pretrim.files import write_bytes

from .folders import trial_folder
from .optuna_export import OptunaExport
from .progress import Running
from .rows import Trial
from .settings import StudyConfig, TrialSpec
from .store import BEAT_S, Finished, Store
from .sweep import Status

RETRIES = 3
"""How often Ray runs a lost task again."""
REACHED_S = 5.0
"""Timeout of the first connection to a cluster."""
WAIT_S = 0.25
_inputs: dict[str, Any] = {}
"""Inputs cached in this process, so that a node's worker loads the data only once."""


def sweep_on_ray(
    folder: Path,
    store: Store,
    address: str,
    *,
    gpus: float = 0,
    on_status: Callable[[Status], None] = lambda status: None,
) -> None:
    """Run trials on a cluster's nodes until all are finished. Each node needs pretrim, and the data at the same path.

    Args:
        folder: the study's folder; runs are copied back to it.
        store: its trials.
        address: ``"auto"`` for the cluster that this machine belongs to, or ``HOST:PORT``; ``"local"`` starts one here.
        gpus: number of GPUs for each trial; its number of CPUs is the study's number of threads.
        on_status: called with the progress.

    Raises:
        UsageError: Ray is not installed, or the cluster cannot be reached.
        StudyError: the database cannot be used.
    """
    ray = connected(address)
    settings = store.config()
    mirror, finished_trials = OptunaExport(store, settings), Finished(store)
    mirror.reconcile()
    task = ray.remote(num_cpus=settings.execution.threads or 1, num_gpus=gpus, max_retries=RETRIES)(run_elsewhere)
    running: dict[Any, Trial] = {}
    started, last_beat = time.monotonic(), time.monotonic()
    try:
        while True:
            # Claim no more trials than can run now: those queued in Ray would be kept from other sweeps.
            while len(running) < _slots(ray, settings, gpus) and (trial := store.claim()) is not None:
                running[task.remote(settings.to_json(), trial.spec.to_json())] = trial
            if running:
                ready, _ = ray.wait(list(running), num_returns=1, timeout=WAIT_S)
                for reference in ready:
                    _store_result(ray, folder, store, running.pop(reference), reference)
            if time.monotonic() - last_beat > BEAT_S:
                last_beat = time.monotonic()
                for trial in running.values():
                    store.beat(trial.key)
            counts, finished = store.counts(), finished_trials.new()
            for trial in finished:
                mirror.publish(trial)
            left = counts["waiting"] + counts["running"]
            on_status(
                Status(
                    {str(state): count for state, count in counts.items()},
                    tuple(finished),
                    time.monotonic() - started,
                    left,
                    tuple(Running(trial) for trial in running.values()),
                )
            )
            if not left:
                return
            if not running:
                time.sleep(WAIT_S)
    finally:
        for reference, trial in running.items():
            with suppress(Exception):
                ray.cancel(reference, force=True)
            store.release(trial.key)
        mirror.close()
        ray.shutdown()


def connected(address: str) -> Any:
    """Import Ray and connect it to a cluster, unless it is connected already. Raises UsageError if that fails."""
    try:
        import ray
    except ImportError as error:
        raise UsageError("--ray needs the package ray: pip install 'pretrim[ray]'.") from error
    host, _, port = address.rpartition(":")
    try:
        if port.isdigit() and host:  # Ray itself would wait for minutes if nothing listens there
            socket.create_connection((host, int(port)), timeout=REACHED_S).close()
        init_address = None if address == "local" else address
        ray.init(
            address=init_address,
            ignore_reinit_error=True,
            log_to_driver=False,
            include_dashboard=False,
            logging_level=40,
        )
    except (OSError, RuntimeError, ValueError) as error:
        message = str(error).splitlines()[0][:200].rstrip(".") if str(error) else type(error).__name__
        raise UsageError(
            f"No Ray cluster at {shown(address)} ({message}): start one with `ray start --head`."
        ) from error
    return ray


def _slots(ray: Any, settings: StudyConfig, gpus: float) -> int:
    """Number of trials that the current nodes can run at once."""
    resources = ray.cluster_resources()
    slots = int(resources.get("CPU", 0) // (settings.execution.threads or 1))
    return min(slots, int(resources.get("GPU", 0) / gpus)) if gpus else slots


def run_elsewhere(settings: dict[str, Any], asked: dict[str, Any]) -> tuple[dict[str, Any], dict[str, bytes], str]:
    """The Ray task: returns a trial's record and the files of its run, or empty ones and an error message."""
    from .inputs import open_inputs
    from .trial import run_trial
    from .worker import is_the_machine

    with tempfile.TemporaryDirectory(prefix="pretrim-") as folder:
        run = Path(folder) / "run"
        config = StudyConfig.from_json(settings)
        try:
            cache_key = json.dumps(settings, sort_keys=True)
            if cache_key not in _inputs:
                _inputs.clear()
                _inputs[cache_key] = open_inputs(config)
            record = run_trial(config, _inputs[cache_key], TrialSpec.from_json(asked), run)
        except Exception as error:
            if is_the_machine(error):
                raise  # Ray retries the task, perhaps on another node
            message = str(error) if isinstance(error, PretrimError) else f"{type(error).__name__}: {error}"
            return {}, {}, " ".join(message.split())
        return record, {file.name: file.read_bytes() for file in run.iterdir() if file.is_file()}, ""


def _store_result(ray: Any, folder: Path, store: Store, trial: Trial, reference: Any) -> None:
    """Store a task's result: files first, then the row."""
    try:
        record, contents, error = ray.get(reference)
    except Exception as lost:  # Ray's own errors: nodes or workers died too often, or memory ran out
        store.fail(trial.key, f"lost by Ray: {' '.join(str(lost).split())[:300]}")
        return
    if error:
        store.fail(trial.key, error)
        return
    run = trial_folder(folder, trial.key)
    run.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        write_bytes(run / Path(name).name, content)
    store.finish(trial.key, record)
