"""The work of the operators in a ``.tflite``, from which its latency on a microcontroller is predicted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pretrim.deploy.graph import FileGraph, FileOperator

ELEMENTWISE = frozenset({"ADD", "SUB", "MUL", "DIV"})
POOLS = frozenset({"MAX_POOL_2D", "AVERAGE_POOL_2D", "MEAN", "SUM"})
ACTIVATIONS = frozenset(
    {"RELU", "RELU6", "LEAKY_RELU", "PRELU", "ELU", "GELU", "HARD_SWISH", "TANH", "LOGISTIC", "SOFTMAX"}
    | {"LOG_SOFTMAX", "EXP"}
)
VIEWS = frozenset({"RESHAPE", "SQUEEZE", "EXPAND_DIMS"})
"""Operators that take negligible time."""


def kind_of(operator: FileOperator) -> str | None:
    """The kind of an operator in `board_systems.WEIGHTED` or `OTHERS`; None if its time is not known."""
    if operator.name in ("CONV_2D", "TRANSPOSE_CONV"):
        return "pointwise" if operator.kernel == (1, 1) else "convolution"
    if operator.name == "DEPTHWISE_CONV_2D":
        return "depthwise"
    if operator.name in ("FULLY_CONNECTED", "BATCH_MATMUL"):
        return "dense"
    if operator.name in ELEMENTWISE:
        return "elementwise"
    if operator.name in POOLS:
        return "pool"
    return "activation" if operator.name in ACTIVATIONS else None


def sketch_of_file(graph: FileGraph) -> dict[str, Any]:
    """The sketch of a file for `on_board.predict`: the work by kind of operator, and the operators left out."""
    macs: dict[str, float] = {}
    outputs: dict[str, float] = {}
    for operator in graph.operators:
        kind = kind_of(operator)
        if kind is None:
            continue
        if operator.macs:
            macs[kind] = macs.get(kind, 0.0) + operator.macs
        elements = operator.reads if operator.name in ("MEAN", "SUM") else operator.writes
        outputs[kind] = outputs.get(kind, 0.0) + elements
    return {"work": {"macs": macs, "outputs": outputs}, "left_out": _left_out(graph.operators)}


def _left_out(operators: Iterable[FileOperator]) -> list[str]:
    names = (operator.name.lower() for operator in operators if kind_of(operator) is None)
    return [name for name in dict.fromkeys(names) if name.upper() not in VIEWS]
