"""`pretrim compress`: the main job. Plan, build, train and evaluate a slim network, and save it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pretrim.errors import PlanError, UsageError

from . import options, render
from .subject import open_model, without_none

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from pretrim.data import DataSet
    from pretrim.plan import Plan
    from pretrim.train import EpochRecord, Progress, Recipe

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
    plan: Annotated[
        Path | None, typer.Option("--plan", help="A plan to apply, instead of limits.", show_default=False)
    ] = None,
    input: Annotated[
        str | None,
        typer.Option("--input", metavar="CxHxW", help="Shape of one image; by default the data's.", show_default=False),
    ] = None,
    mode: options.Mode = "joint",
    dtype: options.DTypeOption = "float32",
    step: options.Step = "fraction",
    fraction: options.Fraction = 0.05,
    weights: options.Weights = "static",
    coupling: options.Coupling = "sum",
    round_to: options.RoundTo = 8,
    min_width: options.MinWidth = 1,
    seed: options.Seed = 0,
    epochs: Annotated[int, typer.Option("--epochs", help="Passes over the training images.")] = 30,
    batch_size: Annotated[int, typer.Option("--batch-size", help="Images a step.")] = 128,
    lr: Annotated[float, typer.Option("--lr", help="The largest learning rate.")] = 0.1,
    limit: Annotated[
        int | None, typer.Option("--limit", help="Train on about so many images only, for a trial.", show_default=False)
    ] = None,
    with_dense: Annotated[
        bool, typer.Option("--with-dense", help="Train the dense network as well, with the same recipe.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run that is there.")] = False,
    json: options.Json = False,
) -> None:
    """Trim a network to its limits, train it directly, and save it with its test accuracy."""
    limits = without_none({"params": params, "macs": macs, "flash": flash, "ram": ram, "activation": activation})
    search = {"mode": mode, "step": step, "fraction": fraction, "weights": weights, "coupling": coupling}
    search |= {"round_to": round_to, "min_width": min_width, "seed": seed}
    given = _check(limits, search, dtype, plan)

    from pretrim.checkpoint import prepare_output
    from pretrim.train import Recipe

    recipe = Recipe(epochs=epochs, batch_size=batch_size, learning_rate=lr, seed=seed)
    prepare_output(output, overwrite)
    dataset = _load_data(data, model, _wanted_shape(input, given), seed, limit)
    subject = open_model(model, dataset.input_shape, len(dataset.classes), seed)
    made = given if given is not None else _make_plan(subject, limits, dtype, search)
    record = run(subject, _checked(made, subject), dataset, recipe, output, with_dense=with_dense, overwrite=overwrite)
    if json:
        render.print_json(record)
    else:
        render.show_comparison(render.output(), record)


def _check(limits: dict[str, str], search: dict[str, Any], dtype: str, plan: Path | None) -> Plan | None:
    """Everything that can be wrong without looking at the model or the data; the plan, where one is given."""
    from pretrim.allocate import Options
    from pretrim.budget import Budget
    from pretrim.cost import item_bytes
    from pretrim.plan import Plan

    item_bytes(dtype)  # type: ignore[arg-type]  # it checks the name
    Options(**search)
    if plan is None:
        Budget.parse(limits)
        return None
    if limits:
        raise UsageError(f"Expected limits or --plan, but got both: leave out --{next(iter(limits))} or --plan.")
    return Plan.load(plan)


def _wanted_shape(text: str | None, plan: Plan | None) -> options.Shape | None:
    """The input that was asked for, or else that of the plan."""
    from pretrim.checkpoint import image_shape

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
    data = load(spec, seed=seed, image_size=size, channels=channels, limit=limit, announce=_say)
    _say(f"data: {data.source} ({data.split_note})")
    return data


def _say(line: str) -> None:
    typer.echo(line, err=True)


def _make_plan(subject: Subject, limits: dict[str, str], dtype: str, search: dict[str, Any]) -> Plan:
    from pretrim.plan import plan_with_options

    return plan_with_options(subject.network, limits, dtype, search)


def _checked(plan: Plan, subject: Subject) -> Plan:
    """The plan, if it is for this model and input. Its costs are counted again: a user may edit its widths."""
    from dataclasses import replace

    from pretrim.plan import plan_of_widths

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
    return replace(counted, model=subject.reference.to_json())


# ---------------------------------------------------------------------------------------- the run


def run(
    subject: Subject,
    plan: Plan,
    data: DataSet,
    recipe: Recipe,
    output: Path,
    *,
    with_dense: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Build, train, evaluate once on the test split, and save. Returns the record of it all, as plain JSON."""
    import torch

    from pretrim.checkpoint import save

    torch.manual_seed(recipe.seed)
    slim = plan.apply(subject.module)
    if plan.slim == plan.dense:
        _say("note: the plan removes nothing")
    results = _train_and_test("slim", slim, data, recipe)
    if with_dense:
        results["dense"] = _train_and_test("dense", subject.module, data, recipe)
    save(
        slim,
        output,
        reference=subject.reference,
        classes=data.classes,
        normalisation=(data.mean, data.std),
        input_shape=data.input_shape,
        data=data.to_json(),
        results=results,
        overwrite=overwrite,
    )
    dense_accuracy = results["dense"]["test_accuracy"] if with_dense else None
    return {
        "run": str(output),
        "model": subject.reference.name,
        "data": data.to_json(),
        "dense": {**plan.dense, "test_accuracy": dense_accuracy},
        "slim": {**plan.slim, "test_accuracy": results["test_accuracy"]},
        "results": results,
    }


def _train_and_test(name: str, model: nn.Module, data: DataSet, recipe: Recipe) -> dict[str, Any]:
    from dataclasses import asdict

    from pretrim.train import evaluate, train

    with _progress_bar(name, recipe.epochs) as on_step:
        epochs: tuple[EpochRecord, ...] = train(model, data, recipe, on_step=on_step)
    found = evaluate(model, data.test, data.mean, data.std)
    return {
        "test_accuracy": found.accuracy,
        "test_loss": found.loss,
        "seconds": sum(epoch.seconds for epoch in epochs),
        "recipe": asdict(recipe),
        "epochs": [asdict(epoch) for epoch in epochs],
    }


@contextmanager
def _progress_bar(name: str, epochs: int) -> Iterator[Callable[[Progress], None]]:
    """A bar on stderr: epoch, loss, validation accuracy, images a second, time left. In a pipe, a line an epoch."""
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    console = render.status()
    if not console.is_terminal:
        yield lambda progress: _say(f"training, {name}: {_said(progress)}") if progress.ends_epoch else None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[said]}"))
    with Bar(*columns, console=console) as bar:
        task = bar.add_task(f"training, {name}", total=None, said="")

        def on_step(progress: Progress) -> None:
            done = (progress.epoch - 1) * progress.steps + progress.step
            bar.update(task, total=epochs * progress.steps, completed=done, said=_said(progress))

        yield on_step


def _said(progress: Progress) -> str:
    minutes, seconds = divmod(round(progress.seconds_left), 60)
    return (
        f"epoch {progress.epoch}/{progress.epochs}  loss {progress.loss:.3f}  "
        f"validation {render.percent(progress.validation_accuracy)}  {progress.images_per_s:,.0f} images/s  "
        f"{minutes}:{seconds:02d} left"
    )
