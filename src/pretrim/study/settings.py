"""What a study is about, and what each of its trials asks for; both are plain JSON, and together they make a key."""

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
"""What a mode is kept to a share of, where the study does not say; the others: macs"""
RUNTIME = "litert"
"""Whose latency counts, where a trial does not say"""
EARLIER = {"max_images": "limit", "stop_hopeless": "hopeless"}
"""Names in files that are kept, so that the keys of trials stay what they were"""
LATER: Mapping[str, Any] = {"forward": {}, "fit": "crop", "task": "", "metric": ACCURACY.to_json()}
"""Fields that studies of older versions do not have, with what those did"""


@dataclass(frozen=True)
class TrialSpec:
    """One trial: a plan, and the seed that it is drawn and trained with.

    Attributes:
        mode: how widths are chosen, or ``dense``.
        budget_fraction: of the limited cost that may stay, or of the `limits`; 1 for dense.
        limit: that cost, by the name of its limit (params, macs, activation, latency ...); empty where `limits` say.
        seed: of plan, weights and training.
        step: see `planning.options.Options`.
        round_to: likewise.
        runtime: whose latency counts, where the mode or a limit is one: litert or onnx.
        limits: several limits at once, as pairs of name and amount, which `budget_fraction` scales together.
        device: the board that they are of; its data type is that of the plan.
        freeze: patterns of layers that keep all filters.
        min_width: the fewest filters of layers, as pairs of pattern and number.
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
        largest_is_open = not self.limits  # the whole of several limits is a question, the whole network is not
        if not (0 < self.budget_fraction < 1 or (self.budget_fraction == 1 and not largest_is_open)):
            raise UsageError(f"Expected budget fractions between 0 and 1, but got {self.budget_fraction:g}.")
        self.options()
        for name, amount in self.amounts.items():
            Limit.parse(name, amount)

    @property
    def amounts(self) -> dict[str, str]:
        """The limits of the plan, by name."""
        if self.mode == DENSE:
            return {}
        if not self.limits:
            return {self.limit: f"{self.budget_fraction!r}x"}
        return {name: scaled(name, text, self.budget_fraction) for name, text in self.limits}

    def options(self) -> Options:
        """How its widths are chosen. Raises UsageError for what is not a mode, step or width."""
        return Options(
            mode=self.mode,  # type: ignore[arg-type]  # it checks the name
            step=self.step,  # type: ignore[arg-type]  # likewise
            round_to=self.round_to,
            seed=self.seed,
            freeze=self.freeze,
            min_width=dict(self.min_width) or Options.min_width,
        )

    @property
    def is_timed(self) -> bool:
        """Whether a latency has to be known to plan it."""
        return self.mode == "latency" or any(
            name in by_option() and by_option()[name].name == "latency_ns" for name in self.amounts
        )

    @property
    def resolved(self) -> TrialSpec:
        """What is really asked: under one limit ``joint`` is the mode of that limit; only sampling has a step."""
        mode = self.mode
        if mode == "joint" and len(self.amounts) == 1:
            quantity = by_option()[next(iter(self.amounts))]
            if not quantity.is_peak and quantity.criterion != "latency":
                mode = quantity.criterion
        return replace(self, mode=mode, step=self.step if mode in SAMPLED else Options.step)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON. Fields of later versions are left out where they say nothing: keys stay what they were."""
        plain = {"mode": self.mode, "keep": self.budget_fraction, "limit": self.limit, "seed": self.seed}
        plain |= {"step": self.step, "round_to": self.round_to, "candidates": 1, "score": ""}
        later: dict[str, Any] = {"runtime": self.runtime, "device": self.device}
        later |= {"limits": [list(pair) for pair in self.limits]}
        later |= {"freeze": list(self.freeze), "min_width": [list(pair) for pair in self.min_width]}
        return plain | {name: value for name, value in later.items() if value not in (RUNTIME, [], "")}

    @classmethod
    def from_json(cls, data: Any, source: str = "What a trial asks for") -> TrialSpec:
        """Read what :meth:`to_json` wrote; of older studies too. Raises StudyError for anything else."""
        found = records.convert(data, _Asked, source=source, error=StudyError, mend="the trial is left out")
        plain = {name: value for name, value in vars(found).items() if name != "keep"}
        try:
            return cls(budget_fraction=found.keep, **plain)
        except PretrimError as error:
            raise StudyError(f"{source} is damaged: {error}") from error

    @property
    def name(self) -> str:
        """For people; trials that differ in their seed alone have the same."""
        if self.mode == DENSE:
            return DENSE
        if self.device:
            whole = "" if self.budget_fraction == 1 else f" at {self.budget_fraction:g} of its memory"
            about = f"{self.mode} on {self.device}{whole}"
        elif self.limits:
            about = f"{self.mode} at {', '.join(f'{text} {name}' for name, text in self.amounts.items())}"
        else:
            about = f"{self.mode} at {self.budget_fraction:g} of {self.limit}"
        extras = {"step": Options.step, "round_to": 1 if self.mode == "uniform" else 8, "runtime": RUNTIME}
        if self.device:
            extras.pop("round_to")  # it is the board's
        different = [f"{name} {getattr(self, name)}" for name, usual in extras.items() if getattr(self, name) != usual]
        different += [f"freeze {pattern}" for pattern in self.freeze]
        different += [f"min_width {pattern}={least}" for pattern, least in self.min_width]
        return ", ".join([about, *different])


