"""The networks that pretrim builds itself, for 32x32 images, by name.

A builder takes ``num_classes`` and ``in_channels`` and returns a freshly initialised network. Networks of torchvision,
of timm and from a user's file are found by :mod:`pretrim.models.resolve`, which imports them on demand.
"""

from collections.abc import Callable
from typing import TypeAlias

from torch import nn

from . import alexnet, mobilenetv2, resnet, vgg

Builder: TypeAlias = Callable[..., nn.Module]

BUILTIN: dict[str, Builder] = {
    "alexnet": alexnet.alexnet,
    "vgg16": vgg.vgg16,
    "resnet20": resnet.resnet20,
    "resnet56": resnet.resnet56,
    "resnet110": resnet.resnet110,
    "resnet50": resnet.resnet50,
    "mobilenetv2": mobilenetv2.mobilenetv2,
}

__all__ = ["BUILTIN", "Builder"]
