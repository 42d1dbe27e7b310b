"""The Optuna study that mirrors the table, for Optuna's dashboard and samplers.

Only the sweep's main process writes to it, after a trial's result is in the table. Grid trials are added once they are
finished; trials that a sampler suggested are completed with `tell`.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from pretrim.errors import StudyError
from pretrim.planning.options import SAMPLED, Options

from .database import WAITS_S, engine_options, first_line
from .rows import FINISHED, Trial
from .settings import LIMIT_OF_MODE, StudyConfig, TrialSpec
from .store import Store

MODES = ("balanced", "params", "macs", "memory", "joint")
"""Modes that a search chooses from: latency needs a measurement, and control modes are not candidates."""
SPACE: Mapping[str, BaseDistribution] = {
    "mode": CategoricalDistribution(MODES),
    "keep": FloatDistribution(0.05, 0.95, step=0.05),
    "step": CategoricalDistribution(("fraction", "filter")),
    "round_to": IntDistribution(4, 16, step=4),
}
MAXIMIZE, MINIMIZE = StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE


class OptunaExport:
    """The Optuna study that mirrors a store."""

    def __init__(self, store: Store, settings: StudyConfig, seed: int = 0) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.store, self.settings = store, settings
        self.waits_s = () if store.url.startswith("sqlite") else WAITS_S
        names = [f"validation {settings.metric.title}", *settings.objectives]
        try:
            self.storage = _storage(store.url)
            self.study = optuna.create_study(
                storage=self.storage,
                study_name=store.name,
                directions=[
                    MAXIMIZE if settings.metric.higher_is_better else MINIMIZE,
                    *[MINIMIZE] * len(settings.objectives),
                ],
                sampler=optuna.samplers.NSGAIISampler(population_size=16, seed=seed),
                load_if_exists=True,
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                self.study.set_metric_names(names)
        except Exception as error:  # of SQLAlchemy, alembic or Optuna: all mean the same to the user
            message = first_line(error)
            raise StudyError(f"Cannot open the study {store.name} with Optuna: {message}.") from error

    def close(self) -> None:
        """Close the database connections."""
        self.storage.remove_session()
        self.storage.engine.dispose()

    def publish(self, trial: Trial) -> None:
        """Tell Optuna a result, once. Raises StudyError on failure; `reconcile` later finds out whether it arrived."""
        if trial.state not in FINISHED or trial.published or not self.store.publish(trial.key):
            return
        for attempt, wait_s in enumerate((*self.waits_s, None)):
            try:
                if not attempt or not self._knows(trial):
                    self._tell(trial)
                break
            except Exception as error:  # of the database or of Optuna
                if wait_s is None:
                    raise StudyError(f"Cannot pass a trial to Optuna: {first_line(error)}.") from error
                time.sleep(wait_s)
        self.store.settle(trial.key, is_known=True)

    def reconcile(self) -> None:
        """Resolve results that a process was telling Optuna when it died: mark them as told, or to be told again."""
        for trial in self.store.half_published():
            self.store.settle(trial.key, is_known=self._knows(trial))

    def _knows(self, trial: Trial) -> bool:
        """Whether Optuna already has the trial's result."""
        state = TrialState.COMPLETE if self._values(trial) else TrialState.FAIL
        finished = self.study.get_trials(deepcopy=False, states=(state,))
        return any(other.user_attrs.get("key") == trial.key for other in finished)

    def _tell(self, trial: Trial) -> None:
        values, spec = self._values(trial), trial.spec
        state = TrialState.COMPLETE if values else TrialState.FAIL
        if trial.optuna is not None and trial.optuna in self.open_numbers():
            self.storage.set_trial_user_attr(self._id(trial.optuna), "key", trial.key)
            self.study.tell(trial.optuna, values, state=None if values else state)
            return
        params: dict[str, Any] = {"step": spec.step, "round_to": spec.round_to}
        space: dict[str, BaseDistribution] = {
            "step": SPACE["step"],
            "round_to": IntDistribution(1, max(64, spec.round_to)),
        }
        curve = [point[2] for point in (trial.record or {}).get("epochs", [])]
        self.study.add_trial(
            create_trial(
                state=state,
                values=values,
                params=params,
                distributions=space,
                user_attrs={"key": trial.key, "name": spec.name, "seed": spec.seed, "keep": spec.budget_fraction}
                | ({"error": trial.error} if trial.error else {})
                | ({"validation": curve} if curve else {}),
            )
        )

    def _id(self, number: int) -> int:
        """Optuna's internal identifier of the trial with this number in the study."""
        study = self.storage.get_study_id_from_name(self.store.name)
        return self.storage.get_trial_id_from_study_id_trial_number(study, number)

    def _values(self, trial: Trial) -> list[float] | None:
        """The objective values of a trial; None if it has no finite ones."""
        if trial.state != "done" or trial.record is None:
            return None
        values = [trial.validation, *(trial.record["costs"][name] for name in self.settings.objectives)]
        return values if all(math.isfinite(value) for value in values) else None

    def suggest(self, seed: int) -> tuple[TrialSpec, int]:
        """The next spec of a multi-objective sampler (NSGA-II, Deb et al. 2002), and its trial number in Optuna."""
        trial = self.study.ask(dict(SPACE))
        mode, keep = trial.params["mode"], round(trial.params["keep"], 2)
        limit = LIMIT_OF_MODE.get(mode, "macs")
        step = trial.params["step"] if mode in SAMPLED else Options.step
        spec = TrialSpec(mode, keep, limit, seed, step, trial.params["round_to"])
        return spec, trial.number

    def forget(self, number: int) -> None:
        """Close a suggestion that is not run."""
        self.study.tell(number, state=TrialState.FAIL)

    def open_numbers(self) -> list[int]:
        """Numbers of the suggestions without a result."""
        return [t.number for t in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))]


def _storage(url: str) -> RDBStorage:
    """Open Optuna's storage, with retries: two sweeps that create its tables at the same moment disturb each other."""
    url = url.replace("{", "{{").replace("}", "}}")  # Optuna applies str.format to the URL
    for wait_s in (0.5, 1.0, 2.0):
        try:
            return RDBStorage(url, engine_kwargs=engine_options(url))
        except Exception:  # databases differ in their error for a table that has just appeared
            time.sleep(wait_s)
    return RDBStorage(url, engine_kwargs=engine_options(url))