@dataclass(frozen=True)
class _Asked:
    """A `TrialSpec` as it is stored."""

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
    """A limit times a fraction, as a limit is written.

    Args:
        name: of the limit.
        text: the limit as it was written.
        fraction: to multiply by.

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
    """What all trials of a study share. Precision, layout and threads are pinned: they change results and times.

    Attributes:
        model: its name, as the user typed it.
        data: the data set, likewise.
        image: shape of an image, or None for that of the data.
        fit: how images of other proportions get it.
        max_images: number of training images, or None for all.
        recipe: the training.
        execution: device, precision, channels_last, threads.
        dtype: data type that bytes are counted in.
        objectives: costs that the Optuna study minimises, beside the accuracy.
        split_seed: of the parts of the data.
        task: what the network is for, by name; empty: what the data are of.
        metric: that trials are chosen by.
        stop_hopeless: whether a trial is stopped once a cheaper one leads by 10 points (`stopping.py`).
        forward: what a network of the user's computes (`Network.forward`): a changed file is another question.
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
        """Plain JSON; fields of later versions only where they say something, so that keys of trials stay the same."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        said = {name: value for name, value in plain.items() if name not in LATER or value != LATER[name]}
        return {EARLIER.get(name, name): value for name, value in said.items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> StudyConfig:
        """Read what :meth:`to_json` wrote. Raises StudyError for anything else."""
        names = {earlier: name for name, earlier in EARLIER.items()}
        plain = {names.get(name, name): value for name, value in data.items()}
        source = "The study's settings"
        return records.convert(plain, cls, source=source, error=StudyError, mend="take a copy of the study")


def key_of(settings: StudyConfig, asked: TrialSpec) -> str:
    """What a trial asks for, in 16 hexadecimal digits: the same for the same question in any study."""
    return question_key(settings.to_json(), asked)


def question_key(settings: Mapping[str, Any], asked: TrialSpec, *, as_asked: bool = False) -> str:
    """The same by settings as a study stores them, so that keys stay when a later version has more of them.

    `as_asked`: the key of studies from before modes were resolved (`TrialSpec.resolved`).

    Args:
        settings: of the study.
        asked: the trial.
        as_asked: by the mode as it was typed.
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
    """Every mode at every fraction with every seed, seed by seed: what is there when time is over can be compared.

    Args:
        modes: of `planning.options.Options`.
        fractions: of what is limited.
        seeds: how many, from 0.
        limit: the cost that all modes are kept to; by default the one that the mode is named after (else macs).
        budgets: several limits at once, or boards; each is a question of its own, in the place of `limit`.
        dense: the dense network as well.
        runtime: of the trials that need a latency.
        options: of `TrialSpec`.

    Raises UsageError for what is not a mode, or a fraction.
    """
    for mode in modes:
        if mode not in get_args(Method):
            raise UsageError(f"Expected modes out of {', '.join(get_args(Method))}, but got {shown(mode)}.")
    if seeds < 1:
        raise UsageError(f"Expected seeds to be at least 1, but got {seeds}.")
    found: list[TrialSpec] = []
    for seed in range(seeds):
        if dense:
            found.append(TrialSpec(DENSE, 1.0, "macs", seed))
        for fraction, mode in product(sorted(fractions, reverse=True), modes):
            # One width multiplier steps all layers together: multiples of 8 would leave most of the budget unused.
            own = options if mode != "uniform" else {**options, "round_to": 1}
            if budgets:
                specs = [budget.spec(mode, fraction, seed, own) for budget in budgets]
            else:
                specs = [TrialSpec(mode, fraction, limit or LIMIT_OF_MODE.get(mode, "macs"), seed, **own)]
            found += [replace(spec, runtime=runtime) if spec.is_timed else spec for spec in specs]
    return found


@dataclass(frozen=True)
class Budget:
    """Several limits at once, or those of a board.

    Attributes:
        limits: pairs of name and amount.
        device: the board; empty for none.
        round_to: its rounding; None for the study's.
    """

    limits: tuple[tuple[str, str], ...]
    device: str = ""
    round_to: int | None = None

    def spec(self, mode: str, fraction: float, seed: int, options: Mapping[str, Any]) -> TrialSpec:
        """The trial of a mode under a fraction of it.

        Args:
            mode: how widths are found.
            fraction: of the limits.
            seed: of plan and training.
            options: of the search.
        """
        own = dict(options)
        if self.round_to is not None and mode != "uniform":
            own["round_to"] = self.round_to
        return TrialSpec(mode, fraction, "", seed, limits=self.limits, device=self.device, **own)
