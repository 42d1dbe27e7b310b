"""The numbers that TFLite computes before a network runs: fixed-point factors, activation limits, padding.

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

INT8_MIN, INT8_MAX = -128, 127
MIN_SHIFT = -31
ACTIVATION_LIMITS: dict[int, tuple[float | None, float | None]] = {
    0: (None, None),
    1: (0.0, None),
    2: (-1.0, 1.0),
    3: (0.0, 6.0),
}
"""Limits of fused activations by their number in the file format: none, ReLU, ReLU from -1 to 1, ReLU6."""


@dataclass(frozen=True)
class Factor:
    """A real factor in fixed point: ``multiplier * 2 ** (shift - 31)``."""

    multiplier: int
    shift: int


def factor(real: float) -> Factor:
    """The nearest factor with a 31-bit multiplier; 0 below 2 ** -32.

    >>> factor(0.75)
    Factor(multiplier=1610612736, shift=0)
    >>> factor(1.0)
    Factor(multiplier=1073741824, shift=1)
    """
    fraction, shift = math.frexp(real)
    multiplier = _away_from_zero(fraction * 2**31)
    if multiplier == 2**31:
        multiplier, shift = 2**30, shift + 1
    return Factor(multiplier, shift) if shift >= MIN_SHIFT else Factor(0, 0)


def channel_factors(source: float, weights: Sequence[float], output: float, channels: int) -> list[Factor]:
    """The factor of each output channel of a convolution: the scale of its sums over the scale of the output.

    Args:
        source: scale of the input.
        weights: scales of the weights: one for each channel, or one for all.
        output: scale of the output.
        channels: number of output channels.
    """
    scales = weights if len(weights) == channels else [weights[0]] * channels
    return [factor(source * scale / output) for scale in scales]


def dense_factors(source: float, weights: Sequence[float], output: float, channels: int) -> list[Factor]:
    """Like `channel_factors`, for a fully connected layer: with a single weight scale, TFLite multiplies in float32.

    Args:
        source: scale of the input.
        weights: scales of the weights: one for all, or one for each channel.
        output: scale of the output.
        channels: number of output channels.
    """
    if len(weights) > 1:
        return channel_factors(source, weights, output, channels)
    product = float(np.float32(source) * np.float32(weights[0]))
    return [factor(product / output)] * channels


def mean_factor(source: float, output: float, positions: int) -> Factor:
    """The factor of a mean: 1 / positions is folded into the multiplier, with as many of its 31 bits as possible.

    Args:
        source: scale of the input.
        output: scale of the output.
        positions: number of values averaged.
    """
    rescaling = factor(source / output)
    shift = min(positions.bit_length() - 1, 32, 31 + rescaling.shift)
    return Factor((rescaling.multiplier << shift) // positions, rescaling.shift - shift)


@dataclass(frozen=True)
class Range:
    """Zero point and limits of an output."""

    zero: int
    minimum: int
    maximum: int


def output_range(activation: int, scale: float, zero: int) -> Range:
    """The range of an output under a fused activation.

    Args:
        activation: number of the activation in the file format.
        scale: scale of the output.
        zero: zero point of the output.

    Raises ExportError for an activation that no kernel fuses.
    """
    if activation not in ACTIVATION_LIMITS:
        raise ExportError(f"Expected ReLU or ReLU6 as fused activation, but got number {activation}: {OTHER_WAY}.")
    low, high = ACTIVATION_LIMITS[activation]
    minimum = INT8_MIN if low is None else max(INT8_MIN, zero + _quantised(low, scale))
    maximum = INT8_MAX if high is None else min(INT8_MAX, zero + _quantised(high, scale))
    return Range(zero, minimum, maximum)


def padding_before(size: int, output: int, stride: int, reach: int) -> int:
    """The padding before the input along one dimension, for SAME padding; VALID padding is 0.

    Args:
        size: size of the input.
        output: size of the output.
        stride: stride of the window.
        reach: extent of the dilated kernel.
    """
    return max(0, ((output - 1) * stride + reach - size) // 2)


def _quantised(value: float, scale: float) -> int:
    return _away_from_zero(float(np.float32(value) / np.float32(scale)))


def _away_from_zero(value: float) -> int:
    """Round to nearest, ties away from zero, like C++'s ``std::round``; Python's ``round`` rounds ties to even."""
    return math.floor(value + 0.5) if value >= 0 else math.ceil(value - 0.5)
