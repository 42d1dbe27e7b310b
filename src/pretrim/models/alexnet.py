"""AlexNet for 32x32 images."""

import torch
from torch import Tensor, nn


class AlexNet(nn.Module):
    """Five convolutions and one linear layer; a 32x32 image reaches the classifier as 1x1.

    Input (N, in_channels, 32, 32), or larger; output (N, num_classes) logits.
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, 64, kernel_size=11, stride=4, padding=5),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(64, 192, kernel_size=5, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(192, 384, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(384, 256, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(256, 256, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(256, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, in_channels, H, W) to logits (N, num_classes)."""
        features: Tensor = self.pool(self.features(images))
        logits: Tensor = self.classifier(torch.flatten(features, 1))
        return logits


def alexnet(num_classes: int = 10, in_channels: int = 3) -> nn.Module:
    """Build AlexNet for 32x32 images: 2.47 M parameters, 15.0 M MACs (published: 2.47 M parameters).

    The network is that of Krizhevsky et al., "ImageNet Classification with Deep Convolutional Neural Networks", NIPS
    2012, with the one-column widths of Krizhevsky, arXiv 1404.5997, adapted to small images as in
    github.com/bearpaw/pytorch-classification (models/cifar/alexnet.py, table "CIFAR" of its README), which drops the
    dropout and the two wide linear layers. Weights are initialised as PyTorch does by default, as in that source:
    uniform within ``1 / sqrt(fan_in)``.
    """
    return AlexNet(num_classes, in_channels)
