"""Recommend a network of a study under limits: which to take, what more of a resource would buy, what to relax."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pretrim.deploy.runtimes import TITLES
from pretrim.errors import UsageError, shown
from pretrim.train import ACCURACY, Metric

from .rows import Trial

if TYPE_CHECKING:
    from pretrim.train import Comparison


@dataclass(frozen=True)
class Resource:
    """A resource that a network uses.

    Attributes:
        name: short name, as on the command line and in files.
        title: name for display.
        unit: B for bytes, s for seconds, J for joules, or empty for counts.
    """

    name: str
    title: str
    unit: str


RESOURCES = (
    Resource("params", "Parameters", ""),
    Resource("macs", "MACs", ""),
    Resource("flash", "Flash (weights)", "B"),
    Resource("ram", "RAM (activations)", "B"),
    Resource("activation", "All feature maps", "B"),
    Resource("file", "int8 .tflite, predicted", "B"),
    Resource("arena", "Tensor arena, predicted", "B"),
    Resource("latency", "Latency", "s"),
    Resource("energy", "Energy per image", "J"),
)
BY_NAME: Mapping[str, Resource] = {resource.name: resource for resource in RESOURCES}
COST_OF: Mapping[str, str] = {
    "params": "params",
    "macs": "macs",
    "flash": "weight_bytes",
    "ram": "peak_activation_bytes",
    "activation": "activation_bytes",
    "file": "artifact_bytes",
    "arena": "arena_bytes",
}
MEASURED = ("latency", "energy")
"""Resources that hold for one machine, runtime, data type and number of threads."""
LEAST_GAIN = 0.001
"""The smallest gain of a share (0..1) that is worth a mention."""


@dataclass(frozen=True)
class Candidate:
    """A trained network.

    Attributes:
        key: key of its trial; its run is in ``trials/KEY``.
        name: readable name of its spec.
        seed: seed of its plan and training.
        validation: validation score, by which networks are chosen.
        test: score on the test images, which no choice depends on.
        costs: amount of each resource that is known.
        validated: its evaluation on the validation images (`train.Evaluation.to_json`); None in older studies.
        tested: its evaluation on the test images; None in older studies.
        timed_on: what its latency holds for: machine, runtime, data type, threads; None without a latency.
        metric: metric of the scores.
    """

    key: str
    name: str
    seed: int
    validation: float
    test: float
    costs: Mapping[str, float]
    validated: Mapping[str, Any] | None = None
    tested: Mapping[str, Any] | None = None
    timed_on: str | None = None
    metric: Metric = ACCURACY

    @property
    def worth(self) -> float:
        """The validation score, with its sign chosen so that higher is better."""
        return self.metric.worth(self.validation)

    def without_measured(self) -> Candidate:
        """The same network without its latency and energy, which hold for another machine."""
        costs = {name: value for name, value in self.costs.items() if name not in MEASURED}
        return replace(self, timed_on=None, costs=costs)


@dataclass(frozen=True)
class Buy:
    """A better network beyond one limit: how much more of the resource it takes and how much accuracy that gains.

    `comparison` tells whether the gain is significant.
    """

    resource: Resource
    more: float
    gain: float
    candidate: Candidate
    comparison: Comparison | None = None


@dataclass(frozen=True)
class Relax:
    """A limit that alone excludes every network, and the smallest value at which one would fit."""

    resource: Resource
    limit: float
    needed: float
    candidate: Candidate


@dataclass(frozen=True)
class Recommendation:
    """The best and next best networks that fit, and what more of a resource would buy; if none fits, what to relax.

    `fitting` of `of` networks meet every limit. `comparison` compares the best with the next best on the same
    validation images. If nothing fits, `smallest` holds the smallest amount of each limited resource that any network
    takes, where that exceeds the limit.
    """

    best: Candidate | None
    next_best: Candidate | None
    buys: tuple[Buy, ...]
    relax: tuple[Relax, ...]
    fitting: int
    of: int
    comparison: Comparison | None = None
    smallest: Mapping[str, float] = field(default_factory=dict)


def candidates(trials: Iterable[Trial]) -> list[Candidate]:
    """The finished trials of a study as candidates."""
    finished = []
    for trial in trials:
        if trial.state != "done" or trial.record is None:
            continue
        record = trial.record
        costs = {name: float(record["costs"][cost]) for name, cost in COST_OF.items() if cost in record["costs"]}
        if trial.measured is not None and "latency_s" in trial.measured:
            costs["latency"] = float(trial.measured["latency_s"])
        if trial.measured is not None and trial.measured.get("energy_j") is not None:
            costs["energy"] = float(trial.measured["energy_j"])
        finished.append(
            Candidate(
                key=trial.key,
                name=trial.spec.name,
                seed=trial.spec.seed,
                validation=trial.validation,
                test=trial.test,
                costs=costs,
                validated=record.get("validation"),
                tested=record.get("test"),
                timed_on=None if trial.measured is None else machine_of(trial.measured),
                metric=trial.metric,
            )
        )
    return finished


def machine_of(measured: Mapping[str, Any]) -> str:
    """Describe what a measured latency holds for; studies of older versions do not record all of it.

    >>> machine_of({"machine": {"cpu": "Xeon"}, "runtime": "litert", "data_type": "int8", "threads": 1})
    'Xeon, LiteRT, int8, 1 thread: measured'
    >>> machine_of({})
    'a machine that was not recorded: measured'
    """
    machine = (measured.get("machine") or {}).get("cpu", "a machine that was not recorded")
    runtime, threads = measured.get("runtime"), measured.get("threads")
    words = [machine, TITLES.get(runtime, runtime) if runtime else None, measured.get("data_type")]
    words.append(f"{threads} thread{'' if threads == 1 else 's'}" if threads else None)
    return f"{', '.join(str(word) for word in words if word)}: measured"


def machines_of(found: Iterable[Candidate]) -> list[str]:
    """The distinct descriptions of what the networks' latencies hold for, most frequent first."""
    counted = Counter(
        candidate.timed_on for candidate in found if candidate.timed_on is not None and "latency" in candidate.costs
    )
    return [machine for machine, _ in counted.most_common()]


