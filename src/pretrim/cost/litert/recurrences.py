"""Recurrent layers, which litert-torch writes out step by step: operators, tensors and biases grow with the steps.

Read off files of `nn.LSTM`, `nn.GRU` and `nn.RNN`: the product of the input is one for all steps, which are slices of
it; the product of the state is one a step, of the same weights. The first step has a state of zeros.
"""

from __future__ import annotations

from dataclasses import replace

from pretrim.analysis.network import Operator
from pretrim.cost.formula import Term

from .follow import Follow
from .lowering import Lowering, Value

LSTM, GRU = 4, 3
"""Gates of a cell; a plain one has one"""


class Cell:
    """One direction of a recurrent layer: what each of its steps becomes.

    Args:
        low: gets the operators.
        operator: ``recurrent_state``.
        gates: dimension of all gates together.
        units: dimension of the state.
        steps: how many there are.
    """

    def __init__(self, low: Lowering, operator: Operator, gates: int, units: int, steps: int) -> None:
        self.low = low
        self.steps = steps
        self.operator = operator
        self.count = int(operator.attributes["gates"])
        self.all: Term = (1.0, (gates,))
        self.one: Term = (1.0, (units,))

    def step(self, kind: str, *reads: int) -> int:
        """An operator as wide as the state."""
        return self.low.step(kind, self.operator, *reads, elements=self.one, rank=3)

    def slices(self, activation: int, places: range | tuple[int, ...], elements: Term, rank: int = 3) -> list[int]:
        """Equal parts of an activation.

        Args:
            activation: that is cut.
            places: which parts.
            elements: of a part.
            rank: its dimensions.
        """
        self.low.constant(("slice size", elements, rank), rank)
        made = []
        for place in places:
            self.low.constant(("slice", elements, place, rank) if place else ("slice", rank, 0, False), rank)
            made.append(self.low.step("slice", self.operator, activation, elements=elements, rank=rank))
        return made

    def product(self, state: int) -> int:
        """The state's product with the weights of all gates."""
        made = self.low.step("addmm", self.operator, state, elements=self.all, rank=2)
        self.low.nodes[-1] = replace(self.low.nodes[-1], share=1 / self.steps)
        return made

    def lstm(self, of_input: int, state: int | None, cell: int | None) -> tuple[int, int]:
        """A step of an LSTM: its new state and its new cell.

        Args:
            of_input: what it adds of the input.
            state: of the step before; None for zeros.
            cell: of the step before.
        """
        reads = [of_input] if state is None else [self.product(state), of_input]
        total = self.low.step("add", self.operator, *reads, elements=self.all, rank=3)
        parts = self.slices(total, (0, 2, 3) if cell is None else (0, 1, 2, 3), self.one)
        is_new = len(parts) - 2
        opened = [self.step("tanh" if place == is_new else "sigmoid", part) for place, part in enumerate(parts)]
        kept = self.step("mul", opened[1], cell) if cell is not None else None
        added = self.step("mul", opened[0], opened[is_new])
        now = added if kept is None else self.step("add", kept, added)
        return self.step("mul", opened[-1], self.step("tanh", now)), now

    def gru(self, of_input: int, state: int | None) -> int:
        """A step of a GRU: its new state.

        Args:
            of_input: what it adds of the input.
            state: of the step before; None for zeros.
        """
        flat = self.low.step("reshape", self.operator, of_input, elements=self.all, rank=2)
        self.low.constant(("shape", self.all), 2)
        ours = self.slices(flat, range(GRU), self.one, rank=2)
        theirs = [[] for _ in ours] if state is None else [[x] for x in self.of_state(state)]
        reset, update = (self.step("sigmoid", self.step("add", ours[n], *theirs[n])) for n in (0, 1))
        new = self.step("tanh", self.step("add", ours[2], self.step("mul", reset, *theirs[2])))
        change = self.step("sub", *([state] if state is not None else []), new)
        return self.step("add", self.step("mul", change, update), new)

    def of_state(self, state: int) -> list[int]:
        """What each gate of a GRU adds of the state."""
        return self.slices(self.product(state), range(GRU), self.one)

    def plain(self, of_input: int, state: int | None) -> int:
        """A step of a plain cell: its new state.

        Args:
            of_input: what it adds of the input.
            state: of the step before; None for zeros.
        """
        return self.step("tanh", self.step("add", *([self.product(state)] if state is not None else []), of_input))

    def starts(self) -> None:
        """Constants that the first step adds in the place of the state's product: its biases."""
        if self.count == GRU:
            for _ in range(GRU):
                self.low.table(self.one)
            self.low.number("one")
        else:
            self.low.table(self.all)


