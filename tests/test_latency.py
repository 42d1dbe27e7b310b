"""Latency as a cost: curves by hand, layers as LiteRT has them, and plans by measured time."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small import SHAPE, small

import pretrim
from pretrim.cost.costs import cost as cost_of
from pretrim.errors import BudgetError, InfeasibleBudget, MeasureError, UsageError
from pretrim.latency import (
    PROVIDERS,
    LatencyKey,
    latency_cost,
    litert_layers,
    load_table,
    measure_table,
    measured_cost,
    onnx_layers,
    wanted_axes,
)
from pretrim.latency.layers import timed_layers
from pretrim.latency.table import Correction, Curve, Table, axis_of, cache_folder, save_table
from pretrim.measure.record import MARK, Machine
from pretrim.models.resolve import build, resolve

HERE = LatencyKey("here", "litert", "float32", "CPU", 1)
ONNX = LatencyKey("here", "onnx", "float32", PROVIDERS["onnx"], 1)


@pytest.fixture
def network() -> pretrim.Network:
    return pretrim.analyze(small(), torch.zeros(1, *SHAPE))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test reads or writes the user's tables."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def by_macs(network: pretrim.Network, aligned: int = 8) -> Table:
    """A table in which each layer takes a nanosecond a multiply-accumulate, and other layers nothing."""
    curves = {}
    for kind, axes in wanted_axes(network).items():
        given = kind.settings
        if kind.kind in ("conv", "depthwise"):
            height, width = given["height"], given["width"]
            if not given["same"]:  # the input is padded, or the kernel is 1
                height, width = height - given["kernel"][0] + 1, width - given["kernel"][1] + 1
            places = -(-height // given["stride"][0]) * -(-width // given["stride"][1])
            factor = places * given["kernel"][0] * given["kernel"][1]
        else:
            factor = 1 if kind.kind == "linear" else 0
        grid = np.ones([len(axis) for axis in axes]) * factor * 1e-9
        for place, axis in enumerate(axes):
            grid = grid * np.array(axis, float).reshape([-1 if n == place else 1 for n in range(len(axes))])
        curves[kind.key] = Curve(axes, grid, aligned)
    return Table(HERE, {}, 0.0, curves)


def test_layers_by_hand(network: pretrim.Network) -> None:
    layers, left_out = timed_layers(network)
    assert left_out == []
    assert [layer.kind.kind for layer in layers] == [
        "conv",
        "pad",
        "conv",
        "depthwise",
        "conv",
        "add",
        "mean",
        "linear",
    ]
    down = layers[2].kind.settings
    assert (down["height"], down["kernel"], down["stride"], down["same"]) == (18, [3, 3], [2, 2], False)
    assert [len(layer.widths) for layer in layers] == [2, 1, 2, 1, 2, 1, 1, 2]


def test_a_table_that_counts_macs_gives_macs_and_the_plans_of_that_mode(
    network: pretrim.Network,
) -> None:
    """Interpolation between two widths is exact for products of them, once they are not rounded up."""
    cost = latency_cost(network, by_macs(network, aligned=1))
    macs = cost_of(network, "macs")
    rows = np.array([network.dense, np.maximum(network.dense // 2 // 8 * 8, 1)])
    assert cost(rows).tolist() == macs(rows).tolist()
    for seed in range(5):
        by_time = network.plan(latency="0.5x", mode="latency", costs={"latency_ns": cost}, seed=seed, draws=1)
        assert by_time.widths.tolist() == network.plan(macs="0.5x", mode="macs", seed=seed).widths.tolist()
    assert by_time.device is not None
    assert by_time.device["slim"]["latency_ns"] <= 0.5 * by_time.device["dense"]["latency_ns"]
    assert pretrim.Plan.from_json(by_time.to_json()).device == by_time.device
    # A limit on something else, by the shares of time.
    assert network.plan(macs="0.5x", mode="latency", costs={"latency_ns": cost}).slim["macs"] <= 0.5 * int(
        macs(network.dense)
    )


def test_the_mode_latency_takes_the_fastest_of_many_draws() -> None:
    torch.manual_seed(0)
    module = build(resolve("resnet20", num_classes=10, input_shape=(3, 32, 32)))
    resnet = pretrim.analyze(module, torch.zeros(1, 3, 32, 32))
    cost = latency_cost(resnet, by_macs(resnet))
    options = {"params": "0.5x", "mode": "latency", "costs": {"latency_ns": cost}}
    single = [resnet.plan(**options, draws=1, seed=seed) for seed in range(16)]
    chosen = resnet.plan(**options)
    times = [int(cost(made.widths)) for made in single]
    assert int(cost(chosen.widths)) <= min(times) < max(times)
    assert chosen.slim["params"] >= 0.98 * max(made.slim["params"] for made in single)  # the budget is used


def test_a_limit_in_milliseconds(network: pretrim.Network) -> None:
    cost = latency_cost(network, by_macs(network))
    limit = int(cost(network.dense)) // 2
    assert int(cost(network.plan(latency=f"{limit}ns", costs={"latency_ns": cost}).widths)) <= limit
    assert int(cost(network.plan(latency=f"{limit * 1e-6}ms", costs={"latency_ns": cost}).widths)) <= limit
    with pytest.raises(
        InfeasibleBudget, match=r"^latency 1ns cannot be met; the narrowest network needs [\d.]+ ms: raise"
    ):
        network.plan(latency="1ns", costs={"latency_ns": cost})
    with pytest.raises(BudgetError, match=r"the dense network needs [\d.]+ ms and meets latency 9s as it is"):
        network.plan(latency="9s", costs={"latency_ns": cost})
    with pytest.raises(UsageError, match=r"Expected latency to be an amount such as '5ms' .* got '5'"):
        network.plan(latency="5", costs={"latency_ns": cost})
    with pytest.raises(UsageError, match="needs a latency that was measured, and none was given"):
        network.plan(latency="5ms")
    with pytest.raises(UsageError, match="Expected a measured latency for the mode latency"):
        network.plan(macs="0.5x", mode="latency")


def test_curves_by_hand() -> None:
    curve = Curve(((8, 16), (8, 24)), np.array([[1.0, 3.0], [2.0, 6.0]]))
    assert curve(np.array([[8, 8], [16, 24], [8, 16], [12, 8], [99, 99]])).tolist() == [1.0, 6.0, 2.0, 2.0, 6.0]
    line = Curve(((1, 8, 32),), np.array([0.0, 7.0, 31.0]))
    assert line(np.array([[1], [4], [8], [9], [20]])).tolist() == [0.0, 3.0, 7.0, 15.0, 23.0]  # 9 takes the time of 16


def test_axes() -> None:
    assert axis_of(10, is_fixed=True) == (10,)
    assert axis_of(6, is_fixed=False) == (1, 6)
    long = axis_of(1280, is_fixed=False)
    assert len(long) == 6 and long[0] == 1 and long[-1] == 1280


def test_a_correction_bends_the_sum() -> None:
    assert Correction(2.0, 1.5)(np.array([4.0])).tolist() == [16.0]


@pytest.mark.parametrize("int8", [False, True], ids=["float32", "int8"])
def test_every_layer_runs_and_has_the_shape_of_the_network(network: pretrim.Network, int8: bool) -> None:
    from ai_edge_litert.interpreter import Interpreter

    for kind, axes in wanted_axes(network).items():
        widths = tuple(axis[-1] for axis in axes)
        written = litert_layers.model_of(kind, widths, int8=int8)
        interpreter = Interpreter(model_content=written.content)
        interpreter.allocate_tensors()
        interpreter.invoke()
        given, made = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
        assert tuple(given["shape"]) == written.shape
        assert given["dtype"] == (np.int8 if int8 else np.float32)
        assert made["shape"][-1] == widths[-1]


@pytest.mark.parametrize("kind_of", ["float32", "uint8", "int8"])
def test_every_layer_of_onnx_runs_as_one_operator(network: pretrim.Network, kind_of: str) -> None:
    """ONNX Runtime's optimiser must find integer arithmetic in it: the model it would run is read back."""
    import onnx
    import onnxruntime

    wanted = wanted_axes(network, "onnx")
    assert "pad" not in {kind.kind for kind in wanted}
    for kind, axes in wanted.items():
        widths = tuple(axis[-1] for axis in axes)
        written = onnx_layers.model_of(kind, widths, int8=kind_of != "float32", signed=kind_of == "int8")
        onnx.checker.check_model(onnx.load_from_string(written.content))
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(cache_folder().parent / "run.onnx")
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.add_session_config_entry("session.qdqisint8allowed", "1")  # as on ARM, which int8 is for
        cache_folder().parent.mkdir(parents=True, exist_ok=True)
        session = onnxruntime.InferenceSession(written.content, options, providers=[PROVIDERS["onnx"]])
        pixels = np.zeros(written.shape, written.data_type)
        made = session.run(None, {given.name: pixels for given in session.get_inputs()})[0]
        assert made.dtype == np.dtype(kind_of) and made.shape[1] == widths[-1]
        if kind.kind in ("conv", "depthwise"):
            given = kind.settings
            image, kernel = torch.zeros(1, 1, given["height"], given["width"]), torch.zeros(1, 1, *given["kernel"])
            how = {"stride": given["stride"], "padding": "same" if given["same"] else "valid"}
            assert made.shape[2:] == torch.nn.functional.conv2d(image, kernel, **how).shape[2:]
        run = [node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node]
        if kind.kind != "mean" and kind_of != "float32":  # ONNX Runtime takes means in float32
            assert not {"DequantizeLinear", "QuantizeLinear"} & set(run), (kind.kind, run)


