"""Layers whose output is unused: converters drop them, so costs, lifetimes and the arena leave them out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from networks import Net, conv
from torch import Tensor, nn

import pretrim
from pretrim.cost.costs import costs
from pretrim.cost.microcontroller import arena_cost, artifact_cost


def with_branch(m: Any, x: Tensor) -> Tensor:
    x = torch.relu(m.a(x))
    torch.relu(m.norm(m.dead(x)))  # computed but unused
    return m.c(x)  # type: ignore[no-any-return]


def without_branch(m: Any, x: Tensor) -> Tensor:
    return m.c(torch.relu(m.a(x)))  # type: ignore[no-any-return]


def layers() -> dict[str, nn.Module]:
    return {"a": conv(3, 8), "c": conv(8, 2)}


def test_an_unused_branch_costs_nothing() -> None:
    image = torch.zeros(1, 3, 8, 8)
    branch = Net(with_branch, **layers(), dead=conv(8, 64), norm=nn.BatchNorm2d(64))
    network, reference = pretrim.analyze(branch, image), pretrim.analyze(Net(without_branch, **layers()), image)
    for name in ("macs", "activation_bytes", "peak_activation_bytes"):
        assert costs(network)[name](network.dense) == costs(reference)[name](reference.dense), name  # type: ignore[index]
    for cost in (arena_cost, artifact_cost):
        assert cost(network)(network.dense) == cost(reference)(reference.dense)
    assert "no output depends on dead" in network.notes[0]
    slim = network.plan(macs="0.6x", round_to=1).apply(branch, network=network)
    assert slim(image).shape == branch(image).shape


def written_by_slices(m: Any, x: Tensor) -> Tensor:
    x = m.a(x)
    out = torch.zeros_like(x)
    out[:, :4] = m.b(x)[:, :4]
    out[:, 4:].add_(x[:, 4:])
    return m.c(out)  # type: ignore[no-any-return]


def written_into_zeros(m: Any, x: Tensor) -> Tensor:
    x = m.a(x)
    out = torch.zeros(x.shape)
    out[:, :, 0::2][:, :, :, 1::2] = m.b(x)[:, :, 0::2, 1::2]
    out.view(x.shape)[:, 4:].add_(x[:, 4:])
    return m.c(out)  # type: ignore[no-any-return]


def written_into_new(m: Any, x: Tensor) -> Tensor:
    x = m.a(x)
    out = x.new_empty(2, *x.shape)
    out[0], out[1] = m.b(x), x
    return m.c(out.sum(0))  # type: ignore[no-any-return]


def in_place(m: Any, x: Tensor) -> Tensor:
    x = m.a(x)
    x.view(x.shape[0], 8, -1).mul_(m.b(x).flatten(2))
    return m.c(x)  # type: ignore[no-any-return]


def transposed(m: Any, x: Tensor) -> Tensor:
    x = m.a(x)
    y = x.clone()
    y.transpose(2, 3).copy_(m.b(x))
    return m.c(y)  # type: ignore[no-any-return]


@pytest.mark.parametrize("forward", [written_by_slices, written_into_zeros, written_into_new, in_place, transposed])
def test_values_written_into_a_part_of_a_tensor_count_as_used(forward: Callable[[Any, Tensor], Tensor]) -> None:
    network = pretrim.analyze(Net(forward, **layers(), b=conv(8, 8)), torch.zeros(1, 3, 8, 8))
    assert all(layer.operator >= 0 for layer in network.layers) and not network.notes
    assert costs(network)["macs"](network.dense) == 64 * 9 * (3 * 8 + 8 * 8 + 8 * 2)


def with_positions(m: Any, x: Tensor) -> Tensor:
    coordinates = torch.linspace(-1, 1, 8).expand(1, 2, 8, 8)
    return m.c(m.a(x) + m.positions(coordinates))  # type: ignore[no-any-return]


def test_a_layer_that_reads_constant_coordinates_is_counted() -> None:
    network = pretrim.analyze(Net(with_positions, **layers(), positions=conv(2, 8)), torch.zeros(1, 3, 8, 8))
    assert costs(network)["macs"](network.dense) == 64 * 9 * (3 * 8 + 2 * 8 + 8 * 2)
