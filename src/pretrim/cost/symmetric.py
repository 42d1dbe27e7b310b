"""Symmetric matrices stored as sparse entries plus a few outer products, for networks with thousands of groups."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pretrim.analysis.network import IntArray

FloatArray = NDArray[np.float64]

SMALL = 256
"""Number of groups up to which a dense solver is as fast."""
FEW = 32
"""Number of outer products up to which the iterative solver is used; a peak has one for every moment."""
EXACT = 1e-10
"""Residual at which the iterative solver stops, relative to the norm of the right-hand side."""


@dataclass(frozen=True)
class Symmetric:
    """A symmetric matrix (n x n): ``sum of entries + vectors.T @ diag(weights) @ vectors``.

    Attributes:
        size: n.
        rows: row of each entry. Duplicate entries are summed, and both triangles are stored.
        columns: column of each entry.
        values: value of each entry.
        vectors: vectors of the outer products (k x n).
        weights: weight of each outer product (k).
    """

    size: int
    rows: IntArray
    columns: IntArray
    values: FloatArray
    vectors: FloatArray
    weights: FloatArray

    @classmethod
    def of_entries(cls, size: int, rows: IntArray, columns: IntArray, values: FloatArray) -> Symmetric:
        """A sparse matrix without outer products."""
        return cls(size, rows, columns, values, np.zeros((0, size)), np.zeros(0))

    @classmethod
    def of_diagonal(cls, values: FloatArray) -> Symmetric:
        """A diagonal matrix."""
        indices = np.arange(len(values))
        return cls.of_entries(len(values), indices, indices, values)

    @classmethod
    def of_products(cls, vectors: FloatArray, weights: FloatArray) -> Symmetric:
        """A weighted sum of outer products, without sparse entries."""
        empty = np.zeros(0, dtype=np.int64)
        return cls(vectors.shape[1], empty, empty, np.zeros(0), vectors, weights)

    def __add__(self, other: Symmetric) -> Symmetric:
        parts = ("rows", "columns", "values", "vectors", "weights")
        joined = (np.concatenate([getattr(self, part), getattr(other, part)]) for part in parts)
        return Symmetric(self.size, *joined)

    def __neg__(self) -> Symmetric:
        return Symmetric(self.size, self.rows, self.columns, -self.values, self.vectors, -self.weights)

    def __matmul__(self, x: FloatArray) -> FloatArray:
        sparse = np.bincount(self.rows, self.values * x[self.columns], minlength=self.size)
        product: FloatArray = sparse + (self.weights * (self.vectors @ x)) @ self.vectors
        return product

    def scaled(self, by: FloatArray) -> Symmetric:
        """``diag(by) @ self @ diag(by)``."""
        values = self.values * by[self.rows] * by[self.columns]
        return Symmetric(self.size, self.rows, self.columns, values, self.vectors * by, self.weights)

    def among(self, places: IntArray) -> Symmetric:
        """The principal submatrix of the given indices (ascending)."""
        new_index = np.full(self.size, -1)
        new_index[places] = np.arange(len(places))
        rows, columns = new_index[self.rows], new_index[self.columns]
        kept = (rows >= 0) & (columns >= 0)
        vectors = self.vectors[:, places]
        return Symmetric(len(places), rows[kept], columns[kept], self.values[kept], vectors, self.weights)

    def dense(self) -> FloatArray:
        """The full matrix (n x n)."""
        sparse = np.bincount(self.rows * self.size + self.columns, self.values, minlength=self.size**2)
        matrix: FloatArray = sparse.reshape(self.size, self.size) + (self.vectors.T * self.weights) @ self.vectors
        return matrix

    def solve(self, right: FloatArray) -> FloatArray:
        """Solve ``self @ x = right`` for x (n). Raises LinAlgError if the matrix is singular.

        Large positive definite matrices are solved iteratively, at a cost per iteration that is linear in the number
        of entries, where a dense solver takes O(n^3).
        """
        if self.size > SMALL and len(self.vectors) <= FEW:
            solution = self._by_conjugate_gradients(right)
            if solution is not None:
                return solution
        return np.asarray(np.linalg.solve(self.dense(), right), dtype=np.float64)

    def _by_conjugate_gradients(self, right: FloatArray) -> FloatArray | None:
        """Preconditioned conjugate gradients (Hestenes and Stiefel, 1952).

        Returns None if the matrix is not positive definite, or if n steps do not suffice.
        """
        precondition = self._preconditioner()
        x, residual, z = np.zeros(self.size), right, precondition(right)
        direction, rho = z, float(right @ z)
        for _ in range(self.size):
            if np.linalg.norm(residual) <= EXACT * np.linalg.norm(right):
                return x
            product = self @ direction
            curvature = float(direction @ product)
            if not (rho > 0 and curvature > 0):
                return None
            x, residual = x + rho / curvature * direction, residual - rho / curvature * product
            z = precondition(residual)
            previous, rho = rho, float(residual @ z)
            direction = z + rho / previous * direction
        return None

    def _preconditioner(self) -> Callable[[FloatArray], FloatArray]:
        """Multiply by the inverse of the diagonal plus the outer products of positive weight (Woodbury identity)."""
        is_diagonal = self.rows == self.columns
        diagonal = np.bincount(self.rows[is_diagonal], self.values[is_diagonal], minlength=self.size)
        positive = self.weights > 0
        scaled = self.vectors[positive] / diagonal
        inner = np.linalg.inv(np.diag(1 / self.weights[positive]) + scaled @ self.vectors[positive].T)
        return lambda x: x / diagonal - (inner @ (scaled @ x)) @ scaled
