"""Predictions of a run for single images: paths, PIL images, tensors or arrays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretrim.errors import DataError, ModelError, UsageError, check_is

if TYPE_CHECKING:
    import torch

    from pretrim.runs.classifier import TrainedClassifier
    from pretrim.runs.record import RunRecord
    from pretrim.train import Task

BATCH = 64


def predict_images(opened: TrainedClassifier, task: Task, images: Any, top: int) -> list[dict[str, Any]]:
    """Return the most likely classes of each image with their probabilities, as plain JSON; see `run.Run.predict`.

    Args:
        opened: the network with its input shape and normalisation.
        task: the run's task.
        images: one or several images, as for `Run.predict`.
        top: number of classes to return per image.

    Raises:
        UsageError: no image, or an object that is not an image.
        DataError: a file that is not an image, or images of another kind or shape than the network was trained on.
        ModelError: scores that are not finite.
    """
    import torch

    from pretrim.train import main_output

    named = _named_images(images, opened.input_shape)
    prepared = [_prepared(image, name, opened) for name, image in named]
    parts = [torch.stack(prepared[start : start + BATCH]) for start in range(0, len(prepared), BATCH)]
    outputs = torch.cat([main_output(opened.network, part, *opened.normalisation) for part in parts])
    names = [name for name, _ in named]
    for name, scores in zip(names, outputs, strict=True):
        if not scores.isfinite().all():
            raise ModelError(f"The network gives scores for {name} that are not finite: train it again.")
    answers = task.answer(outputs, opened.classes, top)
    return [{"image": name, "predictions": answer} for name, answer in zip(names, answers, strict=True)]


def _named_images(images: Any, shape: Sequence[int]) -> list[tuple[str, Any]]:
    """Pair each image with a name: its path, or its index. Raises UsageError for no images or other objects."""
    import numpy as np
    import torch
    from PIL import Image

    if isinstance(images, str | Path | Image.Image):
        images = [images]
    elif isinstance(images, torch.Tensor | np.ndarray):
        images = list(images) if images.ndim == len(shape) + 1 else [images]
    check_is(images, Sequence, "images to be paths, PIL images, tensors or arrays, one or a list of them")
    if not len(images):
        raise UsageError("No image given: name one or more files.")
    for image in images:
        check_is(image, (str, Path, Image.Image, torch.Tensor, np.ndarray), "a path, PIL image, tensor or array")
    return [
        (str(image) if isinstance(image, str | Path) else f"image {place}", image) for place, image in enumerate(images)
    ]


def _prepared(image: Any, name: str, opened: TrainedClassifier) -> torch.Tensor:
    """Prepare an image as in the training, without normalisation. Raises DataError for another kind or shape."""
    from PIL import Image

    from pretrim.data import decode_image
    from pretrim.data.items import kind_of, pixels, sizes_text, values

    _check_kind(image, name, opened.record)
    if isinstance(image, str | Path | Image.Image):
        return decode_image(image, opened.input_shape, opened.padding, opened.fit)
    prepared = values(image, None, name) if opened.record.as_given else pixels(image, None, name)
    if tuple(prepared.shape) != tuple(opened.input_shape):
        raise DataError(
            f"Expected images of {sizes_text(opened.input_shape)}, as the run takes them, but {name} is "
            f"{kind_of(image)}: resize it as in the training."
        )
    return prepared


def _check_kind(image: Any, name: str, record: RunRecord) -> None:
    """Raise DataError for pixels or a file if the run was trained on floats, and the other way round."""
    import numpy as np
    import torch

    from pretrim.data.items import is_bytes, is_of_values, kind_of

    is_numbers = isinstance(image, torch.Tensor | np.ndarray)
    got = name if isinstance(image, str | Path) else kind_of(image)
    if record.as_given and not is_of_values(image):
        raise DataError(
            f"Expected float tensors, as the data set gave them to the training (what made them is not recorded), but "
            f"got {got}: give such tensors to run.predict in Python, or train on uint8 or PIL images."
        )
    if not record.as_given and is_numbers and not is_bytes(image):
        raise DataError(
            f"Expected pixels of 0..255 as uint8, which the run normalises itself, but got {got}: give uint8, or the "
            f"file."
        )
