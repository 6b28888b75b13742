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


def as_cell(value: object) -> str | None:
    """Give a list of texts, such as labels, as a cell: as JSON has it; None of anything else.

    >>> as_cell(["a", "b;c"]), as_cell(["a", 1])
    ('["a", "b;c"]', None)
    """
    match value:
        case [*texts] if all(isinstance(text, str) and is_text(text) for text in texts):
            return json.dumps(texts, ensure_ascii=False)
    return None


def texts_of(cell: str) -> list[str] | None:
    """Give the texts of a cell that `as_cell` made, or that was written so; None of any other.

    >>> texts_of('["a", "b;c"]'), texts_of("[a]")
    (['a', 'b;c'], None)
    """
    if not cell.startswith("["):
        return None
    try:
        value = json.loads(cell)
    except (ValueError, RecursionError):
        return None
    return None if as_cell(value) is None else [str(text) for text in value]
