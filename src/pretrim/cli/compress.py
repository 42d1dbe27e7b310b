"""`pretrim compress`: the main job. Plan, build, train and evaluate a slim network, and save it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pretrim.errors import PlanError, UsageError

from . import options, render
from .delivery import deliver, find_delivery
from .progress import say
from .subject import open_model, without_none
from .target import Target, find_target, plan_for
from .timing import find_timing, measured

if TYPE_CHECKING:
    from pretrim.data import DataSet
    from pretrim.planning.plan import Plan
    from pretrim.train import Execution, Recipe

    from .subject import Subject


def compress(
    model: options.Model,
    data: options.Data,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="RUN", help="The new folder to save in.")],
    params: options.Params = None,
    macs: options.Macs = None,
    flash: options.Flash = None,
    ram: options.Ram = None,
    activation: options.Activation = None,
    latency: options.Latency = None,
    plan: Annotated[
        Path | None, typer.Option("--plan", help="A plan to apply, instead of limits.", show_default=False)
    ] = None,
    input: options.InputOfData = None,
    device: options.Device = None,
    application: options.Application = None,
    ssh: options.Ssh = None,
    remote_python: options.RemotePython = "python3",
    ssh_config: options.SshConfig = None,
    estimate: options.Estimate = False,
    to: options.To = None,
    int8: options.Int8 = None,
    mode: options.Mode = "joint",
    dtype: options.DTypeOption = None,
    step: options.Step = "fraction",
    fraction: options.Fraction = 0.05,
    share_update: options.ShareUpdate = "static",
    coupling: options.Coupling = "sum",
    round_to: options.RoundTo = None,
    min_width: options.MinWidth = 1,
    min_features: options.MinFeatures = None,
    draws: options.Draws = None,
    seed: options.Seed = 0,
    epochs: options.Epochs = None,
    batch_size: options.BatchSize = None,
    lr: options.LearningRate = None,
    qat: options.Qat = False,
    changes: options.Changes = None,
    inherit: options.From = None,
    mean: options.Mean = None,
    std: options.Std = None,
    teacher: options.TeacherRun = None,
    limit: Annotated[
        int | None, typer.Option("--limit", help="Train on about so many images only, for a trial.", show_default=False)
    ] = None,
    with_dense: Annotated[
        bool, typer.Option("--with-dense", help="Train the dense network as well, with the same recipe.")
    ] = False,
    resume: options.Resume = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run that is there.")] = False,
    train_on: options.TrainOn = "auto",
    precision: options.PrecisionOption = None,
    layout: options.Layout = None,
    threads: options.Threads = None,
    compiled: options.Compile = None,
    tracker: options.Trackers = None,
    json: options.Json = False,
) -> None:
    """Trim a network to its limits, train it, save and export it."""
    asked_limits = {"params": params, "macs": macs, "flash": flash, "ram": ram, "activation": activation}
    limits = without_none({**asked_limits, "latency": latency})
    search = {"mode": mode, "step": step, "fraction": fraction, "share_update": share_update, "coupling": coupling}
    search |= {"min_width": min_width, "min_features": min_features, "seed": seed, "draws": draws}
    target, given = _target(limits, search, dtype, round_to, plan, device, application)
    timing = find_timing(latency, mode, to, ssh, remote_python, ssh_config, estimate, target)
    delivery = find_delivery(target.board, to, int8)
    if resume and overwrite:
        raise UsageError("Expected --resume or --overwrite, but got both: one goes on, the other starts anew.")

    from pretrim.runs.folder import is_finished, prepare_output
    from pretrim.train import check_device, check_trackers, is_main

    from .training import Job, run

    asked = without_none({"epochs": epochs, "batch_size": batch_size, "learning_rate": lr})
    recipe = _recipe(data, asked, changes or [], seed, fine_tune=inherit is not None, qat=qat)
    execution = _execution(train_on, precision, layout, threads, compiled)
    check_device(train_on)
    check_trackers(tracker or [])
    if resume and is_finished(output):
        raise UsageError(f"Expected a training to go on with, but the run in {output} is finished: evaluate it.")
    if is_main():
        prepare_output(output, overwrite, resume)
    dataset = _normalised_by(_load_data(data, model, _wanted_shape(input, given), seed, limit), mean, std)
    subject = open_model(model, dataset.input_shape, len(dataset.classes), seed)
    if given is None:
        given = plan_for(subject.network, target, search, measured(timing, subject, target))
    made = _checked(given, subject)
    if target.board is not None:
        render.show_fit(render.status(), target.board.name, made)
    job = Job(
        subject=subject,
        plan=made,
        data=dataset,
        recipe=recipe,
        execution=execution,
        output=output,
        with_dense=with_dense,
        resume=resume,
        inherit=inherit,
        teacher=teacher,
        trackers=tuple(tracker or ()),
    )
    record = run(job)
    if not is_main():
        return
    if delivery is not None:
        record["artifact"] = deliver(output, model, dataset, delivery)
    if json:
        render.print_json(record)
    else:
        render.show_comparison(render.output(), record)


def _recipe(data: str, asked: dict[str, Any], changes: list[str], seed: int, *, fine_tune: bool, qat: bool) -> Recipe:
    """The data set's recipe, with what was asked for."""
    from pretrim.train import parse_changes, preset
    from pretrim.train.recipe import QAT_SHARE

    parsed = parse_changes(changes)
    twice = sorted(set(parsed) & {*asked, "seed"})
    if twice:
        raise UsageError(f"Expected {twice[0]} once, but it is in --set and an option of its own: leave one out.")
    kind, _, rest = data.partition(":")
    name = rest.rpartition("/")[2] if kind == "hf" else kind
    recipe = preset(name, fine_tune=fine_tune, changes={**parsed, **asked, "seed": seed})
    if qat and not recipe.qat:
        recipe = replace(recipe, qat=max(1, round(QAT_SHARE * recipe.epochs)))
    return recipe


