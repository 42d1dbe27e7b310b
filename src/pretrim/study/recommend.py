"""Which network of a study to take under some limits, what a little more of each resource would buy, what to relax."""

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
    """Something that a network takes.

    Attributes:
        name: short, as on the command line and in files.
        title: for people.
        unit: bytes, seconds, joules, or nothing for plain numbers.
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
"""What is of one machine, runtime, data type and number of threads"""
LEAST_GAIN = 0.001
"""of a share, that is worth a mention"""


@dataclass(frozen=True)
class Candidate:
    """A trained network.

    Attributes:
        key: of its trial; its run is in ``trials/KEY``.
        name: what was asked for.
        seed: of its plan and training.
        validation: score that it is chosen by.
        test: score on images that nothing was chosen by.
        takes: of each resource, where it is known.
        validated: its evaluation on the validation images (`train.Evaluation.to_json`); None in older studies.
        tested: likewise on the test images.
        timed_on: what its latency holds for: machine, runtime, data type, threads; None without a latency.
        metric: that the scores are by.
    """

    key: str
    name: str
    seed: int
    validation: float
    test: float
    takes: Mapping[str, float]
    validated: Mapping[str, Any] | None = None
    tested: Mapping[str, Any] | None = None
    timed_on: str | None = None
    metric: Metric = ACCURACY

    @property
    def worth(self) -> float:
        """The validation score, turned so that more is better."""
        return self.metric.worth(self.validation)


@dataclass(frozen=True)
class Buy:
    """What more of one resource gives: another network, how much more accurate it is, and whether that is sure."""

    resource: Resource
    more: float
    gain: float
    candidate: Candidate
    comparison: Comparison | None = None


@dataclass(frozen=True)
class Relax:
    """A limit that alone keeps everything out, and the least that it would have to be."""

    resource: Resource
    limit: float
    needed: float
    candidate: Candidate


@dataclass(frozen=True)
class Recommendation:
    """The best that fits, the next best, and what the limits cost. Without a best: what to relax.

    `comparison` is that of the best with the next best, on the same validation images; `least`, without a best, the
    smallest value that any network has of each limited resource, where that is beyond the limit.
    """

    best: Candidate | None
    next_best: Candidate | None
    buys: tuple[Buy, ...]
    relax: tuple[Relax, ...]
    fitting: int
    of: int
    comparison: Comparison | None = None
    least: Mapping[str, float] = field(default_factory=dict)


def candidates(trials: Iterable[Trial]) -> list[Candidate]:
    """Those of a study that are done."""
    found = []
    for trial in trials:
        if trial.state != "done" or trial.record is None:
            continue
        record = trial.record
        takes = {name: float(record["costs"][cost]) for name, cost in COST_OF.items() if cost in record["costs"]}
        if trial.measured is not None and "latency_s" in trial.measured:
            takes["latency"] = float(trial.measured["latency_s"])
        if trial.measured is not None and trial.measured.get("energy_j") is not None:
            takes["energy"] = float(trial.measured["energy_j"])
        found.append(
            Candidate(
                key=trial.key,
                name=trial.spec.name,
                seed=trial.spec.seed,
                validation=trial.validation,
                test=trial.test,
                takes=takes,
                validated=record.get("validation"),
                tested=record.get("test"),
                timed_on=None if trial.measured is None else place_of(trial.measured),
                metric=trial.metric,
            )
        )
    return found


def place_of(measured: Mapping[str, Any]) -> str:
    """What a measured latency holds for, in words; studies of older versions do not say all of it.

    >>> place_of({"machine": {"cpu": "Xeon"}, "runtime": "litert", "data_type": "int8", "threads": 1})
    'Xeon, LiteRT, int8, 1 thread: measured'
    >>> place_of({})
    'a machine that was not recorded: measured'
    """
    machine = (measured.get("machine") or {}).get("cpu", "a machine that was not recorded")
    runtime, threads = measured.get("runtime"), measured.get("threads")
    words = [machine, TITLES.get(runtime, runtime) if runtime else None, measured.get("data_type")]
    words.append(f"{threads} thread{'' if threads == 1 else 's'}" if threads else None)
    return f"{', '.join(str(word) for word in words if word)}: measured"


def places_of(found: Iterable[Candidate]) -> list[str]:
    """What the latencies of networks hold for, each once, the most frequent first."""
    counted = Counter(one.timed_on for one in found if one.timed_on is not None and "latency" in one.takes)
    return [place for place, _ in counted.most_common()]


def of_one_machine(found: Sequence[Candidate]) -> list[Candidate]:
    """Networks without what was measured on other machines than that of most of them: it does not compare."""
    places = places_of(found)
    return [
        one
        if one.timed_on in (None, *places[:1])
        else replace(
            one, timed_on=None, takes={name: value for name, value in one.takes.items() if name not in MEASURED}
        )
        for one in found
    ]


def title_of(resource: Resource, found: Sequence[Candidate]) -> str:
    """A resource as pages name it: a latency with what it holds for."""
    places = places_of(found) if resource.name in MEASURED else []
    return f"{resource.title} ({places[0]})" if places else resource.title


def recommend(found: Sequence[Candidate], limits: Mapping[str, float]) -> Recommendation:
    """Choose by validation score among the networks that meet every limit; of equal ones the one with fewer MACs.

    Args:
        found: what is there.
        limits: largest value of each resource, by its name. A network of which a limited resource is not known is out.

    Raises UsageError for a resource that does not exist, or that no network has.
    """
    for name in limits:
        if name not in BY_NAME:
            raise UsageError(f"Expected limits on {', '.join(BY_NAME)}, but got {shown(name)}.")
        if found and not any(name in candidate.takes for candidate in found):
            how = (
                "sweep with --runtime RUNTIME to measure it"
                if name == "latency"
                else "LiteRT has no model of this network"
            )
            raise UsageError(f"No trial has a known {name}: {how}.")

    def meets(candidate: Candidate, names: Iterable[str]) -> bool:
        return all(candidate.takes.get(name, float("inf")) <= limits[name] for name in names)

    def worth(candidate: Candidate) -> tuple[float, float]:
        return candidate.worth, -candidate.takes.get("macs", 0.0)

    fitting = sorted((one for one in found if meets(one, limits)), key=worth, reverse=True)
    best = fitting[0] if fitting else None
    buys, relax = [], []
    for name in limits:
        others = [other for other in limits if other != name]
        beyond = [one for one in found if meets(one, others) and one.takes.get(name, float("inf")) > limits[name]]
        beyond = [one for one in beyond if name in one.takes]
        if best is None and beyond:
            least = min(beyond, key=lambda one: (one.takes[name], -one.worth))
            relax.append(Relax(BY_NAME[name], limits[name], least.takes[name], least))
        elif best is not None:
            better = [one for one in beyond if one.worth >= best.worth + least_gain(best)]
            if better:  # the next step up, not the largest
                least = min(better, key=lambda one: (one.takes[name], -one.worth))
                gain = least.worth - best.worth
                more = least.takes[name] - limits[name]
                buys.append(Buy(BY_NAME[name], more, gain, least, compared(best, least)))
    next_best = fitting[1] if len(fitting) > 1 else None
    least_there = {name: min((one.takes[name] for one in found if name in one.takes), default=0.0) for name in limits}
    return Recommendation(
        best=best,
        next_best=next_best,
        buys=tuple(buys),
        relax=tuple(relax),
        fitting=len(fitting),
        of=len(found),
        comparison=None if best is None or next_best is None else compared(next_best, best),
        least={} if best else {name: least for name, least in least_there.items() if least > limits[name]},
    )


def least_gain(best: Candidate) -> float:
    """What is worth a mention: a tenth of a point, or a thousandth of a metric that is not a share."""
    return LEAST_GAIN if best.metric.is_share else LEAST_GAIN * abs(best.validation)


def compared(first: Candidate, second: Candidate) -> Comparison | None:
    """The second network against the first on the validation images of their study.

    None in older studies, and where the task has no images that are right or wrong.
    """
    from pretrim.train import compare, unpack

    first_right, second_right = ((one.validated or {}).get("right") for one in (first, second))
    if first_right is None or second_right is None or first_right["images"] != second_right["images"]:
        return None
    return compare(unpack(first_right), unpack(second_right))


def to_json(found: Recommendation) -> dict[str, Any]:
    """Plain JSON."""
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
            {"resource": one.resource.name, "limit": one.limit, "needed": one.needed, "key": one.candidate.key}
            for one in found.relax
        ],
        "least": dict(found.least),
        "fitting": found.fitting,
        "of": found.of,
        "comparison": None if found.comparison is None else found.comparison.to_json(),
    }


def candidate_json(candidate: Candidate, *, test: bool = True) -> dict[str, Any]:
    """Plain JSON; the test score of the chosen one alone, so that nobody chooses by it."""
    plain = {
        "key": candidate.key,
        "name": candidate.name,
        "seed": candidate.seed,
        f"validation_{candidate.metric.name}": candidate.validation,
        "takes": dict(candidate.takes),
        **_sureness("validation", candidate.validated),
    }
    return plain | (
        {f"test_{candidate.metric.name}": candidate.test, **_sureness("test", candidate.tested)} if test else {}
    )


def _sureness(part: str, evaluation: Mapping[str, Any] | None) -> dict[str, Any]:
    """The 95 % interval of an accuracy, and of how many images it is."""
    found = evaluation or {"interval_95": None, "images": None}
    return {f"{part}_interval_95": found["interval_95"], f"{part}_images": found["images"]}
