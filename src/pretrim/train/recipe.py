"""The hyperparameters of a training, independent of the machine: a frozen recipe, and presets for known data sets."""

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
        batch_size: images per step over all processes, or all images if there are fewer. An incomplete last batch is
            dropped.
        learning_rate: largest value of the learning rate.
        schedule: ``"cosine"``: linear warm-up, then half a cosine down to 0 (Loshchilov and Hutter 2017);
            ``"onecycle"``: half a cosine up in 30 % of the steps, half a cosine down (Smith and Topin 2018).
        warmup: epochs (may be fractional) in which the cosine schedule rises from 0; at most a fifth of all epochs.
        momentum: momentum of SGD.
        weight_decay: weight decay of convolution and linear weights; norms and biases have none.
        label_smoothing: label smoothing of the cross-entropy (Szegedy et al. 2016, section 7); 0 is off.
        ema: decay of an exponential moving average of the weights, which is then validated and kept; 0 is off.
        seed: seed of the order of the images, the augmentation and dropout.
        crop: random crops, with this share of the image's height as padding (4 pixels of 32); 0 is off.
        resize_crop: smallest share of the area that a random resized crop keeps, instead of `crop`; 0 is off.
        flip: random horizontal flips; None leaves it to the data set.
        cutout: side of a blanked square, as a share of the image's height (DeVries and Taylor 2017); 0 is off.
        mixup: alpha of the Beta distribution by which images and labels are mixed (Zhang et al. 2018); 0 is off.
        accumulate: number of forward passes per step, for batches that do not fit in memory at once.
        distillation: weight of the teacher's outputs in the loss; the labels have the rest (Hinton et al. 2015).
        temperature: temperature of the distillation, by which both networks' scores are divided.
        balance: balancing of classes with different numbers of images: ``"loss"`` weights each image by the inverse of
            its class's number of images, ``"sampling"`` draws each epoch's images with replacement, every class equally
            often.
        recalibration: largest number of training images to recompute the running statistics of norms from before every
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
        for name, minimum in (("epochs", 1), ("batch_size", 2), ("seed", 0), ("accumulate", 1), ("qat", 0)):
            if getattr(self, name) < minimum:
                raise UsageError(f"Expected {name} to be at least {minimum}, but got {getattr(self, name)}.")
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
        for name, choice in (("schedule", Schedule), ("balance", Balance)):
            if getattr(self, name) not in get_args(choice):
                choices = " or ".join(get_args(choice))
                raise UsageError(f"Expected {name} to be {choices}, but got {shown(getattr(self, name))}.")
        if self.qat > self.epochs:
            raise UsageError(f"Expected qat to be at most epochs ({self.epochs}), but got {self.qat}.")
        if self.accumulate > self.batch_size:
            raise UsageError(
                f"Expected accumulate to be at most batch_size ({self.batch_size}), but got {self.accumulate}."
            )

    def __str__(self) -> str:
        """The most important fields in one line."""
        epochs = f"{self.epochs} epoch{'s' if self.epochs > 1 else ''}"
        return f"{epochs}, batches of {self.batch_size}, learning rate {self.learning_rate:g}"

    def augmentation(self, shape: Sequence[int], flip: bool) -> Augmentation:
        """The augmentation of images (C, H, W); signals and volumes get none. `flip` is the data set's default."""
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
"""Fewest steps of a training by default: with fewer, a network of any size stays far below its best accuracy."""
MOST_EPOCHS = 200
"""Largest default number of epochs: more teach nothing new, so a few dozen images get fewer than `STEPS` steps."""
STEPS_AN_EPOCH = 32
"""Approximate steps per epoch of small data: with batches of 1/32 of the images, steps are many and small."""
SMALLEST_BATCH = 16
"""Smallest default batch: batch norms need enough images to estimate statistics from."""


@dataclass(frozen=True)
class Preset:
    """Settings that were measured to do well on a known data set.

    Attributes:
        images: number of training images that they are valid for; with fewer images they are not used.
        changes: the fields that differ from the default `Recipe`.
    """

    images: int
    changes: Mapping[str, Any]


PRESETS: Mapping[str, Preset] = {
    # 660 steps instead of the usual minimum: these 1,458 easy images are then learnt to 99 % and more.
    "digits": Preset(1_400, {"epochs": 30, "batch_size": 64, "learning_rate": 0.05}),
    "fashion-mnist": Preset(50_000, {"epochs": 15}),
}
"""Presets by data set; others, and parts of these, get settings by size. The measurements are in docs/training.md."""
QAT_SHARE = 0.2
"""Share of the epochs that are quantisation-aware when QAT is requested without a number."""
FINE_TUNING_FACTOR = 0.1
"""Factor of the learning rate when trained weights are inherited: a large rate would destroy them."""


