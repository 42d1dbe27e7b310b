"""A data set as one file of decoded images, and as small files that a machine without a network can be handed.

    python benchmarks/pack_data.py decode ../shared/data/cifar100 build/data/cifar100.safetensors
    python benchmarks/pack_data.py pack build/data/cifar100.safetensors .gpu --largest 57       # .gpu/cifar100-1.zip
    python benchmarks/pack_data.py unpack build/data/cifar100.safetensors .gpu/cifar100-*.zip   # on the other machine

`decode` saves every worker of a benchmark the decoding of 60,000 images. `pack` is lossless: 500 images under each
other are one WebP file, which for CIFAR-100 takes 74 % of the PNG files (1,664 bytes an image instead of 2,244).
`unpack` compares the SHA-256 of the pixels and labels with those that were packed.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from pretrim.data import DataSet, Split, load
from pretrim.data.record import statistics

PARTS = ("train", "test")
STACKED = 500
"""images in one WebP file, whose sides are at most 16,383 pixels"""
Tensors = dict[str, torch.Tensor]


def decode(spec: str, file: Path) -> None:
    """Write a data set as `pretrim.data.load` reads it, with its validation part put back into the training part."""
    data = load(spec, announce=lambda line: None)
    tensors = {
        "train.images": torch.cat([data.train.images[:], data.validation.images[:]]),
        "train.labels": torch.cat([data.train.labels, data.validation.labels]),
        "test.images": data.test.images[:],
        "test.labels": data.test.labels,
    }
    _write(tensors, {"name": file.stem, "source": data.source, "classes": list(data.classes)}, file)


def read(file: Path, images: int | None = None) -> DataSet:
    """The data set of a file that `decode` or `unpack` wrote: all training images in `train`, none in `validation`.

    Args:
        file: a safetensors file.
        images: the most training images, and the most test images, to keep; None: all.
    """
    found, about = load_file(file), _about(file)
    splits = {part: Split(found[f"{part}.images"][:images], found[f"{part}.labels"][:images]) for part in PARTS}
    mean, std = statistics(splits["train"].images)
    return DataSet(
        name=about["name"],
        source=about["source"],
        classes=tuple(about["classes"]),
        train=splits["train"],
        validation=splits["train"].take(np.zeros(0, dtype=np.int64)),
        test=splits["test"],
        mean=mean,
        std=std,
        flip=True,
        split_seed=0,
        split_note="all training images are trained on; none is held out, as nothing is chosen by them",
    )


def noise(classes: int, images: int) -> DataSet:
    """Random pixels and labels in the shape of CIFAR, to time trainings with."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (images, 3, 32, 32), dtype=torch.uint8, generator=generator)
    part = Split(pixels, torch.randint(0, classes, (images,), generator=generator))
    none = part.take(np.zeros(0, dtype=np.int64))
    names = tuple(map(str, range(classes)))
    half = (0.5, 0.5, 0.5)
    return DataSet("noise", "random pixels", names, part, none, none, half, half, True, 0, "no image is held out")


# ---------------------------------------------------------------------------------------- packed


def pack(file: Path, folder: Path, largest: int) -> list[Path]:
    """Write the images of a file as zip files of at most `largest` MiB; their paths, ``NAME-1.zip`` and so on."""
    tensors = load_file(file)
    parts = [*_labels(tensors), *_stacks(tensors)]
    about = {**_about(file), "sha256": digest(tensors), "members": len(parts) + 1}
    members = [("about.json", json.dumps(about).encode()), *parts]
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, group in enumerate(_grouped(members, largest * 2**20), start=1):
        paths.append(folder / f"{file.stem}-{number}.zip")
        with zipfile.ZipFile(paths[-1], "w", zipfile.ZIP_STORED) as archive:
            for name, content in group:
                archive.writestr(name, content)
    return paths


