"""The main job: plan, build, train and evaluate a slim network, save it, and export it for its target."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretrim.devices import board
from pretrim.errors import UsageError

from .asked import asked_of
from .data import DataSource, open_data
from .fit import fitted
from .options import CompressOptions as CompressOptions
from .options import TargetOptions
from .plan import check_before_analysis, check_plan, plan_for
from .recipe import execution_of, note_threads, recipe_of
from .reporter import Reporter, Silent
from .run import Run
from .target import Target, data_type_of, find_target

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import nn

    from pretrim.data import DataSet
    from pretrim.models.dense import DenseModel, ModelSource
    from pretrim.planning.plan import Plan
    from pretrim.runs.lock import Lock
    from pretrim.runs.training import Hooks, Trained, TrainingSpec
    from pretrim.train import EpochRecord, Execution, ExecutionChoice, Progress, Recipe, Teacher


def compress(
    model: ModelSource,
    data: DataSource | None,
    output: str | Path,
    options: CompressOptions | None = None,
    reporter: Reporter | None = None,
) -> Run:
    """Trim a network to its limits, train it, save it, and export it where a runtime or board was named.

    Under ``torchrun`` every process calls it; the main one writes.

    Args:
        model: name, module, or function that builds one.
        data: name, folder, or data sets; None: those of the task.
        output: the new run folder.
        options: limits, target, and everything else.
        reporter: told of remarks and progress.

    Raises:
        UsageError: options that contradict each other or the model; nothing was written.
        InfeasibleBudget: no network meets a limit.
        PretrimError: the training failed; its state stays in the folder, for ``resume``.
    """
    from .smallest import compress_within

    options, reporter, output = options or CompressOptions(), reporter or Silent(), Path(output)
    goal = options.goal.goal()
    if goal is not None:
        return compress_within(model, data, output, options, goal, reporter)
    job = _Job(model, data, output, options, reporter)
    return job.run()


class _Job:
    """One call of `compress`: first all that can be wrong before anything is written, then the work."""

    def __init__(
        self, model: ModelSource, data: DataSource | None, output: Path, options: CompressOptions, reporter: Reporter
    ) -> None:
        import torch

        from pretrim.models.dense import check_name
        from pretrim.runs.folder import is_finished, prepare_output
        from pretrim.runs.lock import check_free
        from pretrim.train import is_main

        self.options, self.output, self.reporter = options, output, reporter
        self.locks: list[Lock] = []
        self.asked = asked_of(model, data, options)
        job = options.job
        self.given, self.target = check_options(data, options)
        self.seed = options.search.options().seed
        name, inherits = _name_of(data), job.from_ is not None
        self.execution: Execution = execution_of(options.machine)
        note_threads(options.machine.threads, reporter)
        check_name(model)
        if is_main():
            check_free(output, output)
        if job.resume and is_finished(output):
            raise UsageError(f"The run in {output} is finished, there is nothing to resume: evaluate it.")
        if is_main():
            prepare_output(output, job.overwrite, job.resume)
        self.data: DataSet
        self.data, self.task = open_data(
            data, options.data, model=model, plan=self.given, seed=self.seed, reporter=reporter
        )
        count = len(self.data.train)
        self.recipe: Recipe = recipe_of(name, options.training, self.seed, images=count, fine_tune=inherits)
        self.dense = self._open(model)
        self.task.check(self.dense.module, self.data)
        self.task.objective(self.recipe, self.data, torch.device("cpu"), None)  # says what the recipe may not ask
        made = self.given or plan_for(self.dense, self.target, options.search, reporter)
        made = check_plan(made, self.dense)
        if self.target.is_microcontroller:  # in every process, and when resumed: the same plan
            made = fitted(made, self.dense, self.target, None if self.given else options.search, reporter)
        self.plan: Plan = made
        reporter.planned(self.plan)

    def _open(self, model: ModelSource) -> DenseModel:
        from pretrim.models.dense import open_model

        return open_model(model, self.data.input_shape, len(self.data.classes) or None, self.seed)

    def run(self) -> Run:
        """Train, save, export. Every process does it; the main one writes."""
        import torch

        from pretrim.models.weights import load_weights
        from pretrim.runs.record import STATE, TRACKING
        from pretrim.surgery.apply import apply
        from pretrim.train import is_main, make_accelerator

        inherit, trackers = self.options.job.from_, self.options.machine.tracker
        weights = load_weights(self.dense.module, inherit) if inherit is not None else ""
        teacher = self._teacher()
        torch.manual_seed(self.seed)
        init = "inherit" if inherit is not None else "fresh"
        slim = apply(self.dense.module, self.plan, init, self.dense.network)
        if self.plan.slim == self.plan.dense:
            self.reporter.say("note: the plan removes nothing")
        results: dict[str, Any] = {}
        with ExitStack() as stack:
            if is_main():
                self._enter(stack, self.output)
            accelerator = make_accelerator(self.execution.device, trackers, self.output / TRACKING)
            if trackers:
                accelerator.init_trackers("pretrim", config=_flat(asdict(self.recipe)))
            if inherit is not None:
                results["inherited"] = self._inherited(slim, inherit)
            results |= self._train("slim", slim, self.plan, self.output, teacher, weights, accelerator)
            if self.options.job.dense:
                results["dense"] = self._dense(stack, weights, accelerator)
            self._save(slim, self.output, {**results, "asked": self.asked})
        if is_main():  # only now: what is saved needs no state to be made again
            for folder in (self.dense_folder, self.output):
                (folder / STATE).unlink(missing_ok=True)
        accelerator.end_training()
        return self._finished(slim)

    @property
    def dense_folder(self) -> Path:
        """The run of the dense network, inside the slim one's."""
        from pretrim.runs.record import DENSE

        return self.output / DENSE

    def _enter(self, stack: ExitStack, folder: Path) -> None:
        from pretrim.runs.folder import output_folder

        job = self.options.job
        self.locks.append(stack.enter_context(output_folder(folder, overwrite=job.overwrite, resume=job.resume)))

    def _dense(self, stack: ExitStack, weights: str, accelerator: Accelerator) -> dict[str, Any]:
        """The dense network trained too, as a run like any other."""
        from pretrim.planning.search import plan_of_widths
        from pretrim.surgery.apply import apply
        from pretrim.train import is_main

        network = self.dense.network
        whole = replace(plan_of_widths(network, network.dense, self.plan.dtype), model=self.plan.model)
        module = apply(self.dense.module, whole, "inherit", network)
        if is_main():
            self._enter(stack, self.dense_folder)
        results = self._train("dense", module, whole, self.dense_folder, None, weights, accelerator)
        self._save(module, self.dense_folder, results)
        return results

    def _train(
        self,
        name: str,
        model: nn.Module,
        plan: Plan,
        folder: Path,
        teacher: Teacher | None,
        weights: str,
        accelerator: Accelerator,
    ) -> dict[str, Any]:
        """Train one network in its folder; its results, as plain JSON."""
        from pretrim.runs.training import TrainingSpec, digest, train_into

        spec: TrainingSpec = TrainingSpec(
            recipe=self.recipe,
            execution=self.execution,
            title=f"{self.dense.name}, {name}, on {self.data.name}",
            teacher=teacher,
            made_of={"weights": weights, **_searched(plan), "plan": digest(plan), "network": self.dense.forward},
            resume=self.options.job.resume,
            worst=self.options.job.worst,
            task=self.task,
        )
        with self.reporter.training(name) as on_step:
            hooks = self._hooks(name, self._watched(on_step), accelerator)
            trained: Trained = train_into(folder, model, self.data, spec, hooks, accelerator)
        for warning in trained.training.warnings:
            self.reporter.say(f"warning, {name}: {warning}")
        return {"recipe": asdict(self.recipe), **trained.to_json()}

    def _watched(self, on_step: Callable[[Progress], None]) -> Callable[[Progress], None]:
        """Tell of each step, and stop where another training took the folder over."""

        def watched(progress: Progress) -> None:
            for lock in self.locks:
                lock.check()
            on_step(progress)

        return watched

    def _hooks(self, name: str, on_step: Any, accelerator: Accelerator) -> Hooks:
        from pretrim.runs.training import Hooks
        from pretrim.train import track

        def on_start(choice: ExecutionChoice) -> None:
            timed = "; ".join(f"{label} {speed:,.0f} images/s" for label, speed in choice.speeds.items())
            self.reporter.say(
                f"training, {name}: {self.recipe}; {choice.execution}{f' (timed: {timed})' if timed else ''}"
            )

        def on_epoch(records: tuple[EpochRecord, ...]) -> None:
            if self.options.machine.tracker:
                track(accelerator, name, records[-1])

        return Hooks(on_start=on_start, on_step=on_step, on_epoch=on_epoch)

    def _teacher(self) -> Teacher | None:
        """The network of another run, if it can teach this one."""
        path = self.options.job.teacher
        if path is None:
            return None
        from pretrim.runs.classifier import open_classifier
        from pretrim.runs.load import read
        from pretrim.train import Teacher

        reference, ours = read(path).reference, self.dense.reference
        # The user named this file as MODEL, so the same file may be run for the teacher.
        named = ours.name if None not in (reference, ours) and reference.name == ours.name else None  # type: ignore[union-attr]
        opened = open_classifier(path, named)
        if opened.classes != self.data.classes or opened.input_shape != self.data.input_shape:
            wanted, got = ("x".join(map(str, shape)) for shape in (self.data.input_shape, opened.input_shape))
            raise UsageError(
                f"Expected a teacher for the same classes and images of {wanted}, but {path} has "
                f"{len(opened.classes)} classes and images of {got}."
            )
        if opened.record.as_given != self.data.as_given:
            kinds = {True: "float tensors as they were", False: "pixels"}
            raise UsageError(
                f"Expected a teacher that was trained on {kinds[self.data.as_given]}, as these data are, but {path} "
                f"was trained on {kinds[opened.record.as_given]}."
            )
        return Teacher(opened.network, *opened.normalisation, name=opened.record.weights_sha256)

    def _inherited(self, slim: nn.Module, file: Path) -> dict[str, Any]:
        """How accurate the trained network is, and what is left of that once it is cut, before it is fine-tuned."""
        from pretrim.train import recalibrate

        data, metric = self.data, self.task.metric
        recalibrate(slim, data)
        dense, cut = (self.task.assess(model, data.test, data.mean, data.std) for model in (self.dense.module, slim))
        self.reporter.say(
            f"inherited: test {metric.title} {metric.show(dense.score, 2)} dense, "
            f"{metric.show(cut.score, 2)} cut and recalibrated"
        )
        return {
            "file": str(file),
            f"dense_test_{metric.name}": dense.score,
            f"cut_test_{metric.name}": cut.score,
            "dense_test": dense.to_json(),
        }

    def _save(self, model: nn.Module, folder: Path, results: dict[str, Any]) -> None:
        from pretrim.runs.training import save_trained

        save_trained(folder, model, self.data, self.dense, results)

    def _finished(self, slim: nn.Module) -> Run:
        """The run, exported where a runtime was named."""
        from pretrim.train import is_main

        from .run import Run

        if not is_main():
            return Run(self.output, slim, None, self.data, task=self.task)
        run = Run.opened(self.output, slim, self.data, self.task)
        if self.target.runtime is None:
            return run
        from .export import deliver

        return replace(run, artifact=deliver(run, self.target, self.reporter))


