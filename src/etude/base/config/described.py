"""What stands under the fields of a class: their description, for who reads `etude schema`."""

import ast
import inspect
import sys
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from types import ModuleType


@cache
def strings_under_fields(owner: type) -> dict[str, str]:
    """The strings that stand under the fields of a class, by name, each where the field was declared last."""
    told: dict[str, str] = {}
    for one in reversed(owner.__mro__):
        declared = inspect.get_annotations(one)
        told = {name: text for name, text in told.items() if name not in declared}
        told |= _own_strings(one) if declared else {}
    return told


def _own_strings(owner: type) -> dict[str, str]:
    """Those in the class's own text; none where it has no text, being computed."""
    module = sys.modules.get(owner.__module__)
    body = _classes(module).get(owner.__qualname__, []) if module else []
    return dict(_described(body))


@cache
def _classes(module: ModuleType) -> dict[str, list[ast.stmt]]:
    """The bodies of a module's classes by qualified name, the first of each; its text is read once for all of them."""
    try:
        text = inspect.getsource(module)
    except (OSError, TypeError):
        return {}
    found: dict[str, list[ast.stmt]] = {}
    _find(ast.parse(text), "", found)
    return found


def _find(node: ast.AST, within: str, found: dict[str, list[ast.stmt]]) -> None:
    """Add the bodies of the classes inside a node, whose names begin as told."""
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.ClassDef(name=name, body=body):
                found.setdefault(within + name, body)
                _find(child, f"{within}{name}.", found)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                _find(child, f"{within}{name}.<locals>.", found)
            case ast.stmt():
                _find(child, within, found)


def _described(body: list[ast.stmt]) -> Iterator[tuple[str, str]]:
    for field, below in pairwise(body):
        match field, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                yield name, inspect.cleandoc(text)