def unpack(file: Path, parts: Iterable[Path]) -> None:
    """Write the file again from all its parts. Raises ValueError where the result is not what was packed."""
    members: dict[str, bytes] = {}
    for path in parts:
        with zipfile.ZipFile(path) as archive:
            members |= {name: archive.read(name) for name in archive.namelist()}
    if "about.json" not in members or len(members) != (about := json.loads(members["about.json"])).pop("members"):
        raise ValueError(f"{file.name}: a part is missing, only {len(members)} members were found")
    tensors = {}
    for part in PARTS:
        stacks = [_image(members[name]) for name in sorted(members) if name.startswith(f"{part}.images")]
        tensors[f"{part}.images"] = torch.cat(stacks)
        labels = np.frombuffer(members[f"{part}.labels"], dtype="<u2").astype(np.int64)
        tensors[f"{part}.labels"] = torch.from_numpy(labels)
    if digest(tensors) != (wanted := about.pop("sha256")):
        raise ValueError(f"{file.name}: the unpacked images are not those that were packed ({wanted})")
    _write(tensors, about, file)


def digest(tensors: Tensors) -> str:
    """SHA-256 of all pixels and labels."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        found.update(name.encode() + tensors[name].contiguous().numpy().tobytes())
    return found.hexdigest()


def _labels(tensors: Tensors) -> Iterator[tuple[str, bytes]]:
    for part in PARTS:
        yield f"{part}.labels", tensors[f"{part}.labels"].numpy().astype("<u2").tobytes()


def _stacks(tensors: Tensors) -> Iterator[tuple[str, bytes]]:
    """Images under each other, as lossless WebP files."""
    for part in PARTS:
        for number, images in enumerate(tensors[f"{part}.images"].split(STACKED)):
            pixels = images.permute(0, 2, 3, 1).reshape(-1, images.shape[3], 3).numpy()
            content = io.BytesIO()
            Image.fromarray(pixels).save(content, "WEBP", lossless=True, quality=75, method=6)
            yield f"{part}.images-{number:04}.webp", content.getvalue()


def _image(content: bytes) -> torch.Tensor:
    """The square images of one stack, N x 3 x H x W."""
    pixels = torch.from_numpy(np.array(Image.open(io.BytesIO(content)).convert("RGB")))
    side = pixels.shape[1]
    return pixels.view(-1, side, side, 3).permute(0, 3, 1, 2).contiguous()


def _grouped(members: Sequence[tuple[str, bytes]], most: int) -> Iterator[list[tuple[str, bytes]]]:
    """Members in their order, in groups of at most so many bytes."""
    group: list[tuple[str, bytes]] = []
    size = 0
    for name, content in members:
        taken = len(content) + 300  # what a zip file adds is less
        if group and size + taken > most:
            yield group
            group, size = [], 0
        group.append((name, content))
        size += taken
    yield group


def _about(file: Path) -> dict[str, Any]:
    with safe_open(file, framework="pt") as opened:
        return dict(json.loads(opened.metadata()["about"]))


def _write(tensors: Tensors, about: dict[str, Any], file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file, {"about": json.dumps(about)})
    sizes = ", ".join(f"{len(tensors[part + '.labels']):,} {part}" for part in PARTS)
    print(f"{file}: {sizes}, SHA-256 {digest(tensors)[:16]}")


def main() -> None:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("decode")
    one.add_argument("spec", help="as `pretrim compress --data` takes it")
    one.add_argument("file", type=Path)
    one = commands.add_parser("pack")
    one.add_argument("file", type=Path)
    one.add_argument("folder", type=Path)
    one.add_argument("--largest", type=int, default=50, help="MiB of one part")
    one = commands.add_parser("unpack")
    one.add_argument("file", type=Path)
    one.add_argument("parts", type=Path, nargs="+")
    options = parser.parse_args()
    if options.command == "decode":
        decode(options.spec, options.file)
    elif options.command == "unpack":
        unpack(options.file, options.parts)
    else:
        for path in pack(options.file, options.folder, options.largest):
            print(f"{path}: {path.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
