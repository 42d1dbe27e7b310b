"""When a trial is hopeless. Optuna's pruners refuse studies with several objectives, so the rule is ours.

A trial stops after an epoch if another one, which costs at most as much in every resource, was more accurate by
:data:`MARGIN` after the same epoch, and a quarter of the epochs (at least 3) are over. Cheaper and better by so much:
it would be on no front. A late bloomer can be lost; the margin is wide for that reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

MARGIN = 0.10
"""of accuracy"""
FIRST_SHARE, FIRST_EPOCHS = 0.25, 3

Curve = Sequence[float]


def is_hopeless(
    costs: Mapping[str, int], curve: Curve, epochs: int, others: Iterable[tuple[Mapping[str, int], Curve]]
) -> bool:
    """Whether a trial should stop.

    Args:
        costs: of its plan.
        curve: its validation accuracies so far, epoch by epoch.
        epochs: of the whole training.
        others: costs and curves of trials that are done.

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
