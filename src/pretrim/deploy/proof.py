"""Does an artifact compute what the network computes? Its outputs in its own runtime, beside PyTorch's."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .runtime import Outputs

LARGEST_ERROR = 1e-4
"""float32: the largest difference, as a share of the largest output."""
LEAST_SQNR_DB = 20.0
"""int8: the power of the outputs over that of their error; good static quantisation gives about 30 dB."""
LARGEST_LOSS = 0.01
"""int8: the accuracy that may be lost."""
DOUBT = 2.0
"""Standard errors by which a loss must exceed that to be one: of 179 images, three that flip are 1.7 points."""


@dataclass(frozen=True)
class Proof:
    """How far an artifact is from the network it was made of.

    Attributes:
        images: how many were compared.
        inputs: what they were: the data set, or "random pixels".
        relative_error: the largest difference of any output, as a share of the largest output; None if not finite.
        sqnr_db: signal to quantisation noise, ``10 log10(sum of squares / sum of squared differences)``; None if equal.
        agreement: share of images whose largest score is the same class; None where outputs are no scores.
        accuracy: of PyTorch and of the artifact; None without labels.
        failed: what fell short, in words; empty if nothing did.
    """

    images: int
    inputs: str
    relative_error: float | None
    sqnr_db: float | None
    agreement: float | None
    accuracy: tuple[float, float] | None
    failed: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        lists = {"accuracy": None if self.accuracy is None else list(self.accuracy), "failed": list(self.failed)}
        return {**asdict(self), **lists}


def prove(
    wanted: Outputs, got: Outputs, *, is_int8: bool, inputs: str, labels: NDArray[np.int64] | None = None
) -> Proof:
    """Compare outputs, N x ... each: float32 within 1e-4 of the largest, int8 within 20 dB and a point of accuracy.

    The point is as exact as the images can tell: a loss counts from two standard errors beyond it.
    """
    problems: list[str] = []
    shapes = [list(part.shape) for part in wanted], [list(part.shape) for part in got]
    if shapes[0] != shapes[1]:
        return Proof(len(wanted[0]), inputs, None, None, None, None, (f"outputs are {shapes[1]}, not {shapes[0]}",))
    reference, found = (np.concatenate([part.ravel() for part in parts]).astype(float) for parts in (wanted, got))
    with np.errstate(invalid="ignore"):  # of outputs that are not finite, which is told below
        difference = found - reference
        largest = float(np.abs(reference).max(initial=0.0))
        error: float | None = float(np.abs(difference).max(initial=0.0)) / max(largest, 1e-30)
        noise, signal = float((difference**2).sum()), float((reference**2).sum())
    sqnr = 10 * float(np.log10(max(signal, 1e-300) / noise)) if noise > 0 else None
    if not np.isfinite(difference).all():
        error, sqnr = None, None
        problems.append("outputs are not finite")
    elif not is_int8 and error is not None and error > LARGEST_ERROR:
        problems.append(f"outputs differ by {error:.1e} of the largest, not by at most {LARGEST_ERROR:.0e}")
    elif is_int8 and sqnr is not None and sqnr < LEAST_SQNR_DB:
        problems.append(f"the signal is {sqnr:.1f} dB above the noise, not {LEAST_SQNR_DB:.0f} dB or more")
    agreement, accuracy = None, None
    if len(wanted) == 1 and wanted[0].ndim == 2:
        classes = wanted[0].argmax(axis=1), got[0].argmax(axis=1)
        agreement = float((classes[0] == classes[1]).mean())
        if labels is not None:
            right = [(chosen == labels).astype(float) for chosen in classes]
            accuracy = float(right[0].mean()), float(right[1].mean())
            # The images are the same, so only those that flip are left to chance (McNemar 1947).
            error_of_loss = float(np.sqrt((right[0] != right[1]).sum())) / len(labels)
            if is_int8 and accuracy[0] - accuracy[1] > LARGEST_LOSS + DOUBT * error_of_loss:
                problems.append(f"accuracy falls from {accuracy[0]:.2%} to {accuracy[1]:.2%}, by more than a point")
    return Proof(len(wanted[0]), inputs, error, sqnr, agreement, accuracy, tuple(problems))
