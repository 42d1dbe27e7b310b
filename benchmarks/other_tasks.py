"""Small networks of common designs for tasks other than classification of square images, for `coverage.py`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NORMS: dict[Any, Any] = {nn.Conv1d: nn.BatchNorm1d, nn.Conv2d: nn.BatchNorm2d, nn.Conv3d: nn.BatchNorm3d}


def unit(
    inputs: int, outputs: int, kernel: int = 3, conv: Any = nn.Conv2d, act: Any = nn.ReLU, **kwargs: Any
) -> nn.Module:
    """Convolution, norm, activation."""
    padding = kwargs.pop("padding", kernel // 2 * int(kwargs.get("dilation", 1)))
    return nn.Sequential(
        conv(inputs, outputs, kernel, padding=padding, bias=False, **kwargs), NORMS[conv](outputs), act()
    )


def separable(inputs: int, outputs: int, conv: Any = nn.Conv2d, stride: int = 1) -> nn.Module:
    return nn.Sequential(unit(inputs, inputs, 3, conv, groups=inputs, stride=stride), unit(inputs, outputs, 1, conv))


class Residual(nn.Module):
    """A residual block, with a projection on the skip connection where shapes differ."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, conv: Any = nn.Conv2d) -> None:
        super().__init__()
        self.body = nn.Sequential(
            unit(inputs, outputs, 3, conv, stride=stride),
            conv(outputs, outputs, 3, 1, 1, bias=False),
            NORMS[conv](outputs),
        )
        self.skip = conv(inputs, outputs, 1, stride) if stride > 1 or inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.skip(x))


class Encoder(nn.Module):
    """An encoder that returns feature maps at several scales."""

    def __init__(self, widths: Sequence[int] = (16, 32, 64), inputs: int = 3, conv: Any = nn.Conv2d) -> None:
        super().__init__()
        pairs = zip([inputs, *widths], widths, strict=False)
        self.stages = nn.ModuleList(Residual(a, b, 2, conv) for a, b in pairs)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


class UNet(nn.Module):
    """U-Net for signals, images or volumes."""

    def __init__(self, inputs: int, classes: int, conv: Any, up: Any, widths: Sequence[int] = (12, 24, 32)) -> None:
        super().__init__()
        a, b, c = widths
        self.one, self.two, self.three = unit(inputs, a, 3, conv), unit(a, b, 3, conv), unit(b, c, 3, conv)
        self.up, self.upper = up(c, b, 2, 2), up(b, a, 2, 2)
        self.merge, self.last, self.head = unit(2 * b, b, 3, conv), unit(2 * a, a, 3, conv), conv(a, classes, 1)
        self.pool = {nn.Conv1d: nn.MaxPool1d, nn.Conv2d: nn.MaxPool2d, nn.Conv3d: nn.MaxPool3d}[conv](2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x)
        y = self.two(self.pool(x))
        z = self.up(self.three(self.pool(y)))
        y = self.merge(torch.cat([y, z], 1))
        return self.head(self.last(torch.cat([x, self.upper(y)], 1)))  # type: ignore[no-any-return]


class Pyramid(nn.Module):
    """FPN with heads shared by all scales (RetinaNet, FCOS)."""

    def __init__(self, classes: int = 5, width: int = 32) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.lateral = nn.ModuleList(nn.Conv2d(c, width, 1) for c in (16, 32, 64))
        self.scores = nn.Sequential(unit(width, width), nn.Conv2d(width, classes, 3, padding=1))
        self.boxes = nn.Sequential(unit(width, width), nn.Conv2d(width, 4, 3, padding=1))

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = [layer(y) for layer, y in zip(self.lateral, self.encoder(x), strict=True)]
        for level in (1, 0):
            maps[level] = maps[level] + F.interpolate(maps[level + 1], scale_factor=2)
        return [head(y) for y in maps for head in (self.scores, self.boxes)]


