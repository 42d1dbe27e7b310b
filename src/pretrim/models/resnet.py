"""Residual networks for 32x32 images: ResNet-20, -56 and -110 of basic blocks, ResNet-50 of bottlenecks."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .initialise import kaiming_normal_fan_out


def _projection(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """The shortcut of a block: the identity, or a 1x1 convolution and its norm if the shape changes."""
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False),
        nn.BatchNorm2d(out_channels),
    )


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut around them; the output has `width` channels."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, kernel_size=3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, kernel_size=3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.shortcut = _projection(in_channels, width, stride)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, width, H / stride, W / stride)."""
        residual = self.relu(self.norm1(self.conv1(x)))
        residual = self.norm2(self.conv2(residual))
        out: Tensor = self.relu(residual + self.shortcut(x))
        return out


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut around them; the output has 4 x `width` channels.

    The stride is in the 3x3 convolution, as in torchvision, not in the first 1x1 as in the paper.
    """

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int = 1) -> None:
        super().__init__()
        out_channels = self.expansion * width
        self.conv1 = nn.Conv2d(in_channels, width, kernel_size=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, kernel_size=3, stride=stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, kernel_size=1, bias=False)
        self.norm3 = nn.BatchNorm2d(out_channels)
        self.shortcut = _projection(in_channels, out_channels, stride)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, 4 * width, H / stride, W / stride)."""
        residual = self.relu(self.norm1(self.conv1(x)))
        residual = self.relu(self.norm2(self.conv2(residual)))
        residual = self.norm3(self.conv3(residual))
        out: Tensor = self.relu(residual + self.shortcut(x))
        return out


class ResNet(nn.Module):
    """A 3x3 stem, stages of residual blocks, global average pooling and one linear layer.

    `widths` and `depths` give the width and the number of blocks of each stage; every stage but the first halves the
    image. The stem is as wide as the first stage. Input (N, in_channels, 32, 32), or any other size; output (N,
    num_classes) logits.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        widths: Sequence[int],
        depths: Sequence[int],
        num_classes: int = 10,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        channels = widths[0]
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, channels, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
        )
        stages: list[nn.Module] = []
        for index, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            stages.append(_stage(block, channels, width, depth, stride=1 if index == 0 else 2))
            channels = block.expansion * width
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, num_classes)
        kaiming_normal_fan_out(self)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, in_channels, H, W) to logits (N, num_classes)."""
        features: Tensor = self.pool(self.stages(self.stem(images)))
        logits: Tensor = self.classifier(torch.flatten(features, 1))
        return logits


def _stage(
    block: type[BasicBlock] | type[Bottleneck], in_channels: int, width: int, depth: int, stride: int
) -> nn.Module:
    """`depth` blocks of the same width; the first one has the stride."""
    rest = (block(block.expansion * width, width) for _ in range(depth - 1))
    return nn.Sequential(block(in_channels, width, stride), *rest)


def _cifar_resnet(depth: int, num_classes: int, in_channels: int) -> nn.Module:
    """He et al., section 4.2: a stem, three stages of n two-layer blocks and a linear layer; 6n + 2 layers in all."""
    blocks = (depth - 2) // 6
    return ResNet(BasicBlock, (16, 32, 64), (blocks,) * 3, num_classes, in_channels)


def resnet20(num_classes: int = 10, in_channels: int = 3) -> nn.Module:
    """Build ResNet-20 for CIFAR: 272 k parameters, 40.8 M MACs (published: 0.27 M parameters).

    Source: He et al., "Deep Residual Learning for Image Recognition", arXiv 1512.03385, section 4.2 and table 6, but
    with projection shortcuts (option B of section 4.1) where the paper pads with zeros (option A): padding ties the
    widths of two stages. That adds 2,752 parameters and 0.26 M MACs. Initialisation as in torchvision's resnet:
    convolutions He et al. normal by fan-out; the linear layer keeps PyTorch's default.
    """
    return _cifar_resnet(20, num_classes, in_channels)


def resnet56(num_classes: int = 10, in_channels: int = 3) -> nn.Module:
    """Build ResNet-56 for CIFAR: 0.856 M parameters, 125.7 M MACs (published: 0.85 M, and 125 M).

    Like :func:`resnet20`, with 9 blocks per stage. The published MACs are those of Li et al., "Pruning Filters for
    Efficient ConvNets", arXiv 1608.08710, table 1 (1.25e8).
    """
    return _cifar_resnet(56, num_classes, in_channels)


def resnet110(num_classes: int = 10, in_channels: int = 3) -> nn.Module:
    """Build ResNet-110 for CIFAR: 1.73 M parameters, 253.1 M MACs (published: 1.7 M, and 253 M).

    Like :func:`resnet20`, with 18 blocks per stage. The published MACs are those of Li et al., "Pruning Filters for
    Efficient ConvNets", arXiv 1608.08710, table 1 (2.53e8).
    """
    return _cifar_resnet(110, num_classes, in_channels)


def resnet50(num_classes: int = 10, in_channels: int = 3) -> nn.Module:
    """Build ResNet-50 with a stem for 32x32 images: 23.5 M parameters, 1.30 G MACs (published: 23,520,842).

    The blocks are those of He et al., arXiv 1512.03385, table 1 (column "50-layer"). The stem is one 3x3 convolution
    of stride 1 without max pooling, as in github.com/kuangliu/pytorch-cifar (models/resnet.py). Shortcuts and
    initialisation as in :func:`resnet20`.
    """
    return ResNet(Bottleneck, (64, 128, 256, 512), (3, 4, 6, 3), num_classes, in_channels)
