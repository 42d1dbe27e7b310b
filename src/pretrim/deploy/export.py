"""From a network to an artifact that is proved: convert, run in its own runtime, compare, and only then write."""

from __future__ import annotations

import copy
import hashlib
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from pretrim.analysis.copies import check_eager, copy_module, describe_failure
from pretrim.compat.optional import is_installed, need, silence
from pretrim.errors import ExportError, ModelError, UsageError
from pretrim.surgery.apply import plan_of

from . import executorch, litert, onnx
from .artifact import Artifact, DataType, write
from .proof import LARGEST_ERROR, Proof, prove
from .runtime import RUNTIMES, SUFFIXES, TITLES, Converted, Images, Outputs, RuntimeName, Session

MODULES: dict[RuntimeName, tuple[str, ...]] = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "litert": ("litert_torch", "ai_edge_quantizer", "ai_edge_litert"),
    "executorch": ("executorch",),
}
LEAST_CALIBRATION = 2
PACKAGES: dict[RuntimeName, tuple[str, ...]] = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "litert": ("litert-torch", "ai-edge-quantizer", "ai-edge-litert"),
    "executorch": ("executorch", "torchao"),
}


def export(
    network: nn.Module,
    path: str | Path,
    to: RuntimeName,
    *,
    images: torch.Tensor,
    inputs: str = "images that were given",
    labels: torch.Tensor | None = None,
    calibration: torch.Tensor | None = None,
    calibrated_on: str = "images that were given",
    normalisation: tuple[Sequence[float], Sequence[float]] | None = None,
    classes: Sequence[str] | None = None,
    opset: int | None = None,
    signed: bool = False,
    force: bool = False,
) -> Artifact:
    """Write a network in the form of a runtime, once it is proved to compute the same there.

    Args:
        network: any module that takes one batch of images; it is not changed.
        path: the file to write, with the runtime's ending; its JSON record goes beside it.
        to: ``"onnx"``, ``"litert"`` or ``"executorch"``.
        images: real inputs to prove it with, as the network takes them: N x C x H x W, float32, normalised.
        inputs: what they are, for the record.
        labels: their classes (N), so that accuracies can be compared.
        calibration: images (likewise) to take the ranges of activations from: makes int8. None: float32.
        calibrated_on: what they are, for the record.
        normalisation: (mean, std) of each channel, for the record.
        classes: names of the outputs, for the record.
        opset: of ONNX, 18 to 23; by default the exporter's.
        signed: int8 ONNX for ARM (`onnx.quantise`); the others are the same for all processors.
        force: keep an artifact that is not proved, marked.

    Raises:
        UsageError: wrong arguments, or the runtime's packages are missing.
        ModelError: the network cannot be copied, or does not run on these images.
        ExportError: the network cannot be converted, or the artifact does not compute the same. Nothing is written.
        ArtifactError: the file cannot be written.
    """
    target = Path(path)
    check_target(target, to, overwrite=True)
    if opset is not None and to != "onnx":
        raise UsageError(f"Expected an opset for ONNX alone, but got one for {to}: leave it out.")
    images, calibration = _checked_images(images, calibration)
    _check_record(images, labels, normalisation)
    plain = _Plain(network)
    example = images[:1].contiguous()
    wanted = plain.outputs(images)
    converted = _convert(plain, example, to, calibration, opset, signed)
    data_type: DataType = "float32" if calibration is None else "int8"
    with tempfile.TemporaryDirectory() as folder:
        session, got = _run(to, Path(folder) / f"model{SUFFIXES[to]}", converted.content, images.numpy())
        found = prove(
            wanted,
            got,
            is_int8=calibration is not None,
            inputs=inputs,
            labels=None if labels is None else labels.cpu().numpy(),
        )
        if found.failed and not force:
            raise ExportError(
                f"Expected the {data_type} artifact for {TITLES[to]} to compute what the network does, but "
                f"{'; '.join(found.failed)}: {_mend(plain, images, wanted, data_type)}, or keep it with --force."
            )
        artifact = Artifact(
            path=target,
            runtime=to,
            data_type=data_type,
            file_bytes=len(converted.content),
            sha256=hashlib.sha256(converted.content).hexdigest(),
            input={**_input(to, session, example), "normalisation": _pair(normalisation)},
            outputs=tuple({"shape": [1, *part.shape[1:]]} for part in wanted),
            classes=None if classes is None else tuple(classes),
            plan=_plan(network),
            calibration=None if calibration is None else {"data": calibrated_on, "images": len(calibration)},
            proof=found.to_json(),
            notes=_notes(to, converted, found),
            versions=_versions(to),
        )
    write(artifact, converted.content)
    return artifact


