"""From pixels to the network's input, and from outputs to labels, in C."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pretrim.deploy.artifact import Port
from pretrim.deploy.litert import quantised

from .ctext import array, string

LEVELS = 256
"""of a pixel"""
MOST_CHANNELS = 4
"""of images whose pixels are looked up; what has more is no picture"""
TOLERANCE = 1e-6


def pixel_table(port: Port) -> NDArray[np.int8] | None:
    """The input for each level of each channel, as ``predict`` and the proof of the export compute it; None for
    inputs that are no pixels: their normalisation is not known, or leaves them as they are.

    Args:
        port: the input of an int8 artifact.
    """
    pair = port.get("normalisation")
    if pair is None or len(pair[0]) > MOST_CHANNELS or _is_identity(*pair):
        return None
    scale = np.array([1.0 / (255.0 * deviation) for deviation in pair[1]], np.float32)
    shift = np.array([mean / deviation for mean, deviation in zip(*pair, strict=True)], np.float32)
    levels = np.arange(LEVELS, dtype=np.float32)
    normalised = levels * scale[:, None] - shift[:, None]
    table: NDArray[np.int8] = quantised(
        normalised, {"dtype": np.int8, "quantization": (port["scale"], port["zero_point"])}
    )
    return table


def values_text(port: Port) -> str:
    """What the network was trained to see, in words."""
    pair = port.get("normalisation")
    if pair is None and not port.get("as_given"):
        return "normalised as for the training"
    if pair is None or _is_identity(*pair):
        return "as the data came, for the training did not normalise them"
    means, deviations = (", ".join(f"{value:g}" for value in part) for part in pair)
    return f"(pixel / 255 - mean) / deviation, with means {means} and deviations {deviations} of the channels"


def pixels_declaration(table: NDArray[np.int8] | None) -> str:
    """Of ``network_set_pixels``, for network.h."""
    if table is None:
        return ""
    order = {1: "grey", 3: "red, green, blue"}.get(len(table), f"{len(table)} channels")
    return (
        f"\n/* The same from pixels of 0 .. 255 in that order ({order}): normalised and quantised by a table. */\n"
        "void network_set_pixels(const uint8_t *pixels);\n"
    )


def pixels_definition(table: NDArray[np.int8] | None) -> str:
    """The same for network.c."""
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
    """``network_label``: the name of each output, where there is one for each."""
    if names is None or len(names) != outputs:
        body = '    (void)index;\n    return "";'
        table = ""
    else:
        rows = "\n".join(f"    {string(name)}," for name in names)
        table = f"static const char *const labels[NETWORK_OUTPUT_SIZE] = {{\n{rows}\n}};\n\n"
        body = "    return labels[index];"
    return f"{table}const char *network_label(int index)\n{{\n{body}\n}}"


def _is_identity(means: Sequence[float], deviations: Sequence[float]) -> bool:
    """Whether values are left as they are: data that came ready, such as spectrograms."""
    return not any(means) and all(abs(deviation * 255 - 1) < TOLERANCE for deviation in deviations)
