"""From a network to an artifact that is proved: convert, run in its own runtime, compare, and only then write."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypedDict, Unpack

import numpy as np
import torch
from torch import nn

from pretrim.compat.signals import vendors_code
from pretrim.compat.silence import silence
from pretrim.errors import ExportError, UsageError
from pretrim.files import check_writable
from pretrim.surgery.apply import plan_of

from .artifact import Artifact, DataType, Port, not_written, write
from .inputs import (
    Inputs,
    Normalisation,
    PlainNetwork,
    check_labels,
    checked_calibration,
    checked_images,
    checked_normalisation,
    own_rounding,
)
from .parts import parts_of
from .proof import LARGEST_ERROR, Judge, Proof, prove
from .runtime import Conversion, ConversionOptions, Converted, Outputs, Runtime, Session
from .runtimes import runtime as find_runtime
from .vendor_errors import export_error

BATCH = 3
"""Images at once, on which an artifact with a dynamic batch is proved as well"""
GIVEN = "images that were given"


class RecordKeywords(TypedDict, total=False):
    """What the record of an artifact says of it, and nothing is computed from."""

    inputs: str
    """what the images are that it was proved with"""
    calibrated_on: str
    """what the images are that ranges were taken from"""
    normalisation: Normalisation | None
    """(mean, std) of each channel of the first input"""
    as_given: bool
    """whether the first input is numbers as a data set gave them, which nothing normalises"""
    classes: Sequence[str] | None
    """names of the outputs"""


def export(
    network: nn.Module,
    path: str | Path,
    to: str,
    *,
    images: torch.Tensor | Inputs,
    labels: torch.Tensor | None = None,
    judge: Judge | None = None,
    calibration: torch.Tensor | Inputs | None = None,
    opset: int | None = None,
    dynamic_batch: bool = False,
    signed: bool = False,
    force: bool = False,
    accept: Callable[[bytes], object] | None = None,
    **record: Unpack[RecordKeywords],
) -> Artifact:
    """Write a network in the form of a runtime, once it is proved to compute the same there.

    Args:
        network: any module that takes a batch of images, or several inputs of as many rows; it is not changed.
        path: the file to write, with the runtime's ending; its JSON record goes beside it.
        to: the runtime's name: ``"onnx"``, ``"litert"``, ``"executorch"``, or one that another package adds.
        images: real inputs to prove it with, as the network takes them: float32, normalised, N x C x H x W (signals
            N x C x L, volumes N x C x D x H x W); for several inputs a tuple of one tensor for each.
        labels: their classes (N), so that accuracies can be compared.
        judge: the metric of a task that is no classification, in the place of labels.
        calibration: images (likewise) to take the ranges of activations from: makes int8. None: float32.
        opset: of ONNX, 11 to 23 (int8 from 13); by default the exporter's.
        dynamic_batch: ONNX that takes any number of images at a time.
        signed: int8 ONNX for ARM (`onnx.quantise`); the others are the same for all processors.
        force: keep an artifact that is not proved, marked.
        accept: called with the file's bytes before it is proved; what it raises ends the export.
        record: what its record is to say (`RecordKeywords`).

    Raises:
        UsageError: wrong arguments, or the runtime's packages are missing.
        ModelError: the network cannot be copied, or does not run on these images.
        ExportError: the network cannot be converted, or the artifact does not compute the same. Nothing is written.
        ArtifactError: the file cannot be written.
    """
    target = Path(path)
    check_target(target, to, overwrite=True)
    runtime, options = find_runtime(to), ConversionOptions(opset, dynamic_batch, signed)
    _check_options(runtime, options, is_int8=calibration is not None)
    given = checked_images(images)
    sample = checked_calibration(calibration, given)
    check_labels(given, labels)
    pair = checked_normalisation(given, record.get("normalisation"))
    plain = PlainNetwork(network)
    wanted = plain.outputs(given)
    job = _job(plain, given, sample, options)
    converted = _convert(runtime, job)
    if accept is not None:
        accept(converted.content)
    session, got = _run(runtime, converted.content, given, options)
    proof = prove(
        wanted,
        got,
        is_int8=job.is_int8,
        inputs=record.get("inputs", GIVEN),
        labels=None if labels is None else labels.cpu().numpy(),
        regions=parts_of(plain, job.examples),
        judge=judge,
    )
    data_type: DataType = "int8" if job.is_int8 else "float32"
    if proof.failed and not force:
        raise ExportError(_refusal(runtime, data_type, proof, _mend(plain, given, wanted, proof, data_type)))
    ports = _ports(runtime, session, job)
    ports[0]["normalisation"] = pair
    if record.get("as_given"):
        ports[0]["as_given"] = True
    artifact = Artifact(
        path=target,
        runtime=to,
        data_type=data_type,
        file_bytes=len(converted.content),
        sha256=hashlib.sha256(converted.content).hexdigest(),
        input=ports[0],
        more_inputs=tuple(ports[1:]),
        outputs=_outputs(session, wanted),
        classes=None if (names := record.get("classes")) is None else tuple(names),
        plan=_plan(network),
        calibration=None if sample is None else {"data": record.get("calibrated_on", GIVEN), "images": len(sample[0])},
        proof=proof.to_json(),
        notes=_notes(runtime, job, converted, proof),
        versions=_versions(runtime),
    )
    write(artifact, converted.content)
    return artifact


def litert_file(network: nn.Module, images: torch.Tensor, *, is_int8: bool = True) -> bytes:
    """A ``.tflite`` for its sizes alone: neither proved nor written.

    Args:
        network: any module; it is not changed.
        images: N x C x H x W, to take ranges from; any will do.
        is_int8: or float32.

    Raises:
        UsageError: LiteRT's packages are missing.
        ExportError: the network cannot be converted.
    """
    job = _job(PlainNetwork(network), (images,), (images,) if is_int8 else None, ConversionOptions())
    return _convert(find_runtime("litert"), job).content


def check_target(path: Path, to: str, overwrite: bool) -> None:
    """Before long work: is there a place to write to? Raises UsageError, or ArtifactError where it is read-only.

    Args:
        path: the file to write.
        to: the name of a runtime.
        overwrite: whether a file may be there.
    """
    suffix = find_runtime(to).suffix
    if path.suffix != suffix:
        raise UsageError(f"Expected a file that ends in {suffix}, but got {path.name!r}.")
    if path.is_dir():
        raise UsageError(f"{path} is a folder: choose another file.")
    if path.exists() and not overwrite:
        raise UsageError(f"{path} exists: choose another file, or --overwrite.")
    if not path.parent.is_dir():
        raise UsageError(f"{path.parent} is not a folder: make it first.")
    try:
        check_writable(path)
    except OSError as error:
        raise not_written(path, error) from error


def _check_options(runtime: Runtime, options: ConversionOptions, *, is_int8: bool) -> None:
    """Raises UsageError for what a runtime does not have; all take `signed`, for most are the same without it."""
    if options.opset is not None and "opset" not in runtime.options:
        raise UsageError(f"Expected an opset for ONNX alone, but got one for {runtime.name}: leave it out.")
    if options.dynamic_batch and "dynamic_batch" not in runtime.options:
        raise UsageError(f"{runtime.title} has no dynamic batch: leave it out, its files take one image at a time.")
    if is_int8 and runtime.quantise is None:
        raise UsageError(f"{runtime.title} has no int8: leave the calibration out.")


def _job(network: PlainNetwork, images: Inputs, calibration: Inputs | None, options: ConversionOptions) -> Conversion:
    examples = tuple(value[:1].contiguous() for value in images)
    return Conversion(network, examples, tuple(value.numpy() for value in calibration or ()), options)


def _convert(runtime: Runtime, job: Conversion) -> Converted:
    with vendors_code():
        if job.is_int8 and runtime.quantise is not None:
            return runtime.quantise(job)
        return runtime.convert(job)


def _run(runtime: Runtime, content: bytes, images: Inputs, options: ConversionOptions) -> tuple[Session, Outputs]:
    """Load an artifact: what it answers. Raises ExportError where its runtime cannot run it."""
    arrays = [value.numpy() for value in images]
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"model{runtime.suffix}"
            path.write_bytes(content)
            session = runtime.session(path, 1)
            with silence():
                got = session(*arrays)
                together = session.run(*(value[:BATCH] for value in arrays)) if options.dynamic_batch else None
    except UsageError:
        raise
    except Exception as error:  # the runtimes raise many kinds
        raise export_error(runtime.title, error) from error
    if together is not None and not _same(together, [part[:BATCH] for part in got]):
        raise ExportError(
            f"Expected the artifact to take {BATCH} images at a time, but it answers otherwise than one by one: the "
            f"network computes across its batch, or has its size written into it. Leave the dynamic batch out."
        )
    return session, got


def _same(found: Outputs, wanted: Outputs) -> bool:
    """Up to rounding, which depends on the size of a batch."""
    if [part.shape for part in found] != [part.shape for part in wanted]:
        return False
    proof = prove(wanted, found, is_int8=True, inputs="")
    return not proof.failed or not all(np.isfinite(part).all() for part in wanted)


def _ports(runtime: Runtime, session: Session, job: Conversion) -> list[Port]:
    """Layout, shape and data type of each input of an artifact, as its files take it."""
    scales = list(session.scales) or [None] * len(job.examples)
    ports: list[Port] = []
    for example, scale in zip(job.examples, scales, strict=True):
        port: Port = {
            "layout": runtime.layout(example.ndim),
            "shape": tuple(runtime.shape(example.shape)),
            "data_type": "float32" if scale is None else "int8",
        }
        if scale is not None:
            port["scale"], port["zero_point"] = scale
        if job.options.dynamic_batch:
            port["dynamic_batch"] = True
        ports.append(port)
    return ports


def _outputs(session: Session, wanted: Outputs) -> tuple[Mapping[str, Any], ...]:
    """Shape and data type of each output of an artifact; of int8, how it is restored: scale x (value - zero point)."""
    scales = list(session.output_scales) or [None] * len(wanted)
    shapes = [[1, *part.shape[1:]] for part in wanted]
    return tuple(
        {"shape": shape, "data_type": "float32"}
        if scale is None
        else {"shape": shape, "data_type": "int8", "scale": scale[0], "zero_point": scale[1]}
        for shape, scale in zip(shapes, scales, strict=True)
    )


def _notes(runtime: Runtime, job: Conversion, converted: Converted, proof: Proof) -> tuple[str, ...]:
    notes = [f"not proved, kept by force: {problem}" for problem in proof.failed]
    return (*notes, *converted.notes, *proof.advice, *_larger(runtime, job, converted))


def _larger(runtime: Runtime, job: Conversion, converted: Converted) -> list[str]:
    """A note where the int8 file is larger than the float32 one; nothing for float32."""
    weights = sum(value.numel() * value.element_size() for value in job.network.parameters())
    if not job.is_int8 or len(converted.content) <= weights:  # the float32 file holds them, and more
        return []
    plain = len(_convert(runtime, Conversion(job.network, job.examples, options=job.options)).content)
    if len(converted.content) < plain:
        return []
    return [
        f"the int8 file is larger than the float32 one ({len(converted.content):,} and {plain:,} bytes): in so small a "
        f"network scales and added operators outweigh what the weights save"
    ]


def _score(proof: Proof) -> str:
    """By the metric that judges, in brackets: what a user who may keep the file wants to know; empty without one."""
    if proof.metric is None:
        return ""
    name, found, wanted = (proof.metric[key] for key in ("name", "artifact", "pytorch"))
    return f" ({name}: {found:.4g}, PyTorch's {wanted:.4g})"


def _refusal(runtime: Runtime, data_type: DataType, proof: Proof, mend: str) -> str:
    """What an artifact that is not proved falls short of, and what may help, in one line."""
    return (
        f"Expected the {data_type} artifact for {runtime.title} to compute what the network does, but "
        f"{'; '.join(proof.failed)}{_score(proof)}: {mend}, or keep it with --force."
    )


def _mend(plain: PlainNetwork, images: Inputs, wanted: Outputs, proof: Proof, data_type: DataType) -> str:
    """What may help, in words."""
    if not all(np.isfinite(part).all() for part in wanted):
        return "PyTorch's own are not either, train it again"
    if data_type == "int8":
        return "; ".join(proof.advice) or "calibrate on more images"
    own = own_rounding(plain, images, wanted)
    if own is not None and own > LARGEST_ERROR:
        own_error = f"PyTorch's float32 is {own:.1e} from its float64"
        return f"the network magnifies rounding ({own_error}), which training may mend"
    return "another runtime may take it"


def _plan(network: nn.Module) -> dict[str, Any] | None:
    """The plan that a slim network carries."""
    try:
        return plan_of(network).to_json()
    except UsageError:
        return None


def _versions(runtime: Runtime) -> dict[str, str]:
    found = {"pretrim": version("pretrim"), "torch": str(torch.__version__)}
    for package in runtime.packages:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
