"""Take out of a trained network what it does not use, without any change of its outputs, and prove that."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from pretrim.errors import ModelError, PretrimError, UsageError

from .options import DataOptions
from .reporter import Reporter, Silent
from .run import Run, open_run

if TYPE_CHECKING:
    from torch import nn

    from pretrim.analysis.copies import Example
    from pretrim.analysis.network import Network
    from pretrim.data import DataSet
    from pretrim.models.dense import DenseModel, ModelSource
    from pretrim.planning.plan import Plan
    from pretrim.surgery.dead import DeadFilters, DeadGroup
    from pretrim.train import Task

    from .data import DataSource

IMAGES = 8
"""Random images that both networks are compared on"""
EXACT = 1e-12
"""Largest difference in double precision, as a share of the largest output"""
STORED = 1e-6
"""The same of the network as it is stored, whose biases took constants in its own precision"""
STEPS = 8
"""Units in the last place that a type of less than float32 may differ by"""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class SlimOptions:
    """What is taken out, and of which network."""

    dead: bool = False
    """Remove filters that are zero, constant, or read by no layer."""
    from_: Annotated[Path | None, Parameter(name="--from")] = None
    """Trained weights of MODEL: a .safetensors or .pth file."""
    classes: int | None = None
    """Number of outputs of MODEL (default: the data's, or the model's)."""
    overwrite: bool = False
    """Replace the run that is there."""


@dataclass(frozen=True)
class Slimmed:
    """What came of it.

    Attributes:
        name: of the network, for people.
        run: the new run; None where nothing was dead, and nothing was written.
        channels: filters that could have been removed, each once for all layers that it is coupled in.
        groups: what went and what stayed though it is constant, of each channel group where there is any.
        before: the five costs of the network that was given.
        after: those of the new one.
        exact_difference: of the outputs in double precision, as a share of the largest one; None for a network that
            does not run in it, and where there is no new one.
        stored_difference: the same of the network as it is stored; None where there is no new one.
        images: random images that both were compared on.
    """

    name: str
    run: Run | None
    channels: int
    groups: tuple[DeadGroup, ...]
    before: Mapping[str, int]
    after: Mapping[str, int]
    exact_difference: float | None
    stored_difference: float | None
    images: int = IMAGES

    @property
    def removed(self) -> int:
        """Channels that went."""
        return sum(group.removed for group in self.groups)

    def to_json(self) -> dict[str, Any]:
        """What `pretrim slim --json` prints."""
        return {
            "network": self.name,
            "run": None if self.run is None else str(self.run.path),
            "filters": self.channels,
            "removed": self.removed,
            "before": dict(self.before),
            "after": dict(self.after),
            "groups": [asdict(group) for group in self.groups],
            "difference": None if self.run is None else self._difference(),
        }

    def _difference(self) -> dict[str, Any]:
        return {"exact": self.exact_difference, "stored": self.stored_difference, "images": self.images}


@dataclass(frozen=True)
class Given:
    """The network of a call.

    Attributes:
        name: for people.
        module: the trained network.
        network: its analysis.
        plan: what it has of the dense network that rebuilds it.
        groups: for each group of `network` the number of the same one in `plan`; None where there is none.
        record: what else is saved with it, as `runs.save` takes it.
        source: what rebuilds it, for networks that pretrim cannot build alone.
    """

    name: str
    module: nn.Module
    network: Network
    plan: Plan
    groups: tuple[int | None, ...]
    record: Mapping[str, Any] = field(default_factory=dict)
    source: ModelSource | None = None


def slim(
    source: ModelSource | Path,
    output: str | Path,
    options: SlimOptions,
    *,
    data: DataSource | None = None,
    images: DataOptions | None = None,
    model: ModelSource | None = None,
    reporter: Reporter | None = None,
) -> Slimmed:
    """Remove the dead filters of a trained network, and save it as a run; nothing is written where there are none.

    Args:
        source: a run folder, or a dense network: its name, a module, or a function that builds one.
        output: the new run folder.
        options: what to remove, and the weights of a dense network.
        data: of a dense network, so that the run knows its classes and its normalisation, and is evaluated.
        images: their shape and normalisation.
        model: what rebuilds the network of a run, where pretrim cannot build it alone.
        reporter: told of remarks.

    Raises:
        UsageError: nothing to remove was named, or options that do not fit the source.
        ModelError: a network that cannot be looked through, or whose outputs would change: nothing is written.
    """
    from pretrim.runs.folder import prepare_output

    if not options.dead:
        raise UsageError("Say what to remove: add --dead for filters that are zero, constant or read by nobody.")
    reporter, images, output = reporter or Silent(), images or DataOptions(), Path(output)
    prepare_output(output, options.overwrite)
    if _is_run(source):
        _check_for_run(options, data, images, reporter)
        given = _of_run(Path(str(source)), model, reporter)
    else:
        _check_name(source)
        given = _of_model(source, options, data, images, reporter)  # type: ignore[arg-type]  # no path is left
    return _slimmed(given, output, options.overwrite)


def _is_run(source: ModelSource | Path) -> bool:
    """A folder, or a run on the hub; names of networks are neither."""
    from .hub import is_on_hub

    return isinstance(source, str | Path) and (is_on_hub(source) or Path(source).is_dir())


def _check_name(source: ModelSource | Path) -> None:
    """Raises UsageError for a name that is neither a run's nor a model's."""
    from pretrim.models.resolve import is_model, unknown

    if isinstance(source, str | Path) and not is_model(str(source)):
        raise UsageError(unknown(str(source), "a run's folder or "))


def _check_for_run(options: SlimOptions, data: DataSource | None, images: DataOptions, reporter: Reporter) -> None:
    """Raises UsageError for options of a dense network; what a project file may add is only said to be unused."""
    for name, value in (("from", options.from_), ("classes", options.classes)):
        if value is not None:
            raise UsageError(f"A run knows its weights and its classes: leave out --{name}.")
    unused = [
        f"--{name.replace('_', '-')}" for name, value in {"data": data, **vars(images)}.items() if value is not None
    ]
    if unused:
        reporter.say(f"note: a run knows its data and its input: {', '.join(unused)} is not used")


# ---------------------------------------------------------------------------------------- the network that is given


def _of_run(path: Path, model: ModelSource | None, reporter: Reporter) -> Given:
    """The slim network of a run: its groups are those of the plan, as far as the analysis finds them again."""
    from pretrim.analysis.analyze import analyze
    from pretrim.surgery.apply import zeros_like_example

    run = open_run(path, model, reporter=reporter)
    record = run.record
    assert record is not None  # a run that was opened has one
    network = analyze(run.model, zeros_like_example(run.model, run.plan))
    places = {(group.name, group.layers, group.kept): number for number, group in enumerate(run.plan.groups)}
    found = tuple(places.get((group.name, group.layers, group.channels)) for group in network.groups)
    kept = ("reference", "classes", "normalisation", "input_shape", "data", "results", "forward")
    return Given(str(path), run.model, network, run.plan, found, {name: getattr(record, name) for name in kept}, model)


def _of_model(
    source: ModelSource, options: SlimOptions, data: DataSource | None, images: DataOptions, reporter: Reporter
) -> Given:
    """A dense network with the weights of a file, or as it was given."""
    from pretrim.models.dense import open_model
    from pretrim.models.weights import load_weights
    from pretrim.planning.search import plan_of_widths

    from .data import input_shape, open_data

    dataset, task = (None, None) if data is None else open_data(data, images, model=source, reporter=reporter)
    name = source if isinstance(source, str) else ""
    if dataset is None and not name and images.input is None:
        raise UsageError("A network of your own needs the shape of its input: add e.g. input='3x32x32'.")
    shape = dataset.input_shape if dataset is not None else input_shape(name, images.input)
    classes = options.classes if dataset is None else len(dataset.classes) or None
    dense = open_model(source, shape, classes)
    if options.from_ is not None:
        load_weights(dense.module, options.from_)
    dense.module.eval()
    plan = plan_of_widths(dense.network, dense.network.dense)
    if dense.reference is not None:
        plan = replace(plan, model=dense.reference.to_json())
    known = _by_data(dense, dataset, task) if dataset is not None and task is not None else _by_options(dense, images)
    record = {"reference": dense.reference, "input_shape": shape, "forward": dense.forward, **known}
    rebuilt_by = source if dense.reference is None or not dense.reference.trusted else None
    return Given(dense.name, dense.module, dense.network, plan, tuple(range(len(plan.groups))), record, rebuilt_by)


def _by_data(dense: DenseModel, data: DataSet, task: Task) -> dict[str, Any]:
    """What a run says that was tested on data: the outputs stay, and so does the score."""
    tested, metric = task.assess(dense.module, data.test, data.mean, data.std), task.metric
    results = {"metric": metric.to_json(), f"test_{metric.name}": tested.score, "test": tested.to_json()}
    normalisation = (data.mean, data.std)
    return {"classes": data.classes, "normalisation": normalisation, "data": data.to_json(), "results": results}


def _by_options(dense: DenseModel, images: DataOptions) -> dict[str, Any]:
    """What is known without data: outputs by their numbers, and the normalisation, if it was given."""
    from .data import normalisation

    first = dense.network.output_shapes[0]
    classes = tuple(map(str, range(first[1]))) if len(first) == 2 else None
    return {"classes": classes, "normalisation": normalisation(images.mean, images.std, dense.input_shape[0])}


# ---------------------------------------------------------------------------------------- the work


def _slimmed(given: Given, output: Path, overwrite: bool) -> Slimmed:
    from pretrim.planning.search import plan_of_widths
    from pretrim.surgery.apply import check
    from pretrim.surgery.dead import remove_dead

    network = given.network
    exact, dead = _find(given)
    before = plan_of_widths(network, network.dense, given.plan.dtype).slim
    found = Slimmed(given.name, None, len(dead.kept), dead.groups, before, before, None, None)
    if not dead.removed:
        return found
    after = plan_of_widths(network, dead.widths, given.plan.dtype)
    slim = remove_dead(given.module, network, dead)
    check(slim, network, after)
    exactly, stored = _proved(given, exact, slim, dead)
    slim.__dict__["pretrim_plan"] = _plan(given, dead, after.slim)
    run = _saved(given, slim, output, overwrite, dead.removed)
    return replace(found, run=run, after=after.slim, exact_difference=exactly, stored_difference=stored)


def _find(given: Given) -> tuple[nn.Module | None, DeadFilters]:
    """The network in double precision, where it runs in that, and its dead filters."""
    from pretrim.analysis.copies import call_model, copy_module
    from pretrim.surgery.dead import find_dead

    frozen = [number for number, place in enumerate(given.groups) if place is None]
    exact = copy_module(given.module).double().eval()
    example = _examples(given, exact)[0]
    try:
        call_model(exact, example)
    except RuntimeError:  # it makes tensors of a type of its own
        return None, find_dead(given.module, given.network, _examples(given, given.module)[0], frozen)
    return exact, find_dead(exact, given.network, example, frozen)


def _proved(given: Given, exact: nn.Module | None, slim: nn.Module, dead: DeadFilters) -> tuple[float | None, float]:
    """The differences of the outputs, exactly and as stored. Raises ModelError where one is too large."""
    import torch

    from pretrim.analysis.copies import copy_module
    from pretrim.surgery.dead import largest_difference, remove_dead

    dtype = next((p.dtype for p in slim.parameters() if p.is_floating_point()), torch.float32)
    limit = max(STORED, STEPS * torch.finfo(dtype).eps)
    difference: tuple[float | None, float]
    if exact is None:
        difference = None, largest_difference(given.module, slim, _examples(given, given.module))
    else:
        examples = _examples(given, exact)
        without = remove_dead(exact, given.network, dead)
        stored = largest_difference(exact, copy_module(slim).double(), examples)
        difference = largest_difference(exact, without, examples), stored
    for found, most in zip(difference, (EXACT, limit), strict=True):
        if found is not None and not found <= most:
            raise ModelError(
                f"Without its dead filters the network's outputs differ by {found:.1e} of the largest, more than "
                f"{most:.0e}: nothing is written. Please report it with the model."
            )
    return difference


def _examples(given: Given, model: nn.Module) -> list[Example]:
    """Random inputs as the plan describes them, in the precision of the model: of one image, then of all."""
    import torch
    from torch.utils._pytree import tree_map

    from pretrim.surgery.apply import zeros_like_example

    generator = torch.Generator().manual_seed(0)
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)

    def random(leaf: Any, images: int) -> Any:
        if not isinstance(leaf, torch.Tensor) or not leaf.is_floating_point():
            return leaf
        drawn = torch.randn((images, *leaf.shape[1:]), generator=generator, dtype=torch.float64)
        return drawn.to(leaf.device, dtype)

    zeros = zeros_like_example(model, given.plan)
    return [tree_map(lambda leaf, count=count: random(leaf, count), zeros) for count in (1, IMAGES)]


def _plan(given: Given, dead: DeadFilters, costs: Mapping[str, int]) -> Plan:
    """The plan of the dense network, with the filters that are left. What a board said of it held for more filters."""
    groups = list(given.plan.groups)
    for place, width in zip(given.groups, dead.widths, strict=True):
        if place is not None:
            groups[place] = replace(groups[place], kept=int(width))
    return replace(given.plan, groups=tuple(groups), slim=dict(costs), device=None, outlook=None)


def _saved(given: Given, slim: nn.Module, output: Path, overwrite: bool, removed: int) -> Run:
    """The run, opened again as any run is; a folder that cannot be is removed."""
    from pretrim.runs.save import save
    from pretrim.surgery.dead import largest_difference

    record = dict(given.record)
    results = {**(record.pop("results", None) or {}), "dead_filters_removed": removed}
    save(slim, output, **record, results=results, overwrite=overwrite)
    try:
        run = open_run(output, given.source)
        apart = largest_difference(slim, run.model, _examples(given, slim))
    except PretrimError:
        shutil.rmtree(output, ignore_errors=True)
        raise
    if apart:
        shutil.rmtree(output, ignore_errors=True)
        raise ModelError("The saved network does not compute what was saved: please report it with the model.")
    return run
