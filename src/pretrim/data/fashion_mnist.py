"""`fashion-mnist`: four IDX files from Debian's package or a user's folder, or downloaded with an announcement."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import io
import os
import struct
import urllib.request
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from pretrim.errors import DataError
from pretrim.files import write_atomically

from .images import Resize, resized
from .record import Parts, Split, check_labels

CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
ADDRESS = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
LARGEST_BYTES = 1 << 28
NATIVE, PADDED = 28, 32


class Sums(NamedTuple):
    """Checksums of one file."""

    md5_of_gz: str
    """MD5 of the gzip file that the authors publish (github.com/zalandoresearch/fashion-mnist, table in README)."""
    sha256_of_content: str
    """SHA-256 of the unpacked bytes; Debian's dataset-fashion-mnist packs the same stream without name and time."""


FILES = {
    "train-images-idx3-ubyte": Sums(
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d", "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"
    ),
    "train-labels-idx1-ubyte": Sums(
        "25c81989df183df01b3e8a0aad5dffbe", "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"
    ),
    "t10k-images-idx3-ubyte": Sums(
        "bef4ecab320f06d8554ea6380940ec79", "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"
    ),
    "t10k-labels-idx1-ubyte": Sums(
        "bb300cfdad3c16e7a12a480ee83cd310", "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"
    ),
}


def read(folder: Path | None, resize: Resize, announce: Callable[[str], None]) -> Parts:
    """Read the 28x28 grey images (Xiao, Rasul, Vollgraf 2017), zero-padded to 32x32, or resized to another size.

    Raises DataError if the files are missing or damaged, or cannot be downloaded.

    Args:
        folder: folder of the IDX files; None: Debian's folder or the cache.
        resize: requested size, and how it is reached.
        announce: called with a line of text before anything is downloaded.
    """
    source_folder = folder if folder is not None else _find(announce)
    contents = _contents(source_folder)
    remark = "" if is_published(contents) else ", not the published ones"
    train, test, padding = _splits(source_folder, contents, resize)
    for split in (train, test):
        check_labels(split.labels, len(CLASSES), str(source_folder))
    source = f"Fashion-MNIST, IDX files in {source_folder}{remark}"
    return Parts("fashion-mnist", source, CLASSES, train, None, test, padding=padding)


def read_folder(folder: Path, resize: Resize) -> Parts:
    """Read IDX files from a bare folder path: as Fashion-MNIST if they match it byte for byte.

    MNIST and its relatives use the same file names. Their classes are numbered, and their images never mirrored: they
    may show characters.
    """
    contents = _contents(folder)
    if is_published(contents):
        return read(folder, resize, lambda _: None)
    train, test, padding = _splits(folder, contents, resize)
    classes = tuple(str(label) for label in range(int(train.labels.max()) + 1))
    check_labels(test.labels, len(classes), str(folder))
    if len(classes) < 2:
        raise DataError(f"Expected at least 2 classes in {folder}, but every label is 0: add images.")
    name, source = folder.resolve().name, f"IDX files in {folder}"
    return Parts(name, source, classes, train, None, test, flip=False, padding=padding)


def is_here(folder: Path) -> bool:
    """Whether a folder holds the four files."""
    return all(_locate(folder, name) is not None for name in FILES)


def is_published(contents: dict[str, bytes]) -> bool:
    """Whether these are the bytes that the authors of Fashion-MNIST published."""
    return all(hashlib.sha256(contents[name]).hexdigest() == sums.sha256_of_content for name, sums in FILES.items())


def _find(announce: Callable[[str], None]) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pretrim" / "fashion-mnist"
    for candidate in (DEBIAN, cache):
        if is_here(candidate):
            return candidate
    download(cache, announce)
    return cache


