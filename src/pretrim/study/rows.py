"""A study's tables, and what a row of trials says once it is checked."""

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
"""of a latency: twelve days for one image"""
_KEY = re.compile(r"[0-9a-f]{16}")
_MEND = "run the trial again with `pretrim sweep --retry`"

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
"""Where trials that are being trained are (`progress.py`)"""
BY_STATE = sql.Index("pretrim_trials_by_state", TRIALS.c.study, TRIALS.c.state, TRIALS.c.number)
BY_NUMBER = sql.Index("pretrim_trials_by_number", TRIALS.c.study, TRIALS.c.number, TRIALS.c.state)

Finite: TypeAlias = Annotated[float, msgspec.Meta(ge=-1e300, le=1e300)]


@dataclass(frozen=True)
class Trial:
    """A row.

    Attributes:
        key: see `settings.key_of`.
        number: the order in which it was asked for.
        spec: what was asked for.
        state: waiting, running, done, failed, or stopped as hopeless.
        record: what it found, if it is done or stopped (`trial.py`).
        measured: what its artifact takes on a machine, if it was measured.
        error: why it failed.
        optuna: the number of its row in the Optuna study, where that asked for it.
        published: whether the Optuna study knows the result.
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
        """That the scores are by."""
        return Metric.from_json((self.record or {}).get("metric"))

    @property
    def validation(self) -> float:
        """Score of the validation images. Raises KeyError where nothing is known."""
        return float((self.record or {})[f"validation_{self.metric.name}"])

    @property
    def test(self) -> float:
        """Score of the test images, likewise."""
        return float((self.record or {})[f"test_{self.metric.name}"])


@dataclass(frozen=True)
class _Stopped:
    """What is read of the record of a trial that was stopped."""

    costs: Mapping[str, Count]
    epochs: tuple[tuple[float | None, float | None, float | None], ...]


@dataclass(frozen=True)
class _Done(_Stopped):
    """What is read of the record of a trial that is done."""

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
    """What is read of a measurement."""

    latency_s: Annotated[float, msgspec.Meta(gt=0, le=LONGEST_S)]


def read_trial(row: Any, settings: Mapping[str, Any]) -> Trial:
    """The trial of a row; one whose result is damaged has failed, with the reason as its error.

    Args:
        row: of the table.
        settings: those of the study, as they are stored.

    Raises StudyError where it does not say what was asked for, or its key is that of another question: it is nobody's
    trial, and its key names no folder.
    """
    spec = _spec(row, settings)
    plain = Trial(row.key, row.number, spec, row.state, error=row.error, optuna=row.optuna)
    plain = replace(plain, published=row.published == PUBLISHED)
    try:
        if row.state not in STATES:
            raise StudyError(f"The state of trial {row.key} is damaged: {row.state!r}.")
        record = read_record(row.record, row.state, f"The result of trial {row.key}")
        measured = _read(row.measured, _Measured, f"The measurement of trial {row.key}")
    except StudyError as error:
        return replace(plain, state="failed", error=str(error))
    return replace(plain, record=record, measured=measured)


PUBLISHED, PUBLISHING = 1, 2
"""Whether Optuna knows a result; or it is told at this moment, or was when its process died"""


def read_record(text: str | None, state: str, source: str) -> Mapping[str, Any] | None:
    """The result of a trial, of a row or of the file in its folder.

    Args:
        text: JSON.
        state: of the trial: what has to be there depends on it.
        source: where it is from, for the error.

    Raises StudyError if it is damaged, or a trial that is done has none.
    """
    if state == "done" and text is None:
        raise StudyError(f"{source} is missing: {_MEND}.")
    found = _read(text, {"done": _Done, "stopped": _Stopped}.get(state, dict), source)
    if found is not None and state in ("done", "stopped"):
        _check_scores(found, ("validation", "test") if state == "done" else ("validation",), source)
    return found


def _check_scores(record: Mapping[str, Any], splits: Sequence[str], source: str) -> None:
    """Raises StudyError unless the scores of these splits are there, by the metric that the record names."""
    given = record.get("metric")
    metric = ACCURACY if given is None else records.convert(given, Metric, source=source, error=StudyError, mend=_MEND)
    names = tuple(f"{split}_{metric.name}" for split in splits)
    scores = {name: record[name] for name in names if name in record}
    kind = _scores(names, is_share=metric.is_share)
    records.convert(scores, kind, source=source, error=StudyError, mend=_MEND, is_loaded=True)


@cache
def _scores(names: tuple[str, ...], *, is_share: bool) -> type[Any]:
    """The record of the scores of these names."""
    return msgspec.defstruct("Scores", [(name, Share if is_share else Finite) for name in names])


def _read(text: str | None, kind: type[Any], source: str) -> Mapping[str, Any] | None:
    """Plain JSON that is an object and can be read as a record of this kind."""
    if text is None:
        return None
    plain = records.load(text, source=source, error=StudyError, mend=_MEND)
    records.convert(plain, dict, source=source, error=StudyError, mend=_MEND, is_loaded=True)
    records.convert(plain, kind, source=source, error=StudyError, mend=_MEND, is_loaded=True)
    found: Mapping[str, Any] = plain
    return found


def _spec(row: Any, settings: Mapping[str, Any]) -> TrialSpec:
    if not _KEY.fullmatch(str(row.key)):
        raise StudyError(f"{row.key!r} is not a key of a trial: the row is not of pretrim, and is left out.")
    source = f"What trial {row.key} asks for"
    plain = records.load(row.asked, source=source, error=StudyError, mend="the row is left out")
    spec = TrialSpec.from_json(plain, source)
    if row.key not in (question_key(settings, spec), question_key(settings, spec, as_asked=True)):
        raise StudyError(f"The key {row.key} is not of what its trial asks for: the row is left out.")
    return spec
