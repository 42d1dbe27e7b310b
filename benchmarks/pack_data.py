"""Store a dataset as one file of decoded images, or as small files for a machine without network access.

    python benchmarks/pack_data.py decode ../shared/data/cifar100 build/data/cifar100.safetensors
    python benchmarks/pack_data.py pack build/data/cifar100.safetensors .gpu --largest 57       # .gpu/cifar100-1.zip
    python benchmarks/pack_data.py unpack build/data/cifar100.safetensors .gpu/cifar100-*.zip   # on the other machine

With the file of `decode`, the workers of a benchmark need not decode 60,000 images each. `pack` is lossless: it stacks
500 images vertically in one WebP file, which for CIFAR-100 takes 74 % of the size of the PNG files (1,664 bytes per
image instead of 2,244). `unpack` checks the SHA-256 of all pixels and labels against that of the packed data.
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
"""Number of images in one WebP file, whose sides are at most 16,383 pixels."""
Tensors = dict[str, torch.Tensor]


def decode(spec: str, file: Path) -> None:
    """Write a dataset as read by `pretrim.data.load`, with its validation split merged back into the training split."""
    data = load(spec, announce=lambda line: None)
    tensors = {
        "train.images": torch.cat([data.train.images[:], data.validation.images[:]]),
        "train.labels": torch.cat([data.train.labels, data.validation.labels]),
        "test.images": data.test.images[:],
        "test.labels": data.test.labels,
    }
    _write(tensors, {"name": file.stem, "source": data.source, "classes": list(data.classes)}, file)


def read(file: Path, images: int | None = None) -> DataSet:
    """Read a dataset from a file of `decode` or `unpack`, with all training images in `train` and none in `validation`.

    Args:
        file: a safetensors file.
        images: maximum number of training images, and of test images; None for all.
    """
    tensors, metadata = load_file(file), _metadata(file)
    splits = {part: Split(tensors[f"{part}.images"][:images], tensors[f"{part}.labels"][:images]) for part in PARTS}
    mean, std = statistics(splits["train"].images)
    return DataSet(
        name=metadata["name"],
        source=metadata["source"],
        classes=tuple(metadata["classes"]),
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
    """Random pixels and labels in the shape of CIFAR, for timing trainings."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (images, 3, 32, 32), dtype=torch.uint8, generator=generator)
    train = Split(pixels, torch.randint(0, classes, (images,), generator=generator))
    empty = train.take(np.zeros(0, dtype=np.int64))
    names = tuple(map(str, range(classes)))
    half = (0.5, 0.5, 0.5)
    return DataSet("noise", "random pixels", names, train, empty, empty, half, half, True, 0, "no image is held out")


# ---------------------------------------------------------------------------------------- packing


def pack(file: Path, folder: Path, largest: int) -> list[Path]:
    """Write a file's data as zip files of at most `largest` MiB. Returns their paths, ``NAME-1.zip`` and so on."""
    tensors = load_file(file)
    parts = [*_labels(tensors), *_stacks(tensors)]
    metadata = {**_metadata(file), "sha256": digest(tensors), "members": len(parts) + 1}
    members = [("about.json", json.dumps(metadata).encode()), *parts]
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, group in enumerate(_split_members(members, largest * 2**20), start=1):
        paths.append(folder / f"{file.stem}-{number}.zip")
        with zipfile.ZipFile(paths[-1], "w", zipfile.ZIP_STORED) as archive:
            for name, content in group:
                archive.writestr(name, content)
    return paths


def unpack(file: Path, parts: Iterable[Path]) -> None:
    """Restore the file from all its parts. Raises ValueError if a part is missing or the data differ."""
    members: dict[str, bytes] = {}
    for path in parts:
        with zipfile.ZipFile(path) as archive:
            members |= {name: archive.read(name) for name in archive.namelist()}
    if "about.json" not in members or len(members) != (metadata := json.loads(members["about.json"])).pop("members"):
        raise ValueError(f"{file.name}: a part is missing, only {len(members)} members were found")
    tensors = {}
    for part in PARTS:
        stacks = [_unstack(members[name]) for name in sorted(members) if name.startswith(f"{part}.images")]
        tensors[f"{part}.images"] = torch.cat(stacks)
        labels = np.frombuffer(members[f"{part}.labels"], dtype="<u2").astype(np.int64)
        tensors[f"{part}.labels"] = torch.from_numpy(labels)
    if digest(tensors) != (expected := metadata.pop("sha256")):
        raise ValueError(f"{file.name}: the unpacked images are not those that were packed ({expected})")
    _write(tensors, metadata, file)


def digest(tensors: Tensors) -> str:
    """SHA-256 of all pixels and labels."""
    sha256 = hashlib.sha256()
    for name in sorted(tensors):
        sha256.update(name.encode() + tensors[name].contiguous().numpy().tobytes())
    return sha256.hexdigest()


def _labels(tensors: Tensors) -> Iterator[tuple[str, bytes]]:
    for part in PARTS:
        yield f"{part}.labels", tensors[f"{part}.labels"].numpy().astype("<u2").tobytes()


def _stacks(tensors: Tensors) -> Iterator[tuple[str, bytes]]:
    """Images stacked vertically in lossless WebP files, as pairs of name and content."""
    for part in PARTS:
        for number, images in enumerate(tensors[f"{part}.images"].split(STACKED)):
            pixels = images.permute(0, 2, 3, 1).reshape(-1, images.shape[3], 3).numpy()
            content = io.BytesIO()
            Image.fromarray(pixels).save(content, "WEBP", lossless=True, quality=75, method=6)
            yield f"{part}.images-{number:04}.webp", content.getvalue()


def _unstack(content: bytes) -> torch.Tensor:
    """The square images of one stack (N x 3 x H x W)."""
    pixels = torch.from_numpy(np.array(Image.open(io.BytesIO(content)).convert("RGB")))
    side = pixels.shape[1]
    return pixels.view(-1, side, side, 3).permute(0, 3, 1, 2).contiguous()


def _split_members(members: Sequence[tuple[str, bytes]], max_bytes: int) -> Iterator[list[tuple[str, bytes]]]:
    """Split the members, in order, into groups of at most `max_bytes`."""
    group: list[tuple[str, bytes]] = []
    group_bytes = 0
    for name, content in members:
        member_bytes = len(content) + 300  # more than the overhead of a zip file
        if group and group_bytes + member_bytes > max_bytes:
            yield group
            group, group_bytes = [], 0
        group.append((name, content))
        group_bytes += member_bytes
    yield group


def _metadata(file: Path) -> dict[str, Any]:
    with safe_open(file, framework="pt") as opened:
        return dict(json.loads(opened.metadata()["about"]))


def _write(tensors: Tensors, metadata: dict[str, Any], file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file, {"about": json.dumps(metadata)})
    sizes = ", ".join(f"{len(tensors[part + '.labels']):,} {part}" for part in PARTS)
    print(f"{file}: {sizes}, SHA-256 {digest(tensors)[:16]}")


def main() -> None:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("decode")
    command.add_argument("spec", help="as `pretrim compress --data` takes it")
    command.add_argument("file", type=Path)
    command = commands.add_parser("pack")
    command.add_argument("file", type=Path)
    command.add_argument("folder", type=Path)
    command.add_argument("--largest", type=int, default=50, help="MiB of one part")
    command = commands.add_parser("unpack")
    command.add_argument("file", type=Path)
    command.add_argument("parts", type=Path, nargs="+")
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
