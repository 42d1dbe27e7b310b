"""Layers with weights: convolutions, depthwise and transposed convolutions, and fully connected layers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arithmetic import Factor, channel_factors, dense_factors, output_range
from .ctext import Value
from .layer import Layer, factor_arrays, layer, range_fields, transposed_window, unsupported, window
from .model import Step


def convolution(step: Step, name: str) -> Layer:
    """CONV_2D, including groups and dilation."""
    channels, height, width, depth = step.constant(1).shape
    if step.reads(0).shape[-1] % depth:
        raise unsupported(step, f"groups of {depth} of {step.reads(0).shape[-1]} channels")
    fields: dict[str, Value] = {
        "window": window(step, (height, width), _dilation(step)),
        "group_channels": depth,
        **_zero_and_range(step),
    }
    return layer("nn_convolution", name, fields, step, "nn_conv_2d", _arrays(step, _factors(step, channels)))


def depthwise(step: Step, name: str) -> Layer:
    """DEPTHWISE_CONV_2D, including a depth multiplier and dilation."""
    _, height, width, channels = step.constant(1).shape
    fields: dict[str, Value] = {
        "window": window(step, (height, width), _dilation(step)),
        "depth": channels // step.reads(0).shape[-1],
        **_zero_and_range(step),
    }
    return layer("nn_depthwise", name, fields, step, "nn_depthwise_conv_2d", _arrays(step, _factors(step, channels)))


def transposed(step: Step, name: str) -> Layer:
    """TRANSPOSE_CONV, whose first input is the shape of its output."""
    channels, height, width, depth = step.constant(1).shape
    fields: dict[str, Value] = {
        "window": transposed_window(step, (height, width)),
        "group_channels": depth,
        **_zero_and_range(step, source=2),
    }
    arrays = _arrays(step, _factors(step, channels, source=2), bias=3)
    return layer("nn_convolution", name, fields, step, "nn_transpose_conv", arrays)


def dense(step: Step, name: str) -> Layer:
    """FULLY_CONNECTED."""
    outputs, inputs = step.constant(1).shape
    source, output = step.reads(0), step.output
    fields: dict[str, Value] = {
        "inputs": inputs,
        "outputs": outputs,
        "rows": source.size // inputs,
        **_zero_and_range(step),
    }
    factors = dense_factors(source.scale, step.reads(1).scales, output.scale, outputs)
    return layer("nn_dense", name, fields, step, "nn_fully_connected", _arrays(step, factors))


def _factors(step: Step, channels: int, source: int = 0) -> list[Factor]:
    return channel_factors(step.reads(source).scale, step.reads(1).scales, step.output.scale, channels)


def _dilation(step: Step) -> tuple[int, int]:
    return step.options.dilationHFactor, step.options.dilationWFactor


def _zero_and_range(step: Step, source: int = 0) -> dict[str, Value]:
    """The fields for the input's zero point and the output's range."""
    limits = output_range(step.options.fusedActivationFunction, step.output.scale, step.output.zero)
    return {"input_zero": step.reads(source).zero, "range": range_fields(limits)}


def _arrays(step: Step, factors: list[Factor], bias: int = 2) -> dict[str, NDArray[Any]]:
    """The constant arrays: weights, biases (if any), multipliers and shifts.

    Args:
        step: the operator, whose second input is the weights.
        factors: factor of each output channel.
        bias: index of the input that holds the biases.
    """
    weights = step.constant(1)
    if weights.dtype != np.int8:
        raise unsupported(step, f"weights of {weights.dtype}")
    biases = {}
    if len(step.inputs) > bias and step.inputs[bias] is not None:
        biases = {"bias": step.constant(bias)}
        if biases["bias"].dtype != np.int32:
            raise unsupported(step, f"a bias of {biases['bias'].dtype}")
    return {"weights": weights, **biases, **factor_arrays(factors)}
