"""Exports a run to an artifact that is verified against PyTorch, and checks it against its board."""

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
    """Export a run to a runtime or for a board.

    Args:
        run: the run to export.
        runtime: onnx, litert or executorch; None: the device's.
        data: source of the calibration and verification images; None: the data the run was trained on, if available,
            the data of a user-defined task, or random pixels.
        reporter: told which images the artifact is verified on.
        asked: fields of `TargetOptions` (``int8``, ``device`` ...) and of `ExportOptions`.

    Raises:
        UsageError: options that contradict each other, or a runtime that is not installed.
        ExportError: the network cannot be converted, or the artifact's outputs differ. Nothing is written.
    """
    from .options import gather

    target_options, options = gather({"runtime": runtime, **asked}, TargetOptions, ExportOptions)
    return export(run, target_options, options, data, reporter)


def export(
    run: Run,
    target: TargetOptions,
    options: ExportOptions,
    data: DataSource | None = None,
    reporter: Reporter | None = None,
) -> Delivered:
    """Export a run to a runtime, verify the artifact there, and check it against its board. See `export_run`.

    Args:
        run: the run to export.
        target: the runtime, data type and board.
        options: export options, such as the output file.
        data: real images to verify and calibrate with.
        reporter: receives remarks.
    """
    from pretrim.deploy import check_sources, check_target

    reporter = reporter or Silent()
    task_brings_data = data is None and run.data is None and brings_data(run)
    resolved = check_options(target, options, has_data=data is not None or run.data is not None or task_brings_data)
    assert resolved.runtime is not None  # check_options makes sure
    loads_data = data is not None or task_brings_data
    dataset = load_like_run(data, run.classifier.record, run.purpose, reporter) if loads_data else run.data
    folder = Path() if run.is_fetched else run.path
    file = Path(options.output or default_path(folder, resolved.runtime, resolved.int8))
    check_target(file, resolved.runtime, options.overwrite)
    if options.sources is not None:
        check_sources(Path(options.sources))
    artifact = write(run, file, resolved, dataset, options, reporter)
    _list_in_card(run, artifact, reporter)
    sources = _write_sources(artifact, options, reporter)
    return Delivered(artifact, on_board(artifact, resolved, reporter), sources)


def brings_data(run: Run) -> bool:
    """Whether the run has a user-defined task that brings its own data."""
    from pretrim.tasks import OwnTask

    return isinstance(run.task, OwnTask) and run.task.has_data


def check_options(target: TargetOptions, options: ExportOptions, *, has_data: bool) -> Target:
    """Check everything that does not depend on the run, and return the target.

    Args:
        target: runtime or device.
        options: how the run is exported.
        has_data: whether there are images for the int8 calibration.

    Raises UsageError for options that are wrong or missing.
    """
    from pretrim.compat.optional import need

    resolved = find_target(target, _placeholder_limit(target), Search())
    if resolved.runtime is None:
        raise UsageError("Say where it will run: --runtime onnx, litert or executorch, or --device NAME.")
    if options.sources is not None:
        if resolved.runtime != "litert":
            raise UsageError(f"--sources are for microcontrollers, which run litert, not {resolved.runtime}.")
        if options.sources_for == "tflm":
            need("tflite_micro")  # it computes the arena; checked before the export, not after it
        elif not resolved.int8:
            raise UsageError("--sources are plain C for int8 networks: add --int8, or --sources-for tflm.")
    if resolved.int8 and not has_data:
        raise UsageError("int8 needs images to take its ranges from: add --calibrate DATA.")
    return resolved


def _placeholder_limit(target: TargetOptions) -> dict[str, str]:
    """Return a limit that changes nothing for a computer, which has none of its own: exports need none."""
    return {"params": "1x"} if target.device is not None and find_board(target.device).flash_bytes is None else {}


def deliver(run: Run, target: Target, reporter: Reporter) -> Delivered:
    """Export a trained run into its own folder, for the target it was trained for.

    Args:
        run: the run to export.
        target: runtime, data type and board.
        reporter: receives remarks.

    Raises ExportError, with a message that the trained network has been saved all the same.
    """
    assert run.data is not None and target.runtime is not None  # just trained, for a named runtime
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
    """List the artifacts in a run's folder, without damaged ones: commands that use those report them."""
    from pretrim.deploy import SUFFIXES, read
    from pretrim.runs.record import ARTIFACT

    artifacts = []
    for file in sorted(run.glob(f"{ARTIFACT}.*")):
        if file.suffix in SUFFIXES.values():
            with suppress(ArtifactError):
                artifacts.append(read(file))
    return artifacts


def _list_in_card(run: Run, artifact: Artifact, reporter: Reporter) -> None:
    """List the exports in the run's folder in its model card, unless the user removed the section for them."""
    from pretrim.runs.card import list_exports

    if run.is_fetched or artifact.path.parent != run.path:
        return
    is_listed = list_exports(run.path, [found.to_json() for found in artifacts_in(run.path)])
    if not is_listed:
        reporter.say(f"note: {run.path} has no model card with a place for exports: nothing is listed there")


