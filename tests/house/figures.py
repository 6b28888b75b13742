"""Figures of the code, and the bounds that they must keep; `make figures` prints them and fails above one.

Complexity counts decisions as radon does (Lacchia): branches, loops, handlers, conditions and their `and`/`or`,
comprehensions with their conditions, cases; one more for the function. A circle is a group of files that import each
other, imports inside functions included, those for type checking alone not.
"""

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2] / "src"
OVER = 8
"""A function above this complexity is counted."""
LINES = 1000
BASE = "etude.base"

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Figure:
    """One figure: what was found, and the most that it may be."""

    name: str
    value: float
    bound: float
    where: str = ""
    """The place that decides it, where one does."""

    @property
    def holds(self) -> bool:
        """Whether it keeps its bound."""
        return self.value <= self.bound

    def __str__(self) -> str:
        place = f"  ({self.where})" if self.where else ""
        return f"{'ok ' if self.holds else 'NO '} {self.name:<52} {self.value:>8.2f}  at most {self.bound:g}{place}"


@dataclass(frozen=True)
class File:
    """A file of the package."""

    module: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        """Its syntax."""
        return ast.parse(self.text)

    @property
    def lines(self) -> int:
        """How long it is."""
        return len(self.text.splitlines())

    @property
    def is_base(self) -> bool:
        """Whether it lies in `base`, where config values of any type are read."""
        return self.module == BASE or self.module.startswith(f"{BASE}.")

    def functions(self) -> Iterator[Function]:
        """Every function, methods and inner ones too."""
        return (node for node in ast.walk(self.tree) if isinstance(node, Function))

    def calls(self, name: str) -> int:
        """How often the builtin `name` is called."""
        return sum(_is_call_of(node, name) for node in ast.walk(self.tree))


def files(source: Path = SOURCE) -> list[File]:
    """Every file of the package."""
    found = []
    for path in sorted((source / "etude").rglob("*.py")):
        parts = path.relative_to(source).with_suffix("").parts
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found.append(File(module, path.read_text(encoding="utf-8")))
    return found


def _is_call_of(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name


# -- functions -----------------------------------------------------------------------------------------------------


def complexity(function: Function) -> int:
    """Decisions in a function, inner functions included, and one.

    >>> complexity(ast.parse("def f(a, b):\\n    return a if a and b else [x for x in b if x]").body[0])
    5
    """
    return 1 + sum(_decisions(node) for node in ast.walk(function) if node is not function)


def _decisions(node: ast.AST) -> int:
    match node:
        case ast.BoolOp():
            return len(node.values) - 1
        case ast.comprehension():
            return 1 + len(node.ifs)
        case ast.For() | ast.AsyncFor() | ast.While():
            return 1 + bool(node.orelse)
        case ast.Try():
            return len(node.handlers) + bool(node.orelse)
        case ast.Match():
            return sum(not _takes_all(case) for case in node.cases)
        case ast.If() | ast.IfExp() | ast.Assert() | ast.Lambda():
            return 1
    return 0


def _takes_all(case: ast.match_case) -> bool:
    return isinstance(case.pattern, ast.MatchAs) and case.pattern.pattern is None and case.guard is None


def arguments(function: Function) -> list[ast.arg]:
    """Its arguments, without `self` and `cls`."""
    given = function.args
    every = [*given.posonlyargs, *given.args, given.vararg, *given.kwonlyargs, given.kwarg]
    return [one for one in every if one is not None and one.arg not in {"self", "cls"}]


def names_of_any(file: File) -> set[str]:
    """`Any` and the module's own other names for it."""
    names = {"Any"}
    for node in file.tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Name(id="Any")):
                names.add(name)
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.Name(id="Any")):
                names.add(name)
    return names


def is_any(argument: ast.arg, names: set[str]) -> bool:
    """Whether an argument's type is `Any`, or has it inside."""
    if argument.annotation is None:
        return False
    inside = ast.walk(argument.annotation)
    return any(isinstance(node, ast.Name) and node.id in names for node in inside) or _quoted_any(argument.annotation)


