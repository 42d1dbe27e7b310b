"""Folders of boxes, in the formats COCO and YOLO: recognised, so that what to do with them can be said."""

from __future__ import annotations

from pathlib import Path

from pretrim.errors import UsageError

COCO = ("_annotations.coco.json", "annotations/*.json", "*/_annotations.coco.json", "instances*.json")
YOLO = ("data.yaml", "dataset.yaml", "labels/*.txt", "labels/*/*.txt", "*/labels/*.txt")


def format_of(folder: Path) -> str | None:
    """``COCO`` or ``YOLO``, where a folder holds such annotations."""
    for name, patterns in (("COCO", COCO), ("YOLO", YOLO)):
        if any(True for pattern in patterns for _ in folder.glob(pattern)):
            return name
    return None


def refuse(folder: Path, name: str) -> UsageError:
    """The error that says what to do."""
    return UsageError(
        f"{folder} holds boxes in the format of {name}, for object detection: train a detector by a task of your own, "
        f"--task FILE.py:CLASS; examples/detection has one that reads such data."
    )
