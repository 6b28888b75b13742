"""Conditions on runs, as `etude runs --where` takes them: `optimizer.learning_rate < 1e-3 and state == "finished"`.

Keys stand as they are (`model.layers`, `val/loss`), or in backticks where a name has other signs; texts stand in
quotes. Python's own parser reads the form alone: nothing of it is ever evaluated as Python.
"""

import ast
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, final

from etude.base.durations import Duration
from etude.base.errors import ConfigError
from etude.base.numbers import is_number

Lookup = Callable[[str], object]
"""What stands under a key of a run; `MISSING` where nothing does."""


class _Missing:
    """What stands under a key that a run does not have."""


MISSING: Final = _Missing()
LONGEST = 10_000
"""Signs of a condition, at most."""
DEEPEST = 50
"""Levels of conditions in conditions, at most."""

_RESERVED = {"and", "or", "not", "in", "is"}
_CONSTANTS = {"true": True, "false": False, "none": None}
_TOKEN = re.compile(
    r"""(?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
      | `(?P<quoted>[^`]+)`
      | (?P<word>[A-Za-z_][\w@-]*(?:\[\d+\])?(?:[./][\w@-]+(?:\[\d+\])?)*)
      | (?P<number>\.?\d[\w.]*(?:(?<=[eE])[+-]\d+)?)""",
    re.VERBOSE,
)

_ORDER: Mapping[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


@final
@dataclass(frozen=True)
class Where:
    """A condition, read.

    >>> Where.read("model.layers in [2, 4] and not val/loss > 3").holds({"model.layers": 4, "val/loss": 2.5}.get)
    True
    """

    tree: ast.expr
    keys: Mapping[str, str]
    """By the name that stands for it in the tree: each key that it asks for."""

    @classmethod
    def read(cls, text: str) -> "Where":
        """Read a condition. Raises ConfigError, which says where it is none."""
        if len(text) > LONGEST:
            raise ConfigError(f"--where must have at most {LONGEST:,} signs, but has {len(text):,}.")
        keys: dict[str, str] = {}
        try:
            tree = ast.parse(_TOKEN.sub(lambda found: _renamed(found, keys), text).strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            raise ConfigError(
                f"--where {text!r} is no condition: write KEY < VALUE, with texts in quotes and keys with other signs "
                f"in backticks, joined by and, or, not."
            ) from None
        _check(tree, text, DEEPEST, is_condition=True)
        return cls(tree, keys)

    def holds(self, lookup: Lookup) -> bool:
        """Whether a run meets it; a comparison with a key that the run does not have is not met."""
        return _holds(self.tree, lambda name: lookup(self.keys[name]))


def _renamed(found: re.Match[str], keys: dict[str, str]) -> str:
    """A key as a name that Python can read; all else as it is."""
    word = found["quoted"] or found["word"]
    if word is None or (found["quoted"] is None and word in _RESERVED):
        return found[0]
    if found["quoted"] is None and word.lower() in _CONSTANTS:
        return word.lower().capitalize()
    name = f"key{len(keys)}"
    keys[name] = word
    return f" {name} "  # so that it never joins a word beside it


def _check(node: ast.expr, text: str, levels: int, *, is_condition: bool) -> None:
    """Raise ConfigError for what is neither condition nor value, or is nested too deeply."""
    match node:
        case ast.BoolOp() | ast.UnaryOp(op=ast.Not()) | ast.Compare() if is_condition and levels:
            for part, below in _parts(node):
                _check(part, text, levels - 1, is_condition=below)
        case ast.List() | ast.Tuple() if not is_condition and levels:
            for part in node.elts:
                _check(part, text, levels - 1, is_condition=False)
        case ast.Name():
            pass
        case ast.Constant(value=bool() | int() | float() | str() | None) if not is_condition:
            pass
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=ast.Constant(value=int() | float())) if not is_condition:
            pass
        case _:
            raise ConfigError(
                f"--where {text!r} must be a condition and no more: comparisons (< <= > >= == != in) of keys, numbers, "
                f"texts in quotes and lists, joined by and, or, not."
            )


def _parts(node: ast.expr) -> Iterator[tuple[ast.expr, bool]]:
    """What a condition is made of, and whether each part is a condition itself."""
    match node:
        case ast.BoolOp(values=values):
            yield from ((value, True) for value in values)
        case ast.UnaryOp(operand=operand):
            yield operand, True
        case ast.Compare(left=left, comparators=others):
            yield from ((value, False) for value in (left, *others))


def _holds(node: ast.expr, lookup: Lookup) -> bool:
    match node:
        case ast.BoolOp(op=ast.And(), values=values):
            return all(_holds(value, lookup) for value in values)
        case ast.BoolOp(values=values):
            return any(_holds(value, lookup) for value in values)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return not _holds(operand, lookup)
        case ast.Compare(left=left, ops=ops, comparators=others):
            operands: list[ast.expr] = [left, *others]
            compared = [_value(one, lookup) for one in operands]
            return all(map(_compare, ops, compared, compared[1:]))
    return _value(node, lookup) is True


def _value(node: ast.expr, lookup: Lookup) -> object:
    match node:
        case ast.Name(id=name):
            return lookup(name)
        case ast.List(elts=elements) | ast.Tuple(elts=elements):
            return [_value(element, lookup) for element in elements]
    return ast.literal_eval(node)


def _compare(op: ast.cmpop, one: object, other: object) -> bool:
    """Compare as a user means it: nothing with what is not there, no number with a text, lengths by their amount."""
    if one is MISSING or other is MISSING:
        return False
    match op:
        case ast.Eq() | ast.Is():
            return _equal(one, other)
        case ast.NotEq() | ast.IsNot():
            return not _equal(one, other)
        case ast.In():
            return _is_in(one, other)
        case ast.NotIn():
            return not _is_in(one, other)
    pair = _orderable(one, other)
    return pair is not None and _ORDER[type(op)](*pair)


def _equal(one: object, other: object) -> bool:
    if is_number(one) and is_number(other):
        return one == other
    lengths = _lengths(one, other)
    return (type(one) is type(other) and one == other) or (lengths is not None and lengths[0] == lengths[1])


def _is_in(one: object, other: object) -> bool:
    match other:
        case list() | tuple():
            return any(_equal(one, part) for part in other)
        case str() | dict():
            return str(one) in other
    return False


def _orderable(one: object, other: object) -> tuple[Any, Any] | None:
    """Two values that one can be put before the other; None of such as cannot."""
    if is_number(one) and is_number(other):
        return one, other
    lengths = _lengths(one, other)
    if lengths is not None:
        return (lengths[0].amount, lengths[1].amount) if lengths[0].unit == lengths[1].unit else None
    return (one, other) if isinstance(one, str) and isinstance(other, str) else None


def _lengths(one: object, other: object) -> tuple[Duration, Duration] | None:
    """Two texts as durations, where both are."""
    try:
        return Duration.parse(one), Duration.parse(other)
    except (ConfigError, ValueError):
        return None
