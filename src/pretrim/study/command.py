"""The command line that trains a network of a study again."""

from __future__ import annotations

import shlex
from dataclasses import fields

from pretrim.cost.quantities import as_options
from pretrim.devices import board
from pretrim.planning.options import SAMPLED, Options
from pretrim.train import Execution, Recipe

from .settings import DENSE, RUNTIME, StudyConfig, TrialSpec

OPTIONS = {"epochs": "--epochs", "batch_size": "--batch-size", "learning_rate": "--lr"}
"""Recipe fields that every command states, with their options; the defaults of all others are the same for all data."""


def shared_command(config: StudyConfig) -> str:
    """The common first part of all commands of a study; empty if the model or the data have no name."""
    if any(", " in name or not name for name in (config.model, config.data)):
        return ""
    words = ["pretrim", "compress", config.model, "--data", config.data]
    if config.image is not None:
        words += ["--input", "x".join(map(str, config.image))]
    if config.max_images is not None:
        words += ["--max-images", str(config.max_images)]
    if config.dtype != "float32":
        words += ["--dtype", config.dtype]
    return shlex.join([*words, *_training(config.recipe), *_execution(config.execution)])


def own_command(spec: TrialSpec) -> str:
    """The part of the command specific to a trial; empty for the dense network, which `compress` cannot train alone."""
    if spec.mode == DENSE:
        return ""
    words = ["--mode", spec.mode]
    if spec.device:
        words += ["--device", spec.device]
    device_limits = board(spec.device).limits() if spec.device and spec.budget_fraction == 1 else {}
    for name, amount in spec.amounts.items():
        if name not in device_limits:
            words += as_options(name, amount)
    words += ["--round-to", str(spec.round_to), "--seed", str(spec.seed)]
    if spec.step != Options.step and spec.mode in SAMPLED:
        words += ["--step", spec.step]
    if spec.is_timed and spec.runtime != RUNTIME:
        words += ["--runtime", spec.runtime]
    return shlex.join([*words, "-o", "run"])


def _training(recipe: Recipe) -> list[str]:
    """Options for the recipe; fields outside `OPTIONS` only where they differ from the default."""
    words = []
    for name, option in OPTIONS.items():
        words += [option, f"{getattr(recipe, name):.12g}"]
    default = Recipe()
    for field in fields(recipe):
        value = getattr(recipe, field.name)
        if field.name not in (*OPTIONS, "seed") and value != getattr(default, field.name):
            words += ["--set", f"{field.name}={str(value).lower() if isinstance(value, bool) else value}"]
    return words


def _execution(execution: Execution) -> list[str]:
    """Options for the execution settings that are not left to their defaults."""
    words = [] if execution.device == "auto" else ["--train-on", execution.device]
    if execution.precision is not None:
        words += ["--precision", execution.precision]
    if execution.channels_last is not None:
        words += ["--layout", "channels_last" if execution.channels_last else "contiguous"]
    if execution.threads is not None:
        words += ["--threads", str(execution.threads)]
    return [*words, *([] if execution.compile is None else ["--compile" if execution.compile else "--no-compile"])]