def on_board(artifact: Artifact, target: Target, reporter: Reporter) -> dict[str, Any] | None:
    """Compare an artifact's flash and RAM on a microcontroller with the limits of its plan, and its predicted time if
    that is limited. The board's interpreter is used where it is installed.

    Args:
        artifact: the exported file.
        target: its board; None is returned without one.
        reporter: told of problems.
    """
    board = target.board
    if board is None or board.flash_bytes is None:
        return None
    from pretrim.deploy import check

    result = check(artifact, board, limits_in_bytes(target, artifact.plan))
    if (limit := time_limit(target, artifact.plan)) is not None:
        predicted_ns = limit.of(artifact.path.read_bytes())
        result |= {"time": {"runtime": limit.runtime, "ns": predicted_ns, "limit_ns": limit.most_ns}}
        if (problem := limit.problem(predicted_ns)) is not None:
            result["problems"].append(problem)
    if result["problems"]:
        reporter.say(f"warning: on {board.name}, {'; '.join(result['problems'])}")
    return result


def limits_in_bytes(target: Target, plan: Mapping[str, Any] | None) -> dict[str, int]:
    """Return the limits on file and arena in bytes: the target's, and the plan's if it was made for this board.

    Shares refer to the plan's dense network; of two limits on the same quantity the smaller one counts.
    """
    from pretrim.planning.budget import Limit

    device = (plan or {}).get("device") or {}
    is_its_board = target.board is not None and device.get("name") == target.board.name
    amounts = [*target.limits.items(), *((plan or {}).get("limits", {}).items() if is_its_board else ())]
    dense, limits = device.get("dense", {}), dict[str, int]()
    for limit in (Limit.parse(name, text) for name, text in amounts):
        if limit.cost in ("artifact_bytes", "arena_bytes") and (not limit.is_share or limit.cost in dense):
            max_bytes = limit.resolve(dense.get(limit.cost, 0))
            limits[limit.cost] = min(max_bytes, limits.get(limit.cost, max_bytes))
    return limits


def _write_sources(artifact: Artifact, options: ExportOptions, reporter: Reporter) -> tuple[Path, ...]:
    """Write the requested sources for a microcontroller, if any."""
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


def _content_check(target: Target, options: ExportOptions) -> Callable[[bytes], object] | None:
    """Return a check to run on the file's content before it is written, or None if nothing is to be checked.

    It raises if the board's interpreter cannot run the file, or if the requested sources cannot be generated from it.
    """
    from pretrim.deploy import check_operators, firmware_layers, known_operators

    checks: list[Callable[[bytes], object]] = [check_operators] * target.is_microcontroller
    if options.sources is not None and options.sources_for == "tflm":
        checks += [known_operators, check_operators]
    elif options.sources is not None:
        checks.append(firmware_layers)
    return (lambda content: [check(content) for check in dict.fromkeys(checks)]) if checks else None


def default_path(run: Path, runtime: RuntimeName, int8: bool) -> Path:
    """Return the default path of a run's artifact: ``RUN/model.onnx``, ``RUN/model.int8.tflite``.

    Args:
        run: folder of the run.
        runtime: runtime of the artifact.
        int8: whether the artifact is quantised to int8.
    """
    from pretrim.deploy import SUFFIXES
    from pretrim.runs.record import ARTIFACT

    return run / f"{ARTIFACT}{'.int8' if int8 else ''}{SUFFIXES[runtime]}"


def write(
    run: Run, file: Path, target: Target, data: DataSet | None, options: ExportOptions, reporter: Reporter
) -> Artifact:
    """Export a run to a file, verified on test images of the data, or on random pixels without data.

    Args:
        run: the run to export.
        file: file to write.
        target: runtime and data type.
        data: source of the calibration and verification images, which are evenly spaced over their split.
        options: export options.
        reporter: told which images the artifact is verified on.
    """
    import torch

    from pretrim.data import normalise
    from pretrim.deploy import TITLES
    from pretrim.deploy import export as export_network

    assert target.runtime is not None  # the caller checked
    classifier = run.classifier
    as_given = classifier.record.as_given

    def prepared(pixels: torch.Tensor) -> torch.Tensor:
        return normalise(pixels, *classifier.normalisation)

    material: dict[str, Any] = {}
    if data is None:
        generator = torch.Generator().manual_seed(0)
        shape = (RANDOM_IMAGES, *classifier.input_shape)
        if as_given:
            inputs, description = torch.randn(shape, generator=generator), "random numbers"
        else:
            inputs = prepared(torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator))
            description = "random pixels"
    else:
        proof = _evenly_spaced(data.test, PROOF_IMAGES)
        pixels, targets = proof.pairs(slice(None))
        inputs, description = prepared(pixels), f"{len(proof):,} test images of {data.name}"
        material |= run.purpose.proof_material(classifier.network, inputs, targets)
        if target.int8:
            material["calibration"] = prepared(_evenly_spaced(data.train, options.images).images[:])
            material["calibrated_on"] = f"training images of {data.name}"
    kind = "int8" if target.int8 else "float32"
    reporter.say(f"exporting: {kind} for {TITLES[target.runtime]}, proved on {description}")
    return export_network(
        classifier.network,
        file,
        target.runtime,
        images=inputs,
        inputs=description,
        normalisation=None if as_given else classifier.normalisation,
        as_given=as_given,
        classes=classifier.classes or None,
        opset=options.opset,
        dynamic_batch=options.dynamic_batch,
        signed=options.arm or target.signed,
        force=options.force,
        accept=_content_check(target, options),
        **material,
    )


def _evenly_spaced(split: Split, max_images: int) -> Split:
    """Take at most `max_images` evenly spaced images of a split."""
    import numpy as np

    return split.take(np.linspace(0, len(split) - 1, min(len(split), max_images)).round().astype(np.int64))
