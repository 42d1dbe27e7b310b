"""What a training does, apart from the machine it runs on: a frozen recipe, and presets for known data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypeAlias, get_args, get_type_hints

from pretrim.data import Augmentation
from pretrim.errors import UsageError

Schedule: TypeAlias = Literal["cosine", "onecycle"]
Balance: TypeAlias = Literal["none", "loss", "sampling"]

LARGEST_SEED = 2**64 - 1


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
        for name, least in (("epochs", 1), ("batch_size", 2), ("seed", 0), ("accumulate", 1), ("qat", 0)):
            if getattr(self, name) < least:
                raise UsageError(f"Expected {name} to be at least {least}, but got {getattr(self, name)}.")
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
                raise UsageError(f"Expected {name} to be {choices}, but got {getattr(self, name)!r}.")
        if self.qat > self.epochs:
            raise UsageError(f"Expected qat to be at most epochs ({self.epochs}), but got {self.qat}.")
        if self.accumulate > self.batch_size:
            raise UsageError(
                f"Expected accumulate to be at most batch_size ({self.batch_size}), but got {self.accumulate}."
            )

    def augmentation(self, height: int, flip: bool) -> Augmentation:
        """What it does to images of a height, in pixels; `flip` is what the data set allows."""
        return Augmentation(
            padding=round(self.crop * height),
            flip=flip if self.flip is None else self.flip,
            resize=self.resize_crop,
            cutout=round(self.cutout * height),
        )


PRESETS: Mapping[str, Mapping[str, Any]] = {
    "digits": {"epochs": 30, "batch_size": 64, "learning_rate": 0.05},
    "fashion-mnist": {"epochs": 15},
    "cifar10": {"epochs": 30},
}
"""By data set, what differs from a plain `Recipe`. docs/training.md has the accuracies that were measured."""
QAT_SHARE = 0.2
"""of the epochs, where quantisation-aware training is asked for without a number"""
FINE_TUNING: Mapping[str, Any] = {"learning_rate": 0.01}
"""What differs again where trained weights are inherited: a large rate would throw them away."""


def preset(data: str, *, fine_tune: bool = False, changes: Mapping[str, Any] | None = None) -> Recipe:
    """The recipe for a data set, by its name (any other gets the plain one), with changes.

    >>> preset("digits", changes={"epochs": 5}).batch_size
    64
    """
    return replace(Recipe(), **{**PRESETS.get(data, {}), **(FINE_TUNING if fine_tune else {}), **(changes or {})})


def parse_changes(texts: list[str]) -> dict[str, Any]:
    """Changes of a recipe as a user writes them.

    >>> parse_changes(["mixup=0.2", "schedule=onecycle", "flip=false"])
    {'mixup': 0.2, 'schedule': 'onecycle', 'flip': False}

    Raises UsageError for anything else than ``NAME=VALUE`` of a field.
    """
    changes: dict[str, Any] = {}
    kinds = get_type_hints(Recipe)
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or name not in kinds:
            known = ", ".join(field.name for field in fields(Recipe))
            raise UsageError(f"Expected NAME=VALUE with a name of {known}, but got {text!r}.")
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
        raise UsageError(f"Expected {name} to be {wanted}, but got {value!r}.") from None
