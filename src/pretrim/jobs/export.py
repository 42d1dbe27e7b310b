"""From a run to an artifact that is proved, and what it takes on the board that it is for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from pretrim.devices import board as find_board
from pretrim.errors import ArtifactError, ExportError, UsageError

from .data import DataSource, load_like_run
from .delivered import Delivered
from .file_time import time_limit
from .options import Search, TargetOptions
from .reporter import Reporter, Silent
from .target import Target, find_target

if TYPE_CHECKING:
    import torch

    from pretrim.data import DataSet, Split
    from pretrim.deploy import Artifact, RuntimeName

    from .run import Run

PROOF_IMAGES = 1000
RANDOM_IMAGES = 16


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """How a run is exported."""

    images: int = 100
    """Number of calibration images for int8."""
    opset: int | None = None
    """ONNX opset (default: the exporter's)."""
    dynamic_batch: bool = False
    """ONNX that takes any number of images at a time (default: one)."""
    arm: bool = False
    """Use the int8 types that ARM's kernels want (ONNX)."""
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None
    """File to write (default: in the run's folder)."""
    force: bool = False
    """Write the file even if verification fails (flagged)."""
    sources: Path | None = None
    """Folder for sources of a microcontroller: the network as plain C, with a self-test and a Makefile."""
    sources_for: Literal["c", "tflm"] = "c"
    """c: plain C99 without any library (int8); tflm: C++ for TensorFlow Lite for Microcontrollers."""
    overwrite: bool = False
    """Replace the file that is there."""

    def __post_init__(self) -> None:
        if self.images < 2:
            raise UsageError(f"Expected --images to be at least 2, but got {self.images}.")


def export_run(
    run: Run,
    runtime: str | None = None,
    *,
    data: DataSource | None = None,
    reporter: Reporter | None = None,
    **asked: Any,
) -> Delivered:
    """Export a run; `asked` are fields of `TargetOptions` (``int8``, ``device``) and of `ExportOptions`.

    Args:
        run: what to export.
        runtime: onnx, litert or executorch; None: the device's.
        data: gives calibration and proof images; None: what the run was trained on, if it is at hand, what its own task
            brings, or random pixels.
        reporter: told what it is proved on.
        asked: further options.

    Raises:
        UsageError: options that contradict each other, or a runtime that is not installed.
        ExportError: the network cannot be converted, or the artifact does not compute the same. Nothing is written.
    """
    from .options import gather

    target, options = gather({"runtime": runtime, **asked}, TargetOptions, ExportOptions)
    return export(run, target, options, data, reporter)


def export(
    run: Run,
    target: TargetOptions,
    options: ExportOptions,
    data: DataSource | None = None,
    reporter: Reporter | None = None,
) -> Delivered:
    """Export a run to a runtime, prove it there, and look at it as its board would. See `export_run`.

    Args:
        run: the run.
        target: the runtime, data type and board.
        options: how, and where to.
        data: real images to prove and calibrate with.
        reporter: told of remarks.
    """
    from pretrim.deploy import check_sources, check_target

    reporter = reporter or Silent()
    brought = data is None and run.data is None and brings_data(run)
    found = check_options(target, options, has_data=data is not None or run.data is not None or brought)
    assert found.runtime is not None  # that is checked
    is_to_load = data is not None or brought
    material = load_like_run(data, run.classifier.record, run.purpose, reporter) if is_to_load else run.data
    folder = Path() if run.is_fetched else run.path
    file = Path(options.output or default_path(folder, found.runtime, found.int8))
    check_target(file, found.runtime, options.overwrite)
    if options.sources is not None:
        check_sources(Path(options.sources))
    artifact = write(run, file, found, material, options, reporter)
    _list_in_card(run, artifact, reporter)
    sources = _write_sources(artifact, options, reporter)
    return Delivered(artifact, on_board(artifact, found, reporter), sources)


def brings_data(run: Run) -> bool:
    """Whether the run's task is one of the user's, named with it, that has data of its own."""
    from pretrim.tasks import OwnTask

    return isinstance(run.task, OwnTask) and run.task.has_data


def check_options(target: TargetOptions, options: ExportOptions, *, has_data: bool) -> Target:
    """Everything that can be wrong without looking at the run.

    Args:
        target: runtime or device.
        options: how the run is exported.
        has_data: whether there are images to calibrate int8 with.

    Raises UsageError.
    """
    from pretrim.compat.optional import need

    found = find_target(target, _any_limit(target), Search())
    if found.runtime is None:
        raise UsageError("Name where it is to run: --runtime onnx, litert or executorch, or --device NAME.")
    if options.sources is not None:
        if found.runtime != "litert":
            raise UsageError(f"--sources are for microcontrollers, which run litert, not {found.runtime}.")
        if options.sources_for == "tflm":
            need("tflite_micro")  # it tells the arena; before the export, not after it
        elif not found.int8:
            raise UsageError("--sources are plain C for int8 networks: add --int8, or --sources-for tflm.")
    if found.int8 and not has_data:
        raise UsageError("int8 needs images to take its ranges from: add --calibrate DATA.")
    return found


def _any_limit(target: TargetOptions) -> dict[str, str]:
    """A computer makes no limit of its own, and none is needed to export for it."""
    return {"params": "1x"} if target.device is not None and find_board(target.device).flash_bytes is None else {}


def deliver(run: Run, target: Target, reporter: Reporter) -> Delivered:
    """Export a run in its folder for the target of its training.

    Raises ExportError, which says that the trained network is there all the same.

    Args:
        run: the run.
        target: runtime, data type and board.
        reporter: told of remarks.
    """
    assert run.data is not None and target.runtime is not None  # it was trained on it, for a runtime that was named
    file = default_path(run.path, target.runtime, target.int8)
    try:
        artifact = write(run, file, target, run.data, ExportOptions(), reporter)
    except ExportError as error:
        raise ExportError(
            f"{error} The trained network is in {run.path}: `pretrim export` takes it from there."
        ) from error
    _list_in_card(run, artifact, reporter)
    return Delivered(artifact, on_board(artifact, target, reporter))


def artifacts_in(run: Path) -> list[Artifact]:
    """What was exported in a run's folder; what is damaged is left out: commands that use it say so."""
    from pretrim.deploy import SUFFIXES, read
    from pretrim.runs.record import ARTIFACT

    found = []
    for file in sorted(run.glob(f"{ARTIFACT}.*")):
        if file.suffix in SUFFIXES.values():
            with suppress(ArtifactError):
                found.append(read(file))
    return found


def _list_in_card(run: Run, artifact: Artifact, reporter: Reporter) -> None:
    """Name what lies in the run's folder in its model card, unless its owner took the place for it out."""
    from pretrim.runs.card import list_exports

    if run.is_fetched or artifact.path.parent != run.path:
        return
    listed = list_exports(run.path, [found.to_json() for found in artifacts_in(run.path)])
    if not listed:
        reporter.say(f"note: {run.path} has no model card with a place for exports: nothing is listed there")


def on_board(artifact: Artifact, target: Target, reporter: Reporter) -> dict[str, Any] | None:
    """What an artifact takes on a microcontroller, compared with the limits of its plan, by the board's interpreter
    where that is installed; its predicted time, where that is limited.

    Args:
        artifact: the exported file.
        target: its board; without one there is nothing to look at.
        reporter: told of problems.
    """
    board = target.board
    if board is None or board.flash_bytes is None:
        return None
    from pretrim.deploy import check

    found = check(artifact, board, limits_in_bytes(target, artifact.plan))
    if (limit := time_limit(target, artifact.plan)) is not None:
        taken = limit.of(artifact.path.read_bytes())
        found |= {"time": {"runtime": limit.runtime, "ns": taken, "limit_ns": limit.most_ns}}
        if (problem := limit.problem(taken)) is not None:
            found["problems"].append(problem)
    if found["problems"]:
        reporter.say(f"warning: on {board.name}, {'; '.join(found['problems'])}")
    return found


def limits_in_bytes(target: Target, plan: Mapping[str, Any] | None) -> dict[str, int]:
    """The limits of file and arena as numbers: the target's, and those of the plan where it was made for this board.

    Shares are of the dense network of the plan; of two limits the smaller one counts.
    """
    from pretrim.planning.budget import Limit

    device = (plan or {}).get("device") or {}
    is_its_board = target.board is not None and device.get("name") == target.board.name
    texts = [*target.limits.items(), *((plan or {}).get("limits", {}).items() if is_its_board else ())]
    dense, found = device.get("dense", {}), dict[str, int]()
    for limit in (Limit.parse(name, text) for name, text in texts):
        if limit.cost in ("artifact_bytes", "arena_bytes") and (not limit.is_share or limit.cost in dense):
            most = limit.resolve(dense.get(limit.cost, 0))
            found[limit.cost] = min(most, found.get(limit.cost, most))
    return found


def _write_sources(artifact: Artifact, options: ExportOptions, reporter: Reporter) -> tuple[Path, ...]:
    """The sources for a microcontroller that were asked for."""
    from pretrim.deploy import micro, write_firmware, write_sources

    if options.sources is None:
        return ()
    folder = Path(options.sources)
    if options.sources_for == "tflm":
        arena = micro.arena(artifact.path.read_bytes()).total_bytes
        written = tuple(write_sources(artifact, folder, arena))
    else:
        firmware = write_firmware(artifact, folder)
        written = firmware.files
        reporter.say(
            f"{folder}: {firmware.constant_bytes:,} bytes of constants in flash, {firmware.arena_bytes:,} of RAM; "
            f"`make -C {folder} test` compares it with LiteRT"
        )
    for file in written:
        reporter.say(f"wrote {file}")
    return written


def _check_of_file(target: Target, options: ExportOptions) -> Callable[[bytes], object] | None:
    """What raises, before a file is written, where its board's interpreter does not run it, or the sources that were
    asked for cannot be made of it."""
    from pretrim.deploy import check_operators, firmware_layers, known_operators

    checks: list[Callable[[bytes], object]] = [check_operators] * target.is_microcontroller
    if options.sources is not None and options.sources_for == "tflm":
        checks += [known_operators, check_operators]
    elif options.sources is not None:
        checks.append(firmware_layers)
    return (lambda content: [check(content) for check in dict.fromkeys(checks)]) if checks else None


def default_path(run: Path, runtime: RuntimeName, int8: bool) -> Path:
    """Where an artifact of a run goes: ``RUN/model.onnx``, ``RUN/model.int8.tflite``.

    Args:
        run: its folder.
        runtime: of the artifact.
        int8: whether it is quantised.
    """
    from pretrim.deploy import SUFFIXES
    from pretrim.runs.record import ARTIFACT

    return run / f"{ARTIFACT}{'.int8' if int8 else ''}{SUFFIXES[runtime]}"


def write(
    run: Run, file: Path, target: Target, data: DataSet | None, options: ExportOptions, reporter: Reporter
) -> Artifact:
    """Export a run to a file, proved on test images of the data, or on random pixels.

    Args:
        run: what to export.
        file: to write.
        target: runtime and data type.
        data: gives calibration and proof images, evenly spread over their parts.
        options: how.
        reporter: told what it is proved on.
    """
    import torch

    from pretrim.data import normalise
    from pretrim.deploy import TITLES
    from pretrim.deploy import export as export_network

    assert target.runtime is not None  # the caller checked
    opened = run.classifier
    as_given = opened.record.as_given

    def ready(pixels: torch.Tensor) -> torch.Tensor:
        return normalise(pixels, *opened.normalisation)

    material: dict[str, Any] = {}
    if data is None:
        generator = torch.Generator().manual_seed(0)
        shape = (RANDOM_IMAGES, *opened.input_shape)
        if as_given:
            inputs, about = torch.randn(shape, generator=generator), "random numbers"
        else:
            inputs = ready(torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator))
            about = "random pixels"
    else:
        proof = _spread(data.test, PROOF_IMAGES)
        pixels, targets = proof.pairs(slice(None))
        inputs, about = ready(pixels), f"{len(proof):,} test images of {data.name}"
        material |= run.purpose.proof_material(opened.network, inputs, targets)
        if target.int8:
            material["calibration"] = ready(_spread(data.train, options.images).images[:])
            material["calibrated_on"] = f"training images of {data.name}"
    kind = "int8" if target.int8 else "float32"
    reporter.say(f"exporting: {kind} for {TITLES[target.runtime]}, proved on {about}")
    return export_network(
        opened.network,
        file,
        target.runtime,
        images=inputs,
        inputs=about,
        normalisation=None if as_given else opened.normalisation,
        as_given=as_given,
        classes=opened.classes or None,
        opset=options.opset,
        dynamic_batch=options.dynamic_batch,
        signed=options.arm or target.signed,
        force=options.force,
        accept=_check_of_file(target, options),
        **material,
    )


def _spread(split: Split, most: int) -> Split:
    """At most so many images of a split, evenly spaced."""
    import numpy as np

    return split.take(np.linspace(0, len(split) - 1, min(len(split), most)).round().astype(np.int64))