class YOLO(nn.Module):
    """CSP blocks, a pooling pyramid, path aggregation, and one head per scale."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.stem, self.low, self.mid = unit(3, 16, stride=2, act=nn.SiLU), CSP(16, 32), CSP(32, 64)
        self.squeeze, self.spread = unit(64, 32, 1, act=nn.SiLU), unit(128, 64, 1, act=nn.SiLU)
        self.reduce, self.join = unit(64, 32, 1, act=nn.SiLU), unit(64, 32, act=nn.SiLU)
        self.heads = nn.ModuleList([nn.Conv2d(32, 3 * (5 + classes), 1), nn.Conv2d(64, 3 * (5 + classes), 1)])

    def forward(self, x: Tensor) -> list[Tensor]:
        low = self.low(self.stem(x))
        y = [self.squeeze(self.mid(low))]
        for _ in range(3):
            y.append(F.max_pool2d(y[-1], 5, 1, 2))
        high = self.spread(torch.cat(y, 1))
        low = self.join(torch.cat([low, F.interpolate(self.reduce(high), scale_factor=2)], 1))
        return [head(z).view(z.shape[0], 3, -1, *z.shape[2:]) for head, z in zip(self.heads, (low, high), strict=True)]


class CSP(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.down, self.last = unit(inputs, outputs, stride=2, act=nn.SiLU), unit(outputs, outputs, 1, act=nn.SiLU)
        self.body = unit(outputs // 2, outputs // 2, act=nn.SiLU)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.down(x).chunk(2, 1)
        return self.last(torch.cat([a, b + self.body(b)], 1))  # type: ignore[no-any-return]


class SSD(nn.Module):
    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.heads = nn.ModuleList(nn.Conv2d(c, 6 * (classes + 4), 3, padding=1) for c in (16, 32, 64))

    def forward(self, x: Tensor) -> Tensor:
        predictions = [head(y).permute(0, 2, 3, 1) for head, y in zip(self.heads, self.encoder(x), strict=True)]
        return torch.cat([y.reshape(y.shape[0], -1, 9) for y in predictions], 1)


class Heads(nn.Module):
    """An encoder, transposed convolutions, then several heads (CenterNet; with one head, SimpleBaseline)."""

    def __init__(self, *outputs: int) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.up = nn.Sequential(
            nn.ConvTranspose2d(64, 32, 4, 2, 1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.ConvTranspose2d(32, 24, 4, 2, 1, bias=False),
            nn.BatchNorm2d(24),
            nn.ReLU(),
        )
        self.heads = nn.ModuleList(nn.Sequential(unit(24, 24), nn.Conv2d(24, n, 1)) for n in outputs)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.up(self.encoder(x)[-1])
        return [head(x) for head in self.heads]


class Hourglass(nn.Module):
    def __init__(self, width: int = 24, depth: int = 3) -> None:
        super().__init__()
        self.stem, self.head = unit(3, width), nn.Conv2d(width, 17, 1)
        self.down = nn.ModuleList(Residual(width, width) for _ in range(depth))
        self.skip = nn.ModuleList(Residual(width, width) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        x, skips = self.stem(x), []
        for down, skip in zip(self.down, self.skip, strict=True):
            skips.append(skip(x))
            x = down(F.max_pool2d(x, 2))
        for y in reversed(skips):
            x = y + F.interpolate(x, scale_factor=2)
        return self.head(x)  # type: ignore[no-any-return]


class LinkNet(nn.Module):
    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.encoder, self.head = Encoder(), nn.ConvTranspose2d(16, classes, 2, 2)
        self.up = nn.ModuleList([nn.ConvTranspose2d(64, 32, 2, 2), nn.ConvTranspose2d(32, 16, 2, 2)])

    def forward(self, x: Tensor) -> Tensor:
        low, mid, x = self.encoder(x)
        for up, skip in zip(self.up, (mid, low), strict=True):
            x = torch.relu(up(x) + skip)
        return self.head(x)  # type: ignore[no-any-return]


class Context(nn.Module):
    """Pooled (PSPNet) or dilated (DeepLab) context after an encoder, then upsampling to the size of the image."""

    def __init__(self, dilations: Sequence[int] = (), pools: Sequence[int] = ()) -> None:
        super().__init__()
        self.encoder, self.pools = Encoder(), tuple(pools)
        self.dilated = nn.ModuleList(unit(64, 16, dilation=d) for d in dilations)
        self.pooled = nn.ModuleList(unit(64, 16, 1) for _ in pools)
        self.merge = unit(64 + 16 * (len(dilations) + len(self.pools)), 32, 1)
        self.head = nn.Conv2d(32, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.encoder(x)[-1]
        context = [y, *(layer(y) for layer in self.dilated)]
        for layer, size in zip(self.pooled, self.pools, strict=True):
            small = layer(F.adaptive_avg_pool2d(y, size))
            context.append(F.interpolate(small, size=y.shape[2:], mode="bilinear", align_corners=False))
        y = self.head(self.merge(torch.cat(context, 1)))
        return F.interpolate(y, size=x.shape[2:], mode="bilinear", align_corners=False)


class FastSCNN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(unit(3, 16, stride=2), separable(16, 24, stride=2))
        self.coarse = nn.Sequential(separable(24, 32, stride=2), separable(32, 48))
        self.low, self.high = unit(24, 32, 1), unit(48, 32, 1)
        self.head = nn.Sequential(separable(32, 32), nn.Conv2d(32, 5, 1))

    def forward(self, x: Tensor) -> Tensor:
        fine = self.fine(x)
        coarse = F.interpolate(self.coarse(fine), scale_factor=2, mode="bilinear")
        return self.head(self.low(fine) + self.high(coarse))  # type: ignore[no-any-return]


class Depth(nn.Module):
    """Depth maps at two scales, each from the skip features and the upsampled features of the coarser scale."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.merge = nn.ModuleList([unit(64 + 32, 24), unit(24 + 16, 16)])
        self.heads = nn.ModuleList([nn.Conv2d(24, 1, 3, padding=1), nn.Conv2d(16, 1, 3, padding=1)])

    def forward(self, x: Tensor) -> list[Tensor]:
        low, mid, x = self.encoder(x)
        depths = []
        for merge, head, skip in zip(self.merge, self.heads, (mid, low), strict=True):
            x = merge(torch.cat([F.interpolate(x, scale_factor=2), skip], 1))
            depths.append(torch.sigmoid(head(x)))
        return depths


