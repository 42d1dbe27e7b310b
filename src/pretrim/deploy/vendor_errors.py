"""Shorten a vendor's error to one line, with the operator and, if the error names it, the line of the model."""

from __future__ import annotations

import errno
import re

from pretrim.errors import ExportError

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NOISE_PREFIXES = (
    "File ",
    "While executing",
    "Original traceback",
    "Traceback",
    "Use tlparse",
    "GraphModule",
    "class ",
    "Failed",
)
_MODEL_LINE = re.compile(r"(?P<file>[^\s/]+):(?P<line>\d+):\d+: error: (?P<said>.+)")
"""How the compiler passes of LiteRT's converter report the line of the model that they stopped at."""
_OPERATOR = re.compile(r"\baten[:.]+_?[a-z]\w+(?:\.\w+)?")
_MAX_CHARACTERS = 300
_EXPLANATIONS = (
    (
        re.compile(r"'mhlo\.convolution' that was explicitly marked illegal"),
        "it has no transposed convolution of this dilation or padding: use dilation 1, and padding 0 or an "
        "output_padding from 1 to the padding",
    ),
    (
        re.compile(r"TFLOperationName\.\w+\(index: \d+\) not found in tensor_name_to_qsv"),
        "it has no int8 kernel for one of its operators, such as a local response norm: use a batch norm there, or "
        "export in float32",
    ),
)
"""Errors of converters for things that they do not support, with an explanation and a remedy for each."""


def export_error(converter: str, error: BaseException) -> ExportError:
    """The error for a failed conversion, in one line.

    Args:
        converter: the converter's name for users, such as ``LiteRT``.
        error: the exception that it raised; torch's exporter puts the original error into the cause.
    """
    if isinstance(error, OSError) and error.errno in _DISK_FULL:
        return ExportError(f"No room for temporary files: {error.strerror}. Free some, or set TMPDIR.")
    text = "\n".join(str(part) for part in (error, error.__cause__) if part is not None)
    for pattern, explanation in _EXPLANATIONS:
        if pattern.search(text):
            return ExportError(
                f"{converter} did not take the network: {explanation}. Another runtime may take it as it is."
            )
    message = _message_line(text)
    operators = [name for name in _OPERATOR.findall(text) if name not in message]
    operator_note = f" (operator {operators[0]})" if operators else ""
    details = f"{type(error).__name__}{operator_note}" + (
        f": {message[:_MAX_CHARACTERS].rstrip('.')}" if message else ""
    )
    return ExportError(f"{converter} did not take the network ({details}). Another runtime may.")


def _message_line(text: str) -> str:
    """The line of an error's text that says what went wrong; empty if there is none."""
    match = _MODEL_LINE.search(text)
    if match is not None:
        return f"{match['said'].strip()} ({match['file']}, line {match['line']})"
    lines = [line.strip() for line in text.splitlines()]
    return next((line for line in lines if line and not line.startswith(_NOISE_PREFIXES)), "")
