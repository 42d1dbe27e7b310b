"""What a study is about, and what each of its trials asks for; both are plain JSON, and together they make a key."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import product
from typing import Any, get_args

from pretrim.cost.quantities import by_option
from pretrim.errors import UsageError
from pretrim.planning.options import Method, Options
from pretrim.train import Execution, Recipe

DENSE = "dense"
LIMIT_OF_MODE: Mapping[str, str] = {"params": "params", "macs": "macs", "memory": "activation", "latency": "latency"}
"""What a mode is kept to a share of, where the study does not say; the others: macs"""
RUNTIME = "litert"
"""Whose latency counts, where a trial does not say"""


@dataclass(frozen=True)
class TrialSpec:
    """One trial: a plan, and the seed that it is drawn and trained with.

    Attributes:
        mode: how widths are chosen, or ``dense``.
        keep: the share of the limited cost that may stay; 1 for dense.
        limit: that cost, by the name of its limit: params, macs, activation, latency ...
        seed: of plan, weights and training.
        step: see `allocate.Options`.
        round_to: likewise.
        runtime: whose latency counts, where the mode or the limit is one: litert or onnx.
    """

    mode: str
    keep: float
    limit: str
    seed: int = 0
    step: str = "fraction"
    round_to: int = 8
    runtime: str = RUNTIME

    def __post_init__(self) -> None:
        if self.mode == DENSE:
            return
        if not 0 < self.keep < 1:
            raise UsageError(f"Expected shares to keep between 0 and 1, but got {self.keep:g}.")
        Options(mode=self.mode, step=self.step, round_to=self.round_to, seed=self.seed)  # type: ignore[arg-type]

    @property
    def is_timed(self) -> bool:
        """Whether a latency has to be known to plan it."""
        return self.mode == "latency" or (self.limit in by_option() and by_option()[self.limit].name == "latency_ns")

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; without the runtime where it is LiteRT, as before there were others: keys stay what they were."""
        plain = asdict(self) | {"candidates": 1, "score": ""}
        return plain if self.runtime != RUNTIME else {name: plain[name] for name in plain if name != "runtime"}

    @property
    def name(self) -> str:
        """For people; trials that differ in their seed alone have the same."""
        if self.mode == DENSE:
            return DENSE
        plain = TrialSpec(self.mode, self.keep, self.limit, round_to=1 if self.mode == "uniform" else 8)
        extras = [f"{key} {value}" for key, value in asdict(self).items() if value != getattr(plain, key)]
        extras = [text for text in extras if not text.startswith("seed ")]
        return ", ".join([f"{self.mode} at {self.keep:g} of {self.limit}", *extras])


@dataclass(frozen=True)
class StudyConfig:
    """What all trials of a study share. Precision, layout and threads are pinned: they change results and times.

    Attributes:
        model: its name, as the user typed it.
        data: the data set, likewise.
        image: shape of an image, or None for that of the data.
        limit: number of training images, or None for all.
        recipe: the training.
        execution: device, precision, channels_last, threads.
        dtype: data type that bytes are counted in.
        objectives: costs that the Optuna study minimises, beside the accuracy.
        split_seed: of the parts of the data.
        hopeless: whether trials that cheaper ones outdo are stopped (`stopping.py`).
    """

    model: str
    data: str
    image: tuple[int, int, int] | None = None
    limit: int | None = None
    recipe: Recipe = field(default_factory=Recipe)
    execution: Execution = field(default_factory=Execution)
    dtype: str = "float32"
    objectives: tuple[str, ...] = ("params", "macs", "peak_activation_bytes")
    split_seed: int = 0
    hopeless: bool = False

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> StudyConfig:
        """Read what :meth:`to_json` wrote."""
        known = {entry.name: data[entry.name] for entry in fields(cls)}
        known["image"] = None if known["image"] is None else tuple(known["image"])
        known["objectives"] = tuple(known["objectives"])
        return cls(**known | {"recipe": Recipe(**known["recipe"]), "execution": Execution(**known["execution"])})


def key_of(settings: StudyConfig, asked: TrialSpec) -> str:
    """What a trial asks for, in 16 hexadecimal digits: the same for the same question in any study."""
    text = json.dumps([settings.to_json(), asked.to_json()], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def grid(
    modes: Sequence[str],
    keep: Sequence[float],
    seeds: int,
    *,
    limit: str | None = None,
    dense: bool = True,
    runtime: str = RUNTIME,
    **options: Any,
) -> list[TrialSpec]:
    """Every mode at every share with every seed, seed by seed: what is there when time is over can be compared.

    Args:
        modes: of `allocate.Options`.
        keep: shares.
        seeds: how many, from 0.
        limit: the cost that all modes are kept to; by default the one that the mode is named after (else macs).
        dense: the dense network as well.
        runtime: of the trials that need a latency.
        options: of `TrialSpec`.

    Raises UsageError for what is not a mode, or a share.
    """
    for mode in modes:
        if mode not in get_args(Method):
            raise UsageError(f"Expected modes out of {', '.join(get_args(Method))}, but got {mode!r}.")
    if seeds < 1:
        raise UsageError(f"Expected seeds to be at least 1, but got {seeds}.")
    found: list[TrialSpec] = []
    for seed in range(seeds):
        if dense:
            found.append(TrialSpec(DENSE, 1.0, "macs", seed))
        for share, mode in product(sorted(keep, reverse=True), modes):
            cost = limit or LIMIT_OF_MODE.get(mode, "macs")
            # One width multiplier steps all layers together: multiples of 8 would leave most of the budget unused.
            own = options if mode != "uniform" else {**options, "round_to": 1}
            one = TrialSpec(mode, share, cost, seed, **own)
            found.append(replace(one, runtime=runtime) if one.is_timed else one)
    return found
