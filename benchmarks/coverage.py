"""Claim: pretrim halves the MACs of nearly every CNN of torchvision and timm, exactly, and reports what it froze.

The same holds for 31 networks of other tasks (`other_tasks.py`: detection, segmentation, video, audio, recurrent
networks). The planned MACs and parameters, dense and slim, must equal torch's own counts; otherwise the command fails.

For each network, untrained, at its own input size: the CPU seconds to trace, plan and apply at `macs="0.5x"`, and the
share of the MACs in frozen layers. At 96 px if the network runs at that size (otherwise at its own size): whether the
slim network gives the outputs of the masked dense network (in float64, with every parameter and buffer randomised
first; networks with operators that reduce over pruned channels are exempt, and those operators are named), the shape of
the outputs, and one forward and backward pass in train mode. With `--peer`, Torch-Pruning 1.6.1 prunes the same network
by a ratio of 0.3 (about half the MACs; it takes no budget), with the classifier ignored as its documentation says; it
is stopped after 30 s. Without `--peer`, its last record is kept.

    python benchmarks/coverage.py                    # all networks, about an hour on 2 cores; resumable
    python benchmarks/coverage.py --again            # repeat older measurements, too; resumable
    python benchmarks/coverage.py --only timm:resnet10t torchvision:resnet18
    python benchmarks/coverage.py --table            # write the Markdown table from the records

Needs torchvision and timm, and torch-pruning for `--peer` (`make benchmarks`). Records: results/coverage.jsonl.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from statistics import median
from typing import Any

import jsonl

HERE = Path(__file__).parent
RECORDS = HERE / "results" / "coverage.jsonl"
TABLE = HERE / "results" / "coverage.md"
PEER_SECONDS = 30
EXACT = 1e-10
TIMES = ("trace_s", "plan_s", "apply_s")

TORCHVISION = """alexnet convnext_tiny convnext_small convnext_base convnext_large densenet121 densenet161 densenet169
densenet201 efficientnet_b0 efficientnet_b1 efficientnet_b2 efficientnet_b3 efficientnet_b4 efficientnet_b5
efficientnet_b6 efficientnet_b7 efficientnet_v2_s efficientnet_v2_m efficientnet_v2_l googlenet inception_v3 mnasnet0_5
mnasnet0_75 mnasnet1_0 mnasnet1_3 mobilenet_v2 mobilenet_v3_large mobilenet_v3_small regnet_x_400mf regnet_x_800mf
regnet_x_1_6gf regnet_x_3_2gf regnet_x_8gf regnet_x_16gf regnet_x_32gf regnet_y_400mf regnet_y_800mf regnet_y_1_6gf
regnet_y_3_2gf regnet_y_8gf regnet_y_16gf regnet_y_32gf regnet_y_128gf resnet18 resnet34 resnet50 resnet101 resnet152
resnext50_32x4d resnext101_32x8d resnext101_64x4d shufflenet_v2_x0_5 shufflenet_v2_x1_0 shufflenet_v2_x1_5
shufflenet_v2_x2_0 squeezenet1_0 squeezenet1_1 vgg11 vgg11_bn vgg13 vgg13_bn vgg16 vgg16_bn vgg19 vgg19_bn
wide_resnet50_2 wide_resnet101_2""".split()
# One small network of each CNN family of timm 1.0 (one per kind of block where a family has several).
TIMM = """botnet26t_256 eca_botnext26ts_256 lambda_resnet26t halonet26t bat_resnext26ts eca_resnet33ts gcresnet33ts
seresnet33ts resnet33ts regnetz_b16 repvgg_a0 mobileone_s0 gernet_s ese_vovnet19b_dw eca_vovnet39b convmixer_768_32
convnext_atto convnext_atto_rms convnextv2_atto cs3darknet_focus_s cspresnet50 cspresnext50 cspdarknet53 darknet53
cspnext_tiny csatv2 densenet121 dla34 dla46_c dla60_res2net dpn48b dpn68 edgenext_xx_small efficientformer_l1
efficientformerv2_s0 efficientnet_b0 efficientnet_b0_gn efficientnet_es mixnet_s mnasnet_small mobilenetv2_050
spnasnet_100 fbnetc_100 tinynet_e rexnetr_200 cpubone_b0_bfrobust fasternet_t0 fastvit_t8 ghostnet_050 ghostnetv2_100
ghostnetv3_050 hardcorenas_a hgnet_tiny hgnetv2_b0 hrnet_w18_small iformer_t inception_next_atto inception_resnet_v2
inception_v3 inception_v4 lcnetv2_small lowformer_b0 mambaout_femto poolformer_s12 convformer_s18 fbnetv3_b lcnet_035
mobilenetv3_small_050 mobilenetv4_conv_small mobilenetv5_base mobilevit_xxs mobilevitv2_050 nasnetalarge nextvit_small
nf_regnet_b0 nf_resnet26 nf_ecaresnet26 dm_nfnet_f0 eca_nfnet_l0 pnasnet5large rdnet_tiny regnetx_002 regnety_002
regnetv_040 repghostnet_050 repvit_m0_9 res2net50_14w_8s res2next50 resnest14d resnet10t resnet14t resnetaa50
resnetblur50 resnetrs50 ecaresnet26t ecaresnetlight seresnext26d_32x4d seresnet18 resnetv2_18 resnetv2_50x1_bit
resnetv2_50d_gn rexnet_100 selecsls42 legacy_seresnet18 shvit_s1 skresnet18 starnet_s1 swiftformer_xs test_resnet
tresnet_m vgg11 visformer_tiny legacy_xception xception41 xception41p efficientvit_b0""".split()
DENSE_PREDICTION = """torchvision:fcn_resnet50 torchvision:deeplabv3_resnet50 torchvision:deeplabv3_mobilenet_v3_large
torchvision:lraspp_mobilenet_v3_large networks.py:unet networks.py:espcn""".split()


def all_names() -> list[str]:
    sys.path.insert(0, str(HERE))
    import other_tasks

    zoo = [f"torchvision:{n}" for n in TORCHVISION] + [f"timm:{n}" for n in TIMM] + DENSE_PREDICTION
    return zoo + [f"other_tasks.py:{n}" for n in other_tasks.NETWORKS]


# ---------------------------------------------------------------------------------------- one network


def measure(name: str, peer: bool = False) -> dict[str, Any]:
    """All measurements of one network; a failure is recorded as its error message."""
    import torch

    model, size = build(name)
    record: dict[str, Any] = {"name": name, "input": list(size), "params": sum(p.numel() for p in model.parameters())}
    torch.manual_seed(0)
    x = torch.randn(2, *size)
    try:
        record |= trim(model, x)
    except Exception as error:
        record["error"] = one_line(error)
    del model
    return {**record, "torch_pruning": torch_pruning(name, x)} if peer else record


def build(name: str) -> tuple[Any, tuple[int, ...]]:
    """The untrained network and the input size it is designed for."""
    import torch

    from pretrim.models import zoo

    torch.manual_seed(0)
    kind, _, architecture = name.partition(":")
    if kind == "timm":
        model = zoo.timm().create_model(architecture, pretrained=False)
        return model, tuple(model.pretrained_cfg["input_size"])
    if kind == "torchvision":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # googlenet and inception warn of a change in their initialisation
            extra = {"weights_backbone": None} if name in DENSE_PREDICTION else {}
            model = zoo.torchvision().models.get_model(architecture, weights=None, **extra)
        side = 299 if architecture == "inception_v3" else 224
        return model, (3, side, side)
    sys.path.insert(0, str(HERE))
    import networks
    import other_tasks

    if kind == "other_tasks.py":
        make, shape = other_tasks.NETWORKS[architecture]
        return make(), shape
    return getattr(networks, architecture)(), (3, 96, 96)


def trim(model: Any, x: Any) -> dict[str, Any]:
    import torch

    import pretrim
    from pretrim.cost.costs import layer_costs

    start = time.process_time()
    network = pretrim.analyze(model, x[:1])
    traced = time.process_time()
    try:
        plan = network.plan(macs="0.5x")
    except pretrim.PretrimError as error:
        return {**frozen_share(network, layer_costs), "trace_s": traced - start, "error": one_line(error)}
    planned = time.process_time()
    slim = plan.apply(model)
    applied = time.process_time()
    counts = count_differences(model, slim, plan, x[:1])
    x = small_enough(model.eval(), x)
    with torch.no_grad():
        before, after = shapes(model.eval()(x)), shapes(slim.eval()(x))
    slim.train()
    loss = sum(leaf.float().square().mean() for leaf in leaves(slim(x)))
    loss.backward()
    has_finite_gradients = all(p.grad is None or bool(torch.isfinite(p.grad).all()) for p in slim.parameters())
    del slim, loss
    return {
        **frozen_share(network, layer_costs),
        "trace_s": traced - start,
        "plan_s": planned - traced,
        "apply_s": applied - planned,
        "macs": plan.slim["macs"] / plan.dense["macs"],
        "params_left": plan.slim["params"] / plan.dense["params"],
        "same_shape": before == after,
        "trains": has_finite_gradients,
        **counts,
        **exactness(model, network, plan, x),
    }


def count_differences(model: Any, slim: Any, plan: Any, x: Any) -> dict[str, Any]:
    """torch's own counts of MACs and parameters, less the planned ones; without MACs if torch cannot count them."""
    params = [sum(p.numel() for p in network.parameters()) for network in (model, slim)]
    planned = (plan.dense, plan.slim)
    differences: dict[str, Any] = {
        "params_off": [n - costs["params"] for n, costs in zip(params, planned, strict=True)]
    }
    try:
        macs = [torch_macs(network, x) for network in (model, slim)]
    except Exception as error:
        return {**differences, "not_counted": one_line(error)}
    return {**differences, "macs_off": [n - costs["macs"] for n, costs in zip(macs, planned, strict=True)]}


