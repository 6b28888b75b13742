"""Lines of JSON: the object that one holds, or why it holds none."""

import json
from typing import Any

from etude.data.files.lines import Flaw, shown

JSON_LINES = (".jsonl", ".ndjson")
"""What the names of such files end in."""
NESTED = "nested too deeply or a number too long"


def json_object(line: str) -> dict[str, Any] | Flaw:
    """Read the object of a line."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        return Flaw(why_invalid(error))
    return value if isinstance(value, dict) else Flaw("the line is not a JSON object")


def why_invalid(error: Exception) -> str:
    """Say why text is no JSON."""
    said = error.msg if isinstance(error, json.JSONDecodeError) else NESTED
    return f"invalid JSON ({said})"


def missing_field(name: object) -> Flaw:
    """Say that an object lacks a field."""
    return Flaw(f'there is no field "{shown(name)}"')


def is_text(value: str) -> bool:
    """Tell whether UTF-8 can hold a string; JSON can escape what it cannot."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
