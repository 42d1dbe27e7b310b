"""A network with all that converters find awkward in small: a strided padded convolution, a sum, a depthwise layer."""

import torch
from torch import nn

CLASSES, SHAPE = 4, (2, 16, 16)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.down = nn.Sequential(nn.Conv2d(16, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU6())
        self.deep = nn.Sequential(nn.Conv2d(32, 32, 3, 1, 1, groups=32, bias=False), nn.BatchNorm2d(32), nn.ReLU())
        self.out = nn.Conv2d(32, 32, 1)
        self.head = nn.Linear(32, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.down(self.stem(x))
        x = torch.relu(x + self.out(self.deep(x)))
        return self.head(torch.flatten(x.mean((2, 3), keepdim=True), 1))


def small(seed: int = 0) -> Small:
    """With weights and statistics as training leaves them: none zero, none one."""
    torch.manual_seed(seed)
    network = Small()
    images = torch.randn(64, *SHAPE)
    network.train()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.5, 0.5)
        for _ in range(20):
            network(images)
        network.head.weight.mul_(5)
    return network.eval()


def images(count: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(seed))