def of_one_machine(found: Sequence[Candidate]) -> list[Candidate]:
    """Drop latencies and energies that were not measured where most were, because they are not comparable."""
    machines = machines_of(found)
    return [
        candidate if candidate.timed_on in (None, *machines[:1]) else candidate.without_measured()
        for candidate in found
    ]


def title_of(resource: Resource, found: Sequence[Candidate]) -> str:
    """The title of a resource for display; latency and energy include what they hold for."""
    machines = machines_of(found) if resource.name in MEASURED else []
    return f"{resource.title} ({machines[0]})" if machines else resource.title


def recommend(found: Sequence[Candidate], limits: Mapping[str, float]) -> Recommendation:
    """Choose the network with the best validation score among those that meet every limit; ties go to fewer MACs.

    Args:
        found: the candidates.
        limits: maximum of each resource, by name. Networks with an unknown amount of a limited resource are excluded.

    Raises UsageError for an unknown resource, or one that is known for no network.
    """
    for name in limits:
        if name not in BY_NAME:
            raise UsageError(f"Expected limits on {', '.join(BY_NAME)}, but got {shown(name)}.")
        if found and not any(name in candidate.costs for candidate in found):
            hint = (
                "sweep with --runtime RUNTIME to measure it"
                if name == "latency"
                else "LiteRT has no model of this network"
            )
            raise UsageError(f"No trial has a known {name}: {hint}.")

    def meets(candidate: Candidate, names: Iterable[str]) -> bool:
        return all(candidate.costs.get(name, float("inf")) <= limits[name] for name in names)

    def rank(candidate: Candidate) -> tuple[float, float]:
        return candidate.worth, -candidate.costs.get("macs", 0.0)

    fitting = sorted((candidate for candidate in found if meets(candidate, limits)), key=rank, reverse=True)
    best = fitting[0] if fitting else None
    buys, relax = [], []
    for name in limits:
        others = [other for other in limits if other != name]
        over = [
            candidate
            for candidate in found
            if meets(candidate, others) and candidate.costs.get(name, float("inf")) > limits[name]
        ]
        over = [candidate for candidate in over if name in candidate.costs]
        if best is None and over:
            cheapest = min(over, key=lambda candidate: (candidate.costs[name], -candidate.worth))
            relax.append(Relax(BY_NAME[name], limits[name], cheapest.costs[name], cheapest))
        elif best is not None:
            better = [candidate for candidate in over if candidate.worth >= best.worth + least_gain(best)]
            if better:  # the next step up, not the largest
                cheapest = min(better, key=lambda candidate: (candidate.costs[name], -candidate.worth))
                gain = cheapest.worth - best.worth
                more = cheapest.costs[name] - limits[name]
                buys.append(Buy(BY_NAME[name], more, gain, cheapest, compared(best, cheapest)))
    next_best = fitting[1] if len(fitting) > 1 else None
    minima = {
        name: min((candidate.costs[name] for candidate in found if name in candidate.costs), default=0.0)
        for name in limits
    }
    return Recommendation(
        best=best,
        next_best=next_best,
        buys=tuple(buys),
        relax=tuple(relax),
        fitting=len(fitting),
        of=len(found),
        comparison=None if best is None or next_best is None else compared(next_best, best),
        smallest={} if best else {name: value for name, value in minima.items() if value > limits[name]},
    )


