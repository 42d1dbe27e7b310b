"""Rules for recurrent layers, which litert-torch unrolls: operators, tensors and biases grow with the number of steps.

Derived from converted files of `nn.LSTM`, `nn.GRU` and `nn.RNN`: one product with the input covers all steps, which are
slices of it; each step has its own product with the state, of shared weights. The first step has a zero state.
"""

from __future__ import annotations

from dataclasses import replace

from pretrim.analysis.network import Operator
from pretrim.cost.formula import Term

from .follow import Follow
from .lowering import Lowering, Value

LSTM, GRU = 4, 3
"""Number of gates of a cell; a plain RNN cell has one."""


class Cell:
    """Lowers the steps of one direction of a recurrent layer.

    Args:
        low: the lowering that receives the operators.
        operator: the ``recurrent_state`` operator.
        gates: dimension of all gates together.
        units: dimension of the state.
        steps: number of steps.
    """

    def __init__(self, low: Lowering, operator: Operator, gates: int, units: int, steps: int) -> None:
        self.low = low
        self.steps = steps
        self.operator = operator
        self.count = int(operator.attributes["gates"])
        self.all: Term = (1.0, (gates,))
        self.one: Term = (1.0, (units,))

    def step(self, kind: str, *reads: int) -> int:
        """Append an operator whose output is as wide as the state."""
        return self.low.step(kind, self.operator, *reads, elements=self.one, rank=3)

    def slices(self, activation: int, places: range | tuple[int, ...], elements: Term, rank: int = 3) -> list[int]:
        """Slice an activation into equal parts.

        Args:
            activation: the activation.
            places: numbers of the parts.
            elements: number of items in a part.
            rank: number of dimensions of a part.
        """
        self.low.constant(("slice size", elements, rank), rank)
        parts = []
        for place in places:
            self.low.constant(("slice", elements, place, rank) if place else ("slice", rank, 0, False), rank)
            parts.append(self.low.step("slice", self.operator, activation, elements=elements, rank=rank))
        return parts

    def product(self, state: int) -> int:
        """Append the product of the state with the weights of all gates."""
        product = self.low.step("addmm", self.operator, state, elements=self.all, rank=2)
        self.low.nodes[-1] = replace(self.low.nodes[-1], share=1 / self.steps)
        return product

    def lstm(self, of_input: int, state: int | None, cell: int | None) -> tuple[int, int]:
        """Append one step of an LSTM; returns its hidden state and its cell state.

        Args:
            of_input: the step's product with the input.
            state: hidden state of the previous step; None for zeros.
            cell: cell state of the previous step; None for zeros.
        """
        reads = [of_input] if state is None else [self.product(state), of_input]
        total = self.low.step("add", self.operator, *reads, elements=self.all, rank=3)
        parts = self.slices(total, (0, 2, 3) if cell is None else (0, 1, 2, 3), self.one)
        candidate = len(parts) - 2
        gates = [self.step("tanh" if place == candidate else "sigmoid", part) for place, part in enumerate(parts)]
        kept = self.step("mul", gates[1], cell) if cell is not None else None
        added = self.step("mul", gates[0], gates[candidate])
        new_cell = added if kept is None else self.step("add", kept, added)
        return self.step("mul", gates[-1], self.step("tanh", new_cell)), new_cell

    def gru(self, of_input: int, state: int | None) -> int:
        """Append one step of a GRU; returns its new state.

        Args:
            of_input: the step's product with the input.
            state: state of the previous step; None for zeros.
        """
        flat = self.low.step("reshape", self.operator, of_input, elements=self.all, rank=2)
        self.low.constant(("shape", self.all), 2)
        from_input = self.slices(flat, range(GRU), self.one, rank=2)
        from_state = [[] for _ in from_input] if state is None else [[part] for part in self.of_state(state)]
        reset, update = (self.step("sigmoid", self.step("add", from_input[n], *from_state[n])) for n in (0, 1))
        new = self.step("tanh", self.step("add", from_input[2], self.step("mul", reset, *from_state[2])))
        change = self.step("sub", *([state] if state is not None else []), new)
        return self.step("add", self.step("mul", change, update), new)

    def of_state(self, state: int) -> list[int]:
        """Append a GRU's product with the state, sliced by gate."""
        return self.slices(self.product(state), range(GRU), self.one)

    def plain(self, of_input: int, state: int | None) -> int:
        """Append one step of a plain RNN cell; returns its new state.

        Args:
            of_input: the step's product with the input.
            state: state of the previous step; None for zeros.
        """
        return self.step("tanh", self.step("add", *([self.product(state)] if state is not None else []), of_input))

    def starts(self) -> None:
        """Add the constants that the first step adds instead of the product with the state: its biases."""
        if self.count == GRU:
            for _ in range(GRU):
                self.low.table(self.one)
            self.low.number("one")
        else:
            self.low.table(self.all)