class Upscale(nn.Module):
    """Residual blocks and a pixel shuffle (SRResNet with batch norms, EDSR without)."""

    def __init__(self, norms: bool, width: int = 24) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, width, 3, padding=1)
        self.body = nn.ModuleList(Residual(width, width) if norms else Plain(width) for _ in range(3))
        self.tail = nn.Sequential(nn.Conv2d(width, 12, 3, padding=1), nn.PixelShuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        first = x = self.head(x)
        for block in self.body:
            x = block(x)
        return self.tail(first + x)  # type: ignore[no-any-return]


class Plain(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.1 * self.body(x)  # type: ignore[no-any-return]


class Denoise(nn.Module):
    def __init__(self, depth: int = 5) -> None:
        super().__init__()
        middle = [unit(24, 24) for _ in range(depth)]
        self.body = nn.Sequential(nn.Conv2d(1, 24, 3, padding=1), nn.ReLU(), *middle, nn.Conv2d(24, 1, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        return x - self.body(x)  # type: ignore[no-any-return]


class Recurrent(nn.Module):
    """Convolutions over a spectrogram, then a recurrent layer over time, with an output for each step (CRNN)."""

    def __init__(self, kind: Any, **kwargs: Any) -> None:
        super().__init__()
        self.front = nn.Sequential(unit(1, 16, stride=2), unit(16, 24, stride=2))
        self.layer = kind(24 * 4, 32, batch_first=True, **kwargs)
        self.head = nn.Linear(32 * (2 if kwargs.get("bidirectional") else 1), 11)

    def forward(self, x: Tensor) -> Tensor:
        x = self.front(x).flatten(1, 2).transpose(1, 2)
        return self.head(self.layer(x)[0])  # type: ignore[no-any-return]


class Dilated(nn.Module):
    """Gated, dilated convolutions over time with skip connections (WaveNet, TCN)."""

    def __init__(self, width: int = 16, layers: int = 4) -> None:
        super().__init__()
        self.first, self.head = nn.Conv1d(1, width, 1), nn.Conv1d(width, 8, 1)
        self.gates = nn.ModuleList(nn.Conv1d(width, 2 * width, 3, dilation=2**n, padding=2**n) for n in range(layers))
        self.mix = nn.ModuleList(nn.Conv1d(width, width, 1) for _ in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        skips = 0
        for gate, mix in zip(self.gates, self.mix, strict=True):
            y = mix(F.glu(gate(x), dim=1))
            x, skips = x + y, skips + y
        return self.head(torch.relu(skips))  # type: ignore[no-any-return,arg-type]


class Separate(nn.Module):
    """A mask for each source over a learned transform (Conv-TasNet)."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.encode, self.decode = nn.Conv1d(1, width, 16, 8), nn.ConvTranspose1d(width, 1, 16, 8)
        self.masks = nn.Sequential(
            unit(width, 32, 1, nn.Conv1d), separable(32, 32, nn.Conv1d), nn.Conv1d(32, 2 * width, 1)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        x = torch.relu(self.encode(x))
        return [self.decode(x * torch.sigmoid(mask)) for mask in self.masks(x).chunk(2, 1)]


class EEG(nn.Module):
    def __init__(self, electrodes: int = 8) -> None:
        super().__init__()
        self.time = nn.Sequential(nn.Conv2d(1, 8, (1, 17), padding=(0, 8), bias=False), nn.BatchNorm2d(8))
        self.space = nn.Sequential(
            nn.Conv2d(8, 16, (electrodes, 1), groups=8, bias=False), nn.BatchNorm2d(16), nn.ELU(), nn.AvgPool2d((1, 4))
        )
        self.last = nn.Sequential(separable(16, 16), nn.AvgPool2d((1, 4)), nn.Flatten(), nn.Linear(16 * 8, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.space(self.time(x)))  # type: ignore[no-any-return]


def pooled(*layers: nn.Module, width: int, classes: int = 5, conv: Any = nn.Conv2d) -> nn.Module:
    pool = {nn.Conv1d: nn.AdaptiveAvgPool1d, nn.Conv2d: nn.AdaptiveAvgPool2d, nn.Conv3d: nn.AdaptiveAvgPool3d}[conv]
    return nn.Sequential(*layers, pool(1), nn.Flatten(), nn.Linear(width, classes))


def keyword_spotter() -> nn.Module:
    return pooled(unit(1, 32, 5, stride=2), *(separable(32, 32) for _ in range(3)), width=32)


def raw_audio() -> nn.Module:
    layers = [unit(1, 16, 9, nn.Conv1d, stride=4), nn.MaxPool1d(4), unit(16, 32, 3, nn.Conv1d), nn.MaxPool1d(4)]
    return pooled(*layers, unit(32, 48, 3, nn.Conv1d), width=48, conv=nn.Conv1d)


def heartbeat() -> nn.Module:
    blocks = [Residual(2, 16, 2, nn.Conv1d), Residual(16, 32, 2, nn.Conv1d), Residual(32, 32, 1, nn.Conv1d)]
    return pooled(*blocks, width=32, conv=nn.Conv1d)


def video() -> nn.Module:
    return pooled(Residual(3, 12, 2, nn.Conv3d), Residual(12, 24, 2, nn.Conv3d), width=24, conv=nn.Conv3d)


def factored_video() -> nn.Module:
    """R(2+1)D: a spatial convolution, then a temporal one."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 12), (12, 24)):
        space = nn.Conv3d(inputs, 16, (1, 3, 3), (1, 2, 2), (0, 1, 1))
        layers += [
            space,
            nn.ReLU(),
            nn.Conv3d(16, outputs, (3, 1, 1), padding=(1, 0, 0)),
            nn.BatchNorm3d(outputs),
            nn.ReLU(),
        ]
    return pooled(*layers, width=24, conv=nn.Conv3d)


def autoencoder() -> nn.Module:
    down = [unit(3, 16, stride=2), unit(16, 24, stride=2), unit(24, 8, stride=2)]
    up = [nn.ConvTranspose2d(8, 24, 2, 2), nn.ReLU(), nn.ConvTranspose2d(24, 16, 2, 2), nn.ReLU()]
    return nn.Sequential(*down, *up, nn.ConvTranspose2d(16, 3, 2, 2), nn.Sigmoid())


def generator() -> nn.Module:
    layers: list[nn.Module] = [nn.ConvTranspose2d(32, 48, 4, bias=False), nn.BatchNorm2d(48), nn.ReLU()]
    for inputs, outputs in ((48, 32), (32, 16)):
        layers += [nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.ConvTranspose2d(16, 3, 4, 2, 1), nn.Tanh())


def slopes() -> nn.Module:
    """ENet's dilated, asymmetric convolutions with PReLU."""
    layers: list[nn.Module] = [unit(3, 16, stride=2, act=nn.PReLU), unit(16, 32, stride=2, act=nn.PReLU)]
    layers += [unit(32, 32, dilation=d, act=nn.PReLU) for d in (1, 2, 4)]
    layers += [nn.Conv2d(32, 32, (5, 1), padding=(2, 0)), nn.Conv2d(32, 32, (1, 5), padding=(0, 2)), nn.PReLU()]
    return nn.Sequential(*layers, nn.ConvTranspose2d(32, 5, 4, 4))


IMAGE, SPECTROGRAM, WAVE = (3, 64, 64), (1, 16, 64), (1, 512)
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "retinanet": (Pyramid, IMAGE),
    "yolo": (YOLO, IMAGE),
    "ssd": (SSD, IMAGE),
    "centernet": (lambda: Heads(5, 2, 2), IMAGE),
    "pose": (lambda: Heads(17), IMAGE),
    "hourglass": (Hourglass, (3, 32, 32)),
    "linknet": (LinkNet, IMAGE),
    "pspnet": (lambda: Context(pools=(1, 2, 4)), IMAGE),
    "deeplab": (lambda: Context(dilations=(1, 2, 4)), IMAGE),
    "fast-scnn": (FastSCNN, IMAGE),
    "enet": (slopes, IMAGE),
    "unet": (lambda: UNet(3, 5, nn.Conv2d, nn.ConvTranspose2d), (3, 32, 32)),
    "unet of volumes": (lambda: UNet(1, 3, nn.Conv3d, nn.ConvTranspose3d), (1, 16, 16, 16)),
    "unet of signals": (lambda: UNet(2, 3, nn.Conv1d, nn.ConvTranspose1d), (2, 128)),
    "depth": (Depth, IMAGE),
    "flow": (lambda: UNet(6, 2, nn.Conv2d, nn.ConvTranspose2d), (6, 32, 32)),
    "srresnet": (lambda: Upscale(norms=True), (3, 24, 24)),
    "edsr": (lambda: Upscale(norms=False), (3, 24, 24)),
    "dncnn": (Denoise, (1, 32, 32)),
    "autoencoder": (autoencoder, (3, 32, 32)),
    "dcgan": (generator, (32, 1, 1)),
    "keyword spotter": (keyword_spotter, (1, 49, 10)),
    "raw audio": (raw_audio, WAVE),
    "heartbeat": (heartbeat, (2, 128)),
    "wavenet": (Dilated, (1, 128)),
    "conv-tasnet": (Separate, WAVE),
    "eeg": (EEG, (1, 8, 128)),
    "crnn, lstm": (lambda: Recurrent(nn.LSTM, bidirectional=True), SPECTROGRAM),
    "crnn, gru": (lambda: Recurrent(nn.GRU), SPECTROGRAM),
    "video": (video, (3, 8, 32, 32)),
    "factored video": (factored_video, (3, 8, 32, 32)),
}
"""The function that builds each network, and the shape of one input"""
