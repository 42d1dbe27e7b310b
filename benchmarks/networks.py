"""Networks used only by the benchmarks: a U-Net and an ESPCN for coverage, a narrow MobileNetV2 for training."""

from __future__ import annotations

import torch
from torch import nn

import pretrim
from pretrim.core import plan_of_widths
from pretrim.models import BUILTIN


def double_convolution(channels_in: int, channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
    )


class UNet(nn.Module):
    """U-Net with transposed convolutions (Ronneberger, Fischer, Brox 2015, figure 1), padded, with batch norm."""

    def __init__(self, classes: int = 21, width: int = 32, depth: int = 4) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(depth + 1)]
        self.down = nn.ModuleList(double_convolution(a, b) for a, b in zip([3, *widths], widths, strict=False))
        pairs = list(zip(widths[::-1], widths[-2::-1], strict=False))
        self.up = nn.ModuleList(nn.ConvTranspose2d(a, b, 2, stride=2) for a, b in pairs)
        self.merge = nn.ModuleList(double_convolution(a, b) for a, b in pairs)
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips: list[torch.Tensor] = []
        for level, block in enumerate(self.down):
            x = block(x if level == 0 else nn.functional.max_pool2d(x, 2))
            skips.append(x)
        for up, merge, skip in zip(self.up, self.merge, skips[-2::-1], strict=True):
            x = merge(torch.cat([up(x), skip], dim=1))
        return self.head(x)


class ESPCN(nn.Module):
    """Super-resolution by sub-pixel convolution (Shi et al. 2016, section 3.1), for three channels."""

    def __init__(self, scale: int = 3) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 5, padding=2), nn.Tanh(), nn.Conv2d(64, 32, 3, padding=1), nn.Tanh()
        )
        self.shuffle = nn.Sequential(nn.Conv2d(32, 3 * scale**2, 3, padding=1), nn.PixelShuffle(scale))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.shuffle(self.features(x))


def unet() -> nn.Module:
    return UNet()


def espcn() -> nn.Module:
    return ESPCN()


def mobilenetv2_half(num_classes: int = 10, in_channels: int = 3) -> nn.Module:
    """The built-in MobileNetV2 with half of the channels in every layer: a width multiplier of 0.5."""
    dense = BUILTIN["mobilenetv2"](num_classes, in_channels)
    network = pretrim.analyze(dense, torch.zeros(1, in_channels, 32, 32))
    return plan_of_widths(network, network.dense // 2).apply(dense, network=network)
