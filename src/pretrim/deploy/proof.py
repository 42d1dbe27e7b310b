"""Compare an artifact's outputs in its own runtime with PyTorch's, and decide whether they are close enough."""

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
"""float32: largest difference allowed, relative to the largest magnitude of the output or part."""
LEAST_SQNR_DB = 20.0
"""int8: lowest signal-to-quantisation-noise ratio of an output; good static quantisation gives about 30 dB."""
LEAST_PART_SQNR_DB = 15.0
"""int8: lowest SQNR of a part of an output, which has fewer values to average over."""
LEAST_VARIATION_DB = 10.0
"""int8: lowest ratio of the variance of an output or part to its error power; at 0 dB it might as well be constant."""
REACHABLE_DB = 20.0
"""Variances that even a separate int8 scale would not bring this far above the error are ignored, as constants."""
LARGEST_LOSS = 0.01
"""int8: largest loss of accuracy allowed."""
STANDARD_ERRORS = 2.0
"""A loss counts only beyond LARGEST_LOSS plus this many standard errors: 3 flips among 179 images are 1.7 points."""
RANGE_RATIO = 16.0
"""Under a shared scale, a range that is smaller by more than this factor has fewer than 16 of the 256 levels."""
LEVELS = 255
MAX_NAMED = 3


@dataclass(frozen=True)
class Judge:
    """The metric of a task, by which an artifact is compared with PyTorch.

    Attributes:
        metric: name of the metric.
        higher_is_better: direction of the metric.
        is_share: whether the metric is a share from 0 to 1.
        largest_loss: the loss allowed for int8: absolute for shares, relative to PyTorch's value for others.
        scores: computes the metric from the outputs of all images, followed by its values on bootstrap resamples of
            the images, with the same draws on every call.
    """

    metric: str
    higher_is_better: bool
    is_share: bool
    largest_loss: float
    scores: Callable[[Outputs], Sequence[float]]


@dataclass(frozen=True)
class Part:
    """The comparison of one output, or of a part of one, on its own scale.

    Attributes:
        name: "output 1", "channels 4 to 6", "channels 4 to 6 of output 1"; empty for the only output.
        output: index of the output.
        largest: the largest magnitude in PyTorch.
        relative_error: the largest difference relative to `largest`; None if not finite.
        sqnr_db: signal to quantisation noise, ``10 log10(sum of squares / sum of squared differences)``; None if equal.
        variation_db: `sqnr_db` with the variance instead of the power; None if equal, or too small to be compared.
    """

    name: str
    output: int
    largest: float
    relative_error: float | None
    sqnr_db: float | None
    variation_db: float | None


