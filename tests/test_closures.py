"""Functions that refer to parts of their model (hooks, a replaced `forward`): a copy's refer to the copy's parts."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from types import MethodType
from typing import Any

import numpy as np
import pytest
import torch
from networks import Net, conv
from reference import masked, randomise, relative_error, run
from torch import Tensor, nn

import pretrim
from pretrim.analysis.copies import copy_module
from pretrim.surgery.apply import cut, kept_channels

IMAGES = torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def chain(m: Any, x: Tensor) -> Tensor:
    return m.c(m.b(m.a(x)))  # type: ignore[no-any-return]


def doubled(m: Any, x: Tensor) -> Tensor:
    return m.c(2 * m.extra(m.a(x)))  # type: ignore[no-any-return]


def kept_features(m: Any, x: Tensor) -> Tensor:
    m.b(m.a(x))
    return m.c(m.features["b"])  # type: ignore[no-any-return]


def hook_on_the_model(m: Any) -> None:
    m.features = {}
    m.b.register_forward_hook(lambda _module, _args, out: m.features.update(b=out))


def hook_on_a_dict(m: Any) -> None:
    features = m.features = {}
    m.b.register_forward_hook(lambda _module, _args, out: features.update(b=out))


def hook_that_calls_another(m: Any) -> None:
    features = m.features = {}

    def keep(out: Tensor) -> None:
        features["b"] = out

    m.b.register_forward_hook(lambda _module, _args, out: keep(out))


def prehook_with_a_parameter(m: Any) -> None:
    scale = m.scale
    m.b.register_forward_pre_hook(lambda _module, args: (args[0] * scale,))


def replaced_forward(m: Any) -> None:
    layer = m.extra
    m.b.forward = lambda x: 2 * layer(x)


def default_argument(m: Any) -> None:
    m.b.forward = lambda x, layer=m.extra: 2 * layer(x)


def keyword_default(m: Any) -> None:
    def forward(x: Tensor, *, layer: nn.Module = m.extra) -> Tensor:
        return 2 * layer(x)  # type: ignore[no-any-return]

    m.b.forward = forward


def layers_in_a_list(m: Any) -> None:
    layers = [m.extra]
    m.b.forward = lambda x: 2 * layers[0](x)


def bound_method(m: Any) -> None:
    layer = m.extra
    m.b.forward = MethodType(lambda _self, x: 2 * layer(x), m.b)


def partial_call(m: Any) -> None:
    layer = m.extra
    m.b.forward = partial(lambda times, x: times * layer(x), 2)


class Holder:
    def __init__(self, function: Any) -> None:
        self.function = function

    def __call__(self, x: Tensor) -> Tensor:
        return 2 * self.function(x)  # type: ignore[no-any-return]


def object_with_a_layer(m: Any) -> None:
    m.b.forward = Holder(m.extra)


def object_with_a_function(m: Any) -> None:
    m.b.forward = Holder(lambda x: m.extra(x))


def function_with_an_object(m: Any) -> None:
    holder = Holder(m.extra)
    m.b.forward = lambda x: holder(x)


def weak_reference(m: Any) -> None:
    """A layer may store its parent this way, since a plain attribute would make a cycle of modules."""
    m.b.parent = weakref.ref(m)
    m.b.forward = MethodType(lambda self, x: 2 * self.parent().extra(x), m.b)


def recursive(m: Any) -> None:
    layer = m.extra

    def forward(x: Tensor, times: int = 2) -> Tensor:
        return layer(x) * 2 if times == 0 else forward(x, times - 1)  # type: ignore[no-any-return]

    m.b.forward = forward


def scaled(m: Any, x: Tensor) -> Tensor:
    return m.c(m.b(m.a(x) * m.scale))  # type: ignore[no-any-return]


# For every change of a network: its `forward`, and a `forward` that computes the same without the change.
Forward = Callable[[Any, Tensor], Tensor]
KINDS: dict[Callable[[Any], None], tuple[Forward, Forward]] = {
    hook_on_the_model: (kept_features, chain),
    hook_on_a_dict: (kept_features, chain),
    hook_that_calls_another: (kept_features, chain),
    prehook_with_a_parameter: (chain, scaled),
    replaced_forward: (chain, doubled),
    default_argument: (chain, doubled),
    keyword_default: (chain, doubled),
    layers_in_a_list: (chain, doubled),
    bound_method: (chain, doubled),
    partial_call: (chain, doubled),
    object_with_a_layer: (chain, doubled),
    object_with_a_function: (chain, doubled),
    function_with_an_object: (chain, doubled),
    weak_reference: (chain, doubled),
    recursive: (chain, doubled),
}


def network(forward: Forward) -> Any:
    model = Net(forward, a=conv(3, 8), b=conv(8, 8), extra=conv(8, 8), c=conv(8, 2))
    model.scale = nn.Parameter(torch.ones(1, 8, 1, 1))
    return randomise(model, 0)


every_kind = pytest.mark.parametrize("change", KINDS, ids=lambda change: change.__name__)


@every_kind
def test_a_network_with_closures_is_slimmed_exactly(change: Callable[[Any], None]) -> None:
    forward, plain_forward = KINDS[change]
    model, plain = network(forward), network(plain_forward)
    change(model)
    analysed = pretrim.analyze(model, IMAGES)
    widths = analysed.dense // 2
    keep = kept_channels(analysed, widths, np.random.default_rng(0).random(len(analysed.group_of)))
    slim = cut(model, analysed, widths, keep, rescale=False)
    assert slim.a.weight.shape[0] == 4
    assert relative_error(run(slim, IMAGES), run(masked(plain, analysed, keep), IMAGES)) < 1e-10


@every_kind
def test_a_copy_never_changes_the_model(change: Callable[[Any], None]) -> None:
    """The outputs of the copy depend on its own weights, and values stored by the model stay as they were."""
    forward, plain_forward = KINDS[change]
    model, plain = network(forward), network(plain_forward)
    change(model)
    before = run(model, IMAGES)
    stored = dict(getattr(model, "features", {}))
    copied = copy_module(model)
    with torch.no_grad():
        for tensor, other in zip(copied.parameters(), plain.parameters(), strict=True):
            tensor.mul_(1.5)
            other.mul_(1.5)
    assert relative_error(run(copied, IMAGES), run(plain, IMAGES)) < 1e-12
    assert all(getattr(model, "features", {})[name] is value for name, value in stored.items())
    assert all(torch.equal(output, expected) for output, expected in zip(run(model, IMAGES), before, strict=True))


def test_a_function_that_refers_to_no_part_of_the_model_is_not_copied() -> None:
    """The function may count, or write to a variable that the caller reads."""
    outputs: list[Tensor] = []
    model = network(chain)
    hook = model.b.register_forward_hook(lambda _module, _args, out: outputs.append(out))
    copied = copy_module(model)
    assert copied.b._forward_hooks[hook.id] is model.b._forward_hooks[hook.id]


def test_two_functions_that_share_a_variable_share_it_in_the_copy() -> None:
    model = network(kept_features)
    features = model.features = {}
    model.a.register_forward_hook(lambda _module, _args, out: features.update(a=out))
    model.b.register_forward_hook(lambda _module, _args, out: features.update(b=out))
    copied = copy_module(model)
    run(copied, IMAGES)
    assert set(copied.features) == {"a", "b"}
    assert not model.features


def test_a_closure_variable_that_is_not_assigned_yet_stays_unassigned() -> None:
    model = network(chain)

    def hook(_module: Any, _args: Any, out: Tensor) -> Tensor:
        return out * model.scale if model.training else later(out)

    model.b.register_forward_hook(hook)
    copied = copy_module(model).train()
    assert run(copied, IMAGES)
    later = torch.relu
    assert run(copied.eval(), IMAGES)
