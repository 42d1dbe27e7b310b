"""How each ATen operator passes, ties or freezes channels: one table of small functions.

A rule gets a :class:`Call`, one operator with its arguments by name, and returns the labels of its outputs. It ties
channels that the operator merges, and lists in ``call.integers`` the Python integers among the arguments that have to
follow the widths (the sizes of a split, the ends of a slice). An operator without a rule freezes every channel that
reaches it: unknown operators are never assumed to be elementwise.
"""

from __future__ import annotations

from .call import Rule
from .contraction import convolution, distances, inner_product, matrix_product, weight_norm
from .elementwise import factory, glu, loss, pointwise
from .joining import cat, flip, pad, roll, select, split, split_with_sizes, stack, take_slice, unbind
from .normalisation import batch_norm, embedding, group_norm, layer_norm, renorm, softmax
from .operators import BATCH_NORMS, FACTORIES, LOSSES, POINTWISE, REDUCTIONS, WINDOWS
from .picking import along, gather, index, index_put, index_select, triangle, unfold
from .recurrent import recurrent_input, recurrent_last, recurrent_projection, recurrent_state
from .shapes import as_strided, expand, permute, repeat, squeeze, transpose, unsqueeze, view
from .windows import (
    channel_shuffle,
    col2im,
    grid_sample,
    im2col,
    max_unpool,
    pixel_shuffle,
    pixel_unshuffle,
    reduction,
    window,
)

RULES: dict[str, Rule] = {
    **dict.fromkeys(POINTWISE, pointwise),
    **dict.fromkeys(FACTORIES, factory),
    **dict.fromkeys(REDUCTIONS, reduction),
    **dict.fromkeys(LOSSES, loss),
    **{name: window(spatial) for spatial, names in WINDOWS.items() for name in names.split()},
    **dict.fromkeys(BATCH_NORMS, batch_norm),
    **dict.fromkeys(["mm", "bmm", "addmm", "baddbmm", "mv"], matrix_product),
    **dict.fromkeys(["_softmax", "_log_softmax"], softmax),
    **dict.fromkeys(["cumsum", "cumprod", "cummax", "cummin", "logcumsumexp", "sort", "topk"], along),
    **dict.fromkeys(["kthvalue", "mode"], along),
    **dict.fromkeys(["gather", "scatter", "scatter_add", "scatter_reduce"], gather),
    **dict.fromkeys(["tril", "triu"], triangle),
    **dict.fromkeys(["view", "_unsafe_view", "reshape", "_reshape_alias", "_reshape_copy"], view),
    **dict.fromkeys(["transpose", "t"], transpose),
    **dict.fromkeys(["pixel_shuffle"], pixel_shuffle),
    **dict.fromkeys(["channel_shuffle", "native_channel_shuffle"], channel_shuffle),
    **dict.fromkeys(["dot", "vdot"], inner_product),
    **dict.fromkeys(["_cdist_forward", "_euclidean_dist"], distances),
    "_fused_rms_norm": layer_norm,
    "recurrent_input": recurrent_input,
    "recurrent_last": recurrent_last,
    "recurrent_projection": recurrent_projection,
    "recurrent_state": recurrent_state,
    "_weight_norm_interface": weight_norm,
    "as_strided": as_strided,
    "cat": cat,
    "col2im": col2im,
    "constant_pad_nd": pad,
    "convolution": convolution,
    "embedding": embedding,
    "expand": expand,
    "flip": flip,
    "glu": glu,
    "grid_sampler_2d": grid_sample,
    "im2col": im2col,
    "index": index,
    "index_put": index_put,
    "index_select": index_select,
    "max_unpool2d": max_unpool(2),
    "max_unpool3d": max_unpool(3),
    "native_group_norm": group_norm,
    "native_layer_norm": layer_norm,
    "permute": permute,
    "pixel_unshuffle": pixel_unshuffle,
    "renorm": renorm,
    "repeat": repeat,
    "roll": roll,
    "select": select,
    "slice": take_slice,
    "split": split,
    "split_with_sizes": split_with_sizes,
    "squeeze": squeeze,
    "stack": stack,
    "unbind": unbind,
    "unfold": unfold,
    "unsqueeze": unsqueeze,
}