def torch_macs(model: Any, x: Any) -> int:
    """Multiply-accumulates of one image by torch.utils.flop_counter, on the meta device."""
    import copy

    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    meta_model = copy.deepcopy(model).to("meta").eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        meta_model(x.to("meta"))
    return int(counter.get_total_flops()) // 2


def small_enough(model: Any, x: Any) -> Any:
    """The images cropped to 96 px, if the network runs on those in both modes: checks take seconds, not minutes."""
    import torch

    if x.dim() != 4 or min(x.shape[2:]) <= 96:
        return x
    try:
        with torch.no_grad():
            model.train()(x[:, :, :96, :96])
            model.eval()(x[:, :, :96, :96])
        return x[:, :, :96, :96].contiguous()
    except Exception:
        return x
    finally:
        model.eval()


def frozen_share(network: Any, layer_costs: Any) -> dict[str, Any]:
    """The share of the MACs in layers whose filters are all frozen, including the classifier, and the reasons."""
    rows = layer_costs(network, network.dense)
    frozen = {entry.layer: entry for entry in network.frozen}
    frozen_macs = sum(row.macs for row in rows if row.name in frozen and frozen[row.name].filters >= row.filters)
    reasons = sorted({entry.reason for entry in network.frozen if "network's output" not in entry.reason})
    return {
        "groups": len(network.groups),
        "frozen_macs": frozen_macs / max(sum(row.macs for row in rows), 1),
        "reasons": reasons[:4],
        "notes": list(network.notes),
    }


