"""Where a network errs: the confusion matrix against scikit-learn's, the worst images, and pictures of both."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from sklearn.metrics import confusion_matrix, recall_score
from torch import nn

from pretrim.data import Split
from pretrim.errors import CheckpointError
from pretrim.train import (
    EpochRecord,
    Evaluation,
    compare,
    confusion_json,
    draw_confusion,
    draw_curve,
    draw_worst,
    evaluate,
    unpack,
    wilson,
    write_confusion,
    write_worst,
)
from pretrim.train.lettering import lettering

CLASSES = ("ant", "bee", "cat", "a dog with a very long name")


class Says(nn.Module):
    """The first four pixels are the scores."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1)[:, :4]


def split(images: int = 40, seed: int = 0, channels: int = 1) -> Split:
    """Random scores, and labels of three of the four classes."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (images, channels, 4, 4), dtype=torch.uint8, generator=generator)
    return Split(pixels, torch.randint(0, 3, (images,), generator=generator))


def evaluated(some: Split) -> Evaluation:
    channels = some.images.shape[1]
    return evaluate(Says(), some, (0.0,) * channels, (0.01,) * channels, batch_size=7)


def test_the_matrix_is_that_of_scikit_learn() -> None:
    some = split()
    found = evaluated(some)
    said = some.images[:].flatten(1)[:, :4].long().argmax(dim=1)
    assert torch.equal(found.predicted, said) and torch.equal(found.labels, some.labels)
    wanted = confusion_matrix(some.labels.numpy(), said.numpy(), labels=range(4))
    assert [list(row) for row in found.confusion] == wanted.tolist()
    recall = recall_score(some.labels.numpy(), said.numpy(), labels=range(3), average=None)
    assert found.per_class == (*(pytest.approx(value) for value in recall), None)
    assert found.images_per_class == (*wanted.sum(axis=1)[:3].tolist(), 0)
    assert found.accuracy == float((said == some.labels).double().mean())


def test_an_evaluation_says_how_sure_it_is_and_which_images_were_right() -> None:
    found = evaluated(split())
    right = round(found.accuracy * 40)
    assert found.interval == wilson(right, 40)
    plain = json.loads(json.dumps(found.to_json()))
    assert plain["interval_95"] == [found.interval.low, found.interval.high] and plain["images"] == 40
    assert torch.equal(unpack(plain["right"]), found.right)
    assert compare(found.right, unpack(plain["right"])).p_value == 1.0


def test_the_worst_are_those_with_the_largest_loss() -> None:
    some = split()
    found = evaluated(some)
    logits = some.images[:].flatten(1)[:, :4].float() / 2.55
    losses = [-float(row.log_softmax(0)[label]) for row, label in zip(logits, some.labels, strict=True)]
    assert found.losses.tolist() == pytest.approx(losses, abs=1e-3)
    assert found.worst(5) == sorted(range(40), key=lambda place: -losses[place])[:5]
    assert len(found.worst(100)) == 40
    assert found.loss == pytest.approx(sum(losses) / 40, rel=1e-4)


def test_a_score_that_is_no_number_is_the_worst() -> None:
    class Spoilt(Says):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            scores = super().forward(x).clone()
            scores[2] = float("nan")
            return scores

    found = evaluate(Spoilt(), split(6), (0.0,), (1.0,))
    assert found.worst(1) == [2] and found.plain_loss is None


def test_the_record_is_json(tmp_path: Path) -> None:
    found = evaluated(split())
    write_confusion(found, CLASSES, tmp_path / "confusion.json")
    plain: dict[str, Any] = json.loads((tmp_path / "confusion.json").read_text())
    assert plain == json.loads(json.dumps(confusion_json(found, CLASSES)))
    bee = plain["classes"][1]
    hits, images = found.confusion[1][1], found.images_per_class[1]
    assert bee == {"class": "bee", "images": images, "accuracy": hits / images, "interval_95": bee["interval_95"]}
    assert bee["interval_95"] == wilson(hits, images).to_json()
    assert plain["classes"][3] == {"class": CLASSES[3], "images": 0, "accuracy": None, "interval_95": None}
    assert plain["confusion"] == [list(row) for row in found.confusion]


@pytest.mark.parametrize("classes", [4, 30, 100])
def test_the_matrix_is_a_picture(tmp_path: Path, classes: int) -> None:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (200, 1, 10, 10), dtype=torch.uint8, generator=generator)
    some = Split(pixels, torch.randint(0, classes, (200,), generator=generator))
    found = evaluate(nn.Sequential(nn.Flatten(), nn.Linear(100, classes)), some, (0.0,), (1.0,))
    names = [f"class {number} of many" for number in range(classes)]
    draw_confusion(found, names, "a network", tmp_path / "confusion.png")
    with Image.open(tmp_path / "confusion.png") as picture:
        picture.load()
        assert picture.format == "PNG" and min(picture.size) > 400
    assert [path.name for path in tmp_path.iterdir()] == ["confusion.png"]


@pytest.mark.parametrize(("count", "channels"), [(1, 1), (9, 3), (100, 1)])
def test_the_worst_images_are_a_sheet_and_a_list(tmp_path: Path, count: int, channels: int) -> None:
    some = split(20, channels=channels)
    found = evaluated(some)
    draw_worst(found, some, CLASSES, count, tmp_path / "worst.png", "a network")
    write_worst(found, CLASSES, count, tmp_path / "worst.json")
    with Image.open(tmp_path / "worst.png") as picture:
        picture.load()
        assert picture.format == "PNG"
    listed = json.loads((tmp_path / "worst.json").read_text())["images"]
    assert [entry["place"] for entry in listed] == found.worst(count)
    first = listed[0]
    assert first["class"] == CLASSES[int(some.labels[first["place"]])]
    assert first["predicted"] == CLASSES[int(found.predicted[first["place"]])]
    assert first["loss"] == max(found.losses.tolist())


@pytest.mark.parametrize(
    "write",
    [
        lambda found, path: write_confusion(found, CLASSES, path),
        lambda found, path: draw_confusion(found, CLASSES, "", path),
        lambda found, path: write_worst(found, CLASSES, 3, path),
        lambda found, path: draw_worst(found, split(), CLASSES, 3, path),
    ],
)
def test_what_cannot_be_written_is_said(tmp_path: Path, write: Callable[[Evaluation, Path], None]) -> None:
    with pytest.raises(CheckpointError, match=r"Cannot write .*No such file or directory"):
        write(evaluated(split()), tmp_path / "nowhere" / "x")


NAMES = (
    "\N{CAT FACE}\N{VARIATION SELECTOR-16}",
    "\u732b\u72ac",
    "$\\frac{$",
    "tab\there \udcff",
    "\N{SHORTCAKE}",
    "a_b^c",
)


def test_any_name_is_drawn_without_a_warning(tmp_path: Path) -> None:
    """Emoji, CJK, dollars and bytes that are no text; warnings are errors here."""
    some = split()
    found = evaluated(some)
    for place, classes in enumerate((NAMES[:4], NAMES[2:])):
        draw_confusion(found, classes, f"net, slim, on {classes[0]}", tmp_path / f"confusion{place}.png")
        draw_worst(found, some, classes, 5, tmp_path / f"worst{place}.png", title=classes[1])
    records = [EpochRecord(number, 1.0, 0.5, 0.5, 0.1, 100.0, 1.0) for number in (1, 2)]
    draw_curve(records, NAMES[0], tmp_path / "curve.png", 0.5, chance_words=NAMES[2])
    assert len(list(tmp_path.glob("*.png"))) == 5


def test_letters_come_from_a_font_that_has_them_or_are_question_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    texts, look = lettering("plain", "$x$")
    assert texts == ["plain", "$x$"] and not look["parse_math"]
    missing = frozenset("\u732b")
    monkeypatch.setattr(
        "pretrim.train.lettering._family_with", lambda letters: "A Font" if letters <= missing else None
    )
    assert lettering("\u732b a")[0] == ["\u732b a"] and lettering("\u732b a")[1]["fontfamily"][-1] == "A Font"
    assert lettering("\u732b\x07\N{VARIATION SELECTOR-256}b\n")[0] == ["??b\n"]
