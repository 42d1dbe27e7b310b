"""VGG-16 with batch norm, for 32x32 images."""

import torch
from torch import Tensor, nn

from .initialise import kaiming_normal_fan_out, normal_linear

# Configuration D of Simonyan and Zisserman, table 1: filters of the convolutions between max poolings.
_VGG16_STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class VGG(nn.Module):
    """Stages of 3x3 convolutions, each ending in a max pooling that halves the image, then one linear layer.

    Input (N, in_channels, 32, 32), or larger; output (N, num_classes) logits.
    """

    def __init__(self, stages: tuple[tuple[int, ...], ...], num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = in_channels
        for stage in stages:
            for filters in stage:
                layers += _conv_norm_relu(channels, filters)
                channels = filters
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, num_classes)
        kaiming_normal_fan_out(self)
        normal_linear(self)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, in_channels, H, W) to logits (N, num_classes)."""
        features: Tensor = self.pool(self.features(images))
        logits: Tensor = self.classifier(torch.flatten(features, 1))
        return logits


def _conv_norm_relu(in_channels: int, filters: int) -> list[nn.Module]:
    """One layer of a stage; the convolution keeps its bias despite the norm, as in torchvision's vgg16_bn."""
    return [
        nn.Conv2d(in_channels, filters, kernel_size=3, padding=1),
        nn.BatchNorm2d(filters),
        nn.ReLU(inplace=True),
    ]


def vgg16(num_classes: int = 10, in_channels: int = 3) -> nn.Module:
    """Build VGG-16 with batch norm: 14.73 M parameters, 313.2 M MACs (published: 14.7 M, and 313 M).

    The convolutions are those of Simonyan and Zisserman, "Very Deep Convolutional Networks", arXiv 1409.1556, table 1,
    column D. Batch norm and the single linear layer are those of github.com/kuangliu/pytorch-cifar (models/vgg.py,
    14,728,266 parameters). The published MACs are those of Li et al., "Pruning Filters for Efficient ConvNets", arXiv
    1608.08710, table 1 (3.13e8). Initialisation as in torchvision: convolutions He et al. normal by fan-out, linear
    normal with standard deviation 0.01, biases 0.
    """
    return VGG(_VGG16_STAGES, num_classes, in_channels)
