"""What the command line shows while a job works: lines and bars on stderr, from the main process alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pretrim.present.device import show_fit

from . import render

if TYPE_CHECKING:
    from pretrim.planning.plan import Plan
    from pretrim.study.sweep import Status
    from pretrim.train import Progress


class Bars:
    """The reporter of the command line (`jobs.reporter.Reporter`)."""

    def say(self, line: str) -> None:
        """A line on stderr."""
        render.say(line)

    def planned(self, plan: Plan) -> None:
        """What the network will take on its board, before hours are spent on it."""
        from pretrim.train import is_main

        if is_main():
            show_fit(render.status(), plan)

    @contextmanager
    def training(self, name: str) -> Iterator[Callable[[Progress], None]]:
        """A bar: epoch, loss, validation accuracy, images a second, time left. In a pipe, a line an epoch."""
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bar

        console = render.status()
        if not console.is_terminal:
            yield lambda progress: render.say(f"training, {name}: {_state(progress)}") if progress.ends_epoch else None
            return
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[state]}"))
        with Bar(*columns, console=console) as bar:
            task = bar.add_task(f"training, {name}", total=None, state="")

            def on_step(progress: Progress) -> None:
                done = (progress.epoch - 1) * progress.steps + progress.step
                bar.update(task, total=progress.epochs * progress.steps, completed=done, state=_state(progress))

            yield on_step

    @contextmanager
    def counting(self, name: str) -> Iterator[Callable[[int, int], None]]:
        """A bar of things done, of how many. In a pipe, one line at the start."""
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        console = render.status()
        if not console.is_terminal:
            render.say(f"measuring the {name}")
            yield lambda done, of: None
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Bar(*columns, console=console) as bar:
            task = bar.add_task(f"measuring the {name}", total=None)
            yield lambda done, of: bar.update(task, total=of, completed=done)

    @contextmanager
    def watching(self, name: str) -> Iterator[Callable[[Status], None]]:
        """Trials done and to come, time left, and the front so far. In a pipe, a line for each trial."""
        from .study_table import live

        with live() as on_status:
            yield on_status


def _state(progress: Progress) -> str:
    minutes, seconds = divmod(round(progress.seconds_left), 60)
    hours, minutes = divmod(minutes, 60)
    left = f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
    score = progress.metric.show(progress.validation_score)
    return (
        f"epoch {progress.epoch}/{progress.epochs}  loss {progress.loss:.3f}  validation {score}  "
        f"{progress.images_per_s:,.0f} images/s  {left} left"
    )
