"""Export a network to an artifact: convert it, run it in its runtime, compare the outputs, and only then write it."""

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

PROOF_BATCH = 3
"""Batch size at which an artifact with a dynamic batch is compared as well."""
DEFAULT_SOURCE = "images that were given"
"""How the record describes images whose source the caller does not name."""


class RecordKeywords(TypedDict, total=False):
    """Descriptive entries of an artifact's record; nothing is computed from them."""

    inputs: str
    """description of the images that the artifact was proved with"""
    calibrated_on: str
    """description of the images that the activation ranges were taken from"""
    normalisation: Normalisation | None
    """means and standard deviations of the first input's channels"""
    as_given: bool
    """whether the first input takes the data set's values as they are, without normalisation"""
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
    """Convert a network for a runtime and write the artifact, once its outputs there are shown to match PyTorch's.

    Args:
        network: any module that takes a batch of images, or several inputs of the same batch size; it is not changed.
        path: the file to write, with the runtime's suffix; its JSON record is written beside it.
        to: the runtime's name: ``"onnx"``, ``"litert"``, ``"executorch"``, or one that another package adds.
        images: real inputs to compare outputs on, as the network takes them: float32, normalised, N x C x H x W
            (signals N x C x L, volumes N x C x D x H x W); for several inputs, a tuple with one tensor for each.
        labels: classes of the images (N), so that accuracies can be compared.
        judge: the metric of a task other than classification, instead of labels.
        calibration: images to take the activation ranges from, in the form of `images`; the artifact is then int8.
            None: float32.
        opset: the ONNX opset, 11 to 23 (from 13 for int8); by default the exporter's.
        dynamic_batch: write ONNX that takes any batch size.
        signed: int8 ONNX for ARM (`onnx.quantise`); files of the other runtimes are the same for all processors.
        force: keep an artifact that fails the comparison, and say so in its notes.
        accept: called with the file's bytes before the comparison; an exception that it raises ends the export.
        record: descriptive entries of the artifact's record (`RecordKeywords`).

    Raises:
        UsageError: wrong arguments, or the runtime's packages are missing.
        ModelError: the network cannot be copied, or does not run on these images.
        ExportError: the network cannot be converted, or the artifact computes something else. Nothing is written.
        ArtifactError: the file cannot be written.
    """
    target = Path(path)
    check_target(target, to, overwrite=True)
    runtime, options = find_runtime(to), ConversionOptions(opset, dynamic_batch, signed)
    _check_options(runtime, options, is_int8=calibration is not None)
    inputs = checked_images(images)
    calibration_inputs = checked_calibration(calibration, inputs)
    check_labels(inputs, labels)
    mean_std = checked_normalisation(inputs, record.get("normalisation"))
    plain_network = PlainNetwork(network)
    wanted = plain_network.outputs(inputs)
    job = _job(plain_network, inputs, calibration_inputs, options)
    converted = _convert(runtime, job)
    if accept is not None:
        accept(converted.content)
    session, got = _run(runtime, converted.content, inputs, options)
    proof = prove(
        wanted,
        got,
        is_int8=job.is_int8,
        inputs=record.get("inputs", DEFAULT_SOURCE),
        labels=None if labels is None else labels.cpu().numpy(),
        regions=parts_of(plain_network, job.examples),
        judge=judge,
    )
    data_type: DataType = "int8" if job.is_int8 else "float32"
    if proof.failed and not force:
        raise ExportError(_refusal(runtime, data_type, proof, _remedy(plain_network, inputs, wanted, proof, data_type)))
    ports = _ports(runtime, session, job)
    ports[0]["normalisation"] = mean_std
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
        calibration=None
        if calibration_inputs is None
        else {"data": record.get("calibrated_on", DEFAULT_SOURCE), "images": len(calibration_inputs[0])},
        proof=proof.to_json(),
        notes=_notes(runtime, job, converted, proof),
        versions=_versions(runtime),
    )
    write(artifact, converted.content)
    return artifact


def litert_file(network: nn.Module, images: torch.Tensor, *, is_int8: bool = True) -> bytes:
    """Convert a network to the bytes of a ``.tflite``, to measure its sizes: it is neither compared nor written.

    Args:
        network: any module; it is not changed.
        images: N x C x H x W, to take the activation ranges from; any images will do.
        is_int8: convert to int8; otherwise to float32.

    Raises:
        UsageError: LiteRT's packages are missing.
        ExportError: the network cannot be converted.
    """
    job = _job(PlainNetwork(network), (images,), (images,) if is_int8 else None, ConversionOptions())
    return _convert(find_runtime("litert"), job).content


