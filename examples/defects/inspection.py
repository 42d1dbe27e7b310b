"""A small network that detects defects in greyscale images of parts."""

from torch import nn


def build(num_classes=2, in_channels=1, filters=16):
    """Three strided convolutions, a depthwise separable one after each, then average pooling and a linear layer."""
    layers, in_width = [], in_channels
    for width in (filters, 2 * filters, 4 * filters):
        layers += [nn.Conv2d(in_width, width, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        layers += [nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        layers += [nn.Conv2d(width, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        in_width = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(in_width, num_classes))
