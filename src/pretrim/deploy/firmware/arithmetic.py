"""Numbers that TFLite computes before a network runs: fixed-point factors, limits of activations, padding.

Sources, in github.com/tensorflow/tflite-micro: ``QuantizeMultiplier`` of kernels/internal/quantization_util.cc,
``PopulateConvolutionQuantizationParams``, ``GetQuantizedConvolutionMultipler`` and
``CalculateActivationRangeQuantized`` of kernels/kernel_util.cc, and kernels/padding.h.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pretrim.errors import ExportError

from .model import OTHER_WAY

LEAST, MOST = -128, 127
SMALLEST_SHIFT = -31
LIMITS: dict[int, tuple[float | None, float | None]] = {
    0: (None, None),
    1: (0.0, None),
    2: (-1.0, 1.0),
    3: (0.0, 6.0),
}
"""Of fused activations, by the number that the file format has for them: none, ReLU, ReLU from -1 to 1, ReLU6"""


@dataclass(frozen=True)
class Factor:
    """A real factor as ``multiplier * 2 ** (shift - 31)``."""

    multiplier: int
    shift: int


def factor(real: float) -> Factor:
    """The nearest one with 31 bits; 0 below 2 ** -32.

    >>> factor(0.75)
    Factor(multiplier=1610612736, shift=0)
    >>> factor(1.0)
    Factor(multiplier=1073741824, shift=1)
    """
    fraction, shift = math.frexp(real)
    multiplier = _away_from_zero(fraction * 2**31)
    if multiplier == 2**31:
        multiplier, shift = 2**30, shift + 1
    return Factor(multiplier, shift) if shift >= SMALLEST_SHIFT else Factor(0, 0)


def channel_factors(source: float, weights: Sequence[float], output: float, channels: int) -> list[Factor]:
    """Of each output channel of a convolution: the scale of its sums over that of its output.

    Args:
        source: scale of the input.
        weights: one of each channel, or one for all.
        output: scale of the output.
        channels: of the output.
    """
    each = weights if len(weights) == channels else [weights[0]] * channels
    return [factor(source * scale / output) for scale in each]


def dense_factors(source: float, weights: Sequence[float], output: float, channels: int) -> list[Factor]:
    """The same of a fully connected layer; with one scale for all TFLite takes the product in float32.

    Args:
        source: scale of the input.
        weights: scales of the weights: one, or one a channel.
        output: scale of the output.
        channels: of the output.
    """
    if len(weights) > 1:
        return channel_factors(source, weights, output, channels)
    product = float(np.float32(source) * np.float32(weights[0]))
    return [factor(product / output)] * channels


def mean_factor(source: float, output: float, positions: int) -> Factor:
    """Of a sum over positions: 1 / positions goes into the multiplier, which keeps 31 bits of it at most.

    Args:
        source: scale of the input.
        output: scale of the output.
        positions: how many values are summed.
    """
    plain = factor(source / output)
    shift = min(positions.bit_length() - 1, 32, 31 + plain.shift)
    return Factor((plain.multiplier << shift) // positions, plain.shift - shift)


@dataclass(frozen=True)
class Range:
    """Zero point and limits of an output."""

    zero: int
    minimum: int
    maximum: int


def output_range(activation: int, scale: float, zero: int) -> Range:
    """With the limits of a fused activation.

    Args:
        activation: its number in the file format.
        scale: of the output.
        zero: its zero point.

    Raises ExportError for an activation that no kernel fuses.
    """
    if activation not in LIMITS:
        raise ExportError(f"Expected ReLU or ReLU6 as fused activation, but got number {activation}: {OTHER_WAY}.")
    low, high = LIMITS[activation]
    least = LEAST if low is None else max(LEAST, zero + _quantised(low, scale))
    most = MOST if high is None else min(MOST, zero + _quantised(high, scale))
    return Range(zero, least, most)


def padding_before(size: int, output: int, stride: int, reach: int) -> int:
    """Of SAME padding along one dimension; VALID has none.

    Args:
        size: of the input.
        output: of the output.
        stride: of the window.
        reach: of the kernel with its dilation.
    """
    return max(0, ((output - 1) * stride + reach - size) // 2)


def _quantised(value: float, scale: float) -> int:
    return _away_from_zero(float(np.float32(value) / np.float32(scale)))


def _away_from_zero(value: float) -> int:
    """Rounded to the nearest, ties away from zero, as C++'s ``std::round``; Python's ``round`` takes the even one."""
    return math.floor(value + 0.5) if value >= 0 else math.ceil(value - 0.5)
