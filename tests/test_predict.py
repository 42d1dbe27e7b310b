"""What a run says of single images: given as what it was trained on, and refused otherwise."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import TensorDataset

import pretrim
from pretrim.deploy.firmware.conversion import values_text
from pretrim.errors import DataError, UsageError
from pretrim.runs.record import RunRecord

SIDE = 8
QUICK: dict[str, Any] = {"macs": "0.5x", "epochs": 4, "batch_size": 10, "lr": 0.05, "threads": 1, "train_on": "cpu"}


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 2)
    )


def parts(*, is_float: bool) -> tuple[TensorDataset, ...]:
    """Dark and bright images."""
    found = []
    for seed, count in enumerate((60, 20, 20)):
        generator = torch.Generator().manual_seed(seed)
        labels = torch.arange(count) % 2
        images = torch.rand(count, 1, SIDE, SIDE, generator=generator) * 0.4 + labels.view(-1, 1, 1, 1) * 0.5
        found.append(TensorDataset(images if is_float else (images * 255).to(torch.uint8), labels))
    return tuple(found)


def photos(folder: Path) -> Path:
    for name, level in (("0", 60), ("1", 200)):
        (folder / name).mkdir(parents=True)
        for number in range(12):
            Image.new("L", (SIDE, SIDE), level + number).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def of_floats(tmp_path_factory: pytest.TempPathFactory) -> pretrim.Run:
    return pretrim.compress(network(), parts(is_float=True), output=tmp_path_factory.mktemp("runs") / "floats", **QUICK)


@pytest.fixture(scope="module")
def of_pixels(tmp_path_factory: pytest.TempPathFactory) -> pretrim.Run:
    return pretrim.compress(
        network(), parts(is_float=False), output=tmp_path_factory.mktemp("runs") / "pixels", **QUICK
    )


def said(answers: list[dict[str, Any]]) -> list[str]:
    return [answer["predictions"][0]["class"] for answer in answers]


def wanted(run: pretrim.Run, images: torch.Tensor) -> list[str]:
    with torch.no_grad():
        return [str(int(place)) for place in run.model(images).argmax(dim=1)]


def test_a_run_of_floats_takes_them_as_the_data_set_gives_them(of_floats: pretrim.Run) -> None:
    images = parts(is_float=True)[2].tensors[0]
    expected = wanted(of_floats, images)
    assert expected == ["0", "1"] * 10
    for given in (images, images.numpy(), list(images), [image.numpy() for image in images], images.double()):
        answers = of_floats.predict(given, top=1)
        assert said(answers) == expected and [answer["image"] for answer in answers][:2] == ["image 0", "image 1"]
    assert said(of_floats.predict(images[1])) == ["1"] and said(of_floats.predict([images[0].numpy()])) == ["0"]


def test_a_run_of_floats_refuses_files_and_pixels(of_floats: pretrim.Run, tmp_path: Path) -> None:
    """Nobody knows what made floats of the files: fed as 0..255 they were believed to be something else."""
    file = photos(tmp_path / "photos") / "1" / "0.png"
    for given in (file, str(file), [file], Image.new("L", (8, 8)), torch.zeros(1, SIDE, SIDE, dtype=torch.uint8)):
        with pytest.raises(DataError, match=r"^Expected float tensors, as the data set gave them .* run\.predict"):
            of_floats.predict(given)
    with pytest.raises(DataError, match=r"Expected float tensors as in the training .*, but .* has pixels: give torch"):
        of_floats.evaluate(tmp_path / "photos")
    with pytest.raises(DataError, match="Expected float tensors as in the training"):
        of_floats.export("onnx", data=tmp_path / "photos")
    with pytest.raises(DataError, match="Expected float tensors as in the training"):
        of_floats.evaluate(parts(is_float=False))
    assert of_floats.evaluate(parts(is_float=True)).accuracy == of_floats.accuracy


def test_a_run_of_floats_says_so_in_its_records(of_floats: pretrim.Run, tmp_path: Path) -> None:
    record = of_floats.record
    assert (
        record is not None
        and record.as_given
        and json.loads((of_floats.path / "run.json").read_text())["data"]["as_given"]
    )
    before = record.to_json()
    del before["data"]["as_given"]  # as it was before that was recorded
    assert RunRecord.from_json(before).as_given
    assert "run.predict(images)" in (of_floats.path / "README.md").read_text()
    exported = of_floats.export("onnx", output=tmp_path / "model.onnx").artifact
    assert exported.input["normalisation"] is None and exported.input["as_given"]
    assert json.loads((tmp_path / "model.onnx.json").read_text())["input"]["as_given"] is True
    assert values_text(exported.input) == "as the data came, for the training did not normalise them"
    reopened = pretrim.open_run(of_floats.path, model=network)
    again = reopened.export("onnx", output=tmp_path / "again.onnx").artifact
    assert again.proof["inputs"] == "random numbers" and again.input["as_given"]


def test_a_run_of_pixels_takes_files_pictures_and_uint8(of_pixels: pretrim.Run, tmp_path: Path) -> None:
    images = parts(is_float=False)[2].tensors[0]
    record = of_pixels.record
    assert record is not None and not record.as_given and "as_given" not in (record.data or {})
    files = []
    for place, image in enumerate(images):
        files.append(tmp_path / f"{place}.png")
        Image.fromarray(image[0].numpy()).save(files[-1])
    expected = said(of_pixels.predict(files))
    assert expected == ["0", "1"] * 10
    pictures = [Image.open(io.BytesIO(file.read_bytes())) for file in files]
    for given in (images, images.numpy(), list(images), tuple(map(str, files)), pictures, images[:, 0].unbind()):
        assert said(of_pixels.predict(given)) == expected
    assert [picture.size for picture in pictures] == [(SIDE, SIDE)] * len(files), "they stay open"
    (alone,) = of_pixels.predict(str(files[1]))
    assert alone["image"] == str(files[1]) and alone == of_pixels.predict(files[1])[0]
    flat = Image.new("RGB", (20, 30), (200, 200, 200))
    levels = np.full((1, SIDE, SIDE), 200, np.uint8)
    assert of_pixels.predict(flat)[0] == of_pixels.predict(levels)[0], "a picture gets the network's size and channels"


@pytest.mark.parametrize(
    ("given", "kind", "text"),
    [
        (torch.rand(1, SIDE, SIDE), DataError, r"pixels of 0\.\.255 as uint8, .* but got a float32 tensor of 1x8x8"),
        (np.zeros((1, SIDE, SIDE), np.int64), DataError, "but got an int64 array of 1x8x8: give uint8, or the file"),
        (torch.zeros(1, 9, SIDE, dtype=torch.uint8), DataError, r"images of 1x8x8, .* a uint8 tensor of 1x9x8"),
        (torch.zeros(SIDE, SIDE, 3, dtype=torch.uint8), DataError, r"images of 1x8x8, .* uint8 tensor of 8x8x3"),
        ([], UsageError, "No image given"),
        (3, UsageError, "Expected images to be paths, PIL images, tensors or arrays"),
        ([3], UsageError, "Expected a path, PIL image, tensor or array, but got 3"),
        ("none.png", DataError, r"No file none\.png"),
    ],
)  # fmt: skip
def test_other_images_are_one_line(of_pixels: pretrim.Run, given: Any, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text) as caught:
        of_pixels.predict(given)
    assert "\n" not in str(caught.value)


def test_floats_are_not_evaluated_by_a_run_of_pixels(of_pixels: pretrim.Run) -> None:
    with pytest.raises(DataError, match=r"Expected pixels, which are normalised as in .* has float tensors"):
        of_pixels.evaluate(parts(is_float=True))


def test_floats_are_neither_normalised_nor_taught_by_a_teacher_of_pixels(
    of_pixels: pretrim.Run, tmp_path: Path
) -> None:
    given: dict[str, Any] = {"output": tmp_path / "run", **QUICK}
    with pytest.raises(UsageError, match=r"^mean and std apply to pixels, but your own data has float tensors"):
        pretrim.compress(network(), parts(is_float=True), mean="0.5", std="0.2", **given)
    (tmp_path / "net.py").write_text(
        "from torch import nn\n\ndef build():\n    return nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), "
        "nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 2))\n"
    )
    source = f"{tmp_path}/net.py:build"
    pretrim.compress(source, parts(is_float=False), output=tmp_path / "teacher", **QUICK)
    with pytest.raises(UsageError, match=r"trained on float tensors as they were, .* was trained on pixels"):
        pretrim.compress(source, parts(is_float=True), teacher=tmp_path / "teacher", **given)
