"""Counts of the code's structure: `python scripts/counts.py [FOLDER of the package]`, by default src/pretrim."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

CORE = ("analysis", "cost", "planning", "surgery")
Function = ast.FunctionDef | ast.AsyncFunctionDef


def modules(source: Path) -> dict[str, Path]:
    """Every module by its name below the package."""
    found = {}
    for file in sorted(source.rglob("*.py")):
        name = ".".join(("pretrim", *file.relative_to(source).with_suffix("").parts))
        found[name.removesuffix(".__init__")] = file
    return found


def imports(name: str, known: dict[str, Path]) -> set[str]:
    """The modules that one imports, inside functions too."""
    file = known[name]
    package = (name if file.name == "__init__.py" else name.rpartition(".")[0]).split(".")
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1]
            base = ".".join([*above, *([node.module] if node.module else [])]) if node.level else node.module or ""
            for alias in node.names:
                full = f"{base}.{alias.name}"
                found |= {full} if full in known else {base} & known.keys()
    return {other for other in found if other != name and not name.startswith(f"{other}.")}


def circles(known: dict[str, Path]) -> int:
    """How many imports have to go until there is no circle; each found circle loses one."""
    graph = {name: imports(name, known) for name in known}
    count = 0
    while True:
        try:
            list(TopologicalSorter(graph).static_order())
            return count
        except CycleError as error:
            count += 1
            circle = error.args[1]
            graph[circle[1]].discard(circle[0])


def functions(tree: ast.AST, inside: bool = False) -> Iterator[tuple[Function, bool]]:
    """Every function, and whether it is inside a class."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, Function):
            yield node, inside
        yield from functions(node, inside or isinstance(node, ast.ClassDef)) if not isinstance(node, Function) else ()


def parameters(function: Function) -> list[str]:
    """Names of the parameters, without self and what gathers the rest."""
    names = [each.arg for each in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)]
    return [name for name in names if name not in ("self", "cls")]


def lines(files: list[Path]) -> int:
    return sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files)


def main() -> None:
    source = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent / "src" / "pretrim")
    known = modules(source)
    every = [(f, inside, file) for file in known.values() for f, inside in functions(ast.parse(file.read_text()))]
    widest = max(every, key=lambda one: len(parameters(one[0])))
    public = [f for f, inside, _ in every if not inside and not f.name.startswith("_") and len(parameters(f)) >= 3]
    explained = [f for f in public if "Args:" in (ast.get_docstring(f) or "")]
    core = [file for part in CORE for file in (source / part).rglob("*.py")]
    print(f"files at the top                 {len(list(source.glob('*.py')))}")
    print(f"circles of imports               {circles(known)}")
    print(f"lines of cli/                    {lines(list((source / 'cli').rglob('*.py')))}")
    print(f"lines of the package             {lines(list(known.values()))}")
    print(f"most parameters of a function    {len(parameters(widest[0]))} ({widest[0].name}, {widest[2].name})")
    print(f"public functions with Args:      {len(explained)} of {len(public)} that take three or more")
    print(f"lines from analysis to surgery   {lines(core) if core else '-'}")


if __name__ == "__main__":
    main()
