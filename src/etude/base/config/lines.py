"""Which line every key of a TOML file stands on.

`tomllib` reads the values and has already refused what is not TOML; this scanner only follows the text far enough
to know where each key begins.
"""

import re
import tomllib
from collections.abc import Iterator

Key = tuple[str | int, ...]
"""A place in a config: names of tables and keys, and positions in arrays."""

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_SPACE = re.compile(r"[ \t]*")
_SCALAR = re.compile(r"[^,\]}#\r\n]*")
_STRINGS = (
    re.compile(r'"""(?:[^"\\]|\\.|"(?!""))*"{3,5}', re.DOTALL),
    re.compile(r"'''(?:[^']|'(?!''))*'{3,5}", re.DOTALL),
    re.compile(r'"(?:[^"\\\n]|\\.)*"'),
    re.compile(r"'[^'\n]*'"),
)


def key_lines(text: str) -> dict[Key, int]:
    """Map every key, table and array element of a valid TOML text to its line, counted from 1."""
    return _Scanner(text).scan()


def split_key(text: str) -> tuple[str, ...]:
    """Take a dotted key apart, quoted parts included; ValueError where it is no TOML key.

    >>> split_key('init.weights."encoder.*"')
    ('init', 'weights', 'encoder.*')
    """
    scanner = _Scanner(text)
    keys = scanner.dotted()
    if scanner.position != len(text):
        raise ValueError(text)
    return keys


class _Scanner:
    """Walks through one text; `position` is always at what comes next."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.lines: dict[Key, int] = {}
        self.last: dict[Key, int] = {}
        self.counted = 0
        self.line = 1

    def scan(self) -> dict[Key, int]:
        """Read the whole document."""
        table: Key = ()
        while self.skip(_BLANK).position < len(self.text):
            table = self.header() if self.text[self.position] == "[" else self.pair(table)
        return self.lines

    def header(self) -> Key:
        """Read `[a.b]` or `[[a.b]]` and give the place of the table it opens."""
        many = self.text.startswith("[[", self.position)
        line = self.here()
        self.position += 1 + many
        names = self.skip(_SPACE).dotted()
        self.skip(_SPACE).position += 1 + many
        place: Key = ()
        for name in names[:-1]:
            place = self.inside((*place, name))
            self.lines.setdefault(place, line)
        place = (*place, names[-1])
        self.lines.setdefault(place, line)
        if many:
            self.last[place] = self.last.get(place, -1) + 1
        place = self.inside(place)
        self.lines[place] = line
        return place

    def inside(self, place: Key) -> Key:
        """Enter the newest element where the place is an array of tables."""
        return (*place, self.last[place]) if place in self.last else place

    def pair(self, table: Key) -> Key:
        """Read `key = value` within a table; gives the table back."""
        line = self.here()
        place = table
        for name in self.dotted():
            place = (*place, name)
            self.lines.setdefault(place, line)
        self.skip(_SPACE).position += 1
        self.skip(_SPACE).value(place)
        return table

    def value(self, place: Key) -> None:
        """Pass over a value, noting the keys and elements inside it."""
        first = self.text[self.position : self.position + 1]
        if first in {"[", "{"}:
            self.position += 1
            self.members(place, "]" if first == "[" else "}")
        elif first in {'"', "'"}:
            self.quoted()
        else:
            self.skip(_SCALAR)

    def members(self, place: Key, end: str) -> None:
        """Pass over the elements of an array or the pairs of an inline table."""
        index = 0
        while (first := self.text[self.skip(_BLANK).position]) != end:
            if first == ",":
                self.position += 1
            elif end == "]":
                self.lines[(*place, index)] = self.here()
                self.value((*place, index))
                index += 1
            else:
                self.pair(place)
        self.position += 1

    def dotted(self) -> tuple[str, ...]:
        """Read a key with its dots."""
        names = [self.name()]
        while self.text.startswith(".", self.skip(_SPACE).position):
            self.position += 1
            names.append(self.skip(_SPACE).name())
        return tuple(names)

    def name(self) -> str:
        """Read one part of a key, bare or quoted."""
        if self.text[self.position : self.position + 1] in {'"', "'"}:
            quoted = self.quoted()
            return str(tomllib.loads(f"key = {quoted}")["key"])
        match = _BARE.match(self.text, self.position)
        if match is None:
            raise ValueError(self.text)
        self.position = match.end()
        return match.group()

    def quoted(self) -> str:
        """Read a string of any of the four kinds, as it is written."""
        for kind in _strings_at(self.text, self.position):
            self.position = kind.end()
            return kind.group()
        raise ValueError(self.text)

    def skip(self, pattern: re.Pattern[str]) -> "_Scanner":
        """Move past what the pattern matches here."""
        match = pattern.match(self.text, self.position)
        self.position = match.end() if match else self.position
        return self

    def here(self) -> int:
        """Give the line of the present position; counts on from the last time it was asked."""
        self.line += self.text.count("\n", self.counted, self.position)
        self.counted = self.position
        return self.line


def _strings_at(text: str, position: int) -> Iterator[re.Match[str]]:
    for pattern in _STRINGS:
        match = pattern.match(text, position)
        if match:
            yield match
