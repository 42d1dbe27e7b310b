"""A run folder: the slim network's tensors in ``weights.safetensors``, everything else in ``run.json``. No pickle.

The network is rebuilt from the dense model's own definition: built-in and zoo networks alone, a network of a user's
file only when the user names that file. Then the plan is applied and the tensors are copied in.
"""

from __future__ import annotations

import hashlib
import json
import platform
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from errno import ENOTDIR
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import SafetensorError
from safetensors.torch import load as read_tensors
from safetensors.torch import save as tensors_to_bytes
from torch import nn

from .errors import CheckpointError, PlanError, PretrimError, UsageError
from .files import write_bytes, write_text
from .identity import fingerprint, make_example
from .models.resolve import ModelReference, build, resolve
from .plan import Plan
from .surgery import apply, plan_of
from .trace import copy_module

FORMAT = "pretrim-run"
VERSION = 1
RECORD = "run.json"
WEIGHTS = "weights.safetensors"
LAYOUT = "NCHW"
# What a training adds to a run folder: its state (only until it is finished), a line an epoch, a picture, what trackers
# write, and the dense network's own run.
STATE, LOG, CURVE, TRACKING, DENSE = "training.safetensors", "log.jsonl", "curve.png", "tracking", "dense"
OWN = frozenset({RECORD, WEIGHTS, STATE, LOG, CURVE, TRACKING, DENSE})
ARTIFACT = "model"
"""What `export` puts there: ``model.onnx``, ``model.int8.tflite``, and a record of each."""

Normalisation: TypeAlias = tuple[tuple[float, ...], tuple[float, ...]]
Shape: TypeAlias = tuple[int, int, int]
ModelSource: TypeAlias = nn.Module | Callable[[], nn.Module] | str


@dataclass(frozen=True)
class RunRecord:
    """What ``run.json`` says.

    Attributes:
        plan: the plan that the network was built from.
        reference: what rebuilds the dense model; None for a module that came from elsewhere.
        versions: of pretrim, torch and python, when it was written.
        dense_fingerprint: of the dense model's parameters and buffers (`identity.fingerprint`).
        slim_fingerprint: of the slim network's.
        weights_sha256: of the file of weights.
        aliases: the names of tied tensors, each with the name that its values are stored under.
        classes: names of the outputs, in their order.
        input_shape: (channels, height, width) of one image.
        normalisation: (mean, std) of each channel, for images scaled to 0..1.
        data: the data set it was trained on, as the data set describes itself.
        results: accuracies and the training log.
        layout: the order of an input's dimensions.
    """

    plan: Plan
    reference: ModelReference | None
    versions: Mapping[str, str]
    dense_fingerprint: str
    slim_fingerprint: str
    weights_sha256: str
    aliases: Mapping[str, str]
    classes: tuple[str, ...] | None
    input_shape: Shape | None
    normalisation: Normalisation | None
    data: Mapping[str, Any] | None
    results: Mapping[str, Any] | None
    layout: str = LAYOUT

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, with the format's name and version."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "versions": dict(self.versions),
            "model": None if self.reference is None else self.reference.to_json(),
            "plan": self.plan.to_json(),
            "fingerprints": {"dense": self.dense_fingerprint, "slim": self.slim_fingerprint},
            "weights": {"file": WEIGHTS, "sha256": self.weights_sha256, "aliases": dict(self.aliases)},
            "input": {"layout": self.layout, "shape": self.input_shape, "normalisation": self.normalisation},
            "classes": self.classes,
            "data": self.data,
            "results": self.results,
        }

    @classmethod
    def from_json(cls, data: Any) -> RunRecord:
        """Read what :meth:`to_json` wrote. Raises CheckpointError for anything else."""
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise CheckpointError("Expected a run written by pretrim, but got other JSON: give a folder of `compress`.")
        if data.get("version") != VERSION:
            raise CheckpointError(
                f"Expected a run of version {VERSION}, but got {data.get('version')!r}: update pretrim."
            )
        try:
            return _record(data)
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, PretrimError) as error:
            said = str(error) if isinstance(error, PretrimError) else repr(error)
            raise CheckpointError(f"Expected a complete {RECORD}, but it is damaged ({said}): save again.") from error


