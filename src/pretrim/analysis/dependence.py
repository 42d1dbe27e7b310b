"""Which values inside a network depend on its input, element by element; the others are constants of its weights.

The network runs once on real tensors, and every tensor is accompanied by a mask of the same shape: true where the
value depends on the input. A filter whose weights are zero yields a constant; so does a norm whose scale is zero, and
so do activations, pooling and sums of constants. Single elements are tracked, because a padded border differs from the
interior. An operator without a rule here makes all its outputs depend on the input.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_map
from torch.utils.weak import WeakIdKeyDictionary

from pretrim.errors import ModelError

from .channels import Ids
from .copies import Example, copy_module, named_tensors
from .network import Network, Operator
from .observer import Observer, Stage
from .rules.operators import BATCH_NORMS, POINTWISE, WINDOWS
from .trace import outputs_of

Mask: TypeAlias = torch.Tensor
"""True where a value depends on the input; same shape as the tensor."""
RANDOM = frozenset(
    """
    bernoulli cauchy exponential geometric log_normal native_dropout normal rand rand_like randint randint_like randn
    randn_like random randperm rrelu_with_noise uniform
    """.split()
)
"""Operators with random results, which always count as dependent on the input."""
MOVES = frozenset(
    """
    alias cat channel_shuffle constant_pad_nd expand flip native_channel_shuffle permute pixel_shuffle pixel_unshuffle
    repeat roll select slice split split_with_sizes squeeze stack t transpose unbind unsqueeze
    """.split()
)
"""Operators that only move values: the same operator is applied to the masks."""
COPIES = frozenset(["as_strided", "clone"])
"""Operators that torch runs or skips depending on the strides of a tensor."""
VIEWS = frozenset("view _unsafe_view reshape _reshape_alias _reshape_copy".split())
POOLS = frozenset(name for names in WINDOWS.values() for name in names.split() if "pool" in name and "frac" not in name)
SUMS = frozenset("amax amin mean sum".split())
PRODUCTS = frozenset("addmm baddbmm bmm mm".split())
ROUNDING = 64
"""Units in the last place by which a constant may differ between positions (vector and scalar code of a kernel)."""


@dataclass
class Reading:
    """How a convolution or linear layer uses the channels that it reads.

    Rows are the layer's O filters, columns its C input channels.

    Attributes:
        operator: its index in `Network.operators`.
        layer: its module.
        reads: the channel of each column (C); -1 where it is fixed.
        writes: the channel of each row (O).
        uses: whether a row has a nonzero weight for a column (O, C).
        varies: columns whose values depend on the input (C).
        differs: columns that do not, but whose constants differ between positions, as at a padded border (C).
        adds: what a constant column adds to each row away from padding (O, C); zero for the other columns.
        pads: whether the layer pads its input with zeros, or its rows do not see all of a column alike.
        target: the bias, or the running mean of the following norm, that can absorb a constant; None if there is none.
        sign: sign of the constant in the target.
    """

    operator: int
    layer: str
    reads: Ids
    writes: Ids
    uses: torch.Tensor
    varies: torch.Tensor
    differs: torch.Tensor
    adds: torch.Tensor
    pads: bool
    target: str | None
    sign: float = 1.0


@dataclass
class Dependence:
    """The result of one run.

    Attributes:
        readings: one for every layer that contracts over prunable channels, in execution order.
        mixed: channels that another operator reduces over, with that operator's name and module.
    """

    readings: list[Reading] = field(default_factory=list)
    mixed: list[tuple[Ids, str]] = field(default_factory=list)


def input_dependence(model: nn.Module, network: Network, example: Example) -> Dependence:
    """Find what depends on the input, in one run in eval mode.

    Args:
        model: the model, which is not changed.
        network: its analysis.
        example: inputs with one image; their values do not matter.

    Raises:
        ModelError: the model runs other operators on these tensors than when it was analysed.
    """
    staged = Stage(copy_module(model), example, None)
    follower = Follower(staged.model, network)
    for leaf in outputs_of(example):
        follower.known[leaf] = Known(torch.ones_like(leaf, dtype=torch.bool), (None,) * leaf.dim())
    result = staged.run(follower)
    if follower.number != len(network.operators):
        raise ModelError("The network stopped before operators that its analysis has seen: please report it.")
    returned = {follower.made_by[leaf] for leaf in outputs_of(result) if leaf in follower.made_by}
    return Dependence(follower.finished(returned), follower.mixed)


@dataclass(frozen=True)
class Known:
    """What is known about one tensor: where it depends on the input, and the channels of each dimension."""

    mask: Mask
    ids: tuple[Ids | None, ...]


class Follower(Observer):  # type: ignore[no-untyped-call]
    """Propagates masks through a run, matching its operators with those of the analysis."""

    def __init__(self, model: nn.Module, network: Network) -> None:
        super().__init__()
        self.network = network
        self.number = 0
        self.known: Any = WeakIdKeyDictionary()
        self.names: Any = WeakIdKeyDictionary()
        self.readings: list[Reading] = []
        self.mixed: list[tuple[Ids, str]] = []
        self.made_by: Any = WeakIdKeyDictionary()  # tensor to the index of the layer that computed it
        self.norm_of: dict[int, str] = {}  # buffer to the running mean of the norm that reads it
        rows = {parameter.name: parameter.dims for parameter in network.parameters}
        for name, tensor in named_tensors(model):
            self.known[tensor] = Known(torch.zeros_like(tensor, dtype=torch.bool), self.ids_of(rows[name]))
            self.names[tensor] = name

    def ids_of(self, rows: Sequence[int]) -> tuple[Ids | None, ...]:
        """The channels of each dimension; None for a dimension of fixed size."""
        members = (self.network.members[row] for row in rows)
        return tuple(ids if ids.size else None for ids in members)

    def mask(self, tensor: torch.Tensor) -> Mask:
        """Where a tensor depends on the input; tensors that were not computed in this run do not."""
        known = self.known.get(tensor)
        return known.mask if known is not None else torch.zeros_like(tensor, dtype=torch.bool)

    def ids(self, tensor: torch.Tensor) -> tuple[Ids | None, ...]:
        known = self.known.get(tensor)
        return known.ids if known is not None else (None,) * tensor.dim()

    def observe(self, op: str, args: dict[str, Any], outputs: tuple[torch.Tensor, ...]) -> None:
        """See `Observer.observe`.

        Args:
            op: the operator's name.
            args: its arguments, by name.
            outputs: its output tensors.
        """
        operator = self.next_operator(op)
        masks = self.masks(op, args, outputs)
        if operator is None and args["self"].shape == outputs[0].shape:
            self.known[outputs[0]] = Known(masks[0], self.ids(args["self"]))
            return
        if operator is None:
            raise ModelError(f"The network runs {op} where its analysis has not: it cannot be looked through.")
        self.note(operator, args, outputs)
        for out, mask, rows in zip(outputs, masks, operator.outputs, strict=True):
            in_place = out in self.known
            self.known[out] = Known(mask, self.ids_of(rows))
            if in_place:
                self.mark_views_dependent(out)

    def next_operator(self, op: str) -> Operator | None:
        """The analysed operator that is now running. Raises ModelError if the analysis saw another one here.

        Strides of real tensors may differ from those of meta tensors, so that torch copies before a reshape in one run
        and not in the other: returns None for a copy that the analysis has not seen.
        """
        operators = self.network.operators
        while self.expected in COPIES and op != self.expected:
            self.number += 1
        if op in COPIES and self.expected != op:
            return None
        if self.expected != op and not {self.expected, op} <= VIEWS:
            seen = self.expected or "nothing"
            raise ModelError(f"The network runs {op} where its analysis has seen {seen}: it cannot be looked through.")
        self.number += 1
        return operators[self.number - 1]

    @property
    def expected(self) -> str:
        """The name of the next operator in the analysis; empty at the end."""
        operators = self.network.operators
        return operators[self.number].op if self.number < len(operators) else ""

    def mark_views_dependent(self, written: torch.Tensor) -> None:
        """After a write into a tensor, assume that others in the same memory depend on the input everywhere."""
        memory = written.untyped_storage().data_ptr()
        for other in list(self.known):
            if other is not written and other.untyped_storage().data_ptr() == memory:
                self.known[other] = Known(torch.ones_like(other, dtype=torch.bool), self.known[other].ids)

    # ------------------------------------------------------------------------------------ masks

    def masks(self, op: str, args: dict[str, Any], outputs: tuple[torch.Tensor, ...]) -> list[Mask]:
        """The masks of an operator's outputs.

        Args:
            op: the operator's name.
            args: its arguments, by name.
            outputs: its output tensors.
        """
        if op not in RANDOM and not any(self.mask(tensor).any() for tensor in tensors_of(args)):
            return [torch.zeros_like(out, dtype=torch.bool) for out in outputs]
        masks = None if op in RANDOM else self.known_masks(op, args, outputs)
        shapes = [tuple(out.shape) for out in outputs]
        if masks is None or [tuple(mask.shape) for mask in masks] != shapes:
            return [torch.ones_like(out, dtype=torch.bool) for out in outputs]
        return masks

    def known_masks(self, op: str, args: dict[str, Any], outputs: tuple[torch.Tensor, ...]) -> list[Mask] | None:
        """The masks from the operator's rule; None if it has no rule, or the rule does not apply.

        Args:
            op: the operator's name.
            args: its arguments, by name.
            outputs: its output tensors.
        """
        rule = MASKS.get(op)
        if rule is None:
            return None
        try:
            masks = rule(self, op, args, outputs)
        except (RuntimeError, TypeError, IndexError):  # an unusual form of the operator
            return None
        return masks if isinstance(masks, list) else [masks] * len(outputs)

    def non_zero(self, tensor: torch.Tensor) -> Mask:
        """Where a value may be nonzero."""
        return self.mask(tensor) | (tensor != 0)

    # ------------------------------------------------------------------------------------ who reads which channel

    def note(self, operator: Operator, args: dict[str, Any], outputs: tuple[torch.Tensor, ...]) -> None:
        """Record a layer that reads channels, or an operator through which channels cannot be followed.

        Args:
            operator: the analysed operator.
            args: its arguments, by name.
            outputs: its output tensors.
        """
        if operator.op in BATCH_NORMS and args.get("running_mean") is not None and not args.get("training"):
            for buffer in operator.reads:
                self.norm_of[buffer] = self.names.get(args["running_mean"])
        if operator.op == "convolution" and not self.mask(args["weight"]).any():
            self.note_convolution(args, outputs[0])
        elif operator.op in ("mm", "addmm") and not self.mask(args["mat2"]).any():
            self.note_product(args, outputs[0])
        elif operator.mixes or operator.factors or operator.op in PRODUCTS:
            where = f"{operator.op} in {operator.module or 'the model'}"
            for tensor in tensors_of(args):
                self.mixed.extend((ids, where) for ids in self.ids(tensor) if ids is not None)

    def note_convolution(self, args: dict[str, Any], out: torch.Tensor) -> None:
        x, weight, groups = args["input"], args["weight"], int(args["groups"])
        channel_dim = 1 if x.dim() == weight.dim() else 0
        matrix = weight.detach().flatten(2)
        transposed = bool(args["transposed"])
        uses, sums = (matrix != 0).any(2), matrix.sum(2)
        if transposed:
            uses, sums = _transposed(uses, groups), _transposed(sums, groups)
        pads = transposed or any(int(pad) for pad in args["padding"])
        self.read(
            (x, channel_dim),
            (out, channel_dim),
            _by_group(uses, groups),
            _by_group(sums, groups),
            pads,
            args.get("bias"),
        )

    def note_product(self, args: dict[str, Any], out: torch.Tensor) -> None:
        x = args["self"] if "mat1" not in args else args["mat1"]
        weight = args["mat2"].detach().t()
        is_scaled = args.get("alpha", 1) != 1 or args.get("beta", 1) != 1
        bias = args["self"] if "mat1" in args and args["self"].dim() == 1 else None
        self.read((x, 1), (out, 1), weight != 0, weight, is_scaled, bias)

    def read(
        self,
        source: tuple[torch.Tensor, int],
        result: tuple[torch.Tensor, int],
        uses: torch.Tensor,
        sums: torch.Tensor,
        pads: bool,
        bias: torch.Tensor | None,
    ) -> None:
        """Record what a layer reads.

        Args:
            source: its input, and the dimension that it contracts.
            result: its output, and the dimension of its filters.
            uses: where it has nonzero weights (O, C).
            sums: sum of each row's weights for a column (O, C).
            pads: whether a constant input is a constant only away from the border.
            bias: its bias, if it has one.
        """
        (x, in_dim), (out, out_dim) = source, result
        reads = self.ids(x)[in_dim]
        if reads is None or not (reads >= 0).any():
            return
        operator = self.network.operators[self.number - 1]
        filters = self.ids_of(operator.outputs[0])[out_dim]
        writes = np.full(out.shape[out_dim], -1, dtype=np.int64) if filters is None else filters
        varies, differs, value = self.columns(x, in_dim)
        adds = torch.where(varies | differs, 0.0, sums * value)
        target = None if bias is None else self.names.get(bias)
        self.made_by[out] = self.number - 1
        self.readings.append(
            Reading(self.number - 1, operator.module, reads, writes, uses, varies, differs, adds, pads, target)
        )

    def columns(self, x: torch.Tensor, dim: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """For each channel: whether it depends on the input, whether it holds several constants, and the constant."""
        values = x.detach().movedim(dim, 0).flatten(1)
        varies = self.mask(x).movedim(dim, 0).flatten(1).any(1)
        low, high = values.amin(1), values.amax(1)
        tolerance = ROUNDING * torch.finfo(x.dtype).eps * torch.maximum(low.abs(), high.abs())
        return varies, ~varies & (high - low > tolerance), values[:, 0]

    def finished(self, returned: Container[int]) -> list[Reading]:
        """Return the readings, each with the one parameter or buffer that can absorb a constant, if there is one.

        Args:
            returned: indices of the layers whose own result is an output of the network.
        """
        operators = self.network.operators
        readers = [buffer for operator in operators if not operator.is_unused for buffer in operator.reads]
        used = [name for operator in operators for name in operator.parameters]
        for reading in self.readings:
            buffer = next(iter(operators[reading.operator].writes), -1)
            is_read_once = readers.count(buffer) == 1 and reading.operator not in returned
            if reading.target is None and is_read_once and buffer in self.norm_of:
                reading.target, reading.sign = self.norm_of[buffer], -1.0
            if reading.target is not None and used.count(reading.target) != 1:  # the layer runs twice
                reading.target = None
        return self.readings


def tensors_of(args: dict[str, Any]) -> Iterator[torch.Tensor]:
    """The tensors among an operator's arguments, also in lists."""
    for value in args.values():
        for item in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(item, torch.Tensor):
                yield item


