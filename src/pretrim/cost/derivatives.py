"""Derivatives and finite differences of formulas: how costs change with each width."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from pretrim.analysis.network import IntArray

from .formula import Formula
from .symmetric import Symmetric

FloatArray = NDArray[np.float64]


def binding(formula: Formula, most: float, highest: FloatArray) -> Formula:
    """Keep only the columns of a formula that can exceed a limit.

    Costs never fall when a width grows, so these are the columns that exceed it at the largest widths.

    Args:
        formula: the cost.
        most: the limit, in the cost's unit.
        highest: the largest width of each group (G).
    """
    columns = np.flatnonzero(formula(highest[None])[0] > most)
    return replace(
        formula, linear=formula.linear[:, columns], offset=formula.offset[columns], into=formula.into[:, columns]
    )


def alone(formula: Formula, widths: IntArray, stepped: IntArray) -> FloatArray:
    """Values of a formula's columns when each group in turn takes its step and the others do not: G x columns.

    The result equals `formula` evaluated at G rows of widths, in a G-th of the time.

    Args:
        formula: the cost.
        widths: current width of each group (G).
        stepped: width of each group after its step (G).
    """
    change = (stepped - widths).astype(np.float64)
    values: FloatArray = formula(widths[None])[0] + change[:, None] * formula.linear
    if len(formula.factors):
        pairs = formula.incidence
        before = formula.sizes(widths.astype(np.float64))[formula.factors]
        after = (before[pairs.terms] + change[pairs.groups, None] * pairs.shares).prod(axis=1)
        grown = after - before.prod(axis=1)[pairs.terms]
        values += _by_group(pairs.groups, grown, formula.into[pairs.terms], len(widths))
    return values


def _by_group(groups: IntArray, changes: FloatArray, into: FloatArray, count: int) -> FloatArray:
    """Sum over each group the changes of its products, in every column: G x columns.

    Args:
        groups: group of each (product, group) pair (P).
        changes: change of the pair's product (P).
        into: factor of the product in each column (P x columns).
        count: number of groups, G.
    """
    columns = [np.bincount(groups, changes * column, minlength=count) for column in into.T]
    return np.stack(columns, axis=1) if columns else np.zeros((count, 0))


def slopes(formula: Formula, widths: FloatArray) -> FloatArray:
    """Derivatives of a formula's columns with respect to widths (G): columns x G."""
    slope: FloatArray = formula.linear.T.copy()
    if len(formula.factors):
        pairs = formula.incidence
        factors = formula.sizes(widths)[formula.factors]
        for place in range(factors.shape[1]):
            others = np.delete(factors, place, axis=1).prod(axis=1)[pairs.terms] * pairs.shares[:, place]
            slope += _by_group(pairs.groups, others, formula.into[pairs.terms], len(widths)).T
    return slope


def curvature(formula: Formula, widths: FloatArray, weights: FloatArray) -> Symmetric:
    """Second derivatives of a weighted sum of a formula's columns with respect to widths (G): G x G.

    Args:
        formula: the cost.
        widths: width of each group (G).
        weights: weight of each column.
    """
    pairs, couples = formula.incidence, formula.incidence.couples
    factors, weighted = formula.sizes(widths)[formula.factors], formula.into @ weights
    terms, values = pairs.terms[couples.left], np.zeros(len(couples.rows))
    for first, second in permutations(range(factors.shape[1]), 2):
        others = np.delete(factors, (first, second), axis=1).prod(axis=1) * weighted
        entries = others[terms] * pairs.shares[couples.left, first] * pairs.shares[couples.right, second]
        values += np.bincount(couples.cells, entries, minlength=len(values))
    return Symmetric.of_entries(len(widths), couples.rows, couples.columns, values)