def _record(data: Mapping[str, Any]) -> RunRecord:
    model, prints, weights, given = data["model"], data["fingerprints"], data["weights"], data["input"]
    plan = Plan.from_json(data["plan"])
    if given["layout"] != LAYOUT:
        raise ValueError(f"the layout is {given['layout']!r}")
    if plan.fingerprint != prints["dense"]:
        raise ValueError("its plan is for another model")
    with torch.device("meta"):
        make_example(plan.example)
    return RunRecord(
        plan=plan,
        reference=None if model is None else ModelReference.from_json(model),
        versions=_texts(data["versions"]),
        dense_fingerprint=str(prints["dense"]),
        slim_fingerprint=str(prints["slim"]),
        weights_sha256=str(weights["sha256"]),
        aliases=_texts(weights["aliases"]),
        classes=None if data["classes"] is None else _checked_classes(data["classes"]),
        input_shape=None if given["shape"] is None else _checked_shape(given["shape"]),
        normalisation=None if given["normalisation"] is None else _checked_pair(given["normalisation"]),
        data=_checked_data(_mapping(data["data"])),
        results=_mapping(data["results"]),
    )


def _texts(entries: Any) -> dict[str, str]:
    return {str(name): str(value) for name, value in dict(entries).items()}


def _mapping(value: Any) -> Mapping[str, Any] | None:
    if value is not None and not isinstance(value, dict):
        raise TypeError(f"an object is {value!r}")
    return value


def _checked_data(data: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """By another seed than that of the run, images that it was trained on would get into its test."""
    seed = 0 if data is None else data.get("split_seed", 0)
    if not isinstance(seed, int) or seed < 0:
        raise ValueError(f"the split_seed is {seed!r}")
    return data


def _checked_classes(names: Sequence[str]) -> tuple[str, ...]:
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"the classes are {names!r}")
    return tuple(names)


def _checked_shape(shape: Sequence[int]) -> Shape:
    if len(shape) != 3 or not all(isinstance(size, int) and size > 0 for size in shape):
        raise ValueError(f"the input shape is {shape!r}")
    return (shape[0], shape[1], shape[2])


def _checked_pair(pair: Sequence[Sequence[float]]) -> Normalisation:
    mean, std = (tuple(float(value) for value in values) for values in pair)
    if len(mean) != len(std) or not all(value > 0 for value in std):
        raise ValueError(f"the normalisation is {pair!r}")
    return mean, std


# ---------------------------------------------------------------------------------------- writing


