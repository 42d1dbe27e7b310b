"""What is left of a vendor's error: one line, with the operator and, where the text has it, the line of the model."""

from __future__ import annotations

import errno
import re

from pretrim.errors import ExportError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FRAMES = (
    "File ",
    "While executing",
    "Original traceback",
    "Traceback",
    "Use tlparse",
    "GraphModule",
    "class ",
    "Failed",
)
_PASSES = re.compile(r"(?P<file>[^\s/]+):(?P<line>\d+):\d+: error: (?P<said>.+)")
"""How the compilers below LiteRT name the line of the model that they stopped at"""
_OPERATOR = re.compile(r"\baten[:.]+_?[a-z]\w+(?:\.\w+)?")
_LONGEST = 300
_PLAIN = (
    (
        re.compile(r"'mhlo\.convolution' that was explicitly marked illegal"),
        "it has no transposed convolution of this dilation or padding: use dilation 1, and padding 0 or an "
        "output_padding from 1 to the padding",
    ),
    (
        re.compile(r"TFLOperationName\.\w+\(index: \d+\) not found in tensor_name_to_qsv"),
        "it has no int8 for a part of it, such as a local response norm: use a batch norm there, or export in float32",
    ),
)
"""What converters say of what they lack, and what to do"""


def export_error(converter: str, error: BaseException) -> ExportError:
    """What a converter said, in one line.

    Args:
        converter: as the user knows it, such as ``LiteRT``.
        error: what it raised; torch puts its own error into the cause.
    """
    if isinstance(error, OSError) and error.errno in _FULL:
        return ExportError(f"No room for temporary files: {error.strerror}. Free some, or set TMPDIR.")
    text = "\n".join(str(part) for part in (error, error.__cause__) if part is not None)
    for pattern, plain in _PLAIN:
        if pattern.search(text):
            return ExportError(f"{converter} did not take the network: {plain}. Another runtime may take it as it is.")
    said = _said(text)
    operators = [name for name in _OPERATOR.findall(text) if name not in said]
    named = f" (operator {operators[0]})" if operators else ""
    what = f"{type(error).__name__}{named}" + (f": {said[:_LONGEST].rstrip('.')}" if said else "")
    return ExportError(f"{converter} did not take the network ({what}). Another runtime may.")


def _said(text: str) -> str:
    """The line of a text that says what went wrong; empty if no line does."""
    passes = _PASSES.search(text)
    if passes is not None:
        return f"{passes['said'].strip()} ({passes['file']}, line {passes['line']})"
    lines = [line.strip() for line in text.splitlines()]
    return next((line for line in lines if line and not line.startswith(_FRAMES)), "")