def check_options(data: DataSource | None, options: CompressOptions) -> tuple[Plan | None, Target]:
    """What is wrong with the options is said before long work; the plan that was given, and the target.

    Args:
        data: name, folder, or data sets; None: those of the task.
        options: all of them.

    Raises UsageError for what cannot be, whatever the data and the model are.
    """
    job = options.job
    if job.worst < 0:
        raise UsageError(f"Expected --worst to be 0 or more images, but got {job.worst}.")
    given = _given_plan(options)
    target = _target_of(options, given)
    if job.resume and job.overwrite:
        raise UsageError("--resume continues a training, --overwrite starts anew: give one of them.")
    recipe_of(_name_of(data), options.training, options.search.options().seed, fine_tune=job.from_ is not None)
    return given, target


def _name_of(data: DataSource | None) -> str:
    return str(data) if isinstance(data, str | Path) else ""


def _given_plan(options: CompressOptions) -> Plan | None:
    """The plan of ``--plan``. Raises UsageError where limits or options of a search are given as well."""
    from pretrim.planning.plan import Plan

    if options.job.plan is None:
        return None
    limits = options.limits.given()
    if limits:
        raise UsageError(f"Expected limits or --plan, but got both: leave out --{next(iter(limits))} or --plan.")
    changed = [name for name in options.search.changes() if name != "seed"]  # that is of the training as well
    if changed:
        option = f"--{changed[0].replace('_', '-')}"
        raise UsageError(f"Expected a plan or how to draw one, but got both: leave out {option} or --plan.")
    return Plan.load(options.job.plan)


