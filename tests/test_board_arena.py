"""The arena on real 32-bit boards: mcufit-bench's measurements (MIT, commit 88f8d23), by hand-made counts of graphs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
from small import SHAPE, small
from torch import nn

import pretrim
from pretrim.cost.microcontroller import CHANNEL_BYTES, STRUCTURES, arena_cost, kept_by_kernels


@dataclass(frozen=True)
class Official:
    """A published ``.tflite``, counted by hand.

    Attributes:
        head: bytes of activations at the fullest moment.
        operators: by name.
        tensors: of the graph.
        channels: filters of layers that are quantised by channel.
        scratch: bytes that CMSIS-NN's kernel needs at the fullest moment.
        esp32, nano: bytes of the arena as measured, by TFLM with ESP-NN and with CMSIS-NN.
    """

    head: int
    operators: Sequence[str]
    tensors: int
    channels: int
    scratch: int
    esp32: int
    nano: int

    def arena(self, pointer_bytes: int) -> int:
        tail = STRUCTURES[pointer_bytes].tail(self.operators, self.tensors)
        return self.head + tail + CHANNEL_BYTES * self.channels


DEPTHWISE = 8 + 8 + 16 + 32 + 32 + 64 + 64 + 6 * 128 + 256
POINTWISE = 16 + 32 + 32 + 64 + 64 + 6 * 128 + 2 * 256 + 2
CONV, DEPTH, DENSE = ["CONV_2D"], ["DEPTHWISE_CONV_2D"], ["FULLY_CONNECTED"]
END = ["AVERAGE_POOL_2D", "RESHAPE"]
OFFICIAL = {
    # The head is stated in the measurements.
    "person_detect": Official(
        55_296, CONV * 14 + DEPTH * 14 + END + ["SOFTMAX"], 32 + 57, DEPTHWISE + POINTWISE, 0, 82_300, 82_740
    ),
    # Three feature maps of 32x32x16 at a sum; CMSIS-NN unfolds two columns of 3x3x16 in the convolution before it.
    "resnet8": Official(
        3 * 16_384, CONV * 9 + ["ADD"] * 3 + END + DENSE + ["SOFTMAX"], 17 + 21, 336, 2 * 9 * 16 * 2, 54_364, 55_188
    ),
    # Two feature maps of 25x5x64 around a depthwise layer; CMSIS-NN keeps its 3x3x64 filters in int16.
    "ds_cnn": Official(
        2 * 8_000, CONV * 5 + DEPTH * 4 + END + DENSE + ["SOFTMAX"], 14 + 21, 9 * 64, 2 * 9 * 64, 22_780, 24_164
    ),
    # Ten dense layers, which are not quantised by channel.
    "autoencoder": Official(640 + 128, DENSE * 10, 11 + 20, 0, 0, 2_380, 2_596),
}


@pytest.mark.parametrize("name", OFFICIAL)
def test_arenas_of_real_boards(name: str) -> None:
    """Within 1 % of an ESP32's, and nearer to it than with the structures of a 64-bit host."""
    official = OFFICIAL[name]
    assert official.arena(4) == pytest.approx(official.esp32, rel=0.01)
    kept = official.scratch + kept_by_kernels(official.operators, "cmsis-nn")
    assert official.arena(4) + kept == pytest.approx(official.nano, rel=0.01)
    assert abs(official.arena(4) - official.esp32) < abs(official.arena(8) - official.esp32)


def test_a_microcontroller_needs_less_than_a_host() -> None:
    network = pretrim.analyze(small(), torch.zeros(1, *SHAPE))
    host, board = (arena_cost(network, pointer_bytes=size) for size in (8, 4))
    assert int(board(network.dense)) < int(host(network.dense))
    heads = [int(cost(network.dense)) - int(cost.tail(network.dense)) for cost in (host, board)]
    assert heads[0] == heads[1]
    assert int(board.bound(network.dense)) <= int(board(network.dense))


def test_cmsis_nn_works_in_memory_of_its_own() -> None:
    """By hand: 3x3 over 8 channels unfolds 4 * 9 * 8 bytes; depthwise 3x3 of 8 channels takes 2 * 9 * 8; 1x1 none."""
    layers = {
        "full": (nn.Conv2d(8, 8, 3), 4 * 9 * 8),
        "depthwise": (nn.Conv2d(8, 8, 3, groups=8), 2 * 9 * 8),
        "pointwise": (nn.Conv2d(8, 8, 1), 0),
        "strided": (nn.Conv2d(8, 8, 1, stride=2), 4 * 8),
    }
    for name, (layer, scratch) in layers.items():
        network = pretrim.analyze(nn.Sequential(layer), torch.zeros(1, 8, 16, 16))
        plain, cmsis = (arena_cost(network, kernels=kernels)(network.dense) for kernels in ("reference", "cmsis-nn"))
        assert int(cmsis) - int(plain) == -(-scratch // 16) * 16, name  # aligned in the arena
