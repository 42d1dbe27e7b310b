"""Pooling layers: average and maximum over windows, mean over whole dimensions."""

from __future__ import annotations

import math

from .arithmetic import mean_factor, output_range
from .ctext import Value
from .layer import Layer, factor_fields, layer, range_fields, unsupported, window
from .model import Step


def average_pool(step: Step, name: str) -> Layer:
    """AVERAGE_POOL_2D, which excludes padding from the average."""
    return _pool(step, name, "nn_average_pool_2d")


def max_pool(step: Step, name: str) -> Layer:
    """MAX_POOL_2D."""
    return _pool(step, name, "nn_max_pool_2d")


def mean(step: Step, name: str) -> Layer:
    """MEAN over adjacent dimensions, such as height and width."""
    source, output = step.reads(0), step.output
    axes = sorted({int(axis) % len(source.shape) for axis in step.constant(1).ravel()})
    if axes != list(range(axes[0], axes[-1] + 1)):
        raise unsupported(step, f"dimensions {axes}, which are not adjacent")
    outer, inner = math.prod(source.shape[: axes[0]]), math.prod(source.shape[axes[-1] + 1 :])
    positions = source.size // (outer * inner)
    fields: dict[str, Value] = {
        "outer": outer,
        "positions": positions,
        "inner": inner,
        "input_zero": source.zero,
        "range": range_fields(output_range(0, output.scale, output.zero)),
        "factor": factor_fields(mean_factor(source.scale, output.scale, positions)),
    }
    return layer("nn_averaging", name, fields, step, "nn_mean", {})


def _pool(step: Step, name: str, kernel: str) -> Layer:
    source, output = step.reads(0), step.output
    if (source.scale, source.zero) != (output.scale, output.zero):
        raise unsupported(step, "another scale for its output")
    limits = output_range(step.options.fusedActivationFunction, output.scale, output.zero)
    size = (step.options.filterHeight, step.options.filterWidth)
    fields: dict[str, Value] = {"window": window(step, size), "range": range_fields(limits)}
    return layer("nn_pool", name, fields, step, kernel, {})
