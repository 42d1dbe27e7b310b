"""Fronts against the definition by brute force, and hypervolumes by hand and by Monte Carlo."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from pretrim.errors import UsageError
from pretrim.study.pareto import front, hypervolume, knee

PROPERTY = settings(max_examples=150, deadline=None, derandomize=True, database=None)


@st.composite
def points(draw: st.DrawFn, most: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Small whole numbers, so that ties and equal points are common."""
    count, columns = draw(st.integers(0, most)), draw(st.integers(1, 4))
    numbers = st.lists(st.integers(0, 4), min_size=count * (columns + 1), max_size=count * (columns + 1))
    table = np.array(draw(numbers), dtype=float).reshape(count, columns + 1)
    return table[:, :-1], table[:, -1]


@PROPERTY
@given(points())
def test_a_front_is_what_nothing_beats(given: tuple[np.ndarray, np.ndarray]) -> None:
    costs, values = given
    expected = []
    for i in range(len(values)):
        beaten = any(
            (costs[j] <= costs[i]).all()
            and values[j] >= values[i]
            and ((costs[j] < costs[i]).any() or values[j] > values[i])
            for j in range(len(values))
        )
        expected.append(not beaten)
    assert front(costs, values).tolist() == expected


def test_blocks_do_not_matter() -> None:
    random = np.random.default_rng(0)
    costs, values = random.random((3000, 2)), random.random(3000)
    order = np.argsort(costs.sum(axis=1) - values)[::-1]  # the worst first: every block loses to a later one
    assert sorted(order[front(costs[order], values[order])]) == np.flatnonzero(front(costs, values)).tolist()
    assert front(costs, values).sum() < 200


def test_what_is_not_known_is_on_no_front() -> None:
    assert front([1.0, np.nan, 2.0], [0.5, 0.9, np.nan]).tolist() == [True, False, False]
    assert front(np.zeros((0, 2)), []).tolist() == []
    with pytest.raises(UsageError, match=r"Expected costs \(n x k\) and values \(n\), but got \(2, 1\) and \(3,\)"):
        front([1, 2], [1, 2, 3])


def test_a_knee_by_hand() -> None:
    assert knee([1, 2, 3, 4], [0, 0.9, 0.95, 1.0]) == 1
    assert knee([4, 3, 2, 1, 9], [1.0, 0.95, 0.9, 0, 0.5]) == 2  # any order, with a point that is beaten
    assert knee([1, 2], [0, 1]) is None
    with pytest.raises(UsageError, match="Expected one cost for a knee, but got 2"):
        knee([[1, 2]], [1])


def test_volumes_by_hand() -> None:
    assert hypervolume([1, 2], [0.5, 1.0], worst=[3, 0]) == pytest.approx(0.5 * 2 + 0.5 * 1)
    assert hypervolume([[1, 1]], [1.0], worst=[3, 4, 0.5]) == pytest.approx(2 * 3 * 0.5)
    assert hypervolume([5], [1.0], worst=[3, 0]) == 0.0
    assert hypervolume(np.zeros((0, 1)), [], worst=[3, 0]) == 0.0
    with pytest.raises(UsageError, match="Expected a worst point of 2 numbers"):
        hypervolume([1], [1], worst=[1])


@PROPERTY
@given(points(most=12))
def test_volumes_count_unit_cubes(given: tuple[np.ndarray, np.ndarray]) -> None:
    """On whole numbers the volume is the number of unit cubes that some point covers."""
    costs, values = given
    columns = costs.shape[1]
    cubes = np.stack(np.meshgrid(*[np.arange(5)] * (columns + 1), indexing="ij"), axis=-1).reshape(-1, columns + 1)
    covered = np.zeros(len(cubes), dtype=bool)
    for cost, value in zip(costs, values, strict=True):
        covered |= (cost <= cubes[:, :-1]).all(axis=1) & (cubes[:, -1] < value)
    assert hypervolume(costs, values, worst=[5] * columns + [0]) == pytest.approx(covered.sum())
