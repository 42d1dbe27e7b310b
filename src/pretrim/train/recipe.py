"""What a training does, apart from the machine it runs on: a frozen recipe, and presets for known data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from numbers import Integral, Real
from typing import Any, Literal, TypeAlias, get_args, get_type_hints

from pretrim.data import Augmentation
from pretrim.errors import UsageError, hint, shown

Schedule: TypeAlias = Literal["cosine", "onecycle"]
Balance: TypeAlias = Literal["none", "loss", "sampling"]

LARGEST_SEED = 2**64 - 1
LARGEST_COUNT = 2**31 - 1


@dataclass(frozen=True)
class Recipe:
    """How a network is trained: SGD with Nesterov momentum (Sutskever et al. 2013).

    Attributes:
        epochs: passes over the training images.
        batch_size: images a step, over all processes, or all of them if there are fewer. A last batch that is not full
            is left out.
        learning_rate: its largest value.
        schedule: ``"cosine"``: a line up during the warm-up, then half a cosine to 0 (Loshchilov and Hutter 2017);
            ``"onecycle"``: half a cosine up in 30 % of the steps, half a cosine down (Smith and Topin 2018).
        warmup: epochs (or a part of one) in which the cosine schedule rises from 0; at most a fifth of all.
        momentum: of SGD.
        weight_decay: of convolution and linear weights; norms and biases do not decay.
        label_smoothing: of the cross-entropy (Szegedy et al. 2016, section 7); 0 is off.
        ema: decay of a moving average of the weights, which is then what is validated and kept; 0 is off.
        seed: of the order of the images, the augmentation and dropout.
        crop: random crops, with this share of the image's height as padding (4 pixels of 32); 0 is off.
        resize_crop: smallest share of the area that a random resized crop keeps, in the place of `crop`; 0 is off.
        flip: random horizontal flips; None leaves it to the data set.
        cutout: side of a blanked square, as a share of the image's height (DeVries and Taylor 2017); 0 is off.
        mixup: alpha of the Beta distribution by which images and labels are mixed (Zhang et al. 2018); 0 is off.
        accumulate: forward passes that a step's images are split into, where they do not fit in memory at once.
        distillation: weight of a teacher's outputs in the loss, the labels having the rest (Hinton et al. 2015).
        temperature: by which both networks' scores are divided for that.
        balance: of classes with different numbers of images: ``"loss"`` weighs each image by the inverse of its class's
            number, ``"sampling"`` draws each epoch's images with replacement, every class as often.
        recalibration: training images, at most, by which the running statistics of norms are set anew before every
            validation and at the end (`norms.py`); 0 is off.
        qat: epochs at the end in which the forward pass rounds as int8 does (`rounding.py`); 0 is off. Experimental.
    """

    epochs: int = 30
    batch_size: int = 128
    learning_rate: float = 0.1
    schedule: Schedule = "cosine"
    warmup: float = 1.0
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.0
    ema: float = 0.0
    seed: int = 0
    crop: float = 0.125
    resize_crop: float = 0.0
    flip: bool | None = None
    cutout: float = 0.0
    mixup: float = 0.0
    accumulate: int = 1
    distillation: float = 0.9
    temperature: float = 4.0
    balance: Balance = "none"
    recalibration: int = 2048
    qat: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, _plain(field.name, getattr(self, field.name)))
        for name, least in (("epochs", 1), ("batch_size", 2), ("seed", 0), ("accumulate", 1), ("qat", 0)):
            if getattr(self, name) < least:
                raise UsageError(f"Expected {name} to be at least {least}, but got {getattr(self, name)}.")
            if name != "seed" and getattr(self, name) > LARGEST_COUNT:
                raise UsageError(f"Expected {name} to be at most {LARGEST_COUNT}, but got {getattr(self, name)}.")
        if self.seed > LARGEST_SEED:
            raise UsageError(f"Expected seed to be at most {LARGEST_SEED}, as torch takes it, but got {self.seed}.")
        for name in ("learning_rate", "temperature"):
            if not 0 < getattr(self, name) < math.inf:
                raise UsageError(f"Expected {name} to be more than 0, but got {getattr(self, name)}.")
        for name in ("weight_decay", "warmup", "mixup"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UsageError(f"Expected {name} to be 0 or more, but got {getattr(self, name)}.")
        if self.recalibration < 0 or self.recalibration == 1:
            raise UsageError(f"Expected recalibration to be 0 or at least 2, but got {self.recalibration}.")
        for name in ("label_smoothing", "ema", "momentum"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"Expected {name} to be at least 0 and below 1, but got {getattr(self, name)}.")
        for name in ("crop", "resize_crop", "cutout", "distillation"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"Expected {name} to be from 0 to 1, but got {getattr(self, name)}.")
        for name, kind in (("schedule", Schedule), ("balance", Balance)):
            if getattr(self, name) not in get_args(kind):
                choices = " or ".join(get_args(kind))
                raise UsageError(f"Expected {name} to be {choices}, but got {shown(getattr(self, name))}.")
        if self.qat > self.epochs:
            raise UsageError(f"Expected qat to be at most epochs ({self.epochs}), but got {self.qat}.")
        if self.accumulate > self.batch_size:
            raise UsageError(
                f"Expected accumulate to be at most batch_size ({self.batch_size}), but got {self.accumulate}."
            )

    def __str__(self) -> str:
        """What matters most, in a line."""
        epochs = f"{self.epochs} epoch{'s' if self.epochs > 1 else ''}"
        return f"{epochs}, batches of {self.batch_size}, learning rate {self.learning_rate:g}"

    def augmentation(self, shape: Sequence[int], flip: bool) -> Augmentation:
        """What it does to images (C, H, W), where `flip` is what the data allow; nothing to signals and volumes."""
        if len(shape) != 3:
            return Augmentation(padding=0, flip=False)
        height = shape[1]
        return Augmentation(
            padding=round(self.crop * height),
            flip=flip if self.flip is None else self.flip,
            resize=self.resize_crop,
            cutout=round(self.cutout * height),
        )


STEPS = 2000
"""A training has at least so many: with fewer, a network of any size is far from what it reaches"""
MOST_EPOCHS = 200
"""Passes over the same images after which nothing new is in them; tens of images have fewer steps for that reason"""
STEPS_AN_EPOCH = 32
"""Of small data, about: batches of a 32nd of the images, so that an epoch is many small steps and no few large ones"""
SMALLEST_BATCH = 16
"""Batch norms normalise by what a batch shows them"""


@dataclass(frozen=True)
class Preset:
    """What was measured to do well on a known data set.

    Attributes:
        images: for training, that it was measured with; it is not taken for fewer.
        changes: what differs from a plain `Recipe`.
    """

    images: int
    changes: Mapping[str, Any]


PRESETS: Mapping[str, Preset] = {
    # 660 steps, and not the usual least: 1,458 easy images are learnt by then, to 99 % and more.
    "digits": Preset(1_400, {"epochs": 30, "batch_size": 64, "learning_rate": 0.05}),
    "fashion-mnist": Preset(50_000, {"epochs": 15}),
}
"""By data set; all others, and parts of these, get what fits their number. docs/training.md has what was measured."""
QAT_SHARE = 0.2
"""of the epochs, where quantisation-aware training is asked for without a number"""
FINE_TUNING = 0.1
"""Of the learning rate, where trained weights are inherited: a large one would throw them away"""


def rate_for(batch_size: int) -> float:
    """The learning rate that is to a batch what the plain recipe's is to its own (Goyal et al. 2017, section 2.1).

    >>> rate_for(128), rate_for(16)
    (0.1, 0.0125)
    """
    return Recipe.learning_rate * batch_size / Recipe.batch_size


def fitted(images: int, batch_size: int | None = None) -> dict[str, Any]:
    """Epochs, batch size and learning rate for a number of training images.

    Batches are a 32nd of the images, a power of two from 16 to 128; epochs are 30, or as many as give 2,000 steps, but
    at most 200; the learning rate follows the batch.

    >>> fitted(600)
    {'epochs': 55, 'batch_size': 16, 'learning_rate': 0.0125}
    >>> fitted(50_000)
    {'epochs': 30, 'batch_size': 128, 'learning_rate': 0.1}
    """
    if batch_size is None:
        share = max(images // STEPS_AN_EPOCH, SMALLEST_BATCH)
        batch_size = min(2 ** (share.bit_length() - 1), Recipe.batch_size)
    steps_an_epoch = max(images // batch_size, 1)
    epochs = min(max(Recipe.epochs, math.ceil(STEPS / steps_an_epoch)), MOST_EPOCHS)
    return {"epochs": epochs, "batch_size": batch_size, "learning_rate": rate_for(batch_size)}


def preset(
    data: str, images: int | None = None, *, fine_tune: bool = False, changes: Mapping[str, Any] | None = None
) -> Recipe:
    """The recipe for a data set: the one that is known by its name, or one that fits its number of images.

    Args:
        data: its name.
        images: for training; None, where they are not known yet, is taken for many.
        fine_tune: whether trained weights are inherited.
        changes: what is asked for; a batch size brings its own learning rate and number of epochs along.

    Raises UsageError for a value that cannot be.

    >>> preset("digits", 1_458, changes={"epochs": 5}).batch_size
    64
    >>> preset("my photos", 600).epochs, preset("my photos", 600, changes={"batch_size": 8}).learning_rate
    (55, 0.00625)
    """
    asked = checked_changes(changes or {})
    batch_size = asked.get("batch_size")
    known = PRESETS.get(data)
    if known is not None and (images is None or images >= known.images):
        found = {**known.changes} | ({} if batch_size is None else {"learning_rate": rate_for(batch_size)})
    else:
        found = fitted(50_000 if images is None else images, batch_size if batch_size and batch_size > 0 else None)
    if fine_tune:
        found["learning_rate"] = FINE_TUNING * found.get("learning_rate", Recipe.learning_rate)
    return replace(Recipe(), **found | asked)


def checked_changes(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Changes of a recipe as plain values. Raises UsageError for a name that is none, or a value of another type.

    >>> checked_changes({"mixup": 0.2, "flip": None})
    {'mixup': 0.2, 'flip': None}
    """
    for name in changes:
        if name not in _kinds():
            meant = hint(name, _kinds())
            known = "of the recipe" if meant else f"out of {', '.join(_kinds())}"
            raise UsageError(f"Expected set to name fields {known}, but got {shown(name)}.{meant}")
    return {name: _plain(name, value) for name, value in changes.items()}


