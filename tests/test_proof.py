"""What the proof says of int8: each output, and each part of a concatenation, on its own scale."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pretrim.deploy import RUNTIMES, SUFFIXES, export, open_session
from pretrim.deploy.parts import Region
from pretrim.deploy.proof import LEAST_PART_SQNR_DB, LEAST_SQNR_DB, prove
from pretrim.errors import ExportError

RATIOS = [1, 3, 10, 30, 100, 300, 1000]


def rounded(values: np.ndarray, largest: float) -> np.ndarray:
    """As int8 with one scale over 0 to `largest` rounds."""
    return np.rint(values * 255 / largest) * largest / 255


def decibels(wanted: np.ndarray, got: np.ndarray) -> float:
    return 10 * np.log10((wanted**2).sum() / max(((wanted - got) ** 2).sum(), 1e-30))


def boxes_and_scores() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    return random.uniform(0, 1, (40, 4, 16)), 0.9 * random.beta(0.3, 3, (40, 3, 16))


def regions() -> list[Region]:
    masks = np.zeros((2, 7, 16), dtype=bool)
    masks[0, :4], masks[1, 4:] = True, True
    return [Region(0, masks[0], "channels 0 to 3"), Region(0, masks[1], "channels 4 to 6")]


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("together", [True, False], ids=["concatenated", "two outputs"])
def test_scores_beside_larger_boxes_are_judged_on_their_own_scale(ratio: int, together: bool) -> None:
    """One scale over both ranges, whatever their ratio: proved where the scores are, refused where they are lost."""
    boxes, scores = boxes_and_scores()
    boxes = boxes * ratio
    got = rounded(boxes, max(ratio, 0.9)), rounded(scores, max(ratio, 0.9))
    if together:
        found = prove(
            [np.concatenate([boxes, scores], 1)], [np.concatenate(got, 1)], is_int8=True, inputs="x", regions=regions()
        )
        least, name = LEAST_PART_SQNR_DB, "channels 4 to 6"
    else:
        found = prove([boxes, scores], list(got), is_int8=True, inputs="x")
        least, name = LEAST_SQNR_DB, "output 1"
    lost = decibels(scores, got[1]) < least
    assert lost == (ratio >= 30)  # the family has both
    assert [said for said in found.failed if said.startswith(name)] == list(found.failed)
    assert bool(found.failed) == lost
    own = next(part for part in found.parts if part.name == name)
    assert own.sqnr_db == pytest.approx(decibels(scores, got[1]))
    assert (own.largest, own.output) == (pytest.approx(scores.max()), 0 if together else 1)


def test_values_that_become_a_constant_are_lost_though_their_power_is_not() -> None:
    """0.85 to 0.95 beside 640: the constant 0.9 has 30 dB, and none of what the values tell."""
    boxes, scores = boxes_and_scores()
    boxes, scores = boxes * 640, 0.85 + scores / 9
    got = np.concatenate([rounded(boxes, 640), np.full_like(scores, scores.mean())], 1)
    wanted = np.concatenate([boxes, scores], 1)
    found = prove([wanted], [got], is_int8=True, inputs="x", regions=regions())
    assert decibels(scores, got[:, 4:]) > 25
    assert [said.partition(":")[0] for said in found.failed] == ["channels 4 to 6"]
    assert "the variance is" in found.failed[0] and "not 10 dB or more" in found.failed[0]


def test_a_constant_is_not_asked_to_vary() -> None:
    """Offsets of a grid, the same for each image, up to the rounding of int8."""
    boxes, scores = boxes_and_scores()
    constant = np.full_like(boxes, 0.8)
    found = prove([constant, scores], [rounded(constant, 0.9), rounded(scores, 0.9)], is_int8=True, inputs="x")
    assert found.failed == ()
    zero = np.zeros_like(scores)
    wanted, got = np.concatenate([boxes, zero], 1), np.concatenate([rounded(boxes, 1), zero + 1e-4], 1)
    assert prove([wanted], [got], is_int8=True, inputs="x", regions=regions()).failed == ()


def test_float32_is_judged_on_the_scale_of_each_output() -> None:
    boxes, scores = boxes_and_scores()
    off = scores + 0.01  # 1.6e-05 of the boxes, 1e-02 of the scores
    found = prove([boxes * 640, scores], [boxes * 640, off], is_int8=False, inputs="x")
    assert found.failed == (
        f"output 1: values differ by {0.01 / scores.max():.1e} of the largest, not by at most 1e-04",
    )
    assert found.relative_error == pytest.approx(0.01 / scores.max())


def test_how_to_split_is_said_where_ranges_are_unequal() -> None:
    boxes, scores = boxes_and_scores()
    wanted = np.concatenate([boxes * 640, scores], 1)
    said = prove([wanted], [rounded(wanted, 640)], is_int8=True, inputs="x", regions=regions()).advice
    largest = f"{scores.max():.3g}"
    assert said == (
        f"one int8 scale covers all of the output, up to {(boxes * 640).max():.3g}, and leaves 0 of its 255 levels to "
        f"channels 4 to 6 up to {largest}: return what is concatenated as separate outputs, each with a scale of its "
        "own",
    )
    unknown = prove([wanted], [rounded(wanted, 640)], is_int8=True, inputs="x").advice  # no one knows of the parts
    assert (
        len(unknown) == 1 and "to channel 4 up to" in unknown[0] and "return these channels as separate" in unknown[0]
    )
    assert prove([scores], [rounded(scores, 0.9)], is_int8=True, inputs="x", regions=()).advice == ()


@given(st.floats(0.1, 10), st.floats(1e-3, 1))
def test_what_falls_short_of_a_limit_never_reads_as_the_limit(short: float, scale: float) -> None:
    """20.0 dB is not "20.0 dB, not 20 dB or more", and 1.0e-04 not "1.0e-04, not at most 1e-04"."""
    wanted = scale * np.random.default_rng(0).normal(size=(20, 10))
    error = wanted * 10 ** -((LEAST_SQNR_DB - short * 1e-3) / 20)
    said = prove([wanted], [wanted + error], is_int8=True, inputs="x").failed
    assert len(said) == 1 and float(re.findall(r"[\d.]+", said[0])[0]) < LEAST_SQNR_DB
    off = np.zeros_like(wanted)
    off[0, 0] = (1 + short * 1e-6) * 1e-4 * np.abs(wanted).max()
    said = prove([wanted], [wanted + off], is_int8=False, inputs="x").failed
    assert all(float(re.findall(r"[\d.]+e-\d+", text)[0]) > 1e-4 for text in said)


# ---------------------------------------------------------------------------------------- in the real runtimes


class Detector(nn.Module):
    """Boxes in pixels and scores between 0 and 1 of each cell, together or as two outputs."""

    def __init__(self, together: bool, size: float) -> None:
        super().__init__()
        self.together, self.size = together, size
        layers: list[nn.Module] = []
        for inputs, outputs in ((3, 16), (16, 24), (24, 32)):
            layers += [nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        self.body, self.box, self.score = nn.Sequential(*layers), nn.Conv2d(32, 4, 1), nn.Conv2d(32, 3, 1)

    def forward(self, x: torch.Tensor) -> Any:
        x = self.body(x)
        box = self.box(x).flatten(2).sigmoid() * self.size
        score = self.score(x).flatten(2).sigmoid() * 0.9
        return torch.cat([box, score], 1) if self.together else (box, score)


def detector(together: bool, size: float) -> tuple[Detector, torch.Tensor]:
    torch.manual_seed(0)
    network, images = Detector(together, size).train(), torch.rand(48, 3, 32, 32)
    with torch.no_grad():
        network.box.weight.mul_(25)
        network.score.weight.mul_(25)
        for _ in range(30):
            network(images)
        network.score.bias.fill_(-2)
    return network.eval(), images


@pytest.mark.parametrize("to", RUNTIMES)
def test_a_detector_in_int8_is_right_or_refused_with_the_way_to_split(to: Any, tmp_path: Path) -> None:
    network, images = detector(together=True, size=640)
    file = tmp_path / f"model{SUFFIXES[to]}"
    with pytest.raises(
        ExportError,
        match=r"channels 4 to 6: the signal is .*: one int8 scale covers all of the output.*: "
        r"return what is concatenated as separate outputs",
    ):
        export(network, file, to, images=images[:16], calibration=images)
    assert list(tmp_path.iterdir()) == []
    network.together = False
    made = export(network, file, to, images=images[:16], calibration=images)
    assert [part["name"] for part in made.proof["parts"]] == ["output 0", "output 1"]
    assert not any("one int8 scale" in note for note in made.notes)
    with torch.no_grad():
        scores = network(images[:16])[1].numpy()
    got = open_session(to, file)(images[:16].numpy())[1]
    assert decibels(scores, got) >= LEAST_SQNR_DB
    assert made.proof["parts"][1]["sqnr_db"] == pytest.approx(decibels(scores, got), abs=0.01)
