"""A small network for grey images of parts: is there a defect?"""

from torch import nn


def build(num_classes=2, in_channels=1, filters=16):
    """Three convolutions with strides, depthwise separable ones between them, a mean, and a linear layer."""
    layers, wide = [], in_channels
    for width in (filters, 2 * filters, 4 * filters):
        layers += [nn.Conv2d(wide, width, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        layers += [nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        layers += [nn.Conv2d(width, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        wide = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(wide, num_classes))