def test_a_table_is_measured_kept_and_not_measured_again(network: pretrim.Network) -> None:
    cost = measured_cost(network, small(), HERE)
    assert int(cost(network.dense)) > 0
    assert 1 / 1.5 <= cost.correction.exponent <= 1.5
    assert cost.left_out == ()
    rows = np.array([network.dense, np.maximum(network.dense // 2, 1)])
    assert cost(rows)[1] <= cost(rows)[0]  # never slower when narrower
    assert cost.by_layer(rows).shape == (2, len(network.layers))

    def never(*_: Any) -> str:
        raise AssertionError("it was measured again")

    again = measured_cost(network, small(), HERE, ask=never)
    assert again(rows).tolist() == cost(rows).tolist()


def test_progress_is_told(network: pretrim.Network) -> None:
    told: list[tuple[int, int]] = []
    wanted = {kind: tuple(axis[-1:] for axis in axes) for kind, axes in wanted_axes(network).items()}
    measure_table(HERE, wanted, progress=lambda done, of: told.append((done, of)))
    assert told == [(len(wanted) + 1, len(wanted) + 1)]


def test_tables_that_are_damaged(network: pretrim.Network) -> None:
    table = by_macs(network)
    save_table(table)
    found = load_table(HERE)
    assert found is not None and found.to_json() == table.to_json()
    assert load_table(replace(HERE, device="elsewhere")) is None
    file = cache_folder() / f"{HERE.slug}.json"
    for text in (
        "{",
        "[]",
        json.dumps({**table.to_json(), "version": 9}),
        json.dumps({**table.to_json(), "curves": 1}),
        json.dumps({**table.to_json(), "start_s": "nan"}),
        json.dumps({**table.to_json(), "corrections": {"x": [1.0, float("nan")]}}),
        json.dumps({**table.to_json(), "place": {**table.to_json()["place"], "runtime": "executorch"}}),
        json.dumps({**table.to_json(), "place": {**table.to_json()["place"], "device": "elsewhere"}}),
    ):
        file.write_text(text)
        with pytest.raises(MeasureError, match=f"Cannot read the latency table {file}: remove it"):
            load_table(HERE)


def test_a_cache_that_cannot_be_written_is_told_before_anything_is_measured(
    network: pretrim.Network, cache: Path
) -> None:
    (cache / "pretrim").symlink_to("/proc/nowhere")

    def never(*_: Any) -> str:
        raise AssertionError("it was measured")

    with pytest.raises(MeasureError, match=r"Cannot keep a latency table in .*Set XDG_CACHE_HOME"):
        measured_cost(network, small(), HERE, ask=never)


@pytest.mark.parametrize(("padded_to", "aligned"), [(1, 8), (8, 8), (16, 16), (64, 8)])
def test_what_kernels_pad_to_is_found(network: pretrim.Network, padded_to: int, aligned: int) -> None:
    """A runtime that takes a nanosecond a multiply-accumulate of padded widths; what it is given is read back."""
    import onnx

    def ask(request: dict[str, Any], files: Sequence[Path]) -> str:
        results = []
        for file in files:
            graph = onnx.load(file).graph
            out, reads = next((list(one.dims)[:2] for one in graph.initializer if len(one.dims) == 4), (1, 1))
            seconds = 1e-9 * (-(-out // padded_to) * padded_to) * (-(-reads // padded_to) * padded_to)
            results.append({"provider": "x", "samples_s": [seconds], "energy_j": None, "energy_source": None})
        record = {"machine": dict.fromkeys(Machine.__annotations__, "x") | {"cores": 1}, "results": results}
        return MARK + json.dumps(record | {"memory_before_bytes": None, "memory_peak_bytes": None})

    wanted = {kind: axes for kind, axes in wanted_axes(network, "onnx").items() if kind.kind == "conv"}
    table = measure_table(ONNX, wanted, ask=ask)
    assert table.aligned == aligned
    assert Table.from_json(table.to_json()).aligned == aligned
    assert {curve.aligned for curve in table.curves.values()} == {aligned}


def test_places_without_tables() -> None:
    with pytest.raises(
        UsageError, match="Expected latency of litert or onnx in float32 or int8, but got executorch in float32"
    ):
        LatencyKey("here", "executorch", "float32", "CPU", 1)
    assert "/" not in replace(HERE, device="../../etc").slug
