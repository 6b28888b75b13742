"""Files of samples for a `transformers` model: plain text, JSON lines of text, prompt and answer or messages, pairs."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, final

from etude.base.errors import DataError
from etude.base.says import Say, unheard
from etude.data.files.json_lines import JSON_LINES, is_text, json_object, missing_field
from etude.data.files.lines import UTF16, Flaw, LineFile, is_blank, is_utf16, shown
from etude.data.files.names import Split, listed
from etude.data.files.parallel import PairSource, open_pairs
from etude.data.files.table_file import AS_WRITTEN, TableForm

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
    form: TableForm = AS_WRITTEN,
    cache: Path | None = None,
    notice: Say = unheard,
    key: str = "data.train",
) -> SampleSource:
    """Open what `split` names: JSON lines, text files, folders of either, tables, aligned files, a generated corpus.

    A text file is one document. A line of JSON is a conversation, a prompt with its answer, or a text, whichever
    `fields` the first line has; with neither it is a pair of `source` and `target`, a prompt and its answer by other
    names. Raises DataError, naming the file, where one is missing or of an unknown kind.
    """
    if isinstance(split, Path | tuple | list) and split:
        paths = _files(listed(split), key, notice)
        if _kind(paths[0]) == "text":
            return TextFiles(_with_text(paths, notice))
        if _kind(paths[0]) == "JSON lines":
            lines = [LineFile(path, cache) for path in paths]
            return JsonSamples(lines, _layout(lines[0], fields, (str(source), str(target))))
        split = paths
    pairs = open_pairs(split, source=source, target=target, form=form, cache=cache, notice=notice, key=key)
    return PairSamples(pairs)


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
            if is_utf16(content):
                yield Flaw(UTF16)
                continue
            try:
                text = content.decode("utf-8").removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}")
            except UnicodeDecodeError as error:
                yield Flaw(f"invalid UTF-8 (byte 0x{content[error.start]:02x} at position {error.start + 1})")
                continue
            yield Flaw("the text is empty") if is_blank(text) else Text(text)

    def place(self, index: int, side: str = "source") -> tuple[str, int]:
        """Give the file of a document, and its first line."""
        del side
        return str(self._paths[index]), 1

    def fingerprint(self) -> str:
        """Give a sha256 of everything that decides what the samples are."""
        return _digest("texts", *(hashlib.sha256(_bytes(path)).hexdigest() for path in self._paths))


@final
class JsonSamples:
    """Lines of JSON, read as `layout` says."""

    def __init__(self, files: Sequence[LineFile], layout: "Layout") -> None:
        self._files = files
        self._layout = layout

    def __len__(self) -> int:
        return sum(map(len, self._files))

    def samples(self) -> Iterator[Sample | Flaw]:
        """Read them all in order, or why one cannot be used."""
        for file in self._files:
            for line in file.decoded(0, len(file)):
                match line:
                    case Flaw():
                        yield line
                    case _:
                        yield self._layout.read(line)

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
        return _digest("json", self._layout.kind, *self._layout.names, *(file.sha256 for file in self._files))


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
            match row:
                case Flaw():
                    yield row
                case _:
                    yield Asked(row.source, row.target)

    def place(self, index: int, side: str = "source") -> tuple[str, int]:
        """Give the file and the line of a sample."""
        return self._pairs.place(index, side)

    def fingerprint(self) -> str:
        """Give a sha256 of everything that decides what the samples are."""
        return _digest("pairs", self._pairs.fingerprint())


class Layout(NamedTuple):
    """Which fields of a JSON line make a sample of which kind."""

    kind: str
    names: tuple[str, ...]

    def read(self, line: str) -> Sample | Flaw:
        """Read one line."""
        value = json_object(line)
        match value:
            case Flaw():
                return value
        flaw = next(filter(None, (self._why_not(value, name) for name in self.names)), None)
        if flaw is not None:
            return flaw
        parts = [value[name] for name in self.names]
        if not is_text(json.dumps(parts, ensure_ascii=False)):
            return Flaw("a string holds half a surrogate pair")
        return self._sample(parts)

    def _why_not(self, value: Mapping[str, object], name: str) -> Flaw | None:
        """Say why a field cannot be used; None where it can."""
        if name not in value:
            return missing_field(name)
        if self.kind != "messages" and not isinstance(value[name], str):
            return Flaw(f'the field "{shown(name)}" is not a string')
        return None

    def _sample(self, parts: list[Any]) -> Sample | Flaw:
        match self.kind:
            case "messages":
                return Conversation(parts[0])
            case "answer":
                return Asked(*parts)
        return Flaw("the text is empty") if is_blank(parts[0]) else Text(*parts)


def _layout(file: LineFile, fields: Fields, pair: tuple[str, str]) -> Layout:
    """What the first line of a file says about all."""
    layouts = [
        Layout("messages", (fields.messages,)),
        Layout("answer", (fields.prompt, fields.answer)),
        Layout("text", (fields.text,)),
        Layout("answer", pair),
    ]
    first = next(file.decoded(0, 1))
    value = first if isinstance(first, Flaw) else json_object(first)
    if isinstance(value, Flaw):
        raise DataError(f"{shown(file.path)}, line 1: {value.reason}.")
    found = next((layout for layout in layouts if value.keys() >= set(layout.names)), None)
    if found is None:
        listed = ", ".join(f'"{shown(name, 40)}"' for name in list(value)[:10]) or "none"
        wanted = "; ".join(map(_quoted, layouts))
        raise DataError(f"{shown(file.path)}, line 1: the fields are {listed}, but must hold one of: {wanted}.")
    return found


def _quoted(layout: Layout) -> str:
    return " and ".join(f'"{name}"' for name in layout.names)


def _files(paths: Sequence[Path], key: str, notice: Say) -> list[Path]:
    """The files that paths name: folders by what they hold of a known kind, in the order of their names."""
    found = [file for path in paths for file in _held(path, key, notice)]
    odd = next((path for path in found if _kind(path) != _kind(found[0])), None)
    if odd is not None:
        raise DataError(f"{key}: {shown(found[0])} and {shown(odd)} are of two kinds: give files of one kind.")
    return found


def _with_text(paths: list[Path], notice: Say) -> list[Path]:
    """Those of several files that hold any text; the others are counted. One alone, or the first of none, is kept."""
    held = [path for path in paths if _bytes(path).strip()] or paths[:1]
    if len(held) < len(paths):
        notice(f"{len(paths) - len(held):,} of {len(paths):,} files hold no text and are left out.")
    return held


def _held(path: Path, key: str, notice: Say) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(f"{key}: {shown(path)} does not exist.")
    held = sorted(file for file in path.rglob("*") if file.is_file() and not _hidden(file.relative_to(path)))
    if not held:
        raise DataError(f"{key}: the folder {shown(path)} holds no file.")
    known = list(filter(_kind, held)) or held
    if len(known) < len(held):
        other = next(file for file in held if file not in known)
        notice(
            f"{shown(path)}: {len(held) - len(known):,} files are left out, which are not text by their names, such as "
            f"{shown(other.name)}."
        )
    return known


def _kind(path: Path) -> str:
    if path.suffix in TEXTS:
        return "text"
    return "JSON lines" if path.suffix in JSON_LINES else ""


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _bytes(path: Path) -> bytes:
    try:
        if path.stat().st_size > LARGEST_TEXT:
            raise DataError(f"{shown(path)} is too large for a sample: it has {path.stat().st_size:,} bytes; split it.")
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{shown(path)} cannot be read: {os.strerror(error.errno or 0)}.") from error


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
