"""Layers kept by name: in every mode they keep their filters and the limit holds; a wrong name is a one-line error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import pretrim
from pretrim.analysis.network import Network
from pretrim.errors import InfeasibleBudget, UsageError
from pretrim.jobs.options import Keeping, Search, read_widths
from pretrim.jobs.plan import profile_network
from pretrim.jobs.sweep import StudyOptions, SweepOptions, _specs
from pretrim.models import BUILTIN
from pretrim.planning.options import Options
from pretrim.planning.plan import Plan
from pretrim.study.settings import TrialSpec

MODES = ["balanced", "params", "macs", "memory", "joint", "uniform", "random", "waterfill"]


@pytest.fixture(scope="module")
def resnet20() -> tuple[nn.Module, Network]:
    model = BUILTIN["resnet20"]()
    return model, pretrim.analyze(model, torch.zeros(1, 3, 32, 32))


@pytest.mark.parametrize("mode", MODES)
def test_frozen_layers_keep_all_filters_and_others_their_minimum(
    resnet20: tuple[nn.Module, Network], mode: str
) -> None:
    model, network = resnet20
    plan = network.plan(macs="0.5x", mode=mode, freeze=["stem", "stages.2.*.conv1"], min_width={"stages.1": 20})
    slim = plan.apply(model, network=network)
    filters = {name: m.out_channels for name, m in slim.named_modules() if isinstance(m, nn.Conv2d)}
    assert filters["stem.0"] == filters["stages.0.2.conv2"] == 16  # coupled by the residual stream
    assert [filters[f"stages.2.{n}.conv1"] for n in range(3)] == [64, 64, 64]
    assert min(filters[f"stages.1.{n}.conv1"] for n in range(3)) >= 20
    assert plan.slim["macs"] <= 0.5 * plan.dense["macs"]


def test_a_plan_records_frozen_layers_and_minimum_widths(resnet20: tuple[nn.Module, Network]) -> None:
    plan = resnet20[1].plan(macs="0.5x", freeze=["stem"], min_width={"stages.1": 20})
    assert Plan.from_json(plan.to_json()).to_json() == plan.to_json()
    assert plan.options["freeze"] == ["stem"] and plan.options["min_width"] == {"stages.1": 20}


def test_the_largest_minimum_width_applies(resnet20: tuple[nn.Module, Network]) -> None:
    network = resnet20[1]
    plan = network.plan(macs="0.2x", round_to=1, min_width={"*": 6, "stages.0.0.conv1": 12, "stages.0": 9})
    kept = {group.name: group.kept for group in plan.groups}
    assert kept["stages.0.0.conv1"] >= 12 and kept["stages.0.1.conv1"] >= 9 and min(kept.values()) >= 6


def test_freezing_every_layer_meets_no_limit(resnet20: tuple[nn.Module, Network]) -> None:
    with pytest.raises(InfeasibleBudget, match="freeze fewer layers"):
        resnet20[1].plan(macs="0.5x", freeze=["*"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"freeze": ["stagse"]}, "No layer is named by freeze 'stagse': did you mean stages?"),
        ({"freeze": [3]}, "Expected freeze to be a list of names of layers"),
        ({"min_width": {"zzz": 3}}, "No layer is named by min_width 'zzz'"),
        ({"min_width": {"stem": 0}}, "Expected min_width of stem to be at least 1, but got 0."),
        ({"min_width": {"stem": 1.5}}, "Expected min_width of stem to be a whole number"),
    ],
)
def test_a_wrong_layer_or_minimum_width_is_refused_in_one_line(
    resnet20: tuple[nn.Module, Network], options: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message.replace("?", r"\?")):
        resnet20[1].plan(macs="0.5x", **options)


def test_the_profile_shows_frozen_layers_with_their_reason(resnet20: tuple[nn.Module, Network]) -> None:
    record = profile_network(resnet20[1], keeping=Keeping(freeze=("stages.0.*.conv2",), min_width={"stages.1": 20}))
    reasons = {frozen["layer"]: frozen["reason"] for frozen in record.frozen}
    assert reasons["stages.0.1.conv2"] == "frozen as asked (stages.0.*.conv2)"
    assert reasons["stem.0"] == "coupled with stages.0.0.conv2, frozen as requested"
    least = {group["name"]: group["min_width"] for group in record.groups}
    assert least["stages.1.0.conv1"] == 20 and least["stages.2.0.conv1"] == 1 and "stem.0" not in least


def test_the_command_line_reads_numbers_and_patterns() -> None:
    assert read_widths(["4"]) == 4 and read_widths(["a=1", "2", "a.b=3"]) == {"a": 1, "*": 2, "a.b": 3}
    for wrong in ("x", "a=", "=3", "a=-1", "9" * 5000, "1.5"):
        with pytest.raises(UsageError, match="Expected --min-width"):
            read_widths([wrong])


def test_plan_and_sweep_pass_on_the_same_options() -> None:
    search = Search(freeze=("stem",), min_width={"stages.1": 20}).options()
    study = StudyOptions(sweep=SweepOptions(freeze=("stem",), min_width={"stages.1": 20}))
    trial = next(spec for spec in _specs(study) if spec.mode == "balanced")
    assert (trial.options().freeze, trial.options().min_width) == (search.freeze, search.min_width)
    assert TrialSpec.from_json(trial.to_json()) == trial and "freeze stem, min_width stages.1=20" in trial.name


def test_a_trial_without_frozen_layers_has_no_new_entries_in_its_key() -> None:
    assert "freeze" not in TrialSpec("macs", 0.5, "macs").to_json()
    assert TrialSpec("macs", 0.5, "macs").options().min_width == Options().min_width


class Topped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(4, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.a(x))
        x = torch.topk(x, 4, dim=1).values  # the line that freezes
        return self.b(x)


def test_a_frozen_layer_names_the_line_of_the_users_code() -> None:
    frozen = {f.layer: f for f in pretrim.analyze(Topped(), torch.zeros(1, 3, 8, 8)).frozen}
    lines = Path(__file__).read_text().splitlines()
    number = 1 + next(n for n, text in enumerate(lines) if "torch.topk" in text)
    assert frozen["a"].source_line == f"test_named_layers.py:{number}"


def test_no_line_is_named_for_code_inside_torch() -> None:
    """The line that called `analyze` must not be named as the reason."""
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Flatten(2), nn.AdaptiveMaxPool1d(3), nn.LPPool1d(2, 3))
    network = pretrim.analyze(model, torch.zeros(1, 3, 8, 8))
    assert all(not f.source_line for f in network.frozen)


def test_randomly_frozen_layers_keep_all_filters() -> None:
    random = np.random.default_rng(0)
    model = BUILTIN["mobilenetv2"](num_classes=10)
    network = pretrim.analyze(model, torch.zeros(1, 3, 32, 32))
    names = [group.name for group in network.groups]
    for _ in range(5):
        frozen = list(random.choice(names, 5, replace=False))
        plan = network.plan(macs="0.7x", freeze=frozen, min_width=8)
        assert all(g.kept == g.channels for g in plan.groups if g.name in frozen)
