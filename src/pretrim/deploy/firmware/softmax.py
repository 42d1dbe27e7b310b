"""SOFTMAX in integers, with exponentials from a table that is computed here; LiteRT computes each one at run time.

This follows ``Softmax`` of tensorflow/lite/kernels/internal/reference/softmax.h, ``PreprocessSoftmaxScaling`` and
``CalculateInputRadius`` of kernels/internal/quantization_util.cc, and ``exp_on_negative_values`` of gemmlowp's
fixedpoint/fixedpoint.h.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from .arithmetic import factor
from .ctext import Value
from .layer import Layer, layer
from .model import Step

INTEGER_BITS = 5
"""Integer bits of a difference to the largest value: exponentials below e ** -32 count as 0."""
FRACTION = 31 - INTEGER_BITS
INT32_MAX = 2**31 - 1
EXP_MINUS_EIGHTH, THIRD = 1895147668, 715827883
"""e ** (-1/8) and 1/3, in 31 bits"""
POWERS = (1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242)
"""e ** -(2 ** k) for k from -2, in 31 bits"""


def softmax(step: Step, name: str) -> Layer:
    """SOFTMAX over the last dimension."""
    source, columns = step.reads(0), step.output.shape[-1]
    fields: dict[str, Value] = {"rows": source.size // columns, "columns": columns}
    arrays = {"exponential": exponentials(source.scale, step.options.beta)}
    return layer("nn_softmax_rows", name, fields, step, "nn_softmax", arrays)


def exponentials(scale: float, beta: float) -> NDArray[np.int32]:
    """``exp(scale * beta * d)`` in 31 bits for each difference d from -255 to 0; 0 below the range of fixed point.

    Args:
        scale: scale of the input.
        beta: the operator's factor on the input.
    """
    real = min(beta * scale * 2**FRACTION, float(INT32_MAX))
    scaling = factor(real)
    lowest_difference = -math.floor((2**INTEGER_BITS - 1) * 2**FRACTION / 2**scaling.shift)
    scaled = {
        d: _doubled_high_product(d * 2**scaling.shift, scaling.multiplier)
        for d in range(max(lowest_difference, -255), 1)
    }
    return np.array([exponential(scaled[d]) if d in scaled else 0 for d in range(-255, 1)], np.int32)


def exponential(x: int) -> int:
    """e ** x for x <= 0, in 31 bits.

    Args:
        x: the exponent in fixed point, with 26 fractional bits.

    >>> exponential(0), round(exponential(-(1 << FRACTION)) / 2**31, 5)
    (2147483647, 0.36788)
    """
    if x == 0:
        return INT32_MAX
    quarter = 1 << (FRACTION - 2)
    fraction = (x & (quarter - 1)) - quarter
    result, remainder = _exp_within_quarter(fraction << INTEGER_BITS), fraction - x
    for number, power in enumerate(POWERS):
        if remainder & (quarter << number):
            result = _doubled_high_product(result, power)
    return result


def _exp_within_quarter(x: int) -> int:
    """e ** x for x from -1/4 to 0, both in 31 bits, by a Taylor series around -1/8."""
    x += 1 << 28
    square = _doubled_high_product(x, x)
    fourth, third = _doubled_high_product(square, square), _doubled_high_product(square, x)
    higher_terms = _rounding_shift(_doubled_high_product(_rounding_shift(fourth, 2) + third, THIRD) + square, 1)
    return EXP_MINUS_EIGHTH + _doubled_high_product(EXP_MINUS_EIGHTH, x + higher_terms)


def _doubled_high_product(a: int, b: int) -> int:
    """The upper 32 bits of 2ab, rounded to nearest."""
    product = a * b
    nudged = product + (2**30 if product >= 0 else 1 - 2**30)
    return nudged // 2**31 if nudged >= 0 else -(-nudged // 2**31)


def _rounding_shift(x: int, bits: int) -> int:
    """x / 2 ** bits, rounded to nearest, ties away from zero."""
    half = 1 << (bits - 1)
    return (x + half) >> bits if x >= 0 else -((half - x) >> bits)
