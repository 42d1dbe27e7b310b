"""LiteRT (``.tflite``): conversion by litert-torch, quantisation by ai-edge-quantizer; images are N x ... x C."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretrim.compat.optional import need
from pretrim.compat.silence import silence

from .runtime import Conversion, Converted, Images, Outputs, Runtime, ones
from .runtime import Session as BaseSession
from .vendor_errors import export_error

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import nn

SIGNATURE, INPUT, OUTPUT = "serving_default", "args", "output"
VIEW_ERROR = "Cannot view a tensor"
"""Start of torch's error for ``x.view(len(x), -1)`` on feature maps in channels-last memory format."""


def convert(network: nn.Module, *examples: torch.Tensor) -> Converted:
    """Convert a network to a flatbuffer with float32 inputs 1 x ... x C, in the shapes of the examples (1 x C x ...).

    Raises:
        UsageError: a package is missing.
        ExportError: an operator has no counterpart.
    """
    from pretrim.compat.litert_expand import remove_expansions
    from pretrim.compat.litert_transposed import plain_transposed

    from .tflite import packed

    os.environ.setdefault("LITERT_TORCH_SHOW_PROGRESS", "n")
    litert = need("litert_torch")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.tflite"
        try:
            with silence():
                rewritten = remove_expansions(plain_transposed(network, *examples), *examples)
                spatial = [number for number, example in enumerate(examples) if example.ndim > 2]
                inputs = tuple(example.movedim(1, -1).contiguous() for example in examples)

                def export(module: nn.Module) -> None:
                    converted = litert.to_channel_last_io(module, args=spatial).eval() if spatial else module
                    litert.convert(converted, inputs).export(str(file))

                try:
                    export(rewritten)
                except Exception as error:
                    if VIEW_ERROR not in str(error):
                        raise
                    export(contiguous_inputs(rewritten))
        except Exception as error:  # the converter raises many kinds
            raise export_error("LiteRT", error) from error
        return Converted(packed(file.read_bytes()))


def contiguous_inputs(network: nn.Module) -> nn.Module:
    """Wrap a network so that it runs on contiguous copies of its inputs, with the channels first as in PyTorch.

    This is used only after `VIEW_ERROR`, so the files of all other networks stay the same.
    """
    from torch import nn

    class Contiguous(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, *inputs: torch.Tensor) -> Any:
            return self.network(*(value.contiguous() for value in inputs))

    return Contiguous().eval()


def quantise(content: bytes, *calibration: Images) -> Converted:
    """Quantise a model to static int8, including inputs and outputs: per-channel weights, calibrated activation ranges.

    The quantiser's own `calibrate` keeps a moving average of the ranges, which clips them (an SQNR of 10 dB, where the
    true ranges give 30 dB); so the minimum and maximum are taken instead.

    Args:
        content: bytes of a float32 model.
        calibration: images for each input, N x C x ...

    Raises ExportError if the quantiser fails.
    """
    from .tflite import packed

    quantizer, calibrator = need("ai_edge_quantizer.quantizer"), need("ai_edge_quantizer.calibrator")
    recipe, ranges = need("ai_edge_quantizer.recipe"), need("ai_edge_quantizer.utils.qsv_utils")
    samples = [
        dict(zip(_input_names(len(image)), map(_channels_last, image), strict=True)) for image in ones(calibration)
    ]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.tflite"
        try:
            file.write_bytes(content)
            with silence():
                quantiser = quantizer.Quantizer(str(file), recipe.static_wi8_ai8())
                calibration_run = calibrator.Calibrator(str(file), num_threads=1, qsv_update_func=ranges.min_max_update)
                calibration_run.calibrate({SIGNATURE: samples}, quantiser._recipe_manager)
                result = quantiser.quantize(_widened(calibration_run.get_model_qsvs()), enable_progress_report=False)
                quantised = bytes(result.quantized_model)
        except Exception as error:
            raise export_error("the quantiser of LiteRT", error) from error
    return Converted(packed(quantised))


def _widened(ranges: dict[str, dict[str, NDArray[np.float32]]]) -> dict[str, dict[str, NDArray[np.float32]]]:
    """Widen, in place, the ranges of activations that are zero on all images (such as a squeeze that ReLU shuts off).

    The quantiser makes a scale of 4e-12 from such a range, which XNNPACK rejects, or which ends the process.
    """
    import numpy as np

    widest = max(
        (float(np.abs(tensor_range[end]).max()) for tensor_range in ranges.values() for end in ("min", "max")),
        default=1.0,
    )
    for tensor_range in ranges.values():
        if not tensor_range["min"].any() and not tensor_range["max"].any():
            tensor_range["max"] = np.full_like(tensor_range["max"], widest)
    return ranges


def _input_names(count: int) -> list[str]:
    """The converter's names of the inputs."""
    return [f"{INPUT}_{number}" for number in range(count)]


