"""A sweep on a Ray cluster: each trial is a task; the table is touched by the driver alone.

A task trains in a private folder of the node that it runs on, and sends record and run back. When a node is lost, Ray
runs its tasks elsewhere; a result is written to the table once, by the driver, under the trial's key. Ray pickles code
and results between its nodes: the cluster is trusted, as everything that runs on it is.
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

from .optuna_export import OptunaExport
from .places import trial_folder
from .progress import Running
from .rows import Trial
from .settings import StudyConfig, TrialSpec
from .store import BEAT_S, Finished, Store
from .sweep import Status

RETRIES = 3
REACHED_S = 5.0
WAIT_S = 0.25
_inputs: dict[str, Any] = {}
"""Of this process: a node's worker loads the data once."""


def sweep_on_ray(
    folder: Path,
    store: Store,
    address: str,
    *,
    gpus: float = 0,
    on_status: Callable[[Status], None] = lambda status: None,
) -> None:
    """Work until every trial is finished, on the cluster's nodes. pretrim and the data must be there, at the same path.

    Args:
        folder: of the study; runs come back to it.
        store: its trials.
        address: ``"auto"`` for the cluster that this machine is in, or ``HOST:PORT``; ``"local"`` starts one here.
        gpus: of each trial; its CPUs are the study's threads.
        on_status: is told where it is.

    Raises:
        UsageError: Ray is not installed, or there is no such cluster.
        StudyError: the database cannot be used.
    """
    ray = connected(address)
    settings = store.config()
    mirror, seen = OptunaExport(store, settings), Finished(store)
    mirror.reconcile()
    # Without an upper limit tasks would queue in Ray, claimed and beaten for, while other sweeps find nothing.
    task = ray.remote(num_cpus=settings.execution.threads or 1, num_gpus=gpus, max_retries=RETRIES)(run_elsewhere)
    running: dict[Any, Trial] = {}
    started, beaten = time.monotonic(), time.monotonic()
    try:
        while True:
            while len(running) < _places(ray, settings, gpus) and (trial := store.claim()) is not None:
                running[task.remote(settings.to_json(), trial.spec.to_json())] = trial
            if running:
                ready, _ = ray.wait(list(running), num_returns=1, timeout=WAIT_S)
                for reference in ready:
                    _keep(ray, folder, store, running.pop(reference), reference)
            if time.monotonic() - beaten > BEAT_S:
                beaten = time.monotonic()
                for trial in running.values():
                    store.beat(trial.key)
            counts, finished = store.counts(), seen.new()
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
    """Ray, connected to a cluster, or as it was if it is already. Raises UsageError where there is none."""
    try:
        import ray
    except ImportError as error:
        raise UsageError("--ray needs the package ray: pip install 'pretrim[ray]'.") from error
    host, _, port = address.rpartition(":")
    try:
        if port.isdigit() and host:  # Ray itself would wait for minutes
            socket.create_connection((host, int(port)), timeout=REACHED_S).close()
        where = None if address == "local" else address
        ray.init(
            address=where, ignore_reinit_error=True, log_to_driver=False, include_dashboard=False, logging_level=40
        )
    except (OSError, RuntimeError, ValueError) as error:
        said = str(error).splitlines()[0][:200].rstrip(".") if str(error) else type(error).__name__
        raise UsageError(f"No Ray cluster at {shown(address)} ({said}): start one with `ray start --head`.") from error
    return ray


def _places(ray: Any, settings: StudyConfig, gpus: float) -> int:
    """How many trials the nodes that are there now can run."""
    there = ray.cluster_resources()
    places = int(there.get("CPU", 0) // (settings.execution.threads or 1))
    return min(places, int(there.get("GPU", 0) / gpus)) if gpus else places


def run_elsewhere(settings: dict[str, Any], asked: dict[str, Any]) -> tuple[dict[str, Any], dict[str, bytes], str]:
    """The task: a record and the files of a run, or why there are none."""
    from .inputs import open_inputs
    from .trial import run_trial
    from .worker import is_the_machine

    with tempfile.TemporaryDirectory(prefix="pretrim-") as folder:
        run = Path(folder) / "run"
        parsed = StudyConfig.from_json(settings)
        try:
            name = json.dumps(settings, sort_keys=True)
            if name not in _inputs:
                _inputs.clear()
                _inputs[name] = open_inputs(parsed)
            record = run_trial(parsed, _inputs[name], TrialSpec.from_json(asked), run)
        except Exception as error:
            if is_the_machine(error):
                raise  # Ray tries again, perhaps on another node
            said = str(error) if isinstance(error, PretrimError) else f"{type(error).__name__}: {error}"
            return {}, {}, " ".join(said.split())
        return record, {file.name: file.read_bytes() for file in run.iterdir() if file.is_file()}, ""


def _keep(ray: Any, folder: Path, store: Store, trial: Trial, reference: Any) -> None:
    """Write what a task gave: files first, then the row."""
    try:
        record, contents, error = ray.get(reference)
    except Exception as lost:  # Ray's own: nodes and workers that died too often, memory that ran out
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
