"""What the command line shows while a job works: lines and bars on stderr, from the main process alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pretrim.present.device import show_fit

from . import bars, render

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
        """A bar: epoch, loss, validation accuracy, images a second, time left. In a pipe, a line an epoch.

        The bar goes when the training ends; a line stays.
        """
        from rich.live import Live

        console, title = render.status(), f"training, {name}"
        last: list[Progress] = []
        if not console.is_terminal:
            yield lambda progress: render.say(f"{title}: {_said(progress)}") if progress.ends_epoch else None
            return
        with Live(console=console, refresh_per_second=4, transient=True) as view:

            def on_step(progress: Progress) -> None:
                last[:] = [progress]
                done = (progress.epoch - 1) * progress.steps + progress.step
                words = bars.that_fit(title, _parts(progress), console.width)
                view.update(bars.line(title, done, progress.epochs * progress.steps, words, console.width))

            yield on_step
        if last:
            render.say(f"{title}: {_said(last[0])}")

    @contextmanager
    def counting(self, name: str) -> Iterator[Callable[[int, int], None]]:
        """A bar of things done, of how many, which goes at the end. In a pipe, one line at the start."""
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        console = render.status()
        if not console.is_terminal:
            render.say(f"measuring the {name}")
            yield lambda done, of: None
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Bar(*columns, console=console, transient=True) as bar:
            task = bar.add_task(f"measuring the {name}", total=None)
            yield lambda done, of: bar.update(task, total=of, completed=done)

    @contextmanager
    def watching(self, name: str) -> Iterator[Callable[[Status], None]]:
        """Trials done, running and to come, time left, the front so far. In a pipe, a line for each trial."""
        from .study_live import live

        with live() as on_status:
            yield on_status


def _said(progress: Progress) -> str:
    """For a line that stays; the time left where there is some."""
    parts = [text for text, _ in _parts(progress)]
    is_last = progress.ends_epoch and progress.epoch == progress.epochs
    return "  ".join(parts[:-1] if is_last else parts)


def _parts(progress: Progress) -> list[tuple[str, int]]:
    """What a training says after a step, and how much of it matters: 0 most."""
    score = progress.metric.show(progress.validation_score)
    return [
        (f"epoch {progress.epoch}/{progress.epochs}", 0),
        (f"loss {progress.loss:.3f}", 3),
        (f"validation {score}", 2),
        (f"{progress.images_per_s:,.0f} images/s", 4),
        (f"{bars.clock(progress.seconds_left)} left", 1),
    ]
