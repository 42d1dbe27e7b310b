"""Run the examples as their pages describe, on small synthetic data."""

import importlib.util
import json
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import pretrim
from pretrim.models.zoo import torchvision

EXAMPLES = Path(__file__).parent.parent / "examples"
BASE: dict[str, Any] = {"train_on": "cpu", "threads": 1, "precision": "float32", "macs": "0.5x"}


def load_module(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def write_words(folder: Path, pitches: tuple[float, ...] = (400.0, 900.0, 2000.0), count: int = 30) -> Path:
    """Write recordings of words: each word is a tone of its own pitch, at a random time and with noise."""
    generator = np.random.default_rng(0)
    for word, pitch in enumerate(pitches):
        subfolder = folder / f"word{word}"
        subfolder.mkdir(parents=True)
        for number in range(count):
            time = np.arange(16_000) / 16_000
            start = generator.uniform(0, 0.5)
            tone = np.sin(2 * np.pi * pitch * generator.uniform(0.9, 1.1) * time) * (
                (time > start) & (time < start + 0.4)
            )
            sound = 0.3 * tone + 0.02 * generator.standard_normal(16_000)
            with wave.open(str(subfolder / f"{number:02}.wav"), "wb") as file:
                file.setnchannels(1), file.setsampwidth(2), file.setframerate(16_000)
                file.writeframes((sound * 32767).astype("<i2").tobytes())
    return folder


def test_keyword_spotting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYWORDS", str(write_words(tmp_path / "words")))
    file = EXAMPLES / "keyword_spotting" / "keywords.py"
    run = pretrim.compress(
        f"{file}:build", task=f"{file}:Keywords", output=tmp_path / "run", device="nrf52840", epochs=6, batch_size=8,
        lr=0.02, **BASE,
    )  # fmt: skip
    assert run.record is not None and run.record.input_shape == (1, 49, 10)
    assert run.record.classes == ("word0", "word1", "word2")
    assert run.score is not None and run.score > 0.8
    assert run.artifact is not None and run.artifact.board is not None and run.artifact.board["verified"]
    assert run.artifact.artifact.proof["metric"]["name"] == "accuracy"


def test_the_spectrogram_of_a_tone_is_brightest_in_its_band() -> None:
    keywords = load_module(EXAMPLES / "keyword_spotting" / "keywords.py")
    bands = keywords.mel_bands()
    for pitch in (300, 1000, 3000):
        tone = np.sin(2 * np.pi * pitch * np.arange(16_000) / 16_000)
        band = int(keywords.log_mel(tone)[0].mean(dim=0).argmax())
        assert band == int(bands[:, round(pitch * keywords.WINDOW / keywords.RATE)].argmax())


def test_defects(tmp_path: Path) -> None:
    """Photos of grey parts, a third of them with a dark scratch."""
    generator = np.random.default_rng(0)
    for number in range(72):
        defect = number % 3 == 0
        pixels = 150 + 15 * generator.standard_normal((32, 32))
        if defect:
            row = generator.integers(4, 28)
            pixels[row : row + 2, 4:28] -= 90
        folder = tmp_path / "parts" / ("defect" if defect else "good")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.png")
    run = pretrim.compress(
        f"{EXAMPLES / 'defects' / 'inspection.py'}:build", str(tmp_path / "parts"), output=tmp_path / "run",
        input="1x32x32", device="stm32h743", epochs=8, batch_size=8, lr=0.02, set={"balance": "loss"}, **BASE,
    )  # fmt: skip
    assert run.accuracy is not None and run.accuracy > run.results["chance"]
    assert run.artifact is not None and run.artifact.board is not None and run.artifact.board["verified"]


def scene(generator: np.random.Generator) -> tuple[Image.Image, list[tuple[int, list[int]]]]:
    """One or two rectangles, each red or blue, on grey."""
    pixels = np.full((64, 64, 3), 110) + generator.integers(-10, 10, (64, 64, 3))
    boxes = []
    for corner in ((2, 2), (34, 34))[: generator.integers(1, 3)]:
        colour, (width, height) = int(generator.integers(0, 2)), generator.integers(12, 24, 2)
        x, y = (int(offset + generator.integers(0, 6)) for offset in corner)
        pixels[y : y + height, x : x + width] = ((230, 40, 40), (40, 40, 230))[colour]
        boxes.append((colour + 1, [x, y, int(width), int(height)]))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), boxes


def write_coco(folder: Path, counts: dict[str, int]) -> Path:
    """Write scenes in the COCO format."""
    generator = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    for split, count in counts.items():
        images, annotations = [], []
        for number in range(count):
            image, boxes = scene(generator)
            name = f"{split}{number}.png"
            image.save(folder / "images" / name)
            images.append({"id": number, "file_name": name, "width": 64, "height": 64})
            for category, box in boxes:
                number_of_box = len(annotations) + 1
                annotations.append({"id": number_of_box, "image_id": number, "category_id": category, "bbox": box})
        categories = [{"id": 1, "name": "red"}, {"id": 2, "name": "blue"}]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (folder / f"{split}.json").write_text(json.dumps(content))
    return folder


def test_detection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DETECTION", str(write_coco(tmp_path / "objects", {"train": 120, "test": 24})))
    file = EXAMPLES / "detection" / "detector.py"
    run = pretrim.compress(
        f"{file}:build", task=f"{file}:Detection", output=tmp_path / "run", epochs=16, batch_size=8, lr=0.05, **BASE
    )
    assert run.metric.name == "ap50"
    assert run.score is not None and run.score > 0.5
    for runtime, int8 in (("onnx", True), ("litert", True), ("executorch", False)):
        metric = run.export(runtime, int8=int8).artifact.proof["metric"]
        assert metric["name"] == "ap50" and metric["loss"] < (0.1 if int8 else 1e-3)


