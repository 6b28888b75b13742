"""Writes the pages of the guide that are made from the code: every key of a config, and other tools' words.

Run it after you add or change a key: `.venv/bin/python docs/reference.py`. A test fails if the pages are out of date.
"""

import json
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from etude.base.config.json_schema import schema
from etude.base.config.section import SWITCHED_OFF
from etude.tasks.config import any_config

GUIDE = Path(__file__).parent / "guide"

WRITTEN = "<!-- Written by docs/reference.py; change the code, and run it again. -->"
HEADER = ("| key | default | values | meaning |", "| --- | --- | --- | --- |")
SCHEDULE = "a schedule"
KINDS = {
    "DataConfig": "of pairs, as for `translation`",
    "TextDataConfig": "of text, as for `language_model`",
    "HfDataConfig": "of samples for `hf`",
    "LabelledDataConfig": "of texts with a label, as for `classification`",
    "TabularDataConfig": "of tables, as for `classification`",
    "ArrayDataConfig": "of arrays, as for `classification`",
}
"""Headings of the sections that a table may be."""
ABOUT_KEYS = (
    "One table for each section, and one for each `type` that a section may have. *off* stands for `false`, "
    '`"none"` or `"off"`. A *duration* is a number with its unit, as in `"16 epochs"`; its tokens are targets '
    "that the loss counts, padding excluded. Where the values say *a schedule*, a number may be one of the "
    "[schedules](#schedules) instead. Every other key of `[model]`, `[loss]`, `[task]`, `[data]`, `[optimizer]` and "
    "`[init]`, and each of these tables as a whole, may follow `stairs`, `piecewise` or a function, counted in epochs: "
    "the network then [grows](pretraining.md#growing-a-network). Each `type` may also be an import "
    'path, `"package.module:Class"` or `"net.py:build"`; its other keys are then the arguments of what is '
    "imported. An editor completes all of this with the output of `etude schema`."
)
ABOUT_WORDS = (
    "The words of other tools, and the key that Etude has for each. If a config holds such a word, the error "
    "names Etude's key. Keys marked *later* belong to parts that this version does not have; "
    "[reference.md](reference.md) lists those that it has."
)
FIRST = (
    "run",
    "task",
    "data",
    "tokenizer",
    "model",
    "init",
    "growth",
    "loss",
    "optimizer",
    "train",
    "distributed",
    "callbacks",
    "log",
    "sweep",
)
LISTS = ("stage", "repeat")
"""Sections that are lists of tables."""

Table = Mapping[str, Any]


def reference() -> str:
    """The page of all keys, section by section, in the order in which a config is usually written."""
    root = schema(any_config())
    lines = [
        WRITTEN,
        "",
        "# Every key of a config",
        "",
        ABOUT_KEYS,
    ]
    assert {"extends", *FIRST, *LISTS} == set(root["properties"]), "a section is missing in FIRST"
    for name in ("extends", *FIRST, *LISTS):
        lines += _section(name, root["properties"][name], root)
    lines += _schedules(root)
    return "\n".join(lines) + "\n"


def coming_from() -> str:
    """The page of other tools' words."""
    text = resources.files("etude.base.config").joinpath("other_words.json").read_text(encoding="utf-8")
    words, root = json.loads(text), schema(any_config())
    lines = [
        WRITTEN,
        "",
        "# Coming from another tool",
        "",
        ABOUT_WORDS,
    ]
    for tool, entries in words["tools"].items():
        lines += ["", f"## {tool}", "", "| its word | Etude | value |", "| --- | --- | --- |"]
        lines += [_word(entry, words["rules"], root) for entry in entries]
    return "\n".join(lines) + "\n"


def _word(entry: Table, rules: Mapping[str, str], root: Table) -> str:
    keys = ", ".join(f"`{key}`" + ("" if is_known(key, root) else " (*later*)") for key in entry["etude"])
    rule, note = entry.get("rule", "same"), entry.get("note", "")
    told = "; ".join(part for part in (note, "" if rule == "same" else rules.get(rule, rule)) if part)
    return f"| `{entry['word']}` | {_cell(keys)} | {_cell(told)} |"


def is_known(key: str, root: Table) -> bool:
    """Whether a config of this version may hold the dotted key; what begins with no section (`Task.load`) is no key."""
    first, *rest = key.split(".")
    if first not in root["properties"]:
        return True
    parts = [root["properties"][first]]
    for name in rest:
        found = [
            branch["properties"][name]
            for one in parts
            for branch in _branches(one, root)
            if name in branch["properties"]
        ]
        if not found:
            return False
        parts = found
    return True


def _branches(part: Table, root: Table) -> Iterator[Table]:
    """Every table that may stand for a part."""
    part = _resolved(part, root)
    if "properties" in part:
        yield part
    for union in ("anyOf", "oneOf"):
        for branch in part.get(union, ()):
            yield from _branches(branch, root)


