"""Greedy search in frames that come in pieces, and words of the labels as soon as nothing can change them.

What is found in any pieces is what `etude.search.ctc.greedy`, `etude.search.transducer.greedy` and
`etude.search.words.words` find in the whole; what is kept does not grow with it.

Legend: T frames, E width of the encoder, V classes.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol, final

import torch
from torch import Tensor

from etude.base.errors import DataError
from etude.data.tokens.tokenizers import REPLACEMENT
from etude.model.exact import exact
from etude.search.ctc import Label
from etude.search.text_stream import LOOKBACK, Decode
from etude.search.transducer import Head, log_probabilities
from etude.search.words import AHEAD, Character, Clock, Word, apart, characters_of, spelled_by, word_of

LONGEST = 100
"""Characters of a word: a longer one, as of a writing without spaces, is given in parts."""
MOST_SHARES = 4096
"""Frames of a label whose probabilities are kept one by one; of a longer one they are added up."""


class LabelStream(Protocol):
    """Finds the labels of one sequence."""

    def push(self, encoded_1TE: Tensor) -> list[Label]:
        """Take more frames; the labels that are final now. Raises DataError for a frame that is not a number."""

    def end(self) -> list[Label]:
        """The labels that are final since no frame comes any more."""


@final
class CtcStream(LabelStream):
    """The most probable class of each frame; a label is final where its run ends. `logs` makes log-probabilities."""

    def __init__(self, logs: Callable[[Tensor], Tensor], blank: int) -> None:
        self._logs, self._blank = logs, blank
        self._seen = 0
        self._run = _Run(blank, 0)

    @torch.no_grad()
    def push(self, encoded_1TE: Tensor) -> list[Label]:
        """The labels whose runs have ended."""
        logs_TV = exact(self._logs(encoded_1TE)[0])
        _check(logs_TV, self._seen)
        best_T = logs_TV.argmax(-1)  # argmax promises the first of equal ones
        shares_T = logs_TV.gather(1, best_T[:, None])[:, 0].exp()
        found: list[Label] = []
        for label, share in zip(best_T.tolist(), shares_T.tolist(), strict=True):
            if label != self._run.label:
                found += self._ended()
                self._run = _Run(label, self._seen)
            self._run.add(share)
            self._seen += 1
        return found

    def end(self) -> list[Label]:
        """The label that the last frames are of, where they are of one."""
        found = self._ended()
        self._run = _Run(self._blank, self._seen)
        return found

    def _ended(self) -> list[Label]:
        if self._run.label == self._blank:
            return []
        return [Label(self._run.label, self._run.start, self._seen, self._run.mean)]


@final
class _Run:
    """Frames of one class."""

    def __init__(self, label: int, start: int) -> None:
        self.label, self.start = label, start
        self._count = 0
        self._shares: list[float] = []

    def add(self, share: float) -> None:
        """One more, with its probability."""
        self._count += 1
        self._shares.append(share)
        if len(self._shares) > MOST_SHARES:
            self._shares = [math.fsum(self._shares)]

    @property
    def mean(self) -> float:
        """Of the probabilities."""
        return math.fsum(self._shares) / self._count


@final
class TransducerStream(LabelStream):
    """The most probable class at each step, up to `most` labels a frame; a label is final at once."""

    def __init__(self, head: Head, most: int, device: torch.device) -> None:
        self._head, self._most = head, most
        self._seen = 0
        with torch.no_grad():
            self._said_1E, self._state = head.predictor.start(1, device)

    @torch.no_grad()
    def push(self, encoded_1TE: Tensor) -> list[Label]:
        """The labels of these frames."""
        found: list[Label] = []
        for frame_1E in encoded_1TE.unbind(1):
            found += self._of_frame(frame_1E)
            self._seen += 1
        return found

    def end(self) -> list[Label]:
        """None: nothing waits."""
        return []

    def _of_frame(self, frame_1E: Tensor) -> Iterator[Label]:
        for _ in range(self._most):
            logs_1V = log_probabilities(self._head.joint, frame_1E, self._said_1E)
            _check(logs_1V, self._seen)
            best_1 = logs_1V.argmax(1)  # argmax promises the first of equal ones
            label = int(best_1)
            if label == self._head.blank:
                return
            yield Label(label, self._seen, self._seen + 1, float(logs_1V[0, label].exp()))
            self._said_1E, self._state = self._head.predictor.step(best_1, self._state)


def _check(logs_TV: Tensor, seen: int) -> None:
    broken_T = logs_TV.isnan().any(1)
    if broken_T.any():
        frame = seen + int(broken_T.nonzero()[0, 0])
        raise DataError(f"The model gives what is no number for frame {frame:,} of the sound, and so no words.")


# -- words -----------------------------------------------------------------------------------------------------------


class Spoken(NamedTuple):
    """One word."""

    before: str
    """The white space between the word before it and this one; none before the first, or within a word's parts."""
    word: Word


