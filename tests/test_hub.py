"""`hf:` names, with data sets that the package `datasets` itself writes and reads. There is no network here."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pretrim import data
from pretrim.errors import DataError

datasets = pytest.importorskip("datasets")
# The package's own cache uses a form of pickling that Python 3.12 and later warn about.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:datasets", "ignore::ResourceWarning")

NAMES = ["left", "right"]


def rows(count: int) -> dict[str, list[object]]:
    images = [Image.fromarray(np.full((6, 6, 3), 10 * number, dtype=np.uint8)) for number in range(count)]
    return {"picture": list(images), "side": [number % 2 for number in range(count)]}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as a repository of the hub has it, and a cache of its own."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    features = datasets.Features(picture=datasets.Image(), side=datasets.ClassLabel(names=NAMES))
    root = tmp_path / "set"
    (root / "data").mkdir(parents=True)
    for part, count in (("train", 20), ("test", 6)):
        table = datasets.Dataset.from_dict(rows(count), features=features)
        table.to_parquet(root / "data" / f"{part}-00000-of-00001.parquet")
    return root


def test_a_set_brings_its_parts_images_and_class_names(hub: Path) -> None:
    loaded = data.load(f"hf:{hub}")
    assert loaded.classes == ("left", "right") and loaded.name == "set"
    assert (len(loaded.train) + len(loaded.validation), len(loaded.test)) == (20, 6)
    assert loaded.input_shape == (3, 6, 6)
    assert torch.equal(loaded.test.images[:, 0, 0, 0], torch.tensor([0, 10, 20, 30, 40, 50], dtype=torch.uint8))
    assert loaded.test.labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert "Hugging Face datasets" in loaded.source


def test_a_set_can_be_streamed_and_resized(hub: Path) -> None:
    streamed = data.load(f"hf:{hub}", image_size=4, channels=1, memory=0)
    assert streamed.streamed and streamed.test.images[:].shape == (6, 1, 4, 4)


def test_a_set_of_something_else_is_said(tmp_path: Path, hub: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    datasets.Dataset.from_dict({"text": ["a", "b"], "side": [0, 1]}).to_parquet(other / "train.parquet")
    with pytest.raises(DataError, match=r"Expected one column of images and one of classes in .* but got text, side"):
        data.load(f"hf:{other}")


def test_what_cannot_be_had_is_one_line_and_nothing_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import os; os.environ['HF_HUB_OFFLINE'] = '1'\n"
        "from pretrim.cli import main\n"
        "main(['compress', 'resnet20', '--data', 'hf:nobody/nothing', '--macs', '0.5x', '-o', 'x'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    lines = done.stderr.splitlines()
    assert (
        lines[0] == "loading nobody/nothing by Hugging Face datasets: from its cache, or else downloaded from the hub"
    )
    assert lines[-1].startswith("error: datasets could not load nobody/nothing")
    assert (done.returncode, len(lines), done.stdout) == (1, 2, "")


def test_without_the_package_the_error_says_what_to_install() -> None:
    code = "import sys; sys.modules['datasets'] = None\nfrom pretrim.data import load\nload('hf:a/b')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "UsageError: Names with hf: need the package datasets" in done.stderr
    assert "pip install 'pretrim[hub]'" in done.stderr
