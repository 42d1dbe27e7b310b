"""Exports beyond one image of N x C x H x W: signals, volumes, vectors, several inputs, old opsets, any batch."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from pretrim.deploy import SUFFIXES, check, export, open_session, read
from pretrim.devices import board
from pretrim.errors import ExportError, UsageError
from pretrim.measure import Protocol, measure

QUICK = Protocol(runs=2, processes=1, rounds=1, warmup_s=0.0)
NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
SHAPES = {1: (2, 64), 2: (2, 12, 12), 3: (2, 6, 8, 8)}


class Net(nn.Module):
    """Two convolutions, a mean and a classifier, over signals, images or volumes."""

    def __init__(self, dimensions: int) -> None:
        super().__init__()
        convolution, norm = CONVOLUTIONS[dimensions], NORMS[dimensions]
        self.body = nn.Sequential(
            convolution(2, 16, 3, 2, 1, bias=False), norm(16), nn.ReLU(), convolution(16, 24, 3, padding=1), nn.ReLU()
        )
        self.head = nn.Linear(24, 5)
        self.axes = tuple(range(2, 2 + dimensions))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x).mean(self.axes))


def net(dimensions: int) -> tuple[nn.Module, torch.Tensor]:
    """Statistics as training leaves them, and inputs that are no noise alone."""
    torch.manual_seed(0)
    network = Net(dimensions).train()
    images = torch.randn(24, *SHAPES[dimensions]) + 2 * torch.randn(24, 2, *([1] * dimensions))
    with torch.no_grad():
        for _ in range(20):
            network(images)
    return network.eval(), images


def decibels(wanted: np.ndarray, got: np.ndarray) -> float:
    return float(10 * np.log10((wanted**2).sum() / max(((wanted - got) ** 2).sum(), 1e-30)))


@pytest.mark.parametrize("int8", [False, True], ids=["float32", "int8"])
@pytest.mark.parametrize(
    ("to", "dimensions", "layout"),
    [
        ("onnx", 1, "NCL"),
        ("litert", 1, "NLC"),
        ("executorch", 1, "NCL"),
        ("onnx", 3, "NCDHW"),
        ("litert", 3, "NDHWC"),
        ("executorch", 3, "NCDHW"),
    ],
)
def test_signals_and_volumes(to: Any, dimensions: int, layout: str, int8: bool, tmp_path: Path) -> None:
    network, images = net(dimensions)
    file, sample = tmp_path / f"model{SUFFIXES[to]}", images if int8 else None
    if dimensions == 3 and to == "executorch":  # it has no kernel for convolutions of volumes
        with pytest.raises(ExportError, match="did not take the network") as caught:
            export(network, file, to, images=images[:8], calibration=sample)
        assert "\n" not in str(caught.value) and list(tmp_path.iterdir()) == []
        return
    made = export(network, file, to, images=images[:8], calibration=sample)
    with torch.no_grad():
        wanted = network(images[:8]).numpy()
    assert decibels(wanted, open_session(to, file)(images[:8].numpy())[0]) > (25 if int8 else 80)
    channels, *spatial = SHAPES[dimensions]
    shape = (1, *spatial, channels) if to == "litert" else (1, channels, *spatial)
    assert (made.input["layout"], tuple(made.input["shape"])) == (layout, shape)
    assert read(file) == made
    assert measure([made], QUICK)[0].latency.median_s > 0


def test_a_signal_on_a_microcontroller(tmp_path: Path) -> None:
    network, images = net(1)
    made = export(network, tmp_path / "model.tflite", "litert", images=images[:8], calibration=images)
    found = check(made, board("nrf52840"))
    assert found["problems"] == [] and found["arena_bytes"] > 0
    assert found["tflm"].startswith("TFLM: passed (max difference ") and "int8 step" in found["tflm"]


def test_vectors(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    made = export(network, tmp_path / "model.tflite", "litert", images=torch.randn(4, 6))
    assert (made.input["layout"], list(made.input["shape"])) == ("NC", [1, 6])


class Two(nn.Module):
    """An image and a vector, the second added after the first is convolved; a difference tells the inputs apart."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.vector = nn.Conv2d(2, 8, 3), nn.Linear(5, 8)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.image(x).mean((2, 3)) - 3 * self.vector(y)