def _channels_last(image: Images) -> Images:
    import numpy as np

    return np.ascontiguousarray(np.moveaxis(image, 1, -1))


class Session(BaseSession):
    """A model loaded in LiteRT's interpreter, with its XNNPACK kernels or its reference kernels."""

    def __init__(self, path: Path, threads: int = 1, reference: bool = False) -> None:
        package = need("ai_edge_litert.interpreter")
        kernels = package.OpResolverType.BUILTIN_REF if reference else package.OpResolverType.AUTO
        with silence():
            self.interpreter = package.Interpreter(
                str(path), num_threads=threads, experimental_op_resolver_type=kernels
            )
            self.interpreter.allocate_tensors()
        self.inputs = sorted(self.interpreter.get_input_details(), key=_number_of)
        self.outputs = self.interpreter.get_output_details()
        self.scales = [_scale(tensor) for tensor in self.inputs]
        self.output_scales = [_scale(tensor) for tensor in self.outputs]

    def run(self, *inputs: Images) -> Outputs:
        """Run one image and return each output."""
        for value, tensor in zip(inputs, self.inputs, strict=True):
            self.interpreter.set_tensor(tensor["index"], quantised(_channels_last(value), tensor))
        self.interpreter.invoke()
        return [restored(self.interpreter.get_tensor(output["index"]), output) for output in self.outputs]


def reference_interpreter(content: bytes) -> Any:
    """Load a model's bytes into an interpreter with LiteRT's reference kernels and allocated tensors."""
    package = need("ai_edge_litert.interpreter")
    with silence():
        interpreter = package.Interpreter(
            model_content=content, experimental_op_resolver_type=package.OpResolverType.BUILTIN_REF
        )
        interpreter.allocate_tensors()
    return interpreter


def _number_of(tensor: dict[str, Any]) -> int:
    """The index in an input's name, ``serving_default_args_1:0`` or ``args_1``; the interpreter's list is unordered."""
    suffix = str(tensor["name"]).partition(":")[0].rpartition("_")[2]
    return int(suffix) if suffix.isdigit() else 0


def _scale(tensor: dict[str, Any]) -> tuple[float, int] | None:
    import numpy as np

    scale, zero = tensor["quantization"]
    return (float(scale), int(zero)) if tensor["dtype"] == np.int8 else None


def quantised(values: NDArray[np.float32], tensor: dict[str, Any]) -> NDArray[Any]:
    """Quantise values as a tensor takes them; float32 tensors take them as they are."""
    import numpy as np

    if tensor["dtype"] == np.float32:
        return np.ascontiguousarray(values)
    scale, zero = tensor["quantization"]
    limits = np.iinfo(tensor["dtype"])
    integers: NDArray[Any] = np.clip(np.rint(values / scale + zero), limits.min, limits.max).astype(tensor["dtype"])
    return integers


def restored(values: NDArray[Any], tensor: dict[str, Any]) -> NDArray[np.float32]:
    """Dequantise a tensor's values to float32."""
    import numpy as np

    if tensor["dtype"] == np.float32:
        return values.copy()
    scale, zero = tensor["quantization"]
    return (values.astype(np.float32) - np.float32(zero)) * np.float32(scale)


def load(path: str, inputs: list[Any], threads: int, providers: list[str]) -> tuple[Callable[[], Any], str]:
    """Load a model on the machine that measures it (`Runtime.load`).

    Older boards have the interpreter in the packages tflite_runtime or tensorflow.

    Args:
        path: the .tflite.
        inputs: one array for each input.
        threads: number of threads for the runtime.
        providers: not used here.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        try:
            from tflite_runtime.interpreter import Interpreter
        except ImportError:
            from tensorflow.lite import Interpreter
    interpreter = Interpreter(path, num_threads=threads)
    interpreter.allocate_tensors()
    # by length first: args_2 comes before args_10
    details = sorted(interpreter.get_input_details(), key=lambda tensor: (len(tensor["name"]), tensor["name"]))
    for tensor, value in zip(details, inputs):  # noqa: B905  # Python 3.8
        interpreter.set_tensor(tensor["index"], value)
    return interpreter.invoke, "CPU"


def _convert(job: Conversion) -> Converted:
    return convert(job.network, *job.examples)


def _quantise(job: Conversion) -> Converted:
    return quantise(_convert(job).content, *job.calibration)


RUNTIME = Runtime(
    name="litert",
    title="LiteRT",
    suffix=".tflite",
    requirement="pretrim[litert]",
    modules=("litert_torch", "ai_edge_quantizer", "ai_edge_litert"),
    packages=("litert-torch", "ai-edge-quantizer", "ai-edge-litert"),
    convert=_convert,
    quantise=_quantise,
    session=Session,
    load=load,
    device_packages=("ai-edge-litert", "tflite-runtime", "tensorflow"),
    channels_last=True,
)
