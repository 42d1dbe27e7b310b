"""Widths that modules keep in a configuration (dict, dataclass, namespace): those of each module follow its layers."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import conv
from reference import masked, randomise, relative_error, run
from torch import Tensor, nn

import pretrim
from pretrim.surgery.apply import cut, kept_channels

IMAGES = torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@dataclass(frozen=True)
class Frozen:
    dim: int = 16
    size: int = 8


@dataclass
class Slots:
    __slots__ = ("dim", "size")
    dim: int
    size: int


class Named(NamedTuple):
    dim: int = 16
    size: int = 8


@dataclass
class Outer:
    model: Frozen = field(default_factory=Frozen)


class Block(nn.Module):
    """The same whatever the numbers come from."""

    def __init__(self, cfg: Any) -> None:
        super().__init__()
        self.cfg = cfg
        self.conv = conv(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x)).contiguous()


class Attribute(Block):
    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x)).view(-1, self.cfg.dim, 8, 8)


class Item(Block):
    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x)).view(-1, self.cfg["dim"], 8, 8)


class Alias(Block):
    def forward(self, x: Tensor) -> Tensor:
        cfg = self.cfg
        x = F.relu(self.conv(x))
        return x.view(-1, cfg.dim, cfg.size, cfg.size)


class Nested(Block):
    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x)).view(-1, self.cfg.model.dim, 8, 8)


class Listed(Block):
    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x)).view(-1, self.cfg["dims"][0], 8, 8)


class Checked(Block):
    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[1] == self.cfg.dim, f"expected {self.cfg.dim} channels"
        return F.relu(self.conv(x))


class Folded(Block):
    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(x)).view(-1, self.cfg.dim * 64)
        return x.view(-1, self.cfg.dim, 8, 8)


class Halves(Block):
    def forward(self, x: Tensor) -> Tensor:
        first, second = self.conv(x).split(self.cfg.dim // 2, dim=1)
        return torch.cat([F.relu(first), F.relu(second)], 1)


KINDS: dict[str, tuple[type[Block], Callable[[], Any]]] = {
    "namespace": (Attribute, lambda: SimpleNamespace(dim=16, size=8)),
    "frozen dataclass": (Attribute, Frozen),
    "dataclass with slots": (Attribute, lambda: Slots(16, 8)),
    "named tuple": (Attribute, Named),
    "dict": (Item, lambda: {"dim": 16, "size": 8}),
    "mapping": (Item, lambda: UserDict({"dim": 16})),
    "alias": (Alias, Frozen),
    "nested": (Nested, Outer),
    "dict in a namespace": (Nested, lambda: SimpleNamespace(model=SimpleNamespace(dim=16))),
    "list in a dict": (Listed, lambda: {"dims": [16, 16, 32], "dim": 16}),
    "checked": (Checked, Frozen),
    "folded": (Folded, Frozen),
    "halves": (Halves, Frozen),
}


def text(cfg: Any) -> str:
    return repr(cfg.data if isinstance(cfg, UserDict) else cfg)


def network(block: type[Block], cfg: Any) -> Any:
    """Two blocks of one configuration, which become of two widths."""
    return randomise(nn.Sequential(conv(3, 16), block(cfg), conv(16, 16), block(cfg), conv(16, 2)), 0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_number_of_a_configuration_follows_exactly(kind: str) -> None:
    block, make = KINDS[kind]
    cfg = make()
    before = text(cfg)
    model, plain = network(block, cfg), network(Block, None)
    analysed = pretrim.analyze(model, IMAGES)
    assert [frozen.layer for frozen in analysed.frozen] == ["4"]
    widths = analysed.dense // 2
    widths[-1] = analysed.dense[-1] // 4
    keep = kept_channels(analysed, widths, np.random.default_rng(0).random(len(analysed.group_of)))
    slim = cut(model, analysed, widths, keep, rescale=False)
    assert len({slim[1].conv.out_channels, slim[3].conv.out_channels}) == 2
    assert relative_error(run(slim, IMAGES), run(masked(plain, analysed, keep), IMAGES)) < 1e-10
    assert model[1].cfg is model[3].cfg is cfg and text(cfg) == before
    assert slim[1].cfg is not cfg and slim[3].cfg is not slim[1].cfg
    assert run(model, IMAGES)[0].shape == run(slim, IMAGES)[0].shape, "the caller's configuration is as it was"


class Hidden(Block):
    """Keeps its configuration as Lightning keeps `hparams`: behind a property without a setter."""

    def __init__(self, cfg: Any) -> None:
        super().__init__(None)
        self._hparams = cfg

    @property
    def hparams(self) -> Any:
        return self._hparams

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x)).view(-1, self.hparams.dim, 8, 8)


def test_a_configuration_behind_a_property_follows() -> None:
    cfg = SimpleNamespace(dim=16, rate=0.1)
    model = network(Hidden, cfg)
    analysed = pretrim.analyze(model, IMAGES)
    assert [frozen.layer for frozen in analysed.frozen] == ["4"]
    slim: Any = analysed.plan(macs="0.4x", round_to=1).apply(model)
    assert slim[1].hparams.dim == slim[1].conv.out_channels < 16
    assert slim[1].hparams.rate == 0.1 and cfg.dim == 16


def test_a_number_of_the_same_value_that_nobody_reads_stays() -> None:
    model = network(Attribute, SimpleNamespace(dim=16, batch=16, epochs=16))
    analysed = pretrim.analyze(model, IMAGES)
    slim = analysed.plan(macs="0.4x", round_to=1).apply(model)
    assert (slim[1].cfg.batch, slim[1].cfg.epochs) == (16, 16)
    assert slim[1].cfg.dim == slim[1].conv.out_channels < 16


class ReadOnly(Mapping[str, int]):
    def __getitem__(self, name: str) -> int:
        return {"dim": 16}[name]

    def __iter__(self) -> Iterator[str]:
        return iter(["dim"])

    def __len__(self) -> int:
        return 1


class OnlyOne:
    """A copy of it is itself."""

    dim: int

    def __copy__(self) -> OnlyOne:
        return self

    def __deepcopy__(self, memo: Any) -> OnlyOne:
        return self


def only_one() -> OnlyOne:
    made = OnlyOne()
    made.dim = 16
    return made


@pytest.mark.parametrize(("block", "cfg"), [(Item, ReadOnly()), (Attribute, only_one())], ids=["read-only", "only one"])
def test_what_cannot_be_changed_for_one_module_alone_freezes(block: type[Block], cfg: Any) -> None:
    analysed = pretrim.analyze(network(block, cfg), IMAGES)
    assert [frozen.layer for frozen in analysed.frozen] == ["1.conv", "3.conv", "4"]
    assert "view with the number 16, which stays" in analysed.frozen[0].reason
    assert (cfg["dim"] if block is Item else cfg.dim) == 16