def rate_for(batch_size: int) -> float:
    """The learning rate for a batch size, scaled linearly from the default recipe (Goyal et al. 2017, section 2.1).

    >>> rate_for(128), rate_for(16)
    (0.1, 0.0125)
    """
    return Recipe.learning_rate * batch_size / Recipe.batch_size


def fitted(images: int, batch_size: int | None = None) -> dict[str, Any]:
    """Choose epochs, batch size and learning rate for a number of training images.

    The batch size is about 1/32 of the images, a power of two from 16 to 128. There are 30 epochs, or as many as it
    takes for 2,000 steps, but at most 200. The learning rate is proportional to the batch size.

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
    """Return the recipe for a data set: its preset if there is one, else one that fits its number of images.

    Args:
        data: name of the data set.
        images: number of training images; None, if it is not known yet, counts as many.
        fine_tune: whether trained weights are inherited.
        changes: fields set by the user; a batch size also changes the learning rate and the number of epochs.

    Raises UsageError for an invalid value.

    >>> preset("digits", 1_458, changes={"epochs": 5}).batch_size
    64
    >>> preset("my photos", 600).epochs, preset("my photos", 600, changes={"batch_size": 8}).learning_rate
    (55, 0.00625)
    """
    checked = checked_changes(changes or {})
    batch_size = checked.get("batch_size")
    known_preset = PRESETS.get(data)
    if known_preset is not None and (images is None or images >= known_preset.images):
        settings = {**known_preset.changes} | ({} if batch_size is None else {"learning_rate": rate_for(batch_size)})
    else:
        settings = fitted(50_000 if images is None else images, batch_size if batch_size and batch_size > 0 else None)
    if fine_tune:
        settings["learning_rate"] = FINE_TUNING_FACTOR * settings.get("learning_rate", Recipe.learning_rate)
    return replace(Recipe(), **settings | checked)


def checked_changes(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return changes of a recipe as plain values. Raises UsageError for an unknown field or a value of the wrong type.

    >>> checked_changes({"mixup": 0.2, "flip": None})
    {'mixup': 0.2, 'flip': None}
    """
    for name in changes:
        if name not in _field_types():
            suggestion = hint(name, _field_types())
            known = "of the recipe" if suggestion else f"out of {', '.join(_field_types())}"
            raise UsageError(f"Expected set to name fields {known}, but got {shown(name)}.{suggestion}")
    return {name: _plain(name, value) for name, value in changes.items()}


@cache
def _field_types() -> dict[str, Any]:
    """The type of each field."""
    types = get_type_hints(Recipe)
    return {field.name: types[field.name] for field in fields(Recipe)}


def _plain(name: str, value: Any) -> Any:
    """Return a field's value, converted from NumPy to Python. Raises UsageError for a value of the wrong type."""
    field_type = _field_types()[name]
    if field_type == bool | None:
        is_valid, expected = value is None or isinstance(value, bool), "true, false or None"
    elif field_type in (int, float):
        is_valid = isinstance(value, Integral if field_type is int else Real) and not isinstance(value, bool)
        expected = "a whole number" if field_type is int else "a number"
    else:
        is_valid, expected = isinstance(value, str), " or ".join(get_args(field_type))
    if not is_valid:
        raise UsageError(f"Expected {name} to be {expected}, but got {shown(value)}.")
    return value.item() if type(value).__module__ == "numpy" else value


def parse_changes(texts: list[str]) -> dict[str, Any]:
    """Parse changes of a recipe from the command line.

    >>> parse_changes(["mixup=0.2", "schedule=onecycle", "flip=false"])
    {'mixup': 0.2, 'schedule': 'onecycle', 'flip': False}

    Raises UsageError for anything but ``NAME=VALUE`` with the name of a field.
    """
    changes: dict[str, Any] = {}
    field_types = _field_types()
    for text in texts:
        name, equals, value = str(text).partition("=")
        if not equals or name not in field_types:
            known = ", ".join(field_types)
            raise UsageError(
                f"Expected NAME=VALUE with a name of {known}, but got {shown(text)}.{hint(name, field_types)}"
            )
        changes[name] = _parsed(name, value, field_types[name])
    return changes


def _parsed(name: str, value: str, field_type: Any) -> Any:
    booleans = {"true": True, "yes": True, "false": False, "no": False}
    try:
        if field_type == bool | None:
            return booleans[value.lower()]
        return field_type(value) if field_type in (int, float) else value
    except (ValueError, KeyError):
        expected = {int: "a whole number", float: "a number"}.get(field_type, "true or false")
        raise UsageError(f"Expected {name} to be {expected}, but got {shown(value)}.") from None
