"""What must stand at a key of a config, in words."""

import re
from collections.abc import Mapping

from etude.base.config.mistakes import KINDS, Mistake
from etude.base.config.writing import inline

LONGEST = 60
"""Characters of a value that a sentence shows."""

BOUNDS = {"greater_than": "gt", "greater_than_equal": "ge", "less_than": "lt", "less_than_equal": "le"}
"""The limit that each of pydantic's errors is about."""

BOUNDS_WORDS = {"gt": "more than {}", "ge": "at least {}", "lt": "less than {}", "le": "at most {}"}

MUSTS = {
    "too_short": "must hold at least {min_length} value(s)",
    "too_long": "must hold at most {max_length} value(s)",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "string_pattern_mismatch": "must match {pattern}",
    "finite_number": "must be a finite number",
    "multiple_of": "must be a multiple of {multiple_of}",
    "is_instance_of": "must be a {class}",
}
"""What must stand there, by the kind of pydantic's error, with what its context tells."""


def must(mistake: Mistake, limits: Mapping[str, float]) -> str:
    """Say what must stand there, as far as the kind of error tells; else what the check itself said.

    `limits` are those of the number, if it is one: where it has two, both are said.
    """
    kind, context = mistake.kind, mistake.context
    if kind in KINDS:
        return f"must be {KINDS[kind]}"
    if kind in BOUNDS:
        return f"must be {_bounds(BOUNDS[kind], context[BOUNDS[kind]], limits)}"
    if kind == "string_too_short" and context["min_length"] == 1:
        return "must not be empty"
    if kind in MUSTS:
        return MUSTS[kind].format(**context)
    said = re.sub(r"^(Value error|Assertion failed), ", "", mistake.message)
    return re.sub(r"(?<!\.)\.$", "", said.replace("Input should be", "must be"))


def brief(value: object) -> str:
    """Show a value as the config writes it, cut short where it is long."""
    text = inline(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def _bounds(name: str, bound: float, limits: Mapping[str, float]) -> str:
    """Say the limit that was broken, and the one at the other end where the type has one."""
    low, high = _first(limits, "gt", "ge"), _first(limits, "lt", "le")
    if limits.get(name) == bound and low and high:
        return f"{low} and {high}"
    return "positive" if name == "gt" and bound == 0 else _bound(name, bound)


def _first(limits: Mapping[str, float], *names: str) -> str:
    """Say the first of these limits that there is; nothing where there is none."""
    return next((_bound(name, limits[name]) for name in names if name in limits), "")


def _bound(name: str, bound: float) -> str:
    return BOUNDS_WORDS[name].format(f"{bound:.15g}" if isinstance(bound, float) else bound)
