"""How accurate a network of given widths can be expected to be, before any training: a concave function of log widths.

In complete public tables of widths and trained accuracy (NATS-Bench's size space on CIFAR-10 and CIFAR-100, arXiv
2009.00437; the ResNet of Channel-Bench-Macro) accuracy is close to a weighted sum of the logarithms of the widths, but
for what the classifier reads: its width needs a term in ``classes / width``. The utility is that law, with fixed
weights::

    U(w) = sum_g a_g log(w_g)  -  0.3 a K / w_F  -  0.1 a sum_g (log(w_g / n_g) - mean)^2
    a_g  = L_g^0.75 * mean over its layers l of r_l / (r_l + 16)

L_g: layers whose filters the group is; r_l: positions (height x width) of the output of layer l; K: classes; w_F:
channels that the classifier reads; n_g: dense width; a: the mean of a_g. The last term keeps neighbours together: a
cost that is a product ``w_in * w_out`` says nothing about how the two should share it.

The constants were chosen on such tables; ``benchmarks/widths.py`` shows what they are worth on two of them. They are
not known to hold with hundreds of classes, below a quarter of the dense widths, or for other tasks than classification.
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
"""of the number of layers that a group's width serves"""
HALF_POSITIONS = 16.0
"""positions of a feature map at which a layer counts half"""
CLASS_WEIGHT = 0.3
"""of classes / width, in means of a_g"""
EVENNESS = 0.1
"""of the squared deviations from one common ratio, in means of a_g"""


@dataclass(frozen=True)
class Classifier:
    """The last layer of a network that tells classes apart.

    Attributes:
        classes: its outputs.
        channels: of each group's width (G), how many of the channels that it reads come with one channel of the group.
        constant: channels that it reads and no plan may remove.
    """

    classes: int
    channels: FloatArray
    constant: float

    def reads(self, widths: ArrayLike) -> FloatArray:
        """Channels that it reads at widths (n x G): n."""
        read: FloatArray = np.asarray(widths, dtype=np.float64) @ self.channels + self.constant
        return read


@dataclass(frozen=True)
class Utility:
    """The utility of a network's widths.

    Attributes:
        weights: a_g, of each group (G).
        dense: dense widths (G).
        classifier: None for a network without one: it has no term in classes.
    """

    weights: FloatArray
    dense: FloatArray
    classifier: Classifier | None

    @cached_property
    def scale(self) -> float:
        """The mean weight of a group, in front of the two other terms."""
        return float(self.weights.mean()) if len(self.weights) else 0.0

    @property
    def class_weight(self) -> float:
        """The factor before 1 / w_F."""
        return 0.0 if self.classifier is None else CLASS_WEIGHT * self.scale * self.classifier.classes

    def __call__(self, widths: ArrayLike) -> FloatArray:
        """Values (n) at widths (n x G)."""
        rows = np.asarray(widths, dtype=np.float64)
        logs = np.log(rows)
        value: FloatArray = logs @ self.weights - EVENNESS * self.scale * (self._deviations(logs) ** 2).sum(axis=1)
        if self.classifier is not None:
            value -= self.class_weight / self.classifier.reads(rows)
        return value

    def alone(self, widths: IntArray, stepped: IntArray) -> FloatArray:
        """The utility where each group in turn, and no other, has its stepped width: G."""
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
        """Derivatives with respect to the logarithms of the widths (G): G."""
        row = np.asarray(widths, dtype=np.float64)
        slope: FloatArray = self.weights - 2 * EVENNESS * self.scale * self._deviations(np.log(row)[None])[0]
        if self.classifier is not None:
            slope += self.class_weight * self.classifier.channels * row / self.classifier.reads(row) ** 2
        return slope

    def curvature(self, widths: ArrayLike) -> Symmetric:
        """Second derivatives with respect to the logarithms of the widths (G), or less where they are not concave: GxG.

        They are exact where one group feeds the classifier. Where several do (a concatenation), ``-1 / w_F`` is not
        concave; these are then the second derivatives of its condensation, the monomial that touches it from below
        (Duffin, Peterson, Zener, Geometric Programming, 1967), so that a step by them never overestimates the utility.
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
        """Of each group's log ratio from their mean: (n x G) -> (n x G)."""
        ratios = logs - np.log(self.dense)
        centred: FloatArray = ratios - ratios.mean(axis=1, keepdims=True) if ratios.shape[1] else ratios
        return centred


def utility(network: Network) -> Utility:
    """The utility of a network's widths, with the weights of its groups."""
    return Utility(group_weights(network), network.dense.astype(np.float64), classifier(network))


def group_weights(network: Network) -> FloatArray:
    """a_g of each group (G): how much of accuracy a per cent of its width is worth, up to one factor for all.

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
    """Places of one image at which a layer has an output, wherever its dimension of channels stands."""
    return math.prod(int(sizes[dim]) for dim in output) / max(int(sizes[channels]), 1)


def classifier(network: Network) -> Classifier | None:
    """The last layer, if the network's first output is one number for each of its filters, and none may be removed."""
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
    """The dimension of the channels that a layer reads.

    A flattened feature map has a feature for each channel and position: its channels are those of the feature map, as
    the operator that made it wrote them, where exactly one of its dimensions varies with the widths.
    """
    layer = network.operators[number]
    reads = [dim for dim in layer.weight[:2] if dim != layer.filters]  # a linear weight is traced transposed
    if len(reads) != 1:
        return None
    makers = [o for o in network.operators[:number] if set(o.writes) & set(layer.reads[:1])]
    varying = [dim for dim in (makers[-1].outputs[0] if makers else ()) if network.coefficients[dim].any()]
    return varying[0] if len(varying) == 1 else reads[0]
