"""ONNX, for ONNX Runtime: torch's own exporter, and ONNX Runtime's static quantisation."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pretrim.compat.optional import need, silence
from pretrim.errors import ExportError, UsageError

from .runtime import Converted, Images, Outputs

INPUT = "input"
LAYOUT = "NCHW"
OPSETS = (18, 23)
"""That torch's exporter writes; it answers older ones with 18, without an error."""
PROVIDERS = ("CPUExecutionProvider",)


def convert(network: nn.Module, example: torch.Tensor, *, opset: int | None = None) -> Converted:
    """The network as an ONNX model with one input, NCHW float32, of the example's shape.

    Raises:
        UsageError: a package is missing, or the opset cannot be written.
        ExportError: an operator has no counterpart.
    """
    need("onnxscript")
    if opset is not None and not OPSETS[0] <= opset <= OPSETS[1]:
        raise UsageError(f"Expected an opset from {OPSETS[0]} to {OPSETS[1]}, but got {opset}.")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        try:
            with silence():
                torch.onnx.export(
                    network,
                    (example,),
                    file,
                    dynamo=True,
                    input_names=[INPUT],
                    opset_version=opset,
                    external_data=False,
                    verbose=False,
                )
        except Exception as error:  # the exporter raises many kinds
            raise ExportError.by("ONNX", error) from error
        content = _plain(file.read_bytes())
    written = opset_of(content)
    if opset is not None and written != opset:
        raise ExportError(f"Expected ONNX of opset {opset}, but torch's exporter wrote {written}: leave out --opset.")
    return Converted(content)


def _plain(content: bytes) -> bytes:
    """The same model without the exporter's stack traces, which name the files of this machine."""
    model = need("onnx").load_from_string(content)
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        for name in ("metadata_props", "doc_string"):
            part.ClearField(name)
    for function in model.functions:
        for part in (function, *function.node):
            part.ClearField("metadata_props")
            part.ClearField("doc_string")
    return bytes(model.SerializeToString())


def opset_of(content: bytes) -> int:
    """The version of the standard operators that a model uses."""
    model = need("onnx").load_from_string(content)
    return int(next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")))


def quantise(content: bytes, calibration: Images, *, signed: bool = False) -> Converted:
    """Static int8 of a model: weights by channel, activations by the smallest and largest value on the calibration.

    Args:
        content: a float32 model.
        calibration: images as the network takes them, N x C x H x W.
        signed: int8 activations, which ARM's kernels are fastest with. Without it activations are uint8 and weights
            have 7 bits, for x86: its kernels are fastest with these types, and on a processor without VNNI they add
            pairs of products in 16 bits, which full weights overflow (22 dB instead of 32, seen with AVX2).

    Raises ExportError where ONNX Runtime cannot do it.
    """
    quantization = need("onnxruntime.quantization")
    preparing = need("onnxruntime.quantization.shape_inference")
    types = quantization.QuantType

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc, name-defined]
        """What ONNX Runtime reads images from."""

        def __init__(self) -> None:
            self.images: Iterator[Mapping[str, Any]] = iter([{INPUT: image[None]} for image in calibration])

        def get_next(self) -> Mapping[str, Any] | None:
            return next(self.images, None)

    with tempfile.TemporaryDirectory() as folder:
        plain, prepared, quantised = (Path(folder) / f"{name}.onnx" for name in ("plain", "prepared", "quantised"))
        try:
            plain.write_bytes(content)
            with silence():
                preparing.quant_pre_process(plain, prepared)
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
            raise ExportError.by("ONNX Runtime's quantisation", error) from error
        return Converted(_plain(quantised.read_bytes()))


class Session:
    """A model in ONNX Runtime.

    Attributes:
        provider: the execution provider that runs it: what was asked for first and is there.
    """

    def __init__(self, path: Path, threads: int = 1, providers: tuple[str, ...] = PROVIDERS) -> None:
        runtime = need("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        self.session = runtime.InferenceSession(str(path), options, providers=list(providers))
        self.provider = str(self.session.get_providers()[0])
        self.input = self.session.get_inputs()[0].name

    def __call__(self, images: Images) -> Outputs:
        """Each output for N images, which the model takes one at a time."""
        found = [self.session.run(None, {self.input: image[None]}) for image in images]
        return [np.concatenate(parts) for parts in zip(*found, strict=True)]
