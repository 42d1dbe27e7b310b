"""A study to work on: its trials, the network to take under some limits, and the report."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from pretrim.devices import APPLICATION_SHARE, Board, board
from pretrim.errors import InfeasibleBudget, StudyError, UsageError, check_is
from pretrim.latency.board_systems import System, find_system, known_runtimes
from pretrim.wording import in_words_of_python

from .options import Amount, GoalOptions, Limits, TargetOptions, gather
from .reporter import Reporter, Silent

if TYPE_CHECKING:
    from pretrim.study.recommend import Candidate, Recommendation
    from pretrim.study.rows import Trial
    from pretrim.study.store import Store

WATCH_EVERY_S = 3.0
BOARD = ("device", "application", "runtime")
"""Keywords of `Study.recommend` that say where a network is to run"""


@dataclass(frozen=True)
class Advice:
    """What a study recommends under some limits.

    Attributes:
        study: its folder.
        limits: largest value of each resource, by its name in `study.recommend.RESOURCES`.
        found: the choice, and what a little more would buy.
        latency_of: machine, runtime, data type and threads that latencies hold for; None where none are known.
    """

    study: Path
    limits: dict[str, float]
    found: Recommendation
    latency_of: str | None = None

    @property
    def path(self) -> Path | None:
        """The run of the best network; None where none fits."""
        from pretrim.study.places import trial_folder

        return None if self.found.best is None else trial_folder(self.study, self.found.best.key)

    def to_json(self) -> dict[str, Any]:
        """What `pretrim recommend --json` prints."""
        from pretrim.study.recommend import to_json

        return {**to_json(self.found), "limits": self.limits, "latency_of": self.latency_of}


@dataclass(frozen=True, repr=False)
class Study:
    """Many plans of one network, trained.

    Attributes:
        path: its folder.
        store: its table of trials.
    """

    path: Path
    store: Store

    def __repr__(self) -> str:
        """The folder, and how far its trials are."""
        try:
            counts = [f"{count} {state}" for state, count in self.store.counts().items() if count]
            told = ", ".join(counts) or "no trials"
        except StudyError:  # a debugger shows it, whatever became of its database
            told = "its trials cannot be read"
        return f"Study({str(self.path)!r}: {told})"

    @property
    def trials(self) -> list[Trial]:
        """All of them, in the order they were asked for."""
        return self.store.trials()

    @in_words_of_python({*Limits.__dataclass_fields__, *GoalOptions.__dataclass_fields__, *BOARD})
    def recommend(
        self,
        *,
        device: str | None = None,
        application: float | None = None,
        runtime: str | None = None,
        drop: float | None = None,
        accuracy: str | float | None = None,
        limit_of: str = "macs",
        **limits: Amount,
    ) -> Advice:
        """The most accurate network within limits (``ram="256KiB"``, ``macs="0.5x"``, ``device="stm32h743"``).

        Args:
            device: a board, whose flash and RAM become limits.
            application: share of flash and RAM reserved for the application.
            runtime: on a microcontroller, whose time is meant: ``"st-edge-ai"``, ``"tflm-cmsis-nn"`` ...
            drop: instead of the most accurate network the smallest, at most so many points below the dense one.
            accuracy: likewise, the smallest of this validation accuracy (``"90%"``).
            limit_of: the cost by which networks are small.
            limits: amounts, or shares of the dense network.

        Raises:
            UsageError: an invalid limit, or one of which nothing is known.
            InfeasibleBudget: no trial is done.
        """
        wanted = {"drop": drop, "accuracy": accuracy, "limit_of": limit_of}
        given, goal, board = gather(
            {**limits, **wanted, "device": device, "application": application, "runtime": runtime},
            *(Limits, GoalOptions, TargetOptions),
        )
        return recommend(self, given, board.device, board.application, board.runtime, goal)

    def report(self, output: str | Path = "report.html", figures: str | Path | None = None) -> Path:
        """Write the trade-off as one page that opens offline; see `write_report`."""
        return write_report(self, Path(output), None if figures is None else Path(figures))

    def check_any_done(self) -> None:
        """Raises StudyError where every trial failed; the dense network alone is no study."""
        from pretrim.study.settings import DENSE

        trials = self.trials
        planned = [trial for trial in trials if trial.spec.mode != DENSE] or trials
        if planned and all(trial.state == "failed" for trial in planned):
            dense = " but the dense network's" if any(trial.state != "failed" for trial in trials) else ""
            raise StudyError(f"All {len(planned)} trials{dense} failed: fix what their errors name, and add --retry.")


def open_study(path: str | Path, storage: str | None = None) -> Study:
    """The study of a folder. Raises StudyError where there is none, or it is damaged."""
    from pretrim.study.sweep import open_study as open_store

    check_is(path, str | Path, "path to be the name of a study's folder")
    folder = Path(path)
    store = open_store(folder, storage)
    store.config()
    return Study(folder, store)


def recommend(
    study: Study,
    limits: Limits,
    device: str | None = None,
    application: float | None = None,
    runtime: str | None = None,
    wanted: GoalOptions | None = None,
) -> Advice:
    """Choose by validation score within limits; see `Study.recommend`.

    Args:
        study: what was tried.
        limits: amounts, or shares of the dense network.
        device: a board, whose flash and RAM become limits.
        application: share of flash and RAM reserved for the application.
        runtime: on a microcontroller, whose time is meant.
        wanted: what is good enough; the smallest network that is, is chosen.
    """
    from pretrim.study import recommend as choosing

    trials, given = study.trials, limits.given()
    found = choosing.candidates(trials)
    if wanted is not None and (goal := wanted.goal()) is not None and found:
        goal.check(found[0].metric)
    if device is None and runtime is not None:
        raise UsageError("--runtime says whose time is meant on a board: add --device NAME.")
    if device is not None:
        found, dense_ns = _on_device(study, found, board(device), runtime, timed="latency" in given)
    else:
        dense_ns = None
    if "latency" in given:
        _check_one_place(choosing.places_of(found), study)
    values = limits_of(given, trials, device, application, dense_ns)
    comparable = choosing.of_one_machine(found)
    chosen = choosing.recommend(comparable, values)
    if wanted is not None and chosen.best is not None:
        chosen = _smallest(chosen, comparable, values, wanted)
    if chosen.best is None and not chosen.relax and not chosen.of:
        raise InfeasibleBudget(f"No trial of {study.path} is done yet: run `pretrim sweep`.")
    places = choosing.places_of(found)
    return Advice(study.path, values, chosen, places[0] if places else None)


def _check_one_place(places: Sequence[str], study: Study) -> None:
    """Raises UsageError where latencies of several machines would be compared."""
    if len(places) > 1:
        raise UsageError(
            f"The networks of {study.path} were not all timed on one machine ({'; '.join(places)}): latencies do not "
            f"compare. Name a microcontroller by --device, or leave out --latency."
        )


def _on_device(
    study: Study, found: Sequence[Candidate], target: Board, runtime: str | None, *, timed: bool
) -> tuple[list[Candidate], int | None]:
    """The networks as a board sees them, and the dense network's nanoseconds there where a time is asked for.

    What was timed on this machine says nothing of the board, and is left out.
    """
    if target.kind != "microcontroller":
        if timed or runtime is not None:
            places = _measured_on(found)
            raise UsageError(
                f"No latency of {target.name} is known for the networks of {study.path}{places}: leave out --latency, "
                f"and measure there by `pretrim measure RUN --ssh USER@HOST`."
            )
        return [_without_measured(one) for one in found], None
    from pretrim.latency.on_board import predict

    system = _system(target, runtime, timed=timed)
    records = {trial.key: (trial.record or {}).get("on_boards") for trial in study.trials}
    if system is not None and found and not any(records[one.key] for one in found):
        raise UsageError(
            f"The networks of {study.path} do not say what a board has to know for a time: the study is of an earlier "
            f"version, or LiteRT has no model of them. Leave out --latency and --runtime."
        )
    seen = [_seen_by(one, records[one.key], target, runtime, system) for one in found]
    there = next((record for record in records.values() if record), None)
    return seen, None if system is None or there is None else predict(target, system, there["dense"])[1]


def _system(target: Board, runtime: str | None, *, timed: bool) -> System | None:
    """The measurements that predict a time on a microcontroller; None where none is asked for."""
    if runtime is None and timed and (known := known_runtimes(target, "int8")):
        raise UsageError(
            f"The time on {target.name} is predicted, and depends on the runtime most: add --runtime, one of "
            f"{', '.join(known)}."
        )
    return find_system(target, runtime, "int8") if timed or runtime is not None else None


def _measured_on(found: Sequence[Candidate]) -> str:
    from pretrim.study.recommend import places_of

    places = places_of(found)
    return f" (they were timed on {places[0].removesuffix(': measured')})" if places else ""


def _without_measured(one: Candidate) -> Candidate:
    """Without what was measured on another machine."""
    from pretrim.study.recommend import MEASURED

    return replace(one, timed_on=None, takes={name: value for name, value in one.takes.items() if name not in MEASURED})


def _seen_by(
    one: Candidate, sketches: Mapping[str, Any] | None, target: Board, runtime: str | None, system: System | None
) -> Candidate:
    """A network with the arena of a board and, where a runtime is named, its time there."""
    from pretrim.latency.on_board import kernels_of, predict

    plain = _without_measured(one)
    if sketches is None:
        return plain
    takes = {**plain.takes, "arena": float(sketches["slim"]["arena_bytes"][kernels_of(target, runtime)])}
    if system is None:
        return replace(plain, takes=takes)
    basis, ns = predict(target, system, sketches["slim"])
    low, high = (f"{factor:.2f}" for factor in basis.range)
    said = f"{basis.label}: predicted, {low} to {high} of it"
    takes["latency"] = ns * 1e-9
    if (energy := basis.energy_uj(ns)) is not None:
        takes["energy"] = energy * 1e-6
        said += f"; energy: {basis.energy_label}"
    return replace(plain, takes=takes, timed_on=said)


def _smallest(
    found: Recommendation, there: list[Candidate], limits: dict[str, float], wanted: GoalOptions
) -> Recommendation:
    """The smallest that is good enough in the place of the best, where that was asked for."""
    from pretrim.study.goal import dense_score, good_enough, unreached
    from pretrim.study.recommend import compared

    goal = wanted.goal()
    if goal is None:
        return found
    within = [one for one in there if all(one.takes.get(n, float("inf")) <= most for n, most in limits.items())]
    threshold = goal.threshold(there[0].metric, dense_score(there))
    reached = good_enough(within, threshold, wanted.limit_of)
    if not reached:
        raise unreached(within, goal, threshold)
    best, after = reached[0], reached[1] if len(reached) > 1 else None
    pair = None if after is None else compared(after, best)
    return replace(found, best=best, next_best=after, buys=(), comparison=pair)


def limits_of(
    texts: dict[str, Amount],
    trials: Sequence[Trial],
    device: str | None,
    application: float | None,
    dense_ns: int | None = None,
) -> dict[str, float]:
    """Limits in the units of `study.recommend.RESOURCES`; shares are of the dense network.

    Args:
        texts: limits by name, as the user wrote them.
        trials: what the dense network takes is known from them.
        device: a board whose flash and RAM are limits too.
        application: share of them reserved for the application.
        dense_ns: the dense network's time on the board, where one is asked for.

    Raises UsageError for what is not a limit, or a share where no trial says what the dense network takes.
    """
    from pretrim.planning.budget import Limit

    dense = _dense(trials)
    if device is not None:  # what was measured elsewhere is not the board's
        dense = {name: value for name, value in dense.items() if name != "latency"}
        dense |= {} if dense_ns is None else {"latency": dense_ns}
    found: dict[str, float] = {}
    for name, text in texts.items():
        limit = Limit.parse(name, text)
        if limit.is_share and name not in dense:
            raise UsageError(f"--{name} {text} is a share of what is not known: give an amount.")
        value = limit.resolve(dense.get(name, 0))
        found[name] = value * 1e-9 if name == "latency" else float(value)
    if device is not None:
        own = board(device).limits(APPLICATION_SHARE if application is None else application)
        names = {"artifact_bytes": "file", "arena_bytes": "arena"}
        found |= {names[cost]: float(value) for cost, value in own.items() if cost in names}
    elif application is not None:
        raise UsageError("--application needs --device: name the board.")
    return found


def _dense(trials: Sequence[Trial]) -> dict[str, int]:
    """What the dense network takes of each resource, as far as it is known; its measured latency in ns."""
    from pretrim.study.recommend import COST_OF
    from pretrim.study.settings import DENSE

    records = [trial.record for trial in trials if trial.record and "dense" in trial.record]
    costs: dict[str, int] = records[0]["dense"] if records else {}
    found = {name: int(costs[cost]) for name, cost in COST_OF.items() if cost in costs}
    times = [trial.measured["latency_s"] for trial in trials if trial.spec.mode == DENSE and trial.measured]
    return found | ({"latency": round(1e9 * median(times))} if times else {})


def check_page(output: Path, figures: Path | None = None) -> None:
    """Raises UsageError, before any work, for a file that is not a page, or folders that are missing or not folders."""
    if output.suffix != ".html":
        raise UsageError(f"Expected a report to end in .html, but got {output}.")
    if not output.parent.is_dir():
        raise UsageError(f"Cannot write the report, {output.parent} is not a folder: make it first.")
    if figures is not None and not (figures.is_dir() or (figures.parent.is_dir() and not figures.exists())):
        raise UsageError(f"Cannot write the figures, {figures} is not a folder, or the one above it is missing.")


def write_report(
    study: Study,
    output: str | Path,
    figures: str | Path | None = None,
    *,
    watch: bool = False,
    reporter: Reporter | None = None,
) -> Path:
    """Write a study as one page that opens offline.

    Args:
        study: what to show.
        output: the page; it ends in ``.html``.
        figures: a folder for PNG and SVG figures as well.
        watch: write it again whenever a trial ends, until all have.
        reporter: told each time it was written.

    Raises:
        UsageError: a file that is not a page, or a folder that is missing.
        StudyError: it cannot be written.
    """
    from pretrim.report import Shown, contents, write_figures, write_page
    from pretrim.study.description import read_network
    from pretrim.study.places import TRIALS

    output, figures = Path(output), None if figures is None else Path(figures)
    check_page(output, figures)
    network, config, known = read_network(study.path), study.store.config(), None
    while True:
        counts = study.store.counts()
        left = counts["waiting"] + counts["running"]
        if counts != known:
            known, trials = counts, study.trials
            try:
                shown = Shown(study.store.name, trials, network, study.path / TRIALS, config)
                write_page(output, f"{shown.name}: trade-off", contents(shown), refresh=watch and left > 0)
                if figures is not None:
                    write_figures(figures, trials)
            except OSError as error:
                places = str(output) if figures is None else f"{output}, or figures in {figures}"
                raise StudyError(f"Cannot write the report {places}: {error.strerror}.") from error
            done = f"{counts['done']} trials" if counts["done"] else "no trial is done yet"
            (reporter or Silent()).say(f"{output}: {done}, {output.stat().st_size / 2**20:.1f} MiB")
        if not watch or not left:
            return output
        time.sleep(WATCH_EVERY_S)
