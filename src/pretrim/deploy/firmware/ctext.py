"""Format C code: constant arrays, structures and strings."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

WIDTH, INDENT = 100, " " * 4
TYPES = {
    np.dtype(np.int8): "int8_t",
    np.dtype(np.int16): "int16_t",
    np.dtype(np.int32): "int32_t",
    np.dtype(np.float32): "float",
}
Value: TypeAlias = "str | int | Sequence[int] | Mapping[str, Value]"


def array(name: str, values: NDArray[Any]) -> str:
    """Define a constant array of the values, in wrapped rows.

    >>> print(array("bias", np.array([1, -2], np.int32)))
    static const int32_t bias[2] = {
        1, -2,
    };
    """
    return f"static const {TYPES[values.dtype]} {name}[{values.size}] = {{\n{_rows(values)}\n}};"


def table(name: str, values: NDArray[np.int8]) -> str:
    """Define a constant two-dimensional array that is visible in other files.

    >>> print(table("samples", np.array([[1, 2], [3, 4]], np.int8)))
    const int8_t samples[2][2] = {
    {
        1, 2,
    },
    {
        3, 4,
    },
    };
    """
    rows = "\n".join(f"{{\n{_rows(row)}\n}}," for row in values)
    return f"const {TYPES[values.dtype]} {name}[{len(values)}][{values.shape[1]}] = {{\n{rows}\n}};"


def structure(kind: str, name: str, fields: Mapping[str, Value]) -> str:
    """Define a constant structure, with one field on each line.

    Args:
        kind: type of the structure.
        name: name of the constant.
        fields: values by field name, in order.

    >>> print(structure("nn_factor", "half", {"multiplier": 1 << 30, "shift": 0}))
    static const nn_factor half = {
        .multiplier = 1073741824,
        .shift = 0,
    };
    """
    lines = "\n".join(_wrapped(f".{field} = {_value(value)},") for field, value in fields.items())
    return f"static const {kind} {name} = {{\n{lines}\n}};"


def string(text: str) -> str:
    """Format a UTF-8 string literal: all but printable ASCII as octal escapes, and question marks too (trigraphs).

    >>> string("a quote \\" and é?")
    '"a quote \\\\042 and \\\\303\\\\251\\\\077"'
    """
    unescaped = set(range(32, 127)) - set(b'"\\?')
    return '"' + "".join(chr(byte) if byte in unescaped else f"\\{byte:03o}" for byte in text.encode()) + '"'


def comment(text: str) -> str:
    """Format a wrapped comment.

    >>> comment("short")
    '/* short */'
    """
    return textwrap.fill(f"/* {text} */", WIDTH, subsequent_indent=" * ")


def real(value: float) -> str:
    """Format a float exactly.

    >>> real(0.75)
    '0x1.8000000000000p-1f'
    """
    return f"{value.hex()}f"


def _rows(values: NDArray[Any]) -> str:
    formatted = real if values.dtype == np.float32 else str
    return _wrapped(", ".join(map(formatted, values.ravel().tolist())) + ",")


def _wrapped(text: str) -> str:
    """Indent and wrap text."""
    return textwrap.fill(text, WIDTH, initial_indent=INDENT, subsequent_indent=INDENT)


def _value(value: Value) -> str:
    if isinstance(value, str | int):
        return str(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f".{field} = {_value(part)}" for field, part in value.items()) + "}"
    return "{" + ", ".join(map(str, value)) + "}"