GAINS = (2.0, 1.0)
"""Weight variance times fan-in; with the first, deep gated networks may amplify rounding errors by 1e15"""


def exactness(model: Any, network: Any, plan: Any, x: Any) -> dict[str, Any]:
    """Compare the masked dense network with the slim network, in float64, with every value randomised.

    A wrong cut differs for any weights; if only rounding errors differ, the outputs agree with smaller weights.
    """
    if network.mixers:
        return {"exempt": list(network.mixers[:3])}
    for gain in GAINS:
        error, varies = _difference(model, network, plan, x, gain)
        if error < EXACT:
            break
    return {"relative_error": error, "varies": varies}


def _difference(model: Any, network: Any, plan: Any, x: Any, gain: float) -> tuple[float, float]:
    """Relative difference between the outputs of both networks, and between those of two images."""
    import numpy as np
    import torch

    from pretrim.surgery.apply import cut, kept_channels

    model = randomise(model.double().eval(), gain)
    keep = kept_channels(network, plan.widths)
    slim = cut(model, network, plan.widths, keep, rescale=False).eval()
    kept = np.append(keep, True)
    dims = {p.name: p.dims for p in network.parameters}
    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            for dim, row in enumerate(dims[name]):
                if network.members[row].size:
                    mask = torch.from_numpy(kept[network.members[row]]).to(tensor.dtype)
                    tensor.mul_(mask.view([-1 if d == dim else 1 for d in range(tensor.dim())]))
        masked_outputs, slim_outputs = leaves(model(x.double())), leaves(slim(x.double()))
    varies = min(float((leaf[0] - leaf[1]).abs().max() / leaf.abs().max()) for leaf in masked_outputs)
    return max(
        float((a - b).abs().max() / a.abs().max()) for a, b in zip(masked_outputs, slim_outputs, strict=True)
    ), varies


