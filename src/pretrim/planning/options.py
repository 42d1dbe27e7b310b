"""How widths are chosen: the options of all methods, validated on construction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from operator import index
from typing import Literal, TypeAlias, get_args

from pretrim.errors import UsageError, shown

Method: TypeAlias = Literal[
    "balanced", "params", "macs", "memory", "latency", "joint", "uniform", "random", "waterfill"
]
Step: TypeAlias = Literal["fraction", "filter"]
ShareUpdate: TypeAlias = Literal["static", "adaptive"]
Coupling: TypeAlias = Literal["sum", "mean", "max"]
AIMS: dict[Method, str] = {
    "params": "params",
    "macs": "macs",
    "memory": "activation_bytes",
    "latency": "latency_ns",
}
"""The cost that a mode reduces, if it is a single one: of several draws, the one with the lowest such cost is taken."""
SAMPLED: tuple[Method, ...] = ("params", "macs", "memory", "latency", "joint")
"""The modes of the paper's sampling."""
DRAWN: tuple[Method, ...] = (*SAMPLED, "random")
"""The modes whose widths depend on the seed."""
SAMPLING = ("step", "fraction", "share_update", "coupling", "block", "draws")
"""Options of the sampled modes only."""
INTERNAL = ("block",)
"""Options for experiments on the method itself; messages do not advertise them."""
LATENCY_DRAWS = 64
"""Default number of draws in the mode latency."""
SMALLEST_FRACTION = 0.0001
"""Smallest fraction of a group that a draw may remove: with it, a width of 1,000 takes 70,000 draws to reach 1."""


@dataclass(frozen=True)
class Options:
    """How widths are chosen.

    ``balanced``, the default, maximises the network's utility within every limit (`planning.balanced`) and draws
    nothing. The other methods are the paper's sampling and the controls.

    The paper leaves step, share_update and coupling open to interpretation. No reading was clearly better than the
    defaults: they differ by less than seeds do (docs/results-archive.md, section 1: ResNet-20 at half the MACs, four
    seeds).

    Attributes:
        mode: ``balanced``; or sampling by a complexity (``params``, ``macs``, ``memory``, ``latency``; ``joint`` draws
            the mode of each step by how far each limit is still exceeded); or a control (``uniform``, ``random``,
            ``waterfill``).
        step: what one draw removes: ``filter``, one rounding step of filters (the paper's words), or ``fraction``, a
            fraction of the drawn group. One filter per draw exhausts narrow layers: FA at half the MACs takes VGG-16's
            second layer from 64 to 4.
        fraction: the fraction that one draw removes.
        share_update: ``static``: shares of the dense network (the paper); ``adaptive``: of the network as it shrinks.
        coupling: how the shares of coupled layers combine to the share of their group: sum, mean or max. The sum of a
            residual stream is large, so it is cut first.
        round_to: filters are kept in multiples of this number, or of a smaller one in layers of fewer than eight times
            as many filters. Unaligned widths gain nothing on real kernels (docs/planning.md).
        min_width: the fewest filters that a layer keeps, for all layers or by pattern (``{"layer1": 16, "*": 4}``). If
            several patterns match a layer, the largest number counts.
        freeze: patterns of layers that keep all their filters: names of layers or modules (``layer1``), or globs
            (``*.conv1``). Layers coupled with them are frozen too.
        min_features: the fewest channels that the last layer, the classifier, reads. None: two per class, or a quarter
            of the dense network's if that is less, and fewer only if no network within the limits keeps them;
            ``balanced``, ``uniform`` and ``waterfill`` have their own rule. A residual stream is drawn as often as all
            its layers together, and accuracy is lost if the classifier reads few of its channels (docs/results.md).
        seed: seed of the draws; ``balanced``, ``uniform`` and ``waterfill`` draw nothing.
        block: number of draws between updates of state-dependent shares (``adaptive``, several limits, peak memory). 1
            is exact; larger blocks are faster for thousands of candidates (docs/planning.md shows their effect).
        draws: number of plans to draw; of those that use up the limits, the one that costs least by the mode's own cost
            is taken. None: 64 in the mode latency, which aims at time whatever else is limited, and elsewhere 1, the
            paper's single draw.
    """

    mode: Method = "balanced"
    step: Step = "fraction"
    fraction: float = 0.05
    share_update: ShareUpdate = "static"
    coupling: Coupling = "sum"
    round_to: int = 8
    min_width: int | Mapping[str, int] = 1
    freeze: tuple[str, ...] = ()
    min_features: int | None = None
    seed: int = 0
    block: int = 1
    draws: int | None = None

    def __post_init__(self) -> None:
        _one_of("mode", self.mode, get_args(Method))
        _one_of("step", self.step, get_args(Step))
        _one_of("share_update", self.share_update, get_args(ShareUpdate))
        _one_of("coupling", self.coupling, get_args(Coupling))
        if not (isinstance(self.fraction, float) and SMALLEST_FRACTION <= self.fraction < 1):
            raise UsageError(
                f"Expected fraction to be from {SMALLEST_FRACTION} to below 1, but got {shown(self.fraction)}."
            )
        for name in ("round_to", "block", "seed", "min_features", "draws"):
            object.__setattr__(self, name, _integer(name, getattr(self, name)))
        for name, minimum in (("round_to", 1), ("block", 1), ("seed", 0)):
            if getattr(self, name) < minimum:
                raise UsageError(f"Expected {name} to be at least {minimum}, but got {getattr(self, name)}.")
        object.__setattr__(self, "min_width", _min_width(self.min_width))
        object.__setattr__(self, "freeze", _patterns(self.freeze))
        if self.min_features is not None and self.min_features < 1:
            raise UsageError(f"Expected min_features to be at least 1, but got {self.min_features}.")
        if self.draws is not None and self.draws < 1:
            raise UsageError(f"Expected draws to be at least 1, but got {self.draws}.")
        self._check_sampling()
        if self.draws is not None and self.draws > 1 and self.mode not in AIMS:
            raise UsageError(
                f"Expected one draw in the mode {self.mode}, but got {self.draws}: it targets no single cost."
            )

    def _check_sampling(self) -> None:
        """Raise UsageError if an option of the sampled modes is set in the mode balanced."""
        changed = [f.name for f in fields(self) if f.name in SAMPLING and getattr(self, f.name) != f.default]
        if self.mode == "balanced" and changed:
            raise UsageError(
                f"Nothing is drawn in the mode balanced, so {' and '.join(changed)} cannot be set: leave them out, or "
                f"choose a sampled mode (params, macs, memory, joint)."
            )

    @property
    def candidates(self) -> int:
        """Number of plans to draw."""
        return self.draws if self.draws is not None else LATENCY_DRAWS if self.mode == "latency" else 1


