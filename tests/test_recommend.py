"""What a study recommends, by hand; scores; and ten thousand trials."""

import time

import numpy as np
import pytest
import torch
from torch import nn

from pretrim.errors import UsageError
from pretrim.study.recommend import Candidate, recommend, to_json
from pretrim.study.scores import SCORES, naswot, synflow, zico


def candidate(key: str, validation: float, **takes: float) -> Candidate:
    return Candidate(key, f"name {key}", 0, validation, validation - 0.01, {"macs": 1.0, **takes})


FOUND = [
    candidate("tiny", 0.60, ram=10, flash=10),
    candidate("small", 0.70, ram=20, flash=20),
    candidate("wide", 0.75, ram=40, flash=15),
    candidate("deep", 0.78, ram=15, flash=60),
    candidate("dense", 0.80, ram=50, flash=90),
]


def test_the_best_within_every_limit_and_what_more_would_buy() -> None:
    found = recommend(FOUND, {"ram": 20, "flash": 20})
    assert found.best is not None and found.next_best is not None
    assert (found.best.key, found.next_best.key, found.fitting, found.of) == ("small", "tiny", 2, 5)
    assert [(buy.resource.name, buy.more, round(buy.gain, 3), buy.candidate.key) for buy in found.buys] == [
        ("ram", 20, 0.05, "wide"),
        ("flash", 40, 0.08, "deep"),
    ]
    assert found.relax == ()
    plain = to_json(found)
    assert plain["best"]["test_accuracy"] == pytest.approx(0.69)
    assert "test_accuracy" not in plain["next_best"]


def test_without_limits_and_among_equals() -> None:
    assert recommend(FOUND, {}).best == FOUND[-1]
    equal = [candidate("a", 0.5, params=2), Candidate("b", "b", 0, 0.5, 0.5, {"macs": 0.5})]
    chosen = recommend(equal, {}).best
    assert chosen is not None and chosen.key == "b", "fewer MACs"


def test_where_nothing_fits_it_says_which_limit_alone_is_in_the_way() -> None:
    found = recommend(FOUND, {"ram": 5, "flash": 20})
    assert found.best is None
    assert [(one.resource.name, one.limit, one.needed, one.candidate.key) for one in found.relax] == [
        ("ram", 5, 10, "tiny")
    ]
    assert recommend(FOUND, {"ram": 5, "flash": 5}).relax == ()
    assert recommend([], {"ram": 5}).of == 0


def test_what_is_not_known_does_not_fit() -> None:
    with pytest.raises(UsageError, match="Expected trials with a known latency, but there are none: sweep"):
        recommend(FOUND, {"latency": 1.0})
    with pytest.raises(UsageError, match=r"Expected limits on params, macs, .* but got 'colour'"):
        recommend(FOUND, {"colour": 1.0})
    timed = [*FOUND, candidate("timed", 0.1, latency=0.5)]
    chosen = recommend(timed, {"latency": 1.0}).best
    assert chosen is not None and chosen.key == "timed"


# ---------------------------------------------------------------------------------------- scores


def narrow(width: int) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, width, 3),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, 3),
    )


IMAGES, LABELS = torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(16) % 3


def test_naswot_by_hand() -> None:
    """Two units: image 0 has the code (1, 0), image 1 (1, 1), so they agree in one unit of two."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False), nn.ReLU())
    model[1].weight.data = torch.eye(2)
    images = torch.tensor([[[[1.0, -1.0]]], [[[1.0, 1.0]]]])
    expected = np.linalg.slogdet(np.array([[2.0, 1.0], [1.0, 2.0]]))[1]
    assert naswot(model, images, LABELS[:2]) == pytest.approx(expected)
    with pytest.raises(UsageError, match="Expected a network with ReLU modules for the score naswot"):
        naswot(nn.Flatten(), images, LABELS)


def test_synflow_by_hand() -> None:
    """For layers without bias every layer's flow is the product of all weights, summed: two layers, twice that."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False))
    first, second = torch.tensor([[1.0, -2.0], [3.0, 4.0]]), torch.tensor([[-5.0, 6.0]])
    model[1].weight.data, model[3].weight.data = first.clone(), second.clone()
    flow = float((second.abs() @ first.abs()).sum())
    assert synflow(model, torch.zeros(1, 1, 1, 2), LABELS[:1]) == pytest.approx(np.log(2 * flow))
    assert torch.equal(model[1].weight, first) and torch.equal(model[3].weight, second), "the signs are back"


def test_zico_by_hand() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3, bias=False))
    images = torch.randn(8, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(8) % 3
    pair = []
    for part in (slice(0, 4), slice(4, 8)):
        x = images[part].reshape(4, 4)
        slope = torch.softmax(x @ model[1].weight.T, dim=1) - nn.functional.one_hot(labels[part], 3)
        pair.append((slope.T @ x / 4).abs().detach().numpy().ravel())
    mean, deviation = (pair[0] + pair[1]) / 2, np.abs(pair[0] - pair[1]) / 2
    assert zico(model, images, labels) == pytest.approx(np.log((mean / deviation).sum()), rel=1e-4)


@pytest.mark.parametrize("name", SCORES)
def test_wider_networks_score_higher_and_weights_stay(name: str) -> None:
    model = narrow(16)
    before = {
        key: value.clone() for key, value in model.state_dict().items() if "running" not in key and "num" not in key
    }
    wide = SCORES[name](model, IMAGES, LABELS)
    assert wide > SCORES[name](narrow(2), IMAGES, LABELS)
    after = model.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())


def test_a_front_of_many_points_takes_no_time() -> None:
    """The goal is 1 s for 100,000; benchmarks/study.py measures it. Here: it is not quadratic."""
    from pretrim.study.pareto import front

    random = np.random.default_rng(0)
    start = time.process_time()
    assert 0 < front(random.random((100_000, 2)), random.random(100_000)).sum() < 1000
    assert time.process_time() - start < 30
