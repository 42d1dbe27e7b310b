"""Does an artifact compute what the network computes? Its outputs in its own runtime, beside PyTorch's."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .runtime import Outputs

if TYPE_CHECKING:
    from .parts import Region

LARGEST_ERROR = 1e-4
"""float32: the largest difference, as a share of the largest value of the output, or of the part of it."""
LEAST_SQNR_DB = 20.0
"""int8: the power of an output over that of its error; good static quantisation gives about 30 dB."""
LEAST_PART_SQNR_DB = 15.0
"""The same of a part of an output, where there are fewer values to average over."""
LEAST_VARIATION_DB = 10.0
"""int8: the variance of an output or a part over the power of its error: at 0 dB it could as well be a constant."""
REACHABLE_DB = 20.0
"""Variances that a scale of their own would not bring so far above the error are not judged: they are constants."""
LARGEST_LOSS = 0.01
"""int8: the accuracy that may be lost."""
DOUBT = 2.0
"""Standard errors by which a loss must exceed that to be one: of 179 images, three that flip are 1.7 points."""
UNEQUAL = 16.0
"""Ranges that differ by more under one scale leave fewer than 16 of the 256 levels to the smaller one."""
LEVELS = 255
MOST_NAMED = 3


@dataclass(frozen=True)
class Judge:
    """The metric of a task, by which an artifact is judged beside PyTorch.

    Attributes:
        metric: its name.
        higher_is_better: its direction.
        is_share: whether it is from 0 to 1.
        largest_loss: what int8 may cost: a difference for shares, a part of PyTorch's value for others.
        scores: of the outputs of all images, and then of images drawn with replacement, the same draws each time.
    """

    metric: str
    higher_is_better: bool
    is_share: bool
    largest_loss: float
    scores: Callable[[Outputs], Sequence[float]]


@dataclass(frozen=True)
class Part:
    """An output, or a part of one, judged on its own scale.

    Attributes:
        name: "output 1", "channels 4 to 6", "channels 4 to 6 of output 1"; empty for the only output.
        output: number of the output.
        largest: its largest magnitude, by PyTorch.
        relative_error: its largest difference as a share of that; None if not finite.
        sqnr_db: signal to quantisation noise, ``10 log10(sum of squares / sum of squared differences)``; None if equal.
        variation_db: the same with the variance in the place of the power; None if equal, or too small to be judged.
    """

    name: str
    output: int
    largest: float
    relative_error: float | None
    sqnr_db: float | None
    variation_db: float | None


@dataclass(frozen=True)
class Proof:
    """How far an artifact is from the network it was made of.

    Attributes:
        images: how many were compared.
        inputs: what they were: the data set, or "random pixels".
        relative_error: the worst of any output, its largest difference as a share of its largest value; None if not
            finite.
        sqnr_db: the worst of any output, in dB; None if equal.
        agreement: share of images whose largest score is the same class; None where outputs are not scores.
        accuracy: of PyTorch and of the artifact; None without labels.
        failed: what fell short, in words; empty if nothing did.
        parts: every output where there are several, and the parts of concatenated ones.
        advice: how to mend what one int8 scale over unequal ranges spoils, in words; empty where there is none.
        metric: by which a task judges: its name, direction, and the values of PyTorch and of the artifact.
    """

    images: int
    inputs: str
    relative_error: float | None
    sqnr_db: float | None
    agreement: float | None
    accuracy: tuple[float, float] | None
    failed: tuple[str, ...]
    parts: tuple[Part, ...] = ()
    advice: tuple[str, ...] = ()
    metric: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        plain = asdict(self)
        plain["accuracy"] = None if self.accuracy is None else list(self.accuracy)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}


def prove(
    wanted: Outputs,
    got: Outputs,
    *,
    is_int8: bool,
    inputs: str,
    labels: NDArray[np.int64] | None = None,
    regions: Sequence[Region] = (),
    judge: Judge | None = None,
) -> Proof:
    """Compare outputs, each output and each part of one on its own scale.

    float32 is within 1e-4 of the largest value. int8 is within 20 dB (15 dB in a part of an output), with a variance of
    10 dB above the error, and within a point of accuracy, as exactly as the images can tell.

    Args:
        wanted: of PyTorch, N x ... each.
        got: of the artifact.
        is_int8: which of the two tests applies.
        inputs: what they were, for the record.
        labels: classes (N), for accuracies.
        regions: parts of outputs (`parts.parts_of`).
        judge: the metric of a task that is no classification.
    """
    shapes = [list(part.shape) for part in wanted], [list(part.shape) for part in got]
    if shapes[0] != shapes[1]:
        return Proof(len(wanted[0]), inputs, None, None, None, None, (f"outputs are {shapes[1]}, not {shapes[0]}",))
    several = len(wanted) > 1
    whole = [
        _part(f"output {number}" if several else "", number, reference, found)
        for number, (reference, found) in enumerate(zip(wanted, got, strict=True))
    ]
    split = [
        _part(
            f"{region.name} of output {region.output}" if several else region.name,
            region.output,
            wanted[region.output][:, region.mask],
            got[region.output][:, region.mask],
        )
        for region in regions
    ]
    finite = all(part.relative_error is not None for part in whole)
    problems = ["outputs are not finite"]
    if finite:
        judged = [(part, LEAST_SQNR_DB) for part in whole]
        judged += [(part, LEAST_PART_SQNR_DB) for part in split if part.largest > 0]  # all 0: there is no scale
        problems = [
            said for part, least in judged if (said := _shortfall(part, least) if is_int8 else _difference(part))
        ]
    agreement, accuracy, loss = _scores(wanted, got, labels)
    metric, worse = (None, None) if judge is None or not finite else _judged(judge, wanted, got)
    if is_int8:
        problems += [said for said in (loss, worse) if said is not None]
    errors = [part.relative_error for part in whole if part.relative_error is not None]
    noise = [part.sqnr_db for part in whole if part.sqnr_db is not None]
    return Proof(
        images=len(wanted[0]),
        inputs=inputs,
        relative_error=max(errors) if finite else None,
        sqnr_db=min(noise, default=None) if finite else None,
        agreement=agreement,
        accuracy=accuracy,
        failed=tuple(problems),
        parts=(*(whole if several else []), *split),
        advice=tuple(_advice(whole, split, wanted, got)) if is_int8 and finite else (),
        metric=metric,
    )


def _judged(judge: Judge, wanted: Outputs, got: Outputs) -> tuple[dict[str, Any], str | None]:
    """A task's metric of both; and, in words, a loss of it that is larger than may be.

    As exactly as the images can tell: the loss counts by the lower end of its 95 % interval.
    """
    reference, found = np.array(judge.scores(wanted)), np.array(judge.scores(got))
    lost = (reference - found) * (1.0 if judge.higher_is_better else -1.0)
    allowed = judge.largest_loss * (1.0 if judge.is_share else abs(float(reference[0])))
    record = {
        "name": judge.metric,
        "higher_is_better": judge.higher_is_better,
        "is_share": judge.is_share,
        "pytorch": float(reference[0]),
        "artifact": float(found[0]),
        "loss": float(lost[0]),
    }
    drawn = lost[1:][np.isfinite(lost[1:])]
    sure = float(np.percentile(drawn, 2.5)) if len(drawn) else float(lost[0])
    if min(sure, float(lost[0])) <= allowed:
        return record, None
    values = f"from {reference[0]:.4g} to {found[0]:.4g}"
    return record, f"{judge.metric} gets worse, {values}, by more than {allowed:.2g}"


def _part(name: str, output: int, wanted: NDArray[Any], got: NDArray[Any]) -> Part:
    """Compare one output or part, N x ..."""
    reference, found = wanted.astype(float).ravel(), got.astype(float).ravel()
    with np.errstate(invalid="ignore"):  # of outputs that are not finite, which is told elsewhere
        difference = found - reference
    largest = float(np.abs(reference).max(initial=0.0))
    if not np.isfinite(difference).all():
        return Part(name, output, largest, None, None, None)
    noise = float((difference**2).sum())
    return Part(
        name=name,
        output=output,
        largest=largest,
        relative_error=float(np.abs(difference).max(initial=0.0)) / max(largest, 1e-30),
        sqnr_db=_decibels(float((reference**2).sum()), noise),
        variation_db=_variation(reference, noise),
    )


def _variation(reference: NDArray[np.float64], noise: float) -> float | None:
    """Variance over error in dB; None where int8 with a scale of its own could not show the variance either."""
    if not len(reference):
        return None
    variance = float(((reference - reference.mean()) ** 2).sum())
    step = (max(float(reference.max()), 0.0) - min(float(reference.min()), 0.0)) / LEVELS
    own = _decibels(variance, len(reference) * step**2 / 12)
    return _decibels(variance, noise) if own is not None and own >= REACHABLE_DB else None


def _decibels(signal: float, noise: float) -> float | None:
    return 10 * math.log10(max(signal, 1e-300) / noise) if noise > 0 else None


def _difference(part: Part) -> str | None:
    """How a float32 output falls short; None if it does not."""
    if part.relative_error is None or part.relative_error <= LARGEST_ERROR:
        return None
    subject = f"{part.name}: values differ" if part.name else "outputs differ"
    return f"{subject} by {_upwards(part.relative_error)} of the largest, not by at most {LARGEST_ERROR:.0e}"


def _shortfall(part: Part, least: float) -> str | None:
    """How an int8 output falls short; None if it does not."""
    subject = f"{part.name}: " if part.name else ""
    if part.sqnr_db is not None and part.sqnr_db < least:
        return f"{subject}the signal is {_downwards(part.sqnr_db)} dB above the noise, not {least:.0f} dB or more"
    if part.variation_db is not None and part.variation_db < LEAST_VARIATION_DB:
        found = _downwards(part.variation_db)
        return f"{subject}the variance is {found} dB above the noise, not {LEAST_VARIATION_DB:.0f} dB or more"
    return None


def _scores(
    wanted: Outputs, got: Outputs, labels: NDArray[np.int64] | None
) -> tuple[float | None, tuple[float, float] | None, str | None]:
    """Agreement and accuracies of a single output of scores, N x classes; and, in words, an accuracy that is lost.

    The loss is as exact as the images can tell: it counts from two standard errors beyond a point.
    """
    if len(wanted) != 1 or wanted[0].ndim != 2:
        return None, None, None
    classes = wanted[0].argmax(axis=1), got[0].argmax(axis=1)
    agreement = float((classes[0] == classes[1]).mean())
    if labels is None:
        return agreement, None, None
    right = [(chosen == labels).astype(float) for chosen in classes]
    accuracy = float(right[0].mean()), float(right[1].mean())
    # The images are the same, so only those that flip are left to chance (McNemar 1947).
    error = float(np.sqrt((right[0] != right[1]).sum())) / len(labels)
    if accuracy[0] - accuracy[1] <= LARGEST_LOSS + DOUBT * error:
        return agreement, accuracy, None
    return (
        agreement,
        accuracy,
        f"accuracy falls from {100 * accuracy[0]:.2f} % to {100 * accuracy[1]:.2f} %, by more than a point",
    )


def _advice(whole: Sequence[Part], split: Sequence[Part], wanted: Outputs, got: Outputs) -> Iterator[str]:
    """How to split each output whose one int8 scale covers unequal ranges."""
    for output in whole:
        parts = [part for part in split if part.output == output.output]
        known = bool(parts)
        if not known:
            parts = list(_lost_channels(output, wanted[output.output], got[output.output]))
        small = [part for part in parts if 0 < part.largest * UNEQUAL < output.largest]
        if not small:
            continue
        ranges = ", ".join(f"{part.name} up to {part.largest:.3g}" for part in small[:MOST_NAMED])
        more = f" and {len(small) - MOST_NAMED} more parts" if len(small) > MOST_NAMED else ""
        levels = int(LEVELS * max(part.largest for part in small) / output.largest)
        where = f"output {output.output}" if len(whole) > 1 else "the output"
        yield (
            f"one int8 scale covers all of {where}, up to {output.largest:.3g}, and leaves {levels} of its {LEVELS} "
            f"levels to {ranges}{more}: return {'what is concatenated' if known else 'these channels'} as separate "
            f"outputs, each with a scale of its own"
        )


def _lost_channels(output: Part, wanted: NDArray[Any], got: NDArray[Any]) -> Iterator[Part]:
    """Channels, N x C x ..., of a far smaller range than the whole output, whose variance int8 has lost."""
    if wanted.ndim < 2:
        return
    largest = np.abs(wanted).max(axis=tuple(axis for axis in range(wanted.ndim) if axis != 1))
    for channel in np.flatnonzero((largest > 0) & (largest * UNEQUAL < output.largest)):
        part = _part(f"channel {channel}", output.output, wanted[:, channel], got[:, channel])
        if part.variation_db is not None and part.variation_db < LEAST_VARIATION_DB:
            yield part


def _downwards(value: float) -> str:
    """One decimal, rounded down, so that what falls short of a limit never reads as the limit.

    >>> _downwards(19.97)
    '19.9'
    """
    return f"{math.floor(value * 10) / 10:.1f}"


def _upwards(value: float) -> str:
    """Two digits, rounded up.

    >>> _upwards(1.0001e-4)
    '1.1e-04'
    """
    if not 0 < value < math.inf:
        return f"{value:.1e}"
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return f"{math.ceil(round(value / unit, 9)) * unit:.1e}"