def recurrent_input(follow: Follow, operator: Operator, values: list[Value]) -> list[Value]:
    """Rule for the product with the input: one for all steps, with the steps as the first dimension."""
    low, dims = follow.low, follow.dims(operator)
    read = low.as_torch(values[0], operator).activation
    if low.size(dims[1]) > 1 and low.made_by[read] not in ("transpose", "cat"):  # those have the steps first already
        low.constant(("permutation", 1, 0, 2), 3)
        read = low.step("transpose", operator, read, elements=low.elements[read], rank=3)
    low.node("addmm", operator, read)
    low.layer(operator.weight, dims[-1:])
    output = low.activation((1.0, dims), "addmm", 3)
    return [Value(output, dims, is_image=False)]


def recurrent_state(follow: Follow, operator: Operator, values: list[Value]) -> list[Value]:
    """Rule for all steps of one direction; their states are concatenated if anything reads more than the last one."""
    low, dims = follow.low, follow.dims(operator)
    steps = max(low.size(dim) for dim in dims[:2])
    cell = Cell(low, operator, values[0].dims[-1], dims[-1], steps)
    low.layer(operator.weight, values[0].dims[-1:])
    has_own_biases = cell.count in (LSTM, GRU) and len(operator.parameters) > 1  # a state's range differs by step
    low.reused += [(cell.all, has_own_biases)] * (steps - 2)
    cell.starts()
    states = _states(cell, _reversed(low, operator, values[0].activation))
    low.last_states[operator.writes[0]] = states[-1]
    if all(reader.op == "recurrent_last" for reader in follow.readers.get(operator.writes[0], [])):
        return [Value(states[-1], dims, is_image=False)]
    if low.dtype == "int8":
        states = [cell.step("quantize", state) for state in states[:-1]] + states[-1:]
    joined = Value(low.step("cat", operator, *states, elements=(1.0, dims), rank=3), dims, is_image=False)
    readers = {reader.op for reader in follow.readers[operator.writes[0]]}
    is_ready = readers <= {"recurrent_input", "recurrent_last", "cat"}
    return [joined if is_ready or low.size(dims[1]) == 1 else low.reshaped(joined, operator, dims)]


def _states(cell: Cell, gates: int) -> list[int]:
    """Append all steps of a cell, and return the state after each of them."""
    states: list[int] = []
    cell_state: int | None = None
    for of_input in cell.slices(gates, range(cell.steps), cell.all):
        previous = states[-1] if states else None
        if cell.count == LSTM:
            state, cell_state = cell.lstm(of_input, previous, cell_state)
        else:
            state = cell.gru(of_input, previous) if cell.count == GRU else cell.plain(of_input, previous)
        states.append(state)
    return states


def _reversed(low: Lowering, operator: Operator, activation: int) -> int:
    """Reverse the steps for the backward direction; in int8 this happens in float32."""
    if not any(name.endswith("_reverse") for name in operator.parameters):
        return activation
    low.constant(("axis", 0), 1)
    factor, dims = low.elements[activation]
    if low.dtype != "int8":
        return low.step("reverse_v2", operator, activation, elements=(factor, dims), rank=3)
    for kind in ("dequantize", "reverse_v2"):
        activation = low.step(kind, operator, activation, elements=(4 * factor, dims), rank=3)
    return low.step("quantize", operator, activation, elements=(factor, dims), rank=3)


def recurrent_last(follow: Follow, operator: Operator, values: list[Value]) -> list[Value]:
    """Rule for the last states, which exist already; those of several layers or directions are concatenated."""
    low = follow.low
    last = [low.last_states[buffer] for buffer in operator.reads if buffer in low.last_states] or [values[0].activation]
    outputs = []
    for buffer, dims in zip(operator.writes, operator.outputs, strict=False):
        is_joined = len(last) > 1 and buffer in follow.read
        activation = _concatenated(low, operator, last, dims[-1]) if is_joined else last[0]
        outputs.append(Value(activation, dims, is_image=False))
    return outputs


def _concatenated(low: Lowering, operator: Operator, states: list[int], units: int) -> int:
    """Append the concatenation of several states of the same size."""
    elements: Term = (1.0, (units,))
    low.constant(("shape", 1, elements), 3)
    parts = [low.step("reshape", operator, state, elements=elements, rank=3) for state in states]
    if low.dtype == "int8":
        parts = [low.step("quantize", operator, part, elements=elements, rank=3) for part in parts]
    return low.step("cat", operator, *parts, elements=(float(len(parts)), (units,)), rank=3)
