"""Recognise box annotations in the formats COCO, YOLO and Pascal VOC, to tell the user how to use them."""

from __future__ import annotations

from pathlib import Path

from pretrim.errors import UsageError

from .images import SUFFIXES

COCO = ("_annotations.coco.json", "annotations/*.json", "*/_annotations.coco.json", "instances*.json")
YOLO = ("data.yaml", "dataset.yaml", "labels/*.txt", "labels/*/*.txt", "*/labels/*.txt")
VOC = ("Annotations/*.xml", "annotations/*.xml", "*/Annotations/*.xml")
KEYS_OF_COCO = (b'"bbox"', b'"categories"')
HEAD_BYTES = 1 << 20
"""Bytes of a JSON file to search: a long list of images may precede the annotations."""


def format_of(path: Path) -> str | None:
    """Return ``COCO``, ``YOLO`` or ``Pascal VOC`` if a folder or file holds such annotations, else None."""
    if not path.is_dir():
        return _format_of_file(path)
    for name, patterns in (("COCO", COCO), ("YOLO", YOLO), ("Pascal VOC", VOC)):
        if any(True for pattern in patterns for _ in path.glob(pattern)):
            return name
    if any(_is_coco(file) for file in path.glob("*.json")):
        return "COCO"
    return next(
        (name for name, suffix in (("YOLO", ".txt"), ("Pascal VOC", ".xml")) if _beside_images(path, suffix)), None
    )


def _format_of_file(file: Path) -> str | None:
    if file.suffix in (".yaml", ".yml") and file.is_file():
        return "YOLO"
    return "COCO" if file.suffix == ".json" and _is_coco(file) else None


def _is_coco(file: Path) -> bool:
    if not file.is_file():
        return False
    with file.open("rb") as opened:
        head = opened.read(HEAD_BYTES)
    return any(key in head for key in KEYS_OF_COCO)


def _beside_images(folder: Path, suffix: str) -> bool:
    """Whether any file with this suffix shares its name with an image in the same folder."""
    images = {entry.stem for entry in folder.iterdir() if entry.suffix.lower() in SUFFIXES}
    return any(entry.suffix == suffix and entry.stem in images for entry in folder.iterdir())


def refuse(path: Path, name: str) -> UsageError:
    """Return the error that tells the user what to do with boxes."""
    reader = "reads such data" if name == "COCO" else f"reads COCO, and can be given a reader of {name}"
    return UsageError(
        f"{path} holds boxes in the format of {name}, for object detection: train a detector by a task of your own, "
        f"--task FILE.py:CLASS; examples/detection has one that {reader}."
    )
