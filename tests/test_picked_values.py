"""Values sorted, selected, moved or compared within an image: slimming is exact, and no channel is frozen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from networks import Net, conv
from reference import masked, randomise, relative_error, run
from torch import Tensor
from torch.nn import functional

import pretrim
from pretrim.analysis import trace
from pretrim.surgery.apply import cut, kept_channels


def zero_rows(x: Tensor) -> Tensor:
    x = x.clone()
    x[:, :, [0, 2]] = 0.0
    return x


def gathered(x: Tensor) -> Tensor:
    rows = x.flatten(2)
    return rows.gather(2, rows.argsort(2)).unflatten(2, (8, 8))


def histogram(x: Tensor) -> Tensor:
    rows = x.flatten(2)
    return torch.zeros_like(rows).scatter_add(2, rows.argsort(2) // 2, rows).unflatten(2, (8, 8))


def patches(x: Tensor) -> Tensor:
    return x.unfold(2, 2, 2).unfold(3, 2, 2).amax((-1, -2))


WITHIN: dict[str, Callable[[Tensor], Tensor]] = {
    "sort": lambda x: x.sort()[0],
    "stable sort": lambda x: torch.sort(x, stable=True)[0],
    "sort of rows": lambda x: x.sort(dim=2, descending=True)[0],
    "places of the sorted": lambda x: x * x.argsort(),
    "msort": lambda x: torch.msort(x.movedim(2, 0)).movedim(0, 2),
    "running sum": lambda x: x.cumsum(-1),
    "three largest": lambda x: x.topk(3)[0],
    "third smallest": lambda x: x * x.kthvalue(3)[0].unsqueeze(-1),
    "third smallest, kept": lambda x: x * x.kthvalue(3, dim=2, keepdim=True)[0],
    "mode": lambda x: x * x.round().mode()[0].unsqueeze(-1),
    "quantile": lambda x: x * x.flatten(2).quantile(0.5, dim=2)[..., None, None],
    "nanquantile": lambda x: x * x.nanquantile(0.25, dim=3, keepdim=True),
    "median without NaN": lambda x: x * x.nanmedian(dim=3, keepdim=True)[0],
    "range": lambda x: x * (x.aminmax(dim=3, keepdim=True)[1]),
    "rows by number": lambda x: x[:, :, [0, 2, 4]],
    "columns by number": lambda x: x[..., [0, 2, 4]],
    "pixels by number": lambda x: x[:, :, [0, 2], [1, 3]].unsqueeze(-1),
    "pixels of a grid": lambda x: x[:, :, torch.tensor([[0], [2]]), torch.tensor([1, 3])],
    "rows and images": lambda x: x[[0, 0], :, [1, 2]].unsqueeze(-1),
    "selected rows": lambda x: x.index_select(2, torch.tensor([1, 5])),
    "written rows": zero_rows,
    "gathered": gathered,
    "scattered": histogram,
    "upper triangle": lambda x: x.triu() * x.tril(1),
    "patches": patches,
    "squeezed in place": lambda x: x.clone().unsqueeze_(2).squeeze_(2),
    "transposed in place": lambda x: x.clone().transpose_(2, 3),
    "fake quantisation": lambda x: torch.fake_quantize_per_tensor_affine(x.float(), 0.1, 0, -128, 127).double(),
    "Bessel function": lambda x: x * x.i0(),
    "each pixel's loss": lambda x: x * functional.mse_loss(x, x.roll(1, 3), reduction="none"),
    "each pixel's Huber loss": lambda x: functional.smooth_l1_loss(x, x.roll(1, 3), reduction="none"),
    "each pixel's cross-entropy": lambda x: (
        x * functional.binary_cross_entropy(x.sigmoid(), x.roll(1, 3).sigmoid(), reduction="none")
    ),
    "each pixel's logistic loss": lambda x: (
        x * functional.binary_cross_entropy_with_logits(x, x.roll(1, 3).sigmoid(), reduction="none")
    ),
}


@pytest.mark.parametrize("name", WITHIN)
def test_operators_within_a_channel_are_slimmed_exactly(name: str) -> None:
    model = randomise(Net(lambda m, x: m.c(WITHIN[name](m.a(x))), a=conv(3, 8), c=conv(8, 2)), 0)
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    network = pretrim.analyze(model, images)
    assert [(frozen.layer, frozen.reason) for frozen in network.frozen] == [("c", "the network's output")]
    keep = kept_channels(network, network.dense // 2, np.random.default_rng(0).random(len(network.group_of)))
    slim = cut(model, network, network.dense // 2, keep, rescale=False)
    assert slim.get_submodule("a").weight.shape[0] == 4
    assert relative_error(run(slim, images), run(masked(model, network, keep), images)) < 1e-10


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": functional.mse_loss,
    "smooth l1": functional.smooth_l1_loss,
    "huber": functional.huber_loss,
    "l1": functional.l1_loss,
    "logistic": lambda x, y: functional.binary_cross_entropy_with_logits(x, y.sigmoid()),
    "cross-entropy": lambda x, y: functional.binary_cross_entropy(x.sigmoid(), y.sigmoid()),
    "soft margin": lambda x, y: functional.soft_margin_loss(x, y.detach().sign()),
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_between_features_ties_their_channels(name: str) -> None:
    """As in distillation from the features of a teacher, or with a codebook: `forward` also returns the loss."""

    def distill(m: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        student, teacher = m.a(x), m.b(x)
        return m.c(student), LOSSES[name](student, teacher)

    model = Net(distill, a=conv(3, 8), b=conv(3, 8), c=conv(8, 2))
    network = pretrim.analyze(model, torch.zeros(1, 3, 8, 8))
    assert [group.layers for group in network.groups] == [("a", "b")]
    slim = pretrim.apply(model, pretrim.plan(network, params="0.6x", round_to=1), network=network)
    assert slim(torch.zeros(2, 3, 8, 8))[1].shape == ()


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.sort(1)[0],
        lambda x: x.topk(8, 1)[0],
        lambda x: x[:, [7, 6, 5, 4, 3, 2, 1, 0]],
        lambda x: x.index_select(1, torch.arange(7, -1, -1)),
        lambda x: x.gather(3, torch.zeros(1, 8, 8, 8, dtype=torch.int64)),
        lambda x: x.gather(1, x.argsort(1)),
        lambda x: x.unfold(1, 8, 1).movedim(-1, 1).squeeze(2),
        lambda x: x.movedim(1, 3).triu().movedim(3, 1),
    ],
)
def test_channels_that_an_operator_distinguishes_are_frozen(function: Callable[[Tensor], Tensor]) -> None:
    model = Net(lambda m, x: m.c(function(m.a(x))), a=conv(3, 8), c=conv(8, 2))
    network = pretrim.analyze(model, torch.zeros(1, 3, 8, 8))
    assert [(frozen.layer, frozen.filters) for frozen in network.frozen] == [("a", 8), ("c", 2)]


def test_a_rule_that_fails_freezes_the_channels_that_reach_it_and_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The network itself runs, so a rule that fails must not be an error for the user."""

    def broken(call: Any) -> Any:
        return call.args["no such argument"]

    monkeypatch.setitem(trace.RULES, "sigmoid", broken)
    model = Net(lambda m, x: m.c(m.b(m.a(x)).sigmoid()), a=conv(3, 8), b=conv(8, 8), c=conv(8, 2))
    network = pretrim.analyze(model, torch.zeros(1, 3, 8, 8))
    assert [group.name for group in network.groups] == ["a"]
    assert network.frozen[0].reason.startswith("pretrim's rule for the operator sigmoid failed")
    assert any("please report" in note and "sigmoid" in note for note in network.notes)