@cache
def _kinds() -> dict[str, Any]:
    """The type of each field."""
    kinds = get_type_hints(Recipe)
    return {field.name: kinds[field.name] for field in fields(Recipe)}


def _plain(name: str, value: Any) -> Any:
    """A value of a field, as Python's own number where it is NumPy's. Raises UsageError for one of another type."""
    kind = _kinds()[name]
    if kind == bool | None:
        is_right, wanted = value is None or isinstance(value, bool), "true, false or None"
    elif kind in (int, float):
        is_right = isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool)
        wanted = "a whole number" if kind is int else "a number"
    else:
        is_right, wanted = isinstance(value, str), " or ".join(get_args(kind))
    if not is_right:
        raise UsageError(f"Expected {name} to be {wanted}, but got {shown(value)}.")
    return value.item() if type(value).__module__ == "numpy" else value


def parse_changes(texts: list[str]) -> dict[str, Any]:
    """Changes of a recipe as a user writes them.

    >>> parse_changes(["mixup=0.2", "schedule=onecycle", "flip=false"])
    {'mixup': 0.2, 'schedule': 'onecycle', 'flip': False}

    Raises UsageError for anything else than ``NAME=VALUE`` of a field.
    """
    changes: dict[str, Any] = {}
    kinds = _kinds()
    for text in texts:
        name, equals, value = str(text).partition("=")
        if not equals or name not in kinds:
            known = ", ".join(kinds)
            raise UsageError(f"Expected NAME=VALUE with a name of {known}, but got {shown(text)}.{hint(name, kinds)}")
        changes[name] = _parsed(name, value, kinds[name])
    return changes


def _parsed(name: str, value: str, kind: Any) -> Any:
    truths = {"true": True, "yes": True, "false": False, "no": False}
    try:
        if kind == bool | None:
            return truths[value.lower()]
        return kind(value) if kind in (int, float) else value
    except (ValueError, KeyError):
        wanted = {int: "a whole number", float: "a number"}.get(kind, "true or false")
        raise UsageError(f"Expected {name} to be {wanted}, but got {shown(value)}.") from None