def randomise(model: Any, gain: float) -> Any:
    """Randomise every parameter and buffer, scaled so that signals neither vanish nor explode."""
    import torch

    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if not tensor.is_floating_point():
                continue
            noise = torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)
            if tensor.dim() > 1 and max(tensor.shape[1:]) > 1:
                tensor.copy_(noise * (gain / max(tensor[0].numel(), 1)) ** 0.5)
            elif name.endswith(("bias", "running_mean")):
                tensor.copy_(noise * 0.1)
            else:
                tensor.copy_(1.0 + 0.2 * noise.clamp(-2, 2))
    return model


def torch_pruning(name: str, x: Any) -> dict[str, Any]:
    """Prune the same network with Torch-Pruning: seconds, whether it still runs and keeps its output shapes."""
    import torch

    model, _ = build(name)
    with torch.no_grad():
        before = shapes(model.eval()(x[:1]))
    start = time.perf_counter()
    signal.signal(signal.SIGALRM, raise_timeout)
    signal.alarm(PEER_SECONDS)
    try:
        import torch_pruning as tp

        classes = before[0][-1]
        heads = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m.out_features == classes]
        importance = tp.importance.MagnitudeImportance(p=1)
        pruner = tp.pruner.BasePruner(
            model, x[:1], importance=importance, pruning_ratio=0.3, ignored_layers=heads, round_to=8
        )
        pruner.step()
        seconds = time.perf_counter() - start
        with torch.no_grad():
            after = shapes(model(x[:1]))
        return {"seconds": seconds, "runs": True, "same_shape": before == after}
    except Exception as error:
        return {"seconds": time.perf_counter() - start, "runs": False, "error": one_line(error)}
    finally:
        signal.alarm(0)


def raise_timeout(*_: Any) -> None:
    raise TimeoutError(f"not done in {PEER_SECONDS} s")


def leaves(outputs: Any) -> list[Any]:
    import torch
    from torch.utils._pytree import tree_leaves

    if hasattr(outputs, "__dataclass_fields__"):
        outputs = [getattr(outputs, field) for field in outputs.__dataclass_fields__]
    return [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, torch.Tensor)]


def shapes(outputs: Any) -> list[tuple[int, ...]]:
    return [tuple(leaf.shape) for leaf in leaves(outputs)]


def one_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:200]


# ---------------------------------------------------------------------------------------- all networks


def records() -> list[dict[str, Any]]:
    """The last record of each network, with the last result of Torch-Pruning."""
    latest: dict[str, dict[str, Any]] = {}
    for record in jsonl.read(RECORDS):
        peer = latest.get(record["name"], {}).get("torch_pruning")
        latest[record["name"]] = ({"torch_pruning": peer} if peer else {}) | record
    return list(latest.values())


def run(names: list[str], again: bool = False, peer: bool = False) -> None:
    """Measure the networks without a record, in a worker process that is restarted if a network crashes it.

    Args:
        names: names of the networks.
        again: whether to ignore records from before the counts were compared.
        peer: whether to run Torch-Pruning, too.
    """
    while remaining := [
        name
        for name in names
        if name not in {r["name"] for r in records() if not again or "params_off" in r or "error" in r}
    ]:
        command = [sys.executable, __file__, *["--peer"] * peer, "--worker", *remaining[:20]]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as worker:
            assert worker.stdout is not None
            measured = [json.loads(line) for line in worker.stdout if line.startswith("{") and save(json.loads(line))]
        if worker.returncode != 0:
            save({"name": remaining[len(measured)], "error": f"ended its process with {worker.returncode}"})


def save(record: dict[str, Any]) -> bool:
    jsonl.append(RECORDS, record)
    print(summary(record), flush=True)
    return True


def summary(record: dict[str, Any]) -> str:
    seconds = sum(record.get(key, 0.0) for key in TIMES)
    exact = "exempt" if "exempt" in record else f"{record.get('relative_error', float('nan')):.1e}"
    return (
        f"{record['name']:45} {seconds:6.2f} s  MACs {record.get('macs', float('nan')):.3f}  frozen "
        f"{record.get('frozen_macs', float('nan')):.2f}  {exact:8} {record.get('error', '')}"
        f"{' COUNTS DIFFER ' + str(record['macs_off']) if any(record.get('macs_off', ())) else ''}"
    )


