"""Files of samples for a `transformers` model: plain text, JSON lines of text, prompt and answer or messages, pairs."""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, final

from etude.base.errors import DataError
from etude.base.says import Say, unheard
from etude.data.files.lines import Flaw, LineFile, shown
from etude.data.files.names import Split
from etude.data.files.parallel import JSON_LINES, PairSource, open_pairs

TEXTS = (".txt", ".md", ".rst", ".text")
LARGEST_TEXT = 1 << 30
"""Bytes; a larger text file is no one document to be read at once."""


class Text(NamedTuple):
    """A document."""

    text: str


class Asked(NamedTuple):
    """A prompt and its answer."""

    prompt: str
    answer: str


class Conversation(NamedTuple):
    """Messages, each with role and content, as JSON gave them: nothing of them is checked yet."""

    messages: Any


Sample = Text | Asked | Conversation


class Fields(NamedTuple):
    """What the fields of JSON lines are called."""

    text: str = "text"
    prompt: str = "prompt"
    answer: str = "answer"
    messages: str = "messages"


class SampleSource(Protocol):
    """Samples by number."""

    def __len__(self) -> int: ...

    def samples(self) -> Iterator[Sample | Flaw]:
        """Read them all in order, or why one cannot be used."""

    def place(self, index: int, side: str = "source") -> tuple[str, int]:
        """Give the file and the line (counted from 1) of a sample."""

    def fingerprint(self) -> str:
        """Give a sha256 of everything that decides what the samples are."""


def open_samples(
    split: Split,
    fields: Fields,
    *,
    source: str | int = "source",
    target: str | int = "target",
    cache: Path | None = None,
    notice: Say = unheard,
    key: str = "data.train",
) -> SampleSource:
    """Open what `split` names: JSON lines, text files, folders of either, tables, aligned files, a generated corpus.

    A text file is one document. A line of JSON is a conversation, a prompt with its answer, or a text, whichever
    `fields` the first line has; with neither it is a pair of `source` and `target`, a prompt and its answer by other
    names. Raises DataError, naming the file, where one is missing or of an unknown kind.
    """
    if isinstance(split, Path) or (isinstance(split, (tuple, list)) and split):
        paths = _files([split] if isinstance(split, Path) else list(split), key)
        if all(path.suffix in TEXTS for path in paths):
            return TextFiles(paths)
        if all(path.suffix in JSON_LINES for path in paths):
            lines = [LineFile(path, cache) for path in paths]
            return JsonSamples(lines, _shape(lines[0], fields, (str(source), str(target))))
        split = paths
    return PairSamples(open_pairs(split, source=source, target=target, cache=cache, notice=notice, key=key))


