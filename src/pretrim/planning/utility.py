"""The utility of widths: a concave function of log widths that predicts relative accuracy before any training.

In complete public tables of widths and trained accuracy (NATS-Bench's size space on CIFAR-10 and CIFAR-100, arXiv
2009.00437; the ResNet of Channel-Bench-Macro), accuracy is close to a weighted sum of the logarithms of the widths. The
exception is the width that the classifier reads, which needs a term in ``classes / width``. The utility is this law
with fixed weights::

    U(w) = sum_g a_g log(w_g)  -  0.3 a K / w_F  -  0.1 a sum_g (log(w_g / n_g) - mean)^2
    a_g  = L_g^0.75 * mean over its layers l of r_l / (r_l + 16)

L_g: number of layers whose filters belong to group g; r_l: positions (height x width) of the output of layer l; K:
number of classes; w_F: channels that the classifier reads; n_g: dense width; a: the mean of a_g. The last term keeps
the ratios w_g / n_g close together: a cost that is a product ``w_in * w_out`` does not determine how the two widths
should share it.

The constants were chosen on such tables; ``benchmarks/widths.py`` shows how well they predict two of them. They are not
known to hold for hundreds of classes, below a quarter of the dense widths, or for tasks other than classification.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from pretrim.analysis.network import IntArray, Network
from pretrim.cost.symmetric import Symmetric

from .legal import FloatArray

DEPTH_EXPONENT = 0.75
"""Exponent of the number of layers whose filters belong to a group, L_g."""
HALF_POSITIONS = 16.0
"""Positions of a feature map at which a layer counts half as much as one with very many."""
CLASS_WEIGHT = 0.3
"""Weight of the term ``classes / width``, in units of the mean of a_g."""
EVENNESS = 0.1
"""Weight of the squared deviations from a common log ratio, in units of the mean of a_g."""


@dataclass(frozen=True)
class Classifier:
    """The last layer of a network that classifies.

    Attributes:
        classes: number of its outputs.
        channels: number of channels that it reads for each channel of a group (G).
        constant: number of channels that it reads and that no plan can remove.
    """

    classes: int
    channels: FloatArray
    constant: float

    def reads(self, widths: ArrayLike) -> FloatArray:
        """Number of channels that the classifier reads: (n x G) -> (n)."""
        read: FloatArray = np.asarray(widths, dtype=np.float64) @ self.channels + self.constant
        return read


@dataclass(frozen=True)
class Utility:
    """The utility function of a network: U(w) of the module's docstring.

    Attributes:
        weights: weight a_g of each group (G).
        dense: dense widths (G).
        classifier: the classifier; None for a network without one, whose utility has no term in classes.
    """

    weights: FloatArray
    dense: FloatArray
    classifier: Classifier | None

    @cached_property
    def scale(self) -> float:
        """The mean weight of a group, a, which scales the second and third terms."""
        return float(self.weights.mean()) if len(self.weights) else 0.0

    @property
    def class_weight(self) -> float:
        """The factor of -1 / w_F."""
        return 0.0 if self.classifier is None else CLASS_WEIGHT * self.scale * self.classifier.classes

    def __call__(self, widths: ArrayLike) -> FloatArray:
        """Utility (n) at widths (n x G)."""
        rows = np.asarray(widths, dtype=np.float64)
        logs = np.log(rows)
        value: FloatArray = logs @ self.weights - EVENNESS * self.scale * (self._deviations(logs) ** 2).sum(axis=1)
        if self.classifier is not None:
            value -= self.class_weight / self.classifier.reads(rows)
        return value

    def alone(self, widths: IntArray, stepped: IntArray) -> FloatArray:
        """Utility when each group in turn takes its step and the others do not (G), in time linear in G.

        Args:
            widths: current width of each group (G).
            stepped: width of each group after its step (G).
        """
        count = max(len(widths), 1)
        ratios = np.log(widths / self.dense)
        move = np.log(stepped / widths)
        mean = (ratios.sum() + move) / count
        spread = (ratios**2).sum() + (2 * ratios + move) * move - count * mean**2
        value: FloatArray = np.log(widths) @ self.weights + move * self.weights - EVENNESS * self.scale * spread
        if self.classifier is not None:
            reads = self.classifier.reads(widths) + (stepped - widths) * self.classifier.channels
            value -= self.class_weight / reads
        return value

    def gradient(self, widths: ArrayLike) -> FloatArray:
        """Derivatives with respect to the logarithms of the widths (G), at widths (G)."""
        row = np.asarray(widths, dtype=np.float64)
        slope: FloatArray = self.weights - 2 * EVENNESS * self.scale * self._deviations(np.log(row)[None])[0]
        if self.classifier is not None:
            slope += self.class_weight * self.classifier.channels * row / self.classifier.reads(row) ** 2
        return slope

    def curvature(self, widths: ArrayLike) -> Symmetric:
        """Second derivatives with respect to the logarithms of the widths, or a concave lower model of them (G x G).

        They are exact if one group feeds the classifier. If several do (a concatenation), ``-1 / w_F`` is not concave.
        They are then the second derivatives of its condensation, the monomial that touches it from below (Duffin,
        Peterson, Zener, Geometric Programming, 1967), so that a step by them never overestimates the utility.
        """
        row = np.asarray(widths, dtype=np.float64)
        even = 2 * EVENNESS * self.scale
        vectors, weights = [np.ones(len(row))], [even / max(len(row), 1)]
        if self.classifier is not None:
            vectors.append(self.classifier.channels * row)
            weights.append(-self.class_weight / float(self.classifier.reads(row)) ** 3)
        return Symmetric.of_diagonal(np.full(len(row), -even)) + Symmetric.of_products(
            np.stack(vectors), np.array(weights)
        )

    def _deviations(self, logs: FloatArray) -> FloatArray:
        """Deviations of the groups' log ratios, log(w_g / n_g), from their mean: (n x G) -> (n x G)."""
        ratios = logs - np.log(self.dense)
        centred: FloatArray = ratios - ratios.mean(axis=1, keepdims=True) if ratios.shape[1] else ratios
        return centred


