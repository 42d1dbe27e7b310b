"""Write the report of a study of which only `trials.jsonl` is kept, as in docs/studies/.

    cd docs/studies/cifar10-resnet20
    python ../../../scripts/report_of_trials.py trials.jsonl resnet20 CIFAR-10 3x16x16 10 report.html

Layers, groups and shares come from an analysis of the model; accuracies, costs and widths come from the file.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from pretrim.cost.costs import MODES, layer_terms
from pretrim.cost.formula import formula
from pretrim.models.dense import open_model
from pretrim.report import Shown, contents, write_page
from pretrim.study.rows import Trial
from pretrim.study.settings import TrialSpec


def read(file: Path) -> list[Trial]:
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return [
        Trial(row["key"], number, TrialSpec.from_json(row["asked"]), row["state"], record=row)
        for number, row in enumerate(rows)
    ]


def described(model: str, data: str, shape: tuple[int, ...], classes: int) -> dict[str, Any]:
    """The description of the network that `study.description` stores in a study's folder."""
    dense = open_model(model, shape, classes)
    network = dense.network
    values_of_mode = {mode: formula(network, layer_terms(network, mode))(network.dense[None])[0] for mode in MODES}
    return {
        "model": dense.name,
        "input_shape": list(shape),
        "classes": [str(number) for number in range(classes)],
        "data": data,
        "groups": [group.name for group in network.groups],
        "channels": [int(width) for width in network.dense],
        "layers": [layer.name for layer in network.layers],
        "shares": {
            mode: [float(value) / float(layer_values.sum()) for value in layer_values]
            for mode, layer_values in values_of_mode.items()
        },
    }


def main() -> None:
    file, model, data, shape, classes, page = sys.argv[1:]
    network = described(model, data, tuple(int(size) for size in shape.split("x")), int(classes))
    study = Shown(Path(file).resolve().parent.name, read(Path(file)), network)
    write_page(Path(page), f"{study.name}: trade-off", contents(study))


if __name__ == "__main__":
    main()
