"""What stands under the fields of a class: their description, for who reads `etude schema`."""

import ast
import inspect
import textwrap
from collections.abc import Iterator
from functools import cache
from itertools import pairwise


@cache
def strings_under_fields(owner: type) -> dict[str, str]:
    """The strings that stand under the fields of a class, by name, each where the field was declared last."""
    told: dict[str, str] = {}
    for one in reversed(owner.__mro__):
        declared = inspect.get_annotations(one)
        told = {name: text for name, text in told.items() if name not in declared} | _own_strings(one)
    return told


def _own_strings(owner: type) -> dict[str, str]:
    """Those in the class's own text; none where it has no text, being computed."""
    try:
        text = textwrap.dedent(inspect.getsource(owner))
    except (OSError, TypeError):
        return {}
    match ast.parse(text).body:
        case [ast.ClassDef(body=body)]:
            return dict(_described(body))
    return {}


def _described(body: list[ast.stmt]) -> Iterator[tuple[str, str]]:
    for field, below in pairwise(body):
        match field, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                yield name, inspect.cleandoc(text)