@dataclass(frozen=True)
class Proof:
    """How far an artifact's outputs are from those of its network.

    Attributes:
        images: number of images compared.
        inputs: description of the images: the data set, or "random pixels".
        relative_error: the worst relative error of any output: its largest difference over its largest magnitude; None
            if not finite.
        sqnr_db: the lowest SQNR of any output, in dB; None if equal.
        agreement: share of images with the same top-1 class; None if the outputs are not class scores.
        accuracy: accuracy of PyTorch and of the artifact; None without labels.
        failed: the failed criteria, in words; empty if none failed.
        parts: every output if there are several, and the parts of concatenated ones.
        advice: how to fix the loss from one int8 scale over unequal ranges, in words; empty if there is none.
        metric: the task's metric: its name, direction, and values for PyTorch and the artifact.
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
    """Compare outputs, each output and each part of an output on its own scale.

    float32 must be within 1e-4 of the largest magnitude. int8 needs an SQNR of 20 dB (15 dB for a part of an output), a
    variance 10 dB above the error, and an accuracy within one point, as precisely as the images can tell.

    Args:
        wanted: outputs of PyTorch, N x ... each.
        got: outputs of the artifact.
        is_int8: whether to apply the int8 criteria; otherwise those of float32.
        inputs: description of the images, for the record.
        labels: classes of the images (N), for accuracies.
        regions: parts of outputs (`parts.parts_of`).
        judge: the metric of a task other than classification.
    """
    shapes = [list(part.shape) for part in wanted], [list(part.shape) for part in got]
    if shapes[0] != shapes[1]:
        return Proof(len(wanted[0]), inputs, None, None, None, None, (f"outputs are {shapes[1]}, not {shapes[0]}",))
    has_several = len(wanted) > 1
    output_parts = [
        _part(f"output {number}" if has_several else "", number, reference, actual)
        for number, (reference, actual) in enumerate(zip(wanted, got, strict=True))
    ]
    region_parts = [
        _part(
            f"{region.name} of output {region.output}" if has_several else region.name,
            region.output,
            wanted[region.output][:, region.mask],
            got[region.output][:, region.mask],
        )
        for region in regions
    ]
    is_finite = all(part.relative_error is not None for part in output_parts)
    problems = _problems(output_parts, region_parts, is_int8=is_int8) if is_finite else ["outputs are not finite"]
    agreement, accuracy, accuracy_loss = _scores(wanted, got, labels)
    metric, metric_loss = (None, None) if judge is None or not is_finite else _judged(judge, wanted, got)
    if is_int8:
        problems += [problem for problem in (accuracy_loss, metric_loss) if problem is not None]
    errors = [part.relative_error for part in output_parts if part.relative_error is not None]
    noise = [part.sqnr_db for part in output_parts if part.sqnr_db is not None]
    return Proof(
        images=len(wanted[0]),
        inputs=inputs,
        relative_error=max(errors) if is_finite else None,
        sqnr_db=min(noise, default=None) if is_finite else None,
        agreement=agreement,
        accuracy=accuracy,
        failed=tuple(problems),
        parts=(*(output_parts if has_several else []), *region_parts),
        advice=tuple(_advice(output_parts, region_parts, wanted, got)) if is_int8 and is_finite else (),
        metric=metric,
    )


def _problems(outputs: Sequence[Part], regions: Sequence[Part], *, is_int8: bool) -> list[str]:
    """What the outputs and the parts of outputs fall short of; a part of zeros has no scale to compare on."""
    judged = [(part, LEAST_SQNR_DB) for part in outputs]
    judged += [(part, LEAST_PART_SQNR_DB) for part in regions if part.largest > 0]
    found = (_shortfall(part, min_sqnr) if is_int8 else _difference(part) for part, min_sqnr in judged)
    return [problem for problem in found if problem]


def _judged(judge: Judge, wanted: Outputs, got: Outputs) -> tuple[dict[str, Any], str | None]:
    """A task's metric for PyTorch and the artifact, and a message if it gets worse by more than allowed.

    As precisely as the images can tell: the loss is judged by the lower end of its 95 % bootstrap interval.
    """
    reference, actual = np.array(judge.scores(wanted)), np.array(judge.scores(got))
    losses = (reference - actual) * (1.0 if judge.higher_is_better else -1.0)
    allowed = judge.largest_loss * (1.0 if judge.is_share else abs(float(reference[0])))
    record = {
        "name": judge.metric,
        "higher_is_better": judge.higher_is_better,
        "is_share": judge.is_share,
        "pytorch": float(reference[0]),
        "artifact": float(actual[0]),
        "loss": float(losses[0]),
    }
    resampled = losses[1:][np.isfinite(losses[1:])]
    lower_bound = float(np.percentile(resampled, 2.5)) if len(resampled) else float(losses[0])
    if min(lower_bound, float(losses[0])) <= allowed:
        return record, None
    values = f"from {reference[0]:.4g} to {actual[0]:.4g}"
    return record, f"{judge.metric} gets worse, {values}, by more than {allowed:.2g}"


def _part(name: str, output: int, wanted: NDArray[Any], got: NDArray[Any]) -> Part:
    """Compare one output or part (N x ...)."""
    reference, actual = wanted.astype(float).ravel(), got.astype(float).ravel()
    with np.errstate(invalid="ignore"):  # outputs that are not finite, reported by the caller
        difference = actual - reference
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
    """Ratio of variance to error power in dB; None if even a separate int8 scale could not resolve the variance."""
    if not len(reference):
        return None
    variance = float(((reference - reference.mean()) ** 2).sum())
    step = (max(float(reference.max()), 0.0) - min(float(reference.min()), 0.0)) / LEVELS
    own_scale_db = _decibels(variance, len(reference) * step**2 / 12)
    return _decibels(variance, noise) if own_scale_db is not None and own_scale_db >= REACHABLE_DB else None


def _decibels(signal: float, noise: float) -> float | None:
    return 10 * math.log10(max(signal, 1e-300) / noise) if noise > 0 else None


def _difference(part: Part) -> str | None:
    """Why a float32 output fails, in words; None if it passes."""
    if part.relative_error is None or part.relative_error <= LARGEST_ERROR:
        return None
    subject = f"{part.name}: values differ" if part.name else "outputs differ"
    return f"{subject} by {_upwards(part.relative_error)} of the largest, not by at most {LARGEST_ERROR:.0e}"


def _shortfall(part: Part, min_sqnr: float) -> str | None:
    """Why an int8 output fails, in words; None if it passes."""
    subject = f"{part.name}: " if part.name else ""
    if part.sqnr_db is not None and part.sqnr_db < min_sqnr:
        return f"{subject}the signal is {_downwards(part.sqnr_db)} dB above the noise, not {min_sqnr:.0f} dB or more"
    if part.variation_db is not None and part.variation_db < LEAST_VARIATION_DB:
        decibels = _downwards(part.variation_db)
        return f"{subject}the variance is {decibels} dB above the noise, not {LEAST_VARIATION_DB:.0f} dB or more"
    return None


def _scores(
    wanted: Outputs, got: Outputs, labels: NDArray[np.int64] | None
) -> tuple[float | None, tuple[float, float] | None, str | None]:
    """Agreement and accuracies of a single output of class scores (N x classes), and a message if accuracy is lost.

    As precisely as the images can tell: a loss counts beyond one point plus two standard errors.
    """
    if len(wanted) != 1 or wanted[0].ndim != 2:
        return None, None, None
    classes = wanted[0].argmax(axis=1), got[0].argmax(axis=1)
    agreement = float((classes[0] == classes[1]).mean())
    if labels is None:
        return agreement, None, None
    correct = [(predicted == labels).astype(float) for predicted in classes]
    accuracy = float(correct[0].mean()), float(correct[1].mean())
    # Both see the same images, so only those whose correctness flips add to the variance (McNemar 1947).
    standard_error = float(np.sqrt((correct[0] != correct[1]).sum())) / len(labels)
    if accuracy[0] - accuracy[1] <= LARGEST_LOSS + STANDARD_ERRORS * standard_error:
        return agreement, accuracy, None
    return (
        agreement,
        accuracy,
        f"accuracy falls from {100 * accuracy[0]:.2f} % to {100 * accuracy[1]:.2f} %, by more than a point",
    )


def _advice(outputs: Sequence[Part], region_parts: Sequence[Part], wanted: Outputs, got: Outputs) -> Iterator[str]:
    """Advise how to split each output whose single int8 scale covers unequal ranges."""
    for output in outputs:
        parts = [part for part in region_parts if part.output == output.output]
        is_joined = bool(parts)
        if not is_joined:
            parts = list(_lost_channels(output, wanted[output.output], got[output.output]))
        small = [part for part in parts if 0 < part.largest * RANGE_RATIO < output.largest]
        if not small:
            continue
        ranges = ", ".join(f"{part.name} up to {part.largest:.3g}" for part in small[:MAX_NAMED])
        more = f" and {len(small) - MAX_NAMED} more parts" if len(small) > MAX_NAMED else ""
        levels = int(LEVELS * max(part.largest for part in small) / output.largest)
        where = f"output {output.output}" if len(outputs) > 1 else "the output"
        yield (
            f"one int8 scale covers all of {where}, up to {output.largest:.3g}, and leaves {levels} of its {LEVELS} "
            f"levels to {ranges}{more}: return {'what is concatenated' if is_joined else 'these channels'} as "
            f"separate outputs, each with a scale of its own"
        )


def _lost_channels(output: Part, wanted: NDArray[Any], got: NDArray[Any]) -> Iterator[Part]:
    """Channels of an output (N x C x ...) with a far smaller range than the whole, whose variance int8 has lost."""
    if wanted.ndim < 2:
        return
    largest = np.abs(wanted).max(axis=tuple(axis for axis in range(wanted.ndim) if axis != 1))
    for channel in np.flatnonzero((largest > 0) & (largest * RANGE_RATIO < output.largest)):
        part = _part(f"channel {channel}", output.output, wanted[:, channel], got[:, channel])
        if part.variation_db is not None and part.variation_db < LEAST_VARIATION_DB:
            yield part


def _downwards(value: float) -> str:
    """Format with one decimal, rounded down, so that a value below a limit never reads as the limit.

    >>> _downwards(19.97)
    '19.9'
    """
    return f"{math.floor(value * 10) / 10:.1f}"


def _upwards(value: float) -> str:
    """Format with two significant digits, rounded up.

    >>> _upwards(1.0001e-4)
    '1.1e-04'
    """
    if not 0 < value < math.inf:
        return f"{value:.1e}"
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return f"{math.ceil(round(value / unit, 9)) * unit:.1e}"
