"""What a word of the command line was meant to be: other tools' flags, and `key=value`, in Etude's words."""

import re
from typing import Any

from etude.base.config.command import value_of
from etude.base.config.other_words import flag

_ASSIGNED = re.compile(r"\+{0,2}([A-Za-z_][\w.-]*)=(.*)", re.DOTALL)
SHARED = ("train", "run", "loss", "optimizer", "log")
"""Sections whose keys are the same with every task."""


def instead(name: str, text: str) -> str:
    """The flag of Etude's for a name with a value, which may be empty; itself empty where none is known.

    >>> instead("epochs", "3"), instead("batch-size", ""), instead("seed", "7"), instead("frobnicate", "1")
    ('--train.max_duration "3 epochs"', '--train.batch_size VALUE', '--run.seed 7', '')
    """
    key = name.replace("-", "_")
    if "." in key:
        return _dotted(key, text)
    return _foreign(key, text) or _of_config(key, text) or _of_predict(key, text)


def too_many(word: str, command: str) -> str:
    """Refuse a word that stands where none is taken; one of the form `key=value` is told how it is written.

    >>> too_many("train.batch_size=8", "etude train")
    '"train.batch_size=8" is not how etude train takes a value; write --train.batch_size 8.'
    """
    assigned = _ASSIGNED.fullmatch(word)
    told = instead(assigned[1], assigned[2]) if assigned else ""
    if told:
        return f'"{word}" is not how {command} takes a value; write {told}.'
    return f'"{word}" is one word too many for {command}; {command} --help shows how.'


def _dotted(key: str, text: str) -> str:
    """A key in a section, which may be another tool's."""
    name = key.rpartition(".")[2]
    foreign = "" if _is_ours(key) else _foreign(name, text) or _of_config(name, text)
    return foreign or _written(key, text)


def _is_ours(key: str) -> bool:
    """Whether a key in a section may be Etude's; of the sections that differ from task to task, any may."""
    section, _, name = key.rpartition(".")
    return name in _keys(section) if section in SHARED else section in _sections()


def _foreign(name: str, text: str) -> str:
    """The flag for another tool's word; empty where nobody uses it."""
    return flag(name, _value(text), text or "VALUE")


def _of_config(name: str, text: str) -> str:
    """The key of that name in a section that all tasks share; empty where none has one."""
    section = next((section for section in SHARED if name in _keys(section)), None)
    return "" if section is None else _written(f"{section}.{name}", text)


def _of_predict(name: str, text: str) -> str:
    """The key that a flag of `etude predict` is short for; empty where none is."""
    from etude.tasks.table import predict_flags

    key = next((one.key for one in predict_flags() if one.word == name), "")
    return _written(key, text) if key else ""


def _written(key: str, text: str) -> str:
    return f"--{key} {text or 'VALUE'}"


def _value(text: str) -> Any:
    """The value that text is, for what is told in a unit."""
    try:
        return value_of(text)
    except ValueError:
        return text


def _sections() -> list[str]:
    from etude.base.config.structure import fields_of
    from etude.tasks.config import Config

    return list(fields_of(Config))


def _keys(section: str) -> list[str]:
    """The keys of a section; imported late, since only a mistake asks for them."""
    from etude.base.config.structure import fields_of, section_for, type_below
    from etude.tasks.config import Config

    found = section_for(type_below(Config, section, {}), {})
    return [] if found is None else list(fields_of(found))
