"""Symmetric matrices of networks with thousands of groups: few entries, and a few outer products."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pretrim.analysis.network import IntArray

FloatArray = NDArray[np.float64]

SMALL = 256
"""groups up to which a dense solver is as fast"""
FEW = 32
"""outer products up to which iterations are: a peak has one for every moment"""
EXACT = 1e-10
"""of the right side's length, at which iterations are done"""


@dataclass(frozen=True)
class Symmetric:
    """A symmetric matrix (n x n): ``sum of entries + vectors.T @ diag(weights) @ vectors``.

    Attributes:
        size: n.
        rows: of each entry; entries of one place are added up, and both halves are there.
        columns: likewise.
        values: likewise.
        vectors: k x n.
        weights: of each vector (k).
    """

    size: int
    rows: IntArray
    columns: IntArray
    values: FloatArray
    vectors: FloatArray
    weights: FloatArray

    @classmethod
    def of_entries(cls, size: int, rows: IntArray, columns: IntArray, values: FloatArray) -> Symmetric:
        """Without outer products."""
        return cls(size, rows, columns, values, np.zeros((0, size)), np.zeros(0))

    @classmethod
    def of_diagonal(cls, values: FloatArray) -> Symmetric:
        """Without other entries."""
        places = np.arange(len(values))
        return cls.of_entries(len(values), places, places, values)

    @classmethod
    def of_products(cls, vectors: FloatArray, weights: FloatArray) -> Symmetric:
        """Outer products alone."""
        nowhere = np.zeros(0, dtype=np.int64)
        return cls(vectors.shape[1], nowhere, nowhere, np.zeros(0), vectors, weights)

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
        """The rows and columns of some places, ascending, and no others."""
        number = np.full(self.size, -1)
        number[places] = np.arange(len(places))
        rows, columns = number[self.rows], number[self.columns]
        kept = (rows >= 0) & (columns >= 0)
        vectors = self.vectors[:, places]
        return Symmetric(len(places), rows[kept], columns[kept], self.values[kept], vectors, self.weights)

    def dense(self) -> FloatArray:
        """n x n."""
        sparse = np.bincount(self.rows * self.size + self.columns, self.values, minlength=self.size**2)
        matrix: FloatArray = sparse.reshape(self.size, self.size) + (self.vectors.T * self.weights) @ self.vectors
        return matrix

    def solve(self, right: FloatArray) -> FloatArray:
        """x of ``self @ x = right`` (n). Raises LinAlgError where there is none.

        A positive definite matrix that is large takes iterations, each as long as its entries are many, where a dense
        solver takes the cube of n.
        """
        if self.size > SMALL and len(self.vectors) <= FEW:
            found = self._by_conjugate_gradients(right)
            if found is not None:
                return found
        return np.asarray(np.linalg.solve(self.dense(), right), dtype=np.float64)

    def _by_conjugate_gradients(self, right: FloatArray) -> FloatArray | None:
        """The method of Hestenes and Stiefel (1952); None where the matrix is not definite, or it takes n steps."""
        nearly = self._near_inverse()
        x, left, near = np.zeros(self.size), right, nearly(right)
        direction, size = near, float(right @ near)
        for _ in range(self.size):
            if np.linalg.norm(left) <= EXACT * np.linalg.norm(right):
                return x
            ahead = self @ direction
            curve = float(direction @ ahead)
            if not (size > 0 and curve > 0):
                return None
            x, left = x + size / curve * direction, left - size / curve * ahead
            near = nearly(left)
            before, size = size, float(left @ near)
            direction = near + size / before * direction
        return None

    def _near_inverse(self) -> Callable[[FloatArray], FloatArray]:
        """Multiplies by the inverse of the diagonal and those outer products that are added (Woodbury's identity)."""
        on = self.rows == self.columns
        diagonal = np.bincount(self.rows[on], self.values[on], minlength=self.size)
        added = self.weights > 0
        over = self.vectors[added] / diagonal
        inner = np.linalg.inv(np.diag(1 / self.weights[added]) + over @ self.vectors[added].T)
        return lambda x: x / diagonal - (inner @ (over @ x)) @ over
