"""SOFTMAX in integers: exponentials from a table that is computed here, as LiteRT computes each anew.

Sources: ``Softmax`` of tensorflow/lite/kernels/internal/reference/softmax.h, ``PreprocessSoftmaxScaling`` and
``CalculateInputRadius`` of kernels/internal/quantization_util.cc, and ``exp_on_negative_values`` of gemmlowp's
fixedpoint/fixedpoint.h, after which this was written.
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
"""of a difference to the largest value: exponentials below e ** -32 are nothing"""
FRACTION = 31 - INTEGER_BITS
LARGEST = 2**31 - 1
AT_EIGHTH, THIRD = 1895147668, 715827883
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
    """``exp(scale * beta * d)`` for each difference d from -255 to 0, in 31 bits; 0 where it is left out.

    Args:
        scale: of the values.
        beta: the factor of the operator.
    """
    real = min(beta * scale * 2**FRACTION, float(LARGEST))
    by = factor(real)
    lowest = -math.floor((2**INTEGER_BITS - 1) * 2**FRACTION / 2**by.shift)
    scaled = {d: _high(d * 2**by.shift, by.multiplier) for d in range(max(lowest, -255), 1)}
    return np.array([exponential(scaled[d]) if d in scaled else 0 for d in range(-255, 1)], np.int32)


def exponential(x: int) -> int:
    """e to a number that is not positive.

    Args:
        x: with 26 bits of fraction.

    >>> exponential(0), round(exponential(-(1 << FRACTION)) / 2**31, 5)
    (2147483647, 0.36788)
    """
    if x == 0:
        return LARGEST
    quarter = 1 << (FRACTION - 2)
    below = (x & (quarter - 1)) - quarter
    found, rest = _of_a_quarter(below << INTEGER_BITS), below - x
    for number, power in enumerate(POWERS):
        if rest & (quarter << number):
            found = _high(found, power)
    return found


def _of_a_quarter(x: int) -> int:
    """e to a number from -1/4 to 0 in 31 bits: Taylor's series around -1/8."""
    x += 1 << 28
    square = _high(x, x)
    fourth, third = _high(square, square), _high(square, x)
    rest = _halved(_high(_halved(fourth, 2) + third, THIRD) + square, 1)
    return AT_EIGHTH + _high(AT_EIGHTH, x + rest)


def _high(a: int, b: int) -> int:
    """The upper 32 bits of 2ab, to nearest."""
    product = a * b
    nudged = product + (2**30 if product >= 0 else 1 - 2**30)
    return nudged // 2**31 if nudged >= 0 else -(-nudged // 2**31)


def _halved(x: int, times: int) -> int:
    """x / 2 ** times, to nearest, ties away from zero."""
    half = 1 << (times - 1)
    return (x + half) >> times if x >= 0 else -((half - x) >> times)
