"""Inputs that are no square images: cameras of 160x120, spectrograms, signals, volumes; and how images get a shape."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch import nn
from torch.utils.data import TensorDataset

import pretrim
from pretrim import data
from pretrim.data.images import Resize, resized
from pretrim.errors import DataError, UsageError
from pretrim.jobs.data import parse_shape

QUICK: dict[str, Any] = {"epochs": 2, "batch_size": 8, "train_on": "cpu", "precision": "float32", "threads": 1}
CAMERA = """
from torch import nn

def build(num_classes=2, in_channels=3):
    return nn.Sequential(
        nn.Conv2d(in_channels, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, num_classes),
    )
"""


def photos(folder: Path, count: int = 12, size: tuple[int, int] = (200, 120)) -> Path:
    """Red and blue images with one folder per class; `size` is (width, height)."""
    generator = np.random.default_rng(0)
    for name, colour in (("blue", (40, 40, 200)), ("red", (200, 40, 40))):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            noise = generator.integers(-30, 30, (size[1], size[0], 3))
            pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


def signals(shape: tuple[int, ...], count: int = 24, seed: int = 0) -> TensorDataset:
    """Float tensors of a shape; the class is their sign."""
    labels = torch.arange(count) % 2
    noise = torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(noise * 0.3 + (2.0 * labels - 1).view(-1, *[1] * len(shape)), labels)


# ---------------------------------------------------------------------------------------- how images get a shape


@pytest.mark.parametrize("text", ["1x16000", "1x49x10", "3x120x160", "1x8x32x32"])
def test_a_shape_is_read_as_it_is_written(text: str) -> None:
    assert "x".join(map(str, parse_shape(text))) == text


@pytest.mark.parametrize("text", ["3", "3x", "0x4x4", "3x-4x4", "3x4x4x4x4", "axb", ""])
def test_what_is_no_shape_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="Expected --input to be CHANNELSxHEIGHTxWIDTH"):
        parse_shape(text)


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("size", [(12, 16), (16, 12), (8, 30)])
def test_files_get_a_size_as_pillow_has_it(tmp_path: Path, fit: Any, size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (20, 24, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    wide = (size[1], size[0])
    image, how = Image.fromarray(pixels), Image.Resampling.BILINEAR
    wanted = {"crop": ImageOps.fit, "pad": ImageOps.pad}.get(fit, lambda i, s, h: i.resize(s, h))(image, wide, how)
    found = data.decode_image(tmp_path / "x.png", (3, *size), fit=fit)
    assert np.array_equal(found.permute(1, 2, 0).numpy(), np.asarray(wanted))


@pytest.mark.parametrize(("fit", "zeros"), [("crop", 0), ("stretch", 0), ("pad", 8 * 16 - 8 * 8)])
def test_tensors_get_a_size_without_other_values(fit: Any, zeros: int) -> None:
    """A white square, of which padding to twice the width leaves half of the pixels black."""
    white = torch.full((2, 1, 10, 10), 255, dtype=torch.uint8)
    found = resized(white, Resize((8, 16), fit))
    assert found.shape == (2, 1, 8, 16)
    assert set(found.unique().tolist()) <= {0, 255}
    assert int((found[0] == 0).sum()) == zeros
    assert fit != "pad" or bool((found[..., 4:12] == 255).all())


def test_a_crop_of_a_tensor_is_its_centre() -> None:
    image = torch.arange(8, dtype=torch.uint8).view(1, 1, 1, 8).expand(1, 1, 4, 8)
    assert resized(image, Resize((4, 4), "crop"))[0, 0, 0].tolist() == [2, 3, 4, 5]


def test_a_folder_is_read_in_any_shape(tmp_path: Path) -> None:
    found = data.load(str(photos(tmp_path)), image_size=(12, 16), fit="pad")
    assert found.input_shape == (3, 12, 16)
    assert found.to_json()["fit"] == "pad"


def test_transparency_is_kept_on_request_and_said_otherwise(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(4):
            Image.new("RGBA", (8, 8), (10, 20, 30, 128)).save(tmp_path / name / f"{number}.png")
    lines: list[str] = []
    kept = data.load(str(tmp_path), image_size=8, channels=4, announce=lines.append)
    assert kept.train.images[:1][0, :, 0, 0].tolist() == [10, 20, 30, 128]
    assert not lines
    data.load(str(tmp_path), image_size=8, announce=lines.append)
    assert lines == ["note: transparency is left out (--input 4xHxW keeps it as a channel)"]


def test_sixteen_bits_are_said(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(4):
            Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) + 50_000).save(
                tmp_path / name / f"{number}.png"
            )
    lines: list[str] = []
    data.load(str(tmp_path), image_size=8, announce=lines.append)
    assert lines == ["note: 16-bit images are read in 8 bits, each from its darkest value to its brightest"]


def test_a_signal_is_no_shape_of_image_files(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^Expected input CxHxW for images, but got 1x100: signals and volumes"):
        pretrim.compress("resnet20", str(photos(tmp_path / "p")), output=tmp_path / "run", macs="0.5x", input="1x100")
    assert not (tmp_path / "run").exists()


# ---------------------------------------------------------------------------------------- the whole job


def test_a_camera_of_160x120_to_int8_in_the_interpreter_of_microcontrollers(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(CAMERA)
    run = pretrim.compress(
        f"{tmp_path / 'net.py'}:build",
        str(photos(tmp_path / "photos")),
        output=tmp_path / "run",
        input="3x120x160",
        device="stm32h743",
        macs="0.6x",
        **QUICK,
    )
    assert run.record is not None and run.record.input_shape == (3, 120, 160)
    assert run.artifact is not None and run.artifact.board is not None
    assert run.artifact.board["verified"] and run.artifact.artifact.input["shape"] == (1, 120, 160, 3)
    again = run.evaluate(str(tmp_path / "photos"))
    assert again.accuracy == run.accuracy
    said = run.predict([tmp_path / "photos" / "red" / "0.png"])[0]["predictions"]
    assert {entry["class"] for entry in said} == {"red", "blue"}


@pytest.mark.parametrize(
    ("shape", "board"),
    [((1, 49, 10), "nrf52840"), ((1, 400), None), ((1, 6, 8, 8), None)],
    ids=["spectrogram", "signal", "volume"],
)
def test_spectrograms_signals_and_volumes_through_the_whole_job(
    shape: tuple[int, ...], board: str | None, tmp_path: Path
) -> None:
    dims = len(shape) - 1
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
    norm = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[dims - 1]
    pool = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)[dims - 1]
    network = nn.Sequential(
        conv(1, 8, 3, padding=1), norm(8), nn.ReLU(), conv(8, 16, 3), nn.ReLU(), pool(1), nn.Flatten(), nn.Linear(16, 2)
    )
    target: dict[str, Any] = {"device": board} if board else {"runtime": "onnx", "int8": True}
    parts = (signals(shape), signals(shape, seed=1))
    run = pretrim.compress(network, parts, output=tmp_path / "run", macs="0.6x", round_to=4, **target, **QUICK)
    assert run.record is not None and run.record.input_shape == shape
    assert run.artifact is not None and run.artifact.artifact.data_type == "int8"
    assert run.artifact.artifact.proof["accuracy"] is not None
    assert board is None or (run.artifact.board is not None and run.artifact.board["verified"])


def test_a_sweep_takes_images_in_any_shape(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(CAMERA)
    study = pretrim.sweep(
        f"{tmp_path / 'net.py'}:build",
        str(photos(tmp_path / "photos")),
        output=tmp_path / "study",
        keep=[0.5],
        modes="balanced",
        input="3x24x32",
        fit="stretch",
        dense=False,
        epochs=1,
        batch_size=8,
        threads=1,
    )
    assert [trial.state for trial in study.trials] == ["done"]
    assert study.store.config().fit == "stretch"


def test_a_network_for_signals_says_that_files_are_no_input_of_it(tmp_path: Path) -> None:
    Image.new("L", (4, 4)).save(tmp_path / "x.png")
    with pytest.raises(DataError, match="Expected a network for images, but its input is 1x400"):
        data.decode_image(tmp_path / "x.png", (1, 400))
