"""What a training leaves to look at."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from pretrim.errors import CheckpointError, UsageError
from pretrim.train import EpochRecord, check_trackers, draw_curve, write_log
from pretrim.train.log import curves


def record(epoch: int, validation: float | None = 0.5) -> EpochRecord:
    return EpochRecord(epoch, 2.0 / epoch, 0.4 + epoch / 100, validation, 0.1, 100.0, 1.5)


def test_the_log_has_a_line_an_epoch(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    for count in (1, 2):  # it is written anew after every epoch
        write_log([record(epoch) for epoch in range(1, count + 1)], path)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    assert lines[1] == {
        "epoch": 2,
        "train_loss": 1.0,
        "train_accuracy": 0.42000000000000004,
        "validation_accuracy": 0.5,
        "learning_rate": 0.1,
        "images_per_s": 100.0,
        "seconds": 1.5,
        "validation_loss": None,
    }


def test_the_lines_of_the_curve() -> None:
    loss, accuracy = curves([record(1), record(2)])
    assert [(line.label, line.epochs, line.values) for line in loss] == [("training", [1, 2], [2.0, 1.0])]
    assert [(line.label, line.values) for line in accuracy] == [
        ("training", pytest.approx([41, 42])),
        ("validation", [50.0, 50.0]),
    ]
    assert [line.label for line in curves([record(1, None)])[1]] == ["training"]


def test_the_loss_of_the_validation_images_is_beside_that_of_the_training() -> None:
    """Where it rises, the network learns the training images by heart."""
    loss, _ = curves([replace(record(1), validation_loss=2.5), record(2), replace(record(3), validation_loss=3.0)])
    assert [(line.label, line.epochs, line.values) for line in loss][1] == ("validation", [1, 3], [2.5, 3.0])


def test_the_curve_is_a_picture(tmp_path: Path) -> None:
    records = [replace(record(epoch), validation_loss=2.0) for epoch in (1, 2, 3)]
    draw_curve(records, "a network", tmp_path / "curve.png", chance=0.2)
    with Image.open(tmp_path / "curve.png") as picture:
        picture.load()
        assert picture.format == "PNG" and picture.width > 600
        colours = {colour for _, colour in picture.convert("RGB").getcolors(picture.width * picture.height) or []}
    assert {(0x1F, 0x6F, 0xB4), (0x9A, 0x9A, 0x9A), (0xC4, 0x4E, 0x52)} <= colours
    assert [path.name for path in tmp_path.iterdir()] == ["curve.png"]


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    for write in (lambda p: write_log([record(1)], p), lambda p: draw_curve([record(1)], "", p)):
        with pytest.raises(CheckpointError, match=r"Cannot write .*No such file or directory"):
            write(tmp_path / "nowhere" / "x")


def test_trackers_are_known_and_installed() -> None:
    check_trackers(["tensorboard"])
    with pytest.raises(UsageError, match=r"Expected a tracker of .*tensorboard.*, but got 'tensorbored'"):
        check_trackers(["tensorbored"])
    with pytest.raises(UsageError, match="The tracker comet_ml is not installed: pip install comet_ml"):
        check_trackers(["comet_ml"])
