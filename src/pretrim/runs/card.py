"""The model card of a run, README.md: the network, how it was trimmed, its costs, and how to load it.

It follows the format of the Hugging Face hub: Markdown under a YAML header. The licence is left to the owner. Names are
untrusted, so they are escaped: nothing in them is read as Markdown, HTML or YAML.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pretrim.files import write_text
from pretrim.train import Metric

from .record import CARD, RunRecord

HERE = "."
"""Location of the run in its card until the run is pushed."""
EXPORTS_BEGIN, EXPORTS_END = "<!-- exports -->", "<!-- /exports -->"
"""`export` only writes between these marks, so the rest of the card may be edited."""
CLASSIFICATION = "image-classification"
COSTS = {
    "params": ("parameters", False),
    "macs": ("MACs", False),
    "weight_bytes": ("weights", True),
    "activation_bytes": ("all feature maps", True),
    "peak_activation_bytes": ("peak of the activations", True),
    "artifact_bytes": ("int8 .tflite, predicted", True),
    "arena_bytes": ("tensor arena, predicted", True),
}
"""Title of each cost, and whether it is in bytes."""
SETTINGS = {"epochs": "epochs", "batch_size": "batches of", "learning_rate": "learning rate up to"}


def model_card(record: RunRecord, where: str = HERE) -> str:
    """Write the card as text.

    Args:
        record: the record of the run.
        where: the argument for `pretrim.open_run`: the folder, or ``hf:OWNER/NAME``.
    """
    parts = [
        _header(record),
        f"# {plain(_title(record))}\n\n{_summary(record)}",
        f"## Before and after\n\n{_costs(record)}",
        f"## How it was trimmed\n\n{_trimming(record)}",
        f"## How it was trained\n\n{_training(record)}",
        *([f"## On the device\n\n{device}"] if (device := _device(record)) else []),
        f"## Load it\n\n{_loading(record, where)}",
        f"## Exported files\n\n{EXPORTS_BEGIN}\nNone yet: `pretrim export` adds them.\n{EXPORTS_END}",
        "## Licence\n\nTo be filled in by the owner, for the weights, the network's definition, and the data that it "
        "was trained on. The hub shows `license` from the header.",
    ]
    return "\n\n".join(parts) + "\n"


def list_exports(folder: Path, artifacts: Sequence[Mapping[str, Any]]) -> bool:
    """List the artifacts of a run in its card, and leave the rest of the card unchanged.

    Args:
        folder: the run folder.
        artifacts: records with ``file``, ``runtime``, ``data_type``, ``file_bytes``, ``sha256`` and ``proof``.

    Returns False without writing if there is no card, or if the card lacks the marks.
    """
    try:
        text = (folder / CARD).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return False
    before, begin, rest = text.partition(EXPORTS_BEGIN)
    _, end, after = rest.partition(EXPORTS_END)
    if not begin or not end:
        return False
    rows = [
        (
            plain(artifact["file"]),
            plain(f"{artifact['runtime']}, {artifact['data_type']}"),
            _size(artifact["file_bytes"]),
            "not proved" if artifact["proof"].get("failed") else "computes the same as PyTorch",
            f"`{artifact['sha256'][:12]}`",
        )
        for artifact in artifacts
    ]
    table = _table(("file", "runtime", "size", "verification", "SHA-256"), rows)
    write_text(folder / CARD, f"{before}{begin}\n{table}\n{end}{after}")
    return True


def plain(text: object) -> str:
    """Escape untrusted text for Markdown and HTML, and put it on one line.

    >>> plain("<b>|x|_y_")
    '&lt;b&gt;\\\\|x\\\\|\\\\_y\\\\_'
    """
    line = " ".join(str(text).split())
    escaped = re.sub(r"([\\`*_{}\[\]|#!~])", r"\\\1", line.replace("&", "&amp;"))
    return escaped.replace("<", "&lt;").replace(">", "&gt;")


# ------------------------------------------------------------------------------------------------ parts


def _title(record: RunRecord) -> str:
    return f"{_model(record)}, trimmed for {_data(record)}"


def _model(record: RunRecord) -> str:
    return "a network" if record.reference is None else record.reference.name


def _data(record: RunRecord) -> str:
    return str((record.data or {}).get("name", "its data"))


def _task(record: RunRecord) -> str:
    """The hub's name of the task, or `other` if it has none."""
    metric = Metric.from_json((record.results or {}).get("metric"))
    return CLASSIFICATION if metric.name == "accuracy" and record.classes is not None else "other"


def _header(record: RunRecord) -> str:
    """The YAML header. Texts are written as JSON, which is valid YAML."""
    name, results = json.dumps(_title(record)), record.results or {}
    lines = [
        "---",
        "license: unknown  # the owner chooses: https://huggingface.co/docs/hub/repositories-licenses",
        "library_name: pretrim",
        *([f"pipeline_tag: {_task(record)}"] if _task(record) == CLASSIFICATION else []),
        "tags: [pretrim, pruning]",
    ]
    metric = Metric.from_json(results.get("metric"))
    if results.get(f"test_{metric.name}") is not None:
        data, kind = json.dumps(_data(record)), json.dumps(metric.name)
        value = f"{results[f'test_{metric.name}']:.6g}"
        lines += [
            "model-index:",
            f"- name: {name}",
            "  results:",
            f"  - task: {{type: {json.dumps(_task(record))}}}",
            f"    dataset: {{name: {data}, type: {data}}}",
            f"    metrics: [{{type: {kind}, name: Test {metric.title}, value: {value}}}]",
        ]
    return "\n".join([*lines, "---"])


