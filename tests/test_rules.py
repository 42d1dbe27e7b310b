"""Rules: what each ties, and that a wrong rule does not go unseen.

Every rule that ties or moves channels is broken on purpose (it drops its ties, forgets a bias, moves the ids), and the
analysis of a small network that needs it must then freeze what the true rule leaves free ("frozen"), or give other
groups whose slim network is refused ("refused") or computes something else ("outputs"). "seen" is never a guess: the
table below says which check saw each.
"""

from __future__ import annotations

from collections import UserDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import StringIO
from types import SimpleNamespace
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from networks import Net, conv, conv1
from reference import masked, outputs_vary, randomise, relative_error, run
from torch import Tensor, nn

import pretrim
from pretrim.analysis.channels import Channels, connected
from pretrim.analysis.rules import RULES
from pretrim.analysis.rules.call import Call, Rule
from pretrim.analysis.rules.shapes import blocks
from pretrim.errors import PretrimError
from pretrim.planning.search import plan_of_widths
from pretrim.surgery.apply import kept_channels, score

# ---------------------------------------------------------------------------------------- how a rule is broken


class Deaf:
    """A ledger that does not hear of ties."""

    def __init__(self, ledger: Channels) -> None:
        self.ledger = ledger

    def tie(self, left: Any, right: Any) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return getattr(self.ledger, name)


def without_ties(rule: Rule) -> Rule:
    def mutated(call: Call) -> Any:
        ledger, call.channels = call.channels, Deaf(call.channels)  # type: ignore[assignment]
        try:
            return rule(call)
        finally:
            call.channels = ledger

    return mutated


def without_argument(name: str) -> Callable[[Rule], Rule]:
    def mutation(rule: Rule) -> Rule:
        def mutated(call: Call) -> Any:
            args, call.args = call.args, {key: value for key, value in call.args.items() if key != name}
            try:
                return rule(call)
            finally:
                call.args = args

        return mutated

    return mutation


def moving(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Rule], Rule]:
    """The ids of every output in another order."""

    def mutation(rule: Rule) -> Rule:
        def mutated(call: Call) -> Any:
            labels = rule(call)
            many = labels if isinstance(labels, list) else [labels]
            moved = [tuple(None if ids is None else change(ids) for ids in one) for one in many]
            return moved if isinstance(labels, list) else moved[0]

        return mutated

    return mutation


def swapped_outputs(rule: Rule) -> Rule:
    return lambda call: rule(call)[::-1]


def without_integers(rule: Rule) -> Rule:
    def mutated(call: Call) -> Any:
        labels = rule(call)
        call.integers.clear()
        return labels

    return mutated


shifted = moving(lambda ids: np.roll(ids, 1))
backwards = moving(lambda ids: ids[::-1])
tiled = moving(lambda ids: ids.reshape(-1, 2).T.ravel())  # 0 0 1 1 becomes 0 1 0 1
repeated = moving(np.sort)  # 0 1 0 1 becomes 0 0 1 1
forgotten = moving(lambda ids: None)  # type: ignore[arg-type, return-value]

MUTATIONS: dict[str, Callable[[Rule], Rule]] = {
    "drops its ties": without_ties,
    "shifts the ids by one": shifted,
    "reverses the ids": backwards,
    "forgets the ids": forgotten,
    "forgets the bias": without_argument("bias"),
    "forgets the scale": without_argument("weight"),
    "forgets the running mean": without_argument("running_mean"),
    "tiles where it should repeat": tiled,
    "repeats where it should tile": repeated,
    "swaps the parts": swapped_outputs,
    "forgets the integers": without_integers,
}


# ---------------------------------------------------------------------------------------- the networks that need them