def check_installed(to: RuntimeName) -> None:
    """Before long work: are the packages of a runtime there? Raises UsageError, which says what to install."""
    for module in MODULES[to]:
        if not is_installed(module):
            need(module)


def check_target(path: Path, to: str, overwrite: bool) -> None:
    """Before long work: is there a place to write to? Raises UsageError."""
    if to not in RUNTIMES:
        raise UsageError(f"Expected --to to be one of {', '.join(RUNTIMES)}, but got {to!r}.")
    if path.suffix != SUFFIXES[to]:
        raise UsageError(f"Expected a file that ends in {SUFFIXES[to]}, but got {path.name!r}.")
    if path.is_dir():
        raise UsageError(f"Expected a file to write, but {path} is a folder: choose another.")
    if path.exists() and not overwrite:
        raise UsageError(f"Expected a new file, but {path} exists: choose another, or --overwrite.")
    if not path.parent.is_dir():
        raise UsageError(f"Expected a folder to write in, but {path.parent} is none: make it first.")


def _checked_images(images: torch.Tensor, calibration: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Both as the runtimes take them: without gradients, on the CPU. Raises UsageError for what no runtime takes."""
    for value in (images, calibration):
        if value is not None and not isinstance(value, torch.Tensor):
            raise UsageError(f"Expected images as a torch.Tensor, but got a {type(value).__name__}.")
    if images.ndim != 4 or not len(images) or images.dtype != torch.float32:
        raise UsageError(
            f"Expected images of N x C x H x W in float32, but got {list(images.shape)} in {images.dtype}."
        )
    if not images.isfinite().all():
        raise UsageError("Expected finite images, but some hold NaN or infinity: leave those out.")
    images = images.detach().cpu()
    if calibration is None:
        return images, None
    if calibration.shape[1:] != images.shape[1:] or calibration.dtype != torch.float32:
        raise UsageError(
            f"Expected calibration images of {list(images.shape[1:])} in float32, as the network takes, but got "
            f"{list(calibration.shape[1:])} in {calibration.dtype}: give images of that shape."
        )
    if len(calibration) < LEAST_CALIBRATION:
        raise UsageError(f"Expected {LEAST_CALIBRATION} or more calibration images, but got {len(calibration)}.")
    if not calibration.isfinite().all():
        raise UsageError("Expected finite calibration images, but some hold NaN or infinity: leave those out.")
    return images, calibration.detach().cpu()


def _check_record(
    images: torch.Tensor, labels: torch.Tensor | None, normalisation: tuple[Sequence[float], Sequence[float]] | None
) -> None:
    """Raises UsageError for what does not belong to these images."""
    if labels is not None and (not isinstance(labels, torch.Tensor) or labels.shape != images.shape[:1]):
        shape = list(labels.shape) if isinstance(labels, torch.Tensor) else type(labels).__name__
        raise UsageError(f"Expected labels as a torch.Tensor of [{len(images)}], one an image, but got {shape}.")
    pair = _pair(normalisation)
    if pair is not None and (
        [len(part) for part in pair] != 2 * [images.shape[1]] or not np.isfinite(np.array(pair)).all()
    ):
        raise UsageError(
            f"Expected a normalisation of {images.shape[1]} finite means and as many deviations, but got {pair}."
        )


class _Plain(nn.Module):
    """A copy of a network as exporters want it: on the CPU, contiguous, in eval mode, its outputs in one flat tuple."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        check_eager(network)
        self.network = copy_module(network).cpu().float()
        for tensor in (*self.network.parameters(), *self.network.buffers()):
            tensor.requires_grad_(False)
            tensor.data = tensor.data.contiguous()
        self.eval()

    def forward(self, images: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        leaves = [leaf for leaf in tree_leaves(self.network(images)) if isinstance(leaf, torch.Tensor)]
        return leaves[0] if len(leaves) == 1 else tuple(leaves)

    @torch.no_grad()
    def outputs(self, images: torch.Tensor) -> Outputs:
        """Each output for N images, one at a time as the artifact takes them. Raises ModelError."""
        try:
            found = [tree_leaves(self(image[None])) for image in images]
        except Exception as error:  # the user's own code; its error is shown
            raise ModelError(
                f"Expected the network to run on one image of {'x'.join(map(str, images.shape[1:]))}, but its forward "
                f"raised {describe_failure(error)}."
            ) from error
        shapes = [list(part.shape) for part in found[0]]
        if not shapes or any(shape[:1] != [1] for shape in shapes):
            raise ModelError(f"Expected the network to return tensors of one row an image, but for one got {shapes}.")
        return [np.concatenate([part.numpy() for part in parts]) for parts in zip(*found, strict=True)]


def _convert(
    plain: nn.Module,
    example: torch.Tensor,
    to: RuntimeName,
    calibration: torch.Tensor | None,
    opset: int | None,
    signed: bool,
) -> Converted:
    sample = None if calibration is None else calibration.numpy()
    if to == "executorch":
        return executorch.convert(plain, example) if sample is None else executorch.quantise(plain, example, sample)
    if to == "litert":
        converted = litert.convert(plain, example)
        return converted if sample is None else litert.quantise(converted.content, sample)
    converted = onnx.convert(plain, example, opset=opset)
    return converted if sample is None else onnx.quantise(converted.content, sample, signed=signed)


def open_session(runtime: RuntimeName, path: Path, threads: int = 1) -> Session:
    """Load an artifact in its runtime. Raises UsageError where that is not installed."""
    kinds: dict[RuntimeName, Callable[[Path, int], Session]] = {
        "onnx": onnx.Session,
        "litert": litert.Session,
        "executorch": executorch.Session,
    }
    return kinds[runtime](path, threads)


def _run(runtime: RuntimeName, path: Path, content: bytes, images: Images) -> tuple[Session, Outputs]:
    """Write the artifact to a path: what it answers. Raises ExportError where its runtime cannot run it."""
    try:
        path.write_bytes(content)
        session = open_session(runtime, path)
        with silence():
            return session, session(images)
    except UsageError:
        raise
    except Exception as error:  # the runtimes raise many kinds
        raise ExportError.by(TITLES[runtime], error) from error


def _input(to: RuntimeName, session: Session, example: torch.Tensor) -> dict[str, Any]:
    """Layout, shape and data type of an artifact's input."""
    shape = list(example.shape)
    if not isinstance(session, litert.Session):
        return {"layout": onnx.LAYOUT, "shape": shape, "data_type": "float32"}
    found: dict[str, Any] = {"layout": litert.LAYOUT, "shape": [shape[0], *shape[2:], shape[1]]}
    scale, zero = session.input["quantization"]
    found["data_type"] = np.dtype(session.input["dtype"]).name
    return found | ({"scale": float(scale), "zero_point": int(zero)} if found["data_type"] == "int8" else {})


def _notes(to: RuntimeName, converted: Converted, proof: Proof) -> tuple[str, ...]:
    notes = [f"not proved, kept by force: {problem}" for problem in proof.failed]
    if converted.slow:
        names = ", ".join(name.partition("::")[2] or name for name in converted.slow)
        notes.append(f"{TITLES[to]} runs these operators by its slow portable kernels: {names}")
    return tuple(notes)


def _mend(plain: _Plain, images: torch.Tensor, wanted: Outputs, data_type: DataType) -> str:
    if not all(np.isfinite(part).all() for part in wanted):
        return "PyTorch's own are not either, train it again"
    if data_type == "int8":
        return "calibrate on more images"
    own = _rounding(plain, images, wanted)
    if own is not None and own > LARGEST_ERROR:
        own_error = f"PyTorch's float32 is {own:.1e} from its float64"
        return f"the network magnifies rounding ({own_error}), which training may mend"
    return "another runtime may take it"


def _rounding(plain: _Plain, images: torch.Tensor, wanted: Outputs) -> float | None:
    """How far the network's float32 outputs are from its own in float64, as `Proof.relative_error`.

    None where it has no float64, as a network that converts to float32 by itself.
    """
    with suppress(RuntimeError):
        exact = copy.deepcopy(plain).double().outputs(images.double())
        return prove(exact, wanted, is_int8=False, inputs="").relative_error
    return None


def _pair(normalisation: tuple[Sequence[float], Sequence[float]] | None) -> list[list[float]] | None:
    return None if normalisation is None else [[float(value) for value in part] for part in normalisation]


def _plan(network: nn.Module) -> dict[str, Any] | None:
    """The plan that a slim network carries."""
    try:
        return plan_of(network).to_json()
    except UsageError:
        return None


def _versions(to: RuntimeName) -> dict[str, str]:
    found = {"pretrim": version("pretrim"), "torch": str(torch.__version__)}
    for package in PACKAGES[to]:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
