"""The rule for stopping hopeless trials. Optuna's pruners reject studies with several objectives, so we use our own.

A trial stops after an epoch if at least a quarter of the epochs (and at least 3) are done and a finished trial that
costs at most as much in every resource was more accurate by :data:`MARGIN` after the same epoch. Such a trial
would be on no Pareto front. Trials that improve late can be lost, which is why the margin is wide.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

MARGIN = 0.10
"""Lead in accuracy (0..1) that makes a trial hopeless."""
FIRST_SHARE, FIRST_EPOCHS = 0.25, 3

Curve = Sequence[float]


def is_hopeless(
    costs: Mapping[str, int], curve: Curve, epochs: int, others: Iterable[tuple[Mapping[str, int], Curve]]
) -> bool:
    """Whether a trial should stop.

    Args:
        costs: costs of its plan.
        curve: its validation accuracies so far, one per epoch.
        epochs: number of epochs of the whole training.
        others: costs and curves of finished trials.

    >>> is_hopeless({"macs": 5}, [0.1, 0.2, 0.3], 12, [({"macs": 4}, [0.3, 0.4, 0.5, 0.5])])
    True
    """
    done = len(curve)
    if done < max(FIRST_EPOCHS, FIRST_SHARE * epochs) or done >= epochs:
        return False
    return any(
        len(other) >= done
        and other[done - 1] >= curve[-1] + MARGIN
        and all(spent.get(name, value + 1) <= value for name, value in costs.items())
        for spent, other in others
    )
