"""A study's database tables, and the validation of rows into trials."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
import sqlalchemy as sql

from pretrim import records
from pretrim.cost.costs import COSTS
from pretrim.errors import StudyError
from pretrim.runs.record import Count, Share, StoredEvaluation
from pretrim.train import ACCURACY, Metric

from .settings import TrialSpec, question_key

State: TypeAlias = Literal["waiting", "running", "done", "failed", "stopped"]
STATES: tuple[State, ...] = ("waiting", "running", "done", "failed", "stopped")
FINISHED: tuple[State, ...] = ("done", "failed", "stopped")
LONGEST_S = 1e6
"""Upper bound of a latency: twelve days for one image."""
_KEY = re.compile(r"[0-9a-f]{16}")
_REMEDY = "run the trial again with `pretrim sweep --retry`"

tables = sql.MetaData()
STUDIES = sql.Table(
    "pretrim_studies",
    tables,
    sql.Column("name", sql.String(200), primary_key=True),
    sql.Column("version", sql.Integer, nullable=False),
    sql.Column("settings", sql.Text, nullable=False),
)
TRIALS = sql.Table(
    "pretrim_trials",
    tables,
    sql.Column("study", sql.String(200), primary_key=True),
    sql.Column("key", sql.String(16), primary_key=True),
    sql.Column("number", sql.Integer, nullable=False),
    sql.Column("asked", sql.Text, nullable=False),
    sql.Column("state", sql.String(10), nullable=False),
    sql.Column("owner", sql.String(200)),
    sql.Column("beat", sql.Integer, nullable=False, default=0),
    sql.Column("tries", sql.Integer, nullable=False, default=0),
    sql.Column("record", sql.Text),
    sql.Column("measured", sql.Text),
    sql.Column("error", sql.Text),
    sql.Column("optuna", sql.Integer),
    sql.Column("published", sql.Integer, nullable=False, default=0),
)
PROGRESS = sql.Table(
    "pretrim_progress",
    tables,
    sql.Column("study", sql.String(200), primary_key=True),
    sql.Column("key", sql.String(16), primary_key=True),
    sql.Column("told", sql.Text, nullable=False),
)
"""Progress of the trials that are being trained (`progress.py`)."""
BY_STATE = sql.Index("pretrim_trials_by_state", TRIALS.c.study, TRIALS.c.state, TRIALS.c.number)
BY_NUMBER = sql.Index("pretrim_trials_by_number", TRIALS.c.study, TRIALS.c.number, TRIALS.c.state)

Finite: TypeAlias = Annotated[float, msgspec.Meta(ge=-1e300, le=1e300)]


@dataclass(frozen=True)
class Trial:
    """A trial, as read from its row.

    Attributes:
        key: see `settings.key_of`.
        number: its position in the order in which trials were added.
        spec: the plan and the seed to train.
        state: waiting, running, done, failed, or stopped as hopeless.
        record: its results, if it is done or stopped (`trial.py`).
        measured: the measurement of its artifact on a machine, if there is one.
        error: why it failed.
        optuna: its trial number in the Optuna study, if Optuna's sampler suggested it.
        published: whether the Optuna study has the result.
    """

    key: str
    number: int
    spec: TrialSpec
    state: State
    record: Mapping[str, Any] | None = None
    measured: Mapping[str, Any] | None = None
    error: str | None = None
    optuna: int | None = None
    published: bool = False

    @property
    def metric(self) -> Metric:
        """The metric of the scores."""
        return Metric.from_json((self.record or {}).get("metric"))

    @property
    def validation(self) -> float:
        """Score on the validation images. Raises KeyError if it is not known."""
        return float((self.record or {})[f"validation_{self.metric.name}"])

    @property
    def test(self) -> float:
        """Score on the test images. Raises KeyError if it is not known."""
        return float((self.record or {})[f"test_{self.metric.name}"])


@dataclass(frozen=True)
class _Stopped:
    """The validated fields of a stopped trial's record."""

    costs: Mapping[str, Count]
    epochs: tuple[tuple[float | None, float | None, float | None], ...]


@dataclass(frozen=True)
class _Done(_Stopped):
    """The validated fields of a finished trial's record."""

    dense: Mapping[str, Count]
    widths: tuple[Count, ...] | None = None
    validation: StoredEvaluation | None = None
    test: StoredEvaluation | None = None

    def __post_init__(self) -> None:
        missing = [name for costs in (self.costs, self.dense) for name in COSTS if name not in costs]
        if missing:
            raise ValueError(f"the cost {missing[0]} is missing")


