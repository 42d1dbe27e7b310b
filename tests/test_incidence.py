"""Costs without the zeros: one network after the other gives what all together give, exactly."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import pretrim
from pretrim.analysis.network import Network
from pretrim.cost.costs import costs
from pretrim.cost.derivatives import alone, curvature, slopes
from pretrim.models import BUILTIN
from pretrim.planning.utility import utility


@pytest.fixture(scope="module", params=["resnet20", "mobilenetv2"])
def network(request: pytest.FixtureRequest) -> Network:
    return pretrim.analyze(BUILTIN[request.param](), torch.zeros(1, 3, 32, 32))


def rows_of(network: Network, count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(1, network.dense, size=(count, len(network.dense)), endpoint=True)


def test_one_row_gives_what_many_give(network: Network) -> None:
    rows = rows_of(network, 5)
    for cost in costs(network).values():
        assert [cost(row) for row in rows] == cost(rows).tolist()


def test_a_step_of_each_group_alone(network: Network) -> None:
    widths, stepped = rows_of(network, 2)
    each = np.repeat(widths[None], len(widths), axis=0)
    np.fill_diagonal(each, stepped)
    for cost in costs(network).values():
        assert (alone(cost.formula, widths, stepped) == cost.formula(each)).all()
    worth = utility(network)
    assert worth.alone(widths, stepped) == pytest.approx(worth(each), abs=1e-9)


def test_slopes_and_curvature_are_those_of_the_dense_matrices(network: Network) -> None:
    """Against differences of the formula itself: it is at most cubic in one width and quadratic in two."""
    widths = rows_of(network, 1)[0].astype(np.float64)
    macs = costs(network)["macs"].formula
    unit = np.eye(len(widths))
    slope = [(macs((widths + e)[None]) - macs((widths - e)[None]))[0, 0] / 2 for e in unit]
    assert slopes(macs, widths)[0] == pytest.approx(slope)
    curve = curvature(macs, widths, np.ones(1)).dense()
    for first, second in ((0, 1), (1, 2), (0, 0), (len(widths) - 1, 1)):
        a, b = unit[first], unit[second]
        corners = [(1, widths + a + b), (-1, widths + a - b), (-1, widths - a + b), (1, widths - a - b)]
        found = sum(sign * macs(corner[None])[0, 0] for sign, corner in corners) / 4
        assert curve[first, second] == pytest.approx(found)