class Halved(nn.Module):
    """Parts of stored sizes, one of them convolved."""

    def __init__(self, style: str) -> None:
        super().__init__()
        self.style, self.sizes, self.cut = style, [4, 8], 4
        self.a, self.b, self.c = conv1(3, 12), conv1(8, 8), conv1(12, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        if self.style == "sizes":
            p, q = torch.split(x, self.sizes, 1)
        else:
            p, q = x[:, : self.cut], x[:, self.cut :]
        return self.c(torch.cat([p, self.b(q).relu()], 1))


class Padded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.extra = 4
        self.a, self.b, self.c = conv1(3, 8), conv1(8, 12), conv1(12, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return self.c(self.b(x) * F.pad(x, (0, 0, 0, 0, 0, self.extra), value=0.5))


class DepthwiseFunction(nn.Module):
    """A depthwise convolution with a weight of its own and its number of groups kept from construction."""

    def __init__(self) -> None:
        super().__init__()
        self.channels = 8
        self.a, self.z = conv1(3, 8), conv1(8, 2)
        self.kernel = nn.Parameter(torch.ones(8, 1, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        x = F.conv2d(x, self.kernel, padding=1, groups=self.channels)
        return self.z(x)


def between(run_: Callable[[Any, Tensor], Tensor], into: int = 8, out: int = 8, **layers: nn.Module) -> nn.Module:
    """A 1x1 convolution, something, a 1x1 convolution."""
    return Net(lambda m, x: m.z(run_(m, m.a(x))), a=conv1(3, into), z=conv1(out, 2), **layers)


def _attention(m: Any, x: Tensor) -> Tensor:
    q, k = (f(x.flatten(2).mT) for f in (m.q, m.k))
    return (torch.bmm(q, k.mT).softmax(-1) @ x.flatten(2).mT).mT.unflatten(2, (8, 8))


def _unpooled(m: Any, x: Tensor) -> Tensor:
    x, places = F.max_pool2d(x, 2, return_indices=True)
    return F.max_unpool2d(m.b(x), places, 2)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "convolution": lambda: between(lambda m, x: m.b(x), b=conv(8, 8)),
    "grouped": lambda: between(lambda m, x: m.b(x), b=conv(8, 8, groups=2)),
    "depthwise": lambda: between(lambda m, x: m.b(x), b=conv(8, 8, groups=8)),
    "depthwise x2": lambda: between(lambda m, x: m.b(x), out=16, b=conv(8, 16, groups=8)),
    "depthwise function": DepthwiseFunction,
    "transposed": lambda: between(lambda m, x: m.b(x), b=nn.ConvTranspose2d(8, 8, 2, 2)),
    "transposed groups": lambda: between(lambda m, x: m.b(x), b=nn.ConvTranspose2d(8, 8, 2, 2, groups=2)),
    "linear": lambda: Net(
        lambda m, x: m.z(m.b(m.a(x).mean((2, 3)))), a=conv1(3, 8), b=nn.Linear(8, 6), z=nn.Linear(6, 2)
    ),
    "plain product": lambda: Net(
        lambda m, x: m.z(m.b(m.a(x).mean((2, 3)))), a=conv1(3, 8), b=nn.Linear(8, 6, bias=False), z=nn.Linear(6, 2)
    ),
    "attention": lambda: between(_attention, q=nn.Linear(8, 6), k=nn.Linear(8, 6)),
    "batch norm": lambda: between(lambda m, x: m.b(x), b=nn.BatchNorm2d(8)),
    "layer norm": lambda: between(lambda m, x: m.b(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), b=nn.LayerNorm(8)),
    "group norm": lambda: between(lambda m, x: m.b(x), b=nn.GroupNorm(2, 8)),
    "pixel shuffle": lambda: between(lambda m, x: F.pixel_shuffle(x, 2), into=16, out=4),
    "pixel unshuffle": lambda: between(lambda m, x: F.pixel_unshuffle(x, 2), out=32),
    "channel shuffle": lambda: between(lambda m, x: F.channel_shuffle(x, 2)),
    "unfold": lambda: Net(
        lambda m, x: m.z(F.unfold(m.a(x), 2, stride=2).mT).mean(1), a=conv1(3, 8), z=nn.Linear(32, 2)
    ),
    "fold": lambda: between(lambda m, x: F.fold(m.b(x.flatten(2).mT).mT, (9, 9), 2), b=nn.Linear(8, 32)),
    "cat": lambda: between(lambda m, x: torch.cat([x, m.b(x)], 1), out=14, b=conv(8, 6)),
    "cat of equals": lambda: between(lambda m, x: torch.cat([m.c(x), m.b(x)], 1), out=16, b=conv(8, 8), c=conv(8, 8)),
    "stack": lambda: between(lambda m, x: torch.stack([m.b(x), m.c(x)]).mean(0), b=conv1(8, 8), c=conv1(8, 8)),
    "chunk": lambda: between(lambda m, x: x.chunk(2, 1)[0] * m.b(x.chunk(2, 1)[1]).relu(), out=4, b=conv1(4, 4)),
    "split with sizes": lambda: Halved("sizes"),
    "slice": lambda: Halved("slice"),
    "pad": Padded,
    "glu": lambda: between(lambda m, x: F.glu(x, 1), out=4),
    "view": lambda: Net(lambda m, x: m.z(m.a(x).flatten(1)), a=conv1(3, 4), z=nn.Linear(256, 2)),
    "view in groups": lambda: between(lambda m, x: x.view(len(x), 2, -1, 8, 8).amax(1), out=4),
    "repeat": lambda: between(lambda m, x: x.repeat(1, 2, 1, 1), out=16),
    "permute": lambda: between(lambda m, x: m.b(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), b=nn.Linear(8, 8)),
    "transpose": lambda: between(lambda m, x: m.b(x.transpose(1, 3)).transpose(1, 3), b=nn.Linear(8, 8)),
    "flip": lambda: between(lambda m, x: x.flip(1)),
    "roll": lambda: between(lambda m, x: m.b(torch.roll(x, 1, 2)), b=conv(8, 8)),
    "expand": lambda: between(lambda m, x: x * x.mean((2, 3), keepdim=True).expand_as(x)),
    "add": lambda: between(lambda m, x: x + m.b(x), b=conv(8, 8)),
    "relu": lambda: between(lambda m, x: x.relu()),
    "mean": lambda: between(lambda m, x: x.mean((2, 3), keepdim=True)),
    "pool": lambda: between(lambda m, x: F.max_pool2d(x, 2)),
    "unsqueeze": lambda: between(lambda m, x: x.unsqueeze(2).sum(2)),
    "squeeze": lambda: Net(
        lambda m, x: m.z(F.adaptive_avg_pool2d(m.a(x), 1).squeeze((2, 3))), a=conv1(3, 8), z=nn.Linear(8, 2)
    ),
    "resize": lambda: between(lambda m, x: F.interpolate(x, scale_factor=2.0)),
    "prelu": lambda: between(lambda m, x: m.b(x), b=nn.PReLU(8)),
    "unpool": lambda: between(_unpooled, b=conv(8, 8)),
}


@dataclass(frozen=True)
class Broken:
    """A rule broken in one way, in a network that needs it, and the check that sees it."""

    network: str
    op: str
    mutation: str
    seen: str


BROKEN: tuple[Broken, ...] = (
    Broken("convolution", "convolution", "drops its ties", "frozen"),
    Broken("convolution", "convolution", "shifts the ids by one", "outputs"),
    Broken("convolution", "convolution", "reverses the ids", "outputs"),
    Broken("convolution", "convolution", "forgets the ids", "frozen"),
    Broken("convolution", "convolution", "forgets the bias", "frozen"),
    Broken("grouped", "convolution", "drops its ties", "frozen"),
    Broken("grouped", "convolution", "shifts the ids by one", "outputs"),
    Broken("grouped", "convolution", "reverses the ids", "outputs"),
    Broken("depthwise", "convolution", "drops its ties", "frozen"),
    Broken("depthwise", "convolution", "shifts the ids by one", "outputs"),
    Broken("depthwise", "convolution", "forgets the bias", "frozen"),
    Broken("depthwise x2", "convolution", "drops its ties", "frozen"),
    Broken("depthwise x2", "convolution", "shifts the ids by one", "outputs"),
    Broken("depthwise x2", "convolution", "tiles where it should repeat", "outputs"),
    Broken("transposed", "convolution", "drops its ties", "frozen"),
    Broken("transposed", "convolution", "shifts the ids by one", "outputs"),
    Broken("transposed", "convolution", "forgets the bias", "frozen"),
    Broken("transposed groups", "convolution", "drops its ties", "frozen"),
    Broken("transposed groups", "convolution", "shifts the ids by one", "outputs"),
    Broken("transposed groups", "convolution", "repeats where it should tile", "outputs"),
    Broken("transposed groups", "convolution", "forgets the bias", "frozen"),
    Broken("linear", "addmm", "drops its ties", "frozen"),
    Broken("linear", "addmm", "shifts the ids by one", "outputs"),
    Broken("linear", "addmm", "reverses the ids", "outputs"),
    Broken("linear", "addmm", "forgets the ids", "frozen"),
    Broken("plain product", "mm", "drops its ties", "frozen"),
    Broken("plain product", "mm", "shifts the ids by one", "outputs"),
    Broken("plain product", "mm", "forgets the ids", "frozen"),
    Broken("attention", "bmm", "drops its ties", "frozen"),
    Broken("attention", "bmm", "shifts the ids by one", "outputs"),
    Broken("attention", "bmm", "forgets the ids", "frozen"),
    Broken("batch norm", "native_batch_norm", "drops its ties", "frozen"),
    Broken("batch norm", "native_batch_norm", "shifts the ids by one", "outputs"),
    Broken("batch norm", "native_batch_norm", "forgets the bias", "frozen"),
    Broken("batch norm", "native_batch_norm", "forgets the scale", "frozen"),
    Broken("batch norm", "native_batch_norm", "forgets the running mean", "frozen"),
    Broken("batch norm", "native_batch_norm", "forgets the ids", "frozen"),
    Broken("layer norm", "native_layer_norm", "drops its ties", "frozen"),
    Broken("layer norm", "native_layer_norm", "shifts the ids by one", "outputs"),
    Broken("layer norm", "native_layer_norm", "forgets the bias", "frozen"),
    Broken("layer norm", "native_layer_norm", "forgets the scale", "frozen"),
    Broken("group norm", "native_group_norm", "drops its ties", "frozen"),
    Broken("group norm", "native_group_norm", "shifts the ids by one", "outputs"),
    Broken("group norm", "native_group_norm", "forgets the bias", "frozen"),
    Broken("group norm", "native_group_norm", "forgets the scale", "frozen"),
    Broken("pixel shuffle", "pixel_shuffle", "drops its ties", "frozen"),
    Broken("pixel shuffle", "pixel_shuffle", "shifts the ids by one", "outputs"),
    Broken("pixel shuffle", "pixel_shuffle", "reverses the ids", "outputs"),
    Broken("pixel shuffle", "pixel_shuffle", "forgets the ids", "frozen"),
    Broken("pixel unshuffle", "pixel_unshuffle", "shifts the ids by one", "outputs"),
    Broken("pixel unshuffle", "pixel_unshuffle", "reverses the ids", "outputs"),
    Broken("pixel unshuffle", "pixel_unshuffle", "tiles where it should repeat", "outputs"),
    Broken("pixel unshuffle", "pixel_unshuffle", "forgets the ids", "frozen"),
    Broken("channel shuffle", "channel_shuffle", "drops its ties", "refused"),
    Broken("channel shuffle", "channel_shuffle", "shifts the ids by one", "outputs"),
    Broken("channel shuffle", "channel_shuffle", "reverses the ids", "outputs"),
    Broken("channel shuffle", "channel_shuffle", "forgets the ids", "frozen"),
    Broken("unfold", "im2col", "shifts the ids by one", "outputs"),
    Broken("unfold", "im2col", "reverses the ids", "outputs"),
    Broken("unfold", "im2col", "tiles where it should repeat", "outputs"),
    Broken("unfold", "im2col", "forgets the ids", "frozen"),
    Broken("fold", "col2im", "drops its ties", "frozen"),
    Broken("fold", "col2im", "shifts the ids by one", "outputs"),
    Broken("fold", "col2im", "reverses the ids", "outputs"),
    Broken("fold", "col2im", "forgets the ids", "frozen"),
    Broken("cat", "cat", "shifts the ids by one", "outputs"),
    Broken("cat", "cat", "reverses the ids", "outputs"),
    Broken("cat", "cat", "forgets the ids", "frozen"),
    Broken("cat of equals", "cat", "shifts the ids by one", "outputs"),
    Broken("cat of equals", "cat", "reverses the ids", "outputs"),
    Broken("cat of equals", "cat", "forgets the ids", "frozen"),
    Broken("stack", "stack", "drops its ties", "frozen"),
    Broken("stack", "stack", "shifts the ids by one", "outputs"),
    Broken("stack", "stack", "forgets the ids", "frozen"),
    Broken("chunk", "split", "drops its ties", "frozen"),
    Broken("chunk", "split", "shifts the ids by one", "outputs"),
    Broken("chunk", "split", "reverses the ids", "outputs"),
    Broken("chunk", "split", "forgets the ids", "frozen"),
    Broken("split with sizes", "split_with_sizes", "swaps the parts", "frozen"),
    Broken("split with sizes", "split_with_sizes", "shifts the ids by one", "outputs"),
    Broken("split with sizes", "split_with_sizes", "reverses the ids", "outputs"),
    Broken("split with sizes", "split_with_sizes", "forgets the integers", "frozen"),
    Broken("split with sizes", "split_with_sizes", "forgets the ids", "frozen"),
    Broken("slice", "slice", "shifts the ids by one", "outputs"),
    Broken("slice", "slice", "reverses the ids", "outputs"),
    Broken("slice", "slice", "forgets the integers", "frozen"),
    Broken("slice", "slice", "forgets the ids", "frozen"),
    Broken("pad", "constant_pad_nd", "shifts the ids by one", "outputs"),
    Broken("pad", "constant_pad_nd", "reverses the ids", "outputs"),
    Broken("pad", "constant_pad_nd", "forgets the integers", "frozen"),
    Broken("pad", "constant_pad_nd", "forgets the ids", "frozen"),
    Broken("glu", "glu", "drops its ties", "frozen"),
    Broken("glu", "glu", "shifts the ids by one", "outputs"),
    Broken("glu", "glu", "reverses the ids", "outputs"),
    Broken("glu", "glu", "forgets the ids", "frozen"),
    Broken("view", "view", "shifts the ids by one", "outputs"),
    Broken("view", "view", "reverses the ids", "outputs"),
    Broken("view", "view", "tiles where it should repeat", "outputs"),
    Broken("view", "view", "forgets the ids", "frozen"),
    Broken("view in groups", "view", "drops its ties", "frozen"),
    Broken("view in groups", "view", "shifts the ids by one", "outputs"),
    Broken("view in groups", "view", "forgets the ids", "frozen"),
    Broken("repeat", "repeat", "repeats where it should tile", "outputs"),
    Broken("repeat", "repeat", "shifts the ids by one", "outputs"),
    Broken("repeat", "repeat", "reverses the ids", "outputs"),
    Broken("repeat", "repeat", "forgets the ids", "frozen"),
    Broken("permute", "permute", "shifts the ids by one", "outputs"),
    Broken("permute", "permute", "reverses the ids", "outputs"),
    Broken("permute", "permute", "forgets the ids", "frozen"),
    Broken("transpose", "transpose", "shifts the ids by one", "outputs"),
    Broken("transpose", "transpose", "reverses the ids", "outputs"),
    Broken("transpose", "transpose", "forgets the ids", "frozen"),
    Broken("flip", "flip", "shifts the ids by one", "outputs"),
    Broken("flip", "flip", "reverses the ids", "outputs"),
    Broken("flip", "flip", "forgets the ids", "frozen"),
    Broken("roll", "roll", "shifts the ids by one", "outputs"),
    Broken("roll", "roll", "reverses the ids", "outputs"),
    Broken("roll", "roll", "forgets the ids", "frozen"),
    Broken("expand", "expand", "shifts the ids by one", "frozen"),
    Broken("expand", "expand", "reverses the ids", "frozen"),
    Broken("expand", "expand", "forgets the ids", "frozen"),
    Broken("add", "add", "drops its ties", "frozen"),
    Broken("add", "add", "shifts the ids by one", "outputs"),
    Broken("add", "add", "reverses the ids", "outputs"),
    Broken("add", "add", "forgets the ids", "frozen"),
    Broken("relu", "relu", "shifts the ids by one", "outputs"),
    Broken("relu", "relu", "reverses the ids", "outputs"),
    Broken("relu", "relu", "forgets the ids", "frozen"),
    Broken("mean", "mean", "shifts the ids by one", "outputs"),
    Broken("mean", "mean", "reverses the ids", "outputs"),
    Broken("mean", "mean", "forgets the ids", "frozen"),
    Broken("pool", "max_pool2d_with_indices", "shifts the ids by one", "outputs"),
    Broken("pool", "max_pool2d_with_indices", "reverses the ids", "outputs"),
    Broken("pool", "max_pool2d_with_indices", "forgets the ids", "frozen"),
    Broken("unsqueeze", "unsqueeze", "shifts the ids by one", "outputs"),
    Broken("unsqueeze", "unsqueeze", "reverses the ids", "outputs"),
    Broken("unsqueeze", "unsqueeze", "forgets the ids", "frozen"),
    Broken("unsqueeze", "sum", "shifts the ids by one", "outputs"),
    Broken("unsqueeze", "sum", "reverses the ids", "outputs"),
    Broken("unsqueeze", "sum", "forgets the ids", "frozen"),
    Broken("squeeze", "squeeze", "shifts the ids by one", "outputs"),
    Broken("squeeze", "squeeze", "forgets the ids", "frozen"),
    Broken("resize", "upsample_nearest2d", "shifts the ids by one", "outputs"),
    Broken("resize", "upsample_nearest2d", "reverses the ids", "outputs"),
    Broken("resize", "upsample_nearest2d", "forgets the ids", "frozen"),
    Broken("prelu", "_prelu_kernel", "drops its ties", "frozen"),
    Broken("prelu", "_prelu_kernel", "shifts the ids by one", "outputs"),
    Broken("prelu", "_prelu_kernel", "reverses the ids", "outputs"),
    Broken("prelu", "_prelu_kernel", "forgets the ids", "frozen"),
    Broken("unpool", "max_unpool2d", "drops its ties", "frozen"),
    Broken("unpool", "max_unpool2d", "shifts the ids by one", "outputs"),
    Broken("unpool", "max_unpool2d", "forgets the ids", "frozen"),
    Broken("depthwise function", "convolution", "forgets the integers", "frozen"),
    Broken("depthwise function", "convolution", "drops its ties", "frozen"),
    Broken("squeeze", "squeeze", "reverses the ids", "outputs"),
)


def free_channels(network: pretrim.Network) -> int:
    return sum(group.channels for group in network.groups)


def what_sees(model: nn.Module, images: Tensor, op: str, mutation: str, patch: pytest.MonkeyPatch) -> str:
    """Which check sees the broken rule; "nothing" where none does."""
    free = free_channels(pretrim.analyze(model, images))
    patch.setitem(RULES, op, MUTATIONS[mutation](RULES[op]))
    try:
        network = pretrim.analyze(model, images)
    except PretrimError:
        return "analysis"
    if free_channels(network) < free:
        return "frozen"
    for seed in range(4):
        widths = np.random.default_rng(seed).integers(1, network.dense + 1)
        plan = plan_of_widths(network, widths)
        try:
            slim = pretrim.apply(model, plan, init="inherit")
        except PretrimError:
            return "refused"
        keep = kept_channels(network, widths, score(model, network))
        if relative_error(run(slim, images), run(masked(model, network, keep), images)) > 1e-10:
            return "outputs"
    return "nothing"


def random_images() -> Tensor:
    return torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", NETWORKS)
def test_the_true_rules_free_the_channels_and_are_exact(name: str) -> None:
    model, images = randomise(NETWORKS[name](), 1).eval(), random_images()
    outputs_vary(model, images)
    network = pretrim.analyze(model, images)
    assert "a" in {layer for group in network.groups for layer in group.layers}
    for seed in range(4):
        widths = np.random.default_rng(seed).integers(1, network.dense + 1)
        slim = pretrim.apply(model, plan_of_widths(network, widths), init="inherit")
        keep = kept_channels(network, widths, score(model, network))
        assert relative_error(run(slim, images), run(masked(model, network, keep), images)) < 1e-10


@pytest.mark.parametrize("broken", BROKEN, ids=lambda b: f"{b.op} {b.mutation} in {b.network}".replace(" ", "-"))
def test_a_broken_rule_is_seen(broken: Broken, monkeypatch: pytest.MonkeyPatch) -> None:
    model = randomise(NETWORKS[broken.network](), 1).eval()
    assert what_sees(model, random_images(), broken.op, broken.mutation, monkeypatch) == broken.seen


# ---------------------------------------------------------------------------------------- operators without a rule


@pytest.fixture(scope="module")
def custom_op() -> Iterator[Callable[[Tensor], Tensor]]:
    """An operator of a user's own library, which doubles its input."""

    @torch.library.custom_op("pretrim_tests::double", mutates_args=())
    def double(x: Tensor) -> Tensor:
        return x * 2.0

    @double.register_fake
    def _(x: Tensor) -> Tensor:
        return torch.empty_like(x)

    yield double


def named(model: nn.Module) -> dict[str, str]:
    network = pretrim.analyze(model, torch.zeros(1, 3, 8, 8))
    return {frozen.layer: frozen.reason for frozen in network.frozen}


class Called(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Topped(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.topk(x, 4, dim=1).values


def test_an_operator_without_a_rule_freezes_and_is_named() -> None:
    reasons = named(nn.Sequential(conv(3, 8), nn.Sequential(nn.ReLU(), Topped()), conv(4, 2)))
    assert reasons["0"] == "no rule for the operator topk (in 1.1)"


def test_an_operator_without_a_rule_freezes_what_is_tied_to_its_input() -> None:
    model = Net(lambda m, x: m.z(torch.topk((y := m.a(x)) + m.b(y), 4, 1).values), a=conv(3, 8), b=conv(8, 8))
    model.z = conv(4, 2)
    assert set(named(model)) == {"a", "b", "z"}


def test_an_operator_without_a_rule_leaves_other_layers_free() -> None:
    model = nn.Sequential(conv(3, 8), conv(8, 8), Topped(), conv(4, 6), conv(6, 2))
    network = pretrim.analyze(model, torch.zeros(1, 3, 8, 8))
    assert [group.name for group in network.groups] == ["0", "3"]


def test_a_custom_operator_freezes_and_is_named(custom_op: Callable[[Tensor], Tensor]) -> None:
    reasons = named(nn.Sequential(conv(3, 8), Called(lambda x: custom_op(x)), conv(8, 2)))
    assert reasons["0"] == "no rule for the operator pretrim_tests::double (in 1)"


def test_a_custom_operator_leaves_other_layers_free(custom_op: Callable[[Tensor], Tensor]) -> None:
    model = randomise(nn.Sequential(conv(3, 8), conv(8, 6), Called(lambda x: custom_op(x)), conv(6, 4), conv(4, 2)), 0)
    images = random_images()
    network = pretrim.analyze(model, images)
    assert [group.name for group in network.groups] == ["0", "3"]
    plan = plan_of_widths(network, [3, 2])
    keep = kept_channels(network, plan.widths, score(model, network))
    slim = pretrim.apply(model, plan, init="inherit")
    assert relative_error(run(slim, images), run(masked(model, network, keep), images)) < 1e-10


def test_a_custom_operator_that_tells_channels_apart_is_not_pruned_before() -> None:
    """Its output has one channel whatever goes in, so no shape shows that channels were removed under it."""

    @torch.library.custom_op("pretrim_tests::weighted", mutates_args=())
    def weighted(x: Tensor) -> Tensor:
        return (x * torch.arange(x.shape[1], dtype=x.dtype)[:, None, None]).sum(1, keepdim=True)

    @weighted.register_fake
    def _(x: Tensor) -> Tensor:
        return x.new_empty(x.shape[0], 1, *x.shape[2:])

    network = pretrim.analyze(
        nn.Sequential(conv(3, 8), Called(lambda x: weighted(x)), conv(1, 2)), torch.zeros(1, 3, 8, 8)
    )
    assert network.groups == ()


@pytest.mark.parametrize(
    ("name", "run_", "reason"),
    [
        ("a channel by number", lambda m, x: m.z(m.a(x)[:, 2:3] + m.a(x)[:, 5].unsqueeze(1)), "picked by index"),
        ("roll", lambda m, x: m.z(torch.roll(m.a(x), 1, 1)[:, :1]), "rolled by a fixed number of positions"),
        ("step", lambda m, x: m.z(m.a(x)[:, ::8]), "sliced with a step"),
        ("pool along channels", lambda m, x: m.z(F.max_pool3d(m.a(x), (8, 1, 1))), "slides along it"),
        ("cumsum", lambda m, x: m.z(m.a(x).cumsum(1)[:, :1]), "no rule for the operator cumsum"),
        ("grid", lambda m, x: m.z(m.a(x).gather(1, torch.zeros(1, 1, 8, 8, dtype=torch.int64))), "no rule for"),
    ],
)
def test_what_cannot_be_followed_freezes_with_its_reason(name: str, run_: Any, reason: str) -> None:
    reasons = named(Net(run_, a=conv(3, 8), z=conv(1, 2)))
    assert reason in reasons["a"]


def test_the_networks_output_is_frozen_with_its_reason() -> None:
    assert named(nn.Sequential(conv(3, 8), conv(8, 2))) == {"1": "the network's output"}


HEADS: dict[str, Any] = {
    "a row an anchor": lambda m, x: m.a(x).permute(0, 2, 3, 1).reshape(len(x), -1, 3),
    "anchors first": lambda m, x: m.a(x).unflatten(1, (-1, 3)).permute(0, 3, 4, 1, 2).flatten(1, 3),
    "one image a value": lambda m, x: torch.stack(m.a(x).chunk(6, 1), 1),
    "decoded in part": lambda m, x: decoded(m.a(x).permute(0, 2, 3, 1).reshape(len(x), -1, 3)),
    "of the whole image": lambda m, x: m.a(x).mean((2, 3)).view(len(x), 6, 3),
}


def decoded(values: Tensor) -> Tensor:
    return torch.cat([values[..., :1].sigmoid(), values[..., 1:]], -1)


@pytest.mark.parametrize("head", HEADS)
def test_every_frozen_filter_of_a_head_is_counted(head: str) -> None:
    """Anchors x values of one convolution are tied by the reshape, but they are as many filters as before it."""
    network = pretrim.analyze(Net(HEADS[head], a=conv(3, 18)), torch.zeros(1, 3, 8, 8))
    assert [(each.layer, each.filters, each.reason) for each in network.frozen] == [("a", 18, "the network's output")]


@dataclass
class Held:
    value: Any


class Slotted:
    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


RETURNED: dict[str, Callable[[Tensor], Any]] = {
    "object": lambda y: SimpleNamespace(scores=y),
    "object with slots": Slotted,
    "dataclass in a tuple": lambda y: (None, Held([y])),
    "set": lambda y: {y},
    "mapping": lambda y: UserDict(scores=y),
    "object in an object": lambda y: Held(SimpleNamespace(inner={"scores": Slotted(y)})),
}


@pytest.mark.parametrize("kind", RETURNED)
def test_an_output_inside_any_object_is_the_networks_output(kind: str) -> None:
    model = Net(lambda m, x: RETURNED[kind](m.b(m.a(x))), a=conv(3, 8), b=conv(8, 2))
    assert named(model) == {"b": "the network's output"}


def test_a_forward_without_tensors_is_refused() -> None:
    model = Net(lambda m, x: print(m.a(x).shape, file=StringIO()), a=conv(3, 8))
    with pytest.raises(PretrimError, match="Expected a forward that returns tensors"):
        pretrim.analyze(model, torch.zeros(1, 3, 8, 8))


# ---------------------------------------------------------------------------------------- small functions


@pytest.mark.parametrize(
    ("ins", "outs", "expected"),
    [
        ([2, 8], [2, 8], [([0], [0]), ([1], [1])]),
        ([2, 8, 5, 5], [2, 4, 2, 25], [([0], [0]), ([1], [1, 2]), ([2, 3], [3])]),
        ([2, 8, 4, 4], [2, 128], [([0], [0]), ([1, 2, 3], [1])]),
        ([6], [2, 3], [([0], [0, 1])]),
        ([4, 6], [6, 4], [([0, 1], [0, 1])]),
        ([1, 8, 8, 8], [8, 8, 8], [([0, 1], [0]), ([2], [1]), ([3], [2])]),
        ([2, 3, 1, 1], [2, 3], [([0], [0]), ([1], [1]), ([2], []), ([3], [])]),
    ],
)
def test_blocks(ins: list[int], outs: list[int], expected: Any) -> None:
    found = blocks(ins, outs)
    assert found == expected
    assert [np.prod([ins[i] for i in a]) for a, _ in found] == [np.prod([outs[j] for j in b]) for _, b in found]


@settings(suppress_health_check=[HealthCheck.too_slow])  # a loaded machine draws slowly
@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_blocks_cover_both_shapes_in_order_with_equal_products(ins: list[int], random: Any) -> None:
    outs = list(ins)
    while len(outs) > 1 and random.random() < 0.6:  # fold neighbours, and split one again
        place = random.randrange(len(outs) - 1)
        outs[place : place + 2] = [outs[place] * outs[place + 1]]
        if random.random() < 0.5:
            at = random.randrange(len(outs))
            factor = random.choice([f for f in range(1, outs[at] + 1) if outs[at] % f == 0])
            outs[at : at + 1] = [factor, outs[at] // factor]
    found = blocks(ins, outs)
    assert [i for a, _ in found for i in a] == list(range(len(ins)))
    assert [j for _, b in found for j in b] == list(range(len(outs)))
    for a, b in found:
        assert np.prod([ins[i] for i in a]) == np.prod([outs[j] for j in b])


def naive_components(count: int, edges: list[tuple[int, int]]) -> list[int]:
    """Union by relabelling everything, as slow and plain as can be."""
    label = list(range(count))
    for a, b in edges:
        low, high = sorted((label[a], label[b]))
        label = [low if at == high else at for at in label]
    return label


@settings(max_examples=200, derandomize=True, database=None, deadline=None)
@given(st.integers(1, 40).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.tuples(*[st.integers(0, n - 1)] * 2)))))
def test_connected_agrees_with_naive_union(drawn: tuple[int, list[tuple[int, int]]]) -> None:
    count, edges = drawn
    left = np.array([a for a, _ in edges], dtype=np.int64)
    right = np.array([b for _, b in edges], dtype=np.int64)
    assert connected(count, left, right).tolist() == naive_components(count, edges)


def test_connected_follows_long_chains() -> None:
    order = np.random.default_rng(0).permutation(20_000)
    assert not connected(20_000, order[:-1], order[1:]).any()


def test_a_ledger_forgets_what_was_noted_since_a_mark() -> None:
    channels = Channels()
    ids = channels.new(3)
    channels.tie(ids[:1], ids[1:2])
    mark = channels.mark()
    channels.tie(ids, channels.new(3))
    channels.freeze(ids, "module", "reason")
    channels.forget_since(mark)
    assert (channels.count, channels.freezes) == (3, [])
    assert channels.components().tolist() == [0, 0, 2]


def test_ties_broadcast_one_row_over_many() -> None:
    channels = Channels()
    ids = channels.new(6).reshape(3, 2)
    channels.tie(ids[:1], ids[1:])
    assert channels.components().tolist() == [0, 1, 0, 1, 0, 1]