def least_gain(best: Candidate) -> float:
    """The smallest gain worth a mention: a tenth of a point, or a thousandth of a metric's value if it is no share."""
    return LEAST_GAIN if best.metric.is_share else LEAST_GAIN * abs(best.validation)


def compared(first: Candidate, second: Candidate) -> Comparison | None:
    """Compare the second network with the first on the validation images of their study.

    None for older studies and for tasks whose images are not simply right or wrong.
    """
    from pretrim.train import compare, unpack

    first_right, second_right = ((candidate.validated or {}).get("right") for candidate in (first, second))
    if first_right is None or second_right is None or first_right["images"] != second_right["images"]:
        return None
    return compare(unpack(first_right), unpack(second_right))


def to_json(found: Recommendation) -> dict[str, Any]:
    """Convert a recommendation to plain JSON."""
    return {
        "best": None if found.best is None else candidate_json(found.best),
        "next_best": None if found.next_best is None else candidate_json(found.next_best, test=False),
        "buys": [
            {
                "resource": buy.resource.name,
                "more": buy.more,
                "gain": buy.gain,
                "key": buy.candidate.key,
                "comparison": None if buy.comparison is None else buy.comparison.to_json(),
            }
            for buy in found.buys
        ],
        "relax": [
            {"resource": relax.resource.name, "limit": relax.limit, "needed": relax.needed, "key": relax.candidate.key}
            for relax in found.relax
        ],
        "smallest": dict(found.smallest),
        "fitting": found.fitting,
        "of": found.of,
        "comparison": None if found.comparison is None else found.comparison.to_json(),
    }


def candidate_json(candidate: Candidate, *, test: bool = True) -> dict[str, Any]:
    """Convert a candidate to plain JSON; only the chosen one gets its test score, so that nobody chooses by it."""
    plain = {
        "key": candidate.key,
        "name": candidate.name,
        "seed": candidate.seed,
        f"validation_{candidate.metric.name}": candidate.validation,
        "costs": dict(candidate.costs),
        **_uncertainty("validation", candidate.validated),
    }
    return plain | (
        {f"test_{candidate.metric.name}": candidate.test, **_uncertainty("test", candidate.tested)} if test else {}
    )


def _uncertainty(part: str, evaluation: Mapping[str, Any] | None) -> dict[str, Any]:
    """The 95 % interval of a score and the number of images behind it."""
    fields = evaluation or {"interval_95": None, "images": None}
    return {f"{part}_interval_95": fields["interval_95"], f"{part}_images": fields["images"]}