def save(
    slim: nn.Module,
    path: str | Path,
    *,
    reference: ModelReference | None = None,
    classes: Sequence[str] | None = None,
    normalisation: tuple[Sequence[float], Sequence[float]] | None = None,
    input_shape: Sequence[int] | None = None,
    data: Mapping[str, Any] | None = None,
    results: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    into: bool = False,
) -> None:
    """Write a slim network, which carries its plan, to a new run folder: whole or not at all.

    Args:
        slim: a network made by ``plan.apply``; its tensors are stored as they are (data types kept, values on any
            device and in any memory format, tied tensors once).
        path: the folder; it must not exist, unless `overwrite` and it is a run folder.
        reference: what rebuilds the dense model; by default that of the plan.
        classes: names of the outputs.
        normalisation: (mean, std) of each channel, for images scaled to 0..1.
        input_shape: (channels, height, width); by default that of the plan's example, if it is one image tensor.
        data: the data set, as plain JSON.
        results: accuracies and the like, as plain JSON.
        overwrite: replace an existing run folder.
        into: write into the folder of a training (:func:`output_folder`), whose other files stay. The record is written
            last, so that without it the run is not finished.

    Raises:
        UsageError: a network without a plan, or metadata that is no plain JSON.
        CheckpointError: the folder exists, or cannot be written.
    """
    plan = plan_of(slim)
    if reference is None and plan.model is not None:
        reference = ModelReference.from_json(plan.model)
    tensors, aliases = _stored(slim)
    content = tensors_to_bytes(tensors)
    shape = image_shape(plan) if input_shape is None else input_shape
    try:
        record = RunRecord(
            plan=plan,
            reference=reference,
            versions=_versions(),
            dense_fingerprint=plan.fingerprint,
            slim_fingerprint=fingerprint(slim),
            weights_sha256=hashlib.sha256(content).hexdigest(),
            aliases=aliases,
            classes=None if classes is None else _checked_classes(classes),
            input_shape=None if shape is None else _checked_shape(shape),
            normalisation=None if normalisation is None else _checked_pair(normalisation),
            data=data,
            results=results,
        )
        text = json.dumps(record.to_json(), indent=2, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise UsageError(f"Expected metadata of a run as plain JSON, but {error}.") from error
    if into:
        _write_into(Path(path), content, text)
    else:
        _write_folder(Path(path), content, text, overwrite)


def prepare_output(path: str | Path, overwrite: bool = False, resume: bool = False) -> Path:
    """Check, before long work, that a run folder can be written at `path`; its parents are made.

    Raises:
        CheckpointError: it exists (or, with `overwrite` or `resume`, is no run folder), or cannot be written.
    """
    target = Path(path).resolve()
    try:
        if target.exists() or target.is_symlink():
            _check_replaceable(Path(path), target, overwrite, resume)
        _make_parent(target)
        trial = _sibling(target)
        trial.mkdir()
        trial.rmdir()
    except OSError as error:
        raise _not_writable(Path(path), error) from error
    return target


@contextmanager
def output_folder(path: str | Path, *, resume: bool = False) -> Iterator[Path]:
    """Make the folder of a training, or take the one that is there. A run in it stays until the new one is finished.

    Unless `resume`, the state of a training that was stopped is removed: this one starts anew. If nothing was written
    when an error ends the work, the folder goes again.
    """
    target = Path(path)
    try:
        target.mkdir(exist_ok=True)
        for entry in filter(_is_temporary, target.iterdir()):
            entry.unlink()
        if not resume:
            for state in (target / STATE, target / DENSE / STATE):
                state.unlink(missing_ok=True)
            for artifact in filter(_is_artifact, target.iterdir()):
                artifact.unlink()
    except OSError as error:
        raise _not_writable(target, error) from error
    try:
        yield target
    except BaseException:
        with suppress(OSError):  # it is not empty
            target.rmdir()
        raise


def is_finished(path: str | Path) -> bool:
    """Whether a folder holds a run, and no training that was stopped."""
    folder = Path(path)
    return (folder / RECORD).exists() and not any((folder / part / STATE).exists() for part in ("", DENSE))


def _make_parent(target: Path) -> None:
    if target.parent.exists() and not target.parent.is_dir():
        raise NotADirectoryError(ENOTDIR, f"{target.parent} is a file")
    target.parent.mkdir(parents=True, exist_ok=True)


def _check_replaceable(shown: Path, target: Path, overwrite: bool, resume: bool) -> None:
    if not overwrite and not resume:
        stopped = target.is_dir() and any((target / part / STATE).exists() for part in ("", DENSE))
        if stopped:
            raise CheckpointError(
                f"Expected a new folder, but {shown} holds a training that was stopped: --resume goes on with it, "
                f"--overwrite starts anew."
            )
        raise CheckpointError(f"Expected a new folder, but {shown} exists: choose another, or --overwrite.")
    if not target.is_dir():
        raise CheckpointError(f"Expected a run folder to overwrite, but {shown} is a file: choose another.")
    others = sorted(entry.name for entry in target.iterdir() if not _is_ours(entry))
    if others:
        raise CheckpointError(
            f"Expected a run folder to overwrite, but {shown} also holds {others[0]}: choose another, or remove it."
        )


def _is_ours(entry: Path) -> bool:
    return entry.name in OWN or _is_temporary(entry) or _is_artifact(entry)


def _is_artifact(entry: Path) -> bool:
    return entry.name.startswith(f"{ARTIFACT}.") and entry.is_file()


def _is_temporary(entry: Path) -> bool:
    """A file that was being written when the process was killed (`files.write_atomically`)."""
    return entry.name.startswith(".") and entry.suffix == ".tmp"


def _sibling(target: Path) -> Path:
    """A new name in the same folder: a rename within one folder is atomic."""
    return target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")


def _not_writable(path: Path, error: OSError) -> CheckpointError:
    why = error.strerror or type(error).__name__
    return CheckpointError(f"Expected to write the folder {path}, but got: {why}. Choose one that can be written.")


def _write_folder(path: Path, content: bytes, text: str, overwrite: bool) -> None:
    target = prepare_output(path, overwrite)
    temporary = _sibling(target)
    try:
        temporary.mkdir()
        (temporary / WEIGHTS).write_bytes(content)
        write_text(temporary / RECORD, text)
        _rename(temporary, target)
    except OSError as error:
        raise _not_writable(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_into(path: Path, content: bytes, text: str) -> None:
    """The old record goes first and the new one comes last: whenever there is one, it is of the weights beside it."""
    try:
        (path / RECORD).unlink(missing_ok=True)
        write_bytes(path / WEIGHTS, content)
        write_text(path / RECORD, text)
    except OSError as error:
        raise _not_writable(path, error) from error


def _rename(temporary: Path, target: Path) -> None:
    """Put the new folder in the place of the old one, which is put back if that fails."""
    if not target.exists():
        temporary.rename(target)
        return
    old = _sibling(target)
    target.rename(old)
    try:
        temporary.rename(target)
    except OSError:
        old.rename(target)
        raise
    shutil.rmtree(old)


def _stored(slim: nn.Module) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Every parameter and buffer, tied ones once: (name -> contiguous tensor, other name -> that name)."""
    tensors: dict[str, torch.Tensor] = {}
    aliases: dict[str, str] = {}
    first: dict[tuple[object, ...], str] = {}
    for name, tensor in _all_tensors(slim):
        same = (tensor.device, tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())
        if tensor.numel() and same in first:
            aliases[name] = first[same]
            continue
        first[same] = name
        tensors[name] = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
    return tensors, aliases


def _all_tensors(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Parameters and buffers under every name they have, buffers that are not persistent too."""
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


def _versions() -> dict[str, str]:
    return {
        "pretrim": package_version("pretrim"),
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }


def image_shape(plan: Plan) -> Shape | None:
    """(channels, height, width) of the plan's example, if that is one batch of images."""
    shape = plan.example.get("shape") if isinstance(plan.example, Mapping) else None
    if not isinstance(shape, list) or len(shape) != 4:
        return None
    return _checked_shape(shape[1:]) if all(isinstance(size, int) and size > 0 for size in shape) else None


# ---------------------------------------------------------------------------------------- reading


def read(path: str | Path) -> RunRecord:
    """The record of a run folder. Raises CheckpointError if there is none, or it is truncated, edited or foreign."""
    file = Path(path) / RECORD
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        if (file.parent / STATE).exists():
            raise CheckpointError(
                f"Expected a finished run in {path}, but its training was stopped: go on with `compress --resume`."
            ) from error
        raise CheckpointError(
            f"Expected a run folder with {RECORD}, but could not read {file} ({error.strerror}): "
            f"give the folder that `pretrim compress -o` wrote."
        ) from error
    except (RecursionError, ValueError) as error:
        raise CheckpointError(
            f"Expected {file} to be JSON, but it is not ({error}): the file is truncated or edited, copy it again."
        ) from error
    return RunRecord.from_json(data)


def load(path: str | Path, *, model: ModelSource | None = None) -> nn.Module:
    """The slim network of a run folder, in eval mode, carrying its plan (:func:`pretrim.plan_of`).

    Args:
        path: a folder written by :func:`save`.
        model: what to rebuild from: the dense network, a function that returns it, its name (``"file.py:function"``,
            which runs that file), or the slim network itself. Needed only where pretrim cannot build the model alone:
            a user's file is never run without being named here. The module given is not changed.

    Raises:
        CheckpointError: the folder is truncated, edited or foreign, or `model` is another network.
        UsageError: `model` is needed, or names nothing.
        ModelError: the model cannot be built.
    """
    record = read(path)
    tensors = _read_weights(Path(path) / WEIGHTS, record)
    slim = _rebuild(record, model)
    _check_shapes(slim, tensors, record)
    with torch.no_grad():
        for name, tensor in _all_tensors(slim):
            stored = tensors[record.aliases.get(name, name)]
            if stored.dtype != tensor.dtype:
                tensor.data = tensor.data.to(stored.dtype)
            tensor.copy_(stored)
    slim.__dict__["pretrim_plan"] = record.plan
    return slim.eval()


def _read_weights(file: Path, record: RunRecord) -> dict[str, torch.Tensor]:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"Expected the weights in {file}, but could not read it ({error.strerror}): copy the whole run folder."
        ) from error
    found = hashlib.sha256(content).hexdigest()
    if found != record.weights_sha256:
        raise CheckpointError(
            f"Expected {file} to have the SHA-256 {record.weights_sha256[:12]}..., but got {found[:12]}...: "
            f"it is truncated or edited, copy it again."
        )
    try:
        return read_tensors(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(f"Expected {file} to be a safetensors file, but {error}: copy it again.") from error


def _rebuild(record: RunRecord, model: ModelSource | None) -> nn.Module:
    """A slim network with the shapes of the record and any values."""
    source = build(_own_reference(record)) if model is None else _given(record, model)
    found = fingerprint(source)
    if found == record.dense_fingerprint:
        try:
            return apply(source, record.plan)
        except PlanError as error:
            raise CheckpointError(str(error)) from error
    if found == record.slim_fingerprint:
        return copy_module(source)
    raise CheckpointError(
        "Expected the model that the run was made from, but its parameters have other names or shapes: "
        "give that model, or its version at that time."
    )


def _own_reference(record: RunRecord) -> ModelReference:
    """The reference, if it can be built without running a user's file."""
    reference = record.reference
    if reference is not None and reference.trusted:
        return reference
    came = "a module" if reference is None else repr(reference.name)
    example = "FILE.py:FUNCTION" if reference is None else reference.name
    raise UsageError(
        f"Expected model= (--model) for a network that pretrim cannot build itself, but got none: the run was made "
        f"from {came}, so give --model {example}, which runs that file."
    )


def _given(record: RunRecord, model: ModelSource) -> nn.Module:
    """The network that the user gave, named, or gave a function for."""
    if isinstance(model, str):
        if record.reference is not None:
            return build(ModelReference(model, record.reference.arguments))
        classes = None if record.classes is None else len(record.classes)
        return build(resolve(model, num_classes=classes, input_shape=record.input_shape))
    source = model if isinstance(model, nn.Module) else model()
    if not isinstance(source, nn.Module):
        raise UsageError(f"Expected model to be, or to return, a torch.nn.Module, but got {type(source).__name__}.")
    return source


def _check_shapes(slim: nn.Module, tensors: Mapping[str, torch.Tensor], record: RunRecord) -> None:
    """The rebuilt network and the stored tensors must have the same names and shapes."""
    wanted = {name: tuple(tensor.shape) for name, tensor in _all_tensors(slim)}
    names = {name: record.aliases.get(name, name) for name in wanted}
    missing = sorted(name for name, stored in names.items() if stored not in tensors)
    extra = sorted(set(tensors) - set(names.values()))
    if missing or extra:
        what = f"{missing[0]} is missing" if missing else f"{extra[0]} is not in the model"
        raise CheckpointError(f"Expected the tensors of the rebuilt network, but {what}: the run is edited.")
    for name, stored in names.items():
        got = tuple(tensors[stored].shape)
        if got != wanted[name]:
            raise CheckpointError(
                f"Expected {name} to be {wanted[name]} as planned, but got {got}: the run is edited, save it again."
            )
