"""Says what is wrong with a config: a sentence for each mistake, with the key, what is allowed, and where."""

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from pydantic import BaseModel, ValidationError

from etude.base.config.components import Component, quoted
from etude.base.config.composing import Layer, Origin, dotted, subject
from etude.base.config.lines import Key
from etude.base.config.mistakes import Mistake, mistakes_of
from etude.base.config.musts import BOUNDS, brief, must
from etude.base.config.nest import value_at
from etude.base.config.other_words import hint
from etude.base.config.reading import shown
from etude.base.config.section import Section
from etude.base.config.structure import bounds_of, component_of, fields_of, section_for, type_at
from etude.base.near import nearest

MOST = 100
"""Mistakes that are told one by one: beyond this a file is not a config with mistakes, but something else."""


def sentences(root: type[BaseModel], layer: Layer, error: ValidationError, path: Path | None) -> list[str]:
    """Turn all that a validation found into sentences, in the order of the keys' lines."""
    speaker = _Speaker(root, layer, path)
    ordered = sorted(mistakes_of(error, layer.data), key=lambda mistake: speaker.line(mistake.key))
    said = list(dict.fromkeys(map(speaker.sentence, ordered[:MOST])))
    more = len(ordered) - MOST
    return [*said, f"There are {more} more mistakes like these."] if more > 0 else said