def _execution(
    device: str, precision: str | None, layout: str | None, threads: int | None, compiled: bool | None
) -> Execution:
    from pretrim.train import Execution

    layouts = options.LAYOUTS.split("|")
    if layout is not None and layout not in layouts:
        raise UsageError(f"Expected --layout to be {' or '.join(layouts)}, but got {layout!r}.")
    return Execution(
        device=device,
        precision=precision,  # type: ignore[arg-type]  # it checks the name
        channels_last=None if layout is None else layout == "channels_last",
        compile=compiled,
        threads=threads,
    )


def _normalised_by(data: DataSet, mean: str | None, std: str | None) -> DataSet:
    """The data with the mean and deviation that a trained network is used to, if they were given."""
    if mean is None and std is None:
        return data
    if mean is None or std is None:
        raise UsageError("Expected --mean and --std, but got one of them: give both.")
    pair = options.parse_numbers("--mean", mean), options.parse_numbers("--std", std)
    channels = data.input_shape[0]
    usable = all(math.isfinite(number) for part in pair for number in part) and min(pair[1]) > 0
    if {len(part) for part in pair} != {channels} or not usable:
        raise UsageError(
            f"Expected --mean and --std with {channels} numbers each, deviations above 0, as the images have."
        )
    return replace(data, mean=pair[0], std=pair[1])


def _target(
    limits: dict[str, str],
    search: dict[str, Any],
    dtype: str | None,
    round_to: int | None,
    plan: Path | None,
    device: str | None,
    application: float | None,
) -> tuple[Target, Plan | None]:
    """Everything that can be wrong without looking at the model or the data; the plan, where one is given."""
    from pretrim.cost.formula import item_bytes
    from pretrim.planning.budget import Budget
    from pretrim.planning.options import Options
    from pretrim.planning.plan import Plan

    if plan is not None and limits:
        raise UsageError(f"Expected limits or --plan, but got both: leave out --{next(iter(limits))} or --plan.")
    # The seed is of the training as well.
    changed = [name for name, value in search.items() if value != getattr(Options(), name) and name != "seed"]
    changed += [] if round_to is None else ["round_to"]
    if plan is not None and changed:
        option = f"--{changed[0].replace('_', '-')}"
        raise UsageError(f"Expected a plan or how to draw one, but got both: leave out {option} or --plan.")
    made = Plan.load(plan) if plan is not None else None
    target = find_target(device, application, limits if made is None else made.limits, dtype, round_to)
    item_bytes(target.dtype)  # type: ignore[arg-type]  # it checks the name
    Options(**search, round_to=target.round_to)
    if made is None:
        Budget.parse(target.limits)
    return target, made


def _wanted_shape(text: str | None, plan: Plan | None) -> options.Shape | None:
    """The input that was asked for, or else that of the plan."""
    from pretrim.runs.record import image_shape

    if text is not None:
        shape = options.parse_shape(text)
    elif plan is not None and (found := image_shape(plan)) is not None:
        shape = found
    else:
        return None
    if shape[1] != shape[2]:
        raise UsageError(f"Expected square images, but got {shape[1]}x{shape[2]}: data are cropped to a square.")
    return shape


def _load_data(spec: str, model: str, shape: options.Shape | None, seed: int, limit: int | None) -> DataSet:
    from pretrim.data import load

    channels, size = (shape[0], shape[1]) if shape is not None else (None, None)
    if channels is None and model.startswith("torchvision:"):
        channels = 3  # all of its networks take colour images
    data = load(spec, seed=seed, image_size=size, channels=channels, limit=limit, announce=say)
    say(f"data: {data.source} ({data.split_note})")
    return data


def _checked(plan: Plan, subject: Subject) -> Plan:
    """The plan, if it is for this model and input. Its costs are counted again: a user may edit its widths."""
    from pretrim.planning.search import plan_of_widths

    network = subject.network
    groups = [(group.name, group.channels) for group in network.groups]
    ours = plan.fingerprint == network.fingerprint and plan.example == network.example
    if not ours or groups != [(group.name, group.channels) for group in plan.groups]:
        made_for = plan.model.get("name") if isinstance(plan.model, dict) else "another model"
        shape = "x".join(map(str, subject.input_shape))
        raise PlanError(
            f"Expected a plan for {subject.reference.name} with images of {shape}, but it was made for {made_for} "
            f"with other layers or another input: make one with `pretrim plan`, with the data's --classes and --input."
        )
    counted = plan_of_widths(network, plan.widths, plan.dtype, limits=plan.limits, options=plan.options)
    device = _device(plan, counted)
    return replace(counted, model=subject.reference.to_json(), device=device)


def _device(plan: Plan, counted: Plan) -> dict[str, Any] | None:
    """What is counted again for the device, beside what is not: its name, and measured times."""
    if plan.device is None:
        return None if counted.device is None else dict(counted.device)
    again = counted.device or {}
    parts = {which: {**plan.device.get(which, {}), **again.get(which, {})} for which in ("dense", "slim")}
    return {**plan.device, **parts}