def write_table() -> None:
    """Write the Markdown table, with the goals in its first lines."""
    order = {name: number for number, name in enumerate(all_names())}
    rows = sorted((r for r in records() if r["name"] in order), key=lambda r: order[r["name"]])
    missing = [name for name in order if name not in {r["name"] for r in rows}]
    working = [r for r in rows if r.get("same_shape") and r.get("trains")]
    reached = [r for r in rows if r.get("macs", 1.0) <= 0.5]
    measured = [r for r in rows if "relative_error" in r]
    exact = [r for r in measured if r["relative_error"] < EXACT]
    exempt = [r for r in rows if "exempt" in r]
    counts = [r for r in rows if "params_off" in r]
    wrong = miscounted(rows)
    seconds = [sum(r[key] for key in TIMES) for r in rows if "apply_s" in r]
    peer = [r["torch_pruning"] for r in rows if "torch_pruning" in r]
    peer_ran = [p for p in peer if p["runs"]]
    lines = [
        "# Coverage: half the MACs of every CNN of torchvision and timm, and of 31 networks of other tasks",
        "",
        f"- networks: {len(rows)}; run, train and keep their outputs' shape: {len(working)} "
        f"({len(working) / len(rows):.1%}, goal 100 %); reach half the MACs: {len(reached)} "
        f"({len(reached) / len(rows):.1%}, goal 95 %)",
        f"- exact (relative error below 1e-10 against the masked dense network): {len(exact)} of {len(measured)} "
        f"compared; {len(exempt)} exempt, as values of an operator depend on how many channels it sees",
        f"- planned MACs and parameters, dense and slim, are those that torch counts: {len(counts) - len(wrong)} of "
        f"{len(counts)} compared" + "".join(f"; not {name}" for name in wrong),
        f"- trace + plan + apply: median {median(seconds or [0]):.2f} s, longest {max(seconds, default=0):.1f} s",
        f"- Torch-Pruning 1.6.1, where it ran: {len(peer_ran)} of {len(peer)} run, "
        f"{sum(not p['same_shape'] for p in peer_ran)} of those with another output shape; median "
        f"{median([p['seconds'] for p in peer_ran] or [0]):.2f} s, "
        f"longest {max((p['seconds'] for p in peer_ran), default=0):.1f} s",
        f"- listed, not run yet: {len(missing)}" + (f" ({', '.join(missing)})" if missing else ""),
        "",
        "Made by `python benchmarks/coverage.py` on 2 shared cores. Seconds are the processor's; Torch-Pruning's are "
        "of the clock, and of when it last ran.",
        "",
        "| network | params | s | MACs left | frozen MACs | relative error | Torch-Pruning | remark |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [table_row(record) for record in rows]
    TABLE.write_text("\n".join(lines) + "\n")


def miscounted(rows: list[dict[str, Any]]) -> list[str]:
    """Names of the networks whose planned costs differ from torch's counts, or that torch could not count."""
    compared = (record for record in rows if "params_off" in record)
    return [r["name"] for r in compared if "macs_off" not in r or any((*r["macs_off"], *r["params_off"]))]


def table_row(record: dict[str, Any]) -> str:
    seconds = f"{sum(record[key] for key in TIMES):.2f}" if "apply_s" in record else "-"
    peer = record.get("torch_pruning", {"runs": False, "seconds": None})
    peer_cell = f"{peer['seconds']:.2f} s" if peer["runs"] else "-" if peer["seconds"] is None else "fails"
    if peer["runs"] and not peer["same_shape"]:
        peer_cell += ", other output shape"
    exact = f"{record['relative_error']:.0e}" if "relative_error" in record else "exempt" if "exempt" in record else "-"
    remark = record.get("error") or "; ".join(record.get("reasons", [])[:2] + record.get("notes", [])[:1])
    macs = f"{record['macs']:.3f}" if "macs" in record else "-"
    return (
        f"| {record['name']} | {record.get('params', 0) / 1e6:.1f} M | {seconds} | {macs} | "
        f"{record.get('frozen_macs', 0):.1%} | {exact} | {peer_cell} | {remark.replace('|', '/')} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worker", nargs="+", help="measure these networks and print a record each")
    parser.add_argument("--only", nargs="+", help="measure these networks")
    parser.add_argument("--again", action="store_true", help="also those measured before costs were compared")
    parser.add_argument("--peer", action="store_true", help="run Torch-Pruning, too")
    parser.add_argument("--table", action="store_true", help="write the table from the records")
    options = parser.parse_args()
    if options.worker:
        for name in options.worker:
            print(json.dumps(measure(name, options.peer)), flush=True)
        return
    if not options.table:
        run(options.only or all_names(), options.again, options.peer)
    write_table()
    if wrong := miscounted(records()):
        sys.exit(f"planned costs are not those that torch counts: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
