"""Keyword spotting: words in WAV files, a 49x10 log-mel spectrogram, and a DS-CNN (Zhang et al. 2017) for a board.

The environment variable KEYWORDS names the folder of the recordings, with one subfolder of 16-bit WAV files per word.
The spectrogram is computed here, on the host. On the board, the firmware has to compute the same before it runs the
network; `log_mel` shows how in ten lines.
"""

import os
import wave
from pathlib import Path

import numpy as np
import torch
from torch import nn

RATE, WINDOW, HOP, BANDS, FRAMES = 16_000, 640, 320, 10, 49
"""Sampling rate in hertz; samples in a window and between windows (40 and 20 ms); mel bands; windows in one second."""


def build(num_classes=10, in_channels=1, filters=64):
    """A DS-CNN: a convolution, four depthwise separable convolutions, average pooling, and a linear layer."""
    layers = [nn.Conv2d(in_channels, filters, (10, 4), (2, 2), (5, 1), bias=False), nn.BatchNorm2d(filters), nn.ReLU()]
    for _ in range(4):
        layers += [nn.Conv2d(filters, filters, 3, padding=1, groups=filters, bias=False), nn.BatchNorm2d(filters)]
        layers += [nn.ReLU(), nn.Conv2d(filters, filters, 1, bias=False), nn.BatchNorm2d(filters), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(filters, num_classes))


def mel_bands():
    """Triangular filters evenly spaced on the mel scale from 20 Hz to 4 kHz (bands x frequencies)."""
    mel, hertz = (lambda f: 1127 * np.log1p(f / 700)), (lambda m: 700 * np.expm1(m / 1127))
    edges = hertz(np.linspace(mel(20), mel(4000), BANDS + 2))
    frequencies = np.fft.rfftfreq(WINDOW, 1 / RATE)
    rising = (frequencies - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - frequencies) / (edges[2:] - edges[1:-1])[:, None]
    return np.maximum(0, np.minimum(rising, falling))


def log_mel(samples):
    """Spectrogram (1 x 49 x 10, float32, mean about 0, deviation about 1) of one second of samples in -1..1."""
    second = np.zeros(RATE, np.float32)
    second[: min(len(samples), RATE)] = samples[:RATE]
    windows = np.lib.stride_tricks.sliding_window_view(second, WINDOW)[::HOP][:FRAMES] * np.hanning(WINDOW)
    energies = np.abs(np.fft.rfft(windows)) ** 2 @ mel_bands().T
    return torch.from_numpy((np.log(energies + 1e-3).astype(np.float32) + 2) / 3)[None]


def samples_of(file):
    """The samples of a WAV file at 16 kHz, in -1..1."""
    with wave.open(str(file)) as sound:
        if (sound.getframerate(), sound.getsampwidth(), sound.getnchannels()) != (RATE, 2, 1):
            raise ValueError(f"{file} is not of 16 kHz, 16 bits, mono")
        return np.frombuffer(sound.readframes(sound.getnframes()), "<i2").astype(np.float32) / 32768


class Keywords:
    """The task: classify which word is spoken."""

    directions = {"accuracy": "max"}
    shares = ("accuracy",)

    def __init__(self):
        self.folder = Path(os.environ.get("KEYWORDS", "words"))
        self.outputs = tuple(sorted(entry.name for entry in self.folder.iterdir() if entry.is_dir()))

    def data(self):
        """Training, validation and test samples. A file's index modulo 10 decides its split, so splits are disjoint."""
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
