"""Rules for recurrent layers, seen as one product per weight matrix (`analysis/recurrent.py`)."""

from __future__ import annotations

from pretrim.analysis.channels import Label, Labels

from .call import Call


def recurrent_input(call: Call) -> Labels:
    """The gates of all steps, computed from the input: the rows of the gates are tied, unit by unit."""
    x, weight = call.args["input"], call.args["weight"]
    labels, (rows, columns) = call.look(x), call.look(weight)
    call.tie(labels[-1], columns)
    return (*labels[:-1], _gate_rows(call, labels[:-1], rows, columns))


def _gate_rows(call: Call, lead: Labels, rows: Label, columns: Label) -> Label:
    """The rows of a weight (gates x units): each unit has one row per gate."""
    weight, out = call.args["weight"], call.outputs[0]
    bias = call.tensor("bias")
    if bias is not None:
        call.tie(rows, call.look(bias)[0])
    if rows is not None:
        call.tie_rows(rows.reshape(int(call.args["gates"]), -1))
    call.factors = (*zip(out.shape[:-1], lead, strict=True), *zip(weight.shape, (rows, columns), strict=True))
    call.filters, call.weight = rows, weight
    return rows


def recurrent_state(call: Call) -> Labels:
    """The gates of all steps, from the previous state: its units are the columns, and the rows of each gate."""
    labels, (rows, columns) = call.look(call.args["input"]), call.look(call.args["weight"])
    call.tie(labels[-1], rows)
    _gate_rows(call, labels[:-1], rows, columns)
    units = None if rows is None else rows.reshape(int(call.args["gates"]), -1)[0]
    state = units
    projection = call.tensor("projection")
    if projection is not None:
        state = call.look(projection)[0]
        call.tie(units, call.look(projection)[1])
    call.tie(state, columns)
    for name, label in (("state", state), ("cell", units)):
        initial = call.tensor(name)
        if initial is not None:
            call.tie(call.look(initial)[-1], label)
    return (*labels[:-1], units)


def recurrent_projection(call: Call) -> Labels:
    """The projection of an LSTM's state at each step (Sak et al. 2014)."""
    weight, labels = call.args["weight"], call.look(call.args["input"])
    rows, columns = call.look(weight)
    call.tie(labels[-1], columns)
    call.factors = (*zip(call.outputs[0].shape, (*labels[:-1], rows), strict=True), (weight.shape[1], columns))
    call.filters, call.weight = rows, weight
    return (*labels[:-1], rows)


def recurrent_last(call: Call) -> list[Labels]:
    """States after the last step: all layers and directions of a module have the same width."""
    kinds = [[call.look(t) for t in call.args[name]] for name in ("outputs", "states")]
    batch = kinds[0][0][call.args["batch"]]
    widths = [call.tie(*(labels[-1] for labels in labels_of_kind)) for labels_of_kind in kinds]
    return [(None, batch, width) for width, _ in zip(widths, call.outputs, strict=False)]
