"""Removes what a trained network does not use, without changing its outputs, and verifies that."""

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
"""Number of random images that both networks are compared on"""
MAX_EXACT_DIFFERENCE = 1e-12
"""Largest difference in double precision, as a share of the largest output"""
MAX_STORED_DIFFERENCE = 1e-6
"""Like `MAX_EXACT_DIFFERENCE`, for the network as stored: constants were added to its biases in its own precision"""
MAX_ULPS = 8
"""Largest difference in units in the last place, for data types less precise than float32"""


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
    """The result of removing dead filters.

    Attributes:
        name: display name of the network.
        run: the new run; None if no filter was dead, so that nothing was written.
        channels: number of removable filters; filters that are coupled across layers count once.
        groups: for each channel group with dead or constant filters, which were removed and which were kept.
        before: the five costs of the original network.
        after: the five costs of the new network.
        exact_difference: largest difference of the outputs in double precision, as a share of the largest output; None
            if the network does not run in double precision, or if there is no new network.
        stored_difference: the same for the network as stored; None if there is no new network.
        images: number of random images that both networks were compared on.
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
        """Number of channels removed."""
        return sum(group.removed for group in self.groups)

    def to_json(self) -> dict[str, Any]:
        """Return the output of `pretrim slim --json`."""
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
class TrainedNetwork:
    """The trained network to slim.

    Attributes:
        name: display name of the network.
        module: the trained network.
        network: its analysis.
        plan: its widths relative to the dense network from which it is rebuilt.
        groups: for each group of `network`, the index of the same group in `plan`; None if there is none.
        record: further keywords of `runs.save`.
        source: how to rebuild networks that pretrim cannot rebuild by itself.
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
    """Remove the dead filters of a trained network, and save it as a run; nothing is written if there are none.

    Args:
        source: a run folder, or a dense network: its name, a module, or a function that builds one.
        output: the new run folder.
        options: what to remove, and the weights of a dense network.
        data: data of a dense network, so that the run has classes, normalisation and an evaluation.
        images: shape and normalisation of the images.
        model: how to rebuild the network of a run that pretrim cannot rebuild by itself.
        reporter: receives remarks.

    Raises:
        UsageError: nothing to remove was named, or options that do not fit the source.
        ModelError: a network that cannot be analysed, or whose outputs would change; nothing is written.
    """
    from pretrim.runs.folder import prepare_output

    if not options.dead:
        raise UsageError("Say what to remove: add --dead for filters that are zero, constant or read by nobody.")
    reporter, images, output = reporter or Silent(), images or DataOptions(), Path(output)
    prepare_output(output, options.overwrite)
    if _is_run(source):
        _check_for_run(options, data, images, reporter)
        trained = _input_of_run(Path(str(source)), model, reporter)
    else:
        _check_name(source)
        trained = _input_of_model(source, options, data, images, reporter)  # type: ignore[arg-type]  # no path is left
    return _slim(trained, output, options.overwrite)


def _is_run(source: ModelSource | Path) -> bool:
    """Whether the source is a run folder or a run on the hub, rather than a network."""
    from .hub import is_on_hub

    return isinstance(source, str | Path) and (is_on_hub(source) or Path(source).is_dir())


def _check_name(source: ModelSource | Path) -> None:
    """Raise UsageError for a name that is neither a run nor a model."""
    from pretrim.models.resolve import is_model, unknown

    if isinstance(source, str | Path) and not is_model(str(source)):
        raise UsageError(unknown(str(source), "a run's folder or "))


def _check_for_run(options: SlimOptions, data: DataSource | None, images: DataOptions, reporter: Reporter) -> None:
    """Raise UsageError for options of dense networks; for those that a project file may set, only note that they are
    unused."""
    for name, value in (("from", options.from_), ("classes", options.classes)):
        if value is not None:
            raise UsageError(f"A run knows its weights and its classes: leave out --{name}.")
    unused = [
        f"--{name.replace('_', '-')}" for name, value in {"data": data, **vars(images)}.items() if value is not None
    ]
    if unused:
        reporter.say(f"note: a run knows its data and its input: {', '.join(unused)} is not used")


# ---------------------------------------------------------------------------------------- the input network


def _input_of_run(path: Path, model: ModelSource | None, reporter: Reporter) -> TrainedNetwork:
    """Open the slim network of a run; its groups are matched with the plan's where the analysis finds them again."""
    from pretrim.analysis.analyze import analyze
    from pretrim.surgery.apply import zeros_like_example

    run = open_run(path, model, reporter=reporter)
    record = run.record
    assert record is not None  # opened runs always have one
    network = analyze(run.model, zeros_like_example(run.model, run.plan))
    numbers = {(group.name, group.layers, group.kept): number for number, group in enumerate(run.plan.groups)}
    groups = tuple(numbers.get((group.name, group.layers, group.channels)) for group in network.groups)
    names = ("reference", "classes", "normalisation", "input_shape", "data", "results", "forward")
    return TrainedNetwork(
        str(path), run.model, network, run.plan, groups, {name: getattr(record, name) for name in names}, model
    )


def _input_of_model(
    source: ModelSource, options: SlimOptions, data: DataSource | None, images: DataOptions, reporter: Reporter
) -> TrainedNetwork:
    """Open a dense network, with the weights of a file if one was given."""
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
    known = (
        _record_with_data(dense, dataset, task)
        if dataset is not None and task is not None
        else _record_without_data(dense, images)
    )
    record = {"reference": dense.reference, "input_shape": shape, "forward": dense.forward, **known}
    rebuilt_by = source if dense.reference is None or not dense.reference.trusted else None
    return TrainedNetwork(
        dense.name, dense.module, dense.network, plan, tuple(range(len(plan.groups))), record, rebuilt_by
    )