def _section(name: str, described: Table, root: Table) -> Iterator[str]:
    """The heading and tables of one section."""
    described = _resolved(described, root)
    if name in LISTS:
        item = _resolved(described["items"], root)
        yield from ("", f"## `[[{name}]]`", "", _sentence(item.get("description", "")))
        yield from _table({key: one for key, one in item["properties"].items() if key not in root["properties"]}, root)
        return
    yield from ("", f"## `{name}`" if name in {"extends", "callbacks"} else f"## `[{name}]`", "")
    branches = [branch for branch in described.get("oneOf", ()) if "properties" in branch]
    parts = (_resolved(branch, root) for branch in described.get("anyOf", ()))
    kinds = [part for part in parts if part.get("title") in KINDS]
    if kinds:
        yield "Its keys depend on the task."
        for kind in kinds:
            yield from ("", f"### {KINDS[kind['title']]}", "", _sentence(kind.get("description", "")))
            yield from _table(kind["properties"], root)
        return
    if not branches:
        yield _sentence(described.get("description", ""))
        if "properties" in described:
            yield from _table(described["properties"], root)
        return
    default = described.get("default", {}).get("type")
    own = [branch for branch in branches if branch["title"] not in {"imported", "TokenizerPair", "two"}]
    names = ", ".join(f"`{_typed(branch['title'])}`" for branch in own)
    yield f"Types: {names}" + (f"; without a `type`, `{default}`." if default else ".")
    for branch in own:
        yield from ("", f"### `type = {_typed(branch['title'])}`", "", _sentence(branch.get("description", "")))
        yield from _table({key: part for key, part in branch["properties"].items() if key != "type"}, root)
    if name == "tokenizer":
        yield from ("", "Two tables, `[tokenizer.source]` and `[tokenizer.target]`, make a tokenizer for each side.")


def _schedules(root: Table) -> Iterator[str]:
    yield from ("", "## Schedules", "", "A table with the key `schedule`, in place of a number.")
    found = {
        part["properties"]["schedule"].get("const"): part
        for part in root["$defs"].values()
        if "schedule" in part.get("properties", {})
    }
    for name, part in found.items():
        title = f'`schedule = "{name}"`' if name else "`schedule` by import path"
        yield from ("", f"### {title}", "", _sentence(part.get("description", "")))
        yield from _table({key: one for key, one in part["properties"].items() if key != "schedule"}, root)


def _table(properties: Mapping[str, Table], root: Table) -> Iterator[str]:
    if not properties:
        yield from ("", "It has no keys of its own.")
        return
    yield from ("", *HEADER)
    for key, part in properties.items():
        one = _resolved(part, root)
        meaning = _cell(" ".join(one.get("description", "").split()))
        yield f"| `{key}` | {_default(one)} | {_cell(_values(one, root))} | {meaning} |"


def _default(part: Table) -> str:
    if "default" not in part:
        return ""
    value = part["default"]
    if value is False and any(branch.get("enum") == SWITCHED_OFF for branch in part.get("anyOf", ())):
        return "off"
    return f"`{_toml(value)}`"


def _toml(value: Any) -> str:
    """A default as a config would hold it, keys that are off left out."""
    if isinstance(value, dict):
        kept = {key: part for key, part in value.items() if part is not False}
        kept = {key: kept[key] for key in sorted(kept, key=lambda key: key != "schedule")}
        return "{ " + ", ".join(f"{key} = {_toml(part)}" for key, part in kept.items()) + " }" if kept else "{}"
    return json.dumps(value, ensure_ascii=False)


def _values(part: Table, root: Table) -> str:
    """What may stand there, in words."""
    part = _resolved(part, root)
    if part.get("schedulable"):
        return f"{_values(part['oneOf'][0], root)}, or {SCHEDULE}"
    if "schedule" in part.get("properties", {}):
        return SCHEDULE
    for union in ("anyOf", "oneOf"):
        if union in part:
            # A type left to the file that this one changes adds no way of its own.
            told = dict.fromkeys(_values(branch, root) for branch in part[union] if "not" not in branch)
            return SCHEDULE if set(told) == {SCHEDULE} else ", or ".join(one for one in told if one)
    if "enum" in part:
        return "off" if part["enum"] == SWITCHED_OFF else ", ".join(f"`{_toml(one)}`" for one in part["enum"])
    if "const" in part:
        return f"`{_toml(part['const'])}`"
    return _plain(part, root)


def _plain(part: Table, root: Table) -> str:
    kind = part.get("type")
    if kind == "string":
        return _text(part)
    if kind == "array":
        first = part.get("prefixItems")
        if first:
            return f"a list of {len(first)}: {'; '.join(_values(one, root) for one in first)}"
        return f"a list, each {_values(part.get('items', {}), root)}"
    if kind == "object":
        return (
            "a table" if "properties" not in part else f"a table of {', '.join(f'`{k}`' for k in part['properties'])}"
        )
    names = {"integer": "a whole number", "number": "a number", "boolean": "`true`, `false`"}
    return names.get(str(kind), "") + _range(part)


def _text(part: Table) -> str:
    examples = part.get("examples", ())
    if part.get("format") == "path":
        return "a path" + "".join(f", or the corpus `{_toml(name)}`" for name in examples)
    if "16 epochs" in examples:
        return "a duration"
    return "an import path" if part.get("pattern") == ":" else "text"


def _range(part: Table) -> str:
    signs = {"minimum": "from {}", "exclusiveMinimum": "above {}", "maximum": "to {}", "exclusiveMaximum": "below {}"}
    huge = 2**53
    told = [sign.format(f"{part[key]:g}") for key, sign in signs.items() if key in part and abs(part[key]) < huge]
    return f" {' '.join(told)}" if told else ""


def _typed(title: str) -> str:
    return json.dumps(title)


def _sentence(text: str) -> str:
    """A docstring as one paragraph; what only pydantic says of a table is left out."""
    return " ".join(text.split())


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _resolved(part: Table, root: Table) -> Table:
    if "$ref" not in part:
        return part
    found: Table = root["$defs"][part["$ref"].rpartition("/")[2]]
    return {**found, **{key: value for key, value in part.items() if key != "$ref"}}


PAGES = {"reference.md": reference, "coming-from.md": coming_from}
"""The pages by file name."""


def main() -> None:
    """Write the pages into `docs/guide/`."""
    for name, page in PAGES.items():
        (GUIDE / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