def recurrent_input(follow: Follow, operator: Operator, values: list[Value]) -> list[Value]:
    """The product of all steps of the input, steps first."""
    low, dims = follow.low, follow.dims(operator)
    read = low.as_torch(values[0], operator).activation
    if low.size(dims[1]) > 1 and low.made_by[read] not in ("transpose", "cat"):  # steps are first there
        low.constant(("permutation", 1, 0, 2), 3)
        read = low.step("transpose", operator, read, elements=low.elements[read], rank=3)
    low.node("addmm", operator, read)
    low.layer(operator.weight, dims[-1:])
    made = low.activation((1.0, dims), "addmm", 3)
    return [Value(made, dims, is_image=False)]


def recurrent_state(follow: Follow, operator: Operator, values: list[Value]) -> list[Value]:
    """Every step of one direction, and the states of all of them together if they are read."""
    low, dims = follow.low, follow.dims(operator)
    steps = max(low.size(dim) for dim in dims[:2])
    cell = Cell(low, operator, values[0].dims[-1], dims[-1], steps)
    low.layer(operator.weight, values[0].dims[-1:])
    has_own_biases = cell.count in (LSTM, GRU) and len(operator.parameters) > 1  # as a state's range differs by step
    low.reused += [(cell.all, has_own_biases)] * (steps - 2)
    cell.starts()
    states = _states(cell, _reversed(low, operator, values[0].activation))
    low.last_states[operator.writes[0]] = states[-1]
    if all(reader.op == "recurrent_last" for reader in follow.readers.get(operator.writes[0], [])):
        return [Value(states[-1], dims, is_image=False)]
    if low.dtype == "int8":
        states = [cell.step("quantize", state) for state in states[:-1]] + states[-1:]
    made = Value(low.step("cat", operator, *states, elements=(1.0, dims), rank=3), dims, is_image=False)
    stays = {reader.op for reader in follow.readers[operator.writes[0]]} <= {"recurrent_input", "recurrent_last", "cat"}
    return [made if stays or low.size(dims[1]) == 1 else low.reshaped(made, operator, dims)]


def _states(cell: Cell, gates: int) -> list[int]:
    states: list[int] = []
    kept: int | None = None
    for of_input in cell.slices(gates, range(cell.steps), cell.all):
        before = states[-1] if states else None
        if cell.count == LSTM:
            state, kept = cell.lstm(of_input, before, kept)
        else:
            state = cell.gru(of_input, before) if cell.count == GRU else cell.plain(of_input, before)
        states.append(state)
    return states


def _reversed(low: Lowering, operator: Operator, activation: int) -> int:
    """The steps of the other direction in their order; in int8 they are turned round in float32."""
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
    """The last states, which are there already; those of several layers or directions are put together."""
    low = follow.low
    last = [low.last_states[buffer] for buffer in operator.reads if buffer in low.last_states] or [values[0].activation]
    found = []
    for buffer, dims in zip(operator.writes, operator.outputs, strict=False):
        is_made = len(last) > 1 and buffer in follow.read
        made = _together(low, operator, last, dims[-1]) if is_made else last[0]
        found.append(Value(made, dims, is_image=False))
    return found


def _together(low: Lowering, operator: Operator, states: list[int], units: int) -> int:
    one: Term = (1.0, (units,))
    low.constant(("shape", 1, one), 3)
    parts = [low.step("reshape", operator, state, elements=one, rank=3) for state in states]
    if low.dtype == "int8":
        parts = [low.step("quantize", operator, part, elements=one, rank=3) for part in parts]
    return low.step("cat", operator, *parts, elements=(float(len(parts)), (units,)), rank=3)
