"""Who may import whom: the pipeline of docs/architecture.md, with no step back up and no circle."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SRC = Path(__file__).parent.parent / "src" / "pretrim"
BASE = {"errors", "files", "records"}
CORE = {"analysis", "cost", "planning", "surgery"}
MAY_IMPORT = {
    "errors": set(),
    "wording": {"errors"},
    "files": set(),
    "records": {"errors"},
    "compat": {"errors"},
    "devices": BASE | {"compat"},
    "analysis": BASE,
    "cost": BASE | {"analysis"},
    "planning": BASE | {"analysis", "cost"},
    "surgery": BASE | {"analysis", "cost", "planning"},
    "core": CORE | {"wording"},
    "models": BASE | {"analysis"},
    "data": BASE,
    "train": BASE | {"analysis", "compat", "data"},
    "tasks": BASE | {"analysis", "data", "deploy", "models", "train"},
    "runs": BASE | {"analysis", "planning", "surgery", "models", "data", "train"},
    "deploy": BASE | CORE | {"compat", "devices"},
    "measure": BASE | {"compat", "deploy"},
    "latency": BASE | CORE | {"compat", "devices", "deploy", "measure"},
    "study": BASE | CORE | {"devices", "models", "data", "train", "tasks", "runs", "deploy", "measure", "latency"},
    "report": BASE | {"devices", "planning", "runs", "study", "train"},
    "jobs": BASE
    | CORE
    | {"core", "compat", "devices", "models", "data", "train", "tasks", "runs", "deploy", "measure", "latency"}
    | {"study", "report", "wording"},
    "present": BASE | {"analysis", "planning", "train", "study", "jobs"},
    "cli": BASE | {"devices", "planning", "train", "study", "jobs", "present"},
    "__main__": {"cli"},
    "__init__": {"core", "errors", "jobs", "runs", "present"},
}
"""Each part of the package, and those below it that it may import; imports inside functions count as well"""


def name_of(file: Path) -> str:
    parts = ("pretrim", *file.relative_to(SRC).with_suffix("").parts)
    return ".".join(parts).removesuffix(".__init__")


MODULES = {name_of(file): file for file in sorted(SRC.rglob("*.py"))}


def imports(module: str) -> Iterator[str]:
    """The modules of pretrim that a module imports, at its top, in functions, and for types."""
    file = MODULES[module]
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        if not isinstance(node, ast.ImportFrom):
            continue
        above = package.split(".")[: len(package.split(".")) - node.level + 1]
        source = ".".join([*above, *([node.module] if node.module else [])]) if node.level else node.module or ""
        for alias in node.names:
            full = f"{source}.{alias.name}"
            if full in MODULES or source in MODULES:
                yield full if full in MODULES else source


def part_of(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_what_its_part_may(module: str) -> None:
    part = part_of(module)
    reached = {part_of(other) for other in imports(module)} - {part, "__init__"}
    assert reached <= MAY_IMPORT[part], f"{module} imports {sorted(reached - MAY_IMPORT[part])}"


def test_the_parts_are_in_order() -> None:
    order = list(TopologicalSorter(MAY_IMPORT).static_order())
    assert order.index("analysis") < order.index("planning") < order.index("surgery") < order.index("jobs")


def test_no_modules_import_each_other_in_a_circle() -> None:
    """`from . import x` in a package's own __init__ is how packages are made, and no circle."""
    graph = {
        module: {other for other in imports(module) if other != module and not module.startswith(f"{other}.")}
        for module in MODULES
    }
    assert circle(graph) == ""


def circle(graph: Mapping[str, set[str]]) -> str:
    """The first circle of a graph, with arrows; empty where there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return " -> ".join(error.args[1])
    return ""


def test_a_circle_is_seen() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}).count("->") == 3
    assert circle({"a": {"b", "c"}, "b": {"c"}}) == ""


def test_a_forbidden_import_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check itself: a core module that imports the command line, inside a function."""
    file = tmp_path / "cost.py"
    file.write_text("def f():\n    from pretrim.cli import main\n")
    monkeypatch.setitem(MODULES, "pretrim.cost.formula", file)
    assert "pretrim.cli" in set(imports("pretrim.cost.formula"))
    with pytest.raises(AssertionError, match=r"imports \['cli'\]"):
        test_a_module_imports_only_what_its_part_may("pretrim.cost.formula")


def test_the_core_needs_torch_and_numpy_alone() -> None:
    code = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("cyclopts", "rich", "msgspec", "accelerate", "PIL", "safetensors", "matplotlib"):
            raise ImportError(f"the core imports {name}")
sys.meta_path.insert(0, Refuse())
import torch
from torch import nn
import pretrim.core as core
network = core.analyze(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1)), torch.zeros(1, 3, 8, 8))
model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1))
print(sum(p.numel() for p in core.apply(model, core.plan(network, params="0.5x", round_to=1)).parameters()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) <= 0.5 * (8 * 27 + 8 + 4 * 8 + 4)


@pytest.mark.parametrize("package", ["train", "deploy", "study"])
def test_the_architecture_page_names_every_file_of_a_package_and_no_other(package: str) -> None:
    page = (SRC.parent.parent / "docs" / "architecture.md").read_text()
    _, _, rest = page.partition(f"| `{package}/` | one idea |\n")
    rows = rest.partition("\n\n")[0].splitlines()
    named = {name for row in rows for name in re.findall(r"`(\w+\.py)`", row.split("|")[1])}
    assert named == {path.name for path in (SRC / package).glob("*.py")} - {"__init__.py"}
