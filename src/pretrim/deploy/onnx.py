"""ONNX for ONNX Runtime: conversion by torch's exporters, quantisation by ONNX Runtime's static quantiser."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretrim.compat.optional import need
from pretrim.compat.silence import silence
from pretrim.errors import ExportError, UsageError

from .runtime import Conversion, Converted, Images, Outputs, Runtime, ones
from .runtime import Session as BaseSession
from .vendor_errors import export_error

if TYPE_CHECKING:
    import torch
    from torch import nn

INPUT, OUTPUT, BATCH = "input", "output", "batch"
OPSETS = (11, 23)
OLDEST_DYNAMO_OPSET = 18
"""torch's dynamo exporter silently writes opset 18 when an older one is requested
(github.com/pytorch/pytorch/pull/161056); older opsets use its predecessor, which traces with TorchScript."""
OLDEST_INT8 = 13
"""QuantizeLinear and DequantizeLinear have per-channel scales since opset 13."""
PROVIDERS = ("CPUExecutionProvider",)


def convert(
    network: nn.Module, *examples: torch.Tensor, opset: int | None = None, dynamic_batch: bool = False
) -> Converted:
    """Convert a network to an ONNX model with float32 inputs N x C x ..., in the shapes of the examples.

    Args:
        network: a module in eval mode.
        examples: one tensor for each input, 1 x C x ...
        opset: 11 to 23; None for the exporter's default.
        dynamic_batch: leave N free; otherwise it is 1.

    Raises:
        UsageError: a package is missing, or the opset cannot be written.
        ExportError: an operator has no counterpart.
    """
    need("onnxscript")
    _check_opset(opset)
    uses_torchscript = opset is not None and opset < OLDEST_DYNAMO_OPSET
    names = [INPUT if number == 0 else f"{INPUT}_{number}" for number in range(len(examples))]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        try:
            with silence():
                (_trace if uses_torchscript else _export)(network, examples, file, names, opset, dynamic_batch)
        except Exception as error:  # the exporters raise many kinds
            raise export_error(
                "ONNX" if not uses_torchscript else f"the exporter for ONNX opset {opset}", error
            ) from error
        content = _without_metadata(file.read_bytes())
    written_opset = opset_of(content)
    if opset is not None and written_opset != opset:
        raise ExportError(
            f"Expected ONNX of opset {opset}, but torch's exporter wrote {written_opset}: leave out --opset."
        )
    return Converted(content)


def _export(
    network: nn.Module, examples: Sequence[torch.Tensor], file: Path, names: list[str], opset: int | None, dynamic: bool
) -> None:
    """Export by torch.export, for opset 18 and newer."""
    import torch

    batch = torch.export.Dim(BATCH, min=1, max=1 << 16)
    torch.onnx.export(
        network,
        # torch.export would take a dimension of size 1 for a constant.
        tuple(torch.cat([example, example]) for example in examples) if dynamic else tuple(examples),
        file,
        dynamo=True,
        input_names=names,
        opset_version=opset,
        dynamic_shapes=(tuple({0: batch} for _ in examples),) if dynamic else None,
        external_data=False,
        verbose=False,
    )


def _trace(
    network: nn.Module, examples: Sequence[torch.Tensor], file: Path, names: list[str], opset: int | None, dynamic: bool
) -> None:
    """Export by TorchScript tracing, for opset 17 and older: the examples fix all data-dependent control flow."""
    import torch
    from torch.utils._pytree import tree_leaves

    with torch.no_grad():
        count = len(tree_leaves(network(*examples)))
    outputs = [OUTPUT if number == 0 else f"{OUTPUT}_{number}" for number in range(count)]
    torch.onnx.export(
        network,
        tuple(examples),
        str(file),
        dynamo=False,
        input_names=names,
        output_names=outputs,
        opset_version=opset,
        dynamic_axes={name: {0: BATCH} for name in (*names, *outputs)} if dynamic else None,
    )


def _check_opset(opset: int | None, *, int8: bool = False) -> None:
    """Raise UsageError for an opset that cannot be written."""
    if opset is None:
        return
    if not OPSETS[0] <= opset <= OPSETS[1]:
        raise UsageError(f"Expected an opset from {OPSETS[0]} to {OPSETS[1]}, but got {opset}.")
    if int8 and opset < OLDEST_INT8:
        raise UsageError(
            f"Expected an opset from {OLDEST_INT8} for int8, but got {opset}: older ones have no scales by channel."
        )


def _without_metadata(content: bytes) -> bytes:
    """Remove the exporter's stack traces from a model: they contain file names of this machine."""
    model = need("onnx").load_from_string(content)
    graph = model.graph
    for message in (model, graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        for name in ("metadata_props", "doc_string"):
            message.ClearField(name)
    for function in model.functions:
        for message in (function, *function.node):
            message.ClearField("metadata_props")
            message.ClearField("doc_string")
    return bytes(model.SerializeToString())


def opset_of(content: bytes) -> int:
    """The opset version of a model's standard operators."""
    model = need("onnx").load_from_string(content)
    return int(next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")))


def quantise(content: bytes, *calibration: Images, signed: bool = False) -> Converted:
    """Quantise a model to static int8: per-channel weights, activation ranges by min and max over the calibration.

    Args:
        content: bytes of a float32 model.
        calibration: images for each input as the network takes them, N x C x ...
        signed: int8 activations, which are fastest in the kernels for ARM. Otherwise activations are uint8 and weights
            have 7 bits, for x86: its kernels are fastest with these types, and without VNNI they add pairs of products
            in 16 bits, which overflow with 8-bit weights (22 dB instead of 32, seen with AVX2).

    Raises ExportError if ONNX Runtime cannot quantise the model.
    """
    quantization = need("onnxruntime.quantization")
    preprocessing = need("onnxruntime.quantization.shape_inference")
    types, names = quantization.QuantType, _input_names(content)
    samples = [dict(zip(names, image, strict=True)) for image in ones(calibration)]

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc, name-defined]
        """Feeds the calibration images to ONNX Runtime."""

        def __init__(self) -> None:
            self.images: Iterator[Mapping[str, Any]] = iter(samples)

        def get_next(self) -> Mapping[str, Any] | None:
            return next(self.images, None)

    with tempfile.TemporaryDirectory() as folder:
        original, prepared, quantised = (Path(folder) / f"{name}.onnx" for name in ("plain", "prepared", "quantised"))
        try:
            original.write_bytes(content)
            with silence():
                preprocessing.quant_pre_process(original, prepared)
                quantization.quantize_static(
                    prepared,
                    quantised,
                    Reader(),
                    quant_format=quantization.QuantFormat.QDQ,
                    per_channel=True,
                    reduce_range=not signed,
                    calibrate_method=quantization.CalibrationMethod.MinMax,
                    activation_type=types.QInt8 if signed else types.QUInt8,
                    weight_type=types.QInt8,
                )
        except Exception as error:
            raise export_error("ONNX Runtime's quantisation", error) from error
        return Converted(_without_metadata(quantised.read_bytes()))


def _input_names(content: bytes) -> list[str]:
    return [entry.name for entry in need("onnx").load_from_string(content).graph.input]


class Session(BaseSession):
    """A model loaded in ONNX Runtime.

    Attributes:
        provider: the execution provider in use: the first of the requested ones that is available.
    """

    def __init__(self, path: Path, threads: int = 1, providers: tuple[str, ...] = PROVIDERS) -> None:
        runtime = need("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        self.session = runtime.InferenceSession(str(path), options, providers=list(providers))
        self.provider = str(self.session.get_providers()[0])
        self.names = [entry.name for entry in self.session.get_inputs()]

    def run(self, *inputs: Images) -> Outputs:
        """Run one image, or a batch if the model takes one, and return each output."""
        outputs: Outputs = self.session.run(None, dict(zip(self.names, inputs, strict=True)))
        return outputs


def load(path: str, inputs: list[Any], threads: int, providers: list[str]) -> tuple[Callable[[], Any], str]:
    """Load a model on the machine that measures it (`Runtime.load`).

    Args:
        path: the .onnx.
        inputs: one array for each input.
        threads: number of threads for the runtime.
        providers: execution providers in order of preference.
    """
    import os

    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # otherwise it sends usage data to Microsoft
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    available = [name for name in providers if name in ort.get_available_providers()]
    session = ort.InferenceSession(path, options, providers=available or ["CPUExecutionProvider"])
    feed = {entry.name: value for entry, value in zip(session.get_inputs(), inputs)}  # noqa: B905  # Python 3.8
    return lambda: session.run(None, feed), session.get_providers()[0]


def _convert(job: Conversion) -> Converted:
    options = job.options
    return convert(job.network, *job.examples, opset=options.opset, dynamic_batch=options.dynamic_batch)


def _quantise(job: Conversion) -> Converted:
    _check_opset(job.options.opset, int8=True)
    return quantise(_convert(job).content, *job.calibration, signed=job.options.signed)


RUNTIME = Runtime(
    name="onnx",
    title="ONNX Runtime",
    suffix=".onnx",
    requirement="pretrim[onnx]",
    modules=("onnx", "onnxscript", "onnxruntime"),
    packages=("onnx", "onnxscript", "onnxruntime"),
    convert=_convert,
    quantise=_quantise,
    session=Session,
    load=load,
    device_packages=("onnxruntime", "onnxruntime-gpu"),
    options=frozenset({"opset", "dynamic_batch", "signed"}),
)
