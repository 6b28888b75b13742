"""Corpora of text: the documents of files and folders one after the other, and why one cannot be used.

A document comes in blocks of text, so that one of any length takes the same memory; it is read before the next one.
"""

import codecs
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, final

from etude.base.errors import DataError
from etude.base.says import Say, unheard
from etude.data.files.json_lines import is_text, why_invalid
from etude.data.files.lines import UTF16, is_blank, is_utf16, shown
from etude.data.files.text_files import DamagedError, Seen, TextFile, blocks, contents, identity, text_files
from etude.data.files.text_pieces import not_blank

LINE_BYTES = 1 << 28
"""A longer line of JSON, which is held in memory as a whole, is a bad sample."""
ROWS = 256
"""Rows of Parquet that are read at once."""
ESCAPED = re.compile("[\udc80-\udcff]")
"""What stands for bytes that are no UTF-8."""
MARK = "\N{ZERO WIDTH NO-BREAK SPACE}"
"""The byte order mark."""


class Document(NamedTuple):
    """A text, and where it begins: the line of its file, or the row of a table, counted from 1."""

    file: str
    line: int
    blocks: Iterator[str]


class BadDocument(NamedTuple):
    """Why there is no document, and where."""

    file: str
    line: int
    reason: str
    empty: bool = False
    """Whether it is but a file without text among others: counted, and no reason to end."""


@final
class TextCorpus:
    """The documents of files, in order: a plain file is one, or several with a `separator`; a row of a table is one."""

    def __init__(
        self, files: Sequence[TextFile], *, field: str = "text", separator: str | None = None, cache: Path | None = None
    ) -> None:
        self.files = tuple(files)
        self.name = shown(self.files[0].path) + (f" and {len(files) - 1} more" if len(files) > 1 else "")
        self._field, self._separator = field, separator
        self._contents = contents(self.files, cache)
        self.size = sum(known[0] for known, _ in self._contents)
        """Bytes of all files, as they are stored."""
        self.read = 0
        """Bytes of the files that the documents so far have taken; what progress is told by."""
        self._before = 0

    def documents(self) -> Iterator[Document | BadDocument]:
        """Give every document in order, each to be read before the next is asked for.

        Raises DataError where a library is missing, or a table has no such column.
        """
        self.read = self._before = 0
        for file, (known, _) in zip(self.files, self._contents, strict=True):
            match file.kind:
                case "jsonl":
                    yield from self._json_lines(file)
                case "parquet":
                    yield from self._parquet(file)
                case _:
                    yield from self._plain(file)
            self.read = self._before = self._before + known[0]

    def fingerprint(self) -> str:
        """Give a sha256 of everything that decides what the documents are."""
        parts = [[sha256, file.kind, file.compression] for file, (_, sha256) in zip(self.files, self._contents)]  # noqa: B905 - as long by construction
        return hashlib.sha256(json.dumps(["text", self._field, self._separator, parts]).encode()).hexdigest()

    def check_unchanged(self) -> None:
        """Raise DataError where a file is no longer what it was when this was made."""
        for file, (known, _) in zip(self.files, self._contents, strict=True):
            if identity(file.path) != known:
                raise DataError(f"{shown(file.path)} has changed while it was read; start again.")

    def _seen(self, position: int) -> None:
        self.read = self._before + position

    def _plain(self, file: TextFile) -> Iterator[Document | BadDocument]:
        """Read a file of plain text twice, first to find what is wrong: its begin may be in use before its end is."""
        name, bad = str(file.path), _first_flaw(file)
        if bad is not None and (self._separator is None or not bad.reason.startswith("invalid UTF-8")):
            yield bad
        elif self._separator is None:
            text = not_blank(_texts(file, seen=self._seen))
            empty = BadDocument(name, 1, "the document is empty", empty=len(self.files) > 1)
            yield empty if text is None else Document(name, 1, text)
        elif bad is None:
            for line, document in _separated(_texts(file, seen=self._seen), self._separator):
                if (text := not_blank(document)) is not None:
                    yield Document(name, line, text)
        else:
            yield from _sorted_out(file, self._separator, self._seen)

    def _json_lines(self, file: TextFile) -> Iterator[Document | BadDocument]:
        name, number = str(file.path), 0
        try:
            for number, line in enumerate(_lines(file, self._seen), 1):
                text = _text_of(line, self._field, first=number == 1)
                yield (
                    text._replace(file=name, line=number)
                    if isinstance(text, BadDocument)
                    else Document(name, number, iter((text,)))
                )
        except DamagedError as error:
            yield BadDocument(name, number + 1, str(error))

    def _parquet(self, file: TextFile) -> Iterator[Document | BadDocument]:
        name, row = str(file.path), 0
        try:
            for row, value in enumerate(_column(file.path, self._field), 1):
                match value:
                    case str() if not is_blank(value):
                        yield Document(name, row, iter((value,)))
                    case str():
                        yield BadDocument(name, row, "the document is empty")
                    case _:
                        yield BadDocument(name, row, "the row has no text")
        except DamagedError as error:
            yield BadDocument(name, row + 1, str(error))


