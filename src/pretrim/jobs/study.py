"""A study: its trials, the recommended network under given limits, and its report."""

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
"""Keywords of `Study.recommend` on where the network is to run"""


@dataclass(frozen=True)
class Advice:
    """A study's recommendation under given limits.

    Attributes:
        study: folder of the study.
        limits: maximum of each resource, by its name in `study.recommend.RESOURCES`.
        found: the recommended network, and what slightly larger limits would gain.
        latency_of: machine, runtime, data type and threads that latencies hold for; None if none are known.
    """

    study: Path
    limits: dict[str, float]
    found: Recommendation
    latency_of: str | None = None

    @property
    def path(self) -> Path | None:
        """The run folder of the best network; None if none fits."""
        from pretrim.study.folders import trial_folder

        return None if self.found.best is None else trial_folder(self.study, self.found.best.key)

    def to_json(self) -> dict[str, Any]:
        """Return the output of `pretrim recommend --json`."""
        from pretrim.study.recommend import to_json

        return {**to_json(self.found), "limits": self.limits, "latency_of": self.latency_of}


@dataclass(frozen=True, repr=False)
class Study:
    """A study: many plans of one network, each trained as a trial.

    Attributes:
        path: folder of the study.
        store: table of its trials.
    """

    path: Path
    store: Store

    def __repr__(self) -> str:
        """Show the folder, and the number of trials in each state."""
        try:
            counts = [f"{count} {state}" for state, count in self.store.counts().items() if count]
            summary = ", ".join(counts) or "no trials"
        except StudyError:  # a repr must not fail in a debugger, whatever happened to the database
            summary = "its trials cannot be read"
        return f"Study({str(self.path)!r}: {summary})"

    @property
    def trials(self) -> list[Trial]:
        """All trials, in the order they were added."""
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
        """Recommend the most accurate network within limits (``ram="256KiB"``, ``device="stm32h743"`` ...).

        Args:
            device: a board, whose flash and RAM become limits.
            application: share of flash and RAM reserved for the application.
            runtime: runtime of the times on a microcontroller: ``"st-edge-ai"``, ``"tflm-cmsis-nn"`` ...
            drop: instead of the most accurate network, take the smallest one at most this many points below the dense.
            accuracy: instead, take the smallest network that reaches this validation accuracy (``"90%"``).
            limit_of: the cost by which the smallest network is chosen.
            limits: amounts, or shares of the dense network (``macs="0.5x"``).

        Raises:
            UsageError: an invalid limit, or one on a resource that is unknown for these networks.
            InfeasibleBudget: no trial is done yet.
        """
        goal_keywords = {"drop": drop, "accuracy": accuracy, "limit_of": limit_of}
        limit_options, goal_options, target = gather(
            {**limits, **goal_keywords, "device": device, "application": application, "runtime": runtime},
            *(Limits, GoalOptions, TargetOptions),
        )
        return recommend(self, limit_options, target.device, target.application, target.runtime, goal_options)

    def report(self, output: str | Path = "report.html", figures: str | Path | None = None) -> Path:
        """Write the study's report as one page that opens offline; see `write_report`."""
        return write_report(self, Path(output), None if figures is None else Path(figures))

    def check_any_done(self) -> None:
        """Raise StudyError if every trial failed; a finished dense network alone does not count."""
        from pretrim.study.settings import DENSE

        trials = self.trials
        planned = [trial for trial in trials if trial.spec.mode != DENSE] or trials
        if planned and all(trial.state == "failed" for trial in planned):
            dense = " but the dense network's" if any(trial.state != "failed" for trial in trials) else ""
            raise StudyError(f"Every trial{dense} failed: fix what the errors name, and add --retry.")


def open_study(path: str | Path, storage: str | None = None) -> Study:
    """Open the study in a folder. Raises StudyError if there is none, or if it is damaged."""
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
    """Choose a network by validation score within limits; see `Study.recommend`.

    Args:
        study: the study to choose from.
        limits: amounts, or shares of the dense network.
        device: a board, whose flash and RAM become limits.
        application: share of flash and RAM reserved for the application.
        runtime: runtime of the times on a microcontroller.
        wanted: what is good enough; if set, the smallest good enough network is chosen.
    """
    from pretrim.study import recommend as choosing

    trials, amounts = study.trials, limits.given()
    all_candidates = choosing.candidates(trials)
    if wanted is not None and (goal := wanted.goal()) is not None and all_candidates:
        goal.check(all_candidates[0].metric)
    if device is None and runtime is not None:
        raise UsageError("--runtime selects whose time counts on a board: add --device NAME.")
    if device is not None:
        all_candidates, dense_ns = _candidates_on_device(
            study, all_candidates, board(device), runtime, timed="latency" in amounts
        )
    else:
        dense_ns = None
    if "latency" in amounts:
        _check_one_machine(choosing.machines_of(all_candidates), study)
    values = limits_of(amounts, trials, device, application, dense_ns)
    comparable = choosing.of_one_machine(all_candidates)
    chosen = choosing.recommend(comparable, values)
    if wanted is not None and chosen.best is not None:
        chosen = _smallest(chosen, comparable, values, wanted)
    if chosen.best is None and not chosen.relax and not chosen.of:
        raise InfeasibleBudget(f"No trial of {study.path} is done yet: run `pretrim sweep`.")
    machines = choosing.machines_of(all_candidates)
    return Advice(study.path, values, chosen, machines[0] if machines else None)