@final
class TextFiles:
    """Text files, each a document."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    def samples(self) -> Iterator[Sample | Flaw]:
        """Read them all in order, or why one cannot be used."""
        for path in self._paths:
            content = _bytes(path)
            try:
                text = content.decode("utf-8").removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}")
            except UnicodeDecodeError as error:
                yield Flaw(f"invalid UTF-8 (byte 0x{content[error.start]:02x} at position {error.start + 1})")
                continue
            yield Text(text) if text and not text.isspace() else Flaw("the text is empty")

    def place(self, index: int, side: str = "source") -> tuple[str, int]:
        """Give the file of a document, and its first line."""
        del side
        return str(self._paths[index]), 1

    def fingerprint(self) -> str:
        """Give a sha256 of everything that decides what the samples are."""
        return _digest("texts", *(hashlib.sha256(_bytes(path)).hexdigest() for path in self._paths))


@final
class JsonSamples:
    """Lines of JSON, read as `shape` says."""

    def __init__(self, files: Sequence[LineFile], shape: "Shape") -> None:
        self._files = files
        self._shape = shape

    def __len__(self) -> int:
        return sum(map(len, self._files))

    def samples(self) -> Iterator[Sample | Flaw]:
        """Read them all in order, or why one cannot be used."""
        for file in self._files:
            for line in file.decoded(0, len(file)):
                yield line if isinstance(line, Flaw) else self._shape.read(line)

    def place(self, index: int, side: str = "source") -> tuple[str, int]:
        """Give the file and the line of a sample."""
        del side
        for file in self._files:
            if index < len(file):
                return str(file.path), index + 1
            index -= len(file)
        raise IndexError(index)

    def fingerprint(self) -> str:
        """Give a sha256 of everything that decides what the samples are."""
        return _digest("json", self._shape.kind, *self._shape.names, *(file.sha256 for file in self._files))


@final
class PairSamples:
    """Pairs of texts as prompts and answers."""

    def __init__(self, pairs: PairSource) -> None:
        self._pairs = pairs

    def __len__(self) -> int:
        return len(self._pairs)

    def samples(self) -> Iterator[Sample | Flaw]:
        """Read them all in order, or why one cannot be used."""
        for row in self._pairs.rows(0, len(self._pairs)):
            yield row if isinstance(row, Flaw) else Asked(row.source, row.target)

    def place(self, index: int, side: str = "source") -> tuple[str, int]:
        """Give the file and the line of a sample."""
        return self._pairs.place(index, side)

    def fingerprint(self) -> str:
        """Give a sha256 of everything that decides what the samples are."""
        return _digest("pairs", self._pairs.fingerprint())


class Shape(NamedTuple):
    """Which fields of a JSON line make a sample of which kind."""

    kind: str
    names: tuple[str, ...]

    def read(self, line: str) -> Sample | Flaw:
        """Read one line."""
        value = _object(line)
        if isinstance(value, Flaw):
            return value
        for name in self.names:
            if name not in value:
                return Flaw(f'there is no field "{shown(name)}"')
            if self.kind != "messages" and not isinstance(value[name], str):
                return Flaw(f'the field "{shown(name)}" is no string')
        parts = [value[name] for name in self.names]
        if not _is_text(parts):
            return Flaw("a string holds half a surrogate pair")
        if self.kind == "messages":
            return Conversation(parts[0])
        if self.kind == "answer":
            return Asked(*parts)
        return Text(*parts) if parts[0].strip() else Flaw("the text is empty")


def _shape(file: LineFile, fields: Fields, pair: tuple[str, str]) -> Shape:
    """What the first line of a file says about all."""
    shapes = [
        Shape("messages", (fields.messages,)),
        Shape("answer", (fields.prompt, fields.answer)),
        Shape("text", (fields.text,)),
        Shape("answer", pair),
    ]
    first = next(file.decoded(0, 1))
    value = first if isinstance(first, Flaw) else _object(first)
    if isinstance(value, Flaw):
        raise DataError(f"{shown(file.path)}, line 1: {value.reason}.")
    found = next((shape for shape in shapes if all(name in value for name in shape.names)), None)
    if found is None:
        listed = ", ".join(f'"{shown(name, 40)}"' for name in list(value)[:10]) or "none"
        wanted = "; ".join(" and ".join(f'"{name}"' for name in shape.names) for shape in shapes)
        raise DataError(f"{shown(file.path)}, line 1: the fields are {listed}, but must hold one of: {wanted}.")
    return found


def _object(line: str) -> dict[str, Any] | Flaw:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        return Flaw(f"invalid JSON ({getattr(error, 'msg', 'nested too deeply or a number too long')})")
    return value if isinstance(value, dict) else Flaw("the line is no JSON object")


def _is_text(value: Any) -> bool:
    """Tell whether UTF-8 can hold every string of a value; JSON can escape what it cannot."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _files(paths: list[Path], key: str) -> list[Path]:
    """The files that paths name: folders by all that they hold, hidden files left out, in the order of their names."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            held = sorted(file for file in path.rglob("*") if file.is_file() and not _hidden(file.relative_to(path)))
            if not held:
                raise DataError(f"{key}: the folder {shown(path)} holds no file.")
            found += held
        elif path.is_file():
            found.append(path)
        else:
            raise DataError(f"{key}: {shown(path)} does not exist.")
    kinds = {"text" if path.suffix in TEXTS else "JSON lines" if path.suffix in JSON_LINES else "" for path in found}
    if len(kinds) > 1:
        odd = next(path for path in found if path.suffix != found[0].suffix)
        raise DataError(f"{key}: {shown(found[0])} and {shown(odd)} are of two kinds: give files of one.")
    return found


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _bytes(path: Path) -> bytes:
    try:
        if path.stat().st_size > LARGEST_TEXT:
            raise DataError(f"{shown(path)} is no one document: it has {path.stat().st_size:,} bytes; split it.")
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{shown(path)} cannot be read: {os.strerror(error.errno or 0)}.") from error


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
