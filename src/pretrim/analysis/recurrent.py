"""Recurrent layers (`nn.LSTM`, `nn.GRU`, `nn.RNN`), seen as one operator per weight matrix.

torch runs them as one fused operator, or unrolls them step by step: the former reveals nothing about its weights, and
the latter takes minutes for a second of audio. Here the call is decomposed into its matrix products over all steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _disable_current_modes

GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


class Watcher(Protocol):
    """Is notified of each operator."""

    def observe(self, op: str, args: dict[str, Any], outputs: tuple[Tensor, ...]) -> None:
        """Called for one operator.

        Args:
            op: the operator's name.
            args: its arguments, by name.
            outputs: its output tensors.
        """


@dataclass(frozen=True)
class Recurrence:
    """The arguments of one call of a recurrent layer, in the order of ``torch._VF.lstm`` and the like."""

    kind: str
    x: Tensor
    state: Sequence[Tensor]
    weights: Sequence[Tensor]
    has_biases: bool
    layers: int
    directions: int
    batch_first: bool

    @property
    def units(self) -> int:
        """Width of the state before a projection."""
        return int(self.weights[1].shape[0]) // GATES[self.kind]

    @property
    def width(self) -> int:
        """Width of one direction of the output."""
        return int(self.weights[1].shape[1])

    def cells(self) -> Iterator[dict[str, Tensor]]:
        """The weights of each layer and direction, by name."""
        names = ["input", "state"] + ["input_bias", "state_bias"] * self.has_biases
        if len(self.weights) > self.layers * self.directions * len(names):
            names.append("projection")
        for start in range(0, len(self.weights), len(names)):
            yield dict(zip(names, self.weights[start : start + len(names)], strict=True))

    def empty(self, width: int) -> Tensor:
        """A sequence of the given width, without values."""
        return self.x.new_empty(*self.x.shape[:2], width)

    def outputs(self) -> tuple[Tensor, ...]:
        """What the call returns, without values."""
        batch = self.x.shape[0 if self.batch_first else 1]
        cells = self.layers * self.directions
        widths = [self.width, self.units] if self.kind == "lstm" else [self.width]
        last = (self.x.new_empty(cells, batch, width) for width in widths)
        return self.empty(self.directions * self.width), *last


def has_recurrence(model: nn.Module) -> bool:
    """Whether a model has recurrent layers, so that its calls have to be watched."""
    return any(isinstance(module, nn.RNNBase) for module in model.modules())


class RecurrentCalls(TorchFunctionMode):
    """Reports the matrix products of recurrent layers to a watcher, instead of the operators that torch runs."""

    def __init__(self, watcher: Watcher) -> None:
        super().__init__()
        self.watcher = watcher

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kind = getattr(func, "__name__", "")
        if kind not in GATES or len(args) < 9 or not isinstance(args[2], (list, tuple)):  # not for packed sequences
            return func(*args, **(kwargs or {}))
        x, state, weights, has_biases, layers, _, _, is_bidirectional, batch_first = args
        states = list(state) if isinstance(state, (list, tuple)) else [state]
        call = Recurrence(kind, x, states, weights, has_biases, layers, 1 + is_bidirectional, batch_first)
        with _disable_current_modes():
            results = call.outputs() if x.is_meta else func(*args)
            self._report(call, results)
        return results

    def _report(self, call: Recurrence, results: tuple[Tensor, ...]) -> None:
        """Report one operator per weight matrix; the directions of a layer are concatenated."""
        x, cells = call.x, call.cells()
        cell_outputs: list[Tensor] = []
        states: list[Tensor] = []
        for layer in range(call.layers):
            is_last = layer == call.layers - 1
            out = results[0] if is_last else call.empty(call.directions * call.width)
            one_direction = call.directions == 1
            direction_outputs = [
                self._cell(call, x, weights, out if one_direction else call.empty(call.width), states)
                for _, weights in zip(range(call.directions), cells, strict=False)
            ]
            if not one_direction:
                self.watcher.observe("cat", {"tensors": direction_outputs, "dim": -1}, (out,))
            cell_outputs += direction_outputs
            x = out
        self.watcher.observe(
            "recurrent_last", {"outputs": cell_outputs, "states": states, "batch": 1 - call.batch_first}, results[1:]
        )

    def _cell(
        self, call: Recurrence, x: Tensor, weights: dict[str, Tensor], out: Tensor, states: list[Tensor]
    ) -> Tensor:
        gates = call.empty(GATES[call.kind] * call.units)
        args = {"input": x, "weight": weights["input"], "bias": weights.get("input_bias"), "gates": GATES[call.kind]}
        self.watcher.observe("recurrent_input", args, (gates,))
        projection = weights.get("projection")
        state = out if projection is None else call.empty(call.units)
        args = {"input": gates, "weight": weights["state"], "bias": weights.get("state_bias"), "gates": args["gates"]}
        states.append(state)
        starts = dict(zip(("state", "cell"), call.state, strict=False))
        self.watcher.observe("recurrent_state", args | starts | {"projection": projection}, (state,))
        if projection is not None:
            self.watcher.observe("recurrent_projection", {"input": state, "weight": projection}, (out,))
        return out