def _record_with_data(dense: DenseModel, data: DataSet, task: Task) -> dict[str, Any]:
    """Make the record of a run with data; evaluating the original network suffices, as the outputs do not change."""
    evaluation, metric = task.assess(dense.module, data.test, data.mean, data.std), task.metric
    results = {"metric": metric.to_json(), f"test_{metric.name}": evaluation.score, "test": evaluation.to_json()}
    normalisation = (data.mean, data.std)
    return {"classes": data.classes, "normalisation": normalisation, "data": data.to_json(), "results": results}


def _record_without_data(dense: DenseModel, images: DataOptions) -> dict[str, Any]:
    """Make the record of a run without data: outputs are named by index; the normalisation only if it was given."""
    from .data import normalisation

    output_shape = dense.network.output_shapes[0]
    classes = tuple(map(str, range(output_shape[1]))) if len(output_shape) == 2 else None
    return {"classes": classes, "normalisation": normalisation(images.mean, images.std, dense.input_shape[0])}


# ---------------------------------------------------------------------------------------- removal


def _slim(trained: TrainedNetwork, output: Path, overwrite: bool) -> Slimmed:
    from pretrim.planning.search import plan_of_widths
    from pretrim.surgery.apply import check
    from pretrim.surgery.dead import remove_dead

    network = trained.network
    exact, dead = _find_dead_filters(trained)
    before = plan_of_widths(network, network.dense, trained.plan.dtype).slim
    result = Slimmed(trained.name, None, len(dead.kept), dead.groups, before, before, None, None)
    if not dead.removed:
        return result
    after = plan_of_widths(network, dead.widths, trained.plan.dtype)
    slim = remove_dead(trained.module, network, dead)
    check(slim, network, after)
    exactly, stored = _check_outputs(trained, exact, slim, dead)
    slim.__dict__["pretrim_plan"] = _updated_plan(trained, dead, after.slim)
    run = _save(trained, slim, output, overwrite, dead.removed)
    return replace(result, run=run, after=after.slim, exact_difference=exactly, stored_difference=stored)


def _find_dead_filters(trained: TrainedNetwork) -> tuple[nn.Module | None, DeadFilters]:
    """Find the dead filters; also return the network in double precision, or None if it does not run in it."""
    from pretrim.analysis.copies import call_model, copy_module
    from pretrim.surgery.dead import find_dead

    frozen = [number for number, place in enumerate(trained.groups) if place is None]
    exact = copy_module(trained.module).double().eval()
    example = _examples(trained, exact)[0]
    try:
        call_model(exact, example)
    except RuntimeError:  # it fixes a data type
        return None, find_dead(trained.module, trained.network, _examples(trained, trained.module)[0], frozen)
    return exact, find_dead(exact, trained.network, example, frozen)


def _check_outputs(
    trained: TrainedNetwork, exact: nn.Module | None, slim: nn.Module, dead: DeadFilters
) -> tuple[float | None, float]:
    """Measure the differences of the outputs, in double precision and as stored. Raises ModelError if too large."""
    import torch

    from pretrim.analysis.copies import copy_module
    from pretrim.surgery.dead import largest_difference, remove_dead

    dtype = next((p.dtype for p in slim.parameters() if p.is_floating_point()), torch.float32)
    stored_limit = max(MAX_STORED_DIFFERENCE, MAX_ULPS * torch.finfo(dtype).eps)
    differences: tuple[float | None, float]
    if exact is None:
        differences = None, largest_difference(trained.module, slim, _examples(trained, trained.module))
    else:
        examples = _examples(trained, exact)
        exact_slim = remove_dead(exact, trained.network, dead)
        stored = largest_difference(exact, copy_module(slim).double(), examples)
        differences = largest_difference(exact, exact_slim, examples), stored
    for value, maximum in zip(differences, (MAX_EXACT_DIFFERENCE, stored_limit), strict=True):
        if value is not None and not value <= maximum:
            raise ModelError(
                f"Without its dead filters the network's outputs differ by {value:.1e} of the largest, more than "
                f"{maximum:.0e}: nothing is written. Please report it with the model."
            )
    return differences


def _examples(trained: TrainedNetwork, model: nn.Module) -> list[Example]:
    """Make random inputs as the plan describes them, in the model's precision: one image, then `IMAGES` images."""
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

    zeros = zeros_like_example(model, trained.plan)
    return [tree_map(lambda leaf, count=count: random(leaf, count), zeros) for count in (1, IMAGES)]


def _updated_plan(trained: TrainedNetwork, dead: DeadFilters, costs: Mapping[str, int]) -> Plan:
    """Update the plan to the remaining filters. Board figures are dropped, as they hold for the old widths."""
    groups = list(trained.plan.groups)
    for place, width in zip(trained.groups, dead.widths, strict=True):
        if place is not None:
            groups[place] = replace(groups[place], kept=int(width))
    return replace(trained.plan, groups=tuple(groups), slim=dict(costs), device=None, outlook=None)


def _save(trained: TrainedNetwork, slim: nn.Module, output: Path, overwrite: bool, removed: int) -> Run:
    """Save the run and open it again like any other; remove the folder if that fails or the outputs differ."""
    from pretrim.runs.save import save
    from pretrim.surgery.dead import largest_difference

    record = dict(trained.record)
    results = {**(record.pop("results", None) or {}), "dead_filters_removed": removed}
    save(slim, output, **record, results=results, overwrite=overwrite)
    try:
        run = open_run(output, trained.source)
        difference = largest_difference(slim, run.model, _examples(trained, slim))
    except PretrimError:
        shutil.rmtree(output, ignore_errors=True)
        raise
    if difference:
        shutil.rmtree(output, ignore_errors=True)
        raise ModelError("The saved network does not compute what was saved: please report it with the model.")
    return run
