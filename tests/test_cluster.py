"""A real Ray cluster of two nodes on this machine, one of which is killed during the sweep."""

import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_study import ASKED, SETTINGS, results

from pretrim.errors import UsageError
from pretrim.study.cluster import sweep_on_ray
from pretrim.study.sweep import Status, make_study, sweep

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.filterwarnings("ignore")  # Ray issues warnings of its own


def test_a_sweep_survives_the_loss_of_a_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_health_check_period_ms", "500")
    monkeypatch.setenv("RAY_health_check_failure_threshold", "2")
    settings = replace(SETTINGS, recipe=replace(SETTINGS.recipe, epochs=6))
    local_folder, cluster_folder = tmp_path / "alone", tmp_path / "cluster"
    local_store = make_study(local_folder, settings)
    local_store.add(ASKED)
    sweep(local_folder, local_store)

    store = make_study(cluster_folder, settings)
    store.add(ASKED)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    second: Any = cluster.add_node(num_cpus=1)
    statuses: list[Status] = []
    killed = threading.Event()

    def kill(status: Status) -> None:
        statuses.append(status)
        if status.counts["done"] >= 1 and not killed.is_set():
            killed.set()
            threading.Thread(target=cluster.remove_node, args=(second,), kwargs={"allow_graceful": False}).start()

    try:
        sweep_on_ray(cluster_folder, store, cluster.address, on_status=kill)
    finally:
        time.sleep(0.5)
        cluster.shutdown()
    assert killed.is_set()
    assert max(status.counts["running"] for status in statuses) == 2, "both nodes were used"
    assert store.counts() == {"waiting": 0, "running": 0, "done": len(ASKED), "failed": 0, "stopped": 0}
    assert results(store) == results(local_store)
    assert len(list((cluster_folder / "trials").glob("*/run.json"))) == len(ASKED)
    assert sum(len(status.finished) for status in statuses) == len(ASKED)


def test_a_missing_cluster_is_refused(tmp_path: Path) -> None:
    store = make_study(tmp_path / "study", SETTINGS)
    with pytest.raises(UsageError, match=r"No Ray cluster at '127\.0\.0\.1:1'"):
        sweep_on_ray(tmp_path / "study", store, "127.0.0.1:1")
