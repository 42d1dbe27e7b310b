"""Keyword spotting: words in WAV files, a log-mel spectrogram of 49x10, and a DS-CNN (Zhang et al. 2017) for a board.

The folder of the recordings, one folder a word with 16-bit WAV files in it, is named by the variable KEYWORDS. The
spectrogram is computed here, on the host; on the board the same has to be computed before the network, which `log_mel`
says in ten lines.
"""

import os
import wave
from pathlib import Path

import numpy as np
import torch
from torch import nn

RATE, WINDOW, HOP, BANDS, FRAMES = 16_000, 640, 320, 10, 49
"""Hertz; samples of a window and between windows (40 and 20 ms); of one second"""


def build(num_classes=10, in_channels=1, filters=64):
    """A DS-CNN: one convolution, four depthwise separable ones, a mean, and a linear layer."""
    layers = [nn.Conv2d(in_channels, filters, (10, 4), (2, 2), (5, 1), bias=False), nn.BatchNorm2d(filters), nn.ReLU()]
    for _ in range(4):
        layers += [nn.Conv2d(filters, filters, 3, padding=1, groups=filters, bias=False), nn.BatchNorm2d(filters)]
        layers += [nn.ReLU(), nn.Conv2d(filters, filters, 1, bias=False), nn.BatchNorm2d(filters), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(filters, num_classes))


def mel_bands():
    """Triangles that are even on the mel scale, from 20 Hz to 4 kHz: bands x frequencies."""
    mel, hertz = (lambda f: 1127 * np.log1p(f / 700)), (lambda m: 700 * np.expm1(m / 1127))
    edges = hertz(np.linspace(mel(20), mel(4000), BANDS + 2))
    frequencies = np.fft.rfftfreq(WINDOW, 1 / RATE)
    rising = (frequencies - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - frequencies) / (edges[2:] - edges[1:-1])[:, None]
    return np.maximum(0, np.minimum(rising, falling))


def log_mel(samples):
    """One second of sound (samples of -1..1) as a spectrogram, 1 x 49 x 10, float32; about 0 with deviation 1."""
    second = np.zeros(RATE, np.float32)
    second[: min(len(samples), RATE)] = samples[:RATE]
    windows = np.lib.stride_tricks.sliding_window_view(second, WINDOW)[::HOP][:FRAMES] * np.hanning(WINDOW)
    energies = np.abs(np.fft.rfft(windows)) ** 2 @ mel_bands().T
    return torch.from_numpy((np.log(energies + 1e-3).astype(np.float32) + 2) / 3)[None]


def samples_of(file):
    """The samples of a WAV file, -1..1, at 16 kHz."""
    with wave.open(str(file)) as sound:
        if (sound.getframerate(), sound.getsampwidth(), sound.getnchannels()) != (RATE, 2, 1):
            raise ValueError(f"{file} is not of 16 kHz, 16 bits, mono")
        return np.frombuffer(sound.readframes(sound.getnframes()), "<i2").astype(np.float32) / 32768


class Keywords:
    """The task: which word it is."""

    directions = {"accuracy": "max"}
    shares = ("accuracy",)

    def __init__(self):
        self.folder = Path(os.environ.get("KEYWORDS", "words"))
        self.outputs = tuple(sorted(entry.name for entry in self.folder.iterdir() if entry.is_dir()))

    def data(self):
        """Training, validation and test: by the rest of the file's number, so that nothing is in two parts."""
        parts = {"train": [], "validation": [], "test": []}
        for label, word in enumerate(self.outputs):
            for number, file in enumerate(sorted((self.folder / word).glob("*.wav"))):
                part = {0: "test", 1: "validation"}.get(number % 10, "train")
                parts[part].append((log_mel(samples_of(file)), label))
        return list(parts.values())

    def loss(self, output, target):
        return nn.functional.cross_entropy(output, target)

    def metrics(self, output, target):
        return {"accuracy": (output.argmax(dim=1) == target).float().mean()}