def _target_of(options: CompressOptions, given: Plan | None) -> Target:
    """The target, checked as far as that goes without the model."""
    if given is None:
        target = find_target(options.target, options.limits.given(), options.search)
        check_before_analysis(target, options.search)
        return target
    kept = {name: text for name, text in given.limits.items() if name != "latency_ns"}  # it was measured for the plan
    return find_target(_in_type_of(given, options.target), kept, options.search)


def _in_type_of(given: Plan, asked: TargetOptions) -> TargetOptions:
    """The options with the data type of a plan whose limits depend on it, so that its file has the one they count in.

    Raises UsageError where another one is asked for, or is the board's.
    """
    from pretrim.cost.quantities import quantities

    limited = {quantities()[name].unit for name in given.limits if name in quantities()}
    if not limited & {"bytes", "ns"}:
        return asked
    is_open = asked.int8 is None and asked.dtype is None
    micro = asked.device is not None and board(asked.device).kind == "microcontroller"
    if is_open and not micro:
        return replace(asked, dtype=given.dtype)
    dtype = data_type_of(asked)
    if dtype != given.dtype:
        raise UsageError(
            f"Expected a plan whose limits are counted in {dtype}, which is exported, but it counts in {given.dtype}: "
            f"add --dtype {given.dtype}, or make the plan again for this target."
        )
    return asked


def _searched(plan: Plan) -> dict[str, Any]:
    """What a plan was searched by, so that a training that goes on with another one can say what differs."""
    from pretrim.cost.quantities import quantities
    from pretrim.planning.budget import Limit

    limits = {
        quantity.option: Limit.parse(quantity.option, plan.limits[name])
        for name, quantity in quantities().items()
        if name in plan.limits
    }
    shown = {f"limit on {name}": f"{limit.amount:.15g}{'x' * limit.is_share}" for name, limit in limits.items()}
    return {**shown, "search": plan.to_json()["options"]}


def _flat(config: dict[str, Any]) -> dict[str, Any]:
    """What trackers take: no None."""
    return {name: str(value) if value is None else value for name, value in config.items()}
