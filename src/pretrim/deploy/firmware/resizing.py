"""Layers that resize an image, with the source rows and columns of each output row and column computed in advance.

Sources, in github.com/tensorflow/tensorflow: ``GetNearestNeighbor`` of lite/kernels/internal/reference/
resize_nearest_neighbor.h, ``ResizeBilinearInteger`` and ``ComputeInterpolationValuesInteger`` of resize_bilinear.h.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from .ctext import Value
from .layer import Layer, checked_image, layer
from .model import Step

ONE = 1 << 10
"""1 in the fixed-point format of interpolation weights, as in kernels.c."""

Taps: TypeAlias = tuple[int, int, int]
"""Index of a source row or column, index of the next one, and the latter's weight."""


def nearest(step: Step, name: str) -> Layer:
    """RESIZE_NEAREST_NEIGHBOR, which copies from one row and one column."""
    return _resizing(step, name, _nearest)


def bilinear(step: Step, name: str) -> Layer:
    """RESIZE_BILINEAR, which interpolates between two rows and two columns."""
    return _resizing(step, name, _between)


def _resizing(step: Step, name: str, taps: Callable[[Step, int, int, int], Taps]) -> Layer:
    source, output = checked_image(step, step.reads(0)), checked_image(step, step.output)
    arrays = {
        axis: np.array(
            [taps(step, position, source[number], output[number]) for position in range(output[number])], np.int16
        )
        for number, axis in enumerate(("rows", "columns"))
    }
    fields: dict[str, Value] = {
        "input_width": source[1],
        "channels": source[2],
        "output_height": output[0],
        "output_width": output[1],
    }
    return layer("nn_resizing", name, fields, step, "nn_resize", arrays)


def _nearest(step: Step, position: int, size: int, output_size: int) -> Taps:
    """The nearest row or column, in float32, as LiteRT computes it.

    Args:
        step: the operator, with its options.
        position: row or column of the output.
        size: size of the input.
        output_size: size of the output.
    """
    aligns = step.options.alignCorners
    ends = (size - 1, output_size - 1) if aligns and output_size > 1 else (size, output_size)
    offset = np.float32(0.5 if step.options.halfPixelCenters else 0.0)
    source_position = (np.float32(position) + offset) * (np.float32(ends[0]) / np.float32(ends[1]))
    index = max(
        min(int(np.floor(source_position + np.float32(0.5)) if aligns else np.floor(source_position)), size - 1), 0
    )
    return index, index, 0


def _between(step: Step, position: int, size: int, output_size: int) -> Taps:
    """The two rows or columns to interpolate, in steps of 1 / 1024, as LiteRT computes it; quotients truncate, as in C.

    Args:
        step: the operator, with its options.
        position: row or column of the output.
        size: size of the input.
        output_size: size of the output.
    """
    scale = (ONE * size + output_size // 2) // output_size
    if step.options.alignCorners and output_size > 1:
        scale = (ONE * (size - 1) + (output_size - 1) // 2) // (output_size - 1)
    source_position = position * scale + (scale // 2 - ONE // 2 if step.options.halfPixelCenters else 0)
    low, high = max(int(source_position / ONE), 0), min(int((source_position + ONE - 1) / ONE), size - 1)
    return low, high, source_position - ONE * low
