"""`pretrim export`: a saved network as a file that the device's runtime loads, proved to compute the same."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pretrim.devices import board as find_board
from pretrim.errors import UsageError

from . import options, render
from .delivery import find_delivery, on_board
from .progress import say

if TYPE_CHECKING:
    import torch

    from pretrim.data import Split
    from pretrim.deploy import Artifact, RuntimeName

    from .opened import Opened

CALIBRATION_IMAGES = 100
PROOF_IMAGES = 1000
RANDOM_IMAGES = 16


def export(
    run: options.Run,
    to: options.To = None,
    device: options.Device = None,
    int8: options.Int8 = None,
    calibrate: Annotated[
        str | None,
        typer.Option(
            "--calibrate",
            "--data",
            metavar="DATA",
            help="Its training images give the ranges of int8, its test images the proof; without it, random pixels.",
            show_default=False,
        ),
    ] = None,
    images: Annotated[int, typer.Option("--images", min=2, help="Calibration images.")] = CALIBRATION_IMAGES,
    opset: Annotated[int | None, typer.Option("--opset", help="Of ONNX, 18 to 23.", show_default=False)] = None,
    arm: Annotated[bool, typer.Option("--arm", help="int8 ONNX with the types that ARM's kernels want.")] = False,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="By default in the run's folder.", show_default=False),
    ] = None,
    model: options.RunModel = None,
    force: Annotated[bool, typer.Option("--force", help="Keep a file that is not proved, marked.")] = False,
    sources: Annotated[
        Path | None,
        typer.Option(
            "--sources",
            metavar="FOLDER",
            help="Write C++ sources for a microcontroller: the model as an array, a minimal program.",
            show_default=False,
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file that is there.")] = False,
    json: options.Json = False,
) -> None:
    """Export a saved network to a device's runtime, and prove it.

    It is run there at once, and compared with PyTorch: what does not compute the same is not written.
    """
    board = find_board(device) if device is not None else None
    delivery = find_delivery(board, to, int8)
    if delivery is None:
        raise UsageError(f"Expected --to ({', '.join(options.RUNTIMES.split('|'))}) or --device, but got neither.")
    if sources is not None and delivery.to != "litert":
        raise UsageError("Expected --to litert or a microcontroller with --sources, but got another runtime.")
    if delivery.int8 and calibrate is None:
        raise UsageError("Expected --calibrate DATA with int8, but got none: its images give the ranges.")

    from pretrim.compat.optional import need
    from pretrim.deploy import check_target

    from .opened import open_run

    if sources is not None:
        need("tflite_micro")  # it tells the arena; before the export, not after it
    target = output if output is not None else default_path(run, delivery.to, delivery.int8)
    check_target(target, delivery.to, overwrite)
    opened = open_run(run, model)
    artifact = write(
        opened,
        target,
        delivery.to,
        _material(calibrate, opened),
        int8=delivery.int8,
        images=images,
        opset=opset,
        signed=arm or board is not None,
        force=force,
    )
    record = {**artifact.to_json(), "path": str(artifact.path), "board": on_board(artifact, board)}
    if sources is not None:
        write_sources(artifact, sources)
    if json:
        render.print_json(record)
    else:
        render.show_artifact(render.output(), record)


def write_sources(artifact: Artifact, folder: Path) -> None:
    """The C++ sources, with the arena that the interpreter for microcontrollers takes here."""
    from pretrim.deploy import micro
    from pretrim.deploy import write_sources as write_all

    arena = micro.arena(artifact.path.read_bytes()).total_bytes
    for file in write_all(artifact, folder, arena):
        say(f"wrote {file}")


def default_path(run: Path, to: str, int8: bool) -> Path:
    """Where an artifact of a run goes: ``RUN/model.onnx``, ``RUN/model.int8.tflite``."""
    from pretrim.deploy import SUFFIXES
    from pretrim.runs.record import ARTIFACT

    return run / f"{ARTIFACT}{'.int8' if int8 else ''}{SUFFIXES[to]}"  # type: ignore[index]  # it is checked


@dataclass(frozen=True)
class Material:
    """Images to calibrate and to prove with, as they come; None: random pixels for the proof."""

    name: str
    train: Split | None
    test: Split | None


def _material(spec: str | None, opened: Opened) -> Material:
    if spec is None:
        return Material("random pixels", None, None)
    from .evaluate import load_like_run

    data = load_like_run(spec, opened.record)
    say(f"data: {data.source} ({data.split_note})")
    return Material(data.name, data.train, data.test)


def write(
    opened: Opened,
    target: Path,
    to: str,
    material: Material,
    *,
    int8: bool,
    images: int = CALIBRATION_IMAGES,
    opset: int | None = None,
    signed: bool = False,
    force: bool = False,
) -> Artifact:
    """Export a run with some data. The images are spread evenly over their split."""
    import torch

    from pretrim.data import normalise
    from pretrim.deploy import TITLES
    from pretrim.deploy import export as export_network

    runtime: RuntimeName = to  # type: ignore[assignment]  # it is checked

    def ready(pixels: torch.Tensor) -> torch.Tensor:
        return normalise(pixels, *opened.normalisation)

    options_: dict[str, Any] = {}
    if material.test is None or material.train is None:
        generator = torch.Generator().manual_seed(0)
        shape = (RANDOM_IMAGES, *opened.input_shape)
        inputs = ready(torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator))
        about = material.name
    else:
        proof = _spread(material.test, PROOF_IMAGES)
        inputs, about = ready(proof.images[:]), f"{len(proof):,} test images of {material.name}"
        options_["labels"] = proof.labels
        if int8:
            chosen = _spread(material.train, images)
            options_["calibration"] = ready(chosen.images[:])
            options_["calibrated_on"] = f"training images of {material.name}"
    say(f"exporting: {'int8' if int8 else 'float32'} for {TITLES[runtime]}, proved on {about}")
    return export_network(
        opened.network,
        target,
        runtime,
        images=inputs,
        inputs=about,
        normalisation=opened.normalisation,
        classes=opened.classes,
        opset=opset,
        signed=signed,
        force=force,
        **options_,
    )


def _spread(split: Split, most: int) -> Split:
    """At most so many images of a split, evenly spaced."""
    import numpy as np

    return split.take(np.linspace(0, len(split) - 1, min(len(split), most)).round().astype(np.int64))
