"""After a sweep: every network exported, proved, and measured, when nothing else of the sweep runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pretrim.errors import PretrimError

from .progress import say

if TYPE_CHECKING:
    from pretrim.data import DataSet
    from pretrim.study.store import Store

    from .delivery import Delivery


def measure_all(folder: Path, store: Store, model: str, data: DataSet, delivery: Delivery) -> None:
    """Export and measure every trial that is done and was not measured. One that fails is said; the others go on."""
    from pretrim.deploy.artifact import read
    from pretrim.measure import measure
    from pretrim.study.sweep import TRIALS

    from . import export
    from .delivery import deliver

    trials = [trial for trial in store.trials() if trial.state == "done" and trial.measured is None]
    for number, trial in enumerate(trials, start=1):
        run = folder / TRIALS / trial.key
        name = f"{trial.asked.name}, seed {trial.asked.seed}"
        try:
            path = export.default_path(run, delivery.to, delivery.int8)
            if not path.exists():
                deliver(run, model, data, delivery)
            artifact = read(path)
            found = measure([artifact])[0]
        except PretrimError as error:
            say(f"[{number}/{len(trials)}] {name}: not measured: {error}")
            continue
        store.measured(
            trial.key,
            {
                "latency_s": found.latency.median_s,
                "p90_s": found.latency.p90_s,
                "runtime": found.runtime,
                "data_type": found.data_type,
                "provider": found.provider,
                "threads": found.threads,
                "file_bytes": found.file_bytes,
                "energy_j": found.energy_j,
                "proof": dict(artifact.proof),
                "machine": dict(found.machine),
            },
        )
        say(f"[{number}/{len(trials)}] {name}: {1e3 * found.latency.median_s:.2f} ms")
