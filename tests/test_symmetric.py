"""Symmetric matrices as sparse entries and outer products: every operation against NumPy on the full matrix."""

from __future__ import annotations

import numpy as np
import pytest

from pretrim.cost.symmetric import FEW, SMALL, Symmetric


def random_matrix(size: int, products: int, seed: int) -> Symmetric:
    """Positive definite: off-diagonal entries as for a chain, a dominant diagonal, outer products of both signs."""
    generator = np.random.default_rng(seed)
    left = generator.integers(0, size, 3 * size)
    right = (left + generator.integers(1, 4, 3 * size)) % size
    values = generator.uniform(-1, 1, 3 * size)
    rows, columns = np.concatenate([left, right]), np.concatenate([right, left])  # some entries occur twice
    sparse = Symmetric.of_entries(size, rows, columns, np.tile(values, 2))
    weights = np.concatenate([10.0 ** generator.uniform(-2, 6, products), [-0.5 / size]])
    matrix = sparse + Symmetric.of_products(generator.uniform(-1, 1, (products + 1, size)), weights)
    dominant = np.bincount(rows, np.abs(np.tile(values, 2)), minlength=size) + 10.0 ** generator.uniform(0, 4, size)
    return matrix + Symmetric.of_diagonal(dominant)


@pytest.mark.parametrize("size", [1, 7, 40])
def test_operations_equal_those_of_the_full_matrix(size: int) -> None:
    a, b = random_matrix(size, 2, 0), random_matrix(size, 3, 1)
    generator = np.random.default_rng(2)
    x, factors = generator.normal(size=size), generator.uniform(0.5, 2, size)
    indices = np.flatnonzero(generator.uniform(size=size) < 0.6)
    full = a.dense()
    assert full == pytest.approx(full.T)
    assert (a + b).dense() == pytest.approx(full + b.dense())
    assert (-a).dense() == pytest.approx(-full)
    assert a @ x == pytest.approx(full @ x)
    assert a.scaled(factors).dense() == pytest.approx(np.diag(factors) @ full @ np.diag(factors))
    assert a.among(indices).dense() == pytest.approx(full[np.ix_(indices, indices)])


@pytest.mark.parametrize("products", [0, 3, FEW, FEW + 5])
@pytest.mark.parametrize("size", [SMALL - 1, SMALL + 1, 2 * SMALL])
def test_solutions_equal_those_of_the_full_matrix(size: int, products: int) -> None:
    matrix, right = random_matrix(size, products, size), np.random.default_rng(3).normal(size=size)
    expected = np.linalg.solve(matrix.dense(), right)
    assert matrix.solve(right) == pytest.approx(expected, rel=1e-6, abs=1e-8 * np.abs(expected).max())


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_matrix_that_is_not_positive_definite_is_solved_too(sign: float) -> None:
    size = SMALL + 10
    matrix = Symmetric.of_diagonal(sign * np.where(np.arange(size) == 5, -1.0, 2.0))
    assert matrix.solve(np.ones(size)) == pytest.approx(np.linalg.solve(matrix.dense(), np.ones(size)))