def download(folder: Path, announce: Callable[[str], None]) -> None:
    """Download the four files (30 MB) after announcing it, and verify the checksums of each before keeping it.

    Raises DataError without a network, for bytes other than the published ones, and if nothing can be written.
    """
    announce(f"downloading Fashion-MNIST (30 MB) from {ADDRESS} to {folder}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, sums in FILES.items():
            with urllib.request.urlopen(f"{ADDRESS}{name}.gz", timeout=30) as answer:
                data: bytes = answer.read(LARGEST_BYTES)
            _check_sums(name, data, sums)
            _write(folder / f"{name}.gz", data)
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or str(error) or type(error).__name__
        raise DataError(
            f"Fashion-MNIST is neither in {DEBIAN} nor available from the network ({reason}): "
            f"apt-get install dataset-fashion-mnist, or give its folder as fashion-mnist:FOLDER."
        ) from error


def _check_sums(name: str, data: bytes, sums: Sums) -> None:
    if hashlib.md5(data, usedforsecurity=False).hexdigest() == sums.md5_of_gz:
        if hashlib.sha256(_unpacked(data, f"{ADDRESS}{name}.gz")).hexdigest() == sums.sha256_of_content:
            return
    raise DataError(
        f"Expected the published checksum for {name}.gz, but got another (it was not kept): try again, "
        f"or give a folder as fashion-mnist:FOLDER."
    )


def _write(path: Path, data: bytes) -> None:
    def write(temporary: Path) -> None:
        temporary.write_bytes(data)

    write_atomically(path, write)


def _locate(folder: Path, name: str) -> Path | None:
    for path in (folder / f"{name}.gz", folder / name):
        if path.is_file():
            return path
    return None


def _contents(folder: Path) -> dict[str, bytes]:
    """Return the unpacked bytes of the four files."""
    contents = {}
    for name in FILES:
        path = _locate(folder, name)
        if path is None:
            raise DataError(f"No {name}.gz in {folder}: give the folder with the four IDX files.")
        try:
            data = path.read_bytes()
        except OSError as error:
            raise DataError(f"Expected an IDX file in {path}, but got {error}: check its permissions.") from error
        contents[name] = _unpacked(data, str(path)) if path.suffix == ".gz" else data
    return contents


def _unpacked(data: bytes, where: str) -> bytes:
    try:
        with gzip.open(io.BytesIO(data)) as file:
            return file.read(LARGEST_BYTES)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"Cannot read the IDX file {where} ({error}): fetch it again.") from error


def _splits(folder: Path, contents: dict[str, bytes], resize: Resize) -> tuple[Split, Split, int]:
    """Return the training and test splits, and the width of the zero padding around their images.

    28x28 images are padded to 32x32 by default and also when that size is requested, so that a run and its evaluation
    see the same images.
    """
    train, test = (_part(folder, contents, part) for part in ("train", "t10k"))
    is_native_size = all(part.images.shape[-2:] == (NATIVE, NATIVE) for part in (train, test))
    padding = (PADDED - NATIVE) // 2 if is_native_size and resize.size in (None, (PADDED, PADDED)) else 0
    return _sized(train, resize, padding), _sized(test, resize, padding), padding


def _sized(split: Split, resize: Resize, padding: int) -> Split:
    pixels = split.images[:]
    if padding:
        pixels = torch.nn.functional.pad(pixels, [padding] * 4)
    else:
        pixels = resized(pixels, resize)
    return Split(pixels, split.labels)


def _part(folder: Path, contents: dict[str, bytes], part: str) -> Split:
    names = f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte"
    images, labels = (parse_idx(contents[n], dims, str(folder / n)) for n, dims in zip(names, (3, 1), strict=True))
    if len(images) != len(labels) or not len(images):
        raise DataError(
            f"Expected a label for each image in {folder}, but got {len(labels)} for {len(images)}: fetch it again."
        )
    return Split(torch.from_numpy(images)[:, None], torch.from_numpy(labels.astype(np.int64)))


def parse_idx(data: bytes, dims: int, where: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Parse an IDX file of bytes (LeCun's format: two zeros, type 8, dimensions, sizes as big-endian 32 bits, values).

    Raises DataError for a file with other dimensions, or whose length does not match its header.

    Args:
        data: the whole file.
        dims: expected number of dimensions.
        where: file name for error messages.
    """
    head = 4 + 4 * dims
    if data[:4] != bytes([0, 0, 8, dims]) or len(data) < head:
        raise DataError(
            f"Expected an IDX file of bytes in {dims} dimensions in {where}, but its first bytes are {data[:4]!r}: "
            f"fetch it again."
        )
    shape = struct.unpack(f">{dims}I", data[4:head])
    if len(data) - head != int(np.prod(shape, dtype=object)):
        raise DataError(
            f"Expected {'x'.join(map(str, shape))} values in {where}, but got {len(data) - head}: "
            f"the file is cut short, fetch it again."
        )
    return np.frombuffer(data, dtype=np.uint8, offset=head).reshape(shape).copy()
