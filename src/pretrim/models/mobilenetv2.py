"""MobileNetV2 for 32x32 images."""

import torch
from torch import Tensor, nn

from .initialise import kaiming_normal_fan_out, normal_linear

_STEM_FILTERS = 32
_HEAD_FILTERS = 1280
# Sandler et al., table 2, as (expansion, channels, blocks, stride of the first block). For 32x32 images, the
# second row (24 channels) and the stem have stride 1 where the paper has 2.
_ROWS = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def _conv_norm(in_channels: int, filters: int, kernel_size: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """A convolution without bias, padded so that only its stride changes the image size, and its norm."""
    return nn.Sequential(
        nn.Conv2d(in_channels, filters, kernel_size, stride, padding=kernel_size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(filters),
    )


class InvertedResidual(nn.Module):
    """A 1x1 convolution that expands the channels, a depthwise 3x3, a linear 1x1 that projects them, and a shortcut.

    Blocks of stride 1 have a shortcut; if the number of channels changes, it is a 1x1 convolution with a norm.
    """

    def __init__(self, in_channels: int, out_channels: int, expansion: int, stride: int) -> None:
        super().__init__()
        hidden = expansion * in_channels
        self.expand = _conv_norm(in_channels, hidden)
        self.depthwise = _conv_norm(hidden, hidden, kernel_size=3, stride=stride, groups=hidden)
        self.project = _conv_norm(hidden, out_channels)
        self.activation = nn.ReLU6(inplace=True)
        self.shortcut: nn.Module | None = None
        if stride == 1:
            same = in_channels == out_channels
            self.shortcut = nn.Identity() if same else _conv_norm(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H / stride, W / stride)."""
        out: Tensor = self.activation(self.expand(x))
        out = self.project(self.activation(self.depthwise(out)))
        return out if self.shortcut is None else out + self.shortcut(x)


class MobileNetV2(nn.Module):
    """A 3x3 stem, 17 inverted residuals, a 1x1 convolution, global average pooling and one linear layer.

    Input (N, in_channels, 32, 32), or any other size; output (N, num_classes) logits.
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        self.stem = nn.Sequential(_conv_norm(in_channels, _STEM_FILTERS, kernel_size=3), nn.ReLU6(inplace=True))
        blocks: list[nn.Module] = []
        channels = _STEM_FILTERS
        for expansion, out_channels, depth, first_stride in _ROWS:
            for stride in (first_stride, *[1] * (depth - 1)):
                blocks.append(InvertedResidual(channels, out_channels, expansion, stride))
                channels = out_channels
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Sequential(_conv_norm(channels, _HEAD_FILTERS), nn.ReLU6(inplace=True))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(_HEAD_FILTERS, num_classes)
        kaiming_normal_fan_out(self)
        normal_linear(self)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, in_channels, H, W) to logits (N, num_classes)."""
        features: Tensor = self.pool(self.head(self.blocks(self.stem(images))))
        logits: Tensor = self.classifier(torch.flatten(features, 1))
        return logits


def mobilenetv2(num_classes: int = 10, in_channels: int = 3) -> nn.Module:
    """Build MobileNetV2 with strides for 32x32 images: 2.30 M parameters, 91.2 M MACs.

    Published: 2,296,922 parameters, and 94.61 M MACs by thop, which adds two for each output value of a norm
    (91,154,944 + 2 x 1,724,928).

    Source: Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", arXiv 1801.04381, table 2, width
    1, with the strides of github.com/kuangliu/pytorch-cifar (models/mobilenetv2.py). Two more details come from that
    repository rather than the paper, and account for its published count: a shortcut with a convolution where the
    stride is 1 and the number of channels changes (59,152 parameters), and a 1x1 convolution in the first block, which
    does not expand (1,088). ReLU6 follows the paper (the repository has ReLU). Initialisation as in torchvision's
    mobilenet_v2: convolutions He et al. normal by fan-out, linear normal with standard deviation 0.01, biases 0.
    """
    return MobileNetV2(num_classes, in_channels)
