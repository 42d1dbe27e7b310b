"""Networks whose `forward` has several paths, chosen by a task or by a value: the slim network must run all of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from networks import conv
from torch import Tensor, nn

import pretrim
from pretrim.planning.search import plan_of_widths

IMAGE = torch.zeros(1, 3, 16, 16)


class Tasks(nn.Module):
    """A trunk and several heads, of which a call uses one."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(conv(3, 8), nn.ReLU(), conv(8, 12), nn.ReLU())
        self.heads = nn.ModuleDict(
            {name: nn.Sequential(conv(12, 10), nn.ReLU(), conv(10, out)) for name, out in (("a", 2), ("b", 5))}
        )

    def forward(self, x: Tensor, task: str = "a") -> Tensor:
        return self.heads[task](self.trunk(x))  # type: ignore[no-any-return]


class HeadsByName(nn.Module):
    """The same with heads that are looked up by similar names."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.head_a, self.head_b = conv(3, 8), conv(8, 2), conv(8, 5)

    def forward(self, x: Tensor, task: str = "a") -> Tensor:
        return getattr(self, f"head_{task}")(self.trunk(x))  # type: ignore[no-any-return]


def test_heads_with_similar_names_are_assumed_to_read_the_same_tensor() -> None:
    network = pretrim.analyze(HeadsByName(), IMAGE)
    assert [f.layer for f in network.frozen] == ["trunk", "head_a"]


class Graph(nn.Module):
    """Takes the features of nodes and an adjacency matrix, which is the same for every image."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(3, 8), nn.Linear(8, 2)

    def forward(self, nodes: Tensor, neighbours: Tensor) -> Tensor:
        return self.head(torch.relu(neighbours @ self.first(nodes)).mean(1))  # type: ignore[no-any-return]


@pytest.mark.parametrize("images", [1, 2])
def test_an_input_without_a_batch_dimension_is_not_split(images: int) -> None:
    network = pretrim.analyze(Graph(), (torch.zeros(images, 5, 3), torch.zeros(5, 5)))
    plan = plan_of_widths(network, network.dense // 2)
    assert plan.dense["macs"] == 5 * 3 * 8 + 5 * 5 * 8 + 8 * 2
    slim = plan.apply(Graph(), network=network)
    assert slim(torch.zeros(4, 5, 3), torch.zeros(5, 5)).shape == (4, 2)


class EarlyExit(nn.Module):
    """Exits early if its confidence, read as a tensor or as a Python number, is above a threshold."""

    def __init__(self, threshold: float, reads_number: bool) -> None:
        super().__init__()
        self.threshold, self.reads_number = threshold, reads_number
        self.early, self.late = nn.Sequential(conv(3, 8), nn.ReLU()), nn.Sequential(conv(8, 12), nn.ReLU())
        self.first, self.second = nn.Linear(8, 4), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.early(x)
        first = self.first(x.mean((2, 3)))
        sure: Any = first.softmax(1).amax()
        if (sure.item() if self.reads_number else sure) > self.threshold:
            return first  # type: ignore[no-any-return]
        return self.second(self.late(x).mean((2, 3)))  # type: ignore[no-any-return]


def halved(model: nn.Module, example: Any) -> Any:
    network = pretrim.analyze(model, example)
    return network, plan_of_widths(network, network.dense // 2).apply(model, network=network)


def test_what_an_unused_head_may_read_is_kept_and_noted() -> None:
    model = Tasks()
    network, slim = halved(model, IMAGE)
    for task, out in (("a", 2), ("b", 5)):
        assert slim(IMAGE, task).shape[1] == out
    assert "heads.b may read it" in {f.layer: f.reason for f in network.frozen}["trunk.2"]
    assert [note for note in network.notes if "no example runs heads.b" in note]
    assert slim.trunk[0].out_channels == 4 and slim.heads["a"][0].out_channels == 5


def test_several_examples_slim_what_each_of_them_runs() -> None:
    network, slim = halved(Tasks(), [(IMAGE, "a"), (IMAGE, "b")])
    assert {f.layer for f in network.frozen} == {"heads.a.2", "heads.b.2"}
    assert not network.notes
    for task, out in (("a", 2), ("b", 5)):
        assert slim(IMAGE, task).shape[1] == out
        assert slim.heads[task][0].out_channels == 5


def test_an_empty_list_of_examples_is_refused() -> None:
    with pytest.raises(pretrim.PretrimError, match="the list of examples is empty"):
        pretrim.analyze(Tasks(), [])


@pytest.mark.parametrize("reads_number", [False, True])
@pytest.mark.parametrize("threshold", [0.0, 1.1])
def test_both_branches_on_a_value_are_traced(threshold: float, reads_number: bool) -> None:
    _, slim = halved(EarlyExit(threshold, reads_number), IMAGE)
    assert slim.late[0].out_channels == 6
    for new_threshold in (0.0, 1.1):
        slim.threshold = new_threshold
        assert slim(torch.randn(1, 3, 16, 16)).shape == (1, 4)


class Loop(nn.Module):
    """Loops until a value is small: if the condition is always true, the loop never ends."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = conv(3, 8), conv(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        while x.abs().amax() > 1:
            x = x / 2
        return self.second(x)  # type: ignore[no-any-return]


def test_a_branch_that_never_ends_is_noted() -> None:
    network, slim = halved(Loop(), IMAGE)
    assert slim.first.out_channels == 4
    assert [note for note in network.notes if "where what it reads is True was not traced" in note]
