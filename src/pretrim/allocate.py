"""From a budget to widths: complexity-driven sampling, and what it must be compared with.

Every method has one form, ``(network, bounds, options, count) -> widths`` (count x G), and one contract: every limit is
met, and giving any one rounding step back to any group that is not dense breaks one (for ``uniform``: the largest ratio
that fits).

The sampling is the paper's (Zawish, Davy, Abraham 2022, arXiv 2208.12816): a layer is drawn with a probability equal to
its share of the network's complexity, some of its filters go, until the budget holds. What counts as complexity is the
mode: its weights (PA, ``params``), its multiply-accumulates (FA, ``macs``), its feature map (MA, ``memory``).

A seed gives the same plan on every machine: random numbers are the raw stream of PCG64, which NumPy keeps unchanged
between versions, and shares are sums of whole numbers, which double precision holds exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import gcd
from operator import index
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from .budget import Bounds
from .cost import MODES, CostName, Formula, Mode, formula, layer_terms, moments, peak_columns
from .errors import UsageError
from .network import Group, IntArray, Network

Method: TypeAlias = Literal["params", "macs", "memory", "latency", "joint", "uniform", "random", "waterfill"]
Step: TypeAlias = Literal["fraction", "filter"]
Weighting: TypeAlias = Literal["static", "adaptive"]
Coupling: TypeAlias = Literal["sum", "mean", "max"]
FloatArray = NDArray[np.float64]

Share: TypeAlias = Mode | Literal["latency"]
"""What counts as complexity: the paper's three, and measured time (LA)"""
MODE_OF_COST: dict[str, Share] = {
    "latency_ns": "latency",
    "params": "params",
    "weight_bytes": "params",
    "macs": "macs",
    "activation_bytes": "memory",
    "peak_activation_bytes": "memory",
    "artifact_bytes": "params",
    "arena_bytes": "memory",
}
AIMS: dict[Method, CostName | Literal["latency_ns"]] = {
    "params": "params",
    "macs": "macs",
    "memory": "activation_bytes",
    "latency": "latency_ns",
}
"""The cost that a mode is for, where it has one: several draws are compared by it"""
LATENCY_DRAWS = 64
PEAKS = frozenset({"peak_activation_bytes", "arena_bytes"})
"""Costs of one moment, not of all layers together"""
# Draws between two looks at the budget when the shares do not change in between; the stop is exact all the same.
STATIC_BLOCK = 32
SMALLEST_FRACTION = 0.0001
"""of a group that a draw removes: a width of 1,000 is then 70,000 draws from 1"""