@pytest.mark.parametrize("int8", [False, True], ids=["float32", "int8"])
@pytest.mark.parametrize("to", ["onnx", "litert", "executorch"])
def test_several_inputs(to: Any, int8: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, inputs = Two().eval(), (torch.randn(12, 2, 8, 8), torch.randn(12, 5))
    file = tmp_path / f"model{SUFFIXES[to]}"
    made = export(network, file, to, images=inputs, calibration=inputs if int8 else None)
    with torch.no_grad():
        wanted = network(*inputs).numpy()
    got = open_session(to, file)(*(value.numpy() for value in inputs))[0]
    assert decibels(wanted, got) > (25 if int8 else 80)
    assert len(made.inputs) == 2 and list(made.inputs[1]["shape"]) == [1, 5]
    assert read(file) == made and json.loads(made.record_path.read_text())["more_inputs"][0]["shape"] == [1, 5]
    assert measure([made], QUICK)[0].latency.median_s > 0
    with pytest.raises(UsageError, match="Expected the same number of images for each input, but got 12 and 3"):
        export(network, file, to, images=(inputs[0], inputs[1][:3]))
    with pytest.raises(UsageError, match="Expected calibration images for 2 inputs, but got them for 1"):
        export(network, file, to, images=inputs, calibration=inputs[0])


# ---------------------------------------------------------------------------------------- ONNX for other readers


@pytest.mark.parametrize("opset", [11, 12, 13, 15, 17, 18, 23])
def test_every_opset_is_written_as_asked(opset: int, tmp_path: Path) -> None:
    network, images = net(2)
    made = export(network, tmp_path / "model.onnx", "onnx", images=images[:4], opset=opset)
    model = onnx.load(str(made.path))
    assert [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")] == [opset]
    assert b"/tests/" not in made.path.read_bytes()
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1


@pytest.mark.parametrize("opset", [13, 17])
def test_int8_of_an_old_opset(opset: int, tmp_path: Path) -> None:
    network, images = net(2)
    made = export(network, tmp_path / "model.onnx", "onnx", images=images[:4], calibration=images, opset=opset)
    versions = [entry.version for entry in onnx.load(str(made.path)).opset_import if entry.domain in ("", "ai.onnx")]
    assert versions == [opset] and made.data_type == "int8"


def test_int8_needs_an_opset_with_scales_by_channel(tmp_path: Path) -> None:
    network, images = net(2)
    with pytest.raises(UsageError, match="Expected an opset from 13 for int8, but got 12: older ones have no scales"):
        export(network, tmp_path / "model.onnx", "onnx", images=images, calibration=images, opset=12)


@pytest.mark.parametrize("int8", [False, True], ids=["float32", "int8"])
@pytest.mark.parametrize("opset", [None, 13])
def test_any_number_of_images_at_a_time(opset: int | None, int8: bool, tmp_path: Path) -> None:
    import onnxruntime

    network, images = net(2)
    arguments: dict[str, Any] = {"images": images[:4], "calibration": images if int8 else None, "opset": opset}
    made = export(network, tmp_path / "model.onnx", "onnx", dynamic_batch=True, **arguments)
    assert made.input["dynamic_batch"] is True and list(made.input["shape"]) == [1, 2, 12, 12]
    session = onnxruntime.InferenceSession(str(made.path), providers=["CPUExecutionProvider"])
    with torch.no_grad():
        for count in (1, 2, 7):
            got = session.run(None, {"input": images[:count].numpy()})[0]
            assert decibels(network(images[:count]).numpy(), got) > (20 if int8 else 80)
    fixed = export(network, tmp_path / "fixed.onnx", "onnx", **arguments)
    assert "dynamic_batch" not in fixed.input


def test_a_network_that_computes_across_its_batch(tmp_path: Path) -> None:
    class Across(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean((2, 3)) / (1 + x.mean((0, 2, 3)))

    with pytest.raises(ExportError, match="Expected the artifact to take 3 images at a time, but it answers otherwise"):
        export(Across(), tmp_path / "model.onnx", "onnx", images=torch.rand(5, 2, 4, 4), dynamic_batch=True)
    assert list(tmp_path.iterdir()) == []


def test_a_dynamic_batch_is_of_onnx(tmp_path: Path) -> None:
    network, images = net(2)
    with pytest.raises(UsageError, match="LiteRT has no dynamic batch: leave it out"):
        export(network, tmp_path / "model.tflite", "litert", images=images, dynamic_batch=True)


# ---------------------------------------------------------------------------------------- int8 that does not pay


@pytest.mark.parametrize("to", ["onnx", "litert", "executorch"])
@pytest.mark.parametrize("width", [4, 64])
def test_an_int8_file_that_is_larger_says_so(to: Any, width: int, tmp_path: Path) -> None:
    """Judged by both files themselves: in a small network it may be, in a large one it never is."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inputs, outputs in [(1, width), *([(width, width)] * 4)]:
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 3)).eval()
    images, sizes = torch.randn(20, 1, 12, 12), []
    for name, sample in (("float", None), ("int8", images)):
        file = tmp_path / f"{name}{SUFFIXES[to]}"
        made = export(network, file, to, images=images[:8], calibration=sample, force=True)
        sizes.append(file.stat().st_size)
        told = [note for note in made.notes if note.startswith("the int8 file is larger than the float32 one (")]
        assert len(told) == (name == "int8" and sizes[1:] >= sizes[:1])
    assert width == 4 or sizes[1] < sizes[0] / 2
