r"""N-gram models in ARPA's text format: read once, asked word by word, with backoff (Katz 1987).

    \data\
    ngram 1=3
    ngram 2=1

    \1-grams:
    -99 <s> -0.30103
    -0.30103 </s>
    -0.30103 yes -0.1

    \2-grams:
    -0.2 <s> yes

    \end\

Probabilities are log10 in the file and nats here.
"""

import math
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias, final

from etude.base.errors import DataError
from etude.base.regular import reading
from etude.data.files.lines import shown

BEGIN, END = "<s>", "</s>"
UNKNOWN = ("<unk>", "<UNK>")
"""How models call a word that they do not know."""
NEVER_SEEN = -100.0
"""The log10 of the probability of an unknown word where the model has none for it, as KenLM has it."""
ROUNDING = 1e-4
"""A log-probability may be this far above 0, which rounding in other tools leaves."""
NATS = math.log(10.0)

Context: TypeAlias = tuple[str, ...]
_COUNT = re.compile(rb"ngram[ \t]+(\d+)[ \t]*=[ \t]*(\d+)")
_SECTION = re.compile(rb"\\(\d+)-grams:")


@final
@dataclass(frozen=True, slots=True)
class Ngram:
    """A backoff model over words: the log-probability of the next word after those before it.

    A context is a value: the last `order` - 1 words, of which the first is `<s>` where a text begins. A word that the
    model does not know counts as its `<unk>`.
    """

    order: int
    logs: dict[Context, float]
    """The log-probability in nats of the last word of each n-gram."""
    backoffs: dict[Context, float]
    """What a context adds in nats where the next word was not seen after it; 0 for others."""

    def start(self) -> Context:
        """The context where a text begins."""
        return self._last((BEGIN,))

    def score(self, context: Context, word: str, /) -> tuple[float, Context]:
        """The log-probability of a word in nats, and the context after it."""
        word = self._known(word)
        return self._log(context, word), self._last((*context, word))

    def end(self, context: Context, /) -> float:
        """The log-probability in nats that the text is over."""
        return self._log(context, END)

    def knows(self, word: str) -> bool:
        """Whether it is one of the model's words."""
        return (word,) in self.logs

    def _known(self, word: str) -> str:
        if (word,) in self.logs:
            return word
        return next((unknown for unknown in UNKNOWN if (unknown,) in self.logs), word)

    def _log(self, context: Context, word: str) -> float:
        """p(w | h) as it stands, else backoff(h) p(w | h without its first word)."""
        total = 0.0
        for first in range(len(context) + 1):
            seen = context[first:]
            log = self.logs.get((*seen, word))
            if log is not None:
                return total + log
            total += self.backoffs.get(seen, 0.0)
        return total + NEVER_SEEN * NATS

    def _last(self, words: Context) -> Context:
        return words[max(0, len(words) - self.order + 1) :]


def read_arpa(path: Path) -> Ngram:
    """The model of a file. Raises DataError with path and line where it is damaged, and where it cannot be read."""
    with _told(path), reading(path) as file:
        reader = _Reader(path, enumerate(file, 1))
        return reader.read()


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"{shown(path)} cannot be read: {error.strerror}.") from error


@final
@dataclass(slots=True)
class _Reader:
    """Reads line after line; where each part begins, the one before it must be whole."""

    path: Path
    lines: Iterator[tuple[int, bytes]]
    number: int = 0
    logs: dict[Context, float] = field(default_factory=dict)
    backoffs: dict[Context, float] = field(default_factory=dict)

    def read(self) -> Ngram:
        """The whole model."""
        line = self._next()
        while line != b"\\data\\":
            line = self._next()
        counts, line = self._counts()
        for order, count in enumerate(counts, 1):
            line = self._section(line, order, count, last=order == len(counts))
        if line != b"\\end\\":
            raise self._flaw(f"must be \\end\\, but is {_quoted(line)}")
        for word in (BEGIN, END):
            if (word,) not in self.logs:
                raise DataError(f"{shown(self.path)} has no {word} among its 1-grams, without which no text is scored.")
        return Ngram(len(counts), self.logs, self.backoffs)

    def _next(self) -> bytes:
        """The next line that is not blank, without white space around it."""
        for number, line in self.lines:
            self.number = number
            if stripped := line.strip():
                return stripped
        raise DataError(f"{shown(self.path)} is no whole ARPA model: it ends after line {self.number}.")

    def _counts(self) -> tuple[list[int], bytes]:
        """How many n-grams of each order there are, and the line after that."""
        counts: list[int] = []
        line = self._next()
        while found := _COUNT.fullmatch(line):
            if int(found[1]) != len(counts) + 1:
                raise self._flaw(f"must count {len(counts) + 1}-grams, but counts {int(found[1])}-grams")
            counts.append(int(found[2]))
            line = self._next()
        if not counts:
            raise self._flaw(f'must be "ngram 1=COUNT", but is {_quoted(line)}')
        return counts, line

    def _section(self, line: bytes, order: int, count: int, *, last: bool) -> bytes:
        """Take the n-grams of one order in; the line after them."""
        header = _SECTION.fullmatch(line)
        if header is None or int(header[1]) != order:
            raise self._flaw(f"must be \\{order}-grams:, but is {_quoted(line)}")
        found = 0
        line = self._next()
        while not line.startswith(b"\\"):
            self._take(line.split(), order, last=last)
            found += 1
            line = self._next()
        if found != count:
            raise self._flaw(f"comes after {found:,} {order}-grams, but there must be {count:,}")
        return line

    def _take(self, parts: list[bytes], order: int, *, last: bool) -> None:
        if not order < len(parts) <= order + 2 - last:
            raise self._flaw(f"must be a log-probability, {order} words{'' if last else ' and perhaps a backoff'}")
        words = tuple(sys.intern(_text(part)) for part in parts[1 : order + 1])
        if words in self.logs:
            raise self._flaw(f"has {_quoted(b' '.join(parts[1 : order + 1]))} a second time")
        log = self._number(parts[0])
        if log > ROUNDING:
            raise self._flaw(f"has a log-probability of {log}, which must not be above 0")
        self.logs[words] = min(log, 0.0) * NATS
        if len(parts) > order + 1:
            self.backoffs[words] = self._number(parts[-1]) * NATS

    def _number(self, part: bytes) -> float:
        try:
            value = float(part)
        except ValueError:
            value = math.nan
        if math.isnan(value) or value == math.inf:
            raise self._flaw(f"must have a number, but has {_quoted(part)}")
        return value

    def _flaw(self, reason: str) -> DataError:
        return DataError(f"{shown(self.path)}, line {self.number}, {reason}.")


def _text(part: bytes) -> str:
    return part.decode("utf-8", "replace")


def _quoted(part: bytes) -> str:
    return f'"{shown(_text(part), 60)}"'
