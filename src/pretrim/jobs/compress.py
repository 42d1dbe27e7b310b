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
    """Trim a network to its limits, train it, save it, and export it if a runtime or board was named.

    Under ``torchrun`` every process calls this; only the main one writes.

    Args:
        model: name, module, or function that builds one.
        data: name, folder, or data sets; None: the task's own data.
        output: the new run folder.
        options: limits, target, and everything else.
        reporter: receives remarks and progress.

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
    """One call of `compress`: the constructor checks everything before anything is written, `run` does the work."""

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
        self.user_plan, self.target = check_options(data, options)
        self.seed = options.search.options().seed
        name, fine_tunes = _name_of(data), job.from_ is not None
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
            data, options.data, model=model, plan=self.user_plan, seed=self.seed, reporter=reporter
        )
        count = len(self.data.train)
        self.recipe: Recipe = recipe_of(name, options.training, self.seed, images=count, fine_tune=fine_tunes)
        self.dense = self._open(model)
        self.task.check(self.dense.module, self.data)
        self.task.objective(self.recipe, self.data, torch.device("cpu"), None)  # raises for unsupported recipes
        plan = self.user_plan or plan_for(self.dense, self.target, options.search, reporter)
        plan = check_plan(plan, self.dense)
        if self.target.is_microcontroller:  # deterministic: all processes, and resumed trainings, get the same plan
            plan = fitted(plan, self.dense, self.target, None if self.user_plan else options.search, reporter)
        self.plan: Plan = plan
        reporter.planned(self.plan)

    def _open(self, model: ModelSource) -> DenseModel:
        from pretrim.models.dense import open_model

        return open_model(model, self.data.input_shape, len(self.data.classes) or None, self.seed)

    def run(self) -> Run:
        """Train, save and export. Every process runs this; only the main one writes."""
        import torch

        from pretrim.models.weights import load_weights
        from pretrim.runs.record import STATE, TRACKING
        from pretrim.surgery.apply import apply
        from pretrim.train import is_main, make_accelerator

        weights_file, trackers = self.options.job.from_, self.options.machine.tracker
        weights = load_weights(self.dense.module, weights_file) if weights_file is not None else ""
        teacher = self._teacher()
        torch.manual_seed(self.seed)
        init = "inherit" if weights_file is not None else "fresh"
        slim = apply(self.dense.module, self.plan, init, self.dense.network)
        if self.plan.slim == self.plan.dense:
            self.reporter.say("note: the plan removes nothing")
        results: dict[str, Any] = {}
        with ExitStack() as stack:
            if is_main():
                self._enter(stack, self.output)
            accelerator = make_accelerator(self.execution.device, trackers, self.output / TRACKING)
            if trackers:
                accelerator.init_trackers("pretrim", config=_tracker_config(asdict(self.recipe)))
            if weights_file is not None:
                results["inherited"] = self._inherited(slim, weights_file)
            results |= self._train("slim", slim, self.plan, self.output, teacher, weights, accelerator)
            if self.options.job.dense:
                results["dense"] = self._dense(stack, weights, accelerator)
            self._save(slim, self.output, {**results, "asked": self.asked})
        if is_main():  # only now that everything is saved, so that the training state is no longer needed
            for folder in (self.dense_folder, self.output):
                (folder / STATE).unlink(missing_ok=True)
        accelerator.end_training()
        return self._finished(slim)

    @property
    def dense_folder(self) -> Path:
        """Folder of the dense network's run, inside that of the slim one."""
        from pretrim.runs.record import DENSE

        return self.output / DENSE

    def _enter(self, stack: ExitStack, folder: Path) -> None:
        from pretrim.runs.folder import output_folder

        job = self.options.job
        self.locks.append(stack.enter_context(output_folder(folder, overwrite=job.overwrite, resume=job.resume)))

    def _dense(self, stack: ExitStack, weights: str, accelerator: Accelerator) -> dict[str, Any]:
        """Train and save the dense network too, as a run of its own; return its results."""
        from pretrim.planning.search import plan_of_widths
        from pretrim.surgery.apply import apply
        from pretrim.train import is_main

        network = self.dense.network
        dense_plan = replace(plan_of_widths(network, network.dense, self.plan.dtype), model=self.plan.model)
        module = apply(self.dense.module, dense_plan, "inherit", network)
        if is_main():
            self._enter(stack, self.dense_folder)
        results = self._train("dense", module, dense_plan, self.dense_folder, None, weights, accelerator)
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
        """Train one network in its folder; return its results as plain JSON."""
        from pretrim.runs.training import TrainingSpec, digest, train_into

        spec: TrainingSpec = TrainingSpec(
            recipe=self.recipe,
            execution=self.execution,
            title=f"{self.dense.name}, {name}, on {self.data.name}",
            teacher=teacher,
            made_of={"weights": weights, **_search_settings(plan), "plan": digest(plan), "network": self.dense.forward},
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
        """Wrap the step callback: first raise an error if another training has taken over the folder."""

        def checked_step(progress: Progress) -> None:
            for lock in self.locks:
                lock.check()
            on_step(progress)

        return checked_step

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
        """Load the network of another run as teacher, if it fits this job's data."""
        path = self.options.job.teacher
        if path is None:
            return None
        from pretrim.runs.classifier import open_classifier
        from pretrim.runs.load import read
        from pretrim.train import Teacher

        reference, own = read(path).reference, self.dense.reference
        # The user named this file as MODEL, so it may also be executed to rebuild the teacher.
        rebuilt_by = own.name if None not in (reference, own) and reference.name == own.name else None  # type: ignore[union-attr]
        teacher = open_classifier(path, rebuilt_by)
        if teacher.classes != self.data.classes or teacher.input_shape != self.data.input_shape:
            expected, actual = ("x".join(map(str, shape)) for shape in (self.data.input_shape, teacher.input_shape))
            raise UsageError(
                f"Expected a teacher for the same classes and images of {expected}, but {path} has "
                f"{len(teacher.classes)} classes and images of {actual}."
            )
        if teacher.record.as_given != self.data.as_given:
            kinds = {True: "float tensors as they were", False: "pixels"}
            raise UsageError(
                f"Expected a teacher that was trained on {kinds[self.data.as_given]}, as these data are, but {path} "
                f"was trained on {kinds[teacher.record.as_given]}."
            )
        return Teacher(teacher.network, *teacher.normalisation, name=teacher.record.weights_sha256)

    def _inherited(self, slim: nn.Module, file: Path) -> dict[str, Any]:
        """Evaluate the pretrained network before and after it is cut, without any fine-tuning."""
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
        """Return the run, exported if a runtime was named."""
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
    """Check the options before any long computation; return the user's plan, if given, and the target.

    Args:
        data: name, folder, or data sets; None: the task's own data.
        options: all options of the call.

    Raises UsageError for options that are wrong whatever the data and the model are.
    """
    job = options.job
    if job.worst < 0:
        raise UsageError(f"Expected --worst to be 0 or more images, but got {job.worst}.")
    plan = _user_plan(options)
    target = _target_of(options, plan)
    if job.resume and job.overwrite:
        raise UsageError("--resume continues a training, --overwrite starts over: give one of them.")
    recipe_of(_name_of(data), options.training, options.search.options().seed, fine_tune=job.from_ is not None)
    return plan, target


def _name_of(data: DataSource | None) -> str:
    return str(data) if isinstance(data, str | Path) else ""


def _user_plan(options: CompressOptions) -> Plan | None:
    """Load the plan of ``--plan``, if any. Raises UsageError if limits or search options are given as well."""
    from pretrim.planning.plan import Plan

    if options.job.plan is None:
        return None
    limits = options.limits.given()
    if limits:
        raise UsageError(f"Expected limits or --plan, but got both: leave out --{next(iter(limits))} or --plan.")
    search_changes = [name for name in options.search.changes() if name != "seed"]  # the training uses the seed too
    if search_changes:
        option = f"--{search_changes[0].replace('_', '-')}"
        raise UsageError(f"Expected a plan or options to make one with, but got both: leave out {option} or --plan.")
    return Plan.load(options.job.plan)


def _target_of(options: CompressOptions, plan: Plan | None) -> Target:
    """Find the target, checked as far as possible without the model."""
    if plan is None:
        target = find_target(options.target, options.limits.given(), options.search)
        check_before_analysis(target, options.search)
        return target
    limits = {name: text for name, text in plan.limits.items() if name != "latency_ns"}  # measured for the plan
    return find_target(_with_plan_dtype(plan, options.target), limits, options.search)


def _with_plan_dtype(plan: Plan, options: TargetOptions) -> TargetOptions:
    """Set the options' data type to the plan's, if its limits depend on it, so that the exported file matches them.

    Raises UsageError if the user or the board requires another data type.
    """
    from pretrim.cost.quantities import quantities

    units = {quantities()[name].unit for name in plan.limits if name in quantities()}
    if not units & {"bytes", "ns"}:
        return options
    is_open = options.int8 is None and options.dtype is None
    is_micro = options.device is not None and board(options.device).kind == "microcontroller"
    if is_open and not is_micro:
        return replace(options, dtype=plan.dtype)
    dtype = data_type_of(options)
    if dtype != plan.dtype:
        raise UsageError(
            f"Expected a plan whose limits are counted in {dtype}, which is exported, but it counts in {plan.dtype}: "
            f"add --dtype {plan.dtype}, or make the plan again for this target."
        )
    return options


def _search_settings(plan: Plan) -> dict[str, Any]:
    """Return the limits and search options of a plan, so that resuming with another plan can report the differences."""
    from pretrim.cost.quantities import quantities
    from pretrim.planning.budget import Limit

    limits = {
        quantity.option: Limit.parse(quantity.option, plan.limits[name])
        for name, quantity in quantities().items()
        if name in plan.limits
    }
    limit_texts = {f"limit on {name}": f"{limit.amount:.15g}{'x' * limit.is_share}" for name, limit in limits.items()}
    return {**limit_texts, "search": plan.to_json()["options"]}


def _tracker_config(config: dict[str, Any]) -> dict[str, Any]:
    """Convert a configuration for trackers, which do not accept None."""
    return {name: str(value) if value is None else value for name, value in config.items()}
