"""Reads a file of another tool, and the command line's additions in its words; every mistake is told in these words."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from etude.app.convert.words import Given, Tool, Word
from etude.base.config.command import Override, parse
from etude.base.config.musts import brief
from etude.base.config.other_words import words as words_of
from etude.base.config.reading import Source, read, shown
from etude.base.config.structure import fields_of
from etude.base.errors import ConfigError
from etude.base.near import nearest
from etude.tasks.config import Config
from etude.train.config import TrainConfig

_SHOWN = 6
"""Keys of a section left out that its line names."""


@dataclass
class Foreign:
    """What a file and the command line say in another tool's words."""

    given: dict[str, Given]
    """A value for every word, the tool's defaults included."""
    flags: list[Override] = field(default_factory=list)
    """The flags of the command line that are Etude's own."""
    notes: list[str] = field(default_factory=list)
    """What of the file is left out."""
    problems: list[str] = field(default_factory=list)
    """Mistakes, each in a sentence."""

    @property
    def ours(self) -> Mapping[tuple[str, ...], object]:
        """What the flags that are Etude's own set."""
        return {one.key: one.value for one in self.flags}


def read_foreign(tool: Tool, path: Path, flags: Sequence[str]) -> Foreign:
    """Read a file of `tool`, and the flags that are given with it. Raises ConfigError with every problem at once."""
    source = read(path)
    found = Foreign(_defaults(tool))
    for key, value in source.data.items():
        _take_section(tool, found, source, key, value)
    if tool.section not in source.data and not found.problems:
        found.notes.append(f"{shown(path)} has no [{tool.section}]: {tool.name}'s defaults are used.")
    _take(tool, found, _of_flags(tool, found, flags))
    if found.problems:
        raise ConfigError(found.problems)
    return found


def _defaults(tool: Tool) -> dict[str, Given]:
    """A value for every word, where nobody gives one."""
    where = f"{tool.name}'s default"
    return {word.name: Given(word.default, where, is_default=True) for word in tool.words}


def _take_section(tool: Tool, found: Foreign, source: Source, key: str, value: object) -> None:
    """Take in a section of the file, or a key above all sections."""
    if key == tool.section:
        _take_translated(tool, found, source, value)
    elif key in tool.left_out:
        found.notes.append(_left_out(tool, source, key, value))
    else:
        found.problems.append(_unknown_section(tool, key, _where(source, key)))


def _take_translated(tool: Tool, found: Foreign, source: Source, value: object) -> None:
    """Take in the section that is translated, which must be a table."""
    match value:
        case Mapping():
            _take(tool, found, _in_section(tool, source, value))
        case _:
            key = tool.section
            found.problems.append(f"{key} must be a table, [{key}], but is {brief(value)} ({_where(source, key)}).")


def _in_section(tool: Tool, source: Source, section: Mapping[str, object]) -> Iterator[tuple[str, Given]]:
    for name, value in section.items():
        yield name, Given(value, _where(source, tool.section, name))


def _of_flags(tool: Tool, found: Foreign, flags: Sequence[str]) -> Iterator[tuple[str, Given]]:
    """The flags in the tool's words; Etude's own are kept for Etude, and others are problems."""
    try:
        overrides = parse(flags)
    except ConfigError as error:
        found.problems += error.problems
        return
    for one in overrides:
        if _is_ours(tool, one.key):
            found.flags.append(one)
        else:
            yield one.key[-1], Given(one.value, one.flag)


def _is_ours(tool: Tool, key: Sequence[str]) -> bool:
    """Whether a key of the command line is Etude's: it is in no section of the tool, or a word of Etude's alone."""
    if key[0] != tool.section or len(key) > 2:  # noqa: PLR2004 - a section and its key
        return True
    return tool.word(key[-1]) is None and key[-1] in TrainConfig.model_fields


def _take(tool: Tool, found: Foreign, pairs: Iterable[tuple[str, Given]]) -> None:
    """Keep the values of words that are right; a later one takes the place of an earlier."""
    for name, one in pairs:
        word = tool.word(name)
        if word is None:
            found.problems.append(_unknown_key(tool, name, one.where))
            continue
        try:
            found.given[word.name] = Given(word.check(one.value), one.where)
        except ValueError as error:
            found.problems.append(_wrong(tool, word, one, str(error)))


def _wrong(tool: Tool, word: Word, one: Given, must: str) -> str:
    said = must if "but is" in must else f"{must}, but is {brief(one.value)}"
    return f"{tool.section}.{word.name} must be {said} ({one.where})."


def _unknown_key(tool: Tool, name: str, where: str) -> str:
    """Refuse a key of the translated section, with what its writer may have meant."""
    key = f"{tool.section}.{name}"
    return f"{key} is not a key of {tool.name}'s [{tool.section}]; {_advice(tool, name, key)} ({where})."


def _advice(tool: Tool, name: str, key: str) -> str:
    for one in words_of(tool.name):
        if key in one.etude:
            return f"{tool.name} calls this {tool.section}.{one.word}"
    if name in TrainConfig.model_fields:
        return f"it is Etude's: give it as --{key} or in the second file"
    return _nearest(name, [word.name for word in tool.words], f"{tool.section}.")


def _nearest(name: str, known: Sequence[str], section: str = "") -> str:
    """The name that may have been meant, in its section; all that are known where none is like it."""
    near = nearest(name, known)
    return f"did you mean {section}{near}?" if near else f"it knows {', '.join(known)}"


def _unknown_section(tool: Tool, name: str, where: str) -> str:
    if name in fields_of(Config):
        return f"[{name}] is not a section of {tool.name} but of Etude: put it into the second file ({where})."
    advice = _nearest(name, [tool.section, *tool.left_out])
    return f"{name} is not a section of {tool.name}; {advice} ({where})."


def _left_out(tool: Tool, source: Source, key: str, value: object) -> str:
    """Tell of a section, or of a key above all sections, that is not translated."""
    what = f"[{key}]{_names(value)}" if isinstance(value, Mapping) else f"{key} = {brief(value)}"
    return f"{what} is left out: {tool.left_out[key]} ({_where(source, key)})."


def _names(section: Mapping[str, object]) -> str:
    """The first keys of a section, in brackets; nothing of an empty one."""
    listed = [*section][:_SHOWN] + ["..."] * (len(section) > _SHOWN)
    return f" ({', '.join(listed)})" if listed else ""


def _where(source: Source, *key: str) -> str:
    line = source.lines.get(key)
    return f"{shown(source.path)}, line {line}" if line else shown(source.path)