@dataclass(frozen=True)
class _Measured:
    """The validated fields of a measurement."""

    latency_s: Annotated[float, msgspec.Meta(gt=0, le=LONGEST_S)]


def read_trial(row: Any, settings: Mapping[str, Any]) -> Trial:
    """Read a trial from its row. If its result is damaged, the trial counts as failed, with the reason as its error.

    Args:
        row: a row of the table of trials.
        settings: the study's settings in stored form.

    Raises StudyError if the spec is damaged or the key does not match it: the row belongs to no trial, and its key must
    not be used as a folder name.
    """
    spec = _spec(row, settings)
    trial = Trial(row.key, row.number, spec, row.state, error=row.error, optuna=row.optuna)
    trial = replace(trial, published=row.published == PUBLISHED)
    try:
        if row.state not in STATES:
            raise StudyError(f"The state of trial {row.key} is damaged: {row.state!r}.")
        record = read_record(row.record, row.state, f"The result of trial {row.key}")
        measured = _read(row.measured, _Measured, f"The measurement of trial {row.key}")
    except StudyError as error:
        return replace(trial, state="failed", error=str(error))
    return replace(trial, record=record, measured=measured)


PUBLISHED, PUBLISHING = 1, 2
"""Values of the column `published`: Optuna has the result, or is being told (or was, when the process died)."""


def read_record(text: str | None, state: str, source: str) -> Mapping[str, Any] | None:
    """Read the result of a trial, from its row or from the file in its folder.

    Args:
        text: JSON text; None if there is none.
        state: the trial's state, which determines the required fields.
        source: where the text comes from, for error messages.

    Raises StudyError if the result is damaged, or missing for a finished trial.
    """
    if state == "done" and text is None:
        raise StudyError(f"{source} is missing: {_REMEDY}.")
    record = _read(text, {"done": _Done, "stopped": _Stopped}.get(state, dict), source)
    if record is not None and state in ("done", "stopped"):
        _check_scores(record, ("validation", "test") if state == "done" else ("validation",), source)
    return record


def _check_scores(record: Mapping[str, Any], splits: Sequence[str], source: str) -> None:
    """Raises StudyError unless the record has valid scores of these splits in the metric that it names."""
    stored = record.get("metric")
    metric = (
        ACCURACY if stored is None else records.convert(stored, Metric, source=source, error=StudyError, remedy=_REMEDY)
    )
    names = tuple(f"{split}_{metric.name}" for split in splits)
    scores = {name: record[name] for name in names if name in record}
    record_type = _scores(names, is_share=metric.is_share)
    records.convert(scores, record_type, source=source, error=StudyError, remedy=_REMEDY, is_loaded=True)


@cache
def _scores(names: tuple[str, ...], *, is_share: bool) -> type[Any]:
    """A record type with a score field for each name."""
    return msgspec.defstruct("Scores", [(name, Share if is_share else Finite) for name in names])


def _read(text: str | None, kind: type[Any], source: str) -> Mapping[str, Any] | None:
    """Parse JSON text that must be an object and convert to a record of type `kind`; returns the plain object."""
    if text is None:
        return None
    plain = records.load(text, source=source, error=StudyError, remedy=_REMEDY)
    records.convert(plain, dict, source=source, error=StudyError, remedy=_REMEDY, is_loaded=True)
    records.convert(plain, kind, source=source, error=StudyError, remedy=_REMEDY, is_loaded=True)
    result: Mapping[str, Any] = plain
    return result


def _spec(row: Any, settings: Mapping[str, Any]) -> TrialSpec:
    """The spec of a row. Raises StudyError if it is damaged or does not match the row's key."""
    if not _KEY.fullmatch(str(row.key)):
        raise StudyError(f"{row.key!r} is not the key of a trial: the row was not written by pretrim, and is left out.")
    source = f"What trial {row.key} asks for"
    plain = records.load(row.asked, source=source, error=StudyError, remedy="the row is left out")
    spec = TrialSpec.from_json(plain, source)
    if row.key not in (question_key(settings, spec), question_key(settings, spec, as_asked=True)):
        raise StudyError(f"The key {row.key} does not match what its trial asks for: the row is left out.")
    return spec