def _check_one_machine(machines: Sequence[str], study: Study) -> None:
    """Raise UsageError if latencies of several machines would be compared."""
    if len(machines) > 1:
        raise UsageError(
            f"The networks of {study.path} were not all timed on one machine ({'; '.join(machines)}): latencies do not "
            f"compare. Name a microcontroller by --device, or leave out --latency."
        )


def _candidates_on_device(
    study: Study, networks: Sequence[Candidate], target: Board, runtime: str | None, *, timed: bool
) -> tuple[list[Candidate], int | None]:
    """Return the networks with their figures on a board, and the dense network's nanoseconds there if a time is needed.

    Times measured on this machine do not hold for the board, and are dropped.
    """
    if target.kind != "microcontroller":
        if timed or runtime is not None:
            machines = _machine_text(networks)
            raise UsageError(
                f"No latency of {target.name} is known for the networks of {study.path}{machines}: leave out "
                f"--latency, and measure there by `pretrim measure RUN --ssh USER@HOST`."
            )
        return [network.without_measured() for network in networks], None
    from pretrim.latency.on_board import predict

    system = _system(target, runtime, timed=timed)
    records = {trial.key: (trial.record or {}).get("on_boards") for trial in study.trials}
    if system is not None and networks and not any(records[one.key] for one in networks):
        raise UsageError(
            f"The networks of {study.path} do not say what a board has to know for a time: the study is of an earlier "
            f"version, or LiteRT has no model of them. Leave out --latency and --runtime."
        )
    networks_there = [_on_microcontroller(one, records[one.key], target, runtime, system) for one in networks]
    known = next((record for record in records.values() if record), None)
    return networks_there, None if system is None or known is None else predict(target, system, known["dense"])[1]


def _system(target: Board, runtime: str | None, *, timed: bool) -> System | None:
    """Find the public measurements that predict times on a microcontroller; None if no time is needed."""
    if runtime is None and timed and (known := known_runtimes(target, "int8")):
        raise UsageError(
            f"The time on {target.name} is predicted, and depends on the runtime most: add --runtime, one of "
            f"{', '.join(known)}."
        )
    return find_system(target, runtime, "int8") if timed or runtime is not None else None


def _machine_text(networks: Sequence[Candidate]) -> str:
    from pretrim.study.recommend import machines_of

    machines = machines_of(networks)
    return f" (they were timed on {machines[0].removesuffix(': measured')})" if machines else ""


def _on_microcontroller(
    candidate: Candidate, sketches: Mapping[str, Any] | None, target: Board, runtime: str | None, system: System | None
) -> Candidate:
    """Add a microcontroller's arena to a network and, if a time is needed, its latency and energy there."""
    from pretrim.latency.on_board import kernels_of, predict

    plain = candidate.without_measured()
    if sketches is None:
        return plain
    costs = {**plain.costs, "arena": float(sketches["slim"]["arena_bytes"][kernels_of(target, runtime)])}
    if system is None:
        return replace(plain, costs=costs)
    basis, ns = predict(target, system, sketches["slim"])
    low, high = (f"{factor:.2f}" for factor in basis.range)
    timed_on = f"{basis.label}: predicted, {low} to {high} times the prediction"
    costs["latency"] = ns * 1e-9
    if (energy := basis.energy_uj(ns)) is not None:
        costs["energy"] = energy * 1e-6
        timed_on += f"; energy: {basis.energy_label}"
    return replace(plain, costs=costs, timed_on=timed_on)


