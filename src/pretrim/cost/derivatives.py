"""Derivatives and differences of formulas: how costs change with each width."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pretrim.analysis.network import IntArray

from .formula import Formula

FloatArray = NDArray[np.float64]


def binding(formula: Formula, most: float, highest: FloatArray) -> Formula:
    """Those columns of a formula that can be over a limit: costs never fall when a width grows."""
    can = np.flatnonzero(formula(highest[None])[0] > most)
    return replace(formula, linear=formula.linear[:, can], offset=formula.offset[can], into=formula.into[:, can])


def alone(formula: Formula, widths: IntArray, stepped: IntArray) -> FloatArray:
    """A formula's columns where each group in turn, and no other, has its stepped width: G x columns.

    As `formula` gives them for G rows of widths, in a G-th of the time.
    """
    change = (stepped - widths).astype(np.float64)[:, None]
    values: FloatArray = widths @ formula.linear + formula.offset + change * formula.linear
    if len(formula.factors):
        sizes = widths @ formula.coefficients + formula.constants + change * formula.coefficients
        values += sizes[:, formula.factors].prod(axis=2) @ formula.into
    return values


def slopes(formula: Formula, widths: FloatArray) -> FloatArray:
    """Derivatives of a formula's columns with respect to widths (G): columns x G."""
    slope: FloatArray = formula.linear.T.copy()
    if len(formula.factors):
        sizes = widths @ formula.coefficients + formula.constants
        factors = sizes[formula.factors]
        for place in range(factors.shape[1]):
            others = np.delete(factors, place, axis=1).prod(axis=1)
            slope += (formula.into * others[:, None]).T @ formula.coefficients[:, formula.factors[:, place]].T
    return slope


def curvature(formula: Formula, widths: FloatArray, weights: FloatArray) -> FloatArray:
    """Second derivatives of a weighted sum of a formula's columns with respect to widths (G): G x G."""
    curve = np.zeros((len(widths), len(widths)))
    if len(formula.factors):
        factors = (widths @ formula.coefficients + formula.constants)[formula.factors]
        parts = [formula.coefficients[:, places] for places in formula.factors.T]
        for first in range(len(parts)):
            for second in range(first):
                others = np.delete(factors, (first, second), axis=1).prod(axis=1) * (formula.into @ weights)
                pair = (parts[first] * others) @ parts[second].T
                curve += pair + pair.T
    return curve