class _Speaker:
    """Puts mistakes into words."""

    def __init__(self, root: type[BaseModel], layer: Layer, path: Path | None) -> None:
        self.root = root
        self.layer = layer
        self.path = path
        self.special: Mapping[str, Callable[[Mistake], str]] = {
            "missing": self.missing,
            "extra_forbidden": self.unknown,
            "literal_error": self.word,
            "enum": self.word,
            "union_tag_invalid": self.tag,
            "union_tag_not_found": self.untagged,
            "component_type": self.component,
            "component_untyped": self.untyped,
        }

    def sentence(self, mistake: Mistake) -> str:
        """Say one mistake."""
        return self.special.get(mistake.kind, self.value)(mistake)

    def value(self, mistake: Mistake) -> str:
        """A value that must be another, or whatever else a check has said."""
        limits = bounds_of(self.type_of(mistake.key)) if mistake.kind in BOUNDS else {}
        key, said = self.about(mistake.key, must(mistake, limits))
        name = dotted(key) or "the config"
        if not said.startswith("must"):
            return f"{_named(name, said)} ({self.where(key)})."
        value = "" if "but is" in said else f", but is {brief(mistake.value)}"
        return f"{name} {said}{value} ({self.where(key)})."

    def about(self, key: Key, said: str) -> tuple[Key, str]:
        """Tell which key a sentence is about: what a check of a whole section says may begin with one of its keys."""
        told, rest = subject(said)
        meant = next((place for place in ((*key, *told), told) if told and self.is_key(place)), None)
        if meant is None:
            return key, said
        return meant, rest if rest.startswith("must") else f"{dotted(meant)} {rest}"

    def missing(self, mistake: Mistake) -> str:
        """A key that must be given, or an element of a list of fixed length."""
        *above, key = mistake.key
        place = tuple(above)
        if isinstance(key, int):
            value = brief(value_at(self.layer.data, place))
            return f"{dotted(place)} must hold more values, but is {value} ({self.where(mistake.key)})."
        kind = self.component_at(mistake.key)
        if kind is not None and kind.default is None:
            return self.no_type(mistake.key, quoted(kind.table))
        section = f" in [{dotted(place)}]" if place else ""
        return f"{dotted(mistake.key)} is missing: set it{section} ({self.where(place)})."

    def unknown(self, mistake: Mistake) -> str:
        """A key that nobody reads."""
        *above, key = mistake.key
        place = tuple(above)
        table = f"a key of [{dotted(place)}]" if place else "a section of the config"
        told, where = self.advice(str(key), place, mistake.value), self.where(mistake.key)
        if told and where.startswith("--"):  # else the flag would read as what the advice is called there
            where = f"in the place of {where}"
        return f"{dotted(mistake.key)} is not {table}; {told or self.listed(place)} ({where})."

    def listed(self, place: Key) -> str:
        """Say what keys there are, where nothing is like the one that was written."""
        return f"it knows {', '.join(self.known(place))}"

    def advice(self, key: str, place: Key, value: object) -> str:
        """Say what the writer of an unknown key may have meant; nothing where that is not known."""
        told = (self.foreign(key, place), hint(key, value), self.elsewhere(key, place, self.known(place)))
        return next(filter(None, told), "")

    def foreign(self, key: str, place: Key) -> str:
        """Say what a key is for in another kind of the section; nothing where no kind has it."""
        section = self.section(place)
        return section.foreign.get(key, "") if section is not None and issubclass(section, Section) else ""

    def elsewhere(self, key: str, place: Key, known: Iterable[str]) -> str:
        """Guess what a misspelt or misplaced key was meant to be."""
        near = nearest(key, known)
        meant = (*place, near) if near else self.in_another_section(key, exactly=bool(place))
        return f"did you mean {dotted(meant)}?" if meant else ""

    def in_another_section(self, key: str, *, exactly: bool) -> Key:
        """Find the section that has a key, or unless that must be exactly this, one close to it."""
        found = {nearest(key, self.known((name,))): name for name in reversed(fields_of(self.root))}
        closest = key if exactly or key in found else nearest(key, found)
        return (found[closest], closest) if closest and closest in found else ()

    def word(self, mistake: Mistake) -> str:
        """A word that is not one of those allowed."""
        expected = str(mistake.context.get("expected", ""))
        pairs = re.findall(r"'((?:[^'\\]|\\.)*)'|([^\s',]+)", expected)
        words = [word for word in map("".join, pairs) if word != "or"]
        allowed = ", ".join(f'"{word}"' if f"'{word}'" in expected else word.lower() for word in words)
        one_of = "one of " if len(words) > 1 else ""
        return self.choice(mistake.key, f"must be {one_of}{allowed}", mistake.value, words)

    def tag(self, mistake: Mistake) -> str:
        """A table whose kind nobody knows."""
        words = re.findall(r"'([^']*)'", str(mistake.context["expected_tags"]))
        allowed = f"must be one of {quoted(words)}"
        return self.choice((*mistake.key, mistake.tag), allowed, mistake.context["tag"], words)

    def untagged(self, mistake: Mistake) -> str:
        """A table that does not say its kind."""
        name, tag, where = dotted(mistake.key), mistake.tag, self.where(mistake.key)
        if isinstance(mistake.value, Mapping):
            return f"{name} must name its {tag}, as in {tag} = ... ({where})."
        return f"{name} must be a table with {tag} = ..., but is {brief(mistake.value)} ({where})."

    def component(self, mistake: Mistake) -> str:
        """A component that is not in the table of names."""
        value = mistake.value
        name = value.get("type") if isinstance(value, Mapping) else value
        names = mistake.context["names"]
        kind = self.component_at(mistake.key)
        own = kind is None or kind.section({"type": "package.module:Class"}) is not None
        allowed = f"must be one of {quoted(names)}" + (', or "package.module:Class"' if own else "")
        return self.choice((*mistake.key, "type"), allowed, name, names)

    def untyped(self, mistake: Mistake) -> str:
        """A component that does not say which."""
        return self.no_type(mistake.key, mistake.context["names"])

    def no_type(self, key: Key, names: str) -> str:
        """Ask for the type of a component."""
        return f'{dotted(key)}.type is missing: give one of {names}, or "package.module:Class" ({self.where(key)}).'

    def choice(self, key: Key, allowed: str, value: object, words: Iterable[str]) -> str:
        """Refuse a word, with the nearest that is allowed."""
        near = nearest(str(value), words)
        advice = f'; did you mean "{near}"?' if near else ""
        return f"{dotted(key)} {allowed}, but is {brief(value)}{advice} ({self.where(key)})."

    def type_of(self, key: Key) -> object:
        """The type of what stands at a key."""
        return type_at(self.root, key, self.layer.data)

    def component_at(self, key: Key) -> Component | None:
        """The component that stands at a key, if one does."""
        return component_of(self.type_of(key))

    def section(self, place: Key) -> type[BaseModel] | None:
        """The section at a place, if there is one."""
        return section_for(self.type_of(place), value_at(self.layer.data, place))

    def known(self, place: Key) -> list[str]:
        """List the keys of the section at a place."""
        section = self.section(place)
        return list(fields_of(section)) if section else []

    def is_key(self, key: Key) -> bool:
        """Whether a key is given, or is one of its section's."""
        return key in self.layer.origins or key[-1] in self.known(key[:-1])

    def where(self, key: Key) -> str:
        """Name the file and line, or the flag, of a key or of the table it belongs in."""
        origin = self.layer.origin_of(key)
        if origin is not None:
            return str(origin)
        return shown(self.path) if self.path else "no file or flag sets it"

    def line(self, key: Key) -> tuple[bool, str, int]:
        """Order mistakes as a reader meets them."""
        origin = self.layer.origin_of(key) or Origin()
        return (origin.flag is not None, str(origin.file or ""), origin.line or 0)


def _named(name: str, said: str) -> str:
    """Put the key in front of what a check of the section's own said, unless it is there already."""
    return said if said.startswith(name) else f"{name}: {said}"
