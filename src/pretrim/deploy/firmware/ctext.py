"""C as text: constant arrays, structures and strings."""

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
    """A constant array of the values, in rows.

    >>> print(array("bias", np.array([1, -2], np.int32)))
    static const int32_t bias[2] = {
        1, -2,
    };
    """
    return f"static const {TYPES[values.dtype]} {name}[{values.size}] = {{\n{_rows(values)}\n}};"


def table(name: str, values: NDArray[np.int8]) -> str:
    """A constant array of several rows that other files see.

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
    """A constant structure, one field a line.

    Args:
        kind: its type.
        name: of the constant.
        fields: values by name, in order.

    >>> print(structure("nn_factor", "half", {"multiplier": 1 << 30, "shift": 0}))
    static const nn_factor half = {
        .multiplier = 1073741824,
        .shift = 0,
    };
    """
    lines = "\n".join(_wrapped(f".{field} = {_value(value)},") for field, value in fields.items())
    return f"static const {kind} {name} = {{\n{lines}\n}};"


def string(text: str) -> str:
    """A string literal: UTF-8, everything but plain ASCII as octal escapes; question marks too (trigraphs).

    >>> string("a quote \\" and é?")
    '"a quote \\\\042 and \\\\303\\\\251\\\\077"'
    """
    plain = set(range(32, 127)) - set(b'"\\?')
    return '"' + "".join(chr(byte) if byte in plain else f"\\{byte:03o}" for byte in text.encode()) + '"'


def comment(text: str) -> str:
    """A comment, wrapped.

    >>> comment("short")
    '/* short */'
    """
    return textwrap.fill(f"/* {text} */", WIDTH, subsequent_indent=" * ")


def real(value: float) -> str:
    """A float, exactly.

    >>> real(0.75)
    '0x1.8000000000000p-1f'
    """
    return f"{value.hex()}f"


def _rows(values: NDArray[Any]) -> str:
    written = real if values.dtype == np.float32 else str
    return _wrapped(", ".join(map(written, values.ravel().tolist())) + ",")


def _wrapped(text: str) -> str:
    """Indented, in lines that are not too long."""
    return textwrap.fill(text, WIDTH, initial_indent=INDENT, subsequent_indent=INDENT)


def _value(value: Value) -> str:
    if isinstance(value, str | int):
        return str(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f".{field} = {_value(part)}" for field, part in value.items()) + "}"
    return "{" + ", ".join(map(str, value)) + "}"
