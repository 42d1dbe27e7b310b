"""How widths are chosen: the options of every method, checked once."""

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
"""The cost that a mode is for, where it has one: several draws are compared by it"""
SAMPLED: tuple[Method, ...] = ("params", "macs", "memory", "latency", "joint")
"""The modes of the paper's sampling"""
DRAWN: tuple[Method, ...] = (*SAMPLED, "random")
"""The modes whose widths depend on the seed"""
SAMPLING = ("step", "fraction", "share_update", "coupling", "block", "draws")
"""Options that only the sampled modes have"""
INTERNAL = ("block",)
"""Options for measurements of the method; messages do not advertise them"""
LATENCY_DRAWS = 64
SMALLEST_FRACTION = 0.0001
"""of a group that a draw removes: a width of 1,000 is then 70,000 draws from 1"""


@dataclass(frozen=True)
class Options:
    """How widths are chosen.

    ``balanced``, the default, is the most useful network within every limit (`planning.balanced`); nothing is drawn for
    it. The other methods are the paper's sampling and the controls.

    The defaults of step, share_update and coupling are readings of the paper that no other was clearly better than:
    they differ by less than seeds do (docs/results-archive.md, section 1: ResNet-20 at half the MACs, four seeds).

    Attributes:
        mode: ``balanced``; or sampling, by what counts as complexity (``params``, ``macs``, ``memory``, ``latency``;
            ``joint`` draws the mode of each step by how far each limit is still exceeded); or a control (``uniform``,
            ``random``, ``waterfill``).
        step: what one draw removes: one rounding step of filters (the paper's words), or a fraction of the drawn group.
            One filter a draw exhausts narrow layers: FA at half the MACs takes VGG-16's second layer from 64 to 4.
        fraction: that fraction.
        share_update: ``static``: shares of the dense network (the paper); ``adaptive``: of the network as it shrinks.
        coupling: how the shares of coupled layers make the share of their group: their sum, mean, or the largest. The
            sum of a residual stream is large, so it is cut first.
        round_to: filters are kept in multiples of it; smaller in layers of fewer than eight times as many. Unaligned
            widths buy nothing on real kernels (docs/planning.md).
        min_width: the fewest filters that a layer keeps; or by pattern, ``{"layer1": 16, "*": 4}``, the largest number
            counts where several patterns name a layer.
        freeze: patterns of layers that keep all their filters: names of layers or modules (``layer1``), or globs
            (``*.conv1``); with them those that are coupled with them.
        min_features: the fewest channels that the last layer, the classifier, reads. None: two for each class, or a
            quarter of the dense network's where that is less, and fewer only if no network within the limits keeps
            them; ``balanced``, ``uniform`` and ``waterfill`` have their own rule. A residual stream is drawn as often
            as all its layers together, and where the classifier reads few of its channels accuracy is lost
            (docs/results.md).
        seed: of the draws; nothing is drawn for ``balanced``, ``uniform`` and ``waterfill``.
        block: draws between two updates of shares that depend on the state (``adaptive``, several limits, peak memory).
            1 is exact; larger blocks are faster for thousands of candidates (docs/planning.md shows their effect).
        draws: of so many plans within the limits the one is taken that costs least of what the mode is for. None: 64
            in the mode latency, whose aim is time whatever else is limited, and 1, the paper's single draw, elsewhere.
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
            object.__setattr__(self, name, _whole(name, getattr(self, name)))
        for name, least in (("round_to", 1), ("block", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise UsageError(f"Expected {name} to be at least {least}, but got {getattr(self, name)}.")
        object.__setattr__(self, "min_width", _min_width(self.min_width))
        object.__setattr__(self, "freeze", _patterns(self.freeze))
        if self.min_features is not None and self.min_features < 1:
            raise UsageError(f"Expected min_features to be at least 1, but got {self.min_features}.")
        if self.draws is not None and self.draws < 1:
            raise UsageError(f"Expected draws to be at least 1, but got {self.draws}.")
        self._check_sampling()
        if self.draws is not None and self.draws > 1 and self.mode not in AIMS:
            raise UsageError(
                f"Expected one draw in the mode {self.mode}, but got {self.draws}: it aims at no one cost."
            )

    def _check_sampling(self) -> None:
        """Raises UsageError where an option of the draws is changed and nothing is drawn."""
        changed = [f.name for f in fields(self) if f.name in SAMPLING and getattr(self, f.name) != f.default]
        if self.mode == "balanced" and changed:
            raise UsageError(
                f"Nothing is drawn in the mode balanced, so {' and '.join(changed)} cannot be set: leave them out, or "
                f"choose a sampled mode (params, macs, memory, joint)."
            )

    @property
    def candidates(self) -> int:
        """Plans to draw."""
        return self.draws if self.draws is not None else LATENCY_DRAWS if self.mode == "latency" else 1


def _min_width(given: int | Mapping[str, int]) -> int | dict[str, int]:
    """Filters of every layer, or by pattern; at least one each."""
    by_pattern = dict(given) if isinstance(given, Mapping) else {"": given}
    checked = {}
    for pattern, value in by_pattern.items():
        name = f"min_width of {pattern}" if pattern else "min_width"
        least = _whole(name, value)
        if least is None or least < 1:
            raise UsageError(f"Expected {name} to be at least 1, but got {shown(value)}.")
        checked[str(pattern)] = least
    return checked if isinstance(given, Mapping) else checked[""]


def _patterns(given: object) -> tuple[str, ...]:
    """Patterns of layers, from a list or from one of them."""
    patterns = (given,) if isinstance(given, str) else tuple(given) if isinstance(given, (list, tuple)) else (None,)
    if not all(isinstance(pattern, str) and pattern for pattern in patterns):
        raise UsageError(f"Expected freeze to be a list of names of layers, but got {shown(given)}.")
    return patterns


def _whole(name: str, value: object) -> int | None:
    """A Python integer, from NumPy's too: options are written as JSON."""
    if value is None and name in ("min_features", "draws"):
        return None
    try:
        return index(None if isinstance(value, bool) else value)  # type: ignore[arg-type]
    except TypeError:
        raise UsageError(f"Expected {name} to be a whole number, but got {shown(value)}.") from None


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in choices:
        raise UsageError(f"Expected {name} to be one of {', '.join(choices)}, but got {shown(value)}.")
