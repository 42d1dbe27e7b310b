"""`fashion-mnist`: four IDX files, from Debian's package, a folder of the user, or downloaded and said so."""

from __future__ import annotations

import gzip
import hashlib
import os
import struct
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from pretrim.errors import DataError
from pretrim.files import write_atomically

from .images import resized
from .record import Parts, Split, check_labels

CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
ADDRESS = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
# MD5 sums that the authors publish (github.com/zalandoresearch/fashion-mnist, table in README).
FILES = {
    "train-images-idx3-ubyte": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte": "bb300cfdad3c16e7a12a480ee83cd310",
}
LARGEST = 1 << 30


def read(folder: Path | None, image_size: int | None, announce: Callable[[str], None]) -> Parts:
    """28x28 grey images (Xiao, Rasul, Vollgraf 2017), padded to 32x32 unless another size is asked for.

    Raises DataError where the files are missing, damaged, or cannot be downloaded.
    """
    place = folder if folder is not None else _find(announce)
    train, test = (_part(place, name, image_size) for name in ("train", "t10k"))
    return Parts("fashion-mnist", f"Fashion-MNIST, IDX files in {place}", CLASSES, train, None, test)


def is_here(folder: Path) -> bool:
    """Whether a folder holds the four files."""
    return all(_locate(folder, name) is not None for name in FILES)


def _find(announce: Callable[[str], None]) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "pretrim" / "fashion-mnist"
    for place in (DEBIAN, cache):
        if is_here(place):
            return place
    download(cache, announce)
    return cache


def download(folder: Path, announce: Callable[[str], None]) -> None:
    """Fetch the four files (30 MB), say so first, and check each against its published sum before it is kept."""
    announce(f"downloading Fashion-MNIST (30 MB) from {ADDRESS} to {folder}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, expected in FILES.items():
            with urllib.request.urlopen(f"{ADDRESS}{name}.gz", timeout=30) as answer:
                data: bytes = answer.read(LARGEST)
            if hashlib.md5(data, usedforsecurity=False).hexdigest() != expected:
                raise DataError(f"Expected the published checksum for {name}.gz, but got another: nothing was kept.")
            _write(folder / f"{name}.gz", data)
    except (urllib.error.URLError, OSError) as error:
        reason = getattr(error, "reason", error)
        raise DataError(
            f"Expected Fashion-MNIST in {DEBIAN} or from the network, but got neither ({reason}): "
            f"apt-get install dataset-fashion-mnist, or give its folder as fashion-mnist:FOLDER."
        ) from error


def _write(path: Path, data: bytes) -> None:
    def write(temporary: Path) -> None:
        temporary.write_bytes(data)

    write_atomically(path, write)


def _locate(folder: Path, name: str) -> Path | None:
    for path in (folder / f"{name}.gz", folder / name):
        if path.is_file():
            return path
    return None


def _part(folder: Path, name: str, image_size: int | None) -> Split:
    images = torch.from_numpy(read_idx(folder, f"{name}-images-idx3-ubyte"))[:, None]
    labels = torch.from_numpy(read_idx(folder, f"{name}-labels-idx1-ubyte").astype(np.int64))
    if len(images) != len(labels):
        raise DataError(f"Expected a label for each image in {folder}, but got {len(labels)} for {len(images)}.")
    check_labels(labels, len(CLASSES), str(folder))
    if image_size is None and images.shape[-2:] == (28, 28):
        return Split(torch.nn.functional.pad(images, (2, 2, 2, 2)), labels)
    return Split(resized(images, image_size or images.shape[-1]), labels)


def read_idx(folder: Path, name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """An IDX file of bytes (LeCun's format: two zeros, type 8, dimensions, sizes, values), packed with gzip or not.

    Raises DataError for a file that is missing or is not what its first bytes say.
    """
    path = _locate(folder, name)
    if path is None:
        raise DataError(
            f"Expected {name}.gz in {folder}, but it is not there: give the folder with the four IDX files."
        )
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            data = file.read(LARGEST)
    except (OSError, EOFError) as error:
        raise DataError(f"Expected an IDX file in {path}, but it cannot be read ({error}): fetch it again.") from error
    dims = data[3] if len(data) > 3 else 0
    if data[:3] != b"\0\0\x08" or not 1 <= dims <= 4 or len(data) < 4 + 4 * dims:
        raise DataError(
            f"Expected an IDX file of bytes in {path}, but its first bytes are {data[:4]!r}: fetch it again."
        )
    shape = struct.unpack(f">{dims}I", data[4 : 4 + 4 * dims])
    body = len(data) - 4 - 4 * dims
    if body != int(np.prod(shape, dtype=object)):
        raise DataError(f"Expected {shape} values in {path}, but got {body}: the file is cut short, fetch it again.")
    return np.frombuffer(data, dtype=np.uint8, offset=4 + 4 * dims).reshape(shape).copy()
