"""A study's settings and its trials' specs. Both convert to plain JSON; together they determine a trial's key."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from typing import Annotated, Any, get_args

import msgspec

from pretrim import records
from pretrim.cost.quantities import by_option
from pretrim.data import Fit
from pretrim.errors import PretrimError, StudyError, UsageError, shown
from pretrim.planning.budget import Limit
from pretrim.planning.options import SAMPLED, Method, Options
from pretrim.train import ACCURACY, Execution, Metric, Recipe

DENSE = "dense"
LIMIT_OF_MODE: Mapping[str, str] = {"params": "params", "macs": "macs", "memory": "activation", "latency": "latency"}
"""The limit that budget fractions of a mode apply to, unless the study says otherwise; macs for all other modes."""
RUNTIME = "litert"
"""Default runtime whose latency counts."""
EARLIER = {"max_images": "limit", "stop_hopeless": "hopeless"}
"""Field names in stored settings that differ from those here, kept so that trial keys do not change."""
LATER: Mapping[str, Any] = {"forward": {}, "fit": "crop", "task": "", "metric": ACCURACY.to_json()}
"""Fields that studies of older versions lack, with the values that correspond to those versions' behaviour."""


@dataclass(frozen=True)
class TrialSpec:
    """What one trial trains: a plan, and the seed of its sampling and training.

    Attributes:
        mode: how widths are chosen, or ``dense``.
        budget_fraction: fraction of the limited cost, or of all `limits`, that may stay; 1 for dense.
        limit: name of the limited cost (params, macs, activation, latency ...); empty if `limits` is set.
        seed: seed of the plan, the weights and the training.
        step: see `planning.options.Options`.
        round_to: see `planning.options.Options`.
        runtime: runtime whose latency counts if the mode or a limit is a latency: litert or onnx.
        limits: several limits at once, as pairs of name and amount, which `budget_fraction` scales together.
        device: the board that `limits` come from; the plan uses its data type.
        freeze: patterns of layers that keep all filters.
        min_width: minimum numbers of filters, as pairs of layer pattern and number.
    """

    mode: str
    budget_fraction: float
    limit: str = ""
    seed: int = 0
    step: str = Options.step
    round_to: int = 8
    runtime: str = RUNTIME
    limits: tuple[tuple[str, str], ...] = ()
    device: str = ""
    freeze: tuple[str, ...] = ()
    min_width: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
        if self.mode == DENSE:
            return
        excludes_whole = not self.limits  # all of several limits still trims the network; all of one cost does not
        if not (0 < self.budget_fraction < 1 or (self.budget_fraction == 1 and not excludes_whole)):
            raise UsageError(f"Expected budget fractions between 0 and 1, but got {self.budget_fraction:g}.")
        self.options()
        for name, amount in self.amounts.items():
            Limit.parse(name, amount)

    @property
    def amounts(self) -> dict[str, str]:
        """The plan's limits, by name."""
        if self.mode == DENSE:
            return {}
        if not self.limits:
            return {self.limit: f"{self.budget_fraction!r}x"}
        return {name: scaled(name, text, self.budget_fraction) for name, text in self.limits}

    def options(self) -> Options:
        """The planning options. Raises UsageError for an invalid mode, step or width."""
        return Options(
            mode=self.mode,  # type: ignore[arg-type]  # Options checks the name
            step=self.step,  # type: ignore[arg-type]  # as above
            round_to=self.round_to,
            seed=self.seed,
            freeze=self.freeze,
            min_width=dict(self.min_width) or Options.min_width,
        )

    @property
    def is_timed(self) -> bool:
        """Whether planning needs a latency."""
        return self.mode == "latency" or any(
            name in by_option() and by_option()[name].name == "latency_ns" for name in self.amounts
        )

    @property
    def resolved(self) -> TrialSpec:
        """The canonical spec: ``joint`` under one limit becomes that limit's mode; only sampled modes keep a step."""
        mode = self.mode
        if mode == "joint" and len(self.amounts) == 1:
            quantity = by_option()[next(iter(self.amounts))]
            if not quantity.is_peak and quantity.criterion != "latency":
                mode = quantity.criterion
        return replace(self, mode=mode, step=self.step if mode in SAMPLED else Options.step)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON. Fields of later versions are left out if they have their defaults, so that keys do not change."""
        plain = {"mode": self.mode, "keep": self.budget_fraction, "limit": self.limit, "seed": self.seed}
        plain |= {"step": self.step, "round_to": self.round_to, "candidates": 1, "score": ""}
        later: dict[str, Any] = {"runtime": self.runtime, "device": self.device}
        later |= {"limits": [list(pair) for pair in self.limits]}
        later |= {"freeze": list(self.freeze), "min_width": [list(pair) for pair in self.min_width]}
        return plain | {name: value for name, value in later.items() if value not in (RUNTIME, [], "")}

    @classmethod
    def from_json(cls, data: Any, source: str = "What a trial asks for") -> TrialSpec:
        """Read what :meth:`to_json` wrote, also in older studies. Raises StudyError for anything else."""
        stored = records.convert(data, _StoredSpec, source=source, error=StudyError, remedy="the trial is left out")
        fields = {name: value for name, value in vars(stored).items() if name != "keep"}
        try:
            return cls(budget_fraction=stored.keep, **fields)
        except PretrimError as error:
            raise StudyError(f"{source} is damaged: {error}") from error

    @property
    def budget(self) -> str:
        """The limits in words, such as ``on esp32 at 0.5 of its memory``; empty for the dense network."""
        if self.mode == DENSE:
            return ""
        if self.device:
            share = "" if self.budget_fraction == 1 else f" at {self.budget_fraction:g} of its memory"
            return f"on {self.device}{share}"
        if self.limits:
            return f"at {', '.join(f'{text} {name}' for name, text in self.amounts.items())}"
        return f"at {self.budget_fraction:g} of {self.limit}"

    @property
    def name(self) -> str:
        """A readable name, the same for trials that differ in their seed alone."""
        if self.mode == DENSE:
            return DENSE
        defaults = {"step": Options.step, "round_to": 1 if self.mode == "uniform" else 8, "runtime": RUNTIME}
        if self.device:
            defaults.pop("round_to")  # the board determines it
        changes = [
            f"{name} {getattr(self, name)}" for name, default in defaults.items() if getattr(self, name) != default
        ]
        changes += [f"freeze {pattern}" for pattern in self.freeze]
        changes += [f"min_width {pattern}={width}" for pattern, width in self.min_width]
        return ", ".join([f"{self.mode} {self.budget}", *changes])


@dataclass(frozen=True)
class _StoredSpec:
    """The stored form of a `TrialSpec`."""

    mode: str
    keep: float
    limit: str
    seed: Annotated[int, msgspec.Meta(ge=0)]
    step: str
    round_to: Annotated[int, msgspec.Meta(ge=1)]
    runtime: str = RUNTIME
    limits: tuple[tuple[str, str], ...] = ()
    device: str = ""
    freeze: tuple[str, ...] = ()
    min_width: tuple[tuple[str, int], ...] = ()


def scaled(name: str, text: str, fraction: float) -> str:
    """Multiply a limit by a fraction, and return it in the syntax of limits.

    Args:
        name: name of the limit.
        text: the limit in text form.
        fraction: the factor.

    >>> scaled("macs", "0.5x", 0.5), scaled("params", "250k", 0.5), scaled("params", "250k", 1.0)
    ('0.25x', '125000', '250k')
    """
    if fraction == 1:
        return text
    limit = Limit.parse(name, text)
    if limit.is_share:
        return f"{limit.amount * fraction:.10g}x"
    return f"{limit.amount * fraction:.0f}ns" if limit.quantity.unit == "ns" else f"{int(limit.amount * fraction)}"


@dataclass(frozen=True)
class StudyConfig:
    """Settings shared by all trials of a study.

    Precision, layout and threads are pinned because they change results and times.

    Attributes:
        model: name of the model, as the user typed it.
        data: name of the data set, as the user typed it.
        image: image shape, or None for that of the data.
        fit: how images of other proportions are fitted to that shape.
        max_images: number of training images, or None for all.
        recipe: training recipe.
        execution: device, precision, channels_last, threads.
        dtype: data type for counting bytes.
        objectives: costs that the Optuna study minimises, beside the accuracy.
        split_seed: seed of the data splits.
        task: name of the network's task; empty for the task of the data.
        metric: metric by which trials are chosen.
        stop_hopeless: whether a trial is stopped once a cheaper one leads by 10 points (`stopping.py`).
        forward: computation of a user-defined network (`Network.forward`), so that a changed file is noticed.
    """

    model: str
    data: str
    image: tuple[int, ...] | None = None
    max_images: int | None = None
    recipe: Recipe = field(default_factory=Recipe)
    execution: Execution = field(default_factory=Execution)
    dtype: str = "float32"
    objectives: tuple[str, ...] = ("params", "macs", "peak_activation_bytes")
    split_seed: int = 0
    stop_hopeless: bool = False
    forward: Mapping[str, str] = field(default_factory=dict)
    fit: Fit = "crop"
    task: str = ""
    metric: Metric = ACCURACY

    def to_json(self) -> dict[str, Any]:
        """Plain JSON. Fields of later versions are left out if they have their defaults, so that keys do not change."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        kept = {name: value for name, value in plain.items() if name not in LATER or value != LATER[name]}
        return {EARLIER.get(name, name): value for name, value in kept.items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> StudyConfig:
        """Read what :meth:`to_json` wrote. Raises StudyError for anything else."""
        names = {earlier: name for name, earlier in EARLIER.items()}
        plain = {names.get(name, name): value for name, value in data.items()}
        source = "The study's settings"
        return records.convert(plain, cls, source=source, error=StudyError, remedy="take a copy of the study")


def key_of(settings: StudyConfig, asked: TrialSpec) -> str:
    """The key of a trial, 16 hexadecimal digits: the same for equal settings and spec in any study."""
    return question_key(settings.to_json(), asked)


def question_key(settings: Mapping[str, Any], asked: TrialSpec, *, as_asked: bool = False) -> str:
    """Like `key_of`, but from a study's stored settings, so that keys survive versions with further settings.

    Args:
        settings: the study's settings in stored form.
        asked: the trial.
        as_asked: hash the mode as it was typed, as versions did before modes were resolved (`TrialSpec.resolved`).
    """
    text = json.dumps([settings, (asked if as_asked else asked.resolved).to_json()], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def grid(
    modes: Sequence[str],
    fractions: Sequence[float],
    seeds: int,
    *,
    limit: str | None = None,
    budgets: Sequence[Budget] = (),
    dense: bool = True,
    runtime: str = RUNTIME,
    **options: Any,
) -> list[TrialSpec]:
    """Every mode at every fraction with every seed, ordered by seed, so that an unfinished sweep can be compared.

    Args:
        modes: modes of `planning.options.Options`.
        fractions: budget fractions.
        seeds: number of seeds, counted from 0.
        limit: cost that limits all modes; by default the one that the mode is named after (else macs).
        budgets: several limits at once, or boards; each replaces `limit` in trials of its own.
        dense: whether to add the dense network.
        runtime: runtime for the trials that need a latency.
        options: further fields of `TrialSpec`.

    Raises UsageError for an invalid mode or fraction.
    """
    for mode in modes:
        if mode not in get_args(Method):
            raise UsageError(f"Expected modes among {', '.join(get_args(Method))}, but got {shown(mode)}.")
    if seeds < 1:
        raise UsageError(f"Expected seeds to be at least 1, but got {seeds}.")
    trials: list[TrialSpec] = []
    for seed in range(seeds):
        if dense:
            trials.append(TrialSpec(DENSE, 1.0, "macs", seed))
        for fraction, mode in product(sorted(fractions, reverse=True), modes):
            # One width multiplier steps all layers together: multiples of 8 would leave most of the budget unused.
            spec_options = options if mode != "uniform" else {**options, "round_to": 1}
            if budgets:
                specs = [budget.spec(mode, fraction, seed, spec_options) for budget in budgets]
            else:
                specs = [TrialSpec(mode, fraction, limit or LIMIT_OF_MODE.get(mode, "macs"), seed, **spec_options)]
            trials += [replace(spec, runtime=runtime) if spec.is_timed else spec for spec in specs]
    return trials


@dataclass(frozen=True)
class Budget:
    """Several limits at once, or the limits of a board.

    Attributes:
        limits: pairs of name and amount.
        device: name of the board; empty for none.
        round_to: the board's rounding step; None for the study's.
    """

    limits: tuple[tuple[str, str], ...]
    device: str = ""
    round_to: int | None = None

    def spec(self, mode: str, fraction: float, seed: int, options: Mapping[str, Any]) -> TrialSpec:
        """The trial of a mode under a fraction of this budget.

        Args:
            mode: how widths are chosen.
            fraction: fraction of the limits.
            seed: seed of the plan and the training.
            options: further fields of `TrialSpec`.
        """
        spec_options = dict(options)
        if self.round_to is not None and mode != "uniform":
            spec_options["round_to"] = self.round_to
        return TrialSpec(mode, fraction, "", seed, limits=self.limits, device=self.device, **spec_options)
