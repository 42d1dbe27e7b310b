"""`pretrim plan`: how many filters each layer keeps under a budget."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pretrim.errors import PretrimError, UsageError

from . import options, render
from .subject import open_model, without_none
from .target import Target, find_target, plan_for
from .timing import Timing, find_timing, measured

if TYPE_CHECKING:
    from pretrim.planning.plan import Plan


def plan(
    model: options.Model,
    input: options.Input = None,
    classes: options.Classes = None,
    params: options.Params = None,
    macs: options.Macs = None,
    flash: options.Flash = None,
    ram: options.Ram = None,
    activation: options.Activation = None,
    latency: options.Latency = None,
    mode: options.Mode = "joint",
    device: options.Device = None,
    to: options.LatencyOf = None,
    application: options.Application = None,
    ssh: options.Ssh = None,
    remote_python: options.RemotePython = "python3",
    ssh_config: options.SshConfig = None,
    estimate: options.Estimate = False,
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
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write the plan here; - is stdout.", show_default=False)
    ] = None,
    json: options.Json = False,
) -> None:
    """Find how many filters each layer keeps to meet every limit."""
    shape = options.input_shape(model, input)
    to_stdout = output is not None and str(output) == "-"
    if output is not None and not to_stdout:
        check_writable(output)
    given = {"params": params, "macs": macs, "flash": flash, "ram": ram, "activation": activation, "latency": latency}
    target = find_target(device, application, without_none(given), dtype, round_to)
    search = {"mode": mode, "step": step, "fraction": fraction, "share_update": share_update, "coupling": coupling}
    search |= {"min_width": min_width, "min_features": min_features, "seed": seed, "draws": draws}
    if to is not None and latency is None and mode != "latency":
        raise UsageError(
            "Expected --latency or --mode latency with --to, but got neither: it says whose latency counts."
        )
    timing = find_timing(latency, mode, to, ssh, remote_python, ssh_config, estimate, target)
    made = make_plan(model, shape, classes, target, search, timing)
    if output is not None and not to_stdout:
        write_plan(made, output)
    if json or to_stdout:
        render.print_json(made.to_json())
    if not json:
        render.show_plan(render.status() if to_stdout else render.output(), made)


def make_plan(
    model: str,
    shape: options.Shape,
    classes: int | None,
    target: Target,
    search: dict[str, Any],
    timing: Timing,
) -> Plan:
    """The plan for a model by its name, which it carries."""
    from dataclasses import replace

    from pretrim.cost.formula import item_bytes
    from pretrim.planning.budget import Budget
    from pretrim.planning.options import Options

    item_bytes(target.dtype)  # type: ignore[arg-type]  # it checks the name
    Budget.parse(target.limits)
    Options(**search, round_to=target.round_to)
    subject = open_model(model, shape, classes)
    made = plan_for(subject.network, target, search, measured(timing, subject, target))
    return replace(made, model=subject.reference.to_json())


def check_writable(path: Path) -> None:
    """Raise UsageError, before long work, where a file cannot be written."""
    import os

    if path.exists() and not path.is_dir() and not path.is_file():  # a pipe or device is written to as it is
        return
    if path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise _not_written(path, "it is a folder" if path.is_dir() else "its folder is missing or read-only")


def write_plan(made: Plan, path: Path) -> None:
    """Write a plan, whole or not at all."""
    try:
        made.save(path)
    except OSError as error:
        raise _not_written(path, error.strerror or type(error).__name__) from error


def _not_written(path: Path, why: str) -> PretrimError:
    return PretrimError(f"Expected to write {path}, but {why}: choose another file.")
