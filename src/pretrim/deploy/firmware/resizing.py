"""Layers that enlarge or shrink an image: which rows and columns each of the output's is made of, found beforehand.

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
"""of a share of a row or column, as in kernels.c"""

Taps: TypeAlias = tuple[int, int, int]
"""A row or column, the one after it, and the share of the latter"""


def nearest(step: Step, name: str) -> Layer:
    """RESIZE_NEAREST_NEIGHBOR: the whole of one row and column."""
    return _resizing(step, name, _nearest)


def bilinear(step: Step, name: str) -> Layer:
    """RESIZE_BILINEAR: of two rows and two columns."""
    return _resizing(step, name, _between)


def _resizing(step: Step, name: str, taps: Callable[[Step, int, int, int], Taps]) -> Layer:
    source, output = checked_image(step, step.reads(0)), checked_image(step, step.output)
    arrays = {
        axis: np.array([taps(step, place, source[number], output[number]) for place in range(output[number])], np.int16)
        for number, axis in enumerate(("rows", "columns"))
    }
    fields: dict[str, Value] = {
        "input_width": source[1],
        "channels": source[2],
        "output_height": output[0],
        "output_width": output[1],
    }
    return layer("nn_resizing", name, fields, step, "nn_resize", arrays)


def _nearest(step: Step, place: int, size: int, wanted: int) -> Taps:
    """In float32, as LiteRT computes it.

    Args:
        step: with the options.
        place: of the output.
        size: of the input.
        wanted: size of the output.
    """
    aligns = step.options.alignCorners
    ends = (size - 1, wanted - 1) if aligns and wanted > 1 else (size, wanted)
    half = np.float32(0.5 if step.options.halfPixelCenters else 0.0)
    at = (np.float32(place) + half) * (np.float32(ends[0]) / np.float32(ends[1]))
    found = max(min(int(np.floor(at + np.float32(0.5)) if aligns else np.floor(at)), size - 1), 0)
    return found, found, 0


def _between(step: Step, place: int, size: int, wanted: int) -> Taps:
    """In steps of 1 / 1024, as LiteRT computes it; quotients are cut off toward 0, as in C.

    Args:
        step: with the options.
        place: of the output.
        size: of the input.
        wanted: size of the output.
    """
    scale = (ONE * size + wanted // 2) // wanted
    if step.options.alignCorners and wanted > 1:
        scale = (ONE * (size - 1) + (wanted - 1) // 2) // (wanted - 1)
    at = place * scale + (scale // 2 - ONE // 2 if step.options.halfPixelCenters else 0)
    low, high = max(int(at / ONE), 0), min(int((at + ONE - 1) / ONE), size - 1)
    return low, high, at - ONE * low
