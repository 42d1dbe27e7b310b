"""C code that converts pixels to the network's input, and outputs to labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pretrim.deploy.artifact import Port
from pretrim.deploy.litert import quantised

from .ctext import array, string

LEVELS = 256
"""Values that a pixel can have."""
MAX_PIXEL_CHANNELS = 4
"""Largest number of channels for a pixel table; inputs with more channels are not pictures."""
TOLERANCE = 1e-6


def pixel_table(port: Port) -> NDArray[np.int8] | None:
    """The quantised input for each level of each channel (C x 256), as ``predict`` and the export's proof compute it.

    None for inputs that are not pixels: their normalisation is unknown, or leaves them as they are.

    Args:
        port: the input of an int8 artifact.
    """
    mean_std = port.get("normalisation")
    if mean_std is None or len(mean_std[0]) > MAX_PIXEL_CHANNELS or _is_identity(*mean_std):
        return None
    scale = np.array([1.0 / (255.0 * deviation) for deviation in mean_std[1]], np.float32)
    shift = np.array([mean / deviation for mean, deviation in zip(*mean_std, strict=True)], np.float32)
    levels = np.arange(LEVELS, dtype=np.float32)
    normalised = levels * scale[:, None] - shift[:, None]
    table: NDArray[np.int8] = quantised(
        normalised, {"dtype": np.int8, "quantization": (port["scale"], port["zero_point"])}
    )
    return table


def values_text(port: Port) -> str:
    """The form of the input values that the network was trained on, in words."""
    mean_std = port.get("normalisation")
    if mean_std is None and not port.get("as_given"):
        return "normalised as for the training"
    if mean_std is None or _is_identity(*mean_std):
        return "as the data came, for the training did not normalise them"
    means, deviations = (", ".join(f"{value:g}" for value in part) for part in mean_std)
    return f"(pixel / 255 - mean) / deviation, with means {means} and deviations {deviations} of the channels"


def pixels_declaration(table: NDArray[np.int8] | None) -> str:
    """The declaration of ``network_set_pixels`` for network.h; empty without a table."""
    if table is None:
        return ""
    order = {1: "grey", 3: "red, green, blue"}.get(len(table), f"{len(table)} channels")
    return (
        f"\n/* The same from pixels of 0 .. 255 in that order ({order}): normalised and quantised by a table. */\n"
        "void network_set_pixels(const uint8_t *pixels);\n"
    )


def pixels_definition(table: NDArray[np.int8] | None) -> str:
    """The definition of ``network_set_pixels`` for network.c; empty without a table."""
    if table is None:
        return ""
    return f"""
/* The input for each level of each channel. */
{array("pixel_values", table)}

void network_set_pixels(const uint8_t *pixels)
{{
    int8_t *input = network_input();
    for (int32_t i = 0; i < NETWORK_INPUT_SIZE; i++) {{
        input[i] = pixel_values[i % {len(table)} * {LEVELS} + pixels[i]];
    }}
}}
"""


def labels_definition(names: Sequence[str] | None, outputs: int) -> str:
    """The definition of ``network_label``, which gives each output's name; empty strings without a name for each."""
    if names is None or len(names) != outputs:
        body = '    (void)index;\n    return "";'
        table = ""
    else:
        rows = "\n".join(f"    {string(name)}," for name in names)
        table = f"static const char *const labels[NETWORK_OUTPUT_SIZE] = {{\n{rows}\n}};\n\n"
        body = "    return labels[index];"
    return f"{table}const char *network_label(int index)\n{{\n{body}\n}}"


def _is_identity(means: Sequence[float], deviations: Sequence[float]) -> bool:
    """Whether a normalisation leaves values as they are, as for data that needs none, such as spectrograms."""
    return not any(means) and all(abs(deviation * 255 - 1) < TOLERANCE for deviation in deviations)