def _quoted_any(annotation: ast.expr) -> bool:
    return any(
        isinstance(node, ast.Constant) and isinstance(node.value, str) and "Any" in node.value
        for node in ast.walk(annotation)
    )


# -- circles -------------------------------------------------------------------------------------------------------


def imports(file: File, known: set[str]) -> set[str]:
    """The modules of the package that a file imports, anywhere in it, but for type checking alone."""
    found = {name for node in _running(file.tree) for name in _imported(node)}
    return {near for name in found if (near := name if name in known else name.rpartition(".")[0]) in known} - {
        file.module
    }


def _running(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes below, without blocks of `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
            for other in child.orelse:
                yield from _running(other)
        else:
            yield child
            yield from _running(child)


def _imported(node: ast.AST) -> list[str]:
    match node:
        case ast.ImportFrom(module=str(module), names=names, level=0):
            return [f"{module}.{name.name}" for name in names]
        case ast.Import(names=names):
            return [name.name for name in names]
    return []


def circles(every: list[File]) -> list[list[str]]:
    """Groups of files that import each other."""
    known = {file.module for file in every}
    graph = {file.module: imports(file, known) for file in every}
    reach = {module: _reached(graph, module) for module in graph}
    groups = {tuple(sorted(other for other in reach[module] if module in reach[other])) for module in graph}
    return [list(group) for group in sorted(groups) if group]


def _reached(graph: dict[str, set[str]], start: str) -> set[str]:
    """What can be come to from a module, itself only by way of others."""
    found: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        module = waiting.pop()
        if module not in found:
            found.add(module)
            waiting += graph[module]
    return found


# -- all of them ---------------------------------------------------------------------------------------------------


def figures(every: list[File]) -> list[Figure]:
    """Every figure with its bound."""
    functions = [(file, function) for file in every for function in file.functions()]
    decisions = [complexity(function) for _, function in functions]
    found = circles(every)
    return [
        Figure("circles of files", len(found), 0, "; ".join(" <-> ".join(group) for group in found)),
        Figure("complexity of a function, mean", sum(decisions) / len(decisions), 2.6),
        Figure(f"functions over {OVER}, %", 100 * sum(one > OVER for one in decisions) / len(decisions), 3.5),
        _largest("arguments of a constructor", 15, _constructors(functions)),
        *_per_line([file for file in every if not file.is_base]),
        Figure("arguments typed Any, %", _share_of_any(every), 5),
        _largest("lines of a file", 400, [(file.lines, file.module) for file in every]),
        _largest("lines of a function", 60, [(_length(one), f"{file.module}.{one.name}") for file, one in functions]),
    ]


def _constructors(functions: list[tuple[File, Function]]) -> list[tuple[int, str]]:
    return [(len(arguments(one)), file.module) for file, one in functions if one.name == "__init__"]


def _length(function: Function) -> int:
    return (function.end_lineno or function.lineno) - function.lineno + 1


def _largest(name: str, bound: int, measured: list[tuple[int, str]]) -> Figure:
    value, where = max(measured)
    return Figure(name, value, bound, where)


def _per_line(every: list[File]) -> list[Figure]:
    lines = sum(file.lines for file in every)
    bounds = {"isinstance": 9.0, "getattr": 1.5}
    return [
        Figure(
            f"{name} outside base, per {LINES:,} lines", LINES * sum(file.calls(name) for file in every) / lines, bound
        )
        for name, bound in bounds.items()
    ]


def _share_of_any(every: list[File]) -> float:
    total = loose = 0
    for file in every:
        names = names_of_any(file)
        given = [one for function in file.functions() for one in arguments(function)]
        total += len(given)
        loose += sum(is_any(one, names) for one in given)
    return 100 * loose / total


def main() -> int:
    """Print the figures; 1 where one is above its bound."""
    found = figures(files())
    sys.stdout.write("".join(f"{figure}\n" for figure in found))
    return int(not all(figure.holds for figure in found))


if __name__ == "__main__":
    sys.exit(main())
