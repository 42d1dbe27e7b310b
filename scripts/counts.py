"""Count properties of the code: `python scripts/counts.py [FOLDER of the package]`, by default src/pretrim."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

CORE = ("analysis", "cost", "planning", "surgery")
Function = ast.FunctionDef | ast.AsyncFunctionDef


def modules(source: Path) -> dict[str, Path]:
    """The file of every module, by its dotted name."""
    files = {}
    for file in sorted(source.rglob("*.py")):
        name = ".".join(("pretrim", *file.relative_to(source).with_suffix("").parts))
        files[name.removesuffix(".__init__")] = file
    return files


def imports(name: str, files: dict[str, Path]) -> set[str]:
    """The modules of the package that a module imports, including imports inside functions."""
    file = files[name]
    package = (name if file.name == "__init__.py" else name.rpartition(".")[0]).split(".")
    imported = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1]
            base = ".".join([*above, *([node.module] if node.module else [])]) if node.level else node.module or ""
            for alias in node.names:
                full_name = f"{base}.{alias.name}"
                imported |= {full_name} if full_name in files else {base} & files.keys()
    return {other for other in imported if other != name and not name.startswith(f"{other}.")}


def count_cycles(files: dict[str, Path]) -> int:
    """The number of imports removed, one from each cycle found, until there is no import cycle."""
    graph = {name: imports(name, files) for name in files}
    count = 0
    while True:
        try:
            list(TopologicalSorter(graph).static_order())
            return count
        except CycleError as error:
            count += 1
            cycle = error.args[1]
            graph[cycle[1]].discard(cycle[0])


def functions(tree: ast.AST, in_class: bool = False) -> Iterator[tuple[Function, bool]]:
    """Every function, and whether it is inside a class."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, Function):
            yield node, in_class
        yield from functions(node, in_class or isinstance(node, ast.ClassDef)) if not isinstance(node, Function) else ()


def parameters(function: Function) -> list[str]:
    """Names of the parameters, without self, cls, *args and **kwargs."""
    names = [argument.arg for argument in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)]
    return [name for name in names if name not in ("self", "cls")]


def count_lines(files: list[Path]) -> int:
    return sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files)


def main() -> None:
    source = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent / "src" / "pretrim")
    files = modules(source)
    all_functions = [
        (function, in_class, file)
        for file in files.values()
        for function, in_class in functions(ast.parse(file.read_text()))
    ]
    widest = max(all_functions, key=lambda entry: len(parameters(entry[0])))
    public = [
        function
        for function, in_class, _ in all_functions
        if not in_class and not function.name.startswith("_") and len(parameters(function)) >= 3
    ]
    documented = [function for function in public if "Args:" in (ast.get_docstring(function) or "")]
    core = [file for part in CORE for file in (source / part).rglob("*.py")]
    print(f"files at the top                 {len(list(source.glob('*.py')))}")
    print(f"circles of imports               {count_cycles(files)}")
    print(f"lines of cli/                    {count_lines(list((source / 'cli').rglob('*.py')))}")
    print(f"lines of the package             {count_lines(list(files.values()))}")
    print(f"most parameters of a function    {len(parameters(widest[0]))} ({widest[0].name}, {widest[2].name})")
    print(f"public functions with Args:      {len(documented)} of {len(public)} that take three or more")
    print(f"lines from analysis to surgery   {count_lines(core) if core else '-'}")


if __name__ == "__main__":
    main()