def _min_width(value: int | Mapping[str, int]) -> int | dict[str, int]:
    """Check the fewest filters of every layer, or by pattern. Raises UsageError for less than 1."""
    by_pattern = dict(value) if isinstance(value, Mapping) else {"": value}
    checked = {}
    for pattern, filters in by_pattern.items():
        name = f"min_width of {pattern}" if pattern else "min_width"
        minimum = _integer(name, filters)
        if minimum is None or minimum < 1:
            raise UsageError(f"Expected {name} to be at least 1, but got {shown(filters)}.")
        checked[str(pattern)] = minimum
    return checked if isinstance(value, Mapping) else checked[""]


def _patterns(value: object) -> tuple[str, ...]:
    """Check patterns of layers, given as a list or as a single pattern. Raises UsageError for anything else."""
    patterns = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, (list, tuple)) else (None,)
    if not all(isinstance(pattern, str) and pattern for pattern in patterns):
        raise UsageError(f"Expected freeze to be a list of names of layers, but got {shown(value)}.")
    return patterns


def _integer(name: str, value: object) -> int | None:
    """Convert an integer, such as NumPy's, to Python's, because options are written as JSON. Raises UsageError."""
    if value is None and name in ("min_features", "draws"):
        return None
    try:
        return index(None if isinstance(value, bool) else value)  # type: ignore[arg-type]
    except TypeError:
        raise UsageError(f"Expected {name} to be a whole number, but got {shown(value)}.") from None


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise UsageError if a value is none of the choices."""
    if not isinstance(value, str) or value not in choices:
        raise UsageError(f"Expected {name} to be one of {', '.join(choices)}, but got {shown(value)}.")