def open_texts(
    paths: Path | str | Sequence[Path],
    *,
    field: str = "text",
    separator: str | None = None,
    cache: Path | None = None,
    notice: Say = unheard,
    key: str = "data.train",
) -> TextCorpus:
    """Open what `paths` name: files, folders, or a corpus by name (a `str`), as documents.

    `field` is the field or column of the text in JSON lines and Parquet. Raises DataError where there is nothing.
    """
    if isinstance(paths, str):
        from etude.data.corpora.python_sources import text_corpus

        if cache is None:
            raise DataError(f"{key} is the corpus {shown(paths)}, which needs a cache folder to be written to.")
        made = text_corpus(paths, cache / "corpora" / paths, notice=notice)
        return TextCorpus(text_files([made], key, notice), cache=cache)
    files = text_files([paths] if isinstance(paths, Path) else paths, key, notice)
    return TextCorpus(files, field=field, separator=separator or None, cache=cache)


def _texts(file: TextFile, errors: str = "strict", seen: Seen = lambda _: None) -> Iterator[str]:
    """Decode a file block by block."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors)
    first = True
    for block in blocks(file, seen):
        if first and is_utf16(block):
            raise DamagedError(UTF16)
        text = decoder.decode(block)
        if text:
            yield text.removeprefix(MARK) if first else text
            first = False
    if last := decoder.decode(b"", final=True):
        yield last


def _first_flaw(file: TextFile) -> BadDocument | None:
    """Read a file to its end, and say where that fails."""
    line = 1
    texts = _texts(file)
    try:
        for text in texts:
            line += text.count("\n")
    except UnicodeDecodeError as error:
        line += error.object[: error.start].count(b"\n")
        return BadDocument(str(file.path), line, f"invalid UTF-8 (byte 0x{error.object[error.start]:02x})")
    except DamagedError as error:
        return BadDocument(str(file.path), line, str(error))
    return None


def _sorted_out(file: TextFile, separator: str, seen: Seen) -> Iterator[Document | BadDocument]:
    """Give the good documents of a file that has bad ones; each is held in memory until that is known."""
    for line, document in _separated(_texts(file, "surrogateescape", seen), separator):
        text = "".join(document)
        escaped = ESCAPED.search(text)
        if escaped is not None:
            there, byte = line + text.count("\n", 0, escaped.start()), ord(escaped[0]) - 0xDC00
            yield BadDocument(str(file.path), there, f"invalid UTF-8 (byte 0x{byte:02x})")
        elif not is_blank(text):
            yield Document(str(file.path), line, iter((text,)))


def _separated(texts: Iterable[str], separator: str) -> Iterator[tuple[int, Iterator[str]]]:
    """Cut text at every `separator`: give the line each part begins at, and its blocks."""
    cutter = _Cutter(iter(texts), separator)
    while not cutter.over:
        yield cutter.line, cutter.part()


class _Cutter:
    """Text that is being cut at separators."""

    def __init__(self, texts: Iterator[str], separator: str) -> None:
        self.line, self.over = 1, False
        self._texts, self._separator = texts, separator
        self._text, self._at = "", 0

    def part(self) -> Iterator[str]:
        """Give the blocks up to the next separator, or to the end."""
        separator, keep = self._separator, len(self._separator) - 1
        while (found := self._text.find(separator, self._at)) < 0:
            following = next(self._texts, None)
            if following is None:
                yield from self._taken(len(self._text))
                self.over = True
                return
            # The separator may have begun, in the last characters.
            yield from self._taken(max(self._at, len(self._text) - keep))
            self._text, self._at = self._text[self._at :] + following, 0
        yield from self._taken(found)
        self._at = found + len(separator)
        self.line += separator.count("\n")

    def _taken(self, end: int) -> Iterator[str]:
        text, self._at = self._text[self._at : end], end
        self.line += text.count("\n")
        if text:
            yield text


def _lines(file: TextFile, seen: Seen) -> Iterator[bytes | None]:
    """Give the lines of a file without their ends; None for one that is too long."""
    parts: list[bytes] = []
    size = 0
    for block in blocks(file, seen):
        head, *lines = block.split(b"\n")
        size += len(head)
        parts = [*parts, head] if size <= LINE_BYTES else []
        for line in lines:
            yield b"".join(parts) if size <= LINE_BYTES else None
            parts, size = [line], len(line)
    if size:
        yield b"".join(parts) if size <= LINE_BYTES else None


def _text_of(line: bytes | None, field: str, *, first: bool) -> str | BadDocument:
    """Read the text of a line of JSON; a flaw without its place where there is none."""
    reason = f"the line is longer than {LINE_BYTES >> 20} MiB"
    if line is not None:
        try:
            value = json.loads(line.decode("utf-8-sig" if first else "utf-8"))
            reason = _why_not(value, field)
        except UnicodeDecodeError as error:
            reason = f"invalid UTF-8 (byte 0x{line[error.start]:02x} at position {error.start + 1})"
        except (ValueError, RecursionError) as error:
            reason = why_invalid(error)
        if not reason:
            return str(value[field])
    return BadDocument("", 0, reason)


def _why_not(value: object, field: str) -> str:
    """Say why a line of JSON is no document; nothing where it is one."""
    match value:
        case dict():
            return _why_no_text(value[field], field) if field in value else _no_field(value, field)
    return "the line is not a JSON object"


def _no_field(value: Mapping[object, object], field: str) -> str:
    names = ", ".join(f'"{shown(str(name), 40)}"' for name in [*value][:10]) or "none"
    return f'there is no field "{shown(field)}", but {names}; data.text names the field'


def _why_no_text(text: object, field: str) -> str:
    match text:
        case str():
            if is_blank(text):
                return "the document is empty"
            return "" if is_text(text) else f'the field "{shown(field)}" holds half a surrogate pair'
    return f'the field "{shown(field)}" is not a string'


def _column(path: Path, field: str) -> Iterator[object]:
    """Read a column of a Parquet file, a few rows at a time."""
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise DataError(f"{shown(path)} needs pyarrow: pip install 'etude[text]'.") from error
    try:
        with parquet.ParquetFile(path) as table:
            names = table.schema_arrow.names
            if field not in names:
                listed = ", ".join(f'"{shown(name, 40)}"' for name in names[:10])
                raise DataError(
                    f'{shown(path)} has no column "{shown(field)}", but {listed}; data.text names the column.'
                )
            for batch in table.iter_batches(batch_size=ROWS, columns=[field], use_threads=False):
                yield from batch.column(0).to_pylist()
    except (ArrowException, OSError, UnicodeDecodeError) as error:
        raise DamagedError(f"the Parquet file cannot be read ({error})") from error
