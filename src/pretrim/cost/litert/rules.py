"""Rules that turn each ATen operator of a network into LiteRT operators, derived from files that litert-torch wrote.

Batch norms and activation functions are fused into the convolution before them. A convolution whose padding is not the
one that TensorFlow calls SAME gets a PAD operator, which copies its input. Norms that compute their own statistics,
slopes of PReLU and products of attention become chains of small operators. An operator without a rule is counted as one
LiteRT operator, and recorded in `Lowering.unknown`.
"""

from __future__ import annotations

import math

from pretrim.analysis.network import Network
from pretrim.cost.formula import DType

from .follow import DENSE, NORMS, PADS, PARTS, POOLS, RESHAPES, Follow, Rule
from .joining import cat, parts
from .layers import convolution, dense, product
from .lowering import Lowering, Value, input_shapes
from .norms import batch_norm, group_norm, layer_norm
from .orders import channel_shuffle, permute, pixel_shuffle, view
from .recurrences import recurrent_input, recurrent_last, recurrent_state
from .values import FLOAT_IN_INT8, elementwise, function, gate, hard_sigmoid, prelu, silu
from .windows import adaptive_pool, mean, pad, pool, resize, softmax

ELEMENTWISE = frozenset({"add", "sub", "mul"})
UNARY = frozenset({"relu", "hardtanh", "sigmoid", "tanh", "hardswish", "gelu"})
"""Elementwise functions of one input that are one LiteRT operator, in either layout."""
RESIZES = frozenset({"upsample_nearest2d", "upsample_bilinear2d"})

RULES: dict[str, Rule] = {
    "convolution": convolution,
    **dict.fromkeys(DENSE, dense),
    **dict.fromkeys(("bmm", "matmul"), product),
    **dict.fromkeys(ELEMENTWISE, elementwise),
    **dict.fromkeys(UNARY | FLOAT_IN_INT8, function),
    "silu": silu,
    "glu": gate,
    "hardsigmoid": hard_sigmoid,
    **dict.fromkeys(("_prelu_kernel", "prelu"), prelu),
    **dict.fromkeys(NORMS, batch_norm),
    "native_group_norm": group_norm,
    "native_layer_norm": layer_norm,
    **dict.fromkeys(RESHAPES, view),
    **dict.fromkeys(("permute", "transpose"), permute),
    **dict.fromkeys(PARTS, parts),
    "cat": cat,
    "mean": mean,
    **dict.fromkeys(POOLS, pool),
    "_adaptive_avg_pool2d": adaptive_pool,
    **dict.fromkeys(RESIZES, resize),
    **dict.fromkeys(PADS, pad),
    **dict.fromkeys(("_softmax", "_safe_softmax"), softmax),
    "recurrent_input": recurrent_input,
    "recurrent_state": recurrent_state,
    "recurrent_last": recurrent_last,
    "pixel_shuffle": pixel_shuffle,
    "channel_shuffle": channel_shuffle,
}
"""Rule for each ATen operator."""


def lower(network: Network, dtype: DType = "float32") -> Lowering:
    """Lower a network as LiteRT's converter and quantiser do."""
    low = Lowering(network, dtype)
    operators = [operator for operator in network.operators if not operator.is_unused]
    written = {buffer for operator in operators for buffer in operator.writes}
    inputs = [b for o in operators for b in o.reads if b not in written]
    for buffer, shape in zip(dict.fromkeys(inputs), input_shapes(network), strict=False):
        activation = low.activation((float(math.prod(shape)), ()), "input")
        if len(shape) == 3 and shape[1] > 1:  # N x T x C in the file; the same for one channel
            low.constant(("permutation", 0, 2, 1), 3)
            activation = low.step("transpose", operators[0], activation, elements=low.elements[activation])
        low.home[buffer] = Value(activation, (), is_image=len(shape) == 4)
    follow = Follow(low, operators, RULES)
    for operator in operators:
        follow.one(operator)
    follow.end()
    return low
