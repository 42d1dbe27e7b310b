"""Claim: published measurements predict a network's time on a microcontroller to 10 % in the median and 25 % in nine of
ten cases, with its family held out, where ten networks or more were measured on a core with a runtime.

Every publicly measured network whose graph is known is predicted with its architecture family held out: neither the fit
of its system nor the ratios over all systems have seen it. The ratio of two networks of one family on one board is
compared too, as that is what matters for trimming.

    python benchmarks/board_times.py --data DIR      # seconds; writes results/board_times.md

DIR is the data folder of `scripts/fit_board_times.py`. Needs SciPy.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
from board_fit import (
    ALONE,
    ENOUGH,
    Excluded,
    Fitted,
    Guess,
    Sample,
    coverage,
    fit,
    fit_all,
    groups,
    is_varied,
    ranges,
    ratios,
    read,
)

RESULT = Path(__file__).parent / "results" / "board_times.md"
MEDIAN_GOAL, P90_GOAL, RATIO_GOAL = 0.10, 0.25, 0.10


def cell(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f} %"


def system_row(system: Fitted, factors: tuple[float, float]) -> str:
    key, errors = system.key, (system.error(0.5), system.error(0.9))
    families = len({sample.family for sample in system.samples})
    verdict = ""
    if system.networks >= ENOUGH and errors[0] is not None and errors[1] is not None:
        verdict = "met" if errors[0] <= MEDIAN_GOAL and errors[1] <= P90_GOAL else "**missed**"
    cells = [
        key.core,
        key.runtime,
        key.version or "not stated",
        key.dtype,
        str(system.networks),
        str(families),
        *(cell(error) for error in errors),
        f"{factors[0]:.2f} to {factors[1]:.2f}",
        verdict,
    ]
    return f"| {' | '.join(cells)} |"


def ratio_errors(guesses: Sequence[Guess]) -> list[tuple[Guess, Guess, float]]:
    """Pairs of one family on one board, the faster network first, with the error of the ratio of their times."""
    pairs = []
    for first, second in combinations(guesses, 2):
        is_comparable = first.sample.family == second.sample.family and first.sample.board == second.sample.board
        if (
            not is_comparable
            or first.sample.network == second.sample.network
            or first.sample.is_guessed
            or second.sample.is_guessed
        ):
            continue
        small, large = sorted((first, second), key=lambda guess: guess.sample.cycles)
        measured = small.sample.cycles / large.sample.cycles
        pairs.append((small, large, (small.cycles / large.cycles) / measured - 1))
    return pairs


def ratio_rows(fitted: Iterable[Fitted]) -> list[str]:
    rows = []
    for system in fitted:
        by_family: dict[str, list[float]] = {}
        for small, _, error in ratio_errors(system.guesses):
            by_family.setdefault(small.sample.family, []).append(abs(error))
        for family, errors in by_family.items():
            within = sum(error <= RATIO_GOAL for error in errors)
            cells = [
                f"{system.key.core}, {system.key.runtime} {system.key.version}",
                family,
                str(len(errors)),
                cell(float(np.median(errors))),
                cell(float(np.quantile(errors, 0.9))),
                f"{within} of {len(errors)}",
            ]
            rows.append(f"| {' | '.join(cells)} |")
    return rows


def network_rows(fitted: Iterable[Fitted]) -> list[str]:
    """One row per held-out network; the many networks of NATS-Bench are omitted."""
    rows = []
    for system in fitted:
        for guess in sorted(system.guesses, key=lambda guess: (guess.sample.family, guess.sample.network)):
            sample = guess.sample
            if sample.family == "NATS-Bench":
                continue
            remark = " (outputs guessed)" if sample.is_guessed else ""
            cells = [
                f"{system.key.core}, {system.key.runtime} {system.key.version}",
                f"{sample.network}{remark}",
                sample.board,
                f"{sample.cycles / 1e6:.2f}",
                f"{guess.cycles / 1e6:.2f}",
                f"{100 * guess.error:+.0f} %",
            ]
            rows.append(f"| {' | '.join(cells)} |")
    return rows


def source_rows(samples: Sequence[Sample]) -> list[str]:
    """Rows of the systems measured in several repositories: each repository predicted from the others."""
    rows = []
    for key, group in sorted(groups(samples).items(), key=lambda item: str(item[0])):
        for source in sorted({repository(sample) for sample in group}):
            remaining = [sample for sample in group if repository(sample) != source]
            held_out = [sample for sample in group if repository(sample) == source and not sample.is_part]
            if remaining and held_out:
                coefficients = fit(remaining, ratios([sample for sample in samples if repository(sample) != source]))
                errors = [abs(Guess(sample, float(sample.row @ coefficients)).error) for sample in held_out]
                numbers = [
                    str(len(remaining)),
                    str(len(held_out)),
                    *(cell(float(np.quantile(errors, q))) for q in (0.5, 0.9)),
                ]
                rows.append(f"| {' | '.join([f'{key.core}, {key.runtime} {key.version}', source, *numbers])} |")
    return rows


def repository(sample: Sample) -> str:
    """The repository of a measurement, without the commit."""
    return sample.source.partition("@")[0]


def excluded_rows(excluded: Iterable[Excluded]) -> list[str]:
    reasons = Counter(entry.reason for entry in excluded)
    return [f"| {count} | {reason} |" for reason, count in reasons.most_common()]


def within(errors: Sequence[float]) -> str:
    return f"{sum(error <= RATIO_GOAL for error in errors):,} of {len(errors):,}"


def summary(fitted: Sequence[Fitted]) -> list[str]:
    many = [system for system in fitted if system.networks >= ENOUGH]
    few = [abs(g.error) for s in fitted if s.networks < ENOUGH for g in s.guesses if g.sample.family not in ALONE]
    pairs = [pair for system in fitted for pair in ratio_errors(system.guesses)]
    zoo = [abs(error) for small, _, error in pairs if small.sample.family != "NATS-Bench"]
    nats = [abs(error) for small, _, error in pairs if small.sample.family == "NATS-Bench"]
    coverages = [
        f"{cell(coverage(s.guesses))} ({s.key.core}, {s.key.runtime} {s.key.version})" for s in fitted if is_varied(s)
    ]
    met = [system for system in many if "met" in system_row(system, (1, 1)).split("|")[-2]]
    return [
        f"- Systems with {ENOUGH} networks or more: {len(met)} of {len(many)} meet both goals (median at most "
        f"{cell(MEDIAN_GOAL)}, p90 at most {cell(P90_GOAL)}).",
        f"- Systems with fewer (most with three, of MLPerf Tiny, one of which is left out each time), convolutional "
        f"networks: median {cell(float(np.median(few)))}, p90 {cell(float(np.quantile(few, 0.9)))}, {len(few)} cases.",
        f"- Networks within a range that was made without their family, of systems with many: {'; '.join(coverages)}; "
        f"meant is 80 %.",
        f"- Ratios of two networks of one family on one board, within {cell(RATIO_GOAL)}: {within(zoo)} without "
        f"NATS-Bench (median {cell(float(np.median(zoo)))}, p90 {cell(float(np.quantile(zoo, 0.9)))}), {within(nats)} "
        f"of NATS-Bench.",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="the folder of the measurements")
    samples, excluded = read(parser.parse_args().data)
    fitted = fit_all(samples)
    factors = ranges(fitted, samples)
    lines = [
        "# Time on boards: predicted without the network's family, and measured",
        "",
        "Written by `benchmarks/board_times.py`; how it is fitted: `benchmarks/board_fit.py`. Measurements of others,",
        "named in `src/pretrim/latency/board_times.toml`. A system is a core with a runtime and a version.",
        "",
        *summary(fitted),
        "",
        "## By system",
        "",
        "The range is that of predictions: factors between which four in five networks of a new family were (where",
        "there are many networks, from the extremes of each family). A system of one family (NATS-Bench) is left out",
        "by fifths of its networks. A system with one network has no error.",
        "",
        "| core | runtime | version | data type | networks | families | median error | p90 | range | goals |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *(system_row(system, factors[system.key]) for system in fitted),
        "",
        "## Ratios of two networks of one family on one board",
        "",
        "| system | family | pairs | median error | p90 | within 10 % |",
        "|---|---|---|---|---|---|",
        *ratio_rows(fitted),
        "",
        "## Each source left out",
        "",
        "Systems that several repositories have measurements of, predicted without all that is from one of them.",
        "",
        "| system | without | measurements left | predicted | median error | p90 |",
        "|---|---|---|---|---|---|",
        *source_rows(samples),
        "",
        "## Every network",
        "",
        "Million cycles. Without the 86 of NATS-Bench.",
        "",
        "| system | network | board | measured | predicted | error |",
        "|---|---|---|---|---|---|",
        *network_rows(fitted),
        "",
        "## Measurements that are not used",
        "",
        "| rows | why |",
        "|---|---|",
        *excluded_rows(excluded),
    ]
    RESULT.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(summary(fitted)))


if __name__ == "__main__":
    main()