@final
class WordStream:
    """Gives each word once its last label has come and what parts it from the next, with the times of `words`.

    Labels come in order; those of one call begin where those of earlier calls have ended, or later. One that may be
    the beginning of a character waits for up to AHEAD more; all labels do where what `decode` gives of some may change
    by those behind them (`settled` is false). A word of more than LONGEST characters comes in parts.
    """

    def __init__(self, decode: Decode, clock: Clock, *, settled: bool = True) -> None:
        self._decode, self._clock, self._settled = decode, clock, settled
        self._labels: list[Label] = []
        """Those that are still to be read, behind LOOKBACK others."""
        self._at = 0
        """The first to be read."""
        self._begun: list[Label] = []
        """Those that begin a character that has not come."""
        self._word: list[Character] = []
        self._space = ""
        """What stands before the word."""
        self._is_first = True
        self._last: Spoken | None = None
        """What ends, at the latest, where the next word begins."""

    def push(self, labels: Iterable[Label]) -> list[Spoken]:
        """Take more labels; the words that are final now."""
        self._labels += labels
        found = [spoken for text, own in self._read(ends=False) for spoken in self._words_of(text, own)]
        given = list(self._follow(found))
        if self._at == len(self._labels) and not self._begun:
            given += self._free()
        return given

    def end(self) -> list[Spoken]:
        """The words that are final since no label comes any more."""
        found = [spoken for text, own in self._read(ends=True) for spoken in self._words_of(text, own)]
        if self._word:
            found.append(self._finished())
        return [*self._follow(found), *self._free()]

    def _read(self, *, ends: bool) -> Iterator[tuple[str, Sequence[Label]]]:
        """What labels spell, and those that spell it together."""
        ids = [one.label for one in self._labels]
        while self._at < len(ids) and (ends or not self._waits(ids)):
            text, begins = spelled_by(ids, self._at, self._decode)
            if text or begins:
                self._begun.append(self._labels[self._at])
            if text:
                yield text, tuple(self._begun)
                self._begun = []
            self._at += 1
        past = max(0, self._at - LOOKBACK)
        self._labels, self._at = self._labels[past:], self._at - past

    def _waits(self, ids: Sequence[int]) -> bool:
        """Whether what the next label spells may change by those behind it, which have not come."""
        if len(ids) > self._at + AHEAD:
            return False
        if not self._settled:
            return True
        return self._decode(ids[max(0, self._at - LOOKBACK) : self._at + 1]).endswith(REPLACEMENT)

    def _words_of(self, text: str, labels: Sequence[Label]) -> Iterator[Spoken]:
        """The words that these characters end."""
        for character in characters_of(text, labels):
            if character.is_space():
                if self._word:
                    yield self._finished()
                self._space = (self._space + character.text)[:LONGEST]
            else:
                self._word.append(character)
                if len(self._word) == LONGEST:
                    yield self._finished()

    def _finished(self) -> Spoken:
        space = "" if self._is_first else self._space
        word = word_of(self._word, self._clock)
        self._word, self._space, self._is_first = [], "", False
        return Spoken(space, word)

    def _follow(self, found: Iterable[Spoken]) -> Iterator[Spoken]:
        """Words whose next one has come."""
        for spoken in found:
            later = spoken
            if self._last is not None:
                word, moved = apart(self._last.word, spoken.word)
                yield self._last._replace(word=word)
                later = spoken._replace(word=moved)
            self._last = later

    def _free(self) -> Iterator[Spoken]:
        """The last word, whose end only a word that has begun can move."""
        if self._last is None:
            return
        last, self._last = self._last, None
        if self._word:
            end = min(last.word.end, max(self._clock.at(self._word[0].start), last.word.start))
            last = last._replace(word=replace(last.word, end=end))
        yield last