def _transposed(matrix: torch.Tensor, groups: int) -> torch.Tensor:
    """Swap rows and columns group by group: the weight of a transposed convolution is (in, out of a group)."""
    return torch.cat([part.t() for part in matrix.chunk(groups)])


def _by_group(matrix: torch.Tensor, groups: int) -> torch.Tensor:
    """Expand a convolution's (out, in of a group) to (out, in), with zeros for the other groups."""
    if groups == 1:
        return matrix
    rows, columns = matrix.shape
    full = matrix.new_zeros(groups, rows // groups, groups, columns)
    index = torch.arange(groups)
    full[index, :, index] = matrix.reshape(groups, rows // groups, columns)
    return full.reshape(rows, groups * columns)


# ---------------------------------------------------------------------------------------- rules of masks

MaskRule: TypeAlias = Callable[[Follower, str, dict[str, Any], tuple[torch.Tensor, ...]], "Mask | list[Mask]"]


def _pointwise(follower: Follower, op: str, args: dict[str, Any], outputs: tuple[torch.Tensor, ...]) -> Mask:
    shape = outputs[0].shape
    masks = [follower.mask(tensor).expand(shape) for tensor in tensors_of(args)]
    return torch.stack(masks).any(0)


def _mul(follower: Follower, op: str, args: dict[str, Any], outputs: tuple[torch.Tensor, ...]) -> Mask:
    """A constant zero stays zero, whatever it is multiplied by."""
    factors = list(tensors_of(args))
    if len(factors) < 2 or any(factor is outputs[0] for factor in factors):
        return _pointwise(follower, op, args, outputs)
    shape = outputs[0].shape
    a, b = (follower.mask(factor).expand(shape) for factor in factors)
    x, y = (follower.non_zero(factor).expand(shape) for factor in factors)
    return (a & y) | (b & x)


def _moved(follower: Follower, op: str, args: dict[str, Any], outputs: tuple[torch.Tensor, ...]) -> list[Mask]:
    def mask(value: Any) -> Any:
        return follower.mask(value) if isinstance(value, torch.Tensor) else value

    moved = {name: tree_map(mask, value) for name, value in args.items() if name != "value"}
    result = getattr(torch.ops.aten, op)(**moved)
    return [result] if isinstance(result, torch.Tensor) else list(result)


def _viewed(follower: Follower, op: str, args: dict[str, Any], outputs: tuple[torch.Tensor, ...]) -> Mask:
    return follower.mask(args["self"]).reshape(outputs[0].shape)


def _pooled(follower: Follower, op: str, args: dict[str, Any], outputs: tuple[torch.Tensor, ...]) -> Mask:
    x = follower.mask(args["self"]).to(torch.float32)
    result = getattr(torch.ops.aten, op)(**{**args, "self": x})
    return (result if isinstance(result, torch.Tensor) else result[0]) > 0


def _summed(follower: Follower, op: str, args: dict[str, Any], outputs: tuple[torch.Tensor, ...]) -> Mask:
    dims = args.get("dim")
    options = {} if dims in (None, []) else {"dim": dims, "keepdim": args.get("keepdim", False)}
    mask = follower.mask(args["self"])
    return mask.any() if not options else torch.amax(mask.to(torch.uint8), **options) > 0


def _normed(follower: Follower, op: str, args: dict[str, Any], outputs: tuple[torch.Tensor, ...]) -> list[Mask]:
    """Batch norm with running statistics: a channel whose scale is zero is constant, its shift."""
    x, scale = args["input"], args.get("weight")
    if args.get("training") or args.get("running_mean") is None or (scale is not None and follower.mask(scale).any()):
        return [torch.ones_like(out, dtype=torch.bool) for out in outputs]
    mask = follower.mask(x)
    if scale is not None:
        mask = mask & (scale != 0).reshape(1, -1, *[1] * (x.dim() - 2))
    return [mask, *(torch.ones_like(out, dtype=torch.bool) for out in outputs[1:])]


def _convolved(follower: Follower, op: str, args: dict[str, Any], outputs: tuple[torch.Tensor, ...]) -> Mask:
    x, weight = args["input"], args["weight"]
    if follower.mask(weight).any():
        return torch.ones_like(outputs[0], dtype=torch.bool)
    counts = {"input": follower.mask(x).float(), "weight": (weight != 0).float(), "bias": None}
    return torch.ops.aten.convolution(**{**args, **counts}) > 0.5  # type: ignore[no-any-return]


def _multiplied(follower: Follower, op: str, args: dict[str, Any], outputs: tuple[torch.Tensor, ...]) -> Mask:
    """Matrix product: an element depends on the input if one factor of a pair does and the other may be nonzero."""
    names = ("mat1", "mat2") if "mat1" in args else ("batch1", "batch2") if "batch1" in args else ("self", "mat2")
    a, b = (args[name] for name in names)
    left = follower.mask(a).float() @ follower.non_zero(b).float()
    right = follower.non_zero(a).float() @ follower.mask(b).float()
    product = (left + right) > 0.5
    return product if names[0] == "self" else product | follower.mask(args["self"])


MASKS: dict[str, MaskRule] = {
    **dict.fromkeys(POINTWISE - RANDOM, _pointwise),
    **dict.fromkeys(MOVES, _moved),
    **dict.fromkeys(VIEWS, _viewed),
    **dict.fromkeys(POOLS, _pooled),
    **dict.fromkeys(SUMS, _summed),
    **dict.fromkeys(BATCH_NORMS, _normed),
    **dict.fromkeys(PRODUCTS, _multiplied),
    "convolution": _convolved,
    "mul": _mul,
}