@dataclass(frozen=True)
class Options:
    """How widths are chosen.

    The defaults of step, weights and coupling are readings of the paper that no other was clearly better than
    (docs/results.md, table 1: ResNet-20 at half the MACs, four seeds): where they differ they do by less than the
    seeds. ``joint`` draws by the limit that is given: PA is above uniform width under its own limit (the table after
    it), and below it under one on MACs. Rounding costs there what it saves in time elsewhere (docs/deploy.md).

    Attributes:
        mode: what counts as complexity; ``joint`` draws the mode of each step by how far each limit is still exceeded;
            ``uniform``, ``random`` and ``waterfill`` are the controls.
        step: what one draw removes: one rounding step of filters (the paper's words), or a fraction of the drawn group.
            One filter a draw exhausts narrow layers: FA at half the MACs takes VGG-16's second layer from 64 to 4.
        fraction: that fraction.
        weights: shares of the dense network (the paper), or of the network as it shrinks.
        coupling: how the shares of coupled layers make the share of their group: their sum, mean, or the largest. The
            sum of a residual stream is large, so it is cut first.
        round_to: filters are kept in multiples of it; smaller in layers of fewer than four times as many. Unaligned
            widths buy nothing on real kernels (docs/costs.md).
        min_width: the fewest filters that a layer keeps.
        min_features: the fewest channels that the last layer, the classifier, reads. None: two for each class, or a
            quarter of the dense network's where that is less, and fewer only if no network within the limits keeps
            them; ``uniform`` and ``waterfill`` have their own rule. A residual stream is drawn as often as all its
            layers together, and where the classifier reads few of its channels accuracy is lost (docs/results.md).
        seed: of the draws.
        block: draws between two updates of shares that depend on the state (``adaptive``, several limits, peak memory).
            1 is exact; larger blocks are faster for thousands of candidates (docs/planning.md shows their effect).
        draws: of so many plans within the limits the one is taken that costs least of what the mode is for. None: 64
            in the mode latency, whose aim is time whatever else is limited, and 1, the paper's single draw, elsewhere.
    """

    mode: Method = "joint"
    step: Step = "fraction"
    fraction: float = 0.05
    weights: Weighting = "static"
    coupling: Coupling = "sum"
    round_to: int = 8
    min_width: int = 1
    min_features: int | None = None
    seed: int = 0
    block: int = 1
    draws: int | None = None

    def __post_init__(self) -> None:
        _one_of("mode", self.mode, get_args(Method))
        _one_of("step", self.step, get_args(Step))
        _one_of("weights", self.weights, get_args(Weighting))
        _one_of("coupling", self.coupling, get_args(Coupling))
        if not (isinstance(self.fraction, float) and SMALLEST_FRACTION <= self.fraction < 1):
            raise UsageError(f"Expected fraction to be from {SMALLEST_FRACTION} to below 1, but got {self.fraction!r}.")
        for name in ("round_to", "min_width", "block", "seed", "min_features", "draws"):
            object.__setattr__(self, name, _whole(name, getattr(self, name)))
        for name, least in (("round_to", 1), ("min_width", 1), ("block", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise UsageError(f"Expected {name} to be at least {least}, but got {getattr(self, name)}.")
        if self.min_features is not None and self.min_features < 1:
            raise UsageError(f"Expected min_features to be at least 1, but got {self.min_features}.")
        if self.draws is not None and self.draws < 1:
            raise UsageError(f"Expected draws to be at least 1, but got {self.draws}.")
        if self.draws is not None and self.draws > 1 and self.mode not in AIMS:
            raise UsageError(
                f"Expected one draw in the mode {self.mode}, but got {self.draws}: it aims at no one cost."
            )

    @property
    def candidates(self) -> int:
        """Plans to draw."""
        return self.draws if self.draws is not None else LATENCY_DRAWS if self.mode == "latency" else 1


def _whole(name: str, value: object) -> int | None:
    """A Python integer, from NumPy's too: options are written as JSON."""
    if value is None and name in ("min_features", "draws"):
        return None
    try:
        return index(value)  # type: ignore[arg-type]
    except TypeError:
        raise UsageError(f"Expected {name} to be a whole number, but got {value!r}.") from None


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UsageError(f"Expected {name} to be one of {', '.join(choices)}, but got {value!r}.")


def allocate(network: Network, bounds: Bounds, options: Options, count: int = 1) -> IntArray:
    """Widths (count x G) that meet every limit of `bounds`.

    ``uniform`` and ``waterfill`` have no randomness: their rows are equal.

    Raises:
        InfeasibleBudget: the narrowest legal network does not fit.
    """
    problem = Problem(network, bounds, options)
    bounds.check_reachable(problem.smallest, sum("output" not in entry.reason for entry in network.frozen))
    if not network.groups:
        return np.zeros((count, 0), dtype=np.int64)
    return METHODS[options.mode](problem, count)


# ---------------------------------------------------------------------------------------- legal widths


def legal_widths(group: Group, round_to: int, min_width: int) -> IntArray:
    """The widths a group may have, ascending: multiples of its rounding step, and its dense width.

    A layer of fewer than ``4 * round_to`` filters is rounded to the largest power of two that is at most a quarter of
    it. Where one channel stands for several filters, the filters are rounded.

    >>> legal_widths(Group("conv", ("conv",), 64, 1), 8, 1).tolist()
    [8, 16, 24, 32, 40, 48, 56, 64]
    >>> legal_widths(Group("conv", ("conv",), 18, 1), 8, 6).tolist()
    [8, 12, 16, 18]
    """
    filters = group.channels * group.multiplicity
    step = round_to if filters >= 4 * round_to else 1 << max(0, (filters // 4).bit_length() - 1)
    step = max(1, step // gcd(step, group.multiplicity))
    fewest = min(-(-min_width // group.multiplicity), group.channels)
    steps = np.arange(step, group.channels, step, dtype=np.int64)
    return np.append(steps[steps >= fewest], group.channels)


RULED = ("uniform", "waterfill")
"""Modes whose widths follow from a rule, so that nothing is to be kept from a draw"""
FEATURES_PER_CLASS, FEATURES_SHARE = 2, 4
"""What `Options.min_features` is by default: so many for each class, or one of so many of the dense network's"""


def fewest_channels(network: Network, features: int | None) -> IntArray:
    """Of each group (G), so that the last layer reads as many features as `Options.min_features` says."""
    least = np.zeros(len(network.groups), dtype=np.int64)
    last = max(network.layers, key=lambda layer: layer.operator, default=None)
    if last is None or network.coefficients[last.filters].any():
        return least  # no classifier: its outputs could be cut
    reads = [dim for dim in last.weight[:2] if dim != last.filters]  # a linear weight is traced transposed
    if len(reads) != 1:
        return least
    sizes = network.sizes(network.dense)
    classes, dense = int(sizes[last.filters]), int(sizes[reads[0]])
    wanted = min(FEATURES_PER_CLASS * classes, dense // FEATURES_SHARE) if features is None else min(features, dense)
    for g in np.flatnonzero(network.coefficients[reads[0]]):
        least[g] = -(-wanted * network.groups[g].channels // dense)
    return least


@dataclass(frozen=True)
class Problem:
    """One allocation: the legal widths of each group and the limits, in arrays."""

    network: Network
    bounds: Bounds
    options: Options

    @cached_property
    def legal(self) -> tuple[IntArray, ...]:
        o = self.options
        narrow = tuple(legal_widths(group, o.round_to, o.min_width) for group in self.network.groups)
        if o.min_features is None and o.mode in RULED:
            return narrow
        least = fewest_channels(self.network, o.min_features)
        kept = tuple(legal[legal >= least[g]] for g, legal in enumerate(narrow))
        smallest = np.array([legal[0] for legal in kept], dtype=np.int64)
        is_reachable = bool((self.bounds.measure(smallest) <= self.bounds.values).all())
        return kept if is_reachable or o.min_features is not None else narrow

    @cached_property
    def levels(self) -> IntArray:
        """Legal widths as a matrix (G x most), filled up with the dense width."""
        most = max((len(legal) for legal in self.legal), default=1)
        rows = [np.pad(legal, (0, most - len(legal)), mode="edge") for legal in self.legal]
        return np.array(rows, dtype=np.int64).reshape(len(rows), most)

    @cached_property
    def smallest(self) -> IntArray:
        return np.array([legal[0] for legal in self.legal], dtype=np.int64)

    def floor(self, wanted: FloatArray) -> IntArray:
        """The largest legal widths not above the wanted ones (the smallest legal where there are none): n x G."""
        columns = [
            legal[np.maximum(np.searchsorted(legal, wanted[:, g], side="right") - 1, 0)]
            for g, legal in enumerate(self.legal)
        ]
        return np.stack(columns, axis=1) if columns else np.zeros(wanted.shape, dtype=np.int64)

    def next_up(self, group: IntArray, width: IntArray) -> IntArray:
        """The next legal width of each (group, width) pair; the same where it is dense."""
        levels = self.levels[group]
        place = (levels <= width[:, None]).sum(axis=1)
        above: IntArray = levels[np.arange(len(group)), np.minimum(place, levels.shape[1] - 1)]
        return above


# ---------------------------------------------------------------------------------------- randomness


class Stream:
    """Uniform numbers in [0, 1) from PCG64's raw 64-bit stream."""

    def __init__(self, seed: int) -> None:
        self._bits = np.random.PCG64(seed)

    def uniform(self, *shape: int) -> FloatArray:
        raw = self._bits.random_raw(int(np.prod(shape)))
        return (raw >> np.uint64(11)).reshape(shape).astype(np.float64) * 2.0**-53

    def orders(self, count: int, size: int) -> IntArray:
        """`count` random orders of ``0..size-1``."""
        return np.argsort(self.uniform(count, size), axis=1, kind="stable")


# ---------------------------------------------------------------------------------------- shares


class Shares:
    """Each group's weight in the draw, as the state demands."""

    def __init__(self, problem: Problem) -> None:
        network, options = problem.network, problem.options
        self.problem = problem
        self.owners = _owners(network)
        self.formulas = {mode: formula(network, layer_terms(network, mode)) for mode in MODES}
        self.latency = problem.bounds.latency
        modes: tuple[Share, ...] = MODES if self.latency is None else (*MODES, "latency")
        self.static = {mode: self._of_groups(mode, network.dense[None]) for mode in modes}
        self.changes = options.weights == "adaptive" or len(problem.bounds.values) > 1 or self._limits_peak()
        self._peak = _Peak(network) if self._limits_peak() else None

    def _limits_peak(self) -> bool:
        return any(cost.name in PEAKS for cost in self.problem.bounds.costs)

    def _of_groups(self, mode: Share, widths: IntArray) -> FloatArray:
        """The complexity of each group, coupled layers put together: (n x G)."""
        if mode != "latency":
            layers = self.formulas[mode](widths)
        elif self.latency is not None:
            layers = self.latency.by_layer(widths)
        else:
            raise UsageError("Expected a measured latency for the mode latency, but got none: see pretrim.latency.")
        if self.problem.options.coupling == "max":
            parts = [(layers * self.owners[:, g]).max(axis=1) for g in range(self.owners.shape[1])]
            return np.stack(parts, axis=1)
        total: FloatArray = layers @ self.owners
        return total / (self.owners > 0).sum(axis=0) if self.problem.options.coupling == "mean" else total

    def of_mode(self, mode: Share, widths: IntArray) -> FloatArray:
        if self.problem.options.weights == "adaptive":
            return self._of_groups(mode, widths)
        if mode not in self.static:
            self.static[mode] = self._of_groups(mode, self.problem.network.dense[None])
        return np.broadcast_to(self.static[mode], widths.shape)

    def __call__(self, widths: IntArray, open_: NDArray[np.bool_]) -> FloatArray:
        """Probabilities, up to a factor, of drawing each group: (n x G). Groups that are not open get 0."""
        bounds = self.problem.bounds
        over = np.maximum(bounds.measure(widths) / bounds.values - 1.0, 0.0)
        mixed = np.zeros(widths.shape)
        for place, cost in enumerate(bounds.costs):
            if over[:, place].any():
                mixed += over[:, place, None] * _normal(self._for_limit(cost.name, widths), open_)
        return mixed

    def _for_limit(self, cost: str, widths: IntArray) -> FloatArray:
        mode = self.problem.options.mode
        if cost not in PEAKS or self._peak is None:
            return self.of_mode(MODE_OF_COST[cost] if mode == "joint" else _as_mode(mode), widths)
        at_peak = self._peak.bytes_of_groups(widths)
        return at_peak if mode == "joint" else self.of_mode(_as_mode(mode), widths) * (at_peak > 0)


def _as_mode(method: Method) -> Share:
    if method != "latency" and method not in MODES:
        raise UsageError(f"Expected a mode out of {', '.join(MODES)}, latency, but got {method!r}.")
    return method


def _normal(weights: FloatArray, open_: NDArray[np.bool_]) -> FloatArray:
    """Rows that sum to 1 over the open groups; where those weigh nothing, they weigh the same."""
    weights = np.where(open_, weights, 0.0)
    total = weights.cumsum(axis=1)[:, -1:]  # cumsum adds in order, on every machine alike
    weights = np.where(total > 0, weights, open_)
    total = np.where(total > 0, total, open_.sum(axis=1, keepdims=True))
    share: FloatArray = weights / np.maximum(total, 1e-300)
    return share


def _owners(network: Network) -> FloatArray:
    """Which part of each layer's filters belongs to each group, in the dense network: layers x groups."""
    rows = [network.coefficients[layer.filters] * network.dense for layer in network.layers]
    sizes = [max(int(network.sizes(network.dense)[layer.filters]), 1) for layer in network.layers]
    shape = (len(rows), len(network.groups))  # either may be 0
    return np.array(rows, dtype=np.float64).reshape(shape) / np.array(sizes, dtype=np.float64)[:, None]


class _Peak:
    """Which groups own the tensors that are alive at the present peak, and how many bytes of them."""

    def __init__(self, network: Network) -> None:
        together = moments(network)
        self.moments: Formula = formula(network, peak_columns(network, 1))
        self.tensors: Formula = formula(network, [[(1.0, tensor.dims)] for tensor in network.tensors])
        self.alive = np.array(
            [[t in alive for t in range(len(network.tensors))] for alive in together], dtype=np.float64
        )
        owned = [[network.coefficients[d] * network.dense for d in tensor.dims] for tensor in network.tensors]
        self.owners = np.array([np.sum(parts, axis=0) > 0 for parts in owned], dtype=np.float64)

    def bytes_of_groups(self, widths: IntArray) -> FloatArray:
        peak = self.moments(widths).argmax(axis=1)
        there: FloatArray = self.tensors(widths) * self.alive[peak]
        return there @ self.owners


# ---------------------------------------------------------------------------------------- the sampling


def sample(problem: Problem, count: int) -> IntArray:
    """Draw groups by their share until every limit holds, then give back what still fits."""
    options = problem.options
    ladder = _ladder(problem)
    last = (ladder > problem.smallest[:, None]).sum(axis=1)
    shares, stream = Shares(problem), Stream(options.seed)
    block = options.block if shares.changes else STATIC_BLOCK
    drawn = np.zeros((count, len(last)), dtype=np.int64)
    going = np.flatnonzero(~problem.bounds.met(_on(ladder, drawn)))
    while going.size:
        before = drawn[going]
        weights = shares(_on(ladder, before), before < last)
        picks = _pick(weights, stream.uniform(going.size, block))
        after = _count(before, picks, np.full(going.size, block), last)
        done = problem.bounds.met(_on(ladder, after))
        if block > 1 and done.any():
            after[done] = _shortest(problem, ladder, before[done], picks[done], last)
        drawn[going] = after
        going = going[~done]
    return give_back(problem, _on(ladder, drawn), stream.orders(count, len(last)))


def _ladder(problem: Problem) -> IntArray:
    """The width of each group after 0, 1, 2, ... draws: G x most, filled up with the smallest."""
    ladders = []
    for legal in problem.legal:
        if problem.options.step == "filter":
            ladders.append(legal[::-1])
            continue
        exact, widths = float(legal[-1]), [legal[-1]]
        while widths[-1] > legal[0]:
            exact *= 1.0 - problem.options.fraction
            widths.append(legal[np.abs(legal - exact)[::-1].argmin() * -1 - 1])
        ladders.append(np.array(widths))
    most = max(map(len, ladders), default=1)
    rows = [np.pad(ladder, (0, most - len(ladder)), mode="edge") for ladder in ladders]
    return np.array(rows, dtype=np.int64).reshape(len(rows), most)


def _on(ladder: IntArray, drawn: IntArray) -> IntArray:
    widths: IntArray = ladder[np.arange(len(ladder)), drawn]
    return widths


def _pick(weights: FloatArray, uniform: FloatArray) -> IntArray:
    """Draw from each row of weights as often as there are numbers: (n x G), (n x block) -> groups (n x block)."""
    edges = weights.cumsum(axis=1)
    target = uniform * edges[:, -1:]
    picked: IntArray = (edges[:, None, :] <= target[:, :, None]).sum(axis=2)
    return picked.clip(max=weights.shape[1] - 1)


def _count(before: IntArray, picks: IntArray, length: IntArray, last: IntArray) -> IntArray:
    """Draws of each group after the first `length` picks; a group at its minimum takes no more."""
    after = before.copy()
    used = np.arange(picks.shape[1]) < length[:, None]
    np.add.at(after, (np.nonzero(used)[0], picks[used]), 1)
    np.minimum(after, last, out=after)
    return after


def _shortest(problem: Problem, ladder: IntArray, before: IntArray, picks: IntArray, last: IntArray) -> IntArray:
    """Undo the draws of a block that were made after every limit held, by bisection (costs never rise)."""
    low, high = np.zeros(len(picks), dtype=np.int64), np.full(len(picks), picks.shape[1])
    while (high - low > 1).any():
        middle = (low + high) // 2
        met = problem.bounds.met(_on(ladder, _count(before, picks, middle, last)))
        low, high = np.where(met, low, middle), np.where(met, middle, high)
    return _count(before, picks, high, last)


def give_back(problem: Problem, widths: IntArray, orders: IntArray) -> IntArray:
    """Give each group, in the given order, every rounding step that breaks no limit.

    One pass is enough: costs never fall when a width grows, so a step that did not fit never will.
    """
    widths = widths.copy()
    for place in range(widths.shape[1]):
        rows, groups = np.arange(len(widths)), orders[:, place]
        while rows.size:
            now = widths[rows, groups]
            wider = problem.next_up(groups, now)
            trial = widths[rows]
            trial[np.arange(len(rows)), groups] = wider
            fits = (wider > now) & problem.bounds.met(trial)
            widths[rows[fits], groups[fits]] = wider[fits]
            rows, groups = rows[fits], groups[fits]
    return widths


def settle(network: Network, bounds: Bounds, options: Options, widths: IntArray) -> IntArray:
    """Give back what fits by the costs as they are, where a search by formulas left room (one row of widths).

    The arena may fall when a width grows, so that a step fits later that did not before: until nothing fits any more.
    """
    problem = Problem(network, bounds.as_they_are(), options)
    orders = Stream(options.seed).orders(1, len(widths))
    while True:
        wider = give_back(problem, widths[None], orders)[0]
        if (wider == widths).all():
            return widths
        widths = wider


# ---------------------------------------------------------------------------------------- the controls


def uniform(problem: Problem, count: int) -> IntArray:
    """One ratio for every group, the largest that fits: each keeps the largest legal width not above it."""
    dense = problem.network.dense
    ratios = np.unique(np.concatenate([legal / n for legal, n in zip(problem.legal, dense, strict=True)]))
    low, high = 0, len(ratios)  # ratios[low] fits (the smallest always does), ratios[high] does not
    while high - low > 1:
        middle = (low + high) // 2
        fits = problem.bounds.met(problem.floor(dense[None] * ratios[middle] + 1e-9))[0]
        low, high = (middle, high) if fits else (low, middle)
    return np.repeat(problem.floor(dense[None] * ratios[low] + 1e-9), count, axis=0)


def random(problem: Problem, count: int) -> IntArray:
    """Random widths at the budget, the null: ratios drawn uniformly, then scaled together as far as fits."""
    stream, dense = Stream(problem.options.seed), problem.network.dense
    drawn = stream.uniform(count, len(dense))
    widths = _largest_scale(problem, lambda scale: np.minimum(drawn * scale, 1.0) * dense, count)
    return give_back(problem, widths, stream.orders(count, len(dense)))


def waterfill(problem: Problem, count: int) -> IntArray:
    """Every group keeps the same amount of complexity, until it is dense: ``w = n * min(1, level / complexity)``.

    With x = w/n this maximises ``sum log(x)`` under ``sum complexity * x <= budget, x <= 1``, the form of the
    layer-density problem that PreCrop (arXiv 2203.02549) poses; its own text was not read, so it does not bear that
    name. Complexity is the dense network's, in the mode of each limit; with several limits the shares are averaged.
    """
    shares = Shares(problem)
    everywhere = np.ones((1, len(problem.network.groups)), dtype=bool)
    modes = [MODE_OF_COST[cost.name] for cost in problem.bounds.costs]
    complexity = np.mean([_normal(shares.static[mode], everywhere) for mode in modes], axis=0)
    weight = 1.0 / np.maximum(complexity, 1e-12)
    widths = _largest_scale(problem, lambda level: np.minimum(weight * level, 1.0) * problem.network.dense, 1)
    order = np.argsort(complexity, axis=1, kind="stable")
    return np.repeat(give_back(problem, widths, order), count, axis=0)


def _largest_scale(problem: Problem, widths_at: Callable[[FloatArray], FloatArray], count: int) -> IntArray:
    """Bisect the one number that widths grow with, for each row, to the largest that fits."""
    low, high = np.full((count, 1), 1e-12), np.full((count, 1), 1e12)
    for _ in range(80):
        middle = np.sqrt(low * high)
        met = problem.bounds.met(problem.floor(widths_at(middle)))[:, None]
        low, high = np.where(met, middle, low), np.where(met, high, middle)
    return problem.floor(widths_at(low))


METHODS: dict[Method, Callable[[Problem, int], IntArray]] = {
    "params": sample,
    "macs": sample,
    "memory": sample,
    "latency": sample,
    "joint": sample,
    "uniform": uniform,
    "random": random,
    "waterfill": waterfill,
}