def utility(network: Network) -> Utility:
    """The utility function of a network."""
    return Utility(group_weights(network), network.dense.astype(np.float64), classifier(network))


def group_weights(network: Network) -> FloatArray:
    """Weight a_g of each group (G): the accuracy that one per cent of its width is worth, up to a common factor.

    A layer whose filters belong to several groups counts in each of them.
    """
    sizes = network.sizes(network.dense)
    positions = np.array([_positions(sizes, layer.output, layer.filters) for layer in network.layers])
    is_owner = np.array([network.coefficients[layer.filters] > 0 for layer in network.layers], dtype=np.float64)
    layers: FloatArray = is_owner.reshape(len(network.layers), len(network.groups)).sum(axis=0)
    worth = (positions / (positions + HALF_POSITIONS)) @ is_owner.reshape(len(network.layers), len(network.groups))
    weights: FloatArray = layers**DEPTH_EXPONENT * worth / np.maximum(layers, 1.0)
    return weights


def _positions(sizes: IntArray, output: tuple[int, ...], channels: int) -> float:
    """Number of positions per image in a layer's output, wherever its channel dimension is."""
    return math.prod(int(sizes[dim]) for dim in output) / max(int(sizes[channels]), 1)


def classifier(network: Network) -> Classifier | None:
    """The network's classifier, or None.

    The classifier is the last layer, if the network's first output is one number for each of its filters and no filter
    of it can be removed.
    """
    last = max(network.layers, key=lambda layer: layer.operator, default=None)
    if last is None or last.operator < 0 or network.coefficients[last.filters].any():
        return None
    classes = int(network.constants[last.filters])
    if not network.output_shapes or math.prod(network.output_shapes[0]) != classes:
        return None
    read = _channels_read(network, last.operator)
    return (
        None if read is None else Classifier(classes, network.coefficients[read] * 1.0, float(network.constants[read]))
    )


def _channels_read(network: Network, number: int) -> int | None:
    """The dimension of the channels that a layer reads, as a row of the size table; None if it is ambiguous.

    A flattened feature map has one feature per channel and position. Its channels are then those of the feature map
    before it, provided that exactly one dimension of the operator's output varies with the widths.
    """
    layer = network.operators[number]
    reads = [dim for dim in layer.weight[:2] if dim != layer.filters]  # a linear weight is traced transposed
    if len(reads) != 1:
        return None
    producers = [o for o in network.operators[:number] if set(o.writes) & set(layer.reads[:1])]
    varying = [dim for dim in (producers[-1].outputs[0] if producers else ()) if network.coefficients[dim].any()]
    return varying[0] if len(varying) == 1 else reads[0]
