"""ONNX, for ONNX Runtime: torch's own exporters, and ONNX Runtime's static quantisation."""

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
OLDEST_OF_DYNAMO = 18
"""torch's exporter writes 18 for anything older, without an error (github.com/pytorch/pytorch/pull/161056); for older
ones its predecessor, which traces with TorchScript, is asked."""
OLDEST_INT8 = 13
"""Scales by channel came to QuantizeLinear and DequantizeLinear in opset 13."""
PROVIDERS = ("CPUExecutionProvider",)


def convert(
    network: nn.Module, *examples: torch.Tensor, opset: int | None = None, dynamic_batch: bool = False
) -> Converted:
    """The network as an ONNX model with float32 inputs N x C x ..., of the examples' shapes.

    Args:
        network: in eval mode.
        examples: one for each input, 1 x C x ...
        opset: 11 to 23; None for the exporter's default.
        dynamic_batch: N is free; without it, it is 1.

    Raises:
        UsageError: a package is missing, or the opset cannot be written.
        ExportError: an operator has no counterpart.
    """
    need("onnxscript")
    _check_opset(opset)
    legacy = opset is not None and opset < OLDEST_OF_DYNAMO
    names = [INPUT if number == 0 else f"{INPUT}_{number}" for number in range(len(examples))]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        try:
            with silence():
                (_trace if legacy else _export)(network, examples, file, names, opset, dynamic_batch)
        except Exception as error:  # the exporters raise many kinds
            raise export_error("ONNX" if not legacy else f"the exporter for ONNX opset {opset}", error) from error
        content = _plain(file.read_bytes())
    written = opset_of(content)
    if opset is not None and written != opset:
        raise ExportError(f"Expected ONNX of opset {opset}, but torch's exporter wrote {written}: leave out --opset.")
    return Converted(content)


def _export(
    network: nn.Module, examples: Sequence[torch.Tensor], file: Path, names: list[str], opset: int | None, dynamic: bool
) -> None:
    """By torch.export, opset 18 and newer."""
    import torch

    batch = torch.export.Dim(BATCH, min=1, max=1 << 16)
    torch.onnx.export(
        network,
        # A dimension of one would be taken for a constant.
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
    """By TorchScript, opset 17 and older: what the forward decides by values is fixed by the examples."""
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
    """Raises UsageError for one that cannot be written."""
    if opset is None:
        return
    if not OPSETS[0] <= opset <= OPSETS[1]:
        raise UsageError(f"Expected an opset from {OPSETS[0]} to {OPSETS[1]}, but got {opset}.")
    if int8 and opset < OLDEST_INT8:
        raise UsageError(
            f"Expected an opset from {OLDEST_INT8} for int8, but got {opset}: older ones have no scales by channel."
        )


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


def quantise(content: bytes, *calibration: Images, signed: bool = False) -> Converted:
    """Static int8 of a model: weights by channel, activations by the smallest and largest value on the calibration.

    Args:
        content: a float32 model.
        calibration: for each input, images as the network takes them, N x C x ...
        signed: int8 activations, which ARM's kernels are fastest with. Without it activations are uint8 and weights
            have 7 bits, for x86: its kernels are fastest with these types, and on a processor without VNNI they add
            pairs of products in 16 bits, which full weights overflow (22 dB instead of 32, seen with AVX2).

    Raises ExportError where ONNX Runtime cannot do it.
    """
    quantization = need("onnxruntime.quantization")
    preparing = need("onnxruntime.quantization.shape_inference")
    types, names = quantization.QuantType, _input_names(content)
    samples = [dict(zip(names, image, strict=True)) for image in ones(calibration)]

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc, name-defined]
        """What ONNX Runtime reads images from."""

        def __init__(self) -> None:
            self.images: Iterator[Mapping[str, Any]] = iter(samples)

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
            raise export_error("ONNX Runtime's quantisation", error) from error
        return Converted(_plain(quantised.read_bytes()))


def _input_names(content: bytes) -> list[str]:
    return [entry.name for entry in need("onnx").load_from_string(content).graph.input]


class Session(BaseSession):
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
        self.names = [entry.name for entry in self.session.get_inputs()]

    def run(self, *inputs: Images) -> Outputs:
        """Each output for one image, or for as many as the model takes."""
        outputs: Outputs = self.session.run(None, dict(zip(self.names, inputs, strict=True)))
        return outputs


def load(path: str, inputs: list[Any], threads: int, providers: list[str]) -> tuple[Callable[[], Any], str]:
    """Load a model on the machine that measures it (`Runtime.load`).

    Args:
        path: the .onnx.
        inputs: one array for each input.
        threads: of the runtime.
        providers: execution providers, the first that is there.
    """
    import os

    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # it reports its use to its maker otherwise
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    wanted = [name for name in providers if name in ort.get_available_providers()]
    session = ort.InferenceSession(path, options, providers=wanted or ["CPUExecutionProvider"])
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