def test_detection_through_sweep_recommend_and_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DETECTION", str(write_coco(tmp_path / "objects", {"train": 24, "test": 8})))
    detector = load_module(EXAMPLES / "detection" / "detector.py")
    quick = {name: value for name, value in BASE.items() if name != "macs"} | {"epochs": 1, "batch_size": 8}
    study = pretrim.sweep(
        detector.build(), task=detector.Detection(), output=tmp_path / "s", keep=[0.6, 0.3], modes="uniform", **quick
    )
    assert [trial.state for trial in study.trials] == ["done"] * 3
    best = study.recommend(macs="1x").found.best
    assert best is not None and best.metric.name == "ap50"
    assert best.validation == max(trial.validation for trial in study.trials)
    assert '"metric":{"name":"ap50"' in study.report(tmp_path / "report.html").read_text()


def test_average_precision_of_boxes_by_hand() -> None:
    """Two true boxes are ranked first and third, with a false positive between them: (1/1 + 2/3) / 2."""
    detector = load_module(EXAMPLES / "detection" / "detector.py")
    target = torch.tensor([[[0, 0.2, 0.2, 0.2, 0.2], [0, 0.7, 0.7, 0.2, 0.2], [-1, -1, -1, -1, -1.0]]])
    predictions = torch.tensor(
        [[[0.9, 0, 0.2, 0.2, 0.2, 0.2], [0.8, 0, 0.45, 0.2, 0.2, 0.2], [0.7, 0, 0.7, 0.68, 0.2, 0.2]]]
    )
    assert detector.average_precision(predictions, target, 0) == pytest.approx((1 + 2 / 3) / 2)
    assert detector.shared(torch.tensor([0.2, 0.2, 0.2, 0.2]), torch.tensor([0.3, 0.2, 0.2, 0.2])) == pytest.approx(
        1 / 3
    )


# ---------------------------------------------------------------------------------------- torchvision's SSDlite


def ssdlite(monkeypatch: pytest.MonkeyPatch, folder: Path, counts: dict[str, int]) -> Any:
    monkeypatch.setenv("DETECTION", str(write_coco(folder, counts)))
    torchvision()  # its import needs help next to a CPU-only torch
    return load_module(EXAMPLES / "ssdlite" / "ssdlite.py")


def test_ssdlite_through_sweep_recommend_report_and_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ssdlite(monkeypatch, tmp_path / "objects", {"train": 20, "test": 6})
    file = EXAMPLES / "ssdlite" / "ssdlite.py"
    quick = {name: value for name, value in BASE.items() if name != "macs"} | {"epochs": 1, "batch_size": 8, "lr": 0.05}
    task = {"task": f"{file}:Detection"}
    study = pretrim.sweep(f"{file}:build", output=tmp_path / "s", keep=[0.6, 0.5], modes="balanced", **task, **quick)
    assert [trial.state for trial in study.trials] == ["done"] * 3
    best = study.recommend(macs="0.5x").found.best
    assert best is not None and best.metric.name == "map"
    assert '"metric":{"name":"map"' in study.report(tmp_path / "report.html").read_text()
    run = pretrim.open_run(study.path / "trials" / best.key, model=f"{file}:build", **task)
    # Forced, since after one epoch the weights amplify rounding errors.
    metric = run.export("onnx", force=True).artifact.proof["metric"]
    assert metric["name"] == "map" and metric["loss"] == pytest.approx(0.0, abs=1e-3)


def test_the_heads_and_the_loss_are_those_of_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference is torchvision's forward in train mode, which normalises, matches and computes the loss itself."""
    example = ssdlite(monkeypatch, tmp_path / "objects", {"train": 4, "test": 1})
    torch.manual_seed(0)
    detector, task = example.ssdlite(1.0).train(), example.Detection()
    for norm in (layer for layer in detector.modules() if isinstance(layer, nn.BatchNorm2d)):
        norm.eval()
    detector.transform.fixed_size = (example.SIZE, example.SIZE)
    images, boxes = (torch.stack(values) for values in zip(*task.data()[0], strict=True))
    targets = [{"boxes": rows[:, 1:], "labels": rows[:, 0].long()} for rows in map(example.present, boxes)]
    with torch.no_grad():
        expected = sum(detector([image * 0.5 + 0.5 for image in images], targets).values())
        actual = task.loss(example.Heads(detector)(images), boxes)
    assert float(actual) == pytest.approx(float(expected), rel=1e-4)


def test_predictions_of_ssdlite_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """True boxes as predictions score 1; of two overlapping boxes, the more likely one is kept."""
    example = ssdlite(monkeypatch, tmp_path / "objects", {"train": 1, "test": 6})
    boxes = torch.stack([rows for _, rows in example.Detection().data()[1]])
    predictions = torch.cat([0.9 * (boxes[..., :1] > 0), boxes], dim=2)
    assert example.average_precision(predictions, boxes) == {"map": 1.0, "map_50": 1.0}
    predictions[..., 1] = 3 - predictions[..., 1]  # the other class
    assert example.average_precision(predictions, boxes) == {"map": 0.0, "map_50": 0.0}
    overlapping = torch.tensor([[0, 0, 10, 10], [1, 0, 11, 10], [50, 50, 60, 60.0]])
    assert example.without_doubles(overlapping) == [0, 2]
