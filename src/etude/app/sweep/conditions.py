"""Conditions on combinations: expressions over keys, read by hand so that no code runs, or the user's functions."""

import ast
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

from etude.app.sweep.space import Combination
from etude.base.config.fields import FILE_AND_NAME
from etude.base.config.imports import resolve_import
from etude.base.config.nest import value_at
from etude.base.errors import ConfigError

KEY = "sweep.where"
_MODULE_AND_NAME = re.compile(r"[\w.]+:[^\W\d][\w.]*")

_BINARY: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_UNARY: Mapping[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.Not: operator.not_,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
_COMPARED: Mapping[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda one, other: one in other,
    ast.NotIn: lambda one, other: one not in other,
}

Look = Callable[[str], Any]
"""Gives the value of a dotted key. Raises LookupError where the combination does not say."""
Condition = Callable[[Combination, Look], bool]
"""Takes a combination and what looks up other keys of its config."""


def read_condition(text: str) -> Condition:
    """The condition that an expression or an import path is. Raises ConfigError."""
    if FILE_AND_NAME.fullmatch(text) or _MODULE_AND_NAME.fullmatch(text):
        return _imported(text)
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ConfigError(f"{KEY} must be an expression over keys, but {text!r} is none.") from None
    _check(tree, text)
    return lambda _, look: bool(_asked(tree, text, look))


def _imported(text: str) -> Condition:
    function = resolve_import(text, KEY)
    if not callable(function):
        raise ConfigError(f"{KEY} {text} must be a function of a combination, but is a {type(function).__name__}.")

    def ask(values: Combination, _: Look) -> bool:
        try:
            return bool(function(dict(values)))
        except Exception as error:
            said = " ".join(str(error).split()) or "no message"
            raise ConfigError(f"{KEY} {text} failed: {type(error).__name__}: {said}.") from error

    return ask


def _check(tree: ast.expr, text: str) -> None:
    """Refuse everything but keys, numbers, text, lists, comparisons and sums."""
    for node in ast.walk(tree):
        if not isinstance(node, _NODES):
            raise ConfigError(
                f"{KEY} takes keys, values, comparisons, and, or, not and + - * / // %, but {text!r} has "
                f"{type(node).__name__}."
            )


_NODES = (
    ast.BoolOp,
    ast.UnaryOp,
    ast.BinOp,
    ast.Compare,
    ast.Constant,
    ast.Name,
    ast.Attribute,
    ast.List,
    ast.Tuple,
    ast.Load,
    ast.boolop,
    *_UNARY,
    *_BINARY,
    *_COMPARED,
)


def _asked(tree: ast.expr, text: str, look: Look) -> Any:
    try:
        return _value(tree, look)
    except LookupError as error:
        raise ConfigError(f"{KEY} names {error.args[0]}, which the config does not have ({text}).") from None
    except (TypeError, ZeroDivisionError, ValueError) as error:
        raise ConfigError(f"{KEY} cannot be told: {error} ({text}).") from None


def _value(node: ast.expr, look: Look) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name() | ast.Attribute():
            return _named(ast.unparse(node), look)
        case ast.List(elts=parts) | ast.Tuple(elts=parts):
            return [_value(part, look) for part in parts]
        case ast.UnaryOp(op=op, operand=operand):
            return _UNARY[type(op)](_value(operand, look))
        case ast.BinOp(left=left, op=op, right=right):
            return _BINARY[type(op)](_value(left, look), _value(right, look))
        case ast.BoolOp(op=ast.And(), values=values):
            return all(_value(value, look) for value in values)
        case ast.BoolOp(values=values):
            return any(_value(value, look) for value in values)
        case ast.Compare():
            return _compared(node, look)
    raise TypeError(f"{type(node).__name__} is not known")


def _named(name: str, look: Look) -> Any:
    """A key, or one of TOML's words for truth."""
    words = {"true": True, "false": False}
    return words[name] if name in words else look(name)


def _compared(node: ast.Compare, look: Look) -> bool:
    """A chain of comparisons, as Python has it."""
    left = _value(node.left, look)
    for op, part in zip(node.ops, node.comparators, strict=True):
        right = _value(part, look)
        if not _COMPARED[type(op)](left, right):
            return False
        left = right
    return True


def looking(values: Combination, config: Callable[[], Mapping[str, Any]]) -> Look:
    """Look keys up in a combination, and only where it does not say in its config."""

    def look(key: str) -> Any:
        if key in values:
            return values[key]
        found = value_at(config(), tuple(key.split(".")))
        if found is None:
            raise LookupError(key)
        return found

    return look