def _smallest(
    recommendation: Recommendation, networks: list[Candidate], limits: dict[str, float], wanted: GoalOptions
) -> Recommendation:
    """Replace the best network by the smallest good enough one, if that was requested."""
    from pretrim.study.goal import dense_score, good_enough, unreached
    from pretrim.study.recommend import compared

    goal = wanted.goal()
    if goal is None:
        return recommendation
    within = [one for one in networks if all(one.costs.get(n, float("inf")) <= limit for n, limit in limits.items())]
    threshold = goal.threshold(networks[0].metric, dense_score(networks))
    reached = good_enough(within, threshold, wanted.limit_of)
    if not reached:
        raise unreached(within, goal, threshold)
    best, after = reached[0], reached[1] if len(reached) > 1 else None
    pair = None if after is None else compared(after, best)
    return replace(recommendation, best=best, next_best=after, buys=(), comparison=pair)


def limits_of(
    texts: dict[str, Amount],
    trials: Sequence[Trial],
    device: str | None,
    application: float | None,
    dense_ns: int | None = None,
) -> dict[str, float]:
    """Convert limits to the units of `study.recommend.RESOURCES`; shares refer to the dense network.

    Args:
        texts: limits by name, as the user wrote them.
        trials: the study's trials, which record the dense network's costs.
        device: a board whose flash and RAM are limits too.
        application: share of them reserved for the application.
        dense_ns: the dense network's time on the board in nanoseconds, if a time is needed.

    Raises UsageError for an invalid limit, or a share of a cost of the dense network that no trial records.
    """
    from pretrim.planning.budget import Limit

    dense = _dense(trials)
    if device is not None:  # times measured elsewhere do not hold for the board
        dense = {name: value for name, value in dense.items() if name != "latency"}
        dense |= {} if dense_ns is None else {"latency": dense_ns}
    limits: dict[str, float] = {}
    for name, text in texts.items():
        limit = Limit.parse(name, text)
        if limit.is_share and name not in dense:
            raise UsageError(f"--{name} {text} is a share of an unknown amount: give an amount.")
        value = limit.resolve(dense.get(name, 0))
        limits[name] = value * 1e-9 if name == "latency" else float(value)
    if device is not None:
        board_limits = board(device).limits(APPLICATION_SHARE if application is None else application)
        names = {"artifact_bytes": "file", "arena_bytes": "arena"}
        limits |= {names[cost]: float(value) for cost, value in board_limits.items() if cost in names}
    elif application is not None:
        raise UsageError("--application needs --device: name the board.")
    return limits


def _dense(trials: Sequence[Trial]) -> dict[str, int]:
    """Return the dense network's use of each resource, as far as known; its measured latency in nanoseconds."""
    from pretrim.study.recommend import COST_OF
    from pretrim.study.settings import DENSE

    records = [trial.record for trial in trials if trial.record and "dense" in trial.record]
    costs: dict[str, int] = records[0]["dense"] if records else {}
    values = {name: int(costs[cost]) for name, cost in COST_OF.items() if cost in costs}
    times = [trial.measured["latency_s"] for trial in trials if trial.spec.mode == DENSE and trial.measured]
    return values | ({"latency": round(1e9 * median(times))} if times else {})


def check_page(output: Path, figures: Path | None = None) -> None:
    """Raise UsageError, before any work, for an output that is not an .html file, or for missing or invalid folders."""
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
        study: the study to show.
        output: the page to write; its name ends in ``.html``.
        figures: a folder for additional PNG and SVG figures.
        watch: write the page again whenever a trial ends, until all trials have ended.
        reporter: told each time the page was written.

    Raises:
        UsageError: an output that is not an .html file, or a missing folder.
        StudyError: the page cannot be written.
    """
    from pretrim.report import Shown, contents, write_figures, write_page
    from pretrim.study.description import read_network
    from pretrim.study.folders import TRIALS

    output, figures = Path(output), None if figures is None else Path(figures)
    check_page(output, figures)
    network, config, written_counts = read_network(study.path), study.store.config(), None
    while True:
        counts = study.store.counts()
        left = counts["waiting"] + counts["running"]
        if counts != written_counts:
            written_counts, trials = counts, study.trials
            try:
                page = Shown(study.store.name, trials, network, study.path / TRIALS, config)
                write_page(output, f"{page.name}: trade-off", contents(page), refresh=watch and left > 0)
                if figures is not None:
                    write_figures(figures, trials)
            except OSError as error:
                places = str(output) if figures is None else f"{output}, or figures in {figures}"
                raise StudyError(f"Cannot write the report {places}: {error.strerror}.") from error
            status = f"{counts['done']} trials" if counts["done"] else "no trial is done yet"
            (reporter or Silent()).say(f"{output}: {status}, {output.stat().st_size / 2**20:.1f} MiB")
        if not watch or not left:
            return output
        time.sleep(WATCH_EVERY_S)
