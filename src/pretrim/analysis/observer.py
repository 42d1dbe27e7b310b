"""A staged copy of a model, run under a dispatch mode that sees every ATen operator."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from .copies import (
    Example,
    call_model,
    check_eager,
    clone_module,
    copy_module,
    tensors_in,
)
from .meta import MetaMode, without_values
from .recurrent import RecurrentCalls, has_recurrence
from .rules import RULES

# Queries about a tensor, not operations on it.
QUESTIONS = frozenset(
    "device is_same_size sym_size sym_stride sym_numel sym_storage_offset is_contiguous dim size".split()
)


class Site(NamedTuple):
    """The source line that called an operator: what is learnt about it holds for every module of the same class."""

    file: str
    line: int
    module: str
    op: str


MAX_READS = 1000
HUGE = 1e30
"""A value above any threshold."""


@contextmanager
def plain_attention() -> Iterator[None]:
    """Run attention as matrix products and a softmax, not as one fused operator."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def uncompiled() -> AbstractContextManager[Any]:
    """Run code compiled by `torch.compile` eagerly; for models without it the compiler is not even imported."""
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


class Observer(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every ATen operator of a run, with composite ones decomposed, and tracks the module that called it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.modules: list[tuple[str, nn.Module]] = []
        self.module_names: dict[int, str] = {}
        self.outcome: bool | None = None
        self.reads = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        op = operator_name(func)
        if op in QUESTIONS:
            return func(*args, **kwargs)
        if op not in RULES and isinstance(func, torch._ops.OpOverload):
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        if op == "_local_scalar_dense" and self.outcome is not None and not is_integer(args[0]):
            return self.forced(args[0])
        named = named_arguments(func, args) | kwargs
        result = func(*args, **kwargs)
        self.observe(op, named, tuple(tensors_in(result)))
        return result

    def forced(self, tensor: torch.Tensor) -> bool | float:
        """Return the requested outcome for a value read that decides the path through `forward`."""
        self.reads += 1
        if self.reads > MAX_READS:
            raise RuntimeError(f"forward read more than {MAX_READS} values: a loop may wait for one")
        return bool(self.outcome) if tensor.dtype == torch.bool else HUGE if self.outcome else -HUGE

    def observe(self, op: str, args: dict[str, Any], outputs: tuple[torch.Tensor, ...]) -> None:
        """Called after each operator has run; subclasses override it, the base class does nothing.

        Args:
            op: the operator's name.
            args: its arguments, by name.
            outputs: its output tensors.
        """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """See `MetaMode`."""
        return False

    @property
    def module(self) -> str:
        return self.modules[-1][0] if self.modules else ""

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """Track the stack of running modules."""

        def enter(name: str) -> Callable[..., None]:
            return lambda module, *_: self.modules.append((name, module))

        handles = []
        self.module_names = {id(module): name for name, module in model.named_modules()}
        for name, module in model.named_modules():
            if isinstance(module, torch.jit.ScriptModule):  # accepts only scripted hooks
                continue
            handles.append(module.register_forward_pre_hook(enter(name)))
            handles.append(module.register_forward_hook(lambda *_: self.modules.pop() and None, always_call=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def is_integer(tensor: torch.Tensor) -> bool:
    """Whether a tensor holds integers: sizes and indices, whose values must not be forced."""
    return tensor.dtype != torch.bool and not tensor.is_floating_point()


def operator_name(func: Any) -> str:
    """Normalise an operator name: `relu_` to `relu`, `unsafe_split` to `split`; other namespaces stay (`my::relu`)."""
    if not isinstance(func, torch._ops.OpOverload):  # a higher-order operator
        return str(func)
    space, name = func._schema.name.split("::")
    name = name[:-1] if name.endswith("_") and not name.endswith("__") else name
    return name.removeprefix("unsafe_") if space in ("aten", "prim", "prims") else f"{space}::{name}"


def named_arguments(func: Any, args: tuple[Any, ...]) -> dict[str, Any]:
    """Map positional arguments to the names in the operator's schema."""
    schema = getattr(func, "_schema", None)
    names = [a.name for a in schema.arguments] if schema is not None else [f"argument {n}" for n in range(len(args))]
    return dict(zip(names, args, strict=False))


@dataclass(frozen=True)
class Stage:
    """A copy of a model that runs without touching the caller's, on meta tensors where possible."""

    model: nn.Module
    example: Example
    meta: MetaMode | None
    training: bool = False
    outcome: bool | None = None
    """The outcome forced on every value that `forward` reads; None leaves the values as they are."""

    def with_example(self, example: Example) -> Stage:
        """The same model with other inputs."""
        return replace(self, example=_as_meta(example) if self.meta is not None else example)

    def run(self, observer: Observer, *modes: AbstractContextManager[Any]) -> Any:
        """Run `forward` once under an observer, and under further torch modes."""
        self.model.train(self.training)
        observer.outcome = self.outcome
        mode: AbstractContextManager[Any] = self.meta if self.meta is not None else nullcontext()
        with torch.no_grad(), uncompiled(), plain_attention(), torch.random.fork_rng(devices=[]), mode:
            recurrent = RecurrentCalls(observer) if has_recurrence(self.model) else nullcontext()
            with observer.watching(self.model), observer, ExitStack() as stack:
                for context in (*modes, recurrent):
                    stack.enter_context(context)
                return call_model(self.model, self.example)


def stage(model: nn.Module, example: Example, *, real: bool = False) -> Stage:
    """Copy a model for tracing. Raises ModelError for models that cannot be copied.

    Args:
        model: the model, which is copied and not changed.
        example: its inputs.
        real: whether to run on real tensors instead of meta tensors, for models that read values.
    """
    check_eager(model)
    if real:
        return Stage(copy_module(model), example, None)
    meta = MetaMode()  # type: ignore[no-untyped-call]
    return Stage(clone_module(model, lambda _, tensor: without_values(tensor)), _as_meta(example), meta)


def _as_meta(example: Example) -> Example:
    return tree_map(without_values, example)  # type: ignore[no-any-return]