def _summary(record: RunRecord) -> str:
    plan = record.plan
    shares = [
        f"{100 * plan.slim[cost] / plan.dense[cost]:.1f} % of the {COSTS[cost][0]}" for cost in ("params", "macs")
    ]
    about = ""
    if record.classes is not None and record.input_shape is not None:
        about = f" for {len(record.classes)} classes of images of {'x'.join(map(str, record.input_shape))}"
    return (
        f"A slim {plain(_model(record))}{about}, with {' and '.join(shares)} of the dense network. "
        f"[pretrim](https://arxiv.org/abs/2208.12816) {plain(record.versions.get('pretrim', ''))} trimmed it before it "
        f"was trained; it was trained once."
    )


def _costs(record: RunRecord) -> str:
    plan, device, results = record.plan, record.plan.device or {}, record.results or {}
    metric = Metric.from_json(results.get("metric"))
    dense_results = results.get("dense") or {"test": results.get("inherited", {}).get("dense_test")}
    rows: list[Sequence[str]] = [
        (f"{part} {metric.title}", score(dense_results.get(part), metric), score(results.get(part), metric), "")
        for part in ("test", "validation")
        if results.get(part)
    ]
    dense, slim = ({**costs, **device.get(name, {})} for name, costs in (("dense", plan.dense), ("slim", plan.slim)))
    for cost, (title, is_bytes) in COSTS.items():
        if cost in slim and dense.get(cost):
            shown = [_size(values[cost]) if is_bytes else f"{values[cost]:,}" for values in (dense, slim)]
            rows.append((title, *shown, f"{100 * slim[cost] / dense[cost]:.1f} %"))
    return _table(("", "dense", "slim", "kept"), rows)


def score(evaluation: Mapping[str, Any] | None, metric: Metric) -> str:
    """A score with its 95 % interval, if any, and the number of images; a dash if it is not known."""
    if not evaluation or evaluation.get(metric.name) is None:
        return "-"
    ends = evaluation.get("interval_95")
    interval = f"95 %: {metric.show(ends[0])} to {metric.show(ends[1])}, " if ends else ""
    return f"{metric.show(evaluation[metric.name])} ({interval}n = {evaluation['images']:,})"


def _trimming(record: RunRecord) -> str:
    plan, options = record.plan, record.plan.options or {}
    limits = ", ".join(f"{plain(cost)} at most {plain(text)}" for cost, text in plan.limits.items()) or "none"
    how = f"mode {plain(plan.method)}" if plan.method else "given by hand"
    if "round_to" in options:
        how += f", filters in multiples of {plain(options['round_to'])}"
    rows = [(plain(group.name), str(group.channels), str(group.kept)) for group in plan.groups]
    head = f"Limits: {limits}. Widths: {how}."
    return f"{head}\n\n{_table(('layer (the first of those with the same filters)', 'dense', 'kept'), rows)}"


def _training(record: RunRecord) -> str:
    results, data = record.results or {}, record.data or {}
    if not results.get("epochs"):
        return "Not by pretrim, or it was not recorded."
    recipe, sizes = results.get("recipe") or {}, data.get("sizes") or {}
    images = ", ".join(f"{count:,} {plain(part)}" for part, count in sizes.items())
    settings = [f"{SETTINGS[name]} {recipe[name]:g}" for name in SETTINGS if name in recipe]
    lines = [f"Data: {plain(data.get('source', _data(record)))}{f' ({images} images)' if images else ''}."]
    lines += [f"Recipe: {len(results['epochs'])} epochs, {', '.join(settings[1:])}."] if settings else []
    lines += [f"Warning: {plain(warning)}" for warning in results.get("warnings", ())]
    return "\n\n".join(lines)


def _device(record: RunRecord) -> str:
    """What the plan states about its board."""
    device = record.plan.device or {}
    lines = [f"Made for {plain(device['name'])}."] if device.get("name") else []
    lines += [plain(device["arena_text"])] if device.get("arena_text") else []
    for time in device.get("times", ()):
        if time.get("slim_ns") is not None:
            dense = f", dense {time['dense_ns'] / 1e6:.3g} ms" if time.get("dense_ns") is not None else ""
            lines.append(
                f"Latency, {plain(time['source'])}: {time['slim_ns'] / 1e6:.3g} ms{dense} ({plain(time['label'])})."
            )
    return "\n\n".join(lines)


def _loading(record: RunRecord, where: str) -> str:
    """Three lines of code that run as printed, and a note."""
    trusted = record.reference is not None and record.reference.trusted
    model = "" if trusted else f", model={json.dumps(_source(record))}"
    images = "images" if record.as_given else '["image.png"]'
    use = f"print(run.predict({images}))" if record.classes is not None else "print(run.model)"
    lines = ["import pretrim", f"run = pretrim.open_run({json.dumps(where)}{model})", use]
    note = "" if trusted else "\n\n`model` names the dense network's own definition, which is executed."
    if record.as_given:
        note += "\n\n`images` are float tensors, N x C x H x W, as the data set of the training gave them."
    return "```python\n" + "\n".join(lines) + f"\n```{note}"


def _source(record: RunRecord) -> str:
    return "FILE.py:FUNCTION" if record.reference is None else record.reference.name


def _size(count: float) -> str:
    return f"{count / 1024:,.1f} KiB"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