def check_target(path: Path, to: str, overwrite: bool) -> None:
    """Check, before long work, that an artifact can be written to `path`.

    Args:
        path: the file to write.
        to: the name of a runtime.
        overwrite: whether `path` may already exist.

    Raises:
        UsageError: a wrong suffix, an existing file without `overwrite`, or a missing folder.
        ArtifactError: the folder is read-only.
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
    """Raise UsageError for options that a runtime lacks; all accept `signed`, which makes no difference to most."""
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
    """Load an artifact and run it on the images. Raises ExportError if its runtime cannot run it."""
    arrays = [value.numpy() for value in images]
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"model{runtime.suffix}"
            path.write_bytes(content)
            session = runtime.session(path, 1)
            with silence():
                got = session(*arrays)
                batched = session.run(*(value[:PROOF_BATCH] for value in arrays)) if options.dynamic_batch else None
    except UsageError:
        raise
    except Exception as error:  # the runtimes raise many kinds
        raise export_error(runtime.title, error) from error
    if batched is not None and not _same(batched, [part[:PROOF_BATCH] for part in got]):
        raise ExportError(
            f"Expected the artifact to take {PROOF_BATCH} images at a time, but it answers otherwise than one by one: "
            f"the network computes across its batch, or has its size written into it. Leave the dynamic batch out."
        )
    return session, got


def _same(got: Outputs, wanted: Outputs) -> bool:
    """Whether outputs are equal up to rounding, which depends on the batch size."""
    if [part.shape for part in got] != [part.shape for part in wanted]:
        return False
    proof = prove(wanted, got, is_int8=True, inputs="")
    return not proof.failed or not all(np.isfinite(part).all() for part in wanted)


def _ports(runtime: Runtime, session: Session, job: Conversion) -> list[Port]:
    """Layout, shape and data type of each input, as the artifact's file takes it."""
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
    """Shape and data type of each output; for int8 also its scale and zero point: scale x (value - zero point)."""
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
    """A note if the int8 file is larger than the float32 file; empty for a float32 artifact."""
    weight_bytes = sum(parameter.numel() * parameter.element_size() for parameter in job.network.parameters())
    if not job.is_int8 or len(converted.content) <= weight_bytes:  # a float32 file is larger than its weights
        return []
    float32_bytes = len(_convert(runtime, Conversion(job.network, job.examples, options=job.options)).content)
    if len(converted.content) < float32_bytes:
        return []
    return [
        f"the int8 file is larger than the float32 one ({len(converted.content):,} and {float32_bytes:,} bytes): in so "
        f"small a network scales and added operators outweigh what the weights save"
    ]


def _score(proof: Proof) -> str:
    """The metric of the artifact and of PyTorch, in brackets, to help decide about --force; empty without a metric."""
    if proof.metric is None:
        return ""
    name, artifact, pytorch = (proof.metric[key] for key in ("name", "artifact", "pytorch"))
    return f" ({name}: {artifact:.4g}, PyTorch's {pytorch:.4g})"


def _refusal(runtime: Runtime, data_type: DataType, proof: Proof, remedy: str) -> str:
    """The error message for an artifact that failed the comparison: what failed, and what may help."""
    return (
        f"Expected the {data_type} artifact for {runtime.title} to compute what the network does, but "
        f"{'; '.join(proof.failed)}{_score(proof)}: {remedy}, or keep it with --force."
    )


def _remedy(plain: PlainNetwork, images: Inputs, wanted: Outputs, proof: Proof, data_type: DataType) -> str:
    """What may help against a failed comparison, in words."""
    if not all(np.isfinite(part).all() for part in wanted):
        return "PyTorch's own are not either, train it again"
    if data_type == "int8":
        return "; ".join(proof.advice) or "calibrate on more images"
    rounding = own_rounding(plain, images, wanted)
    if rounding is not None and rounding > LARGEST_ERROR:
        rounding_text = f"PyTorch's float32 is {rounding:.1e} from its float64"
        return f"the network magnifies rounding ({rounding_text}), which training may fix"
    return "another runtime may convert it"


def _plan(network: nn.Module) -> dict[str, Any] | None:
    """The plan that a slim network carries, as plain JSON; None for other networks."""
    try:
        return plan_of(network).to_json()
    except UsageError:
        return None


def _versions(runtime: Runtime) -> dict[str, str]:
    versions = {"pretrim": version("pretrim"), "torch": str(torch.__version__)}
    for package in runtime.packages:
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    return versions
