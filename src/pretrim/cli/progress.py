"""Progress of a job on the command line: lines and bars on stderr, from the main process only."""

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
        """Print a line on stderr."""
        render.say(line)

    def planned(self, plan: Plan) -> None:
        """Show what the network will take on its board, before hours are spent on training."""
        from pretrim.train import is_main

        if is_main():
            show_fit(render.status(), plan)

    @contextmanager
    def training(self, name: str) -> Iterator[Callable[[Progress], None]]:
        """Show a bar with epoch, loss, validation score, images per second and time left; in a pipe, a line per epoch.

        When training ends, the bar is replaced by a line.
        """
        from rich.live import Live

        console, title = render.status(), f"training, {name}"
        last: list[Progress] = []
        if not console.is_terminal:
            yield lambda progress: render.say(f"{title}: {_summary(progress)}") if progress.ends_epoch else None
            return
        with Live(console=console, refresh_per_second=4, transient=True) as view:

            def on_step(progress: Progress) -> None:
                last[:] = [progress]
                done = (progress.epoch - 1) * progress.steps + progress.step
                words = bars.that_fit(title, _parts(progress), console.width)
                view.update(bars.line(title, done, progress.epochs * progress.steps, words, console.width))

            yield on_step
        if last:
            render.say(f"{title}: {_summary(last[0])}")

    @contextmanager
    def counting(self, name: str) -> Iterator[Callable[[int, int], None]]:
        """Show a bar of the items done until the work ends; in a pipe, print one line at the start."""
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
        """Show the progress of a study, its time left and the front so far; in a pipe, a line for each trial."""
        from .study_live import live

        with live() as on_status:
            yield on_status


def _summary(progress: Progress) -> str:
    """The progress as one line of text, without the time left after the last epoch."""
    parts = [text for text, _ in _parts(progress)]
    is_last = progress.ends_epoch and progress.epoch == progress.epochs
    return "  ".join(parts[:-1] if is_last else parts)


def _parts(progress: Progress) -> list[tuple[str, int]]:
    """Texts on the progress after a step, each with its rank: 0 matters most."""
    score = progress.metric.show(progress.validation_score)
    return [
        (f"epoch {progress.epoch}/{progress.epochs}", 0),
        (f"loss {progress.loss:.3f}", 3),
        (f"validation {score}", 2),
        (f"{progress.images_per_s:,.0f} images/s", 4),
        (f"{bars.clock(progress.seconds_left)} left", 1),
    ]
